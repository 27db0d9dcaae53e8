//! `/channels`: which channels there are and how far each is, once and as a stream.

use std::{
    collections::{BTreeMap, HashMap},
    thread,
    time::Instant,
};

use serde_json::{Value, json as object};

use crate::{house::*, support::*};

#[test]
fn the_list_says_of_each_channel_how_far_it_is() {
    let server = with_files(&[("ops.txt", "1\n\n3\n")]).file(SEED).start();
    server.puts("dev");
    let epoch = |path| server.join_at(path).history.epoch;
    let before = now_ms();
    server.stores("dev", "1");
    let list = server.channels();
    let ts = list[0]["ts"].as_u64().expect("a time");
    assert!((before..=now_ms()).contains(&ts));
    let may = ["read", "post"];
    let expected = [
        object!({"channel": "dev", "last_id": 1, "messages": 1, "epoch": epoch("/dev/ws"), "ts": ts,
                 "may": may}),
        object!({"channel": "messages", "last_id": 7, "messages": 7, "epoch": epoch("/ws"),
                 "may": may}),
        object!({"channel": "ops", "last_id": 3, "messages": 2, "epoch": epoch("/ops/ws"),
                 "may": may}),
    ];
    assert_eq!(list, expected);
    let text = server.gets("/channels");
    assert!(text.starts_with(r#"{"channel":"dev","last_id":1,"messages":1,"epoch":""#), "{text}");
    assert!(text.ends_with("\"may\":[\"read\",\"post\"]}\n"), "{text}");
    let answer = server.has("GET /channels", &["Accept: application/json"]);
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(json(&answer.body), object!({"channels": expected}));
    let answer = server.has("GET /channels", &["Accept: text/plain"]);
    assert_eq!(answer.header("Content-Type"), Some("application/x-ndjson"));
    server.has("GET /channels?follow=2", &[]).refuses(400, &["follow="]);
    let json_stream = ["Accept: application/json"];
    server.has("GET /channels?follow=1", &json_stream).refuses(400, &["follow=1"]);
    server.has("GET /channels", &["Accept: image/png"]).refuses(406, &[]);
    server.has("POST /channels", &["Content-Length: 0"]).refuses(405, &["/channels"]);
}

#[test]
fn a_follower_of_the_list_hears_what_is_more_new_and_gone() {
    let server = with_files(&[("ops.txt", "1\n")]).start();
    let mut lines = server.listens("/channels?follow=1", &[]);
    let mut events = server.listens("/channels", &["Accept: text/event-stream"]);
    for expected in ["messages", "ops"] {
        let line = lines.json();
        assert_eq!((&line["channel"], line.get("new")), (&expected.into(), None), "{line}");
        assert_eq!(events.event().1, line);
    }
    let mut hears = |channel: &str, key: &str, value: Value| {
        let line = lines.json();
        assert_eq!((&line["channel"], &line[key]), (&channel.into(), &value), "{line}");
        assert_eq!(events.event().1, line);
    };
    server.puts("dev");
    hears("dev", "new", true.into());
    server.stores("dev", "1");
    hears("dev", "last_id", 1.into());
    append(&server.file_of("ops"), "2\n3\n");
    hears("ops", "last_id", 3.into());
    server.stores("messages", "1");
    hears("messages", "messages", 1.into());
    std::fs::remove_file(server.file_of("ops")).expect("a file");
    hears("ops", "removed", true.into());
    append(&server.file_of("ops"), "");
    hears("ops", "new", true.into());
    // A client that comes and goes is no news.
    server.join_at("/dev/ws").leave();
    server.stores("dev", "2");
    hears("dev", "last_id", 2.into());
}

#[test]
fn streams_of_several_channels_end_with_the_server() {
    // The server gives its clients five seconds at a stop.
    in_one_of_a_few_attempts(|| {
        let server = with_files(&[("dev.txt", "1\n")]).start();
        let events = ["Accept: text/event-stream"];
        let mut streams = [
            server.listens("/channels?follow=1", &[]),
            server.listens("/channels", &events),
            server.listens("/dev,messages?follow=1", &[]),
            server.listens("/dev,messages", &events),
        ];
        drop(server.stop());
        streams.iter_mut().for_each(|stream| while stream.line().is_some() {});
    });
}

#[test]
fn a_quiet_list_of_events_shows_that_it_is_alive() {
    let server = Server::with(&["--ping-interval", "100ms"]);
    let mut events = server.listens("/channels", &["Accept: text/event-stream"]);
    events.event();
    assert_eq!(events.line().as_deref(), Some(":"));
    assert_eq!(events.line().as_deref(), Some(""));
}

#[test]
fn a_follower_under_a_storm_in_a_hundred_channels_ends_with_the_true_last_ids() {
    const CHANNELS: usize = 100;
    const ROUNDS: usize = 20;
    const LAST: &str = "zz";
    let names: Vec<String> = (0..CHANNELS).map(|number| format!("c{number:02}")).collect();
    let files: Vec<(String, &str)> = names.iter().map(|name| (format!("{name}.txt"), "")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, *text)).collect();
    let setup = with_files(&files).flags(&["--fsync", "never"]);
    let server = setup.start();
    let begun = Instant::now();
    let mut stream = server.listens("/channels?follow=1", &[]);
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    thread::scope(|scope| {
        let server = &server;
        let post = |part: &[String]| {
            let part = part.to_vec();
            scope.spawn(move || {
                let mut dice = Dice::new();
                let mut raw = server.raw();
                for _ in 0..ROUNDS * part.len() {
                    let name = &part[dice.below(part.len() as u64) as usize];
                    let kind = "Content-Type: application/x-ndjson";
                    let body = "1\n".repeat(1 + dice.below(5) as usize);
                    raw.send(ask_with(&format!("POST /{name}"), &[kind], &body));
                    assert_eq!(raw.whole().status, 201);
                }
            })
        };
        let posting: Vec<_> = names.chunks(CHANNELS / 4).map(post).collect();
        // When all is said, a last channel is made: the list tells of it after all others.
        scope.spawn(|| {
            posting.into_iter().for_each(|thread| thread.join().expect("all is said"));
            server.puts(LAST);
        });
        while !last.contains_key(LAST) {
            let line = stream.json();
            let (name, id) = name_and_last_id(&line);
            *counts.entry(name.clone()).or_default() += 1;
            let before = last.insert(name, id);
            assert!(before.is_none_or(|before| before <= id), "it went back: {line}");
        }
    });
    let truth: BTreeMap<_, _> = server.channels().iter().map(name_and_last_id).collect();
    assert_eq!(last, truth);
    // Four a second and channel at the most, and the first list.
    let quarters = (begun.elapsed().as_millis() / 250) as usize;
    for (name, count) in counts {
        assert!(count <= quarters + 2, "{name}: {count} lines in {quarters} quarters of a second");
    }
}

/// A channel of the list, and how far it is.
fn name_and_last_id(line: &Value) -> (String, u64) {
    let name = line["channel"].as_str().expect("a name");
    (name.to_owned(), line["last_id"].as_u64().expect("an id"))
}

impl Server {
    /// One number of `/metrics`.
    fn metric_of(&self, name: &str) -> f64 {
        let text = self.gets("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    }
}

#[test]
fn what_is_counted_is_the_sum_over_all_channels() {
    let server = with_files(&[("ops.txt", "1\n2\n")]).file(SEED).start();
    assert_eq!(server.metric_of("txtcord_channels"), 2.0);
    assert_eq!(server.metric_of("txtcord_file_messages"), 9.0);
    assert_eq!(server.metric_of("txtcord_file_bytes"), SEED.len() as f64 + 4.0);
    server.puts("dev");
    let clients = ["/ws", "/dev/ws", "/dev/ws", "/ops/ws"].map(|path| server.join_at(path));
    assert_eq!(server.metric_of("txtcord_clients"), 4.0);
    server.stores("dev", "1");
    server.stores("ops", "3");
    assert_eq!(server.metric_of("txtcord_channels"), 3.0);
    assert_eq!(server.metric_of("txtcord_messages_total"), 2.0);
    assert_eq!(server.metric_of("txtcord_file_messages"), 11.0);
    drop(clients);
    until("all have left", || server.metric_of("txtcord_clients") == 0.0);
    let text = server.gets("/metrics");
    assert!(!text.contains("dev"), "names are made by strangers:\n{text}");
}
