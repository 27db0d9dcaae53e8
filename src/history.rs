//! The text file as history: which lines are messages and where they stand.
//!
//! Memory holds only what finds things in the file: a sparse list of line offsets and the holes
//! (lines that hold no message). The hub owns it. A `Range` or `Snapshot` of it costs nothing to
//! make, stays true for ever, since the file only grows, and reads the file itself, on whatever
//! thread needs the bytes, never past the committed end.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crate::{
    lines::{Line, Lines, read_at},
    message::{self, Frames},
};

/// Distance in bytes of the file between two remembered line offsets: what has to be searched to
/// find a line, against 16 bytes of memory. Ten million short lines take about two megabytes.
const STRIDE: u64 = 8 << 10;

/// What one thread validates at a time when a file is loaded.
const LOAD_BLOCK: u64 = 1 << 20;

/// Read at a time when a file is loaded.
const LOAD_READ: usize = 128 << 10;

/// Bytes of history sent at a time: the memory of one joiner or one client that is behind.
pub const BLOCK: usize = 128 << 10;

/// What one round of catching up covers, in bytes of the file.
const ROUND: u64 = 4 << 20;

/// The byte order mark that some editors put before line 1.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// Where a line starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    id: u64,
    offset: u64,
}

/// Neighbouring lines that hold no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hole {
    first_id: u64,
    lines: u64,
    start: u64,
    end: u64,
}

/// Lines in the order of the file: their number, marks and holes.
#[derive(Debug)]
struct Index {
    /// The offset of line 1.
    start: u64,
    /// The offset behind the last whole line.
    end: u64,
    lines: u64,
    marks: Vec<Mark>,
    holes: Arc<Vec<Hole>>,
    hole_lines: u64,
}

impl Index {
    fn new(start: u64) -> Index {
        Index { start, end: start, lines: 0, marks: vec![], holes: Arc::default(), hole_lines: 0 }
    }

    /// Takes in the next line, of `len` bytes with its `\n`.
    fn push_line(&mut self, len: u64) {
        self.lines += 1;
        if self.marks.last().is_none_or(|mark| self.end - mark.offset >= STRIDE) {
            self.marks.push(Mark { id: self.lines, offset: self.end });
        }
        self.end += len;
    }

    /// Takes in the next line as one that holds no message.
    fn push_hole(&mut self, len: u64) {
        let start = self.end;
        self.push_line(len);
        self.push_holes(Hole { first_id: self.lines, lines: 1, start, end: self.end });
    }

    fn push_holes(&mut self, hole: Hole) {
        self.hole_lines += hole.lines;
        let holes = Arc::make_mut(&mut self.holes);
        match holes.last_mut() {
            Some(last) if last.end == hole.start => {
                last.lines += hole.lines;
                last.end = hole.end;
            }
            _ => holes.push(hole),
        }
    }

    /// Takes in the lines of a stretch of the file that begins where this one ends.
    fn absorb(&mut self, next: Index) {
        debug_assert!(next.lines == 0 || next.start == self.end);
        let before = self.lines;
        self.marks.extend(next.marks.iter().map(|mark| Mark { id: mark.id + before, ..*mark }));
        for hole in next.holes.iter() {
            self.push_holes(Hole { first_id: hole.first_id + before, ..*hole });
        }
        self.lines += next.lines;
        self.end = self.end.max(next.end);
    }
}

/// The history: everything up to the committed end of the file.
#[derive(Debug)]
pub struct History {
    file: Arc<File>,
    line_limit: usize,
    index: Index,
}

/// What somebody who reads the history asks of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    /// Only what came after this id.
    pub after: Option<u64>,
    /// Only what came before this id.
    pub before: Option<u64>,
    /// At most so many messages: with `after` the first ones, else the last.
    pub limit: Option<u64>,
}

/// What a client that connects asks of the history.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// Only what came after this id.
    pub after: Option<u64>,
    /// The numbering that `after` belongs to.
    pub epoch: Option<String>,
    /// At most so many messages, the last ones.
    pub limit: Option<u64>,
}

