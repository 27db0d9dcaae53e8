//! Waiting. Every wait ends at a deadline.

use std::{
    io::{self, ErrorKind},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives it up: far more than it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What nothing prompt takes even on a busy machine; far shorter than a stall timeout.
pub const PROMPT: Duration = Duration::from_secs(5);

/// Waits for a condition that no event announces, by looking again and again.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
