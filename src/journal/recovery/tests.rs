use std::os::{
    fd::AsRawFd,
    unix::fs::{MetadataExt, symlink},
};

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags};

use super::*;
use crate::testing::{Dir, limit_file_size, tries};

const MAX_MESSAGE: usize = 1 << 20;

fn open(dir: &Dir) -> (Journal, History) {
    Journal::open(&dir.file(), Fsync::Never, MAX_MESSAGE).expect("the file can be served")
}

fn open_error(path: &Path) -> String {
    Journal::open(path, Fsync::Never, MAX_MESSAGE).expect_err("it is refused").to_string()
}

/// The lines that a history serves, with their ids.
fn served(history: &History) -> Vec<(u64, Vec<u8>)> {
    let stretch = history.window(&Default::default());
    let mut messages = stretch.messages().expect("the file can be read");
    let mut all = Vec::new();
    while let Some(message) = messages.next().expect("the file can be read") {
        let (id, text) = (message.id, message.data);
        all.push((id, text.to_vec()));
    }
    all
}

/// The messages on the whole lines of a file, with their ids.
fn messages_in(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
    let lines = bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    (1..)
        .zip(lines)
        .filter_map(|(id, line)| Some((id, message::on_line(&line[..line.len() - 1])?.to_vec())))
        .collect()
}

/// The whole lines of a file, and the bytes after them.
fn whole_lines(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1))
}

#[test]
fn a_file_cut_at_any_byte_keeps_every_whole_line_and_loses_not_a_byte() {
    let text = "\u{feff}{\"user\":\"ann\",\"content\":\"\\u00e9é\"}\r\n\n[1, \"x\"]\njunk \"\n 1.50 \n\
                {\"a\":{\"b\":[{}]}}\n\"tail\"";
    for cut in 0..=text.len() {
        let dir = Dir::new();
        let image = &text.as_bytes()[..cut];
        dir.write(image);
        let (whole, tail) = whole_lines(image);
        let bare = if whole.is_empty() { tail.strip_prefix(BOM).unwrap_or(tail) } else { tail };
        let (kept, torn) = match message::on_line(bare) {
            Some(_) => ([image, b"\n"].concat(), vec![]),
            None if tail.is_empty() => (image.to_vec(), vec![]),
            None => (whole.to_vec(), vec![tail.to_vec()]),
        };
        let (journal, history) = open(&dir);
        assert_eq!(dir.read(), kept, "cut at {cut}");
        assert_eq!(dir.beside("torn-"), torn, "cut at {cut}");
        assert_eq!(served(&history), messages_in(&kept), "cut at {cut}");
        assert_eq!(history.end(), kept.len() as u64);
        let epoch = journal.epoch().clone();
        drop(journal);
        // A file that was repaired stays as it is.
        let (journal, history) = open(&dir);
        assert_eq!((dir.read(), dir.beside("torn-")), (kept.clone(), torn), "cut at {cut}");
        assert_eq!(served(&history), messages_in(&kept), "cut at {cut}");
        assert_eq!(*journal.epoch(), epoch);
    }
}

#[test]
fn a_torn_tail_of_any_length_is_saved_and_each_in_a_file_of_its_own() {
    let dir = Dir::new();
    let long = [b"1\n{\"long\":\"".to_vec(), vec![b'x'; 200_000]].concat();
    for tail in [long, b"1\n{\"second\"".to_vec()] {
        dir.write(tail);
        drop(open(&dir));
        assert_eq!(dir.read(), b"1\n");
    }
    let mut torn: Vec<_> = dir.beside("torn-").iter().map(Vec::len).collect();
    torn.sort();
    assert_eq!(torn, [9, 200_009]);
}

#[test]
fn a_last_message_whose_end_finds_no_room_stays_and_stops_no_start() {
    let limit = limit_file_size();
    let dir = Dir::new();
    dir.write("1\n");
    OpenOptions::new().write(true).open(dir.file()).unwrap().set_len(limit - 4).unwrap();
    dir.append("\n123");
    let (mut journal, history) = open(&dir);
    assert_eq!((history.last_id(), history.end()), (2, limit - 3));
    // It is the beginning of a line, as if another program had not ended it yet.
    assert_eq!(journal.survey(history.end()).expect("nothing was cut"), limit);
    assert!(dir.read().ends_with(b"\0\n123") && dir.beside("torn-").is_empty());
}

