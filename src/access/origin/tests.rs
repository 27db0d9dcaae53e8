use super::*;
use crate::name::Name;

#[test]
fn a_page_is_let_in_or_not_at_either_door() {
    #[track_caller]
    fn check(host: &str, origin: &str, web_socket: Option<&str>, http: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("it may stand in a header"));
        if !origin.is_empty() {
            headers.insert(header::ORIGIN, origin.parse().expect("it may stand in a header"));
        }
        for (resource, expected) in [
            (Resource::WebSocket(Name::default()), web_socket),
            (Resource::Messages(Name::default()), http),
        ] {
            let page = page(&headers, &resource, &[]).ok().map(Option::unwrap_or_default);
            assert_eq!(page, expected, "{origin} at {host}: {resource:?}");
        }
    }
    let local = "http://localhost:3000";
    check("localhost", "", Some(""), Some(""));
    check("localhost", local, Some(local), Some(local));
    check("localhost", "http://evil.example", None, None);
    // Without an origin it is no page that opens a WebSocket, but may be one that asks by HTTP.
    check("chat.example", "", Some(""), None);
    check("chat.example", local, Some(local), None);
}

/// The status and sentence of a refusal.
fn refusal<Answer: std::fmt::Debug>(answer: Result<Answer, HttpRefusal>) -> (u16, String) {
    let refused = answer.expect_err("it is refused");
    (refused.status.as_u16(), refused.sentence)
}

#[test]
fn who_may_connect_from_a_browser() {
    #[track_caller]
    fn check(origin: &str, host: &str, allowed: &[&str], expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("it may stand in a header"));
        headers.insert(
            header::ORIGIN,
            HeaderValue::from_bytes(origin.as_bytes()).expect("it may stand in a header"),
        );
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
    // RFC 9110 section 4.2.3: the port that a scheme has by default may be left out.
    check("https://192.168.1.5", "192.168.1.5:443", &[], true);
    check("http://192.168.1.5:80", "192.168.1.5", &[], true);
    check("http://192.168.1.5", "192.168.1.5:443", &[], false);
    check("http://[2001:db8::7]", "[2001:db8::7]:80", &[], true);
    check("https://chat.example:443", HERE, listed, true);
    check("https://chat.example", HERE, &["https://chat.example:443"], true);
    check("https://chat.example:80", HERE, listed, false);
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
        HeaderValue::from_bytes(origin.replace('\u{1b}', "\t").as_bytes())
            .expect("it may stand in a header"),
    );
    let (_, sentence) = refusal(check_origin(&headers, &[]));
    assert!(sentence.contains(r"http://\t[31mxxx") && sentence.len() < 400, "{sentence}");
}

#[test]
fn plain_http_is_answered_under_names_that_dns_cannot_rebind() {
    #[track_caller]
    fn check(host: &str, allowed: &[&str], expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("it may stand in a header"));
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
    check("chat.example:443", &["https://chat.example"], true);
    check("chat.example", &["https://chat.example:443"], true);
    check("Chat.Example:80", &["http://chat.example"], true);
    check("chat.example", &["http://chat.example:80"], true);
    check("chat.example:80", &["https://chat.example"], false);
    check("chat.example:443", &["http://chat.example"], false);
    check("chat.example", &["https://chat.example:80"], false);
    check("chat.example", &["*"], true);
    assert!(check_host_name(&HeaderMap::new(), &[]).is_ok());
}

#[test]
fn who_names_no_host_is_told_what_to_name() {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static(""));
    let (status, sentence) = refusal(check_host_name(&headers, &[]));
    assert_eq!(status, 403);
    assert!(sentence.contains("Host: localhost") && !sentence.contains("https://"), "{sentence}");
}
