//! What the log says when a file cannot be read for somebody.
//!
//! Whoever comes back fails again, and there may be thousands, so one failure is logged and those that
//! follow are counted. It is the log of the process, so there is one count for all files.

use std::{
    fmt::Display,
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use log::{Level, error, log};

use super::text_file::is_too_much_erased;
use crate::tally::Tally;

static FAILED: Mutex<Tally> = Mutex::new(Tally::new());

/// Logs that a file could not be read for a client or a request. `what` names the file or its channel.
pub fn log_unreadable(what: impl Display, why: &io::Error) {
    if let Some(level) = level(why, &mut failed()) {
        log!(level, "{what}: reading failed: {why}");
    }
}

/// Logs how many more there were, if that is due. It must be called now and then.
pub fn log_unreadable_count() {
    if let Some(count) = failed().due() {
        error!("reading files failed {count} more times");
    }
}

/// The path of an open file, as the system knows it.
pub fn path_of(file: &File) -> String {
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    path.map_or_else(|_| "a file".to_owned(), |path| path.display().to_string())
}

/// At which level a failure is logged; `None` when it is counted alone.
fn level(why: &io::Error, failed: &mut Tally) -> Option<Level> {
    match is_too_much_erased(why) {
        // That readers must begin again is as it should be.
        true => Some(Level::Debug),
        false => failed.add().then_some(Level::Error),
    }
}

fn failed() -> MutexGuard<'static, Tally> {
    // Each change leaves a valid count.
    FAILED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lines::text_file::too_much_erased, testing::file_of};

    #[test]
    fn a_disk_that_fails_is_an_error_once_and_a_reader_that_must_begin_again_is_none() {
        let mut failed = Tally::default();
        assert_eq!(level(&too_much_erased(), &mut failed), Some(Level::Debug));
        let why = io::Error::from_raw_os_error(libc::EIO);
        assert_eq!(level(&why, &mut failed), Some(Level::Error));
        assert_eq!(level(&why, &mut failed), None);
        assert_eq!(level(&too_much_erased(), &mut failed), Some(Level::Debug));
    }

    #[test]
    fn an_open_file_is_named_by_its_path() {
        let path = path_of(&file_of(b""));
        assert!(path.contains("txtcord-unit-"), "{path}");
    }
}
