//! Limits for strangers: how fast one may post, how many connections an address may have, and which
//! proxies are believed.

use std::{
    io::{Read, Write},
    sync::Arc,
};

use crate::{house::*, support::*};

#[test]
fn posts_above_the_rate_are_refused_and_the_connection_stays() {
    // After a minute, one more message may be posted.
    in_one_of_a_few_attempts(|| {
        let server = Server::with(&["--post-rate", "1/m", "--post-burst", "3"]);
        let mut ann = server.join_at("/ws?as=ann&key=correct+horse");
        (0..3).for_each(|n| drop(ann.says(&format!(r#"{{"n":{n}}}"#))));
        ann.say("3");
        let answer = ann.is_told("rate_limited");
        let wait = json(&answer.frame)["retry_after"].as_f64().expect("a number");
        assert!((1.0..=60.0).contains(&wait), "{answer:?}");
        // Another name does not help, another key does, and so does none at all.
        let answer = server.does("POST /messages", "as=bob&key=correct+horse", "1");
        answer.refuses(429, &["too many messages"]);
        assert!(is_a_minute(answer.header("Retry-After")), "{answer:?}");
        assert_eq!(server.does("POST /messages", "as=bob&key=battery+staple", "1").status, 201);
        assert_eq!(server.does("POST /messages", "as=ann", "1").status, 201);
        assert_eq!(server.lines().len(), 5, "nothing that was refused is stored");
        ann.hears("1");
        ann.hears("1");
    });
}

/// Whether one is to wait for a minute, less the time that was needed to ask.
fn is_a_minute(header: Option<&str>) -> bool {
    header.and_then(|text| text.parse().ok()).is_some_and(|wait| (1..=60).contains(&wait))
}

#[test]
fn one_that_was_too_fast_may_post_again_later() {
    let server = Server::with(&["--post-rate", "2/s", "--post-burst", "1"]);
    let post = || server.does("POST /messages", "as=ann&key=correct+horse", "1").status;
    assert_eq!(post(), 201);
    until("it may post again", || post() == 201);
}

#[test]
fn a_body_of_many_messages_counts_its_lines_and_is_taken_whole_or_not_at_all() {
    // After a minute, one more message may be posted.
    in_one_of_a_few_attempts(|| {
        let server = Server::with(&["--post-rate", "1/m", "--post-burst", "5"]);
        let many = |body: &str| {
            server.asked(ask_with("POST /messages", &["Content-Type: application/x-ndjson"], body))
        };
        let answer = many("1\n2\n3\n4\n5\n6\n");
        answer.refuses(413, &["5 at a time"]);
        assert_eq!(answer.header("Retry-After"), None, "no wait helps");
        assert_eq!(many("1\n2\n3\n").status, 201);
        let answer = many("4\n5\n6\n");
        answer.refuses(429, &["go on in"]);
        assert!(is_a_minute(answer.header("Retry-After")), "{answer:?}");
        assert_eq!(many("4\n5\n").status, 201);
        assert_eq!(server.lines().len(), 5);
    });
}

#[test]
fn a_claim_is_counted_for_its_address_and_only_a_trusted_proxy_names_another() {
    // After a minute, one more message may be posted.
    in_one_of_a_few_attempts(|| {
        for (trust, is_believed) in [("127.0.0.0/8", true), ("10.0.0.0/8", false)] {
            let flags = ["--post-rate", "1/m", "--post-burst", "1", "--trust-proxy", trust];
            let server = Server::with(&flags);
            let from = |addresses: &str| {
                let field = format!("X-Forwarded-For: {addresses}");
                let kind = "Content-Type: application/json";
                server.asked(ask_with("POST /messages", &[kind, &field], "1")).status
            };
            assert_eq!(from("1.2.3.4"), 201);
            assert_eq!(from("1.2.3.4"), 429);
            assert_eq!(
                from("6.6.6.6, 1.2.3.4, 127.0.0.2"),
                429,
                "the first was made up by the client"
            );
            assert_eq!(from("1.2.3.5"), if is_believed { 201 } else { 429 });
            assert_eq!(from("2001:db8::1"), if is_believed { 201 } else { 429 });
            assert_eq!(from("2001:db8::2"), 429, "a customer has all of a /64");
            assert_eq!(from("2001:db8:0:1::2"), if is_believed { 201 } else { 429 });
        }
    });
}

#[test]
fn an_address_has_so_many_connections_and_more_are_told_503() {
    let server = Server::with(&["--max-clients-per-address", "3"]);
    let mut inside: Vec<_> = (0..3).map(|_| server.join()).collect();
    assert_eq!(server.upgrade("/ws", &[]), 503);
    server.has("GET /messages", &[]).refuses(503, &["from this address"]);
    assert_eq!(server.has("GET /healthz", &[]).status, 200, "operators are answered");
    inside[0].says("1");
    inside.pop().expect("a client").leave();
    until("there is room again", || server.upgrade("/ws", &[]) == 101);
}

#[test]
fn an_ipv4_client_of_an_ipv6_listener_has_one_place_for_a_connection() {
    let setup = Setup::at("[::ffff:127.0.0.1]:0", Arc::new(Dir::new()));
    let server = setup.flags(&["--max-clients-per-address", "2"]).start();
    let _inside: Vec<_> = (0..2).map(|_| server.join()).collect();
    assert_eq!(server.upgrade("/ws", &[]), 503);
}

#[test]
fn connections_that_say_nothing_take_only_their_own_address_s_places() {
    let flags = ["--max-clients-per-address", "4", "--max-clients", "200"];
    let server = Server::with(&flags);
    // All of one address: most are dropped at once, and none keeps the others out.
    let silent: Vec<_> = (0..300).map(|_| server.connect()).collect();
    let threads = server.status("Threads");
    assert!(threads < 40, "{threads} threads");
    // Another loopback address is another client.
    until("the other is served", || {
        let mut stream = connect_from([127, 0, 0, 9], server.address());
        let mut answer = String::new();
        // It may be dropped while the server has not got rid of the silent ones.
        let asked = stream.write_all(&ask("GET /messages", &["Connection: close"]));
        let read = asked.and_then(|()| stream.read_to_string(&mut answer));
        read.is_ok() && answer.starts_with("HTTP/1.1 200 ")
    });
    drop(silent);
}

#[test]
fn behind_a_proxy_each_client_has_its_own_places() {
    let flags = ["--max-clients-per-address", "2", "--trust-proxy", "127.0.0.1"];
    let server = Server::with(&flags);
    let field = |address: &str| vec![("X-Forwarded-For".to_owned(), address.to_owned())];
    let open = |address: &str| {
        let fields = field(address);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        let mut raw = server.raw();
        raw.send(server.head("/ws", &fields));
        let status = raw.head_alone().status;
        (status, raw)
    };
    let inside: Vec<_> = (0..2).map(|_| open("1.2.3.4")).collect();
    assert!(inside.iter().all(|(status, _)| *status == 101));
    assert_eq!(open("1.2.3.4").0, 503);
    assert_eq!(open("1.2.3.5").0, 101);
    let many: Vec<_> = (0..20).map(|n| open(&format!("1.2.4.{n}"))).collect();
    assert!(many.iter().all(|(status, _)| *status == 101));
}

#[test]
fn behind_a_proxy_operators_are_answered_however_many_an_address_has() {
    let flags = ["--max-clients-per-address", "1", "--trust-proxy", "127.0.0.1"];
    let server = Server::with(&flags);
    let field = "X-Forwarded-For: 1.2.3.4";
    let mut inside = server.raw();
    inside.send(server.head("/ws", &[("X-Forwarded-For", "1.2.3.4")]));
    assert_eq!(inside.head_alone().status, 101);
    server.has("GET /messages", &[field]).refuses(503, &["from this address"]);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.has(&format!("GET {path}"), &[field]).status, 200, "{path}");
    }
}

#[test]
fn flags_that_make_no_sense_are_refused_with_an_example() {
    for (flag, value, words) in [
        ("--post-rate", "fast", "such as 5/s or 90/m"),
        ("--post-rate", "0/s", "such as 5/s or 90/m"),
        ("--post-rate", "5/h", "such as 5/s or 90/m"),
        ("--max-clients-per-address", "0", "from 1 to"),
        ("--trust-proxy", "10.0.0.0/33", "10.0.0.0/8"),
        ("--trust-proxy", "proxy.example", "10.0.0.0/8"),
    ] {
        Setup::new().flags(&[flag, value]).ends().with(2, &[flag, words]);
    }
    let ended = Setup::new().flags(&["--post-burst", "5"]).ends();
    ended.with(2, &["--post-rate"]);
}
