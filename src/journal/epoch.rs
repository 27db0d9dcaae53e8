//! The epoch, which is the name of a file's numbering, and the lock file that keeps it.
//!
//! The lock file holds the lock and one line of text, the *record*: the epoch, how far the
//! numbering has come, and a hash of the last bytes that were numbered. A start that finds all of
//! this true of the text file keeps the epoch. Any other start begins a new one, since the same ids
//! may mean other messages. The record also has the note of the stamps file, which belongs to this
//! epoch alone (`stamps.rs`).

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};

use data_encoding::HEXLOWER;
use log::warn;

use super::{shortage::is_full, stamps::Note};
use crate::history::History;

/// How many bytes at the end of the file are hashed: a page, which is read at once and tells two
/// files apart.
pub(super) const TAIL: u64 = 4096;

/// How many random bytes make the name of an epoch.
const NAME_BYTES: usize = 8;

/// The most bytes of the lock file that are read. A record that the server wrote has fewer than
/// 1,000.
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
    /// What is noted of the stamps file. It stays while the server runs without stamps.
    stamps: Option<Note>,
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
        let (name, noted, noted_part, stamps) = match record {
            // A file that is as a server left it needs no new record, and its epoch was brought to the
            // disk when it began: a thousand channels start so much sooner.
            Some(record) if record.is_true_of(file, history)? => {
                let (noted, part) = (record.to_string(), (record.lines, record.bytes));
                (record.epoch.into(), noted, part, record.stamps)
            }
            _ => {
                let mut name = [0; NAME_BYTES];
                getrandom::fill(&mut name).map_err(io::Error::other)?;
                (HEXLOWER.encode(&name).into(), String::new(), (0, 0), None)
            }
        };
        let mut epoch = Epoch { name, lock_file, noted, noted_part, stamps };
        let noted = epoch.note(file, history);
        if go_on_if_full(noted, false)? {
            epoch.lock_file.sync_data()?;
        }
        Ok(epoch)
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Takes another name, which is in the next record.
    pub(super) fn rename(&mut self, name: Arc<str>) {
        self.name = name;
    }

    /// Writes into the lock file how far the numbering has come; false when it says so already.
    pub(super) fn note(&mut self, file: &File, history: &History) -> io::Result<bool> {
        self.write(&Record::of(
            &self.name,
            file,
            history.last_id(),
            history.end(),
            self.stamps.clone(),
        )?)
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
        if self.write(&Record::of(&self.name, file, lines, bytes, self.stamps.clone())?)? {
            self.sync()?;
        }
        Ok(())
    }

    fn write(&mut self, record: &Record) -> io::Result<bool> {
        let line = record.to_string();
        if line == self.noted {
            return Ok(false);
        }
        self.lock_file.write_all_at(line.as_bytes(), 0)?;
        self.lock_file.set_len(line.len() as u64)?;
        self.noted = line;
        self.noted_part = (record.lines, record.bytes);
        Ok(true)
    }

    /// What is noted of the stamps file; `None` when this epoch has none yet.
    pub(super) fn stamps(&self) -> Option<&Note> {
        self.stamps.as_ref()
    }

    /// Takes the note of the stamps file that is to be in the next record.
    pub(super) fn set_stamps(&mut self, note: Note) {
        self.stamps = Some(note);
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

/// What the lock file says about the text file.
pub(super) struct Record {
    epoch: String,
    lines: u64,
    bytes: u64,
    tail: u64,
    stamps: Option<Note>,
}

impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { epoch, lines, bytes, tail, stamps } = self;
        write!(out, "epoch {epoch} lines {lines} bytes {bytes} tail {tail:016x}")?;
        if let Some(note) = stamps {
            write!(out, " stamps {note}")?;
        }
        writeln!(out)
    }
}

impl Record {
    /// Reads the record; `None` when the lock file holds anything else.
    pub(super) fn read(mut lock_file: &File) -> Option<Record> {
        let mut text = String::new();
        lock_file.by_ref().take(RECORD_LIMIT).read_to_string(&mut text).ok()?;
        // A crash may have left the end of a longer record after this one.
        Record::parse(text.lines().next()?)
    }

    /// The epoch.
    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The committed end when the record was written. With `--fsync always`, all bytes before it
    /// were on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The record of the first `lines` lines of the file, which have `bytes` bytes, and of their stamps.
    fn of(
        epoch: &str,
        file: &File,
        lines: u64,
        bytes: u64,
        stamps: Option<Note>,
    ) -> io::Result<Record> {
        let tail = tail_hash(file, bytes)?;
        Ok(Record { epoch: epoch.to_owned(), lines, bytes, tail, stamps })
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
            lines: lines.parse().ok()?,
            bytes: bytes.parse().ok()?,
            tail: u64::from_str_radix(tail, 16).ok()?,
            stamps,
        })
    }

    /// Whether the file begins with all lines that were numbered under this epoch.
    fn is_true_of(&self, file: &File, history: &History) -> io::Result<bool> {
        Ok(self.bytes <= history.end()
            && tail_hash(file, self.bytes)? == self.tail
            && history.lines_before(self.bytes)? == self.lines)
    }
}

/// The hash of the last bytes before `end`.
pub(super) fn tail_hash(file: &File, end: u64) -> io::Result<u64> {
    let from = end.saturating_sub(TAIL);
    let mut tail = vec![0; (end - from) as usize];
    file.read_exact_at(&mut tail, from)?;
    Ok(hash(&tail))
}

/// FNV-1a (Fowler, Noll, Vo), which tells files apart and keeps no secret.
pub(super) fn hash<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
