//! What the journal asks of the operating system and cannot take for granted: a write may fall
//! short, a descriptor may stand elsewhere, time passes. Tests put a system of their own in its
//! place.

use std::{
    fmt,
    fs::File,
    io::{self, Seek, Write},
    time::Instant,
};

/// The calls that tests replace. What is provided here is the real thing.
pub(crate) trait System: fmt::Debug + Send {
    /// Writes to a file in append mode with one call; returns how many bytes the call says it took.
    fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        (&*file).write(bytes)
    }

    /// Where the file's descriptor stands: right behind what was last written through it.
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
