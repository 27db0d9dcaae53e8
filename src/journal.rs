//! The text file as a journal: appended to, synced and watched.
//!
//! The hub owns it. The file is opened once, in append mode, so each write lands as a whole at the
//! end, even between the writes of other programs: the file is an interface, and a program that
//! appends a line to it says something. The bytes that a failed write left are taken back. Whatever
//! the system claims, a byte before the committed end is changed for one reason alone: to erase a
//! message that was deleted. After a failed sync it is unknown what is on disk, so the channel
//! ends, and with the default channel the server (Rebello et al., "Can Applications Recover from
//! fsync Failures?", USENIX ATC 2020). `recovery.rs` opens the file, `epoch.rs` names its
//! numbering, `landmark.rs` finds out that it was overwritten, `lock.rs` puts the lock file back,
//! `shortage.rs` deals with a full disk, `stamps.rs` writes the stamps beside the file,
//! `stamping.rs` makes both files one, `erasing.rs` and `overwriting.rs` erase, and `replica.rs`
//! makes the file a copy of a cluster's order.

pub(crate) mod beside;
mod epoch;
mod erasing;
mod landmark;
mod lock;
mod overwriting;
mod recovery;
mod replica;
mod shortage;
mod stamping;
mod stamps;
pub(crate) mod system;

use std::{
    fmt,
    fs::{self, File, Metadata},
    io::{self, Seek, SeekFrom},
    mem,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use log::{info, warn};

use self::{
    beside::{create_beside, rename_beside, sync_folder_of},
    epoch::Epoch,
    erasing::Announced,
    landmark::Landmark,
    shortage::{Shortage, is_denied},
    stamps::StampFile,
    system::System,
};
pub use self::{
    erasing::Erased,
    recovery::{OpenError, REWRITE_BYTES, create},
    replica::{
        OPEN, SetAside, Torn, hand_in_open, mend_copy, noted_epoch, stamped_lines, take_inbox,
    },
};
pub(crate) use self::{
    shortage::{is_full, is_short},
    stamps::boot,
};
use crate::{
    config::Fsync,
    history::{ErasedLine, History},
};

/// How long a write may wait for its sync with `--fsync 1s`. The hub looks at the clock every 500
/// ms (`hub::TICK`), so a sync begins 900 ms after the write at the latest and has the rest of the
/// promised second.
pub const SYNC_EVERY: Duration = Duration::from_millis(400);

/// Why a channel cannot go on with its file. With the default channel the server ends.
#[derive(Debug)]
pub enum Fatal {
    /// A write or sync failed in a way that leaves unknown what is on disk.
    Storage(io::Error),
    /// The file was removed, replaced, cut or overwritten by another program; the sentence says which.
    Changed(String),
    /// The file has other lines than the order of the cluster; a new start sets them aside.
    Forked(String),
    /// The file cannot join the order of the cluster; the sentence says what an operator can do.
    CannotJoin(String),
    /// The hub of a channel panicked, which is a bug.
    Panicked,
}

impl fmt::Display for Fatal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::Storage(why) => write!(
                out,
                "storage failed: {why}. Nothing that clients saw is lost; what else was \
                 kept shows when it is opened again."
            ),
            Fatal::Changed(what) | Fatal::Forked(what) | Fatal::CannotJoin(what) => {
                write!(out, "{what}")
            }
            Fatal::Panicked => write!(
                out,
                "a panic ended its hub, which is a bug. Nothing that clients saw is lost."
            ),
        }
    }
}

/// Why lines were not appended.
#[derive(Debug)]
pub enum AppendError {
    /// The disk has no room. Nothing of the lines is in the file, and they can be appended later.
    DiskFull,
    /// The channel cannot go on.
    Fatal(Fatal),
}

impl From<Fatal> for AppendError {
    fn from(fatal: Fatal) -> AppendError {
        AppendError::Fatal(fatal)
    }
}

impl From<io::Error> for AppendError {
    fn from(error: io::Error) -> AppendError {
        AppendError::Fatal(Fatal::Storage(error))
    }
}

