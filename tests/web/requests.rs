//! The manners of HTTP: connections that stay, methods, paths, and requests that mean to confuse.

use crate::{support::*, talk::*};

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let server = Server::on(SEED);
    let mut raw = server.raw();
    for _ in 0..3 {
        for path in PATHS {
            let answer = raw.asks(ask(&format!("GET {path}"), &[]));
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.header("Connection"), None, "{path}");
            assert!(!answer.body.is_empty(), "{path}");
        }
        assert_eq!(raw.asks(post("1")).status, 201);
        assert_eq!(raw.asks(ask("GET /messages/99999", &[])).status, 404);
        raw = server.raw();
    }
    // A message that is refused for what it says ends nothing.
    assert_eq!(raw.asks(post("{")).status, 400);
    assert_eq!(raw.asks(post("{}")).status, 201);
}

#[test]
fn requests_that_come_at_once_are_answered_in_order() {
    let server = Server::start();
    let mut raw = server.raw();
    let mut all = Vec::new();
    for number in 1..=50 {
        all.extend(post(&format!("{{\"n\":{number}}}")));
        all.extend(ask(&format!("GET /messages/{number}"), &[]));
        all.extend(ask("GET /messages?limit=1", &[]));
        all.extend(ask("HEAD /messages", &[]));
    }
    // Cut anywhere, also within a head.
    for piece in all.chunks(1777) {
        raw.send(piece);
    }
    for number in 1..=50 {
        assert_eq!(raw.whole().body, format!("{{\"id\":{number}}}\n"));
        let one = raw.whole().body;
        assert_eq!(Told::parse(one.trim_end()).data, format!("{{\"n\":{number}}}"));
        assert_eq!(raw.whole().body, one);
        assert_eq!(raw.head_alone().status, 200);
    }
    // And a client of the chat may come out of it.
    raw.send([ask("GET /healthz", &[]), server.head("/ws?limit=1", &[])].concat());
    assert_eq!(raw.whole().body, "ok\n");
    assert_eq!(raw.response().status, 101);
    assert_eq!(History::parse(&raw.text()).said(), [r#"{"n":50}"#]);
    raw.send(frame(TEXT, "51"));
    assert_eq!(raw.hears("51").id, 51);
}

#[test]
fn a_target_that_names_the_host_is_believed_rather_than_host() {
    let server = Server::on(SEED);
    for (target, host, status) in [
        ("http://localhost/messages", "localhost", 200),
        ("http://localhost/messages", "evil.example", 200),
        ("http://127.0.0.1:8000/messages", "", 200),
        ("http://evil.example/messages", "localhost", 403),
        ("http://localhost@evil.example/messages", "localhost", 403),
    ] {
        let answer = server.asks(&format!("GET {target}"), &[&format!("Host: {host}")]);
        assert_eq!(answer.status, status, "{target} with {host}: {answer:?}");
    }
    // The page that may open a WebSocket is one of the host that the target names.
    for (host, status) in [("192.168.1.5", 101), ("192.168.1.6", 403)] {
        let fields = [("Host", "192.168.1.6"), ("Origin", "http://192.168.1.5")];
        let head = server.head(&format!("http://{host}/ws"), &fields);
        assert_eq!(server.asked(head).status, status, "{host}");
    }
}

#[test]
fn an_answer_says_when_it_was_given() {
    let server = Server::on(SEED);
    for (line, status) in [
        ("GET /messages", 200),
        ("HEAD /messages.txt", 200),
        ("OPTIONS /messages", 204),
        ("GET /nothing", 404),
        ("GET /ws", 426),
        ("nonsense", 400),
    ] {
        let mut raw = server.raw();
        raw.send(ask(line, &[]));
        let answer = raw.head_alone();
        assert_eq!(answer.status, status, "{line}");
        let dates = answer.headers.iter().filter(|(name, _)| name == "Date").count();
        assert_eq!(dates, 1, "{line}: {answer:?}");
        let date = answer.header("Date").map(httpdate::parse_http_date);
        let date = date.expect("it is there").expect("a date of HTTP");
        let ago = date.elapsed().expect("it is not in the future");
        assert!(ago < PATIENCE, "{line}: {answer:?}");
    }
}

#[test]
fn the_connection_ends_when_the_client_says_so() {
    let server = Server::on(SEED);
    for (line, fields, stays) in [
        ("GET /healthz", &[][..], true),
        ("GET /healthz", &["Connection: keep-alive"], true),
        ("GET /healthz", &["Connection: close"], false),
        ("GET /healthz", &["connection: TE, Close"], false),
        ("GET /healthz", &["Connection: keep-alive", "Connection: close"], false),
        ("GET /healthz HTTP/1.0", &[], false),
        ("GET /healthz HTTP/1.0", &["Connection: Keep-Alive"], true),
        ("GET /messages HTTP/1.0", &["Connection: keep-alive"], false),
        ("GET /messages/99 HTTP/1.0", &[], false),
    ] {
        let mut raw = server.raw();
        raw.send(ask(line, fields));
        let answer = raw.head_alone();
        let said = answer.header("Connection").map(str::to_ascii_lowercase);
        let old = line.ends_with("HTTP/1.0");
        match said.as_deref() {
            None => assert!(stays && !old, "{line} {fields:?}: {answer:?}"),
            Some(word) => assert_eq!(word, if stays { "keep-alive" } else { "close" }, "{line}"),
        }
        match answer.header("Content-Length") {
            Some(length) => drop(raw.takes(length.parse().expect("a length"))),
            // Its end is the connection's.
            None => {
                let body = as_ndjson(&SEED.lines().collect::<Vec<_>>());
                assert_eq!(raw.takes(body.len()), body.as_bytes());
            }
        }
        if stays {
            assert_eq!(raw.asks(ask("GET /healthz", &[])).body, "ok\n", "{line} {fields:?}");
        } else {
            raw.is_over();
        }
    }
}

#[test]
fn http_1_0_without_a_host_is_served() {
    let server = Server::on(SEED);
    let mut raw = server.raw();
    raw.send("GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(raw.response().body, "ok\n");
    raw.is_over();
    server.asked("GET /healthz HTTP/1.1\r\n\r\n").refuses(400, &["Host"]);
    server.asked(ask("GET /healthz", &["Host: a", "Host: a"])).refuses(400, &["Host"]);
}

#[test]
fn head_is_get_without_the_body() {
    // A connection on which nothing is asked for ten seconds ends.
    in_one_of_a_few_attempts(|| {
        let server = Server::on(SEED);
        let agent = agent();
        let mut raw = server.raw();
        for path in PATHS.iter().chain(&["/messages?limit=3&q=a", "/messages?follow=1"]) {
            raw.send(ask(&format!("HEAD {path}"), &[]));
            let head = raw.head_alone();
            let mut other = server.raw();
            other.send(ask(&format!("GET {path}"), &[]));
            let get = other.head_alone();
            // What a scrape is long changes with what it counts.
            let same = |response: &Response| {
                let headers = response.headers.iter();
                headers.filter(|(name, _)| name != "Content-Length").cloned().collect::<Vec<_>>()
            };
            assert_eq!((head.status, same(&head)), (get.status, same(&get)), "{path}");
            assert_eq!(
                head.header("Content-Length").is_some(),
                get.header("Content-Length").is_some(),
                "{path}"
            );
        }
        // A client that knows what HEAD is gets no body of a refusal, either.
        for path in ["/nothing", "/messages/99", "/messages?limit=x"] {
            let reply = Reply::of(&agent, &server.url(path), "HEAD", &[], None).expect("an answer");
            let get = server.get(path);
            assert_eq!((reply.status, reply.body.len()), (get.status, 0), "{path}");
            assert_eq!(reply.header("Content-Length"), get.header("Content-Length"), "{path}");
        }
        raw.send(ask("HEAD /healthz", &["Connection: close"]));
        assert_eq!(raw.head_alone().status, 200);
        raw.is_over();
        let mut raw = server.raw();
        raw.send(ask("HEAD /nothing", &["Connection: close"]));
        assert_eq!(raw.head_alone().status, 404);
        raw.is_over();
    });
}

#[test]
fn head_gets_no_body_from_the_chat_either() {
    let server = Server::start();
    let mut raw = server.raw();
    raw.send(ask("HEAD /ws", &[]));
    let head = raw.head_alone();
    assert!(matches!(head.status, 405 | 426), "{head:?}");
    raw.is_over();
}

#[test]
fn what_is_not_there_or_not_done_is_refused_with_a_way_out() {
    let server = Server::on(SEED);
    for path in
        ["/nothing", "/messages2", "/messages.txt/", "/metrics/x", "//", "/Messages", "/index"]
    {
        server.get(path).refuses(404, &["/ws"]);
        server.asked(ask_with(&format!("POST {path}"), &[], "1")).refuses(404, &[]);
    }
    for path in PATHS {
        let takes_posts = path == "/messages";
        for method in ["PUT", "DELETE", "PATCH", "POST", "BREW"] {
            // To make a channel that is there is no fault.
            if matches!(method, "POST" | "PUT") && takes_posts {
                continue;
            }
            // A message can be changed, by those who may.
            if matches!(method, "DELETE" | "PATCH") && path.starts_with("/messages/") {
                continue;
            }
            let mut raw = server.raw();
            let answer = raw.asks(ask_with(&format!("{method} {path}"), &[], "1"));
            answer.refuses(405, &[path]);
            let allow = answer.header("Allow").expect("Allow");
            let methods: Vec<_> = allow.split(", ").collect();
            assert!(methods.contains(&"GET") && methods.contains(&"HEAD"), "{path}: {allow}");
            assert_eq!(methods.contains(&"POST"), takes_posts, "{path}: {allow}");
            raw.is_over();
        }
        let answer = server.asked(ask(&format!("OPTIONS {path}"), &[]));
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{path}");
        assert!(answer.header("Allow").is_some_and(|allow| allow.contains("GET")), "{path}");
    }
    assert_eq!(server.lines().len(), 7);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let server = Server::start();
    let long = "x".repeat(9000);
    server.asked(ask("GET /messages", &[&format!("X: {long}")])).refuses(431, &[]);
    let answer = server.asked(ask(&format!("GET /messages?q={long}"), &[]));
    assert!(matches!(answer.status, 414 | 431), "{answer:?}");
    let many = vec!["X: y"; 65];
    server.asked(ask("GET /messages", &many)).refuses(431, &[]);
    // The same on a connection that has served others.
    let mut raw = server.raw();
    raw.asks(ask("GET /healthz", &[]));
    raw.asks(ask("GET /messages", &many)).refuses(431, &[]);
    raw.is_over();
}

#[test]
fn a_request_that_another_could_read_otherwise_is_refused_and_the_connection_ends() {
    let server = Server::on(SEED);
    // What a confused server would take for a request of its own.
    let hidden = String::from_utf8(post("\"smuggled\"")).expect("ASCII");
    let chunks = format!("0\r\n\r\n{hidden}");
    let length = |value: &str| format!("Content-Length: {value}");
    let two = ["Content-Length: 3", "Content-Length: 2"];
    let same = ["Content-Length: 3", "Content-Length: 3"];
    let tries: Vec<(u16, Vec<u8>)> = vec![
        (400, ask("POST /messages", &two)),
        (400, ask("POST /messages", &same)),
        (400, ask("POST /messages", &[&length("3, 3")])),
        (400, ask("POST /messages", &[&length("-1")])),
        (400, ask("POST /messages", &[&length("+1")])),
        (400, ask("POST /messages", &[&length("0x1")])),
        (400, ask("POST /messages", &[&length("1_0")])),
        (400, ask("POST /messages", &[&length("")])),
        (400, ask("POST /messages", &[&length("1 1")])),
        (400, ask("POST /messages", &[&length("18446744073709551617")])),
        (413, ask("POST /messages", &[&length("18446744073709551615")])),
        (413, ask("POST /messages", &[&length("9223372036854775808")])),
        (411, ask("POST /messages", &[&length("3"), "Transfer-Encoding: chunked"])),
        (411, ask("POST /messages", &["Transfer-Encoding: chunked", &length("3")])),
        (411, ask("POST /messages", &["Transfer-Encoding: identity, chunked"])),
        (411, ask("POST /messages", &["transfer-encoding: xchunked"])),
        (411, ask("POST /messages HTTP/1.0", &["Transfer-Encoding: chunked", &length("3")])),
        // Nobody wants a body here; it must not become the next request.
        (413, ask("GET /healthz", &[&length(&hidden.len().to_string())])),
        (413, ask("GET /messages", &[&length("5")])),
        (413, ask("HEAD /healthz", &[&length(&hidden.len().to_string())])),
        (413, ask("OPTIONS /messages", &[&length(&hidden.len().to_string())])),
        (400, ask("GET /healthz", &two)),
        (400, ask("GET /healthz", &[&length("-5")])),
        (411, ask("GET /healthz", &["Transfer-Encoding: chunked"])),
        (405, ask("DELETE /messages", &[&length("3")])),
        (404, ask("POST /nothing", &[&length("3")])),
        (403, ask("POST /messages", &["Origin: http://evil.example", &length("3")])),
        (415, ask("POST /messages", &["Content-Type: image/png", &length("3")])),
        (400, ask("POST /messages", &["Content-Length : 3"])),
        (400, ask("GET /healthz", &["X: a\r\n b: c"])),
        (400, ask("GET /healthz", &["X\0: a"])),
        (400, ask("GET /healthz", &["X: a\rb"])),
        (400, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX y\r\n\r\n".to_vec()),
        (400, b"GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        (400, b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n".to_vec()),
        (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client\r\n\r\n".to_vec()),
    ];
    for (status, request) in tries {
        let shown = String::from_utf8_lossy(&request).into_owned();
        let mut raw = server.raw();
        // On a connection that stays, with the hidden request right behind.
        raw.asks(ask("GET /healthz", &[]));
        raw.send([&request[..], chunks.as_bytes()].concat());
        let head = raw.head_alone();
        assert_eq!(head.status, status, "{shown}");
        assert_eq!(head.header("Connection"), Some("close"), "{shown}");
        if !shown.starts_with("HEAD") {
            raw.takes(head.header("Content-Length").expect("a length").parse().expect("digits"));
        }
        raw.is_over();
    }
    assert_eq!(server.get("/messages").ids().len(), 7, "a hidden request was obeyed");
}

#[test]
fn lines_that_end_with_a_bare_lf_mean_the_same_to_all_or_nothing() {
    // RFC 9112 section 2.2 lets a server take a bare LF; whichever it does, a body stays a body.
    let server = Server::on(SEED);
    let mut raw = server.raw();
    let body = r#""GET /messages HTTP/1.1\n\n""#;
    let length = body.len();
    raw.send(format!("POST /messages HTTP/1.1\nHost: a.localhost\nContent-Length: {length}\n\n"));
    raw.send(body);
    let answer = raw.response();
    match answer.status {
        201 => assert_eq!(server.lines()[7], body),
        400 => raw.is_over(),
        _ => panic!("{answer:?}"),
    }
    let mut raw = server.raw();
    raw.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\nContent-Length: 5\r\n\r\n12345");
    assert!(matches!(raw.response().status, 400 | 413));
    raw.is_over();
}

#[test]
fn a_body_of_no_bytes_is_no_body() {
    let server = Server::on(SEED);
    let mut raw = server.raw();
    for line in ["GET /healthz", "GET /messages/1", "GET /messages.txt"] {
        assert_eq!(raw.asks(ask(line, &["Content-Length: 0"])).status, 200);
    }
    assert_eq!(raw.asks(ask("OPTIONS /messages", &["Content-Length: 0"])).status, 204);
    assert_eq!(raw.asks(ask("GET /healthz", &[])).body, "ok\n");
}
