//! The request that begins every connection: its head, with a deadline and limits, who may ask from
//! a web page, and the answers in HTTP.

use std::{
    fmt::Write as _,
    net::IpAddr,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use socket2::Socket;
use tungstenite::{Error, error::ProtocolError, handshake::server};

use crate::{
    client::Wish,
    history::Resume,
    socket::{read, would_block},
};

/// From the first byte to the last of a head.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The longest head: cookies of a whole domain fit, and no more is held for a stranger.
const HEAD_BYTES: usize = 8 << 10;

/// Read at first. glibc keeps blocks of up to 1 KiB that a thread frees for that thread's life, so
/// what is needed for a head alone is allocated in larger ones: 3 KB less for an idle client.
const HEAD_BLOCK: usize = 2 << 10;
const HEADERS_AT_FIRST: usize = 16;

/// The most header fields of a head.
const HEADERS: usize = 64;

/// The longest name that `as=` gives, in bytes.
const NAME_BYTES: usize = 256;

/// A parsed request, and what was received behind its head.
#[derive(Debug)]
pub struct Head {
    /// The request line and the header fields.
    pub request: Request<()>,
    /// The first bytes behind the head, which belong to what follows.
    pub received: Vec<u8>,
}

/// An answer that ends the exchange: a status, and a sentence that says what to do.
#[derive(Debug)]
pub struct Refused {
    /// The status.
    pub status: StatusCode,
    /// For a person.
    pub sentence: String,
    /// Header fields beside the usual ones.
    pub headers: Vec<(HeaderName, &'static str)>,
}

impl Refused {
    /// An answer without further header fields.
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Refused {
        Refused { status, sentence: sentence.into(), headers: Vec::new() }
    }

    /// The same with one more header field.
    pub fn with(mut self, name: HeaderName, value: &'static str) -> Refused {
        self.headers.push((name, value));
        self
    }

    /// The request makes no sense.
    pub fn bad(sentence: impl Into<String>) -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, sentence)
    }

    /// There is no such thing.
    pub fn not_found(sentence: &str) -> Refused {
        Refused::new(StatusCode::NOT_FOUND, sentence)
    }

    /// The request was not there in time.
    pub fn late() -> Refused {
        let sentence = "the request was not finished in time; send it at once";
        Refused::new(StatusCode::REQUEST_TIMEOUT, sentence)
    }

    /// The server has no room, or is about to end.
    pub fn unavailable(sentence: &str) -> Refused {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, sentence).with(header::RETRY_AFTER, "5")
    }

    /// The answer on the wire to a request of this method; the connection ends behind it.
    pub fn response(&self, method: &Method) -> Vec<u8> {
        let body = format!("{}\n", self.sentence);
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        headers.push((header::CONTENT_TYPE, "text/plain; charset=utf-8".into()));
        headers.push((header::CONTENT_LENGTH, body.len().to_string()));
        headers.push((header::CONNECTION, "close".into()));
        let mut bytes = response_head(self.status, &headers);
        if method != Method::HEAD {
            bytes.extend_from_slice(body.as_bytes());
        }
        bytes
    }
}

