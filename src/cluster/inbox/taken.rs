//! A file that is posted: how far that has come.
//!
//! Before lines are sent, the offset where they end is noted in a file beside, `.posted`. So after a crash
//! the same lines are one post under the same key, even if the file has grown.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::journal::{
    OPEN,
    beside::{path_beside, sync_folder_of},
};

/// When nobody has written to the inbox for so long, others get a new one. Its lines were posted before.
const QUIET: Duration = Duration::from_secs(10);

/// A file that had the name of the inbox is removed when nobody has written to it for so long. A program may
/// have had it open all the while, and what it writes later is lost. At most 720 such files wait, since one
/// comes in [`QUIET`].
const WATCHED: Duration = Duration::from_secs(2 * 60 * 60);

/// What the name ends with of the file that tells how far another one was posted.
const POSTED: &str = "posted";

/// A file that is posted.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) path: PathBuf,
    /// Which file it is, whatever its name.
    pub(super) identity: Identity,
    /// The offset before which all is posted.
    pub(super) at: u64,
    /// Where the next post ends, if it may have been sent already.
    pub(super) sent: Option<u64>,
    /// Its size at the last time when nothing was left to be posted.
    seen: Option<u64>,
    /// How many lines could not be posted, of which nothing was said yet.
    pub(super) unposted: u64,
}

/// The device and the inode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl Identity {
    pub(super) fn of(meta: &Metadata) -> Identity {
        Identity(meta.dev(), meta.ino())
    }
}

impl Taken {
    /// Finds out how far a file was posted.
    pub(super) fn open(path: PathBuf) -> io::Result<Taken> {
        let identity = Identity::of(&fs::metadata(&path)?);
        let noted = match fs::read_to_string(path_beside(&path, POSTED)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            noted => noted?,
        };
        // A power cut may have left a part of the last one, and its lines were not sent then.
        let whole = noted.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let mut ends = whole.filter_map(|end| end.parse().ok()).rev();
        let sent = ends.next();
        let at = ends.next().unwrap_or(0);
        Ok(Taken { path, identity, at, sent, seen: None, unposted: 0 })
    }

    /// Its name after that of the text file, which no other file ever has.
    pub(super) fn name(&self) -> String {
        self.path.extension().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Notes that lines up to this offset are about to be sent. It is on disk afterwards, and these lines are.
    pub(super) fn note_sent(&mut self, end: u64, file: &File) -> io::Result<()> {
        file.sync_data()?;
        let path = path_beside(&self.path, POSTED);
        let is_new = !path.exists();
        let mut noted = OpenOptions::new().append(true).create(true).open(&path)?;
        writeln!(noted, "{end}")?;
        noted.sync_data()?;
        if is_new {
            sync_folder_of(&path)?;
        }
        self.sent = Some(end);
        Ok(())
    }

    /// Notes that the post up to this offset is stored.
    pub(super) fn is_posted(&mut self, end: u64) {
        (self.at, self.sent) = (end, None);
    }

    /// Notes that nothing was left to be posted when it had this size.
    pub(super) fn is_done(&mut self, size: u64) {
        self.seen = Some(size);
    }

    /// Whether there is something to be done about it; the inbox is this file.
    pub(super) fn is_due(&self, inbox: Option<Identity>) -> bool {
        let Ok(meta) = fs::metadata(&self.path) else { return true };
        self.seen != Some(meta.len())
            || self.is_to_be_closed(&meta, inbox)
            || self.is_to_be_removed(&meta, inbox)
    }

    /// Whether others should get a new inbox, where the inbox is this file.
    pub(super) fn is_to_be_closed(&self, meta: &Metadata, inbox: Option<Identity>) -> bool {
        inbox == Some(self.identity) && is_older(meta, QUIET)
    }

    /// Whether nobody will write to it any more.
    pub(super) fn is_to_be_removed(&self, meta: &Metadata, inbox: Option<Identity>) -> bool {
        inbox != Some(self.identity) && (!self.name().ends_with(OPEN) || is_older(meta, WATCHED))
    }

    /// Removes it, when all of it is posted.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        self.remove_note()
    }

    /// Removes what tells how far it was posted.
    pub(super) fn remove_note(&self) -> io::Result<()> {
        match fs::remove_file(path_beside(&self.path, POSTED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether nobody has written to a file for so long.
fn is_older(meta: &Metadata, time: Duration) -> bool {
    // One from the future waits: the clock may have been set back.
    meta.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > time))
}

/// Whether this is the name of a file that tells how far another one was posted.
pub(super) fn is_note(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == POSTED)
}
