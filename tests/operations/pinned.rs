//! The list of the messages that are pinned, when it is long.

use std::{
    collections::BTreeSet,
    fmt::Write,
    io::Read,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::json as object;

use crate::{house::*, support::*};

const PINNED: &str = "GET /messages?pinned=1";

impl Server {
    /// Posts messages, one a line.
    #[track_caller]
    fn posts_lines(&self, query: &str, lines: &str) {
        let line = format!("POST /messages?{query}");
        let answer = self.asked(ask_with(&line, &["Content-Type: application/x-ndjson"], lines));
        assert_eq!(answer.status, 201, "{answer:?}");
    }
}

/// Lines that pin or unpin messages.
fn lines(what: &str, ids: impl Iterator<Item = u64>) -> String {
    ids.fold(String::new(), |mut lines, id| {
        writeln!(lines, r#"{{"$op":"{what}","id":{id}}}"#).expect("a string takes everything");
        lines
    })
}

#[test]
fn a_long_list_has_each_message_as_it_is_alone() {
    const MESSAGES: u64 = 400;
    let server = Server::start();
    let mut said = String::new();
    for id in 1..=MESSAGES {
        let length = if id.is_multiple_of(50) { 30_000 } else { 40 };
        writeln!(said, "{}", padded(id as usize, length)).unwrap();
    }
    server.posts_lines(ANN, &said);
    // They are pinned in some other order.
    let mixed = (1..=MESSAGES).map(|number| number * 7 % MESSAGES + 1);
    server.posts_lines(BOB, &lines("pin", mixed.clone().filter(|id| !id.is_multiple_of(4))));
    let mut done = lines("delete", mixed.clone().filter(|id| id.is_multiple_of(11)));
    for id in mixed.filter(|id| !id.is_multiple_of(11)) {
        if id.is_multiple_of(5) {
            writeln!(done, r#"{{"$op":"edit","id":{id},"data":{{"n":{id}}}}}"#).unwrap();
        }
        if id.is_multiple_of(3) {
            writeln!(done, r#"{{"$op":"react","id":{id},"key":"👍"}}"#).unwrap();
        }
    }
    server.posts_lines(ANN, &done);
    let is_there = |id: &u64| !id.is_multiple_of(4) && !id.is_multiple_of(11);
    let ids: Vec<u64> = (1..=MESSAGES).filter(is_there).collect();
    let alone: String = ids.iter().map(|id| server.gets(&format!("/messages/{id}"))).collect();
    let answer = server.asks(PINNED, &[]);
    assert_eq!(answer.status, 200);
    assert!(answer.body == alone, "not as they are alone: {}", cut(&answer.body));
    let history = server.asks("GET /messages", &[]);
    let epoch = history.header("Txtcord-Epoch");
    let has_headers = |answer: &Response| {
        assert_eq!(answer.header("Content-Type"), Some("application/x-ndjson"));
        assert_eq!(answer.header("Cache-Control"), Some("no-cache"));
        assert_eq!((answer.header("Txtcord-Epoch"), epoch.is_some()), (epoch, true));
        assert_eq!(answer.header("Content-Length"), None);
    };
    has_headers(&answer);
    assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"));
    let mut raw = server.raw();
    raw.send(ask("HEAD /messages?pinned=1", &[]));
    has_headers(&raw.head_alone());
    assert_eq!(raw.asks(ask(PINNED, &[])).body.len(), alone.len(), "the same connection goes on");
    // The end of the connection is that of an answer to HTTP/1.0.
    let mut old = server.connect();
    std::io::Write::write_all(&mut old, &ask(&format!("{PINNED} HTTP/1.0"), &[])).unwrap();
    let mut bytes = String::new();
    old.read_to_string(&mut bytes).expect("the connection ends in order");
    let (head, body) = bytes.split_once("\r\n\r\n").expect("a head");
    assert!(!head.contains("Transfer-Encoding") && body == alone, "{head}");
}

#[test]
fn readers_that_take_nothing_of_a_long_list_cost_little_and_then_get_what_holds_now() {
    const MESSAGES: usize = 6_000;
    const READERS: usize = 20;
    /// In KiB. Lists that were held as a whole would take more than 30 MB.
    const MOST: u64 = 8 << 10;
    let last = MESSAGES as u64;
    // More bytes than the buffers between a server and its peer hold.
    let text =
        padded_lines(MESSAGES, 2_700) + &lines("pin", (1..=last).filter(|id| *id != last - 1));
    let server = Setup::new().file(text).start();
    server.posts(ANN, "1");
    let before = server.status("VmHWM");
    let mut readers: Vec<Raw> = (0..READERS).map(|_| server.raw_narrow()).collect();
    for reader in &mut readers {
        reader.send(ask(PINNED, &[]));
        assert_eq!(reader.head_alone().status, 200);
    }
    server.posts(ANN, "2");
    let after = server.status("VmHWM");
    assert!(after < before + MOST, "{before} KiB grew to {after} KiB");
    server.did(&format!("DELETE /messages/{last}/pin"), ANN, "");
    server.did(&format!("PUT /messages/{}/pin", last - 1), ANN, "");
    server.did(&format!("PUT /messages/{}/reactions/x", last - 2), ANN, "");
    let mut body = Vec::new();
    while let Some(chunk) = readers[0].chunk() {
        body.extend(chunk);
    }
    let body = String::from_utf8(body).expect("UTF-8");
    assert_eq!(body.lines().count(), MESSAGES - 1);
    let mut from_the_end = body.lines().rev().map(json);
    let (new, changed) = (from_the_end.next().unwrap(), from_the_end.next().unwrap());
    assert_eq!((&new["id"], &new["pinned"]), (&object!(last - 1), &object!(true)));
    assert_eq!(changed["id"], last - 2);
    assert!(changed["reactions"]["x"][0].as_str().expect("a sender").starts_with("ann~"));
}

#[test]
fn what_stays_pinned_is_in_every_list_once_while_other_pins_come_and_go() {
    const MESSAGES: u64 = 600;
    let server = Server::start();
    server.posts_lines(ANN, &padded_lines(MESSAGES as usize, 20));
    // Of three messages one stays pinned, one comes and goes, and one is never pinned.
    let stays = || (1..=MESSAGES).filter(|id| id % 3 == 0);
    let goes = || (1..=MESSAGES).filter(|id| id % 3 == 1);
    server.posts_lines(ANN, &lines("pin", stays()));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = EndsWithMe(&is_over);
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let is_last = is_over.load(Ordering::SeqCst);
                    let pinned = server.pinned();
                    assert!(pinned.is_sorted_by(|a, b| a < b), "{pinned:?}");
                    assert!(pinned.iter().all(|id| id % 3 != 2), "{pinned:?}");
                    let pinned: BTreeSet<u64> = pinned.into_iter().collect();
                    assert!(stays().all(|id| pinned.contains(&id)), "{pinned:?}");
                    if is_last {
                        return assert_eq!(pinned.len() as u64, MESSAGES / 3);
                    }
                }
            });
        }
        for _ in 0..20 {
            server.posts_lines(BOB, &lines("pin", goes()));
            server.posts_lines(BOB, &lines("unpin", goes()));
        }
        is_over.store(true, Ordering::SeqCst);
    });
}
