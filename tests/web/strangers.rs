//! Pages of other origins, names that DNS could rebind, and script that somebody injects: whatever
//! a browser may be talked into.

use std::collections::HashMap;

use crate::{support::*, talk::*};

#[test]
fn a_name_that_dns_could_rebind_is_no_name_of_this_server() {
    let origins = "https://chat.example.org,http://other.example:8080";
    let server = Setup::new().file(SEED).flags(&["--allow-origin", origins]).start();
    for (host, status) in [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("a.b.localhost:1", 200),
        ("127.0.0.1", 200),
        ("192.168.1.20:8000", 200),
        ("[::1]", 200),
        ("[2001:db8::1]:8000", 200),
        ("chat.example.org", 200),
        ("Chat.Example.Org", 200),
        ("chat.example.org:443", 200),
        ("other.example:8080", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("other.example", 403),
        ("localhost.evil.example", 403),
        ("evillocalhost", 403),
        ("127.0.0.1.evil.example", 403),
        ("chat.example.org.evil.example", 403),
        ("xchat.example.org", 403),
        ("1.2.3", 403),
        ("localhost:80:80", 403),
        ("localhost@evil.example", 403),
        ("", 403),
    ] {
        for path in PATHS {
            let answer = server.asks(&format!("GET {path}"), &[&format!("Host: {host}")]);
            assert_eq!(answer.status, status, "{host}: {path}");
        }
        let said = server.lines().len();
        let mut raw = server.raw();
        let answer = raw.asks(ask_with("POST /messages", &[&format!("Host: {host}")], "8"));
        assert_eq!(answer.status, if status == 200 { 201 } else { status }, "{host}");
        assert_eq!(server.lines().len() - said, usize::from(status == 200), "{host}");
    }
    let answer = server.asks("GET /messages", &["Host: evil.example"]);
    answer.refuses(403, &["--allow-origin", "evil.example"]);
    let open = Server::with(&["--allow-origin", "*"]);
    assert_eq!(open.asks("GET /messages", &["Host: any.example"]).status, 200);
}

#[test]
fn a_page_of_another_origin_reads_nothing_and_says_nothing() {
    let server = Setup::new().file(SEED).flags(&["--allow-origin", "https://good.example"]).start();
    let mut ann = server.join();
    let same = format!("http://{}", server.address());
    for origin in [
        "https://evil.example",
        "http://good.example",
        "https://good.example:444",
        "https://good.example.evil.example",
        "https://GOOD.example",
        "null",
        "http://192.168.1.20",
        "file://",
        "http://localhost.evil.example",
        "",
    ] {
        let field = format!("Origin: {origin}");
        for path in PATHS {
            let answer = server.asks(&format!("GET {path}"), &[&field]);
            answer.refuses(403, &["--allow-origin"]);
            assert_eq!(answer.header("Access-Control-Allow-Origin"), None, "{origin}: {path}");
        }
        // What a foreign page can send without asking first: forms and beacons.
        for kind in [WORDS, FORM, JSON] {
            let kind = format!("Content-Type: {kind}");
            let mut raw = server.raw();
            let answer = raw.asks(ask_with("POST /messages", &[&field, &kind], "\"csrf\""));
            answer.refuses(403, &["--allow-origin"]);
        }
        let preflight = [&*field, "Access-Control-Request-Method: POST"];
        let answer = server.asks("OPTIONS /messages", &preflight);
        assert_eq!(answer.status, 403, "{origin}");
        assert_eq!(answer.header("Access-Control-Allow-Origin"), None, "{origin}");
    }
    let two = [&*format!("Origin: {same}"), "Origin: https://evil.example"];
    server.asks("GET /messages", &two).refuses(403, &[]);
    // Of all this, nobody heard a word.
    assert_eq!(ann.says("8").id, 8);
}

#[test]
fn a_page_that_may_gets_what_it_asks_for_and_the_words_its_browser_needs() {
    let origins = ["--allow-origin", "https://good.example", "--allow-origin", "null"];
    let server = Setup::new().file(SEED).flags(&origins).start();
    let same = format!("http://{}", server.address());
    let host = format!("Host: {}", server.address());
    for (origin, path) in [
        "https://good.example",
        "null",
        "http://localhost:5173",
        "https://127.0.0.1",
        "http://[::1]:3000",
        &same,
    ]
    .iter()
    .flat_map(|origin| PATHS.map(|path| (*origin, path)))
    {
        let field = format!("Origin: {origin}");
        let answer = server.asks(&format!("GET {path}"), &[&host, &field]);
        assert_eq!(answer.status, 200, "{origin}: {path}");
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(origin), "{path}");
        // Else a cache would give one page's leave to another.
        let vary = answer.header("Vary").unwrap_or_default().to_ascii_lowercase();
        assert!(vary.contains("origin"), "{path}: Vary: {vary}");
    }
    // Refusals can be read, too, and the headers that a page needs.
    let field = "Origin: https://good.example";
    let answer = server.asks("GET /messages/99", &[field]);
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("https://good.example"));
    let answer = server.asks("GET /messages.txt", &[field]);
    let exposed = answer.header("Access-Control-Expose-Headers").unwrap_or_default();
    for name in ["ETag", "Location", "Retry-After", "Txtcord-Epoch"] {
        assert!(exposed.split(", ").any(|one| one.eq_ignore_ascii_case(name)), "{exposed}");
    }
    // A page without leave to read needs no leave to be asked for by hand.
    let answer = server.asks("GET /messages", &[]);
    assert_eq!(answer.header("Access-Control-Allow-Origin"), None);
    let open = Server::with(&["--allow-origin", "*"]);
    let answer = open.asks("GET /messages", &["Origin: https://any.example"]);
    let allowed = answer.header("Access-Control-Allow-Origin");
    assert!(matches!(allowed, Some("*" | "https://any.example")), "{answer:?}");
}

