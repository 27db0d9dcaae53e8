//! The HTTP face on the same port: the page, the history and posting for curl and bots, and what
//! operators ask.
//!
//! A connection's own thread answers its requests one after the other. It reads the history from the
//! file as it sends it (`web/sending.rs`), so a slow reader holds a few KiB and delays nobody.

use std::{io, time::Instant};

use http::{HeaderName, Method, Request, StatusCode, Version, header};

use crate::{
    access::{Caller, Forbidden, Right},
    channels::{Channels, NoChannel, stopping},
    command::{HubGone, HubHandle, View},
    config::Config,
    history::Window,
    http::{
        HttpRefusal, ReadError,
        body::{self, BODY_TIME},
        response::TEXT,
    },
    intake::Unfinished,
    lines::{is_too_much_erased, log_unreadable},
    metrics::Metrics,
    name::Name,
    outbox::{Outbox, SEND_SLICE},
    route::Resource,
};

mod page;
mod messages;
mod query;
mod follow;
mod several;
mod states;
mod channels;
mod posting;
mod operations;
mod download;
mod me;
mod monitoring;
mod chunks;
mod sending;

pub use monitoring::STATUS_TIME;

/// How long a browser may remember what it asked before a request from another page's.
const PREFLIGHT_SECONDS: &str = "600";

const JSON: &str = "application/json";

/// What one connection's requests are answered with.
#[derive(Debug)]
pub struct Web<'a> {
    /// Where answers go.
    pub outbox: &'a Outbox,
    /// The channels that requests are about.
    pub channels: &'a Channels,
    /// What is counted.
    pub metrics: &'a Metrics,
    /// The limits of requests and answers.
    pub config: &'a Config,
}

/// Whether a connection goes on after an answer.
#[derive(Debug)]
pub enum Then {
    /// With these bytes of the next request.
    Next(Vec<u8>),
    /// The answer was the last.
    Close,
    /// The peer is gone, or takes nothing.
    PeerGone,
}

/// The peer is gone, or takes nothing, or may not be sent any more.
#[derive(Debug)]
struct PeerGone;

/// Why a request has no answer of its own.
enum Stop {
    Refused(HttpRefusal),
    /// A file of the channel cannot be read, or not from where the answer stands.
    Unreadable(io::Error),
    PeerGone,
}

impl From<HttpRefusal> for Stop {
    fn from(refused: HttpRefusal) -> Stop {
        Stop::Refused(refused)
    }
}

impl From<Forbidden> for Stop {
    fn from(forbidden: Forbidden) -> Stop {
        Stop::Refused(forbidden.into())
    }
}

impl From<PeerGone> for Stop {
    fn from(PeerGone: PeerGone) -> Stop {
        Stop::PeerGone
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Stop {
        match error {
            ReadError::Refused(refusal) => Stop::Refused(refusal),
            ReadError::PeerGone => Stop::PeerGone,
        }
    }
}

impl From<io::Error> for Stop {
    fn from(why: io::Error) -> Stop {
        Stop::Unreadable(why)
    }
}

/// The answer where a file cannot be read.
fn unreadable(why: &io::Error) -> HttpRefusal {
    match is_too_much_erased(why) {
        true => HttpRefusal::unavailable("so much was deleted meanwhile; ask again from the start"),
        false => HttpRefusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read"),
    }
}

/// The caller may not read the channel.
#[derive(Debug)]
struct NotAReader;

/// The channel that a request is about.
struct Channel {
    name: Name,
    hub: HubHandle,
}

impl Channel {
    fn look(
        &self,
        window: Window,
        follow: Option<crossbeam_channel::Sender<()>>,
    ) -> Result<View, Stop> {
        self.hub.look(window, follow).map_err(|HubGone| self.gone().into())
    }

    /// The id where the messages since a time in Unix milliseconds begin.
    fn since(&self, ts: u64) -> Result<u64, Stop> {
        let since = self.hub.since(ts).map_err(|HubGone| self.gone())?;
        Ok(since.first_id()?)
    }

