//! The record of all messages, which says what a client must get, byte for byte.
//!
//! The messages lie one after the other with commas between, as in a history, so any stretch of them
//! is compared at the speed of memory: gigabytes go through these tests.

use serde_json::Value;

use crate::support::cut;

/// The beginning of every history.
const START: &[u8] = br#"{"type":"message_history","data":["#;
/// A history of at most this size is kept as a whole until it is complete.
const SHORT: usize = 4 << 10;
/// Of a longer one, this many bytes of the end are kept: more than follows the messages.
const TAIL: usize = 512;

/// All messages from id 1.
pub struct Record {
    /// Each message with a comma before it.
    text: Vec<u8>,
    /// Message `id` ends at `ends[id]`.
    ends: Vec<usize>,
}

impl Record {
    /// The record of a file, whose lines are all messages.
    pub fn of(file: &[u8]) -> Record {
        let mut record = Record { text: Vec::with_capacity(file.len()), ends: vec![0] };
        for line in file.split_inclusive(|byte| *byte == b'\n') {
            record.push(line.strip_suffix(b"\n").expect("a file of whole lines"));
        }
        record
    }

    pub fn push(&mut self, message: &[u8]) {
        self.text.push(b',');
        self.text.extend_from_slice(message);
        self.ends.push(self.text.len());
    }

    /// The id of the last message.
    pub fn last_id(&self) -> u64 {
        self.ends.len() as u64 - 1
    }

    /// The messages after `after` up to `last`, as a history has them.
    fn stretch(&self, after: u64, last: u64) -> Option<&[u8]> {
        if after == last {
            return Some(b"");
        }
        self.text.get(self.ends.get(after as usize)? + 1..*self.ends.get(last as usize)?)
    }

    /// Checks that a frame is this message.
    pub fn check(&self, id: u64, frame: &[u8]) {
        let is_it = || {
            let rest = frame.strip_prefix(br#"{"type":"new_message","data":"#)?;
            let rest = rest.strip_prefix(self.stretch(id - 1, id)?)?;
            let rest = rest.strip_prefix(format!(r#","id":{id},"ts":"#).as_bytes())?;
            let ts = rest.strip_suffix(b"}")?;
            (!ts.is_empty() && ts.iter().all(u8::is_ascii_digit)).then_some(())
        };
        if is_it().is_none() {
            panic!("where message {id} was to come: {}", cut(&String::from_utf8_lossy(frame)));
        }
    }
}

/// A history on its way in; nothing of it is kept but the end.
pub struct HistoryIn {
    length: usize,
    at: usize,
    end: Vec<u8>,
}

/// What a history said of itself.
pub struct Told {
    pub first_id: u64,
    pub last_id: u64,
    pub epoch: String,
    pub resumed: Option<bool>,
}

impl HistoryIn {
    pub fn of(length: usize) -> HistoryIn {
        HistoryIn { length, at: 0, end: Vec::new() }
    }

    /// How many bytes are still to come.
    pub fn left(&self) -> usize {
        self.length - self.at
    }

    /// Checks the next bytes of a history that begins after `after`; returns what it said of itself
    /// once it is complete.
    pub fn takes(&mut self, after: u64, piece: &[u8], record: &Record) -> Option<Told> {
        let compared = if self.length > SHORT { self.length - TAIL } else { 0 };
        let (now, later) = piece.split_at(piece.len().min(compared.saturating_sub(self.at)));
        self.compare(after, now, record);
        self.at += piece.len();
        self.end.extend_from_slice(later);
        (self.at == self.length).then(|| self.told(after, record))
    }

    fn compare(&self, after: u64, piece: &[u8], record: &Record) {
        let known = START.get(self.at..).unwrap_or_default();
        let (start, data) = piece.split_at(piece.len().min(known.len()));
        let from = record.ends[after as usize] + 1 + self.at.saturating_sub(START.len());
        let rest = record.text.get(from..).unwrap_or_default();
        let is_right = known.starts_with(start) && rest.starts_with(data);
        assert!(is_right, "a wrong history {} bytes from its start", self.at);
    }

    fn told(&self, after: u64, record: &Record) -> Told {
        let text = String::from_utf8_lossy(&self.end);
        let at = text.rfind(r#"],"first_id":"#).unwrap_or_else(|| panic!("no history: {text}"));
        let keys: Value = serde_json::from_str(&format!("{{{}", &text[at + 2..])).expect("keys");
        let number = |key: &str| keys[key].as_u64().unwrap_or_else(|| panic!("no {key}: {keys}"));
        let told = Told {
            first_id: number("first_id"),
            last_id: number("last_id"),
            epoch: keys["epoch"].as_str().expect("an epoch").into(),
            resumed: keys.get("resumed").map(|value| value.as_bool().expect("a bool")),
        };
        let data = record.stretch(told.first_id - 1, told.last_id);
        let data = data.unwrap_or_else(|| panic!("a history of what nobody said: {keys}"));
        let (end, kept) = (&self.end[..at], self.end.len());
        if self.length == kept {
            assert!(end.strip_prefix(START) == Some(data), "a wrong history: {}", cut(&text));
        } else {
            assert_eq!(told.first_id, after + 1, "a history from another place: {keys}");
            let length = self.length - kept + at - START.len();
            assert_eq!(data.len(), length, "the bytes of a history: {keys}");
            assert!(data.ends_with(end), "a wrong end of a history: {}", cut(&text));
        }
        told
    }
}
