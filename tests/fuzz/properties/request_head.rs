//! A request gets the same judgement however it is cut on its way, and an answer in proper HTTP.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, LazyLock},
};

use clap::Parser;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header};
use tungstenite::handshake::derive_accept_key;
use txtcord::{
    access::Access,
    client::JoinRequest,
    config::Config,
    http::{HttpRefusal, head::parse},
    route::Resource,
    upgrade::upgrade,
};

/// The longest name that `as=` gives.
const NAME_BYTES: usize = 256;

/// Statuses that a head may be answered with, by wire.md; 404 and 503 are not the head's.
const REFUSALS: [StatusCode; 7] = [
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::LENGTH_REQUIRED,
    StatusCode::UPGRADE_REQUIRED,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
];

/// Checks what a peer sends first.
pub fn check(bytes: &[u8]) {
    let whole = parse(bytes);
    let len = match &whole {
        Ok(Some((_, len))) => Some(*len),
        _ => None,
    };
    // What came so far decides nothing that more could undo. Long inputs are cut in 500 places.
    for cut in (0..bytes.len()).step_by(bytes.len() / 500 + 1) {
        match parse(&bytes[..cut]) {
            Ok(Some((_, early))) => assert_eq!(len, Some(early), "cut at {cut}"),
            Ok(None) => assert!(len.is_none_or(|len| cut < len), "cut at {cut}"),
            Err(_) => assert!(whole.is_err(), "cut at {cut}"),
        }
    }
    match whole {
        Err(refused) => answers(&refused),
        Ok(None) => {}
        Ok(Some((request, len))) => {
            assert!(0 < len && len <= bytes.len());
            asks(&request);
        }
    }
}

/// Who may ask: pages of this machine, or pages of all origins.
static ACCESS: LazyLock<[Arc<Access>; 2]> = LazyLock::new(|| {
    [&["txtcord"][..], &["txtcord", "--allow-origin", "*"]].map(|flags| {
        Arc::new(Access::new(&Config::parse_from(flags)).expect("there is no access file"))
    })
});

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A whole request is upgraded or refused.
fn asks(request: &Request<()>) {
    let web_socket = Resource::at("/ws");
    let [by_default, of_all_origins] = &*ACCESS;
    let asked = |access: &Arc<Access>| {
        let caller = access.caller(request, &web_socket, PEER);
        caller.and_then(|_| web_socket.check(request.method(), "/ws"))?;
        upgrade(request)
    };
    let everybody = asked(of_all_origins);
    match asked(by_default) {
        Err(refused) => answers(&refused),
        Ok((response, join)) => {
            upgrades(request, &response);
            asks_for(request.uri().query().unwrap_or_default(), &join);
            comes_from_here(request.headers());
            assert!(everybody.is_ok(), "--allow-origin * refuses what is allowed without");
        }
    }
}

/// RFC 6455 section 4.2.2.
fn upgrades(request: &Request<()>, response: &[u8]) {
    assert_eq!(request.method(), Method::GET);
    assert_eq!(request.version(), Version::HTTP_11);
    assert_eq!(request.headers().get_all(header::HOST).iter().count(), 1);
    // What comes after it is no body.
    assert!(!request.headers().contains_key(header::TRANSFER_ENCODING));
    let length = request.headers().get(header::CONTENT_LENGTH);
    assert!(length.is_none_or(|length| length.as_bytes().iter().all(|&digit| digit == b'0')));
    let (head, body) = parsed(response);
    assert_eq!(head.status, 101);
    assert!(body.is_empty());
    let mut keys = request.headers().get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else { panic!("not one key") };
    let key = key.as_bytes();
    assert_eq!(head.field("sec-websocket-accept"), Some(&*derive_accept_key(key)));
    assert_eq!(head.field("upgrade"), Some("websocket"));
    assert_eq!(head.field("connection"), Some("Upgrade"));
}

/// The join request is what the query says: of a parameter that is given twice, the last counts.
fn asks_for(query: &str, join: &JoinRequest) {
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let last = |name| pairs.iter().rfind(|(key, _)| key == name).map(|(_, value)| &**value);
    let number = |name| last(name).map(|text| text.parse().unwrap_or(u64::MAX));
    assert_eq!(join.resume.after, number("after"));
    assert_eq!(join.resume.limit, number("limit"));
    assert_eq!(join.resume.epoch.as_deref(), last("epoch"));
    assert_eq!(join.name.as_deref(), last("as"));
    assert!(join.name.as_ref().is_none_or(|name| (1..=NAME_BYTES).contains(&name.len())));
}

/// Nobody is let in from a page that is not of this machine or of an address.
fn comes_from_here(headers: &HeaderMap) {
    let origins: Vec<_> = headers.get_all(header::ORIGIN).iter().collect();
    let [origin] = origins[..] else { return assert!(origins.is_empty(), "two origins") };
    let origin = origin.to_str().expect("only text can be allowed");
    let (scheme, authority) = origin.split_once("://").expect("an origin has a scheme");
    assert!(scheme == "http" || scheme == "https");
    // What no browser sends stands for no page.
    let browsers = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    if !authority.bytes().all(browsers) {
        return;
    }
    let Ok(uri) = origin.parse::<Uri>() else { return };
    let name = uri.host().unwrap_or_default().to_ascii_lowercase();
    if matches!(&*name, "localhost" | "127.0.0.1" | "[::1]") {
        return;
    }
    let host = headers[header::HOST].to_str().expect("it equals the origin's");
    let port = if scheme == "http" { ":80" } else { ":443" };
    let bare = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
    assert_eq!(bare(host), bare(authority), "a page of {origin}");
    let address = name.trim_start_matches('[').trim_end_matches(']');
    assert!(
        name.ends_with(".localhost") || address.parse::<std::net::IpAddr>().is_ok(),
        "a page of {origin}, whose name anybody can give to this machine"
    );
}

/// A refusal is a whole HTTP response whose body is one sentence.
fn answers(refused: &HttpRefusal) {
    assert!(REFUSALS.contains(&refused.status), "{}", refused.status);
    let response = refused.response(&http::Method::GET);
    let (head, body) = parsed(&response);
    assert_eq!(head.status, refused.status.as_u16());
    assert_eq!(head.field("content-length"), Some(&*body.len().to_string()));
    let connection = if head.status == 426 { "Upgrade, close" } else { "close" };
    assert_eq!(head.field("connection"), Some(connection));
    assert_eq!(head.field("allow").is_some(), head.status == 405);
    assert_eq!(head.field("upgrade").is_some(), head.status == 426);
    assert_eq!(head.field("sec-websocket-version").is_some(), head.status == 426);
    let body = std::str::from_utf8(body).expect("text");
    let sentence = body.strip_suffix('\n').expect("a line");
    assert!(!sentence.is_empty() && !sentence.contains(char::is_control), "{sentence:?}");
}

struct ResponseHead {
    status: u16,
    fields: Vec<(String, String)>,
}

impl ResponseHead {
    fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field == name);
        let value = values.next().map(|(_, value)| &**value);
        assert!(values.next().is_none(), "{name} twice");
        value
    }
}

/// A response as a strict client reads it, and what follows its head.
fn parsed(bytes: &[u8]) -> (ResponseHead, &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut fields);
    let status = response.parse(bytes).expect("it is HTTP");
    let len = if let httparse::Status::Complete(len) = status { len } else { bytes.len() + 1 };
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("text");
    let fields = response.headers.iter();
    let fields = fields.map(|field| (field.name.to_ascii_lowercase(), text(field.value))).collect();
    (ResponseHead { status: response.code.expect("a status"), fields }, &bytes[len..])
}
