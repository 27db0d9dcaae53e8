//! The text file as history: which lines are messages and where they stand.
//!
//! Memory holds only what finds things in the file: a sparse list of line offsets and the holes
//! (lines that hold no message). The hub owns it. Others are given a [`Stretch`] of it, which reads the
//! file itself.

use std::{fs::File, io, sync::Arc};

use crate::lines::{Lines, read_at};

mod load;
mod stretch;
mod times;

pub use stretch::{LocatedMessage, MessageText, Messages, Stretch};
pub use times::Times;

/// Distance in bytes of the file between two remembered line offsets: what has to be searched to
/// find a line, against 16 bytes of memory. Ten million short lines take about two megabytes.
const STRIDE: u64 = 8 << 10;

/// Bytes of history sent at a time: the memory of one joiner or one client that is behind.
pub const BLOCK: usize = 128 << 10;

/// What a client that is behind is given at a time, in bytes of the file.
const STRETCH_BYTES: u64 = 512 << 10;

// What is asked for at a time fills a block, and is found without reading more than it.
const _: () = assert!(STRIDE < BLOCK as u64 && BLOCK as u64 <= STRETCH_BYTES);

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

impl Hole {
    fn last_id(&self) -> u64 {
        self.first_id + self.lines - 1
    }
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
        for part in load::load_parts(&file, start, end, line_limit)? {
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
        Snapshot { stretch: self.lines(first_id, last_id), epoch: epoch.clone(), resumed }
    }

    /// What somebody who reads the history wants of it, as far as it is there.
    pub fn window(&self, window: &Window) -> Stretch {
        let before = window.before.unwrap_or(u64::MAX).min(self.last_id() + 1).max(1);
        match (window.after, window.limit) {
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

    /// The next lines for somebody who has everything before `first_id`: about as many as fit in a stretch.
    pub fn stretch(&self, first_id: u64) -> Stretch {
        let marks = &self.index.marks;
        let near = self.near(first_id);
        let far = marks.partition_point(|mark| mark.offset < near.offset + STRETCH_BYTES);
        match marks.get(far) {
            Some(mark) if mark.id > first_id => self.lines(first_id, mark.id - 1),
            _ => self.lines(first_id, self.last_id()),
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

/// Everything a client is sent when it connects.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The lines in it.
    pub stretch: Stretch,
    /// The name of the numbering.
    pub epoch: Arc<str>,
    /// Whether it goes on where `after` said, if that was said.
    pub resumed: Option<bool>,
}

#[cfg(test)]
mod tests;
