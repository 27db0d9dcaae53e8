//! Erases the lines of deleted messages: the one change before the committed end.
//!
//! First the text file is open for overwriting, and the ids of the lines are in a file beside, on disk:
//! where that cannot be done, nothing is deleted.
//! Then the operation that deletes is on disk; then the senders are erased in the stamps; then the lines
//! are overwritten by as many bytes that say nothing; then that is on disk, the file beside is removed,
//! and the client is answered. So a line that is erased has no sender any more.
//!
//! A start does what a crash left undone. Before the overwriting began, the operation tells of the
//! message, and the edits tell of themselves. A power cut in the middle may leave a line half old and
//! half new, which says nothing any more: that is what the file beside is for.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use log::{info, warn};

use super::{
    AppendError, Fatal, Journal, OpenError,
    beside::{path_beside, unless_in_the_way},
    epoch::go_on_if_full,
    landmark::Landmark,
    open_in_place,
    overwriting::Overwriting,
    shortage::{is_denied, is_full, is_short},
};
use crate::{
    history::{ErasedLine, History},
    message,
    stamps::StampReader,
};

/// The ending of the file that names the lines which are being erased.
const ENDING: &str = "erasing";

/// The most bytes of that file before the first id, and of each id with its `\n`.
const HEAD_BYTES: u64 = 4 << 10;
const ID_BYTES: u64 = 21;

/// The erasure that was announced last, and has not begun.
#[derive(Debug)]
pub(super) struct Announced {
    /// The lines that the file beside names, in their order.
    ids: Vec<u64>,
    /// The text file, open for overwriting.
    in_place: File,
}

/// What became of lines that were to be erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Erased {
    /// They are erased, and that is on disk, whatever `--fsync` says.
    Done,
    /// The system had no room or no permission for what that takes. It is to be tried again:
    /// [`Journal::erase_what_is_left`].
    Later,
}

impl Journal {
    /// Opens the file for overwriting, and names the lines that are about to be deleted in the file
    /// beside, so that no lack of room or permission keeps them from being erased. Lines that are not
    /// deleted then are left alone.
    ///
    /// # Errors
    /// When that cannot be done; the messages should not be deleted now.
    pub fn announce_erasure(&mut self, mut ids: Vec<u64>) -> Result<(), AppendError> {
        let in_place = match open_in_place(&mut *self.system, &self.path, self.identity) {
            Ok(in_place) => in_place,
            Err(error) => return Err(self.cannot_delete(&self.path.clone(), &error)),
        };
        ids.sort_unstable();
        ids.dedup();
        if let Err(error) = self.name_lines(&ids) {
            return Err(self.cannot_delete(&self.erasing_path(), &error));
        }
        self.announced = Some(Announced { ids, in_place });
        Ok(())
    }

    fn cannot_delete(&mut self, path: &Path, error: &io::Error) -> AppendError {
        if is_full(error) {
            return self.note_disk_full(&format_args!("{}: {error}", path.display()));
        }
        warn!("{} cannot be written, so nothing is deleted now: {error}", path.display());
        AppendError::DiskFull
    }

    fn erasing_path(&self) -> PathBuf {
        path_beside(&self.path, ENDING)
    }

    fn name_lines(&mut self, ids: &[u64]) -> io::Result<()> {
        let mut text = format!("epoch {}\n", self.epoch());
        for id in ids {
            writeln!(text, "{id}").expect("writing to memory cannot fail");
        }
        let path = self.erasing_path();
        self.system.write_beside(&path, text.as_bytes())
    }

    /// Overwrites the lines of deleted messages, with those that are left from before.
    ///
    /// The operations that deleted them must have been synced before, or a power cut could leave a
    /// message erased that nobody deleted.
    ///
    /// # Errors
    /// When that fails. It is unknown then what stands on these lines; the next start erases them.
    ///
    /// # Panics
    /// When a line ends after the committed end.
    pub fn erase(
        &mut self,
        lines: impl IntoIterator<Item = ErasedLine>,
        history: &History,
    ) -> Result<Erased, Fatal> {
        self.unerased.extend(lines.into_iter().filter(|line| line.is_new));
        self.erase_what_is_left(history)
    }

    /// Whether lines of deleted messages are still there.
    pub fn has_unerased(&self) -> bool {
        !self.unerased.is_empty()
    }

    /// Overwrites the lines that are left from before, as [`Journal::erase`] does.
    ///
    /// # Errors
    /// As with [`Journal::erase`].
    pub fn erase_what_is_left(&mut self, history: &History) -> Result<Erased, Fatal> {
        let lines = std::mem::take(&mut self.unerased);
        if lines.is_empty() {
            return Ok(Erased::Done);
        }
        match self.begin_erasing(&lines, history) {
            Ok(in_place) => {
                self.overwrite_lines(&lines, &in_place)?;
                Ok(Erased::Done)
            }
            Err(Fatal::Storage(error)) if is_short(&error) || is_denied(&error) => {
                if !self.has_warned_of_unerased {
                    warn!(
                        "{}: {} deleted lines cannot be erased now: {error}; trying again",
                        self.path.display(),
                        lines.len()
                    );
                    self.has_warned_of_unerased = true;
                }
                self.unerased = lines;
                Ok(Erased::Later)
            }
            Err(fatal) => Err(fatal),
        }
    }

