//! What these tests talk with beside `support`: the stamps file, and messages with their stamps.

use std::{fs, path::PathBuf, time::UNIX_EPOCH};

use serde_json::Value;

use crate::support::*;

/// A query that makes the sender `ann` and her sign.
pub const ANN: &str = "as=ann&key=correct+horse";

/// `printf 'txtcord pseudonym\0correct horse' | sha256sum | xxd -r -p | base32`, the first twelve.
pub const ANN_SENDER: &str = "ann~ra5k4rs4tily";

/// A message as a line of `/messages` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub id: u64,
    pub ts: Option<u64>,
    pub from: Option<String>,
    pub data: String,
}

impl Told {
    /// Of a line or a frame with these keys.
    #[track_caller]
    pub fn of(text: &str) -> Told {
        let value = json(text);
        Told {
            id: value["id"].as_u64().expect("an id"),
            ts: value.get("ts").map(|ts| ts.as_u64().expect("a time is a number")),
            from: value.get("from").map(|from| from.as_str().expect("a name").to_owned()),
            data: value["data"].to_string(),
        }
    }

    /// The line of the stamps file that says the same, but for the spelling of the time.
    pub fn is_stamped(&self, line: &str) -> bool {
        let (time, from) = line.split_once(' ').expect("a stamp has two parts");
        let is_time = match self.ts {
            None => time == "-",
            Some(ts) => ts == ms_of(time),
        };
        is_time && self.from.as_deref().unwrap_or("-") == from
    }
}

/// A time such as `2026-11-23T14:02:15.123Z` in Unix milliseconds.
#[track_caller]
pub fn ms_of(time: &str) -> u64 {
    assert_eq!(time.len(), "2026-11-23T14:02:15.123Z".len(), "{time}");
    let time = humantime::parse_rfc3339(time).expect("a time");
    time.duration_since(UNIX_EPOCH).expect("a time of today").as_millis() as u64
}

impl Server {
    pub fn stamps_path(&self) -> PathBuf {
        self.dir.join("messages.txt.stamps")
    }

    /// The lines of the stamps file.
    #[track_caller]
    pub fn stamps(&self) -> Vec<String> {
        let text = fs::read_to_string(self.stamps_path()).expect("there are stamps, in UTF-8");
        assert!(text.is_empty() || text.ends_with('\n'), "whole lines: {text:?}");
        text.lines().map(str::to_owned).collect()
    }

    /// The messages that a path tells, one a line.
    #[track_caller]
    pub fn told(&self, path: &str) -> Vec<Told> {
        self.gets(path).lines().map(Told::of).collect()
    }

    /// A client at a path that reads frame by frame.
    #[track_caller]
    pub fn reads(&self, path: &str) -> Raw {
        let mut raw = self.raw();
        raw.send(self.head(path, &[]));
        assert_eq!(raw.head_alone().status, 101, "{path}");
        raw
    }

    /// Stores a message by HTTP, with this query; returns its id.
    #[track_caller]
    pub fn posts(&self, query: &str, body: &str) -> u64 {
        let kind = "Content-Type: application/json";
        let answer = self.asked(ask_with(&format!("POST /messages?{query}"), &[kind], body));
        assert_eq!(answer.status, 201, "{answer:?}");
        json(&answer.body)["id"].as_u64().expect("an id")
    }
}

/// Reads the frames of a history that comes message by message: the messages, and its end.
#[track_caller]
pub fn read_each(raw: &mut Raw) -> (Vec<Told>, Value) {
    let mut messages = Vec::new();
    loop {
        let text = raw.text();
        let frame = json(&text);
        match frame["type"].as_str() {
            Some("new_message") => messages.push(Told::of(&text)),
            Some("history_end") => return (messages, frame),
            _ => panic!("neither a message nor the end of the history: {text}"),
        }
    }
}
