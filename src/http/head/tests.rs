use super::*;
use crate::testing::pair;

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
fn the_host_is_the_one_that_the_target_names_if_it_names_one() {
    #[track_caller]
    fn check(head: &str, expected: &str) {
        let request = parsed(head);
        let hosts: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
        assert_eq!(hosts, [expected], "{head}");
    }
    check("GET /messages HTTP/1.1\r\nHost: a\r\n\r\n", "a");
    check("GET http://b/messages HTTP/1.1\r\nHost: a\r\n\r\n", "b");
    check("GET http://b:80 HTTP/1.1\r\nHost:\r\n\r\n", "b:80");
    check("GET http://b/ HTTP/1.0\r\n\r\n", "b");
    check("GET messages HTTP/1.1\r\nHost: a\r\n\r\n", "a");
    check("GET http://a@b/ HTTP/1.1\r\nHost: a\r\n\r\n", "a@b");
    assert_eq!(parsed("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n").uri().path(), "/");
    let (status, _) = refusal(parse(b"GET http://b/ HTTP/1.1\r\n\r\n"));
    assert_eq!(status, 400, "RFC 9112 section 3.2 wants a Host even then");
}

#[test]
fn what_can_never_become_a_request_is_refused() {
    #[track_caller]
    fn check(head: &str, status: u16, words: &str) {
        let (got, sentence) = refusal(parse(head.as_bytes()));
        assert_eq!(got, status, "{sentence}");
        assert!(sentence.contains(words), "{sentence}");
    }
    let line = "begin with a line such as GET /messages HTTP/1.1";
    check("\0\r\n", 400, line);
    check("\x16\x03\x01\x02\0\x01\0\x01\r\n", 400, line);
    check("GET /ws\r\n\r\n", 400, line);
    check("GET / HTTP/2.0\r\n\r\n", 400, "use HTTP/1.1");
    let field = "write each header field as Name: value";
    check("GET / HTTP/1.1\r\nHost\r\n\r\n", 400, field);
    check("GET / HTTP/1.1\r\nHo st: a\r\n\r\n", 400, field);
    check("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", 400, field);
    check("GET a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "use HTTP/1.1");
    check("GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "such as /messages");
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
        let Err(ReadError::Refused(refused)) = read(&text) else { panic!("it is too long") };
        assert_eq!(refused.status, 431);
        assert!(refused.sentence.contains("8 KiB"), "{}", refused.sentence);
    }
    let target = "x".repeat(HEAD_BYTES);
    for (line, status) in [("GET /messages?q=", 414), ("GET /ws?", 431), ("GET /", 431)] {
        let text = format!("{line}{target}");
        let Err(ReadError::Refused(refused)) = read(&text) else { panic!("it is too long") };
        assert_eq!(refused.status, status);
    }
}

#[test]
fn a_peer_that_leaves_before_its_head_is_whole_is_gone() {
    let (ours, peer) = pair(4096);
    peer.socket.send(&REQUEST.as_bytes()[..50]).unwrap();
    drop(peer);
    assert!(matches!(read_head(&ours, Vec::new()), Err(ReadError::PeerGone)));
}
