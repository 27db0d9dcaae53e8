//! `GET /messages`: the history as lines, as one array or as events; and those of other channels at
//! `/NAME`.

use crossbeam_channel::{Receiver, bounded};
use http::{HeaderName, Method, StatusCode, Version, header};
use memchr::memmem::Finder;

use super::{Channel, Exchange, Headers, JSON, PeerGone, Stop, response_epoch, sending::PIECE};
use crate::{
    command::View,
    history::{LocatedMessage, Snapshot, Stretch, Window},
    http::{
        HttpRefusal,
        query::{number, parameters},
    },
    name::Name,
    outbox::More,
    stamps::{Stamp, Stamps},
    wire::{HISTORY, HistoryFrame, push_number, push_stamp},
};

const NDJSON: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";

/// Says whether a proxy may hold back what it passes on.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// How the history is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One JSON object a line: NDJSON.
    Lines,
    /// One JSON object like the frame on connect.
    Array,
    /// Server-sent events, which never end.
    Events,
}

impl Form {
    /// What it is called in HTTP.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::Lines => NDJSON,
            Form::Array => JSON,
            Form::Events => EVENTS,
        }
    }
}

/// What a query asks for.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) window: Window,
    pub(super) epoch: Option<String>,
    /// Only messages from this time on, in Unix milliseconds.
    pub(super) since: Option<u64>,
    text: Option<String>,
    pub(super) follow: bool,
    /// Only messages that are pinned.
    pinned: bool,
}

