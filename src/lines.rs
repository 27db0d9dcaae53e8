//! Reads a part of the text file line by line, in blocks, without moving the file's position.
//!
//! A line ends with a `\n` byte. A reader takes the memory of one block, or of one line where that
//! is longer, up to a limit: a line above the limit is read over, and only its length is told.

use std::{fs::File, io, os::unix::fs::FileExt};

mod text_file;
mod unreadable;

#[cfg(test)]
pub(crate) use text_file::too_much_erased;
pub use text_file::{TextFile, is_too_much_erased};
pub use unreadable::{log_unreadable, log_unreadable_count, path_of};

/// A line of this many bytes can hold a message, whatever `--max-message` says: messages that are
/// in the file stay readable when the flag is lowered.
pub(crate) const LINE_LIMIT: usize = 16 << 20;

/// How many times longer a line can be than the text that was sent: with `as=NAME` a control
/// character is escaped as six bytes, and the name and the keys are added.
const ESCAPED: usize = 8;

/// The longest line that is read into memory and can be a message, in bytes.
pub fn line_limit(max_message: usize) -> usize {
    LINE_LIMIT.max(max_message * ESCAPED)
}

/// How many bytes the line limit leaves, at the least, beside the longest text that a client may
/// send, even if that is all control characters. It leaves least for the `--max-message` at which
/// the two limits of [`line_limit`] meet.
pub(crate) const BESIDE_TEXT: usize = LINE_LIMIT - 6 * (LINE_LIMIT / ESCAPED);

/// How many lines a text of whole lines has.
pub fn count_lines(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

/// The lines of a text of whole lines, each with its `\n`.
pub fn each_line(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut begun = 0;
    memchr::memchr_iter(b'\n', lines).map(move |end| {
        let line = &lines[begun..=end];
        begun = end + 1;
        line
    })
}

/// One line, borrowed from its reader.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A whole line, without its `\n`.
    Whole(&'a [u8]),
    /// A whole line above the limit; it has this many bytes with its `\n`.
    TooLong(u64),
    /// The first bytes of a line, as many as this: the part of the file ends there.
    Unfinished(u64),
}

/// A reader of lines from one offset of the file up to another.
#[derive(Debug)]
pub struct Lines {
    file: TextFile,
    /// The bytes that were read and have not been given out are `buffer[start..filled]`.
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    /// The offset in the file of `buffer[start]`.
    offset: u64,
    end: u64,
    limit: usize,
}

impl Lines {
    /// A reader of `file` from `offset` up to `end`. It reads `block` bytes at a time; lines above
    /// `limit` bytes are [`Line::TooLong`].
    pub fn new(
        file: impl Into<TextFile>,
        offset: u64,
        end: u64,
        block: usize,
        limit: usize,
    ) -> Lines {
        let block = (end.saturating_sub(offset)).clamp(1, block as u64) as usize;
        Lines { file: file.into(), buffer: vec![0; block], start: 0, filled: 0, offset, end, limit }
    }

    /// The offset in the file of the next line.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next line, or `None` at `end`.
    ///
    /// # Errors
    /// When the file cannot be read, or ends before `end`.
    #[allow(clippy::should_implement_trait, reason = "lends from its buffer, as no Iterator can")]
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        let mut searched = self.start;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[searched..self.filled]) {
                let line = self.start..searched + at;
                self.start = line.end + 1;
                self.offset += line.len() as u64 + 1;
                if line.len() > self.limit {
                    return Ok(Some(Line::TooLong(line.len() as u64 + 1)));
                }
                return Ok(Some(Line::Whole(&self.buffer[line])));
            }
            searched = self.filled;
            if searched - self.start > self.limit {
                return self.walk_over().map(Some);
            }
            let begun = self.filled - self.start;
            if self.offset + begun as u64 >= self.end {
                self.start = self.filled;
                self.offset = self.end;
                return Ok((begun > 0).then_some(Line::Unfinished(begun as u64)));
            }
            searched -= self.make_room();
            self.read_more()?;
        }
    }

    /// Skips `count` lines. As many must be left.
    ///
    /// # Errors
    /// When the file cannot be read, or ends before `end`.
    pub fn skip(&mut self, count: u64) -> io::Result<()> {
        for _ in 0..count {
            self.next()?;
        }
        Ok(())
    }

    /// Reads the rest of a line above the limit, and forgets it.
    fn walk_over(&mut self) -> io::Result<Line<'_>> {
        let mut length = 0;
        loop {
            let held = &self.buffer[self.start..self.filled];
            let end = memchr::memchr(b'\n', held).map(|at| at + 1);
            let taken = end.unwrap_or(held.len());
            length += taken as u64;
            self.start += taken;
            self.offset += taken as u64;
            if end.is_some() {
                return Ok(Line::TooLong(length));
            }
            if self.offset >= self.end {
                return Ok(Line::Unfinished(length));
            }
            self.start = 0;
            self.filled = 0;
            self.read_more()?;
        }
    }

    /// Makes room in the buffer after the bytes that are held: moves them to the front, and if that
    /// is not enough, makes the buffer longer. Returns how far the bytes moved.
    fn make_room(&mut self) -> usize {
        let moved = self.start;
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        if self.filled == self.buffer.len() {
            let longer = (self.buffer.len() * 2).max(4096);
            self.buffer.resize(longer, 0);
        }
        moved
    }

    fn read_more(&mut self) -> io::Result<()> {
        let at = self.offset + (self.filled - self.start) as u64;
        let room = (self.buffer.len() - self.filled) as u64;
        let want = room.min(self.end - at) as usize;
        let space = &mut self.buffer[self.filled..self.filled + want];
        self.filled += self.file.read_at(space, at)?;
        Ok(())
    }
}

/// Finds lines by their numbers. It reads on from one line to the next where that is near, which costs
/// less than to begin anew.
#[derive(Debug, Default)]
pub struct LineFinder {
    /// The number of the next line, and what reads it.
    reader: Option<(u64, Lines)>,
}

/// How many lines are read over rather than that the reader begins anew.
const READ_OVER: u64 = 64;

impl LineFinder {
    /// The offset of a line, and the line; `None` where the part of the file ends before it. `begin` gives
    /// the number of a line at or before it, and a reader that begins there.
    ///
    /// # Errors
    /// When the file cannot be read, or ends too early.
    pub fn find(
        &mut self,
        number: u64,
        begin: impl FnOnce() -> (u64, Lines),
    ) -> io::Result<(u64, Option<Line<'_>>)> {
        let is_near = |(next, _): &mut (u64, Lines)| (*next..*next + READ_OVER).contains(&number);
        let (next, mut lines) = self.reader.take_if(is_near).unwrap_or_else(begin);
        lines.skip(number - next)?;
        let offset = lines.offset();
        let (_, lines) = self.reader.insert((number + 1, lines));
        Ok((offset, lines.next()?))
    }
}

/// Reads bytes at `offset` into `space`; returns how many, at least one.
///
/// # Errors
/// When the file cannot be read or ends at `offset`: callers only ask for bytes that must be there.
pub fn read_at(file: &File, space: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(space, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
