//! The access file is read again on SIGHUP, while everything goes on.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::{house::*, support::*};

/// Sends SIGHUP and waits until the server has said that it read the file, or could not.
#[track_caller]
fn reads_again(server: &Server, rules: &str, says: &str) {
    write_rules(server.setup(), rules);
    let before = server.log().matches(says).count();
    server.signal("HUP");
    until("it has read the file", || server.log().matches(says).count() > before);
}

#[test]
fn a_file_without_rules_shuts_everybody_out_and_the_log_says_so() {
    let server = with_rules("# ann has yet to come\n").start();
    assert!(server.log().contains("[WARN] the access file has no rules"), "{}", server.log());
    reads_again(&server, "* - * read,post\n", "was read again");
    server.join().says("1");
    // An editor has emptied the file, and has not written it yet.
    reads_again(&server, "", "[WARN] the access file has no rules");
    assert_eq!(server.does("POST /messages", "", "2").status, 404);
}

#[test]
fn who_lost_the_right_to_read_is_closed_and_who_lost_the_right_to_post_is_told() {
    let everything = format!("ann {FOO} * admin\nbob {BAR} * read,post\n");
    let server = with_rules(&everything).start();
    assert_eq!(server.does("PUT /dev", "token=foo", "").status, 201);
    let mut ann = server.join_at("/dev/ws?token=foo");
    let mut bob = server.join_at("/dev/ws?token=bar");
    let mut bob_elsewhere = server.join_at("/ws?token=bar");
    let mut stream = server.listens("/dev?follow=1&token=bar", &[]);
    let mut several = server.listens("/dev,messages?follow=1&token=bar", &[]);
    let mut all = server.listens("/*?follow=1&token=bar", &[]);
    let mut list = server.listens("/channels?follow=1&token=bar", &[]);
    assert_eq!(list.json()["channel"], "dev");
    assert_eq!(list.json()["channel"], "messages");
    bob.says("1");
    assert_eq!(stream.json()["id"], 1);
    assert_eq!((several.json()["id"].as_u64(), all.json()["id"].as_u64()), (Some(1), Some(1)));
    assert_eq!(list.json()["last_id"], 1);
    let rules = format!("ann {FOO} * admin\nbob {BAR} messages read\n");
    reads_again(&server, &rules, "was read again");
    let reason = bob.is_closed_with(1008);
    assert!(reason.contains("read"), "{reason}");
    assert_eq!((stream.line(), several.line()), (None, None), "the streams are over");
    let removed = list.json();
    assert_eq!((&removed["channel"], &removed["removed"]), (&"dev".into(), &true.into()));
    ann.hears("1");
    ann.says("2");
    bob_elsewhere.say("3");
    bob_elsewhere.is_told("forbidden");
    assert_eq!(server.does("POST /messages", "token=bar", "1").status, 403);
    server.has("GET /dev?token=bar", &[]).refuses(404, &["dev"]);
    // The stream of all goes on with what is left.
    assert_eq!(server.does("POST /messages", "token=foo", "4").status, 201);
    assert_eq!(all.json()["channel"], "messages");
    // And back.
    reads_again(&server, &everything, "was read again");
    bob_elsewhere.hears("4");
    bob_elsewhere.says("5");
    server.join_at("/dev/ws?token=bar").says("6");
    ann.hears("6");
    // Lines about the other channel may come before.
    let new = std::iter::repeat_with(|| list.json()).find(|line| line["channel"] == "dev");
    assert_eq!(new.expect("a line")["new"], true);
}

#[test]
fn a_mistake_keeps_the_old_rules_and_is_logged() {
    let rules = format!("ann {FOO} * admin\n* - messages read,post\n");
    let server = with_rules(&rules).start();
    let mut nobody = server.join();
    reads_again(&server, "ann nonsense\n", "the rules stay as they were");
    let log = server.log();
    assert!(log.contains("access:1:") && log.contains("four columns"), "{log}");
    nobody.says("1");
    assert_eq!(server.me("token=foo", &[])["from"], "ann");
    std::fs::remove_file(server.dir.join("access")).expect("it is there");
    server.signal("HUP");
    until("it has said so again", || {
        server.log().matches("the rules stay as they were").count() == 2
    });
    nobody.says("2");
}

#[test]
fn rules_change_under_load_and_nothing_is_lost_or_doubled() {
    let (open, shut) =
        (format!("ann {FOO} * read,post\n* - messages read\n"), format!("ann {FOO} * read,post\n"));
    let server = with_rules(&open).start();
    let mut listener = server.join_at("/ws?token=foo");
    let mut speaker = server.join_at("/ws?token=foo");
    std::thread::scope(|scope| {
        let talk = scope.spawn(move || (0..2_000).for_each(|n| drop(speaker.says(&n.to_string()))));
        for _ in 0..10 {
            let mut nobody = server.join();
            reads_again(&server, &shut, "was read again");
            nobody.is_closed_with(1008);
            assert_eq!(server.upgrade("/ws", &[]), 404);
            reads_again(&server, &open, "was read again");
        }
        talk.join().expect("the speaker hears each of its messages");
    });
    (0..2_000).for_each(|n| drop(listener.hears(&n.to_string())));
}

