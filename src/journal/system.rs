//! The calls of the operating system that tests of the journal replace: a write may fall short, a
//! descriptor may stand elsewhere, time passes.

use std::{
    fmt,
    fs::File,
    io::{self, Seek, Write},
    os::unix::fs::FileExt,
    time::Instant,
};

/// The calls that tests replace. The methods given here are the real calls.
pub(crate) trait System: fmt::Debug + Send {
    /// Writes to a file in append mode with one call; returns how many bytes the call says it took.
    fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        (&*file).write(bytes)
    }

    /// Writes stamps at an offset of the stamps file with one call; returns how many bytes the call
    /// says it took.
    fn write_at(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    /// The position of the file's descriptor: the offset after the last byte written through it.
    fn position(&mut self, file: &File) -> io::Result<u64> {
        (&*file).stream_position()
    }

    /// The time.
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// The operating system itself.
#[derive(Debug)]
pub(crate) struct Real;

impl System for Real {}
