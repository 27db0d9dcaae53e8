use std::{
    collections::{BTreeMap, HashMap},
    io::Write as _,
    os::unix::fs::symlink,
    time::Duration,
};

use proptest::prelude::*;
use rustix::fs::{CWD, Mode, mkfifoat};

use super::*;
use crate::{
    config::Fsync,
    history::{History, Window},
    journal::{AppendError, Journal, SYNC_EVERY},
    stamps::NewStamps,
    testing::{Dir, FaultySystem, tries},
};

const MAX_MESSAGE: usize = 1 << 20;

/// A moment in 2026, in Unix milliseconds.
const START: u64 = 1_795_442_535_123;

/// A stamp, with the sender's name.
type Known = (Option<u64>, Option<String>);

const NOTHING_KNOWN: Known = (None, None);

/// A text file and its stamps, written as the hub writes them.
struct Pair {
    dir: Dir,
    system: FaultySystem,
    journal: Journal,
    history: History,
    /// The stamp of each line, by what stands on it.
    truth: HashMap<String, Known>,
    said: u64,
    now: u64,
    fsync: Fsync,
}

fn open_in(dir: &Dir, boot: &str) -> (FaultySystem, Journal, History) {
    open_with(dir, boot, Fsync::EverySecond)
}

fn open_with(dir: &Dir, boot: &str, fsync: Fsync) -> (FaultySystem, Journal, History) {
    let system = FaultySystem::new(dir);
    let (journal, history) = Journal::open(&dir.file(), fsync, MAX_MESSAGE).expect("a text file");
    let journal = journal.with_system(system.clone());
    let journal = journal.with_stamps_of(&history, Some(boot)).expect("a stamps file");
    (system, journal, history)
}

impl Pair {
    fn new() -> Pair {
        Pair::with(Fsync::EverySecond)
    }

    fn with(fsync: Fsync) -> Pair {
        let dir = Dir::new();
        let (system, journal, history) = open_with(&dir, "boot-1", fsync);
        Pair { dir, system, journal, history, truth: HashMap::new(), said: 0, now: START, fsync }
    }