#[test]
fn a_torn_tail_that_cannot_be_saved_leaves_no_file_beside() {
    let dir = Dir::new();
    let unreadable = File::open(dir.path()).unwrap();
    move_tail(&dir.file(), &unreadable, 0, 10).expect_err("a directory has no bytes");
    assert!(dir.beside("torn-").is_empty());
}

#[test]
fn a_tail_above_the_longest_line_is_torn_even_if_it_is_json() {
    let dir = Dir::new();
    dir.write(format!("1\n{:>101}", 2));
    let file = OpenOptions::new().read(true).append(true).open(dir.file()).unwrap();
    assert_eq!(recover(&dir.file(), &file, 100).unwrap(), 2);
    assert_eq!(dir.read(), b"1\n");
    dir.write(format!("1\n{:>100}", 2));
    assert_eq!(recover(&dir.file(), &file, 100).unwrap(), 103);
    assert!(dir.read().ends_with(b" 2\n"));
}

#[test]
fn the_end_of_the_whole_lines_is_found_however_far_back() {
    #[track_caller]
    fn check(bytes: &[u8], expected: u64) {
        let file = crate::testing::file_of(bytes);
        assert_eq!(end_of_whole_lines(&file, bytes.len() as u64).unwrap(), expected);
    }
    check(b"", 0);
    check(b"1", 0);
    check(b"\n", 1);
    check(b"1\n2", 2);
    for behind in [65_535, 65_536, 65_537, 131_071, 131_072, 200_000] {
        check(&[b"1\n".to_vec(), vec![b'x'; behind]].concat(), 2);
        check(&vec![b'x'; behind], 0);
    }
}

#[test]
fn a_start_writes_again_the_lines_that_a_failed_sync_may_have_left_in_memory_alone() {
    let dir = Dir::new();
    let line = format!("\"{}\"\n", "x".repeat(997));
    // It takes more than one block.
    let text = line.repeat(REWRITE_BYTES as usize / 1000 * 5 / 2);
    dir.write(&text);
    let modified = || {
        let meta = fs::metadata(dir.file()).unwrap();
        (meta.ino(), meta.mtime(), meta.mtime_nsec())
    };
    let before = modified();
    // A policy that promises nothing of a power cut does not make the start wait for the disk.
    drop(Journal::open(&dir.file(), Fsync::Never, MAX_MESSAGE).unwrap());
    assert_eq!(modified(), before);
    for fsync in [Fsync::EverySecond, Fsync::Always] {
        let before = modified();
        drop(Journal::open(&dir.file(), fsync, MAX_MESSAGE).unwrap());
        assert!(before < modified() && before.0 == modified().0, "{fsync:?}");
        assert!(dir.read() == text.as_bytes());
    }
}

#[test]
fn a_start_writes_a_batch_of_any_size_again_but_no_line_that_was_synced_long_ago() {
    const BATCH: u64 = REWRITE_BYTES + 100;
    #[track_caller]
    fn check(synced: u64, end: u64, expected_start: u64) {
        assert_eq!(perhaps_unsynced(synced, end, 100), expected_start..end);
    }
    check(0, 0, 0);
    check(0, REWRITE_BYTES, 0);
    // The server stopped in order.
    check(9 * REWRITE_BYTES, 9 * REWRITE_BYTES, 8 * REWRITE_BYTES);
    // The largest batch came after the lock file was written.
    check(9 * REWRITE_BYTES, 9 * REWRITE_BYTES + BATCH, 9 * REWRITE_BYTES);
    // More lines than that came: all but the last batch are on disk.
    check(9 * REWRITE_BYTES, 9 * REWRITE_BYTES + 2 * BATCH, 9 * REWRITE_BYTES + BATCH);
    // The record is that of another file, or there is none.
    check(0, 9 * REWRITE_BYTES, 9 * REWRITE_BYTES - BATCH);
    check(u64::MAX, 9 * REWRITE_BYTES, 8 * REWRITE_BYTES);
}

