//! What is known of a channel's own file, as far as its lines have numbers.

use std::{fs::File, io, sync::Arc};

use super::{
    chain::{Chain, Place, Walk, bytes_at},
    engine::IfNone,
};
use crate::{
    history::History,
    journal::Journal,
    lines::{LINE_LIMIT, Line, Lines, each_line},
    message,
};

/// What is read of a file at a time, in bytes.
const BLOCK: usize = 256 << 10;

/// What is known of a channel's own file.
#[derive(Debug)]
pub struct OwnFile {
    /// The file.
    pub file: Arc<File>,
    /// The epoch of its numbering.
    pub epoch: Arc<str>,
    /// The number of the last line.
    pub last: u64,
    /// The offset after it.
    pub end: u64,
    /// The hash after it; `None` when it is not known.
    pub chain: Option<Chain>,
}

impl OwnFile {
    /// Of a file that was just opened.
    pub fn of(journal: &Journal, history: &History) -> OwnFile {
        OwnFile {
            file: journal.file().clone(),
            epoch: journal.epoch().clone(),
            last: history.last_id(),
            end: history.end(),
            chain: None,
        }
    }

    /// What is done about an engine that has no order: an empty file begins one, and another file is
    /// given back to the engine line by line.
    pub fn if_none(&self) -> IfNone {
        if self.last == 0 { IfNone::Begins } else { IfNone::Waits }
    }

    /// The end of the last line, if its hash is known.
    pub fn last_place(&self) -> Option<Place> {
        let chain = self.chain.clone()?;
        Some(Place { lines: self.last, offset: self.end, chain })
    }

    /// The end of line `id`, to which the file is hashed from a checkpoint at or before it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn place_after(&self, id: u64, checkpoint: Place) -> io::Result<Place> {
        let mut walk = Walk::from(&self.file, checkpoint);
        walk.go_to(id, self.end)?;
        Ok(walk.at)
    }

    /// How many of these lines, each with its `\n`, stand at this offset, until one does not. One that was
    /// erased in one of both counts as the same.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn common_with(&self, lines: &[u8], offset: u64) -> io::Result<Same> {
        let mut same = Same::default();
        for line in each_line(lines) {
            let own = bytes_at(&self.file, offset + same.bytes, line.len(), self.end)?;
            let Some(own) = own.filter(|own| own.ends_with(b"\n")) else { break };
            if own != line {
                if !is_erased(&own) && !is_erased(line) {
                    break;
                }
                same.has_erased = true;
            }
            same.lines += 1;
            same.bytes += line.len() as u64;
        }
        Ok(same)
    }

    /// Whether one of the first so many lines was erased.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn has_erased(&self, lines: u64) -> io::Result<bool> {
        let mut reader = Lines::new(&self.file, 0, self.end, BLOCK, LINE_LIMIT);
        for _ in 0..lines {
            match reader.next()? {
                Some(Line::Whole(text)) if is_erased(text) => return Ok(true),
                Some(_) => {}
                None => break,
            }
        }
        Ok(false)
    }
}

/// What a file has of some lines.
#[derive(Debug, Default)]
pub struct Same {
    /// How many of them, from the first one on.
    pub lines: u64,
    /// How many bytes these have.
    pub bytes: u64,
    /// Whether one of these was erased in one of both.
    pub has_erased: bool,
}

/// Whether a line, with or without its `\n`, is what stands in the place of one that was deleted.
fn is_erased(line: &[u8]) -> bool {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    !text.is_empty() && message::erased(text.len()) == text
}
