//! Files that are removed, disks that are full, and things in the way.

use std::{fs, io::Write, thread, time::Duration};

use crate::{house::*, support::*};

/// All messages have their own stamps, and the stamps file has one line for each line.
#[track_caller]
fn check(server: &Server) {
    let told = server.told("/messages");
    let stamps = server.stamps();
    assert_eq!(stamps.len(), server.lines().len());
    for told in told {
        let stamp = &stamps[told.id as usize - 1];
        assert!(told.is_stamped(stamp), "{told:?} beside {stamp}");
    }
}

#[test]
fn stamps_that_are_removed_while_the_server_runs_come_back() {
    let server = Server::on(SEED);
    server.posts(ANN, "8");
    let before = server.stamps();
    fs::remove_file(server.stamps_path()).expect("the stamps file");
    server.posts("", "9");
    let lines = || fs::read_to_string(server.stamps_path()).map_or(0, |text| text.lines().count());
    until("the stamps are there again", || lines() == 9);
    let after = server.stamps();
    assert_eq!(after[..8], before);
    check(&server);
    assert!(server.log().contains("messages.txt.stamps was removed"), "{}", server.log());
    check(&server.restart());
}

#[test]
fn a_full_disk_refuses_a_message_whose_stamp_has_no_room() {
    // Blocks of 512 or 1024 bytes. The stamps of such short messages fill them first.
    let server = Setup::new().after("ulimit -f 16").start();
    let mut ann = server.join_at(&format!("/ws?{ANN}"));
    let mut stored = 0;
    loop {
        ann.say(&stored.to_string());
        match ann.next() {
            Frame::Message(heard) => {
                stored += 1;
                assert_eq!(heard.id, stored);
            }
            Frame::Answer(answer) => {
                assert_eq!(answer.code, "storage_full");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((100..1_000).contains(&stored), "{stored} messages fit");
    assert_eq!(server.lines().len() as u64, stored, "nothing of what was refused is there");
    check(&server);
    // It stays, and answers.
    for _ in 0..3 {
        ann.say("0");
        ann.is_told("storage_full");
    }
    // Lines of other programs are taken in all the same. They have no stamp.
    server.dir.append("\"cron\"\n");
    assert_eq!(ann.hears(r#""cron""#).id, stored + 1);
    let last = |server: &Server| server.told("/messages").pop().expect("a message");
    assert_eq!((last(&server).ts, last(&server).from), (None, None));
    let words = server.log();
    assert!(words.lines().count() < 10, "too many words about one shortage:\n{words}");
    drop(ann);
    // With room again, each line has its line.
    let dir = server.stop().dir;
    let server = Setup::at("127.0.0.1:0", dir).start();
    server.posts("", "1");
    check(&server);
}

#[test]
fn room_for_stamps_is_found_again_without_a_restart() {
    // A shortage that lasts for half a minute is told again.
    in_one_of_a_few_attempts(|| {
        let name = "room_for_stamps_is_found_again_without_a_restart";
        let server = Server::on(SEED);
        let mut ann = server.join();
        let path = server.stamps_path();
        let path = path.to_str().expect("a UTF-8 path");
        let Some(meddling) = meddle_with(&server, name, "pwrite64:error=ENOSPC", path) else {
            return;
        };
        for _ in 0..3 {
            ann.say("8");
            ann.is_told("storage_full");
            // The server tries at most once a second, and nothing says when the second is over.
            thread::sleep(Duration::from_millis(600));
        }
        assert_eq!(server.dir.read(), SEED.as_bytes(), "text and stamp are one promise");
        drop(meddling);
        until("the server has tried again", || {
            ann.say("8");
            matches!(ann.next(), Frame::Message(heard) if heard.id == 8)
        });
        let words = server.log();
        assert!(
            words.lines().filter(|line| line.contains("no room for stamps")).count() == 1,
            "{words}"
        );
        check(&server);
    });
}

#[test]
fn what_stands_in_the_place_of_the_stamps_ends_the_start_with_the_way_out() {
    let setup = Setup::new().file(SEED);
    let path = setup.dir.join("messages.txt.stamps");
    fs::create_dir(&path).expect("a folder");
    setup.ends().with(66, &["messages.txt.stamps", "is a directory", "--no-stamps"]);
    assert_eq!(setup.dir.read(), SEED.as_bytes());
    setup.clone().flags(&["--no-stamps"]).start().join().says("8");
    fs::remove_dir(&path).expect("the folder");
    std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
    setup.ends().with(66, &["messages.txt.stamps", "is a symbolic link", "--no-stamps"]);
}

#[test]
fn stamps_of_another_text_are_set_aside_and_said_so() {
    let server = Server::on(SEED);
    server.posts(ANN, "8");
    let stamps = server.stamps();
    let setup = server.stop();
    setup.dir.write("1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    let server = setup.start();
    assert_eq!(server.stamps(), ["- -"; 9]);
    let old = server.dir.beside().into_iter().find(|(name, _)| name.contains(".stamps.old-"));
    let (name, old) = old.expect("they are still there");
    assert_eq!(String::from_utf8(old).expect("UTF-8").lines().collect::<Vec<_>>(), stamps);
    assert!(server.log().contains(&name), "{}", server.log());
    check(&server);
}

/// A server with a message by Ann, and a client that keeps its hub awake; its epoch.
fn with_lock_file() -> (Server, Client, String) {
    let server = Server::on(SEED);
    server.posts(ANN, "8");
    let client = server.join();
    let epoch = client.history.epoch.clone();
    (server, client, epoch)
}

/// The epoch is the same, and so are times and senders.
#[track_caller]
fn check_kept(server: &Server, epoch: &str) {
    assert_eq!(server.join().history.epoch, epoch);
    let told = server.told("/messages").pop().expect("a message");
    assert!(told.ts.is_some() && told.from.as_deref() == Some(ANN_SENDER), "{told:?}");
    let log = server.log();
    assert!(!log.contains("was not written for this text"), "{log}");
}

#[test]
fn a_lock_file_that_is_removed_or_replaced_while_the_server_runs_comes_back() {
    for replace in ["rm", "mv new"] {
        let (server, client, epoch) = with_lock_file();
        let lock = server.dir.join("messages.txt.lock");
        fs::write(server.dir.join("new"), "0123456789".repeat(100)).expect("a file");
        let folder = server.dir.path().display();
        shell(&format!("cd '{folder}' && {replace} messages.txt.lock"));
        let lines = || fs::read_to_string(&lock).unwrap_or_default();
        until("it is there again", || lines().starts_with(&format!("epoch {epoch} lines 8 ")));
        until("the log says so", || server.log().contains("messages.txt.lock was re"));
        let Err(ended) = server.setup().try_start() else { panic!("two servers of one file") };
        ended.with(73, &["messages.txt.lock"]);
        drop(client);
        check_kept(&server.restart(), &epoch);
    }
}

#[test]
fn a_lock_file_that_is_removed_while_nobody_is_there_comes_back_at_the_stop() {
    let (server, client, epoch) = with_lock_file();
    let lock = server.dir.join("messages.txt.lock");
    drop(client);
    let size = server.size();
    server.shrinks_to(size);
    fs::remove_file(&lock).expect("the lock file");
    check_kept(&server.restart(), &epoch);
}

#[test]
fn of_two_servers_that_use_one_file_the_one_that_lost_its_lock_file_ends() {
    let (server, client, epoch) = with_lock_file();
    server.freezes();
    fs::remove_file(server.dir.join("messages.txt.lock")).expect("the lock file");
    let other = server.setup().start();
    server.signal("CONT");
    let words = ["messages.txt.lock was replaced", "another server uses the file now"];
    server.ends().with(75, &words);
    drop(client);
    // It did nothing to the stamps file of the other.
    other.posts(ANN, "9");
    check(&other);
    assert!(!other.log().contains("messages.txt.stamps was re"), "{}", other.log());
    assert_ne!(other.join().history.epoch, epoch, "nothing said what it was");
}

#[test]
fn what_stands_in_the_place_of_the_lock_file_is_told_once_and_looked_at_again() {
    let (server, client, epoch) = with_lock_file();
    let lock = server.dir.join("messages.txt.lock");
    fs::remove_file(&lock).expect("the lock file");
    fs::create_dir(&lock).expect("a folder");
    let words = "cannot be written again: is a directory";
    until("the log says so", || server.log().contains(words));
    // Two more looks.
    thread::sleep(Duration::from_millis(1200));
    assert_eq!(server.log().matches(words).count(), 1, "{}", server.log());
    fs::remove_dir(&lock).expect("the folder");
    until("it is there again", || lock.is_file());
    drop(client);
    check_kept(&server.restart(), &epoch);
}

#[test]
fn a_clock_that_was_wrong_once_is_told_with_the_way_out() {
    const WRONG: &str = "2100-01-01T00:00:00.000Z";
    let server = Server::on(SEED);
    (8..=17).for_each(|id: u64| assert_eq!(server.posts(ANN, &id.to_string()), id));
    let path = server.stamps_path();
    // As it is after a message was stored with that time, and a crash.
    let setup = server.kill();
    setup.dir.append("18\n");
    let stamps = fs::OpenOptions::new().append(true).open(&path);
    writeln!(stamps.expect("the stamps file"), "{WRONG} -").expect("it can be written");
    let server = setup.start();
    let words = ["the last time is 2100-01-01T00:00:00Z", "that same time until", "off the end of"];
    until("the log says so", || words.iter().all(|word| server.log().contains(word)));
    for message in ["19", "20"] {
        server.posts("", message);
    }
    let last = server.told("/messages").pop().expect("a message");
    assert_eq!(last.ts, Some(ms_of(WRONG)));
    assert_eq!(server.log().matches(words[0]).count(), 1, "{}", server.log());
    // The way out.
    let setup = server.stop();
    shell(&format!("sed -i /^2100/d '{}'", path.display()));
    let server = setup.start();
    server.posts("", "21");
    assert!(!server.log().contains(words[0]), "{}", server.log());
    let told = server.told("/messages");
    assert!(told[20].ts.is_some_and(|ts| ts.abs_diff(now_ms()) < 600_000), "{told:?}");
    assert!(told[7..16].iter().all(|told| told.from.as_deref() == Some(ANN_SENDER)), "{told:?}");
}

#[test]
fn a_lock_file_that_says_nonsense_is_told() {
    let (server, client, epoch) = with_lock_file();
    drop(client);
    let setup = server.stop();
    fs::write(setup.dir.join("messages.txt.lock"), "nonsense\n").expect("the lock file");
    let server = setup.start();
    assert_ne!(server.join().history.epoch, epoch);
    let words = "messages.txt.lock says nothing that the server knows";
    assert!(server.log().contains(words), "{}", server.log());
    assert!(!server.restart().log().contains(words), "the server has written it anew");
}
