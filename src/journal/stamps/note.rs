//! The note of the stamps file in the lock file, and how many lines are believed by it.
//!
//! A note belongs to an epoch. It tells how far the stamps have come, and has hashes of their end and of
//! some lines. When somebody edited or cut the stamps file, its lines are believed up to the last one
//! that is known to be in its place. Stamps after the noted ones are believed only when the server was
//! killed: on the same boot of the machine, in the same files, they were written after their lines, and
//! no line was lost. After a power cut they are not believed.

use std::{
    fmt,
    fs::{self, File},
    io,
    ops::Range,
    sync::Arc,
};

use super::BLOCK;
use crate::{
    journal::epoch::{HASH_OF_NOTHING, hash, hash_on, tail_hash},
    lines::read_at,
    stamps::{Index, Stamp, StampPart, Stamps},
};

/// What the lock file says of the stamps file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::journal) struct Note {
    pub(super) lines: u64,
    pub(super) bytes: u64,
    /// The hash of the last bytes.
    tail: u64,
    /// The hashes of the lines at [`checkpoints`].
    checks: Vec<u32>,
    /// The run that may have written more than this.
    pub(super) run: Run,
}

/// Names what must still be the same for stamps after the noted ones to be believed: the boot of
/// the machine and both files. It is `-` after an orderly stop, when there are no such stamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run(String);

impl Default for Run {
    fn default() -> Run {
        Run("-".to_owned())
    }
}

impl Run {
    /// The run of a server on the two files with these identities. Without a name of the boot it is
    /// the same as no other.
    pub(super) fn of(boot: Option<&str>, (dev, text): (u64, u64), (_, stamps): (u64, u64)) -> Run {
        boot.map_or_else(Run::default, |boot| Run(format!("{boot}/{dev}/{text}/{stamps}")))
    }

    /// Whether stamps that this run wrote are believed in another one.
    pub(super) fn is_believed_by(&self, now: &Run) -> bool {
        *self != Run::default() && self == now
    }
}

/// The name of the machine's boot; `None` when the system does not say it in one word.
pub(crate) fn boot() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let name = name.trim();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (!name.is_empty() && name.bytes().all(is_word)).then(|| name.to_owned())
}

/// The lines of which a note has hashes: the last one, and those that stand 1, 2, 4, 8 and so on
/// before it. However many lines somebody cuts off, at most as many more are not believed.
fn checkpoints(lines: u64) -> impl Iterator<Item = u64> {
    let before = (0..u64::BITS).map(|power| 1 << power).take_while(move |back| *back < lines);
    (lines > 0).then_some(0).into_iter().chain(before).map(move |back| lines - back)
}

/// The hash of a line; 0 when it has no time, and so could be any other line.
fn check_of(file: &Arc<File>, index: &Index, id: u64) -> io::Result<u32> {
    let mut stamps = Stamps::InFile(StampPart::new(file, index, id)).read();
    let Stamp { ts: Some(ts), from } = stamps.of(id) else { return Ok(0) };
    let bytes = ts.to_le_bytes();
    let hash = hash(bytes.iter().chain(from.unwrap_or_default().as_bytes()));
    Ok((hash ^ (hash >> 32)) as u32 | 1)
}

impl fmt::Display for Note {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Note { lines, bytes, tail, checks, run: Run(run) } = self;
        write!(out, "{lines} {bytes} {tail:016x} {run}")?;
        checks.iter().try_for_each(|check| write!(out, " {check:x}"))
    }
}

impl Note {
    pub(in crate::journal) fn parse(words: &[&str]) -> Option<Note> {
        let [lines, bytes, tail, run, checks @ ..] = words else { return None };
        let check = |word: &&str| u32::from_str_radix(word, 16).ok();
        Some(Note {
            lines: lines.parse().ok()?,
            bytes: bytes.parse().ok()?,
            tail: u64::from_str_radix(tail, 16).ok()?,
            checks: checks.iter().map(check).collect::<Option<_>>()?,
            run: Run((*run).to_owned()),
        })
    }

    pub(super) fn of(file: &Arc<File>, index: &Index, run: Run) -> io::Result<Note> {
        let (lines, bytes) = (index.lines(), index.end());
        let checks = checkpoints(lines).map(|id| check_of(file, index, id));
        let checks = checks.collect::<io::Result<_>>()?;
        Ok(Note { lines, bytes, tail: tail_hash(file, bytes)?, checks, run })
    }

