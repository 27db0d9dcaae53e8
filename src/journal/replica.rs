//! The text file as a copy of an order that is decided elsewhere: nothing but the hub appends to it.
//!
//! What other programs append all the same has no number. It is moved to the inbox, `messages.txt.in`,
//! to be posted; what has forked from the order is moved to a file beside. Both are on disk before
//! anything is cut off the file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use log::{info, warn};

use super::{
    Fatal, Journal, create_beside,
    epoch::Record,
    identity, path_beside,
    recovery::{end_of_whole_lines, lock, save_tail},
    sync_folder_of,
};
use crate::{history::History, lines::read_at};

/// What is read or copied at a time, in bytes.
const BLOCK: usize = 1 << 20;

/// Where lines are set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAside {
    /// In the inbox.
    ForPosting,
    /// In a file of their own, `NAME.forked-` and the time in Unix milliseconds.
    Forked,
}

impl Journal {
    /// Numbers the lines under another epoch from now on. It is on disk afterwards.
    ///
    /// # Errors
    /// When the lock file cannot be written.
    pub fn take_epoch(&mut self, name: Arc<str>, history: &History) -> io::Result<()> {
        self.epoch.rename(name);
        self.epoch.note(&self.file, history)?;
        self.epoch.sync()
    }

    /// Sets the lines aside from line `id` on, which begins at `offset`, and cuts them off the file. The
    /// file must be opened again afterwards. Returns where the lines are.
    ///
    /// # Errors
    /// When they cannot be written elsewhere; the file is as it was then.
    pub fn set_aside(&mut self, how: SetAside, id: u64, offset: u64) -> io::Result<PathBuf> {
        let size = self.file.metadata()?.len();
        let path = match how {
            SetAside::ForPosting => append_to_inbox(&self.path, &self.file, offset, size)?,
            SetAside::Forked => {
                let (path, mut aside) = create_beside(&self.path, "forked")?;
                copy(&self.file, offset, size, &mut aside)?;
                aside.sync_all()?;
                sync_folder_of(&self.path)?;
                path
            }
        };
        self.epoch.note_before(id, offset, u64::MAX, &self.file)?;
        self.file.set_len(offset)?;
        self.file.sync_data()?;
        Ok(path)
    }

    /// Moves what stands after the committed end to the inbox: whole lines, and with `torn` also the
    /// beginning of a line, which goes to a file of its own. How many bytes are left after the committed
    /// end.
    ///
    /// # Errors
    /// When that fails.
    pub fn clear_after(&mut self, committed_end: u64, torn: Torn) -> Result<u64, Fatal> {
        let clear = || {
            let size = self.file.metadata()?.len();
            let whole = end_of_whole_lines(&self.file, size)?.max(committed_end);
            if whole == size || torn == Torn::MovesToo {
                self.move_after(committed_end, whole, size)?;
            }
            Ok(self.file.metadata()?.len().saturating_sub(committed_end))
        };
        clear().map_err(Fatal::Storage)
    }

    fn move_after(&self, end: u64, whole: u64, size: u64) -> io::Result<()> {
        if end < whole {
            append_to_inbox(&self.path, &self.file, end, whole)?;
        }
        if whole < size {
            let path = save_tail(&self.path, &self.file, whole, size)?;
            warn!("a line that another program had begun was moved to {}", path.display());
        }
        // What came meanwhile is moved the next time; an instant remains in which it could be lost,
        // which is why the inbox itself is the better place.
        if end < size && self.file.metadata()?.len() == size {
            self.truncate(end)?;
        }
        Ok(())
    }
}

/// Whether the beginning of a line that has no end yet is moved, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Torn {
    /// Its writer may end it in a moment.
    Waits,
    /// A line of ours must stand there.
    MovesToo,
}

/// Cuts off what a crash left of a last line: the order has it whole.
///
/// # Errors
/// When the file cannot be read or written.
pub fn cut_torn_tail(path: &Path) -> io::Result<()> {
    let Ok(_lock) = lock(path) else { return Ok(()) };
    let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { return Ok(()) };
    let size = file.metadata()?.len();
    let whole = end_of_whole_lines(&file, size)?;
    if whole < size {
        let saved = save_tail(path, &file, whole, size)?;
        file.set_len(whole)?;
        info!("{}: the last line had no end; it is in {}", path.display(), saved.display());
    }
    Ok(())
}

/// The epoch of the file when a server had it last; `None` when none had.
pub fn noted_epoch(path: &Path) -> Option<String> {
    let lock_file = File::open(path_beside(path, "lock")).ok()?;
    Record::read(&lock_file).map(|record| record.epoch().to_owned())
}

/// How many lines have a stamp, as the file beside says; `None` where there is none.
pub fn stamped_lines(path: &Path) -> Option<u64> {
    let file = File::open(path_beside(path, "stamps")).ok()?;
    let (mut lines, mut offset, mut space) = (0, 0, vec![0; BLOCK]);
    loop {
        match read_at(&file, &mut space, offset).ok()? {
            0 => return Some(lines),
            got => {
                lines += memchr::memchr_iter(b'\n', &space[..got]).count() as u64;
                offset += got as u64;
            }
        }
    }
}

/// Appends a part of a file to its inbox, which is on disk afterwards.
fn append_to_inbox(path: &Path, file: &File, from: u64, to: u64) -> io::Result<PathBuf> {
    let inbox = path_beside(path, "in");
    loop {
        let mut out = OpenOptions::new().append(true).create(true).open(&inbox)?;
        // Who posts the inbox gives it another name first, and waits for the lock.
        out.lock()?;
        let there = std::fs::metadata(&inbox);
        if !there
            .is_ok_and(|there| out.metadata().is_ok_and(|own| identity(&own) == identity(&there)))
        {
            continue;
        }
        copy(file, from, to, &mut out)?;
        out.sync_all()?;
        sync_folder_of(path)?;
        return Ok(inbox);
    }
}

fn copy(file: &File, from: u64, to: u64, out: &mut File) -> io::Result<()> {
    let mut space = vec![0; (to - from).min(BLOCK as u64) as usize];
    let mut at = from;
    while at < to {
        let part = &mut space[..(to - at).min(BLOCK as u64) as usize];
        file.read_exact_at(part, at)?;
        out.write_all(part)?;
        at += part.len() as u64;
    }
    Ok(())
}
