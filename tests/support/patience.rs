//! Waiting, and doing things at once. Every wait ends at a deadline.

use std::{
    io::{self, ErrorKind},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives it up: far more than it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

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

/// Ends a load when it goes, be it by a failure: who makes the load looks at the flag.
pub struct EndsWithMe<'a>(pub &'a AtomicBool);

impl Drop for EndsWithMe<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does the same with each item, on a few threads at once.
pub fn each_of<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    // Starting a server is mostly waiting, so more threads than cores pay.
    const THREADS: usize = 4;
    thread::scope(|scope| {
        for start in 0..THREADS.min(items.len()) {
            let work = &work;
            scope.spawn(move || items.iter().skip(start).step_by(THREADS).for_each(work));
        }
    });
}