    /// What is said when its hub is gone.
    fn gone(&self) -> HttpRefusal {
        match self.name.is_default() {
            true => stopping(),
            false => HttpRefusal::unavailable(format!(
                "the channel {} ended just now; ask again soon",
                self.name
            )),
        }
    }
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
            caller: None,
            reading: None,
            began: false,
            has_body: false,
            unfinished: Unfinished::nothing(),
        };
        let answered = match caller {
            Ok(caller) => {
                exchange.caller = Some(caller);
                exchange.run(resource)
            }
            Err(refusal) => Err(refusal.into()),
        };
        let answered = match answered {
            Err(Stop::Unreadable(why)) => Err(exchange.note_unreadable(&why)),
            answered => answered,
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
    /// Bytes after the head: the body's, then the next request's.
    received: Vec<u8>,
    /// Whether the connection ends after it.
    is_last: bool,
    /// Who asks, if that may be.
    caller: Option<Caller>,
    /// The channel whose history is being sent, and the generation of the rules that allowed it.
    reading: Option<(Name, u64)>,
    /// Whether some of the answer is out.
    began: bool,
    /// Whether the body, if any, has been read.
    has_body: bool,
    /// The memory that the body takes, until the request is answered.
    unfinished: Unfinished,
}

type Headers = Vec<(HeaderName, String)>;

impl Exchange<'_> {
    fn run(&mut self, resource: Resource) -> Result<(), Stop> {
        let method = self.request.method();
        resource.check(method, self.request.uri().path())?;
        let is_post = method == Method::POST;
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        if !is_post && method != Method::PATCH {
            // A body means nothing here. If it were not read, it would be taken for the next
            // request.
            self.body(0)?;
        }
        if method == Method::OPTIONS {
            return self.options(resource.methods());
        }
        match resource {
            Resource::Page(file) => self.page(file),
            Resource::Messages(name) if is_read => {
                let channel = self.readable(name)?;
                self.messages(&channel)
            }
            Resource::Messages(name) if is_post => {
                let channel = self.postable(name)?;
                self.post(&channel)
            }
            Resource::Messages(name) if method == Method::PUT => self.make(&name),
            Resource::Messages(name) => self.put_away(&name),
            Resource::Message(name, id) if is_read => {
                let channel = self.readable(name)?;
                self.message(&channel, id)
            }
            Resource::Message(name, id) if method == Method::PATCH => self.edit(name, id),
            Resource::Message(name, id) => self.delete(name, id),
            Resource::Reaction(name, id, key) => self.react(name, id, &key),
            Resource::Pin(name, id) => self.pin(name, id),
            Resource::TextFile(name) => {
                let channel = self.readable(name)?;
                self.file(&channel)
            }
            Resource::Several(names) => self.several(&names),
            Resource::Channels => self.channels(),
            Resource::Me => self.me(),
            Resource::Health => self.health(),
            Resource::Ready => self.readiness(),
            Resource::Metrics => self.metrics(),
            Resource::WebSocket(_) | Resource::Nothing => {
                unreachable!("the connection leads the one to the chat, check() refuses the other")
            }
        }
    }

