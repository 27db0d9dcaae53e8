//! Streams: `GET /messages?follow=1` and server-sent events.

use std::{fs, io::Read, iter, net::TcpStream, thread, time::Instant};

use crate::{support::*, talk::*};

#[test]
fn followers_hear_what_was_said_and_then_what_is_said_each_from_its_place_on() {
    let server = Server::on(SEED);
    let mut ann = server.join();
    let mut all = server.follow("/messages?follow=1");
    let mut client = server.follow_as_client("/messages?follow=1&limit=1");
    let mut behind = server.follow("/messages?follow&after=5");
    let mut live = server.follow("/messages?follow=true&limit=0");
    all.hears_ids(1..=7);
    client.hears_ids(7..=7);
    behind.hears_ids(6..=7);
    let mut followers = [&mut all, &mut client, &mut behind, &mut live];
    // From the socket, from curl, from another program; each at once.
    let heard = ann.says(r#"{"user":"ann","content":"hi"}"#);
    for follower in &mut followers {
        let told = follower.hears(&heard.data);
        assert_eq!((told.id, told.ts), (heard.id, Some(heard.ts)));
    }
    server.stores("9");
    server.dir.append("10\nnonsense\n12\n");
    for follower in &mut followers {
        for (id, data) in [(9, "9"), (10, "10"), (12, "12")] {
            assert_eq!(follower.hears(data).id, id);
        }
    }
}

#[test]
fn a_proxy_is_told_to_pass_each_stream_on_as_it_comes() {
    let server = Server::on(SEED);
    #[track_caller]
    fn check(server: &Server, path: &str, accept: &str) {
        let mut raw = server.raw();
        raw.send(ask(&format!("HEAD {path}"), &[&format!("Accept: {accept}")]));
        let head = raw.head_alone();
        assert_eq!(head.header("X-Accel-Buffering"), Some("no"), "{head:?}");
    }
    for path in ["/messages", "/*", "/channels"] {
        check(&server, &format!("{path}?follow=1"), "application/x-ndjson");
        check(&server, path, "text/event-stream");
    }
}

#[test]
fn a_follower_that_searches_hears_only_what_it_searches_for() {
    let server = Server::on("\"yes 1\"\n2\n\"yes 3\"\n");
    let mut follower = server.follow("/messages?follow=1&q=yes");
    follower.hears_ids([1, 3]);
    for text in ["4", "\"yes 5\"", "6", "7", "\"yes 8\""] {
        server.stores(text);
    }
    follower.hears_ids([5, 8]);
}

#[test]
fn nothing_is_missing_or_doubled_between_the_history_and_the_stream() {
    const COUNT: u64 = 300;
    let server = Server::with(&["--fsync", "never"]);
    let mut ann = server.join();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=COUNT {
                ann.says(&number.to_string());
            }
        });
        for follower in 0..4 {
            let server = &server;
            scope.spawn(move || {
                // Each begins at some other instant of the load.
                until("it is time", || {
                    server.get("/messages?limit=1").ids() >= vec![follower * 50]
                });
                let mut stream = match follower % 2 {
                    0 => server.follow("/messages?follow=1"),
                    _ => server.follow_as_client("/messages?follow=1"),
                };
                for id in 1..=COUNT {
                    assert_eq!(stream.hears(&id.to_string()).id, id);
                }
            });
        }
    });
}

#[test]
fn streams_end_as_they_should_when_the_server_stops() {
    // The server gives its clients five seconds at a stop.
    in_one_of_a_few_attempts(|| {
        let server = Server::on(SEED);
        let mut lines = server.raw();
        lines.send(ask("GET /messages?follow=1", &[]));
        let mut events = server.events("/messages", &["Last-Event-ID: 7"]);
        let mut client = server.follow_as_client("/messages?follow=1&after=7");
        let mut old = server.raw();
        old.send(ask("GET /messages?follow=1&after=6 HTTP/1.0", &["Connection: keep-alive"]));
        until("it is served", || old.stream.peek(&mut [0]).is_ok_and(|count| count > 0));
        server.stores("8");
        server.signal("TERM");
        // With the last chunk, which says that nothing is missing.
        let body = lines.whole().body;
        assert_eq!(
            body.lines().map(|line| Told::parse(line).id).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6, 7, 8]
        );
        events.hears_event(8);
        events.is_over();
        client.hears("8");
        client.is_over();
        // What came before there were chunks ends with its connection.
        let mut text = String::new();
        old.stream.read_to_string(&mut text).expect("an orderly end");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("\r\nConnection: close"), "{head}");
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
        assert_eq!(body.lines().map(|line| Told::parse(line).id).collect::<Vec<_>>(), [7, 8]);
        server.ends().with(0, &[]);
    });
}

