//! Requests whose whole answer is wanted, and streams that are listened to line by line.

use std::collections::VecDeque;

use serde_json::Value;

use super::{http::*, raw::Raw, server::Server};

impl Server {
    /// The answer to a request without a body; the whole body is read.
    #[track_caller]
    pub fn has(&self, line: &str, headers: &[&str]) -> Response {
        self.asks(line, headers)
    }

    #[track_caller]
    pub fn gets(&self, path: &str) -> String {
        let answer = self.has(&format!("GET {path}"), &[]);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    /// Listens to a stream of lines.
    #[track_caller]
    pub fn listens(&self, path: &str, headers: &[&str]) -> Listener {
        let mut raw = self.raw();
        raw.send(ask(&format!("GET {path}"), headers));
        let answer = raw.response();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"), "{answer:?}");
        Listener { raw, bytes: VecDeque::new() }
    }
}

/// A stream of lines.
pub struct Listener {
    raw: Raw,
    bytes: VecDeque<u8>,
}

impl Listener {
    /// The next line; none at the end of the stream.
    #[track_caller]
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                return Some(String::from_utf8(line[..end].to_vec()).expect("UTF-8"));
            }
            self.bytes.extend(self.raw.chunk()?);
        }
    }

    /// The next line as JSON.
    #[track_caller]
    pub fn json(&mut self) -> Value {
        json(&self.line().expect("the stream goes on"))
    }

    /// The next event: its id and its data.
    #[track_caller]
    pub fn event(&mut self) -> (Option<String>, Value) {
        let mut id = None;
        loop {
            let line = self.line().expect("the stream goes on");
            if let Some(given) = line.strip_prefix("id: ") {
                id = Some(given.to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                assert_eq!(self.line().as_deref(), Some(""), "an event's end");
                return (id, json(data));
            } else {
                assert!(line == ":" || line.is_empty(), "{line}");
            }
        }
    }

    /// The next line says this message of this channel.
    #[track_caller]
    pub fn says(&mut self, channel: &str, id: u64, data: &str) {
        let line = self.line().expect("the stream goes on");
        let value = json(&line);
        assert_eq!((&value["channel"], &value["id"]), (&channel.into(), &id.into()), "{line}");
        assert!(line.ends_with(&format!("\"data\":{data}}}")), "{line}");
    }
}

#[track_caller]
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}