/// The head of a response.
pub fn response_head(status: StatusCode, headers: &[(HeaderName, String)]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers {
        let line = write!(text, "{}: {value}\r\n", canonical(name));
        line.expect("writing to memory cannot fail");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Names the numbering that the ids of a response belong to.
pub fn response_epoch(epoch: &str) -> (HeaderName, String) {
    (HeaderName::from_static("txtcord-epoch"), epoch.to_owned())
}

/// Header names as people write them.
fn canonical(name: &HeaderName) -> String {
    let mut text = String::new();
    let mut upper = true;
    for letter in name.as_str().chars() {
        text.push(if upper { letter.to_ascii_uppercase() } else { letter });
        upper = letter == '-';
    }
    text.replace("Websocket", "WebSocket")
}

/// Why there is no request to answer.
#[derive(Debug)]
pub enum HeadError {
    /// The peer left, or the socket failed.
    Gone,
    /// Not a byte came in time.
    Silent,
    /// What came deserves this answer.
    Refused(Refused),
}

/// Reads and parses the head of a request, which begins with what was `received` already.
///
/// # Errors
/// When it is not there in time, too large or malformed, or the peer leaves.
pub fn read_head(socket: &Socket, received: Vec<u8>) -> Result<Head, HeadError> {
    let deadline = Instant::now() + HEAD_TIME;
    let mut bytes = received;
    loop {
        match parse(&bytes) {
            Ok(Some((request, len))) if len <= HEAD_BYTES => {
                return Ok(Head { request, received: bytes.split_off(len) });
            }
            Ok(None) if bytes.len() <= HEAD_BYTES => {}
            Ok(_) => return Err(HeadError::Refused(too_long(&bytes))),
            Err(refused) => return Err(HeadError::Refused(refused)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let late = left.is_zero() || socket.set_read_timeout(Some(left)).is_err();
        let from = bytes.len();
        bytes.resize((from * 2).clamp(HEAD_BLOCK, HEAD_BYTES + 1), 0);
        let count = match if late { Ok(0) } else { read(socket, &mut bytes[from..]) } {
            Ok(0) if !late => return Err(HeadError::Gone),
            Ok(count) if !late => count,
            Err(error) if !would_block(&error) => return Err(HeadError::Gone),
            _ if from == 0 => return Err(HeadError::Silent),
            _ => {
                let sentence = "the request was not finished within 10 seconds; send it at once";
                return Err(HeadError::Refused(Refused::new(
                    StatusCode::REQUEST_TIMEOUT,
                    sentence,
                )));
            }
        };
        bytes.truncate(from + count);
    }
}

/// A head above the limit; a question about messages that is too long by itself has an answer of its
/// own.
fn too_long(head: &[u8]) -> Refused {
    let target = head.splitn(2, |&byte| byte == b' ').nth(1).unwrap_or_default();
    if target.starts_with(b"/messages") && memchr::memchr(b'\n', head).is_none() {
        let sentence = "the request line is above 8 KiB; ask for less in it";
        return Refused::new(StatusCode::URI_TOO_LONG, sentence);
    }
    too_large("the request head is above 8 KiB")
}

fn too_large(what: &str) -> Refused {
    let sentence = format!("{what}; send fewer or shorter header fields");
    Refused::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, sentence)
}

/// A whole head and its length, or nothing yet.
///
/// # Errors
/// When it can never become a request.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request<()>, usize)>, Refused> {
    let mut fields = vec![httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut fields);
    let len = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(too_large("the request has more than 64 header fields"));
        }
        Err(error) => return Err(Refused::bad(format!("malformed request: {error}"))),
    };
    let malformed = |_| Refused::bad("malformed request: not HTTP/1.1 as RFC 9112 has it");
    let mut request = Request::builder()
        .method(parsed.method.unwrap_or_default())
        .uri(parsed.path.unwrap_or_default())
        // A request that is built by hand is 1.1 unless told.
        .version(match parsed.version {
            Some(0) => Version::HTTP_10,
            _ => Version::HTTP_11,
        })
        .body(())
        .map_err(malformed)?;
    let headers = request.headers_mut();
    headers.reserve(HEADERS_AT_FIRST);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Refused::bad(format!(
                "malformed header field {}",
                field.name.escape_default()
            )));
        };
        headers.append(name, value);
    }
    check_host(&request)?;
    join_connection(request.headers_mut());
    Ok(Some((request, len)))
}

/// RFC 9112 section 3.2: exactly one Host in HTTP/1.1.
fn check_host(request: &Request<()>) -> Result<(), Refused> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(Refused::bad("the request needs exactly one Host header field"));
    }
    Ok(())
}

/// tungstenite looks at the first Connection field alone, and for no tab in it.
fn join_connection(headers: &mut HeaderMap) {
    let fields: Vec<_> = headers.get_all(header::CONNECTION).iter().collect();
    if fields.len() < 2 && fields.iter().all(|field| !field.as_bytes().contains(&b'\t')) {
        return;
    }
    let mut joined =
        fields.iter().map(|field| field.as_bytes()).collect::<Vec<_>>().join(&b", "[..]);
    joined.iter_mut().filter(|byte| **byte == b'\t').for_each(|byte| *byte = b' ');
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::CONNECTION, joined);
    }
}

/// The answer that accepts an upgrade, and what the client wishes.
///
/// # Errors
/// When the request is no proper upgrade, comes from a page that may not, or has a malformed wish.
pub fn upgrade(request: &Request<()>, allowed: &[String]) -> Result<(Vec<u8>, Wish), Refused> {
    if request.method() != Method::GET {
        let sentence = "a WebSocket begins with GET";
        return Err(
            Refused::new(StatusCode::METHOD_NOT_ALLOWED, sentence).with(header::ALLOW, "GET")
        );
    }
    let response = server::create_response(request).map_err(|error| not_an_upgrade(&error))?;
    let wish = wish(request.uri().query().unwrap_or_default())?;
    check_origin(request.headers(), allowed)?;
    let mut bytes = Vec::with_capacity(256);
    server::write_response(&mut bytes, &response).map_err(|_| Refused::bad("malformed request"))?;
    Ok((bytes, wish))
}

