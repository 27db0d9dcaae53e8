//! Finds out that another program has overwritten lines that were committed.
//!
//! `cp` and `cat >` write another text into the same file. If the text is longer, the file is neither
//! replaced nor cut. So the journal remembers some bytes that were committed, and looks whether they are
//! still there whenever the file has grown by something that it did not write. Where nobody else writes,
//! that costs nothing.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

/// How many bytes are remembered: enough that two chats do not have the same ones there.
const BYTES: usize = 64;

/// Bytes that were committed, or are about to be.
#[derive(Debug, Default)]
pub(super) struct Landmark {
    bytes: Vec<u8>,
    end: u64,
}

impl Landmark {
    /// Remembers the last bytes of the file before `end`.
    ///
    /// # Errors
    /// When the file cannot be read, or is shorter.
    pub(super) fn read(file: &File, end: u64) -> io::Result<Landmark> {
        let mut bytes = vec![0; end.min(BYTES as u64) as usize];
        let start = end - bytes.len() as u64;
        file.read_exact_at(&mut bytes, start)?;
        Ok(Landmark { bytes, end })
    }

    /// Remembers the end of lines that were just written from `start` on.
    pub(super) fn note_written(&mut self, start: u64, lines: &[u8]) {
        if start != self.end || lines.len() >= BYTES {
            self.bytes.clear();
        }
        let last = &lines[lines.len().saturating_sub(BYTES)..];
        let surplus = (self.bytes.len() + last.len()).saturating_sub(BYTES);
        self.bytes.drain(..surplus);
        self.bytes.extend_from_slice(last);
        self.end = start + lines.len() as u64;
    }

    /// Where the bytes end.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Forgets the bytes if some of them are in `range`, which is about to be changed or cut off.
    pub(super) fn forget_in(&mut self, range: Range<u64>) {
        if range.start < self.end && self.end - (self.bytes.len() as u64) < range.end {
            *self = Landmark::default();
        }
    }

    /// Whether the bytes are where they were.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn is_in(&self, file: &File) -> io::Result<bool> {
        Ok(Landmark::read(file, self.end)?.bytes.ends_with(&self.bytes))
    }
}
