//! Deleting erases: on disk, under load, and after `kill -9` at any moment.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::Value;

use crate::{house::*, support::*};

/// What no answer may have that began after the delete was answered.
fn secret(number: usize) -> String {
    format!("secret-{number}-")
}

/// A message of some length; every third one is longer than what a socket takes at once.
fn message(number: usize) -> String {
    let len = if number.is_multiple_of(3) { 60_000 } else { 300 };
    format!(r#"{{"user":"ann","content":"{}{}é\""}}"#, secret(number), "x".repeat(len))
}

#[test]
fn a_message_with_many_long_edits_is_deleted_in_little_memory_at_a_start_too() {
    const MEMORY_KIB: u64 = 40 << 10;
    let edit = format!("{{\"$op\":\"edit\",\"id\":1,\"data\":\"{}\"}}\n", "x".repeat(1_000_000));
    let check = |server: &Server| {
        until("it is deleted", || server.does("GET /messages/1", "", "").status == 410);
        let text = server.dir.read();
        assert!(text.starts_with(b"null") && !text.contains(&b'x'), "so are its edits");
        let memory = server.status("VmHWM");
        assert!(memory < MEMORY_KIB, "{memory} KiB");
    };
    let text = "[\"said\"]\n".to_owned() + &edit.repeat(60);
    let server = Server::on(&text);
    server.dir.append("{\"$op\":\"delete\",\"id\":1}\n");
    check(&server);
    // As a crash leaves it, right after the operation was stored.
    check(&Server::on(&(text + "{\"$op\":\"delete\",\"id\":1}\n")));
}

#[test]
fn what_stands_in_the_place_of_the_file_beside_stops_no_start_and_no_server() {
    for thing in ["mkfifo", "mkdir", "ln -s elsewhere"] {
        let setup = Setup::new().file("[\"one\"]\n[\"two\"]\n");
        fs::create_dir(setup.dir.join("channels")).expect("a folder");
        fs::write(setup.dir.join("channels/ok.txt"), "[1]\n").expect("a file");
        let path = setup.dir.join("messages.txt.erasing");
        let of_channel = setup.dir.join("channels/ok.txt.erasing");
        for path in [&path, &of_channel] {
            shell(&format!("{thing} '{}'", path.display()));
        }
        let server = setup.start();
        let words = "messages.txt.erasing is no regular file; move it away";
        assert!(server.log().contains(words), "{thing}: {}", server.log());
        assert_eq!(server.gets("/ok").lines().count(), 1);
        assert_eq!(server.posts(ANN, "[3]"), 3);
        let why = server.may_not("DELETE /messages/3", ANN, "", 503, "storage_full");
        assert!(why.contains("cannot delete"), "{why}");
        // What others delete is erased when that can be done.
        server.dir.append("{\"$op\":\"delete\",\"id\":2}\n");
        until("it is deleted", || server.does("GET /messages/2", "", "").status == 410);
        until("that is tried", || server.log().contains("cannot be erased now"));
        assert_eq!(server.state(1)["id"], 1);
        fs::rename(&path, setup.dir.join("away")).expect("it is still there");
        until("it is erased", || server.line(2) == "null   ");
        server.did("DELETE /messages/3", ANN, "");
        assert!(!setup.dir.join("elsewhere").exists(), "no link is followed");
        server.restart();
    }
}

/// The messages that were deleted, and whether more will be.
#[derive(Default)]
struct Deleted {
    numbers: Mutex<BTreeSet<usize>>,
    is_over: AtomicBool,
}

impl Deleted {
    /// The texts that must not be seen from now on.
    fn secrets(&self) -> Vec<String> {
        self.numbers.lock().unwrap().iter().map(|&number| secret(number)).collect()
    }

    /// Reads with `read`, again and again until all is deleted, and once more; what it gives is all
    /// bytes of one answer.
    fn watch(&self, read: impl Fn() -> Vec<u8>) {
        loop {
            let is_last = self.is_over.load(Ordering::SeqCst);
            let secrets = self.secrets();
            let text = String::from_utf8(read()).expect("UTF-8");
            for secret in secrets {
                assert!(!text.contains(&secret), "{secret} was deleted before");
            }
            if is_last {
                return;
            }
        }
    }
}

/// Tells those who watch that no more is deleted, when it is dropped: after a failure too.
struct Over<'a>(&'a Deleted);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {}", cut(text)))
}