    /// The name of the stamps file.
    fn path(&self) -> PathBuf {
        path_beside(&self.dir.file(), "stamps")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).expect("the stamps file")
    }

    /// Says `count` messages; false when there was no room.
    fn say(&mut self, count: u64, from: Option<&str>) -> bool {
        self.now += 7;
        let lines: Vec<_> = (0..count).map(|at| format!("{{\"n\":{}}}", self.said + at)).collect();
        self.said += count;
        let text = lines.join("\n") + "\n";
        let start =
            self.journal.append(text.as_bytes(), self.history.end()).expect("room for text");
        let mut new = NewStamps::default();
        new.push(count, self.now, from);
        match self.journal.stamp(&new) {
            Ok(()) => {}
            Err(AppendError::DiskFull) => {
                self.journal.retract(start..start + text.len() as u64).expect("the file is fine");
                self.system.wait(Duration::from_secs(2));
                return false;
            }
            Err(AppendError::Fatal(fatal)) => panic!("{fatal}"),
        }
        for line in lines {
            self.history.push_line(line.len() as u64 + 1);
            self.truth.insert(line, (Some(self.now), from.map(str::to_owned)));
        }
        self.journal.sync_per_policy().expect("the file is fine");
        true
    }

    /// Another program appends lines; whether the server sees them is another thing.
    fn append_foreign(&mut self, count: u64) {
        for _ in 0..count {
            self.dir.append(format!("{{\"n\":{}}}\n", self.said));
            self.said += 1;
        }
    }

    /// Takes in what other programs appended.
    fn take_in(&mut self) {
        self.now += 7;
        let text = self.dir.read();
        let new = String::from_utf8(text[self.history.end() as usize..].to_vec()).expect("UTF-8");
        let (mut stamps, count) = (NewStamps::default(), new.lines().count() as u64);
        stamps.push(count, self.now, None);
        let is_stamped = match self.journal.stamp(&stamps) {
            Ok(()) => true,
            Err(AppendError::DiskFull) => {
                self.journal.leave_unstamped(count);
                false
            }
            Err(AppendError::Fatal(fatal)) => panic!("{fatal}"),
        };
        for line in new.lines() {
            self.history.push_line(line.len() as u64 + 1);
            let known = if is_stamped { (Some(self.now), None) } else { NOTHING_KNOWN };
            self.truth.insert(line.to_owned(), known);
        }
        self.journal.sync_per_policy().expect("the file is fine");
    }

    /// What the hub does twice a second, after so long that all syncs are due.
    fn tick(&mut self) {
        self.system.wait(SYNC_EVERY);
        self.journal.sync_when_due().expect("the file is fine");
        self.journal.survey_stamps().expect("the folder is fine");
        self.journal.sync_stamps_when_due(&self.history).expect("the file is fine");
        self.journal.note_numbering(&self.history).expect("the lock file is fine");
    }

    /// What the hub does at an orderly stop.
    fn stop(&mut self) {
        self.journal.sync().expect("the file is fine");
        self.journal.end_stamps().expect("the file is fine");
        self.journal.note_numbering(&self.history).expect("the lock file is fine");
    }

    /// Lets go of the files, does something to them, and opens them again.
    fn reopen(self, boot: &str, change: impl FnOnce(&Dir)) -> Pair {
        let Pair { dir, system, journal, history, truth, said, now, fsync } = self;
        drop((journal, history, system));
        change(&dir);
        let (system, journal, history) = open_with(&dir, boot, fsync);
        Pair { dir, system, journal, history, truth, said, now, fsync }
    }

    /// The stamp of each line that holds a message, as it is served.
    fn shown(&self) -> BTreeMap<u64, (String, Known)> {
        let mut messages = self.history.window(&Window::default()).messages().expect("a file");
        let mut stamps = self.journal.stamps_from(1).expect("there are stamps").read();
        let mut shown = BTreeMap::new();
        while let Some(message) = messages.next().expect("a file") {
            let stamp = stamps.of(message.id);
            let known = (stamp.ts, stamp.from.map(str::to_owned));
            let text = String::from_utf8(message.data.to_vec()).expect("UTF-8");
            shown.insert(message.id, (text, known));
        }
        shown
    }

    /// The stamps that are served, in the order of their lines.
    fn stamps(&self) -> Vec<Known> {
        self.shown().into_values().map(|(_, known)| known).collect()
    }

    /// Checks that no stamp is another line's, and that each line of the text has one line there;
    /// returns how many stamps are known.
    #[track_caller]
    fn check(&self) -> usize {
        let shown = self.shown();
        for (id, (text, known)) in &shown {
            let truth = self.truth.get(text);
            assert!(
                *known == NOTHING_KNOWN || truth == Some(known),
                "line {id}, {text}, is shown with {known:?}; the truth is {truth:?}"
            );
        }
        assert_eq!(self.journal.stamped_lines(), Some(self.history.last_id()));
        let lines = self.bytes().iter().filter(|byte| **byte == b'\n').count();
        let missing = self.history.last_id() as usize - lines;
        let is_missing = |(_, known): &&(String, Known)| *known == NOTHING_KNOWN;
        assert_eq!(shown.values().rev().take_while(is_missing).take(missing).count(), missing);
        shown.values().filter(|(_, known)| *known != NOTHING_KNOWN).count()
    }

    /// The contents of the files that were moved aside or cut off.
    fn saved(&self, ending: &str) -> Vec<Vec<u8>> {
        self.dir.beside(&format!("stamps.{ending}-"))
    }
}

/// A pair that has five lines, of three speakers, and that was stopped in order.
fn five_lines() -> Pair {
    let mut pair = Pair::new();
    pair.say(2, Some("ann"));
    pair.append_foreign(1);
    pair.take_in();
    pair.say(1, None);
    pair.say(1, Some("bob~k3v9q2m7x4ab"));
    pair.stop();
    pair
}

#[test]
fn times_and_senders_last_over_restarts_in_plain_text() {
    let pair = five_lines().reopen("boot-2", |_| {});
    let text = String::from_utf8(pair.bytes()).unwrap();
    let expected = "2026-11-23T14:02:15.130Z ann\n2026-11-23T14:02:15.130Z ann\n\
                    2026-11-23T14:02:15.137Z -\n2026-11-23T14:02:15.144Z -\n\
                    2026-11-23T14:02:15.151Z bob~k3v9q2m7x4ab\n";
    assert_eq!(text, expected);
    assert_eq!(pair.check(), 5);
    assert_eq!(pair.journal.latest_time(), START + 28);
    assert_eq!(pair.dir.beside("stamps").len(), 1, "nothing was set aside");
}

#[test]
fn a_text_without_stamps_is_filled_up_with_lines_that_know_nothing() {
    let dir = Dir::new();
    dir.write("1\n\n3\n");
    let (_, journal, _) = open_in(&dir, "boot-1");
    assert_eq!(dir.beside("stamps"), [b"- -\n- -\n- -\n"]);
    assert_eq!((journal.latest_time(), journal.stamped_lines()), (0, Some(3)));
}

