//! How each line gets its stamp: the time of acceptance and the verified sender.
//!
//! The stamps of posts are written before the posts are applied, since a post whose stamps find no
//! room is taken back. Foreign lines are in the file whatever happens, so their stamps are written
//! after they were applied, and are left out when they find no room. In both cases no message is
//! shown before its stamp was written.

use super::{Hub, Post};
use crate::{
    history::{History, Window},
    journal::{AppendError, Fatal, Journal},
    piece::Piece,
    stamps,
};

/// How many stamps of foreign lines are written at a time: other programs may append any number of
/// lines at once.
const AT_ONCE: u64 = 4096;

impl Hub {
    /// The time of acceptance for messages that are applied now, in Unix milliseconds. It never
    /// goes back, not even over a restart.
    pub(super) fn acceptance_time(&mut self) -> u64 {
        self.last_ts = stamps::acceptance_time(self.last_ts);
        self.compare_clock();
        self.last_ts
    }

    /// Has the log say when the clock is behind the times that were given.
    pub(super) fn compare_clock(&mut self) {
        self.warnings.clock(self.journal.path(), self.last_ts, stamps::now());
    }

    /// Writes the stamps of posts that were just appended; false when they find no room, and nothing
    /// of them was written. `others` is how many lines stand before the posts and are not theirs.
    pub(super) fn stamp_posts(
        &mut self,
        posts: &[Post],
        others: u64,
        ts: u64,
    ) -> Result<bool, Fatal> {
        if !self.journal.has_stamps() {
            return Ok(true);
        }
        self.new_stamps.push(others, ts, None);
        for post in posts {
            self.new_stamps.push(post.count() as u64, ts, post.sender.as_deref());
        }
        self.write_stamps()
    }

    /// Writes the stamps of pieces that were just appended; false when they find no room, and nothing of
    /// them was written.
    pub(super) fn stamp_pieces<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a Piece>,
    ) -> Result<bool, Fatal> {
        if !self.journal.has_stamps() {
            return Ok(true);
        }
        for run in pieces.flat_map(|piece| &piece.stamps) {
            match run.ts {
                0 => self.new_stamps.push_unknown(run.lines),
                ts => self.new_stamps.push(run.lines, ts, run.from.as_deref()),
            }
        }
        self.write_stamps()
    }

    /// Writes the stamps of the foreign lines that were applied since the last stamps were written.
    pub(super) fn stamp_foreign(&mut self, ts: u64) -> Result<(), Fatal> {
        let Some(stamped) = self.journal.stamped_lines() else { return Ok(()) };
        // The stamp of a foreign line that one of our writes ended is already there.
        let mut left = self.history.last_id().saturating_sub(stamped);
        while left > 0 {
            let lines = left.min(AT_ONCE);
            self.new_stamps.push(lines, ts, None);
            if !self.write_stamps()? {
                self.journal.leave_unstamped(left);
                return Ok(());
            }
            left -= lines;
        }
        Ok(())
    }

    fn write_stamps(&mut self) -> Result<bool, Fatal> {
        let written = self.journal.stamp(&self.new_stamps);
        self.new_stamps.clear();
        match written {
            Ok(()) => Ok(true),
            Err(AppendError::DiskFull) => Ok(false),
            Err(AppendError::Fatal(fatal)) => Err(fatal),
        }
    }

    /// Sees to it that the stamps file is in its place and on the disk.
    pub(super) fn look_after_stamps(&mut self) -> Result<(), Fatal> {
        let result = self.journal.survey_stamps();
        self.warnings.surveyed_stamps(self.journal.path(), &result);
        self.journal.sync_stamps_when_due(&self.history)
    }
}

/// When the last message was accepted, in Unix milliseconds, if that is known.
pub(super) fn time_of_last(journal: &Journal, history: &History) -> Option<u64> {
    let stretch = history.window(&Window { limit: Some(1), ..Window::default() });
    let id = Some(stretch.first_id).filter(|_| !stretch.is_empty())?;
    journal.stamps_from(id)?.read().of(id).ts
}
