//! What these tests talk with beside `support`: a [`Reply`] as an ordinary HTTP client gets it, a
//! [`Told`] as a line of the history gives it, and a [`Stream`] that is listened to.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read},
};

use serde_json::Value;
use ureq::{Agent, SendBody, http};

use crate::support::*;

pub const JSON: &str = "application/json";
pub const NDJSON: &str = "application/x-ndjson";
pub const EVENTS: &str = "text/event-stream";
pub const WORDS: &str = "text/plain";
/// What `curl -d` says a body is.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// Every path there is, but for `/ws`.
pub const PATHS: [&str; 9] = [
    "/",
    "/app/style.css",
    "/app/chat.js",
    "/messages",
    "/messages/1",
    "/messages.txt",
    "/healthz",
    "/readyz",
    "/metrics",
];

// ---------------------------------------------------------------------------------------------
// An ordinary HTTP client

/// An answer as an HTTP client gives it.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// An HTTP client that keeps its connections, gives up in time and asks no proxy.
pub fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .timeout_per_read(Some(PATIENCE))
        .timeout_per_write(Some(PATIENCE))
        .timeout_connect(Some(PATIENCE))
        .build()
        .into()
}

impl Server {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.get_with(path, &[])
    }

    /// With headers, each as a name and a value.
    #[track_caller]
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.call("GET", path, headers, None)
    }

    /// A body of this kind for `/messages`.
    #[track_caller]
    pub fn post(&self, kind: &str, body: impl AsRef<[u8]>) -> Reply {
        self.post_with("/messages", &[("Content-Type", kind)], body)
    }

    #[track_caller]
    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
        self.call("POST", path, headers, Some(body.as_ref()))
    }

    /// Posts one message under a key; gives the id.
    #[track_caller]
    pub fn post_once(&self, key: &str, body: &str) -> u64 {
        let headers = [("Content-Type", JSON), ("Idempotency-Key", key)];
        self.post_with("/messages", &headers, body).created()
    }

    #[track_caller]
    pub fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Reply {
        Reply::of(&agent(), &self.url(path), method, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// One number of `/metrics`, by its name with labels.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.gets("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
    }

    /// Says something and waits until it is shown: nothing of the server's start or of who came
    /// before is still under way then.
    #[track_caller]
    pub fn stores(&self, message: &str) -> u64 {
        self.post(JSON, message).created()
    }
}

impl Reply {
    pub fn of(
        agent: &Agent,
        url: &str,
        method: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Reply, ureq::Error> {
        let mut request = http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let good = "a request that can be sent";
        let response = match body {
            Some(body) => agent.run(request.body(body).expect(good))?,
            None => agent.run(request.body(()).expect(good))?,
        };
        Reply::from(response)
    }

    /// Sends a body whose length is not said beforehand.
    #[track_caller]
    pub fn of_chunked(url: &str, body: &str) -> Reply {
        let mut body = body.as_bytes();
        let sent = agent()
            .post(url)
            .header("Content-Type", JSON)
            .send(SendBody::from_reader(&mut body))
            .and_then(Reply::from);
        sent.unwrap_or_else(|error| panic!("POST {url}: {error}"))
    }

    fn from(mut response: http::Response<ureq::Body>) -> Result<Reply, ureq::Error> {
        let text = |value: &http::HeaderValue| value.to_str().expect("a header is ASCII").into();
        Ok(Reply {
            status: response.status().as_u16(),
            headers: response
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            body: response.body_mut().with_config().limit(u64::MAX).read_to_vec()?,
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a UTF-8 body")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", cut(&text)))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn has(&self, status: u16) -> &Reply {
        assert_eq!(self.status, status, "{}", self.shown());
        self
    }

    /// A status that says no, and a sentence that says each of these.
    #[track_caller]
    pub fn refuses(&self, status: u16, words: &[&str]) -> &Reply {
        self.has(status);
        let sentence = self.text();
        assert!(sentence.trim().contains(' ') && sentence.ends_with('\n'), "{}", self.shown());
        for word in words {
            assert!(sentence.contains(word), "{word:?} is not in {}", self.shown());
        }
        self
    }

    /// The answer to a post that was stored; gives the id of the first message.
    #[track_caller]
    pub fn created(&self) -> u64 {
        self.has(201);
        let id = self.json()["id"].as_u64().expect("an id is a number");
        assert_eq!(self.header("Location"), Some(&*format!("/messages/{id}")));
        assert_eq!(self.header("Content-Type"), Some(JSON));
        id
    }

    /// The lines of an NDJSON answer.
    #[track_caller]
    pub fn told(&self) -> Vec<Told> {
        self.has(200);
        let text = self.text();
        assert!(text.is_empty() || text.ends_with('\n'), "whole lines: {}", cut(&text));
        text.lines().map(Told::parse).collect()
    }

    /// The ids of an NDJSON answer.
    #[track_caller]
    pub fn ids(&self) -> Vec<u64> {
        self.told().iter().map(|told| told.id).collect()
    }

    fn shown(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        format!("{} {:?}: {}", self.status, self.headers, cut(&body))
    }
}

/// A message as a line of NDJSON gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub id: u64,
    pub ts: Option<u64>,
    pub data: String,
}

impl Told {
    #[track_caller]
    pub fn parse(line: &str) -> Told {
        Told::try_parse(line).unwrap_or_else(|| panic!("no line of the history: {}", cut(line)))
    }

