//! Who is here and who types: told to those who ask, and to nobody else.

use std::{thread, time::Instant};

use serde_json::{Value, json as object};

use crate::{house::*, support::*};

/// A client with `events=1`, after its history.
fn listener(server: &Server, query: &str) -> Raw {
    let mut raw = server.raw();
    raw.send(server.head(&format!("/ws?events=1&limit=0&{query}"), &[]));
    assert_eq!(raw.response().status, 101);
    History::parse(&raw.text());
    raw
}

fn next(raw: &mut Raw) -> Value {
    json(&raw.text())
}

/// Hears until presence counts `count` connections; other frames are handed to `other`.
fn is_told(raw: &mut Raw, count: usize, mut other: impl FnMut(&Value)) -> Value {
    loop {
        let frame = next(raw);
        if frame["type"] == "presence" && frame["count"] == count {
            return frame;
        }
        other(&frame);
    }
}

#[test]
fn who_asks_is_told_who_is_here_and_who_types_and_nobody_else_is() {
    let server = Server::start();
    let mut plain = server.join_at(&format!("/ws?{BOB}"));
    let mut ann = listener(&server, ANN);
    let told = is_told(&mut ann, 2, |_| ());
    let names: Vec<&str> = told["names"]
        .as_array()
        .expect("names")
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert!(names[0].starts_with("bob~") && names[1].starts_with("ann~"), "{told}");
    // Somebody types; they hear nothing of it themselves, and it goes on once in three seconds.
    let mut carl = listener(&server, "as=carl&key=the+key+of+carl");
    is_told(&mut ann, 3, |_| ());
    is_told(&mut carl, 3, |_| ());
    let begun = Instant::now();
    for _ in 0..5 {
        plain.say(r#"{"$op":"typing"}"#);
        plain.says(r#"{"said":1}"#);
    }
    let mut frames = Vec::new();
    for raw in [&mut ann, &mut carl] {
        let mut types = Vec::new();
        while types.iter().filter(|kind| *kind == "new_message").count() < 5 {
            let frame = next(raw);
            if frame["type"] == "typing" {
                assert_eq!(frame.as_object().expect("an object").len(), 2, "{frame}");
                assert!(frame["from"].as_str().unwrap().starts_with("bob~"), "{frame}");
            }
            types.push(frame["type"].as_str().expect("a type").to_owned());
        }
        frames.push(types.iter().filter(|kind| *kind == "typing").count());
    }
    // There may be one more for each 3 s that all this took.
    let most = 1 + begun.elapsed().as_secs() as usize / 3;
    assert!(frames.iter().all(|frames| (1..=most).contains(frames)), "{frames:?}, not {most}");
    // The others never see a type that they do not know, and nothing of it is stored.
    plain.says(r#"{"said":2}"#);
    assert_eq!(server.lines().len(), 6);
    // Presence tells of who left.
    drop(carl);
    let told = is_told(&mut ann, 2, |_| ());
    assert_eq!(told["names"].as_array().map(Vec::len), Some(2));
    assert_eq!(object!(told["type"]), "presence");
    server.asks("GET /messages", &[]);
}

#[test]
fn a_crowd_that_joins_costs_each_listener_one_frame_a_second() {
    const CROWD: u64 = 1_000;
    const THREADS: u64 = 4;
    // This many descriptors are for the other tests of this process.
    const BESIDE: u64 = 500;
    let server = Server::start();
    let mut listeners: Vec<Raw> = (0..5).map(|_| listener(&server, ANN)).collect();
    for raw in &mut listeners {
        is_told(raw, 5, |_| ());
    }
    // Each of them takes a descriptor here and one of the server, which raises its limit itself.
    let room = rlimit::increase_nofile_limit(CROWD + BESIDE).expect("a limit that can be read");
    let each = room.min(CROWD + BESIDE).saturating_sub(BESIDE) / THREADS;
    let begun = Instant::now();
    let crowd: Vec<Client> = thread::scope(|scope| {
        // A machine that has room for fewer refuses the others.
        let join = || (0..each).map_while(|_| server.try_join().ok()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(join)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("they join")).collect()
    });
    assert!(crowd.len() > 100, "{} are no crowd", crowd.len());
    for raw in &mut listeners {
        let mut frames = 0;
        let told = is_told(raw, 5 + crowd.len(), |frame| {
            assert_eq!(frame["type"], "presence");
            frames += 1;
        });
        assert_eq!(told["names"].as_array().map(Vec::len), Some(1), "the others are nobody");
        let seconds = begun.elapsed().as_secs();
        assert!(frames <= seconds + 1, "{frames} frames in {seconds} s");
    }
    drop(crowd);
}

#[test]
fn a_client_that_is_behind_is_told_the_latest_presence_when_it_has_caught_up() {
    let server = Server::with(&NO_STALL);
    let mut speaker = server.join_at(&format!("/ws?limit=0&{BOB}"));
    let mut slow = server.raw_narrow();
    slow.send(server.head(&format!("/ws?events=1&limit=0&{ANN}"), &[]));
    assert_eq!(slow.response().status, 101);
    History::parse(&slow.text());
    is_told(&mut slow, 2, |_| ());
    let long = format!("[\"{}\"]", "x".repeat(100_000));
    for _ in 0..100 {
        speaker.says(&format!(r#"{{"long":{long}}}"#));
    }
    // It is behind now, and misses who types meanwhile.
    let mut last = Vec::new();
    for _ in 0..3 {
        speaker.say(r#"{"$op":"typing"}"#);
        last.push(server.join());
    }
    speaker.says(r#"{"the":"end"}"#);
    let mut messages = 0;
    is_told(&mut slow, 5, |frame| match frame["type"].as_str() {
        Some("new_message") => messages += 1,
        Some("presence") => {}
        other => panic!("{other:?}"),
    });
    while messages < 101 {
        messages += usize::from(next(&mut slow)["type"] == "new_message");
    }
}
