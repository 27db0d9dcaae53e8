//! Waiting. Every wait ends at a deadline.

use std::{
    io::{self, ErrorKind},
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives it up: far more than it takes on a busy machine.
/// Only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// What nothing prompt takes even on a busy machine; far shorter than the stall timeout of tests in
/// which a client is slow ([`NO_STALL`]).
pub const PROMPT: Duration = Duration::from_secs(60);

/// A server with these flags closes no client that is slow, however long the test takes.
pub const NO_STALL: [&str; 2] = ["--stall-timeout", "1h"];

/// How often something may take long before that counts.
const ATTEMPTS: usize = 10;

/// Checks that something takes less than `limit`, in one of a few attempts; each says how long it
/// took. A busy machine makes some of them slow, a fault makes all of them slow.
#[track_caller]
pub fn is_quick(limit: Duration, mut attempt: impl FnMut() -> Duration) {
    let mut times = Vec::new();
    while times.len() < ATTEMPTS {
        let took = attempt();
        if took < limit {
            return;
        }
        times.push(took);
    }
    panic!("each attempt took too long: {times:?}");
}

/// Runs a test that must be done within a time of the server's own, which no flag makes longer. A busy
/// machine makes some attempts too slow for it, a fault makes all of them fail.
pub fn in_one_of_a_few_attempts(attempt: impl Fn()) {
    for _ in 1..ATTEMPTS {
        if catch_unwind(AssertUnwindSafe(&attempt)).is_ok() {
            return;
        }
    }
    attempt();
}

/// Runs a test in which the server gives the test itself only a certain time for something. It may fail
/// with the shorter times, since a busy machine may hold it up that long; a fault makes all attempts
/// fail.
pub fn with_more_and_more_time(times: [Duration; 3], attempt: impl Fn(Duration)) {
    let [shorter @ .., longest] = times;
    for time in shorter {
        if catch_unwind(AssertUnwindSafe(|| attempt(time))).is_ok() {
            return;
        }
        eprintln!("{time:?} were too short; once more with more time");
    }
    attempt(longest);
}

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