impl History {
    /// Reads and validates the whole lines of `file` up to `end`, on all processors.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(file: Arc<File>, end: u64, line_limit: usize) -> io::Result<History> {
        let mut head = [0; BOM.len()];
        let has_bom = end >= 3 && read_at(&file, &mut head, 0).is_ok_and(|n| head[..n] == *BOM);
        let start = if has_bom { BOM.len() as u64 } else { 0 };
        let mut index = Index::new(start);
        for part in load_parts(&file, start, end, line_limit)? {
            index.absorb(part);
        }
        index.marks.shrink_to_fit();
        Ok(History { file, line_limit, index })
    }

    /// The committed length of the file: behind its last whole line.
    pub fn end(&self) -> u64 {
        self.index.end
    }

    /// The number of the last line; 0 when there is none.
    pub fn last_id(&self) -> u64 {
        self.index.lines
    }

    /// How many lines hold a message.
    pub fn messages(&self) -> u64 {
        self.index.lines - self.index.hole_lines
    }

    /// How many lines hold none, and the number of the first of them.
    pub fn holes(&self) -> Option<(u64, u64)> {
        self.index.holes.first().map(|hole| (self.index.hole_lines, hole.first_id))
    }

    /// Leaves a byte order mark out of line 1, which is about to be taken in.
    pub fn skip_bom(&mut self) {
        self.index = Index::new(BOM.len() as u64);
    }

    /// Takes in the next line of the file, `len` bytes with its `\n`; returns its id.
    pub fn push_line(&mut self, len: u64) -> u64 {
        self.index.push_line(len);
        self.index.lines
    }

    /// Takes in the next line of the file as a hole; returns its id.
    pub fn push_hole(&mut self, len: u64) -> u64 {
        self.index.push_hole(len);
        self.index.lines
    }

    /// How many lines stand before `offset`, which must be the start of a line or the end.
    pub fn lines_before(&self, offset: u64) -> io::Result<u64> {
        let marks = &self.index.marks;
        let Some(mark) = marks[..marks.partition_point(|mark| mark.offset <= offset)].last() else {
            return Ok(0);
        };
        let mut lines = Lines::new(&self.file, mark.offset, offset, BLOCK, self.line_limit);
        let mut id = mark.id - 1;
        while lines.next()?.is_some() {
            id += 1;
        }
        Ok(id)
    }

    /// What a client that connects is sent: the window it asks for, and whether that continues what
    /// it has. Never a part of what it missed: where `limit` would cut that, it starts over.
    pub fn snapshot(&self, resume: &Resume, epoch: &Arc<str>) -> Snapshot {
        let last_id = self.last_id();
        let limited = resume.limit.map_or(1, |limit| self.first_of_last(limit, last_id + 1));
        let known = resume.epoch.as_ref().is_none_or(|asked| **asked == **epoch);
        let (first_id, resumed) = match resume.after {
            None => (limited, None),
            Some(after) if known && after <= last_id && self.same_messages(after + 1, limited) => {
                (after + 1, Some(true))
            }
            Some(_) => (limited, Some(false)),
        };
        Snapshot { range: self.range(first_id, last_id), epoch: epoch.clone(), resumed }
    }

    /// What somebody who reads the history wants of it, as far as it is there.
    pub fn window(&self, window: &Window) -> Range {
        let before = window.before.unwrap_or(u64::MAX).min(self.last_id() + 1).max(1);
        match (window.after, window.limit) {
            (None, None) => self.range(1, before - 1),
            (None, Some(limit)) => self.range(self.first_of_last(limit, before), before - 1),
            (Some(after), limit) => {
                let first_id = after.saturating_add(1).min(before);
                let last_id = match limit {
                    None => before - 1,
                    Some(limit) => self.last_of_first(limit, first_id).min(before - 1),
                };
                self.range(first_id, last_id)
            }
        }
    }

    /// The lines `first_id..=last_id`, which the history must have.
    fn range(&self, first_id: u64, last_id: u64) -> Range {
        Range {
            file: self.file.clone(),
            line_limit: self.line_limit,
            first_id,
            last_id,
            start: self.near(first_id),
            stop: self.near(last_id + 1),
            end: self.index.end,
            holes: self.index.holes.clone(),
        }
    }

    /// The nearest known line at or before one; the line behind the last is known.
    fn near(&self, id: u64) -> Mark {
        if id > self.index.lines {
            return Mark { id: self.index.lines + 1, offset: self.index.end };
        }
        let marks = &self.index.marks;
        match marks.partition_point(|mark| mark.id <= id) {
            0 => Mark { id: 1, offset: self.index.start },
            near => marks[near - 1],
        }
    }

    /// The next lines for somebody who has everything before `first_id`: at most a round's worth.
    pub fn round(&self, first_id: u64) -> Range {
        let marks = &self.index.marks;
        let near = self.near(first_id);
        let far = marks.partition_point(|mark| mark.offset < near.offset + ROUND);
        match marks.get(far) {
            Some(mark) if mark.id > first_id => self.range(first_id, mark.id - 1),
            _ => self.range(first_id, self.last_id()),
        }
    }

    /// The id where the last `count` messages before the line `before` begin.
    fn first_of_last(&self, count: u64, before: u64) -> u64 {
        let mut first_id = before;
        let mut missing = count;
        for hole in self.index.holes.iter().rev().skip_while(|hole| hole.first_id >= before) {
            let behind = first_id.saturating_sub(hole.first_id + hole.lines);
            if behind >= missing {
                break;
            }
            missing -= behind;
            first_id = hole.first_id;
        }
        first_id - missing.min(first_id - 1)
    }

    /// The id where the first `count` messages from the line `first_id` on end.
    fn last_of_first(&self, count: u64, first_id: u64) -> u64 {
        let mut next_id = first_id;
        let mut missing = count;
        let holes = &self.index.holes;
        let from = holes.partition_point(|hole| hole.first_id + hole.lines <= first_id);
        for hole in &holes[from..] {
            let before = hole.first_id.saturating_sub(next_id);
            if before >= missing {
                break;
            }
            missing -= before;
            next_id = hole.first_id + hole.lines;
        }
        next_id.saturating_add(missing) - 1
    }

    /// Whether two windows hold the same messages, or the second holds more: between `from` and a
    /// later `limited` there may be holes only.
    fn same_messages(&self, from: u64, limited: u64) -> bool {
        limited <= from
            || self
                .index
                .holes
                .iter()
                .any(|hole| hole.first_id <= from && limited <= hole.first_id + hole.lines)
    }
}