/// The text file, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Arc<File>,
    system: Box<dyn System>,
    identity: (u64, u64),
    epoch: Epoch,
    stamps: Option<StampFile>,
    fsync: Fsync,
    /// The committed end, as the hub gave it last.
    committed_end: u64,
    landmark: Landmark,
    shortage: Option<Shortage>,
    /// The lines of deleted messages that could not be erased yet.
    unerased: Vec<ErasedLine>,
    has_warned_of_unerased: bool,
    has_warned_of_name: bool,
    has_warned_of_note: bool,
    has_warned_of_lock: bool,
    announced: Option<Announced>,
    /// The time of the oldest write that has not been synced.
    unsynced_since: Option<Instant>,
}

impl Journal {
    /// Replaces the real system by a test's own.
    #[cfg(test)]
    pub(crate) fn with_system(mut self, system: impl System + 'static) -> Journal {
        self.system = Box::new(system);
        self
    }

    /// The epoch of the file. It stays the same over a restart, and is another for another file.
    pub fn epoch(&self) -> &Arc<str> {
        self.epoch.name()
    }

    /// The path under which the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file, for reading.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Names the file itself: its device and inode.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Gives the file another name beside its own, `NAME.removed-` and the time in Unix milliseconds,
    /// which is on disk afterwards, unless the log says that it may not be. Nothing may be appended to
    /// it any more.
    ///
    /// # Errors
    /// When the folder cannot be written. The file has its own name then.
    pub fn put_away(&self) -> io::Result<PathBuf> {
        let away = rename_beside(&self.path, &self.path, "removed")?;
        if let Some(stamps) = &self.stamps
            && let Err(error) = stamps.rename_with(&away)
        {
            warn!("{} could not be put away along with it: {error}", stamps.path().display());
        }
        // All see the new name, so it is put away, whatever a power cut may bring back.
        if let Err(error) = self.system.sync_folder_of(&self.path) {
            warn!("that {} is put away may not be on disk: {error}", self.path.display());
        }
        Ok(away)
    }

