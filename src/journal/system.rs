//! The calls of the operating system that tests of the journal replace: a write may fall short, a
//! descriptor may stand elsewhere, time passes.

use std::{
    fmt,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Seek, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::Instant,
};

use super::beside::{sync_folder_of, unless_in_the_way};

/// The calls that tests replace. The methods given here are the real calls.
pub(crate) trait System: fmt::Debug + Send {
    /// Looks at what stands under a name; no link is followed.
    fn look_at(&self, path: &Path) -> io::Result<Metadata> {
        fs::symlink_metadata(path)
    }

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

    /// Opens a file to overwrite bytes in it.
    fn open_in_place(&mut self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).open(path)
    }

    /// Overwrites bytes at an offset of the file, through a descriptor that is not in append mode.
    fn overwrite(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Brings all that was written to the disk.
    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Brings the names in the folder of a file to the disk.
    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        sync_folder_of(path)
    }

    /// Writes a small file; it is on disk afterwards, with its name. Nothing but a regular file is
    /// written to.
    fn write_beside(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let mut file = unless_in_the_way(path, options.open(path))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        sync_folder_of(path)
    }

    /// Removes a regular file, if it is there.
    fn remove(&mut self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path).map(|meta| meta.is_file()) {
            Ok(true) => fs::remove_file(path),
            _ => Ok(()),
        }
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
