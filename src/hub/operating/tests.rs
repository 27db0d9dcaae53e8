use std::{
    fs::{self, File},
    io::Write,
    iter,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;
use serde_json::Value;

use super::{
    super::tests::{Guest, House, ROOMY},
    *,
};
use crate::{
    command::{Command, Stored},
    config::Fsync,
    history::{BLOCK, History},
    journal::{Journal, system::System},
    message::is_erased,
    operations::{Forbidden, Recognised, Standing, is_operation, recognise},
    testing::{Dir, Seen, frames_in, tries},
    wire::HistoryFrame,
};

const OPERATOR: (Option<&str>, Standing) = (None, Standing::Admin);

/// A post of lines, with the operations among them, as the threads of clients and requests make it.
fn post(by: Speaker, (sender, standing): (Option<&str>, Standing), lines: &str) -> Command {
    let operation = |(number, line): (usize, &str)| {
        let message = line.as_bytes();
        let is_one = is_operation(message);
        is_one.then(|| match recognise(message) {
            Ok(Recognised::Operation(operation)) => (number, operation),
            other => panic!("{line}: {other:?}"),
        })
    };
    let list = lines.lines().enumerate().filter_map(operation).collect();
    let operations = PostedOperations::of(standing, list);
    Command::Post(Post::new(by, sender.map(Arc::from), lines.into(), operations))
}

type Answer = oneshot::Receiver<Result<Stored, ErrorAnswer>>;

fn request(who: (Option<&str>, Standing), lines: &str) -> (Command, Answer) {
    let (reply, answer) = oneshot::channel();
    (post(Speaker::Request { key: None, reply }, who, lines), answer)
}

impl House {
    fn step_with(&mut self, commands: Vec<Command>) {
        self.hub.step(commands.into_iter()).expect("the file is fine");
        self.hub.deliver(|| false);
    }

    fn ask_to(
        &mut self,
        who: (Option<&str>, Standing),
        lines: &str,
    ) -> Result<Stored, ErrorAnswer> {
        let (command, answer) = request(who, lines);
        self.step_with(vec![command]);
        answer.try_recv().expect("an answer")
    }

    fn text(&self) -> String {
        String::from_utf8(self.dir.read()).expect("UTF-8")
    }
}

/// The codes of the error answers that a client got, and the messages that it heard.
fn heard(guest: &mut Guest) -> (Vec<String>, Vec<(u64, Value)>) {
    let (mut codes, mut messages) = (Vec::new(), Vec::new());
    for frame in guest.peer.frames() {
        let json: Value = serde_json::from_slice(&frame.payload).expect("each frame is JSON");
        match json["code"].as_str() {
            Some(code) => codes.push(code.to_owned()),
            None => messages.push((json["id"].as_u64().expect("an id"), json["data"].clone())),
        }
    }
    guest.peer.bytes.clear();
    (codes, messages)
}

const REFUSED: fn(Refusal) -> Result<Stored, ErrorAnswer> = |why| Err(ErrorAnswer::Refused(why));

#[test]
fn the_operations_of_a_batch_are_decided_in_its_order() {
    let mut house = House::new("[\"one\"]\n");
    let delete = r#"{"$op":"delete","id":1}"#;
    let edit = r#"{"$op":"edit","id":1,"data":2}"#;
    let (first, deleted) = request(OPERATOR, &format!("{delete}\n"));
    let (second, edited) = request(OPERATOR, &format!("{edit}\n"));
    house.step_with(vec![first, second]);
    assert_eq!(deleted.try_recv().unwrap(), Ok(Stored { first_id: 2, last_id: 2 }));
    assert_eq!(edited.try_recv().unwrap(), REFUSED(Refusal::Deleted));
    assert_eq!(house.text(), format!("null   \n{delete}\n"));
    // What is refused later leaves nothing behind that was decided before it.
    let lines = format!("[\"two\"]\n{}\n{edit}\n", r#"{"$op":"pin","id":2}"#);
    assert_eq!(house.ask_to(OPERATOR, &lines), REFUSED(Refusal::NoSuchMessage));
    let lines = "[\"two\"]\n{\"$op\":\"pin\",\"id\":3}\n";
    assert_eq!(house.ask_to(OPERATOR, lines), REFUSED(Refusal::NoSuchMessage), "3 is to come");
    assert_eq!(house.text(), format!("null   \n{delete}\n"));
}

#[test]
fn what_is_refused_to_a_client_is_left_out_of_its_post_and_the_rest_is_said() {
    let mut house = House::new("[\"one\"]\n");
    let mut ann = house.live();
    let lines = "1\n{\"$op\":\"pin\",\"id\":1}\n2\n{\"$op\":\"pin\",\"id\":9}\n{\"$op\":\"unpin\",\"id\":1}\n";
    house.step_with(vec![post(Speaker::Client(ann.id), OPERATOR, lines)]);
    let (codes, messages) = heard(&mut ann);
    assert_eq!(codes, ["no_such_message"]);
    assert_eq!(messages.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!(
        house.text(),
        format!("[\"one\"]\n{}", lines.replace("{\"$op\":\"pin\",\"id\":9}\n", ""))
    );
    assert!(!house.hub.history.operations().is_pinned(1), "applied on their own lines, in order");
    let nobody = (None, Standing::Open);
    house.step_with(vec![post(Speaker::Client(ann.id), nobody, "{\"$op\":\"pin\",\"id\":1}\n")]);
    assert_eq!(heard(&mut ann), (vec!["forbidden".to_owned()], vec![]));
    assert!(matches!(
        house.ask_to(nobody, "{\"$op\":\"delete\",\"id\":1}\n"),
        Err(ErrorAnswer::Refused(Refusal::Forbidden(Forbidden::Nobody)))
    ));
}

#[test]
fn a_refusal_does_not_overtake_what_the_client_said_before() {
    let mut house = House::new("[\"one\"]\n");
    let mut ann = house.live();
    let says = |lines| post(Speaker::Client(ann.id), OPERATOR, lines);
    let refused = r#"{"$op":"pin","id":9}"#;
    let same_post = format!("1\n{refused}\n");
    house.step_with(vec![says(&same_post), says("2\n"), says(&format!("{refused}\n"))]);
    let told: Vec<String> = ann.peer.frames().iter().map(told_as).collect();
    assert_eq!(told, ["1", "2", "error", "error"]);
}

/// What a frame tells: the data of a message, or else its type.
fn told_as(frame: &Seen) -> String {
    let json: Value = serde_json::from_slice(&frame.payload).expect("each frame is JSON");
    json.get("data").map_or_else(|| json["type"].as_str().unwrap().to_owned(), Value::to_string)
}

#[test]
fn an_operation_by_hand_is_the_operators_word() {
    let mut house = House::new("[\"one\"]\n[\"two\"]\n");
    let mut ann = house.live();
    let said = "{\"$op\":\"edit\",\"id\":1,\"data\":\"zwei\"}\n{\"$op\":\"delete\",\"id\":1}\n\
                {\"$op\":\"pin\",\"id\":2}\n{\"$op\":\"delete\",\"id\":3}\n{\"$op\":\"nonsense\"}\n\
                {\"$op\":\"edit\",\"id\":1,\"data\":1}\n";
    house.dir.append(said);
    house.tick();
    let (codes, messages) = heard(&mut ann);
    let ids: Vec<u64> = messages.into_iter().map(|(id, _)| id).collect();
    // They are messages, too; lines 3 and 8 are edits of the message that was deleted, before and after.
    assert_eq!((codes.len(), ids), (0, vec![4, 5, 6, 7]));
    let text = house.text();
    assert!(text.starts_with("null   \n[\"two\"]\nnull") && !text.contains("zwei"), "{text}");
    assert!(text.lines().nth(6) == Some("{\"$op\":\"nonsense\"}"), "what means nothing stays");
    assert!(text.lines().nth(7).is_some_and(|line| is_erased(line.as_bytes())), "{text}");
    assert!(house.hub.history.operations().is_pinned(2));
    assert_eq!(house.hub.history.holes(), Some((3, 1)));
    // A start finds the same.
    let mut again = house.reload();
    assert!(again.replay_operations(|_| None, &[]).is_empty());
    assert!(again.operations().is_pinned(2) && again.operations().is_deleted(1));
    assert_eq!(again.holes(), Some((3, 1)));
}

#[test]
fn what_is_said_by_hand_of_a_line_that_never_held_a_message_means_nothing_after_a_start_too() {
    // Line 5 reads as if it had been erased, and nothing can tell whether it was.
    let mut house = House::new("[\"one\"]\n\nno message\n{\"torn\nnull \n");
    let ops = |id: u64| {
        format!(
            "{{\"$op\":\"pin\",\"id\":{id}}}\n{{\"$op\":\"edit\",\"id\":{id},\"data\":1}}\n\
             {{\"$op\":\"delete\",\"id\":{id}}}\n"
        )
    };
    // A later line is no message yet.
    let lines = (1..=5).map(ops).collect::<String>() + &ops(99);
    house.dir.append(&lines);
    house.tick();
    let told = |history: &History| {
        let of = |id| {
            let index = history.operations();
            (id, index.is_deleted(id), index.last_edit(id), index.is_pinned(id))
        };
        (1..=5).chain([99]).map(of).collect::<Vec<_>>()
    };
    let live = told(&house.hub.history);
    let (said, unsaid) = ((true, None, false), (false, None, false));
    let expected = [(1, said), (2, unsaid), (3, unsaid), (4, unsaid), (5, said), (99, unsaid)];
    assert_eq!(live, expected.map(|(id, (deleted, edit, pinned))| (id, deleted, edit, pinned)));

    let (holes, text) = (house.hub.history.holes(), house.text());
    let House { dir, hub, .. } = house;
    drop(hub);
    let (_, again) = open(&dir);
    assert_eq!((told(&again), again.holes()), (live, holes));
    assert_eq!(String::from_utf8(dir.read()).expect("UTF-8"), text);
}

#[test]
fn what_a_foreign_line_in_between_left_nothing_to_do_means_nothing() {
    // Our write ends the foreign line, so that it is applied after the post was decided.
    let delete = r#"{"$op":"delete","id":1}"#;
    let edit = r#"{"$op":"edit","id":1,"data":[1]}"#;
    for ours in [delete, edit] {
        let mut house = House::new("[\"one\"]\n[\"two\"]\n");
        house.dir.append(delete);
        assert_eq!(
            house.ask_to(OPERATOR, &format!("{ours}\n")),
            Ok(Stored { first_id: 4, last_id: 4 }),
            "it is stored as the latest word"
        );
        // What an edit says that comes too late is erased with the message.
        let (ours, holes) = match ours == edit {
            true => (format!("null{}", " ".repeat(edit.len() - 4)), 2),
            false => (ours.to_owned(), 1),
        };
        assert_eq!(house.text(), format!("null   \n[\"two\"]\n{delete}\n{ours}\n"));
        let history = &house.hub.history;
        assert_eq!((history.messages(), history.holes()), (4 - holes, Some((holes, 1))));
        // Those who join are sent a whole history, as long as its frame says.
        let (_, snapshot) = house.join(ROOMY);
        let mut history = Vec::new();
        HistoryFrame::new(snapshot).expect("a file").peek(&mut history, BLOCK).expect("a file");
        let json: Value = serde_json::from_slice(&frames_in(&history).0[0].payload).expect("JSON");
        assert_eq!(json["data"].as_array().map(Vec::len), Some(4 - holes as usize), "{json}");
    }
}

#[test]
fn a_client_whose_turn_is_still_to_come_does_not_get_what_was_deleted_meanwhile() {
    let mut house = House::new("");
    let mut ann = house.live();
    let mut bob = house.live();
    house.handle.post(ann.id, None, b"[\"secret\"]\n".to_vec(), None).unwrap();
    let said = house.commands.try_iter().map(|command| *command);
    house.hub.step(said).unwrap();
    // The round pauses after Ann's turn and before Bob's.
    house.hub.deliver(|| true);
    house.ask_to(OPERATOR, "{\"$op\":\"delete\",\"id\":1}\n").expect("it is accepted");
    let (_, messages) = heard(&mut bob);
    assert_eq!(messages.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2]);
    let (_, messages) = heard(&mut ann);
    assert_eq!(messages.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2]);
    // The next messages go to both.
    house.say(&bob, "3\n");
    assert_eq!((heard(&mut ann).1, heard(&mut bob).1), (vec![(3, 3.into())], vec![(3, 3.into())]));
}

#[test]
fn a_message_that_is_deleted_while_it_is_half_sent_is_sent_to_its_end() {
    for text in ["x".repeat(100_000), format!("{}é", "\\\"".repeat(40_000))] {
        let mut house = House::new("");
        let ann = house.live();
        let (mut slow, _) = house.join(4096);
        let _ = house.catch_up(&slow);
        house.say(&ann, &format!("[\"{text}\"]\n"));
        let behind = house.fell_behind.try_recv().expect("its socket took only a part");
        house.step_with(vec![post(
            Speaker::Client(ann.id),
            OPERATOR,
            "{\"$op\":\"delete\",\"id\":1}\n",
        )]);
        assert!(house.text().starts_with("null  "));
        let mut rest = Vec::new();
        behind.cut.peek(&behind.file, &mut rest, usize::MAX / 2).unwrap();
        slow.peer.read(usize::MAX);
        slow.peer.bytes.extend(rest);
        let (frames, left) = frames_in(&slow.peer.bytes);
        assert_eq!((frames.len(), left), (1, 0));
        let json: Value = serde_json::from_slice(&frames[0].payload).expect("it is JSON");
        assert!(json["data"][0].as_str().is_some_and(|data| data.len() > 40_000));
    }
}

/// What a journal does to the disk.
#[derive(Clone, Debug)]
enum Event {
    Wrote(u64, Vec<u8>),
    Synced,
    /// A file beside was written and synced.
    WroteBeside(Vec<u8>),
    RemovedBeside,
    /// The lock file has this on disk.
    LockFileIs(Vec<u8>),
}

/// A system that notes what is written and synced.
#[derive(Clone, Debug, Default)]
struct Recorder {
    lock_path: PathBuf,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Recorder {
    fn push(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

impl System for Recorder {
    fn write(&mut self, mut file: &File, bytes: &[u8]) -> std::io::Result<usize> {
        self.push(Event::Wrote(file.metadata()?.len(), bytes.to_vec()));
        file.write(bytes)
    }

    fn overwrite(&mut self, file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.push(Event::LockFileIs(fs::read(&self.lock_path)?));
        self.push(Event::Wrote(offset, bytes.to_vec()));
        file.write_all_at(bytes, offset)
    }

    fn write_beside(&mut self, _: &Path, bytes: &[u8]) -> std::io::Result<()> {
        self.push(Event::WroteBeside(bytes.to_vec()));
        Ok(())
    }

    fn remove(&mut self, _: &Path) -> std::io::Result<()> {
        self.push(Event::RemovedBeside);
        Ok(())
    }

    fn sync(&mut self, file: &File) -> std::io::Result<()> {
        file.sync_data()?;
        self.push(Event::Synced);
        Ok(())
    }
}

/// What a power cut leaves of a file: all that was synced, and of each write after that nothing, its
/// first half, its second half, or all, as `left` says.
fn after_power_cut(before: &[u8], events: &[Event], left: &[u8]) -> Vec<u8> {
    let mut disk = before.to_vec();
    let synced = events.iter().rposition(|event| matches!(event, Event::Synced)).unwrap_or(0);
    let mut left = left.iter().cycle();
    for (at, event) in events.iter().enumerate() {
        let Event::Wrote(offset, bytes) = event else { continue };
        let half = bytes.len() / 2;
        let part = match left.next().unwrap() % 4 {
            _ if at < synced => 0..bytes.len(),
            0 => 0..0,
            1 => 0..half,
            2 => half..bytes.len(),
            _ => 0..bytes.len(),
        };
        let from = *offset as usize + part.start;
        let to = from + part.len();
        if !part.is_empty() {
            disk.resize(disk.len().max(to), 0);
            disk[from..to].copy_from_slice(&bytes[part]);
        }
    }
    disk
}

fn open(dir: &Dir) -> (Journal, History) {
    let (journal, history) =
        Journal::open(&dir.file(), Fsync::Always, 1 << 20).expect("the file can be served");
    journal.with_operations(history).expect("the file can be written")
}

const SECRET: &str = "[\"secret one\"]\n";

/// What a batch does that says something and deletes message 1, of which there is an edit; and the file
/// before it.
fn deleting(fsync: Fsync) -> (Vec<u8>, Vec<Event>) {
    let before = format!(
        "{SECRET}[\"two\"]\n{{\"$op\":\"edit\",\"id\":1,\"data\":\"secret, too\"}}\n[\"four\"]\n"
    );
    let mut house = House::new(&before);
    let (journal, history) =
        Journal::open(&house.dir.file(), fsync, 1 << 20).unwrap_or_else(|_| {
            // The house has the lock of its own file, so the hub gets one in another directory.
            let dir = Dir::new();
            dir.write(&before);
            let opened =
                Journal::open(&dir.file(), fsync, 1 << 20).expect("the file can be served");
            house.dir = dir;
            opened
        });
    let recorder =
        Recorder { lock_path: house.dir.path().join("messages.txt.lock"), events: Arc::default() };
    let lock = fs::read(&recorder.lock_path).expect("the lock file");
    recorder.push(Event::LockFileIs(lock));
    let (journal, history) = journal.with_operations(history).expect("the file can be written");
    house.hub.journal = journal.with_system(recorder.clone());
    house.hub.history = history;
    house.ask_to(OPERATOR, "[\"five\"]\n{\"$op\":\"delete\",\"id\":1}\n").expect("it is accepted");
    let events = recorder.events.lock().unwrap().clone();
    (before.into_bytes(), events)
}

proptest! {
    #![proptest_config(tries(48))]

    #[test]
    fn after_a_power_cut_at_any_moment_what_was_deleted_is_erased_and_nothing_else(
        at in 0..13usize,
        left in prop::collection::vec(any::<u8>(), 1..6),
        fsync in prop::sample::select(vec![Fsync::Always, Fsync::EverySecond, Fsync::Never]),
    ) {
        let (before, events) = deleting(fsync);
        let at = at.min(events.len());
        let dir = Dir::new();
        dir.write(after_power_cut(&before, &events[..at], &left));
        let beside = dir.path().join("messages.txt.erasing");
        for event in &events[..at] {
            let (path, bytes) = match event {
                Event::LockFileIs(bytes) => (dir.path().join("messages.txt.lock"), bytes),
                // The removal may not be on disk.
                Event::WroteBeside(bytes) => (beside.clone(), bytes),
                _ => continue,
            };
            fs::write(path, bytes).expect("a directory of our own");
        }
        let (_, history) = open(&dir);
        let text = String::from_utf8(dir.read()).expect("UTF-8");
        let is_deleted = text.contains("\n{\"$op\":\"delete\",\"id\":1}\n");
        prop_assert_eq!(is_deleted, !text.contains("secret"), "{}", text);
        prop_assert_eq!(text.starts_with(SECRET), !is_deleted, "{}", text);
        prop_assert_eq!(history.is_message(1), !is_deleted);
        prop_assert_eq!(history.operations().is_deleted(1), is_deleted);
        prop_assert!(text.contains("[\"two\"]\n") && text.contains("[\"four\"]\n"));
        // Once the sender has its answer, it stays so.
        prop_assert!(at < events.len() || is_deleted);
        prop_assert!(!beside.exists());
    }
}

#[test]
fn the_operation_is_on_disk_before_the_message_is_overwritten_and_that_before_the_answer() {
    let (before, events) = deleting(Fsync::Never);
    let kinds: Vec<&str> = events
        .iter()
        .filter(|event| !matches!(event, Event::LockFileIs(_)))
        .map(|event| match event {
            Event::LockFileIs(_) => "lock",
            Event::Wrote(offset, _) if *offset as usize >= before.len() => "append",
            Event::Wrote(..) => "erase",
            Event::Synced => "sync",
            Event::WroteBeside(_) => "note",
            Event::RemovedBeside => "done",
        })
        .collect();
    assert_eq!(kinds, ["note", "append", "sync", "erase", "erase", "sync", "done"]);
}

#[test]
fn nothing_is_deleted_for_whose_erasure_there_is_no_room_and_the_rest_goes_on() {
    let before = "[\"one\"]\n[\"two\"]\n";
    let delete = "{\"$op\":\"delete\",\"id\":1}\n";
    // The last one is that of a directory under the name of the file beside.
    for error in [libc::ENOSPC, libc::EDQUOT, libc::EMFILE, libc::EACCES, libc::EISDIR] {
        let mut house = House::new(before);
        house.system.fail_beside(Some(error));
        assert_eq!(house.ask_to(OPERATOR, delete), Err(ErrorAnswer::CannotErase), "{error}");
        assert_eq!((house.text(), house.hub.history.messages()), (before.into(), 2), "{error}");
        // In one batch with what deletes nothing.
        house.system.wait(Duration::from_secs(1));
        let (first, deleted) = request(OPERATOR, delete);
        let (second, said) = request((None, Standing::Open), "[\"three\"]\n");
        house.step_with(vec![first, second]);
        assert_eq!(deleted.try_recv().unwrap(), Err(ErrorAnswer::CannotErase), "{error}");
        let room = !matches!(error, libc::ENOSPC | libc::EDQUOT);
        let third = if room { "[\"three\"]\n" } else { "" };
        assert_eq!(said.try_recv().unwrap().is_ok(), room, "{error}");
        assert_eq!(house.text(), format!("{before}{third}"), "{error}");
        house.system.fail_beside(None);
        house.system.wait(Duration::from_secs(1));
        house.ask_to(OPERATOR, delete).expect("there is room again");
        assert_eq!(house.text(), format!("null   \n[\"two\"]\n{third}{delete}"), "{error}");
    }
}

#[test]
fn nothing_is_deleted_in_a_file_that_may_only_be_appended_to() {
    let before = "[\"one\"]\n[\"two\"]\n";
    let delete = |id| format!("{{\"$op\":\"delete\",\"id\":{id}}}\n");
    let mut house = House::new(before);
    house.system.set_append_only(true);
    assert_eq!(house.ask_to(OPERATOR, &delete(1)), Err(ErrorAnswer::CannotErase));
    assert_eq!((house.text(), house.hub.history.messages()), (before.into(), 2));
    assert!(!house.dir.path().join("messages.txt.erasing").exists());
    // What another program deletes is a hole, and is erased later.
    house.system.append(delete(2));
    house.tick();
    assert!(!house.hub.history.is_message(2) && house.hub.journal.has_unerased());
    assert_eq!(house.text(), format!("{before}{}", delete(2)));
    house.system.set_append_only(false);
    house.ask_to(OPERATOR, &delete(1)).expect("it may be overwritten again");
    assert_eq!(house.text(), format!("null   \nnull   \n{}{}", delete(2), delete(1)));
}

#[test]
fn a_file_that_may_only_be_appended_to_after_a_delete_was_accepted_does_not_end_the_server() {
    let mut house = House::new("[\"one\"]\n");
    house.hub.journal.announce_erasure(vec![1]).expect("it may be overwritten");
    house.system.set_append_only(true);
    let lines = house.hub.history.erase(&[1]).expect("the file can be read");
    let erased = house.hub.journal.erase(lines, &house.hub.history);
    assert_eq!(erased.expect("it is open already"), Erased::Done);
    assert_eq!(house.text(), "null   \n");
}

#[test]
fn what_another_program_deletes_is_erased_when_there_is_room() {
    let mut house = House::new("[\"one\"]\n[\"two\"]\n");
    house.system.fail_beside(Some(libc::ENOSPC));
    let delete = "{\"$op\":\"delete\",\"id\":1}\n";
    house.system.append(delete);
    for _ in 0..3 {
        house.tick();
        assert_eq!(house.text(), format!("[\"one\"]\n[\"two\"]\n{delete}"));
        assert!(!house.hub.history.is_message(1), "nobody is told of it any more");
    }
    house.system.fail_beside(None);
    house.tick();
    assert_eq!(house.text(), format!("null   \n[\"two\"]\n{delete}"));
    assert!(!house.hub.journal.has_unerased());
    assert!(!house.dir.path().join("messages.txt.erasing").exists());
}

#[test]
fn readers_that_began_before_see_what_was_deleted_and_those_after_it_do_not() {
    let text = "[\"one\"]\n[\"two\"]\n[\"three\"]\n";
    let mut house = House::new(text);
    let before = house.hub.history.window(&Default::default());
    house.ask_to(OPERATOR, "{\"$op\":\"delete\",\"id\":2}\n").expect("it is accepted");
    let read = |stretch: crate::history::Stretch| {
        let mut messages = stretch.messages().unwrap();
        let mut all = Vec::new();
        while let Some(message) = messages.next().unwrap() {
            all.push((message.id, String::from_utf8(message.data.to_vec()).unwrap()));
        }
        all
    };
    let ids: Vec<u64> = read(before.clone()).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(read(before)[1].1, "[\"two\"]");
    let after = house.hub.history.window(&Default::default());
    let ids: Vec<u64> = read(after).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [1, 3, 4]);
    assert_eq!(house.hub.history.messages(), 3);
}

/// The stamps file, without the times.
fn senders(house: &House) -> Vec<String> {
    let stamps = fs::read_to_string(house.dir.path().join("messages.txt.stamps"));
    let stamps = stamps.expect("the stamps");
    stamps.lines().map(|line| line[line.find(' ').expect("a stamp")..].to_owned()).collect()
}

#[test]
fn the_sender_of_a_message_may_edit_and_delete_it_and_its_stamp_keeps_the_time_alone() {
    let mut house = House::new("[\"old\"]\n");
    let ann = (Some("ann~k3v9q2m7x4ab"), Standing::Open);
    let renamed = (Some("zoe~k3v9q2m7x4ab"), Standing::Open);
    let bob = (Some("bob"), Standing::Member);
    let ok = |id| Ok(Stored { first_id: id, last_id: id });
    let not_the_sender = REFUSED(Refusal::Forbidden(Forbidden::NotTheSender));
    assert_eq!(house.ask_to(ann, "[\"secret\"]\n"), ok(2));
    assert_eq!(house.ask_to(bob, "{\"$op\":\"edit\",\"id\":2,\"data\":1}\n"), not_the_sender);
    assert_eq!(house.ask_to(bob, "{\"$op\":\"delete\",\"id\":2}\n"), not_the_sender);
    assert_eq!(house.ask_to(ann, "{\"$op\":\"delete\",\"id\":1}\n"), not_the_sender, "by nobody");
    assert_eq!(house.ask_to(renamed, "{\"$op\":\"edit\",\"id\":2,\"data\":\"secret\"}\n"), ok(3));
    assert_eq!(house.ask_to(bob, "{\"$op\":\"react\",\"id\":2,\"key\":\"+1\"}\n"), ok(4));
    let before = fs::read(house.dir.path().join("messages.txt.stamps")).expect("the stamps");
    assert_eq!(house.ask_to(renamed, "{\"$op\":\"delete\",\"id\":2}\n"), ok(5));
    assert!(!house.text().contains("secret"));
    let after = fs::read(house.dir.path().join("messages.txt.stamps")).expect("the stamps");
    assert_eq!(before[..24], after[..24]);
    let erased = format!(" -{}", " ".repeat("ann~k3v9q2m7x4ab".len() - 1));
    assert_eq!(senders(&house), [" -", &erased, &erased, " bob", " zoe~k3v9q2m7x4ab"]);
    // The next start believes all stamps, and finds whose reaction is whose.
    let epoch = house.hub.journal.epoch().clone();
    let House { dir, hub, .. } = house;
    drop(hub);
    let (journal, history) = Journal::open(&dir.file(), Fsync::Never, 1 << 20).expect("a file");
    assert_eq!(*journal.epoch(), epoch);
    let journal = journal.with_stamps(&history).expect("the stamps");
    let stamps = journal.stamps_from(1).expect("there are stamps").read();
    let mut stamps = stamps;
    let of: Vec<_> = (1..=5).map(|id| stamps.of(id).from.map(str::to_owned)).collect();
    assert_eq!(of, [None, None, None, Some("bob".into()), Some("zoe~k3v9q2m7x4ab".into())]);
    assert!(dir.beside("stamps.old").is_empty() && dir.beside("stamps.torn").is_empty());
}

#[test]
fn reactions_are_those_of_their_senders_after_a_start_too() {
    let mut house = House::new("[\"one\"]\n");
    let react = |key: &str| format!("{{\"$op\":\"react\",\"id\":1,\"key\":\"{key}\"}}\n");
    let unreact = "{\"$op\":\"unreact\",\"id\":1,\"key\":\"a\"}\n";
    let ann = (Some("ann"), Standing::Member);
    let bob = (Some("bob"), Standing::Member);
    for (who, lines) in
        [(ann, react("a")), (bob, react("a")), (bob, unreact.into()), (bob, react("b"))]
    {
        house.ask_to(who, &lines).expect("it is accepted");
    }
    // A reaction of nobody, by hand, means nothing.
    house.dir.append(react("c"));
    house.tick();
    assert_eq!(house.hub.history.operations().lines_of_reactions(1), [2, 5]);
    let House { dir, hub, .. } = house;
    drop(hub);
    let (journal, history) = Journal::open(&dir.file(), Fsync::Never, 1 << 20).expect("a file");
    let journal = journal.with_stamps(&history).expect("the stamps");
    let (_, history) = journal.with_operations(history).expect("the file can be written");
    assert_eq!(history.operations().lines_of_reactions(1), [2, 5]);
}

#[test]
fn very_many_reactions_to_a_deleted_message_are_forgotten_as_time_goes_by() {
    let mut house = House::new("1\n");
    for number in 0..1_000 {
        let react = r#"{"$op":"react","id":1,"key":"ok"}"#;
        let who = format!("sender-{number}");
        let (post, _answer) = request((Some(&who), Standing::Member), &format!("{react}\n"));
        house.hub.step(iter::once(post)).expect("the file is fine");
    }
    let left = |house: &House| house.hub.history.operations().reactions(1, None).count();
    assert_eq!(left(&house), 1_000);
    house.dir.append("{\"$op\":\"delete\",\"id\":1}\n");
    (0..3).for_each(|_| house.tick());
    assert!(!house.hub.history.is_message(1));
    assert_eq!(left(&house), 0);
}