    fn try_parse(line: &str) -> Option<Told> {
        serde_json::from_str::<serde::de::IgnoredAny>(line).ok()?;
        let (numbers, data) = line.strip_prefix(r#"{"id":"#)?.split_once(r#","data":"#)?;
        let (id, ts) = match numbers.split_once(r#","ts":"#) {
            Some((id, ts)) => (id, Some(ts.parse().ok()?)),
            None => (numbers, None),
        };
        Some(Told { id: id.parse().ok()?, ts, data: data.strip_suffix('}')?.into() })
    }
}

/// The NDJSON of these lines of a file, of which none is a hole and no time is known.
pub fn as_ndjson(lines: &[&str]) -> String {
    let line = |(at, data): (usize, &&str)| format!("{{\"id\":{},\"data\":{data}}}\n", at + 1);
    lines.iter().enumerate().map(line).collect()
}

// ---------------------------------------------------------------------------------------------
// A stream

/// An answer that goes on: NDJSON or events, over whatever brings its body.
pub struct Stream {
    lines: BufReader<Box<dyn Read + Send>>,
}

/// The body of a chunked answer on a socket.
struct Chunked {
    raw: Raw,
    bytes: VecDeque<u8>,
    is_over: bool,
}

impl Read for Chunked {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        while self.bytes.is_empty() && !self.is_over {
            match self.raw.chunk() {
                Some(chunk) => self.bytes.extend(chunk),
                None => self.is_over = true,
            }
        }
        self.bytes.read(space)
    }
}

impl Server {
    /// Follows the history at a path with a query.
    #[track_caller]
    pub fn follow(&self, path: &str) -> Stream {
        self.follow_with(path, &[])
    }

    #[track_caller]
    pub fn follow_with(&self, path: &str, headers: &[&str]) -> Stream {
        Stream::over(self.raw(), path, headers)
    }

    /// Follows through an ordinary HTTP client.
    #[track_caller]
    pub fn follow_as_client(&self, path: &str) -> Stream {
        let response = agent().get(self.url(path)).call();
        let response = response.unwrap_or_else(|error| panic!("GET {path}: {error}"));
        assert_eq!(response.status(), 200);
        Stream::reading(response.into_body().into_reader())
    }

    /// Server-sent events, as a browser asks for them.
    #[track_caller]
    pub fn events(&self, path: &str, headers: &[&str]) -> Stream {
        self.follow_with(path, &[headers, &["Accept: text/event-stream"]].concat())
    }
}

impl Stream {
    #[track_caller]
    pub fn over(mut raw: Raw, path: &str, headers: &[&str]) -> Stream {
        raw.send(ask(&format!("GET {path}"), headers));
        let response = raw.response();
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.header("Transfer-Encoding"), Some("chunked"), "{response:?}");
        Stream::reading(Chunked { raw, bytes: VecDeque::new(), is_over: false })
    }

    pub fn reading(body: impl Read + Send + 'static) -> Stream {
        Stream { lines: BufReader::new(Box::new(body)) }
    }

    /// The next line; none at the end of the body.
    #[track_caller]
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => return None,
            Ok(_) => (),
            Err(error) => panic!("no line: {error}"),
        }
        assert_eq!(line.pop(), Some('\n'), "a whole line: {}", cut(&line));
        Some(line)
    }

    /// The next message.
    #[track_caller]
    pub fn hears_one(&mut self) -> Told {
        Told::parse(&self.line().expect("the stream goes on"))
    }

    /// The next message is this one.
    #[track_caller]
    pub fn hears(&mut self, data: &str) -> Told {
        let told = self.hears_one();
        is_said(&told.data, data);
        told
    }

    /// The next messages have these ids and no others between.
    #[track_caller]
    pub fn hears_ids(&mut self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            assert_eq!(self.hears_one().id, id, "one missed or doubled");
        }
    }

    /// The next event has this id, twice over; comments may come before.
    #[track_caller]
    pub fn hears_event(&mut self, id: u64) -> Told {
        let mut line = self.line().expect("the stream goes on");
        while line == ":" {
            assert_eq!(self.line().as_deref(), Some(""), "a comment's end");
            line = self.line().expect("the stream goes on");
        }
        assert_eq!(line, format!("id: {id}"));
        let line = self.line().expect("data follows the id");
        let told = Told::parse(line.strip_prefix("data: ").expect("data follows the id"));
        assert_eq!(told.id, id);
        assert_eq!(self.line().as_deref(), Some(""), "an event's end");
        told
    }

    /// The body ends here, as a body does.
    #[track_caller]
    pub fn is_over(&mut self) {
        assert_eq!(self.line(), None, "the stream goes on");
    }
}
