//! The index of the stamps file: where some of its lines begin, and what time it is there.

use std::{fs::File, io, sync::Arc};

use super::{LINE_BYTES, TIME_BYTES, is_shaped_like_time, parse_time};
use crate::lines::{Line, Lines};

/// The distance in the file between two lines whose offsets are remembered, in bytes. This much of
/// the file is searched to find a stamp, and each mark takes 24 bytes of memory: less than 100 KB
/// for a million stamps.
const STRIDE: u64 = 8 << 10;

/// How many bytes are read with one call when the file is read whole: enough that the calls cost
/// little.
const READ: usize = 128 << 10;

/// A line whose offset is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: u64,
    pub(super) offset: u64,
    /// The latest time on the lines before it, in Unix milliseconds; 0 when there is none.
    pub(super) before: u64,
}

/// What is known of the lines of a stamps file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Index {
    lines: u64,
    end: u64,
    marks: Vec<Mark>,
    /// The latest time up to the last mark, in Unix milliseconds.
    latest: u64,
    /// The last time after it, as it stands in the file. It is parsed when the next mark is made,
    /// so that a line takes next to no time.
    since_mark: Option<[u8; TIME_BYTES]>,
}

impl Index {
    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The offset where the last line ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The latest time of all lines, in Unix milliseconds; 0 when none has a time.
    pub fn latest(&self) -> u64 {
        let since_mark = self.since_mark.as_ref().and_then(parse_time);
        self.latest.max(since_mark.unwrap_or(0))
    }

    /// Reads on in the file: the whole lines up to the offset `until`, but no more than it takes to
    /// have `most` lines.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_on(&mut self, file: &Arc<File>, until: u64, most: u64) -> io::Result<()> {
        let mut lines = Lines::new(file, self.end, until, READ, LINE_BYTES);
        while self.lines < most {
            match lines.next()? {
                Some(Line::Whole(line)) => self.push(line, line.len() as u64 + 1),
                Some(Line::TooLong(len)) => self.push(&[], len),
                Some(Line::Unfinished(_)) | None => break,
            }
        }
        self.marks.shrink_to_fit();
        Ok(())
    }

    /// Takes in whole lines that were appended to the file.
    pub fn take_in(&mut self, lines: &[u8]) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', lines) {
            self.push(&lines[start..end], (end + 1 - start) as u64);
            start = end + 1;
        }
        debug_assert_eq!(start, lines.len(), "only whole lines are taken in");
    }

    /// Takes in one line, of `len` bytes with its `\n`.
    fn push(&mut self, line: &[u8], len: u64) {
        if self.marks.last().is_none_or(|mark| self.end - mark.offset >= STRIDE) {
            self.latest = self.latest();
            self.since_mark = None;
            self.marks.push(Mark { id: self.lines + 1, offset: self.end, before: self.latest });
        }
        if line.len() <= LINE_BYTES
            && let Some(time) = line.first_chunk().filter(|time| is_shaped_like_time(time))
        {
            self.since_mark = Some(*time);
        }
        self.lines += 1;
        self.end += len;
    }

    /// How many bytes of memory it takes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        size_of_val(self) + self.marks.capacity() * size_of::<Mark>()
    }

    /// Whether the lines of this index can be the first ones of another: as far as the marks tell, and
    /// for a whole file also by their number.
    pub fn is_beginning_of(&self, other: &Index) -> bool {
        other.marks.starts_with(&self.marks)
            && self.lines <= other.lines
            && (self.end < other.end || self.lines == other.lines)
    }

    /// The last line at or before this one whose offset is known, and the offset; `None` when this
    /// line has no stamp.
    pub fn near_offset(&self, id: u64) -> Option<(u64, u64)> {
        let mark = self.near(id).filter(|_| id <= self.lines)?;
        Some((mark.id, mark.offset))
    }

    /// The last mark at or before a line.
    pub(super) fn near(&self, id: u64) -> Option<Mark> {
        let after = self.marks.partition_point(|mark| mark.id <= id);
        after.checked_sub(1).map(|at| self.marks[at])
    }

    /// The last mark before which all lines have times before `ts`.
    pub(super) fn near_time(&self, ts: u64) -> Option<Mark> {
        let after = self.marks.partition_point(|mark| mark.before < ts);
        after.checked_sub(1).map(|at| self.marks[at])
    }
}
