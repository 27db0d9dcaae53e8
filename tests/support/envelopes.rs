//! The envelopes of the wire as a client reads them: the history, a message, an answer.
//!
//! What somebody said is compared byte for byte, so it is cut out of its envelope, never parsed.

use std::{collections::BTreeMap, ops::Range};

use serde_json::Value;

use super::text::cut;

/// A live message as a client got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub id: u64,
    pub ts: u64,
    /// The verified sender.
    pub from: Option<String>,
    pub data: String,
}

/// An answer to the sender alone.
#[derive(Debug)]
pub struct Answer {
    pub frame: String,
    pub code: String,
}

impl Heard {
    /// None for a frame that is no `new_message`.
    pub fn parse(frame: &str) -> Option<Heard> {
        let rest = frame.strip_prefix(r#"{"type":"new_message","data":"#)?;
        let (data, tail) = rest.split_at(rest.rfind(r#","id":"#).expect("a message has an id"));
        let tail = keys(&tail[1..]);
        let id = tail["id"].as_u64().expect("an id is a number");
        let ts = tail["ts"].as_u64().expect("a ts is a number");
        let from = tail.get("from").map(|from| from.as_str().expect("from is a string").into());
        Some(Heard { id, ts, from, data: data.into() })
    }
}

impl Answer {
    pub fn parse(frame: &str) -> Answer {
        let value: Value = serde_json::from_str(frame).expect("an answer is JSON");
        assert_eq!(value["type"], "error", "neither a message nor an error: {}", cut(frame));
        assert!(value["message"].as_str().is_some_and(|text| !text.is_empty()), "{frame}");
        let code = value["code"].as_str().expect("an error has a code").into();
        Answer { frame: frame.into(), code }
    }
}

/// The first frame of a connection.
#[derive(Clone, Default)]
pub struct History {
    pub frame: String,
    data: Range<usize>,
    pub first_id: u64,
    pub last_id: u64,
    pub epoch: String,
    pub resumed: Option<bool>,
    pub skipped: Vec<u64>,
}

impl History {
    #[track_caller]
    pub fn parse(frame: &str) -> History {
        let start = r#"{"type":"message_history","data":["#;
        assert!(frame.starts_with(start), "no history: {}", cut(frame));
        let end = frame.rfind(r#"],"first_id":"#).expect("first_id follows data");
        let tail = keys(&frame[end + 2..]);
        let history = History {
            frame: frame.into(),
            data: start.len()..end,
            first_id: tail["first_id"].as_u64().expect("first_id is a number"),
            last_id: tail["last_id"].as_u64().expect("last_id is a number"),
            epoch: tail["epoch"].as_str().expect("epoch is a string").into(),
            resumed: tail.get("resumed").map(|value| value.as_bool().expect("resumed is a bool")),
            skipped: match tail.get("skipped") {
                Some(Value::Array(ids)) if !ids.is_empty() => {
                    ids.iter().map(|id| id.as_u64().expect("ids are numbers")).collect()
                }
                Some(other) => panic!("skipped is {other}"),
                None => Vec::new(),
            },
        };
        assert!(!history.epoch.is_empty(), "an epoch is no empty string");
        history
    }

    /// The bytes between the brackets.
    pub fn data(&self) -> &str {
        &self.frame[self.data.clone()]
    }

    /// Each message with its id. White space around a message, which a foreign editor may have
    /// left in the file, is no part of it.
    #[track_caller]
    pub fn messages(&self) -> Vec<(u64, &str)> {
        let messages = elements(self.data());
        let window = self.first_id..=self.last_id;
        assert!(self.skipped.is_sorted(), "skipped: {:?}", self.skipped);
        assert!(self.skipped.iter().all(|id| window.contains(id)), "skipped: {:?}", self.skipped);
        let mut holes = self.skipped.iter().peekable();
        let ids: Vec<u64> = window.filter(|id| holes.next_if_eq(&id).is_none()).collect();
        assert_eq!(
            messages.len(),
            ids.len(),
            "messages from {} to {} but for {:?}",
            self.first_id,
            self.last_id,
            self.skipped
        );
        ids.into_iter().zip(messages).collect()
    }

    /// The messages by their ids.
    #[track_caller]
    pub fn by_id(&self) -> BTreeMap<u64, String> {
        self.messages().into_iter().map(|(id, message)| (id, message.to_owned())).collect()
    }

    /// The messages without their ids.
    #[track_caller]
    pub fn said(&self) -> Vec<&str> {
        self.messages().into_iter().map(|(_, message)| message).collect()
    }
}

/// The keys at the end of a frame: they are written without white space.
#[track_caller]
fn keys(tail: &str) -> Value {
    assert!(!tail.contains(char::is_whitespace), "white space outside data: {tail}");
    serde_json::from_str(&format!("{{{tail}")).unwrap_or_else(|error| panic!("{tail}: {error}"))
}

/// The elements of a JSON array, byte for byte, given what stands between its brackets.
fn elements(array: &str) -> Vec<&str> {
    let (mut all, mut start, mut depth) = (Vec::new(), 0, 0);
    let (mut in_string, mut escaped) = (false, false);
    for (at, byte) in array.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => (),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                all.push(array[start..at].trim());
                start = at + 1;
            }
            _ => (),
        }
    }
    if !array.is_empty() {
        all.push(array[start..].trim());
    }
    all
}
