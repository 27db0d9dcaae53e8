//! What the log says of a hub's file, so that it is not filled with it.

use std::{
    io, mem,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use humantime::{format_duration, format_rfc3339_seconds};
use log::warn;

use crate::tally::Tally;

/// A clock that is set by another one goes back by less than this. If it is further behind the last time,
/// it is wrong, or it was.
const CLOCK_BEHIND: Duration = Duration::from_secs(60);

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
    /// Whether the log says that the clock is behind the last time.
    says_clock: bool,
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

    /// The last time that was given, and that of the clock, in Unix milliseconds.
    pub(super) fn clock(&mut self, path: &Path, last: u64, now: u64) {
        let behind = Duration::from_millis(last.saturating_sub(now));
        let is_behind = behind > CLOCK_BEHIND;
        let was_said = mem::replace(&mut self.says_clock, is_behind);
        if is_behind && !was_said {
            let path = path.display();
            warn!(
                "{path}: the last time is {}, and the clock is {} behind it. All new messages have \
                 that same time until the clock gets there. If the clock is wrong, set it. If that \
                 time is wrong, stop the server, and take the lines with it off the end of \
                 {path}.stamps; these times and senders are lost then, and at most as many before them.",
                format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(last)),
                format_duration(Duration::from_secs(behind.as_secs())),
            );
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
    fn a_clock_that_is_set_back_is_told_once_and_a_small_correction_is_not_told() {
        let mut warnings = Warnings::default();
        let mut says = |last: u64, now: u64| {
            warnings.clock(Path::new("messages.txt"), last, now);
            warnings.says_clock
        };
        assert!(!says(1_000_000, 1_000_000) && !says(1_000_000, 1_000_500));
        assert!(!says(1_059_000, 1_000_000), "less than a minute");
        assert!(says(1_061_000, 1_000_000) && says(1_061_000, 1_000_001));
        assert!(!says(1_061_000, 1_061_000), "it is over");
        assert!(!says(0, 1_000_000), "no time is known");
    }

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
