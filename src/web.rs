//! The HTTP face on the same port: the page, the history and posting for curl and bots, and what
//! operators ask.
//!
//! A connection's own thread answers its requests one after the other. Whoever reads the history
//! reads the file, a block at a time, so a slow reader holds one block and delays nobody.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::LazyLock,
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use http::{HeaderName, Method, Request, StatusCode, Version, header};
use log::error;
use sha2::{Digest, Sha256};

use crate::{
    access::Caller,
    config::Config,
    history::{BLOCK, Window},
    http::{
        HttpRefusal,
        response::{TEXT, response_head},
    },
    hub::{HubGone, HubHandle},
    lines::read_at,
    metrics::Metrics,
    outbox::{Outbox, SEND_SLICE},
    route::Resource,
    socket::{read, would_block},
};

mod posting;
mod reading;

/// The chat for people, in one file.
const PAGE: &str = include_str!("page.html");

/// From the end of a head to the end of its body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// How long an answer of the hub is waited for before the server counts as not well.
const HEALTH_TIME: Duration = Duration::from_secs(2);

/// How long a browser may remember what it asked before a request from another page's.
const PREFLIGHT_SECONDS: &str = "600";

const JSON: &str = "application/json";

/// What one connection's requests are answered with.
#[derive(Debug)]
pub struct Web<'a> {
    /// Where answers go.
    pub outbox: &'a Outbox,
    /// Who knows them.
    pub hub: &'a HubHandle,
    /// What is counted.
    pub metrics: &'a Metrics,
    /// Limits, and who may ask.
    pub config: &'a Config,
}

/// Whether a connection goes on behind an answer.
#[derive(Debug)]
pub enum Then {
    /// With these bytes of the next request.
    Next(Vec<u8>),
    /// The answer was the last.
    Close,
    /// The peer is gone, or takes nothing.
    PeerGone,
}

/// The peer is gone, or takes nothing.
#[derive(Debug)]
struct PeerGone;

/// Why a request has no answer of its own.
enum Stop {
    Refused(HttpRefusal),
    PeerGone,
}

impl From<HttpRefusal> for Stop {
    fn from(refused: HttpRefusal) -> Stop {
        Stop::Refused(refused)
    }
}

impl From<PeerGone> for Stop {
    fn from(PeerGone: PeerGone) -> Stop {
        Stop::PeerGone
    }
}

impl From<io::Error> for Stop {
    fn from(why: io::Error) -> Stop {
        error!("reading the history failed: {why}");
        Stop::Refused(HttpRefusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the file cannot be read",
        ))
    }
}

/// The hub is gone or about to be.
fn stopping() -> HttpRefusal {
    HttpRefusal::unavailable("the server is stopping; come back soon")
}

fn no_answer() -> HttpRefusal {
    HttpRefusal::unavailable("the hub does not answer")
}

impl Web<'_> {
    /// Answers one request of a caller, or refuses one that has none; `received` are the bytes that
    /// came after its head.
    pub fn answer(
        &self,
        request: &Request<()>,
        resource: Resource,
        caller: Result<Caller, HttpRefusal>,
        received: Vec<u8>,
    ) -> Then {
        self.metrics.http_request();
        if self.outbox.socket().set_write_timeout(Some(SEND_SLICE)).is_err() {
            return Then::PeerGone;
        }
        let mut exchange = Exchange {
            web: self,
            request,
            received,
            is_last: !keeps_alive(request),
            page: None,
            began: false,
            has_body: false,
        };
        let answered = match caller {
            Ok(caller) => {
                exchange.page = caller.page;
                exchange.run(resource)
            }
            Err(refusal) => Err(refusal.into()),
        };
        let answered = match answered {
            Err(Stop::Refused(refusal)) if !exchange.began => exchange.refuse(refusal),
            answered => answered,
        };
        match answered {
            Ok(()) if exchange.is_last => Then::Close,
            Ok(()) => Then::Next(exchange.received),
            Err(_) => Then::PeerGone,
        }
    }
}

fn keeps_alive(request: &Request<()>) -> bool {
    let says = |word: &str| {
        let connection = request.headers().get(header::CONNECTION);
        let text = connection.and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    match request.version() {
        Version::HTTP_10 => says("keep-alive"),
        _ => !says("close"),
    }
}

/// One request and its answer.
struct Exchange<'a> {
    web: &'a Web<'a>,
    request: &'a Request<()>,
    /// Bytes behind the head: the body's, then the next request's.
    received: Vec<u8>,
    /// Whether the connection ends behind it.
    is_last: bool,
    /// The origin of the web page that asks, if it is one and may.
    page: Option<String>,
    /// Whether some of the answer is out.
    began: bool,
    /// Whether the body, if any, has been read.
    has_body: bool,
}

