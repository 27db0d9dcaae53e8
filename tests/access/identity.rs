//! Nobody, a pseudonym by a key, a name by a token: what stands beside the data.

use serde_json::json as object;

use crate::{house::*, support::*};

const KEY: &str = "key=correct+horse";

#[test]
fn without_any_flag_everybody_is_nobody_and_may_read_and_post() {
    let server = Server::start();
    assert_eq!(server.me("", &[]), object!({"may": {"messages": ["read", "post"]}}));
    let mut ann = server.join_at("/ws?as=ann");
    ann.say(r#"{"user":"bob","from":"bob"}"#);
    assert_eq!(ann.hears(r#"{"user":"bob","from":"bob"}"#).from, None);
    let stored = server.lines();
    assert_eq!(stored, [r#"{"user":"bob","from":"bob"}"#]);
}

#[test]
fn a_key_makes_a_pseudonym_that_stands_beside_the_data_wherever_it_speaks() {
    let server = Server::start();
    let ann = format!("ann{HORSE}");
    assert_eq!(
        server.me(&format!("as=ann&{KEY}"), &[]),
        object!({"from": ann, "may": {"messages": ["read", "post"]}})
    );
    assert_eq!(server.me("as=ann", &["Txtcord-Key: correct horse"])["from"], ann);
    assert_eq!(server.me(&format!("as=Bob+B.&{KEY}"), &[])["from"], format!("Bob B.{HORSE}"));
    let mut listener = server.join();
    let mut speaker = server.join_at(&format!("/ws?as=ann&{KEY}"));
    speaker.say("hello");
    let heard = listener.hears(r#"{"user":"ann","content":"hello"}"#);
    assert_eq!(heard.from.as_deref(), Some(&*ann));
    assert_eq!(speaker.hears_one(), heard, "the speaker hears what all hear");
    speaker.say(r#"{"user":"eve"}"#);
    assert_eq!(listener.hears(r#"{"user":"eve"}"#).from.as_deref(), Some(&*ann));
    assert_eq!(server.does("POST /messages", &format!("as=ann&{KEY}"), "[1]").status, 201);
    assert_eq!(listener.hears("[1]").from.as_deref(), Some(&*ann));
    // The text file has what was said and nothing else.
    assert_eq!(server.lines(), [r#"{"user":"ann","content":"hello"}"#, r#"{"user":"eve"}"#, "[1]"]);
}

#[test]
fn posts_of_many_senders_that_come_together_keep_each_its_sender() {
    let server = Server::start();
    let mut listener = server.join();
    let speakers: Vec<_> = (0..8)
        .map(|n: u64| match n % 2 {
            0 => server.join_at(&format!("/ws?as=p{n}&key=the+key+of+{n}")),
            _ => server.join(),
        })
        .collect();
    std::thread::scope(|scope| {
        for (n, mut speaker) in speakers.into_iter().enumerate() {
            scope.spawn(move || {
                for count in 0..50 {
                    speaker.say(&format!(r#"{{"n":{n},"count":{count}}}"#));
                }
                (0..400).for_each(|_| drop(speaker.hears_one()));
            });
        }
        for _ in 0..400 {
            let heard = listener.hears_one();
            let n = json(&heard.data)["n"].as_u64().expect("a number");
            match &heard.from {
                Some(from) => {
                    assert!(n.is_multiple_of(2) && from.starts_with(&format!("p{n}~")), "{heard:?}")
                }
                None => assert!(n % 2 == 1, "{heard:?}"),
            }
        }
    });
}

#[test]
fn a_token_is_a_name_and_what_else_is_claimed_counts_for_nothing() {
    let server = with_rules(&format!("ann.b-1 {FOO} * read,post\n")).start();
    let is_ann = |query: &str, headers: &[&str]| {
        assert_eq!(server.me(query, headers)["from"], "ann.b-1", "{query} {headers:?}");
    };
    is_ann("token=foo", &[]);
    is_ann("", &["Authorization: Bearer foo"]);
    is_ann(&format!("as=bob&{KEY}&token=foo"), &["Txtcord-Key: something else"]);
    is_ann("as=bob&key=short", &["Authorization: Bearer foo"]);
    let mut client = server.join_at(&format!("/ws?token=foo&as=bob&{KEY}"));
    client.say("hi");
    let heard = client.hears(r#"{"user":"bob","content":"hi"}"#);
    assert_eq!(heard.from.as_deref(), Some("ann.b-1"));
    // Words without a name are the owner's.
    let words = ask_with(
        "POST /messages",
        &["Content-Type: text/plain", "Authorization: Bearer foo"],
        "hi",
    );
    assert_eq!(server.asked(words).status, 201);
    let heard = client.hears(r#"{"user":"ann.b-1","content":"hi"}"#);
    assert_eq!(heard.from.as_deref(), Some("ann.b-1"));
}

#[test]
fn a_token_that_nobody_has_is_refused_also_before_an_upgrade() {
    let servers = [Server::start(), with_rules(&format!("ann {FOO} * admin\n")).start()];
    for server in &servers {
        for line in ["GET /messages", "GET /me", "POST /messages", "PUT /dev", "GET /channels"] {
            let answer = server.does(line, "token=nobodys", "");
            answer.refuses(401, &["token"]);
            assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
        }
        assert_eq!(server.upgrade("/ws?token=nobodys", &[]), 401);
        assert_eq!(server.upgrade("/ws", &[("Authorization", "Bearer nobodys")]), 401);
        server.has("GET /me", &["Authorization: Bearer"]).refuses(401, &["token"]);
        // The page and what operators ask are for everybody.
        for path in ["/", "/healthz", "/readyz", "/metrics"] {
            assert_eq!(server.has(&format!("GET {path}?token=nobodys"), &[]).status, 200, "{path}");
        }
    }
}

#[test]
fn forged_senders_never_stand_beside_a_message() {
    let server = Server::start();
    let mut listener = server.join();
    // Refused, whatever the door.
    for query in [
        "key=correct+horse",
        "as=&key=correct+horse",
        "as=ann&key=7%20bytes",
        &format!("as=ann&key={}", "k".repeat(257)),
        &format!("as={}&key=correct+horse", "n".repeat(65)),
        "as=ann~k3v9q2m7x4ab&key=correct+horse",
        "as=ann%0A&key=correct+horse",
        "as=ann%E2%80%AE&key=correct+horse",
        "as=ann%E2%81%A6&key=correct+horse",
        "as=ann%E2%80%A8&key=correct+horse",
        "as=%FF&key=correct+horse",
    ] {
        assert_eq!(server.upgrade(&format!("/ws?{query}"), &[]), 400, "{query}");
        let answer = server.does("POST /messages", query, "1");
        answer.refuses(400, &[]);
        server.has(&format!("GET /messages?{query}"), &[]).refuses(400, &[]);
    }
    assert_eq!(server.upgrade("/ws?as=ann", &[("Txtcord-Key", "7 bytes")]), 400);
    // Taken, and from nobody.
    for (query, headers) in [
        ("as=ann~k3v9q2m7x4ab", &[][..]),
        ("from=ann", &["From: ann", "Txtcord-From: ann"]),
        ("Key=correct+horse&as=ann", &["X-Txtcord-Key: correct horse"]),
        ("as=ann", &["Authorization: Basic YW5uOmFubg==", "Cookie: key=correct horse"]),
    ] {
        let line = format!("POST /messages?{query}");
        let kind = ["Content-Type: application/json"];
        let body = r#"{"from":"ann","ts":1,"id":2}"#;
        let answer = server.asked(ask_with(&line, &[headers, &kind].concat(), body));
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(listener.hears(body).from, None, "{query} {headers:?}");
    }
    // A name with marks of JSON is a string of JSON.
    let odd = "as=a%22%2C%22from%22%3A%22ann&key=correct+horse";
    assert_eq!(server.does("POST /messages", odd, "1").status, 201);
    assert_eq!(listener.hears("1").from, Some(format!("a\",\"from\":\"ann{HORSE}")));
}

#[test]
fn an_idempotency_key_is_its_sender_s_own() {
    let server = with_rules(&format!("ann {FOO} * read,post\n* - messages read,post\n")).start();
    let posts = |query: &str, body: &str| {
        let kind = ["Content-Type: application/json", "Idempotency-Key: order-1"];
        let answer = server.asked(ask_with(&format!("POST /messages?{query}"), &kind, body));
        assert_eq!(answer.status, 201, "{answer:?}");
        json(&answer.body)["id"].as_u64().expect("an id")
    };
    assert_eq!(posts("", "1"), 1);
    assert_eq!(posts("token=foo", "2"), 2);
    assert_eq!(posts("as=ann&key=correct+horse", "3"), 3);
    // Under another name it is the same person.
    assert_eq!(posts("as=bob&key=correct+horse", "3"), 3);
    assert_eq!(posts("as=ann&key=battery+staple", "4"), 4);
    assert_eq!(posts("as=ann", "1"), 1);
    assert_eq!(posts("token=foo", "2"), 2);
    assert_eq!(server.lines(), ["1", "2", "3", "4"]);
}
