use std::fs;

use crate::{
    config::Fsync,
    history::History,
    journal::{Erased, Journal, beside::path_beside},
    testing::{Dir, FaultySystem},
};

fn open(dir: &Dir) -> (Journal, History) {
    let (journal, history) =
        Journal::open(&dir.file(), Fsync::Always, 1 << 20).expect("the file can be served");
    let journal = journal.with_stamps(&history).expect("the stamps can be kept");
    journal.with_operations(history).expect("the file can be written")
}

#[test]
fn a_start_erases_what_a_crash_left_of_deleted_messages() {
    /// Starts on a file, and again on what that left.
    #[track_caller]
    fn check(before: &str, after: &str, messages: u64) {
        let dir = Dir::new();
        dir.write(before);
        for start in 1..=2 {
            let (_, history) = open(&dir);
            let left = String::from_utf8(dir.read()).expect("UTF-8");
            assert_eq!(left, after, "start {start} on {before:?}");
            assert_eq!(history.messages(), messages, "start {start} on {before:?}");
        }
    }
    let delete = |id| format!("{{\"$op\":\"delete\",\"id\":{id}}}\n");
    let check_one = |line: &str, erased: &str| {
        let delete = delete(1);
        check(&format!("{line}\n{delete}"), &format!("{erased}\n{delete}"), 1);
    };
    check_one("{\"user\":\"ann\"}", "null          ");
    check_one("12345", "null ");
    // There is no room for a space after null, but the operation says that these are deleted.
    check_one("1234", "null");
    check_one("null", "null");
    check_one("123", "[] ");
    check_one("\"\"", "\"\"");
    check_one("42", "\"\"");
    check_one("7", "0");
    check_one(" [1,2] \r", "null    ");
    check_one("\u{feff}{\"a\":1}", "\u{feff}null   ");
    check_one("\"é😀\"", "null    ");
    // What is erased already, and what never was a message, stays as it is.
    check_one("null     ", "null     ");
    check_one("junk", "junk");
    check_one("", "");
    // Edits go with the message, and other messages stay.
    let edit = |data| format!("{{\"$op\":\"edit\",\"id\":1,\"data\":{data}}}\n");
    let erased = |line: String| format!("null{}\n", " ".repeat(line.len() - 5));
    check(
        &["[\"one\"]\n[\"two\"]\n", &edit(1), &edit(22), "[]\n", &delete(1)].concat(),
        &["null   \n[\"two\"]\n", &erased(edit(1)), &erased(edit(22)), "[]\n", &delete(1)].concat(),
        3,
    );
    // An operation that names a later line, or itself, or another operation, means nothing.
    check(&format!("{}123456\n", delete(2)), &format!("{}123456\n", delete(2)), 2);
    check(&delete(1), &delete(1), 1);
    check(&[delete(9), delete(1)].concat(), &[delete(9), delete(1)].concat(), 2);
    // It is done once however often it is said.
    check(&format!("123456\n{0}{0}", delete(1)), &format!("null  \n{0}{0}", delete(1)), 2);
}

#[test]
fn the_epoch_outlives_an_erasure_and_every_crash_in_the_middle_of_one() {
    let text = |len: usize| format!("\"{}\"\n", "x".repeat(len));
    // The message is among the last bytes that were numbered, or long before them, or across.
    for after in [0, 100, 4000, 4096, 5000, 100_000] {
        let dir = Dir::new();
        dir.write([text(10), text(200), text(after)].concat());
        let (journal, history) = open(&dir);
        let epoch = journal.epoch().clone();
        drop((journal, history));
        dir.append("{\"$op\":\"delete\",\"id\":2}\n");
        // The start erases it, and so does the hub; here the hub does it, step by step.
        let (mut journal, history) = open(&dir);
        assert_eq!((journal.epoch(), history.messages()), (&epoch, 3), "after the start, {after}");
        let lock = || fs::read(path_beside(&dir.file(), "lock")).expect("the lock file");
        let (noted, whole) = (lock(), dir.read());
        let undone = [text(10), text(200), text(after), "{\"$op\":\"delete\",\"id\":2}\n".into()];
        dir.write(undone.concat());
        let mut fresh = History::load(journal.file().clone(), history.end(), 1 << 20).unwrap();
        assert_eq!(fresh.replay_operations(|_| None, &[]), [2], "it is still there");
        let lines = fresh.erase(&[2]).unwrap();
        assert_eq!(journal.erase(lines, &fresh).unwrap(), Erased::Done);
        assert_eq!(dir.read(), whole);
        let between = lock();
        drop((journal, fresh));
        // The crash comes right before the overwriting, or right after it.
        for bytes in [undone.concat().into_bytes(), whole.clone()] {
            dir.write(&bytes);
            fs::write(path_beside(&dir.file(), "lock"), &between).unwrap();
            assert_eq!(open(&dir).0.epoch(), &epoch, "{after}");
            assert_eq!(lock(), noted, "{after}");
            assert_eq!(dir.read(), whole);
        }
    }
}

#[test]
fn what_a_start_has_no_room_to_erase_is_erased_later() {
    let dir = Dir::new();
    let delete = "{\"$op\":\"delete\",\"id\":1}\n";
    dir.write(format!("[\"one\"]\n{delete}"));
    let system = FaultySystem::new(&dir);
    system.fail_beside(Some(libc::EDQUOT));
    let (journal, history) =
        Journal::open(&dir.file(), Fsync::Always, 1 << 20).expect("the file can be served");
    let (mut journal, history) =
        journal.with_system(system.clone()).with_operations(history).expect("it can be served");
    assert!(journal.has_unerased() && !history.is_message(1));
    assert_eq!(journal.erase_what_is_left(&history).expect("no harm is done"), Erased::Later);
    assert_eq!(dir.read(), format!("[\"one\"]\n{delete}").into_bytes());
    system.fail_beside(None);
    assert_eq!(journal.erase_what_is_left(&history).expect("there is room"), Erased::Done);
    assert_eq!(dir.read(), format!("null   \n{delete}").into_bytes());
    assert!(!journal.has_unerased());
}
