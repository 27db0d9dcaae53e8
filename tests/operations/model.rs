//! Random operations by random people, against a model that is too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json as object};

use crate::{house::*, support::*};

const PEOPLE: [&str; 4] = [ANN, ZOE, BOB, ""];

/// One message as the model has it.
#[derive(Clone, Debug, Default)]
struct Message {
    author: Option<usize>,
    data: String,
    is_edited: bool,
    is_deleted: bool,
    is_pinned: bool,
    /// The people by key; the one who has Ann's key is Ann.
    reactions: BTreeMap<String, BTreeSet<usize>>,
}

/// Who somebody is: 1 has the key of 0, and 3 is nobody.
fn person(who: usize) -> Option<usize> {
    match who {
        0 | 1 => Some(0),
        2 => Some(2),
        _ => None,
    }
}

/// The status that the server should answer with, and what is changed then.
fn decide(messages: &mut BTreeMap<u64, Message>, id: u64, who: usize, what: &What) -> u16 {
    let Some(person) = person(who) else { return 403 };
    let Some(message) = messages.get_mut(&id) else { return 404 };
    if message.is_deleted {
        return 410;
    }
    let is_author = message.author == Some(person);
    match what {
        What::Edit(_) | What::Delete if !is_author => return 403,
        What::Edit(data) => (message.data, message.is_edited) = (data.clone(), true),
        What::Delete => message.is_deleted = true,
        What::React(key) => drop(message.reactions.entry(key.clone()).or_default().insert(person)),
        What::Unreact(key) => {
            if let Some(people) = message.reactions.get_mut(key) {
                people.remove(&person);
                if people.is_empty() {
                    message.reactions.remove(key);
                }
            }
        }
        What::Pin => message.is_pinned = true,
        What::Unpin => message.is_pinned = false,
    }
    200
}

#[derive(Clone, Debug)]
enum What {
    Edit(String),
    Delete,
    React(String),
    Unreact(String),
    Pin,
    Unpin,
}

#[test]
fn what_a_message_is_now_is_what_a_simple_model_says() {
    let mut dice = Dice::new();
    let mut server = Server::start();
    let mut messages: BTreeMap<u64, Message> = BTreeMap::new();
    let mut last_id = 0;
    for step in 0..400 {
        let who = dice.below(4) as usize;
        if step % 8 == 0 {
            let data = format!(r#"{{"said":{step}}}"#);
            last_id = server.posts(PEOPLE[who], &data);
            let author = person(who);
            messages.insert(last_id, Message { author, data, ..Message::default() });
            continue;
        }
        let id = 1 + dice.below(last_id + 1);
        let key = ["a", "b", "c"][dice.below(3) as usize].to_owned();
        let (what, line, body) = match dice.below(12) {
            0..3 => {
                let data = format!(r#"{{"edited":{step}}}"#);
                (What::Edit(data.clone()), format!("PATCH /messages/{id}"), data)
            }
            3 => (What::Delete, format!("DELETE /messages/{id}"), String::new()),
            4..7 => (
                What::React(key.clone()),
                format!("PUT /messages/{id}/reactions/{key}"),
                String::new(),
            ),
            7..9 => (
                What::Unreact(key.clone()),
                format!("DELETE /messages/{id}/reactions/{key}"),
                String::new(),
            ),
            9..11 => (What::Pin, format!("PUT /messages/{id}/pin"), String::new()),
            _ => (What::Unpin, format!("DELETE /messages/{id}/pin"), String::new()),
        };
        let expected = decide(&mut messages, id, who, &what);
        let answer = server.does(&line, PEOPLE[who], &body);
        assert_eq!(answer.status, expected, "{what:?} of {id} by {who}: {answer:?}");
        last_id += u64::from(expected == 200);
        if step % 133 == 0 {
            server = server.restart();
        }
    }
    for _ in 0..2 {
        for (id, message) in &messages {
            check(&server, *id, message);
        }
        let pinned = messages.iter().filter(|(_, one)| one.is_pinned && !one.is_deleted);
        assert_eq!(server.pinned(), pinned.map(|(id, _)| *id).collect::<Vec<_>>());
        server = server.restart();
    }
}

#[track_caller]
fn check(server: &Server, id: u64, message: &Message) {
    if message.is_deleted {
        server.asks(&format!("GET /messages/{id}"), &[]).refuses(410, &[]);
        assert!(server.line(id).starts_with("null "));
        return;
    }
    let state = server.state(id);
    assert_eq!(state["data"], json(&message.data), "{id}");
    assert_eq!(state.get("edited").is_some(), message.is_edited, "{state}");
    assert_eq!(state.get("pinned"), message.is_pinned.then_some(&object!(true)), "{state}");
    let told = state.get("reactions").and_then(Value::as_object).cloned().unwrap_or_default();
    let people = |senders: &Value| -> BTreeSet<usize> {
        let senders = senders.as_array().expect("senders").iter();
        let senders = senders.map(|sender| sender.as_str().expect("a sender"));
        senders.map(|sender| if sender.starts_with("bob~") { 2 } else { 0 }).collect()
    };
    let told: BTreeMap<_, _> =
        told.iter().map(|(key, senders)| (key.clone(), people(senders))).collect();
    assert_eq!(told, message.reactions, "{state}");
}