    /// What a browser asks before it lets a page of another origin ask, and what curl -X OPTIONS
    /// wants to know.
    fn options(&mut self, allow: &'static str) -> Result<(), Stop> {
        let fields = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Txtcord-Key";
        let headers = vec![
            (header::ALLOW, allow.to_owned()),
            (header::ACCESS_CONTROL_ALLOW_METHODS, allow.to_owned()),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, fields.to_owned()),
            (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS.to_owned()),
        ];
        self.begin(StatusCode::NO_CONTENT, headers, &[])
    }

    /// The channel of a name.
    fn channel(&self, name: Name) -> Result<Channel, Stop> {
        let found = self.web.channels.find(&name).map_err(|none| none.refusal(&name))?;
        Ok(Channel { name, hub: found.hub })
    }

    /// The channel of a name, if the caller may read it. Else it is not there for the caller.
    fn readable(&mut self, name: Name) -> Result<Channel, Stop> {
        self.begin_reading(&name).map_err(|NotAReader| NoChannel::Missing.refusal(&name))?;
        self.channel(name)
    }

    /// The channel of a name, if the caller may post there.
    fn postable(&self, name: Name) -> Result<Channel, Stop> {
        self.check(Right::Post, &name)?;
        self.channel(name)
    }

    /// Notes that the history of a channel is to be sent, for [`Exchange::go_on_reading`].
    fn begin_reading(&mut self, name: &Name) -> Result<(), NotAReader> {
        // It is taken first: rules that change from here on are found by the next look.
        let generation = self.caller().access().generation();
        if !self.caller().may(Right::Read, name) {
            return Err(NotAReader);
        }
        self.reading = Some((name.clone(), generation));
        Ok(())
    }

    /// Checks, while a history is being sent, that the caller may still read it. It may be long, and
    /// the rules may change meanwhile.
    ///
    /// # Errors
    /// When it may not. The connection must be ended then, since the rest of the answer is missing.
    fn go_on_reading(&self) -> Result<(), PeerGone> {
        let Some((name, generation)) = &self.reading else { return Ok(()) };
        let is_as_before = *generation == self.caller().access().generation();
        match is_as_before || self.caller().may(Right::Read, name) {
            true => Ok(()),
            false => Err(PeerGone),
        }
    }

    /// Logs that the history that is being sent, or its stamps, cannot be read; returns what is answered.
    fn note_unreadable(&self, why: &io::Error) -> Stop {
        match &self.reading {
            Some((name, _)) => log_unreadable(format_args!("channel {name}"), why),
            None => log_unreadable("a request", why),
        }
        unreadable(why).into()
    }

    /// Checks that the caller may do something with a channel. A channel with which it may do nothing
    /// is not there for it.
    fn check(&self, right: Right, channel: &Name) -> Result<(), Stop> {
        match self.caller().rights(channel).is_empty() {
            true => Err(NoChannel::Missing.refusal(channel).into()),
            false => Ok(self.caller().check(right, channel)?),
        }
    }

    fn caller(&self) -> &Caller {
        self.caller.as_ref().expect("a request without a caller was refused")
    }

    /// Whether the client has what has this tag, and would take nothing but something else.
    fn has_tag(&self, tag: &str) -> bool {
        let is_it = |given: &str| given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag;
        self.tags(header::IF_NONE_MATCH).any(is_it)
    }

    /// Checks that the client would take what has this tag. By RFC 9110 section 13.1.1, a weak tag is
    /// not the same as a strong one, which all of ours are.
    ///
    /// # Errors
    /// 412 when it wants something else.
    fn check_match(&self, tag: &str) -> Result<(), HttpRefusal> {
        let is_asked = self.request.headers().contains_key(header::IF_MATCH);
        if !is_asked || self.tags(header::IF_MATCH).any(|given| given == "*" || given == tag) {
            return Ok(());
        }
        let sentence = "it has changed since then; get it from its beginning, without If-Match";
        let refusal = HttpRefusal::new(StatusCode::PRECONDITION_FAILED, sentence);
        Err(refusal.with(header::ETAG, tag.to_owned()))
    }

    /// The tags that a field lists, on however many lines.
    fn tags(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        let lines = self.request.headers().get_all(name).into_iter();
        let lines = lines.filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',').map(str::trim))
    }

    /// The body, of `limit` bytes at the most.
    fn body(&mut self, limit: usize) -> Result<Vec<u8>, Stop> {
        let deadline = Instant::now() + BODY_TIME;
        let length = body::length_within(self.request, limit)?;
        let is_waiting = body::expects_continue(self.request)? && self.received.is_empty();
        if is_waiting && length > 0 {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            self.began = false;
        }
        let socket = self.web.outbox.socket();
        let (received, unfinished) = (&mut self.received, &mut self.unfinished);
        let body = body::read_body(socket, received, length, deadline, unfinished)?;
        self.has_body = true;
        Ok(body)
    }

    fn refuse(&mut self, refused: HttpRefusal) -> Result<(), Stop> {
        // A body that was not read would be taken for the next request.
        self.is_last |= !self.has_body && !matches!(body::length(self.request), Ok(0));
        let given = refused.headers.iter().map(|(name, value)| (name.clone(), value.to_string()));
        let mut headers: Headers = given.collect();
        headers.push((header::CONTENT_TYPE, TEXT.to_owned()));
        self.whole(refused.status, headers, format!("{}\n", refused.sentence).as_bytes())
    }
}

/// Names the numbering that the ids of a response belong to.
fn response_epoch(epoch: &str) -> (HeaderName, String) {
    (HeaderName::from_static("txtcord-epoch"), epoch.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::too_much_erased;

    #[test]
    fn who_cannot_go_on_since_much_was_deleted_is_told_to_begin_again() {
        let refusal = unreadable(&too_much_erased());
        assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refusal.sentence.contains("ask again"), "{}", refusal.sentence);
        let refusal = unreadable(&io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(refusal.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
