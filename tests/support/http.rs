//! HTTP over a raw socket: requests byte by byte, and answers as they come.

use std::time::Instant;

use super::{patience::PATIENCE, raw::Raw};

/// What operators are told, with 503, when the hub does not answer within two seconds. On a busy machine
/// that says nothing.
pub const HUB_IS_LATE: &str = "the hub does not answer";

/// An HTTP answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// A refusal with this status and a sentence that says each of these.
    #[track_caller]
    pub fn refuses(&self, status: u16, words: &[&str]) -> &Response {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.body.trim().contains(' '), "a refusal has a sentence: {self:?}");
        let length = self.header("Content-Length").and_then(|value| value.parse().ok());
        assert_eq!(length, Some(self.body.len()), "{self:?}");
        for word in words {
            assert!(self.body.contains(word), "{word:?} is not in {self:?}");
        }
        self
    }
}

/// A request without a body: `GET /path`, and header fields as they are written. It is HTTP/1.1
/// and has a good Host unless it says otherwise.
pub fn ask(line: &str, headers: &[&str]) -> Vec<u8> {
    let version = if line.contains(" HTTP/") { "" } else { " HTTP/1.1" };
    let mut head = format!("{line}{version}\r\n");
    if !headers.iter().any(|header| header.to_ascii_lowercase().starts_with("host:")) {
        head += "Host: localhost\r\n";
    }
    for header in headers {
        head += header;
        head += "\r\n";
    }
    (head + "\r\n").into_bytes()
}

/// The same with a body and its length.
pub fn ask_with(line: &str, headers: &[&str], body: &str) -> Vec<u8> {
    let length = format!("Content-Length: {}", body.len());
    let mut request = ask(line, &[headers, &[&length]].concat());
    request.extend_from_slice(body.as_bytes());
    request
}

/// A JSON message for `/messages`.
pub fn post(body: &str) -> Vec<u8> {
    ask_with("POST /messages", &["Content-Type: application/json"], body)
}

impl Raw {
    /// Sends a request and reads the whole answer; again while the answer is [`HUB_IS_LATE`].
    #[track_caller]
    pub fn asks(&mut self, request: impl AsRef<[u8]>) -> Response {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.send(&request);
            let answer = self.whole();
            if !answer.body.contains(HUB_IS_LATE) || Instant::now() > deadline {
                return answer;
            }
        }
    }

    /// The next answer with its body, be it in chunks.
    #[track_caller]
    pub fn whole(&mut self) -> Response {
        let mut response = self.response();
        if response.header("Transfer-Encoding") == Some("chunked") {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk() {
                body.extend(chunk);
            }
            response.body = String::from_utf8(body).expect("a UTF-8 body");
        }
        response
    }

    /// The next answer with its body if it says how long that is.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        let mut response = self.head_alone();
        let length = response.header("Content-Length").and_then(|text| text.parse().ok());
        if let Some(length) = length {
            let body = self.takes(length);
            response.body = String::from_utf8(body).expect("a UTF-8 body");
        }
        response
    }

    /// The next answer, of which only the head comes whatever it says of a body.
    #[track_caller]
    pub fn head_alone(&mut self) -> Response {
        let head = String::from_utf8(self.takes_up_to(b"\r\n\r\n")).expect("an ASCII head");
        let mut lines = head.lines();
        let status_line = lines.next().expect("a status line");
        assert!(status_line.starts_with("HTTP/1.1 "), "{status_line}");
        let status = status_line[9..12].parse().expect("a status");
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.into(), value.trim().into()))
            .collect();
        Response { status, headers, body: String::new() }
    }

    /// The next chunk of a body; none when it was the last.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = String::from_utf8(self.takes_up_to(b"\r\n")).expect("an ASCII length");
        let length = usize::from_str_radix(length.trim_end(), 16).expect("a chunk has a length");
        let mut chunk = self.takes(length + 2);
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends with its line");
        chunk.truncate(length);
        (length > 0).then_some(chunk)
    }
}
