//! What a path names, and the methods that each resource takes.
//!
//! A request's path is looked at here and nowhere else, once, before anything is done about it. What
//! answers is given a [`Resource`]. A path that names nothing, and a method that a resource does not
//! take, are refused here, too.

use http::{Method, StatusCode, header};

use crate::http::{HttpRefusal, query::number};

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `/` and what is under `/app/`: the chat page.
    Page(PageFile),
    /// `/ws`: the chat itself.
    WebSocket,
    /// `/messages`: the history, and where messages are posted.
    Messages,
    /// `/messages/42`: one message, by its id.
    Message(u64),
    /// `/messages.txt`: the text file.
    TextFile,
    /// `/healthz`: whether the server is alive.
    Health,
    /// `/readyz`: whether it can store messages.
    Ready,
    /// `/metrics`: what it has done.
    Metrics,
    /// Any other path.
    Nothing,
}

/// The files of the chat page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFile {
    /// `/`
    Document,
    /// `/app/style.css`
    Style,
    /// `/app/chat.js`
    Script,
}

/// What can only be read takes these methods.
const READ_ONLY: &str = "GET, HEAD, OPTIONS";

impl Resource {
    /// What a path names.
    pub fn at(path: &str) -> Resource {
        match path {
            "/" => Resource::Page(PageFile::Document),
            "/app/style.css" => Resource::Page(PageFile::Style),
            "/app/chat.js" => Resource::Page(PageFile::Script),
            "/ws" => Resource::WebSocket,
            "/messages" => Resource::Messages,
            "/messages.txt" => Resource::TextFile,
            "/healthz" => Resource::Health,
            "/readyz" => Resource::Ready,
            "/metrics" => Resource::Metrics,
            _ => match path.strip_prefix("/messages/").map(|id| number("id", id.as_bytes())) {
                Some(Ok(id)) => Resource::Message(id),
                _ => Resource::Nothing,
            },
        }
    }

    /// The methods that it takes, as an `Allow` field lists them.
    pub fn methods(self) -> &'static str {
        match self {
            Resource::Messages => "GET, HEAD, POST, OPTIONS",
            Resource::WebSocket => "GET",
            Resource::Nothing => "",
            _ => READ_ONLY,
        }
    }

    /// Checks that it is there and takes a method; `path` is for the sentence.
    ///
    /// # Errors
    /// 404 when it is nothing, 405 when it takes other methods.
    pub fn check(self, method: &Method, path: &str) -> Result<(), HttpRefusal> {
        let methods = self.methods();
        if methods.split(", ").any(|taken| taken == method.as_str()) {
            return Ok(());
        }
        let sentence = match self {
            Resource::Nothing => {
                let sentence = "nothing is here; the page is at /, the chat at /ws and the history \
                                at /messages";
                return Err(HttpRefusal::not_found(sentence));
            }
            Resource::WebSocket => "a WebSocket begins with GET".to_owned(),
            _ => format!("{path} takes {methods}"),
        };
        let refusal = HttpRefusal::new(StatusCode::METHOD_NOT_ALLOWED, sentence);
        Err(refusal.with(header::ALLOW, methods))
    }
}

#[cfg(test)]
mod tests;
