//! The running hash of a file's lines: two files with the same hash after a line are the same up to it.
//!
//! `h0 = ""`, `hn = hex(sha1(h(n-1) ++ line n with its \n))[..16]`. The engine's scripts compute the
//! same, and it follows from the file alone.

use std::{fs::File, io, os::unix::fs::FileExt};

use data_encoding::HEXLOWER;
use sha1::{Digest, Sha1};

use crate::lines::{each_line, read_at};

/// How many hexadecimal digits of the hash are kept. The scripts keep as many.
const DIGITS: usize = 16;

/// What is read of a file at a time, in bytes.
const BLOCK: usize = 256 << 10;

/// The hash after a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain(String);

impl Chain {
    /// The hash that an engine tells.
    pub fn told(text: String) -> Chain {
        Chain(text)
    }

    /// The hash as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash after the lines that follow, each with its `\n`.
    pub fn after(&self, lines: &[u8]) -> Chain {
        let mut after = self.clone();
        after.extend(lines);
        after
    }

    /// Takes in the lines that follow, each with its `\n`.
    pub fn extend(&mut self, lines: &[u8]) {
        // A file of millions of lines is hashed at a start: nothing is allocated for a line.
        let mut digits = [0; DIGITS];
        let mut is_first = true;
        for line in each_line(lines) {
            let mut hash = Sha1::new();
            match is_first {
                true => hash.update(self.0.as_bytes()),
                false => hash.update(digits),
            }
            hash.update(line);
            HEXLOWER.encode_mut(&hash.finalize()[..DIGITS / 2], &mut digits);
            is_first = false;
        }
        if !is_first {
            self.0.clear();
            self.0.extend(digits.iter().map(|&digit| char::from(digit)));
        }
    }
}

/// The `len` bytes at an offset; `None` when they go beyond `end`.
///
/// # Errors
/// When the file cannot be read.
pub fn bytes_at(file: &File, offset: u64, len: usize, end: u64) -> io::Result<Option<Vec<u8>>> {
    if offset + len as u64 > end {
        return Ok(None);
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(Some(bytes))
}

/// The end of a line in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// How many lines are before it, which is the number of that line.
    pub lines: u64,
    /// The offset after it.
    pub offset: u64,
    /// The hash after it.
    pub chain: Chain,
}

/// A walk over the whole lines of a file.
#[derive(Debug)]
pub struct Walk<'a> {
    file: &'a File,
    /// How far it has come.
    pub at: Place,
}

impl Walk<'_> {
    /// At the beginning of a file.
    pub fn of(file: &File) -> Walk<'_> {
        Walk::from(file, Place::default())
    }

    /// At a place that was reached before.
    pub fn from(file: &File, at: Place) -> Walk<'_> {
        Walk { file, at }
    }

    /// Walks on to the end of line `id`, or to where the whole lines before `end` end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn go_to(&mut self, id: u64, end: u64) -> io::Result<()> {
        let mut space = vec![0; BLOCK];
        while self.at.lines < id && self.at.offset < end {
            let want = space.len().min((end - self.at.offset) as usize);
            let got = read_at(self.file, &mut space[..want], self.at.offset)?;
            let mut taken = 0;
            for line_end in memchr::memchr_iter(b'\n', &space[..got]) {
                if self.at.lines == id {
                    break;
                }
                self.at.chain.extend(&space[taken..=line_end]);
                taken = line_end + 1;
                self.at.lines += 1;
            }
            if taken == 0 {
                if got < space.len() {
                    return Ok(());
                }
                // A line that is longer than what was read.
                space.resize(space.len() * 2, 0);
            }
            self.at.offset += taken as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
