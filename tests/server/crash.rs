//! `kill -9` at any moment, again and again: what anyone was shown is there afterwards, the same
//! bytes under the same id.

use std::{collections::BTreeMap, thread};

use crate::support::*;

/// How often each mode is killed.
const KILLS: usize = 24;

/// Everything that anyone was shown, by id.
type Shown = BTreeMap<u64, String>;

/// Says things in bursts and listens, until the server is gone.
fn talk_until_the_end(mut client: Client, name: &str) -> Shown {
    let mut shown = Shown::new();
    for number in 0.. {
        let burst = 1 + number % 7;
        let alive = (0..burst)
            .all(|part| client.try_say(&format!(r#"{{"{name}":[{number},{part}],"é":"\u00e9"}}"#)));
        let mut own = 0;
        while alive && own < burst {
            match client.next() {
                Frame::Message(heard) => {
                    own += usize::from(heard.data.contains(name));
                    shown.insert(heard.id, heard.data);
                }
                Frame::End(_) => return shown,
                other => panic!("{other:?}"),
            }
        }
        if !alive {
            // What had arrived before the connection broke was shown as well.
            while let Frame::Message(heard) = client.next() {
                shown.insert(heard.id, heard.data);
            }
            return shown;
        }
    }
    shown
}

#[track_caller]
fn check_kills(fsync: &str) {
    let setup = Setup::new().flags(&["--fsync", fsync]);
    let mut dice = Dice::new();
    let mut shown = Shown::new();
    for round in 0..=KILLS {
        let server = setup.start();
        let mut listener = server.join();
        let history = listener.history.clone();
        let served = history.by_id();
        for (id, data) in &shown {
            assert_eq!(served.get(id), Some(data), "message {id} after {round} kills");
        }
        // The history was shown too.
        shown.extend(served);
        if round == KILLS {
            break;
        }
        let talkers: Vec<_> = ["ann", "bob", "cleo", "dan"]
            .into_iter()
            .map(|name| {
                let client = server.join_at("/ws?limit=0");
                thread::spawn(move || talk_until_the_end(client, name))
            })
            .collect();
        let heard: Vec<Heard> = (0..dice.below(300)).map(|_| listener.hears_one()).collect();
        drop(server.kill());
        for talker in talkers {
            for (id, data) in talker.join().expect("a talker ends with the server") {
                let known = shown.entry(id).or_insert_with(|| data.clone());
                assert_eq!(*known, data, "two meanings of message {id}");
            }
        }
        for heard in heard {
            let known = shown.entry(heard.id).or_insert_with(|| heard.data.clone());
            assert_eq!(*known, heard.data, "two meanings of message {}", heard.id);
        }
    }
    println!("--fsync {fsync}: {} messages shown over {KILLS} kills", shown.len());
    assert!(shown.len() > KILLS * 10, "hardly anything was said: {}", shown.len());
    assert!(setup.dir.torn().len() <= KILLS);
}

#[test]
fn what_was_shown_survives_kill_9_with_every_sync() {
    check_kills("always");
}

#[test]
fn what_was_shown_survives_kill_9_without_a_sync() {
    check_kills("never");
}

#[test]
fn a_server_killed_while_starting_leaves_the_file_as_good_as_it_was() {
    let setup = Setup::new().file(SEED.to_owned() + "{\"torn\":");
    for _ in 0..10 {
        // At whatever it is doing right now.
        drop(setup.begin());
    }
    let server = setup.start();
    assert_eq!(server.join().history.said(), SEED.lines().collect::<Vec<_>>());
    assert!(server.dir.torn().contains(&b"{\"torn\":".to_vec()), "the tail is saved");
}
