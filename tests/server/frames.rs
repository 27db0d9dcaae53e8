//! Frames that no decent client sends, and peers that vanish: each gets what the protocol says,
//! and nobody else notices.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use tungstenite::Message;

use crate::support::*;

/// Sends these bytes after joining; the server closes with `code` and a reason, the others stay.
#[track_caller]
fn check_closed(server: &Server, bytes: impl AsRef<[u8]>, code: u16) {
    let mut raw = server.raw_join();
    raw.send(bytes);
    let reason = raw.is_closed_with(code);
    assert!(reason.contains(' ') || reason.len() > 3, "a reason for people: {reason:?}");
    assert!(!reason.contains(['\n', '{']), "a reason for people: {reason:?}");
}

/// A frame with its length and mask in the header and the payload's bytes as they are.
fn with_first_two(first: u8, second: u8, rest: &[u8]) -> Vec<u8> {
    [&[first, second], rest].concat()
}

#[test]
fn a_breach_of_the_protocol_is_closed_with_1002() {
    let server = Server::start();
    let mut ann = server.join();
    // Unmasked.
    check_closed(&server, with_first_two(TEXT, 1, b"1"), 1002);
    check_closed(&server, with_first_two(PING, 0, b""), 1002);
    // Reserved bits.
    check_closed(&server, frame(TEXT | 0x40, "1"), 1002);
    check_closed(&server, frame(TEXT | 0x20, "1"), 1002);
    check_closed(&server, frame(TEXT | 0x10, "1"), 1002);
    check_closed(&server, frame(PING | 0x40, ""), 1002);
    // Opcodes that do not exist.
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        check_closed(&server, frame(0x80 | opcode, "1"), 1002);
    }
    // Control frames that are fragmented or long.
    check_closed(&server, frame(PING & 0x7f, "1"), 1002);
    check_closed(&server, frame(CLOSE & 0x7f, [0x03, 0xe8]), 1002);
    check_closed(&server, frame(PING, [b'x'; 126]), 1002);
    check_closed(&server, frame(PONG, [b'x'; 126]), 1002);
    // Fragments out of order.
    check_closed(&server, frame(GOES_ON, "1"), 1002);
    check_closed(&server, frame(ENDS, "1"), 1002);
    check_closed(&server, [frame(TEXT_BEGINS, "1"), frame(TEXT, "2")].concat(), 1002);
    check_closed(&server, [frame(TEXT_BEGINS, "1"), frame(BINARY, "2")].concat(), 1002);
    // Close frames that say nothing sensible.
    check_closed(&server, frame(CLOSE, [0x03]), 1002);
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1100, 2999, 5000, 65535] {
        check_closed(&server, frame(CLOSE, code.to_be_bytes()), 1002);
    }
    assert_eq!(ann.says("1").id, 1, "nothing of it became a message");
}

#[test]
fn text_that_is_no_utf8_is_closed_with_1007() {
    let server = Server::start();
    let mut ann = server.join();
    check_closed(&server, frame(TEXT, b"\"\xff\""), 1007);
    check_closed(&server, frame(TEXT, b"\"\xc3\""), 1007);
    check_closed(&server, frame(TEXT, b"\"\xc0\xaf\""), 1007);
    check_closed(&server, frame(TEXT, b"\"\xed\xa0\x80\""), 1007);
    check_closed(&server, frame(TEXT, b"\"\xf4\x90\x80\x80\""), 1007);
    check_closed(&server, frame(TEXT, b"\xf0\x9f\x98"), 1007);
    check_closed(&server, [frame(TEXT_BEGINS, b"\"\xff"), frame(ENDS, b"\"")].concat(), 1007);
    check_closed(&server, [frame(TEXT_BEGINS, b"\xc3"), frame(ENDS, b"")].concat(), 1007);
    check_closed(&server, frame(CLOSE, [&[0x03, 0xe8], b"\xff".as_slice()].concat()), 1007);
    assert_eq!(ann.says("1").id, 1, "nothing of it became a message");
}

#[test]
fn a_message_that_is_too_big_is_closed_with_1009() {
    let server = Server::with(&["--max-message", "1KiB"]);
    let mut ann = server.join();
    ann.says(&padded(1, 1024));
    check_closed(&server, frame(TEXT, padded(1, 1025)), 1009);
    check_closed(&server, frame(TEXT, padded(1, 100_000)), 1009);
    check_closed(&server, frame(BINARY, [0; 1025]), 1009);
    // Only announced: nobody waits for the rest, or makes room for it.
    check_closed(&server, [&frame(TEXT, [b'x'; 1025])[..8], b"xxx".as_slice()].concat(), 1009);
    for length in [1 << 20, 1 << 40, (1 << 63) - 1] {
        let mut header = frame_header(TEXT, length);
        header[1] |= 0x80;
        check_closed(&server, [header, vec![0; 4]].concat(), 1009);
    }
    // In fragments.
    let half = "x".repeat(600);
    check_closed(&server, [frame(TEXT_BEGINS, &half), frame(ENDS, &half)].concat(), 1009);
    let mut raw = server.raw_join();
    let whole = padded(2, 1024);
    raw.send([frame(TEXT_BEGINS, &whole[..1000]), frame(ENDS, &whole[1000..])].concat());
    raw.hears(&whole);
    ann.hears(&whole);
    ann.says("3");
}

