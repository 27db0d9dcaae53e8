//! A kind of event that may happen often is logged when it happens first. After that it is counted,
//! and the count is logged from time to time.

use std::time::{Duration, Instant};

/// The time between two log lines of one kind of event, at the least: often enough to follow what
/// goes on, and seldom enough that the log can be read.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// How often one kind of event has happened, so that the log is not filled with it.
#[derive(Debug, Default)]
pub struct Tally {
    logged_at: Option<Instant>,
    /// How many events have not been logged.
    unlogged: u64,
}

impl Tally {
    /// Nothing has happened yet.
    pub const fn new() -> Tally {
        Tally { logged_at: None, unlogged: 0 }
    }

    /// Counts one event; true when the caller must log it by itself.
    pub fn add(&mut self) -> bool {
        if self.logged_at.is_some() {
            self.unlogged += 1;
            return false;
        }
        self.logged_at = Some(Instant::now());
        true
    }

    /// If a log line is due, the number of events that the caller must log with it. The next event
    /// is logged by itself again.
    pub fn due(&mut self) -> Option<u64> {
        if self.logged_at.is_none_or(|logged_at| logged_at.elapsed() < LOG_EVERY) {
            return None;
        }
        let count = std::mem::take(self).unlogged;
        (count > 0).then_some(count)
    }

    /// Whether [`Tally::due`] must be asked again, though no event may come.
    pub fn is_pending(&self) -> bool {
        self.logged_at.is_some()
    }
}
