//! A message with many reactions, each of another pseudonym.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;

use crate::{house::*, support::*};

/// So many that no part of the server has all of them at a time.
const MANY: usize = 2_500;

/// Has many pseudonyms react to a message, under keys and after times of all kinds.
fn many_react(server: &Server, id: u64) {
    let mut client = server.raw();
    for number in 0..MANY {
        let key = ["%F0%9F%91%8D", "ok", "a%22b"][number % 3];
        let who = format!("as=p&key=secret-{number:05}");
        let path = format!("/messages/{id}/reactions/{key}?{who}");
        assert_eq!(client.asks(ask(&format!("PUT {path}"), &[])).status, 200, "{path}");
        if number % 10 == 7 {
            assert_eq!(client.asks(ask(&format!("DELETE {path}"), &[])).status, 200, "{path}");
        }
        if number % 1_000 == 500 {
            // What others say stands between.
            let said = (0..number * 3).fold(String::new(), |mut said, number| {
                writeln!(said, "{number}").expect("a string takes everything");
                said
            });
            let kind = "Content-Type: application/x-ndjson";
            assert_eq!(client.asks(ask_with("POST /messages", &[kind], &said)).status, 201);
        }
    }
}

/// The senders of reactions to a message by key, each in the order of the file, as the log tells.
fn reactions_in_log(server: &Server, id: u64) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in server.gets("/messages").lines() {
        let line = json(line);
        let operation = &line["data"];
        if operation["id"] != id {
            continue;
        }
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let senders = all.entry(text(&operation["key"])).or_default();
        match text(&operation["$op"]).as_str() {
            "react" => senders.push(text(&line["from"])),
            _ => senders.retain(|sender| line["from"] != **sender),
        }
    }
    all
}

#[test]
fn a_message_names_all_who_reacted_in_their_order_however_many() {
    let server = Server::start();
    let (first, second) = (server.posts(ANN, "1"), server.posts(ANN, "2"));
    server.did(&format!("PUT /messages/{second}/reactions/ok"), BOB, "");
    many_react(&server, first);
    let expected = reactions_in_log(&server, first);
    let path = format!("/messages/{first}");
    let state = server.gets(&path);
    let told: BTreeMap<String, Vec<String>> =
        serde_json::from_value(json(&state)["reactions"].clone()).expect("senders by key");
    assert_eq!(told.values().map(Vec::len).sum::<usize>(), MANY - MANY / 10);
    assert_eq!(told, expected);
    // The keys are in the order of the file, too.
    let places = ["\"👍\":[", "\"ok\":[", "\"a\\\"b\":["].map(|key| state.find(key));
    assert!(places.is_sorted() && places[0].is_some(), "{places:?}");
    assert_eq!(server.state(second)["reactions"]["ok"].as_array().map(Vec::len), Some(1));
    // Others get the same: those who want the head alone, and those who know no chunks.
    let mut peer = server.raw();
    peer.send(ask(&format!("HEAD {path}"), &[]));
    assert_eq!(peer.head_alone().header("Content-Type"), Some("application/json"));
    assert_eq!(json(&peer.asks(ask("GET /me", &[])).body)["from"], Value::Null, "no body follows");
    let mut old = server.raw();
    old.send(ask(&format!("GET {path} HTTP/1.0"), &[]));
    assert_eq!(old.head_alone().header("Content-Type"), Some("application/json"));
    assert_eq!(String::from_utf8(old.takes(state.len())).expect("UTF-8"), state);
    old.is_over();
    // So does the list of what is pinned.
    for id in [second, first] {
        server.did(&format!("PUT /messages/{id}/pin"), ANN, "");
    }
    let alone = server.gets(&path) + &server.gets(&format!("/messages/{second}"));
    assert_eq!(server.gets("/messages?pinned=1"), alone);
    server.did(&format!("DELETE {path}"), ANN, "");
    server.asks(&format!("GET {path}"), &[]).refuses(410, &["deleted"]);
}
