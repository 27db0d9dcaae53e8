//! What a client may ask for when it joins: `after`, `epoch`, `limit`, `as`; and that nothing is
//! missing or doubled between the history and the first live message.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::support::*;

/// Joins at `/ws?QUERY` and checks the window and whether it is a recovery.
#[track_caller]
fn check(server: &Server, query: &str, first_id: u64, last_id: u64, resumed: Option<bool>) {
    let history = server.join_at(&format!("/ws?{query}")).history;
    assert_eq!(
        (history.first_id, history.last_id, history.resumed),
        (first_id, last_id, resumed),
        "first_id, last_id, resumed for ?{query}"
    );
    let lines = server.lines();
    let window = &lines[first_id as usize - 1..last_id as usize];
    assert_eq!(history.said(), window, "the messages for ?{query}");
}

#[test]
fn a_client_can_ask_for_what_came_after() {
    let server = Server::on(SEED);
    check(&server, "after=0", 1, 7, Some(true));
    check(&server, "after=3", 4, 7, Some(true));
    check(&server, "after=6", 7, 7, Some(true));
    check(&server, "after=7", 8, 7, Some(true));
}

#[test]
fn who_asks_for_more_than_there_is_gets_everything() {
    let server = Server::on(SEED);
    check(&server, "after=8", 1, 7, Some(false));
    check(&server, "after=18446744073709551615", 1, 7, Some(false));
    let server = Server::start();
    check(&server, "after=0", 1, 0, Some(true));
    check(&server, "after=1", 1, 0, Some(false));
}

#[test]
fn an_epoch_tells_whether_ids_still_mean_the_same() {
    let server = Server::on(SEED);
    let epoch = server.join().history.epoch;
    check(&server, &format!("after=3&epoch={epoch}"), 4, 7, Some(true));
    check(&server, &format!("epoch={epoch}&after=3"), 4, 7, Some(true));
    check(&server, &format!("after=7&epoch={epoch}"), 8, 7, Some(true));
    check(&server, &format!("after=8&epoch={epoch}"), 1, 7, Some(false));
    check(&server, "after=3&epoch=another", 1, 7, Some(false));
    check(&server, "after=0&epoch=0000000000000000", 1, 7, Some(false));
}

#[test]
fn a_limit_gives_the_last_messages() {
    let server = Server::on(SEED);
    check(&server, "limit=3", 5, 7, None);
    check(&server, "limit=7", 1, 7, None);
    check(&server, "limit=100", 1, 7, None);
    check(&server, "limit=1", 7, 7, None);
    check(&server, "limit=0", 8, 7, None);
    let server = Server::start();
    check(&server, "limit=0", 1, 0, None);
    check(&server, "limit=5", 1, 0, None);
}

#[test]
fn limit_0_is_live_only() {
    let server = Server::on(SEED);
    let mut ann = server.join_at("/ws?limit=0");
    assert_eq!(ann.history.data(), "");
    assert_eq!(ann.says("1").id, 8);
}

#[test]
fn a_recovery_is_never_a_part_of_what_was_missed() {
    let server = Server::on(SEED);
    check(&server, "after=3&limit=4", 4, 7, Some(true));
    check(&server, "after=3&limit=3", 5, 7, Some(false));
    check(&server, "after=0&limit=7", 1, 7, Some(true));
    check(&server, "after=0&limit=6", 2, 7, Some(false));
    check(&server, "after=7&limit=0", 8, 7, Some(true));
    check(&server, "after=6&limit=0", 8, 7, Some(false));
    check(&server, "after=9&limit=2", 6, 7, Some(false));
    check(&server, "after=3&epoch=another&limit=2", 6, 7, Some(false));
}

#[test]
fn the_operators_limit_caps_what_anyone_gets() {
    let server = Setup::new().file(SEED).flags(&["--history-limit", "3"]).start();
    check(&server, "", 5, 7, None);
    check(&server, "limit=2", 6, 7, None);
    check(&server, "limit=5", 5, 7, None);
    check(&server, "limit=0", 8, 7, None);
    check(&server, "after=5", 6, 7, Some(true));
    check(&server, "after=4", 5, 7, Some(true));
    check(&server, "after=3", 5, 7, Some(false));
    check(&server, "after=99", 5, 7, Some(false));
    let mut ann = server.join();
    assert_eq!(ann.says("1").id, 8);
}

