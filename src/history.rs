//! The text file as history: which lines are messages, and where they stand.
//!
//! No message is kept in memory, only an index of the file: the offset of a line every few KiB, the
//! holes, and what operations made of messages. A message that is deleted becomes a hole. The hub owns
//! the history. Other threads get a [`Stretch`] of it, with which they read the file themselves.

use std::{fs::File, io, sync::Arc};

use crate::{
    lines::{Line, LineFinder, Lines, TextFile, read_at},
    message,
    operations::{LoggedOperation, Operation, Operations, Target},
};

mod index;
mod holes;
mod load;
mod stretch;

use index::{Index, Mark, STRIDE};
pub use stretch::{LocatedMessage, MessageText, Messages, NextText, Stretch};

/// Bytes of history that are read and sent at a time: the memory that a thread takes for it.
pub const BLOCK: usize = 128 << 10;

/// About how many bytes of the file the hub names to a catch-up thread at a time: several blocks,
/// so that the hub is seldom asked.
const STRETCH_BYTES: u64 = 512 << 10;

// A stretch fills a block, and its first line is found with less reading than that.
const _: () = assert!(STRIDE < BLOCK as u64 && BLOCK as u64 <= STRETCH_BYTES);

/// The byte order mark that some editors put before line 1.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

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
    /// The lines that read as erased, until then, too.
    erased: Vec<u64>,
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
    /// At most this many of these messages: with `after` or `since` the first ones, otherwise the
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
    /// At most this many of these messages: the last ones.
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
        let (mut log, mut erased) = (Vec::new(), Vec::new());
        for mut part in load::load_parts(&file, start, end, line_limit)? {
            let mut found = std::mem::take(&mut part.log);
            found.iter_mut().for_each(|operation| operation.id += index.lines);
            found.shrink_to_fit();
            log.extend((!found.is_empty()).then_some(found));
            erased.extend(std::mem::take(&mut part.erased).iter().map(|id| id + index.lines));
            index.absorb(part);
        }
        index.marks.shrink_to_fit();
        let operations = Operations::default();
        Ok(History { file: TextFile::new(file), line_limit, index, operations, log, erased })
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
    /// verified sender of a line, and `half_erased` are the lines whose erasure may have been cut short.
    /// Returns the lines that should hold nothing any more, and that may have been left by a crash,
    /// in ascending order: these must be erased.
    pub fn replay_operations(
        &mut self,
        sender_of: impl FnMut(u64) -> Option<String>,
        half_erased: &[u64],
    ) -> Vec<u64> {
        let (mut log, erased) = (std::mem::take(&mut self.log), std::mem::take(&mut self.erased));
        for LoggedOperation { operation, .. } in log.iter_mut().flatten() {
            if let Some(Operation { target, .. }) = operation
                && !self.is_message(*target)
                && erased.binary_search(target).is_err()
                && !half_erased.contains(target)
            {
                // The line never held a message, so what is said of it means nothing.
                *operation = None;
            }
        }
        let mut left = self.operations.replay(log.into_iter().flatten(), sender_of);
        left.retain(|&id| self.is_message(id));
        // A line may have been deleted by several operations that people wrote by hand.
        left.sort_unstable();
        left.dedup();
        left
    }

    /// Whether there is a message of this id.
    pub fn is_message(&self, id: u64) -> bool {
        (1..=self.index.lines).contains(&id) && !self.index.is_hole(id)
    }

    /// Whether there is a message of this id, or its line reads as if one had been erased. What the log
    /// says of any other line means nothing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn held_message(&self, id: u64) -> io::Result<bool> {
        if self.is_message(id) || !(1..=self.index.lines).contains(&id) {
            return Ok(self.is_message(id));
        }
        let (start, end) = self.lines(id, id).offsets()?;
        // A line above the limit may be longer than the memory.
        Ok(end - start <= self.line_limit as u64 && message::is_erased(&self.line(id)?.1))
    }

    /// What an operation names by this id; `sender` is the verified sender of that line.
    pub fn target<'a>(&self, id: u64, sender: Option<&'a str>) -> Target<'a> {
        if self.is_message(id) { Target::Message(sender) } else { Target::Missing }
    }

    /// Erases messages, whose ids ascend: they are holes from now on. The lines that are returned must be
    /// erased in the file before anybody is told. Readers that began before see them as they were.
    ///
    /// # Errors
    /// When the file cannot be read. Some of the messages are holes then.
    pub fn erase(&mut self, ids: &[u64]) -> io::Result<Vec<ErasedLine>> {
        let mut finder = LineFinder::default();
        let mut lines = Vec::with_capacity(ids.len());
        for &id in ids {
            debug_assert!(self.is_message(id), "only a message can be erased");
            let Mark { id: near, offset } = self.index.near(id);
            let (file, end) = (self.file.file(), self.index.end);
            let begin = || (near, Lines::new(file, offset, end, STRIDE as usize, self.line_limit));
            let (offset, Some(Line::Whole(was))) = finder.find(id, begin)? else {
                return Err(io::Error::other("a line of the text file is not what it was"));
            };
            let line = ErasedLine::of(id, offset, was);
            if line.is_new {
                self.file.erase(offset, was.into());
            }
            self.index.make_hole(id, offset, line.end() + 1);
            lines.push(line);
        }
        Ok(lines)
    }

    /// The same for a line that is a hole already.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn erased_line(&self, id: u64) -> io::Result<ErasedLine> {
        let (offset, was) = self.line(id)?;
        Ok(ErasedLine::of(id, offset, &was))
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

    /// The same without the lines that read as erased, whose messages somebody deleted. For a history
    /// that has not taken in its operations.
    pub fn unexplained_holes(&self) -> Option<(u64, u64)> {
        let mut erased = self.erased.iter().copied().peekable();
        let mut ids = self.index.holes.iter().flat_map(|run| run.first_id..=run.last_id());
        let first_id = ids.find(|&id| erased.next_if_eq(&id).is_none())?;
        Some((self.index.hole_lines - self.erased.len() as u64, first_id))
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
        let Some(mark) = self.index.mark_before(offset) else { return Ok(0) };
        let mut lines = Lines::new(&self.file, mark.offset, offset, BLOCK, self.line_limit);
        let mut id = mark.id - 1;
        while lines.next()?.is_some() {
            id += 1;
        }
        Ok(id)
    }

    /// Beginnings of the file: how many lines each has, and where they end. The first of them lacks some
    /// 8 KiB of the history at the most, and each of the others about twice as much as the one before.
    pub fn beginnings(&self) -> impl Iterator<Item = (u64, u64)> {
        let beginnings = self.index.spaced_marks().map(|mark| (mark.id - 1, mark.offset));
        beginnings.filter(|&(lines, _)| lines > 0)
    }

    /// The history that a client is sent when it connects, and whether it continues what the client
    /// has. It continues only if it has every message that the client missed. If `limit` or `since`
    /// allows fewer, the client starts over with the last messages.
    pub fn snapshot(&self, resume: &Resume, epoch: &Arc<str>) -> Snapshot {
        let last_id = self.last_id();
        let limited = resume.limit.map_or(1, |limit| self.index.first_of_last(limit, last_id + 1));
        let limited = limited.max(resume.since.unwrap_or(1).min(last_id + 1));
        let known = resume.epoch.as_ref().is_none_or(|asked| **asked == **epoch);
        let (first_id, resumed) = match resume.after {
            None => (limited, None),
            Some(after)
                if known && after <= last_id && self.index.same_messages(after + 1, limited) =>
            {
                (after + 1, Some(true))
            }
            Some(_) => (limited, Some(false)),
        };
        Snapshot { stretch: self.lines(first_id, last_id), epoch: epoch.clone(), resumed }
    }

    /// The nearest line at or before `offset` whose offset is known.
    pub fn line_near(&self, offset: u64) -> u64 {
        self.index.mark_before(offset).map_or(1, |mark| mark.id)
    }

    /// The lines that a request asks for, as far as they exist.
    pub fn window(&self, window: &Window) -> Stretch {
        let before = window.before.unwrap_or(u64::MAX).min(self.last_id() + 1).max(1);
        let before_since = window.since.map(|id| id.saturating_sub(1));
        match (window.after.max(before_since), window.limit) {
            (None, None) => self.lines(1, before - 1),
            (None, Some(limit)) => self.lines(self.index.first_of_last(limit, before), before - 1),
            (Some(after), limit) => {
                let first_id = after.saturating_add(1).min(before);
                let last_id = match limit {
                    None => before - 1,
                    Some(limit) => self.index.last_of_first(limit, first_id).min(before - 1),
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
            near_first: self.index.near(first_id),
            near_next: self.index.near(last_id + 1),
            committed_end: self.index.end,
            holes: self.index.holes.clone(),
        }
    }

    /// The next lines for a client that has all messages before `first_id`: those in about
    /// `STRETCH_BYTES` of the file.
    pub fn stretch(&self, first_id: u64) -> Stretch {
        let near = self.index.near(first_id);
        match self.index.mark_from(near.offset + STRETCH_BYTES) {
            Some(mark) if mark.id > first_id => self.lines(first_id, mark.id - 1),
            _ => self.lines(first_id, self.last_id()),
        }
    }

    /// The same, but no line after `last_id`.
    pub fn stretch_up_to(&self, first_id: u64, last_id: u64) -> Stretch {
        let stretch = self.stretch(first_id);
        if stretch.last_id <= last_id { stretch } else { self.lines(first_id, last_id) }
    }
}

/// A line that is being erased. What it held is not kept: a message may have any number of long edits,
/// and is deleted with all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErasedLine {
    /// Its id.
    pub id: u64,
    /// The offset of its first byte in the file.
    pub offset: u64,
    /// How many bytes it has, without the `\n`.
    pub len: usize,
    /// Whether it does not read as erased yet.
    pub is_new: bool,
}

impl ErasedLine {
    fn of(id: u64, offset: u64, was: &[u8]) -> ErasedLine {
        let is_new = was != message::erased(was.len());
        ErasedLine { id, offset, len: was.len(), is_new }
    }

    /// The offset of its `\n`.
    pub fn end(&self) -> u64 {
        self.offset + self.len as u64
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
