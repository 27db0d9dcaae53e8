//! What happens often is logged once, then counted: a line at first, and one with a count every while.

use std::time::{Duration, Instant};

/// How often a count is logged, however many there are.
const EVERY: Duration = Duration::from_secs(30);

/// A count of one kind of event that the log is not to be filled with.
#[derive(Debug, Default)]
pub struct Tally {
    logged: Option<Instant>,
    /// How many came since something was logged.
    since: u64,
}

impl Tally {
    /// One more happened; true when it is to be logged by itself.
    pub fn add(&mut self) -> bool {
        if self.logged.is_some() {
            self.since += 1;
            return false;
        }
        self.logged = Some(Instant::now());
        true
    }

    /// How many are to be logged as a count, if that is due; the next one is logged by itself again.
    pub fn due(&mut self) -> Option<u64> {
        if self.logged.is_none_or(|logged| logged.elapsed() < EVERY) {
            return None;
        }
        let count = std::mem::take(self).since;
        (count > 0).then_some(count)
    }

    /// Whether a count may become due.
    pub fn is_pending(&self) -> bool {
        self.logged.is_some()
    }
}
