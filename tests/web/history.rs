//! `GET /messages` and `GET /messages/N`: what has been said, in the form that was asked for.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{support::*, talk::*};

/// A file in which some lines hold no message: 2, 5, 6 and 10.
const HOLES: [&str; 12] = [
    r#"{"n":1,"x":"a"}"#,
    "",
    r#"{"n":3}"#,
    r#"[4,"x"]"#,
    "nonsense",
    r#"{"torn"#,
    r#""x seven""#,
    "8",
    r#"{"n":9,"X":0}"#,
    "   ",
    "null",
    r#"{"n":12,"x":" "}"#,
];

/// The messages among them, with their ids.
fn messages() -> Vec<(u64, &'static str)> {
    let lines = (1..).zip(HOLES);
    lines.filter(|(_, line)| serde_json::from_str::<Value>(line).is_ok()).collect()
}

#[test]
fn the_history_is_one_object_a_line_with_every_byte_as_it_was_said() {
    let server = Server::on(SEED);
    let reply = server.get("/messages");
    assert_eq!(reply.has(200).text(), as_ndjson(&SEED.lines().collect::<Vec<_>>()));
    assert_eq!(reply.header("Content-Type"), Some(NDJSON));
    let mut ann = server.join();
    assert_eq!(reply.header("Txtcord-Epoch"), Some(&*ann.history.epoch));
    // What a parser and a printer would not leave alone.
    let odd = [
        r#"{"b":1,"a":2,"b":3}"#,
        "1.10",
        "123456789012345678901234567890",
        r#"{ "a" : "\u00e9é\ud800" ,"b":[ ]}"#,
        r#""</script>\u2028""#,
        r#"{"id":8,"data":9}"#,
    ];
    for (id, text) in (8..).zip(odd) {
        let heard = ann.says(text);
        let line = format!("{{\"id\":{id},\"ts\":{},\"data\":{text}}}\n", heard.ts);
        assert_eq!(server.get(&format!("/messages?after={}", id - 1)).text(), line);
        assert_eq!(server.get(&format!("/messages/{id}")).text(), line);
    }
    assert_eq!(Server::start().get("/messages").has(200).text(), "");
}