/// The parts of the file, validated by all processors, in order.
fn load_parts(file: &Arc<File>, start: u64, end: u64, line_limit: usize) -> io::Result<Vec<Index>> {
    let blocks = (end - start).div_ceil(LOAD_BLOCK);
    let workers = thread::available_parallelism().map_or(1, |n| n.get() as u64).min(blocks);
    let next = AtomicU64::new(0);
    let parts = Mutex::new(Vec::with_capacity(blocks as usize));
    let work = || -> io::Result<()> {
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= blocks {
                return Ok(());
            }
            let from = start + block * LOAD_BLOCK;
            let part = load_part(file, start, from, (from + LOAD_BLOCK).min(end), end, line_limit)?;
            parts.lock().expect("no worker panics while it holds this").push((block, part));
        }
    };
    if workers < 2 {
        work()?;
    } else {
        thread::scope(|scope| {
            let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
            let mine = work();
            let done = others.into_iter().map(|other| other.join().expect("a worker panicked"));
            done.fold(mine, |all, one| all.and(one))
        })?;
    }
    let mut parts = parts.into_inner().expect("no worker panics while it holds this");
    parts.sort_unstable_by_key(|(block, _)| *block);
    Ok(parts.into_iter().map(|(_, part)| part).collect())
}

/// The lines that start in `from..to`.
fn load_part(
    file: &Arc<File>,
    start: u64,
    from: u64,
    to: u64,
    end: u64,
    line_limit: usize,
) -> io::Result<Index> {
    // A line starts at `from` only if a `\n` stands right before it. It is looked for within the part
    // alone, or each part of one long line would walk to its end.
    let mut first = from;
    if from > start {
        let mut before = Lines::new(file, from - 1, to, LOAD_READ, 0);
        before.next()?;
        first = before.offset();
    }
    let mut lines = Lines::new(file, first, end, LOAD_READ, line_limit);
    let mut index = Index::new(first);
    while lines.offset() < to {
        match lines.next()? {
            Some(Line::Whole(text)) => {
                let len = text.len() as u64 + 1;
                match message::on_line(text) {
                    Some(_) => index.push_line(len),
                    None => index.push_hole(len),
                }
            }
            Some(Line::TooLong(len)) => index.push_hole(len),
            Some(Line::Unfinished(_)) | None => break,
        }
    }
    Ok(index)
}

