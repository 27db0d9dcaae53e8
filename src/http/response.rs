//! Responses on the wire: heads, and refusals with a sentence.

use std::{borrow::Cow, fmt::Write as _, time::SystemTime};

use http::{HeaderName, Method, StatusCode, header};
use httpdate::HttpDate;

/// The content type of text for people.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// How many seconds a client is told to wait before it tries a busy server again.
pub const RETRY_AFTER: &str = "5";

/// An answer that says no: a status, and a sentence that says what to do.
#[derive(Debug)]
pub struct HttpRefusal {
    /// The status.
    pub status: StatusCode,
    /// For a person.
    pub sentence: String,
    /// Header fields beside the usual ones.
    pub headers: Vec<(HeaderName, Cow<'static, str>)>,
}

impl HttpRefusal {
    /// A refusal without further header fields.
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> HttpRefusal {
        HttpRefusal { status, sentence: sentence.into(), headers: Vec::new() }
    }

    /// The same with one more header field.
    pub fn with(mut self, name: HeaderName, value: impl Into<Cow<'static, str>>) -> HttpRefusal {
        self.headers.push((name, value.into()));
        self
    }

    /// 400: the request makes no sense.
    pub fn bad(sentence: impl Into<String>) -> HttpRefusal {
        HttpRefusal::new(StatusCode::BAD_REQUEST, sentence)
    }

    /// 404: nothing has this name.
    pub fn not_found(sentence: impl Into<String>) -> HttpRefusal {
        HttpRefusal::new(StatusCode::NOT_FOUND, sentence)
    }

    /// 408: the request did not come in time.
    pub fn late() -> HttpRefusal {
        let sentence = "the request was not finished in time; send it at once";
        HttpRefusal::new(StatusCode::REQUEST_TIMEOUT, sentence)
    }

    /// 503: the server has no room, or is about to end.
    pub fn unavailable(sentence: impl Into<String>) -> HttpRefusal {
        let refusal = HttpRefusal::new(StatusCode::SERVICE_UNAVAILABLE, sentence);
        refusal.with(header::RETRY_AFTER, RETRY_AFTER)
    }

    /// The answer on the wire to a request of this method. The connection ends after it.
    pub fn response(&self, method: &Method) -> Vec<u8> {
        let body = format!("{}\n", self.sentence);
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        headers.push((header::CONTENT_TYPE, TEXT.to_owned()));
        headers.push((header::CONTENT_LENGTH, body.len().to_string()));
        // RFC 9110 section 7.8: who sends Upgrade names it in Connection, too.
        let is_to_upgrade = self.headers.iter().any(|(name, _)| name == header::UPGRADE);
        let connection = if is_to_upgrade { "Upgrade, close" } else { "close" };
        headers.push((header::CONNECTION, connection.to_owned()));
        let mut bytes = response_head(self.status, &headers);
        if method != Method::HEAD {
            bytes.extend_from_slice(body.as_bytes());
        }
        bytes
    }
}

/// The head of a response. By RFC 9110 section 6.6.1, a server with a clock says when it made the response.
pub fn response_head(status: StatusCode, headers: &[(HeaderName, String)]) -> Vec<u8> {
    let date = HttpDate::from(SystemTime::now());
    let mut text = format!("HTTP/1.1 {status}\r\nDate: {date}\r\n");
    for (name, value) in headers {
        let line = write!(text, "{}: {value}\r\n", canonical(name));
        line.expect("writing to memory cannot fail");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// A header name as people write it.
fn canonical(name: &HeaderName) -> String {
    let mut text = String::new();
    let mut upper = true;
    for letter in name.as_str().chars() {
        text.push(if upper { letter.to_ascii_uppercase() } else { letter });
        upper = letter == '-';
    }
    text.replace("Websocket", "WebSocket")
}

#[cfg(test)]
mod tests;
