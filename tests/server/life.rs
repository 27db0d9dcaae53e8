//! The life of the process: flags, the first words, the orderly stop, exit codes.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::support::*;

/// A stop that waits for somebody takes longer than this: it gives them five seconds.
const STOP_TIME: Duration = Duration::from_millis(4_500);

#[test]
fn the_first_line_says_what_runs_and_what_it_promises() {
    let server = Server::on(SEED);
    let log = server.log();
    let is_it = |line: &&str| line.contains("ws://");
    let first = log.lines().find(is_it).expect("a line that says where it is");
    let page = format!("http://{}/ ", server.address());
    let socket = format!("ws://{}/ws;", server.address());
    for word in [env!("CARGO_PKG_VERSION"), &page, &socket, "messages.txt", "7 messages"] {
        assert!(first.contains(word), "{word:?} is not in {first:?}");
    }
    let promise = |mode: &str| {
        let log = Server::with(&["--fsync", mode]).log();
        let line = log.lines().find(is_it).expect("a line that says where it is").to_owned();
        line.split_once("sync").map(|(_, rest)| rest.to_owned()).expect("a word about syncing")
    };
    let promises = [promise("always"), promise("1s"), promise("never")];
    assert!(promises[0] != promises[1] && promises[1] != promises[2], "{promises:?}");
}

