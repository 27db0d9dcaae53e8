//! `kill -9` while channels are made, used, and taken away: what was answered is there.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use crate::support::*;

/// How often the server is killed.
const KILLS: usize = 12;

/// What was answered: for each channel, its messages in order of their ids.
type Answered = BTreeMap<String, BTreeMap<u64, String>>;

/// Makes channels of its own and says something there, until the server is gone; counts the answers.
fn work(server: &std::net::SocketAddr, who: usize, round: usize, count: &AtomicU64) -> Answered {
    let mut answered = Answered::new();
    for number in 0.. {
        let name = format!("w{who}-{round}-{}", number / 8);
        if number % 8 == 0 {
            match request(server, &format!("PUT /{name}"), "") {
                Some((201, _)) => drop(answered.entry(name.clone()).or_default()),
                Some(other) => panic!("{other:?}"),
                None => return answered,
            }
        }
        let message = format!("{{\"n\":{number}}}");
        match request(server, &format!("POST /{name}"), &message) {
            Some((201, body)) => {
                let id = json(&body)["id"].as_u64().expect("an id");
                answered.entry(name).or_default().insert(id, message);
                count.fetch_add(1, Relaxed);
            }
            Some(other) => panic!("{other:?}"),
            None => return answered,
        }
    }
    answered
}

/// The status and body of an answer; none when the server is gone.
fn request(server: &std::net::SocketAddr, line: &str, body: &str) -> Option<(u16, String)> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(server, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(&ask_with(line, &["Connection: close"], body)).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}

#[test]
fn what_was_answered_is_there_after_kill_9() {
    let setup = Setup::new().flags(&["--max-channels", "5000"]);
    let mut answered = Answered::new();
    let mut away = Vec::new();
    let mut dice = Dice::new();
    for round in 0..KILLS {
        let server = setup.start();
        let address = server.address();
        let count = Arc::new(AtomicU64::new(0));
        let start = |who| {
            let count = count.clone();
            thread::spawn(move || work(&address, who, round, &count))
        };
        let workers: Vec<_> = (0..3).map(start).collect();
        // Meanwhile some of the older ones are taken away.
        let old: Vec<String> = answered.keys().take(2).cloned().collect();
        for name in old {
            fs::rename(server.file_of(&name), server.file_of(&format!("{name}.removed")))
                .expect("it is there");
            answered.remove(&name);
            away.push(name);
        }
        let killed_at = 5 + dice.below(100);
        until("enough is answered", || count.load(Relaxed) >= killed_at);
        drop(server.kill());
        for worker in workers {
            answered.extend(worker.join().expect("a worker ends with the server"));
        }
    }
    let server = setup.start();
    let names = server.names();
    for (name, messages) in &answered {
        assert!(names.contains(name), "{name} was made and is not there");
        let lines: Vec<String> =
            server.gets(&format!("/{name}.txt")).lines().map(String::from).collect();
        for (id, message) in messages {
            assert_eq!(lines.get(*id as usize - 1), Some(message), "message {id} of {name}");
        }
    }
    assert!(
        answered.values().map(BTreeMap::len).sum::<usize>() > KILLS,
        "hardly anything was said"
    );
    for name in away {
        assert!(!names.contains(&name), "{name} was taken away");
    }
}
