//! The epoch, which is the name of a file's numbering, and the lock file that keeps it.
//!
//! The lock file holds the lock and some lines of text, the *record*: the epoch, how far the
//! numbering has come, and a hash of the last bytes that were numbered. A start that finds all of
//! this true of the text file keeps the epoch. Any other start begins a new one, since the same ids
//! may mean other messages. The record also has the note of the stamps file, which belongs to this
//! epoch alone (`stamps.rs`).
//!
//! Another line tells of earlier parts of the text in the same way. A copy of a folder in use may have
//! a text that is older than its lock file: it has another epoch then, but the stamps of its lines are known.
//! With `--fsync never`, a third one tells of stamps that may not be on the disk.

use std::{
    fmt,
    fs::{File, Metadata},
    io::{self, Read},
    mem,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use data_encoding::HEXLOWER;
use log::warn;

use super::{
    beside::sync_folder_of,
    identity,
    shortage::is_full,
    stamps::{Note, Unsynced},
};
use crate::history::History;

/// How many bytes at the end of the file are hashed: a page, which is read at once and tells two
/// files apart.
pub(super) const TAIL: u64 = 4096;

/// The same for the earlier parts of the text, which are hashed anew with each record: fewer, so that
/// a busy channel's hub is not held up.
const EARLIER_TAIL: u64 = 256;

/// How many random bytes make the name of an epoch.
const NAME_BYTES: usize = 8;

/// The most bytes of the lock file that are read. A record that the server wrote has fewer than
/// 3,000.
const RECORD_LIMIT: u64 = 4096;

/// The epoch of an open file, and its lock file.
#[derive(Debug)]
pub(super) struct Epoch {
    name: Arc<str>,
    /// Holds the lock as long as it is open.
    lock_file: File,
    /// The record as it stands in the lock file.
    noted: String,
    /// How many lines and bytes of the text file the record tells of.
    noted_part: (u64, u64),
    /// The beginnings of the text that the record tells of.
    earlier: Vec<Beginning>,
    /// What is noted of the stamps file. It stays while the server runs without stamps.
    stamps: Option<Note>,
    /// How far the stamps have come since that note, with `--fsync never`.
    unsynced: Option<Unsynced>,
    former_stamps: Option<FormerStamps>,
}

/// What is known of the stamps that were written under the epoch before.
#[derive(Debug)]
pub(super) struct FormerStamps {
    pub(super) note: Note,
    /// How many lines of that text the present one begins with, at the least.
    pub(super) lines: u64,
}

impl Epoch {
    /// Takes the epoch of the record, if the text file still begins with all lines that were
    /// numbered under it; otherwise a new one. Afterwards the epoch is on disk, so that it lives as
    /// long as the ids that clients are told under it, unless the disk is full: it is noted later then.
    pub(super) fn open(
        lock_file: File,
        record: Option<Record>,
        file: &File,
        history: &History,
    ) -> io::Result<Epoch> {
        let mut epoch = match record {
            Some(record) if record.numbered.is_of(file, TAIL, history)? => {
                Epoch::going_on(lock_file, record)
            }
            record => Epoch {
                name: random_name()?,
                lock_file,
                noted: String::new(),
                noted_part: (0, 0),
                earlier: Vec::new(),
                stamps: None,
                unsynced: None,
                former_stamps: match record {
                    Some(record) => record.former_stamps(file, history)?,
                    None => None,
                },
            },
        };
        // A file that is as a server left it needs no new record, and its epoch was brought to the disk
        // when it began: a thousand channels start so much sooner.
        if epoch.noted_part != (history.last_id(), history.end()) || epoch.noted.is_empty() {
            let noted = epoch.note(file, history);
            if go_on_if_full(noted, false)? {
                epoch.lock_file.sync_data()?;
            }
        }
        Ok(epoch)
    }

    /// The epoch of a record that is true.
    fn going_on(lock_file: File, record: Record) -> Epoch {
        Epoch {
            lock_file,
            noted: record.to_string(),
            noted_part: (record.numbered.lines, record.numbered.bytes),
            name: record.epoch.into(),
            earlier: record.earlier,
            stamps: record.stamps,
            unsynced: record.unsynced,
            former_stamps: None,
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether what was found is the lock file.
    pub(super) fn is_kept_in(&self, found: &Metadata) -> bool {
        self.lock_file.metadata().map_or(true, |ours| identity(&ours) == identity(found))
    }

    /// Takes another lock file, whose lock is held, and writes the record into it, whatever stands there.
    ///
    /// # Errors
    /// When that cannot be written; the next record goes there all the same.
    pub(super) fn move_to(&mut self, lock_file: File, lock_path: &Path) -> io::Result<()> {
        self.lock_file = lock_file;
        let record = mem::take(&mut self.noted);
        self.write_text(record)?;
        self.lock_file.sync_all()?;
        sync_folder_of(lock_path)
    }

    /// Takes another name, which is in the next record.
    pub(super) fn rename(&mut self, name: Arc<str>) {
        self.name = name;
    }

    /// Writes into the lock file how far the numbering has come; false when it says so already.
    pub(super) fn note(&mut self, file: &File, history: &History) -> io::Result<bool> {
        let earlier = history.beginnings();
        let earlier = earlier.map(|(lines, bytes)| Beginning::of(file, EARLIER_TAIL, lines, bytes));
        self.earlier = earlier.collect::<io::Result<_>>()?;
        self.write(Beginning::of(file, TAIL, history.last_id(), history.end())?)
    }

    /// Prepares for changes between `offset`, where the line `id` begins, and `end`. If the record
    /// depends on bytes there, it tells of the lines before `id` alone afterwards. The record is on
    /// disk afterwards, with what it says of the stamps now.
    pub(super) fn note_before(
        &mut self,
        id: u64,
        offset: u64,
        end: u64,
        file: &File,
    ) -> io::Result<()> {
        let (mut lines, mut bytes) = self.noted_part;
        if offset < bytes && bytes.saturating_sub(TAIL) < end {
            (lines, bytes) = (id - 1, offset);
        }
        self.earlier.retain(|beginning| beginning.bytes < bytes);
        if self.write(Beginning::of(file, TAIL, lines, bytes)?)? {
            self.sync()?;
        }
        Ok(())
    }

    fn write(&mut self, numbered: Beginning) -> io::Result<bool> {
        let noted_part = (numbered.lines, numbered.bytes);
        let record = Record {
            epoch: self.name.as_ref().to_owned(),
            numbered,
            stamps: self.stamps.clone(),
            unsynced: self.unsynced,
            earlier: self.earlier.clone(),
        };
        let text = record.to_string();
        if text == self.noted {
            return Ok(false);
        }
        self.write_text(text)?;
        self.noted_part = noted_part;
        Ok(true)
    }

    fn write_text(&mut self, text: String) -> io::Result<()> {
        self.lock_file.write_all_at(text.as_bytes(), 0)?;
        self.lock_file.set_len(text.len() as u64)?;
        self.noted = text;
        Ok(())
    }

    /// What is noted of the stamps file; `None` when this epoch has none yet.
    pub(super) fn stamps(&self) -> Option<&Note> {
        self.stamps.as_ref()
    }

    /// What is known of the stamps of the epoch before, if this one is new.
    pub(super) fn former_stamps(&self) -> Option<&FormerStamps> {
        self.former_stamps.as_ref()
    }

    /// Takes the note of the stamps file that is to be in the next record.
    pub(super) fn set_stamps(&mut self, note: Note) {
        self.stamps = Some(note);
        self.unsynced = None;
    }

    /// How far the stamps have come since the note of them, as far as that is noted.
    pub(super) fn unsynced(&self) -> Option<Unsynced> {
        self.unsynced
    }

    /// Takes how far the stamps have come since the note of them, for the next record.
    pub(super) fn set_unsynced(&mut self, unsynced: Unsynced) {
        self.unsynced = Some(unsynced);
    }

    /// Brings the record to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.lock_file.sync_data()
    }

    /// Leaves nothing in the lock file that another start could go on from.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.lock_file.set_len(0)?;
        self.noted.clear();
        self.noted_part = (0, 0);
        self.lock_file.sync_data()
    }
}

/// The result of noting the epoch at a start, which a full disk does not stop; there it is `unnoted`.
pub(super) fn go_on_if_full<Noted>(noted: io::Result<Noted>, unnoted: Noted) -> io::Result<Noted> {
    match noted {
        Err(error) if is_full(&error) => {
            warn!("the epoch could not be noted and may not outlive a crash now: {error}");
            Ok(unnoted)
        }
        noted => noted,
    }
}

/// The name of a new epoch.
fn random_name() -> io::Result<Arc<str>> {
    let mut name = [0; NAME_BYTES];
    getrandom::fill(&mut name).map_err(io::Error::other)?;
    Ok(HEXLOWER.encode(&name).into())
}

/// The first lines of the text, and what they are known by.
#[derive(Clone, Debug)]
struct Beginning {
    lines: u64,
    bytes: u64,
    /// The hash of the last of the bytes.
    tail: u64,
}

impl Beginning {
    fn of(file: &File, tail: u64, lines: u64, bytes: u64) -> io::Result<Beginning> {
        Ok(Beginning { lines, bytes, tail: hash_before(file, bytes, tail)? })
    }

    fn parse(lines: &str, bytes: &str, tail: &str) -> Option<Beginning> {
        Some(Beginning {
            lines: lines.parse().ok()?,
            bytes: bytes.parse().ok()?,
            tail: u64::from_str_radix(tail, 16).ok()?,
        })
    }

    /// Whether the file begins with these lines.
    fn is_of(&self, file: &File, tail: u64, history: &History) -> io::Result<bool> {
        Ok(self.bytes <= history.end()
            && hash_before(file, self.bytes, tail)? == self.tail
            && history.lines_before(self.bytes)? == self.lines)
    }
}

/// What the lock file says about the text file.
pub(super) struct Record {
    epoch: String,
    /// All lines that were numbered.
    numbered: Beginning,
    stamps: Option<Note>,
    unsynced: Option<Unsynced>,
    /// Shorter beginnings of the text, the longest first.
    earlier: Vec<Beginning>,
}

impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { epoch, numbered, stamps, unsynced, earlier } = self;
        let Beginning { lines, bytes, tail } = numbered;
        write!(out, "epoch {epoch} lines {lines} bytes {bytes} tail {tail:016x}")?;
        if let Some(note) = stamps {
            write!(out, " stamps {note}")?;
        }
        writeln!(out)?;
        if !earlier.is_empty() {
            write!(out, "earlier {epoch}")?;
            for Beginning { lines, bytes, tail } in earlier {
                write!(out, " {lines} {bytes} {tail:016x}")?;
            }
            writeln!(out)?;
        }
        match unsynced {
            Some(unsynced) => writeln!(out, "unsynced {epoch} {unsynced}"),
            None => Ok(()),
        }
    }
}