/// Each line is JSON, but for those that are named.
fn check_lines(text: &str) {
    text.lines().for_each(|line| drop(parse(line)));
}

#[test]
fn twenty_readers_get_valid_json_while_messages_are_erased_under_them() {
    const MESSAGES: usize = 90;
    let server = Server::start();
    let mut lines = String::new();
    (1..=MESSAGES).for_each(|number| lines += &(message(number) + "\n"));
    for part in lines.as_bytes().chunk_by(|a, _| *a != b'\n').collect::<Vec<_>>().chunks(40) {
        let line = format!("POST /messages?{ANN}");
        let body = String::from_utf8(part.concat()).unwrap();
        let fields = ["Content-Type: application/x-ndjson"];
        assert_eq!(server.asked(ask_with(&line, &fields, &body)).status, 201);
    }
    let size = server.dir.read().len();
    let deleted = Arc::new(Deleted::default());
    let (server, of) = (&server, &deleted);
    // Clients that take nothing while messages are deleted: they have a part of one that is erased.
    let deaf: Vec<Raw> = (0..4).map(|_| server.deaf_join()).collect();
    // The hub knows them before they are sent anything.
    deaf.iter().for_each(|raw| assert_eq!(raw.stream.peek(&mut [0]).expect("a byte"), 1));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| of.watch(|| server.join().history.frame.into_bytes()));
            scope.spawn(|| {
                of.watch(|| {
                    let text = server.gets("/messages");
                    check_lines(&text);
                    text.into_bytes()
                });
            });
            scope.spawn(|| {
                of.watch(|| {
                    let answer = server.asks("GET /messages", &["Accept: application/json"]);
                    parse(&answer.body);
                    answer.body.into_bytes()
                });
            });
            scope.spawn(|| {
                of.watch(|| {
                    let answer = server.asks("GET /messages.txt", &[]);
                    assert!(answer.body.len() >= size, "the file never gets shorter");
                    check_lines(&answer.body);
                    answer.body.into_bytes()
                });
            });
        }
        let over = Over(of);
        for number in 1..=MESSAGES {
            // Some have an edit, which goes with the message.
            if number.is_multiple_of(5) {
                server.did(&format!("PATCH /messages/{number}"), ANN, &message(number));
            }
            server.did(&format!("DELETE /messages/{number}"), ANN, "");
            of.numbers.lock().unwrap().insert(number);
        }
        server.posts(ANN, r#"{"user":"the end"}"#);
        drop(over);
        for mut raw in deaf {
            scope.spawn(move || {
                assert_eq!(raw.response().status, 101);
                // The history and all that is said since then, in whole frames of JSON.
                while parse(&raw.text())["data"]["user"] != "the end" {}
            });
        }
    });
    let text = String::from_utf8(server.dir.read()).unwrap();
    assert!(!text.contains("secret-"));
    check_lines(&text);
    assert_eq!(server.join().history.messages().len(), MESSAGES + 1, "the operations, and the end");
}

