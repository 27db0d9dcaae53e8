//! What these tests talk with beside `support`: people with keys and tokens, and what they ask.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use crate::support::*;

/// The queries of people who have a key; Zoe has Ann's.
pub const ANN: &str = "as=ann&key=the+key+of+ann";
pub const ZOE: &str = "as=zoe&key=the+key+of+ann";
pub const BOB: &str = "as=bob&key=the+key+of+bob";

/// SHA-256 of `foo` and `bar`, which are tokens here.
pub const FOO: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
pub const BAR: &str = "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9";

/// A server with an access file: root is admin, carl may post, and so may everybody.
pub fn with_rules() -> Server {
    let setup = Setup::new();
    let file = setup.dir.join("access");
    let rules = format!("root {FOO} * admin\ncarl {BAR} * read,post\n* - * read,post\n");
    fs::write(&file, rules).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    setup.flags(&["--access", file.to_str().expect("a UTF-8 path")]).start()
}

impl Server {
    /// The answer to `DELETE /messages/1` and so on, with `?` and this query.
    pub fn does(&self, line: &str, query: &str, body: &str) -> Response {
        let line = if query.is_empty() { line.to_owned() } else { format!("{line}?{query}") };
        self.asked(ask_with(&line, &["Content-Type: application/json"], body))
    }

    /// Posts a message; its id.
    #[track_caller]
    pub fn posts(&self, query: &str, body: &str) -> u64 {
        let answer = self.does("POST /messages", query, body);
        assert_eq!(answer.status, 201, "{body}: {answer:?}");
        json(&answer.body)["id"].as_u64().expect("an id")
    }

    /// Does something that is accepted; the id of the operation's line.
    #[track_caller]
    pub fn did(&self, line: &str, query: &str, body: &str) -> u64 {
        let answer = self.does(line, query, body);
        assert_eq!(answer.status, 200, "{line}: {answer:?}");
        json(&answer.body)["id"].as_u64().expect("an id")
    }

    /// Does something that is refused with this status and code.
    #[track_caller]
    pub fn may_not(&self, line: &str, query: &str, body: &str, status: u16, code: &str) -> String {
        let answer = self.does(line, query, body);
        assert_eq!(answer.status, status, "{line} {body}: {answer:?}");
        let error = json(&answer.body);
        assert_eq!((&error["type"], &error["code"]), (&"error".into(), &code.into()), "{line}");
        error["message"].as_str().expect("a sentence").to_owned()
    }

    /// The present state of a message.
    #[track_caller]
    pub fn state(&self, id: u64) -> Value {
        json(&self.gets(&format!("/messages/{id}")))
    }

    /// The ids of the messages that are pinned.
    #[track_caller]
    pub fn pinned(&self) -> Vec<u64> {
        let lines = self.gets("/messages?pinned=1");
        lines.lines().map(|line| json(line)["id"].as_u64().expect("an id")).collect()
    }

    /// The line of the file that has this id.
    pub fn line(&self, id: u64) -> String {
        self.lines()[id as usize - 1].clone()
    }
}
