//! The stamps file beside the text file, as the journal writes it; `crate::stamps` reads it.
//!
//! Its line N describes line N of the text file, so it must be known for which text each line was
//! written. The record in the lock file says so (`epoch.rs`): beside how far the text has come, it
//! has a [`Note`] of how far the stamps have come. `stamps/note.rs` tells which lines are believed by
//! it. So a stamp may be missing, but it is never taken for another line's.
//!
//! The hub writes stamps after their lines and before anybody is shown these. A message whose stamp
//! finds no room is refused. The lines that other programs append stay, and have no stamp then.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use log::{info, warn};

use super::{
    beside::{copy_part, create_beside, path_beside, rename_beside, save_part, sync_folder_of},
    epoch::FormerStamps,
    identity,
    overwriting::Overwriting,
    shortage::is_full,
    system::System,
};
use crate::{
    lines::{Line, LineFinder, Lines, read_at},
    stamps::{Index, NOTHING, erase_sender},
};

mod note;

pub(crate) use note::boot;
use note::{Believed, Run};
pub(super) use note::{Note, Unsynced};

/// How many bytes are copied or written at a time: enough that the calls cost little.
const BLOCK: usize = 64 << 10;

/// How many bytes are read to find one stamp: about as far as two remembered offsets are apart.
const READ: usize = 8 << 10;

/// No line that is longer is a stamp.
const LINE_LIMIT: usize = 1 << 10;

/// The stamps file, open for writing.
#[derive(Debug)]
pub(super) struct StampFile {
    /// The path of the text file.
    text: PathBuf,
    path: PathBuf,
    file: Arc<File>,
    index: Index,
    /// How many lines of the text come after the last one that has a stamp.
    missing: u64,
    boot: Option<String>,
    text_identity: (u64, u64),
    /// The time of the oldest write that has not been synced.
    pub(super) unsynced_since: Option<Instant>,
}

impl StampFile {
    /// Opens or creates the file, and makes it fit a text of `lines` lines. `note` is what the lock
    /// file says of it, and of stamps after that; `None` when the text has begun a new epoch, of whose
    /// first lines there may be `former` stamps.
    ///
    /// # Errors
    /// When there is something else in the file's place, or it cannot be read or written. What stood
    /// in it is still there then, perhaps under another name.
    pub(super) fn open(
        text: &Path,
        text_identity: (u64, u64),
        lines: u64,
        note: Option<(&Note, Option<Unsynced>)>,
        former: Option<&FormerStamps>,
        boot: Option<&str>,
    ) -> io::Result<StampFile> {
        let path = path_beside(text, "stamps");
        let mut stamps = StampFile {
            text: text.to_owned(),
            file: Arc::new(open_or_create(&path)?),
            path,
            index: Index::default(),
            missing: 0,
            boot: boot.map(str::to_owned),
            text_identity,
            unsynced_since: None,
        };
        let len = stamps.file.metadata()?.len();
        let believed = match note {
            Some((note, _)) => note.believed(&stamps.file, len)?,
            None => Believed::None,
        };
        match (believed, note) {
            (Believed::All, Some((note, unsynced))) => {
                let known = match unsynced {
                    _ if note.run.is_believed_by(&stamps.run()?) => lines,
                    Some(unsynced) if unsynced.is_in(&stamps.file, len, note)? => unsynced.lines,
                    _ => note.lines,
                };
                stamps.read_believed(len, known.min(lines))?;
                stamps.write_again(note.bytes)?;
            }
            (Believed::Some(believed), _) => stamps.read_believed(len, believed.min(lines))?,
            _ if len == 0 => {}
            _ => stamps.begin_anew(len, former)?,
        }
        stamps.missing = lines - stamps.index.lines();
        Ok(stamps)
    }

    /// Takes in the stamps of the first `most` lines, and cuts off the others.
    fn read_believed(&mut self, len: u64, most: u64) -> io::Result<()> {
        self.index.read_on(&self.file, len, most)?;
        let surplus = len - self.index.end();
        if surplus == 0 {
            return Ok(());
        }
        let words = "describe no line of the text that is known";
        match save_part(&self.text, "stamps.torn", &self.file, self.index.end()..len) {
            Ok(saved) => warn!(
                "{}: the last {surplus} bytes {words}; the server moved them to {}",
                self.path.display(),
                saved.display()
            ),
            Err(error) => warn!(
                "{}: the last {surplus} bytes {words}; the server cut them off, and could not \
                 save them: {error}",
                self.path.display()
            ),
        }
        self.file.set_len(self.index.end())
    }

