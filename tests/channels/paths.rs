//! Every path of a channel, making one, putting one away, and every path that names none.

use std::{fs, os::unix::fs::symlink};

use crate::{house::*, support::*};

#[test]
fn a_channel_has_the_paths_of_the_default_one_under_its_own_name() {
    let server = Server::on(SEED);
    server.puts("dev");
    let mut ann = server.join_at("/dev/ws?as=ann");
    let mut bob = server.join_at("/dev/ws");
    let mut elsewhere = server.join_at("/messages/ws?limit=1");
    assert_eq!((ann.history.last_id, elsewhere.history.last_id), (0, 7));
    assert_ne!(ann.history.epoch, elsewhere.history.epoch);
    ann.say("hello");
    let hello = r#"{"user":"ann","content":"hello"}"#;
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.hears(hello).id, 1);
    }
    assert_eq!(server.stores("dev", "2"), 2);
    assert_eq!((ann.hears("2").id, bob.hears("2").id), (2, 2));

    let lines = server.gets("/dev");
    assert!(lines.lines().next().expect("a line").ends_with(&format!("\"data\":{hello}}}")));
    assert_eq!(lines.lines().count(), 2);
    assert_eq!(server.gets("/dev?limit=1"), lines.lines().nth(1).expect("two").to_owned() + "\n");
    assert_eq!(server.gets("/dev/2"), lines.lines().nth(1).expect("two").to_owned() + "\n");
    assert_eq!(server.gets("/dev.txt"), format!("{hello}\n2\n"));
    assert_eq!(fs::read_to_string(server.file_of("dev")).unwrap(), format!("{hello}\n2\n"));
    let array = server.has("GET /dev", &["Accept: application/json"]).body;
    assert!(array.starts_with(&format!(r#"{{"type":"message_history","data":[{hello},2]"#)));
    let mut stream = server.listens("/dev?follow=1&limit=0", &[]);
    let mut events = server.listens("/dev?limit=0", &["Accept: text/event-stream"]);
    server.stores("dev", "3");
    assert_eq!(stream.json()["id"], 3);
    let (id, data) = events.event();
    assert_eq!((id.as_deref(), &data["data"]), (Some("3"), &3.into()));
    assert!(server.join_at("/dev/ws?after=2").history.resumed == Some(true));
    server.has("GET /dev/4", &[]).refuses(404, &["GET /dev "]);

    // Of all this, the default channel has heard nothing.
    elsewhere.says("8");
    assert_eq!(server.dir.read(), (SEED.to_owned() + "8\n").as_bytes());
    // And its own paths are its own under either name.
    assert_eq!(server.stores("messages", "9"), 9);
    assert_eq!(server.join_at("/ws").history.frame, server.join_at("/messages/ws").history.frame);
}

#[test]
fn put_makes_a_channel_once_and_nothing_else_does() {
    let server = Server::start();
    let mut raw = server.raw();
    raw.send(ask_with("POST /dev", &[], "1"));
    raw.whole().refuses(404, &["dev", "PUT /dev"]);
    for path in ["/dev", "/dev/1", "/dev.txt", "/dev/ws", "/dev?follow=1", "/dev,messages"] {
        server.has(&format!("GET {path}"), &[]).refuses(404, &["dev", "PUT /dev", "/channels"]);
    }
    server.asked(server.head("/dev/ws", &[])).refuses(404, &["PUT /dev"]);
    assert!(!server.dir.join("channels").exists(), "the folder is made with the first channel");
    let made = server.has("PUT /dev", &[]);
    assert_eq!((made.status, made.header("Location")), (201, Some("/dev")), "{made:?}");
    assert_eq!(json(&made.body), server.channels()[0]);
    assert_eq!(fs::read(server.file_of("dev")).expect("the file is there"), b"");
    server.stores("dev", "1");
    for name in ["dev", "messages"] {
        let there = server.has(&format!("PUT /{name}"), &[]);
        assert_eq!((there.status, there.header("Location")), (200, None), "{there:?}");
    }
    assert_eq!(server.gets("/dev.txt"), "1\n");
    server.asked(ask_with("PUT /new", &[], "1")).refuses(413, &["no body"]);
    assert_eq!(server.names(), ["dev", "messages"]);
    // After a restart it is still there.
    assert_eq!(server.restart().gets("/dev.txt"), "1\n");
}

#[test]
fn a_channel_can_be_put_away_only_by_those_who_have_the_right() {
    let server = Server::start();
    server.puts("dev");
    server.has("DELETE /dev", &[]).refuses(403, &["admin", "access file"]);
    server.has("DELETE /nothing", &[]).refuses(403, &["admin"]);
    let answer = server.has("DELETE /messages", &[]);
    answer.refuses(405, &["/messages", "cannot be put away"]);
    assert_eq!(answer.header("Allow"), Some("GET, HEAD, POST, PUT, OPTIONS"));
    assert_eq!(server.names(), ["dev", "messages"]);
    let options = server.has("OPTIONS /dev", &[]);
    assert_eq!(options.header("Allow"), Some("GET, HEAD, POST, PUT, DELETE, OPTIONS"));
}

#[test]
fn what_is_no_name_never_touches_the_file_system() {
    let server = with_files(&[]).start();
    let long = format!("/{}", "a".repeat(64));
    let before = (server.dir.beside(), server.in_folder(""));
    for (path, words) in [
        ("/Dev", &["lower case", "/dev"][..]),
        ("/MESSAGES", &["lower case", "/messages"]),
        ("/app", &["keeps this name"]),
        ("/..", &["a-z"]),
        ("/../messages.txt", &["a-z"]),
        ("/%2e%2e", &["a-z"]),
        ("/%2E%2E/messages.txt", &["a-z"]),
        ("/dev%00", &["a-z"]),
        ("/dev%2f..%2fmessages", &["a-z"]),
        ("/-dev", &["a-z"]),
        ("/_dev", &["a-z"]),
        ("/a.b", &["a-z"]),
        ("/d%65v", &["a-z"]),
        ("/channels/dev.txt", &["nothing is here"]),
        ("/dev/..", &["nothing is here"]),
        ("/dev/../ops", &["nothing is here"]),
        ("/dev/", &["nothing is here"]),
        ("//dev", &["nothing is here"]),
        ("/dev,Ops", &["a-z"]),
        (&long, &["63"]),
    ] {
        for method in ["PUT", "GET", "DELETE", "POST"] {
            let mut raw = server.raw();
            raw.send(ask_with(&format!("{method} {path}"), &[], ""));
            raw.whole().refuses(404, words);
        }
    }
    for path in
        ["/metrics", "/channels", "/me", "/healthz", "/readyz", "/dev,ops", "/*", "/dev.txt"]
    {
        let answer = server.has(&format!("PUT {path}"), &[]);
        answer.refuses(405, &[path]);
        assert_eq!(answer.header("Allow"), Some("GET, HEAD, OPTIONS"));
    }
    server.has("PUT /ws", &[]).refuses(405, &["GET"]);
    // What is no URL at all is not even looked at.
    assert_eq!(server.asked("PUT /dev\0 HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 400);
    assert_eq!((server.dir.beside(), server.in_folder("")), before);
    assert_eq!(server.names(), ["messages"]);
}

#[test]
fn a_link_is_refused_and_said_once() {
    let setup = with_files(&[("real.txt", "1\n")]);
    let folder = setup.dir.join("channels");
    setup.dir.write("\"outside\"\n");
    symlink("../messages.txt", folder.join("out.txt")).expect("a link");
    symlink("real.txt", folder.join("in.txt")).expect("a link");
    fs::create_dir(folder.join("dir.txt")).expect("a folder");
    let server = setup.start();
    for link in ["out", "in"] {
        for path in ["", ".txt", "/1", "/ws"] {
            let answer = server.has(&format!("GET /{link}{path}"), &[]);
            answer.refuses(503, &[link, "symbolic link"]);
            assert!(answer.header("Retry-After").is_some());
        }
        server.has(&format!("PUT /{link}"), &[]).refuses(503, &["symbolic link"]);
        server.posts(link, "1").refuses(503, &["symbolic link"]);
    }
    server.has("GET /dir", &[]).refuses(503, &["is a directory"]);
    assert_eq!(server.names(), ["messages", "real"]);
    assert_eq!(server.dir.read(), b"\"outside\"\n");
    let log = server.log();
    for file in ["out.txt", "in.txt", "dir.txt"] {
        assert_eq!(log.lines().filter(|line| line.contains(file)).count(), 1, "{file}:\n{log}");
    }
    assert!(!log.contains("--file"), "no flag names the file of a channel:\n{log}");
}

#[test]
fn there_are_at_most_as_many_channels_as_the_operator_says() {
    let server = Server::with(&["--max-channels", "2"]);
    server.puts("a");
    server.puts("b");
    server.has("PUT /c", &[]).refuses(507, &["2 channels", "--max-channels"]);
    assert_eq!(server.has("PUT /a", &[]).status, 200);
    assert!(!server.file_of("c").exists());
    assert_eq!(server.names(), ["a", "b", "messages"]);
    // A channel less, and there is room.
    fs::remove_file(server.file_of("a")).expect("a file");
    until("there is room", || server.has("PUT /c", &[]).status == 201);
    let none = Server::with(&["--max-channels", "0"]);
    none.has("PUT /a", &[]).refuses(507, &["--max-channels"]);
}

#[test]
fn who_finds_no_room_for_a_channel_on_the_machine_is_told_what_it_is_short_of() {
    let server = Setup::new().after("ulimit -n 64").start();
    server.has("PUT /a", &[]).refuses(507, &["can carry 0 channels", "ulimit -n"]);
    let name = "who_finds_no_room_for_a_channel_on_the_machine_is_told_what_it_is_short_of";
    let server = Server::start();
    let path = server.file_of("a");
    let path = path.to_str().expect("a UTF-8 path");
    let Some(_meddling) = meddle_with(&server, name, "openat:error=EMFILE", path) else { return };
    let answer = server.has("PUT /a", &[]);
    answer.refuses(503, &["open files", "come back later"]);
    assert!(answer.header("Retry-After").is_some(), "{answer:?}");
}

#[test]
fn the_folder_is_where_the_operator_says() {
    let server = Server::with(&["--channels", "rooms"]);
    fs::write(server.dir.join("notes.txt"), "\"private\"\n").expect("a file");
    server.puts("dev");
    server.stores("dev", "1");
    assert_eq!(fs::read(server.dir.join("rooms/dev.txt")).expect("the file is there"), b"1\n");
    // What happens to lie about is nobody's channel.
    server.has("GET /notes", &[]).refuses(404, &[]);
}

#[test]
fn a_folder_that_cannot_be_written_and_a_full_disk_have_their_sentences() {
    // A file where the folder should be.
    let server = Server::start();
    fs::write(server.dir.join("channels"), "").expect("a file");
    server.has("PUT /dev", &[]).refuses(500, &["cannot be written"]);
    server.has("GET /dev", &[]).refuses(404, &[]);
    let name = "a_folder_that_cannot_be_written_and_a_full_disk_have_their_sentences";
    let server = with_files(&[]).start();
    let folder = server.dir.join("channels/dev.txt");
    let path = folder.to_str().expect("a UTF-8 path").to_owned();
    let Some(meddling) = meddle_with(&server, name, "openat:error=ENOSPC", &path) else { return };
    server.has("PUT /dev", &[]).refuses(507, &["disk is full"]);
    server.has("GET /dev", &[]).refuses(404, &[]);
    drop(meddling);
    server.puts("dev");
}

#[test]
fn a_page_that_may_not_connect_makes_no_channel() {
    let server = Server::start();
    server.has("PUT /dev", &["Origin: http://evil.example"]).refuses(403, &["--allow-origin"]);
    server.has("PUT /dev", &["Host: evil.example"]).refuses(403, &["--allow-origin"]);
    server.has("GET /channels", &["Host: evil.example"]).refuses(403, &["--allow-origin"]);
    assert_eq!(server.names(), ["messages"]);
}