/// A stretch of the history, to be read by whoever holds it.
#[derive(Clone, Debug)]
pub struct Range {
    file: Arc<File>,
    line_limit: usize,
    /// The first line.
    pub first_id: u64,
    /// The last line; one less than `first_id` when there is none.
    pub last_id: u64,
    /// The nearest known line at or before the first, and at or before the one behind the last.
    start: Mark,
    stop: Mark,
    /// The committed end of the file.
    end: u64,
    holes: Arc<Vec<Hole>>,
}

impl Range {
    /// Whether there is no line in it.
    pub fn is_empty(&self) -> bool {
        self.first_id > self.last_id
    }

    /// The file that it is a stretch of.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The offset of a line, from one known at or before it.
    fn offset(&self, near: Mark, id: u64) -> io::Result<u64> {
        if near.id == id {
            return Ok(near.offset);
        }
        let block = STRIDE as usize;
        let mut lines = Lines::new(&self.file, near.offset, self.end, block, self.line_limit);
        lines.skip(id - near.id)?;
        Ok(lines.offset())
    }

    /// The offsets where the first line begins and the last one ends.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn offsets(&self) -> io::Result<(u64, u64)> {
        if self.is_empty() {
            return Ok((self.end, self.end));
        }
        let stop = self.offset(self.stop, self.last_id + 1)?;
        Ok((self.offset(self.start, self.first_id)?, stop))
    }

    /// The holes in it.
    fn holes(&self) -> impl Iterator<Item = &Hole> {
        let from = self.holes.partition_point(|hole| hole.first_id + hole.lines <= self.first_id);
        self.holes[from..].iter().take_while(|hole| hole.first_id <= self.last_id)
    }

    /// Reads the messages in it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn messages(self) -> io::Result<Messages> {
        let (start, end) = self.offsets()?;
        let lines = Lines::new(&self.file, start, end, BLOCK, self.line_limit);
        let hole = self.holes.partition_point(|hole| hole.first_id + hole.lines <= self.first_id);
        Ok(Messages {
            next_id: self.first_id,
            last_id: self.last_id,
            lines,
            holes: self.holes,
            hole,
        })
    }
}

/// Reads the messages of a range, one at a time.
#[derive(Debug)]
pub struct Messages {
    next_id: u64,
    last_id: u64,
    lines: Lines,
    holes: Arc<Vec<Hole>>,
    /// The first of `holes` that does not end before `next_id`.
    hole: usize,
}

impl Messages {
    /// The next message and its id, or `None` at the end of the range.
    ///
    /// # Errors
    /// When the file cannot be read.
    #[allow(clippy::should_implement_trait, reason = "lends from its buffer, as no Iterator can")]
    pub fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        while let Some(hole) = self.holes.get(self.hole)
            && hole.first_id <= self.next_id
        {
            let behind = hole.first_id + hole.lines;
            let skipped = behind.min(self.last_id + 1) - self.next_id;
            self.lines.skip(skipped)?;
            self.next_id += skipped;
            self.hole += 1;
        }
        if self.next_id > self.last_id {
            return Ok(None);
        }
        let id = self.next_id;
        self.next_id += 1;
        match self.lines.next()? {
            Some(Line::Whole(text)) => Ok(Some((id, message::trim(text)))),
            _ => Err(io::Error::other("a line of the text file is not what it was")),
        }
    }
}

/// Everything a client is sent when it connects.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The lines in it.
    pub range: Range,
    /// The name of the numbering.
    pub epoch: Arc<str>,
    /// Whether it goes on where `after` said, if that was said.
    pub resumed: Option<bool>,
}

