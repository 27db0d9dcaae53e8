//! The text file as a copy of an order that is decided elsewhere: nothing but the hub appends to it.
//!
//! What other programs append all the same has no number. It is moved to the inbox, `messages.txt.in`,
//! to be posted; what has forked from the order is moved to a file beside. Both are on disk before
//! anything is cut off the file.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use data_encoding::HEXLOWER;
use log::{info, warn};

use super::{
    Fatal, Journal,
    beside::{copy_part, create_beside, folder_of, path_beside, sync_folder_of},
    epoch::Record,
    recovery::{end_of_whole_lines, lock, move_tail},
};
use crate::{history::History, lines::read_at};

/// What is read at a time, in bytes.
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
        self.epoch.note_before(id, offset, u64::MAX, &self.file)?;
        match how {
            SetAside::ForPosting => self.move_to_inbox(offset),
            SetAside::Forked => {
                let (path, mut aside) = create_beside(&self.path, "forked")?;
                let size = self.file.metadata()?.len();
                copy_part(&self.file, offset..size, &mut aside)?;
                aside.sync_all()?;
                sync_folder_of(&self.path)?;
                self.file.set_len(offset)?;
                self.file.sync_data()?;
                Ok(path)
            }
        }
    }

    /// Moves what stands after the committed end to the inbox: whole lines, and with
    /// [`Torn::MovesToo`] also the beginning of a line.
    ///
    /// # Errors
    /// When that fails.
    pub fn clear_after(&mut self, committed_end: u64, torn: Torn) -> Result<(), Fatal> {
        let clear = || {
            let size = self.file.metadata()?.len();
            let whole = end_of_whole_lines(&self.file, size)?.max(committed_end);
            if whole == size || torn == Torn::MovesToo {
                self.move_to_inbox(committed_end)?;
            }
            Ok(())
        };
        clear().map_err(Fatal::Storage)
    }

    /// Puts the file away as [`Journal::put_away`] does, and with it what lies beside it to be posted:
    /// a channel that is made later under its name has nothing of it, and another epoch.
    ///
    /// # Errors
    /// As with [`Journal::put_away`].
    pub fn put_away_copy(&mut self) -> io::Result<PathBuf> {
        let away = self.put_away()?;
        let done = take_along(&self.path, &away).and_then(|()| self.forget_epoch());
        if let Err(error) = done {
            warn!("{}: not all was put away along with it: {error}", self.path.display());
        }
        Ok(away)
    }

    /// Moves all bytes from `offset` on to a file that is to be posted. A crash leaves them in one of
    /// both: in the file until they are on disk elsewhere, under a name that says where they were.
    fn move_to_inbox(&self, offset: u64) -> io::Result<PathBuf> {
        let moving = path_beside(&self.path, &format!("{MOVING}{offset}"));
        let mut out = File::create(&moving)?;
        let mut copied = offset;
        loop {
            let size = self.file.metadata()?.len();
            if size == copied {
                break;
            }
            copy_part(&self.file, copied..size, &mut out)?;
            out.sync_all()?;
            sync_folder_of(&self.path)?;
            copied = size;
        }
        // Between this look and the cut, a line could be lost: that is why the inbox itself is the
        // better place for other programs.
        self.file.set_len(offset)?;
        self.file.sync_data()?;
        hand_in(&self.path, &moving)
    }
}

/// Gives what lies beside a text file and belongs to it the names that belong to `away`.
fn take_along(path: &Path, away: &Path) -> io::Result<()> {
    let begin = path.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    for entry in fs::read_dir(folder_of(path))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(ending) = name.strip_prefix(&begin) else { continue };
        let is_inbox = ending == "in" || ending.starts_with("in-") || ending.starts_with(MOVING);
        if is_inbox || ending == "stamps" {
            fs::rename(entry.path(), path_beside(away, ending))?;
        }
    }
    sync_folder_of(path)
}

/// The ending of a file that holds lines on their way to the inbox, before the offset they were at.
const MOVING: &str = "moving-";

/// Does again what a crash left undone when lines were moved to the inbox.
fn finish_moving(path: &Path) -> io::Result<()> {
    let begin = path_beside(Path::new(path.file_name().unwrap_or_default()), MOVING);
    let begin = begin.to_string_lossy().into_owned();
    for entry in fs::read_dir(folder_of(path))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(offset) = name.strip_prefix(&begin).and_then(|offset| offset.parse().ok()) else {
            continue;
        };
        let moving = entry.path();
        let bytes = fs::read(&moving)?;
        // They were cut off only after all of them had been copied.
        let mut there = vec![0; bytes.len()];
        let is_there = File::open(path)
            .and_then(|file| file.read_exact_at(&mut there, offset))
            .is_ok_and(|()| there == bytes);
        match is_there {
            true => fs::remove_file(&moving)?,
            false => drop(hand_in(path, &moving)?),
        }
    }
    Ok(())
}

