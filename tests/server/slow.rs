//! Clients that cannot keep up, and crowds: nobody waits for another, nobody misses anything, and
//! the server's memory is its own.

use std::{
    io::Read,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tungstenite::Message;

use crate::support::*;

/// One speaks, the other hears it at once.
#[track_caller]
fn promptly(ann: &mut Client, bob: &mut Client, text: &str) -> Heard {
    let begun = Instant::now();
    ann.say(text);
    let heard = bob.hears(text);
    assert_eq!(ann.hears(text), heard);
    assert!(begun.elapsed() < PROMPT, "{} took {:?}", cut(text), begun.elapsed());
    heard
}

#[test]
fn a_slow_client_misses_nothing_and_delays_nobody() {
    const COUNT: usize = 1000;
    // Sixteen megabytes: more than the sockets in between can swallow.
    const LENGTH: usize = 16 << 10;
    let server = Server::with(&[&NO_STALL[..], &["--fsync", "never"]].concat());
    let (mut ann, mut bob) = (server.join(), server.join());
    let mut slow = Client::on(server.connect_narrow(), "/ws").expect("it joins");
    for number in 1..=COUNT {
        assert_eq!(promptly(&mut ann, &mut bob, &padded(number, LENGTH)).id, number as u64);
    }
    // While it was away it also said things of its own.
    slow.say("1.25");
    bob.hears("1.25");
    slow.say("nonsense");
    slow.send(Message::Ping("hello".into()));
    let (mut id, mut told, mut ponged) = (0, 0, 0);
    while id < COUNT as u64 + 1 || told + ponged < 2 {
        match slow.next_of_all() {
            Frame::Message(heard) => {
                id += 1;
                assert_eq!(heard.id, id, "one missed or doubled");
                let said = if id > COUNT as u64 { "1.25" } else { &padded(id as usize, LENGTH) };
                assert!(heard.data == said, "message {id} is {}", cut(&heard.data));
            }
            Frame::Answer(answer) => {
                assert_eq!(answer.code, "not_json");
                told += 1;
            }
            Frame::Pong(payload) => {
                assert_eq!(payload, b"hello");
                ponged += 1;
            }
            Frame::Ping => (),
            other => panic!("{other:?} after message {id}"),
        }
    }
    assert_eq!((told, ponged), (1, 1));
    // It has caught up and is one like the others.
    ann.hears("1.25");
    promptly(&mut ann, &mut slow, "2");
    bob.hears("2");
    promptly(&mut slow, &mut bob, "3");
}

#[test]
fn a_client_that_is_slow_again_and_again_misses_nothing() {
    const COUNT: usize = 4000;
    let server = Server::with(&[&NO_STALL[..], &["--fsync", "never"]].concat());
    let mut ann = server.join();
    let mut dice = Dice::new();
    let slow = Client::on(server.connect_narrow(), "/ws").expect("it joins");
    thread::scope(|scope| {
        let listener = scope.spawn(move || {
            let mut slow = slow;
            for id in 1..=COUNT as u64 {
                if dice.below(40) == 0 {
                    // Being slow is the point here; there is nothing to wait for.
                    thread::sleep(Duration::from_millis(dice.below(60)));
                }
                let heard = slow.hears_one();
                assert_eq!(heard.id, id, "one missed or doubled");
                assert!(heard.data == padded(id as usize, 2000), "message {id}");
            }
        });
        // As fast as the server takes them, and read in between, so that ann is not slow herself.
        for numbers in (1..=COUNT).collect::<Vec<_>>().chunks(50) {
            for number in numbers {
                ann.say(&padded(*number, 2000));
            }
            for number in numbers {
                assert_eq!(ann.hears_one().id, *number as u64);
            }
        }
        listener.join().expect("it misses nothing");
    });
}

#[test]
fn a_client_that_never_reads_is_closed_after_the_stall_timeout() {
    // The clients that read must not be held up for so long.
    with_more_and_more_time([1, 5, 25].map(Duration::from_secs), |stall_timeout| {
        let stall = format!("{}s", stall_timeout.as_secs());
        let server = Server::with(&["--stall-timeout", &stall, "--fsync", "never"]);
        let (mut ann, mut bob) = (server.join(), server.join());
        let size = server.size();
        let deaf = server.deaf_join();
        let begun = Instant::now();
        let mut error = None;
        // Talk goes on until the server has had enough, which arrives as a reset: a deaf peer would
        // never see an orderly end.
        for number in 1.. {
            promptly(&mut ann, &mut bob, &padded(number, 64 << 10));
            error = deaf.stream.take_error().expect("a socket has a state");
            if error.is_some() || begun.elapsed() > PATIENCE {
                break;
            }
            if number > 400 {
                // Enough said: no need to fill the disk while waiting for the reset.
                thread::sleep(Duration::from_millis(20));
            }
        }
        let took = begun.elapsed();
        assert!(error.is_some(), "still there after {took:?}");
        assert!(took > stall_timeout.mul_f64(0.9), "closed after {took:?}");
        server.shrinks_to(size);
    });
}

#[test]
fn a_client_that_never_reads_its_history_is_closed_too() {
    let server =
        Setup::new().file(padded_lines(12_000, 1000)).flags(&["--stall-timeout", "500ms"]).start();
    let (mut ann, mut bob) = (server.join_at("/ws?limit=0"), server.join_at("/ws?limit=0"));
    let size = server.size();
    let deaf: Vec<Raw> = (0..10).map(|_| server.deaf_join()).collect();
    promptly(&mut ann, &mut bob, "1");
    for raw in &deaf {
        until("it is reset", || raw.stream.take_error().expect("a socket").is_some());
    }
    server.shrinks_to(size);
    promptly(&mut ann, &mut bob, "2");
}

#[test]
fn a_client_that_reads_a_large_history_slowly_stays() {
    with_more_and_more_time([3, 12, 48].map(Duration::from_secs), |stall_timeout| {
        let file = padded_lines(16_000, 1000);
        let stall = format!("{}s", stall_timeout.as_secs());
        let server = Setup::new()
            .file(&file)
            .flags(&["--stall-timeout", &stall, "--fsync", "never"])
            .start();
        let (mut ann, mut bob) = (server.join_at("/ws?limit=0"), server.join_at("/ws?limit=0"));
        let mut slow = server.deaf_join();
        let begun = Instant::now();
        let mut bytes = vec![0; 32 << 10];
        let mut read = Vec::new();
        let mut said = 0;
        // It takes something all the time, though little: for more than twice the stall timeout.
        for round in 0.. {
            let count = slow.stream.read(&mut bytes).expect("the connection stays");
            assert!(count > 0, "the connection ended after {:?}", begun.elapsed());
            read.extend(&bytes[..count]);
            if begun.elapsed() > stall_timeout.mul_f64(2.3) {
                break;
            }
            if round % 10 == 0 {
                said += 1;
                promptly(&mut ann, &mut bob, &said.to_string());
            }
            // Being slow is the point here; there is nothing to wait for.
            thread::sleep(stall_timeout / 66);
        }
        assert!(read.len() < file.len() / 2, "too fast to be slow: {} bytes", read.len());
        let mut slow = slow.having_read(read);
        assert_eq!(slow.response().status, 101);
        let history = History::parse(&slow.text());
        assert_eq!(history.last_id, 16_000);
        assert!(history.data() == file.trim_end().replace('\n', ","), "a wrong history");
        for number in 1..=said {
            assert_eq!(slow.hears(&number.to_string()).id, 16_000 + number);
        }
    });
}

#[test]
fn a_client_that_asks_much_and_reads_late_misses_no_answer() {
    const COUNT: usize = 1_000;
    // The history is still being sent while it asks.
    let server = Setup::new().file(padded_lines(8_000, 1000)).flags(&NO_STALL).start();
    let mut ann = server.join_at("/ws?limit=0");
    let mut late = server.deaf_join();
    let stream = late.stream.try_clone().expect("a second handle");
    let asking = thread::spawn(move || {
        let mut asking = Raw::on(stream);
        for number in 0..COUNT {
            asking.send(frame(TEXT, "nonsense"));
            asking.send(frame(TEXT, number.to_string()));
            asking.send(frame(PING, number.to_string()));
        }
    });
    // What was said before too many answers waited is heard at once.
    ann.hears("0");
    assert_eq!(late.response().status, 101);
    assert_eq!(History::parse(&late.text()).last_id, 8_000);
    let (mut told, mut heard, mut ponged) = (0, 0, 0);
    while (told, heard, ponged) != (COUNT, COUNT, COUNT) {
        let RawFrame { first, payload } = late.frame();
        let text = String::from_utf8(payload).expect("UTF-8");
        match (first, Heard::parse(&text)) {
            (PONG, _) => {
                assert_eq!(text, ponged.to_string());
                ponged += 1;
            }
            (_, Some(message)) => {
                assert_eq!(message.data, heard.to_string());
                heard += 1;
            }
            (_, None) => {
                assert_eq!(Answer::parse(&text).code, "not_json");
                told += 1;
            }
        }
    }
    asking.join().expect("all is asked");
}

/// Joins and compares the history with what it must begin with while it comes in, so that a crowd
/// of these needs little memory; what is beyond is left in the history.
#[track_caller]
fn join_comparing(server: &Server, known: &str) -> (Raw, History) {
    const START: &str = r#"{"type":"message_history","data":["#;
    let mut raw = server.raw();
    raw.send(server.head("/ws", &[]));
    assert_eq!(raw.response().status, 101);
    let length = raw.text_begins();
    for part in [START, known].iter().flat_map(|text| text.as_bytes().chunks(64 << 10)) {
        assert!(raw.takes(part.len()) == part, "a wrong history");
    }
    let beyond = raw.takes(length - START.len() - known.len());
    let beyond = String::from_utf8(beyond).expect("UTF-8");
    let history = History::parse(&format!("{START}0{beyond}"));
    (raw, history)
}

#[test]
fn a_storm_of_joins_gets_whole_histories_and_delays_nobody() {
    const JOINS: usize = 200;
    let file = padded_lines(2000, 1000);
    let known = file.trim_end().replace('\n', ",");
    let server = Setup::new().file(&file).flags(&["--fsync", "never"]).start();
    let mut ann = server.join_at("/ws?limit=0");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let speaker = scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                number += 1;
                let begun = Instant::now();
                assert_eq!(ann.says(&number.to_string()).id, 2000 + number);
                assert!(begun.elapsed() < PROMPT, "delayed by {:?}", begun.elapsed());
            }
        });
        {
            let _ends = EndsWithMe(&done);
            let join = || {
                let (mut raw, history) = join_comparing(&server, &known);
                assert_eq!((history.first_id, &history.skipped), (1, &vec![]));
                // Message 2000 + n is n.
                let beyond =
                    history.data().split(',').skip(1).map(|n| n.parse::<u64>().expect("a number"));
                assert!(beyond.eq(1..=history.last_id - 2000), "up to {}", history.last_id);
                for id in (history.last_id + 1..).take(5) {
                    assert_eq!(raw.hears(&(id - 2000).to_string()).id, id, "after the history");
                }
            };
            let joins: Vec<_> = (0..JOINS).map(|_| scope.spawn(join)).collect();
            joins.into_iter().for_each(|join| join.join().expect("a whole history"));
        }
        speaker.join().expect("she is not delayed");
    });
    // 200 histories are 400 MB; the server has one block of memory for each.
    let peak = server.status("VmHWM") >> 10;
    assert!(peak < 100, "{peak} MiB at the peak");
}