#[test]
fn windows_over_holes_name_them() {
    let server = Server::on("1\n\n3\nnope\n5\n");
    let history = |query: &str| server.join_at(&format!("/ws?{query}")).history;
    assert_eq!(history("").messages(), [(1, "1"), (3, "3"), (5, "5")]);
    assert_eq!(history("").skipped, [2, 4]);
    assert_eq!(history("after=1").messages(), [(3, "3"), (5, "5")]);
    assert_eq!(history("after=1").resumed, Some(true));
    assert_eq!(history("after=2").messages(), [(3, "3"), (5, "5")]);
    assert_eq!(history("after=3").messages(), [(5, "5")]);
    assert_eq!(history("after=4").messages(), [(5, "5")]);
    assert!(history("after=4").skipped.is_empty());
    assert_eq!(history("limit=1").messages(), [(5, "5")]);
    assert!(history("limit=1").skipped.is_empty());
    for limit in 0..=6 {
        let history = history(&format!("limit={limit}"));
        let said = history.said();
        assert!(said.len() <= limit, "limit={limit}: {said:?}");
        assert!(["1", "3", "5"].ends_with(&said), "limit={limit}: {said:?}");
        assert_eq!(history.last_id, 5);
    }
}

#[test]
fn a_malformed_value_is_refused_before_the_upgrade() {
    let server = Server::on(SEED);
    #[track_caller]
    fn check(server: &Server, query: &str, name: &str) {
        server.asked(server.head(&format!("/ws?{query}"), &[])).refuses(400, &[name]);
    }
    check(&server, "after=-1", "after");
    check(&server, "after=x", "after");
    check(&server, "after=", "after");
    check(&server, "after=1.5", "after");
    check(&server, "after=0x10", "after");
    check(&server, "after=1%20", "after");
    check(&server, "limit=x", "limit");
    check(&server, "limit=-1", "limit");
    check(&server, "limit=", "limit");
    check(&server, "limit=3&after=seven", "after");
    // What is not UTF-8 is no name, and nothing is put in its place.
    check(&server, "as=%ff", "as= is not UTF-8");
    check(&server, "limit=3&as=ann%C3", "as= is not UTF-8");
    check(&server, "after=3&epoch=%ff", "epoch= is not UTF-8");
}

#[test]
fn unknown_parameters_are_ignored() {
    let server = Server::on(SEED);
    check(&server, "colour=blue", 1, 7, None);
    check(&server, "a&b=&=c&&after=3&limits=x", 4, 7, Some(true));
    check(&server, "", 1, 7, None);
}

#[test]
fn the_epoch_stays_over_restarts_and_while_the_file_grows() {
    for file in ["", SEED] {
        let mut server = Server::on(file);
        let epoch = server.join().history.epoch;
        let mut ann = server.join();
        ann.says("1");
        assert_eq!(server.join().history.epoch, epoch, "after a message");
        server.dir.append("2\n");
        ann.hears("2");
        assert_eq!(server.join().history.epoch, epoch, "after a foreign line");
        drop(ann);
        server = server.restart();
        assert_eq!(server.join().history.epoch, epoch, "after a restart");
        server = server.kill().start();
        assert_eq!(server.join().history.epoch, epoch, "after kill -9");
        let setup = server.stop();
        setup.dir.append("3\n{\"torn\":");
        server = setup.start();
        let history = server.join().history;
        assert_eq!(history.said().last(), Some(&"3"));
        assert_eq!(history.epoch, epoch, "after growing and tearing while nobody served it");
    }
}

#[test]
fn another_file_has_another_epoch() {
    let server = Server::on(SEED);
    let first = server.join().history.epoch;
    let setup = server.stop();
    let other = setup.dir.join("other.txt");
    fs::write(&other, SEED.replace("Goku", "Gohan")).expect("a file");
    fs::rename(other, setup.dir.file()).expect("a rename");
    let server = setup.start();
    let second = server.join().history.epoch;
    assert_ne!(first, second, "replaced while nobody served it");
    check(&server, &format!("after=3&epoch={first}"), 1, 7, Some(false));
    check(&server, &format!("after=3&epoch={second}"), 4, 7, Some(true));

    let setup = server.stop();
    fs::remove_file(setup.dir.file()).expect("a file to remove");
    let server = setup.start();
    let third = server.join().history.epoch;
    assert_ne!(second, third, "removed while nobody served it");
    server.join().says("1");
    check(&server, &format!("after=0&epoch={second}"), 1, 1, Some(false));
    check(&server, &format!("after=0&epoch={third}"), 1, 1, Some(true));
    assert_ne!(Server::start().join().history.epoch, third, "two new files");
}

