use super::*;

/// Methods that clients send; none but the first four is taken anywhere.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "BREW"];

#[test]
fn every_path_names_one_resource_and_each_resource_takes_its_methods() {
    #[track_caller]
    fn check(path: &str, resource: Resource, methods: &str) {
        assert_eq!(Resource::at(path), resource, "{path}");
        assert_eq!(resource.methods(), methods, "{path}");
        for method in METHODS {
            let taken = resource.check(&method.parse().expect("a method"), path);
            if methods.split(", ").any(|one| one == method) {
                assert!(taken.is_ok(), "{method} {path}");
                continue;
            }
            let refusal = taken.expect_err("it is not taken");
            match resource {
                Resource::Nothing => {
                    assert_eq!((refusal.status.as_u16(), refusal.headers.len()), (404, 0))
                }
                _ => {
                    assert_eq!(refusal.status, 405, "{method} {path}");
                    assert_eq!(refusal.headers, [(header::ALLOW, methods)], "{method} {path}");
                }
            }
        }
    }
    check("/", Resource::Page(PageFile::Document), READ_ONLY);
    check("/app/style.css", Resource::Page(PageFile::Style), READ_ONLY);
    check("/app/chat.js", Resource::Page(PageFile::Script), READ_ONLY);
    check("/app", Resource::Nothing, "");
    check("/app/", Resource::Nothing, "");
    check("/app/index.html", Resource::Nothing, "");
    check("/ws", Resource::WebSocket, "GET");
    check("/messages", Resource::Messages, "GET, HEAD, POST, OPTIONS");
    check("/messages/1", Resource::Message(1), READ_ONLY);
    check("/messages/007", Resource::Message(7), READ_ONLY);
    check("/messages/99999999999999999999", Resource::Message(u64::MAX), READ_ONLY);
    check("/messages.txt", Resource::TextFile, READ_ONLY);
    check("/healthz", Resource::Health, READ_ONLY);
    check("/readyz", Resource::Ready, READ_ONLY);
    check("/metrics", Resource::Metrics, READ_ONLY);
    for path in [
        "",
        "*",
        "//",
        "/nothing",
        "/index",
        "/WS",
        "/ws/",
        "/wsx",
        "/Messages",
        "/messages2",
        "/messages/",
        "/messages/-1",
        "/messages/+1",
        "/messages/1.0",
        "/messages/x",
        "/messages/1/",
        "/messages/1/2",
        "/messages/%31",
        "/messages.txt/",
        "/messages/../ws",
        "/metrics/x",
        "/../messages.txt",
        "/%2e%2e/messages.txt",
        "/messages%00",
    ] {
        check(path, Resource::Nothing, "");
    }
}

#[test]
fn who_asks_in_vain_is_told_where_things_are() {
    #[track_caller]
    fn check(method: Method, path: &str, sentence: &str) {
        let refusal = Resource::at(path).check(&method, path).expect_err("it is refused");
        assert_eq!(refusal.sentence, sentence);
    }
    let sentence =
        "nothing is here; the page is at /, the chat at /ws and the history at /messages";
    check(Method::GET, "/nothing", sentence);
    check(Method::POST, "/ws", "a WebSocket begins with GET");
    check(Method::DELETE, "/messages/1", "/messages/1 takes GET, HEAD, OPTIONS");
}