    /// Writes the stamps from an offset on once more, so that the next sync brings them to the disk:
    /// a sync that failed may have left them in memory alone.
    fn write_again(&mut self, start: u64) -> io::Result<()> {
        let mut block = vec![0; BLOCK.min(self.index.end().saturating_sub(start) as usize)];
        let mut from = start;
        while from < self.index.end() {
            let want = block.len().min((self.index.end() - from) as usize);
            let got = read_at(&self.file, &mut block[..want], from)?;
            self.file.write_all_at(&block[..got], from)?;
            from += got as u64;
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Sets aside a file of `len` bytes that describes another text, and begins a new one, with the
    /// stamps of the lines that both texts begin with.
    fn begin_anew(&mut self, len: u64, former: Option<&FormerStamps>) -> io::Result<()> {
        let known = match former {
            Some(FormerStamps { note, lines }) => {
                note.believed(&self.file, len)?.lines(note).min(*lines)
            }
            None => 0,
        };
        let old = self.set_aside()?;
        let mut new = open_or_create(&self.path)?;
        self.index.read_on(&self.file, len, known)?;
        match copy_part(&self.file, 0..self.index.end(), &mut new) {
            Err(error) if is_full(&error) => {
                new.set_len(0)?;
                self.index = Index::default();
            }
            copied => copied?,
        }
        self.unsynced_since = Some(Instant::now());
        self.file = Arc::new(new);
        let words = match self.index.lines() {
            0 => String::new(),
            known => format!(", and kept the stamps of the first {known} lines"),
        };
        warn!(
            "{} was not written for this text; the server moved it to {}{words}",
            self.path.display(),
            old.display()
        );
        Ok(())
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        rename_beside(&self.path, &self.text, "stamps.old")
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// How many lines of the text there are.
    pub(super) fn text_lines(&self) -> u64 {
        self.index.lines() + self.missing
    }

    /// Counts lines of the text that get no stamp.
    pub(super) fn leave_out(&mut self, lines: u64) {
        self.missing += lines;
    }

    /// Writes the file again if another program has cut it, so that stamps can be written and read.
    ///
    /// # Errors
    /// When it cannot be written again. The open file is as it was then.
    pub(super) fn restore_if_cut(&mut self) -> io::Result<()> {
        match self.file.metadata()?.len() < self.index.end() {
            true => self.restore("cut"),
            false => Ok(()),
        }
    }

    /// Appends whole stamps to a file that was not cut. The lines before that have none are filled up.
    ///
    /// # Errors
    /// When they could not all be written; then none of them is in the file.
    pub(super) fn append(&mut self, stamps: &[u8], system: &mut dyn System) -> io::Result<()> {
        self.fill_up(system)?;
        self.write(stamps, system)
    }

    /// Writes `- -` for all lines that have no stamp.
    pub(super) fn fill_up(&mut self, system: &mut dyn System) -> io::Result<()> {
        const AT_ONCE: u64 = (BLOCK / NOTHING.len()) as u64;
        while self.missing > 0 {
            let lines = self.missing.min(AT_ONCE);
            self.write(&NOTHING.repeat(lines as usize), system)?;
            self.missing -= lines;
        }
        Ok(())
    }

    fn write(&mut self, stamps: &[u8], system: &mut dyn System) -> io::Result<()> {
        let start = self.index.end();
        let mut rest = stamps;
        while !rest.is_empty() {
            let at = start + (stamps.len() - rest.len()) as u64;
            let error = match system.write_at(&self.file, rest, at) {
                Ok(0) => io::Error::from_raw_os_error(libc::ENOSPC),
                Ok(count) => {
                    rest = &rest[count.min(rest.len())..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            self.file.set_len(start)?;
            return Err(error);
        }
        self.index.take_in(stamps);
        if !stamps.is_empty() {
            self.unsynced_since.get_or_insert(system.now());
        }
        Ok(())
    }

    /// Erases the senders of these lines; they are on disk afterwards.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(super) fn erase_senders(
        &mut self,
        ids: impl Iterator<Item = u64>,
        system: &mut dyn System,
    ) -> io::Result<()> {
        let mut finder = LineFinder::default();
        let mut overwriting = Overwriting::new(&self.file, system);
        let mut is_changed = false;
        for id in ids {
            let Some((near_id, near)) = self.index.near_offset(id) else { continue };
            let end = self.index.end();
            let begin = || (near_id, Lines::new(&self.file, near, end, READ, LINE_LIMIT));
            let (offset, Some(Line::Whole(line))) = finder.find(id, begin)? else { continue };
            let mut line = line.to_vec();
            if erase_sender(&mut line) {
                overwriting.push(offset, &line)?;
                is_changed = true;
            }
        }
        overwriting.finish()?;
        if is_changed {
            system.sync(&self.file)?;
        }
        Ok(())
    }

    /// Brings the file to the disk; returns the note of it, or `None` while the file is shorter than
    /// what was written, since another program has cut it. `ends` says whether the run ends with this.
    pub(super) fn sync(&mut self, ends: RunEnds) -> io::Result<Option<Note>> {
        if self.unsynced_since.take().is_some() {
            self.file.sync_data()?;
        }
        let run = match ends {
            RunEnds::Now => Run::default(),
            RunEnds::Later => self.run()?,
        };
        match Note::of(&self.file, &self.index, run) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            note => note.map(Some),
        }
    }

    /// How far the stamps have come since `note`, of which `so_far` was known before; `None` when some of
    /// these are gone, since another program has cut the file.
    ///
    /// # Errors
    /// When the file cannot be read, or is cut.
    pub(super) fn unsynced(
        &self,
        note: &Note,
        so_far: Option<Unsynced>,
    ) -> io::Result<Option<Unsynced>> {
        let so_far = so_far.unwrap_or_else(|| Unsynced::after(note));
        let is_there = so_far.bytes <= self.index.end();
        is_there.then(|| so_far.and_up_to(&self.file, &self.index)).transpose()
    }

    fn run(&self) -> io::Result<Run> {
        let stamps = identity(&self.file.metadata()?);
        Ok(Run::of(self.boot.as_deref(), self.text_identity, stamps))
    }

    /// Looks whether another program removed, replaced or cut the file, and writes it again then.
    ///
    /// # Errors
    /// When it cannot be written again.
    pub(super) fn survey(&mut self) -> io::Result<()> {
        let ours = identity(&self.file.metadata()?);
        let what = match fs::symlink_metadata(&self.path) {
            Ok(found) if identity(&found) != ours => {
                let old = self.set_aside()?;
                format!("replaced, and the other file is now {}", old.display())
            }
            Ok(found) if found.len() >= self.index.end() => return Ok(()),
            Ok(_) => "cut".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => "removed".to_owned(),
            Err(error) => return Err(error),
        };
        self.restore(&what)
    }

    /// Writes all stamps that the open file still has to a new file of the same name. A reader of
    /// the old one goes on reading the same bytes. `what` says what happened to it.
    fn restore(&mut self, what: &str) -> io::Result<()> {
        let (new, copy) = create_beside(&self.text, "stamps.new")?;
        let restored = self.restore_as(&new, copy);
        match &restored {
            Ok(()) => warn!("{} was {what}; the server wrote it again", self.path.display()),
            // The new file is incomplete, and ours.
            Err(_) => drop(fs::remove_file(&new)),
        }
        restored
    }

    fn restore_as(&mut self, new: &Path, mut copy: File) -> io::Result<()> {
        let left = self.file.metadata()?.len().min(self.index.end());
        copy_part(&self.file, 0..left, &mut copy)?;
        drop(copy);
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(new)?);
        let mut index = Index::default();
        index.read_on(&file, left, u64::MAX)?;
        if !index.is_beginning_of(&self.index) {
            // Somebody wrote into it, so that nobody knows which line a stamp belongs to.
            index = Index::default();
        }
        file.set_len(index.end())?;
        file.sync_all()?;
        fs::rename(new, &self.path)?;
        sync_folder_of(&self.path)?;
        self.missing = self.text_lines() - index.lines();
        (self.file, self.index) = (file, index);
        Ok(())
    }

    /// Gives the file the name that belongs to a new name of the text file.
    pub(super) fn rename_with(&self, text: &Path) -> io::Result<()> {
        let path = path_beside(text, "stamps");
        fs::rename(&self.path, &path)?;
        info!("{} is now {}", self.path.display(), path.display());
        Ok(())
    }
}

/// Whether a run may write more stamps than it notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunEnds {
    Now,
    Later,
}

/// Opens the file, or creates it. No link is followed, so that the server writes nowhere else.
fn open_or_create(path: &Path) -> io::Result<File> {
    let open = |create| {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        OpenOptions::new().read(true).write(true).create_new(create).custom_flags(flags).open(path)
    };
    let file = match open(false) {
        Ok(file) => file,
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => {
                let file = open(true)?;
                sync_folder_of(path)?;
                file
            }
            Some(libc::ELOOP) => return Err(io::Error::other("is a symbolic link")),
            Some(libc::EISDIR) => return Err(io::Error::other("is a directory")),
            _ => return Err(error),
        },
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("is not a regular file")),
    }
}

#[cfg(test)]
mod tests;