#[test]
fn lines_that_came_while_no_server_ran_have_no_stamp() {
    let pair = five_lines().reopen("boot-2", |dir| dir.append("\"cron\"\n"));
    assert_eq!(pair.check(), 5);
    assert!(pair.bytes().ends_with(b"\n- -\n"));
}

#[test]
fn a_server_without_stamps_in_between_leaves_a_gap_and_no_more() {
    let pair = five_lines().reopen("boot-1", |dir| {
        let (mut journal, mut history) =
            Journal::open(&dir.file(), Fsync::Never, MAX_MESSAGE).expect("a text file");
        journal.append(b"\"unstamped\"\n", history.end()).expect("room");
        history.push_line(12);
        journal.note_numbering(&history).expect("the lock file is fine");
    });
    assert_eq!((pair.check(), pair.stamps().len()), (5, 6));
}

#[test]
fn stamps_cut_at_any_byte_are_filled_up_again_or_set_aside_and_never_wrong() {
    let whole = five_lines().bytes();
    let ends: Vec<_> = memchr::memchr_iter(b'\n', &whole).map(|at| at + 1).collect();
    for cut in 0..=whole.len() {
        let pair = five_lines().reopen("boot-1", |dir| {
            fs::write(path_beside(&dir.file(), "stamps"), &whole[..cut]).expect("the stamps file");
        });
        // Of each line but the second, the record knows which it is.
        let known = match ends.iter().filter(|end| **end <= cut).count() {
            2 => 1,
            lines => lines,
        };
        assert_eq!(pair.check(), known, "cut at {cut}");
        let end = known.checked_sub(1).map_or(0, |last| ends[last]);
        let torn = if known > 0 && end < cut { vec![whole[end..cut].to_vec()] } else { vec![] };
        assert_eq!(pair.saved("torn"), torn, "cut at {cut}");
        let old = if known > 0 || cut == 0 { vec![] } else { vec![whole[..cut].to_vec()] };
        assert_eq!(pair.saved("old"), old, "cut at {cut}");
    }
}

#[test]
fn stamps_that_lost_their_lines_are_cut_off_and_saved() {
    // The server was killed, and the last line of the text was torn.
    let mut pair = Pair::new();
    pair.say(3, Some("ann"));
    pair.tick();
    pair.say(2, Some("bob"));
    let lost = b"2026-11-23T14:02:15.137Z bob\n";
    let pair = pair.reopen("boot-1", |dir| {
        let text = dir.read();
        dir.write(&text[..text.len() - 3]);
    });
    assert_eq!(pair.check(), 4);
    assert_eq!(pair.saved("torn"), [lost]);
    // More lines, or a line that is not whole, that somebody else added.
    for added in ["- eve\n", "2026-11-23T14:02:15.130Z eve"] {
        let pair = five_lines().reopen("boot-1", |dir| {
            let path = path_beside(&dir.file(), "stamps");
            let mut file = OpenOptions::new().append(true).open(path).expect("the stamps file");
            file.write_all(added.as_bytes()).expect("the stamps file");
        });
        assert_eq!((pair.check(), pair.saved("torn")), (5, vec![added.as_bytes().to_vec()]));
        // They are not taken for the stamps of lines that came meanwhile, either.
        let pair = five_lines().reopen("boot-1", |dir| {
            let path = path_beside(&dir.file(), "stamps");
            let mut file = OpenOptions::new().append(true).open(path).expect("the stamps file");
            file.write_all(added.as_bytes()).expect("the stamps file");
            dir.append("\"cron\"\n");
        });
        assert_eq!(pair.check(), 5);
    }
}

#[test]
fn stamps_of_another_text_are_set_aside() {
    #[track_caller]
    fn check(change: impl FnOnce(&Dir)) {
        let before = five_lines();
        let stamps = before.bytes();
        let pair = before.reopen("boot-1", change);
        assert_eq!(pair.check(), 0);
        assert_eq!(pair.saved("old").len(), 1, "the stamps are still there");
        assert!(pair.saved("old")[0] != stamps || pair.stamps().len() != 5 || pair.check() == 0);
    }
    let swap = |lines: u64, from: &'static str| {
        move |dir: &Dir| {
            let mut other = Pair::new();
            other.now += 1;
            (0..lines).for_each(|_| assert!(other.say(1, Some(from))));
            other.stop();
            fs::copy(other.path(), path_beside(&dir.file(), "stamps")).expect("a stamps file");
        }
    };
    // Those of another channel: as many, fewer, more.
    check(swap(5, "ann"));
    check(swap(4, "ann"));
    check(swap(1, "ann"));
    check(swap(500, "ann"));
    // Another text: shorter, longer, with other lines.
    check(|dir| dir.write("1\n2\n"));
    check(|dir| dir.write("1\n2\n3\n4\n5\n6\n7\n"));
    check(|dir| {
        let text = dir.read();
        dir.write([b"{}\n", &text[..]].concat());
    });
    // No lock file tells for which text they were written.
    check(|dir| fs::remove_file(path_beside(&dir.file(), "lock")).expect("a lock file"));
}

