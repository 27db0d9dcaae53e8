//! What these tests talk with beside `support`: requests to a channel, files in the folder, and
//! streams that are listened to line by line.

use std::{
    collections::VecDeque,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::*;

impl Server {
    /// The answer to a request without a body; the whole body is read.
    #[track_caller]
    pub fn has(&self, line: &str, headers: &[&str]) -> Response {
        let mut raw = self.raw();
        raw.send(ask(line, headers));
        raw.whole()
    }

    #[track_caller]
    pub fn gets(&self, path: &str) -> String {
        let answer = self.has(&format!("GET {path}"), &[]);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    /// Makes a channel.
    #[track_caller]
    pub fn puts(&self, name: &str) {
        let answer = self.has(&format!("PUT /{name}"), &[]);
        assert_eq!(answer.status, 201, "{answer:?}");
    }

    /// Posts one message of JSON; gives the id.
    #[track_caller]
    pub fn stores(&self, name: &str, message: &str) -> u64 {
        let answer = self.posts(name, message);
        assert_eq!(answer.status, 201, "{answer:?}");
        let id = json(&answer.body)["id"].as_u64().expect("an id is a number");
        assert_eq!(answer.header("Location"), Some(&*format!("/{name}/{id}")));
        id
    }

    #[track_caller]
    pub fn posts(&self, name: &str, message: &str) -> Response {
        let kind = "Content-Type: application/json";
        let mut raw = self.raw();
        raw.send(ask_with(&format!("POST /{name}"), &[kind], message));
        raw.whole()
    }

    /// What `/channels` says, by name.
    #[track_caller]
    pub fn channels(&self) -> Vec<Value> {
        self.gets("/channels").lines().map(json).collect()
    }

    /// The names that `/channels` has.
    #[track_caller]
    pub fn names(&self) -> Vec<String> {
        let name = |line: &Value| line["channel"].as_str().expect("a name").to_owned();
        self.channels().iter().map(name).collect()
    }

    /// The path of a channel's file.
    pub fn file_of(&self, name: &str) -> PathBuf {
        self.dir.join("channels").join(format!("{name}.txt"))
    }

    /// What lies in the folder whose names begin so.
    pub fn in_folder(&self, begins: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.join("channels")).expect("the folder is there");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.retain(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begins))
        });
        paths.sort();
        paths
    }

    /// Listens to a stream of lines.
    #[track_caller]
    pub fn listens(&self, path: &str, headers: &[&str]) -> Stream {
        let mut raw = self.raw();
        raw.send(ask(&format!("GET {path}"), headers));
        let answer = raw.response();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"), "{answer:?}");
        Stream { raw, bytes: VecDeque::new() }
    }
}

/// A stream of lines.
pub struct Stream {
    raw: Raw,
    bytes: VecDeque<u8>,
}

impl Stream {
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

/// Another program's `echo ... >> file`.
pub fn append(path: &Path, text: &str) {
    let file = fs::OpenOptions::new().append(true).create(true).open(path);
    file.expect("the file").write_all(text.as_bytes()).expect("it can be appended to");
}

/// A server whose folder holds these files, each with its text.
pub fn with_files(files: &[(&str, &str)]) -> Setup {
    let setup = Setup::new();
    fs::create_dir(setup.dir.join("channels")).expect("a folder");
    for (file, text) in files {
        fs::write(setup.dir.join("channels").join(file), text).expect("a file");
    }
    setup
}