type Headers = Vec<(HeaderName, String)>;

impl Exchange<'_> {
    fn run(&mut self, resource: Resource) -> Result<(), Stop> {
        let method = self.request.method();
        resource.check(method, self.request.uri().path())?;
        let is_post = method == Method::POST;
        if !is_post {
            // Nobody wants a body, but it would be taken for the next request.
            self.body(0)?;
        }
        if method == Method::OPTIONS {
            return self.options(resource.methods());
        }
        match resource {
            Resource::Page => self.page(),
            Resource::Messages if is_post => self.post(),
            Resource::Messages => self.messages(),
            Resource::Message(id) => self.message(id),
            Resource::TextFile => self.file(),
            Resource::Health => self.health(),
            Resource::Ready => self.readiness(),
            Resource::Metrics => self.metrics(),
            Resource::WebSocket | Resource::Nothing => {
                unreachable!("the connection leads the one to the chat, check() refuses the other")
            }
        }
    }

    /// What a browser asks before it lets a page of another origin ask, and what curl -X OPTIONS
    /// wants to know.
    fn options(&mut self, allow: &'static str) -> Result<(), Stop> {
        let fields = "Content-Type, Idempotency-Key, Last-Event-ID";
        let headers = vec![
            (header::ALLOW, allow.to_owned()),
            (header::ACCESS_CONTROL_ALLOW_METHODS, allow.to_owned()),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, fields.to_owned()),
            (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS.to_owned()),
        ];
        self.begin(StatusCode::NO_CONTENT, headers, &[])
    }

    fn page(&mut self) -> Result<(), Stop> {
        static POLICY: LazyLock<String> = LazyLock::new(policy);
        static TAG: LazyLock<String> =
            LazyLock::new(|| format!("\"{}\"", &BASE64.encode(&Sha256::digest(PAGE))[..22]));
        let mut headers = vec![
            (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
            (header::REFERRER_POLICY, "no-referrer".to_owned()),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            (header::ETAG, TAG.clone()),
        ];
        if self.has_tag(header::IF_NONE_MATCH, &TAG) {
            return self.begin(StatusCode::NOT_MODIFIED, headers, &[]);
        }
        headers.push((header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()));
        self.whole(StatusCode::OK, headers, PAGE.as_bytes())
    }

    /// Whether the process answers and its hub does: no more, since a restart is what follows.
    fn health(&mut self) -> Result<(), Stop> {
        match self.web.hub.status(HEALTH_TIME) {
            Ok(None) => Err(no_answer().into()),
            // A server that stops is well.
            Ok(Some(_)) | Err(HubGone) => self.well(),
        }
    }

    /// Whether messages can be stored, and will be in a moment.
    fn readiness(&mut self) -> Result<(), Stop> {
        match self.web.hub.status(HEALTH_TIME) {
            Ok(Some(status)) if status.is_stopping => Err(stopping().into()),
            Ok(Some(status)) if status.is_writable => self.well(),
            Ok(Some(_)) => Err(HttpRefusal::unavailable("messages cannot be stored now").into()),
            Ok(None) => Err(no_answer().into()),
            Err(HubGone) => Err(stopping().into()),
        }
    }

    fn well(&mut self) -> Result<(), Stop> {
        let headers = vec![
            (header::CONTENT_TYPE, TEXT.to_owned()),
            (header::CACHE_CONTROL, "no-store".to_owned()),
        ];
        self.whole(StatusCode::OK, headers, b"ok\n")
    }

    fn metrics(&mut self) -> Result<(), Stop> {
        let status = self.web.hub.status(HEALTH_TIME).map_err(|HubGone| stopping())?;
        let status = status.ok_or_else(no_answer)?;
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        let headers = vec![(header::CONTENT_TYPE, kind.to_owned())];
        self.whole(StatusCode::OK, headers, self.web.metrics.render(&status).as_bytes())
    }

    /// The file itself, as far as it is committed, so that a copy ends in a whole line.
    fn file(&mut self) -> Result<(), Stop> {
        let view = self.look(Window { after: Some(u64::MAX), ..Window::default() }, None)?;
        let tag = format!("\"{}-{}\"", view.epoch, view.end);
        let mut headers = vec![
            (header::ETAG, tag.clone()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            (header::CONTENT_TYPE, TEXT.to_owned()),
        ];
        if self.has_tag(header::IF_NONE_MATCH, &tag) {
            return self.begin(StatusCode::NOT_MODIFIED, headers, &[]);
        }
        let text = |name| self.request.headers().get(name).and_then(|value| value.to_str().ok());
        let is_same = text(header::IF_RANGE).is_none_or(|given| given == tag);
        let is_get = self.request.method() == Method::GET;
        let asked = text(header::RANGE).filter(|_| is_get && is_same);
        let (status, start, end) = match asked.and_then(|text| byte_range(text, view.end)) {
            None => (StatusCode::OK, 0, view.end),
            Some(Bytes::Of(start, end)) => {
                let range = format!("bytes {start}-{}/{}", end - 1, view.end);
                headers.push((header::CONTENT_RANGE, range));
                (StatusCode::PARTIAL_CONTENT, start, end)
            }
            Some(Bytes::None) => {
                headers.push((header::CONTENT_RANGE, format!("bytes */{}", view.end)));
                let sentence = b"the file is not that long\n";
                return self.whole(StatusCode::RANGE_NOT_SATISFIABLE, headers, sentence);
            }
        };
        headers.push((header::CONTENT_LENGTH, (end - start).to_string()));
        self.begin(status, headers, &[])?;
        if self.request.method() == Method::HEAD {
            return Ok(());
        }
        self.copy(view.range.file(), start, end)
    }

    fn copy(&mut self, file: &File, mut from: u64, end: u64) -> Result<(), Stop> {
        let mut block = vec![0; BLOCK.min((end - from) as usize)];
        while from < end {
            let want = block.len().min((end - from) as usize);
            let got = read_at(file, &mut block[..want], from)?;
            self.send(&block[..got])?;
            from += got as u64;
        }
        Ok(())
    }

    fn look(
        &self,
        window: Window,
        follow: Option<crossbeam_channel::Sender<()>>,
    ) -> Result<crate::hub::View, Stop> {
        self.web.hub.look(window, follow).map_err(|_| stopping().into())
    }

    fn has_tag(&self, name: HeaderName, tag: &str) -> bool {
        let value = self.request.headers().get(name).and_then(|value| value.to_str().ok());
        let is_it = |given: &str| given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag;
        value.is_some_and(|value| value.split(',').map(str::trim).any(is_it))
    }

    /// The body, of `limit` bytes at the most.
    fn body(&mut self, limit: usize) -> Result<Vec<u8>, Stop> {
        let deadline = Instant::now() + BODY_TIME;
        let len = self.body_len()?;
        if len > limit as u64 {
            let sentence = match limit {
                0 => "this takes no body".to_owned(),
                _ => format!("the body is longer than {limit} bytes"),
            };
            return Err(HttpRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, sentence).into());
        }
        if let Some(expect) = self.request.headers().get(header::EXPECT) {
            if !expect.as_bytes().eq_ignore_ascii_case(b"100-continue") {
                let sentence = "only 100-continue can be expected";
                return Err(HttpRefusal::new(StatusCode::EXPECTATION_FAILED, sentence).into());
            }
            let may_wait = self.request.version() != Version::HTTP_10;
            if may_wait && self.received.is_empty() && len > 0 {
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                self.began = false;
            }
        }
        let len = len as usize;
        let socket = self.web.outbox.socket();
        let mut filled = self.received.len();
        while filled < len {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
                return Err(HttpRefusal::late().into());
            }
            // As it comes, so that a stranger who announces much takes no more than it sends.
            self.received.resize((filled * 2).clamp(4096, len.max(4096)), 0);
            match read(socket, &mut self.received[filled..]) {
                Ok(0) => return Err(Stop::PeerGone),
                Ok(count) => filled += count,
                Err(error) if would_block(&error) => return Err(HttpRefusal::late().into()),
                Err(_) => return Err(Stop::PeerGone),
            }
        }
        self.received.truncate(filled);
        self.has_body = true;
        let next = self.received.split_off(len);
        Ok(std::mem::replace(&mut self.received, next))
    }

    /// RFC 9112 section 6.3, without the transfer codings.
    fn body_len(&self) -> Result<u64, HttpRefusal> {
        let headers = self.request.headers();
        if headers.contains_key(header::TRANSFER_ENCODING) {
            let sentence = "send the body with a Content-Length";
            return Err(HttpRefusal::new(StatusCode::LENGTH_REQUIRED, sentence));
        }
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let Some(length) = lengths.next() else {
            if self.request.method() == Method::POST {
                let sentence = "send the body with a Content-Length";
                return Err(HttpRefusal::new(StatusCode::LENGTH_REQUIRED, sentence));
            }
            return Ok(0);
        };
        let digits = length.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(length) if lengths.next().is_none() => Ok(length),
            _ => Err(HttpRefusal::bad("malformed Content-Length")),
        }
    }

    fn refuse(&mut self, refused: HttpRefusal) -> Result<(), Stop> {
        // A body that was not read would be taken for the next request.
        self.is_last |= !self.has_body && !matches!(self.body_len(), Ok(0));
        let given = refused.headers.iter().map(|(name, value)| (name.clone(), value.to_string()));
        let mut headers: Headers = given.collect();
        headers.push((header::CONTENT_TYPE, TEXT.to_owned()));
        self.whole(refused.status, headers, format!("{}\n", refused.sentence).as_bytes())
    }

    /// A response with all of its body.
    fn whole(&mut self, status: StatusCode, mut headers: Headers, body: &[u8]) -> Result<(), Stop> {
        headers.push((header::CONTENT_LENGTH, body.len().to_string()));
        match *self.request.method() {
            Method::HEAD => self.begin(status, headers, &[]),
            _ => self.begin(status, headers, body),
        }
    }

    /// The head of a response, and what of its body is there.
    fn begin(&mut self, status: StatusCode, mut headers: Headers, body: &[u8]) -> Result<(), Stop> {
        headers.push((header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()));
        headers.push((header::VARY, "Origin, Accept".to_owned()));
        if let Some(origin) = &self.page {
            headers.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
            let exposed = "ETag, Location, Txtcord-Epoch";
            headers.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.to_owned()));
        }
        if self.is_last {
            headers.push((header::CONNECTION, "close".to_owned()));
        } else if self.request.version() == Version::HTTP_10 {
            headers.push((header::CONNECTION, "keep-alive".to_owned()));
        }
        let mut bytes = response_head(status, &headers);
        bytes.extend_from_slice(body);
        Ok(self.send(&bytes)?)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), PeerGone> {
        self.began = true;
        self.web.outbox.send_patiently(bytes, self.web.config.stall_timeout).map_err(|_| PeerGone)
    }
}