/// A file to which something may not be done. The error is that of `chattr +a`, and root gets it, too.
fn sealed(bytes: &[u8], seal: SealFlags) -> File {
    let file = rustix::fs::memfd_create("text", MemfdFlags::ALLOW_SEALING).expect("a file");
    let file = File::from(file);
    (&file).write_all(bytes).expect("it is not sealed yet");
    rustix::fs::fcntl_add_seals(&file, seal).expect("it can be sealed");
    file
}

#[test]
fn a_torn_tail_that_cannot_be_cut_off_stays_and_stops_no_start() {
    let dir = Dir::new();
    let file = sealed(b"1\n{\"torn\"", SealFlags::SHRINK);
    assert_eq!(recover(&dir.file(), &file, 100).expect("it can be served"), 2);
    assert_eq!(file.metadata().unwrap().len(), 9);
    assert!(dir.beside("torn-").is_empty());
}

#[test]
fn a_file_whose_end_may_not_be_written_again_can_be_served() {
    let file = sealed(b"1\n", SealFlags::WRITE);
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let error = rewrite(&path, &file, 0..2).expect_err("it is sealed");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    bring_to_disk(&path, &file, 0..2).expect("that stops no start");
}

#[test]
fn a_missing_file_is_made_with_the_rights_of_any_file() {
    let dir = Dir::new();
    let (_journal, history) = open(&dir);
    assert_eq!((dir.read(), history.last_id()), (vec![], 0));
    let other = dir.path().join("other");
    File::create(&other).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode();
    assert_eq!(mode(&dir.file()), mode(&other));
}

#[test]
fn a_second_server_is_refused_before_it_repairs_anything() {
    let dir = Dir::new();
    let (_journal, _) = open(&dir);
    dir.append("{\"torn\"");
    let error = open_error(&dir.file());
    let path = dir.file().display().to_string();
    assert_eq!(error, format!("{path} is in use by another server (it holds {path}.lock)"));
    // Under another name, too.
    let link = dir.path().join("link.txt");
    symlink(dir.file(), &link).unwrap();
    assert!(open_error(&link).contains("in use by another server"));
    assert_eq!(dir.read(), b"{\"torn\"");
    assert!(dir.beside("torn-").is_empty());
}

#[test]
fn a_server_that_is_about_to_be_gone_is_waited_for() {
    let dir = Dir::new();
    let (journal, _) = open(&dir);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(LOCK_LOOK * 2);
            drop(journal);
        });
        open(&dir);
    });
}

#[test]
fn the_lock_is_free_when_the_server_is_gone_and_the_lock_file_stays() {
    let dir = Dir::new();
    drop(open(&dir));
    assert_eq!(dir.beside("lock").len(), 1);
    drop(open(&dir));
}

#[test]
fn a_path_that_is_no_text_file_is_refused_with_the_reason() {
    let dir = Dir::new();
    let path = dir.path().display().to_string();
    let what = "is a directory, not a text file";
    assert_eq!(open_error(dir.path()), format!("{path}: {what}"));
    let what = "is not a regular file";
    assert_eq!(open_error(Path::new("/dev/null")), format!("/dev/null: {what}"));
    let missing = dir.path().join("no/such.txt");
    let there_is_none = format!("{path}/no/such.txt: there is no folder {path}/no");
    assert_eq!(open_error(&missing), there_is_none);
    fs::create_dir(dir.path().join("messages.txt.lock")).unwrap();
    let lock = format!(
        "{path}/messages.txt.lock: is a directory, not a text file; the server needs a file of this name \
         that it can write"
    );
    assert_eq!(open_error(&dir.file()), lock);
    assert!(!dir.file().exists());
}

/// The epoch of the file as it is now.
fn epoch(dir: &Dir) -> String {
    open(dir).0.epoch().to_string()
}

