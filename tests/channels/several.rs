//! Several channels on one stream: `/dev,ops` and `/*`.

use std::fs;

use crate::{house::*, support::*};

#[test]
fn lines_of_several_channels_come_as_they_are_said_each_with_its_channel() {
    let server = with_files(&[("dev.txt", "1\n2\n\"x\"\n"), ("ops.txt", "4\n\"x\"\n")]).start();
    let mut all = server.listens("/dev,ops?follow=1", &[]);
    for (channel, id, data) in [
        ("dev", 1, "1"),
        ("dev", 2, "2"),
        ("dev", 3, "\"x\""),
        ("ops", 1, "4"),
        ("ops", 2, "\"x\""),
    ] {
        all.says(channel, id, data);
    }
    let mut last = server.listens("/ops,dev?follow=1&limit=1", &[]);
    last.says("ops", 2, "\"x\"");
    last.says("dev", 3, "\"x\"");
    let mut after = server.listens("/dev,ops,messages?follow=1&after=1", &[]);
    after.says("dev", 2, "2");
    after.says("dev", 3, "\"x\"");
    after.says("ops", 2, "\"x\"");
    let mut found = server.listens("/dev,ops?follow=1&q=x", &[]);
    found.says("dev", 3, "\"x\"");
    found.says("ops", 2, "\"x\"");
    let mut live = server.listens("/dev,ops?follow=1&limit=0", &[]);
    for (channel, id, data) in [("ops", 3, "\"x3\""), ("dev", 4, "4"), ("ops", 4, "\"x4\"")] {
        assert_eq!(server.stores(channel, data), id);
        for stream in [&mut all, &mut last, &mut after, &mut live] {
            stream.says(channel, id, data);
        }
        if data != "4" {
            found.says(channel, id, data);
        }
    }
    // Without follow=1 it ends, and a limit holds for each.
    let body = server.gets("/dev,ops?limit=1");
    assert_eq!(body.lines().count(), 2);
}

#[test]
fn a_reader_of_events_that_comes_back_misses_nothing_in_any_channel() {
    let server = with_files(&[("dev.txt", "1\n2\n"), ("ops.txt", "1\n")]).start();
    let accept = "Accept: text/event-stream";
    let mut events = server.listens("/dev,ops", &[accept]);
    let mut id = None;
    for (channel, place) in [("dev", "dev:1,ops:0"), ("dev", "dev:2,ops:0"), ("ops", "dev:2,ops:1")]
    {
        let (given, data) = events.event();
        // What is taken in later is named when it is.
        let given = given.expect("an id");
        assert!(place.starts_with(&given), "{given}");
        assert_eq!(data["channel"], channel);
        id = Some(given);
    }
    drop(events);
    server.stores("ops", "2");
    server.stores("dev", "3");
    let back = format!("Last-Event-ID: {}", id.expect("an id"));
    let mut events = server.listens("/dev,ops?limit=0", &[accept, &back]);
    let (_, data) = events.event();
    assert_eq!((&data["channel"], &data["id"]), (&"dev".into(), &3.into()));
    let (id, data) = events.event();
    assert_eq!((&data["channel"], &data["id"]), (&"ops".into(), &2.into()));
    assert_eq!(id.as_deref(), Some("dev:3,ops:2"));
    let wrong = [accept, "Last-Event-ID: 7"];
    server.has("GET /dev,ops", &wrong).refuses(400, &["Last-Event-ID"]);
}

#[test]
fn a_star_is_all_channels_those_that_come_later_too() {
    let server = with_files(&[("dev.txt", "1\n")]).file("\"m\"\n").start();
    let mut all = server.listens("/*?follow=1", &[]);
    all.says("dev", 1, "1");
    all.says("messages", 1, "\"m\"");
    server.puts("new");
    server.stores("new", "2");
    all.says("new", 1, "2");
    append(&server.file_of("put"), "3\n4\n");
    all.says("put", 1, "3");
    all.says("put", 2, "4");
    server.stores("messages", "5");
    all.says("messages", 2, "5");
}

#[test]
fn a_channel_that_ends_leaves_the_others_and_comes_back_when_it_is_there_again() {
    let server = with_files(&[("dev.txt", "1\n"), ("ops.txt", "")]).start();
    let mut both = server.listens("/dev,ops?follow=1", &[]);
    both.says("dev", 1, "1");
    fs::remove_file(server.file_of("dev")).expect("a file");
    until("it is gone", || server.has("GET /dev", &[]).status == 404);
    server.stores("ops", "2");
    both.says("ops", 1, "2");
    append(&server.file_of("dev"), "\"other\"\n");
    both.says("dev", 1, "\"other\"");
    server.stores("ops", "3");
    both.says("ops", 2, "3");
}

#[test]
fn a_star_follows_a_new_channel_however_many_came_and_went_before() {
    let names: Vec<String> = (1..64).map(|number| format!("c{number:02}")).collect();
    let files: Vec<String> = names.iter().map(|name| format!("{name}.txt")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|file| (&**file, "")).collect();
    // With the default channel, these are as many as one stream may have.
    let server = with_files(&files).start();
    let mut all = server.listens("/*", &["Accept: text/event-stream"]);
    for name in &names {
        fs::remove_file(server.file_of(name)).expect("a file");
    }
    until("they are gone", || server.names() == ["messages"]);
    server.puts("new");
    server.stores("new", "1");
    let (id, data) = all.event();
    assert_eq!((&data["channel"], &data["data"]), (&"new".into(), &1.into()));
    assert_eq!(id.as_deref(), Some("messages:0,new:1"), "nothing is said of those that are gone");
}

#[test]
fn what_cannot_be_on_one_stream_has_a_sentence() {
    let names: Vec<String> = (0..65).map(|number| format!("c{number:02}")).collect();
    let files: Vec<(String, &str)> =
        names.iter().map(|name| (format!("{name}.txt"), "1\n")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, *text)).collect();
    let server = with_files(&files).start();
    server.has(&format!("GET /{}?follow=1", names.join(",")), &[]).refuses(400, &["65", "64"]);
    server.has("GET /*?follow=1", &[]).refuses(400, &["66", "64", "/channels"]);
    let most = names[..64].join(",");
    assert_eq!(server.gets(&format!("/{most}")).lines().count(), 64);
    // The same one twice is one.
    assert_eq!(server.gets("/c00,c00").lines().count(), 1);
    server.has("GET /c00,nothing?follow=1", &[]).refuses(404, &["nothing", "PUT"]);
    let json = ["Accept: application/json"];
    server.has("GET /c00,c01", &json).refuses(406, &["application/x-ndjson"]);
    server.has("GET /c00,c01?follow=1&before=2", &[]).refuses(400, &["before="]);
    server.has("GET /c00,c01?after=x", &[]).refuses(400, &["after="]);
    server.has("GET /c00,c01?epoch=x&after=1", &[]).refuses(400, &["epoch="]);
    server.has("POST /c00,c01", &["Content-Length: 0"]).refuses(405, &["/c00,c01"]);
}