/// About how many bytes are between two lines whose offsets the history remembers.
const STRIDE: usize = 8 << 10;

/// The most lines of a pair that fit into this many bytes.
fn lines_in(bytes: usize) -> usize {
    bytes / "{\"n\":0}\n".len()
}

#[test]
fn a_text_that_is_older_than_its_lock_file_keeps_the_stamps_of_its_lines() {
    let speak = |pair: &mut Pair, times: u64| {
        (0..times).for_each(|_| assert!(pair.say(7, Some("ann"))));
        pair.tick();
    };
    for (before, after) in [(1, 1), (1_000, 1), (1_000, 100), (1_000, 1_000), (3_000, 300)] {
        let mut pair = Pair::new();
        speak(&mut pair, before);
        // A backup begins with the text, and takes what belongs to it while more is said.
        let text = pair.dir.read();
        speak(&mut pair, after);
        let (stamps, epoch) = (pair.bytes(), pair.journal.epoch().clone());
        let added = pair.dir.read().len() - text.len();
        let pair = pair.reopen("boot-2", |dir| dir.write(&text));
        assert_ne!(pair.journal.epoch(), &epoch, "ids that clients know have another meaning");
        let known = pair.check();
        assert!(
            known + lines_in(2 * added + 3 * STRIDE) >= 7 * before as usize,
            "{known} of {before}"
        );
        assert_eq!(pair.saved("old"), [stamps], "nothing is lost");
        let again = pair.reopen("boot-2", |_| {});
        assert_eq!((again.check(), again.saved("old").len()), (known, 1));
    }
}

#[test]
fn a_long_text_that_was_cut_and_goes_on_otherwise_is_shown_with_no_wrong_stamp() {
    let mut pair = Pair::new();
    (0..4_000).for_each(|_| assert!(pair.say(1, Some("ann"))));
    pair.stop();
    let (text, stamps) = (pair.dir.read(), pair.bytes());
    let lock = fs::read(path_beside(&pair.dir.file(), "lock")).expect("a lock file");
    for cut in (0..text.len()).step_by(1_003) {
        pair = pair.reopen("boot-2", |dir| {
            dir.write(&text[..cut]);
            dir.append(format!("\n{}", "{\"other\":1}\n".repeat(2_000)));
            fs::write(path_beside(&dir.file(), "stamps"), &stamps).expect("stamps");
            fs::write(path_beside(&dir.file(), "lock"), &lock).expect("a record");
        });
        let lines = text[..cut].iter().filter(|byte| **byte == b'\n').count();
        assert!(pair.check() <= lines, "cut at {cut}");
        assert!(pair.check() * 2 + lines_in(2 * STRIDE) >= lines, "cut at {cut}: {}", pair.check());
    }
}

#[test]
fn lines_without_any_time_are_no_proof_of_whose_they_are() {
    let dir = Dir::new();
    dir.write("1\n".repeat(40));
    drop(open_in(&dir, "boot-1"));
    let path = path_beside(&dir.file(), "stamps");
    // Another channel's: it began without stamps, too, and is shorter.
    fs::write(&path, "- -\n".repeat(30) + "2026-11-23T14:02:15.130Z eve\n").expect("a file");
    let (_, _, _) = open_in(&dir, "boot-1");
    assert_eq!(fs::read(&path).expect("the stamps file"), b"- -\n".repeat(40));
    assert_eq!(dir.beside("stamps.old-").len(), 1);
}

