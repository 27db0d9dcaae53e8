//! A disk that has no room: when the journal tries again, and what it logs.
//!
//! Only a write shows that there is room again. So the journal writes what the next speaker says, but not
//! before a try is due.

use std::{
    fmt, io,
    time::{Duration, Instant},
};

use log::{error, info};

use super::{AppendError, Journal};

/// A full disk is tried again after this long: soon enough for people, and seldom enough that a
/// crowd of speakers does not keep the disk busy.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// When no append has been tried for this long, the disk no longer counts as full; see
/// [`Journal::is_full`].
pub(super) const FULL_FOR: Duration = Duration::from_secs(10);

/// A disk that stays full is logged once in this time, as redis does it (`aof.c`).
const LOG_FULL_EVERY: Duration = Duration::from_secs(30);

// Between two tries the disk still counts as full.
const _: () = assert!(RETRY_AFTER.as_millis() < FULL_FOR.as_millis());

/// A disk that had no room.
#[derive(Debug)]
pub(super) struct Shortage {
    retry_at: Instant,
    log_at: Instant,
}

impl Journal {
    /// Whether an append has found no room within the last seconds. A disk that was full longer ago
    /// does not count: speakers may send nothing to a server that says it is full, and then it
    /// could never find out that there is room again.
    pub fn is_full(&self) -> bool {
        self.shortage
            .as_ref()
            .is_some_and(|shortage| self.system.now() < shortage.retry_at + FULL_FOR)
    }

    /// Whether the disk was full a moment ago, so that an append is not tried.
    pub(super) fn is_too_soon(&self) -> bool {
        self.shortage.as_ref().is_some_and(|shortage| self.system.now() < shortage.retry_at)
    }

    /// Notes that the disk has room again, now that lines and their stamps were written.
    pub(super) fn note_room(&mut self) {
        if self.shortage.take().is_some() {
            info!("{}: messages can be stored again", self.path.display());
        }
    }

    pub(super) fn note_disk_full(&mut self, why: &dyn fmt::Display) -> AppendError {
        let now = self.system.now();
        let mut log_at = self.shortage.as_ref().map_or(now, |shortage| shortage.log_at);
        if now >= log_at {
            error!(
                "{}: {why}. The server refuses messages until there is room again; everything \
                 else goes on.",
                self.path.display()
            );
            log_at = now + LOG_FULL_EVERY;
        }
        self.shortage = Some(Shortage { retry_at: now + RETRY_AFTER, log_at });
        AppendError::DiskFull
    }
}

/// Whether a call failed for want of something that the system may have again soon: room on the disk,
/// descriptors, memory.
pub(crate) fn is_short(error: &io::Error) -> bool {
    is_full(error)
        || matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// Whether a write failed because there is no room: on the disk, in a quota, or below the limit of a
/// file's size (`ulimit -f`).
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}

/// Whether a call failed for want of permission, which somebody may give again: the rights of a file or
/// folder, or that it may only be appended to (`chattr +a`).
pub(super) fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