/// More bytes than the buffers between a server and its peer hold.
const LONG: usize = 16 << 20;

/// A history of [`LONG`] bytes.
fn long_history() -> String {
    format!("\"{}\"\n", "x".repeat(1021)).repeat(LONG / 1024)
}

/// Asks for something long, and reads no more than its beginning.
fn begin(server: &Server, request: &[u8]) -> TcpStream {
    let mut stream = server.connect_narrow();
    stream.write_all(request).expect("the connection is there");
    stream.read_exact(&mut [0; 4096]).expect("the answer begins");
    stream
}

/// How many bytes still come until the connection is over.
#[track_caller]
fn count_rest(mut stream: impl Read) -> usize {
    let mut block = vec![0; 64 << 10];
    let mut bytes = 0;
    loop {
        match stream.read(&mut block) {
            Ok(0) => return bytes,
            Ok(count) => bytes += count,
            Err(error) if is_timeout(&error) => panic!("the connection goes on"),
            Err(_) => return bytes,
        }
    }
}

#[test]
fn a_client_that_may_not_read_any_more_is_not_sent_the_rest_of_its_history() {
    for path in ["/ws", "/ws?history=each"] {
        let setup = with_rules("* - messages read\n").file(long_history());
        let server = setup.flags(&NO_STALL).start();
        let stream = begin(&server, &server.head(path, &[]));
        reads_again(&server, "* - messages post\n", "was read again");
        until("it is let go", || server.gets("/metrics").contains("txtcord_clients 0\n"));
        let rest = count_rest(stream);
        assert!(rest < LONG / 4, "{rest} bytes more came at {path}");
    }
}

#[test]
fn a_caller_that_may_not_read_any_more_is_not_sent_the_rest_of_an_answer() {
    let mut text = long_history();
    for id in 1..=LONG / 1024 {
        text += &format!("{{\"$op\":\"pin\",\"id\":{id}}}\n");
    }
    let server = with_rules("* - messages read\n").file(text).flags(&NO_STALL).start();
    let paths = [
        "/messages",
        "/messages?pinned=1",
        "/messages?follow=1",
        "/messages,messages",
        "/*?follow=1",
        "/messages.txt",
        "/messages?q=x",
    ];
    let mut requests: Vec<_> = paths.map(|path| ask(&format!("GET {path}"), &[])).into();
    let array = ["Accept: application/json"];
    requests.extend(["/messages", "/messages?q=x"].map(|path| ask(&format!("GET {path}"), &array)));
    let streams: Vec<_> = requests.iter().map(|request| begin(&server, request)).collect();
    reads_again(&server, "* - messages post\n", "was read again");
    for (request, stream) in requests.iter().zip(streams) {
        let rest = count_rest(stream);
        let request = String::from_utf8_lossy(request);
        assert!(rest < LONG / 4, "{rest} bytes more came of {request}");
    }
}

#[test]
fn an_answer_goes_on_when_the_rules_change_and_the_caller_may_still_read() {
    let server = with_rules("* - messages read\n").file(long_history()).flags(&NO_STALL).start();
    let stream = begin(&server, &ask("GET /messages.txt", &["Connection: close"]));
    reads_again(&server, "* - * read,post\n", "was read again");
    let rest = count_rest(stream);
    assert!(rest > LONG - 4096, "{rest} bytes came");
}

#[test]
fn a_client_that_does_not_answer_the_close_frame_is_let_go_whatever_it_sends() {
    for sent in [frame(PING, b""), frame(TEXT, b"1")] {
        let server = with_rules("* - messages read,post\n").start();
        let mut raw = server.raw_join();
        reads_again(&server, "* - messages post\n", "was read again");
        while raw.frame().first != CLOSE {}
        until("it is let go", || !raw.try_send(&sent));
        assert_eq!(server.lines(), [""; 0], "nothing counts after the close frame");
    }
}

#[test]
fn a_body_that_takes_long_is_stored_by_the_rules_of_its_end() {
    let server = with_rules("* - messages read,post\n").start();
    let mut raw = server.raw();
    let request = post("[1,2,3]");
    let (begin, end) = request.split_at(request.len() - 2);
    raw.send(begin);
    reads_again(&server, "* - messages read\n", "was read again");
    raw.send(end);
    raw.whole().refuses(403, &["post", "messages"]);
    assert_eq!(server.lines(), [""; 0]);
}
