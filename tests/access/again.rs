//! The access file is read again on SIGHUP, while everything goes on.

use std::time::{Duration, Instant};

use crate::{house::*, support::*};

/// Sends SIGHUP and waits until the server has said that it read the file, or could not.
#[track_caller]
fn reads_again(server: &Server, rules: &str, says: &str) {
    write_rules(server.setup(), rules);
    let before = server.log().matches(says).count();
    server.signal("HUP");
    let deadline = Instant::now() + PATIENCE;
    while server.log().matches(says).count() == before {
        assert!(Instant::now() < deadline, "{}", server.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn who_lost_the_right_to_read_is_closed_and_who_lost_the_right_to_post_is_told() {
    let everything = format!("ann {FOO} * admin\nbob {BAR} * read,post\n");
    let server = with_rules(&everything).start();
    assert_eq!(server.does("PUT /dev", "token=foo", "").status, 201);
    let mut ann = server.join_at("/dev/ws?token=foo");
    let mut bob = server.join_at("/dev/ws?token=bar");
    let mut bob_elsewhere = server.join_at("/ws?token=bar");
    let mut stream = server.listens("/dev?follow=1&token=bar", &[]);
    let mut several = server.listens("/dev,messages?follow=1&token=bar", &[]);
    let mut all = server.listens("/*?follow=1&token=bar", &[]);
    let mut list = server.listens("/channels?follow=1&token=bar", &[]);
    assert_eq!(list.json()["channel"], "dev");
    assert_eq!(list.json()["channel"], "messages");
    bob.says("1");
    assert_eq!(stream.json()["id"], 1);
    assert_eq!((several.json()["id"].as_u64(), all.json()["id"].as_u64()), (Some(1), Some(1)));
    assert_eq!(list.json()["last_id"], 1);
    let rules = format!("ann {FOO} * admin\nbob {BAR} messages read\n");
    reads_again(&server, &rules, "was read again");
    let reason = bob.is_closed_with(1008);
    assert!(reason.contains("read"), "{reason}");
    assert_eq!((stream.line(), several.line()), (None, None), "the streams are over");
    let removed = list.json();
    assert_eq!((&removed["channel"], &removed["removed"]), (&"dev".into(), &true.into()));
    ann.hears("1");
    ann.says("2");
    bob_elsewhere.say("3");
    bob_elsewhere.is_told("forbidden");
    assert_eq!(server.does("POST /messages", "token=bar", "1").status, 403);
    server.has("GET /dev?token=bar", &[]).refuses(404, &["dev"]);
    // The stream of all goes on with what is left.
    assert_eq!(server.does("POST /messages", "token=foo", "4").status, 201);
    assert_eq!(all.json()["channel"], "messages");
    // And back.
    reads_again(&server, &everything, "was read again");
    bob_elsewhere.hears("4");
    bob_elsewhere.says("5");
    server.join_at("/dev/ws?token=bar").says("6");
    ann.hears("6");
    let new = list.json();
    assert_eq!((&new["channel"], &new["new"]), (&"dev".into(), &true.into()), "{new}");
}

#[test]
fn a_mistake_keeps_the_old_rules_and_is_logged() {
    let rules = format!("ann {FOO} * admin\n* - messages read,post\n");
    let server = with_rules(&rules).start();
    let mut nobody = server.join();
    reads_again(&server, "ann nonsense\n", "the rules stay as they were");
    let log = server.log();
    assert!(log.contains("access:1:") && log.contains("four columns"), "{log}");
    nobody.says("1");
    assert_eq!(server.me("token=foo", &[])["from"], "ann");
    std::fs::remove_file(server.dir.join("access")).expect("it is there");
    server.signal("HUP");
    let deadline = Instant::now() + PATIENCE;
    while server.log().matches("the rules stay as they were").count() < 2 {
        assert!(Instant::now() < deadline, "{}", server.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    nobody.says("2");
}

#[test]
fn rules_change_under_load_and_nothing_is_lost_or_doubled() {
    let (open, shut) =
        (format!("ann {FOO} * read,post\n* - messages read\n"), format!("ann {FOO} * read,post\n"));
    let server = with_rules(&open).start();
    let mut listener = server.join_at("/ws?token=foo");
    let mut speaker = server.join_at("/ws?token=foo");
    std::thread::scope(|scope| {
        let talk = scope.spawn(move || (0..2_000).for_each(|n| drop(speaker.says(&n.to_string()))));
        for _ in 0..10 {
            let mut nobody = server.join();
            reads_again(&server, &shut, "was read again");
            nobody.is_closed_with(1008);
            assert_eq!(server.upgrade("/ws", &[]), 404);
            reads_again(&server, &open, "was read again");
        }
        talk.join().expect("the speaker hears each of its messages");
    });
    (0..2_000).for_each(|n| drop(listener.hears(&n.to_string())));
}
