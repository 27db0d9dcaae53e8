//! What clients of the original program rely on: history on connect, everything to everyone, the
//! message word for word; and what is more in this server: ids, times, answers to bad input.

use std::thread;

use tungstenite::Message;

use crate::support::*;

#[test]
fn an_empty_file_is_an_empty_history() {
    let server = Server::start();
    let ann = server.join();
    let epoch = &ann.history.epoch;
    let expected = format!(
        r#"{{"type":"message_history","data":[],"first_id":1,"last_id":0,"epoch":"{epoch}"}}"#
    );
    assert_eq!(ann.history.frame, expected);
}

#[test]
fn the_originals_file_is_served_word_for_word() {
    let server = Server::on(SEED);
    let ann = server.join();
    let epoch = &ann.history.epoch;
    let data = SEED.trim_end().replace('\n', ",");
    let expected = format!(
        r#"{{"type":"message_history","data":[{data}],"first_id":1,"last_id":7,"epoch":"{epoch}"}}"#
    );
    assert_eq!(ann.history.frame, expected);
    assert_eq!(ann.history.messages()[4], (5, r#"{"sender": "Vegeta", "content": "ha"}"#));
    assert_eq!(server.dir.read(), SEED.as_bytes(), "serving a file leaves it as it is");
}

#[test]
fn a_message_goes_to_everyone_and_to_its_sender() {
    let server = Server::on(SEED);
    let (mut ann, mut bob, mut cleo) = (server.join(), server.join(), server.raw_join());
    ann.say(r#"{"user": "Ann", "content": "Hi"}"#);
    let heard = bob.hears(r#"{"user": "Ann", "content": "Hi"}"#);
    assert_eq!(heard.id, 8);
    assert_eq!(ann.hears_one(), heard);
    let ts = heard.ts;
    let expected = format!(
        r#"{{"type":"new_message","data":{{"user": "Ann", "content": "Hi"}},"id":8,"ts":{ts}}}"#
    );
    assert_eq!(cleo.text(), expected);
}

#[test]
fn the_history_of_a_large_file_is_one_frame() {
    let server = Server::on(padded_lines(3000, 1000));
    let mut raw = server.raw();
    raw.send(server.head("/ws", &[]));
    assert_eq!(raw.response().status, 101);
    // Whole, not the first of many fragments: simple clients do not put those together.
    let history = History::parse(&raw.text());
    assert_eq!(history.messages().len(), 3000);
}

#[test]
fn an_id_is_the_line_number_in_the_file() {
    let server = Server::on(SEED);
    let mut ann = server.join();
    for number in 8..=30 {
        let heard = ann.says(&format!(r#"{{"n":{number}}}"#));
        assert_eq!(heard.id, number);
        assert_eq!(server.lines()[number as usize - 1], heard.data);
    }
}

#[test]
fn the_time_of_a_message_is_the_servers_clock_and_never_runs_backwards() {
    let server = Server::start();
    let mut ann = server.join();
    let mut last = now_ms();
    for number in 0..50 {
        let heard = ann.says(&number.to_string());
        assert!(heard.ts >= last, "{} after {last}", heard.ts);
        last = heard.ts;
    }
    assert!(last <= now_ms(), "a time in the future");
}

#[test]
fn everyone_hears_everything_in_the_same_order() {
    const EACH: usize = 200;
    let server = Server::with(&["--fsync", "never"]);
    let mut listener = server.join();
    let speakers: Vec<Client> = (0..4).map(|_| server.join()).collect();
    let heard: Vec<Vec<Heard>> = thread::scope(|scope| {
        let speakers = each_apart(scope, speakers, |who, mut client| {
            for number in 0..EACH {
                client.say(&format!(r#"{{"who":{who},"n":{number}}}"#));
            }
            (0..4 * EACH).map(|_| client.hears_one()).collect()
        });
        speakers.into_iter().map(|speaker| speaker.join().expect("it heard all")).collect()
    });
    let expected: Vec<Heard> = (0..4 * EACH).map(|_| listener.hears_one()).collect();
    assert!(heard.iter().all(|heard| *heard == expected), "an order of its own");
    assert!(expected.iter().map(|heard| heard.id).eq(1..=4 * EACH as u64), "ids are not dense");
    assert!(expected.is_sorted_by_key(|heard| heard.ts), "times run backwards");
    assert!(expected.iter().map(|heard| &heard.data).eq(&server.lines()), "the file differs");
    for who in 0..4 {
        let own = expected.iter().filter(|heard| heard.data.contains(&format!(r#""who":{who},"#)));
        let numbers = own.map(|heard| heard.data.rsplit_once(':').expect("a number").1.to_owned());
        assert!(numbers.eq((0..EACH).map(|n| format!("{n}}}"))), "out of the order of sending");
    }
}

#[test]
fn a_message_is_kept_word_for_word() {
    let server = Server::start();
    let mut ann = server.join();
    let mut all = Vec::new();
    let mut keeps = |text: &str| {
        assert_eq!(ann.says(text).id, all.len() as u64 + 1);
        all.push(text.to_owned());
    };
    keeps(r#"{"z":1,"a":2,"m":3}"#);
    keeps(r#"{"a":1,"a":2,"a":1}"#);
    keeps(r#"{"price":1.10,"e":1e5,"E":-0.0E+05,"zero":-0}"#);
    keeps(r#"{"id":123456789012345678901234567890}"#);
    keeps(r#"1e999"#);
    keeps(r#"{"name":"Jos\u00e9","slash":"\/","tab":"\t","nul":"\u0000"}"#);
    keeps(r#"{"name":"José"}"#);
    keeps(r#"{"half":"\ud83d","other":"\ude00","pair":"\ud83d\ude00"}"#);
    keeps("\"\u{2028}\u{2029}\u{85}\u{7f}\u{10ffff}\u{1f600}\"");
    keeps(r#"{ "spaces" :  [ 1 ,2,	3 ] }"#);
    keeps(r#"{"type":"new_message","data":1,"id":7,"ts":1}"#);
    keeps(r#"{"type":"message_history","data":[],"first_id":1,"last_id":0}"#);
    keeps(r#"{"":""}"#);
    keeps("{}");
    keeps("[]");
    keeps("[1,[2,[3,{}]]]");
    keeps("\"text\"");
    keeps("\"\"");
    keeps("0");
    keeps("-12.5");
    keeps("null");
    keeps("true");
    keeps("false");
    keeps(&padded(1, 200_000));
    keeps(&("[".repeat(100_000) + &"]".repeat(100_000)));
    keeps(&(r#"{"a":"#.repeat(100_000) + "1" + &"}".repeat(100_000)));

    assert_eq!(server.dir.read(), (all.join("\n") + "\n").as_bytes());
    assert_eq!(server.join().history.said(), all);
    drop(ann);
    let server = server.restart();
    assert_eq!(server.join().history.said(), all, "after a restart");
}

#[test]
fn white_space_around_a_message_goes_and_line_ends_in_it_become_spaces() {
    let server = Server::start();
    let mut ann = server.join();
    #[track_caller]
    fn check(ann: &mut Client, said: &str, heard: &str) {
        ann.say(said);
        ann.hears(heard);
    }
    check(&mut ann, " {\"a\":1} ", "{\"a\":1}");
    check(&mut ann, "\t\r\n {\"a\":1}\r\n\t ", "{\"a\":1}");
    check(&mut ann, "{\"a\":1}\n", "{\"a\":1}");
    check(&mut ann, "\n7\n", "7");
    check(&mut ann, "{\n  \"a\": 1,\r\n  \"b\": 2\n}", "{   \"a\": 1,    \"b\": 2 }");
    check(&mut ann, "[1,\n2,\r3]", "[1, 2, 3]");
    check(&mut ann, "[\t1 ]", "[\t1 ]");
    assert_eq!(server.lines().len(), 7);
}

#[test]
fn text_that_is_no_json_gets_an_answer_and_nothing_else_happens() {
    let server = Server::on(SEED);
    let (mut ann, mut bob) = (server.join(), server.join());
    ann.say("hello");
    assert_eq!(
        ann.is_told("not_json").frame,
        r#"{"type":"error","code":"not_json","message":"expected value at line 1 column 1; connect with ?as=NAME to send plain text"}"#
    );
    #[track_caller]
    fn check(ann: &mut Client, text: &str) {
        ann.say(text);
        ann.is_told("not_json");
    }
    check(&mut ann, "nope");
    check(&mut ann, "");
    check(&mut ann, " \r\n ");
    check(&mut ann, "NaN");
    check(&mut ann, "Infinity");
    check(&mut ann, "-Infinity");
    check(&mut ann, r#"{"a":NaN}"#);
    check(&mut ann, r#"[1,-Infinity]"#);
    check(&mut ann, r#"{"a":1"#);
    check(&mut ann, r#"{"a":1,}"#);
    check(&mut ann, r#"{"a":1} {"b":2}"#);
    check(&mut ann, "{\"a\":1}\n{\"b\":2}");
    check(&mut ann, "1,2");
    check(&mut ann, "],[");
    check(&mut ann, r#"{'a':1}"#);
    check(&mut ann, r#"{"a":01}"#);
    check(&mut ann, r#"{"a":.5}"#);
    check(&mut ann, r#"{"a":+1}"#);
    check(&mut ann, r#"{"a":"\x41"}"#);
    check(&mut ann, r#"{"a":"\u12"}"#);
    check(&mut ann, "{\"a\":\"line\nend\"}");
    check(&mut ann, "{\"a\":\"line\rend\"}");
    check(&mut ann, "{\"a\":\"tab\tbed\"}");
    check(&mut ann, "\u{feff}{\"a\":1}");
    check(&mut ann, "\0");
    check(&mut ann, &"[".repeat(100_000));
    check(&mut ann, &r#"{"a":"#.repeat(100_000));

    assert_eq!(ann.says(r#"{"still":"here"}"#).id, 8);
    bob.hears(r#"{"still":"here"}"#);
    assert_eq!(server.lines().len(), 8);
}

#[test]
fn a_binary_frame_gets_an_answer_and_nothing_else_happens() {
    let server = Server::start();
    let (mut ann, mut bob) = (server.join(), server.join_at("/ws?as=bob"));
    for client in [&mut ann, &mut bob] {
        client.send(Message::binary(br#"{"a":1}"#.to_vec()));
        client.is_told("binary_unsupported");
        client.send(Message::binary(Vec::new()));
        client.is_told("binary_unsupported");
    }
    assert_eq!(ann.says("1").id, 1);
    bob.hears("1");
    assert_eq!(server.dir.read(), b"1\n");
}

#[test]
fn what_is_said_at_once_is_answered_in_its_order() {
    let server = Server::start();
    let mut raw = server.raw_join();
    let bad = r#"{"$op":"nonsense"}"#;
    let said = [(TEXT, "1"), (TEXT, "nope"), (TEXT, "2"), (TEXT, "3"), (BINARY, "4"), (TEXT, bad)];
    let packet: Vec<u8> = said.iter().flat_map(|(first, text)| frame(*first, text)).collect();
    for _ in 0..20 {
        raw.send(&packet);
        raw.hears("1");
        assert_eq!(Answer::parse(&raw.text()).code, "not_json");
        raw.hears("2");
        raw.hears("3");
        assert_eq!(Answer::parse(&raw.text()).code, "binary_unsupported");
        assert_eq!(Answer::parse(&raw.text()).code, "bad_operation");
        // In a packet of its own, too, while the one before is being stored.
        raw.send(frame(TEXT, "5"));
        raw.send(frame(TEXT, ""));
        raw.hears("5");
        assert_eq!(Answer::parse(&raw.text()).code, "not_json");
    }
}

#[test]
fn everything_is_there_again_after_a_restart() {
    let mut server = Server::on(SEED);
    for round in 8..12 {
        assert_eq!(server.join().history.last_id, round - 1);
        assert_eq!(server.join().says(&format!(r#"{{"round": {round}}}"#)).id, round);
        let file = server.dir.read();
        server = server.restart();
        assert_eq!(server.dir.read(), file, "a restart changes nothing");
        let lines = server.lines();
        assert_eq!(server.join().history.said(), lines);
    }
}

#[test]
fn every_fsync_mode_serves_and_stores() {
    for mode in ["always", "1s", "never"] {
        let server = Server::with(&["--fsync", mode]);
        let (mut ann, mut bob) = (server.join(), server.join());
        ann.says(r#"{"a":1}"#);
        bob.hears(r#"{"a":1}"#);
        drop((ann, bob));
        let server = server.restart();
        assert_eq!(server.join().history.said(), [r#"{"a":1}"#]);
    }
}

#[test]
fn the_originals_reader_can_load_the_file() {
    let server = Server::on(SEED);
    let mut ann = server.join();
    ann.says(r#"{"user":"Ann","content":"\u00e9"}"#);
    ann.say("{\n\"user\":\"Ann\"\n}");
    ann.hears(r#"{ "user":"Ann" }"#);
    // It reads line by line and parses each.
    let lines = server.lines();
    assert_eq!(lines.len(), 9);
    for line in lines {
        serde_json::from_str::<serde_json::Value>(&line).expect("each line is JSON");
    }
}
