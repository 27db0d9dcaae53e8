//! The text file as history: which lines are messages, and where they stand.
//!
//! No message is kept in memory, only an index of the file: the offset of every so many lines, the
//! holes, and what operations made of messages. A message that is deleted becomes a hole. The hub owns
//! the history. Other threads get a [`Stretch`] of it, with which they read the file themselves.

use std::{fs::File, io, sync::Arc};

use crate::{
    lines::{Lines, TextFile, read_at},
    message,
    operations::{LoggedOperation, Operations, Target},
};

mod load;
mod stretch;

pub use stretch::{LocatedMessage, MessageText, Messages, Stretch};

/// The distance in the file between two lines whose offsets are remembered, in bytes. So much of
/// the file is searched to find a line, and each offset takes 16 bytes of memory: about two
/// megabytes for ten million short lines.
const STRIDE: u64 = 8 << 10;

/// Bytes of history that are read and sent at a time: the memory that a thread takes for it.
pub const BLOCK: usize = 128 << 10;

/// About how many bytes of the file the hub names to a catch-up thread at a time: several blocks,
/// so that the hub is seldom asked.
const STRETCH_BYTES: u64 = 512 << 10;

// A stretch fills a block, and its first line is found with less reading than that.
const _: () = assert!(STRIDE < BLOCK as u64 && BLOCK as u64 <= STRETCH_BYTES);

/// The byte order mark that some editors put before line 1.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// The offset of a line in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    id: u64,
    offset: u64,
}

/// A hole, or several holes one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holes {
    first_id: u64,
    lines: u64,
    start: u64,
    end: u64,
}

impl Holes {
    fn last_id(&self) -> u64 {
        self.first_id + self.lines - 1
    }
}

/// What is known of the lines of the file, or of a part of it.
#[derive(Debug)]
struct Index {
    /// The offset of line 1.
    start: u64,
    /// The offset where the last whole line ends.
    end: u64,
    lines: u64,
    marks: Vec<Mark>,
    holes: Arc<Vec<Holes>>,
    hole_lines: u64,
    /// The operations that were found while a part of the file was read.
    log: Vec<LoggedOperation>,
}

impl Index {
    fn new(start: u64) -> Index {
        Index {
            start,
            end: start,
            lines: 0,
            marks: vec![],
            holes: Arc::default(),
            hole_lines: 0,
            log: vec![],
        }
    }

    /// Takes in the next line, of `len` bytes with its `\n`.
    fn push_line(&mut self, len: u64) {
        self.lines += 1;
        if self.marks.last().is_none_or(|mark| self.end - mark.offset >= STRIDE) {
            self.marks.push(Mark { id: self.lines, offset: self.end });
        }
        self.end += len;
    }

    /// Takes in the next line, of `len` bytes with its `\n`, as a hole.
    fn push_hole(&mut self, len: u64) {
        let start = self.end;
        self.push_line(len);
        self.push_holes(Holes { first_id: self.lines, lines: 1, start, end: self.end });
    }

    fn push_holes(&mut self, hole: Holes) {
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

    /// Notes that a line that was taken in, from `start` to `end` with its `\n`, is a hole from now
    /// on.
    fn make_hole(&mut self, id: u64, start: u64, end: u64) {
        self.hole_lines += 1;
        let holes = Arc::make_mut(&mut self.holes);
        let at = holes.partition_point(|hole| hole.first_id < id);
        let joins_last = at > 0 && holes[at - 1].end == start;
        let joins_next = holes.get(at).is_some_and(|next| next.start == end);
        match (joins_last, joins_next) {
            (true, true) => {
                let next = holes.remove(at);
                holes[at - 1].lines += 1 + next.lines;
                holes[at - 1].end = next.end;
            }
            (true, false) => {
                holes[at - 1].lines += 1;
                holes[at - 1].end = end;
            }
            (false, true) => {
                let next = &mut holes[at];
                (next.first_id, next.start) = (id, start);
                next.lines += 1;
            }
            (false, false) => {
                if holes.len() == holes.capacity() {
                    // An eighth more: each deleted message may be a hole of its own.
                    holes.reserve_exact(holes.len() / 8 + 4);
                }
                holes.insert(at, Holes { first_id: id, lines: 1, start, end });
            }
        }
    }

    fn is_hole(&self, id: u64) -> bool {
        let at = self.holes.partition_point(|hole| hole.last_id() < id);
        self.holes.get(at).is_some_and(|hole| hole.first_id <= id)
    }

    /// Takes in the lines of the part of the file that follows.
    fn absorb(&mut self, next: Index) {
        debug_assert!(next.lines == 0 || next.start == self.end);
        let before = self.lines;
        self.marks.extend(next.marks.iter().map(|mark| Mark { id: mark.id + before, ..*mark }));
        for hole in next.holes.iter() {
            self.push_holes(Holes { first_id: hole.first_id + before, ..*hole });
        }
        self.lines += next.lines;
        self.end = self.end.max(next.end);
    }
}

/// The history: everything up to the committed end of the file.
#[derive(Debug)]
pub struct History {
    file: TextFile,
    line_limit: usize,
    index: Index,
    operations: Operations,
    /// The operations that were found while the file was loaded, part by part, until they are taken
    /// into the index.
    log: Vec<Vec<LoggedOperation>>,
}

/// The part of the history that a request asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    /// Only messages after this id.
    pub after: Option<u64>,
    /// Only messages before this id.
    pub before: Option<u64>,
    /// Only messages from this id on, which is the first one since some time.
    pub since: Option<u64>,
    /// At most so many of these messages: with `after` or `since` the first ones, otherwise the
    /// last.
    pub limit: Option<u64>,
}

