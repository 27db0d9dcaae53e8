//! What the access file grants holds at every door, and what it does not grant is denied.

use serde_json::json as object;

use crate::{house::*, support::*};

/// Who may do what in which channel, for the table.
fn rules() -> String {
    format!(
        "# who sha-256 channels may\n\
         root {FOO} * admin\n\
         ci {BAR} ops,dev-* post\n\
         ann {BAZ} dev read,post\n\
         ann {BAZ} ops read\n\
         *  -  messages,dev read\n"
    )
}

#[derive(Clone, Copy)]
struct May {
    read: u16,
    post: u16,
    make: u16,
    put_away: u16,
}

#[test]
fn every_right_is_granted_and_denied_at_every_door() {
    const fn may(read: u16, post: u16, make: u16, put_away: u16) -> May {
        May { read, post, make, put_away }
    }
    let all = may(200, 201, 200, 204);
    let both = may(200, 201, 403, 403);
    let read = may(200, 403, 403, 403);
    let post = may(404, 201, 403, 403);
    let none = may(404, 404, 403, 404);
    for (query, rights) in [
        ("token=foo", [all, all, all, all]),
        ("token=bar", [none, none, post, post]),
        ("token=baz", [none, both, read, none]),
        ("", [read, read, none, none]),
        ("as=ann", [read, read, none, none]),
        ("as=ann&key=correct+horse", [read, read, none, none]),
    ] {
        // The default channel cannot be put away.
        let server = with_rules(&rules()).start();
        for name in ["dev", "ops", "dev-1"] {
            assert_eq!(server.does(&format!("PUT /{name}"), "token=foo", "").status, 201);
        }
        let with = |path: &str| match query {
            "" => path.to_owned(),
            _ => format!("{path}?{query}"),
        };
        for (name, may) in ["messages", "dev", "ops", "dev-1"].into_iter().zip(rights) {
            let who = format!("{query} in {name}");
            let get = |path: String| server.has(&format!("GET {}", with(&path)), &[]).status;
            let posted = server.does(&format!("POST /{name}"), query, "1");
            assert_eq!(posted.status, may.post, "{who}: {posted:?}");
            if may.post == 403 {
                posted.refuses(403, &["post", name]);
            }
            assert_eq!(server.does(&format!("POST /{name}"), "token=foo", "2").status, 201);
            assert_eq!(get(format!("/{name}")), may.read, "{who}");
            assert_eq!(get(format!("/{name}/1")), may.read, "{who}");
            assert_eq!(get(format!("/{name}.txt")), may.read, "{who}");
            assert_eq!(get(format!("/{name},{name}")), may.read, "{who}");
            let upgraded = server.upgrade(&with(&format!("/{name}/ws")), &[]);
            assert_eq!(upgraded, if may.read == 200 { 101 } else { 404 }, "{who}");
            if may.read == 200 {
                let mut client = server.join_at(&with(&format!("/{name}/ws")));
                client.say(r#"{"b":1}"#);
                match may.post {
                    201 => drop(client.hears(r#"{"b":1}"#)),
                    _ => {
                        let answer = client.is_told("forbidden");
                        assert!(answer.frame.contains("post"), "{answer:?}");
                        assert!(answer.frame.contains(name), "{answer:?}");
                    }
                }
                let path = with(&format!("/{name}"));
                let follow = if query.is_empty() { "?follow=1" } else { "&follow=1" };
                let mut stream = server.listens(&format!("{path}{follow}"), &[]);
                assert!(stream.json()["id"].is_u64());
            } else if name != "messages" {
                // As if it were not there. The default channel always is.
                let there = server.has(&format!("GET {}", with(&format!("/{name}"))), &[]);
                let not_there = server.has(&format!("GET {}", with("/nix")), &[]);
                assert_eq!(there.body, not_there.body.replace("nix", name));
            }
            let made = server.does(&format!("PUT /{name}"), query, "");
            assert_eq!(made.status, may.make, "{who}: {made:?}");
            if name == "messages" {
                continue;
            }
            let put_away = server.does(&format!("DELETE /{name}"), query, "");
            assert_eq!(put_away.status, may.put_away, "{who}: {put_away:?}");
            if may.put_away == 403 {
                put_away.refuses(403, &["admin", name]);
            }
        }
    }
}

#[test]
fn a_channel_that_one_may_not_read_is_in_no_list() {
    let server = with_rules(&rules()).start();
    for name in ["dev", "ops", "dev-1", "secret"] {
        assert_eq!(server.does(&format!("PUT /{name}"), "token=foo", "").status, 201);
        assert_eq!(server.does(&format!("POST /{name}"), "token=foo", "1").status, 201);
    }
    let names = |query: &str| -> Vec<String> {
        let list = server.gets(&format!("/channels?{query}"));
        list.lines().map(|line| json(line)["channel"].as_str().expect("a name").into()).collect()
    };
    let all = ["dev", "dev-1", "messages", "ops", "secret"];
    assert_eq!(names("token=foo"), all);
    assert_eq!(names("token=baz"), ["dev", "ops"]);
    assert_eq!(names("token=bar"), [""; 0]);
    assert_eq!(names(""), ["dev", "messages"]);
    // All that the caller may read.
    let told = server.gets("/*?token=baz");
    let channels: Vec<_> = told.lines().map(|line| json(line)["channel"].clone()).collect();
    assert_eq!(channels, ["dev", "ops"]);
    server.has("GET /dev,secret?token=baz", &[]).refuses(404, &["secret"]);
    // A stream of the list tells of nothing else.
    let mut stream = server.listens("/channels?follow=1&token=baz", &[]);
    assert_eq!(stream.json()["channel"], "dev");
    assert_eq!(stream.json()["channel"], "ops");
    assert_eq!(server.does("POST /secret", "token=foo", "1").status, 201);
    assert_eq!(server.does("PUT /secret-2", "token=foo", "").status, 201);
    assert_eq!(server.does("POST /ops", "token=foo", "1").status, 201);
    let line = stream.json();
    assert_eq!((&line["channel"], &line["last_id"]), (&"ops".into(), &2.into()));
    assert_eq!(line["may"], object!(["read"]));
    // One may know what one may post to.
    let of_ci = server.me("token=bar", &[]);
    assert_eq!(of_ci, object!({"from": "ci", "may": {"dev-1": ["post"], "ops": ["post"]}}));
    assert_eq!(server.me("", &[]), object!({"may": {"dev": ["read"], "messages": ["read"]}}));
    let all_rights = ["read", "post", "admin"];
    assert_eq!(server.me("token=foo", &[])["may"]["secret"], object!(all_rights));
}

#[test]
fn a_channel_that_is_put_away_closes_its_clients_and_keeps_its_file() {
    let server = with_rules(&format!("root {FOO} * admin\n")).start();
    assert_eq!(server.does("PUT /dev", "token=foo", "").status, 201);
    assert_eq!(server.does("POST /dev", "token=foo", "1").status, 201);
    let mut client = server.join_at("/dev/ws?token=foo");
    assert_eq!(server.does("DELETE /dev", "token=foo", "").status, 204);
    client.is_closed_with(1001);
    server.has("GET /dev?token=foo", &[]).refuses(404, &["dev"]);
    let folder = std::fs::read_dir(server.dir.join("channels")).expect("the folder");
    let names: Vec<_> = folder.map(|entry| entry.expect("an entry").file_name()).collect();
    let away = |name: &&std::ffi::OsString| {
        let name = name.to_string_lossy();
        name.starts_with("dev.txt.removed-") && !name.ends_with(".stamps")
    };
    let away = names.iter().find(away).expect("it is put away");
    let text = std::fs::read_to_string(server.dir.join("channels").join(away));
    assert_eq!(text.expect("it is there"), "1\n");
    server.does("DELETE /messages", "token=foo", "").refuses(405, &["default channel"]);
    server.does("DELETE /nix", "token=foo", "").refuses(404, &["nix"]);
    assert_eq!(server.does("PUT /dev", "token=foo", "").status, 201, "the name is free again");
}

#[test]
fn who_goes_on_after_its_close_frame_is_cut_off() {
    let server = with_rules(&format!("root {FOO} * admin\n")).start();
    assert_eq!(server.does("PUT /dev", "token=foo", "").status, 201);
    let what_they_send = [
        frame(PING, "still there"),
        frame(PONG, ""),
        frame(TEXT, "1"),
        frame(BINARY, "1"),
        // A message that never ends.
        frame(GOES_ON, ""),
    ];
    let mut peers = what_they_send.map(|sent| {
        let mut raw = server.raw();
        raw.send(server.head("/dev/ws?token=foo", &[]));
        assert_eq!(raw.response().status, 101);
        History::parse(&raw.text());
        if sent[0] == GOES_ON {
            raw.send(frame(TEXT_BEGINS, "1"));
        }
        (raw, sent)
    });
    assert_eq!(server.does("DELETE /dev", "token=foo", "").status, 204);
    for (raw, _) in &mut peers {
        let told = raw.frame();
        assert_eq!((told.first, &told.payload[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
    }
    until("all of them are cut off", || {
        peers.iter_mut().map(|(raw, sent)| raw.try_send(sent)).filter(|&is_sent| is_sent).count()
            == 0
    });
}

#[test]
fn an_access_file_that_makes_no_sense_ends_the_start_with_file_line_and_reason() {
    for (rules, words) in [
        ("ann\n", &["access:1:", "four columns"][..]),
        ("# fine\n* - dev wirte\n", &["access:2:", "wirte"]),
        ("* - de.v read\n", &["access:1:", "de.v"]),
        ("ann xyz * read\n", &["access:1:", "SHA-256"]),
    ] {
        with_rules(rules).ends().with(78, words);
    }
    let setup = Setup::new();
    let nowhere = setup.dir.join("nowhere");
    let setup = setup.flags(&["--access", nowhere.to_str().expect("a UTF-8 path")]);
    setup.ends().with(78, &["nowhere", "No such file"]);
    let setup = with_rules("* - * read\n");
    let file = setup.dir.join("access");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(file, mode).expect("it is ours");
    setup.ends().with(78, &["chmod go-w"]);
}

#[test]
fn a_new_token_and_its_line_are_printed_and_work() {
    let ended = Setup::bare().flags(&["token", "ann"]).ends();
    assert!(ended.status.success(), "{}", ended.log);
    let lines: Vec<_> = ended.out.lines().collect();
    let &[token, line] = &lines[..] else { panic!("not two lines: {}", ended.out) };
    assert!(token.starts_with("tc_") && token.len() == 46, "{token}");
    let server = with_rules(&format!("{line}\n")).start();
    let me = server.me(&format!("token={token}"), &[]);
    assert_eq!(me, object!({"from": "ann", "may": {"messages": ["read", "post"]}}));
    let other = Setup::bare().flags(&["token", "ann"]).ends();
    assert_ne!(other.out, ended.out);
    let ended = Setup::bare().flags(&["token", "a~b"]).ends();
    ended.with(1, &["is no name"]);
}

#[test]
fn an_access_file_may_begin_with_a_byte_order_mark() {
    let server = with_rules("\u{feff}* - * read\n").start();
    assert_eq!(server.has("GET /messages", &[]).status, 200);
}