#[test]
fn a_line_that_is_no_stamp_stays_and_says_nothing() {
    let junk: &[&[u8]] = &[b"junk", b"", b"\xff\xfe", b"2026-11-23T14:02:15.130Z", &[b'x'; 20_000]];
    for junk in junk {
        for at in 0..5 {
            let pair = five_lines();
            let whole = pair.bytes();
            let mut lines: Vec<&[u8]> = whole.split(|byte| *byte == b'\n').collect();
            lines[at] = *junk;
            let bytes = lines.join(&b'\n');
            let pair = pair.reopen("boot-1", |dir| {
                fs::write(path_beside(&dir.file(), "stamps"), &bytes).expect("the stamps file");
            });
            assert_eq!(pair.bytes(), bytes, "it is not rewritten");
            assert_eq!(pair.check(), 4, "{:?} on line {}", String::from_utf8_lossy(junk), at + 1);
            assert_eq!(pair.stamps()[at], NOTHING_KNOWN);
        }
    }
}

#[test]
fn a_line_that_somebody_took_out_or_added_shifts_no_stamp() {
    for lines in [5, 40, 700] {
        for at in (0..lines).step_by(lines / 5) {
            let make = || {
                let mut pair = Pair::new();
                (0..lines).for_each(|_| assert!(pair.say(1, Some("ann"))));
                pair.stop();
                pair
            };
            let edit = |change: &dyn Fn(&mut Vec<&[u8]>)| {
                let pair = make();
                let whole = pair.bytes();
                let mut all: Vec<&[u8]> = whole.split(|byte| *byte == b'\n').collect();
                change(&mut all);
                let bytes = all.join(&b'\n');
                let pair = pair.reopen("boot-1", |dir| {
                    fs::write(path_beside(&dir.file(), "stamps"), &bytes).expect("stamps");
                });
                // At most as many more lines are given up as come after the change.
                let after = lines - at;
                assert!(pair.check() + after >= at, "{} of {lines}", pair.check());
            };
            edit(&|all| {
                all.remove(at);
            });
            edit(&|all| all.insert(at, b"2026-11-23T14:02:15.130Z eve"));
            edit(&|all| all.insert(at, b""));
        }
    }
}

#[test]
fn after_a_kill_all_stamps_are_believed_and_after_a_power_cut_those_that_were_noted() {
    let begin = || {
        let mut pair = Pair::new();
        pair.say(2, Some("ann"));
        pair.tick();
        pair.say(3, Some("bob"));
        pair
    };
    assert_eq!(begin().reopen("boot-1", |_| {}).check(), 5);
    let pair = begin().reopen("boot-2", |_| {});
    assert_eq!((pair.check(), pair.saved("torn").len()), (2, 1));
    // The disk lost lines that had stamps, and another program appended at once.
    let pair = begin().reopen("boot-2", |dir| {
        let text = dir.read();
        dir.write(&text[..text.len() - 8]);
        dir.append("\"cron\"\n");
    });
    assert_eq!((pair.check(), pair.stamps().len()), (2, 5));
}

#[test]
fn with_fsync_never_too_only_the_last_second_of_stamps_needs_the_same_boot_to_be_believed() {
    let mut pair = Pair::with(Fsync::Never);
    pair.say(2, Some("ann"));
    pair.tick();
    pair.say(3, Some("bob"));
    pair.tick();
    pair.say(1, Some("cleo"));
    // It is killed in a container, whose next one has another name for the boot, or none.
    let mut pair = pair.reopen("boot-2", |_| {});
    assert_eq!((pair.check(), pair.stamps().len()), (5, 6));
    pair.say(2, Some("ann"));
    pair.tick();
    // A power cut, which took the last stamp, though it was noted.
    let pair = pair.reopen("boot-3", |dir| {
        let path = path_beside(&dir.file(), "stamps");
        let stamps = fs::read(&path).expect("the stamps file");
        fs::write(&path, &stamps[..stamps.len() - 1]).expect("the stamps file");
    });
    assert_eq!((pair.check(), pair.stamps().len()), (5, 8));
}

#[test]
fn with_fsync_never_too_stamps_that_are_cut_while_the_server_runs_do_no_harm() {
    for left in [0, 20, 80] {
        let mut pair = Pair::with(Fsync::Never);
        pair.say(1, Some("ann"));
        pair = pair.reopen("boot-1", |_| {});
        pair.say(2, Some("bob"));
        pair.tick();
        OpenOptions::new().write(true).open(pair.path()).unwrap().set_len(left).unwrap();
        pair.tick();
        pair.say(1, Some("cleo"));
        pair.tick();
        let known = pair.check();
        let pair = pair.reopen("boot-2", |_| {});
        assert!(pair.check() <= known);
    }
}

