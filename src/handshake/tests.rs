use proptest::prelude::*;

use super::*;
use crate::testing::{pair, tries};

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
fn refusal<Answer: std::fmt::Debug>(answer: Result<Answer, Refused>) -> (u16, String) {
    let refused = answer.expect_err("it is refused");
    (refused.status.as_u16(), refused.sentence)
}

#[test]
fn a_head_is_whole_at_its_empty_line_and_not_a_byte_before() {
    for cut in 0..REQUEST.len() {
        assert!(matches!(parse(&REQUEST.as_bytes()[..cut]), Ok(None)), "cut at {cut}");
    }
    let behind = [REQUEST.as_bytes(), b"\x81\x80mask"].concat();
    let (request, len) = parse(&behind).unwrap().unwrap();
    assert_eq!(len, REQUEST.len());
    assert_eq!(request.uri().path(), "/ws");
    assert_eq!(request.headers()["host"], "127.0.0.1:8000");
}

#[test]
fn the_version_is_the_one_of_the_request() {
    assert_eq!(parsed("GET / HTTP/1.1\r\nHost: a\r\n\r\n").version(), Version::HTTP_11);
    assert_eq!(parsed("GET / HTTP/1.0\r\n\r\n").version(), Version::HTTP_10);
}

#[test]
fn what_can_never_become_a_request_is_refused() {
    #[track_caller]
    fn check(head: &str, status: u16, words: &str) {
        let (got, sentence) = refusal(parse(head.as_bytes()));
        assert_eq!(got, status, "{sentence}");
        assert!(sentence.contains(words), "{sentence}");
    }
    check("\0\r\n", 400, "malformed request");
    check("GET / HTTP/2.0\r\n\r\n", 400, "malformed request");
    check("GET / HTTP/1.1\r\nHost\r\n\r\n", 400, "malformed request");
    check("GET / HTTP/1.1\r\nHo st: a\r\n\r\n", 400, "malformed request");
    check("GET a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed request");
    check("GET / HTTP/1.1\r\n\r\n", 400, "exactly one Host");
    check("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "exactly one Host");
    check("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, "exactly one Host");
    let many = "X: y\r\n".repeat(HEADERS);
    check(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431, "more than 64");
}

#[test]
fn as_many_fields_as_are_allowed_are_taken() {
    let many = "X: y\r\n".repeat(HEADERS - 1);
    let request = parsed(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"));
    assert_eq!(request.headers().get_all("x").iter().count(), HEADERS - 1);
}

#[test]
fn an_upgrade_among_several_connection_fields_is_found() {
    let head =
        REQUEST.replace("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade");
    let request = parsed(&head);
    assert_eq!(request.headers()["connection"], "keep-alive, Upgrade");
    assert!(upgrade(&request, &[]).is_ok());
}

proptest! {
    #![proptest_config(tries(300))]

    #[test]
    fn no_bytes_harm_the_parser(
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
            let _ = upgrade(&request, &[]);
        }
    }
}

#[test]
fn what_came_behind_the_head_is_kept() {
    let (ours, peer) = pair(1 << 20);
    peer.socket.send(&[REQUEST.as_bytes(), b"frame"].concat()).unwrap();
    let head = read_head(&ours, Vec::new()).expect("a head");
    assert_eq!(head.received, b"frame");
    assert_eq!(head.request.uri().query(), Some("after=7"));
    // And what came before is the head's beginning.
    let (begun, rest) = REQUEST.as_bytes().split_at(30);
    peer.socket.send(rest).unwrap();
    assert!(read_head(&ours, begun.to_vec()).expect("a head").received.is_empty());
}

#[test]
fn a_head_is_as_long_as_the_limit_and_no_longer() {
    let padding = |len: usize| {
        let bare = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(len - bare))
    };
    let read = |text: &str| {
        let (ours, peer) = pair(1 << 20);
        peer.socket.send(text.as_bytes()).unwrap();
        read_head(&ours, Vec::new())
    };
    assert!(read(&padding(HEAD_BYTES)).is_ok());
    for text in [padding(HEAD_BYTES + 1), padding(HEAD_BYTES * 4), "x".repeat(HEAD_BYTES + 1)] {
        let Err(HeadError::Refused(refused)) = read(&text) else { panic!("it is too long") };
        assert_eq!(refused.status, 431);
        assert!(refused.sentence.contains("8 KiB"), "{}", refused.sentence);
    }
    let target = "x".repeat(HEAD_BYTES);
    for (line, status) in [("GET /messages?q=", 414), ("GET /ws?", 431), ("GET /", 431)] {
        let text = format!("{line}{target}");
        let Err(HeadError::Refused(refused)) = read(&text) else { panic!("it is too long") };
        assert_eq!(refused.status, status);
    }
}

#[test]
fn a_peer_that_leaves_before_its_head_is_whole_is_gone() {
    let (ours, peer) = pair(4096);
    peer.socket.send(&REQUEST.as_bytes()[..50]).unwrap();
    drop(peer);
    assert!(matches!(read_head(&ours, Vec::new()), Err(HeadError::Gone)));
}

#[test]
fn an_upgrade_is_accepted_as_the_rfc_has_it() {
    let (response, wish) = upgrade(&parsed(REQUEST), &[]).expect("a proper upgrade");
    let response = String::from_utf8(response).unwrap().to_ascii_lowercase();
    assert!(response.starts_with("http/1.1 101 "));
    assert!(response.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"));
    assert!(response.ends_with("\r\n\r\n"));
    assert_eq!(wish.resume.after, Some(7));
}

#[test]
fn what_is_no_upgrade_is_told_what_to_do() {
    #[track_caller]
    fn check(from: &str, to: &str, status: u16, words: &str) -> Refused {
        assert!(REQUEST.contains(from));
        let refused = upgrade(&parsed(&REQUEST.replace(from, to)), &[]).expect_err("refused");
        assert_eq!(refused.status.as_u16(), status, "{to}");
        assert!(refused.sentence.contains(words), "{}", refused.sentence);
        refused
    }
    let refused = check("GET", "POST", 405, "begins with GET");
    assert_eq!(refused.headers, [(header::ALLOW, "GET")]);
    let version = [(header::UPGRADE, "websocket"), (header::SEC_WEBSOCKET_VERSION, "13")];
    for (from, to) in [
        ("Upgrade: websocket\r\n", ""),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: Upgrade", "Connection: close"),
        ("Version: 13", "Version: 8"),
        ("Sec-WebSocket-Version: 13\r\n", ""),
        ("HTTP/1.1", "HTTP/1.0"),
    ] {
        assert_eq!(check(from, to, 426, "websocat").headers, version);
    }
    check("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, "16 bytes in base64");
    check("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400, "16 bytes in base64");
    check("after=7", "after=-1", 400, "after= needs a whole number, such as after=42");
    check("Upgrade: w", "Origin: http://evil.example\r\nUpgrade: w", 403, "--allow-origin");
}

#[test]
fn a_query_says_what_the_client_wishes() {
    #[track_caller]
    fn check(query: &str, after: Option<u64>, limit: Option<u64>, name: Option<&str>) {
        let wish = wish(query).expect("a proper query");
        assert_eq!((wish.resume.after, wish.resume.limit), (after, limit), "{query}");
        assert_eq!(wish.name.as_deref(), name, "{query}");
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
    let epoch = wish("epoch=9f2c&after=1").unwrap().resume.epoch;
    assert_eq!(epoch.as_deref(), Some("9f2c"));
}

#[test]
fn a_malformed_wish_is_refused_with_an_example() {
    #[track_caller]
    fn check(query: &str, expected: &str) {
        assert_eq!(refusal(wish(query)), (400, expected.to_owned()), "{query}");
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

#[test]
fn who_may_connect_from_a_browser() {
    #[track_caller]
    fn check(origin: &str, host: &str, allowed: &[&str], expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        headers.insert(header::ORIGIN, HeaderValue::from_bytes(origin.as_bytes()).unwrap());
        let allowed: Vec<_> = allowed.iter().map(|origin| origin.to_string()).collect();
        let got = check_origin(&headers, &allowed);
        assert_eq!(got.is_ok(), expected, "{origin} at {host}");
        if let Err(refused) = got {
            assert_eq!(refused.status, 403);
            assert!(refused.sentence.contains("--allow-origin"), "{}", refused.sentence);
        }
    }
    const HERE: &str = "127.0.0.1:8000";
    // The server's own page, under a name that DNS cannot rebind.
    check("http://127.0.0.1:8000", HERE, &[], true);
    check("https://192.168.1.5:8000", "192.168.1.5:8000", &[], true);
    check("http://192.168.1.5", "192.168.1.5", &[], true);
    check("http://[2001:db8::7]:8000", "[2001:db8::7]:8000", &[], true);
    check("http://[2001:db8::7]", "[2001:db8::7]", &[], true);
    check("http://chat.localhost:8000", "chat.localhost:8000", &[], true);
    check("http://chat.localhost:8000", "CHAT.localhost:8000", &[], true);
    check("http://192.168.1.5:8000", "192.168.1.5:8001", &[], false);
    check("http://192.168.1.5", "192.168.1.6", &[], false);
    check("http://chat.localhost", "other.localhost", &[], false);
    // A name that DNS could rebind.
    check("http://chat.example:8000", "chat.example:8000", &[], false);
    check("http://evillocalhost", "evillocalhost", &[], false);
    check("http://localhost.evil.example", "localhost.evil.example", &[], false);
    check("http://1.2.3.4.evil.example", "1.2.3.4.evil.example", &[], false);
    // A dev server on this machine.
    check("http://localhost:3000", HERE, &[], true);
    check("https://localhost", "chat.example", &[], true);
    check("http://127.0.0.1:5173", "localhost:8000", &[], true);
    check("http://[::1]:3000", HERE, &[], true);
    check("http://[::1]", HERE, &[], true);
    check("http://127.0.0.2:3000", HERE, &[], false);
    check("http://dev.localhost:3000", HERE, &[], false);
    check("http://localhost:3000@evil.example", HERE, &[], false);
    check("http://localhost.:3000", HERE, &[], false);
    check("http://evil.example:127.0.0.1", HERE, &[], false);
    check("ftp://localhost", HERE, &[], false);
    check("localhost:3000", HERE, &[], false);
    // Listed.
    let listed = &["https://chat.example", "null"];
    check("https://chat.example", HERE, listed, true);
    check("null", HERE, listed, true);
    check("http://chat.example", HERE, listed, false);
    check("https://chat.example:8443", HERE, listed, false);
    check("https://chat.example.evil", HERE, listed, false);
    check("https://a.chat.example", HERE, listed, false);
    check("null", HERE, &[], false);
    check("", HERE, &[], false);
    check("https://anything", HERE, &["*"], true);
    check("chrome-extension://abc", HERE, &["*"], true);
    check("http://\u{e9}vil", HERE, &[], false);
}

#[test]
fn no_origin_is_no_browser_and_two_are_refused() {
    let mut headers = HeaderMap::new();
    assert!(check_origin(&headers, &[]).is_ok());
    headers.append(header::ORIGIN, HeaderValue::from_static("http://localhost"));
    assert!(check_origin(&headers, &[]).is_ok());
    headers.append(header::ORIGIN, HeaderValue::from_static("http://localhost"));
    assert!(check_origin(&headers, &[]).is_err());
    assert!(check_origin(&headers, &["*".to_owned()]).is_err());
}

#[test]
fn what_a_stranger_made_up_is_escaped_and_cut_in_answers() {
    let mut headers = HeaderMap::new();
    let origin = format!("http://\u{1b}[31m{}", "x".repeat(4000));
    headers.insert(
        header::ORIGIN,
        HeaderValue::from_bytes(origin.replace('\u{1b}', "\t").as_bytes()).unwrap(),
    );
    let (_, sentence) = refusal(check_origin(&headers, &[]));
    assert!(sentence.contains(r"http://\t[31mxxx") && sentence.len() < 400, "{sentence}");
}

#[test]
fn plain_http_is_answered_under_names_that_dns_cannot_rebind() {
    #[track_caller]
    fn check(host: &str, allowed: &[&str], expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        let allowed: Vec<_> = allowed.iter().map(|origin| origin.to_string()).collect();
        assert_eq!(check_host_name(&headers, &allowed).is_ok(), expected, "{host}");
    }
    check("localhost", &[], true);
    check("LOCALHOST:8000", &[], true);
    check("chat.localhost:8000", &[], true);
    check("10.0.0.7:8000", &[], true);
    check("[::1]:8000", &[], true);
    check("[::1]", &[], true);
    check("chat.example", &[], false);
    check("localhost.evil.example:8000", &[], false);
    check("", &[], false);
    check("chat.example", &["https://chat.example"], true);
    check("chat.example:8000", &["https://chat.example"], false);
    check("chat.example:8000", &["https://chat.example:8000"], true);
    check("chat.example", &["*"], true);
    assert!(check_host_name(&HeaderMap::new(), &[]).is_ok());
}

#[test]
fn a_refusal_is_a_sentence_and_ends_the_connection() {
    let refused = Refused::unavailable("come back later");
    let expected = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\
                    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 16\r\n\
                    Connection: close\r\n\r\ncome back later\n";
    assert_eq!(String::from_utf8(refused.response(&Method::GET)).unwrap(), expected);
    let refused =
        Refused::new(StatusCode::UPGRADE_REQUIRED, "é").with(header::SEC_WEBSOCKET_VERSION, "13");
    let response = String::from_utf8(refused.response(&Method::GET)).unwrap();
    assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{response}");
    assert!(response.contains("\r\nContent-Length: 3\r\n"), "{response}");
}