#[test]
fn a_page_that_may_is_told_so_when_its_browser_asks_first() {
    let server = Server::with(&["--allow-origin", "https://good.example"]);
    let mut raw = server.raw();
    let answer = raw.asks(ask(
        "OPTIONS /messages",
        &[
            "Origin: https://good.example",
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: content-type, idempotency-key",
        ],
    ));
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("https://good.example"));
    let list = |name: &str| {
        let list = answer.header(name).unwrap_or_default().to_ascii_lowercase();
        list.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>()
    };
    let methods = list("Access-Control-Allow-Methods");
    assert!(methods.contains(&"post".into()) && methods.contains(&"get".into()), "{methods:?}");
    let headers = list("Access-Control-Allow-Headers");
    for name in ["content-type", "idempotency-key", "last-event-id"] {
        assert!(headers.contains(&name.into()), "{headers:?}");
    }
    let age = answer.header("Access-Control-Max-Age").and_then(|age| age.parse::<u32>().ok());
    assert!(age.is_some_and(|age| age > 0), "{answer:?}");
    // Then comes the request itself, as a rule on the same connection.
    let fields = ["Origin: https://good.example", "Content-Type: application/json"];
    let answer = raw.asks(ask_with("POST /messages", &fields, "1"));
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("https://good.example"));
}

#[test]
fn the_page_runs_its_own_script_and_style_and_nothing_else() {
    let server = Server::start();
    let reply = server.get("/");
    let page = reply.has(200).text();
    assert_eq!(reply.header("Content-Type"), Some("text/html; charset=utf-8"));
    let policy = reply.header("Content-Security-Policy").expect("a policy");
    let directives: HashMap<&str, &str> = policy
        .split(';')
        .map(|directive| directive.trim().split_once(' ').unwrap_or((directive.trim(), "")))
        .collect();
    for (directive, path, kind) in [
        ("script-src", "app/chat.js", "text/javascript; charset=utf-8"),
        ("style-src", "app/style.css", "text/css; charset=utf-8"),
    ] {
        assert_eq!(directives[directive], "'self'");
        assert!(page.contains(&format!("=\"{path}\"")), "the page uses {path}");
        let file = server.get(&format!("/{path}"));
        assert_eq!(file.has(200).header("Content-Type"), Some(kind));
        assert_eq!(file.header("X-Content-Type-Options"), Some("nosniff"));
        assert!(file.text().len() > 1000, "{path}");
    }
    // The policy stops inline ones, so none may be there.
    assert!(!page.contains("<style") && !page.contains("<script>"));
    assert_eq!(directives["default-src"], "'none'");
    for (directive, value) in
        [("base-uri", "'none'"), ("form-action", "'none'"), ("frame-ancestors", "'none'")]
    {
        assert_eq!(directives.get(directive), Some(&value));
    }
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    // What the policy would stop is not in the page, which would not work then.
    let lower = page.to_ascii_lowercase();
    for word in [" onclick=", " onload=", " onerror=", " style=\"", "src=\"http", "href=\"http"] {
        assert!(!lower.contains(word), "{word} is in the page");
    }
}

#[test]
fn no_answer_can_be_taken_for_something_else() {
    let server = Server::on("\"<script>alert(1)</script>\"\n");
    for path in PATHS.iter().chain(&["/messages?q=%3Cscript%3E", "/nothing", "/messages/99"]) {
        let reply = server.get(path);
        assert_eq!(reply.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
        let kind = reply.header("Content-Type").expect("a kind");
        assert!(*path == "/" || !kind.contains("html"), "{path}: {kind}");
    }
    assert_eq!(server.get("/").header("Referrer-Policy"), Some("no-referrer"));
    // What a request made up comes back as plain text at most, on one line.
    let answer = server.asked(ask("GET /messages", &["Origin: <script>alert(1)</script>"]));
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.body.lines().count(), 1);
}

#[test]
fn a_file_of_the_page_is_not_sent_again_to_a_browser_that_has_it() {
    let server = Server::start();
    let mut tags = Vec::new();
    for path in ["/", "/app/style.css", "/app/chat.js"] {
        let reply = server.get(path);
        let tag = reply.has(200).header("ETag").expect("a tag");
        assert_eq!(reply.header("Cache-Control"), Some("no-cache"), "{path}");
        let again = server.get_with(path, &[("If-None-Match", tag)]);
        assert_eq!((again.has(304).body.len(), again.header("ETag")), (0, Some(tag)));
        // A copy that is kept must not lose its policy.
        let policy = reply.header("Content-Security-Policy");
        assert_eq!(again.header("Content-Security-Policy"), policy);
        server.get_with(path, &[("If-None-Match", "\"x\"")]).has(200);
        tags.push(tag.to_owned());
    }
    tags.dedup();
    assert_eq!(tags.len(), 3, "each file has a tag of its own");
}
