//! `POST /messages`: what curl and bots say is stored, shown and answered, or refused and nothing.

use std::{collections::BTreeSet, thread};

use serde_json::{Value, json};

use crate::{support::*, talk::*};

/// What a body of some kind becomes.
#[track_caller]
fn becomes(server: &Server, kind: &str, body: &str, line: &str) {
    let id = server.post(kind, body).created();
    assert_eq!(server.lines().last().map(String::as_str), Some(line), "{kind}: {body:?}");
    assert_eq!(server.lines().len() as u64, id);
}

#[test]
fn a_body_is_stored_as_what_it_is_said_to_be() {
    let server = Server::start();
    let odd = r#"{ "b":1.10,"a":"\u00e9é\ud800","b":[ ] }"#;
    becomes(&server, JSON, odd, odd);
    becomes(&server, JSON, " \r\n{\"a\":\r\n1}\t\n", "{\"a\":  1}");
    becomes(&server, JSON, "123456789012345678901234567890", "123456789012345678901234567890");
    becomes(&server, "Application/JSON; charset=utf-8", "null", "null");
    let hi = r#"{"user":"anonymous","content":"hi"}"#;
    becomes(&server, WORDS, "hi", hi);
    becomes(&server, "text/plain; charset=utf-8", "hi\r\n", hi);
    // Even what looks like JSON is somebody's words here.
    becomes(&server, WORDS, r#"{"a":1}"#, r#"{"user":"anonymous","content":"{\"a\":1}"}"#);
    let lines = "{\"user\":\"anonymous\",\"content\":\"two\\n \\\"lines\\\"\\\\\\u0001\"}";
    becomes(&server, WORDS, "two\n \"lines\"\\\u{1}", lines);
    // curl -d says this of anything; it is no form, so pluses and percent signs stay.
    becomes(&server, FORM, r#"{"a":1}"#, r#"{"a":1}"#);
    becomes(&server, FORM, "1.10", "1.10");
    let words = r#"{"user":"anonymous","content":"a+b=50%25&hi there"}"#;
    becomes(&server, FORM, "a+b=50%25&hi there", words);
    // Every one is the message that its number names.
    for (id, line) in (1..).zip(server.lines()) {
        assert_eq!(server.get(&format!("/messages/{id}")).told()[0].data, line);
    }
}

#[test]
fn a_body_of_no_kind_is_taken_for_json() {
    let server = Server::start();
    let mut raw = server.raw();
    assert_eq!(raw.asks(ask_with("POST /messages", &[], "[1]")).body, "{\"id\":1}\n");
    raw.asks(ask_with("POST /messages", &[], "words")).refuses(400, &["not_json"]);
    assert_eq!(server.lines(), ["[1]"]);
}

#[test]
fn words_are_said_by_who_is_named() {
    let server = Server::start();
    let said = |query: &str, kind: &str, body: &str| {
        let path = format!("/messages{query}");
        server.post_with(&path, &[("Content-Type", kind)], body).created();
        server.lines().pop().expect("a line")
    };
    assert_eq!(said("?as=ann", WORDS, "hi"), r#"{"user":"ann","content":"hi"}"#);
    assert_eq!(said("?as=a%22b+c%C3%A9", WORDS, "x"), r#"{"user":"a\"b cé","content":"x"}"#);
    assert_eq!(said("?as=ann", FORM, "hi"), r#"{"user":"ann","content":"hi"}"#);
    assert_eq!(said("?as=ann", FORM, r#"{"user":"bob"}"#), r#"{"user":"bob"}"#);
    assert_eq!(said("?as=ann", JSON, r#"{"user":"bob"}"#), r#"{"user":"bob"}"#);
    for query in ["?as=", "?as=%ff", &format!("?as={}", "x".repeat(257))] {
        let reply = server.post_with(&format!("/messages{query}"), &[("Content-Type", WORDS)], "x");
        reply.refuses(400, &["as="]);
    }
    assert_eq!(server.lines().len(), 5);
}

#[test]
fn many_messages_are_stored_together_or_not_at_all() {
    let server = Server::on(SEED);
    let mut ann = server.join();
    let reply = server.post(NDJSON, "{\"a\":1}\r\n\n  [2] \n\"3\"");
    assert_eq!(reply.created(), 8);
    assert_eq!(reply.json(), json!({"id": 8, "last_id": 10}));
    for (id, text) in [(8, r#"{"a":1}"#), (9, "[2]"), (10, "\"3\"")] {
        assert_eq!(ann.hears(text).id, id);
    }
    assert_eq!(server.post(NDJSON, "11").json(), json!({"id": 11, "last_id": 11}));
    ann.hears("11");
    // The line is named as an editor counts it.
    for (body, line) in
        [("1\n\n2\n{\"a\":\n4\n", "line 4"), ("x\n1", "line 1"), ("1\n{}{}", "line 2")]
    {
        let reply = server.post(NDJSON, body);
        assert_eq!(reply.has(400).json()["code"], "not_json");
        let message = reply.json()["message"].as_str().map(String::from).unwrap_or_default();
        assert!(message.contains(line), "{body:?}: {message}");
    }
    for empty in ["", "\n\n", " \r\n"] {
        server.post(NDJSON, empty).has(400);
    }
    // Nobody heard any of it.
    assert_eq!(ann.says("12").id, 12);
    assert_eq!(server.lines().len(), 12);
    // Far more than any one message may have.
    let many = padded_lines(2000, 1000);
    let reply = server.post("application/jsonl", &many);
    assert_eq!(reply.json(), json!({"id": 13, "last_id": 2012}));
    assert!(server.dir.read().ends_with(many.as_bytes()));
    assert_eq!(ann.hears_one().id, 13);
}

#[test]
fn what_is_posted_is_heard_like_what_is_said() {
    let server = Server::start();
    let (mut ann, mut bob) = (server.join(), server.join());
    let id = server.stores(r#"{"user":"curl","content":"hi"}"#);
    let heard = ann.hears(r#"{"user":"curl","content":"hi"}"#);
    assert_eq!((heard.id, &bob.hears(&heard.data)), (id, &heard));
    assert_eq!(server.get("/messages/1").told()[0].ts, Some(heard.ts));
    assert_eq!(ann.says("2").id, 2);
    assert_eq!(server.stores("3"), 3);
}

#[test]
fn what_was_answered_is_there_after_a_kill() {
    let mut server = Server::on(SEED);
    for round in 0..5 {
        let body = format!("{{\"round\":{round}}}");
        // The connection is open: nothing but the answer itself stands before the kill.
        let mut raw = server.raw();
        raw.asks(ask("GET /healthz", &[]));
        let answer = raw.asks(post(&body));
        server = server.kill().start();
        assert_eq!(answer.status, 201, "{answer:?}");
        let place = answer.header("Location").expect("a place").to_owned();
        assert_eq!(server.get(&place).told()[0].data, body);
    }
    assert_eq!(server.lines().len(), 12);
}

#[test]
fn many_who_post_at_once_get_their_own_ids() {
    const EACH: usize = 40;
    let server = Server::start();
    let mut ann = server.join();
    let ids: BTreeSet<u64> = thread::scope(|scope| {
        let posters = each_apart(scope, 0..8, |_, who| {
            let mut raw = server.raw();
            let post = |number| {
                let body = format!("{{\"who\":{who},\"n\":{number}}}");
                let answer = raw.asks(post(&body));
                assert_eq!(answer.status, 201, "{answer:?}");
                let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
                (answer["id"].as_u64().expect("an id"), body)
            };
            (0..EACH).map(post).collect::<Vec<_>>()
        });
        let posts = posters.into_iter().flat_map(|poster| poster.join().expect("a poster"));
        posts
            .map(|(id, body)| {
                assert_eq!(server.get(&format!("/messages/{id}")).told()[0].data, body);
                id
            })
            .collect()
    });
    assert_eq!(ids, (1..=8 * EACH as u64).collect());
    for line in server.lines() {
        ann.hears(&line);
    }
}

#[test]
fn the_same_key_gives_the_same_message() {
    let server = Server::on(SEED);
    let mut ann = server.join();
    assert_eq!(server.post_once("k1", "8"), 8);
    assert_eq!(server.post_once("k1", "8"), 8);
    assert_eq!(server.post_once("k2", "8"), 9);
    assert_eq!(server.post_once("K1", "8"), 10, "keys have their case");
    // The first one counts, whatever the second says.
    assert_eq!(server.post_once("k1", "\"other\""), 8);
    server.post(JSON, "11").created();
    assert_eq!(server.post_once("k1", "8"), 8);
    let many = [("Content-Type", NDJSON), ("Idempotency-Key", "many")];
    for _ in 0..2 {
        let reply = server.post_with("/messages", &many, "12\n13\n14\n");
        assert_eq!(reply.has(201).json(), json!({"id": 12, "last_id": 14}));
    }
    assert_eq!(server.lines().len(), 14);
    for line in &server.lines()[7..] {
        ann.hears(line);
    }
    ann.says("\"the end\"");
    // What was refused was not the first.
    let headers = [("Content-Type", JSON), ("Idempotency-Key", "k3")];
    server.post_with("/messages", &headers, "{").refuses(400, &[]);
    assert_eq!(server.post_once("k3", "16"), 16);
    for bad in ["", &"k".repeat(256)] {
        let headers = [("Content-Type", JSON), ("Idempotency-Key", bad)];
        server.post_with("/messages", &headers, "1").refuses(400, &["Idempotency-Key"]);
    }
    assert_eq!(server.post_once(&"k".repeat(255), "17"), 17);
}

#[test]
fn the_same_key_at_the_same_time_gives_the_same_message() {
    let server = Server::start();
    for round in 1..=10 {
        let key = format!("Idempotency-Key: round {round}");
        let mut raws: Vec<_> = (0..12).map(|_| server.raw()).collect();
        let request = ask_with("POST /messages", &[&key], &round.to_string());
        // All but one byte, so that the rest of all arrives at once.
        let (start, end) = request.split_at(request.len() - 1);
        raws.iter_mut().for_each(|raw| raw.send(start));
        raws.iter_mut().for_each(|raw| raw.send(end));
        for raw in &mut raws {
            let answer = raw.whole();
            let wanted = (201, format!("{{\"id\":{round}}}\n"));
            assert_eq!((answer.status, answer.body), wanted);
        }
    }
    assert_eq!(server.lines(), (1..=10).map(|round| round.to_string()).collect::<Vec<_>>());
}

#[test]
fn what_is_no_message_is_refused_and_nothing_is_stored() {
    let server = Server::with(&["--max-message", "1KiB"]);
    let mut ann = server.join();
    for body in ["", "{", "{} {}", "NaN", "'a'", "{\"a\":1,}", "\u{feff}1"] {
        let reply = server.post(JSON, body);
        assert_eq!(reply.has(400).header("Content-Type"), Some(JSON), "{body:?}");
        let answer = reply.json();
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("not_json")));
        // In the very words of the socket, but for what to do.
        if !body.is_empty() {
            ann.say(body);
            let told = ann.is_told("not_json").frame.replace(
                "; connect with ?as=NAME to send plain text",
                "; send plain text with Content-Type: text/plain",
            );
            assert_eq!(reply.text(), told + "\n");
        }
    }
    for kind in [JSON, WORDS, FORM, NDJSON] {
        server.post(kind, b"\"\xff\"").refuses(400, &["UTF-8"]);
    }
    let fits = format!("\"{}\"", "x".repeat(1022));
    let long = format!("\"{}\"", "x".repeat(1023));
    assert_eq!(server.post(JSON, &fits).created(), 1);
    for kind in [JSON, WORDS, FORM] {
        server.post(kind, &long).refuses(413, &["1024"]);
    }
    let many = format!("1\n{long}\n");
    server.post(NDJSON, many).refuses(413, &["line 2", "1024"]);
    let huge =
        ask("POST /messages", &["Content-Type: application/x-ndjson", "Content-Length: 9000000"]);
    server.asked(huge).refuses(413, &["8388608"]);
    for kind in ["image/png", "application/xml", "multipart/form-data; boundary=x", "text/html", ""]
    {
        server.post(kind, "1").refuses(415, &[JSON, WORDS, NDJSON]);
    }
    Reply::of_chunked(&server.url("/messages"), "1").refuses(411, &["Content-Length"]);
    let bare = ask("POST /messages", &["Content-Type: application/json"]);
    server.asked(bare).refuses(411, &["Content-Length"]);
    server.asked(ask_with("POST /messages", &["Expect: tea"], "1")).refuses(417, &[]);
    assert_eq!(server.lines(), [fits]);
}

#[test]
fn a_body_of_more_messages_than_one_may_have_is_refused_as_a_whole() {
    let server = Server::start();
    let most = "1\n".repeat(1_000_000);
    server.post(NDJSON, format!("{most}1")).refuses(413, &["1000000 messages"]);
    assert_eq!(server.post(NDJSON, format!("\n{most} \n")).created(), 1);
    assert_eq!(server.lines().len(), 1_000_000);
}

#[test]
fn a_body_that_is_much_too_long_is_told_so_before_the_connection_ends() {
    // For two seconds the server takes what still comes.
    in_one_of_a_few_attempts(|| {
        let server = Server::start();
        // A client that sends all of it before it reads anything, as many do.
        let body = "x".repeat(3 << 20);
        for _ in 0..3 {
            let mut raw = server.raw();
            raw.try_send(ask_with("POST /messages", &["Content-Type: text/plain"], &body));
            raw.response().refuses(413, &["1048576"]);
        }
    });
}

#[test]
fn a_client_that_waits_for_leave_to_send_gets_it_or_the_refusal() {
    let server = Server::with(&["--max-message", "1KiB"]);
    let head = |length: usize| {
        let length = format!("Content-Length: {length}");
        ask("POST /messages", &["Expect: 100-continue", &length])
    };
    let mut raw = server.raw();
    for id in 1..=2 {
        raw.send(head(3));
        let leave = raw.head_alone();
        assert_eq!((leave.status, leave.headers.len()), (100, 0), "{leave:?}");
        let answer = raw.asks("[9]");
        assert_eq!((answer.status, answer.body), (201, format!("{{\"id\":{id}}}\n")));
    }
    raw.send(head(1025));
    raw.head_alone_is(413);
    // A client that did not wait needs no leave.
    let mut raw = server.raw();
    assert_eq!(raw.asks([head(3), b"[9]".to_vec()].concat()).status, 201);
    assert_eq!(server.lines(), ["[9]"; 3]);
}

#[test]
fn in_http_1_0_there_is_no_leave_to_wait_for() {
    // RFC 9110 section 10.1.1.
    let server = Server::start();
    let old = ["Expect: 100-continue", "Content-Length: 3"];
    let mut raw = server.raw();
    raw.send(ask("POST /messages HTTP/1.0", &old));
    raw.is_quiet();
    raw.send("[9]");
    raw.head_alone_is(201);
}

impl Raw {
    #[track_caller]
    fn head_alone_is(&mut self, status: u16) {
        let head = self.head_alone();
        assert_eq!(head.status, status, "{head:?}");
    }
}

#[test]
fn a_body_may_come_in_pieces() {
    let server = Server::start();
    let mut raw = server.raw();
    for (id, body) in [(1, "[1,\"\u{e9}\"]"), (2, "\"two\"")] {
        for byte in post(body) {
            raw.send([byte]);
        }
        assert_eq!(raw.whole().body, format!("{{\"id\":{id}}}\n"));
    }
    // A long one, of which the server's buffers hold a part.
    let long = padded(3, 1 << 20);
    for piece in post(&long).chunks(70_001) {
        raw.send(piece);
    }
    assert_eq!(raw.whole().status, 201);
    assert_eq!(server.lines()[2], long);
    // One that never ends is no message.
    raw.send(&post("\"unfinished\"")[..70]);
    raw.sends_no_more();
    raw.is_gone();
    assert_eq!(server.lines().len(), 3);
}

#[test]
fn a_full_disk_is_told_to_who_posts() {
    // Blocks of 512 or 1024 bytes.
    let server = Setup::new().after("ulimit -f 16").start();
    let mut ann = server.join();
    let mut stored = 0;
    let refused = loop {
        let reply = server.post(JSON, padded(stored, 999));
        if reply.status != 201 {
            break reply;
        }
        stored += 1;
        assert!(stored < 20, "the disk is never full");
    };
    let frame = r#"{"type":"error","code":"storage_full""#;
    assert!(refused.has(503).text().starts_with(frame), "{}", refused.text());
    assert!(refused.header("Retry-After").is_some());
    // All of many, or none of them.
    server.post(NDJSON, padded_lines(10, 999)).has(503);
    assert_eq!(server.get("/messages").ids().len(), stored);
    assert_eq!(server.dir.read().len(), stored * 1000);
    // A key is good for the post that was stored, not for the one that was not.
    let headers = [("Content-Type", JSON), ("Idempotency-Key", "k")];
    server.post_with("/messages", &headers, padded(99, 999)).has(503);
    until("a short one fits", || server.post_with("/messages", &headers, "1").status == 201);
    assert_eq!(server.post_once("k", "1"), stored as u64 + 1);
    for number in 0..stored {
        ann.hears(&padded(number, 999));
    }
    ann.hears("1");
}

#[test]
fn a_server_that_stops_takes_no_message_and_says_so() {
    // The server gives its clients five seconds at a stop.
    in_one_of_a_few_attempts(|| {
        let server = Setup::new().file(padded_lines(2000, 16 << 10)).start();
        let mut raw = server.raw();
        assert_eq!(raw.asks(ask("GET /readyz", &[])).status, 200);
        // A reader in the middle of something long, which the stop waits for.
        let mut slow = server.raw_narrow();
        slow.send(ask("GET /messages", &[]));
        assert_eq!(slow.response().status, 200);
        server.signal("TERM");
        until("the server stops", || server.log().contains("stopping"));
        let answer = raw.asks(post("1"));
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("Retry-After").is_some(), "{answer:?}");
        assert!(answer.body.contains("stopping") || answer.body.contains("shutting_down"));
        // The reader has gone: nothing keeps the server.
        drop((slow, raw));
        let lines = server.dir.clone();
        server.ends().with(0, &[]);
        assert!(lines.read().ends_with(b"x\"}\n"), "a message was stored");
    });
}