#[test]
fn what_cannot_be_a_stamps_file_is_refused_with_the_way_out() {
    #[track_caller]
    fn check(make: impl FnOnce(&Path), expected: &str) {
        let dir = Dir::new();
        dir.write("1\n");
        make(&path_beside(&dir.file(), "stamps"));
        let (journal, history) =
            Journal::open(&dir.file(), Fsync::Never, MAX_MESSAGE).expect("a text file");
        let error = journal.with_stamps(&history).expect_err("it is refused").to_string();
        assert!(error.contains("messages.txt.stamps: ") && error.contains(expected), "{error}");
        assert!(error.contains("--no-stamps"), "{error}");
    }
    check(|path| fs::create_dir(path).unwrap(), "is a directory");
    check(|path| symlink("/dev/null", path).unwrap(), "is a symbolic link");
    let elsewhere = Dir::new();
    elsewhere.write("private\n");
    check(|path| symlink(elsewhere.file(), path).unwrap(), "is a symbolic link");
    assert_eq!(elsewhere.read(), b"private\n");
    // Not by a program: until it runs, it would hold the locks that other tests let go meanwhile.
    check(|path| mkfifoat(CWD, path, Mode::RWXU).unwrap(), "is not a regular file");
}

#[test]
fn stamps_that_are_removed_replaced_or_cut_while_the_server_runs_are_written_again() {
    #[track_caller]
    fn check(change: impl FnOnce(&Path), known: usize, old: &[&[u8]]) {
        let mut pair = five_lines();
        let reader = pair.journal.stamps_from(1).expect("there are stamps");
        let before = pair.bytes();
        change(&pair.path());
        pair.say(2, Some("cleo"));
        pair.tick();
        assert_eq!(pair.check(), known);
        assert_eq!(pair.saved("old"), old);
        assert!(pair.dir.beside("stamps.new-").is_empty());
        // What was being read is either what it was, or nothing.
        let first = reader.read().of(1).ts;
        assert!(first.is_none_or(|ts| ts == START + 7), "{first:?}");
        let pair = pair.reopen("boot-1", |_| {});
        assert_eq!(pair.check(), known);
        assert!(known < 7 || pair.bytes().starts_with(&before));
    }
    check(|path| fs::remove_file(path).unwrap(), 7, &[]);
    let replace = |path: &Path| {
        let other = path.with_extension("other");
        fs::write(&other, "- eve\n".repeat(5)).unwrap();
        fs::rename(other, path).unwrap();
    };
    check(replace, 7, &[b"- eve\n- eve\n- eve\n- eve\n- eve\n"]);
    let cut = |len: i64| {
        move |path: &Path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            let now = file.metadata().unwrap().len() as i64;
            file.set_len(if len < 0 { now + len } else { len } as u64).unwrap();
        }
    };
    check(cut(0), 2, &[]);
    check(cut(40), 3, &[]);
    check(cut(-1), 6, &[]);
}

#[test]
fn a_directory_in_the_place_of_the_stamps_leaves_no_empty_files() {
    let mut pair = five_lines();
    fs::remove_file(pair.path()).unwrap();
    fs::create_dir(pair.path()).unwrap();
    for _ in 0..3 {
        pair.journal.survey_stamps().expect_err("no file can replace it");
        assert!(pair.saved("old").is_empty());
    }
    fs::remove_dir(pair.path()).unwrap();
    pair.tick();
    assert_eq!(pair.check(), 5);
}

#[test]
fn stamps_that_are_cut_and_cannot_be_written_again_do_not_end_the_server() {
    let mut pair = five_lines();
    assert!(pair.say(1, Some("cleo")));
    OpenOptions::new().write(true).open(pair.path()).unwrap().set_len(40).unwrap();
    // No file can be made in a folder that is not there.
    let away = pair.dir.path().with_extension("away");
    fs::rename(pair.dir.path(), &away).unwrap();
    for _ in 0..2 {
        pair.system.wait(SYNC_EVERY);
        pair.journal.survey_stamps().expect_err("it cannot be written again");
        pair.journal.sync_stamps_when_due(&pair.history).expect("what is left can be synced");
        assert!(!pair.say(1, Some("ann")), "it would have no stamp");
    }
    pair.journal.end_stamps().expect("the server can stop in order");
    fs::rename(&away, pair.dir.path()).unwrap();
    assert!(pair.say(1, Some("bob")));
    pair.tick();
    assert_eq!((pair.check(), pair.stamps().len()), (2, 7));
    assert_eq!(pair.reopen("boot-1", |_| {}).check(), 2);
}