/// Checks that what every delete in the file names is erased, and what none names is there.
#[track_caller]
fn check_file(server: &Server, messages: usize, answered: &BTreeSet<usize>, when: &str) {
    let lines = server.lines();
    for number in 1..=messages {
        let operation = format!(r#"{{"$op":"delete","id":{number}}}"#);
        let is_deleted = lines[messages..].contains(&operation);
        let secrets = lines.iter().filter(|line| line.contains(&secret(number))).count();
        assert!(is_deleted || !answered.contains(&number), "{number} was answered, {when}");
        assert_eq!(secrets == 0, is_deleted, "{number}, {when}: {secrets} lines have it");
        let status = server.asks(&format!("GET /messages/{number}"), &[]).status;
        assert_eq!(status, if is_deleted { 410 } else { 200 }, "{number}, {when}");
    }
}

#[test]
fn a_kill_at_any_system_call_of_a_delete_leaves_nothing_that_was_deleted() {
    let mut kills = 0;
    for call in ["write", "pwrite64", "fdatasync", "fsync", "openat", "ftruncate", "unlink"] {
        for time in 1.. {
            match is_killed_at(call, time) {
                Some(true) => kills += 1,
                Some(false) => break,
                None => return,
            }
        }
    }
    assert!(kills > 10, "a delete makes more calls than {kills}");
}

#[test]
fn without_room_nothing_is_deleted_and_what_others_delete_is_erased_when_there_is_some() {
    const TEST: &str =
        "without_room_nothing_is_deleted_and_what_others_delete_is_erased_when_there_is_some";
    let server = Server::on("[\"one\"]\n");
    assert_eq!(server.posts(ANN, "[\"secret\"]"), 2);
    let text = || String::from_utf8(server.dir.read()).expect("UTF-8");
    let before = text();
    let beside = server.dir.join("messages.txt.erasing");
    let path = beside.to_str().expect("a UTF-8 path");
    let Some(meddling) = meddle_with(&server, TEST, "openat:error=ENOSPC", path) else { return };
    server.may_not("DELETE /messages/2", ANN, "", 503, "storage_full");
    assert_eq!((text(), server.state(2)["id"].clone()), (before.clone(), 2.into()));
    let delete = "{\"$op\":\"delete\",\"id\":1}\n";
    server.dir.append(delete);
    until("it is deleted", || server.does("GET /messages/1", "", "").status == 410);
    assert_eq!(text(), before.clone() + delete);
    drop(meddling);
    // Nobody is connected, and nobody asks.
    until("it is erased", || text().starts_with("null   \n"));
    until("all is done", || !beside.exists());
    server.did("DELETE /messages/2", ANN, "");
    assert!(!text().contains("secret"), "{}", text());
}

/// Kills a server when it makes a system call for the `time`th time, while it erases a message
/// and its edit; false when it makes fewer. None where no call can be killed.
#[track_caller]
fn is_killed_at(call: &str, time: usize) -> Option<bool> {
    const TEST: &str = "a_kill_at_any_system_call_of_a_delete_leaves_nothing_that_was_deleted";
    const MESSAGES: usize = 3;
    let when = format!("killed at {call} {time}");
    let mut lines = String::new();
    (1..=MESSAGES).for_each(|number| lines += &(message(number) + "\n"));
    let setup = Setup::new().file(lines);
    let server = setup.start();
    let mut listener = server.join();
    server.dir.append(format!("{{\"$op\":\"edit\",\"id\":2,\"data\":\"{}\"}}\n", secret(2)));
    listener.hears_one();
    let epoch = listener.history.epoch.clone();
    drop(listener);
    let meddling = meddle_with(&server, TEST, &format!("{call}:signal=KILL:when={time}"), "")?;
    server.dir.append("{\"$op\":\"delete\",\"id\":2}\n");
    let is_alive = ends_or_settles(&server);
    match is_alive {
        true => drop(meddling),
        false => meddling.ends_with_the_server(),
    }
    drop(server.kill());
    let server = setup.start();
    check_file(&server, MESSAGES, &BTreeSet::new(), &when);
    assert_eq!(server.join().history.epoch, epoch, "{when}");
    assert!(!server.dir.join("messages.txt.erasing").exists(), "{when}");
    Some(!is_alive)
}

/// Waits until the server is gone, or has erased message 2 and gone on for a moment; true when it
/// is still there.
fn ends_or_settles(server: &Server) -> bool {
    let mut settled = 0;
    let mut is_alive = true;
    until("the server is killed, or all is done", || {
        let status = server.connect_or_none().and_then(|raw| status_of(raw, "/messages/2"));
        is_alive = status.is_some();
        settled = if status == Some(410) { settled + 1 } else { 0 };
        !is_alive || settled > 3
    });
    is_alive
}

impl Server {
    fn connect_or_none(&self) -> Option<Raw> {
        let stream = std::net::TcpStream::connect_timeout(&self.address(), PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Raw::on(stream))
    }
}

/// The status of an answer; none when the server is gone before it came.
fn status_of(raw: Raw, path: &str) -> Option<u16> {
    use std::io::{Read, Write};
    let mut stream = raw.stream;
    stream.write_all(&ask(&format!("GET {path}"), &["Connection: close"])).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.get(9..12)?.parse().ok()
}

#[test]
fn kill_9_under_load_leaves_nothing_that_was_deleted_and_loses_nothing_else() {
    const MESSAGES: usize = 60;
    let mut dice = Dice::new();
    for round in 0..8 {
        let server = Server::start();
        for number in 1..=MESSAGES {
            server.posts(ANN, &message(number));
        }
        let answered = Arc::new(Mutex::new(BTreeSet::new()));
        let mut ann = server.join_at(&format!("/ws?limit=0&{ANN}"));
        let seen = answered.clone();
        let deleter = thread::spawn(move || {
            for number in 1..=MESSAGES {
                if number % 4 == 0 {
                    ann.try_say(&format!(
                        r#"{{"$op":"edit","id":{number},"data":"{}"}}"#,
                        secret(number)
                    ));
                }
                ann.try_say(&format!(r#"{{"$op":"delete","id":{number}}}"#));
            }
            while let Frame::Message(heard) = ann.next() {
                let said = parse(&heard.data);
                if said["$op"] == "delete" {
                    let number = said["id"].as_u64().expect("an id") as usize;
                    seen.lock().unwrap().insert(number);
                    if number == MESSAGES {
                        return;
                    }
                }
            }
        });
        let some = dice.below(MESSAGES as u64) as usize;
        until("some are deleted", || answered.lock().unwrap().len() >= some);
        let setup = server.kill();
        deleter.join().expect("it ends with the server");
        let server = setup.start();
        check_file(&server, MESSAGES, &answered.lock().unwrap(), &format!("round {round}"));
    }
}

#[test]
fn a_start_warns_of_lines_that_hold_no_message_but_not_of_deleted_ones() {
    let server = Server::start();
    server.posts(ANN, "\"secret\"");
    server.did("DELETE /messages/1", ANN, "");
    let server = server.restart();
    assert_eq!(server.asks("GET /messages/1", &[]).status, 410);
    assert!(!server.log().contains("holds no message"), "{}", server.log());
    drop(server);
    let server = Server::on("null   \n1\nno message\n");
    until("it warns", || {
        server.log().contains("messages.txt: line 3 holds no message and is skipped; 1 such")
    });
}

#[test]
fn who_must_begin_again_as_so_much_was_deleted_is_told_so_and_no_error_is_logged() {
    let setup = with_rules().stop();
    // The server keeps 16 MiB of what was deleted for those who began before.
    let line = format!("\"{}\"\n", "x".repeat(1 << 20));
    setup.dir.write(line.repeat(40));
    let server = setup.flags(&["--stall-timeout", "5m", "--log-level", "debug"]).start();
    let mut client = server.deaf_join();
    let mut reader = server.raw_narrow();
    reader.send(ask("GET /messages", &[]));
    for begun in [&mut client, &mut reader] {
        begun.takes_up_to(b"\r\n\r\n");
        begun.takes(100);
    }
    for id in 20..40 {
        server.did(&format!("DELETE /messages/{id}"), "token=foo", "");
    }
    reader.is_gone();
    client.is_gone();
    until("the log says why", || server.log().matches("must begin again").count() >= 2);
    assert!(!server.log().contains("[ERROR]"), "{}", server.log());
}
