//! What these tests talk with beside `support`: requests to a channel, and files in the folder.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::*;

impl Server {
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