#[test]
fn that_stamps_cannot_be_noted_is_logged_once_and_again_when_it_comes_back() {
    let mut pair = five_lines();
    for is_noted in [false, false, true, false] {
        assert!(pair.say(1, None));
        let text = pair.dir.read();
        if !is_noted {
            // What the note is to tell of is not there.
            pair.dir.write("");
        }
        pair.system.wait(SYNC_EVERY);
        pair.journal.sync_stamps_when_due(&pair.history).expect("the files can be synced");
        assert_eq!(pair.journal.has_warned_of_note, !is_noted);
        pair.dir.write(text);
    }
}

#[test]
fn text_and_stamp_are_one_promise_on_a_full_disk() {
    for room in 0..30 {
        let mut pair = five_lines();
        let (text, stamps) = (pair.dir.read(), pair.bytes());
        pair.system.limit_stamps(Some(room));
        assert!(!pair.say(2, Some("ann")), "{room} bytes of room");
        assert_eq!((pair.dir.read(), pair.bytes()), (text, stamps), "{room} bytes of room");
        // Lines of other programs stay, and have no stamp.
        pair.append_foreign(2);
        pair.take_in();
        assert_eq!(pair.stamps()[5..], [NOTHING_KNOWN, NOTHING_KNOWN]);
        pair.system.wait(Duration::from_secs(2));
        pair.system.limit_stamps(None);
        assert!(pair.say(1, Some("ann")));
        assert_eq!((pair.check(), pair.stamps().len()), (6, 8));
        pair.tick();
        let pair = pair.reopen("boot-1", |_| {});
        assert_eq!((pair.check(), pair.stamps().len()), (6, 8));
    }
}

#[test]
fn a_channel_that_is_put_away_takes_its_stamps_along() {
    let pair = five_lines();
    let stamps = pair.bytes();
    let away = pair.journal.put_away().expect("the folder is fine");
    assert_eq!(fs::read(path_beside(&away, "stamps")).expect("they are there"), stamps);
    assert!(!pair.path().exists());
}

