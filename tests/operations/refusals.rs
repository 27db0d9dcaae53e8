//! Each rule, and each refusal with its code and its status.

use serde_json::json;

use crate::{house::*, support::*};

#[test]
fn nobody_may_do_nothing_and_keeps_its_connection() {
    let server = Server::start();
    let mut nobody = server.join();
    nobody.says("1");
    for text in [
        r#"{"$op":"edit","id":1,"data":2}"#,
        r#"{"$op":"delete","id":1}"#,
        r#"{"\u0024op":"delete","id":1}"#,
        r#"{ "$op":"react","id":1,"key":"a"}"#,
        r#"{"$op":"unreact","id":1,"key":"a"}"#,
        r#"{"$op":"pin","id":1}"#,
        r#"{"$op":"unpin","id":1}"#,
        r#"{"$op":"typing"}"#,
    ] {
        nobody.say(text);
        let answer = nobody.is_told("forbidden");
        assert!(answer.frame.contains("key="), "it says how: {answer:?}");
    }
    // `as=` alone is a claim.
    for query in ["", "as=ann"] {
        server.may_not("DELETE /messages/1", query, "", 403, "forbidden");
        server.may_not("PATCH /messages/1", query, "2", 403, "forbidden");
        server.may_not("PUT /messages/1/pin", query, "", 403, "forbidden");
        server.may_not("PUT /messages/1/reactions/a", query, "", 403, "forbidden");
    }
    assert_eq!(server.lines(), ["1"]);
    nobody.says("2");
}

#[test]
fn only_the_sender_edits_and_deletes_and_admin_pins_where_there_are_rules() {
    let server = Server::start();
    let by_ann = server.posts(ANN, "1");
    let by_nobody = server.posts("", "2");
    for id in [by_ann, by_nobody] {
        let path = format!("/messages/{id}");
        let say = server.may_not(&format!("PATCH {path}"), BOB, "3", 403, "forbidden");
        assert!(say.contains("sender"), "{say}");
        server.may_not(&format!("DELETE {path}"), BOB, "", 403, "forbidden");
        server.did(&format!("PUT {path}/pin"), BOB, "");
        server.did(&format!("PUT {path}/reactions/a"), BOB, "");
    }
    server.may_not("DELETE /messages/2", ANN, "", 403, "forbidden");
    server.did("DELETE /messages/1", ZOE, "");

    let server = with_rules();
    let (root, carl) = ("token=foo", "token=bar");
    let by_ann = server.posts(ANN, "1");
    let by_carl = server.posts(carl, "2");
    for who in [ANN, carl] {
        let say = server.may_not("PUT /messages/1/pin", who, "", 403, "forbidden");
        assert!(say.contains("admin"), "{say}");
        server.may_not("DELETE /messages/1/pin", who, "", 403, "forbidden");
    }
    server.may_not("DELETE /messages/2", ANN, "", 403, "forbidden");
    server.did("PATCH /messages/2", carl, "3");
    server.did("PATCH /messages/2", root, "4");
    assert_eq!(server.state(by_carl)["data"], 4);
    server.did("PUT /messages/1/pin", root, "");
    assert_eq!(server.pinned(), [by_ann]);
    server.did("DELETE /messages/1", root, "");
    server.did("DELETE /messages/2", carl, "");
    assert!(server.pinned().is_empty());
}

