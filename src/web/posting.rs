//! `POST /messages` and `POST /NAME`: what curl and bots say.

use http::{StatusCode, header};

use super::{Channel, Exchange, JSON, Stop};
use crate::{
    access::Right,
    command::{HubGone, MOST_OPERATIONS, PostedOperations, Stored},
    http::{HttpRefusal, query::speaker, response::RETRY_AFTER},
    lines::{LINE_LIMIT, count_lines, each_line},
    message::{self, NotJson},
    operations::{Operation, Recognised, Refusal, is_operation, recognise},
    wire::ErrorAnswer,
};

/// The name of a speaker who gives none.
const ANONYMOUS: &str = "anonymous";

/// The longest body of many messages, in bytes; each of them keeps to `--max-message`.
const MANY_BYTES: usize = 8 << 20;

// With the end of its last line it is no longer than a line may be; the journal counts on that.
const _: () = assert!(MANY_BYTES < LINE_LIMIT);

/// The most messages in such a body: more than it has room for where people talk. The hub takes less
/// than a second for so many, in which it does nothing else.
const MANY_MESSAGES: usize = 1_000_000;

/// The longest `Idempotency-Key`, in bytes.
const KEY_BYTES: usize = 255;

/// What a body is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One JSON value.
    Json,
    /// A person's words.
    Text,
    /// What `curl -d` says of anything: JSON when it is, else somebody's words.
    Form,
    /// One JSON value a line.
    Many,
}

impl Exchange<'_> {
    pub(super) fn post(&mut self, channel: &Channel) -> Result<(), Stop> {
        let kind = self.kind()?;
        let name = self.speaker()?;
        let key = self.key()?;
        let max_message = self.web.config.max_message;
        let limit = if kind == Kind::Many { MANY_BYTES.max(max_message) } else { max_message };
        let text = self.text_of_body(channel, kind, limit)?;
        let mut lines = Vec::with_capacity(text.len() + 1);
        let taken = match kind {
            Kind::Many => push_many(&text, max_message, &mut lines)?,
            _ => push_said(kind, &name, &text, &mut lines),
        };
        if let Err(why) = taken {
            return self.answer_refusal(StatusCode::BAD_REQUEST, ErrorAnswer::NotJson, &why);
        }
        match self.store(channel, key, lines)? {
            Some(stored) => self.created(channel, stored, kind),
            None => Ok(()),
        }
    }

    /// The name of who speaks: the one that `as=` gives, else the verified one.
    pub(super) fn speaker(&self) -> Result<String, HttpRefusal> {
        let given = speaker(self.request.uri().query().unwrap_or_default())?;
        let name = given.or_else(|| self.caller().sender().map(|sender| sender.to_string()));
        Ok(name.unwrap_or_else(|| ANONYMOUS.to_owned()))
    }

    /// The body of a request that posts, of `limit` bytes at the most.
    pub(super) fn text_of_body(
        &mut self,
        channel: &Channel,
        kind: Kind,
        limit: usize,
    ) -> Result<String, Stop> {
        let body = self.body(limit)?;
        // A body may take its time, and the rules change meanwhile.
        self.check(Right::Post, &channel.name)?;
        let not_utf8 = |_| HttpRefusal::bad("the body is not UTF-8");
        let text = String::from_utf8(body).map_err(not_utf8)?;
        if text.is_empty() && matches!(kind, Kind::Text | Kind::Form) {
            return Err(HttpRefusal::bad("there is nothing in the body").into());
        }
        Ok(text)
    }

    /// Has the hub store lines; `None` when they were refused, which is answered then.
    pub(super) fn store(
        &mut self,
        channel: &Channel,
        key: Option<String>,
        lines: Vec<u8>,
    ) -> Result<Option<Stored>, Stop> {
        let operations = match operations_in(&lines) {
            Ok(operations) => operations,
            Err(why) => {
                let bad = ErrorAnswer::BadOperation;
                self.answer_refusal(StatusCode::BAD_REQUEST, bad, &why)?;
                return Ok(None);
            }
        };
        if operations.len() > MOST_OPERATIONS {
            let sentence = format!(
                "these are {} operations; post {MOST_OPERATIONS} at the most at a time",
                operations.len()
            );
            return Err(HttpRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, sentence).into());
        }
        let messages = u32::try_from(count_lines(&lines)).unwrap_or(u32::MAX);
        self.caller().count_posts(messages).map_err(HttpRefusal::from)?;
        let sender = self.caller().sender();
        let standing = self.caller().standing(&channel.name);
        let operations = PostedOperations::of(standing, operations);
        let stored = channel.hub.store(key, sender, lines, operations);
        match stored.map_err(|HubGone| channel.gone())? {
            Ok(stored) => Ok(Some(stored)),
            Err(why) => {
                self.answer_refusal(status_of(why), why, why.sentence())?;
                Ok(None)
            }
        }
    }

    fn created(&mut self, channel: &Channel, stored: Stored, kind: Kind) -> Result<(), Stop> {
        let Stored { first_id, last_id } = stored;
        let body = match kind {
            Kind::Many => format!("{{\"id\":{first_id},\"last_id\":{last_id}}}\n"),
            _ => format!("{{\"id\":{first_id}}}\n"),
        };
        let headers = vec![
            (header::CONTENT_TYPE, JSON.to_owned()),
            (header::LOCATION, format!("/{}/{first_id}", channel.name)),
        ];
        self.whole(StatusCode::CREATED, headers, body.as_bytes())
    }

    /// The answer that the socket would give, as a response.
    pub(super) fn answer_refusal(
        &mut self,
        status: StatusCode,
        refusal: ErrorAnswer,
        why: &str,
    ) -> Result<(), Stop> {
        let mut headers = vec![(header::CONTENT_TYPE, JSON.to_owned())];
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.push((header::RETRY_AFTER, RETRY_AFTER.to_owned()));
        }
        let mut body = refusal.json(why);
        body.push(b'\n');
        self.whole(status, headers, &body)
    }

    pub(super) fn kind(&self) -> Result<Kind, HttpRefusal> {
        let Some(given) = self.request.headers().get(header::CONTENT_TYPE) else {
            return Ok(Kind::Json);
        };
        let given = given.to_str().unwrap_or_default();
        match given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/json" => Ok(Kind::Json),
            "text/plain" => Ok(Kind::Text),
            "application/x-www-form-urlencoded" => Ok(Kind::Form),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Kind::Many),
            _ => {
                let sentence = "send application/json, text/plain or application/x-ndjson";
                Err(HttpRefusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence))
            }
        }
    }

    /// The `Idempotency-Key`, which is the sender's own: nobody else can use it up, or learn from it
    /// what the sender posted.
    pub(super) fn key(&self) -> Result<Option<String>, HttpRefusal> {
        let Some(key) = self.request.headers().get("idempotency-key") else { return Ok(None) };
        match key.to_str() {
            Ok(key) if (1..=KEY_BYTES).contains(&key.len()) => {
                Ok(Some(match self.caller().person() {
                    // A key has no line end, so that nobody's key is another sender's.
                    Some(person) => format!("{person}\n{key}"),
                    None => key.to_owned(),
                }))
            }
            _ => Err(HttpRefusal::bad(format!(
                "Idempotency-Key needs 1 to {KEY_BYTES} visible characters"
            ))),
        }
    }
}

