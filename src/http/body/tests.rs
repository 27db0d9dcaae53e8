use http::HeaderValue;

use super::*;
use crate::testing::pair;

/// A request with these header fields.
fn request(method: Method, fields: &[(&'static str, &'static str)]) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = method;
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    request
}

#[test]
fn a_length_is_said_in_one_way_or_the_body_is_refused() {
    #[track_caller]
    fn check(method: Method, fields: &[(&'static str, &'static str)], expected: Result<u64, u16>) {
        let length = length(&request(method, fields));
        assert_eq!(length.map_err(|refusal| refusal.status.as_u16()), expected, "{fields:?}");
    }
    check(Method::GET, &[], Ok(0));
    check(Method::POST, &[], Err(411));
    check(Method::POST, &[("content-length", "0")], Ok(0));
    check(Method::GET, &[("content-length", "42")], Ok(42));
    for wrong in ["-1", "+1", "1.0", "x", "1,1", "1 1", "99999999999999999999"] {
        check(Method::POST, &[("content-length", wrong)], Err(400));
    }
    check(Method::POST, &[("content-length", "1"), ("content-length", "1")], Err(400));
    let refused =
        length(&request(Method::POST, &[("content-length", "x")])).expect_err("no number");
    assert!(refused.sentence.contains("in bytes, such as 42"), "{}", refused.sentence);
    for coding in ["chunked", "identity", ""] {
        check(Method::POST, &[("transfer-encoding", coding), ("content-length", "1")], Err(411));
        check(Method::GET, &[("transfer-encoding", coding)], Err(411));
    }
}

#[test]
fn what_came_after_the_body_is_left_for_the_next_request() {
    let (ours, peer) = pair(1 << 20);
    let deadline = Instant::now() + BODY_TIME;
    peer.socket.send(b"dyGET /").expect("there is room");
    let mut received = b"bo".to_vec();
    let body =
        read_body(&ours, &mut received, 4, deadline, &mut Unfinished::nothing()).expect("a body");
    assert_eq!((&body[..], &received[..]), (&b"body"[..], &b"GET /"[..]));
    // All of the next one is there already.
    assert_eq!(
        read_body(&ours, &mut received, 3, deadline, &mut Unfinished::nothing()).expect("a body"),
        b"GET"
    );
    assert_eq!(
        read_body(&ours, &mut received, 0, deadline, &mut Unfinished::nothing()).expect("a body"),
        b""
    );
    assert_eq!(received, b" /");
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let (ours, peer) = pair(1 << 20);
    peer.socket.send(b"half").expect("there is room");
    let late = read_body(
        &ours,
        &mut Vec::new(),
        8,
        Instant::now() + Duration::from_millis(50),
        &mut Unfinished::nothing(),
    );
    assert!(matches!(late, Err(ReadError::Refused(refusal)) if refusal.status == 408));
    drop(peer);
    let gone = read_body(
        &ours,
        &mut Vec::new(),
        8,
        Instant::now() + BODY_TIME,
        &mut Unfinished::nothing(),
    );
    assert!(matches!(gone, Err(ReadError::PeerGone)));
}
