//! How long is waited between two attempts to reach the engine.

use std::{thread, time::Duration};

/// The shortest time.
const LEAST: Duration = Duration::from_millis(20);

/// The longest time.
const MOST: Duration = Duration::from_millis(250);

/// The time until the next attempt: short at first, and twice as long after each one that fails.
#[derive(Debug)]
pub struct BackOff(Duration);

impl BackOff {
    /// Before the first attempt.
    pub fn new() -> BackOff {
        BackOff(LEAST)
    }

    /// Waits after an attempt that failed.
    pub fn wait(&mut self) {
        thread::sleep(self.0);
        self.0 = (self.0 * 2).min(MOST);
    }

    /// Begins anew, after an attempt that did not fail.
    pub fn reset(&mut self) {
        *self = BackOff::new();
    }
}
