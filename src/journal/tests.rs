use std::{fs::OpenOptions, os::unix::fs::symlink};

use super::{
    shortage::{FULL_FOR, RETRY_AFTER},
    *,
};
use crate::testing::{Dir, FaultySystem, Mishap, limit_file_size};

const MAX_MESSAGE: usize = 1 << 20;

fn open(dir: &Dir) -> (Journal, History) {
    Journal::open(&dir.file(), Fsync::Never, MAX_MESSAGE).expect("the file can be served")
}

#[test]
fn two_files_saved_in_the_same_millisecond_have_different_names() {
    let dir = Dir::new();
    let save = |_| create_beside(&dir.file(), "torn").expect("a name of its own").0;
    let paths: std::collections::BTreeSet<_> = (0..200).map(save).collect();
    assert_eq!(paths.len(), 200);
}

#[test]
fn an_append_tells_its_offset_even_after_foreign_lines() {
    let dir = Dir::new();
    dir.write("1\n");
    let (mut journal, _) = open(&dir);
    assert_eq!(journal.append(b"2\n3\n", 2).unwrap(), 2);
    dir.append("foreign\n");
    assert_eq!(journal.append(b"4\n", 6).unwrap(), 14);
    assert_eq!(dir.read(), b"1\n2\n3\nforeign\n4\n");
    assert_eq!(journal.survey(16).unwrap(), 16);
}

#[test]
fn a_full_disk_leaves_nothing_of_a_batch_and_is_tried_again_later() {
    let dir = Dir::new();
    let limit = limit_file_size();
    let clock = FaultySystem::new(&dir);
    let mut journal = open(&dir).0.with_system(clock.clone());
    let resize = |len| OpenOptions::new().write(true).open(dir.file()).unwrap().set_len(len);
    let len = || fs::metadata(dir.file()).unwrap().len();
    for room in [5, 1, 0] {
        resize(limit - room).unwrap();
        assert!(
            matches!(journal.append(b"\"too long\"\n", 0), Err(AppendError::DiskFull)),
            "{room}"
        );
        assert_eq!(len(), limit - room);
        assert!(journal.is_full());
        // It is not tried again too early, even if there is room.
        resize(0).unwrap();
        clock.wait(RETRY_AFTER - Duration::from_millis(1));
        assert!(matches!(journal.append(b"1\n", 0), Err(AppendError::DiskFull)));
        assert_eq!(len(), 0);
        clock.wait(Duration::from_millis(1));
        assert_eq!(journal.append(b"1\n", 0).unwrap(), 0);
        assert!(!journal.is_full());
    }
    resize(limit - 2).unwrap();
    assert_eq!(journal.append(b"1\n", 0).unwrap(), limit - 2);
}

#[test]
fn a_disk_counts_as_full_only_for_a_while() {
    let dir = Dir::new();
    let system = FaultySystem::new(&dir);
    let mut journal = open(&dir).0.with_system(system.clone());
    system.plan(Mishap { takes: Some(0), ..Mishap::default() });
    assert!(matches!(journal.append(b"1\n", 0), Err(AppendError::DiskFull)));
    system.wait(RETRY_AFTER);
    assert!(journal.is_full());
    system.wait(FULL_FOR);
    assert!(!journal.is_full(), "else no speaker might send a message that shows it");
}

#[test]
fn a_write_that_lies_harms_neither_committed_nor_foreign_lines() {
    /// Appends `2` and `34` to an empty file and after a committed line, while the system lies. The
    /// expected bytes, the offset and the position count from the end of that line.
    #[track_caller]
    fn check(mishap: Mishap, expected: &[u8], start: Option<u64>) {
        for committed in ["", "{}\n"] {
            let dir = Dir::new();
            dir.write(committed);
            let end = committed.len() as u64;
            let system = FaultySystem::new(&dir);
            let mut journal = open(&dir).0.with_system(system.clone());
            let mishap = Mishap {
                position: mishap.position.map(|at| end.saturating_add(at)),
                ..mishap.clone()
            };
            let case = format!("{mishap:?} behind {committed:?}");
            system.plan(mishap);
            match journal.append(b"2\n34\n", end) {
                Ok(found) => assert_eq!(Some(found - end), start, "{case}"),
                Err(AppendError::DiskFull) => assert_eq!(start, None, "{case}"),
                Err(AppendError::Fatal(fatal)) => panic!("{fatal}: {case}"),
            }
            let found = String::from_utf8(dir.read()).expect("UTF-8");
            let expected = committed.to_owned() + std::str::from_utf8(expected).expect("UTF-8");
            assert_eq!(found, expected, "{case}");
            // Afterwards all is well.
            system.wait(RETRY_AFTER);
            assert_eq!(journal.append(b"5\n", end).unwrap(), expected.len() as u64);
        }
    }
    let honest = Mishap::default;
    let lie = |takes, claims| Mishap { takes: Some(takes), claims: Some(claims), ..honest() };
    // A write claims more bytes than it wrote.
    check(lie(0, 4), b"", None);
    check(lie(0, 5), b"", None);
    check(lie(3, 4), b"", None);
    check(lie(3, 5), b"", None);
    check(lie(0, 1000), b"", None);
    // It claims fewer.
    check(lie(5, 4), b"", None);
    check(lie(5, 0), b"", None);
    // It claims as many, but did not write all.
    check(lie(1, 1), b"", None);
    check(lie(4, 4), b"", None);
    // The same happens while another program appends.
    let before = |mishap| Mishap { before: b"foreign\n".to_vec(), ..mishap };
    let after = |mishap| Mishap { after: b"foreign\n".to_vec(), ..mishap };
    check(before(lie(0, 4)), b"foreign\n", None);
    check(before(lie(0, 5)), b"foreign\n", None);
    check(after(lie(0, 5)), b"foreign\n", None);
    check(before(lie(3, 3)), b"foreign\n", None);
    check(after(lie(3, 3)), b"   foreign\n", None);
    check(before(after(lie(3, 3))), b"foreign\n   foreign\n", None);
    check(before(honest()), b"foreign\n2\n34\n", Some(8));
    check(after(honest()), b"2\n34\nforeign\n", Some(0));
    // A position that is not true.
    for position in [0, 1, 4, 6, u64::MAX] {
        let lie = |mishap| Mishap { position: Some(position), ..mishap };
        check(lie(honest()), b"2\n34\n", Some(0));
        check(lie(Mishap { takes: Some(3), ..honest() }), b"", None);
        check(lie(before(honest())), b"foreign\n2\n34\n", Some(8));
    }
}