/// What a block of the disk may hold after a power cut, if it was written and not synced.
#[derive(Clone, Copy, Debug)]
enum Block {
    Written,
    Zero,
    Stale,
}

fn block() -> impl Strategy<Value = Block> {
    prop_oneof![2 => Just(Block::Written), 1 => Just(Block::Zero), 1 => Just(Block::Stale)]
}

/// One batch of lines, as a server writes it.
fn batch() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        4 => (0..90usize).prop_map(|len| format!("{{\"content\":\"{}\"}}\n", "é".repeat(len))),
        1 => (100..900usize).prop_map(|len| format!("{{\"content\":\"{}\"}}\n", "x".repeat(len))),
        1 => Just("17\n".to_owned()),
        1 => Just("\n".to_owned()),
        1 => Just("not json\n".to_owned()),
    ];
    prop::collection::vec(line, 1..5).prop_map(|lines| lines.concat())
}

const SECTOR: usize = 512;

proptest! {
    #![proptest_config(tries(150))]

    /// After a power cut the disk has all that was synced. Of the bytes that were not, it has any
    /// number, and any of their blocks; the other blocks are zeros or what was there before.
    #[test]
    fn a_power_cut_takes_nothing_that_was_synced(
        synced in prop::collection::vec(batch(), 0..6),
        unsynced in prop::collection::vec(batch(), 0..6),
        blocks in prop::collection::vec(block(), 32),
        length in any::<prop::sample::Index>(),
        remembered in any::<prop::sample::Index>(),
    ) {
        let dir = Dir::new();
        // The server numbers what it writes, and notes now and then how far it has come.
        let remembered = remembered.index(synced.len() + 1);
        dir.write(synced[..remembered].concat());
        let epoch = epoch(&dir);
        let synced = synced.concat();
        let mut image = (synced.clone() + &unsynced.concat()).into_bytes();
        image.truncate(synced.len() + length.index(image.len() - synced.len() + 1));
        for (at, byte) in image.iter_mut().enumerate().skip(synced.len()) {
            match blocks[at / SECTOR % blocks.len()] {
                Block::Written => {}
                Block::Zero => *byte = 0,
                Block::Stale => *byte = b"{\"stale\":[7]}\n"[at % 14],
            }
        }
        dir.write(&image);

        let (journal, history) = open(&dir);
        let kept = messages_in(synced.as_bytes());
        prop_assert_eq!(&served(&history)[..kept.len()], &kept[..], "ids and bytes");
        prop_assert_eq!(journal.epoch().to_string(), epoch.clone());
        let file = dir.read();
        prop_assert!(file.starts_with(synced.as_bytes()) && file.ends_with(b"\n") | file.is_empty());
        prop_assert_eq!(file.len() as u64, history.end());
        // Not a byte is lost: it is in the file or beside it.
        let torn = dir.beside("torn-").concat();
        let mended = [&image[..], b"\n"].concat();
        prop_assert!(file == mended && torn.is_empty() || [file.clone(), torn].concat() == image);
        prop_assert_eq!(served(&history), messages_in(&file));

        drop((journal, history));
        let (journal, history) = open(&dir);
        prop_assert_eq!(dir.read(), file.clone());
        prop_assert_eq!(served(&history), messages_in(&file));
        prop_assert_eq!(journal.epoch().to_string(), epoch);
    }

    #[test]
    fn a_byte_changed_in_one_line_harms_no_other_line(
        lines in prop::collection::vec(batch(), 1..4),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let before = lines.concat().into_bytes();
        let mut image = before.clone();
        let at = at.index(image.len());
        prop_assume!(byte != b'\n' && image[at] != b'\n');
        image[at] = byte;
        let dir = Dir::new();
        dir.write(&image);
        let (_journal, history) = open(&dir);
        let damaged = 1 + before[..at].iter().filter(|&&byte| byte == b'\n').count() as u64;
        let others = |mut all: Vec<(u64, Vec<u8>)>| { all.retain(|(id, _)| *id != damaged); all };
        prop_assert_eq!(others(served(&history)), others(messages_in(&before)));
        prop_assert_eq!(dir.read(), image);
    }
}
