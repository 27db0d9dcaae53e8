//! The journal's two files as one: lines and their stamps are written, synced and noted together.
//!
//! A journal that was not given stamps does nothing here, and says that it knows none.

use std::{io, mem, ops::Range};

use log::warn;

use super::{
    AppendError, Fatal, Journal, OpenError, SYNC_EVERY,
    beside::path_beside,
    epoch::go_on_if_full,
    shortage::{is_denied, is_full, is_short},
    stamps::{RunEnds, StampFile, boot},
};
use crate::{
    config::Fsync,
    history::History,
    stamps::{NewStamps, Since, StampPart, Stamps},
};

impl Journal {
    /// Opens or creates the stamps file, so that each line has its stamp from now on, as far as it
    /// is known.
    ///
    /// # Errors
    /// When something else is in its place, or it cannot be read or written. No stamp is lost then.
    pub fn with_stamps(self, history: &History) -> Result<Journal, OpenError> {
        self.with_stamps_of(history, boot().as_deref())
    }

    pub(super) fn with_stamps_of(
        mut self,
        history: &History,
        boot: Option<&str>,
    ) -> Result<Journal, OpenError> {
        let path = path_beside(&self.path, "stamps");
        let lines = history.last_id();
        let note = self.epoch.stamps().map(|note| (note, self.epoch.unsynced()));
        let former = self.epoch.former_stamps();
        let mut stamps = StampFile::open(&self.path, self.identity, lines, note, former, boot)
            .map_err(|why| OpenError::Stamps(path.clone(), why))?;
        let failed = |why| OpenError::Failed(path.clone(), why);
        match stamps.fill_up(&mut *self.system) {
            Err(error) if is_full(&error) => {
                warn!("{}: {error}; some stamps will be missing", path.display());
            }
            result => result.map_err(failed)?,
        }
        self.stamps = Some(stamps);
        self.note_stamps(RunEnds::Later).map_err(failed)?;
        go_on_if_full(self.note_numbering(history), ()).map_err(failed)?;
        Ok(self)
    }

    /// Whether there is a stamps file.
    pub fn has_stamps(&self) -> bool {
        self.stamps.is_some()
    }

    /// The latest time of all stamps, in Unix milliseconds; 0 when no time is known.
    pub fn latest_time(&self) -> u64 {
        self.stamps.as_ref().map_or(0, |stamps| stamps.index().latest())
    }

    /// The stamps from the line `first_id` on; `None` without a stamps file.
    pub fn stamps_from(&self, first_id: u64) -> Option<Stamps> {
        let stamps = self.stamps.as_ref()?;
        Some(Stamps::InFile(StampPart::new(stamps.file(), stamps.index(), first_id)))
    }

    /// The first line at or after a time in Unix milliseconds; `None` without a stamps file.
    pub fn since(&self, ts: u64) -> Option<Since> {
        let stamps = self.stamps.as_ref()?;
        Some(Since::in_file(stamps.file(), stamps.index(), ts, stamps.text_lines() + 1))
    }

    /// Writes the stamps of the lines after those that have one.
    ///
    /// # Errors
    /// After [`AppendError::DiskFull`], nothing of them is in the file.
    pub fn stamp(&mut self, new: &NewStamps) -> Result<(), AppendError> {
        let Some(stamps) = &mut self.stamps else { return Ok(()) };
        if let Err(error) = stamps.restore_if_cut() {
            // A full disk is one reason, and a folder that may not be written another.
            let why = format!("the stamps were cut, and cannot be written again: {error}");
            return Err(self.note_disk_full(&why));
        }
        match stamps.append(new.bytes(), &mut *self.system) {
            Ok(()) => {
                self.note_room();
                Ok(())
            }
            Err(error) if is_full(&error) => {
                let why = format!("no room for stamps: {error}");
                Err(self.note_disk_full(&why))
            }
            Err(error) => Err(self.stamps_failed(&error).into()),
        }
    }

    /// Notes that the next `lines` lines have no stamp, since theirs found no room.
    pub fn leave_unstamped(&mut self, lines: u64) {
        if let Some(stamps) = &mut self.stamps {
            stamps.leave_out(lines);
        }
    }

    /// Erases the senders of lines, which keep their times. It is on disk afterwards.
    pub(super) fn erase_senders(&mut self, ids: impl Iterator<Item = u64>) -> Result<(), Fatal> {
        let Some(stamps) = &mut self.stamps else { return Ok(()) };
        let erased =
            stamps.restore_if_cut().and_then(|()| stamps.erase_senders(ids, &mut *self.system));
        // The record depends on stamps that may have changed; it is written before the text changes.
        let noted = erased.and_then(|()| self.note_stamps(RunEnds::Later));
        noted.map_err(|error| match is_short(&error) || is_denied(&error) {
            true => Fatal::Storage(error),
            false => self.stamps_failed(&error),
        })
    }