#[test]
fn the_default_limit_is_one_mebibyte() {
    let server = Server::start();
    let mut ann = server.join();
    ann.says(&padded(1, 1 << 20));
    ann.say(&padded(2, (1 << 20) + 1));
    ann.is_closed_with(1009);
    assert_eq!(server.lines().len(), 1);
}

#[test]
fn a_close_is_echoed() {
    let server = Server::start();
    let mut raw = server.raw_join();
    raw.send(frame(CLOSE, [&1000_u16.to_be_bytes(), b"bye".as_slice()].concat()));
    raw.is_closed_with(1000);
    // A close without a code is fine too.
    let mut raw = server.raw_join();
    raw.send(frame(CLOSE, ""));
    let echo = raw.frame();
    assert_eq!(echo.first, CLOSE);
    assert!(echo.payload.is_empty() || echo.payload.starts_with(&1000_u16.to_be_bytes()));
    assert_eq!(raw.try_frame().expect("an orderly end"), None);
    // What comes after a close is not looked at.
    let mut raw = server.raw_join();
    raw.send([frame(CLOSE, 1000_u16.to_be_bytes()), frame(TEXT, "1")].concat());
    raw.is_closed_with(1000);
    assert_eq!(server.dir.read(), b"");
    server.join().leave();
}

#[test]
fn what_was_said_right_before_a_close_counts() {
    let server = Server::start();
    let mut ann = server.join();
    let mut raw = server.raw_join();
    raw.send([frame(TEXT, "1"), frame(TEXT, "2"), frame(CLOSE, 1000_u16.to_be_bytes())].concat());
    ann.hears("1");
    ann.hears("2");
    raw.is_closed_with(1000);
    let mut raw = server.raw_join();
    raw.send(frame(TEXT, "3"));
    raw.sends_no_more();
    ann.hears("3");
    raw.is_gone();
}

#[test]
fn a_peer_that_is_still_sending_gets_its_close_frame_and_no_reset() {
    // For two seconds the server takes what still comes.
    in_one_of_a_few_attempts(|| {
        let server = Server::with(&["--max-message", "1KiB"]);
        let bad = [
            (1002, frame(0x83, "")),
            (1007, frame(TEXT, b"\xff")),
            (1009, frame(TEXT, [b'x'; 200_000])[..2000].to_vec()),
        ];
        for (code, bytes) in bad {
            let mut raw = server.raw_join();
            raw.send([bytes, vec![b'x'; 50_000]].concat());
            // The close frame is there, and a peer that has not seen it yet goes on sending.
            raw.stream.peek(&mut [0]).expect("a close frame");
            for _ in 0..20 {
                raw.send([b'x'; 5000]);
            }
            raw.is_closed_with(code);
        }
    });
}

#[test]
fn a_ping_is_answered_with_its_own_words() {
    let server = Server::start();
    let mut raw = server.raw_join();
    for payload in [b"".as_slice(), b"hello", b"\x00\xff", &[b'x'; 125]] {
        raw.send(frame(PING, payload));
        assert_eq!(raw.frame(), RawFrame { first: PONG, payload: payload.into() });
    }
    // A pong that nobody asked for is no message.
    raw.send(frame(PONG, "1"));
    raw.send(frame(TEXT, "2"));
    assert_eq!(raw.hears("2").id, 1);
}