#[test]
fn a_follower_that_stops_reading_delays_nobody_and_gets_everything_when_it_goes_on() {
    const COUNT: usize = 600;
    // More than the sockets in between can swallow.
    const LENGTH: usize = 16 << 10;
    let server = Server::with(&[&NO_STALL[..], &["--fsync", "never"]].concat());
    let (mut ann, mut bob) = (server.join(), server.join());
    let mut slow = Stream::over(server.raw_narrow(), "/messages?follow=1", &[]);
    let mut events = Stream::over(server.raw_narrow(), "/messages", &["Accept: text/event-stream"]);
    let mut quick = server.follow("/messages?follow=1");
    let memory = server.status("VmHWM");
    for number in 1..=COUNT {
        let text = padded(number, LENGTH);
        let begun = Instant::now();
        ann.says(&text);
        bob.hears(&text);
        quick.hears(&text);
        assert!(begun.elapsed() < PROMPT, "message {number} took {:?}", begun.elapsed());
    }
    let grown = server.status("VmHWM") - memory;
    assert!(grown < 4 << 10, "the server grew by {grown} KiB for slow followers");
    for number in 1..=COUNT {
        assert_eq!(slow.hears(&padded(number, LENGTH)).id, number as u64);
        assert_eq!(events.hears_event(number as u64).data, padded(number, LENGTH));
    }
    // They are followers like any other again.
    ann.says("1");
    slow.hears("1");
    events.hears_event(COUNT as u64 + 1);
}

#[test]
fn a_follower_that_takes_nothing_for_too_long_is_let_go() {
    let server = Setup::new()
        .file(padded_lines(1000, 16 << 10))
        .flags(&["--stall-timeout", "300ms"])
        .start();
    let mut follower = server.raw_narrow();
    follower.send(ask("GET /messages?follow=1", &[]));
    assert_eq!(follower.response().status, 200);
    // A reset, which leaves nothing behind in the server's kernel.
    until("it is let go", || follower.stream.take_error().is_ok_and(|error| error.is_some()));
    // What is left in between is not a whole answer.
    let mut rest = Vec::new();
    let _ = follower.stream.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "the answer looks whole");
}

#[test]
fn nothing_is_left_of_followers_that_have_gone() {
    let server = Setup::new().file(SEED).flags(&["--ping-interval", "200ms"]).start();
    // All of its own threads run when it answers.
    server.gets("/healthz");
    let size = server.size();
    let streams: Vec<_> = (0..8).map(|_| server.follow("/messages?follow=1&limit=0")).collect();
    let resets: Vec<_> = (0..8)
        .map(|_| {
            let mut raw = server.raw();
            raw.send(ask("GET /messages?follow=1&limit=0", &[]));
            assert_eq!(raw.response().status, 200);
            raw
        })
        .collect();
    drop(streams);
    resets.into_iter().for_each(Raw::reset);
    // Nobody says a word meanwhile.
    server.shrinks_to(size);
}

#[test]
fn a_follower_that_asked_for_more_before_it_went_leaves_nothing_behind_either() {
    let server = Setup::new().file(SEED).flags(&["--ping-interval", "200ms"]).start();
    server.gets("/healthz");
    let size = server.size();
    for path in ["/messages?follow=1&limit=0", "/*?follow=1", "/channels?follow=1"] {
        let mut raw = server.raw();
        raw.send(ask(&format!("GET {path}"), &[]));
        assert_eq!(raw.response().status, 200);
        // Its turn never comes, as the stream does not end.
        raw.send(ask("GET /healthz", &[]));
    }
    server.shrinks_to(size);
}

#[test]
fn the_kernel_asks_a_quiet_peer_soon_whether_it_is_still_there() {
    let server = Server::start();
    let mut quiet = server.raw();
    quiet.send(ask("GET /messages?follow=1", &[]));
    assert_eq!(quiet.response().status, 200);
    // A machine that loses its network cannot be had here.
    until("the peer is watched", || {
        kernel_asks_within(&server, &quiet.stream).is_some_and(|seconds| seconds <= 60)
    });
}

/// When the kernel asks the peer of a connection to the server whether it is there, in seconds: see
/// `tr tm->when` in proc_net_tcp.txt of Linux.
fn kernel_asks_within(server: &Server, peer: &TcpStream) -> Option<u64> {
    const KEEPALIVE: &str = "02";
    const TICKS: u64 = 100;
    let peer = peer.local_addr().expect("it is connected");
    let ports = [server.address().port(), peer.port()].map(|port| format!(":{port:04X}"));
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux");
    let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[1].ends_with(&ports[0]) && row[2].ends_with(&ports[1]))?;
    let (timer, due) = row[5].split_once(':').expect("a timer and when it is due");
    let due = u64::from_str_radix(due, 16).expect("a number");
    (timer == KEEPALIVE).then_some(due / TICKS)
}