fn not_an_upgrade(error: &Error) -> Refused {
    match error {
        Error::Protocol(
            ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey,
        ) => Refused::bad("Sec-WebSocket-Key must be 16 bytes in base64"),
        _ => {
            let sentence = "this is a WebSocket, version 13: connect with a WebSocket client, such \
                            as websocat";
            Refused::new(StatusCode::UPGRADE_REQUIRED, sentence)
                .with(header::UPGRADE, "websocket")
                .with(header::SEC_WEBSOCKET_VERSION, "13")
        }
    }
}

/// The query parameters of `/ws`; unknown ones are ignored.
fn wish(query: &str) -> Result<Wish, Refused> {
    let mut wish = Wish { resume: Resume::default(), name: speaker(query)? };
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "after" => wish.resume.after = Some(number("after", &value)?),
            "limit" => wish.resume.limit = Some(number("limit", &value)?),
            "epoch" => wish.resume.epoch = Some(value.into_owned()),
            _ => {}
        }
    }
    Ok(wish)
}

/// The name that `as=` gives in a query, if it does.
///
/// # Errors
/// When it is no name.
pub fn speaker(query: &str) -> Result<Option<String>, Refused> {
    let names = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "as");
    match names.last() {
        None => Ok(None),
        Some((_, name)) if (1..=NAME_BYTES).contains(&name.len()) => Ok(Some(name.into_owned())),
        Some(_) => Err(Refused::bad(format!("as= needs a name of 1 to {NAME_BYTES} bytes"))),
    }
}

/// A whole number in a query; one too large for any file counts as the largest there is.
pub fn number(name: &str, text: &str) -> Result<u64, Refused> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refused::bad(format!("{name}= needs a whole number, such as {name}=42")));
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

/// Who may connect from a web page: no page at all, a page of this very server under a name that
/// DNS cannot rebind, a page of this machine, or a listed one. Returns the page's origin.
///
/// # Errors
/// When the page may not.
pub fn check_origin<'a>(
    headers: &'a HeaderMap,
    allowed: &[String],
) -> Result<Option<&'a str>, Refused> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if origins.next().is_none() && may_connect(text, host, allowed) {
        return Ok(Some(text));
    }
    let shown = shown(origin);
    Err(Refused::new(
        StatusCode::FORBIDDEN,
        format!("pages of {shown} may not connect; the server's --allow-origin {shown} allows it"),
    ))
}

/// What a peer made up, fit for a sentence: escaped and cut.
fn shown(value: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    text.chars().flat_map(char::escape_default).take(100).collect()
}

/// The same for what is no WebSocket, where browsers send no Origin with a page's own requests:
/// the name the server was asked by must be one that DNS cannot rebind, or a listed origin's.
///
/// # Errors
/// When it is neither.
pub fn check_host_name(headers: &HeaderMap, allowed: &[String]) -> Result<(), Refused> {
    // Without a Host it is HTTP/1.0, and no browser.
    let Some(host) = headers.get(header::HOST) else { return Ok(()) };
    let text = host.to_str().unwrap_or_default();
    let is_listed = |listed: &String| {
        let listed = listed.split_once("://").map_or(&**listed, |(_, authority)| authority);
        listed == "*" || listed.eq_ignore_ascii_case(text)
    };
    if is_local_or_literal(host_name(text)) || allowed.iter().any(is_listed) {
        return Ok(());
    }
    let shown = shown(host);
    Err(Refused::new(
        StatusCode::FORBIDDEN,
        format!("this server is not {shown}; its --allow-origin https://{shown} allows the name"),
    ))
}

fn may_connect(origin: &str, host: &str, allowed: &[String]) -> bool {
    if allowed.iter().any(|listed| listed == "*" || listed == origin) {
        return true;
    }
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    if !matches!(scheme, "http" | "https") {
        return false;
    }
    let name = host_name(authority);
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
        || (authority.eq_ignore_ascii_case(host) && is_local_or_literal(name))
}

/// A host without its port.
fn host_name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => authority,
    }
}

/// Whether no DNS server decides what the name means.
fn is_local_or_literal(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    name == "localhost" || name.ends_with(".localhost") || literal.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests;
