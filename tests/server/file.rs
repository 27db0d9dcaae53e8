//! The file at the start: what is read, what is repaired, what is refused; and that a start never
//! loses or moves a message.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::Arc,
};

use crate::support::*;

/// Starts on `before`; clients get `served` (with ids) and the file becomes `after`.
#[track_caller]
fn check(before: &[u8], served: &[(u64, &str)], last_id: u64, after: &[u8]) -> Server {
    let server = Server::on(before);
    let history = server.join().history;
    assert_eq!(history.messages(), served);
    assert_eq!((history.first_id, history.last_id), (1, last_id));
    assert!(server.dir.read() == after, "the file is {:?}", lossy(&server.dir.read()));
    server
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_missing_file_is_created_for_others_to_read() {
    let setup = Setup::new().after("umask 022");
    let server = setup.start();
    let mode = fs::metadata(server.dir.file()).expect("the file is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert_eq!(server.dir.read(), b"");
    server.join().says("1");
    assert_eq!(server.dir.read(), b"1\n");
}

#[test]
fn lines_that_are_no_messages_keep_their_numbers_and_their_bytes() {
    #[track_caller]
    fn unchanged(file: &[u8], served: &[(u64, &str)], last_id: u64) {
        let server = check(file, served, last_id, file);
        let mut ann = server.join();
        assert_eq!(ann.says("9").id, last_id + 1, "the next message");
        assert!(server.dir.torn().is_empty(), "nothing was torn");
    }
    unchanged(b"\n", &[], 1);
    unchanged(b"\n\n\n", &[], 3);
    unchanged(b"1\n\n3\n", &[(1, "1"), (3, "3")], 3);
    unchanged(b"1\n   \t\n3\n", &[(1, "1"), (3, "3")], 3);
    unchanged(b"1\nnope\n3\n", &[(1, "1"), (3, "3")], 3);
    unchanged(b"1\n{\"torn\":\n3\n", &[(1, "1"), (3, "3")], 3);
    unchanged(b"1\n2 2\n3\n", &[(1, "1"), (3, "3")], 3);
    unchanged(b"1\n],[\n3\n", &[(1, "1"), (3, "3")], 3);
    unchanged(b"1\n\"\xff\"\n3\n", &[(1, "1"), (3, "3")], 3);
    unchanged(b"1\n\xff\xfe\x00\n3\n", &[(1, "1"), (3, "3")], 3);
    unchanged(b"1\n\0\0\0\0\n3\n", &[(1, "1"), (3, "3")], 3);
    unchanged(b"1\n\"raw\ttab\"\n3\n", &[(1, "1"), (3, "3")], 3);
    unchanged(b"nope\n2\nnope\n", &[(2, "2")], 3);
    unchanged(b"nope\nnope\nnope\n4\n", &[(4, "4")], 4);
}

#[test]
fn holes_are_named_in_the_history() {
    let file = "1\n\n3\nnope\n";
    let server = check(file.as_bytes(), &[(1, "1"), (3, "3")], 4, file.as_bytes());
    let frame = server.join().history.frame;
    assert!(frame.contains(r#""data":[1,3],"first_id":1,"last_id":4,"#), "{frame}");
    assert!(frame.contains(r#","skipped":[2,4]"#), "{frame}");
    assert!(!server.log().contains("nope"), "the log says no messages' text");
}

#[test]
fn marks_of_foreign_editors_do_no_harm() {
    // A byte order mark, and Windows' line ends.
    let file = "\u{feff}{\"a\":1}\r\n{\"b\":2}\r\n\r\n  {\"c\":3}  \n".as_bytes();
    let served = [(1, r#"{"a":1}"#), (2, r#"{"b":2}"#), (4, r#"{"c":3}"#)];
    let server = check(file, &served, 4, file);
    let frame = server.join().history.frame;
    assert!(!frame.contains('\u{feff}'), "a byte order mark is not JSON");
    serde_json::from_str::<serde_json::Value>(&frame).expect("a history is JSON");
    // Only at the beginning of the file.
    let file = "1\n\u{feff}2\n".as_bytes();
    check(file, &[(1, "1")], 2, file);
    let file = "\u{feff}\n2\n".as_bytes();
    check(file, &[(2, "2")], 2, file);
    // A file that is nothing else.
    let server = Server::on("\u{feff}");
    assert_eq!(server.join().history.said(), [""; 0]);
    let heard = server.join().says("1");
    assert_eq!(server.restart().join().history.messages(), [(heard.id, "1")]);
}

#[test]
fn only_a_line_feed_ends_a_line() {
    let file = "\"a\u{2028}b\u{2029}c\u{85}d\"\n[1,\r2]\n\"\u{7f}\"\n".as_bytes();
    let served = [(1, "\"a\u{2028}b\u{2029}c\u{85}d\""), (2, "[1,\r2]"), (3, "\"\u{7f}\"")];
    check(file, &served, 3, file);
}

#[test]
fn a_line_of_any_length_is_only_a_line() {
    const LENGTH: u64 = 200 << 20;
    let setup = Setup::new().file("1\n");
    let mut file = fs::OpenOptions::new().write(true).open(setup.dir.file()).expect("the file");
    // A hole in the file costs no disk and reads as zeros.
    file.seek(SeekFrom::Start(2 + LENGTH)).expect("a seek");
    file.write_all(b"\n3\n").expect("the file can be written");
    let server = setup.start();
    assert_eq!(server.join().history.messages(), [(1, "1"), (3, "3")]);
    let peak = server.status("VmHWM") >> 10;
    assert!(peak < 100, "{peak} MiB for one line");
    assert_eq!(fs::metadata(server.dir.file()).expect("it is there").len(), LENGTH + 5);
}

#[test]
fn a_valid_tail_gets_its_line_end() {
    #[track_caller]
    fn completed(file: &str, served: &[(u64, &str)]) {
        let after = format!("{file}\n");
        let server = check(file.as_bytes(), served, served.len() as u64, after.as_bytes());
        assert!(server.dir.torn().is_empty(), "nothing was torn");
        let mut ann = server.join();
        assert_eq!(ann.says("9").id, served.len() as u64 + 1);
        assert_eq!(server.dir.read(), format!("{after}9\n").as_bytes());
    }
    completed(r#"{"a":1}"#, &[(1, r#"{"a":1}"#)]);
    completed("1\n{\"a\":1}", &[(1, "1"), (2, r#"{"a":1}"#)]);
    completed("1\n\"text\"", &[(1, "1"), (2, "\"text\"")]);
    completed("1\n22", &[(1, "1"), (2, "22")]);
    completed("1\n{}\r", &[(1, "1"), (2, "{}")]);
}

#[test]
fn a_torn_tail_is_saved_beside_the_file_and_cut_off() {
    #[track_caller]
    fn torn(whole: &[u8], tail: &[u8]) {
        let before = now_ms();
        let served: Vec<(u64, &str)> = if whole.is_empty() { vec![] } else { vec![(1, "1")] };
        let server = check(&[whole, tail].concat(), &served, served.len() as u64, whole);
        assert_eq!(server.dir.torn(), [tail.to_vec()]);
        let beside = server.dir.beside();
        let name = beside.keys().find(|name| name.contains(".torn-")).expect("it is saved");
        let time = name.rsplit('-').next().expect("a time").parse::<u64>().expect("a number");
        assert!((before..=now_ms()).contains(&time), "{name} at {before}");
        assert!(server.log().contains(".torn-"), "the log says where: {}", server.log());
        // Once is enough.
        let server = server.restart();
        assert_eq!(server.dir.torn().len(), 1);
        assert_eq!(server.join().says("9").id, served.len() as u64 + 1);
    }
    torn(b"", b"{\"a\":");
    torn(b"1\n", b"{\"a\":");
    torn(b"1\n", b"\xff\xfe");
    torn(b"1\n", b"{\"a\":\"\xc3");
    torn(b"1\n", b"\0\0\0\0\0\0");
    torn(b"1\n", &[b"\"", [b'x'; 300_000].as_slice()].concat());
}

#[test]
fn a_torn_tail_has_its_name_on_disk_before_it_is_cut_off() {
    let name = "a_torn_tail_has_its_name_on_disk_before_it_is_cut_off";
    // Its address is in use, so that it ends after it has opened the file.
    let other = Server::start();
    let setup = Setup::at(other.address(), Arc::new(Dir::new())).file("1\n{\"torn\":");
    let command = setup.command();
    let calls = setup.dir.join("calls");
    let traced = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=fsync,fdatasync,ftruncate", "-o"])
        .arg(&calls)
        .arg(command.get_program())
        .args(command.get_args())
        .output();
    let calls = fs::read_to_string(calls).unwrap_or_default();
    if !calls.contains("fsync") {
        return skipped(name, &format!("strace: {traced:?}"));
    }
    let line_of = |call: &str, path: String| {
        let found = calls.lines().position(|line| line.contains(call) && line.contains(&path));
        found.unwrap_or_else(|| panic!("no {call} of {path} in {calls}"))
    };
    let folder = setup.dir.path().display();
    let cut_off = line_of("ftruncate", format!("<{folder}/messages.txt>"));
    let saved = line_of("fsync", format!("<{folder}/messages.txt.torn-"));
    let named = line_of("fsync", format!("<{folder}>"));
    assert!(saved < named && named < cut_off, "{calls}");
}

#[test]
fn a_file_cut_at_any_byte_serves_every_whole_message() {
    let messages = [
        r#"{"sender": "Admin", "content": "Welcome"}"#,
        r#"{"user":"José","content":"😀 \u00e9 \"quoted\""}"#,
        r#"[1.10,{"deep":[[]]},null]"#,
        r#""a line of text""#,
        r#"12345"#,
    ];
    let file = messages.join("\n") + "\n";
    let cuts: Vec<usize> = (0..=file.len()).collect();
    each_of(&cuts, |cut| {
        let bytes = &file.as_bytes()[..*cut];
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let tail = &bytes[whole..];
        let count = file[..whole].lines().count();
        let server = Server::on(bytes);
        let history = server.join().history;
        let is_json = serde_json::from_slice::<serde_json::Value>(tail).is_ok();
        let (expected, after, saved) = if tail.is_empty() {
            (messages[..count].to_vec(), bytes.to_vec(), vec![])
        } else if is_json {
            let tail = std::str::from_utf8(tail).expect("JSON is UTF-8");
            ([&messages[..count], &[tail]].concat(), [bytes, b"\n"].concat(), vec![])
        } else {
            (messages[..count].to_vec(), bytes[..whole].to_vec(), vec![tail.to_vec()])
        };
        assert_eq!(history.said(), expected, "cut at {cut}");
        assert_eq!(history.last_id, expected.len() as u64, "cut at {cut}");
        assert_eq!(server.dir.read(), after, "cut at {cut}");
        assert_eq!(server.dir.torn(), saved, "cut at {cut}");
        assert_eq!(server.join().says("9").id, expected.len() as u64 + 1, "cut at {cut}");
    });
}

#[test]
fn damage_to_one_line_touches_no_other() {
    let lines = [
        r#"{"n":1}"#,
        r#"{"n":2,"text":"two"}"#,
        r#"{"n":3,"ü":[1,2]}"#,
        r#"{"n":4}"#,
        r#"{"n":5}"#,
    ];
    const DAMAGED: usize = 2;
    let victim = lines[DAMAGED].as_bytes();
    let mut damages: Vec<Vec<u8>> = Vec::new();
    for at in 0..victim.len() {
        let (before, after) = (&victim[..at], &victim[at + 1..]);
        damages.push([before, after].concat());
        // A newline would be damage to the lines' numbers, which is not this test's.
        for byte in [victim[at] ^ 0x80, victim[at] ^ 0x02, 0, b'"', 0xff] {
            damages.push([before, &[byte], after].concat());
            damages.push([before, &[byte], &victim[at..]].concat());
        }
    }
    damages.push(Vec::new());
    // Many damages at a time: each is a line between sound ones.
    let damages: Vec<&[Vec<u8>]> = damages.chunks(8).collect();
    each_of(&damages, |damages| {
        let mut file = Vec::new();
        for damage in *damages {
            for (at, line) in lines.iter().enumerate() {
                file.extend(if at == DAMAGED { damage } else { line.as_bytes() });
                file.push(b'\n');
            }
        }
        let server = Server::on(&file);
        let history = server.join().history;
        assert_eq!(history.last_id as usize, damages.len() * lines.len());
        let messages = history.messages();
        for (at, damage) in damages.iter().enumerate() {
            for (line, sound) in lines.iter().enumerate() {
                let id = (at * lines.len() + line + 1) as u64;
                let served = messages.iter().find(|(it, _)| *it == id).map(|(_, said)| *said);
                if line != DAMAGED {
                    assert_eq!(served, Some(*sound), "beside {}", lossy(damage));
                } else if let Some(served) = served {
                    // White space around a message is no part of it.
                    let damage = std::str::from_utf8(damage).expect("what is served is UTF-8");
                    assert_eq!(served, damage.trim(), "served other than stored");
                }
            }
        }
        assert!(server.dir.read() == file, "damage is not the server's to repair");
    });
}

#[test]
fn a_tail_damaged_at_any_byte_costs_at_most_itself() {
    let whole = "{\"n\":1}\n{\"n\":2}\n";
    let tail = r#"{"n":3,"é":"x"}"#.as_bytes();
    let places: Vec<usize> = (0..tail.len()).collect();
    each_of(&places, |at| {
        let mut damaged = tail.to_vec();
        damaged[*at] ^= 0x08;
        let server = Server::on([whole.as_bytes(), &damaged].concat());
        let history = server.join().history;
        let said = history.said();
        assert_eq!(said[..2], [r#"{"n":1}"#, r#"{"n":2}"#]);
        // Either it is still a message, or its bytes are beside the file.
        match said.get(2) {
            Some(third) => assert_eq!(third.as_bytes(), damaged),
            None => assert_eq!(server.dir.torn(), [damaged]),
        }
    });
}

#[test]
fn what_is_no_file_is_refused_with_its_path() {
    let setup = Setup::new();
    fs::create_dir(setup.dir.file()).expect("a directory");
    setup.ends().with(66, &["messages.txt", "directory", "name a text file with --file"]);
    assert!(setup.dir.file().is_dir(), "it is left alone");

    let setup = Setup::new();
    shell(&format!("mkfifo '{}'", setup.dir.file().display()));
    setup.ends().with(66, &["messages.txt"]);

    let setup = Setup::new();
    std::os::unix::fs::symlink("/dev/null", setup.dir.file()).expect("a link");
    setup.ends().with(66, &["messages.txt"]);

    let setup = Setup::bare().flags(&["--listen", "127.0.0.1:0", "--file", "no/such/place.txt"]);
    setup.ends().with(66, &["no/such/place.txt", "name another --file"]);
}

#[test]
fn a_link_to_the_file_will_do() {
    let setup = Setup::new();
    fs::write(setup.dir.join("real.txt"), "1\n").expect("a file");
    std::os::unix::fs::symlink("real.txt", setup.dir.file()).expect("a link");
    let server = setup.start();
    assert_eq!(server.join().history.said(), ["1"]);
    server.join().says("2");
    let server = server.restart();
    assert_eq!(server.join().history.said(), ["1", "2"]);
    assert_eq!(fs::read(server.dir.join("real.txt")).expect("it is there"), b"1\n2\n");
}

#[test]
fn a_link_to_a_file_that_is_not_there_yet_makes_it() {
    let setup = Setup::new();
    fs::create_dir(setup.dir.join("elsewhere")).expect("a folder");
    std::os::unix::fs::symlink("elsewhere/chat.txt", setup.dir.file()).expect("a link");
    let server = setup.start();
    server.join().says("1");
    let server = server.restart();
    assert_eq!(server.join().history.said(), ["1"]);
    assert_eq!(fs::read(server.dir.join("elsewhere/chat.txt")).expect("it is there"), b"1\n");
    assert!(server.dir.join("elsewhere/chat.txt.lock").exists(), "the lock is beside the file");
}

#[test]
fn a_second_server_on_a_file_is_refused_and_harms_nothing() {
    let server = Server::on(SEED);
    let mut ann = server.join();
    // A tail that the second one must not repair.
    server.dir.append("{\"half\":");
    server.setup().ends().with(73, &["messages.txt", "choose another --file"]);
    server.dir.append("1}\n");
    assert_eq!(ann.hears(r#"{"half":1}"#).id, 8);
    assert!(server.dir.torn().is_empty(), "the second one repaired the first one's file");
    assert_eq!(ann.says("9").id, 9);
    // The lock goes with its holder, however it went.
    let server = server.kill().start();
    assert_eq!(server.join().history.last_id, 9);
}
