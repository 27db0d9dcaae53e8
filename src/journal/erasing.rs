//! Erases the lines of deleted messages: the one change before the committed end.
//!
//! The operation that deleted a message is on disk first. Then the ids of the lines go to a file
//! beside, which is on disk, too; then the senders are erased in the stamps; then the lines are
//! overwritten by as many bytes that say nothing; then that is on disk, the file beside is removed,
//! and the client is answered. So a line that is erased has no sender any more.
//!
//! A start does what a crash left undone. Before the overwriting began, the operation tells of the
//! message, and the edits tell of themselves. A power cut in the middle may leave a line half old and
//! half new, which says nothing any more: that is what the file beside is for.

use std::{
    fmt::Write as _,
    fs,
    io::{self, ErrorKind},
};

use log::{info, warn};

use super::{Fatal, Journal, OpenError, open_in_place, path_beside};
use crate::{
    history::{ErasedLine, History},
    stamps::StampReader,
};

/// The ending of the file that names the lines which are being erased.
const ENDING: &str = "erasing";

impl Journal {
    /// Overwrites the lines of deleted messages. It is on disk afterwards, whatever `--fsync` says.
    ///
    /// The operations that deleted them must have been synced before, or a power cut could leave a
    /// message erased that nobody deleted.
    ///
    /// # Errors
    /// When that fails. It is unknown then what stands on these lines; the next start erases them.
    ///
    /// # Panics
    /// When a line ends after the committed end.
    pub fn erase(&mut self, lines: &[ErasedLine], history: &History) -> Result<(), Fatal> {
        let lines = || lines.iter().filter(|line| line.is_new);
        let Some(first) = lines().min_by_key(|line| line.offset) else { return Ok(()) };
        let end = |line: &ErasedLine| line.offset + line.bytes.len() as u64;
        assert!(lines().all(|line| end(line) < history.end()), "each line has its end");
        let mut ids = format!("epoch {}\n", self.epoch());
        for line in lines() {
            writeln!(ids, "{}", line.id).expect("writing to memory cannot fail");
        }
        let beside = path_beside(&self.path, ENDING);
        self.system.write_beside(&beside, ids.as_bytes()).map_err(Fatal::Storage)?;
        self.erase_senders(lines().map(|line| line.id))?;
        // The lock file tells of the last bytes that were numbered. If these are about to change, it
        // tells of the lines before instead, until all is done: so a crash keeps the epoch.
        let last = lines().map(end).max().unwrap_or(0);
        let noted_before = self.epoch.note_before(first.id, first.offset, last, &self.file);
        if let Err(error) = noted_before {
            warn!("{}: the epoch may not outlive a crash now: {error}", self.path.display());
        }
        let in_place = open_in_place(&self.path, self.identity).map_err(Fatal::Storage)?;
        for line in lines() {
            self.system.overwrite(&in_place, &line.bytes, line.offset).map_err(Fatal::Storage)?;
        }
        self.sync()?;
        if let Err(error) = self.system.remove(&beside) {
            // The next start finds all its lines erased, and tries again.
            warn!("{} could not be removed: {error}", beside.display());
        }
        Ok(())
    }

    /// Takes in the operations of a file that was just opened, with its stamps if it has them, and
    /// erases what a crash left of deleted messages.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn with_operations(
        mut self,
        mut history: History,
    ) -> Result<(Journal, History), OpenError> {
        let mut senders = Senders { journal: &self, reader: None };
        let left = history.replay_operations(|id| senders.of(id));
        match self.erase_again(&left, &mut history) {
            Ok(()) => Ok((self, history)),
            Err(why) => Err(OpenError::Failed(self.path, why)),
        }
    }

    /// Erases what a crash left of deleted messages: `left` are those that are still there.
    fn erase_again(&mut self, left: &[u64], history: &mut History) -> io::Result<()> {
        let mut lines = Vec::new();
        for &id in left {
            // A line may have been deleted by several operations that people wrote by hand.
            if history.is_message(id) {
                lines.push(history.erase(id)?);
            }
        }
        for id in self.half_erased() {
            if id <= history.last_id() && !history.is_message(id) {
                lines.push(history.erased_line(id)?);
            }
        }
        lines.retain(|line| line.is_new);
        if lines.is_empty() {
            // If the file that names lines is there, it names none that is still to be erased.
            return self.system.remove(&path_beside(&self.path, ENDING));
        }
        let count = lines.len();
        info!("{}: {count} deleted lines were still there; erased now", self.path.display());
        // The operations that deleted them may have been written without a sync.
        match self.sync().and_then(|_| self.erase(&lines, history)) {
            Ok(()) => self.note_numbering(history),
            // They are holes from now on, and the next start tries again.
            Err(Fatal::Storage(error)) if error.raw_os_error() == Some(libc::ENOSPC) => {
                warn!("{}: deleted lines cannot be erased now: {error}", self.path.display());
                Ok(())
            }
            Err(fatal) => Err(io::Error::other(fatal.to_string())),
        }
    }

    /// The lines that were being erased when the server ended.
    fn half_erased(&mut self) -> Vec<u64> {
        let beside = path_beside(&self.path, ENDING);
        let named = match fs::read_to_string(&beside) {
            Ok(named) => named,
            Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                warn!("{} cannot be read: {error}", beside.display());
                return Vec::new();
            }
        };
        // Under another epoch, these ids mean other lines.
        let mut words = named.split_ascii_whitespace();
        if (words.next(), words.next()) != (Some("epoch"), Some(&**self.epoch())) {
            return Vec::new();
        }
        // A file that a crash cut short is of an erasure that had not begun.
        words.map_while(|word| word.parse().ok()).filter(|&id| id > 0).collect()
    }
}

/// Looks up senders, in the order of their lines.
struct Senders<'a> {
    journal: &'a Journal,
    /// The line that was looked up last, and the stamps after it.
    reader: Option<(u64, StampReader)>,
}

/// To read over so many stamps costs less than to begin again nearer to the next one.
const READ_OVER: u64 = 256;

impl Senders<'_> {
    fn of(&mut self, id: u64) -> Option<String> {
        let is_near = |(last, _): &mut (u64, StampReader)| id - *last <= READ_OVER;
        let reader = match self.reader.take_if(is_near) {
            Some((_, reader)) => reader,
            None => self.journal.stamps_from(id)?.read(),
        };
        let (_, reader) = self.reader.insert((id, reader));
        reader.of(id).from.map(str::to_owned)
    }
}

#[cfg(test)]
mod tests;
