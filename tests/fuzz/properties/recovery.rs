//! Whatever bytes the text file holds, it is opened, nothing of it is lost, and every line keeps
//! its id and its bytes.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Cursor},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};
use tungstenite::protocol::frame::FrameHeader;
use txtcord::{
    config::Fsync,
    history::{BLOCK, History, Resume},
    journal::Journal,
    stamps::Stamps,
    wire::{Frames, HistoryFrame, LiveFrames},
};

use super::json::{is_erased, is_json, skip_space, trimmed};

/// As the server's default.
const MAX_MESSAGE: usize = 1 << 20;

/// What an input grows to at the most: enough to cross the blocks in which the end of a file is
/// searched.
const GROWN: usize = 160 << 10;

/// What some of those may grow to: enough to be loaded in parts, on all processors.
const GROWN_LARGE: usize = 3 << 20;

/// How often something is repeated at the most: a million blank lines show nothing that these do not.
const REPEATED: usize = 20_000;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// The name of the text file in its directory, and of the file beside it.
const FILE: &str = "messages.txt";
const LOCK: &str = "messages.txt.lock";

/// Checks a text file. Up to the first byte 255, if there is one, an input holds other things: how
/// the file grows out of what follows, then what the lock file holds.
pub fn check(input: &[u8]) {
    let Some(end) = input.iter().position(|byte| *byte == 0xff) else {
        return opens(input, None);
    };
    let (text, rest) = (&input[end + 1..], &input[..end]);
    match rest {
        [] => opens(text, None),
        [growth, lock @ ..] => opens(&grown(*growth, text), Some(lock)),
    }
}

/// Repeats the first line, or what follows the last, which no fuzzer would.
fn grown(growth: u8, text: &[u8]) -> Vec<u8> {
    const GROWS: u8 = 240;
    const GROWS_LARGE: u8 = 253;
    let Some(times) = growth.checked_sub(GROWS) else { return text.to_vec() };
    let limit = if growth >= GROWS_LARGE { GROWN_LARGE } else { GROWN };
    let times = (usize::from(times) + 1).pow(4);
    let part = match growth % 2 {
        0 => 0..text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| at + 1),
        _ => text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)..text.len(),
    };
    let times = times.min(REPEATED).min(limit / part.len().max(1)).max(1);
    let repeated = text[part.clone()].repeat(times);
    [&text[..part.start], &repeated, &text[part.end..]].concat()
}

/// Opens `file`, with what a lock file says of it, three times.
pub fn opens(file: &[u8], lock: Option<&[u8]>) {
    let dir = Dir::new();
    let path = dir.0.join(FILE);
    fs::write(&path, file).expect("a directory of our own");
    if let Some(lock) = lock {
        fs::write(dir.0.join(LOCK), lock).expect("a directory of our own");
    }
    let model = Model::of(file);

    let epoch = {
        let (journal, history) = open(&path);
        model.is_served(&history, journal.epoch());
        journal.epoch().clone()
    };
    let mut files = dir.files();
    assert_eq!(files[FILE], model.file, "the file as it is left");
    let torn = files.iter().filter(|(name, _)| name.contains(".torn-")).map(|(_, bytes)| &**bytes);
    assert_eq!(torn.collect::<Vec<_>>(), Vec::from_iter(model.torn), "what was cut off");
    assert_eq!(files.len(), 2 + usize::from(model.torn.is_some()), "no other file");

    {
        let (mut journal, history) = open(&path);
        assert_eq!(*journal.epoch(), epoch, "another start, the same numbering");
        assert_eq!(dir.files(), files, "another start changes nothing");
        model.is_served(&history, &epoch);
        let end = model.file.len() as u64;
        let offset = journal.append(b"{\"next\":1}\n", end).expect("there is room");
        assert_eq!(offset, end);
    }

    let grown = [&*model.file, b"{\"next\":1}\n"].concat();
    let model = Model::of(&grown);
    let (journal, history) = open(&path);
    assert_eq!(*journal.epoch(), epoch, "the file grew, the numbering is the same");
    model.is_served(&history, &epoch);
    files.insert(FILE.to_owned(), grown.clone());
    files.remove(LOCK);
    let now = dir.files();
    assert!(files.iter().all(|(name, bytes)| now[name] == *bytes));
}

