use proptest::prelude::*;

use super::*;
use crate::{
    http::{head::parse, query::NAME_BYTES},
    testing::tries,
};

/// A request as browsers and libraries send it.
const REQUEST: &str = "GET /ws?after=7 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn parsed(head: &str) -> Request<()> {
    let (request, len) = parse(head.as_bytes()).expect("a request").expect("all of it");
    assert_eq!(len, head.len());
    request
}

/// The status and sentence of a refusal.
fn refusal<Answer: std::fmt::Debug>(answer: Result<Answer, HttpRefusal>) -> (u16, String) {
    let refused = answer.expect_err("it is refused");
    (refused.status.as_u16(), refused.sentence)
}

#[test]
fn an_upgrade_among_several_connection_fields_is_found() {
    let head =
        REQUEST.replace("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade");
    let request = parsed(&head);
    assert_eq!(request.headers()["connection"], "keep-alive, Upgrade");
    assert!(upgrade(&request).is_ok());
}

#[test]
fn an_upgrade_is_accepted_as_the_rfc_has_it() {
    let (response, join) = upgrade(&parsed(REQUEST)).expect("a proper upgrade");
    let response = String::from_utf8(response).unwrap().to_ascii_lowercase();
    assert!(response.starts_with("http/1.1 101 "));
    assert!(response.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"));
    assert!(response.ends_with("\r\n\r\n"));
    assert_eq!(join.resume.after, Some(7));
}

#[test]
fn what_is_no_upgrade_is_told_what_to_do() {
    #[track_caller]
    fn check(from: &str, to: &str, status: u16, words: &str) -> HttpRefusal {
        assert!(REQUEST.contains(from));
        let refused = upgrade(&parsed(&REQUEST.replace(from, to))).expect_err("refused");
        assert_eq!(refused.status.as_u16(), status, "{to}");
        assert!(refused.sentence.contains(words), "{}", refused.sentence);
        refused
    }
    let version =
        [(header::UPGRADE, "websocket".into()), (header::SEC_WEBSOCKET_VERSION, "13".into())];
    for (from, to) in [
        ("Upgrade: websocket\r\n", ""),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: Upgrade", "Connection: close"),
        ("Version: 13", "Version: 8"),
        ("Sec-WebSocket-Version: 13\r\n", ""),
        ("HTTP/1.1", "HTTP/1.0"),
    ] {
        assert_eq!(check(from, to, 426, "websocat").headers, version);
        // Those who connect through a proxy use a WebSocket client already.
        check(from, to, 426, "a proxy in between must pass Upgrade and Connection on");
    }
    check("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, "16 bytes in base64");
    check("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400, "16 bytes in base64");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    check(key, &key.repeat(2), 400, "given once");
    check("after=7", "after=-1", 400, "after= needs a whole number, such as after=42");
}

#[test]
fn a_request_with_a_body_is_no_upgrade() {
    #[track_caller]
    fn check(field: &str, status: u16) {
        let head = REQUEST.replace("Upgrade: websocket", &format!("Upgrade: websocket\r\n{field}"));
        let (got, sentence) = refusal(upgrade(&parsed(&head)));
        assert_eq!(got, status, "{field}: {sentence}");
    }
    check("Content-Length: 5", 400);
    check("Content-Length: x", 400);
    check("Content-Length: 0\r\nContent-Length: 0", 400);
    check("Transfer-Encoding: chunked", 411);
    check("Transfer-Encoding: chunked\r\nContent-Length: 0", 411);
    let empty = "Upgrade: websocket\r\nContent-Length: 0";
    assert!(upgrade(&parsed(&REQUEST.replace("Upgrade: websocket", empty))).is_ok());
}

#[test]
fn websocket_may_be_one_of_several_protocols() {
    for several in [
        "Upgrade: h2c, websocket",
        "Upgrade: websocket,h2c",
        "Upgrade: h2c\r\nUpgrade: TLS/1.0, \tWebSocket",
    ] {
        let head = REQUEST.replace("Upgrade: websocket", several);
        assert!(upgrade(&parsed(&head)).is_ok(), "{several}");
    }
}

#[test]
fn a_query_says_what_the_client_asks_for() {
    #[track_caller]
    fn check(query: &str, after: Option<u64>, limit: Option<u64>, name: Option<&str>) {
        let join = join_request(query).expect("a proper query");
        assert_eq!((join.resume.after, join.resume.limit), (after, limit), "{query}");
        assert_eq!(join.name.as_deref(), name, "{query}");
    }
    check("", None, None, None);
    check("after=0&limit=0", Some(0), Some(0), None);
    check("after=42&as=ann&limit=10", Some(42), Some(10), Some("ann"));
    check("as=%C3%A9+b%26", None, None, Some("é b&"));
    check("unknown=1&other&=&AFTER=x", None, None, None);
    // Larger than any file.
    check("after=99999999999999999999", Some(u64::MAX), None, None);
    let name = "n".repeat(NAME_BYTES);
    check(&format!("as={name}"), None, None, Some(&name));
    let epoch = join_request("epoch=9f2c&after=1").unwrap().resume.epoch;
    assert_eq!(epoch.as_deref(), Some("9f2c"));
}

#[test]
fn a_malformed_query_is_refused_with_an_example() {
    #[track_caller]
    fn check(query: &str, expected: &str) {
        assert_eq!(refusal(join_request(query)), (400, expected.to_owned()), "{query}");
    }
    let after = "after= needs a whole number, such as after=42";
    for value in ["-1", "", "+1", "x", "1.0", "0x1", "1%20", "%D9%A1"] {
        check(&format!("after={value}"), after);
    }
    check("limit=x", "limit= needs a whole number, such as limit=42");
    check("after=1&after=x", after);
    let name = "as= needs a name of 1 to 256 bytes";
    check("as=", name);
    check(&format!("as={}", "n".repeat(NAME_BYTES + 1)), name);
}

proptest! {
    #![proptest_config(tries(300))]

    #[test]
    fn no_bytes_harm_the_server(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let _ = parse(&bytes);
        let mut head = REQUEST.as_bytes().to_vec();
        let at = at.index(head.len());
        head[at] = byte;
        if let Ok(Some((request, len))) = parse(&head) {
            prop_assert!(len <= head.len());
            let _ = upgrade(&request);
        }
    }
}