#[test]
fn a_file_that_is_removed_replaced_or_cut_is_noticed_and_saved() {
    #[track_caller]
    fn check(change: impl Fn(&Path), expected: &str, saved: &[&[u8]]) {
        let dir = Dir::new();
        dir.write("1\n");
        let (mut journal, _) = open(&dir);
        journal.append(b"2\n", 2).unwrap();
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
    // It was opened without a link, and its lock file is not beside what the link leads to.
    let link = |path: &Path| {
        let other = path.with_extension("moved");
        fs::rename(path, &other).unwrap();
        symlink(other, path).unwrap();
    };
    check(link, "was replaced by another", all);
    let cut = |path: &Path| OpenOptions::new().write(true).open(path).unwrap().set_len(3).unwrap();
    check(cut, "was cut from 4 to 3 bytes", &[]);
    // As `cp` does it.
    let overwrite = |path: &Path| fs::write(path, "another chat\n").unwrap();
    check(overwrite, "was overwritten by another program", &[]);
}

#[test]
fn a_folder_that_is_replaced_by_another_thing_is_no_failure_of_the_disk() {
    #[track_caller]
    fn check(replace: impl Fn(&Path)) {
        let dir = Dir::new();
        let folder = dir.path().join("folder");
        let path = folder.join("messages.txt");
        fs::create_dir(&folder).unwrap();
        fs::write(&path, "1\n").unwrap();
        let (mut journal, _) = Journal::open(&path, Fsync::Never, MAX_MESSAGE).unwrap();
        fs::rename(&folder, dir.path().join("aside")).unwrap();
        replace(&folder);
        let Err(Fatal::Changed(what)) = journal.survey(2) else { panic!("it counts as a failure") };
        assert!(what.contains("the file's folder was replaced"), "{what}");
    }
    check(|folder| fs::write(folder, "").unwrap());
    check(|folder| symlink(folder, folder).unwrap());
}

#[test]
fn a_file_whose_name_cannot_be_looked_at_for_now_is_served_and_watched_as_it_is_open() {
    for error in [libc::EACCES, libc::EPERM, libc::ENOMEM] {
        let dir = Dir::new();
        dir.write("1\n");
        let system = FaultySystem::new(&dir);
        let mut journal = open(&dir).0.with_system(system.clone());
        system.fail_looks(Some(error));
        assert_eq!(journal.survey(2).expect("the file is open"), 2);
        assert_eq!(journal.append(b"2\n", 2).expect("the file is open"), 2);
        system.append("3\n");
        assert_eq!(journal.survey(4).expect("the file is open"), 6, "other programs are heard");
        assert!(journal.has_warned_of_name);
        // What happens to the name meanwhile is noticed afterwards.
        system.fail_looks(None);
        assert_eq!(journal.survey(6).expect("it is in its place"), 6);
        assert!(!journal.has_warned_of_name, "the next trouble is told, too");
        system.fail_looks(Some(error));
        fs::rename(dir.file(), dir.path().join("moved")).unwrap();
        assert_eq!(journal.survey(6).expect("the file is open"), 6);
        system.fail_looks(None);
        let Err(Fatal::Changed(what)) = journal.survey(6) else { panic!("it is not noticed") };
        assert!(what.contains("was removed"), "{what}");
    }
}

#[test]
fn a_file_that_was_cut_is_noticed_even_if_its_name_cannot_be_looked_at() {
    let dir = Dir::new();
    dir.write("1\n2\n");
    let system = FaultySystem::new(&dir);
    let mut journal = open(&dir).0.with_system(system.clone());
    system.fail_looks(Some(libc::EACCES));
    OpenOptions::new().write(true).open(dir.file()).unwrap().set_len(3).unwrap();
    let Err(Fatal::Changed(what)) = journal.survey(4) else { panic!("it is not noticed") };
    assert!(what.contains("was cut from 4 to 3 bytes"), "{what}");
    // A disk that fails is a disk that fails.
    system.fail_looks(Some(libc::EIO));
    assert!(matches!(journal.survey(4), Err(Fatal::Storage(_))));
}

/// A disk that fails when the names in a folder are to be brought to it.
#[derive(Debug)]
struct FailsFolders;

impl System for FailsFolders {
    fn sync_folder_of(&self, _: &Path) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EIO))
    }
}