#[test]
fn a_name_makes_messages_of_typed_lines() {
    let server = Server::start();
    let mut ann = server.join_at("/ws?as=ann");
    #[track_caller]
    fn check(ann: &mut Client, typed: &str, heard: &str) {
        ann.say(typed);
        ann.hears(heard);
    }
    check(&mut ann, "hello", r#"{"user":"ann","content":"hello"}"#);
    check(&mut ann, "hello\n", r#"{"user":"ann","content":"hello"}"#);
    check(&mut ann, "two  words", r#"{"user":"ann","content":"two  words"}"#);
    check(&mut ann, r#"say "hi" \o/"#, r#"{"user":"ann","content":"say \"hi\" \\o/"}"#);
    check(&mut ann, "naïve 😀", r#"{"user":"ann","content":"naïve 😀"}"#);
    check(&mut ann, "a\tb", r#"{"user":"ann","content":"a\tb"}"#);
    check(&mut ann, "42", r#"{"user":"ann","content":"42"}"#);
    check(&mut ann, "[1, 2]", r#"{"user":"ann","content":"[1, 2]"}"#);
    check(&mut ann, "null", r#"{"user":"ann","content":"null"}"#);
    check(&mut ann, r#""quoted""#, r#"{"user":"ann","content":"\"quoted\""}"#);
    check(&mut ann, r#"{"a":1"#, r#"{"user":"ann","content":"{\"a\":1"}"#);
    check(&mut ann, r#"{"a":NaN}"#, r#"{"user":"ann","content":"{\"a\":NaN}"}"#);
    // Objects pass as they are.
    check(&mut ann, r#"{"user":"bob",  "content":1.10}"#, r#"{"user":"bob",  "content":1.10}"#);
    check(&mut ann, " {} ", "{}");
    assert_eq!(server.lines().len(), 14);

    ann.say("two\nlines");
    let message: serde_json::Value =
        serde_json::from_str(&ann.hears_one().data).expect("a message is JSON");
    assert_eq!(message["content"], "two\nlines");
    assert_eq!(server.lines().len(), 15, "one message, one line");
}

#[test]
fn a_name_may_be_any_text() {
    let server = Server::start();
    let mut ann = server.join_at("/ws?as=J%C3%B6rg%20%22X%22%0A%5C&limit=0");
    ann.say("hi");
    ann.hears(r#"{"user":"Jörg \"X\"\n\\","content":"hi"}"#);
    assert_eq!(server.lines().len(), 1);
}

#[test]
fn nothing_is_missing_or_doubled_between_history_and_live_whatever_the_load() {
    const JOINS: usize = 40;
    let server = Setup::new().file(padded_lines(500, 300)).flags(&["--fsync", "never"]).start();
    let epoch = server.join().history.epoch;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = EndsWithMe(&done);
        for who in 0..3 {
            let mut speaker = server.join_at("/ws?limit=0");
            let done = &done;
            scope.spawn(move || {
                for number in 0.. {
                    speaker.says_among_others(&format!(r#"{{"who":{who},"n":{number}}}"#));
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        let joiners = each_apart(scope, 0..4, |_, who| {
            let mut seen: Vec<Heard> = Vec::new();
            for round in 0..JOINS {
                let last = seen.last().map_or(0, |heard| heard.id);
                let path = match (who + round) % 4 {
                    0 => "/ws".into(),
                    1 => "/ws?limit=0".into(),
                    2 => format!("/ws?after={last}"),
                    _ => format!("/ws?after={last}&epoch={epoch}"),
                };
                let mut client = server.join_at(&path);
                let history = &client.history;
                if path.contains("after") {
                    assert_eq!(history.resumed, Some(true));
                    assert_eq!(history.first_id, last + 1);
                }
                let start = history.last_id + 1;
                let past = history.messages().into_iter();
                seen.extend(past.map(|(id, data)| Heard {
                    id,
                    ts: 0,
                    from: None,
                    data: data.into(),
                }));
                for id in start..start + 30 {
                    let heard = client.hears_one();
                    assert_eq!(heard.id, id, "the next message after {path}");
                    seen.push(heard);
                }
            }
            seen
        });
        let seen: Vec<Vec<Heard>> =
            joiners.into_iter().map(|joiner| joiner.join().expect("no gap")).collect();
        let lines = server.lines();
        for heard in seen.iter().flatten() {
            assert_eq!(heard.data, lines[heard.id as usize - 1], "message {}", heard.id);
        }
    });
}