impl Query {
    pub(super) fn parse(query: &str) -> Result<Query, HttpRefusal> {
        let mut parsed = Query::default();
        for parameter in parameters(query) {
            match &*parameter.name {
                "after" => parsed.window.after = Some(parameter.number()?),
                "before" => parsed.window.before = Some(parameter.number()?),
                "limit" => parsed.window.limit = Some(parameter.number()?),
                "since" => parsed.since = Some(parameter.time()?),
                "epoch" => parsed.epoch = Some(parameter.text()?),
                "q" => parsed.text = Some(parameter.text()?).filter(|text| !text.is_empty()),
                "follow" => parsed.follow = parameter.flag()?,
                "pinned" => parsed.pinned = parameter.flag()?,
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// What is asked of the history itself. With `q` it has no limit: the limit is for what `q`
    /// finds.
    pub(super) fn window(&self) -> Window {
        let limit = self.window.limit.filter(|_| self.text.is_none());
        Window { limit, ..self.window }
    }

    /// The same search without a window, for what a follower is sent after its window.
    pub(super) fn rest(&self) -> Query {
        Query { text: self.text.clone(), ..Query::default() }
    }

    /// Whether it asks for more than that messages are pinned.
    pub(super) fn asks_for_a_part(&self) -> bool {
        let Window { after, before, since, limit } = self.window;
        let numbers = [after, before, since, limit, self.since];
        self.follow || self.text.is_some() || numbers.iter().any(Option::is_some)
    }

    fn finder(&self) -> Option<Finder<'_>> {
        self.text.as_ref().map(Finder::new)
    }
}

impl Exchange<'_> {
    pub(super) fn messages(&mut self, channel: &Channel) -> Result<(), Stop> {
        let mut query = Query::parse(self.request.uri().query().unwrap_or_default())?;
        let form = self.form()?;
        if query.pinned {
            return self.pinned(channel, form, &query);
        }
        if form == Form::Events {
            query.follow = true;
            if let Some(id) = self.request.headers().get("last-event-id") {
                let id = id.to_str().ok().filter(|id| !id.is_empty());
                query.window.after =
                    id.map(|id| number("Last-Event-ID", id.as_bytes())).transpose()?;
            }
        }
        if query.follow && (form == Form::Array || query.window.before.is_some()) {
            let sentence = "follow=1 goes with NDJSON or events, and without before=";
            return Err(HttpRefusal::bad(sentence).into());
        }
        if let Some(ts) = query.since {
            query.window.since = Some(channel.since(ts)?);
        }
        let (wake, woken) = bounded(1);
        let mut view = channel.look(query.window(), query.follow.then_some(wake))?;
        let is_other = query.epoch.as_ref().is_some_and(|epoch| **epoch != *view.epoch)
            || query.window.after.is_some_and(|after| query.follow && after > view.last_id);
        if query.window.after.is_some() && is_other {
            // The ids are another file's: start over, as the socket does.
            query.window.after = None;
            let (wake, woken_instead) = bounded(1);
            view = channel.look(query.window(), query.follow.then_some(wake))?;
            return self.stream(channel, form, &query, view, &woken_instead);
        }
        self.stream(channel, form, &query, view, &woken)
    }

    /// What the client would rather have, RFC 9110 section 12.5.1.
    pub(super) fn form(&self) -> Result<Form, HttpRefusal> {
        let fields = self.request.headers().get_all(header::ACCEPT);
        let accept: Vec<_> = fields.iter().filter_map(|field| field.to_str().ok()).collect();
        if accept.is_empty() {
            return Ok(Form::Lines);
        }
        let mut best = None;
        for range in accept.iter().flat_map(|field| field.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                JSON => Form::Array,
                EVENTS => Form::Events,
                NDJSON | "application/ndjson" | "application/jsonl" | "text/plain" | "text/*"
                | "application/*" | "*/*" => Form::Lines,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
            let quality: f32 = quality.unwrap_or(1.0);
            if quality > best.map_or(0.0, |(best, _)| best) {
                best = Some((quality, form));
            }
        }
        best.map(|(_, form)| form).ok_or_else(|| {
            let sentence = "the history is application/x-ndjson, application/json or \
                            text/event-stream";
            HttpRefusal::new(StatusCode::NOT_ACCEPTABLE, sentence)
        })
    }

    fn stream(
        &mut self,
        channel: &Channel,
        form: Form,
        query: &Query,
        view: View,
        woken: &Receiver<()>,
    ) -> Result<(), Stop> {
        let mut headers = vec![
            (header::CONTENT_TYPE, form.content_type().to_owned()),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            response_epoch(&view.epoch),
        ];
        if form == Form::Array && query.text.is_none() {
            let View { stretch, epoch, .. } = view;
            let frame = HistoryFrame::new(Snapshot { stretch, epoch, resumed: None })?;
            headers.push((header::CONTENT_LENGTH, frame.payload_len().to_string()));
            self.begin(StatusCode::OK, headers, &[])?;
            return if self.is_head() { Ok(()) } else { self.send_all(frame.without_header()) };
        }
        let mut body = self.begin_chunks(form, headers)?;
        if self.is_head() {
            return Ok(());
        }
        if form == Form::Array {
            self.found_array(&mut body, query, &view)?;
            return Ok(body.finish(self)?);
        }
        let (after, last_id) = (view.stretch.last_id, view.last_id);
        self.write_stretch(&mut body, query, view.stretch, view.stamps)?;
        if query.follow {
            self.follow(channel, &mut body, query, after, last_id, woken)?;
        }
        Ok(body.finish(self)?)
    }

    pub(super) fn is_head(&self) -> bool {
        self.request.method() == Method::HEAD
    }

    /// What `q` found as one object: with `ids`, since its messages are not neighbours.
    fn found_array(&mut self, body: &mut Chunks, query: &Query, view: &View) -> Result<(), Stop> {
        body.bytes.extend_from_slice(HISTORY);
        let mut comma: &[u8] = b"";
        for_found(query, &view.stretch, |_, data| {
            body.bytes.extend_from_slice(comma);
            body.bytes.extend_from_slice(data);
            comma = b",";
            body.flush_full(self)
        })?;
        body.bytes.extend_from_slice(br#"],"ids":["#);
        comma = b"";
        for_found(query, &view.stretch, |id, _| {
            body.bytes.extend_from_slice(comma);
            push_number(id, &mut body.bytes);
            comma = b",";
            body.flush_full(self)
        })?;
        body.bytes.extend_from_slice(br#"],"first_id":"#);
        push_number(view.stretch.first_id, &mut body.bytes);
        body.bytes.extend_from_slice(br#","last_id":"#);
        push_number(view.stretch.last_id, &mut body.bytes);
        body.bytes.extend_from_slice(br#","epoch":""#);
        body.bytes.extend_from_slice(view.epoch.as_bytes());
        body.bytes.extend_from_slice(b"\"}");
        Ok(())
    }

    pub(super) fn write_stretch(
        &mut self,
        body: &mut Chunks,
        query: &Query,
        stretch: Stretch,
        stamps: Stamps,
    ) -> Result<(), Stop> {
        let mut stamps = stamps.read();
        for_found(query, &stretch, |id, data| {
            if body.form == Form::Events {
                body.bytes.extend_from_slice(b"id: ");
                push_number(id, &mut body.bytes);
                body.bytes.push(b'\n');
            }
            body.push(|out| push_line(out, None, id, stamps.of(id), data));
            body.flush_full(self)
        })?;
        Ok(body.flush(self)?)
    }

    /// A response whose length is not known beforehand, RFC 9112 section 7.1; for HTTP/1.0, its end
    /// is the connection's.
    pub(super) fn begin_chunks(
        &mut self,
        form: Form,
        mut headers: Headers,
    ) -> Result<Chunks, Stop> {
        // nginx, as it comes, would wait until it has a whole buffer.
        headers.push((ACCEL_BUFFERING, "no".to_owned()));
        let is_chunked = self.request.version() != Version::HTTP_10;
        if is_chunked {
            headers.push((header::TRANSFER_ENCODING, "chunked".to_owned()));
        } else {
            self.is_last = true;
        }
        self.begin(StatusCode::OK, headers, &[])?;
        Ok(Chunks { bytes: Vec::new(), form, is_chunked, is_held_back: false })
    }
}

/// Calls `each` with the messages that a query wants, in order.
pub(super) fn for_found(
    query: &Query,
    stretch: &Stretch,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), PeerGone>,
) -> Result<(), Stop> {
    let finder = query.finder();
    let limit = query.window.limit.filter(|_| finder.is_some());
    let is_found = |data: &[u8]| finder.as_ref().is_none_or(|text| text.find(data).is_some());
    let mut skipped = 0;
    if let (Some(limit), None) = (limit, query.window.after) {
        // The last ones are wanted: how many there are decides where they begin. The file is read
        // twice rather than held.
        let mut messages = stretch.clone().messages()?;
        let mut count = 0_u64;
        while let Some(LocatedMessage { data, .. }) = messages.next()? {
            count += u64::from(is_found(data));
        }
        skipped = count.saturating_sub(limit);
    }
    let mut left = limit.unwrap_or(u64::MAX);
    let mut messages = stretch.clone().messages()?;
    while left > 0
        && let Some(LocatedMessage { id, data, .. }) = messages.next()?
    {
        if !is_found(data) {
            continue;
        }
        if skipped > 0 {
            skipped -= 1;
            continue;
        }
        left -= 1;
        each(id, data)?;
    }
    Ok(())
}

/// One message as NDJSON, with the name of its channel where a reader has several.
pub(super) fn push_line(
    out: &mut Vec<u8>,
    channel: Option<&Name>,
    id: u64,
    stamp: Stamp<'_>,
    data: &[u8],
) {
    match channel {
        Some(name) => {
            out.extend_from_slice(br#"{"channel":""#);
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(br#"","id":"#);
        }
        None => out.extend_from_slice(br#"{"id":"#),
    }
    push_number(id, out);
    push_stamp(stamp, out);
    out.extend_from_slice(br#","data":"#);
    out.extend_from_slice(data);
    out.extend_from_slice(b"}\n");
}

/// A body on its way, a block at a time.
pub(super) struct Chunks {
    pub(super) bytes: Vec<u8>,
    pub(super) form: Form,
    is_chunked: bool,
    /// Whether the kernel was told that more follows.
    is_held_back: bool,
}

impl Chunks {
    /// Appends what `push_line` makes, a line of JSON, as the form has it.
    pub(super) fn push(&mut self, push_line: impl FnOnce(&mut Vec<u8>)) {
        if self.form != Form::Events {
            return push_line(&mut self.bytes);
        }
        self.bytes.extend_from_slice(b"data: ");
        let start = self.bytes.len();
        push_line(&mut self.bytes);
        // White space between tokens, which would end a line of the event.
        let carriage_returns = self.bytes[start..].iter_mut().filter(|byte| **byte == b'\r');
        carriage_returns.for_each(|byte| *byte = b' ');
        self.bytes.push(b'\n');
    }

    /// Sends a comment, which tells proxies in between that a stream of events is alive.
    pub(super) fn show_life(&mut self, exchange: &mut Exchange<'_>) -> Result<(), PeerGone> {
        if self.form == Form::Events {
            self.bytes.extend_from_slice(b":\n\n");
            self.flush(exchange)?;
        }
        Ok(())
    }

    pub(super) fn flush_full(&mut self, exchange: &mut Exchange<'_>) -> Result<(), PeerGone> {
        if self.bytes.len() < PIECE {
            return Ok(());
        }
        exchange.go_on_reading()?;
        self.send(exchange, More::Follows)
    }

    pub(super) fn flush(&mut self, exchange: &mut Exchange<'_>) -> Result<(), PeerGone> {
        if !self.bytes.is_empty() {
            return self.send(exchange, More::No);
        }
        if std::mem::take(&mut self.is_held_back) {
            // The kernel may still wait for more; this makes it send. It cannot fail on a connection,
            // and what is held back goes out by itself in a moment.
            let _ = exchange.web.outbox.socket().set_tcp_nodelay(true);
        }
        Ok(())
    }

    fn send(&mut self, exchange: &mut Exchange<'_>, more: More) -> Result<(), PeerGone> {
        if self.is_chunked {
            let head = format!("{:x}\r\n", self.bytes.len());
            self.bytes.splice(..0, head.into_bytes());
            self.bytes.extend_from_slice(b"\r\n");
        }
        exchange.send_and(&self.bytes, more)?;
        self.is_held_back = more == More::Follows;
        self.bytes.clear();
        // A follower would keep room for its longest message for the life of its stream.
        self.bytes.shrink_to(2 * PIECE);
        Ok(())
    }

    pub(super) fn finish(mut self, exchange: &mut Exchange<'_>) -> Result<(), PeerGone> {
        self.flush(exchange)?;
        match self.is_chunked {
            true => exchange.send(b"0\r\n\r\n"),
            false => Ok(()),
        }
    }
}