fn open(path: &Path) -> (Journal, History) {
    Journal::open(path, Fsync::Never, MAX_MESSAGE).unwrap_or_else(|error| panic!("{error}"))
}

/// What durability.md makes of a file.
struct Model<'a> {
    /// The file after it was opened.
    file: Vec<u8>,
    /// What was moved to a file beside it.
    torn: Option<&'a [u8]>,
    /// Its lines: the message on each, or none.
    lines: Vec<Option<Vec<u8>>>,
}

impl Model<'_> {
    fn of(file: &[u8]) -> Model<'_> {
        let (whole, tail) =
            file.split_at(file.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        let unmarked = if whole.is_empty() { tail.strip_prefix(BOM).unwrap_or(tail) } else { tail };
        let (file, torn) = match tail {
            [] => (file.to_vec(), None),
            _ if is_json(unmarked) => ([file, b"\n"].concat(), None),
            _ => (whole.to_vec(), Some(tail)),
        };
        let text = file.strip_prefix(BOM).unwrap_or(&file);
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let is_message =
            |line: &[u8]| is_json(line) && !is_erased(line.strip_suffix(b"\n").unwrap_or(line));
        let lines = lines.map(|line| is_message(line).then(|| trimmed(line).to_vec())).collect();
        Model { file, torn, lines }
    }

    fn last_id(&self) -> u64 {
        self.lines.len() as u64
    }

    /// The messages behind an id, and their ids.
    fn after(&self, id: u64) -> Vec<(u64, &[u8])> {
        let lines = (1..).zip(&self.lines).skip(usize::try_from(id).unwrap_or(usize::MAX));
        lines.filter_map(|(id, message)| Some((id, message.as_deref()?))).collect()
    }

    /// Whether a history serves this file, to those who join and those who are behind.
    fn is_served(&self, history: &History, epoch: &Arc<str>) {
        let all = self.after(0);
        let holes = self.lines.len() - all.len();
        let first_hole = self.lines.iter().position(Option::is_none).map(|at| at as u64 + 1);
        assert_eq!(history.last_id(), self.last_id());
        assert_eq!(history.messages(), all.len() as u64);
        assert_eq!(history.holes(), first_hole.map(|first| (holes as u64, first)));
        assert_eq!(history.end(), self.file.len() as u64);

        let last_id = self.last_id();
        let middle = last_id / 2;
        let mut asked = vec![(None, None), (Some(middle), None), (None, Some(middle))];
        // All there is to ask takes its time, so only for what a fuzzer can write itself.
        if self.file.len() <= 4096 {
            let numbers = [0, middle, last_id, last_id + 1, u64::MAX].map(Some);
            let maybe = || numbers.into_iter().chain([None]);
            asked = maybe().flat_map(|after| maybe().map(move |limit| (after, limit))).collect();
        }
        for (after, limit) in asked {
            self.joins(history, epoch, after, limit);
        }
        for first_id in [1, middle + 1, last_id + 1] {
            self.catches_up(history, first_id);
        }
    }

    /// Checks that a client that connects and asks so gets what was promised.
    fn joins(&self, history: &History, epoch: &Arc<str>, after: Option<u64>, limit: Option<u64>) {
        let all = self.after(0);
        let count = limit.map_or(all.len(), |limit| all.len().min(limit.min(1 << 32) as usize));
        let mut expected = all[all.len() - count..].to_vec();
        let mut resumed = after.map(|_| false);
        // Never a part of what was missed.
        if let Some(after) = after.filter(|after| *after <= self.last_id()) {
            let missed = self.after(after);
            if limit.is_none_or(|limit| missed.len() as u64 <= limit) {
                expected = missed;
                resumed = Some(true);
            }
        }

        let resume = Resume { after, limit, epoch: Some(epoch.to_string()), since: None };
        let mut frame = HistoryFrame::new(history.snapshot(&resume, epoch)).expect("it is there");
        let mut bytes = Vec::new();
        while !frame.is_done() {
            let mut block = Vec::new();
            frame.peek(&mut block, BLOCK).expect("it is there");
            frame.advance(block.len());
            bytes.append(&mut block);
        }
        let [payload] = payloads(&bytes)[..] else { panic!("not one frame") };
        let mut rest =
            payload.strip_prefix(br#"{"type":"message_history","data":["#).expect("its beginning");
        for (at, (id, message)) in expected.iter().enumerate() {
            let separated = if at == 0 { Some(rest) } else { rest.strip_prefix(b",") };
            let rest_of = separated.map(skip_space).and_then(|rest| rest.strip_prefix(*message));
            rest =
                skip_space(rest_of.unwrap_or_else(|| panic!("message {id} is not in its place")));
        }
        let rest = rest.strip_prefix(b"],").expect("no more messages");
        let keys: Value = serde_json::from_slice(&[b"{", rest].concat()).expect("it is JSON");
        let first_id = keys["first_id"].as_u64().expect("a number");
        let skipped = keys["skipped"].as_array().cloned().unwrap_or_default();
        let skipped: Vec<_> = skipped.iter().filter_map(Value::as_u64).collect();
        let ids = first_id..=self.last_id();
        assert!(skipped.is_sorted() && skipped.iter().all(|id| ids.contains(id)));
        let named = ids.filter(|id| skipped.binary_search(id).is_err());
        assert!(named.eq(expected.iter().map(|(id, _)| *id)), "other ids");
        let mut expected = json!({
            "first_id": first_id,
            "last_id": self.last_id(),
            "epoch": **epoch,
        });
        if !skipped.is_empty() {
            expected["skipped"] = json!(skipped);
        }
        if let Some(resumed) = resumed {
            expected["resumed"] = json!(resumed);
        }
        assert_eq!(keys, expected, "after {after:?}, limit {limit:?}");
    }

    /// Whether a client that has everything before an id gets the rest, one frame each, in stretches.
    fn catches_up(&self, history: &History, first_id: u64) {
        let mut next_id = first_id;
        let mut bytes = Vec::new();
        while next_id <= self.last_id() {
            let stretch = history.stretch(next_id);
            assert_eq!(stretch.first_id, next_id);
            assert!(stretch.last_id >= next_id, "a stretch that gets nowhere");
            next_id = stretch.last_id + 1;
            let mut live = LiveFrames::new(stretch, Stamps::default()).expect("it is there");
            let mut frames = Frames::default();
            while live.extend(&mut frames, BLOCK).expect("it is there") {}
            bytes.extend_from_slice(frames.bytes());
        }
        let frames = payloads(&bytes);
        let expected = self.after(first_id - 1);
        assert_eq!(frames.len(), expected.len());
        for (frame, (id, message)) in frames.into_iter().zip(expected) {
            let begun = frame.strip_prefix(br#"{"type":"new_message","data":"#);
            let rest = begun.and_then(|rest| rest.strip_prefix(message));
            assert_eq!(rest, Some(format!(r#","id":{id}}}"#).as_bytes()), "message {id}");
        }
    }
}

/// The payloads of unmasked frames that stand back to back.
fn payloads(bytes: &[u8]) -> Vec<&[u8]> {
    let mut payloads = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut cursor = Cursor::new(rest);
        let header = FrameHeader::parse(&mut cursor).expect("a frame");
        let (_, len) = header.expect("a whole header");
        rest = &rest[cursor.position() as usize..];
        let (payload, behind) = rest.split_at_checked(len as usize).expect("a whole frame");
        payloads.push(payload);
        rest = behind;
    }
    payloads
}

/// A directory that is gone when it is dropped.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("txtcord-recovery-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Dir(path),
                // Left by a run that found something, under the same process id.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    /// What is in it, by name.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(&self.0).expect("our directory");
        let files = entries.map(|entry| {
            let path = entry.expect("our directory").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(path).expect("our file"))
        });
        files.collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // Best effort: it is a directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
