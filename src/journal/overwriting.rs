//! Overwrites lines in place. Those that stand one after the other are written with one call.

use std::{fs::File, io};

use super::system::System;

/// The most bytes that are written with one call, unless one line has more: enough that the calls cost
/// little.
const AT_ONCE: usize = 64 << 10;

/// What is to be written over a file.
#[derive(Debug)]
pub(super) struct Overwriting<'a> {
    file: &'a File,
    system: &'a mut dyn System,
    /// Where the lines begin that are to be written next.
    offset: u64,
    /// These lines, but for the last `\n`.
    lines: Vec<u8>,
}

impl<'a> Overwriting<'a> {
    /// Nothing is to be written yet over this file, which is not open in append mode.
    pub(super) fn new(file: &'a File, system: &'a mut dyn System) -> Overwriting<'a> {
        Overwriting { file, system, offset: 0, lines: Vec::new() }
    }

    /// Overwrites the line at `offset` by another one of that length, which is given without its `\n`.
    /// The line may wait for those that follow it, or for [`Overwriting::finish`].
    pub(super) fn push(&mut self, offset: u64, line: &[u8]) -> io::Result<()> {
        let end = self.offset + self.lines.len() as u64;
        let follows = !self.lines.is_empty() && offset == end + 1;
        if follows && self.lines.len() + line.len() < AT_ONCE {
            self.lines.push(b'\n');
        } else {
            self.write()?;
            self.offset = offset;
        }
        self.lines.extend_from_slice(line);
        Ok(())
    }

    /// Writes what still waits.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        if !self.lines.is_empty() {
            self.system.overwrite(self.file, &self.lines, self.offset)?;
            self.lines.clear();
        }
        Ok(())
    }
}
