//! The head of a request: read with a deadline and within limits, and parsed.

use std::{
    fmt,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, Version, header};
use socket2::Socket;

use super::{HttpRefusal, ReadError, query::NAME_BYTES};
use crate::socket::{limit_reads, read, would_block};

/// From the first byte to the last of a head.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The longest head: cookies of a whole domain fit, and no more is held for a stranger.
const HEAD_BYTES: usize = 8 << 10;

/// How many bytes are read at first. When a thread frees a block of up to 1 KiB, glibc keeps the
/// block for as long as the thread lives. So what is needed for a head alone is allocated in larger
/// blocks, and an idle client takes 3 KB less.
const HEAD_BLOCK: usize = 2 << 10;

/// Space for header fields at first; it makes the block of memory a large one, as above.
const HEADERS_AT_FIRST: usize = 16;

/// The most header fields of a head.
const HEADERS: usize = 64;

// The buffer grows from the one to the other, and the allocations for a head are above glibc's 1 KiB.
const _: () = assert!(1 << 10 < HEAD_BLOCK && HEAD_BLOCK <= HEAD_BYTES);
const _: () = assert!(1 << 10 < HEADERS * size_of::<httparse::Header>());
const _: () =
    assert!(1 << 10 < HEADERS_AT_FIRST * (size_of::<HeaderName>() + size_of::<HeaderValue>()));
const _: () = assert!(HEADERS_AT_FIRST <= HEADERS);

// The longest name fits in a head even with a percent sign and two digits for each byte.
const _: () = assert!(3 * NAME_BYTES < HEAD_BYTES);

/// A parsed request, and the bytes that were received after its head.
#[derive(Debug)]
pub struct Head {
    /// The request line and the header fields.
    pub request: Request<()>,
    /// The first bytes after the head. They belong to the body, to the next request or to the first
    /// frame.
    pub received: Vec<u8>,
}

/// Reads and parses the head of a request. It begins with the bytes `received` already.
///
/// # Errors
/// When it does not come in time, is too large or malformed, or the peer leaves.
pub fn read_head(socket: &Socket, received: Vec<u8>) -> Result<Head, ReadError> {
    let deadline = Instant::now() + HEAD_TIME;
    let mut bytes = received;
    loop {
        match parse(&bytes) {
            Ok(Some((request, len))) if len <= HEAD_BYTES => {
                return Ok(Head { request, received: bytes.split_off(len) });
            }
            Ok(None) if bytes.len() <= HEAD_BYTES => {}
            Ok(_) => return Err(ReadError::Refused(too_long(&bytes))),
            Err(refusal) => return Err(ReadError::Refused(refusal)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let late = left.is_zero() || limit_reads(socket, left).is_err();
        let from = bytes.len();
        bytes.resize((from * 2).clamp(HEAD_BLOCK, HEAD_BYTES + 1), 0);
        let count = match if late { Ok(0) } else { read(socket, &mut bytes[from..]) } {
            Ok(0) if !late => return Err(ReadError::PeerGone),
            Ok(count) if !late => count,
            Err(error) if !would_block(&error) => return Err(ReadError::PeerGone),
            _ if from == 0 => return Err(ReadError::PeerGone),
            _ => return Err(ReadError::Refused(HttpRefusal::late())),
        };
        bytes.truncate(from + count);
    }
}

/// The answer to a head above the limit. A question about messages can be too long by itself, and
/// has an answer of its own.
fn too_long(head: &[u8]) -> HttpRefusal {
    let target = head.splitn(2, |&byte| byte == b' ').nth(1).unwrap_or_default();
    if target.starts_with(b"/messages") && memchr::memchr(b'\n', head).is_none() {
        let sentence =
            format!("the request line is above {} KiB; ask for less in it", HEAD_BYTES >> 10);
        return HttpRefusal::new(StatusCode::URI_TOO_LONG, sentence);
    }
    too_large(format_args!("the request head is above {} KiB", HEAD_BYTES >> 10))
}

fn too_large(what: fmt::Arguments<'_>) -> HttpRefusal {
    let sentence = format!("{what}; send fewer or shorter header fields");
    HttpRefusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, sentence)
}

/// A whole head and its length, or nothing yet.
///
/// # Errors
/// When the bytes can never become a request.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request<()>, usize)>, HttpRefusal> {
    let mut fields = vec![httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut fields);
    let len = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(too_large(format_args!(
                "the request has more than {HEADERS} header fields"
            )));
        }
        Err(error) => return Err(malformed(error)),
    };
    let no_target = |_| {
        HttpRefusal::bad("malformed request: a target is a path such as /messages, or a whole URL")
    };
    let mut request = Request::builder()
        .method(parsed.method.unwrap_or_default())
        .uri(parsed.path.unwrap_or_default())
        // A request that is built by hand is 1.1 unless told.
        .version(match parsed.version {
            Some(0) => Version::HTTP_10,
            _ => Version::HTTP_11,
        })
        .body(())
        .map_err(no_target)?;
    let headers = request.headers_mut();
    headers.reserve(HEADERS_AT_FIRST);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(malformed(httparse::Error::HeaderValue));
        };
        headers.append(name, value);
    }
    check_host(&request)?;
    take_host_of_target(&mut request);
    join_connection(request.headers_mut());
    choose_websocket(request.headers_mut());
    Ok(Some((request, len)))
}

/// What is wrong with a head, and what is right.
fn malformed(error: httparse::Error) -> HttpRefusal {
    use httparse::Error;
    let right = match error {
        Error::HeaderName | Error::HeaderValue | Error::NewLine => {
            "write each header field as Name: value on a line of its own"
        }
        Error::Version => "use HTTP/1.1 and no white space in the target",
        _ => "begin with a line such as GET /messages HTTP/1.1, in ASCII and without TLS",
    };
    HttpRefusal::bad(format!("malformed request: {error}; {right}"))
}

/// RFC 9112 section 3.2: exactly one Host in HTTP/1.1.
fn check_host(request: &Request<()>) -> Result<(), HttpRefusal> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(HttpRefusal::bad("the request needs exactly one Host header field"));
    }
    Ok(())
}

/// RFC 9112 section 3.2.2: where the target is a whole URL, its host counts, and `Host` means nothing. Else
/// a proxy that looks at the one and a check that looks at the other would not mean the same server.
fn take_host_of_target(request: &mut Request<()>) {
    // Without a scheme, what looks like a host is a path that does not begin with a slash.
    let url = Some(request.uri()).filter(|url| url.scheme().is_some());
    let host = url.and_then(Uri::authority).map(|host| HeaderValue::from_str(host.as_str()));
    if let Some(Ok(host)) = host {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// Makes one field of several Connection fields: tungstenite looks at the first one alone, and
/// takes no tab in it.
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

/// Makes WebSocket the only protocol of those that the client would change to. By RFC 9110 section 7.8
/// they are a list, of which the server may choose; tungstenite takes no list.
fn choose_websocket(headers: &mut HeaderMap) {
    let fields = headers.get_all(header::UPGRADE);
    let mut protocols =
        fields.iter().flat_map(|field| field.as_bytes().split(|&byte| byte == b','));
    if protocols.any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"websocket")) {
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
}

#[cfg(test)]
mod tests;
