//! Erases the lines of deleted messages: the one change before the committed end.
//!
//! The operation that deleted a message is on disk first, then its line is overwritten by as many
//! bytes that say nothing, then that is on disk, and then the client is answered. What a crash leaves
//! undone between two of these steps, the next start does: the operation is there and tells.

use std::io;

use log::{info, warn};

use super::{Fatal, Journal, open_in_place};
use crate::history::{ErasedLine, History};

impl Journal {
    /// Overwrites the lines of deleted messages. It is on disk afterwards, whatever `--fsync` says.
    ///
    /// The operations that deleted them must have been synced before, or a power cut could leave a
    /// message erased that nobody deleted. If this one comes to no end, the next start does it again.
    ///
    /// # Errors
    /// When that fails. It is unknown then what stands on these lines.
    ///
    /// # Panics
    /// When a line ends after the committed end.
    pub fn erase(&mut self, lines: &[ErasedLine], history: &History) -> Result<(), Fatal> {
        let first = lines.iter().min_by_key(|line| line.offset);
        let Some(first) = first else { return Ok(()) };
        let end = |line: &ErasedLine| line.offset + line.bytes.len() as u64;
        let is_committed = |line: &ErasedLine| end(line) < history.end();
        assert!(lines.iter().all(is_committed), "the \n of each line is committed");
        // The lock file tells of the last bytes that were numbered. If these are about to change, it
        // tells of the lines before instead, until all is done: so a crash keeps the epoch.
        let last = lines.iter().map(end).max().unwrap_or(0);
        let noted_before = self.epoch.note_before(first.id, first.offset, last, &self.file);
        if let Err(error) = noted_before {
            warn!("{}: the epoch may not outlive a crash now: {error}", self.path.display());
        }
        let in_place = open_in_place(&self.path, self.identity).map_err(Fatal::Storage)?;
        for line in lines {
            self.system.overwrite(&in_place, &line.bytes, line.offset).map_err(Fatal::Storage)?;
        }
        self.sync().map(drop)
    }

    /// Erases the messages that were deleted and are still there, since a crash came between.
    pub(super) fn erase_again(&mut self, ids: &[u64], history: &mut History) -> io::Result<()> {
        let mut lines = Vec::new();
        for &id in ids {
            // A line may have been deleted by several operations that people wrote by hand.
            if history.is_message(id) {
                lines.extend(history.erase(id)?);
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        info!(
            "{}: {} deleted lines were still there; erased now",
            self.path.display(),
            lines.len()
        );
        // The operations that deleted them may have been written without a sync.
        let synced = self.sync().and_then(|_| self.erase(&lines, history));
        match synced {
            Ok(()) => self.note_numbering(history),
            // They are holes from now on, and the next start tries again.
            Err(Fatal::Storage(error)) if error.raw_os_error() == Some(libc::ENOSPC) => {
                warn!("{}: deleted lines cannot be erased now: {error}", self.path.display());
                Ok(())
            }
            Err(fatal) => Err(io::Error::other(fatal.to_string())),
        }
    }
}

#[cfg(test)]
mod tests;
