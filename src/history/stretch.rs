//! A stretch of the history, and two ways to read it from the file: message by message, or as text.
//!
//! The hub makes a stretch without reading the file. It stays true for ever: the file only grows,
//! and lines that are erased later stay in the stretch as they were (`lines/text_file.rs`). The
//! thread that needs the messages reads them itself, never past the committed end.

use std::{io, ops::Range};

use super::{
    holes::{HoleRun, Holes, Place},
    index::{Mark, STRIDE},
};
use crate::{
    lines::{Line, Lines, TextFile},
    message,
};

/// Bytes that are read at a time when messages are read one by one: so few that ten thousand readers
/// may wait with them, and so many that a system call does not count.
const READ: usize = 8 << 10;

/// A contiguous part of the history, to be read by the thread that holds it.
#[derive(Clone, Debug)]
pub struct Stretch {
    pub(super) file: TextFile,
    pub(super) line_limit: usize,
    /// The id of its first line.
    pub first_id: u64,
    /// The id of its last line; one less than `first_id` when it has no line.
    pub last_id: u64,
    /// The nearest line at or before the first one whose offset is known.
    pub(super) near_first: Mark,
    /// The nearest line at or before the one after the last whose offset is known.
    pub(super) near_next: Mark,
    /// The committed end of the file, as it was when the stretch was made.
    pub(super) committed_end: u64,
    pub(super) holes: Holes,
}

impl Stretch {
    /// Whether it has no line.
    pub fn is_empty(&self) -> bool {
        self.first_id > self.last_id
    }

    /// The file that it is a stretch of, as it was when the stretch was made.
    pub fn file(&self) -> &TextFile {
        &self.file
    }

    /// The ids of its holes, from `first_id` on.
    pub fn holes_from(&self, first_id: u64) -> impl Iterator<Item = u64> {
        let from = first_id.max(self.first_id);
        let ids =
            move |holes: &HoleRun| holes.first_id.max(from)..=holes.last_id().min(self.last_id);
        self.holes
            .iter_from(self.holes.at_id(from))
            .take_while(|holes| holes.first_id <= self.last_id)
            .flat_map(ids)
    }

    /// Reads its messages, one at a time.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn messages(self) -> io::Result<Messages> {
        self.messages_by(READ)
    }

    /// The same, with `block` bytes that are read at a time.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn messages_by(self, block: usize) -> io::Result<Messages> {
        let (start, end) = self.offsets()?;
        let lines = Lines::new(&self.file, start, end, block, self.line_limit);
        let hole = self.holes.at_id(self.first_id);
        let (next_id, last_id) = (self.first_id, self.last_id);
        Ok(Messages { next_id, last_id, lines, holes: self.holes, hole })
    }

    /// Reads its messages as they stand in the file, with a `\n` between two of them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn text(self) -> io::Result<MessageText> {
        let (offset, end) = self.offsets()?;
        let hole = self.holes.at_offset(offset);
        // Holes that the stretch begins or ends with count as far as they are in the stretch.
        let inside = |hole: &HoleRun| hole.end.min(end).saturating_sub(hole.start.max(offset));
        let holes = self.holes.iter_from(hole).take_while(|hole| hole.start < end);
        let left = (end - offset - holes.map(inside).sum::<u64>()).saturating_sub(1);
        Ok(MessageText { file: self.file, holes: self.holes, hole, offset, end, left })
    }

    /// The offsets where the first line begins and the last one ends.
    pub(super) fn offsets(&self) -> io::Result<(u64, u64)> {
        if self.is_empty() {
            return Ok((self.committed_end, self.committed_end));
        }
        let stop = self.offset(self.near_next, self.last_id + 1)?;
        Ok((self.offset(self.near_first, self.first_id)?, stop))
    }

    /// The offset of a line, found by reading on from a known line at or before it.
    fn offset(&self, near: Mark, id: u64) -> io::Result<u64> {
        if near.id == id {
            return Ok(near.offset);
        }
        let block = STRIDE as usize;
        let mut lines =
            Lines::new(&self.file, near.offset, self.committed_end, block, self.line_limit);
        lines.skip(id - near.id)?;
        Ok(lines.offset())
    }
}

/// Reads the messages of a stretch, one at a time.
#[derive(Debug)]
pub struct Messages {
    next_id: u64,
    last_id: u64,
    lines: Lines,
    holes: Holes,
    /// Where the first of `holes` is that does not end before `next_id`.
    hole: Place,
}