    /// The size of the file in bytes. It must still be the file that was opened, and no shorter
    /// than `committed_end`.
    ///
    /// # Errors
    /// When the file was removed, replaced, cut or overwritten. A file that is no longer under its path
    /// has been copied to a file beside it then.
    pub fn survey(&mut self, committed_end: u64) -> Result<u64, Fatal> {
        self.move_committed_end(committed_end);
        // While the path leads to the same file, one system call tells both its identity and size. No
        // link was there when the file was opened, and one that is there now is not followed: the lock
        // file is not beside what it leads to, so that another server could open that, too.
        let what = match self.look() {
            Ok(found) if identity(&found) != self.identity => "the file was replaced by another",
            Ok(found) if found.len() >= committed_end => return self.check_growth(found.len()),
            Ok(found) => {
                return Err(Fatal::Changed(format!(
                    "the file was cut from {committed_end} to {} bytes while the server ran",
                    found.len()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => "the file was removed",
            // A file or a circle of links is in the place of a folder.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
                "the file's folder was replaced"
            }
            Err(error) => return Err(Fatal::Storage(error)),
        };
        Err(Fatal::Changed(format!("{what} while the server ran; {}", self.salvage())))
    }

    /// Looks at what the path leads to. As long as that is not allowed, or the system is short of what it
    /// takes, the open file counts as what is there: it can be read and written as before.
    fn look(&mut self) -> io::Result<Metadata> {
        let found = self.system.look_at(&self.path);
        match &found {
            Err(error) if is_denied(error) || is_short(error) => {
                if !self.has_warned_of_name {
                    warn!(
                        "{} cannot be looked at, so nobody can tell whether another file is in its \
                         place: {error}. The server goes on with the file that it has open, and \
                         looks again.",
                        self.path.display()
                    );
                    self.has_warned_of_name = true;
                }
                self.file.metadata()
            }
            _ => {
                if mem::take(&mut self.has_warned_of_name) {
                    info!("{} can be looked at again", self.path.display());
                }
                found
            }
        }
    }

    /// Looks whether committed bytes are still there, if another program has made the file longer; returns
    /// its size.
    fn check_growth(&mut self, size: u64) -> Result<u64, Fatal> {
        if size > self.committed_end {
            if !self.landmark.is_in(&self.file).map_err(Fatal::Storage)? {
                let what = "the file was overwritten by another program while the server ran";
                return Err(Fatal::Changed(what.to_owned()));
            }
            if self.landmark.end() < self.committed_end {
                let landmark = Landmark::read(&self.file, self.committed_end);
                self.landmark = landmark.map_err(Fatal::Storage)?;
            }
        }
        Ok(size)
    }

    /// Copies the open file to a new file beside its path; returns a sentence about how that went.
    fn salvage(&self) -> String {
        let failed = |error| format!("its content could not be saved: {error}");
        let (path, mut saved) = match create_beside(&self.path, "saved") {
            Ok(created) => created,
            Err(error) => return failed(error),
        };
        let mut file = &*self.file;
        let copied = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| io::copy(&mut file, &mut saved))
            .and_then(|_| saved.sync_all())
            .and_then(|()| sync_folder_of(&self.path));
        match (copied, saved.metadata()) {
            (Ok(()), _) => format!("its content is saved in {}", path.display()),
            // There may be no other copy of what was saved.
            (Err(error), Ok(part)) if part.len() > 0 => format!(
                "only the first {} bytes of its content could be saved, in {}: {error}",
                part.len(),
                path.display()
            ),
            (Err(error), _) => {
                // It is empty, and ours.
                let _ = fs::remove_file(&path);
                failed(error)
            }
        }
    }

    /// Appends whole lines with one write. Returns the offset where they begin: the committed end,
    /// or a later offset if other programs appended there.
    ///
    /// # Errors
    /// After [`AppendError::DiskFull`], nothing of the lines is in the file, and every byte before
    /// the committed end is as it was.
    ///
    /// # Panics
    /// When the committed end is before one that was given earlier.
    pub fn append(&mut self, lines: &[u8], committed_end: u64) -> Result<u64, AppendError> {
        self.move_committed_end(committed_end);
        if self.is_too_soon() {
            return Err(AppendError::DiskFull);
        }
        let claimed = match self.write(lines) {
            Ok(count) => count,
            Err(error) => {
                return Err(match is_full(&error) {
                    true => self.note_disk_full(&error),
                    false => error.into(),
                });
            }
        };
        if claimed == lines.len()
            && let Some(start) = self.find_written(lines)?
        {
            if self.stamps.is_none() {
                self.note_room();
            }
            self.landmark.note_written(start, lines);
            return Ok(start);
        }
        self.take_back(lines, claimed)?;
        let less = format!("a write stored less than its {} bytes, as on a full disk", lines.len());
        Err(self.note_disk_full(&less))
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        loop {
            match self.system.write(&self.file, lines) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn move_committed_end(&mut self, to: u64) {
        assert!(to >= self.committed_end, "the committed end never goes back");
        self.committed_end = to;
    }

    /// The offset of the lines that were just written; `None` if they are not in the file. The
    /// position of the descriptor says where to look, but only the file is believed: a write may
    /// claim what it did not do.
    fn find_written(&mut self, lines: &[u8]) -> io::Result<Option<u64>> {
        let len = lines.len() as u64;
        let position = self.system.position(&self.file)?;
        // No other program has written, and the descriptor moves only with a write that was done.
        if position == self.committed_end + len {
            return Ok(Some(self.committed_end));
        }
        let size = self.file.metadata()?.len();
        for start in [position, size].iter().filter_map(|end| end.checked_sub(len)) {
            if self.holds(start, lines)? {
                return Ok(Some(start));
            }
        }
        Ok(None)
    }

    /// Takes back the bytes of a write that did not store all of `lines`. The write claimed to have
    /// stored `claimed` bytes.
    fn take_back(&mut self, lines: &[u8], claimed: usize) -> Result<(), AppendError> {
        let size = self.file.metadata()?.len();
        let position = self.system.position(&self.file)?;
        let as_claimed = position.checked_sub(claimed as u64).map(|start| start..position);
        // If the claim is wrong, all new bytes may be those of the write.
        let all_that_is_new = self.committed_end..size;
        let guesses = as_claimed.into_iter().chain([all_that_is_new]);
        for range in guesses.filter(|range| !range.is_empty()) {
            let Some(part) = lines.get(..(range.end - range.start) as usize) else { continue };
            if self.holds(range.start, part)? {
                if range.end == size {
                    self.truncate(range.start)?;
                } else {
                    self.blank(range)?;
                }
                break;
            }
        }
        Ok(())
    }

    /// Whether these bytes stand at `start`, after the committed end.
    fn holds(&self, start: u64, bytes: &[u8]) -> io::Result<bool> {
        if start < self.committed_end
            || self.file.metadata()?.len().saturating_sub(start) < bytes.len() as u64
        {
            return Ok(false);
        }
        let mut found = vec![0; bytes.len()];
        self.file.read_exact_at(&mut found, start)?;
        Ok(found == bytes)
    }

    /// Cuts the file to `end` bytes.
    fn truncate(&mut self, end: u64) -> io::Result<()> {
        assert!(end >= self.committed_end, "the file is never cut below its committed end");
        self.landmark.forget_in(end..u64::MAX);
        self.file.set_len(end)
    }

    /// Overwrites lines of ours with spaces, after the committed end. There is no other way to take
    /// them back without harm to lines that other programs may have appended after them.
    ///
    /// # Errors
    /// When that fails. The lines may still stand there then.
    ///
    /// # Panics
    /// When the range begins before the committed end.
    pub fn blank(&mut self, range: Range<u64>) -> Result<(), Fatal> {
        assert!(range.start >= self.committed_end, "committed lines are never overwritten");
        self.landmark.forget_in(range.clone());
        let spaces = vec![b' '; (range.end - range.start) as usize];
        open_in_place(&mut *self.system, &self.path, self.identity)
            .and_then(|file| file.write_all_at(&spaces, range.start))
            .map_err(Fatal::Storage)?;
        // After a failed sync, a start writes one batch again. The lines that follow may be as
        // many, so these spaces are synced before them.
        self.sync_per_policy().map(drop)
    }

    /// Syncs the file if `--fsync` asks for that after each write, or if it is due. Returns how
    /// long the sync took, if there was one.
    ///
    /// # Errors
    /// When the sync fails. It is unknown then what is on disk, and no sync may be tried again.
    pub fn sync_per_policy(&mut self) -> Result<Option<Duration>, Fatal> {
        match self.fsync {
            Fsync::Always => self.sync().map(Some),
            Fsync::EverySecond => {
                self.unsynced_since.get_or_insert(self.system.now());
                self.sync_when_due()
            }
            Fsync::Never => Ok(None),
        }
    }

    /// With `--fsync 1s`, syncs the file if its oldest write has waited long enough. Returns how
    /// long the sync took, if there was one.
    ///
    /// # Errors
    /// As with [`Journal::sync_per_policy`].
    pub fn sync_when_due(&mut self) -> Result<Option<Duration>, Fatal> {
        match self.unsynced_since {
            Some(since) if self.system.now() >= since + SYNC_EVERY => self.sync().map(Some),
            _ => Ok(None),
        }
    }

    /// Whether something was written that a later sync will bring to the disk.
    pub fn is_sync_due_later(&self) -> bool {
        self.unsynced_since.is_some() || self.has_unsynced_stamps()
    }

    /// Syncs all that was written, by this server or by other programs; returns how long that took.
    ///
    /// # Errors
    /// As with [`Journal::sync_per_policy`].
    pub fn sync(&mut self) -> Result<Duration, Fatal> {
        self.unsynced_since = None;
        let begun = Instant::now();
        self.system.sync(&self.file).map_err(Fatal::Storage)?;
        Ok(begun.elapsed())
    }

    /// Notes in the lock file how far the numbering has come, so that the next start can tell
    /// whether the file still has the same epoch.
    ///
    /// # Errors
    /// When the lock file cannot be written. No message depends on it, but the next start may begin
    /// a new epoch, and clients are sent whole histories then.
    pub fn note_numbering(&mut self, history: &History) -> io::Result<()> {
        self.epoch.note(&self.file, history).map(drop)
    }

    /// Has the next start begin a new epoch, whatever the file holds then.
    ///
    /// # Errors
    /// When the lock file cannot be written.
    pub fn forget_epoch(&mut self) -> io::Result<()> {
        self.epoch.forget()
    }
}

fn identity(meta: &fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// Opens the file once more, to overwrite bytes in it, which a descriptor in append mode cannot do.
/// The file must still have the identity `expected`.
fn open_in_place(system: &mut dyn System, path: &Path, expected: (u64, u64)) -> io::Result<File> {
    let file = system.open_in_place(path)?;
    match identity(&file.metadata()?) == expected {
        true => Ok(file),
        false => Err(io::Error::other("the file was replaced by another")),
    }
}

#[cfg(test)]
mod tests;