/// What happens to the pair.
#[derive(Clone, Debug)]
enum Event {
    Say {
        count: u64,
        speaker: usize,
    },
    Foreign(u64),
    /// The next stamps have room for this many bytes only.
    Full(usize),
    Tick,
    Stop,
    /// The process is killed. The last write of stamps had come as far as `written`.
    Kill {
        written: prop::sample::Index,
        foreign: u64,
    },
    /// The power is cut. The disk has some of what was not synced.
    PowerCut {
        text: prop::sample::Index,
        stamps: prop::sample::Index,
        record: prop::sample::Index,
        foreign: u64,
        blocks: Vec<u8>,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    let blocks = prop::collection::vec(0..3u8, 8);
    prop_oneof![
        6 => (1..6u64, 0..3usize).prop_map(|(count, speaker)| Event::Say { count, speaker }),
        2 => (1..4u64).prop_map(Event::Foreign),
        1 => (0..60usize).prop_map(Event::Full),
        2 => Just(Event::Tick),
        1 => Just(Event::Stop),
        2 => (index(), 0..3u64).prop_map(|(written, foreign)| Event::Kill { written, foreign }),
        2 => (index(), index(), index(), 0..3u64, blocks).prop_map(
            |(text, stamps, record, foreign, blocks)| {
                Event::PowerCut { text, stamps, record, foreign, blocks }
            }
        ),
    ]
}

/// The bytes of the three files.
#[derive(Clone, Debug)]
struct Disk {
    text: Vec<u8>,
    stamps: Vec<u8>,
    record: Vec<u8>,
}

impl Disk {
    fn of(pair: &Pair) -> Disk {
        let record = fs::read(path_beside(&pair.dir.file(), "lock")).expect("a lock file");
        Disk { text: pair.dir.read(), stamps: pair.bytes(), record }
    }
}

impl Disk {
    /// The part of the files that still begins as they do now.
    fn within(self, now: &Disk) -> Disk {
        let common = |old: Vec<u8>, now: &[u8]| {
            let same = old.iter().zip(now).take_while(|(old, now)| old == now).count();
            old[..same].to_vec()
        };
        Disk {
            text: common(self.text, &now.text),
            stamps: common(self.stamps, &now.stamps),
            ..self
        }
    }
}

const SECTOR: usize = 64;

proptest! {
    #![proptest_config(tries(150))]

    /// The synced part of a file survives a power cut, of the rest any length and any block. A block
    /// that was not written is zeros or what was there before.
    #[test]
    fn no_stamp_is_ever_shown_for_another_line_whatever_crashes(
        fsync in prop::sample::select(vec![Fsync::Always, Fsync::EverySecond, Fsync::Never]),
        events in prop::collection::vec(event(), 1..24),
    ) {
        let mut pair = Pair::with(fsync);
        let mut boot = 1;
        let mut synced = Disk::of(&pair);
        let mut epoch = pair.journal.epoch().clone();
        let mut records = vec![synced.record.clone()];
        for event in events {
            let is_orderly = matches!(event, Event::Stop);
            let opens = matches!(event, Event::Kill { .. } | Event::PowerCut { .. });
            match event {
                Event::Say { count, speaker } => {
                    pair.say(count, [None, Some("ann"), Some("bob~k3v9q2m7x4ab")][speaker]);
                }
                Event::Foreign(count) => {
                    pair.append_foreign(count);
                    pair.take_in();
                }
                Event::Full(room) => {
                    pair.system.limit_stamps(Some(room));
                    pair.say(3, Some("ann"));
                    pair.append_foreign(1);
                    pair.take_in();
                    pair.system.limit_stamps(None);
                    pair.system.wait(Duration::from_secs(2));
                }
                Event::Tick => pair.tick(),
                Event::Stop => {
                    pair.say(1, None);
                    pair.stop();
                    let shown = pair.stamps();
                    pair = pair.reopen(&format!("boot-{boot}"), |_| {});
                    prop_assert_eq!(pair.stamps(), shown, "an orderly stop loses nothing");
                }
                Event::Kill { written, foreign } => {
                    let before = pair.bytes();
                    pair.say(2, Some("ann"));
                    let known = pair.check();
                    let (whole, after) = (before.len(), pair.bytes());
                    let len = whole + written.index(after.len() - whole + 1);
                    pair.append_foreign(foreign);
                    pair = pair.reopen(&format!("boot-{boot}"), |dir| {
                        let path = path_beside(&dir.file(), "stamps");
                        let file = OpenOptions::new().write(true).open(path).expect("stamps");
                        file.set_len(len as u64).expect("stamps");
                    });
                    // The first of the lost lines may have been written in part.
                    let start = after[..len].iter().rposition(|byte| *byte == b'\n');
                    let lost = after[start.map_or(0, |at| at + 1)..].split(|byte| *byte == b'\n');
                    let lost = lost.filter(|line| line.starts_with(b"2")).count();
                    prop_assert_eq!(pair.check(), known - lost, "a kill loses no whole stamp");
                }
                Event::PowerCut { text, stamps, record, foreign, blocks } => {
                    pair.say(2, Some("bob"));
                    let now = Disk::of(&pair);
                    let cut = |now: &[u8], synced: &[u8], index: prop::sample::Index| {
                        let len = synced.len() + index.index(now.len() - synced.len() + 1);
                        now[..len].to_vec()
                    };
                    let text = cut(&now.text, &synced.text, text);
                    let mut stamps = cut(&now.stamps, &synced.stamps, stamps);
                    for (at, byte) in stamps.iter_mut().enumerate().skip(synced.stamps.len()) {
                        match blocks[at / SECTOR % blocks.len()] {
                            0 => {}
                            1 => *byte = 0,
                            _ => *byte = b"2026-11-23T14:02:15.130Z eve\n"[at % 29],
                        }
                    }
                    records.push(now.record.clone());
                    let record = record.get(&records).clone();
                    boot += 1;
                    pair = pair.reopen(&format!("boot-{boot}"), |dir| {
                        dir.write(&text);
                        fs::write(path_beside(&dir.file(), "stamps"), &stamps).expect("stamps");
                        fs::write(path_beside(&dir.file(), "lock"), &record).expect("a record");
                        (0..foreign).for_each(|at| dir.append(format!("{{\"cron\":{at}}}\n")));
                    });
                }
            }
            pair.check();
            // A record is on the disk whenever the system likes, but a new epoch is at once.
            let now = Disk::of(&pair);
            if pair.journal.epoch() != &epoch {
                epoch = pair.journal.epoch().clone();
                records.clear();
            }
            records.push(now.record.clone());
            synced = match (fsync, pair.journal.is_sync_due_later()) {
                (Fsync::Never, _) if is_orderly => now,
                (Fsync::Never, _) if opens => Disk { stamps: now.stamps.clone(), ..synced.within(&now) },
                (Fsync::Never, _) => synced.within(&now),
                (_, false) => now,
                (Fsync::Always, true) => Disk { text: now.text, ..synced },
                (_, true) => synced,
            };
        }
    }
}
