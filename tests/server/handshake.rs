//! From the first byte of a connection to the upgrade: what is let in, and what is told to those
//! who are not.

use std::{
    io::{Read, Write},
    net::Shutdown,
    ops::Range,
    time::{Duration, Instant},
};

use crate::support::*;

/// The parts of a good request, to be spoiled one at a time.
const GOOD: [&str; 6] = [
    "GET /ws HTTP/1.1",
    "Host: localhost",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

fn request(lines: &[&str]) -> String {
    lines.join("\r\n") + "\r\n\r\n"
}

/// The good request with the line that starts with `old` made `new`.
fn spoiled(old: &str, new: &str) -> String {
    let position = GOOD.iter().position(|line| line.starts_with(old)).expect("a line of it");
    let mut lines = GOOD.to_vec();
    if new.is_empty() {
        lines.remove(position);
    } else {
        lines[position] = new;
    }
    request(&lines)
}

#[test]
fn a_good_request_is_upgraded() {
    let server = Server::start();
    let mut raw = server.raw();
    raw.send(request(&GOOD));
    let response = raw.response();
    assert_eq!(response.status, 101);
    // The example of RFC 6455.
    assert_eq!(response.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(response.header("Upgrade").is_some_and(|it| it.eq_ignore_ascii_case("websocket")));
    assert!(response.header("Connection").is_some_and(|it| it.eq_ignore_ascii_case("upgrade")));
    assert_eq!(History::parse(&raw.text()).last_id, 0);
}

#[test]
fn a_request_may_look_unusual() {
    let server = Server::start();
    #[track_caller]
    fn check(server: &Server, request: String) {
        assert_eq!(server.asked(&request).status, 101, "{request}");
    }
    check(&server, spoiled("Connection", "connection: keep-alive, Upgrade"));
    check(&server, spoiled("Connection", "CONNECTION:upgrade"));
    check(&server, spoiled("Upgrade", "upgrade: WebSocket"));
    check(&server, spoiled("Upgrade", "Upgrade: h2c, websocket"));
    check(&server, spoiled("Host", "Host: localhost:8000\r\nX-Empty:"));
    check(&server, spoiled("Host", "Host: chat.example.org"));
    check(
        &server,
        spoiled("Host", "Host: localhost\r\nSec-WebSocket-Extensions: permessage-deflate"),
    );
    check(&server, spoiled("Host", "Host: localhost\r\nCookie: a=\"b\"; c=\u{e9}"));
}

#[test]
fn a_client_may_ask_for_compression_and_gets_none() {
    let server = Server::start();
    let mut raw = server.raw();
    raw.send(server.head("/ws", &[("Sec-WebSocket-Extensions", "permessage-deflate")]));
    let response = raw.response();
    assert_eq!(response.status, 101);
    assert_eq!(response.header("Sec-WebSocket-Extensions"), None);
    History::parse(&raw.text());
}

#[test]
fn a_malformed_request_is_refused() {
    let server = Server::start();
    #[track_caller]
    fn check(server: &Server, request: impl AsRef<[u8]>) {
        let request = request.as_ref();
        let response = server.asked(request);
        assert_eq!(response.status, 400, "{}: {response:?}", String::from_utf8_lossy(request));
        response.refuses(400, &[]);
    }
    check(&server, "hello\r\n\r\n");
    check(&server, "GET /ws\r\n\r\n");
    check(&server, "GET  HTTP/1.1\r\nHost: localhost\r\n\r\n");
    check(&server, "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n");
    check(&server, b"\xff\xfe\xfd\r\n\r\n");
    check(&server, spoiled("GET", "GET /ws HTTP/9.9"));
    check(&server, spoiled("Host", "Host localhost"));
    check(&server, spoiled("Host", "Ho st: localhost"));
    check(&server, spoiled("Host", "Host: local\0host"));
    check(&server, spoiled("Host", ""));
    check(&server, spoiled("Host", "Host: localhost\r\nHost: localhost"));
    check(&server, spoiled("Sec-WebSocket-Key", ""));
    check(&server, spoiled("Sec-WebSocket-Key", &format!("{}\r\n{}", GOOD[5], GOOD[5])));
    server.join();
}

#[test]
fn an_old_http_version_is_refused() {
    let server = Server::start();
    let response = server.asked(spoiled("GET", "GET /ws HTTP/1.0"));
    // Its handshake would be malformed as well as no upgrade.
    assert!([400, 426].contains(&response.status), "{response:?}");
    response.refuses(response.status, &[]);
}

#[test]
fn another_path_is_refused() {
    let server = Server::start();
    for path in ["/nope", "/ws/nope", "/wsx", "/WS", "/nope?after=3"] {
        server.asked(server.head(path, &[])).refuses(404, &[]);
        server.asks(&format!("GET {path}"), &[]).refuses(404, &[]);
    }
}

#[test]
fn another_method_is_refused() {
    let server = Server::start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let response = server.asked(spoiled("GET", &format!("{method} /ws HTTP/1.1")));
        response.refuses(405, &[]);
        let allow = response.header("Allow").expect("405 says what is allowed");
        assert!(allow.contains("GET"), "{response:?}");
    }
}

#[test]
fn a_request_that_is_no_upgrade_is_told_so() {
    let server = Server::start();
    #[track_caller]
    fn check(server: &Server, request: String) {
        let response = server.asked(&request);
        assert_eq!(response.status, 426, "{request}{response:?}");
        response.refuses(426, &[]);
        let upgrade = response.header("Upgrade").expect("426 says to what");
        assert!(upgrade.eq_ignore_ascii_case("websocket"), "{response:?}");
        assert_eq!(response.header("Sec-WebSocket-Version"), Some("13"), "{response:?}");
        // RFC 9110 section 7.8.
        assert_eq!(response.header("Connection"), Some("Upgrade, close"), "{response:?}");
    }
    check(&server, "GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n".into());
    check(&server, spoiled("Upgrade", ""));
    check(&server, spoiled("Upgrade", "Upgrade: h2c"));
    check(&server, spoiled("Connection", ""));
    check(&server, spoiled("Connection", "Connection: keep-alive"));
    check(&server, spoiled("Sec-WebSocket-Version", ""));
    check(&server, spoiled("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"));
    check(&server, spoiled("Sec-WebSocket-Version", "Sec-WebSocket-Version: 14"));
}

#[test]
fn a_request_head_may_be_large_but_not_too_large() {
    let server = Server::start();
    let padded = |length: usize| {
        let bare = server.head("/ws", &[("X-Pad", "")]).len();
        let head = server.head("/ws", &[("X-Pad", &"x".repeat(length - bare))]);
        assert_eq!(head.len(), length);
        head
    };
    assert_eq!(server.asked(padded(8000)).status, 101);
    assert_eq!(server.asked(padded(8 << 10)).status, 101);
    server.asked(padded((8 << 10) + 1)).refuses(431, &[]);
    server.asked(padded(9000)).refuses(431, &[]);
    server.asked(format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000))).refuses(431, &[]);
    // Never finished, and far more than a polite server would read.
    let mut raw = server.raw();
    raw.send([server.head("/ws", &[]).trim_ascii_end(), &[b'x'; 100_000]].concat());
    raw.response().refuses(431, &[]);
}

