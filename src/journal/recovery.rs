//! Opens the text file: takes the lock, then repairs what a crash or an editor left.
//!
//! Nothing that could be a message is deleted, no state of the file stops the start, and nothing is
//! changed before the lock is held. Afterwards the file ends with a whole line, and every line is
//! on disk, even one that after a failed sync could be read from memory but was not on disk.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use log::{info, warn};

use super::{
    Journal,
    beside::{folder_of, path_beside, save_part, sync_folder_of},
    epoch::{Epoch, Record},
    identity,
    landmark::Landmark,
    open_in_place,
    shortage::{is_denied, is_full},
    system,
};
use crate::{
    config::Fsync,
    history::{BOM, History},
    lines::line_limit,
    message,
};

/// How many bytes at the end of the file are written again at each start, at the least: that takes
/// some 3 ms. A batch of the hub has at most as many before its last post.
pub const REWRITE_BYTES: u64 = 1 << 20;

/// How many bytes are read with one call when the end of the file is searched: enough that the
/// calls cost little.
const BLOCK: usize = 64 << 10;

/// How long a start waits for the lock: a server that was killed a moment ago may not have let it go yet.
const LOCK_TIME: Duration = Duration::from_millis(500);

/// How often it looks meanwhile.
const LOCK_LOOK: Duration = Duration::from_millis(10);

/// Why the text file cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The server cannot use it: it is a directory or a device, or permission is missing.
    Unusable(PathBuf, io::Error),
    /// Its folder is not there.
    NoFolder(PathBuf),
    /// The server cannot use its lock file, which is at this path.
    Lock(PathBuf, io::Error),
    /// The server cannot use its stamps file, which is at this path.
    Stamps(PathBuf, io::Error),
    /// Another server uses it.
    InUse(PathBuf),
    /// Reading, writing or syncing it failed.
    Failed(PathBuf, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Unusable(path, why) | OpenError::Failed(path, why) => {
                write!(out, "{}: {why}", path.display())
            }
            OpenError::NoFolder(path) => {
                let folder = folder_of(path).display();
                write!(out, "{}: there is no folder {folder}", path.display())
            }
            OpenError::Lock(path, why) => write!(
                out,
                "{}: {why}; the server needs a file of this name that it can write",
                path.display()
            ),
            OpenError::Stamps(path, why) => write!(
                out,
                "{}: {why}; move it away, or start without times and senders that last: --no-stamps",
                path.display()
            ),
            OpenError::InUse(path) => write!(
                out,
                "{} is in use by another server (it holds {})",
                path.display(),
                path_beside(path, "lock").display()
            ),
        }
    }
}