    /// How many lines have a stamp, or are known to have none; `None` without a stamps file.
    pub fn stamped_lines(&self) -> Option<u64> {
        self.stamps.as_ref().map(StampFile::text_lines)
    }

    /// Takes back lines that were appended a moment ago and that nobody has been shown.
    ///
    /// # Errors
    /// When that fails. The lines may still stand there then.
    ///
    /// # Panics
    /// When the range begins before the committed end.
    pub fn retract(&mut self, range: Range<u64>) -> Result<(), Fatal> {
        let size = self.file.metadata().map_err(Fatal::Storage)?.len();
        match range.end == size {
            true => self.truncate(range.start).map_err(Fatal::Storage),
            false => self.blank(range),
        }
    }

    /// Looks whether the stamps file is still in its place, and puts it there if not.
    ///
    /// # Errors
    /// When it cannot be put there. Stamps are not lost as long as the server runs.
    pub fn survey_stamps(&mut self) -> io::Result<()> {
        self.stamps.as_mut().map_or(Ok(()), StampFile::survey)
    }

    /// Syncs the stamps if they have waited long enough, unless `--fsync` says never, and notes how far they
    /// have come.
    ///
    /// # Errors
    /// When a sync fails. It is unknown then what is on disk, and no sync may be tried again.
    pub fn sync_stamps_when_due(&mut self, history: &History) -> Result<(), Fatal> {
        let since = self.stamps.as_ref().and_then(|stamps| stamps.unsynced_since);
        let is_due = since.is_some_and(|since| self.system.now() >= since + SYNC_EVERY);
        if !is_due {
            return Ok(());
        }
        let noted = if self.fsync == Fsync::Never {
            self.note_unsynced_stamps().and_then(|()| self.note_numbering(history))
        } else {
            if self.unsynced_since.is_some() {
                // No record may be on the disk before the lines that it tells of.
                self.sync()?;
            }
            self.note_stamps(RunEnds::Later).map_err(|error| self.stamps_failed(&error))?;
            self.note_numbering(history).and_then(|()| self.epoch.sync())
        };
        // This comes again with each sync, as long as it lasts.
        let was_said = mem::replace(&mut self.has_warned_of_note, noted.is_err());
        if let Err(error) = noted
            && !was_said
        {
            // The next start believes fewer stamps then.
            let path = self.path.display();
            warn!("{path}: how far its stamps have come could not be noted beside it: {error}");
        }
        Ok(())
    }

    /// Syncs the stamps at the end of a run, and has the next record say that no more follow.
    ///
    /// # Errors
    /// As with [`Journal::sync_stamps_when_due`].
    pub fn end_stamps(&mut self) -> Result<(), Fatal> {
        self.note_stamps(RunEnds::Now).map_err(|error| self.stamps_failed(&error))
    }

    /// Has the next record tell how far the stamps have come since the note of them.
    fn note_unsynced_stamps(&mut self) -> io::Result<()> {
        if let (Some(stamps), Some(note)) = (&self.stamps, self.epoch.stamps())
            && let Some(unsynced) = stamps.unsynced(note, self.epoch.unsynced())?
        {
            self.epoch.set_unsynced(unsynced);
        }
        Ok(())
    }

    /// Syncs the stamps, and takes the note of them for the next record: what is noted is on the disk,
    /// with `--fsync never`, too, where that is done at the start and the stop. While the file is cut, the
    /// older note stays: it tells at the next start which of the lines that are left are known.
    fn note_stamps(&mut self, ends: RunEnds) -> io::Result<()> {
        let Some(stamps) = &mut self.stamps else { return Ok(()) };
        if let Some(note) = stamps.sync(ends)? {
            self.epoch.set_stamps(note);
        }
        Ok(())
    }

    /// Whether stamps were written that a later sync will bring to the disk.
    pub(super) fn has_unsynced_stamps(&self) -> bool {
        self.fsync != Fsync::Never
            && self.stamps.as_ref().is_some_and(|stamps| stamps.unsynced_since.is_some())
    }

    fn stamps_failed(&self, error: &io::Error) -> Fatal {
        let path = path_beside(&self.path, "stamps");
        Fatal::Storage(io::Error::other(format!("{}: {error}", path.display())))
    }
}