/// The operations among lines, each with the number of its line.
fn operations_in(lines: &[u8]) -> Result<Vec<(usize, Operation)>, String> {
    let mut operations = Vec::new();
    for (number, line) in each_line(lines).enumerate() {
        if !is_operation(line) {
            continue;
        }
        match recognise(message::trim(line)) {
            Ok(Recognised::Operation(operation)) => operations.push((number, operation)),
            Ok(Recognised::Typing) => {
                return Err("typing is told on a WebSocket; it is not posted".to_owned());
            }
            Err(why) => return Err(why.to_string()),
        }
    }
    Ok(operations)
}

/// The status of a response that says why the hub refused a post.
fn status_of(why: ErrorAnswer) -> StatusCode {
    match why {
        ErrorAnswer::NotJson | ErrorAnswer::BinaryUnsupported | ErrorAnswer::BadOperation => {
            StatusCode::BAD_REQUEST
        }
        ErrorAnswer::Forbidden | ErrorAnswer::Refused(Refusal::Forbidden(_)) => {
            StatusCode::FORBIDDEN
        }
        ErrorAnswer::Refused(Refusal::NoSuchMessage) => StatusCode::NOT_FOUND,
        ErrorAnswer::Refused(Refusal::Deleted) => StatusCode::GONE,
        ErrorAnswer::Refused(Refusal::TooMany) => StatusCode::CONFLICT,
        ErrorAnswer::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
        ErrorAnswer::StorageFull
        | ErrorAnswer::CannotErase
        | ErrorAnswer::ShuttingDown
        | ErrorAnswer::Unavailable
        | ErrorAnswer::Unanswered => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Appends a body of one message as a line: the JSON value that it is, or the words of the person
/// `name`.
pub(super) fn push_said(
    kind: Kind,
    name: &str,
    text: &str,
    lines: &mut Vec<u8>,
) -> Result<(), String> {
    match kind {
        Kind::Form if message::push_line(text, lines).is_ok() => Ok(()),
        Kind::Form | Kind::Text => {
            message::push_words(name, text, lines);
            Ok(())
        }
        Kind::Json | Kind::Many => message::push_line(text, lines)
            .map_err(|why| format!("{why}; send plain text with Content-Type: text/plain")),
    }
}

/// All lines of a body, or none: the outer error is one of size, the inner one of JSON.
fn push_many(
    text: &str,
    max_message: usize,
    lines: &mut Vec<u8>,
) -> Result<Result<(), String>, HttpRefusal> {
    let all = text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty());
    for (count, (at, line)) in all.enumerate() {
        if count == MANY_MESSAGES {
            let sentence =
                format!("these are more than {MANY_MESSAGES} messages; post the rest after them");
            return Err(HttpRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, sentence));
        }
        if line.len() > max_message {
            let sentence = format!("line {} is longer than {max_message} bytes", at + 1);
            return Err(HttpRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, sentence));
        }
        let in_line = |why: NotJson| format!("line {} of the body: {why}", at + 1);
        if let Err(why) = message::push_line(line, lines).map_err(in_line) {
            return Ok(Err(why));
        }
    }
    Ok(if lines.is_empty() { Err("there is no message in the body".to_owned()) } else { Ok(()) })
}
