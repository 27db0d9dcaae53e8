use proptest::{prelude::*, string::string_regex};
use serde_json::{Value, json};

use super::*;
use crate::testing::tries;

/// White space between tokens, line ends included.
fn space() -> impl Strategy<Value = String> {
    string_regex("[ \t\r\n]{0,3}").expect("a regular expression")
}

/// A string with escapes of all kinds, lone surrogates among them.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(r"\u00e9".to_owned()),
        Just(r"\ud83d\ude00".to_owned()),
        Just(r"\ud800".to_owned()),
        Just(r"\n".to_owned()),
        Just(r"\r\n".to_owned()),
        Just(r"\\".to_owned()),
        Just(r#"\""#.to_owned()),
        Just(r"\/".to_owned()),
        "[a-z é☃😀\u{2028}\u{85}\u{feff}{}\\[\\],:]{1,3}",
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn scalar() -> impl Strategy<Value = String> {
    let spelling = prop::sample::select(vec![
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1.10",
        "1E+05",
        "-12.5e-7",
        "1e999",
        "123456789012345678901234567890",
    ]);
    prop_oneof![spelling.prop_map(str::to_owned), string()]
}

/// Any JSON as a person or a program may spell it, with keys that occur twice.
fn value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        let spaced =
            (space(), inner, space()).prop_map(|(a, json, b)| format!("{a}{json}{b}")).boxed();
        let key = prop_oneof![Just(r#""user""#.to_owned()), string()];
        let pair = (space(), key, space(), spaced.clone())
            .prop_map(|(a, key, b, value)| format!("{a}{key}{b}:{value}"));
        prop_oneof![
            (prop::collection::vec(spaced, 1..4)).prop_map(|v| format!("[{}]", v.join(","))),
            (prop::collection::vec(pair, 1..4)).prop_map(|v| format!("{{{}}}", v.join(","))),
            space().prop_map(|s| format!("[{s}]")),
            space().prop_map(|s| format!("{{{s}}}")),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    (space(), value(), space()).prop_map(|(a, json, b)| format!("{a}{json}{b}"))
}

fn object() -> impl Strategy<Value = String> {
    text().prop_map(|json| format!(r#"{{"content":{json}}}"#))
}

fn pushed(text: &str) -> Result<Vec<u8>, NotJson> {
    let mut lines = b"before\n".to_vec();
    let result = push_line(text, &mut lines);
    if result.is_err() {
        assert_eq!(lines, b"before\n", "a refused text leaves no trace");
    }
    result.map(|()| lines.split_off(b"before\n".len()))
}

proptest! {
    #![proptest_config(tries(200))]

    #[test]
    fn a_message_is_stored_with_every_byte_but_the_white_space_around_it(text in text()) {
        let line = pushed(&text).expect("it is JSON");
        let trimmed = text.trim_matches([' ', '\t', '\r', '\n']);
        let expected = trimmed.replace(['\r', '\n'], " ");
        prop_assert_eq!(String::from_utf8_lossy(&line), format!("{expected}\n"));
        prop_assert_eq!(on_line(&line[..line.len() - 1]), Some(expected.as_bytes()));
    }

    #[test]
    fn the_beginning_of_a_torn_object_is_no_message(object in object()) {
        for (cut, _) in object.char_indices() {
            prop_assert!(pushed(&object[..cut]).is_err(), "{}", &object[..cut]);
            prop_assert_eq!(on_line(&object.as_bytes()[..cut]), None);
        }
    }

    #[test]
    fn a_text_that_a_person_types_becomes_one_object_on_one_line(name: String, typed: String) {
        // A typed object is no text: the next test says what becomes of it.
        prop_assume!(!(typed.trim_start().starts_with('{') && pushed(&typed).is_ok()));
        let mut lines = Vec::new();
        push_line_as(&name, &typed, &mut lines);
        prop_assert_eq!(lines.iter().filter(|&&byte| byte == b'\n').count(), 1);
        prop_assert!(lines.ends_with(b"\n"));
        let content = typed.strip_suffix('\n').unwrap_or(&typed);
        let content = content.strip_suffix('\r').unwrap_or(content);
        let said: Value = serde_json::from_slice(&lines).expect("it is JSON");
        prop_assert_eq!(said, json!({"user": name, "content": content}));
    }

    #[test]
    fn an_object_that_is_typed_passes_verbatim_and_other_json_does_not(text in text()) {
        let mut lines = Vec::new();
        push_line_as("ann", &text, &mut lines);
        if text.trim_start().starts_with('{') {
            prop_assert_eq!(lines, pushed(&text).expect("it is JSON"));
        } else {
            let said: Value = serde_json::from_slice(&lines).expect("it is JSON");
            prop_assert_eq!(&said["user"], "ann");
        }
    }
}

#[test]
fn a_text_that_is_not_json_is_refused_with_the_reason() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let error = pushed(text).expect_err("it is no message");
        assert_eq!(error.to_string(), expected, "{text:?}");
    }
    check("hello", "expected value at line 1 column 1");
    check("", "EOF while parsing a value at line 1 column 0");
    check(" \r\n", "EOF while parsing a value at line 2 column 0");
    check("NaN", "expected value at line 1 column 1");
    check("Infinity", "expected value at line 1 column 1");
    check("-Infinity", "invalid number at line 1 column 2");
    check("01", "invalid number at line 1 column 2");
    check("[1,]", "expected value at line 1 column 4");
    check("1 2", "trailing characters at line 1 column 3");
    check("{'a':1}", "key must be a string at line 1 column 2");
    check("\u{feff}1", "expected value at line 1 column 1");
    check("\u{a0}1", "expected value at line 1 column 1");
    let control = "control character (\\u0000-\\u001F) found while parsing a string";
    check("\"a\nb\"", &format!("{control} at line 1 column 2"));
    check("\"a\tb\"", &format!("{control} at line 1 column 2"));
}

#[test]
fn deep_json_takes_no_stack() {
    let deep = "[".repeat(1 << 20) + &"]".repeat(1 << 20);
    assert_eq!(pushed(&deep).expect("it is JSON").len(), deep.len() + 1);
}

#[test]
fn a_line_of_the_file_holds_a_message_or_is_a_hole() {
    #[track_caller]
    fn check(line: &[u8], expected: Option<&[u8]>) {
        assert_eq!(on_line(line), expected, "{}", line.escape_ascii());
    }
    check(br#"{"user":"ann"}"#, Some(br#"{"user":"ann"}"#));
    check(b"42", Some(b"42"));
    check(b" \t[1, 2]\r", Some(b"[1, 2]"));
    check(b"", None);
    check(b" \r", None);
    check(b"junk", None);
    check(b"{} {}", None);
    check(b"\"\xff\"", None);
    check(b"\xef\xbb\xbf1", None);
    check(b"\0\0\0", None);
    check(b"null", Some(b"null"));
    check(b"null ", None);
    check(b"null          ", None);
    check(b" null ", Some(b"null"));
    check(b"null\t", Some(b"null"));
    check(b"null \r", Some(b"null"));
    check(b"null null", None);
    check(b"nul  ", None);
}

#[test]
fn an_erased_line_keeps_its_length_is_json_and_holds_no_message_where_there_is_room() {
    for len in 0..300 {
        let line = erased(len);
        assert_eq!(line.len(), len);
        let value = serde_json::from_slice::<Value>(&line);
        assert_eq!(value.is_ok(), len > 0, "{}", line.escape_ascii());
        assert_eq!(on_line(&line).is_some(), (1..5).contains(&len), "{}", line.escape_ascii());
    }
}

#[test]
fn a_person_may_type_anything() {
    #[track_caller]
    fn check(typed: &str, expected: &str) {
        let mut lines = Vec::new();
        push_line_as("a\"b", typed, &mut lines);
        assert_eq!(String::from_utf8(lines).unwrap(), format!("{expected}\n"), "{typed:?}");
    }
    check("hi\n", r#"{"user":"a\"b","content":"hi"}"#);
    check("hi\r\n", r#"{"user":"a\"b","content":"hi"}"#);
    check(" hi \n\n", r#"{"user":"a\"b","content":" hi \n"}"#);
    check("", r#"{"user":"a\"b","content":""}"#);
    check("42", r#"{"user":"a\"b","content":"42"}"#);
    check("[1]", r#"{"user":"a\"b","content":"[1]"}"#);
    check("{broken", r#"{"user":"a\"b","content":"{broken"}"#);
    check(" {\"b\":1,\r\n\"b\":2}\n", r#"{"b":1,  "b":2}"#);
}