#[test]
fn a_request_may_have_many_headers_but_not_too_many() {
    let server = Server::start();
    let many = |count: usize| {
        let more: Vec<(String, &str)> =
            (GOOD.len()..=count).map(|number| (format!("X-{number}"), "1")).collect();
        let more: Vec<(&str, &str)> = more.iter().map(|(name, it)| (name.as_str(), *it)).collect();
        server.head("/ws", &more)
    };
    assert_eq!(server.asked(many(60)).status, 101);
    assert_eq!(server.asked(many(64)).status, 101);
    server.asked(many(65)).refuses(431, &[]);
    server.asked(many(300)).refuses(431, &[]);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = Server::start();
    let mut raw = server.raw();
    for byte in server.head("/ws?as=ann", &[]) {
        raw.send([byte]);
    }
    assert_eq!(raw.response().status, 101);
    History::parse(&raw.text());
    for byte in frame(TEXT, "hello") {
        raw.send([byte]);
    }
    raw.hears(r#"{"user":"ann","content":"hello"}"#);
}

#[test]
fn frames_right_behind_the_request_are_not_lost() {
    let server = Server::start();
    let mut raw = server.raw();
    let large = padded(3, 20_000);
    raw.send([server.head("/ws", &[]), frame(TEXT, "1"), frame(TEXT, "2")].concat());
    raw.send(frame(TEXT, &large));
    assert_eq!(raw.response().status, 101);
    History::parse(&raw.text());
    raw.hears("1");
    raw.hears("2");
    raw.hears(&large);
    // A frame of which only a part came with the request.
    let mut raw = server.raw();
    let said = frame(TEXT, r#"{"a":1}"#);
    raw.send([server.head("/ws?limit=0", &[]), said[..5].to_vec()].concat());
    assert_eq!(raw.response().status, 101);
    History::parse(&raw.text());
    raw.send(&said[5..]);
    raw.hears(r#"{"a":1}"#);
}

#[test]
fn a_body_is_not_taken_for_frames() {
    let server = Server::start();
    let said = frame(TEXT, "1");
    let length = format!("{}", said.len());
    for (field, value, status) in
        [("Content-Length", &*length, 400), ("Transfer-Encoding", "chunked", 411)]
    {
        let mut raw = server.raw();
        raw.send([server.head("/ws", &[(field, value)]), said.clone()].concat());
        raw.response().refuses(status, &["no body"]);
        raw.is_over();
    }
    server.join();
    assert_eq!(server.lines(), [] as [&str; 0]);
}

#[test]
fn who_does_not_finish_the_request_in_time_is_told_so() {
    // The deadline, ten seconds, is the server's own and is for the whole head: a byte now and then
    // is no way around it. A busy machine adds something.
    const IN_TIME: Range<Duration> = Duration::from_millis(9_500)..PATIENCE;
    let server = Server::start();
    let begun = Instant::now();
    let mut silent = server.raw();
    let mut halfway = server.raw();
    halfway.send("GET /ws HTTP/1.1\r\nHost: localhost\r\n");
    let mut dribbling = server.raw();
    dribbling.send("GET /ws HTTP/1.1\r\nX-Pad: ");
    // The pace of the dribble is the timeout of its own reads.
    dribbling.stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    while begun.elapsed() < IN_TIME.end {
        match dribbling.stream.peek(&mut [0]) {
            Err(error) if is_timeout(&error) => assert!(dribbling.try_send("x"), "no answer"),
            _ => break,
        }
    }
    dribbling.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    dribbling.response().refuses(408, &[]);
    let took = begun.elapsed();
    assert!(IN_TIME.contains(&took), "the answer took {took:?}");
    halfway.response().refuses(408, &[]);
    // A peer that has asked for nothing, as a browser that connects ahead, need not be answered.
    silent.is_gone();
    let took = begun.elapsed();
    assert!(IN_TIME.contains(&took), "the end took {took:?}");
    server.join();
}

#[test]
fn who_is_refused_while_still_sending_gets_the_answer_and_no_reset() {
    // For two seconds the server takes what still comes.
    in_one_of_a_few_attempts(|| {
        let server = Server::start();
        let mut raw = server.raw();
        raw.send("POST /ws HTTP/1.1\r\nHost: localhost\r\nContent-Length: 150000\r\n\r\n");
        raw.send([b'x'; 50_000]);
        raw.stream.peek(&mut [0]).expect("an answer");
        for _ in 0..20 {
            raw.send([b'x'; 5000]);
        }
        raw.response().refuses(405, &[]);
        let mut rest = Vec::new();
        raw.stream.read_to_end(&mut rest).expect("an orderly end");
        assert!(rest.is_empty());
    });
}

#[test]
fn who_hangs_up_during_the_handshake_harms_nobody() {
    let server = Server::start();
    let mut ann = server.join();
    let size = server.size();
    let head = server.head("/ws", &[]);
    for length in (0..=head.len()).step_by(11).chain([head.len()]) {
        let mut stream = server.connect();
        stream.write_all(&head[..length]).expect("the server reads");
        stream.shutdown(Shutdown::Both).expect("the connection is there");
        let mut raw = server.raw();
        raw.send(&head[..length]);
        raw.reset();
    }
    ann.says("1");
    server.shrinks_to(size);
}

/// What becomes of a request with this `Host` and these `Origin`s.
#[track_caller]
fn check_origin(server: &Server, host: &str, origins: &[&str], allowed: Allowed) {
    let mut headers = vec![("Host", host)];
    headers.extend(origins.iter().map(|origin| ("Origin", *origin)));
    let response = server.asked(server.head("/ws", &headers));
    match allowed {
        Allowed::Yes => assert_eq!(response.status, 101, "{host} {origins:?}: {response:?}"),
        Allowed::No => {
            assert_eq!(response.status, 403, "{host} {origins:?}: {response:?}");
            response.refuses(403, &["--allow-origin"]);
        }
    }
}

enum Allowed {
    Yes,
    No,
}

use Allowed::{No, Yes};

#[test]
fn a_request_without_origin_is_no_page() {
    let server = Server::start();
    for host in ["127.0.0.1:8000", "localhost", "chat.example.org", "10.1.2.3:80"] {
        check_origin(&server, host, &[], Yes);
    }
}

#[test]
fn a_page_of_the_same_local_host_may_connect() {
    let server = Server::start();
    let own = server.address().to_string();
    check_origin(&server, &own, &[&format!("http://{own}")], Yes);
    for host in [
        "localhost",
        "localhost:8000",
        "chat.localhost",
        "a.b.localhost:8000",
        "127.0.0.1:8000",
        "192.168.1.5",
        "192.168.1.5:8000",
        "[::1]:8000",
        "[fe80::1]",
        "[2001:db8::1]:8000",
    ] {
        check_origin(&server, host, &[&format!("http://{host}")], Yes);
        check_origin(&server, host, &[&format!("https://{host}")], Yes);
    }
}

#[test]
fn a_page_of_a_dev_server_on_this_machine_may_connect() {
    let server = Server::start();
    for origin in [
        "http://localhost",
        "http://localhost:5173",
        "https://localhost:5173",
        "http://127.0.0.1:3000",
        "http://[::1]:3000",
    ] {
        check_origin(&server, "127.0.0.1:8000", &[origin], Yes);
        check_origin(&server, "192.168.1.5:8000", &[origin], Yes);
    }
}

#[test]
fn any_other_page_may_not_connect() {
    let server = Server::start();
    let own = "127.0.0.1:8000";
    check_origin(&server, own, &["http://evil.example"], No);
    check_origin(&server, own, &["https://evil.example:8000"], No);
    check_origin(&server, own, &["http://127.0.0.1.evil.example"], No);
    check_origin(&server, own, &["http://localhost.evil.example"], No);
    check_origin(&server, own, &["http://evil-localhost:8000"], No);
    check_origin(&server, own, &["http://evillocalhost"], No);
    check_origin(&server, own, &["http://localhost:8000.evil.example"], No);
    check_origin(&server, own, &["http://localhost@evil.example"], No);
    check_origin(&server, own, &["http://evil.example/localhost"], No);
    check_origin(&server, own, &["null"], No);
    check_origin(&server, own, &[""], No);
    check_origin(&server, own, &["localhost"], No);
    check_origin(&server, own, &["*"], No);
    // Another machine's page; the name of a local one that is not asked for.
    check_origin(&server, own, &["http://192.168.1.5:8000"], No);
    check_origin(&server, own, &["http://chat.localhost:8000"], No);
    // Same address, another port.
    check_origin(&server, "192.168.1.5:8000", &["http://192.168.1.5:9000"], No);
    check_origin(&server, "192.168.1.5:8000", &["http://192.168.1.5"], No);
    check_origin(&server, "192.168.1.5", &["http://192.168.1.5:8000"], No);
    // DNS rebinding: the page's own name, which leads to this machine.
    check_origin(&server, "evil.example:8000", &["http://evil.example:8000"], No);
    check_origin(&server, "chat.example.org", &["https://chat.example.org"], No);
    check_origin(&server, "localhost.example.org", &["http://localhost.example.org"], No);
    check_origin(&server, "notlocalhost", &["http://notlocalhost"], No);
    check_origin(&server, "1.2.3.4.example.org", &["http://1.2.3.4.example.org"], No);
}

#[test]
fn two_origins_are_one_too_many() {
    let server = Server::start();
    check_origin(&server, "localhost", &["http://localhost", "http://localhost"], No);
    check_origin(&server, "localhost", &["http://localhost", "http://evil.example"], No);
    check_origin(&server, "localhost", &["http://evil.example", "http://localhost"], No);
}

#[test]
fn a_listed_page_may_connect() {
    let server = Server::with(&[
        "--allow-origin",
        "https://chat.example.org",
        "--allow-origin",
        "http://other.example:8080",
    ]);
    for host in ["127.0.0.1:8000", "chat.example.org"] {
        check_origin(&server, host, &["https://chat.example.org"], Yes);
        check_origin(&server, host, &["http://other.example:8080"], Yes);
        check_origin(&server, host, &["http://localhost:5173"], Yes);
        check_origin(&server, host, &["http://chat.example.org"], No);
        check_origin(&server, host, &["https://chat.example.org:8443"], No);
        check_origin(&server, host, &["https://sub.chat.example.org"], No);
        check_origin(&server, host, &["https://chat.example.org.evil.example"], No);
        check_origin(&server, host, &["http://other.example"], No);
        check_origin(&server, host, &["null"], No);
    }
    let twice = ["https://chat.example.org", "https://chat.example.org"];
    check_origin(&server, "127.0.0.1:8000", &twice, No);
}

#[test]
fn null_and_all_pages_can_be_listed() {
    let server = Server::with(&["--allow-origin", "null"]);
    check_origin(&server, "127.0.0.1:8000", &["null"], Yes);
    check_origin(&server, "127.0.0.1:8000", &["http://evil.example"], No);
    let server = Server::with(&["--allow-origin", "*"]);
    check_origin(&server, "127.0.0.1:8000", &["http://evil.example"], Yes);
    check_origin(&server, "evil.example", &["http://evil.example"], Yes);
    check_origin(&server, "127.0.0.1:8000", &["null"], Yes);
}

#[test]
fn a_full_server_says_so_and_has_room_again_when_someone_leaves() {
    let server = Server::with(&["--max-clients", "2"]);
    let (mut ann, bob) = (server.join(), server.join());
    let response = server.asked(server.head("/ws", &[]));
    response.refuses(503, &[]);
    let seconds = response.header("Retry-After").and_then(|value| value.parse::<u32>().ok());
    assert!(seconds.is_some(), "{response:?}");
    ann.says("1");
    bob.leave();
    let mut cleo = None;
    until("there is room again", || {
        cleo = server.try_join().ok();
        cleo.is_some()
    });
    ann.says("2");
    cleo.expect("it has joined").hears("2");
}

#[test]
fn connections_that_say_nothing_keep_nobody_at_a_full_server_from_an_answer() {
    let server = Server::with(&["--max-clients", "2"]);
    let (mut ann, bob) = (server.join(), server.join());
    let _silent: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.asks(&format!("GET {path}"), &[]).status, 200, "{path}");
    }
    server.asked(server.head("/ws", &[])).refuses(503, &["too many clients"]);
    // Those who are in stay, and a seat that is free is for who comes.
    ann.says("1");
    bob.leave();
    until("there is room again", || server.try_join().is_ok());
}