/// A `message_history` frame that streams itself: one frame, whose header carries the length, known
/// from the range and its holes, and whose array is the file with each `\n` made a `,`.
#[derive(Debug)]
pub struct HistoryFrame {
    snapshot: Snapshot,
    part: Part,
    /// The offset in the file of what comes next.
    offset: u64,
    /// The offset behind the last line.
    end: u64,
    /// What is left of the array, in bytes on the wire: without the `\n` of the last message.
    left: u64,
    /// The hole that comes next, and in the tail the next id of it to be named.
    hole: usize,
    skipped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Head,
    Begin,
    Array,
    Skipped,
    Tail,
    Done,
}

const HISTORY_HEAD: &[u8] = br#"{"type":"message_history","data":["#;

impl HistoryFrame {
    /// Prepares the frame of a snapshot.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(snapshot: Snapshot) -> io::Result<HistoryFrame> {
        let range = &snapshot.range;
        let (offset, end) = range.offsets()?;
        let hole = range.holes.partition_point(|hole| hole.end <= offset);
        // One that a window ends in, or lies in, counts as far as it is in the window.
        let inside = |hole: &Hole| hole.end.min(end).saturating_sub(hole.start.max(offset));
        let holes: u64 = range.holes().map(inside).sum();
        let left = (end - offset - holes).saturating_sub(1);
        Ok(HistoryFrame { snapshot, part: Part::Head, offset, end, left, hole, skipped: 0 })
    }

    /// Appends what comes next to `out`, up to about a block; false when there was nothing left.
    ///
    /// # Errors
    /// When the file cannot be read: the frame cannot be finished then.
    pub fn fill(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        if self.part == Part::Done {
            return Ok(false);
        }
        while out.len() < BLOCK && self.part != Part::Done {
            self.part = match self.part {
                Part::Head => self.head(out),
                Part::Begin => {
                    out.extend_from_slice(HISTORY_HEAD);
                    Part::Array
                }
                Part::Array => self.array(out)?,
                Part::Skipped => self.skipped(out),
                Part::Tail | Part::Done => self.tail(out),
            };
        }
        Ok(true)
    }

    /// The length of the payload, before any of it has been taken.
    pub fn payload_len(&self) -> u64 {
        let range = &self.snapshot.range;
        let mut tail = Vec::new();
        push_ids(range, &mut tail);
        self.push_epoch(&mut tail);
        HISTORY_HEAD.len() as u64 + self.left + tail.len() as u64 + skipped_len(range)
    }

    /// Leaves the frame's header out: for those who are sent the payload by other means.
    pub fn without_header(mut self) -> HistoryFrame {
        self.part = Part::Begin;
        self
    }

    fn head(&mut self, out: &mut Vec<u8>) -> Part {
        let len = self.payload_len();
        out.reserve(BLOCK.min(len as usize + 16));
        message::push_text_header(len, out);
        Part::Begin
    }

    fn array(&mut self, out: &mut Vec<u8>) -> io::Result<Part> {
        let range = &self.snapshot.range;
        while self.left > 0 {
            let hole = range.holes.get(self.hole).filter(|hole| hole.start < self.end);
            let stop = hole.map_or(self.end, |hole| hole.start);
            if self.offset >= stop {
                self.offset = hole.map_or(self.end, |hole| hole.end);
                self.hole += 1;
                continue;
            }
            let room = BLOCK.saturating_sub(out.len()) as u64;
            if room == 0 {
                return Ok(Part::Array);
            }
            let want = room.min(stop - self.offset).min(self.left) as usize;
            let from = out.len();
            out.resize(from + want, 0);
            let got = read_at(&range.file, &mut out[from..], self.offset)?;
            out.truncate(from + got);
            // A loop that the compiler makes wide.
            for byte in &mut out[from..] {
                *byte = if *byte == b'\n' { b',' } else { *byte };
            }
            self.offset += got as u64;
            self.left -= got as u64;
        }
        push_ids(range, out);
        self.hole = 0;
        Ok(Part::Skipped)
    }

    fn skipped(&mut self, out: &mut Vec<u8>) -> Part {
        let range = &self.snapshot.range;
        for hole in range.holes().skip(self.hole) {
            let (first, last) = within(hole, range);
            let mut id = first.max(self.skipped);
            while id <= last {
                if out.len() >= BLOCK {
                    return Part::Skipped;
                }
                out.extend_from_slice(if self.skipped == 0 { SKIPPED } else { b"," });
                message::push_number(id, out);
                id += 1;
                self.skipped = id;
            }
            self.hole += 1;
        }
        if self.skipped > 0 {
            out.push(b']');
        }
        Part::Tail
    }

    fn tail(&mut self, out: &mut Vec<u8>) -> Part {
        self.push_epoch(out);
        Part::Done
    }

    fn push_epoch(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#","epoch":""#);
        out.extend_from_slice(self.snapshot.epoch.as_bytes());
        out.extend_from_slice(match self.snapshot.resumed {
            None => br#""}"#,
            Some(true) => br#"","resumed":true}"#,
            Some(false) => br#"","resumed":false}"#,
        });
    }
}

