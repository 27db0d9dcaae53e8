use std::collections::BTreeMap;

use super::*;
use crate::{config::Fsync, testing::Dir};

/// The files of a folder but the lock file, by the ends of their names; those to be posted as `in-`.
fn files(dir: &Dir) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir.path()).expect("the folder is there");
    let names = entries.map(|entry| entry.expect("it can be read").file_name());
    let names = names.map(|name| name.to_str().expect("UTF-8").to_owned());
    let named = names.filter(|name| !name.ends_with(".lock")).map(|name| {
        let text = fs::read_to_string(dir.path().join(&name)).expect("it can be read");
        let end = name.strip_prefix("messages.txt").expect("it is a file of the text");
        let end = match end.find("in-").or(end.find("torn-")) {
            Some(at) => &end[..at + end[at..].find('-').expect("it is there")],
            None => end,
        };
        (end.to_owned(), text)
    });
    named.collect()
}

/// Mends a file that a crash left, and checks which files there are afterwards.
#[track_caller]
fn check(left: &[(&str, &str)], mended: &[(&str, &str)]) {
    let dir = Dir::new();
    for (end, text) in left {
        let path = path_beside(&dir.file(), "x").with_file_name(format!("messages.txt{end}"));
        fs::write(path, text).expect("it can be written");
    }
    mend_copy(&dir.file()).expect("it can be mended");
    let mended: BTreeMap<_, _> =
        mended.iter().map(|(end, text)| ((*end).to_owned(), (*text).to_owned())).collect();
    assert_eq!(files(&dir), mended, "{left:?}");
    // Again is the same.
    mend_copy(&dir.file()).expect("it can be mended");
    assert_eq!(files(&dir), mended, "{left:?}, again");
}

#[test]
fn lines_on_their_way_to_the_inbox_are_in_one_place_after_a_crash() {
    // Before they were cut off, and after; while they were copied.
    check(&[("", "1\n2\n3\n"), (".moving-2", "2\n3\n")], &[("", "1\n2\n3\n")]);
    check(&[("", "1\n"), (".moving-2", "2\n3\n")], &[("", "1\n"), (".in", "2\n3\n")]);
    check(&[("", "1\n2\n3\n"), (".moving-2", "2\n")], &[("", "1\n2\n3\n")]);
    check(&[("", "1\n2\n"), (".moving-2", "")], &[("", "1\n2\n")]);
    // Others appended since.
    check(&[("", "1\n4\n"), (".moving-2", "2\n")], &[("", "1\n4\n"), (".in", "2\n")]);
}

#[test]
fn a_last_line_without_an_end_is_never_completed() {
    check(&[("", "1\n2")], &[("", "1\n"), (".torn", "2")]);
    check(&[("", "1\n")], &[("", "1\n")]);
    check(&[("", "")], &[("", "")]);
}

#[test]
fn a_file_that_is_not_there_is_not_made() {
    check(&[], &[]);
}

#[test]
fn a_copy_that_is_put_away_leaves_nothing_to_a_later_one_of_its_name() {
    let dir = Dir::new();
    fs::write(dir.file(), "1\n").expect("it can be written");
    let open = || Journal::open(&dir.file(), Fsync::Never, 1 << 20).expect("it can be opened").0;
    let mut journal = open();
    let epoch = journal.epoch().clone();
    for ending in ["in", "in-0123", "moving-2", "stamps", "torn-7"] {
        fs::write(path_beside(&dir.file(), ending), ending).expect("it can be written");
    }
    let away = journal.put_away_copy().expect("the folder is fine");
    for (path, text) in [
        (away.clone(), "1\n"),
        (path_beside(&away, "in"), "in"),
        (path_beside(&away, "in-0123"), "in-0123"),
        (path_beside(&away, "moving-2"), "moving-2"),
        (path_beside(&away, "stamps"), "stamps"),
        (path_beside(&dir.file(), "torn-7"), "torn-7"),
    ] {
        assert_eq!(fs::read_to_string(&path).expect("it is there"), text, "{}", path.display());
    }
    assert!(!dir.file().exists());
    drop(journal);
    // One that is put back is a channel of its own.
    fs::rename(&away, dir.file()).expect("it can be renamed");
    assert_ne!(*open().epoch(), epoch);
}