/// The part of the history that a client asks for when it connects.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// Only messages after this id.
    pub after: Option<u64>,
    /// The epoch that `after` belongs to; `None` for whatever the file has.
    pub epoch: Option<String>,
    /// Only messages from this id on, which is the first one since some time.
    pub since: Option<u64>,
    /// At most so many of these messages: the last ones.
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
        let mut log = Vec::new();
        for mut part in load::load_parts(&file, start, end, line_limit)? {
            let mut found = std::mem::take(&mut part.log);
            found.iter_mut().for_each(|operation| operation.id += index.lines);
            found.shrink_to_fit();
            log.extend((!found.is_empty()).then_some(found));
            index.absorb(part);
        }
        index.marks.shrink_to_fit();
        let operations = Operations::default();
        Ok(History { file: TextFile::new(file), line_limit, index, operations, log })
    }

    /// The file as it is now.
    pub fn file(&self) -> &TextFile {
        &self.file
    }

    /// What operations made of the messages.
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    /// The same, to be changed as operations are decided and applied.
    pub fn operations_mut(&mut self) -> &mut Operations {
        &mut self.operations
    }

    /// Takes in the operations that were found when the file was loaded; `sender_of` tells the
    /// verified sender of a line. Returns the lines that should hold nothing any more, and that may
    /// have been left by a crash: these must be erased.
    pub fn replay_operations(&mut self, sender_of: impl FnMut(u64) -> Option<String>) -> Vec<u64> {
        let log = std::mem::take(&mut self.log).into_iter().flatten();
        let mut left = self.operations.replay(log, sender_of);
        left.retain(|&id| self.is_message(id));
        left
    }

    /// Whether there is a message of this id.
    pub fn is_message(&self, id: u64) -> bool {
        (1..=self.index.lines).contains(&id) && !self.index.is_hole(id)
    }

    /// What an operation names by this id; `sender` is the verified sender of that line.
    pub fn target<'a>(&self, id: u64, sender: Option<&'a str>) -> Target<'a> {
        if self.is_message(id) { Target::Message(sender) } else { Target::Missing }
    }

    /// Erases a message: it is a hole from now on, and these bytes must stand in its place in the
    /// file before anybody is told. Readers that began before see it as it was.
    ///
    /// # Errors
    /// When the file cannot be read; nothing has changed then.
    pub fn erase(&mut self, id: u64) -> io::Result<ErasedLine> {
        debug_assert!(self.is_message(id), "only a message can be erased");
        let was = self.line(id)?;
        let line = ErasedLine::of(id, &was);
        if line.is_new {
            self.file.erase(was.0, was.1.into());
        }
        self.index.make_hole(id, line.offset, line.offset + line.bytes.len() as u64 + 1);
        Ok(line)
    }

    /// The same for a line that is a hole already.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn erased_line(&self, id: u64) -> io::Result<ErasedLine> {
        Ok(ErasedLine::of(id, &self.line(id)?))
    }

    /// The offset and the bytes of a line, without its `\n`. The history must have the line.
    fn line(&self, id: u64) -> io::Result<(u64, Vec<u8>)> {
        let (start, end) = self.lines(id, id).offsets()?;
        let mut bytes = vec![0; (end - 1 - start) as usize];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok((start, bytes))
    }

    /// The committed end of the file, in bytes.
    pub fn end(&self) -> u64 {
        self.index.end
    }

    /// The id of the last line; 0 when there is none.
    pub fn last_id(&self) -> u64 {
        self.index.lines
    }

    /// How many lines hold a message.
    pub fn messages(&self) -> u64 {
        self.index.lines - self.index.hole_lines
    }

    /// How many lines are holes, and the id of the first one; `None` when there is none.
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

    /// How many lines stand before `offset`, which must be the start of a line or the committed
    /// end.
    ///
    /// # Errors
    /// When the file cannot be read.
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

    /// The history that a client is sent when it connects, and whether it continues what the client
    /// has. It continues only if it has every message that the client missed. If `limit` or `since`
    /// allows fewer, the client starts over with the last messages.
    pub fn snapshot(&self, resume: &Resume, epoch: &Arc<str>) -> Snapshot {
        let last_id = self.last_id();
        let limited = resume.limit.map_or(1, |limit| self.first_of_last(limit, last_id + 1));
        let limited = limited.max(resume.since.unwrap_or(1).min(last_id + 1));
        let known = resume.epoch.as_ref().is_none_or(|asked| **asked == **epoch);
        let (first_id, resumed) = match resume.after {
            None => (limited, None),
            Some(after) if known && after <= last_id && self.same_messages(after + 1, limited) => {
                (after + 1, Some(true))
            }
            Some(_) => (limited, Some(false)),
        };
        Snapshot { stretch: self.lines(first_id, last_id), epoch: epoch.clone(), resumed }
    }

    /// The nearest line at or before `offset` whose offset is known.
    pub fn line_near(&self, offset: u64) -> u64 {
        let marks = &self.index.marks;
        let after = marks.partition_point(|mark| mark.offset <= offset);
        marks[..after].last().map_or(1, |mark| mark.id)
    }

    /// The lines that a request asks for, as far as they exist.
    pub fn window(&self, window: &Window) -> Stretch {
        let before = window.before.unwrap_or(u64::MAX).min(self.last_id() + 1).max(1);
        let before_since = window.since.map(|id| id.saturating_sub(1));
        match (window.after.max(before_since), window.limit) {
            (None, None) => self.lines(1, before - 1),
            (None, Some(limit)) => self.lines(self.first_of_last(limit, before), before - 1),
            (Some(after), limit) => {
                let first_id = after.saturating_add(1).min(before);
                let last_id = match limit {
                    None => before - 1,
                    Some(limit) => self.last_of_first(limit, first_id).min(before - 1),
                };
                self.lines(first_id, last_id)
            }
        }
    }

    /// The lines `first_id..=last_id`, which the history must have.
    fn lines(&self, first_id: u64, last_id: u64) -> Stretch {
        Stretch {
            file: self.file.clone(),
            line_limit: self.line_limit,
            first_id,
            last_id,
            near_first: self.near(first_id),
            near_next: self.near(last_id + 1),
            committed_end: self.index.end,
            holes: self.index.holes.clone(),
        }
    }

    /// The nearest line at or before `id` whose offset is known. That of the line after the last
    /// one is known, too.
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

    /// The next lines for a client that has all messages before `first_id`: those in about
    /// `STRETCH_BYTES` of the file.
    pub fn stretch(&self, first_id: u64) -> Stretch {
        let marks = &self.index.marks;
        let near = self.near(first_id);
        let far = marks.partition_point(|mark| mark.offset < near.offset + STRETCH_BYTES);
        match marks.get(far) {
            Some(mark) if mark.id > first_id => self.lines(first_id, mark.id - 1),
            _ => self.lines(first_id, self.last_id()),
        }
    }

    /// The same, but no line after `last_id`.
    pub fn stretch_up_to(&self, first_id: u64, last_id: u64) -> Stretch {
        let stretch = self.stretch(first_id);
        if stretch.last_id <= last_id { stretch } else { self.lines(first_id, last_id) }
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

    /// Whether the lines from `limited` on have all messages that the lines from `from` on have. If
    /// `limited` is the later one, only holes may stand between the two.
    fn same_messages(&self, from: u64, limited: u64) -> bool {
        limited <= from
            || self
                .index
                .holes
                .iter()
                .any(|hole| hole.first_id <= from && limited <= hole.first_id + hole.lines)
    }
}

/// A line that is being erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedLine {
    /// Its id.
    pub id: u64,
    /// The offset of its first byte in the file.
    pub offset: u64,
    /// What is to stand there, without the `\n`.
    pub bytes: Vec<u8>,
    /// Whether something else stands there now.
    pub is_new: bool,
}

impl ErasedLine {
    fn of(id: u64, (offset, was): &(u64, Vec<u8>)) -> ErasedLine {
        let mut bytes = was.clone();
        message::erase(&mut bytes);
        ErasedLine { id, offset: *offset, is_new: bytes != *was, bytes }
    }
}

/// The history that a client is sent when it connects.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The lines in it.
    pub stretch: Stretch,
    /// The epoch of the file.
    pub epoch: Arc<str>,
    /// Whether it continues after the id that the client gave; `None` if the client gave none.
    pub resumed: Option<bool>,
}

#[cfg(test)]
mod tests;
