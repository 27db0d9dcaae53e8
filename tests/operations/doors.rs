//! Every operation at every door: the socket, `POST`, and its own path.

use serde_json::json as object;

use crate::{house::*, support::*};

#[test]
fn an_operation_is_a_line_with_an_id_whichever_door_it_came_through() {
    let server = Server::start();
    let mut ann = server.join_at(&format!("/ws?{ANN}"));
    let mut listener = server.join();
    let text = r#"{"user":"ann","content":"one"}"#;
    ann.says(text);
    listener.hears(text);
    let edit = r#"{"$op":"edit","id":1,"data":{"user":"ann","content":"two"}}"#;
    let heard = ann.says(edit);
    assert_eq!((heard.id, heard.from.as_deref().map(|from| &from[..4])), (2, Some("ann~")));
    listener.hears(edit);
    let react = r#"{"$op":"react","id":1,"key":"👍"}"#;
    assert_eq!(server.posts(BOB, react), 3);
    listener.hears(react);
    assert_eq!(server.did("PUT /messages/1/reactions/%F0%9F%91%8D", ANN, ""), 4);
    listener.hears(react);
    assert_eq!(server.did("PUT /messages/1/pin", BOB, ""), 5);
    listener.hears(r#"{"$op":"pin","id":1}"#);
    let state = server.state(1);
    assert_eq!(state["data"], object!({"user": "ann", "content": "two"}));
    let names: Vec<_> = state["reactions"]["👍"].as_array().expect("senders").iter().collect();
    assert!(names[0].as_str().unwrap().starts_with("bob~"), "{state}");
    assert!(names[1].as_str().unwrap().starts_with("ann~"), "{state}");
    assert_eq!((&state["pinned"], &state["id"]), (&object!(true), &object!(1)));
    let said = server.gets("/messages");
    let ts = json(said.lines().nth(1).expect("the edit"))["ts"].clone();
    assert_eq!(state["edited"], ts);
    assert_eq!(server.pinned(), [1]);
    assert_eq!(json(&server.gets("/messages?pinned=1")), state);
    assert_eq!(server.did("DELETE /messages/1/reactions/%F0%9F%91%8D", BOB, ""), 6);
    listener.hears(r#"{"$op":"unreact","id":1,"key":"👍"}"#);
    assert_eq!(server.did("DELETE /messages/1/pin", BOB, ""), 7);
    listener.hears(r#"{"$op":"unpin","id":1}"#);
    assert_eq!(server.did("PATCH /messages/1", ZOE, r#" {"n": 1.10} "#), 8);
    listener.hears(r#"{"$op":"edit","id":1,"data":{"n": 1.10}}"#);
    let state = server.gets("/messages/1");
    assert!(state.contains(r#""data":{"n": 1.10},"edited":"#), "verbatim: {state}");
    assert!(!state.contains("pinned") && state.contains("reactions"), "{state}");
    assert!(server.pinned().is_empty());
    assert_eq!(server.did("DELETE /messages/1", ANN, ""), 9);
    listener.hears(r#"{"$op":"delete","id":1}"#);
    server.asks("GET /messages/1", &[]).refuses(410, &["deleted"]);
    assert!(server.line(1).starts_with("null "));
    assert_eq!(server.line(9), r#"{"$op":"delete","id":1}"#);
    // The history stays the log, without what was erased: the message and both edits.
    let history = server.join().history;
    assert_eq!(history.skipped, [1, 2, 8]);
    assert_eq!(history.by_id()[&3], react);
    // The channel has these doors, too, and a start changes nothing of all this.
    let before = server.dir.read();
    let server = server.restart();
    server.asks("GET /messages/1", &[]).refuses(410, &["deleted"]);
    assert_eq!(server.dir.read(), before);
    assert_eq!(server.join().history.skipped, [1, 2, 8]);
    assert_eq!(server.does("PUT /dev", "", "").status, 201);
    assert_eq!(server.does("POST /dev", ANN, "1").status, 201);
    assert_eq!(server.does("PATCH /dev/1", ANN, "2").status, 200);
    assert_eq!(json(&server.gets("/dev/1"))["data"], 2);
}

#[test]
fn words_can_be_the_new_data_and_a_key_makes_an_operation_count_once() {
    let server = Server::start();
    let id = server.posts(ANN, "1");
    let line = format!("PATCH /messages/{id}?{ANN}");
    let fields = ["Content-Type: text/plain", "Idempotency-Key: k"];
    for _ in 0..2 {
        let answer = server.asked(ask_with(&line, &fields, "what I \"meant\""));
        assert_eq!((answer.status, &*answer.body), (200, "{\"id\":2}\n"));
    }
    let data = object!({"user": "ann", "content": "what I \"meant\""});
    assert_eq!(server.state(id)["data"], data);
    let fields = ["Content-Type: application/x-ndjson"];
    server.asked(ask_with(&line, &fields, "1\n2\n")).refuses(415, &["text/plain"]);
    assert_eq!(server.lines().len(), 2);
}

#[test]
fn an_operation_by_hand_is_the_operators_word() {
    let server = Server::start();
    let mut listener = server.join();
    let id = server.posts(ANN, r#""said""#);
    listener.hears_one();
    server.dir.append("{\"$op\":\"edit\",\"id\":1,\"data\":\"corrected\"}\n");
    listener.hears_one();
    assert_eq!(server.state(id)["data"], "corrected");
    server.dir.append("{\"$op\":\"pin\",\"id\":1}\n{\"$op\":\"delete\",\"id\":77}\n");
    listener.hears_one();
    listener.hears_one();
    assert_eq!(server.pinned(), [1]);
    server.dir.append("{\"$op\":\"delete\",\"id\":1}\n");
    listener.hears_one();
    assert!(!String::from_utf8(server.dir.read()).unwrap().contains("corrected"));
    server.asks("GET /messages/1", &[]).refuses(410, &[]);
    assert!(server.log().contains("means nothing"), "{}", server.log());
}

#[test]
fn a_plain_message_costs_nothing_and_a_message_that_only_looks_like_one_is_said() {
    let server = Server::start();
    let mut nobody = server.join();
    for text in [
        r#"{"user":"ann","$op":"delete","id":1}"#,
        r#"{"data":{"$op":"delete","id":1}}"#,
        r#"[{"$op":"delete","id":1}]"#,
        r#"{"$OP":"delete","id":1}"#,
        r#"{"$op ":1}"#,
        r#"{"\\u0024op":1}"#,
        "null",
    ] {
        nobody.says(text);
    }
    assert_eq!(server.state(1)["data"], object!({"user": "ann", "$op": "delete", "id": 1}));
}