impl Journal {
    /// Takes the lock, creates or repairs the file, and reads and validates all of it.
    /// `max_message` is the longest text that a client may send, in bytes.
    ///
    /// Afterwards every line of the file is whole and, unless `fsync` is `never`, on disk.
    ///
    /// # Errors
    /// When another server uses the file, or the file is unusable; nothing in it was changed then.
    /// When reading, writing or syncing it fails; it may have been repaired in part then.
    pub fn open(
        path: &Path,
        fsync: Fsync,
        max_message: usize,
    ) -> Result<(Journal, History), OpenError> {
        let unusable = |why| OpenError::Unusable(path.to_owned(), why);
        // The lock file stands beside the file that a symbolic link leads to, so that two names of
        // one file have the same lock.
        let path = &match fs::canonicalize(path) {
            Ok(path) => path,
            // The file is made, and where there is a link, the file that it leads to.
            Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
                Ok(target) => path.parent().unwrap_or(Path::new("")).join(target),
                Err(_) => path.to_owned(),
            },
            Err(error) => return Err(unusable(error)),
        };
        refuse_irregular(path).map_err(unusable)?;
        Journal::open_locked(path, open_or_create, fsync, max_message)
    }

    /// The same for a file that must be there, and must be a regular file itself: no link is
    /// followed, so that what is served is always a file of its folder.
    ///
    /// # Errors
    /// As with [`Journal::open`], and when it is not there.
    pub fn open_in_folder(
        path: &Path,
        fsync: Fsync,
        max_message: usize,
    ) -> Result<(Journal, History), OpenError> {
        refuse_link(path)
            .and_then(|()| refuse_irregular(path))
            .map_err(|why| OpenError::Unusable(path.to_owned(), why))?;
        Journal::open_locked(path, open_regular, fsync, max_message)
    }

    fn open_locked(
        path: &Path,
        open: impl Fn(&Path) -> io::Result<File>,
        fsync: Fsync,
        max_message: usize,
    ) -> Result<(Journal, History), OpenError> {
        let unusable = |why| OpenError::Unusable(path.to_owned(), why);
        let failed = |why| OpenError::Failed(path.to_owned(), why);
        let lock_file = lock(path)?;
        let record = Record::read(&lock_file);
        if record.is_none() && lock_file.metadata().is_ok_and(|meta| meta.len() > 0) {
            warn!(
                "{} says nothing that the server knows, so the messages have a new epoch; clients are \
                 sent whole histories",
                path_beside(path, "lock").display()
            );
        }
        let file = Arc::new(open(path).map_err(unusable)?);
        // Without a record, no server has written to this file.
        let synced = record.as_ref().map_or(u64::MAX, Record::bytes);
        let end = recover(path, &file, line_limit(max_message)).map_err(failed)?;
        if fsync != Fsync::Never {
            let perhaps = perhaps_unsynced(synced, end, line_limit(max_message));
            bring_to_disk(path, &file, perhaps).map_err(failed)?;
        }
        let history = History::load(file.clone(), end, line_limit(max_message)).map_err(failed)?;
        if let Some((holes, first_id)) = history.unexplained_holes() {
            let path = path.display();
            warn!(
                "{path}: line {first_id} holds no message and is skipped; {holes} such lines in all"
            );
        }
        let epoch = Epoch::open(lock_file, record, &file, &history).map_err(failed)?;
        let identity = identity(&file.metadata().map_err(failed)?);
        let landmark = Landmark::read(&file, end).map_err(failed)?;
        let journal = Journal {
            path: path.to_owned(),
            file,
            system: Box::new(system::Real),
            identity,
            epoch,
            stamps: None,
            fsync,
            committed_end: end,
            landmark,
            shortage: None,
            unerased: Vec::new(),
            has_warned_of_unerased: false,
            has_warned_of_name: false,
            has_warned_of_note: false,
            has_warned_of_lock: false,
            announced: None,
            unsynced_since: None,
        };
        Ok((journal, history))
    }
}

/// Refuses a file that stores nothing. To open a FIFO would even wait without end.
fn refuse_irregular(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(()),
        Ok(meta) if meta.is_dir() => Err(io::Error::other("is a directory, not a text file")),
        Ok(_) => Err(io::Error::other("is not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Refuses a symbolic link, which could lead out of the folder.
fn refuse_link(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_symlink() {
        true => Err(io::Error::other("is a symbolic link, not a text file")),
        false => Ok(()),
    }
}

/// Opens a file, unless a link took its place after it was looked at.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    OpenOptions::new().read(true).append(true).custom_flags(flags).open(path)
}

/// Takes the lock, on a file of its own that is never deleted: if a locked file were deleted, a
/// second server could create and lock another one of the same name.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = path_beside(path, "lock");
    let deadline = Instant::now() + LOCK_TIME;
    let locked = loop {
        match take_lock(&lock_path) {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_LOOK),
            locked => break locked,
        }
    };
    locked.map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::InUse(path.to_owned()),
        TryLockError::Error(error) if error.kind() == io::ErrorKind::NotFound => {
            OpenError::NoFolder(path.to_owned())
        }
        TryLockError::Error(error) => OpenError::Lock(lock_path, error),
    })
}

/// Opens or creates a lock file, and takes the lock on it.
pub(super) fn take_lock(lock_path: &Path) -> Result<File, TryLockError> {
    refuse_irregular(lock_path).map_err(TryLockError::Error)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let lock_file = options.open(lock_path).map_err(TryLockError::Error)?;
    lock_file.try_lock()?;
    Ok(lock_file)
}