#[test]
fn a_long_message_is_not_kept_for_each_follower() {
    const FOLLOWERS: usize = 60;
    let long = padded(1, 1 << 20);
    // What the C library keeps for each of its arenas is not what a follower keeps.
    let server = Setup::new().file(format!("{long}\n")).variable("MALLOC_ARENA_MAX", "1").start();
    let listen = || {
        let mut follower = server.follow("/messages?follow=1");
        follower.hears(&long);
        follower
    };
    let first = listen();
    let memory = server.status("VmRSS");
    // One after the other, so that they do not hold it at the same time.
    let _others: Vec<_> =
        iter::once(first).chain(iter::repeat_with(listen)).take(FOLLOWERS).collect();
    until("the memory is given back", || {
        let grown = server.status("VmRSS").saturating_sub(memory);
        grown < 20 << 10
    });
}

#[test]
fn events_have_ids_and_go_on_from_the_last_that_was_seen() {
    let server = Server::on("{\"a\":1}\n\n[3]\n");
    let mut raw = server.raw();
    raw.send(ask("GET /messages", &["Accept: text/event-stream"]));
    assert_eq!(raw.response().header("Content-Type"), Some(EVENTS));
    let first = "id: 1\ndata: {\"id\":1,\"data\":{\"a\":1}}\n\n";
    let second = "id: 3\ndata: {\"id\":3,\"data\":[3]}\n\n";
    let mut text = String::new();
    while text.len() < first.len() + second.len() {
        text += std::str::from_utf8(&raw.chunk().expect("it goes on")).expect("UTF-8");
    }
    assert_eq!(text, format!("{first}{second}"));
    // It comes back, having missed something.
    drop(raw);
    let mut ann = server.join();
    let heard = ann.says("4");
    let mut events = server.events("/messages", &["Last-Event-ID: 1"]);
    events.hears_event(3);
    let told = events.hears_event(4);
    assert_eq!((told.data.as_str(), told.ts), ("4", Some(heard.ts)));
    ann.says("5");
    events.hears_event(5);
    // What it saw last counts, not where its page once began.
    server.events("/messages?after=1&limit=9", &["Last-Event-ID: 4"]).hears_event(5);
    server.events("/messages?limit=1", &[]).hears_event(5);
}

#[test]
fn a_reader_of_events_or_lines_that_is_ahead_of_the_file_starts_over() {
    let server = Server::on("1\n2\n");
    for id in ["3", "99", "18446744073709551615", "99999999999999999999"] {
        let mut events = server.events("/messages", &[&format!("Last-Event-ID: {id}")]);
        events.hears_event(1);
        events.hears_event(2);
        server.follow(&format!("/messages?follow=1&after={id}")).hears_ids(1..=2);
    }
    let mut events = server.events("/messages", &["Last-Event-ID: 2"]);
    let mut lines = server.follow("/messages?follow=1&after=2");
    server.stores("3");
    events.hears_event(3);
    lines.hears_ids([3]);
    let mut others = server.follow("/messages?follow=1&after=2&epoch=other");
    others.hears_ids(1..=3);
    // Those who start over follow like others.
    server.stores("4");
    others.hears_ids([4]);
    let headers = [("Accept", EVENTS), ("Last-Event-ID", "x")];
    server.get_with("/messages", &headers).refuses(400, &["Last-Event-ID"]);
}

#[test]
fn a_quiet_stream_of_events_shows_that_it_is_alive() {
    let server = Server::with(&["--ping-interval", "100ms"]);
    let mut events = server.events("/messages", &[]);
    assert_eq!(events.line().as_deref(), Some(":"));
    assert_eq!(events.line().as_deref(), Some(""));
    assert_eq!(events.line().as_deref(), Some(":"));
    assert_eq!(events.line().as_deref(), Some(""));
    server.stores("1");
    events.hears_event(1);
    // Lines are JSON and nothing else.
    let mut lines = server.raw();
    lines.send(ask("GET /messages?follow=1&after=1", &[]));
    lines.response();
    lines.is_quiet();
}

#[test]
fn a_follower_with_a_limit_does_not_wait_for_what_is_there() {
    let server = Server::on(SEED);
    let mut raw = server.raw();
    raw.send(ask("GET /messages?follow=1&after=3&limit=2", &[]));
    // The first two behind message 3, and then? It may be refused, end here, or go on; but message
    // 6 is there, so it comes now and not when somebody happens to speak.
    if raw.response().status != 400 {
        let mut text = String::new();
        while text.lines().count() < 3
            && let Some(chunk) = raw.chunk()
        {
            text += std::str::from_utf8(&chunk).expect("UTF-8");
        }
        let ids: Vec<u64> = text.lines().map(|line| Told::parse(line).id).collect();
        assert!(ids == [4, 5] || ids.starts_with(&[4, 5, 6]), "{ids:?}");
    }
}
