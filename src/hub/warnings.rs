//! What the log says of a hub's file, so that it is not filled with it.

use std::{io, mem, path::Path};

use log::warn;

use crate::tally::Tally;

/// What the log was told of the file of one hub. Each method is given the file's path.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    /// Lines that others appended and that hold no message.
    holes: Tally,
    /// Operations that others appended and that mean nothing.
    refused: Tally,
    /// Whether the log says that the lock file cannot be written.
    says_note: bool,
    /// Whether the log says that the stamps file cannot be put back into its place.
    says_stamps: bool,
}

impl Warnings {
    /// Whether counts wait to be logged, though nothing may happen any more.
    pub(super) fn are_pending(&self) -> bool {
        self.holes.is_pending() || self.refused.is_pending()
    }

    /// Logs the counts that are due.
    pub(super) fn log_counts(&mut self, path: &Path) {
        let path = path.display();
        if let Some(count) = self.holes.due() {
            warn!("{path}: {count} more lines that others appended hold no message; skipped");
        }
        if let Some(count) = self.refused.due() {
            warn!("{path}: {count} more operations that others appended mean nothing");
        }
    }

    /// A line that another program appended holds no message.
    pub(super) fn foreign_hole(&mut self, path: &Path, id: u64) {
        if self.holes.add() {
            let path = path.display();
            warn!("{path}: line {id}, appended by another program, holds no message; skipped");
        }
    }

    /// A line of the order of a cluster holds no message.
    pub(super) fn hole_of_order(&mut self, path: &Path, id: u64) {
        if self.holes.add() {
            warn!("{}: line {id} of the order holds no message; skipped", path.display());
        }
    }

    /// A line is an operation that cannot be done.
    pub(super) fn refused(&mut self, path: &Path, id: u64) {
        if self.refused.add() {
            warn!("{}: line {id} is an operation that means nothing", path.display());
        }
    }

    /// How far the numbering has come was noted in the lock file, or could not be.
    pub(super) fn noted(&mut self, path: &Path, result: &io::Result<()>) {
        if let Some(error) = first_error(&mut self.says_note, result) {
            let path = path.display();
            warn!("{path}: how far it has come could not be noted beside it: {error}");
        }
    }

    /// The stamps file is in its place, or cannot be put back there.
    pub(super) fn surveyed_stamps(&mut self, path: &Path, result: &io::Result<()>) {
        if let Some(error) = first_error(&mut self.says_stamps, result) {
            let path = path.display();
            warn!("{path}.stamps is not in its place, and cannot be written again: {error}");
        }
    }
}

/// The error of a result, if it is the first one since the last success.
fn first_error<'a>(is_said: &mut bool, result: &'a io::Result<()>) -> Option<&'a io::Error> {
    let was_said = mem::replace(is_said, result.is_err());
    result.as_ref().err().filter(|_| !was_said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_that_lasts_is_logged_once_and_again_when_it_comes_back() {
        let mut is_said = false;
        let mut says = |result: io::Result<()>| first_error(&mut is_said, &result).is_some();
        let trouble = || Err(io::Error::other("trouble"));
        assert!(!says(Ok(())));
        assert!(says(trouble()), "it is new");
        assert!(!says(trouble()) && !says(trouble()), "it was said");
        assert!(!says(Ok(())), "it is over");
        assert!(says(trouble()), "it is new again");
    }
}
