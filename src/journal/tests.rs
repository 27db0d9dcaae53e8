use super::*;
use crate::testing::{Dir, Meddler, Mishap, limit_file_size};

const MAX_MESSAGE: usize = 1 << 20;

fn open(dir: &Dir) -> (Journal, History) {
    Journal::open(&dir.file(), Fsync::Never, MAX_MESSAGE).expect("the file can be served")
}

#[test]
fn files_of_one_millisecond_have_names_of_their_own() {
    let dir = Dir::new();
    let save = |_| create_beside(&dir.file(), "torn").expect("a name of its own").0;
    let paths: std::collections::BTreeSet<_> = (0..200).map(save).collect();
    assert_eq!(paths.len(), 200);
}

#[test]
fn an_append_says_where_it_stands_also_behind_the_lines_of_others() {
    let dir = Dir::new();
    dir.write("1\n");
    let (mut journal, _) = open(&dir);
    assert_eq!(journal.append(b"2\n3\n").unwrap(), 2);
    dir.append("foreign\n");
    assert_eq!(journal.append(b"4\n").unwrap(), 14);
    assert_eq!(dir.read(), b"1\n2\n3\nforeign\n4\n");
    assert_eq!(journal.survey(0).unwrap(), 16);
}

#[test]
fn a_full_disk_leaves_nothing_of_a_batch_and_is_tried_again_later() {
    let dir = Dir::new();
    let limit = limit_file_size();
    let clock = Meddler::new(&dir);
    let mut journal = open(&dir).0.on(clock.clone());
    let resize = |len| OpenOptions::new().write(true).open(dir.file()).unwrap().set_len(len);
    let len = || fs::metadata(dir.file()).unwrap().len();
    for room in [5, 1, 0] {
        resize(limit - room).unwrap();
        assert!(matches!(journal.append(b"\"too long\"\n"), Err(AppendError::DiskFull)), "{room}");
        assert_eq!(len(), limit - room);
        assert!(journal.is_full());
        // Not before its time, even if there is room.
        resize(0).unwrap();
        clock.wait(RETRY - Duration::from_millis(1));
        assert!(matches!(journal.append(b"1\n"), Err(AppendError::DiskFull)));
        assert_eq!(len(), 0);
        clock.wait(Duration::from_millis(1));
        assert_eq!(journal.append(b"1\n").unwrap(), 0);
        assert!(!journal.is_full());
    }
    resize(limit - 2).unwrap();
    assert_eq!(journal.append(b"1\n").unwrap(), limit - 2);
}

#[test]
fn a_disk_counts_as_full_only_for_a_while() {
    let dir = Dir::new();
    let system = Meddler::new(&dir);
    let mut journal = open(&dir).0.on(system.clone());
    system.plan(Mishap { takes: Some(0), ..Mishap::default() });
    assert!(matches!(journal.append(b"1\n"), Err(AppendError::DiskFull)));
    system.wait(RETRY);
    assert!(journal.is_full());
    system.wait(FULL_AGE);
    assert!(!journal.is_full(), "nobody would send anything that could show it");
}

#[test]
fn what_a_short_write_left_is_cut_off_unless_somebody_wrote_behind_it() {
    #[track_caller]
    fn check(takes: usize, after: &[u8], expected: &[u8]) {
        let dir = Dir::new();
        dir.write("1\n");
        let system = Meddler::new(&dir);
        let mut journal = open(&dir).0.on(system.clone());
        system.plan(Mishap { takes: Some(takes), after: after.into(), ..Mishap::default() });
        assert!(matches!(journal.append(b"2\n34\n"), Err(AppendError::DiskFull)));
        assert_eq!(dir.read(), expected);
    }
    check(0, b"", b"1\n");
    check(1, b"", b"1\n");
    check(4, b"", b"1\n");
    check(3, b"foreign\n", b"1\n2\n3foreign\n");
}

#[test]
fn a_file_that_is_taken_away_is_noticed_and_saved() {
    #[track_caller]
    fn check(change: impl Fn(&Path), expected: &str, saved: &[&[u8]]) {
        let dir = Dir::new();
        dir.write("1\n");
        let (mut journal, _) = open(&dir);
        journal.append(b"2\n").unwrap();
        assert_eq!(journal.survey(4).unwrap(), 4);
        change(&dir.file());
        let Err(Fatal::Changed(what)) = journal.survey(4) else { panic!("it is not noticed") };
        assert!(what.contains(expected), "{what}");
        assert_eq!(what.contains("messages.txt.saved-"), !saved.is_empty(), "{what}");
        assert_eq!(dir.beside("saved-"), saved);
    }
    let all: &[&[u8]] = &[b"1\n2\n"];
    check(|path| fs::remove_file(path).unwrap(), "was removed", all);
    let replace = |path: &Path| {
        let other = path.with_extension("new");
        fs::write(&other, "1\n2\n3\n").unwrap();
        fs::rename(other, path).unwrap();
    };
    check(replace, "was replaced by another", all);
    let cut = |path: &Path| OpenOptions::new().write(true).open(path).unwrap().set_len(3).unwrap();
    check(cut, "was cut from 4 to 3 bytes", &[]);
}

#[test]
fn each_policy_syncs_when_it_promises() {
    let dir = Dir::new();
    let open = |fsync| Journal::open(&dir.file(), fsync, MAX_MESSAGE).expect("it can be served").0;
    assert!(open(Fsync::Always).sync_per_policy().unwrap().is_some());
    assert!(open(Fsync::Never).sync_per_policy().unwrap().is_none());
    let clock = Meddler::new(&dir);
    let mut journal = open(Fsync::EverySecond).on(clock.clone());
    assert!(journal.sync_when_due().unwrap().is_none(), "there is nothing to sync");
    assert!(journal.sync_per_policy().unwrap().is_none());
    clock.wait(SYNC_EVERY / 2);
    assert!(journal.sync_per_policy().unwrap().is_none());
    clock.wait(SYNC_EVERY / 2);
    assert!(journal.sync_when_due().unwrap().is_some(), "the oldest write counts");
    clock.wait(SYNC_EVERY);
    assert!(journal.sync_when_due().unwrap().is_none(), "all is synced");
}
