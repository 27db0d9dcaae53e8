//! `kill -9` at any moment: no stamp is shown for another line than its own.

use std::{collections::BTreeMap, thread};

use crate::{house::*, support::*};

/// How often the server is killed.
const KILLS: usize = 16;

/// Says things as a pseudonym until the server is gone.
fn talk(mut client: Client, round: usize, who: &str) {
    for number in 0.. {
        let burst = 1 + number % 5;
        let texts =
            (0..burst).map(|part| format!(r#"{{"by":"{who}","n":[{round},{number},{part}]}}"#));
        if !texts.into_iter().all(|text| client.try_say(&text)) {
            return;
        }
        let mut own = 0;
        while own < burst {
            match client.next() {
                Frame::Message(heard) => own += usize::from(heard.data.contains(who)),
                _ => return,
            }
        }
    }
}

#[track_caller]
fn check_kills(fsync: &str) {
    let setup = Setup::new().flags(&["--fsync", fsync]);
    let mut dice = Dice::new();
    // The stamps that anybody was shown, by id.
    let mut shown: BTreeMap<u64, Told> = BTreeMap::new();
    let mut senders = BTreeMap::new();
    for round in 0..KILLS {
        let server = setup.start();
        let told = server.told("/messages");
        let stamps = server.stamps();
        assert_eq!(stamps.len(), server.lines().len(), "after {round} kills");
        for told in &told {
            let stamp = &stamps[told.id as usize - 1];
            assert!(told.is_stamped(stamp), "{told:?} beside {stamp}");
            // The message says who said it; the key says who that is.
            let by = json(&told.data)["by"].as_str().map(str::to_owned);
            if let Some(from) = &told.from {
                let by = by.clone().expect("only speakers have keys");
                assert!(from.starts_with(&format!("{by}~")), "{told:?}");
                assert_eq!(senders.entry(by).or_insert_with(|| from.clone()), from);
            }
            let known = shown.entry(told.id).or_insert_with(|| told.clone());
            assert_eq!(known, told, "another stamp than before, after {round} kills");
        }
        let times: Vec<u64> = told.iter().filter_map(|told| told.ts).collect();
        assert!(times.is_sorted(), "time goes back");
        let mut listener = server.reads("/ws?limit=0");
        listener.text();
        let talkers: Vec<_> = ["ann", "bob", "cleo"]
            .into_iter()
            .map(|who| {
                let client = server.join_at(&format!("/ws?limit=0&as={who}&key=secret-of-{who}"));
                thread::spawn(move || talk(client, round, who))
            })
            .collect();
        for at in 0..dice.below(400) {
            let told = Told::of(&listener.text());
            let known = shown.entry(told.id).or_insert_with(|| told.clone());
            assert_eq!(*known, told);
            if at % 50 == 0 {
                server.dir.append(format!("{{\"cron\":[{round},{at}]}}\n"));
            }
        }
        drop(server.kill());
        talkers.into_iter().for_each(|talker| talker.join().expect("a talker ends"));
        // Another program appends before the next start.
        setup.dir.append(format!("{{\"between\":{round}}}\n"));
    }
    let known = shown.values().filter(|told| told.from.is_some()).count();
    println!("--fsync {fsync}: {known} of {} messages have a sender", shown.len());
    assert!(known > KILLS * 10, "hardly anything was said: {known}");
}

#[test]
fn no_stamp_is_another_lines_after_kill_9_with_every_sync() {
    check_kills("always");
}

#[test]
fn no_stamp_is_another_lines_after_kill_9_without_a_sync() {
    check_kills("never");
}
