//! Reading the stamps of a part of the text file, and finding the first line at or after a time.
//!
//! The hub makes [`Stamps`] and [`Since`] without reading the file. The thread that needs them
//! reads on from the last known line before them. Stamps that cannot be read are not known, and
//! are never a reason why a message would not be sent.

use std::{fs::File, io, sync::Arc};

use super::{Index, LINE_BYTES, Recent, Stamp, index::Mark};
use crate::lines::{Line, Lines, log_unreadable, path_of};

/// Bytes of stamps that are read at a time: so few that ten thousand readers may wait with them,
/// and those of 150 lines.
const READ: usize = 4 << 10;

/// The stamps of some lines, to be read by the thread that holds them.
#[derive(Clone, Debug)]
pub enum Stamps {
    /// They stand in the stamps file.
    InFile(StampPart),
    /// They are remembered: there is no stamps file.
    Remembered(Recent),
}

impl Default for Stamps {
    /// No stamp is known.
    fn default() -> Stamps {
        Stamps::Remembered(Recent::default())
    }
}

/// A part of the stamps file.
#[derive(Clone, Debug)]
pub struct StampPart {
    file: Arc<File>,
    /// A line at or before the first one; `None` when there is no line.
    near: Option<Mark>,
    /// How far the file has come.
    end: u64,
}

impl StampPart {
    /// The part from the line `first_id` on.
    pub(crate) fn new(file: &Arc<File>, index: &Index, first_id: u64) -> StampPart {
        StampPart { file: file.clone(), near: index.near(first_id), end: index.end() }
    }

    /// The lines from the known one on.
    fn lines(&self) -> Option<(u64, Lines)> {
        let near = self.near?;
        match self.file.metadata() {
            // Another program has cut the file. The hub will notice; until then nothing in it is
            // believed.
            Ok(meta) if meta.len() < self.end => None,
            Ok(_) => {
                let lines = Lines::new(&self.file, near.offset, self.end, READ, LINE_BYTES);
                Some((near.id, lines))
            }
            Err(error) => {
                log_unreadable(path_of(&self.file), &error);
                None
            }
        }
    }
}

impl Stamps {
    /// Prepares to read them. Nothing is read before a stamp is asked for.
    pub fn read(self) -> StampReader {
        StampReader { stamps: self, lines: None, has_failed: false }
    }
}

/// Reads stamps, in the order of their lines.
#[derive(Debug)]
pub struct StampReader {
    stamps: Stamps,
    /// The id of the next line, and the lines from there on; `None` in it when no more is known.
    lines: Option<Option<(u64, Lines)>>,
    /// Whether the file could not be read.
    has_failed: bool,
}

impl StampReader {
    /// The stamp of a line. Each id must be higher than those that were asked for before.
    pub fn of(&mut self, id: u64) -> Stamp<'_> {
        let stored = match &self.stamps {
            Stamps::Remembered(recent) => return recent.of(id),
            Stamps::InFile(stored) => stored,
        };
        let lines = self.lines.get_or_insert_with(|| stored.lines());
        let Some((next_id, reader)) = lines.as_mut().filter(|_| !self.has_failed) else {
            return Stamp::default();
        };
        debug_assert!(*next_id <= id, "stamps are read in the order of their lines");
        let skipped = reader.skip(id - *next_id);
        *next_id = id + 1;
        match skipped.and_then(|()| reader.next()) {
            Ok(Some(Line::Whole(line))) => Stamp::parse(line),
            Ok(_) => Stamp::default(),
            Err(error) => {
                log_unreadable(path_of(&stored.file), &error);
                self.has_failed = true;
                Stamp::default()
            }
        }
    }
}

/// The first line at or after a time, to be found by the thread that asks for it.
///
/// A line without a time counts with the last line before it that has one, and with the year 1970
/// when there is none.
#[derive(Clone, Debug)]
pub enum Since {
    /// This line.
    Known(u64),
    /// It is looked for in the stamps file.
    InFile {
        /// The stamps from a line on before which all lines are too early.
        stamps: StampPart,
        /// The time, in Unix milliseconds.
        ts: u64,
        /// The id after the last line, which is the answer when all lines are too early.
        next_id: u64,
    },
}

impl Since {
    pub(crate) fn in_file(file: &Arc<File>, index: &Index, ts: u64, next_id: u64) -> Since {
        if ts == 0 {
            return Since::Known(1);
        }
        let stamps = StampPart { file: file.clone(), near: index.near_time(ts), end: index.end() };
        Since::InFile { stamps, ts, next_id }
    }

    /// The id of the line: that of the next line which is still to come, when all are too early.
    ///
    /// # Errors
    /// When the stamps cannot be read.
    pub fn first_id(&self) -> io::Result<u64> {
        let (stamps, since, next_id) = match self {
            Since::Known(id) => return Ok(*id),
            Since::InFile { stamps, ts, next_id } => (stamps, *ts, *next_id),
        };
        let Some((mut id, mut lines)) = stamps.lines() else { return Ok(next_id) };
        while let Some(line) = lines.next()? {
            if let Line::Whole(line) = line
                && Stamp::parse(line).ts.is_some_and(|ts| ts >= since)
            {
                return Ok(id);
            }
            id += 1;
        }
        Ok(next_id)
    }
}