    /// Whether the run that wrote it may have written more stamps.
    pub(in crate::journal) fn may_have_more(&self) -> bool {
        self.run != Run::default()
    }

    /// How many lines of a file, which has `len` bytes, are those that were noted.
    pub(super) fn believed(&self, file: &Arc<File>, len: u64) -> io::Result<Believed> {
        let mut index = Index::default();
        if self.bytes <= len && tail_hash(file, self.bytes)? == self.tail {
            index.read_on(file, self.bytes, self.lines)?;
            if (index.lines(), index.end()) == (self.lines, self.bytes) {
                return Ok(Believed::All);
            }
            index = Index::default();
        }
        // Somebody edited it, or cut it, or put another file there.
        index.read_on(file, len, self.lines)?;
        for (id, check) in checkpoints(self.lines).zip(&self.checks) {
            if id <= index.lines() && *check != 0 && check_of(file, &index, id)? == *check {
                let mut stamps = Stamps::InFile(StampPart::new(file, &index, id + 1)).read();
                // Lines that say nothing say nothing wrong.
                let says_nothing = |id: &u64| stamps.of(*id) == Stamp::default();
                let more = (id + 1..=index.lines()).take_while(says_nothing).count() as u64;
                return Ok(Believed::Some(id + more));
            }
        }
        Ok(Believed::None)
    }
}

/// Stamps after those of a note, which may not be on the disk. Either all of them are believed, or none:
/// a power cut may have taken any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::journal) struct Unsynced {
    /// How many lines the file has with them.
    pub(super) lines: u64,
    /// Where they end.
    pub(super) bytes: u64,
    hash: u64,
}

impl fmt::Display for Unsynced {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unsynced { lines, bytes, hash } = self;
        write!(out, "{lines} {bytes} {hash:016x}")
    }
}

impl Unsynced {
    pub(in crate::journal) fn parse(words: &[&str]) -> Option<Unsynced> {
        let [lines, bytes, hash] = words else { return None };
        Some(Unsynced {
            lines: lines.parse().ok()?,
            bytes: bytes.parse().ok()?,
            hash: u64::from_str_radix(hash, 16).ok()?,
        })
    }

    /// None yet after those of a note.
    pub(super) fn after(note: &Note) -> Unsynced {
        Unsynced { lines: note.lines, bytes: note.bytes, hash: HASH_OF_NOTHING }
    }

    /// These, and those that follow in the file.
    pub(super) fn and_up_to(self, file: &Arc<File>, index: &Index) -> io::Result<Unsynced> {
        let hash = hash_range(self.hash, file, self.bytes..index.end())?;
        Ok(Unsynced { lines: index.lines(), bytes: index.end(), hash })
    }

    /// Whether all of them follow those of the note in a file of `len` bytes.
    pub(super) fn is_in(&self, file: &Arc<File>, len: u64, note: &Note) -> io::Result<bool> {
        Ok(note.bytes <= self.bytes
            && self.bytes <= len
            && hash_range(HASH_OF_NOTHING, file, note.bytes..self.bytes)? == self.hash)
    }
}

/// The hash of bytes in a file that follow those of another hash.
fn hash_range(hash: u64, file: &File, range: Range<u64>) -> io::Result<u64> {
    let mut block = vec![0; (range.end - range.start).min(BLOCK as u64) as usize];
    let (mut hash, mut from) = (hash, range.start);
    while from < range.end {
        let want = (range.end - from).min(BLOCK as u64) as usize;
        let got = read_at(file, &mut block[..want], from)?;
        hash = hash_on(hash, &block[..got]);
        from += got as u64;
    }
    Ok(hash)
}

/// Which lines of a stamps file are those that were noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Believed {
    All,
    /// This many of the first ones.
    Some(u64),
    None,
}

impl Believed {
    /// How many lines these are of those that `note` tells of.
    pub(super) fn lines(self, note: &Note) -> u64 {
        match self {
            Believed::All => note.lines,
            Believed::Some(lines) => lines,
            Believed::None => 0,
        }
    }
}
