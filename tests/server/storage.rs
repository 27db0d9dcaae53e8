//! A disk that is full, slow or broken: nothing is shown that is not stored, and everybody is told
//! the truth.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::*;

#[test]
fn a_full_disk_is_told_to_the_sender_and_the_server_stays() {
    // Blocks of 512 or 1024 bytes: 8 or 16 KiB, which is no multiple of a line here.
    let server = Setup::new().after("ulimit -f 16").start();
    let (mut ann, mut bob) = (server.join(), server.join());
    let mut stored = Vec::new();
    for number in 0..40 {
        let text = padded(number, 999);
        ann.say(&text);
        match ann.next() {
            Frame::Message(heard) => {
                assert_eq!((heard.id, &heard.data), (stored.len() as u64 + 1, &text));
                stored.push(text);
            }
            Frame::Answer(answer) => {
                assert_eq!(answer.code, "storage_full");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((7..17).contains(&stored.len()), "{} messages fit", stored.len());
    stored.iter().for_each(|text| assert_eq!(bob.hears(text).data, *text));
    // Nothing of what did not fit is left, not even its beginning.
    assert_eq!(server.dir.read(), (stored.join("\n") + "\n").as_bytes());
    // It answers everyone, and those who come are served.
    for _ in 0..3 {
        ann.say(&padded(99, 999));
        ann.is_told("storage_full");
        bob.say(&padded(98, 999));
        bob.is_told("storage_full");
        ann.say("nonsense");
        ann.is_told("not_json");
        assert_eq!(server.join().history.said(), stored);
    }
    // What fits is taken again, after a second at the latest and without a restart.
    let begun = Instant::now();
    loop {
        ann.say("{}");
        match ann.next() {
            Frame::Message(heard) => {
                assert_eq!((heard.id, heard.data.as_str()), (stored.len() as u64 + 1, "{}"));
                break;
            }
            Frame::Answer(answer) => assert_eq!(answer.code, "storage_full"),
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "still full");
        // The server tries at most once a second, and nothing says when the second is over.
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(bob.hears_one().data, "{}");
    drop((ann, bob));
    let words = server.log();
    assert!(words.lines().count() < 10, "too many words about one shortage:\n{words}");
    stored.push("{}".into());
    assert_eq!(server.restart().join().history.said(), stored);
}

#[test]
fn a_file_that_is_longer_than_files_may_be_is_served_all_the_same() {
    // Blocks of 512 or 1024 bytes, so at most 16 KiB; the start writes the end of the file again.
    let said: Vec<String> = (0..40).map(|number| padded(number, 999)).collect();
    let server = Setup::new().after("ulimit -f 16").file(said.join("\n") + "\n").start();
    let mut ann = server.join();
    assert_eq!(ann.history.said(), said);
    ann.say("{}");
    ann.is_told("storage_full");
    let words = server.log();
    assert!(words.contains("could not write the end of the file again"), "{words}");
}

#[test]
fn many_senders_at_a_full_disk_are_all_answered() {
    let server = Setup::new().after("ulimit -f 64").flags(&["--fsync", "never"]).start();
    let speakers: Vec<Client> = (0..8).map(|_| server.join()).collect();
    let refused: usize = thread::scope(|scope| {
        let speakers = each_apart(scope, speakers, |who, mut client| {
            let mut refused = 0;
            for number in 0..60 {
                let text = padded(who * 100 + number, 700);
                client.say(&text);
                // Others are heard in between; one of these two is for this text.
                loop {
                    match client.next() {
                        Frame::Message(heard) if heard.data == text => break,
                        Frame::Message(_) => (),
                        Frame::Answer(answer) => {
                            assert_eq!(answer.code, "storage_full");
                            refused += 1;
                            break;
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            refused
        });
        speakers.into_iter().map(|speaker| speaker.join().expect("an answer to each")).sum()
    });
    let lines = server.lines();
    assert!(refused > 0, "the disk was never full");
    assert_eq!(lines.len() + refused, 8 * 60, "each is either stored or refused");
    assert_eq!(server.join().history.said(), lines);
    assert!(server.dir.read().ends_with(b"}\n"), "whole lines only");
}

#[test]
fn a_sync_that_fails_ends_the_server_and_shows_nothing() {
    // The server gives its clients a second when its file fails.
    in_one_of_a_few_attempts(|| {
        let name = "a_sync_that_fails_ends_the_server_and_shows_nothing";
        let server = Server::on(SEED);
        let (mut ann, mut bob) = (server.join(), server.join());
        ann.says("8");
        bob.hears("8");
        let Some(meddling) = meddle(&server, name, "fdatasync,fsync,sync_file_range:error=EIO")
        else {
            return;
        };
        let setup = server.setup().clone();
        ann.say("9");
        for client in [&mut ann, &mut bob] {
            match client.next() {
                Frame::Close(1011, reason) => assert!(!reason.is_empty(), "a close has a reason"),
                other => panic!("no close with 1011 but {other:?}"),
            }
        }
        server.ends().with(74, &["messages.txt"]);
        drop(meddling);
        // The next start finds out what is really there.
        let server = setup.start();
        let history = server.join().history;
        assert_eq!(history.said()[7], "8");
        assert!(history.last_id <= 9);
    });
}

#[test]
fn a_stop_during_which_the_disk_does_not_answer_says_so_and_is_74() {
    // The disk must hang until the server has given it five seconds.
    with_more_and_more_time([10, 30, 120].map(Duration::from_secs), |hang| {
        let name = "a_stop_during_which_the_disk_does_not_answer_says_so_and_is_74";
        let server = Server::on(SEED);
        let mut ann = server.join();
        let hold = format!("fdatasync,fsync:delay_enter={}", hang.as_micros());
        let Some(meddling) = meddle(&server, name, &hold) else { return };
        ann.say("8");
        until("it is written and about to be synced", || server.lines().len() == 8);
        server.signal("TERM");
        let ended = server.ends();
        meddling.ends_with_the_server();
        ended.with(74, &["messages: the disk did not answer within 5 s", "may be lost"]);
    });
}

#[test]
fn a_write_that_fails_for_good_ends_the_server_and_shows_nothing() {
    // The server gives its clients a second when its file fails.
    in_one_of_a_few_attempts(|| {
        let name = "a_write_that_fails_for_good_ends_the_server_and_shows_nothing";
        let server = Server::on(SEED);
        let (mut ann, mut bob) = (server.join(), server.join());
        let Some(meddling) = meddle(&server, name, "write,writev,pwrite64:error=EIO") else {
            return;
        };
        let setup = server.setup().clone();
        ann.say("8");
        ann.is_closed_with(1011);
        match bob.next() {
            Frame::Close(1011, _) => (),
            other => panic!("no close with 1011 but {other:?}"),
        }
        server.ends().with(74, &["messages.txt"]);
        drop(meddling);
        assert_eq!(setup.start().join().history.last_id, 7);
    });
}

#[test]
fn a_disk_that_has_room_again_is_used_again() {
    let name = "a_disk_that_has_room_again_is_used_again";
    let server = Server::on(SEED);
    let mut ann = server.join();
    let Some(meddling) = meddle(&server, name, "write,writev,pwrite64:error=ENOSPC") else {
        return;
    };
    ann.say("8");
    ann.is_told("storage_full");
    assert_eq!(server.join().history.last_id, 7);
    drop(meddling);
    until("the server has tried again", || {
        ann.say("8");
        matches!(ann.next(), Frame::Message(heard) if heard.id == 8)
    });
    drop(ann);
    assert_eq!(server.restart().join().history.last_id, 8);
}

#[test]
fn a_write_that_claims_what_it_did_not_do_costs_no_stored_message() {
    let name = "a_write_that_claims_what_it_did_not_do_costs_no_stored_message";
    let (stored, lost) = (r#"{"stored":1}"#, r#"{"lost":1}"#);
    // A part of the line, and all of it.
    for claimed in [4, lost.len() + 1] {
        let server = Server::on(SEED);
        let mut ann = server.join();
        assert_eq!(ann.says(stored).id, 8);
        let before = server.dir.read();
        let lie = format!("write:retval={claimed}:when=1");
        let Some(meddling) = meddle(&server, name, &lie) else { return };
        ann.say(lost);
        ann.is_told("storage_full");
        drop(meddling);
        assert_eq!(server.dir.read(), before, "{claimed} bytes claimed");
        until("the server has tried again", || {
            ann.say("9");
            matches!(ann.next(), Frame::Message(heard) if heard.id == 9)
        });
        drop(ann);
        let lines = [SEED, stored, "\n9\n"].concat();
        let server = server.restart();
        assert_eq!(server.join().history.said()[7..], [stored, "9"]);
        assert_eq!(server.dir.read(), lines.as_bytes());
    }
}

#[test]
fn nothing_is_shown_before_it_is_synced_and_many_share_one_sync() {
    // All of them must have spoken before the sync is over.
    with_more_and_more_time([1, 5, 25].map(|n| n * Duration::from_millis(200)), |delay| {
        const CROWD: usize = 20;
        let name = "nothing_is_shown_before_it_is_synced_and_many_share_one_sync";
        let server = Server::start();
        let mut crowd: Vec<Client> = (0..CROWD).map(|_| server.join()).collect();
        let hold = format!("fdatasync,fsync:delay_enter={}", delay.as_micros());
        let Some(_meddling) = meddle(&server, name, &hold) else {
            return;
        };
        let begun = Instant::now();
        crowd[0].says("0");
        let took = begun.elapsed();
        assert!(took >= delay, "shown after {took:?}, before it was synced");
        for (number, client) in crowd.iter_mut().enumerate() {
            client.say(&number.to_string());
        }
        (0..CROWD).for_each(|_| drop(crowd[0].hears_one()));
        let metrics = server.gets("/metrics");
        let syncs =
            metrics.lines().find_map(|line| line.strip_prefix("txtcord_fsync_seconds_count "));
        let syncs: usize = syncs.and_then(|count| count.parse().ok()).expect("a number of syncs");
        assert!(syncs <= 1 + CROWD / 2, "{syncs} syncs for {CROWD} messages and one");
    });
}
