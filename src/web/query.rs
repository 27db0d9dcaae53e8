//! What a request asks of a history: which part, by its query, and in which form, by `Accept`.

use http::{StatusCode, header};
use memchr::memmem::Finder;

use super::{Exchange, JSON};
use crate::{
    history::Window,
    http::{HttpRefusal, query::parameters},
};

const NDJSON: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";

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
    /// `q`: only messages with this text in them.
    pub(super) text: Option<String>,
    pub(super) follow: bool,
    /// Only messages that are pinned.
    pub(super) pinned: bool,
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

    pub(super) fn finder(&self) -> Option<Finder<'_>> {
        self.text.as_ref().map(Finder::new)
    }
}

impl Exchange<'_> {
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
}