/// `after`, `before`, `limit` and `q`.
type Question = (Option<u64>, Option<u64>, Option<u64>, Option<&'static str>);

#[test]
fn every_window_and_search_gives_what_it_should_in_a_file_with_holes() {
    let server = Server::on(HOLES.join("\n") + "\n");
    const LARGE: u64 = u64::MAX;
    let mut questions = Vec::new();
    for after in
        [None, Some(0), Some(1), Some(3), Some(5), Some(6), Some(11), Some(12), Some(LARGE)]
    {
        for before in [None, Some(0), Some(1), Some(2), Some(6), Some(7), Some(12), Some(LARGE)] {
            for limit in [None, Some(0), Some(1), Some(2), Some(5), Some(LARGE)] {
                for text in [None, Some("x"), Some("absent")] {
                    questions.push((after, before, limit, text));
                }
            }
        }
    }
    let path = |&(after, before, limit, text): &Question| {
        let mut path = String::from("/messages?");
        for (name, value) in [("after", after), ("before", before), ("limit", limit)] {
            if let Some(value) = value {
                write!(path, "{name}={value}&").expect("memory");
            }
        }
        path + &text.map_or(String::new(), |text| format!("q={text}"))
    };
    // What the words say: after and before are strict, q is found in the message's bytes; limit
    // takes the first ones behind `after`, else the last ones.
    let answer = |&(after, before, limit, text): &Question| {
        let mut found = messages();
        found.retain(|(id, data)| {
            after.is_none_or(|after| *id > after)
                && before.is_none_or(|before| *id < before)
                && text.is_none_or(|text| data.contains(text))
        });
        let limit = limit.map_or(found.len(), |limit| found.len().min(limit as usize));
        let range = if after.is_some() { 0..limit } else { found.len() - limit..found.len() };
        let line = |(id, data): &(u64, &str)| format!("{{\"id\":{id},\"data\":{data}}}\n");
        found[range].iter().map(line).collect::<String>()
    };
    // One connection, and many questions at a time before the first answer is read.
    let mut raw = server.raw();
    for some in questions.chunks(30) {
        let asked = some.iter().flat_map(|question| ask(&format!("GET {}", path(question)), &[]));
        raw.send(asked.collect::<Vec<u8>>());
        for question in some {
            let response = raw.whole();
            assert_eq!(response.status, 200, "{}", path(question));
            assert_eq!(response.body, answer(question), "{}", path(question));
        }
    }
}

#[test]
fn a_search_is_for_the_bytes_of_the_message_alone() {
    let lines = [r#"{"a":"Zoë + 100%"}"#, r#"{"a":"Zo\u00eb"}"#, r#"{"a":"zoë  +"}"#, "1"];
    let server = Server::on(lines.join("\n"));
    #[track_caller]
    fn check(server: &Server, text: &str, ids: &[u64]) {
        assert_eq!(server.get(&format!("/messages?q={text}")).ids(), ids, "q={text}");
    }
    check(&server, "Zo%C3%AB", &[1]);
    check(&server, "zo%c3%ab", &[3]);
    check(&server, "%5Cu00eb", &[2]);
    check(&server, "+%2b+100%25", &[1]);
    check(&server, "++", &[3]);
    // The line's number and the frame around the message are not searched.
    check(&server, "id", &[]);
    check(&server, "data", &[]);
    check(&server, "1", &[1, 4]);
    // The end of one message and the start of the next are no place to find anything.
    check(&server, "%7D%0A%7B", &[]);
    check(&server, "", &[1, 2, 3, 4]);
    check(&server, "&limit=1", &[4]);
    check(&server, "a&q=zo", &[3]);
}

#[test]
fn a_question_that_makes_no_sense_is_refused_with_a_sentence() {
    let server = Server::on(SEED);
    for (query, word) in [
        ("after=-1", "after="),
        ("after=", "after="),
        ("after=1.5", "after="),
        ("before=x", "before="),
        ("before=+1", "before="),
        ("limit=0x10", "limit="),
        ("limit=%20", "limit="),
        ("follow=maybe", "follow="),
        ("q=%ff", "q="),
        ("epoch=%C3", "epoch="),
        ("follow=1&before=5", "before="),
    ] {
        server.get(&format!("/messages?{query}")).refuses(400, &[word]);
    }
    let follow = "/messages?follow=1";
    server.get_with(follow, &[("Accept", JSON)]).refuses(400, &["follow=1"]);
    // What is unknown is ignored.
    assert_eq!(server.get("/messages?colour=blue&limit=1&&=&x").ids(), [7]);
    assert_eq!(server.get("/messages?follow=0&limit=1").ids(), [7]);
}

#[test]
fn the_time_is_told_where_it_is_known() {
    let server = Server::on(SEED);
    let mut ann = server.join();
    let said = ann.says("8");
    let posted = server.stores("9");
    assert_eq!(posted, 9);
    let posted = ann.hears("9");
    server.dir.append("10\n");
    let appended = ann.hears("10");
    let told = server.get("/messages").told();
    let times: Vec<_> = told.iter().map(|told| told.ts).collect();
    let known = [said.ts, posted.ts, appended.ts].map(Some);
    assert_eq!(times, [&[None; 7][..], &known].concat());
    assert!(said.ts.abs_diff(now_ms()) < 600_000, "{}", said.ts);
    drop(ann);
    let server = server.restart();
    assert_eq!(server.get("/messages").told(), told, "it lasts");
}

#[test]
fn the_form_is_the_one_that_the_client_would_rather_have() {
    let server = Server::on(SEED);
    #[track_caller]
    fn check(server: &Server, accept: &[&str], kind: &str) {
        let fields: Vec<_> = accept.iter().map(|accept| format!("Accept: {accept}")).collect();
        let fields: Vec<_> = fields.iter().map(String::as_str).collect();
        // HEAD, since events do not end.
        let mut raw = server.raw();
        raw.send(ask("HEAD /messages", &fields));
        let response = raw.head_alone();
        let got = (response.status, response.header("Content-Type"));
        assert_eq!(got, (200, Some(kind)), "Accept: {accept:?}");
        let vary = response.header("Vary").unwrap_or_default();
        assert!(vary.to_ascii_lowercase().contains("accept"), "Vary: {vary}");
    }
    check(&server, &[], NDJSON);
    check(&server, &["*/*"], NDJSON);
    check(&server, &["application/x-ndjson"], NDJSON);
    check(&server, &["text/plain"], NDJSON);
    check(&server, &["application/json"], JSON);
    check(&server, &["Application/JSON; charset=utf-8"], JSON);
    check(&server, &["text/event-stream"], EVENTS);
    check(&server, &["text/html,application/xhtml+xml,*/*;q=0.8"], NDJSON);
    check(&server, &["application/json;q=0.5, text/event-stream;q=0.9"], EVENTS);
    check(&server, &["application/json;q=0.9, text/event-stream;q=0.5"], JSON);
    check(&server, &["*/*;q=0.1, application/json"], JSON);
    check(&server, &["application/json;q=0.1, */*"], NDJSON);
    check(&server, &["application/json;q=0, */*;q=0.1"], NDJSON);
    check(&server, &["image/png, application/json ; q=0.2"], JSON);
    check(&server, &["application/json;q=0.001"], JSON);
    for accept in ["image/png", "text/html", "application/json;q=0", "*/*;q=0", "text/event-strea"]
    {
        let reply = server.get_with("/messages", &[("Accept", accept)]);
        reply.refuses(406, &[NDJSON, JSON, EVENTS]);
    }
}

#[test]
fn as_json_the_history_is_the_frame_that_greets_a_client() {
    let server = Server::on(HOLES.join("\n") + "\n");
    let as_json = |path: &str| server.get_with(path, &[("Accept", JSON)]);
    for limit in ["0", "1", "3", "8", "100"] {
        let frame = server.join_at(&format!("/ws?limit={limit}")).history.frame;
        assert_eq!(as_json(&format!("/messages?limit={limit}")).has(200).text(), frame);
    }
    let reply = as_json("/messages");
    assert_eq!(reply.has(200).text(), server.join().history.frame);
    assert_eq!(reply.header("Content-Type"), Some(JSON));
    assert_eq!(reply.header("Txtcord-Epoch"), Some(&*server.join().history.epoch));
    // Windows that no client of the socket can ask for.
    for after in [0, 1, 4, 6, 9, 12, 99] {
        for before in [0, 1, 2, 5, 7, 11, 13] {
            let path = format!("/messages?after={after}&before={before}");
            let text = as_json(&path).has(200).text();
            let history = History::parse(&text);
            let mut expected = messages();
            expected.retain(|(id, _)| (after + 1..before).contains(id));
            assert_eq!(history.messages(), expected, "{path}: {text}");
        }
    }
}

#[test]
fn as_json_a_search_says_the_ids_of_what_it_found() {
    let server = Server::on(HOLES.join("\n") + "\n");
    let found = |query: &str| server.get_with(query, &[("Accept", JSON)]).has(200).json();
    let all = found("/messages?q=x");
    assert_eq!(all["type"], "message_history");
    assert_eq!(all["ids"], json!([1, 4, 7, 12]));
    let data = json!([{"n":1,"x":"a"}, [4,"x"], "x seven", {"n":12,"x":" "}]);
    assert_eq!(all["data"], data);
    assert_eq!(all["epoch"], json!(server.join().history.epoch));
    assert_eq!(found("/messages?q=x&limit=2")["ids"], json!([7, 12]));
    assert_eq!(found("/messages?q=x&limit=2&after=1")["ids"], json!([4, 7]));
    let none = found("/messages?q=absent");
    assert_eq!((&none["ids"], &none["data"]), (&json!([]), &json!([])));
}

#[test]
fn one_message_is_found_by_its_number() {
    let server = Server::on(HOLES.join("\n") + "\n");
    for (id, data) in messages() {
        let reply = server.get(&format!("/messages/{id}"));
        assert_eq!(reply.has(200).text(), format!("{{\"id\":{id},\"data\":{data}}}\n"));
        assert_eq!(reply.header("Content-Type"), Some(JSON));
        assert_eq!(reply.header("Txtcord-Epoch"), Some(&*server.join().history.epoch));
    }
    let absent = ["0", "2", "6", "10", "13", "-1", "+1", "1.0", "", "x", "1/2", "1/", "%31"];
    let huge = ["18446744073709551614", "18446744073709551615", "99999999999999999999"];
    for id in absent.iter().chain(&huge) {
        server.get(&format!("/messages/{id}")).refuses(404, &["/messages"]);
    }
    // A number stays findable when it comes to be.
    assert_eq!(server.stores("13"), 13);
    assert_eq!(server.get("/messages/13").told()[0].data, "13");
}

#[test]
fn a_reader_that_knows_another_numbering_starts_over() {
    let server = Server::on(SEED);
    let epoch = server.join().history.epoch;
    assert_eq!(server.get(&format!("/messages?after=5&epoch={epoch}")).ids(), [6, 7]);
    assert_eq!(server.get("/messages?after=5&epoch=other").ids(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(server.get("/messages?epoch=other&limit=2").ids(), [6, 7]);
    // A page that asks again and again for what is new gets nothing, and no error, at the end.
    assert_eq!(server.get("/messages?after=7").ids(), [0; 0]);
    assert_eq!(server.get(&format!("/messages?after=7&epoch={epoch}")).ids(), [0; 0]);
}

#[test]
fn a_message_stays_one_line_and_one_event_whatever_another_program_wrote() {
    // Each line is a message; JSON allows a carriage return between its tokens.
    let server = Server::on("\u{feff}{\"a\":1}\r\n{\"b\":\r2}\n \t[3]\r\n");
    let told = server.get("/messages").told();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!((told[0].data.trim(), told[2].data.trim()), (r#"{"a":1}"#, "[3]"));
    let mut events = server.events("/messages", &[]);
    // To a reader of events a lone carriage return is the end of a line, too.
    for id in 1..=3 {
        let told = events.hears_event(id);
        assert!(!told.data.contains('\r'), "event {id}: {:?}", told.data);
    }
}

#[test]
fn a_long_history_is_streamed_without_being_held() {
    const COUNT: usize = 10_000;
    let file = padded_lines(COUNT, 3000);
    let server = Server::on(&file);
    let ids: Vec<u64> = (1..=COUNT as u64).collect();
    server.get("/messages?limit=1").has(200);
    let before = server.status("VmHWM");
    std::thread::scope(|scope| {
        // Some at once; thirty megabytes each.
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(server.get("/messages").ids(), ids));
        }
        scope.spawn(|| assert!(server.get("/messages.txt").body == file.as_bytes()));
        scope.spawn(|| {
            let text = server.get_with("/messages", &[("Accept", JSON)]).text();
            assert!(text.contains(&file.trim_end().replace('\n', ",")));
        });
        scope.spawn(|| assert_eq!(server.get("/messages?q=xxx&limit=9999").ids(), ids[1..]));
    });
    let grown = server.status("VmHWM") - before;
    assert!(grown < 6 << 10, "the server grew by {grown} KiB");
}