/// Names the numbering that the ids of a response belong to.
fn response_epoch(epoch: &str) -> (HeaderName, String) {
    (HeaderName::from_static("txtcord-epoch"), epoch.to_owned())
}

/// What of a file is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Bytes {
    /// From one offset up to another.
    Of(u64, u64),
    /// Nothing that is there.
    None,
}

/// One range of RFC 9110 section 14.1.2; several, or what makes no sense, count as none given.
fn byte_range(text: &str, len: u64) -> Option<Bytes> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (start, end) = match (first, last) {
        ("", last) => (len.saturating_sub(number(last)?), len),
        (first, "") => (number(first)?, len),
        (first, last) => (number(first)?, number(last)?.saturating_add(1)),
    };
    if !first.is_empty() && !last.is_empty() && start >= end {
        return None;
    }
    Some(if start < end.min(len) { Bytes::Of(start, end.min(len)) } else { Bytes::None })
}

/// Lets the page's own script and style run and nothing else, whoever manages to inject what.
fn policy() -> String {
    let hash = |tag: &str| {
        let inner = PAGE
            .split_once(&format!("<{tag}>"))
            .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")).map(|(inner, _)| inner));
        BASE64.encode(&Sha256::digest(inner.unwrap_or_default()))
    };
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; \
         connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'",
        hash("script"),
        hash("style"),
    )
}

/// Asks a running server whether it is alive; for `txtcord health`.
///
/// # Errors
/// When it is not, in words.
pub fn ask_health(address: SocketAddr) -> Result<(), String> {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, HEALTH_TIME)?;
        // The server itself waits for its hub.
        stream.set_read_timeout(Some(HEALTH_TIME * 2))?;
        let request =
            format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.take(BLOCK as u64).read_to_string(&mut answer)?;
        Ok(answer)
    };
    match ask() {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => Ok(()),
        Ok(answer) => Err(format!("{address}: {}", answer.lines().last().unwrap_or("no answer"))),
        Err(error) => Err(format!("{address}: {error}")),
    }
}
