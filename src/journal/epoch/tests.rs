use std::fs;

use super::*;
use crate::{
    config::Fsync,
    journal::{Journal, beside::path_beside},
    testing::Dir,
};

const MAX_MESSAGE: usize = 1 << 20;

fn open(dir: &Dir) -> (Journal, History) {
    Journal::open(&dir.file(), Fsync::Never, MAX_MESSAGE).expect("the file can be served")
}

/// The epoch of the file as it is now.
fn epoch(dir: &Dir) -> String {
    open(dir).0.epoch().to_string()
}

#[test]
fn the_epoch_stays_as_long_as_the_file_goes_on_where_it_was() {
    let dir = Dir::new();
    let first = epoch(&dir);
    assert_eq!(first.len(), 16);
    assert_eq!(epoch(&dir), first);
    dir.append("1\n2\n");
    assert_eq!(epoch(&dir), first, "foreign lines that came while no server ran");
    dir.append("{\"torn\"");
    assert_eq!(epoch(&dir), first, "a torn tail was never numbered");
    dir.append("3");
    assert_eq!(epoch(&dir), first, "a tail that got its end");
    let (mut journal, mut history) = open(&dir);
    journal.append(b"4\n", history.end()).unwrap();
    history.push_line(2);
    journal.note_numbering(&history).unwrap();
    drop((journal, history));
    assert_eq!(epoch(&dir), first, "lines of our own");
}

#[test]
fn what_a_crash_left_of_a_longer_record_does_no_harm() {
    let dir = Dir::new();
    let first = epoch(&dir);
    let lock_file = path_beside(&dir.file(), "lock");
    let record = fs::read_to_string(&lock_file).unwrap();
    fs::write(&lock_file, record + "is left\n").unwrap();
    assert_eq!(epoch(&dir), first);
}

#[test]
fn the_epoch_changes_when_ids_may_mean_other_messages() {
    #[track_caller]
    fn check(before: &[u8], after: &[u8]) {
        let dir = Dir::new();
        dir.write(before);
        let first = epoch(&dir);
        dir.write(after);
        let second = epoch(&dir);
        assert_ne!(first, second);
        assert_eq!(epoch(&dir), second, "and stays then");
    }
    // A backup was put back.
    check(b"1\n2\n3\n", b"1\n2\n");
    // A backup was put back, and other lines were added.
    check(b"1\n2\n3\n", b"1\n2\n4\n5\n");
    check(b"1\n2\n3\n", b"");
    // The length is the same.
    check(b"1\n2\n3\n", b"1\n2\n4\n");
    // The length and the end are the same, but there are fewer lines.
    let same = "x".repeat(TAIL as usize);
    check(format!("1\n2\n\"{same}\"\n").as_bytes(), format!("1 2\n\"{same}\"\n").as_bytes());
    // A line was taken out.
    check(b"1\n2\n3\n", b"1\n3\n4\n");
}

#[test]
fn a_record_that_is_not_ours_never_becomes_the_epoch() {
    for record in [
        "",
        "epoch a\"b lines 1 bytes 2 tail 0\n",
        "epoch abc lines 1 bytes 2\n",
        "epoch abc lines -1 bytes 2 tail 0\n",
        "epoch abc lines 1 bytes 99999999999999999999999 tail 0\n",
        "epoch abc lines 1 bytes 9 tail 0\n",
        "epoch abc lines 0 bytes 0 tail cbf29ce484222325 stamps\n",
        "epoch abc lines 0 bytes 0 tail cbf29ce484222325 stamps 1 2 x -\n",
        "epoch abc lines 0 bytes 0 tail cbf29ce484222325 stamps 1 2 0 - 123456789\n",
        "epoch abc lines 0 bytes 0 tail cbf29ce484222325 marks 1 2 0 -\n",
        "\u{0}\u{0}\u{0}",
    ] {
        let dir = Dir::new();
        dir.write("1\n");
        fs::write(path_beside(&dir.file(), "lock"), record).unwrap();
        let epoch = epoch(&dir);
        assert!(epoch.len() == 16 && epoch.bytes().all(|b| b.is_ascii_hexdigit()), "{epoch}");
    }
    let dir = Dir::new();
    dir.write("1\n");
    fs::write(path_beside(&dir.file(), "lock"), [0xff; 2000]).unwrap();
    assert_eq!(epoch(&dir).len(), 16);
}

#[test]
fn a_shorter_record_leaves_nothing_of_a_longer_one() {
    let dir = Dir::new();
    dir.write("1\n".repeat(1000));
    drop(open(&dir));
    dir.write("1\n");
    let epoch = epoch(&dir);
    let record = String::from_utf8(dir.beside("lock").remove(0)).unwrap();
    assert!(record.starts_with(&format!("epoch {epoch} lines 1 bytes 2 tail ")), "{record}");
    assert_eq!(record.lines().count(), 1);
}

#[test]
fn an_epoch_that_finds_no_room_in_the_lock_file_stops_no_start() {
    let dir = Dir::new();
    dir.write("1\n2\n");
    let full = || File::options().read(true).write(true).open("/dev/full").expect("a full disk");
    let (mut journal, history) = open(&dir);
    let mut epoch = Epoch::open(full(), None, journal.file(), &history).expect("it goes on");
    epoch.note(journal.file(), &history).expect_err("the disk is still full");
    // What the rest of a start notes has no room, either.
    journal.epoch = epoch;
    let journal = journal.with_stamps(&history).expect("it goes on");
    drop(journal);
    dir.append("{\"$op\":\"delete\",\"id\":1}\n");
    let (mut journal, history) = open(&dir);
    journal.epoch = Epoch::open(full(), None, journal.file(), &history).expect("it goes on");
    journal.with_operations(history).expect("it goes on");
    assert_eq!(dir.read(), b"0\n2\n{\"$op\":\"delete\",\"id\":1}\n");
}
