//! What must hold for any bytes: the properties of the fuzz targets (`tests/fuzz/`), on what they
//! once found and on inputs made at random, so that a plain `cargo test` checks them too.

#[path = "fuzz/properties/mod.rs"]
mod properties;

use std::{fs, path::Path};

use properties::{json, message_text, recovery, request_head};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

/// Enough to meet every kind of damage that is made below; the fuzz targets make millions.
const CASES: u32 = 512;

/// Each syncs a file a few times.
const FILES: u32 = 128;

fn cases(cases: u32) -> ProptestConfig {
    // What fails is printed in full; what is to stay goes to tests/fuzz/regressions.
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Runs a fuzz target on what is kept of its inputs.
#[track_caller]
fn regressions(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/regressions").join(target);
    let inputs = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut count = 0;
    for input in inputs {
        let path = input.unwrap().path();
        println!("{}", path.display());
        check(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "there is no input in {}", dir.display());
}

#[test]
fn request_heads_that_were_kept_are_judged_right() {
    regressions("request_head", request_head::check);
}

#[test]
fn texts_that_were_kept_become_lines_or_are_refused() {
    regressions("message_text", message_text::check);
}

#[test]
fn files_that_were_kept_are_recovered() {
    regressions("recovery", recovery::check);
}

#[test]
fn the_model_of_json_knows_json() {
    let json = [
        "0",
        "-0",
        "-0.0e-0",
        "1E+9",
        "10",
        "1e999",
        "\"\"",
        "\"\\ud800\"",
        "\"\\\"\\\\\\/\\b\"",
        "[]",
        "[ ]",
        "{}",
        " { } ",
        "[[],{}]",
        "{\"a\":1,\"a\":2}",
        "{\"\":[true,false,null]}",
        "\r\n1\t",
        "\"\u{7f}\u{2028}\"",
    ];
    let other = [
        "",
        " ",
        "01",
        "-",
        "+1",
        "1.",
        ".1",
        "1e",
        "0x1",
        "NaN",
        "Infinity",
        "'a'",
        "\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u00g0\"",
        "\"\t\"",
        "[",
        "]",
        "[1,]",
        "[,]",
        "[1 2]",
        "{a:1}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{]",
        "[}",
        "1 1",
        "tru",
        "nullnull",
        "\u{feff}1",
        "\u{a0}1",
    ];
    for text in json {
        assert!(json::is_json(text.as_bytes()), "{text:?}");
    }
    for text in other {
        assert!(!json::is_json(text.as_bytes()), "{text:?}");
    }
    assert!(!json::is_json("[".repeat(1 << 20).as_bytes()));
    assert!(json::is_json(["[".repeat(1 << 20), "]".repeat(1 << 20)].concat().as_bytes()));
}

proptest! {
    #![proptest_config(cases(CASES))]

    #[test]
    fn any_json_becomes_one_line_word_for_word(text in json_text()) {
        prop_assert!(json::is_json(text.as_bytes()));
        message_text::check(text.as_bytes());
    }

    #[test]
    fn damaged_json_is_refused_exactly_when_it_is_no_json(text in damaged(json_text().prop_map_into())) {
        message_text::check(&text);
    }

    #[test]
    fn any_text_under_any_name_becomes_one_line(name in "\\PC*", text in "(?s).*") {
        message_text::check(format!("{name}\n{text}").as_bytes());
    }

    #[test]
    fn a_request_is_judged_the_same_however_it_is_cut(head in request_head()) {
        request_head::check(&head);
    }

    #[test]
    fn a_damaged_request_is_judged_the_same_however_it_is_cut(head in damaged(request_head())) {
        request_head::check(&head);
    }
}

proptest! {
    #![proptest_config(cases(FILES))]

    #[test]
    fn a_file_in_any_state_is_opened_and_every_line_keeps_its_id(file in text_file()) {
        recovery::opens(&file, None);
    }

    #[test]
    fn a_damaged_file_keeps_every_other_line(file in damaged(text_file())) {
        recovery::opens(&file, None);
    }

    #[test]
    fn whatever_the_lock_file_says_the_file_is_opened(file in text_file(), lock in lock_file()) {
        recovery::opens(&file, Some(&lock));
    }
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn a_file_of_many_blocks_is_like_a_short_one(
        // Where its length is a power of two, a line begins just where a block does.
        long in prop_oneof!["\"[a-z]{125}\"\n", "\"[a-z]{253}\"\n", "\"[a-z]{100,400}\"\n"],
        file in text_file(),
        growth in 253..=254u8,
    ) {
        recovery::check(&[&[growth, 0xff], long.as_bytes(), &file].concat());
    }
}

/// JSON in every spelling, with white space where it may stand.
fn json_text() -> impl Strategy<Value = String> {
    let number = "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?";
    let string = r#""([^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}){0,8}""#;
    let leaf = prop_oneof![select(vec!["true", "false", "null"]).prop_map_into(), number, string];
    let value = leaf.prop_recursive(4, 16, 4, move |value: BoxedStrategy<String>| {
        let spaced = || (space(), value.clone(), space()).prop_map(|(a, b, c)| a + &b + &c);
        let member = (space(), string, space(), spaced())
            .prop_map(|(before, key, after, value)| format!("{before}{key}{after}:{value}"));
        prop_oneof![
            vec(spaced(), 1..4).prop_map(|values| format!("[{}]", values.join(","))),
            vec(member, 1..4).prop_map(|members| format!("{{{}}}", members.join(","))),
            space().prop_map(|space| format!("[{space}]")),
            space().prop_map(|space| format!("{{{space}}}")),
        ]
    });
    (space(), value, space()).prop_map(|(before, value, after)| before + &value + &after)
}

fn space() -> impl Strategy<Value = String> {
    "[ \t\r\n]{0,2}"
}

/// A request head out of what clients send, and out of what none should.
fn request_head() -> impl Strategy<Value = Vec<u8>> {
    let line = select(vec![
        "GET /ws HTTP/1.1",
        "GET /ws?after=7&epoch=9f2c&limit=50&as=ann HTTP/1.1",
        "GET /ws?as=%41nn+%F0%9F%98%80&after=99999999999999999999 HTTP/1.1",
        "GET /ws?limit=-1 HTTP/1.1",
        "GET /ws?as= HTTP/1.1",
        "GET http://localhost/ws HTTP/1.1",
        "GET /ws HTTP/1.0",
        "POST /ws HTTP/1.1",
        "CONNECT localhost:80 HTTP/1.1",
    ]);
    let upgrade = vec![
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let more = select(vec![
        "Origin: http://localhost:3000",
        "Origin: http://127.0.0.1:8000",
        "Origin: http://10.1.2.3:8000",
        "Origin: https://chat.localhost",
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: http://[::1]",
        "Origin: http://10.1.2.3:80",
        "Host: 10.1.2.3:8000",
        "Host: evil.example",
        "Connection: close",
        "Content-Length: 5",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "Sec-WebSocket-Version: 8",
        "Sec-WebSocket-Key: c2hvcnQ=",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Cookie: \u{e9}=\t",
        "X-\u{1}: y",
        " folded",
    ]);
    let host = select(vec![
        "Host: 127.0.0.1:8000",
        "Host: 10.1.2.3:8000",
        "Host: 10.1.2.3",
        "Host: evil.example",
    ]);
    (line, host, vec(more, 0..3), select(vec!["\r\n", "\n"]), "[a-z]{0,4}").prop_map(
        move |(line, host, more, end, behind)| {
            let lines = [vec![line, host], upgrade.clone(), more, vec!["", ""]].concat();
            (lines.join(end) + &behind).into_bytes()
        },
    )
}

/// A text file out of lines as they are, as editors leave them, and as accidents do; the last one
/// may have no end.
fn text_file() -> impl Strategy<Value = Vec<u8>> {
    let whole = json_text().prop_map(|text| text.replace(['\r', '\n'], " ").into_bytes());
    let other = select(vec![
        &b""[..],
        b" ",
        b"\r",
        b"{\"user\":\"ann\"",
        b"{\"caf\xe9\":1}",
        b"\0\0\0\0",
        b"\xef\xbb\xbf1",
        b"\xef\xbb\xbf",
        b"hello",
        b"1 2",
    ]);
    let line = prop_oneof![3 => whole, 1 => other.prop_map(<[u8]>::to_vec)];
    let end = select(vec![&b"\n"[..], b"\n", b"\n", b"\r\n"]);
    let bom = prop_oneof![3 => Just(&b""[..]), 1 => Just(&b"\xef\xbb\xbf"[..])];
    (bom, vec((line.clone(), end), 0..12), prop_oneof![Just(Vec::new()), line]).prop_map(
        |(bom, lines, tail)| {
            let lines: Vec<u8> =
                lines.into_iter().flat_map(|(line, end)| [line, end.to_vec()].concat()).collect();
            [bom, &lines, &tail].concat()
        },
    )
}

/// What may stand in the lock file, of this text file or another.
fn lock_file() -> impl Strategy<Value = Vec<u8>> {
    let number = || prop_oneof![0..4u64, Just(u64::MAX), 0..200u64];
    let record = (number(), number(), any::<u64>()).prop_map(|(lines, bytes, tail)| {
        format!("epoch 9f2c1a7b55d0e813 lines {lines} bytes {bytes} tail {tail:016x}\n")
    });
    prop_oneof![record.prop_map(String::into_bytes), vec(any::<u8>(), 0..64)]
}

/// One piece taken out, put in or turned over.
fn damaged(whole: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let piece = vec(prop_oneof![any::<u8>(), select(b"\n\r\"\\{}[],: 0e\0".to_vec())], 0..3);
    (whole, any::<Index>(), 0..4usize, piece).prop_map(|(mut whole, at, taken, piece)| {
        let at = at.index(whole.len() + 1);
        let end = (at + taken).min(whole.len());
        whole.splice(at..end, piece);
        whole
    })
}
