//! What a path names, and the methods that each resource takes.
//!
//! A request's path is looked at here and nowhere else, once, before anything is done about it. What
//! answers is given a [`Resource`]. A path that names nothing, and a method that a resource does not
//! take, are refused here, too. The channel that a path names may still not be there.

use std::fmt;

use http::{Method, StatusCode, header};
use percent_encoding::percent_decode_str;

use crate::{
    http::{HttpRefusal, query::number},
    name::{Name, NotAName},
};

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `/` and what is under `/app/`: the chat page.
    Page(&'static PageFile),
    /// `/ws`, `/NAME/ws`: the chat itself.
    WebSocket(Name),
    /// `/messages`, `/NAME`: a channel's history, and where messages are posted.
    Messages(Name),
    /// `/messages/42`, `/NAME/42`: one message, by its id.
    Message(Name, u64),
    /// `/NAME/42/reactions/KEY`: the caller reacts to a message under this key.
    Reaction(Name, u64, String),
    /// `/NAME/42/pin`: whether a message is pinned.
    Pin(Name, u64),
    /// `/messages.txt`, `/NAME.txt`: the text file.
    TextFile(Name),
    /// `/dev,ops` or `/*`: the histories of several channels.
    Several(Names),
    /// `/channels`: the list of channels.
    Channels,
    /// `/me`: who asks, and what it may do.
    Me,
    /// `/healthz`: whether the server is alive.
    Health,
    /// `/readyz`: whether it can store messages.
    Ready,
    /// `/metrics`: what it has done.
    Metrics,
    /// Any other path.
    Nothing,
}

/// One file of the chat page.
#[derive(PartialEq, Eq)]
pub struct PageFile {
    /// Where it is served.
    pub path: &'static str,
    /// Its `Content-Type`.
    pub kind: &'static str,
    /// All of it.
    pub text: &'static str,
}

impl fmt::Debug for PageFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(out)
    }
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A row of [`PAGE`] for a file of `src/page`.
macro_rules! page_file {
    ($path:literal, $kind:expr, $file:literal) => {
        PageFile { path: $path, kind: $kind, text: include_str!(concat!("page/", $file)) }
    };
}

/// The files of the chat page: all there is under `/app/`, and what `/` is.
pub static PAGE: [PageFile; 25] = [
    page_file!("/", HTML, "index.html"),
    page_file!("/app/style.css", CSS, "style.css"),
    page_file!("/app/absent.js", SCRIPT, "absent.js"),
    page_file!("/app/channels.js", SCRIPT, "channels.js"),
    page_file!("/app/chat.js", SCRIPT, "chat.js"),
    page_file!("/app/composer.js", SCRIPT, "composer.js"),
    page_file!("/app/connection.js", SCRIPT, "connection.js"),
    page_file!("/app/conversation.js", SCRIPT, "conversation.js"),
    page_file!("/app/dom.js", SCRIPT, "dom.js"),
    page_file!("/app/draw.js", SCRIPT, "draw.js"),
    page_file!("/app/identity.js", SCRIPT, "identity.js"),
    page_file!("/app/json.js", SCRIPT, "json.js"),
    page_file!("/app/message.js", SCRIPT, "message.js"),
    page_file!("/app/operations.js", SCRIPT, "operations.js"),
    page_file!("/app/outbox.js", SCRIPT, "outbox.js"),
    page_file!("/app/pending.js", SCRIPT, "pending.js"),
    page_file!("/app/pinned.js", SCRIPT, "pinned.js"),
    page_file!("/app/presence.js", SCRIPT, "presence.js"),
    page_file!("/app/reactions.js", SCRIPT, "reactions.js"),
    page_file!("/app/server.js", SCRIPT, "server.js"),
    page_file!("/app/sidebar.js", SCRIPT, "sidebar.js"),
    page_file!("/app/status.js", SCRIPT, "status.js"),
    page_file!("/app/timeline.js", SCRIPT, "timeline.js"),
    page_file!("/app/title.js", SCRIPT, "title.js"),
    page_file!("/app/tools.js", SCRIPT, "tools.js"),
];

/// Which channels a path of several names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// `*`: all there are.
    All,
    /// These, each once.
    These(Vec<Name>),
}

/// What can only be read takes these methods.
const READ_ONLY: &str = "GET, HEAD, OPTIONS";

/// The paths that name no channel. The first word of each is reserved ([`crate::name::RESERVED`]), so
/// that no channel has it as its name.
fn own(path: &str) -> Option<Resource> {
    Some(match path {
        "/ws" => Resource::WebSocket(Name::default()),
        "/channels" => Resource::Channels,
        "/me" => Resource::Me,
        "/healthz" => Resource::Health,
        "/readyz" => Resource::Ready,
        "/metrics" => Resource::Metrics,
        _ => return PAGE.iter().find(|file| file.path == path).map(Resource::Page),
    })
}

