//! What is known of a channel's own file, as far as its lines have numbers.

use std::{fs::File, io, sync::Arc};

use super::{
    chain::{Chain, Place, Walk, bytes_at},
    engine::IfNone,
};
use crate::{history::History, journal::Journal, lines::each_line};

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

    /// How many of these lines, each with its `\n`, stand at this offset, until one does not; and how many
    /// bytes they have.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn common_with(&self, lines: &[u8], offset: u64) -> io::Result<(u64, u64)> {
        let (mut count, mut bytes) = (0, 0);
        for line in each_line(lines) {
            let own = bytes_at(&self.file, offset + bytes, line.len(), self.end)?;
            if own.as_deref() != Some(line) {
                break;
            }
            count += 1;
            bytes += line.len() as u64;
        }
        Ok((count, bytes))
    }
}
