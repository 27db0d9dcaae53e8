//! The system underneath: a shell, and words about what is missing on this machine.

use std::{
    io::{self, Write},
    process::Command,
};

/// Runs a line of shell that must succeed.
#[track_caller]
pub fn shell(line: &str) {
    let status = Command::new("sh").args(["-c", line]).status().expect("a shell");
    assert!(status.success(), "{line}: {status}");
}

/// Says on the real standard error that a test could not run here.
pub fn skipped(test: &str, why: &str) {
    // Not eprintln: the test harness hides what a passing test prints.
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {why}");
}