#[test]
fn a_history_costs_no_memory() {
    let server = Server::on(padded_lines(24_000, 1000));
    let mut ann = server.join();
    assert_eq!(ann.history.last_id, 24_000);
    assert_eq!(ann.says("1").id, 24_001);
    let peak = server.status("VmHWM") >> 10;
    assert!(peak < 16, "{peak} MiB for a file of 24 MB");
}

#[test]
fn a_crowd_that_does_not_read_costs_little() {
    const CROWD: usize = 50;
    let server = Server::with(&[&NO_STALL[..], &["--fsync", "never"]].concat());
    let (mut ann, mut bob) = (server.join(), server.join());
    let crowd: Vec<Raw> = (0..CROWD).map(|_| server.deaf_join()).collect();
    // Eight megabytes to each of them would be 400 MB in queues.
    for number in 0..128 {
        promptly(&mut ann, &mut bob, &padded(number, 64 << 10));
    }
    let peak = server.status("VmHWM") >> 10;
    assert!(peak < 64, "{peak} MiB for {CROWD} clients that do not read");
    drop(crowd);
    promptly(&mut ann, &mut bob, "1");
}

#[test]
fn a_server_without_descriptors_comes_back_when_there_are_some() {
    let server = Server::start();
    let mut ann = server.join();
    // From the start on it would admit no more clients than it has descriptors for.
    let few = Rlimit { current: Some(40), maximum: Some(40) };
    let pid = Pid::from_raw(server.pid() as i32);
    prlimit(pid, Resource::Nofile, few).expect("another limit for the server");
    let crowd: Vec<_> = (0..100).map(|_| server.connect()).collect();
    // With no descriptor left for clients, those who are in still talk and are stored.
    ann.says("1");
    until("it has no descriptor left", || server.descriptors() > 35);
    ann.says("2");
    drop(crowd);
    let mut newcomer = None;
    until("there is room for a newcomer", || {
        newcomer = Client::on(server.connect(), "/ws").ok();
        newcomer.is_some()
    });
    let mut bob = newcomer.expect("it joined");
    ann.says("3");
    bob.hears("3");
    assert_eq!(server.lines(), ["1", "2", "3"]);
    let log = server.log();
    assert!(log.lines().count() < 30, "too many words about one shortage:\n{log}");
}