    /// Does what must be on disk before the first line is overwritten. The file is opened for that.
    fn begin_erasing(&mut self, lines: &[ErasedLine], history: &History) -> Result<File, Fatal> {
        assert!(lines.iter().all(|line| line.end() < history.end()), "each line has its end");
        let (named, in_place) = match self.announced.take() {
            Some(Announced { ids, in_place }) => (ids, in_place),
            None => {
                let in_place = open_in_place(&mut *self.system, &self.path, self.identity);
                (Vec::new(), in_place.map_err(Fatal::Storage)?)
            }
        };
        let ids: Vec<u64> = lines.iter().map(|line| line.id).collect();
        if ids.iter().any(|id| named.binary_search(id).is_err()) {
            self.name_lines(&ids).map_err(Fatal::Storage)?;
        }
        self.erase_senders(ids.into_iter())?;
        // The lock file tells of the last bytes that were numbered. If these are about to change, it
        // tells of the lines before instead, until all is done: so a crash keeps the epoch.
        let first = lines.iter().min_by_key(|line| line.offset).expect("there is a line");
        let last = lines.iter().map(ErasedLine::end).max().unwrap_or(0);
        let noted_before = self.epoch.note_before(first.id, first.offset, last, &self.file);
        if let Err(error) = noted_before {
            warn!("{}: the epoch may not outlive a crash now: {error}", self.path.display());
        }
        Ok(in_place)
    }

    fn overwrite_lines(&mut self, lines: &[ErasedLine], in_place: &File) -> Result<(), Fatal> {
        let mut overwriting = Overwriting::new(in_place, &mut *self.system);
        let mut nothing = lines.iter().map(|line| (line.offset, message::erased(line.len)));
        nothing
            .try_for_each(|(offset, nothing)| overwriting.push(offset, &nothing))
            .and_then(|()| overwriting.finish())
            .map_err(Fatal::Storage)?;
        self.landmark = Landmark::read(&self.file, self.landmark.end()).map_err(Fatal::Storage)?;
        self.sync()?;
        if self.has_warned_of_unerased {
            info!("{}: {} deleted lines are erased now", self.path.display(), lines.len());
            self.has_warned_of_unerased = false;
        }
        self.remove_names();
        Ok(())
    }

    /// Removes the file that names lines, if it is there.
    fn remove_names(&mut self) {
        let beside = self.erasing_path();
        if let Err(error) = self.system.remove(&beside) {
            // The next start finds all its lines erased, and tries again.
            warn!("{} could not be removed: {error}", beside.display());
        }
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
        let half_erased = self.half_erased(history.last_id());
        let mut senders = Senders { journal: &self, reader: None };
        let left = history.replay_operations(|id| senders.of(id), &half_erased);
        match self.erase_again(&left, &half_erased, &mut history) {
            Ok(()) => Ok((self, history)),
            Err(why) => Err(OpenError::Failed(self.path, why)),
        }
    }

    /// Erases what a crash left of deleted messages: `left` are those that are still there.
    fn erase_again(
        &mut self,
        left: &[u64],
        half_erased: &[u64],
        history: &mut History,
    ) -> io::Result<()> {
        let mut lines = history.erase(left)?;
        for &id in half_erased {
            if id <= history.last_id() && !history.is_message(id) {
                lines.push(history.erased_line(id)?);
            }
        }
        lines.retain(|line| line.is_new);
        if lines.is_empty() {
            // If the file that names lines is there, it names none that is still to be erased.
            self.remove_names();
            return Ok(());
        }
        let count = lines.len();
        // The operations that deleted them may have been written without a sync.
        match self.sync().and_then(|_| self.erase(lines, history)) {
            Ok(Erased::Done) => {
                info!("{}: {count} deleted lines were still there; erased", self.path.display());
                go_on_if_full(self.note_numbering(history), ())
            }
            // They are holes from now on.
            Ok(Erased::Later) => Ok(()),
            Err(fatal) => Err(io::Error::other(fatal.to_string())),
        }
    }

    /// The lines that were being erased when the server ended, in a text of this many lines.
    fn half_erased(&self, lines: u64) -> Vec<u64> {
        let beside = self.erasing_path();
        let named = match read_names(&beside, lines) {
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

/// Reads the file that names lines of a text of `lines` lines, each of them once.
fn read_names(path: &Path, lines: u64) -> io::Result<String> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = unless_in_the_way(path, opened)?;
    let most = HEAD_BYTES + ID_BYTES * lines;
    if file.metadata()?.len() > most {
        return Err(io::Error::other("it is too long to name lines of this text"));
    }
    let mut named = String::new();
    file.take(most).read_to_string(&mut named)?;
    Ok(named)
}

/// Looks up senders, in the order of their lines.
struct Senders<'a> {
    journal: &'a Journal,
    /// The line that was looked up last, and the stamps after it.
    reader: Option<(u64, StampReader)>,
}

/// To read over this many stamps costs less than to begin again nearer to the next one.
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