#[test]
fn help_explains_every_flag_on_one_screen() {
    let ended = Setup::bare().flags(&["--help"]).ends();
    ended.with(0, &[]);
    for flag in [
        "--listen",
        "--file",
        "--fsync",
        "--max-message",
        "--max-clients",
        "--ping-interval",
        "--stall-timeout",
        "--history-limit",
        "--allow-origin",
        "--log-level",
        "--log-file",
        "--version",
        "TXTCORD_",
    ] {
        assert!(ended.out.contains(flag), "{flag} is not in\n{}", ended.out);
    }
    assert!(ended.out.lines().count() <= 50, "more than a screen:\n{}", ended.out);
    let ended = Setup::bare().flags(&["--version"]).ends();
    assert_eq!(ended.with(0, &[]).out, format!("txtcord {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_2_with_a_way_out() {
    #[track_caller]
    fn check(flags: &[&str], words: &[&str]) {
        Setup::bare().flags(flags).ends().with(2, words);
    }
    check(&["--nonsense"], &["--nonsense"]);
    check(&["messages.txt"], &["messages.txt"]);
    check(&["--listen", "x"], &["invalid address", "127.0.0.1:8000"]);
    check(&["--listen", "127.0.0.1:99999"], &["invalid address"]);
    check(&["--fsync", "sometimes"], &["sometimes"]);
    check(&["--max-message", "big"], &["invalid size", "1MiB"]);
    check(&["--max-message", "0"], &["1B"]);
    check(&["--max-clients", "-1"], &["'-1' for '--max-clients <N>'", "from 1 to"]);
    check(&["--max-clients", "0"], &["'0' for '--max-clients <N>'", "from 1 to"]);
    check(&["--max-clients", "many"], &["many"]);
    check(&["--ping-interval", "soon"], &["invalid time", "20s"]);
    check(&["--stall-timeout", "0s"], &["0s"]);
    check(&["--history-limit", "some"], &["some"]);
    check(&["--history-limit", "-5"], &["'-5' for '--history-limit <N>'", "from 0 to"]);
    check(&["--listen", "-1"], &["'-1' for '--listen <ADDR>'", "127.0.0.1:8000"]);
    check(&["--file", "-1"], &["'-1' for '--file <PATH>'", "./-1"]);
    check(&["--log-level", "loud"], &["loud"]);
}

#[test]
fn a_token_that_cannot_be_printed_is_1_with_a_sentence() {
    let ended = Setup::bare().flags(&["token", "ann"]).after("exec > /dev/full").ends();
    ended.with(1, &["txtcord: the token cannot be printed"]);
}

#[test]
fn every_flag_can_be_a_variable() {
    let setup = Setup::bare()
        .variable("TXTCORD_LISTEN", "127.0.0.1:0")
        .variable("TXTCORD_FILE", "elsewhere.txt")
        .variable("TXTCORD_FSYNC", "never")
        .variable("TXTCORD_MAX_MESSAGE", "10B")
        .variable("TXTCORD_MAX_CLIENTS", "2")
        .variable("TXTCORD_PING_INTERVAL", "1m")
        .variable("TXTCORD_STALL_TIMEOUT", "1m")
        .variable("TXTCORD_HISTORY_LIMIT", "1")
        .variable("TXTCORD_ALLOW_ORIGIN", "https://a.example,https://b.example")
        .variable("TXTCORD_LOG_LEVEL", "debug");
    for (name, wrong) in [
        ("TXTCORD_FSYNC", "sometimes"),
        ("TXTCORD_PING_INTERVAL", "soon"),
        ("TXTCORD_STALL_TIMEOUT", "later"),
        ("TXTCORD_LOG_LEVEL", "loud"),
    ] {
        setup.clone().variable(name, wrong).ends().with(2, &[wrong]);
    }
    setup.clone().variable("TXTCORD_LOG_FILE", "no/such/place.log").ends().with(1, &["place.log"]);
    // A flag is nearer than a variable.
    setup.clone().flags(&["--fsync", "sometimes"]).ends().with(2, &["sometimes"]);
    let server = setup.start();
    let mut ann = server.join();
    ann.says(r#"{"a":1}"#);
    ann.says(r#"{"a":2}"#);
    let file = fs::read(server.dir.join("elsewhere.txt")).expect("the file of the variable");
    assert_eq!(file, b"{\"a\":1}\n{\"a\":2}\n");
    let page = server.head("/ws", &[("Origin", "https://b.example")]);
    let mut bob = server.raw();
    bob.send(page);
    assert_eq!(bob.response().status, 101);
    assert_eq!(History::parse(&bob.text()).messages(), [(2, r#"{"a":2}"#)]);
    server.asked(server.head("/ws", &[])).refuses(503, &[]);
    ann.say(r#"{"a":"long"}"#);
    ann.is_closed_with(1009);
}

#[test]
fn the_log_can_go_to_a_file() {
    let setup = Setup::new().flags(&["--log-file", "txtcord.log"]);
    let server = setup.begin();
    let path = setup.dir.join("txtcord.log");
    until("the log tells the port", || {
        fs::read_to_string(&path).is_ok_and(|log| log.contains("/ws"))
    });
    server.signal("TERM");
    let ended = server.ends();
    ended.with(0, &[]);
    assert_eq!(ended.log, "", "standard error stays quiet");
}

#[test]
fn a_line_of_the_log_is_one_write_so_that_the_lines_of_others_stay_whole() {
    // Each write is a datagram of its own.
    let (log, stderr) = UnixDatagram::pair().expect("a socket pair");
    log.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let setup = Setup::bare().flags(&["--file", "/"]);
    let status = setup.command().stderr(OwnedFd::from(stderr)).status();
    assert_eq!(status.expect("the server runs").code(), Some(66));
    let mut line = [0; 1024];
    let len = log.recv(&mut line).expect("a line");
    let line = String::from_utf8_lossy(&line[..len]);
    assert!(line.contains("directory") && line.ends_with('\n'), "{line:?}");
}

#[test]
fn a_file_whose_name_has_a_line_end_breaks_no_line_of_the_log() {
    let flags = ["--listen", "127.0.0.1:0", "--file", "two\nlines\u{1b}.txt"];
    let log = Setup::bare().flags(&flags).start().log();
    assert!(log.contains(r"two\nlines\x1b.txt"), "{log}");
    assert!(log.lines().all(|line| line.contains("Z [")), "{log}");
}

#[test]
fn the_log_never_holds_what_people_say() {
    let server = Setup::new().flags(&["--log-level", "trace"]).start();
    let mut ann = server.join_at("/ws?as=ann&key=hunter2hunter2");
    ann.say("the password is swordfish");
    ann.hears_one();
    let mut bob = server.join();
    bob.says(r#"{"content":"swordfish"}"#);
    bob.say("swordfish, but no JSON");
    ann.hears_one();
    bob.is_told("not_json");
    server.dir.append("swordfish\n");
    server.dir.append("\"a foreign swordfish\"\n");
    ann.hears("\"a foreign swordfish\"");
    let mut cleo = server.raw_join();
    cleo.send(frame(TEXT, b"swordfish \xff"));
    cleo.is_closed_with(1007);
    let mut dan = server.raw_join();
    dan.send([frame(TEXT_BEGINS, "swordfish"), frame(TEXT, "swordfish")].concat());
    dan.is_closed_with(1002);
    server.asked(server.head("/ws", &[("Origin", "http://evil.example/\u{1b}[31m")]));
    server.asked(server.head("/nope\u{7f}", &[]));
    drop((ann, bob, cleo, dan));
    server.signal("TERM");
    let ended = server.ends();
    assert!(!ended.log.contains("swordfish"), "{}", ended.log);
    assert!(!ended.log.contains("hunter2"), "{}", ended.log);
    let wild = |it: char| it.is_control() && it != '\n' && it != '\t';
    assert!(!ended.log.contains(wild), "{:?}", ended.log);
}

#[test]
fn a_busy_address_is_98() {
    let busy = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = busy.local_addr().expect("it is bound").to_string();
    let setup = Setup::bare().flags(&["--file", "messages.txt", "--listen", &address]);
    setup.ends().with(98, &[&address]);
}

#[test]
fn a_restart_on_the_same_port_needs_no_pause() {
    // The server gives its clients five seconds at a stop.
    in_one_of_a_few_attempts(|| {
        let setup = Setup::on_its_own_address();
        let address = setup.start().address();
        let setup = Setup::at(address, setup.dir);
        for _ in 0..3 {
            let server = setup.start();
            let mut ann = server.join();
            ann.says("1");
            // The server closes first, so its side is the one that lingers in TIME_WAIT.
            server.signal("TERM");
            ann.is_closed_with(1012);
            drop(ann);
            server.ends().with(0, &[]);
        }
    });
}

#[test]
fn a_stop_says_come_back_to_everyone_and_ends_with_0() {
    // The server gives its clients five seconds at a stop.
    in_one_of_a_few_attempts(|| {
        for signal in ["TERM", "INT"] {
            is_quick(STOP_TIME, || {
                let server = Server::on(SEED);
                let clients: Vec<Client> = (0..10).map(|_| server.join()).collect();
                server.join().says("8");
                let begun = Instant::now();
                server.signal(signal);
                for mut client in clients {
                    let reason = client.is_closed_with(1012);
                    assert!(!reason.is_empty(), "a close has a reason");
                }
                server.ends().with(0, &[]);
                begun.elapsed()
            });
        }
    });
}

#[test]
fn a_stop_waits_for_nobody_for_long() {
    // The server gives its clients five seconds at a stop.
    in_one_of_a_few_attempts(|| {
        let server = Setup::new().file(padded_lines(8000, 1000)).flags(&NO_STALL).start();
        // One that does not read its history, one that does not answer the close, one that has not
        // even asked for anything.
        let (_deaf, mut mute, _silent) = (server.deaf_join(), server.raw_join(), server.raw());
        server.signal("TERM");
        loop {
            let frame = mute.frame();
            if frame.first == CLOSE {
                assert_eq!(frame.payload[..2], 1012_u16.to_be_bytes());
                break;
            }
        }
        server.ends().with(0, &[]);
    });
}

#[test]
fn a_stop_does_not_wait_for_a_start_that_takes_long() {
    // A file without a line end takes no room on the disk, and hours to be searched for one.
    const LONG: u64 = 8 << 40;
    let setup = Setup::new().file("");
    let file = fs::OpenOptions::new().write(true).open(setup.dir.file()).expect("the file");
    if let Err(why) = file.set_len(LONG) {
        let name = "a_stop_does_not_wait_for_a_start_that_takes_long";
        return skipped(name, &format!("no file can be so long: {why}"));
    }
    let server = setup.begin();
    until("it has begun", || setup.dir.join("messages.txt.lock").exists());
    server.signal("TERM");
    server.ends().with(0, &["told to stop before the start was over"]);
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    is_quick(STOP_TIME, || {
        let server = Setup::new().file(padded_lines(8000, 1000)).start();
        let (_deaf, mut mute) = (server.deaf_join(), server.raw_join());
        server.signal("TERM");
        // It has begun to stop, and those two keep it from finishing.
        while mute.frame().first != CLOSE {}
        let begun = Instant::now();
        server.signal("TERM");
        server.ends();
        begun.elapsed()
    });
}

#[test]
fn who_comes_during_the_stop_is_told_to_come_back() {
    // The server gives its clients five seconds at a stop.
    in_one_of_a_few_attempts(|| {
        let server = Setup::new().file(padded_lines(8000, 1000)).start();
        let (_deaf, mut mute) = (server.deaf_join(), server.raw_join());
        server.signal("TERM");
        while mute.frame().first != CLOSE {}
        // Either there is no door any more, or someone at the door who says when to come back.
        let Ok(mut stream) = TcpStream::connect_timeout(&server.address(), PATIENCE) else {
            return;
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        let mut answer = String::new();
        let asked = stream.write_all(&server.head("/ws", &[]));
        let read = asked.and_then(|()| stream.read_to_string(&mut answer));
        assert!(!read.is_err_and(|error| is_timeout(&error)), "left without an answer");
        if !answer.is_empty() {
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(answer.to_lowercase().contains("\r\nretry-after: "), "{answer}");
        }
    });
}

#[test]
fn who_was_connected_before_the_stop_and_asks_during_it_is_told_to_come_back() {
    // The server gives its clients three seconds to answer their close frames.
    in_one_of_a_few_attempts(|| {
        let server = Server::on(SEED);
        let requests = [
            server.head("/ws", &[]),
            ask("GET /messages", &[]),
            ask("GET /messages?follow=1", &[]),
            ask("GET /metrics", &[]),
            ask("PUT /dev", &["Content-Length: 0"]),
            post("8"),
        ];
        let connected = || {
            let mut raw = server.raw();
            assert_eq!(raw.asks(ask("GET /healthz", &[])).status, 200);
            raw
        };
        let asking: Vec<_> = requests.into_iter().map(|request| (connected(), request)).collect();
        // The stop waits for this one, which does not answer the close.
        let mut mute = server.raw_join();
        server.signal("TERM");
        while mute.frame().first != CLOSE {}
        for (mut raw, request) in asking {
            let answer = raw.asks(request);
            answer.refuses(503, &["the server is stopping"]);
            assert!(answer.header("Retry-After").is_some(), "{answer:?}");
            raw.is_over();
        }
        drop(mute);
        server.ends().with(0, &[]);
    });
}

#[test]
fn a_stop_under_load_loses_nothing_that_was_shown() {
    for fsync in ["always", "1s", "never"] {
        in_one_of_a_few_attempts(|| a_stop_under_load(fsync));
    }
}

/// The server gives its clients five seconds at a stop.
#[track_caller]
fn a_stop_under_load(fsync: &str) {
    let setup = Setup::new().flags(&["--fsync", fsync]);
    let server = setup.start();
    let mut listener = server.join();
    let stopping = AtomicBool::new(false);
    let speakers: Vec<Client> = (0..4).map(|_| server.join()).collect();
    let shown: Vec<Heard> = thread::scope(|scope| {
        let _ends = EndsWithMe(&stopping);
        let stopping = &stopping;
        let speakers = each_apart(scope, speakers, |who, mut client: Client| {
            let mut shown = Vec::new();
            for number in 0.. {
                client.try_say(&format!(r#"{{"who":{who},"n":{number}}}"#));
                match client.next() {
                    Frame::Message(heard) => shown.push(heard),
                    Frame::Answer(answer) => {
                        assert_eq!(answer.code, "shutting_down");
                        assert!(stopping.load(Ordering::Relaxed));
                    }
                    Frame::Close(code, _) => {
                        assert_eq!(code, 1012);
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            shown
        });
        let mut shown: Vec<Heard> = (0..200).map(|_| listener.hears_one()).collect();
        stopping.store(true, Ordering::Relaxed);
        server.signal("TERM");
        loop {
            match listener.next() {
                Frame::Message(heard) => shown.push(heard),
                Frame::Close(1012, _) => break,
                other => panic!("{other:?}"),
            }
        }
        for speaker in speakers {
            shown.extend(speaker.join().expect("closed with 1012"));
        }
        shown
    });
    drop(listener);
    server.ends().with(0, &[]);
    let server = setup.start();
    let history = server.join().history;
    let messages = history.messages();
    for heard in shown {
        assert_eq!(messages[heard.id as usize - 1], (heard.id, heard.data.as_str()));
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let setup = Setup::new().flags(&["--log-level", "debug"]);
    let server = setup.command().stderr(Stdio::piped()).spawn().expect("the server");
    let mut server = KilledWhenDropped(server);
    let mut log = BufReader::new(server.0.stderr.take().expect("it is piped"));
    let mut line = String::new();
    // From here on, it is not read.
    let port = loop {
        line.clear();
        log.read_line(&mut line).expect("it says where it listens");
        if let Some((_, rest)) = line.split_once("ws://127.0.0.1:") {
            break rest.split_once('/').expect("a path").0.parse::<u16>().expect("a port");
        }
    };
    let ask = |request: &str| {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket.write_all(request.as_bytes()).expect("the request");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("the answer");
        answer
    };
    // Each is logged in some 80 bytes, and a pipe takes 64 KiB.
    for _ in 0..1500 {
        let answer = ask("GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let answer = ask("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let pid = server.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    assert_eq!(server.0.wait().expect("it ends").code(), Some(0));
}

struct KilledWhenDropped(Child);

impl Drop for KilledWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
