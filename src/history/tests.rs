use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use serde_json::Value;

use super::{
    load::{PART, load_part},
    *,
};
use crate::{
    message,
    stamps::{Recent, Stamps},
    testing::{TEXT, frame_of, frames_in, tries},
    wire::{Frames, HistoryFrame, LiveFrames},
};

const LIMIT: usize = 60_000;
const EPOCH: &str = "9f2c1a7b55d0e813";

/// A file, and all that the history should find in it, worked out in a slow and simple way.
#[derive(Clone, Debug)]
struct Model {
    /// The file.
    bytes: Vec<u8>,
    /// Where line 1 begins.
    start: usize,
    /// Each line without its `\n`, and whether it holds a message.
    lines: Vec<(Vec<u8>, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Message,
    Hole,
}

/// How a line is made. That decides whether it holds a message, so the test needs no parser.
#[derive(Clone, Debug)]
enum Made {
    Message(usize),
    Spaced(usize),
    Crlf(usize),
    Number,
    LongestMessage,
    Blank,
    Carriage,
    Junk(usize),
    NotUtf8,
    LateBom,
    TooLong,
}

impl Made {
    fn line(&self, number: usize) -> (Vec<u8>, Kind) {
        let object = |len: &usize| format!(r#"{{"n":{number},"c":"{}"}}"#, "é".repeat(len / 2));
        match self {
            Made::Message(len) => (object(len).into(), Kind::Message),
            Made::Spaced(len) => (format!(" \t{} ", object(len)).into(), Kind::Message),
            Made::Crlf(len) => (format!("{}\r", object(len)).into(), Kind::Message),
            Made::Number => (number.to_string().into(), Kind::Message),
            Made::LongestMessage => (format!("{number:>LIMIT$}").into(), Kind::Message),
            Made::Blank => (b"".into(), Kind::Hole),
            Made::Carriage => (b" \r".into(), Kind::Hole),
            Made::Junk(len) => (vec![b'x'; *len + 1], Kind::Hole),
            Made::NotUtf8 => (b"\"\xff\"".into(), Kind::Hole),
            Made::LateBom => (b"\xef\xbb\xbf 1 1".into(), Kind::Hole),
            Made::TooLong => (format!("{number:>width$}", width = LIMIT + 1).into(), Kind::Hole),
        }
    }
}

fn made() -> impl Strategy<Value = Made> {
    prop_oneof![
        6 => (0..80usize).prop_map(Made::Message),
        2 => (0..80usize).prop_map(Made::Spaced),
        2 => (0..80usize).prop_map(Made::Crlf),
        2 => (0..50_000usize).prop_map(Made::Message),
        2 => Just(Made::Number),
        1 => Just(Made::LongestMessage),
        2 => Just(Made::Blank),
        1 => Just(Made::Carriage),
        2 => (0..30usize).prop_map(Made::Junk),
        1 => (0..50_000usize).prop_map(Made::Junk),
        1 => Just(Made::NotUtf8),
        1 => Just(Made::LateBom),
        1 => Just(Made::TooLong),
    ]
}

/// Runs of lines of one kind, so that holes come alone, in runs, first and last.
fn model() -> impl Strategy<Value = Model> {
    let run = (made(), prop_oneof![3 => Just(1..2usize), 1 => Just(2..6)])
        .prop_flat_map(|(made, times)| times.prop_map(move |times| vec![made.clone(); times]));
    (prop::collection::vec(run, 0..24), prop::bool::weighted(0.3))
        .prop_map(|(runs, has_bom)| Model::new(if has_bom { BOM } else { b"" }, &runs.concat()))
}

impl Model {
    fn new(head: &[u8], made: &[Made]) -> Model {
        let lines: Vec<_> = made.iter().enumerate().map(|(at, made)| made.line(at + 1)).collect();
        let mut bytes = if lines.is_empty() { Vec::new() } else { head.to_vec() };
        let start = bytes.len();
        for (line, _) in &lines {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        Model { bytes, start, lines }
    }

    fn last_id(&self) -> u64 {
        self.lines.len() as u64
    }

    fn is_message(&self, id: u64) -> bool {
        self.lines[id as usize - 1].1 == Kind::Message
    }

    fn text(&self, id: u64) -> &[u8] {
        &self.lines[id as usize - 1].0
    }

    fn messages(&self, first_id: u64, last_id: u64) -> Vec<u64> {
        (first_id..=last_id).filter(|&id| self.is_message(id)).collect()
    }

    fn holes(&self, first_id: u64, last_id: u64) -> Vec<u64> {
        (first_id..=last_id).filter(|&id| !self.is_message(id)).collect()
    }

    /// Where each line begins, and the end.
    fn offsets(&self) -> Vec<u64> {
        let ends = self.lines.iter().scan(self.start, |end, (line, _)| {
            *end += line.len() + 1;
            Some(*end as u64)
        });
        [self.start as u64].into_iter().chain(ends).collect()
    }

    fn load(&self) -> History {
        self.load_lines(self.lines.len())
    }

    /// The history of the file when it had `count` lines.
    fn load_lines(&self, count: usize) -> History {
        let end = if count == 0 { 0 } else { self.offsets()[count] };
        let file = crate::testing::file_of(&self.bytes);
        History::load(file, end, LIMIT).expect("the file can be read")
    }

    /// Where the last `limit` messages begin.
    fn limited(&self, limit: Option<u64>) -> u64 {
        match limit {
            None => 1,
            Some(0) => self.last_id() + 1,
            Some(limit) => {
                let all = self.messages(1, self.last_id());
                all.iter().rev().nth(limit as usize - 1).copied().unwrap_or(1)
            }
        }
    }

    /// The id with which the answer to a client begins, and whether the client is told that it
    /// resumes.
    fn resumed(&self, resume: &Resume) -> (u64, Option<bool>) {
        let limited = self.limited(resume.limit);
        let Some(after) = resume.after else { return (limited, None) };
        let same_file = resume.epoch.as_deref().is_none_or(|epoch| epoch == EPOCH);
        let missed = || self.messages(after + 1, self.last_id()).len() as u64;
        let whole = same_file
            && after <= self.last_id()
            && resume.limit.is_none_or(|limit| missed() <= limit);
        if whole { (after + 1, Some(true)) } else { (limited, Some(false)) }
    }

    fn payload(&self, first_id: u64, last_id: u64, resumed: Option<bool>) -> Vec<u8> {
        let data = self.messages(first_id, last_id);
        let data = data.iter().map(|&id| self.text(id)).collect::<Vec<_>>().join(&b","[..]);
        let holes = self.holes(first_id, last_id);
        let holes = holes.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let skipped = if holes.is_empty() { holes } else { format!(r#","skipped":[{holes}]"#) };
        let resumed = resumed.map_or(String::new(), |yes| format!(r#","resumed":{yes}"#));
        let tail = format!(
            r#"],"first_id":{first_id},"last_id":{last_id}{skipped},"epoch":"{EPOCH}"{resumed}}}"#
        );
        [br#"{"type":"message_history","data":["#, &data[..], tail.as_bytes()].concat()
    }
}

/// All bytes of a frame, read block by block.
fn stream(mut frame: HistoryFrame) -> Vec<u8> {
    let mut all = Vec::new();
    let mut block = Vec::new();
    while !frame.is_done() {
        frame.peek(&mut block, BLOCK).expect("the file can be read");
        assert!(block.len() <= BLOCK, "memory is one block, not {} bytes", block.len());
        frame.advance(block.len());
        all.append(&mut block);
    }
    all
}

fn snapshot_of(history: &History, resume: &Resume) -> Snapshot {
    history.snapshot(resume, &Arc::from(EPOCH))
}

fn read(stretch: Stretch) -> Vec<(u64, Vec<u8>)> {
    let file = stretch.file().file().clone();
    let mut messages = stretch.messages().expect("the file can be read");
    let mut all = Vec::new();
    while let Some(message) = messages.next().expect("the file can be read") {
        let mut stored = vec![0; message.data.len()];
        file.read_exact_at(&mut stored, message.offset).expect("the message is there");
        assert!(stored == message.data, "message {} stands elsewhere", message.id);
        all.push((message.id, message.data.to_vec()));
    }
    all
}

/// Compares all that a history can be asked with the model.
fn check(history: &History, model: &Model) {
    let last_id = model.last_id();
    assert_eq!(history.last_id(), last_id);
    assert_eq!(history.end(), model.bytes.len() as u64);
    assert_eq!(history.messages(), model.messages(1, last_id).len() as u64);
    let holes = model.holes(1, last_id);
    assert_eq!(history.holes(), holes.first().map(|&first| (holes.len() as u64, first)));
    for (before, offset) in model.offsets().into_iter().enumerate() {
        assert_eq!(history.lines_before(offset).unwrap(), before as u64, "offset {offset}");
    }
    check_snapshot(history, model, &Resume::default());
    check_messages(history, model, 1, last_id);
}

fn check_snapshot(history: &History, model: &Model, resume: &Resume) {
    let (first_id, resumed) = model.resumed(resume);
    let snapshot = snapshot_of(history, resume);
    assert_eq!(
        (snapshot.stretch.first_id, snapshot.stretch.last_id, snapshot.resumed),
        (first_id, model.last_id(), resumed),
        "{resume:?}"
    );
    let payload = model.payload(first_id, model.last_id(), resumed);
    let frame = HistoryFrame::new(snapshot).expect("the file can be read");
    let streamed = stream(frame.clone());
    assert!(streamed == frame_of(TEXT, &payload), "the frame for {resume:?}");
    // A socket may take any number of the bytes that it is offered.
    for step in [1, 7, streamed.len() / 3 + 1] {
        let mut frame = frame.clone();
        let mut taken = 0;
        // Byte by byte only around the ends of the parts, or long files would take for ever.
        for count in std::iter::repeat_n(step, 400) {
            let mut ahead = Vec::new();
            frame.peek(&mut ahead, 2 * count).expect("the file can be read");
            assert!(streamed[taken..].starts_with(&ahead), "{resume:?}: {count} at {taken}");
            let taken_of_it = count.min(ahead.len());
            frame.advance(taken_of_it);
            taken += taken_of_it;
            if count == 7 && taken < streamed.len() / 2 {
                let far = streamed.len() / 2;
                frame.advance(far);
                taken += far;
            }
        }
        assert_eq!(frame.is_done(), taken == streamed.len());
    }
}

fn check_messages(history: &History, model: &Model, first_id: u64, last_id: u64) {
    let expected: Vec<_> = model
        .messages(first_id, last_id)
        .into_iter()
        .map(|id| (id, message::trim(model.text(id)).to_vec()))
        .collect();
    assert!(read(history.lines(first_id, last_id)) == expected, "lines {first_id} to {last_id}");
}

proptest! {
    #![proptest_config(tries(48))]

    #[test]
    fn a_loaded_file_has_the_lines_that_a_slow_reader_finds(model in model()) {
        check(&model.load(), &model);
    }

    #[test]
    fn lines_that_are_taken_in_one_by_one_are_the_same_as_loaded_ones(
        model in model(),
        loaded in any::<prop::sample::Index>(),
    ) {
        let loaded = loaded.index(model.lines.len() + 1);
        let mut history = model.load_lines(loaded);
        if loaded == 0 && model.start > 0 {
            history.skip_bom();
        }
        for (at, (line, kind)) in model.lines.iter().enumerate().skip(loaded) {
            let len = line.len() as u64 + 1;
            let id = match kind {
                Kind::Message => history.push_line(len),
                Kind::Hole => history.push_hole(len),
            };
            prop_assert_eq!(id, at as u64 + 1);
        }
        check(&history, &model);
    }

    #[test]
    fn a_client_gets_what_it_asks_for_and_never_a_part_of_what_it_missed(
        model in model(),
        asked in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4), 8),
    ) {
        let history = model.load();
        let ids = model.lines.len() + 3;
        for (after, limit, with) in asked {
            let after = Some(after.index(ids) as u64);
            let limit = Some(limit.index(ids) as u64);
            let epoch = [None, Some(EPOCH), Some("another"), None][with as usize];
            let epoch = epoch.map(str::to_owned);
            check_snapshot(&history, &model, &Resume { after, epoch: epoch.clone(), ..Resume::default() });
            check_snapshot(&history, &model, &Resume { after, epoch: epoch.clone(), limit, since: None });
            check_snapshot(&history, &model, &Resume { epoch, limit, ..Resume::default() });
        }
        let most = Some(u64::MAX);
        check_snapshot(&history, &model, &Resume { after: most, limit: most, ..Resume::default() });
    }

    #[test]
    fn a_window_keeps_to_both_ids_and_to_its_limit(
        model in model(),
        asked in prop::collection::vec(
            (prop::option::of(0..40u64), prop::option::of(0..40u64), prop::option::of(0..12u64)), 12),
    ) {
        let history = model.load();
        for (after, before, limit) in asked {
            let stretch = history.window(&Window { after, before, limit, since: None });
            let (first_id, last_id) = (stretch.first_id, stretch.last_id);
            prop_assert!(first_id >= 1 && last_id <= model.last_id() && first_id <= last_id + 1);
            let end = before.map_or(model.last_id(), |before| before.saturating_sub(1));
            let mut expected = model.messages(after.unwrap_or(0) + 1, end.min(model.last_id()));
            if let Some(limit) = limit {
                let from = expected.len().saturating_sub(limit as usize);
                match after {
                    Some(_) => expected.truncate(limit as usize),
                    None => drop(expected.drain(..from)),
                }
            }
            let ids: Vec<_> = read(stretch.clone()).into_iter().map(|(id, _)| id).collect();
            prop_assert_eq!(&ids, &expected, "after {:?} before {:?} limit {:?}", after, before, limit);
            let snapshot = Snapshot { stretch, epoch: EPOCH.into(), resumed: None };
            let frame = HistoryFrame::new(snapshot).expect("the file can be read");
            let payload = model.payload(first_id, last_id, None);
            prop_assert_eq!(frame.payload_len(), payload.len() as u64);
            prop_assert!(stream(frame.without_header()) == payload);
        }
    }

    #[test]
    fn a_client_that_is_behind_gets_every_message_of_a_stretch_once_with_its_time(
        model in model(),
        from in any::<prop::sample::Index>(),
        step in 1..9u64,
    ) {
        let history = model.load();
        let first_id = from.index(model.lines.len() + 1) as u64 + 1;
        let last_id = model.last_id();
        // The first messages have no time, and then a few share one.
        let mut recent = Recent::default();
        for id in model.messages(4, last_id) {
            recent.push(id, 1_000 + id / step, None);
        }
        let stretch = history.lines(first_id, last_id);
        let mut live = LiveFrames::new(stretch, Stamps::Remembered(recent)).unwrap();
        let mut sent = Vec::new();
        let mut frames = Frames::default();
        let mut goes_on = true;
        while goes_on {
            frames.clear();
            goes_on = live.extend(&mut frames, BLOCK).unwrap();
            prop_assert!(frames.bytes().len() < BLOCK + LIMIT + 100);
            prop_assert_eq!(frames_in(frames.bytes()).1, 0, "whole frames");
            sent.extend_from_slice(frames.bytes());
        }
        let mut expected = Vec::new();
        for id in model.messages(first_id, last_id) {
            let since = model.messages(4, id).into_iter().find(|other| other / step == id / step);
            let ts = since.map_or(String::new(), |id| format!(r#","ts":{}"#, 1_000 + id / step));
            let data = message::trim(model.text(id));
            let tail = format!(r#","id":{id}{ts}}}"#);
            let json = [br#"{"type":"new_message","data":"#, data, tail.as_bytes()].concat();
            expected.extend(frame_of(TEXT, &json));
        }
        prop_assert!(sent == expected);
    }
}

#[test]
fn the_history_of_the_seed_is_one_frame_of_json() {
    let seed = include_bytes!("../../tests/support/seed.txt");
    let history = History::load(crate::testing::file_of(seed), seed.len() as u64, LIMIT).unwrap();
    let frame = HistoryFrame::new(snapshot_of(&history, &Resume::default())).unwrap();
    let (frames, rest) = frames_in(&stream(frame));
    assert_eq!((frames.len(), rest), (1, 0));
    let json: Value = serde_json::from_slice(&frames[0].payload).expect("it is JSON");
    assert_eq!(json["data"].as_array().map(Vec::len), Some(7));
    assert_eq!(json["last_id"], 7);
    assert_eq!(json.get("skipped"), None);
}

#[test]
fn an_empty_history_is_an_empty_array_from_1_to_0() {
    for head in [&b""[..], BOM] {
        let model = Model::new(head, &[]);
        let expected = br#"{"type":"message_history","data":[],"first_id":1,"last_id":0,"epoch":"#;
        let frame = HistoryFrame::new(snapshot_of(&model.load(), &Resume::default())).unwrap();
        let (frames, _) = frames_in(&stream(frame));
        assert!(frames[0].payload.starts_with(expected));
        check(&model.load(), &model);
    }
}

#[test]
fn a_file_of_holes_alone_names_them_all() {
    // So many that their list does not fit in one block.
    let model = Model::new(b"", &vec![Made::Blank; 40_000]);
    check_snapshot(&model.load(), &model, &Resume::default());
    check_snapshot(&model.load(), &model, &Resume { after: Some(20_000), ..Resume::default() });
}

#[test]
fn holes_between_messages_are_left_out_however_many_they_are() {
    let model = Model::new(b"", &vec![[Made::Message(4), Made::Blank]; 1_000].concat());
    let history = model.load();
    check(&history, &model);
    check_messages(&history, &model, 700, 1_300);
    for limit in [1, 300, 1_000] {
        check_snapshot(&history, &model, &Resume { limit: Some(limit), ..Resume::default() });
        let after = Some(2_000 - 2 * limit);
        check_snapshot(&history, &model, &Resume { after, ..Resume::default() });
        let window = Window { after: Some(500), limit: Some(limit), ..Window::default() };
        let found = read(history.window(&window)).len() as u64;
        assert_eq!(found, limit.min(750));
    }
}

#[test]
fn all_processors_together_find_the_same_lines_as_one() {
    // Lines of all lengths, one over three parts, and one that ends right where a part does.
    let mut made: Vec<Made> = (0..5_000).map(|at| Made::Message(at * 37 % 500)).collect();
    made.insert(900, Made::Junk(3 << 20));
    made.insert(2_000, Made::LongestMessage);
    made.insert(2_001, Made::Blank);
    let before = Model::new(b"", &made).bytes.len();
    let part = PART as usize;
    made.push(Made::Junk(before.next_multiple_of(part) - before - 2));
    made.extend(vec![Made::Message(60); 20_000]);
    for head in [&b""[..], BOM] {
        let model = Model::new(head, &made);
        let starts_part = |offset: &u64| (offset - model.start as u64).is_multiple_of(PART);
        assert!(model.offsets()[1..].iter().any(starts_part) && model.bytes.len() > 5 * part);
        let history = model.load();
        let mut one = History {
            file: history.file.clone(),
            line_limit: LIMIT,
            index: Index::new(model.start as u64),
            operations: Operations::default(),
            log: Vec::new(),
            erased: Vec::new(),
        };
        for (line, kind) in &model.lines {
            match kind {
                Kind::Message => one.push_line(line.len() as u64 + 1),
                Kind::Hole => one.push_hole(line.len() as u64 + 1),
            };
        }
        assert!(history.index.holes.iter().eq(one.index.holes.iter()));
        assert_eq!(
            (history.end(), history.last_id(), history.holes()),
            (one.end(), one.last_id(), one.holes())
        );
        let offsets = model.offsets();
        for mark in &history.index.marks {
            assert_eq!(mark.offset, offsets[mark.id as usize - 1]);
        }
        check_messages(&history, &model, 890, 910);
        check_messages(&history, &model, model.last_id() - 100, model.last_id());
    }
}

#[test]
fn a_part_in_the_middle_of_a_long_line_is_not_read_beyond_its_own_end() {
    // Otherwise a file with one long line would be read again for each of its parts.
    let bytes = vec![b'x'; 64 << 10];
    let file = crate::testing::file_of(&bytes);
    let end = bytes.len() as u64;
    let part = load_part(&file, 0, 1 << 10, 2 << 10, end, LIMIT).expect("the file can be read");
    assert_eq!(part.lines, 0);
    assert!(part.end <= 2 << 10, "read on to {}", part.end);
}

#[test]
fn stretches_follow_each_other_without_a_gap_and_none_is_much_too_long() {
    let line = format!("{:>1000}\n", 7);
    let count = 3 * STRETCH_BYTES / line.len() as u64;
    let file = crate::testing::file_of(line.repeat(count as usize).as_bytes());
    let history = History::load(file, count * line.len() as u64, LIMIT).unwrap();
    let mut next_id = 5;
    let mut stretches = 0;
    while next_id <= history.last_id() {
        let stretch = history.stretch(next_id);
        assert_eq!(stretch.first_id, next_id);
        assert!(stretch.last_id >= next_id && stretch.last_id <= history.last_id());
        let bytes = (stretch.last_id - next_id + 1) * line.len() as u64;
        assert!(bytes <= STRETCH_BYTES + 2 * STRIDE, "{bytes} bytes");
        stretches += 1;
        next_id = stretch.last_id + 1;
    }
    assert_eq!((stretches, next_id), (3, history.last_id() + 1));
    assert!(history.stretch(next_id).is_empty());
}

#[test]
fn a_stretch_has_at_least_one_line_however_long() {
    let long = format!("{}1\n", " ".repeat(STRETCH_BYTES as usize + 100));
    let text = format!("1\n{long}2\n");
    let file = crate::testing::file_of(text.as_bytes());
    let history = History::load(file, text.len() as u64, 2 * STRETCH_BYTES as usize).unwrap();
    assert_eq!(history.holes(), None);
    for id in 1..=3 {
        assert!(history.stretch(id).last_id >= id);
    }
}

#[test]
fn the_index_has_one_mark_for_every_so_many_bytes_of_the_file() {
    let mut index = Index::new(0);
    for _ in 0..100_000 {
        index.push_line(100);
    }
    let expected = 100_000 * 100 / STRIDE;
    assert!(index.marks.len() as u64 <= expected, "{} marks", index.marks.len());
    assert!(index.marks.len() as u64 >= expected / 2, "{} marks", index.marks.len());
}

#[test]
fn a_stretch_stays_true_while_the_file_grows() {
    let made = [Made::Message(10), Made::Blank, Made::Message(20), Made::Blank];
    let model = Model::new(b"", &made);
    let mut history = model.load_lines(2);
    let before = history.whole();
    history.push_line(model.lines[2].0.len() as u64 + 1);
    history.push_hole(1);
    assert_eq!(read(before).into_iter().map(|(id, _)| id).collect::<Vec<_>>(), [1]);
    check(&history, &model);
}

impl History {
    fn whole(&self) -> Stretch {
        self.lines(1, self.last_id())
    }
}

#[test]
fn a_line_that_changed_under_the_reader_is_an_error_and_no_message() {
    let file = crate::testing::file_of(b"1\n2\n");
    let mut history = History::load(file, 4, LIMIT).unwrap();
    // The history is told of a line that is not in the file.
    history.push_line(2);
    let mut messages = history.lines(1, 3).messages().unwrap();
    assert_eq!(messages.next().unwrap().map(|message| message.id), Some(1));
    assert_eq!(messages.next().unwrap().map(|message| message.id), Some(2));
    assert!(messages.next().is_err());
    let frame = HistoryFrame::new(snapshot_of(&history, &Resume::default())).unwrap();
    assert!(frame.peek(&mut Vec::new(), BLOCK).is_err());
}

#[test]
fn lines_whose_messages_were_deleted_are_no_unexplained_holes() {
    #[track_caller]
    fn check(lines: &[&str], expected: Option<(u64, u64)>) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let file = crate::testing::file_of(text.as_bytes());
        let history = History::load(file, text.len() as u64, LIMIT).expect("the file can be read");
        assert_eq!(history.unexplained_holes(), expected, "{lines:?}");
    }
    let (message, erased, hole) = ("[\"one\"]", "null   ", "no message");
    check(&[message], None);
    check(&[erased, message, erased, erased], None);
    check(&[erased, message, hole, erased], Some((1, 3)));
    check(&[hole, erased, hole, "", message], Some((3, 1)));
}
