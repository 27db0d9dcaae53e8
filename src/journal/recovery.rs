//! Opening the text file: the lock first, then whatever a crash or an editor left is made whole.
//!
//! Nothing that could be a message is deleted, no state of the file stops the start, and nothing is
//! changed before the lock is held. Afterwards the file ends with a whole line, and every line is
//! on disk, even one that a failed sync had left readable in memory alone.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use log::{info, warn};

use super::{
    Journal, create_beside,
    epoch::{Epoch, Record},
    identity, open_in_place, path_beside, sync_folder_of, system,
};
use crate::{
    config::Fsync,
    history::{BOM, History},
    lines::{line_limit, read_at},
    message,
};

/// How much of the file's end is written again at each start, at the least, which takes some 3 ms.
/// It is also the most that a batch of the hub holds before its last post.
pub const REWRITE: u64 = 1 << 20;

/// Read at a time where the end of the file is looked through.
const BLOCK: usize = 64 << 10;

/// Why the file cannot be served.
#[derive(Debug)]
pub enum OpenError {
    /// It is not a file that the server can use: a directory, a device, a file without permission.
    Unusable(PathBuf, io::Error),
    /// Another server uses it.
    InUse(PathBuf),
    /// Reading, writing or syncing it failed.
    Failed(PathBuf, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Unusable(path, why) => {
                write!(out, "{}: {why}; name a text file with --file", path.display())
            }
            OpenError::InUse(path) => write!(
                out,
                "{} is in use by another server (it holds {}); stop that one or choose another \
                 --file",
                path.display(),
                path_beside(path, "lock").display()
            ),
            OpenError::Failed(path, why) => write!(out, "{}: {why}", path.display()),
        }
    }
}

impl Journal {
    /// Takes the lock, creates or repairs the file, reads and validates all of it.
    ///
    /// Afterwards every line in it is whole and on disk.
    ///
    /// # Errors
    /// When another server uses the file, or the file is unusable: then nothing in it was changed.
    /// When reading, writing or syncing it fails: then it may have been repaired in part.
    pub fn open(
        path: &Path,
        fsync: Fsync,
        max_message: usize,
    ) -> Result<(Journal, History), OpenError> {
        let unusable = |why| OpenError::Unusable(path.to_owned(), why);
        // The lock file stands beside the file itself, so that two names of one file meet there.
        let path = &match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
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
        let file = Arc::new(open(path).map_err(unusable)?);
        // Without a record no server wrote to this file.
        let synced = record.as_ref().map_or(u64::MAX, Record::bytes);
        let end = recover(path, &file, synced, line_limit(max_message)).map_err(failed)?;
        let history = History::load(file.clone(), end, line_limit(max_message)).map_err(failed)?;
        if let Some((holes, first_id)) = history.holes() {
            warn!("line {first_id} holds no message and is skipped; {holes} such lines in all");
        }
        let epoch = Epoch::open(lock_file, record, &file, &history).map_err(failed)?;
        let identity = identity(&file.metadata().map_err(failed)?);
        let journal = Journal {
            path: path.to_owned(),
            file,
            system: Box::new(system::Real),
            identity,
            epoch,
            fsync,
            committed_end: end,
            shortage: None,
            unsynced_since: None,
        };
        Ok((journal, history))
    }
}

/// A FIFO would be waited for without end when it is opened, and a device stores nothing.
fn refuse_irregular(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(()),
        Ok(meta) if meta.is_dir() => Err(io::Error::other("is a directory, not a text file")),
        Ok(_) => Err(io::Error::other("is not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A link could lead out of the folder.
fn refuse_link(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_symlink() {
        true => Err(io::Error::other("is a symbolic link, not a text file")),
        false => Ok(()),
    }
}

/// Also when a link took the place of the file after it was looked at.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    OpenOptions::new().read(true).append(true).custom_flags(flags).open(path)
}

/// The lock is held on a file of its own that is never deleted: deleting a locked file would let a
/// second server create and lock another one of the same name.
fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = path_beside(path, "lock");
    let unusable = |why| OpenError::Unusable(lock_path.clone(), why);
    refuse_irregular(&lock_path).map_err(unusable)?;
    let lock_file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(unusable)?;
    match lock_file.try_lock() {
        Ok(()) => Ok(lock_file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
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

/// Makes the file end with a whole line that is on disk; returns its length. `synced` is how far
/// the lock file says that a server came.
fn recover(path: &Path, file: &File, synced: u64, line_limit: usize) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let whole = end_of_whole_lines(file, size)?;
    let end = if whole == size { size } else { mend_tail(path, file, whole, size, line_limit)? };
    match rewrite(path, file, perhaps_unsynced(synced, end, line_limit)) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
            warn!("{}: {error}; could not write the end of the file again", path.display());
        }
        result => result?,
    }
    file.sync_data()?;
    Ok(end)
}

/// The part of the file that may be readable in memory and yet not on disk, after a sync that
/// failed: what came after the lock file was written, at most one batch of the hub. No post is
/// longer than a line may be.
fn perhaps_unsynced(synced: u64, end: u64, line_limit: usize) -> Range<u64> {
    let batch = REWRITE + line_limit as u64;
    synced.clamp(end.saturating_sub(batch), end.saturating_sub(REWRITE))..end
}

fn rewrite(path: &Path, file: &File, range: Range<u64>) -> io::Result<()> {
    let in_place = open_in_place(path, identity(&file.metadata()?))?;
    let mut block = vec![0; (range.end - range.start).min(REWRITE) as usize];
    for from in range.clone().step_by(REWRITE as usize) {
        let part = &mut block[..(range.end - from).min(REWRITE) as usize];
        file.read_exact_at(part, from)?;
        in_place.write_all_at(part, from)?;
    }
    Ok(())
}

/// The offset behind the last `\n` before `size`.
fn end_of_whole_lines(file: &File, size: u64) -> io::Result<u64> {
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

/// Mends a tail without `\n`. If it is a message, an editor left it so, and it gets its `\n`. If
/// not, it is torn, and moves to a file beside. A proper prefix of a JSON object never parses, so
/// what a crash left of one is never taken for a message.
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
        if message::on_line(text).is_some() {
            (&*file).write_all(b"\n")?;
            info!("{}: the last line had no end; the server added it", path.display());
            return Ok(size + 1);
        }
    }
    match save_tail(path, file, whole, size) {
        Ok(saved) => {
            file.set_len(whole)?;
            warn!(
                "{}: the last {len} bytes were no whole line; the server moved them to {}",
                path.display(),
                saved.display()
            );
        }
        // They stay where they are, and get an end before the next line is written.
        Err(error) => warn!(
            "{}: the last {len} bytes are no whole line and could not be saved: {error}",
            path.display()
        ),
    }
    Ok(whole)
}

fn save_tail(path: &Path, file: &File, whole: u64, size: u64) -> io::Result<PathBuf> {
    let (saved, mut copy) = create_beside(path, "torn")?;
    let mut from = whole;
    let mut block = vec![0; BLOCK.min((size - whole) as usize)];
    while from < size {
        let want = block.len().min((size - from) as usize);
        let got = read_at(file, &mut block[..want], from)?;
        copy.write_all(&block[..got])?;
        from += got as u64;
    }
    copy.sync_all()?;
    Ok(saved)
}

#[cfg(test)]
mod tests;
