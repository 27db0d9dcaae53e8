//! Times and senders are known for ever: to those who catch up, in the history, after restarts.

use std::{fs, ops::RangeInclusive, process::Command, sync::Arc};

use crate::{house::*, support::*};

/// A server that was told things in every way: `8` by a pseudonym, `9` by nobody, `10` by another
/// program, `11` by a pseudonym over HTTP, on top of the seed.
fn talked() -> Server {
    let server = Server::on(SEED);
    let mut ann = server.join_at(&format!("/ws?{ANN}"));
    let mut bob = server.join();
    ann.says(r#"{"n":8}"#);
    bob.hears(r#"{"n":8}"#);
    bob.says("9");
    server.dir.append("10\n");
    assert_eq!(bob.hears("10").id, 10);
    assert_eq!(server.posts(ANN, "11"), 11);
    bob.hears("11");
    server
}

#[test]
fn times_and_senders_are_the_same_live_in_the_history_and_after_a_restart() {
    let server = Server::on(SEED);
    let mut listener = server.reads("/ws?limit=0");
    listener.text();
    let mut ann = server.join_at(&format!("/ws?{ANN}"));
    ann.says(r#"{"n":8}"#);
    server.join().says("9");
    server.dir.append("10\n");
    let live: Vec<_> = (0..3).map(|_| Told::of(&listener.text())).collect();
    let senders: Vec<_> = live.iter().map(|told| told.from.as_deref()).collect();
    assert_eq!(senders, [Some(ANN_SENDER), None, None]);
    assert!(live.iter().all(|told| told.ts.is_some_and(|ts| ts.abs_diff(now_ms()) < 600_000)));
    assert!(live.is_sorted_by_key(|told| told.ts));

    let check = |server: &Server| {
        let told = server.told("/messages");
        assert!(told[..7].iter().all(|told| told.ts.is_none() && told.from.is_none()));
        assert_eq!(told[7..], live);
        for message in &live {
            assert_eq!(Told::of(&server.gets(&format!("/messages/{}", message.id))), *message);
        }
        // The frame on connect is what it always was.
        let history = server.join().history;
        assert!(!history.frame.contains(r#""ts":"#) && !history.frame.contains(r#""from":"#));
    };
    check(&server);
    drop((ann, listener));
    let server = server.restart();
    check(&server);
    // Time goes on from where it was.
    let next = server.join().says("11");
    assert!(Some(next.ts) >= live[2].ts);
    check_list(&server, next.ts);
    let server = server.restart();
    check_list(&server, next.ts);
}

/// The list of channels knows the time of the last message.
#[track_caller]
fn check_list(server: &Server, ts: u64) {
    let line = json(server.gets("/channels").lines().next().expect("the default channel"));
    assert_eq!(line["ts"].as_u64(), Some(ts));
}

#[test]
fn a_copy_of_a_busy_folder_in_the_order_of_the_readme_has_the_senders_of_what_was_said_before() {
    let server = Server::on(SEED);
    server.posts(ANN, "8");
    let lock = server.dir.path().join("messages.txt.lock");
    until("the lock file tells of it", || {
        fs::read_to_string(&lock).expect("it is there").contains(" stamps 8 ")
    });
    let copy = Dir::new();
    for (at, end) in [".lock", ".stamps", ""].iter().enumerate() {
        let name = format!("messages.txt{end}");
        fs::copy(server.dir.path().join(&name), copy.path().join(&name)).expect("a copy");
        // What is said meanwhile is in the files that are copied afterwards.
        server.posts(ANN, &(9 + at).to_string());
    }
    let epoch = server.join().history.epoch;
    let restored = Setup::at("127.0.0.1:0", Arc::new(copy)).start();
    assert_eq!(restored.join().history.epoch, epoch);
    let told = restored.told("/messages");
    let senders: Vec<_> = told[7..].iter().map(|told| (told.id, told.from.as_deref())).collect();
    assert_eq!(senders, [(8, Some(ANN_SENDER)), (9, None), (10, None)]);
}

#[test]
fn a_copy_of_a_busy_folder_in_any_order_has_the_senders_of_all_but_the_newest_messages() {
    let server = Server::on(SEED);
    let long = format!("\"{}\"", "x".repeat(10_000));
    let say = |ids: RangeInclusive<u64>| {
        ids.clone().for_each(|id| assert_eq!(server.posts(ANN, &long), id));
        let noted = format!(" stamps {} ", ids.end());
        let lock = server.dir.path().join("messages.txt.lock");
        until("the lock file tells of it", || {
            fs::read_to_string(&lock).expect("it is there").contains(&noted)
        });
    };
    let copy = Dir::new();
    for (end, ids) in [("", 8..=40), (".stamps", 41..=42), (".lock", 43..=44)] {
        say(ids);
        let name = format!("messages.txt{end}");
        fs::copy(server.dir.path().join(&name), copy.path().join(&name)).expect("a copy");
    }
    let epoch = server.join().history.epoch;
    let restored = Setup::at("127.0.0.1:0", Arc::new(copy)).start();
    assert_ne!(restored.join().history.epoch, epoch, "its next ids are given out already");
    let told = restored.told("/messages");
    let named = told.iter().filter(|told| told.from.as_deref() == Some(ANN_SENDER));
    let named: Vec<_> = named.map(|told| told.id).collect();
    assert!(named.starts_with(&(8..=32).collect::<Vec<_>>()), "{named:?}");
    assert!(restored.log().contains("kept the stamps of the first"), "{}", restored.log());
}

#[test]
fn paste_and_sed_show_the_chat_with_times_and_names() {
    let server = talked();
    let shown = Command::new("paste")
        .args(["messages.txt.stamps", "messages.txt"])
        .current_dir(server.dir.path())
        .output();
    let shown = String::from_utf8(shown.expect("paste runs").stdout).expect("UTF-8");
    let told = server.told("/messages");
    assert_eq!(shown.lines().count(), 11);
    // As everybody else reads the time.
    let time = shown.lines().last().expect("a line").split(' ').next().expect("a time");
    let date = Command::new("date").args(["-u", "-d", time, "+%s%3N"]).output();
    let ms = String::from_utf8(date.expect("date runs").stdout).expect("ASCII");
    assert_eq!(ms.trim().parse().ok(), told[10].ts);
    for (line, told) in shown.lines().zip(told) {
        let (stamp, text) = line.split_once('\t').expect("two columns");
        assert!(told.is_stamped(stamp), "{told:?} beside {line}");
        assert_eq!(json(text).to_string(), told.data);
    }
    assert_eq!(server.stamps()[..7], ["- -"; 7]);
    assert!(server.stamps()[7].ends_with(&format!("Z {ANN_SENDER}")), "{:?}", server.stamps());
}

#[test]
fn a_client_that_falls_behind_and_one_that_resumes_are_told_who_said_what_and_when() {
    let server = Server::start();
    let mut slow = server.raw_narrow();
    slow.send(server.head("/ws?limit=0", &[]));
    assert_eq!(slow.head_alone().status, 101);
    slow.text();
    let mut ann = server.join_at(&format!("/ws?limit=0&{ANN}"));
    let mut bob = server.join_at("/ws?limit=0");
    for number in 0..60 {
        let speaker = if number % 2 == 0 { &mut ann } else { &mut bob };
        speaker.says_among_others(&padded(number, 60_000));
    }
    let stored = server.told("/messages");
    let heard: Vec<_> = (0..60).map(|_| Told::of(&slow.text())).collect();
    assert!(heard == stored, "what it is told behind is what it is told live");
    for (at, told) in heard.iter().enumerate() {
        assert_eq!(told.from.as_deref(), (at % 2 == 0).then_some(ANN_SENDER), "{at}");
    }
}

#[test]
fn each_channel_has_stamps_of_its_own_that_go_where_it_goes() {
    let server = Server::start();
    assert_eq!(server.asks("PUT /dev", &["Content-Length: 0"]).status, 201);
    let kind = "Content-Type: application/json";
    assert_eq!(server.asked(ask_with(&format!("POST /dev?{ANN}"), &[kind], "1")).status, 201);
    server.posts("", "2");
    let stamps = std::fs::read_to_string(server.dir.join("channels/dev.txt.stamps"));
    assert!(stamps.expect("there are stamps").ends_with(&format!("Z {ANN_SENDER}\n")));
    let server = server.restart();
    let told = server.told("/dev,messages");
    let senders: Vec<_> = told.iter().map(|told| told.from.as_deref()).collect();
    assert_eq!(senders, [Some(ANN_SENDER), None]);
    assert!(told.iter().all(|told| told.ts.is_some()));
}

#[test]
fn without_stamps_no_file_is_left_and_times_are_known_as_long_as_the_server_runs() {
    let setup = Setup::new().flags(&["--no-stamps"]);
    let server = setup.start();
    let heard = server.join_at(&format!("/ws?{ANN}")).says("{}");
    server.join().says("2");
    let told = server.told("/messages");
    assert_eq!((told[0].ts, told[0].from.as_deref()), (Some(heard.ts), Some(ANN_SENDER)));
    assert_eq!(server.told("/messages?since=1h").len(), 2);
    assert_eq!(server.dir.beside().into_keys().collect::<Vec<_>>(), ["messages.txt.lock"]);
    let server = server.restart();
    assert!(server.told("/messages").iter().all(|told| told.ts.is_none() && told.from.is_none()));
    assert_eq!(server.dir.beside().into_keys().collect::<Vec<_>>(), ["messages.txt.lock"]);
    let server = server.stop().variable("TXTCORD_NO_STAMPS", "1").start();
    assert_eq!(server.dir.beside().into_keys().collect::<Vec<_>>(), ["messages.txt.lock"]);
    // With stamps from now on: the lines so far have none.
    let dir = server.stop().dir;
    let server = Setup::at("127.0.0.1:0", dir).start();
    server.posts(ANN, "3");
    assert_eq!(server.stamps()[..2], ["- -", "- -"]);
    assert_eq!(server.told("/messages")[2].from.as_deref(), Some(ANN_SENDER));
}
