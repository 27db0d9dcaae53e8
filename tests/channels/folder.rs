//! The folder as an interface: files that are put there, appended to, taken away and replaced while
//! the server runs.

use std::{fs, time::Instant};

use crate::{house::*, support::*};

#[test]
fn a_file_that_is_put_into_the_folder_is_a_channel_soon() {
    let server = Server::start();
    fs::create_dir(server.dir.join("channels")).expect("a folder");
    let begun = Instant::now();
    append(&server.file_of("ops"), "1\n2\n");
    until("it is there", || server.has("GET /ops.txt", &[]).body == "1\n2\n");
    assert!(begun.elapsed() < PROMPT, "after {:?}", begun.elapsed());
    // One that is moved there is whole when it is seen.
    let text = padded_lines(2000, 100);
    fs::write(server.dir.join("aside"), &text).expect("a file");
    fs::rename(server.dir.join("aside"), server.file_of("moved")).expect("it is moved");
    until("it is there", || server.has("GET /moved", &[]).status == 200);
    assert_eq!(server.gets("/moved.txt"), text);
    for other in ["notes.md", "Ops.txt", "ws.txt", "messages.txt", "a.b.txt"] {
        fs::write(server.dir.join("channels").join(other), "\"no\"\n").expect("a file");
    }
    append(&server.file_of("last"), "");
    until("the last one is there", || server.has("GET /last", &[]).status == 200);
    assert_eq!(server.names(), ["last", "messages", "moved", "ops"]);
    assert_eq!(server.gets("/messages"), "");
}

#[test]
fn lines_that_others_append_are_said_whether_somebody_is_there_or_not() {
    let server = with_files(&[("dev.txt", "1\n")]).start();
    // Nobody is there: its hub sleeps.
    let begun = Instant::now();
    append(&server.file_of("dev"), "2\n");
    until("it is taken in", || server.gets("/dev").lines().count() == 2);
    assert!(begun.elapsed() < PROMPT, "after {:?}", begun.elapsed());
    let mut follower = server.listens("/dev?follow=1&after=2", &[]);
    append(&server.file_of("dev"), "3\n");
    assert_eq!(follower.json()["id"], 3);
    let mut ann = server.join_at("/dev/ws");
    append(&server.file_of("dev"), "4\nnonsense\n6\n");
    assert_eq!((ann.hears("4").id, ann.hears("6").id), (4, 6));
    assert_eq!((&follower.json()["id"], &follower.json()["id"]), (&4.into(), &6.into()));
    // A line without its end waits for it, and glues to nothing.
    append(&server.file_of("dev"), "{\"begun\":");
    assert_eq!(ann.says("8").id, 8);
    assert_eq!(server.gets("/dev.txt"), "1\n2\n3\n4\nnonsense\n6\n{\"begun\":\n8\n");
}

#[test]
fn a_file_that_is_taken_away_is_no_channel_any_more() {
    let server = with_files(&[("dev.txt", "1\n"), ("ops.txt", "1\n")]).start();
    let (mut ann, mut ops) = (server.join_at("/dev/ws"), server.join_at("/ops/ws"));
    let mut follower = server.listens("/dev?follow=1&after=1", &[]);
    ann.says("2");
    assert_eq!(follower.json()["id"], 2);
    let begun = Instant::now();
    fs::remove_file(server.file_of("dev")).expect("a file");
    ann.is_closed_with(1012);
    assert_eq!(follower.line(), None);
    until("it is gone", || server.has("GET /dev", &[]).status == 404);
    assert!(begun.elapsed() < PROMPT, "after {:?}", begun.elapsed());
    assert_eq!(server.names(), ["messages", "ops"]);
    // What only the server held is saved.
    let saved = server.in_folder("dev.txt.saved-");
    assert_eq!(fs::read(&saved[0]).expect("it is saved"), b"1\n2\n");
    assert_eq!(ops.says("2").id, 2);
    // The name is free.
    server.puts("dev");
    assert_eq!(server.join_at("/dev/ws").says("1").id, 1);
}

#[test]
fn a_file_that_is_replaced_is_the_channel_from_the_next_request_on() {
    // The server opens a file anew once in ten seconds.
    in_one_of_a_few_attempts(|| {
        let server = with_files(&[("dev.txt", "1\n")]).start();
        let mut ann = server.join_at("/dev/ws");
        let replace = |text: &str| {
            fs::write(server.dir.join("aside"), text).expect("a file");
            fs::rename(server.dir.join("aside"), server.file_of("dev")).expect("it is moved");
        };
        ann.says("2");
        replace("\"new\"\n{\"torn\":");
        let reason = ann.is_closed_with(1012);
        assert!(!reason.is_empty());
        // Recovery is done, as at a start.
        let history = server.join_at("/dev/ws").history;
        assert_eq!(history.said(), ["\"new\""]);
        assert_ne!(history.epoch, ann.history.epoch);
        assert_eq!(
            fs::read(&server.in_folder("dev.txt.saved-")[0]).expect("it is saved"),
            b"1\n2\n"
        );
        assert_eq!(
            fs::read(&server.in_folder("dev.txt.torn-")[0]).expect("it is saved"),
            b"{\"torn\":"
        );
        // Again, and too soon: it is answered so.
        replace("\"newer\"\n");
        until("it has ended", || server.has("GET /dev", &[]).body.contains("replaced"));
        server.has("GET /dev", &[]).refuses(503, &["dev", "replaced"]);
        server.has("PUT /dev", &[]).refuses(503, &["dev", "replaced"]);
        // It is listed with what is known, and is there after a restart at the latest.
        assert_eq!(server.names(), ["dev", "messages"]);
        assert_eq!(server.restart().gets("/dev.txt"), "\"newer\"\n");
    });
}

#[test]
fn a_file_in_use_by_another_server_is_answered_so_and_both_go_on() {
    let setup = with_files(&[("dev.txt", "1\n"), ("ops.txt", "1\n")]);
    let first = setup.start();
    let second = Setup::new();
    let folder = first.dir.join("channels");
    let second = second.flags(&["--channels", folder.to_str().expect("a UTF-8 path")]).start();
    second.has("GET /dev", &[]).refuses(503, &["in use by another server"]);
    assert_eq!(second.names(), ["messages"]);
    assert_eq!(first.stores("dev", "2"), 2);
    // The first one could take a file of the folder before the second one has locked it.
    first.freezes();
    second.puts("mine");
    assert_eq!(second.stores("mine", "1"), 1);
    first.signal("CONT");
    assert_eq!(first.stores("dev", "3"), 3);
}

#[test]
fn channels_are_made_on_a_file_system_that_cannot_sync_folders_too() {
    let name = "channels_are_made_on_a_file_system_that_cannot_sync_folders_too";
    for error in ["EINVAL", "ENOSYS"] {
        let server = Server::start();
        let folder = server.dir.path().to_str().expect("a UTF-8 path").to_owned();
        let Some(_meddling) = meddle_with(&server, name, &format!("fsync:error={error}"), &folder)
        else {
            return;
        };
        assert_eq!(server.has("PUT /dev", &["Content-Length: 0"]).status, 201, "{error}");
    }
}