#[test]
fn what_is_no_operation_is_refused_at_every_door_and_not_stored() {
    let server = Server::start();
    let mut ann = server.join_at(&format!("/ws?{ANN}"));
    ann.says("{}");
    let long = "k".repeat(1 << 16);
    for (text, words) in [
        (r#"{"$op":"remove","id":1}"#.to_owned(), "no operation remove"),
        (r#"{"$op":"delete"}"#.into(), "needs the key id"),
        (r#"{"$op":"delete","id":1,"id":1}"#.into(), "id stands there twice"),
        (r#"{"\u0024op":"delete","id":1,"user":"ann"}"#.into(), "has the key user"),
        (r#"{"$op":"delete","id":1.0}"#.into(), "whole number"),
        (r#"{"$op":"delete","id":"1"}"#.into(), "whole number"),
        (r#"{"$op":"delete","id":10e-1}"#.into(), "whole number"),
        (r#"{"$op":"react","id":1,"key":""}"#.into(), "1 to 64"),
        (r#"{"$op":"react","id":1,"key":"\n"}"#.into(), "control"),
        (format!(r#"{{"$op":"react","id":1,"key":"{long}"}}"#), "1 to 64"),
        (format!(r#"{{"$op":"delete","id":1,"{long}":1}}"#), "kkk..."),
    ] {
        ann.say(&text);
        let answer = ann.is_told("bad_operation");
        assert!(answer.frame.contains(words), "{words}: {answer:?}");
        assert!(answer.frame.len() < 300, "{answer:?}");
        let sentence = server.may_not("POST /messages", ANN, &text, 400, "bad_operation");
        assert!(sentence.contains(words), "{sentence}");
    }
    server.may_not("POST /messages", ANN, r#"{"$op":"typing"}"#, 400, "bad_operation");
    server.may_not("PUT /messages/1/reactions/", ANN, "", 400, "bad_operation");
    server.may_not("PUT /messages/1/reactions/%0A", ANN, "", 400, "bad_operation");
    server.may_not("PATCH /messages/1", ANN, "{", 400, "not_json");
    server.asks(&format!("PUT /messages/1/reactions/%FF?{ANN}"), &[]).refuses(404, &[]);
    assert_eq!(server.lines(), ["{}"]);
}

#[test]
fn a_whole_number_that_no_message_has_names_none_at_every_door() {
    let server = Server::start();
    let mut ann = server.join_at(&format!("/ws?{ANN}"));
    ann.says("{}");
    for id in ["0", "2", "9007199254740991", "9007199254740992", "18446744073709551616"] {
        let text = format!(r#"{{"$op":"delete","id":{id}}}"#);
        ann.say(&text);
        ann.is_told("no_such_message");
        let said = [
            server.may_not("POST /messages", ANN, &text, 404, "no_such_message"),
            server.may_not(&format!("DELETE /messages/{id}"), ANN, "", 404, "no_such_message"),
            server.may_not(&format!("PUT /messages/{id}/pin"), ANN, "", 404, "no_such_message"),
        ];
        let is_digit = |c: char| c.is_ascii_digit();
        assert!(said.iter().all(|sentence| !sentence.contains(is_digit)), "{said:?}");
    }
    // A line that somebody appends means nothing then, and the server goes on.
    server.dir.append("{\"$op\":\"delete\",\"id\":0}\n");
    ann.hears(r#"{"$op":"delete","id":0}"#);
    ann.says("{}");
    assert_eq!(server.restart().lines()[0], "{}");
}

#[test]
fn a_text_that_begins_like_an_operation_and_is_no_json_is_none() {
    let server = Server::start();
    let mut nobody = server.join();
    let mut ann = server.join_at(&format!("/ws?{ANN}"));
    let texts =
        [r#"{"$op":"typing"} now"#, r#"{"$op":"pin","id":1}}"#, r#"{"$op":"delete","id":1,"#];
    for text in texts {
        nobody.say(text);
        nobody.is_told("not_json");
        // A person who types said these words.
        ann.say(text);
        let said = json!({"user": "ann", "content": text}).to_string();
        assert_eq!(json(&ann.hears_one().data), json(&said));
        nobody.hears_one();
    }
    assert_eq!(server.lines().len(), texts.len());
}

#[test]
fn an_operation_names_a_message_that_is_there() {
    let server = Server::on("1\nno json\n");
    let by_ann = server.posts(ANN, "3");
    let pin = server.did("PUT /messages/1/pin", ANN, "");
    server.did(&format!("DELETE /messages/{by_ann}"), ANN, "");
    for (id, status) in [(2, 404), (by_ann, 410), (pin, 404), (6, 404), (1 << 40, 404)] {
        let code = "no_such_message";
        server.may_not(&format!("PUT /messages/{id}/pin"), ANN, "", status, code);
        server.may_not(&format!("DELETE /messages/{id}"), ANN, "", status, code);
        let mut ann = server.join_at(&format!("/ws?{ANN}"));
        ann.say(&format!(r#"{{"$op":"react","id":{id},"key":"a"}}"#));
        ann.is_told(code);
    }
    assert_eq!(server.lines().len(), 5);
    server.asks("GET /messages/2", &[]).refuses(404, &[]);
    assert_eq!(server.state(pin)["data"]["$op"], "pin", "an operation is a line to read");
}

#[test]
fn a_message_has_twenty_different_reactions_at_the_most() {
    let server = Server::start();
    server.posts("", "1");
    for key in 0..20 {
        server.did(&format!("PUT /messages/1/reactions/{key}"), ANN, "");
    }
    let say = server.may_not("PUT /messages/1/reactions/20", BOB, "", 409, "too_many");
    assert!(say.contains("20"), "{say}");
    server.did("PUT /messages/1/reactions/19", BOB, "");
    server.did("DELETE /messages/1/reactions/0", ANN, "");
    server.did("PUT /messages/1/reactions/20", BOB, "");
    server.may_not("PUT /messages/1/reactions/21", BOB, "", 409, "too_many");
    // Others cannot take a reaction back.
    server.did("DELETE /messages/1/reactions/1", BOB, "");
    let keys = server.state(1)["reactions"].as_object().expect("reactions").len();
    assert_eq!(keys, 20);
    // A start counts the same.
    let server = server.restart();
    server.may_not("PUT /messages/1/reactions/21", BOB, "", 409, "too_many");
}

#[test]
fn many_lines_are_all_accepted_or_none_is() {
    let server = Server::start();
    server.posts(ANN, "1");
    let many = |body: &str| {
        let line = format!("POST /messages?{ANN}");
        server.asked(ask_with(&line, &["Content-Type: application/x-ndjson"], body))
    };
    let react = r#"{"$op":"react","id":1,"key":"a"}"#;
    let answer = many(&format!("\"a\"\n{react}\n{{\"$op\":\"pin\",\"id\":9}}\n"));
    assert_eq!((answer.status, server.lines().len()), (404, 1), "{answer:?}");
    let answer = many(&format!("{react}\n{{\"$op\":\"delete\",\"id\":1}}\n{react}\n"));
    assert_eq!((answer.status, server.lines().len()), (410, 1), "after a delete: {answer:?}");
    assert_eq!(server.state(1).get("reactions"), None);
    let answer = many(&format!("{react}\n\"a\"\n{{\"$op\":\"delete\",\"id\":1}}\n"));
    assert_eq!((answer.status, server.lines().len()), (201, 4), "{answer:?}");
    server.asks("GET /messages/1", &[]).refuses(410, &[]);
}

#[test]
fn an_edit_keeps_to_the_longest_message() {
    let server = Server::with(&["--max-message", "1KiB"]);
    server.posts(ANN, "1");
    let longest = format!("\"{}\"", "x".repeat(1022));
    server.did("PATCH /messages/1", ANN, &longest);
    assert_eq!(server.state(1)["data"].as_str().map(str::len), Some(1022));
    let answer = server.does("PATCH /messages/1", ANN, &format!("{longest} "));
    assert_eq!(answer.status, 413, "{answer:?}");
}

#[test]
fn a_body_of_more_operations_than_one_may_have_is_refused_as_a_whole() {
    let server = Server::start();
    server.posts(ANN, "1");
    let pin = r#"{"$op":"pin","id":1}"#;
    let post = |count: usize| {
        let lines = format!("{pin}\n").repeat(count);
        let line = format!("POST /messages?{ANN}");
        server.asked(ask_with(&line, &["Content-Type: application/x-ndjson"], &lines))
    };
    post(10_001).refuses(413, &["10001 operations", "10000"]);
    assert_eq!(server.lines().len(), 1);
    assert_eq!(post(10_000).status, 201);
    assert_eq!(server.lines().len(), 10_001);
}

#[test]
fn pinned_messages_are_lines_and_go_with_nothing_else() {
    let server = Server::start();
    for query in ["pinned=1&q=a", "pinned=1&follow=1", "pinned=1&after=2", "pinned=x"] {
        server.asks(&format!("GET /messages?{query}"), &[]).refuses(400, &["pinned"]);
    }
    server.asks("GET /messages?pinned=1", &["Accept: application/json"]).refuses(406, &["ndjson"]);
    assert_eq!(server.gets("/messages?pinned=0"), "");
    assert_eq!(server.gets("/messages?pinned=1"), "");
}