impl Resource {
    /// What a path names.
    pub fn at(path: &str) -> Resource {
        own(path).or_else(|| in_channels(path)).unwrap_or(Resource::Nothing)
    }

    /// The methods that it takes, as an `Allow` field lists them.
    pub fn methods(&self) -> &'static str {
        match self {
            // It is always there, and cannot be put away.
            Resource::Messages(name) if name.is_default() => "GET, HEAD, POST, PUT, OPTIONS",
            Resource::Messages(_) => "GET, HEAD, POST, PUT, DELETE, OPTIONS",
            Resource::WebSocket(_) => "GET",
            Resource::Message(..) => "GET, HEAD, PATCH, DELETE, OPTIONS",
            Resource::Reaction(..) | Resource::Pin(..) => "PUT, DELETE, OPTIONS",
            Resource::Nothing => "",
            _ => READ_ONLY,
        }
    }

    /// Checks that it is there and takes a method; `path` is for the sentence.
    ///
    /// # Errors
    /// 404 when it is nothing, 405 when it takes other methods.
    pub fn check(&self, method: &Method, path: &str) -> Result<(), HttpRefusal> {
        let methods = self.methods();
        if methods.split(", ").any(|taken| taken == method.as_str()) {
            return Ok(());
        }
        let sentence = match self {
            Resource::Nothing => return Err(HttpRefusal::not_found(why_nothing(path))),
            Resource::WebSocket(_) => "a WebSocket begins with GET".to_owned(),
            Resource::Messages(name) if name.is_default() && method == Method::DELETE => {
                format!("{path} is the default channel, which cannot be put away")
            }
            _ if method == Method::PUT && own(path).is_some() => {
                format!("{path} takes {methods}; {}", NotAName::Reserved)
            }
            _ if method == Method::PUT => {
                format!("{path} takes {methods}; a channel is made by PUT and its name alone")
            }
            _ => format!("{path} takes {methods}"),
        };
        let refusal = HttpRefusal::new(StatusCode::METHOD_NOT_ALLOWED, sentence);
        Err(refusal.with(header::ALLOW, methods))
    }
}

/// What a path names that begins with the name of a channel, or with several. Libraries write the comma
/// between them, and the star for all, as `%2C` and `%2A`.
fn in_channels(path: &str) -> Option<Resource> {
    let path = path.strip_prefix('/')?;
    let Some((name, rest)) = path.split_once('/') else {
        return match path.strip_suffix(".txt") {
            Some(name) => Name::parse(name).ok().map(Resource::TextFile),
            None => match path.replace("%2C", ",").replace("%2c", ",").as_str() {
                "*" | "%2A" | "%2a" => Some(Resource::Several(Names::All)),
                names if names.contains(',') => several(names),
                name => Name::parse(name).ok().map(Resource::Messages),
            },
        };
    };
    let name = Name::parse(name).ok()?;
    match rest {
        "ws" => Some(Resource::WebSocket(name)),
        rest => in_messages(name, rest),
    }
}

/// What a path names that begins with a message of a channel.
fn in_messages(name: Name, path: &str) -> Option<Resource> {
    let id = |text: &str| number("id", text.as_bytes()).ok();
    match path.split_once('/') {
        None => Some(Resource::Message(name, id(path)?)),
        Some((message, "pin")) => Some(Resource::Pin(name, id(message)?)),
        Some((message, rest)) => {
            // What is not UTF-8 once it is decoded is the key of no reaction.
            let key = rest.strip_prefix("reactions/").filter(|key| !key.contains('/'))?;
            let key = percent_decode_str(key).decode_utf8().ok()?;
            Some(Resource::Reaction(name, id(message)?, key.into_owned()))
        }
    }
}

fn several(path: &str) -> Option<Resource> {
    let mut names = Vec::new();
    for name in path.split(',') {
        let name = Name::parse(name).ok()?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Some(Resource::Several(Names::These(names)))
}

/// Why a path names nothing, and where things are.
fn why_nothing(path: &str) -> String {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let name = first.strip_suffix(".txt").unwrap_or(first);
    let why = match Name::parse(name) {
        Err(NotAName::Reserved) if path.trim_start_matches('/') == name => {
            NotAName::Reserved.to_string()
        }
        Err(NotAName::Capital) => {
            format!("{}: /{}", NotAName::Capital, first.to_ascii_lowercase())
        }
        Err(NotAName::Malformed) if !name.is_empty() => NotAName::Malformed.to_string(),
        _ => "nothing is here".to_owned(),
    };
    format!(
        "{why}; the page is at /, the chat at /ws and the history at /messages, and /channels lists \
         the channels"
    )
}

#[cfg(test)]
mod tests;