impl Record {
    /// Reads the record; `None` when the lock file holds anything else.
    pub(super) fn read(mut lock_file: &File) -> Option<Record> {
        let mut text = String::new();
        lock_file.by_ref().take(RECORD_LIMIT).read_to_string(&mut text).ok()?;
        let mut lines = text.lines();
        let mut record = Record::parse(lines.next()?)?;
        // A crash may have left the end of a longer record after this one.
        for line in lines {
            record.parse_more(line);
        }
        Some(record)
    }

    /// The epoch.
    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The committed end when the record was written. With `--fsync always`, all bytes before it
    /// were on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.numbered.bytes
    }

    /// Whether the server that wrote it did not end in order, as far as its stamps tell.
    pub(super) fn is_of_a_run_that_goes_on(&self) -> bool {
        self.stamps.as_ref().is_some_and(Note::may_have_more)
    }

    fn parse(text: &str) -> Option<Record> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let ["epoch", epoch, "lines", lines, "bytes", bytes, "tail", tail, ref rest @ ..] =
            words[..]
        else {
            return None;
        };
        let stamps = match rest {
            [] => None,
            ["stamps", note @ ..] => Some(Note::parse(note)?),
            _ => return None,
        };
        // The epoch is sent to clients as it is, within a JSON string.
        if !epoch.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        Some(Record {
            epoch: epoch.to_owned(),
            numbered: Beginning::parse(lines, bytes, tail)?,
            stamps,
            unsynced: None,
            earlier: Vec::new(),
        })
    }

    /// Reads one of the other lines, as far as it is one of this epoch.
    fn parse_more(&mut self, text: &str) {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        match words[..] {
            ["earlier", epoch, ref words @ ..] if epoch == self.epoch => {
                let beginnings = words.chunks_exact(3).map(|words| match words {
                    [lines, bytes, tail] => Beginning::parse(lines, bytes, tail),
                    _ => None,
                });
                self.earlier = beginnings.map_while(|beginning| beginning).collect();
            }
            ["unsynced", epoch, ref words @ ..] if epoch == self.epoch => {
                self.unsynced = Unsynced::parse(words);
            }
            _ => {}
        }
    }

    /// What is known of the stamps that were written under this epoch, for a text that begins with some
    /// of its lines.
    fn former_stamps(self, file: &File, history: &History) -> io::Result<Option<FormerStamps>> {
        let Some(note) = self.stamps else { return Ok(None) };
        for beginning in &self.earlier {
            if beginning.is_of(file, EARLIER_TAIL, history)? {
                return Ok(Some(FormerStamps { note, lines: beginning.lines }));
            }
        }
        Ok(None)
    }
}

/// The hash of the last bytes before `end`.
pub(super) fn tail_hash(file: &File, end: u64) -> io::Result<u64> {
    hash_before(file, end, TAIL)
}

/// The hash of the last `most` bytes before `end`, or as many as there are.
fn hash_before(file: &File, end: u64, most: u64) -> io::Result<u64> {
    let from = end.saturating_sub(most);
    let mut tail = vec![0; (end - from) as usize];
    file.read_exact_at(&mut tail, from)?;
    Ok(hash(&tail))
}

/// FNV-1a (Fowler, Noll, Vo), which tells files apart and keeps no secret.
pub(super) fn hash<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    hash_on(HASH_OF_NOTHING, bytes)
}

/// The hash that begins.
pub(super) const HASH_OF_NOTHING: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of bytes that follow those of another hash.
pub(super) fn hash_on<'a>(hash: u64, bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    bytes
        .into_iter()
        .fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
