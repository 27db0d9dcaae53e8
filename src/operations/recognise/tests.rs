use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{message, testing::tries};

/// What becomes of a text that a client sends.
#[derive(Debug, PartialEq)]
enum Taken {
    NotJson,
    Message,
    Done(Recognised),
    Bad(String),
}

fn take(text: &str) -> Taken {
    let mut line = Vec::new();
    if message::push_line(text, &mut line).is_err() {
        return Taken::NotJson;
    }
    let message = message::on_line(&line[..line.len() - 1]).expect("it was pushed");
    if !is_operation(message) {
        return Taken::Message;
    }
    match recognise(message) {
        Ok(recognised) => Taken::Done(recognised),
        Err(why) => Taken::Bad(why.to_string()),
    }
}

fn does(target: u64, action: Action) -> Taken {
    Taken::Done(Recognised::Operation(Operation { target, action }))
}

#[test]
fn each_operation_is_recognised_however_it_is_spelled() {
    #[track_caller]
    fn check(text: &str, expected: &Taken) {
        assert_eq!(take(text), *expected, "{text}");
    }
    check(r#"{"$op":"typing"}"#, &Taken::Done(Recognised::Typing));
    check(r#"{"$op":"edit","id":42,"data":{"user":"ann"}}"#, &does(42, Action::Edit));
    check(r#"{"$op":"edit","id":42,"data":null}"#, &does(42, Action::Edit));
    check(r#"{"$op":"pin","id":9007199254740990}"#, &does(NO_ID - 1, Action::Pin));
    check(r#"{"$op":"unpin","id":1}"#, &does(1, Action::Unpin));
    let react = does(42, Action::React("👍".into()));
    check(r#"{"$op":"react","id":42,"key":"👍"}"#, &react);
    check(r#"{"$op":"react","id":42,"key":"\ud83d\udc4d"}"#, &react);
    check(r#"{"key":"👍"}"#, &Taken::Message);
    check(r#"{"$op":"unreact","key":"a b","id":42}"#, &does(42, Action::Unreact("a b".into())));
    let longest = "k".repeat(KEY_BYTES);
    let text = format!(r#"{{"$op":"react","id":42,"key":"{longest}"}}"#);
    check(&text, &does(42, Action::React(longest.into())));
    let delete = does(42, Action::Delete);
    for text in [
        r#"{"$op":"delete","id":42}"#,
        r#" {"$op":"delete","id":42} "#,
        "{ \t\r\n\"$op\"\r\n:\t\"delete\" , \"id\" : 42 }",
        r#"{"\u0024op":"delete","id":42}"#,
        r#"{"$\u006fp":"delete","id":42}"#,
        r#"{"$o\u0070":"delete","id":42}"#,
        r#"{"\u0024\u006F\u0070":"delete","id":42}"#,
        r#"{"$op":"\u0064elete","id":42}"#,
        r#"{"$op":"delete","\u0069d":42}"#,
    ] {
        check(text, &delete);
    }
}

#[test]
fn a_whole_number_that_no_message_has_is_the_id_of_none() {
    for id in ["0", "9007199254740991", "9007199254740992", "18446744073709551658"] {
        let text = format!(r#"{{"$op":"delete","id":{id}}}"#);
        assert_eq!(take(&text), does(NO_ID, Action::Delete), "{id}");
    }
    let text = format!(r#"{{"$op":"delete","id":{}}}"#, "9".repeat(1000));
    assert_eq!(take(&text), does(NO_ID, Action::Delete));
}

#[test]
fn a_message_is_not_taken_for_an_operation() {
    #[track_caller]
    fn check(text: &str) {
        assert_eq!(take(text), Taken::Message, "{text}");
    }
    check(r#"{"user":"ann","$op":"delete","id":42}"#);
    check(r#"{"id":42,"$op":"delete"}"#);
    check(r#"{"data":{"$op":"delete","id":42}}"#);
    check(r#"[{"$op":"delete","id":42}]"#);
    check(r#""$op""#);
    check(r#""{\"$op\":\"delete\",\"id\":42}""#);
    check("{}");
    check("[]");
    check("42");
    check("null");
    check(r#"{"":1}"#);
    check(r#"{"$":1}"#);
    check(r#"{"$o":1}"#);
    check(r#"{"$ops":1}"#);
    check(r#"{"$op ":1}"#);
    check(r#"{" $op":1}"#);
    check(r#"{"$OP":"delete","id":42}"#);
    check(r#"{"$\u004fp":"delete","id":42}"#);
    check(r#"{"\\u0024op":"delete","id":42}"#);
    check(r#"{"\u0024op\u0000":"delete","id":42}"#);
    check(r#"{"$op\u0000":"delete","id":42}"#);
    check(r#"{"\ud800$op":1}"#);
    check("{\"\u{feff}$op\":\"delete\",\"id\":42}");
    check("{\"＄op\":\"delete\",\"id\":42}");
    check(r#"{"\uff04op":"delete","id":42}"#);
    check(r#"{"\u0124op":"delete","id":42}"#);
    check(&format!(r#"{{"$op{}":1}}"#, "p".repeat(1 << 20)));
    check(&format!(r#"{{"{}":1,"$op":"delete","id":42}}"#, "k".repeat(1 << 20)));
}

#[test]
fn what_is_no_json_is_no_operation() {
    #[track_caller]
    fn check(text: &str) {
        assert_eq!(take(text), Taken::NotJson, "{text}");
    }
    check("\u{feff}{\"$op\":\"delete\",\"id\":42}");
    check("\u{a0}{\"$op\":\"delete\",\"id\":42}");
    check(r#"{'$op':"delete","id":42}"#);
    check(r#"{$op:"delete","id":42}"#);
    check(r#"{"\x24op":"delete","id":42}"#);
    check(r#"{"\u24op":"delete","id":42}"#);
    check(r#"{"$op":"delete","id":042}"#);
    check(r#"{"$op":"delete","id":+42}"#);
    check(r#"{"$op":"delete","id":0x2a}"#);
    check(r#"{"$op":"delete","id":42}{"$op":"delete","id":43}"#);
    check("{\"$op\"\u{b}:\"delete\",\"id\":42}");
}

#[test]
fn an_object_that_looks_like_an_operation_and_is_none_is_refused_with_the_reason() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(take(text), Taken::Bad(expected.to_owned()), "{text}");
    }
    check(r#"{"$op":"remove","id":42}"#, "there is no operation remove");
    check(r#"{"$op":"Delete","id":42}"#, "there is no operation Delete");
    check(r#"{"$op":"","id":42}"#, "there is no operation ");
    check(r#"{"$op":"delete ","id":42}"#, "there is no operation delete ");
    check(r#"{"$op":"delete\u0000","id":42}"#, r"there is no operation delete\0");
    check(r#"{"$op":null}"#, "$op is a string, not null");
    check(r#"{"$op":["delete"],"id":42}"#, r#"$op is a string, not [\"delete\"]"#);
    check(r#"{"$op":"\ud800"}"#, "$op: unexpected end of hex escape at line 1 column 8");
    check(r#"{"$op":"delete"}"#, "delete needs the key id");
    check(r#"{"$op":"edit","id":42}"#, "edit needs the key data");
    check(r#"{"$op":"edit","data":1}"#, "edit needs the key id");
    check(r#"{"$op":"react","id":42}"#, "react needs the key key");
    check(r#"{"$op":"typing","id":42}"#, "typing has no key id");
    check(r#"{"$op":"delete","id":42,"key":"a"}"#, "delete has no key key");
    check(r#"{"$op":"delete","id":42,"data":1}"#, "delete has no key data");
    check(r#"{"$op":"delete","id":42,"user":"ann"}"#, "no operation has the key user");
    check(r#"{"$op":"delete","Id":42}"#, "no operation has the key Id");
    check(r#"{"$op":"delete","id":42,"id":42}"#, "the key id stands there twice");
    check(r#"{"$op":"delete","id":41,"\u0069d":42}"#, "the key id stands there twice");
    check(r#"{"$op":"delete","$op":"pin","id":42}"#, "the key $op stands there twice");
    check(r#"{"$op":"pin","id":42,"\u0024op":"delete"}"#, "the key $op stands there twice");
    let not_whole = |text: &str| format!("id is a whole number such as 42, not {text}");
    check(r#"{"$op":"delete","id":42.0}"#, &not_whole("42.0"));
    check(r#"{"$op":"delete","id":4.2e1}"#, &not_whole("4.2e1"));
    check(r#"{"$op":"delete","id":42e0}"#, &not_whole("42e0"));
    check(r#"{"$op":"delete","id":-42}"#, &not_whole("-42"));
    check(r#"{"$op":"delete","id":-0}"#, &not_whole("-0"));
    check(r#"{"$op":"delete","id":"42"}"#, &not_whole(r#"\"42\""#));
    check(r#"{"$op":"delete","id":[42]}"#, &not_whole("[42]"));
    check(r#"{"$op":"delete","id":true}"#, &not_whole("true"));
    check(r#"{"$op":"delete","id":null}"#, &not_whole("null"));
    check(r#"{"$op":"react","id":42,"key":""}"#, "key has 0 bytes; it needs 1 to 64");
    check(
        &format!(r#"{{"$op":"react","id":42,"key":"{}"}}"#, "k".repeat(65)),
        "key has 65 bytes; it needs 1 to 64",
    );
    check(
        &format!(r#"{{"$op":"react","id":42,"key":"{}"}}"#, "k".repeat(1 << 20)),
        "key has 1048576 bytes; it needs 1 to 64",
    );
    check(r#"{"$op":"react","id":42,"key":"a\nb"}"#, "key has a control character");
    check(r#"{"$op":"react","id":42,"key":"\u0000"}"#, "key has a control character");
    check("{\"$op\":\"react\",\"id\":42,\"key\":\"\u{7f}\"}", "key has a control character");
    check(r#"{"$op":"unreact","id":42,"key":"\u0085"}"#, "key has a control character");
    check(r#"{"$op":"react","id":42,"key":7}"#, "key is a string, not 7");
    let long = "k".repeat(1 << 20);
    check(
        &format!(r#"{{"$op":"delete","id":42,"{long}":1}}"#),
        &format!("no operation has the key {}...", "k".repeat(SHOWN)),
    );
    check(
        &format!(r#"{{"$op":"{long}","id":42}}"#),
        &format!("there is no operation {}...", "k".repeat(SHOWN)),
    );
    let Taken::Bad(_) = take(r#"{"$op":"delete","id":42,"\ud800":1}"#) else {
        panic!("a key that is no text is none of an operation")
    };
}

#[test]
fn the_data_of_an_edit_are_the_bytes_that_its_sender_wrote() {
    #[track_caller]
    fn check(message: &str, expected: Option<&str>) {
        assert_eq!(edit_data(message.as_bytes()), expected.map(str::as_bytes), "{message}");
    }
    check(r#"{"$op":"edit","id":42,"data":{"b":1.10, "b":2}}"#, Some(r#"{"b":1.10, "b":2}"#));
    check(r#"{"$op":"edit","data": "\ud800" ,"id":42}"#, Some(r#""\ud800""#));
    check(r#"{"$op":"delete","id":42}"#, None);
    let deep = "[".repeat(1 << 20) + &"]".repeat(1 << 20);
    let edit = format!(r#"{{"$op":"edit","id":42,"data":{deep}}}"#);
    assert_eq!(take(&edit), does(42, Action::Edit), "deep data takes no stack");
    assert_eq!(edit_data(edit.as_bytes()), Some(deep.as_bytes()));
}

proptest! {
    #![proptest_config(tries(400))]

    /// serde_json's own reading of the first key is the model.
    #[test]
    fn the_first_key_decides_and_no_spelling_of_it_matters(
        space in "[ \t]{0,2}",
        letters in prop::collection::vec((prop::sample::select(vec!['$', 'o', 'p', 'O', '"', '\\', ' ', 'é']), 0..3), 0..5),
        rest in prop::sample::select(vec![":1}", " : \"delete\"}", ":1,\"$op\":2}"]),
    ) {
        let spell = |&(letter, how): &(char, i32)| match (letter, how) {
            ('"' | '\\', 0) => format!("\\{letter}"),
            (_, 0) => letter.to_string(),
            (_, 1) => format!("\\u{:04x}", letter as u32),
            _ => format!("\\u{:04X}", letter as u32),
        };
        let key: String = letters.iter().map(spell).collect();
        let text = format!("{{{space}\"{key}\"{rest}");
        let _: Value = serde_json::from_str(&text).expect("it is JSON");
        let plain: String = letters.iter().map(|(letter, _)| letter).collect();
        prop_assert_eq!(is_operation(text.as_bytes()), plain == "$op", "{}", text);
    }
}