#[test]
fn a_file_that_has_its_new_name_is_put_away_even_if_the_disk_fails_then() {
    let dir = Dir::new();
    dir.write("1\n");
    let journal = open(&dir).0.with_system(FailsFolders);
    let away = journal.put_away().expect("it has its new name");
    assert_eq!(fs::read(away).expect("it is there"), b"1\n");
    assert!(!dir.file().exists());
}

#[test]
fn a_removed_file_is_saved_as_far_as_there_is_room_and_leaves_no_empty_file() {
    #[track_caller]
    fn check(content: File, expected: &str, saved: &[u64]) {
        let dir = Dir::new();
        let (mut journal, _) = open(&dir);
        journal.file = Arc::new(content);
        fs::remove_file(dir.file()).unwrap();
        let Err(Fatal::Changed(what)) = journal.survey(0) else { panic!("it is not noticed") };
        assert!(what.contains(expected), "{what}");
        let lengths: Vec<_> = dir.beside("saved-").iter().map(|it| it.len() as u64).collect();
        assert_eq!(lengths, saved);
    }
    let limit = limit_file_size();
    let part = format!("only the first {limit} bytes of its content could be saved");
    check(File::open("/dev/zero").unwrap(), &part, &[limit]);
    // Nothing of it can be read.
    check(File::open("/").unwrap(), "could not be saved", &[]);
}

#[test]
fn what_the_journal_and_other_programs_do_as_agreed_is_no_overwriting() {
    let dir = Dir::new();
    dir.write("1\n");
    let (mut journal, _) = open(&dir);
    let mut end = 2;
    let append = |journal: &mut Journal, end: u64| {
        dir.append("foreign\n");
        assert_eq!(journal.survey(end).unwrap(), end + 8);
        end + 8
    };
    end = append(&mut journal, end);
    // A line of ours after a foreign one, and one that is taken back.
    for (line, is_kept) in [("2\n".repeat(100), true), ("3\n".into(), false), ("4\n".into(), true)]
    {
        let start = journal.append(line.as_bytes(), end).unwrap();
        assert_eq!(start, end);
        match is_kept {
            true => end += line.len() as u64,
            false => journal.retract(start..start + line.len() as u64).unwrap(),
        }
        end = append(&mut journal, end);
    }
    // One that is blanked, since another program has appended after it.
    let start = journal.append(b"5\n", end).unwrap();
    dir.append("foreign\n");
    journal.retract(start..start + 2).unwrap();
    assert_eq!(journal.survey(end).unwrap(), end + 10);
    append(&mut journal, end + 10);
    // A program overwrites what it has begun.
    end += 18;
    dir.append("unfin");
    assert_eq!(journal.survey(end).unwrap(), end + 5);
    OpenOptions::new().write(true).open(dir.file()).unwrap().set_len(end).unwrap();
    dir.append("else\n");
    assert_eq!(journal.survey(end).unwrap(), end + 5);
}

#[test]
fn each_policy_syncs_when_it_promises() {
    let dir = Dir::new();
    let open = |fsync| Journal::open(&dir.file(), fsync, MAX_MESSAGE).expect("it can be served").0;
    assert!(open(Fsync::Always).sync_per_policy().unwrap().is_some());
    assert!(open(Fsync::Never).sync_per_policy().unwrap().is_none());
    let clock = FaultySystem::new(&dir);
    let mut journal = open(Fsync::EverySecond).with_system(clock.clone());
    assert!(journal.sync_when_due().unwrap().is_none(), "there is nothing to sync");
    assert!(journal.sync_per_policy().unwrap().is_none());
    clock.wait(SYNC_EVERY / 2);
    assert!(journal.sync_per_policy().unwrap().is_none());
    clock.wait(SYNC_EVERY / 2);
    assert!(journal.sync_when_due().unwrap().is_some(), "the oldest write counts");
    clock.wait(SYNC_EVERY);
    assert!(journal.sync_when_due().unwrap().is_none(), "all is synced");
}