/// A message, and where it stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocatedMessage<'a> {
    /// The id of its line.
    pub id: u64,
    /// The offset of its first byte in the file.
    pub offset: u64,
    /// The message itself, without white space around it.
    pub data: &'a [u8],
}

impl Messages {
    /// The next message, or `None` at the end of the stretch.
    ///
    /// # Errors
    /// When the file cannot be read, or was changed.
    #[allow(clippy::should_implement_trait, reason = "lends from its buffer, as no Iterator can")]
    pub fn next(&mut self) -> io::Result<Option<LocatedMessage<'_>>> {
        while let Some(hole) = self.holes.get(self.hole)
            && hole.first_id <= self.next_id
        {
            let skipped = hole.last_id().min(self.last_id) + 1 - self.next_id;
            self.lines.skip(skipped)?;
            self.next_id += skipped;
            self.hole = self.holes.after(self.hole);
        }
        if self.next_id > self.last_id {
            return Ok(None);
        }
        let id = self.next_id;
        self.next_id += 1;
        let start = self.lines.offset();
        match self.lines.next()? {
            Some(Line::Whole(text)) => {
                let offset = start + message::leading_space(text) as u64;
                Ok(Some(LocatedMessage { id, offset, data: message::trim(text) }))
            }
            _ => Err(io::Error::other("a line of the text file is not what it was")),
        }
    }
}

/// Reads the messages of a stretch as they stand in the file: every byte of their lines but the
/// last `\n`, and no byte of a hole.
#[derive(Clone, Debug)]
pub struct MessageText {
    file: TextFile,
    holes: Holes,
    /// Where the first of `holes` is that does not end at or before `offset`.
    hole: Place,
    /// The offset of the next byte in the file.
    offset: u64,
    /// The offset where the last line ends.
    end: u64,
    /// How many bytes are still to be read.
    left: u64,
}

/// Where the bytes stand that come next of a [`MessageText`].
#[derive(Debug)]
pub struct NextText<'a> {
    /// The file.
    pub file: &'a TextFile,
    /// Where in it the bytes stand, at least one.
    pub range: Range<u64>,
    /// Where the last line of the stretch ends in it.
    pub end: u64,
}

impl MessageText {
    /// How many bytes are still to be read.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Appends the next bytes to `out`: `most` of them, or all that are left.
    ///
    /// # Errors
    /// When the file cannot be read; some of the bytes may have been appended then.
    pub fn read(&mut self, out: &mut Vec<u8>, most: usize) -> io::Result<()> {
        let mut most = most as u64;
        while let Some(count) = self.bytes_to_hole(most) {
            let from = out.len();
            out.resize(from + count as usize, 0);
            let got = self.file.read_at(&mut out[from..], self.offset)?;
            out.truncate(from + got);
            self.skip_within(got as u64);
            most -= got as u64;
        }
        Ok(())
    }

    /// Leaves out the next `most` bytes, or all that are left, without reading them.
    pub fn skip(&mut self, most: u64) {
        let mut most = most;
        while let Some(count) = self.bytes_to_hole(most) {
            self.skip_within(count);
            most -= count;
        }
    }

    /// The bytes that come next, up to the next hole; `None` when no byte is left.
    pub fn next_text(&mut self) -> Option<NextText<'_>> {
        let count = self.bytes_to_hole(u64::MAX)?;
        Some(NextText { file: &self.file, range: self.offset..self.offset + count, end: self.end })
    }

    /// Leaves out holes, and tells how many of the next `most` bytes stand before the next hole;
    /// `None` when no byte is left.
    fn bytes_to_hole(&mut self, most: u64) -> Option<u64> {
        let most = most.min(self.left);
        if most == 0 {
            return None;
        }
        loop {
            let hole = self.holes.get(self.hole).filter(|hole| hole.start < self.end);
            match hole {
                Some(hole) if hole.start <= self.offset => {
                    self.offset = hole.end;
                    self.hole = self.holes.after(self.hole);
                }
                Some(hole) => return Some(most.min(hole.start - self.offset)),
                None => return Some(most.min(self.end - self.offset)),
            }
        }
    }

    fn skip_within(&mut self, count: u64) {
        self.offset += count;
        self.left -= count;
    }
}