fn open_or_create(path: &Path) -> io::Result<File> {
    let open = |create| OpenOptions::new().read(true).append(true).create_new(create).open(path);
    match open(false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let file = open(true)?;
    file.sync_all()?;
    sync_folder_of(path)?;
    Ok(file)
}

/// Makes an empty file, and its folder when that is missing; all of it is on disk afterwards.
///
/// # Errors
/// When there is a file of that name, or none can be made.
pub fn create(path: &Path) -> io::Result<()> {
    let folder = path.parent().expect("a channel's file is in a folder");
    match fs::create_dir(folder) {
        Ok(()) => sync_folder_of(folder)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    OpenOptions::new().append(true).create_new(true).open(path)?.sync_all()?;
    sync_folder_of(path)
}

/// Makes the file end with a whole line; returns its length in bytes.
fn recover(path: &Path, file: &File, line_limit: usize) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let whole = end_of_whole_lines(file, size)?;
    if whole == size { Ok(size) } else { mend_tail(path, file, whole, size, line_limit) }
}

/// Syncs the file, after the part of it that an earlier sync may have missed was written again.
fn bring_to_disk(path: &Path, file: &File, perhaps_unsynced: Range<u64>) -> io::Result<()> {
    match rewrite(path, file, perhaps_unsynced) {
        Err(error) if is_full(&error) || is_denied(&error) => {
            warn!("{}: {error}; could not write the end of the file again", path.display());
        }
        result => result?,
    }
    file.sync_data()
}

/// The part of the file that can be read from memory but may not be on disk, after a sync that failed:
/// the lines that came after the length that the lock file tells of (`synced`), but at most one batch
/// of the hub. The last post of a batch is no longer than a line may be.
fn perhaps_unsynced(synced: u64, end: u64, line_limit: usize) -> Range<u64> {
    let batch = REWRITE_BYTES + line_limit as u64;
    synced.clamp(end.saturating_sub(batch), end.saturating_sub(REWRITE_BYTES))..end
}

fn rewrite(path: &Path, file: &File, range: Range<u64>) -> io::Result<()> {
    let in_place = open_in_place(&mut system::Real, path, identity(&file.metadata()?))?;
    let mut block = vec![0; (range.end - range.start).min(REWRITE_BYTES) as usize];
    for from in range.clone().step_by(REWRITE_BYTES as usize) {
        let part = &mut block[..(range.end - from).min(REWRITE_BYTES) as usize];
        file.read_exact_at(part, from)?;
        in_place.write_all_at(part, from)?;
    }
    Ok(())
}

/// The offset after the last `\n` before `size`.
pub(super) fn end_of_whole_lines(file: &File, size: u64) -> io::Result<u64> {
    let mut block = vec![0; BLOCK.min(size as usize)];
    let mut end = size;
    while end > 0 {
        let from = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - from) as usize];
        file.read_exact_at(part, from)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

/// Repairs a file whose last line has no `\n`; returns its length. If that line is a message, or an
/// erased one, an editor left it so, and it gets its `\n`, now or when there is room. If not, it is
/// torn, and moves to a file beside. A crash may leave the beginning of a JSON object, which never
/// parses, so it is never taken for a message.
fn mend_tail(
    path: &Path,
    file: &File,
    whole: u64,
    size: u64,
    line_limit: usize,
) -> io::Result<u64> {
    let len = size - whole;
    if len <= line_limit as u64 {
        let mut tail = vec![0; len as usize];
        file.read_exact_at(&mut tail, whole)?;
        let text = if whole == 0 { tail.strip_prefix(BOM).unwrap_or(&tail) } else { &tail };
        if message::is_json(text) {
            return match (&*file).write_all(b"\n") {
                Ok(()) => {
                    info!("{}: the last line had no end; the server added it", path.display());
                    Ok(size + 1)
                }
                // As below: it is a message when it has its `\n`.
                Err(error) if is_full(&error) => {
                    warn!(
                        "{}: the last line has no end, and no room for it: {error}",
                        path.display()
                    );
                    Ok(whole)
                }
                Err(error) => Err(error),
            };
        }
    }
    match move_tail(path, file, whole, size) {
        Ok(saved) => warn!(
            "{}: the last {len} bytes were no whole line; the server moved them to {}",
            path.display(),
            saved.display()
        ),
        // The bytes stay where they are, and get their `\n` before the next line is written.
        Err(error) => warn!(
            "{}: the last {len} bytes are no whole line and could not be moved: {error}",
            path.display()
        ),
    }
    Ok(whole)
}

/// Moves the bytes after the whole lines to a file beside.
pub(super) fn move_tail(path: &Path, file: &File, whole: u64, size: u64) -> io::Result<PathBuf> {
    let saved = save_part(path, "torn", file, whole..size)?;
    if let Err(error) = file.set_len(whole) {
        // They are still where they were, and each start would leave one more copy of them.
        let _ = fs::remove_file(&saved);
        return Err(error);
    }
    Ok(saved)
}

#[cfg(test)]
mod tests;