const SKIPPED: &[u8] = br#","skipped":["#;

fn push_ids(range: &Range, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"],"first_id":"#);
    message::push_number(range.first_id, out);
    out.extend_from_slice(br#","last_id":"#);
    message::push_number(range.last_id, out);
}

/// The lines of a hole that lie in the range.
fn within(hole: &Hole, range: &Range) -> (u64, u64) {
    let last = (hole.first_id + hole.lines - 1).min(range.last_id);
    (hole.first_id.max(range.first_id), last)
}

/// The length of the list of holes on the wire.
fn skipped_len(range: &Range) -> u64 {
    let ids = range.holes().flat_map(|hole| {
        let (first, last) = within(hole, range);
        first..=last
    });
    let len: u64 = ids.map(|id| message::digits(id) as u64 + 1).sum();
    if len == 0 { 0 } else { SKIPPED.len() as u64 + len }
}

/// Rounds of live messages for a client that is behind, as frames.
#[derive(Debug)]
pub struct LiveFrames {
    messages: Messages,
    times: Times,
    frames: Frames,
}

impl LiveFrames {
    /// Prepares the frames of a range, with the times that are known.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(range: Range, times: Times) -> io::Result<LiveFrames> {
        Ok(LiveFrames { messages: range.messages()?, times, frames: Frames::default() })
    }

    /// Appends whole frames to `out`, up to about a block; false when there was nothing left.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn fill(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        self.frames.clear();
        while self.frames.bytes().len() < BLOCK {
            let Some((id, data)) = self.messages.next()? else { break };
            self.frames.push(data, id, self.times.of(id));
        }
        out.extend_from_slice(self.frames.bytes());
        Ok(!self.frames.is_empty())
    }

    /// How many frames the last call appended.
    pub fn filled(&self) -> u64 {
        self.frames.len() as u64
    }
}

/// When messages were accepted, as long as that is remembered.
///
/// The file has no times, so they are known for this run of the server only. Messages of one
/// millisecond share an entry.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// From which id on which time holds.
    runs: VecDeque<(u64, u64)>,
}

/// How many different times are remembered: 1 MiB of memory, and 65 seconds of a server that is
/// never idle for a millisecond, or months of one where people talk.
const TIMES: usize = 1 << 16;

impl Times {
    /// Remembers that messages from `first_id` on were accepted at `ts`, in Unix milliseconds.
    pub fn push(&mut self, first_id: u64, ts: u64) {
        if self.runs.back().is_some_and(|&(_, last)| last == ts) {
            return;
        }
        if self.runs.len() == TIMES {
            self.runs.pop_front();
        }
        self.runs.push_back((first_id, ts));
    }

    /// When the message was accepted, if that is remembered.
    pub fn of(&self, id: u64) -> Option<u64> {
        let later = self.runs.partition_point(|&(first_id, _)| first_id <= id);
        later.checked_sub(1).map(|at| self.runs[at].1)
    }

    /// The part that says something of a range.
    pub fn within(&self, range: &Range) -> Times {
        let from = self.runs.partition_point(|&(first_id, _)| first_id <= range.first_id);
        let to = self.runs.partition_point(|&(first_id, _)| first_id <= range.last_id);
        Times { runs: self.runs.range(from.saturating_sub(1)..to).copied().collect() }
    }
}

#[cfg(test)]
mod tests;