#[test]
fn fragments_are_put_together_around_control_frames() {
    let server = Server::start();
    let mut ann = server.join();
    let mut raw = server.raw_join();
    // Cut within the bytes of é.
    raw.send(frame(TEXT_BEGINS, b"{\"a\":\"\xc3"));
    raw.send(frame(PING, "are you there?"));
    assert_eq!(raw.frame(), RawFrame { first: PONG, payload: b"are you there?".into() });
    ann.says("1");
    raw.hears("1");
    raw.send(frame(GOES_ON, b"\xa9"));
    raw.send(frame(GOES_ON, b""));
    raw.send([frame(PONG, ""), frame(ENDS, b"\"}")].concat());
    assert_eq!(raw.hears(r#"{"a":"é"}"#).id, 2);
    ann.hears(r#"{"a":"é"}"#);
}

/// Two talk while somebody makes a flood.
#[track_caller]
fn are_not_held_up(ann: &mut Client, bob: &mut Client) {
    for number in 0..200 {
        let begun = Instant::now();
        ann.says(&number.to_string());
        bob.hears(&number.to_string());
        assert!(begun.elapsed() < PROMPT, "held up {:?}", begun.elapsed());
    }
}

#[test]
fn a_flood_of_empty_fragments_holds_up_nobody() {
    let server = Server::start();
    let (mut ann, mut bob) = (server.join(), server.join());
    let mut flooder = server.raw_join();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = EndsWithMe(&done);
        let done = &done;
        scope.spawn(move || {
            let flood = frame(GOES_ON, "").repeat(10_000);
            flooder.try_send(frame(TEXT_BEGINS, ""));
            // Until the others have talked, or the server has had enough of it.
            while !done.load(Ordering::Relaxed) && flooder.try_send(&flood) {}
        });
        are_not_held_up(&mut ann, &mut bob);
    });
}

#[test]
fn a_flood_of_pings_and_nonsense_holds_up_nobody() {
    let server = Server::start();
    let (mut ann, mut bob) = (server.join(), server.join());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = EndsWithMe(&done);
        for piece in [frame(PING, "x"), frame(TEXT, "nonsense"), frame(BINARY, "x")] {
            // They never read the answers, so these pile up at the server's side.
            let mut flooder = server.deaf_join();
            let done = &done;
            // Closing is what ends a write that the server does not take any more.
            let short = Duration::from_millis(500);
            flooder.stream.set_write_timeout(Some(short)).expect("a timeout");
            scope.spawn(move || {
                let flood = piece.repeat(1000);
                while !done.load(Ordering::Relaxed) && flooder.try_send(&flood) {}
            });
        }
        are_not_held_up(&mut ann, &mut bob);
    });
    let peak = server.status("VmHWM") >> 10;
    assert!(peak < 64, "{peak} MiB for answers that nobody reads");
}

#[test]
fn a_peer_that_says_it_will_send_no_more_is_let_go() {
    let server = Server::start();
    let mut ann = server.join();
    let size = server.size();
    let mut raw = server.raw_join();
    raw.sends_no_more();
    raw.is_gone();
    ann.says("1");
    server.shrinks_to(size);
}

#[test]
fn peers_that_vanish_leave_nothing_behind_and_hurt_nobody() {
    let server = Server::on(padded_lines(2000, 500));
    let (mut ann, mut bob) = (server.join(), server.join());
    let size = server.size();
    for number in 0..60 {
        let mut raw = server.raw_join();
        match number % 3 {
            0 => raw.send(&frame(TEXT, "\"half a frame\"")[..9]),
            1 => raw.send(frame(TEXT_BEGINS, "\"half a message")),
            _ => (),
        }
        // And one that is in the middle of its history.
        let deaf = server.deaf_join();
        ann.says(&number.to_string());
        raw.reset();
        deaf.reset();
        bob.hears(&number.to_string());
    }
    server.shrinks_to(size);
    ann.says("60");
    assert_eq!(server.lines().len(), 2061);
}

#[test]
fn a_client_costs_one_thread_and_one_descriptor() {
    let server = Server::on(SEED);
    let _ann = server.join();
    let size = server.size();
    let clients: Vec<Client> = (0..20).map(|_| server.join()).collect();
    let more = Size { threads: size.threads + 20, descriptors: size.descriptors + 20 };
    server.shrinks_to(more);
    clients.into_iter().for_each(Client::leave);
    server.shrinks_to(size);
}

#[test]
fn a_silent_peer_is_asked_and_then_let_go() {
    let server = Server::with(&["--ping-interval", "300ms"]);
    // The server's clock begins later, so what it does comes no earlier by this one.
    let begun = Instant::now();
    let mut silent = server.raw_join();
    let first = silent.frame();
    assert_eq!(first.first, PING);
    assert!(begun.elapsed() > Duration::from_millis(200), "asked after {:?}", begun.elapsed());
    silent.is_gone();
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(500), "let go after {took:?}");
    assert!(took < PROMPT, "let go after {took:?}");
}

#[test]
fn a_quiet_client_that_answers_pings_stays() {
    with_more_and_more_time([1, 5, 25].map(Duration::from_secs), stays_if_it_answers_pings);
}

/// With this ping interval, for which a busy machine must not hold up this test itself.
#[track_caller]
fn stays_if_it_answers_pings(interval: Duration) {
    let server = Server::with(&["--ping-interval", &format!("{}s", interval.as_secs())]);
    let mut ann = server.join();
    let mut bob = server.raw_join();
    for _ in 0..3 {
        loop {
            match ann.next_of_all() {
                Frame::Ping => break,
                Frame::Pong(_) => (),
                other => panic!("no ping but {other:?}"),
            }
        }
        // Any sign of life will do, a pong that nobody asked for as well.
        bob.send(frame(PONG, ""));
    }
    assert!(ann.send(Message::text("1")));
    ann.hears("1");
    loop {
        let frame = bob.frame();
        if frame.first == TEXT {
            break;
        }
        assert_eq!(frame.first, PING);
    }
}