/// What the name of a file ends with whose writers may still have it open.
pub const OPEN: &str = "-open";

/// Gives a file a name under which it is posted, once: `NAME.in-` and digits. These names sort by time,
/// and no two are the same. Nobody may write to the file any more.
///
/// # Errors
/// When the file cannot be renamed, or the system has no random bytes.
fn hand_in(path: &Path, file: &Path) -> io::Result<PathBuf> {
    let taken = name_to_post(path, "")?;
    fs::rename(file, &taken)?;
    sync_folder_of(path)?;
    Ok(taken)
}

/// Gives the inbox a second name, under which it is posted; its writers go on. Where the file system
/// allows none, it loses its own.
///
/// # Errors
/// When it cannot be renamed, or the system has no random bytes.
pub fn take_inbox(path: &Path) -> io::Result<PathBuf> {
    let (inbox, taken) = (path_beside(path, "in"), name_to_post(path, OPEN)?);
    if fs::hard_link(&inbox, &taken).is_err() {
        return hand_in_open(path, &inbox);
    }
    sync_folder_of(path)?;
    Ok(taken)
}

/// Gives a file another name under which it is posted, though its writers may go on.
///
/// # Errors
/// When the file cannot be renamed, or the system has no random bytes.
pub fn hand_in_open(path: &Path, file: &Path) -> io::Result<PathBuf> {
    let taken = name_to_post(path, OPEN)?;
    fs::rename(file, &taken)?;
    sync_folder_of(path)?;
    Ok(taken)
}

fn name_to_post(path: &Path, end: &str) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut name = [0; 12];
    getrandom::fill(&mut name[8..]).map_err(io::Error::other)?;
    name[..8].copy_from_slice(&(now.as_nanos() as u64).to_be_bytes());
    Ok(path_beside(path, &format!("in-{}{end}", HEXLOWER.encode(&name))))
}

/// Whether the beginning of a line that has no end yet is moved, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Torn {
    /// Its writer may end it in a moment.
    Waits,
    /// A line of ours must stand there.
    MovesToo,
}

/// Prepares a copy to be opened: lines that were on their way to the inbox come there, and what a crash
/// left of a last line is cut off, since the order has it whole. Nothing is done to a file that another
/// server uses, or that is not there.
///
/// # Errors
/// When the file or its folder cannot be read or written.
pub fn mend_copy(path: &Path) -> io::Result<()> {
    let Ok(_lock) = lock(path) else { return Ok(()) };
    finish_moving(path)?;
    let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { return Ok(()) };
    let size = file.metadata()?.len();
    let whole = end_of_whole_lines(&file, size)?;
    if whole < size {
        let saved = move_tail(path, &file, whole, size)?;
        info!("{}: the last line had no end; it is in {}", path.display(), saved.display());
    }
    Ok(())
}

/// The epoch of the file when a server had it last; `None` when none had.
pub fn noted_epoch(path: &Path) -> Option<String> {
    let lock_file = File::open(path_beside(path, "lock")).ok()?;
    Record::read(&lock_file).map(|record| record.epoch().to_owned())
}

/// How many lines have a stamp, as the file beside says; `None` where there is none, or where a power
/// cut may have taken stamps of lines that it did not take.
pub fn stamped_lines(path: &Path) -> Option<u64> {
    if is_as_a_power_cut_left_it(path) {
        return None;
    }
    let file = File::open(path_beside(path, "stamps")).ok()?;
    let size = file.metadata().ok()?.len();
    let (mut lines, mut offset, mut space) = (0, 0, vec![0; BLOCK]);
    while offset < size {
        let got = read_at(&file, &mut space, offset).ok()?;
        lines += memchr::memchr_iter(b'\n', &space[..got]).count() as u64;
        offset += got as u64;
    }
    Some(lines)
}

/// Whether no server has ended in order since one wrote to the file, and nobody has written to it since
/// the machine was started: then all its lines are that server's, but for what others appended in its last
/// second.
fn is_as_a_power_cut_left_it(path: &Path) -> bool {
    let record = File::open(path_beside(path, "lock")).ok().and_then(|file| Record::read(&file));
    let written = fs::metadata(path).and_then(|meta| meta.modified());
    record.is_some_and(|record| record.is_of_a_run_that_goes_on())
        && written.is_ok_and(|written| start_of_machine().is_some_and(|start| written < start))
}

/// When the machine was started; `None` where the system does not say it.
fn start_of_machine() -> Option<SystemTime> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    SystemTime::now().checked_sub(Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests;
