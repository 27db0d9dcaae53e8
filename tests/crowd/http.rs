//! Thousands of HTTP clients that do not read the answers they asked for: the server holds next to
//! nothing for them, and closes them in time.

use std::time::{Duration, Instant};

use crate::{
    crowd::{Crowd, Habit, asks, joins},
    machine::{room_for, taken_by, tell},
    support::*,
};

const DEAF: usize = 2_000;
/// The history that they ask for: 50 MB.
const LINES: usize = 50_000;
const LENGTH: usize = 1000;
/// More than the sockets in between hold for a client that reads nothing.
const BEYOND_ALL_BUFFERS: usize = 600 << 10;
/// The server's memory may grow by this much, in MiB.
const MEMORY: u64 = 100;
/// No more threads than this may be added.
const HANDFUL: u64 = 8;
/// A busy machine may keep the client that reads from it for longer than the first ones.
const STALL_TIMEOUTS: [Duration; 3] =
    [Duration::from_secs(3), Duration::from_secs(12), Duration::from_secs(48)];
/// The last one may be closed this much later, on a busy machine.
const LATE: Duration = Duration::from_secs(240);

#[test]
fn thousands_of_requests_for_a_history_that_nobody_reads_cost_next_to_nothing() {
    let file = padded_lines(LINES, LENGTH);
    // The history alone, the history with what comes, and what comes alone.
    let paths = ["/messages", "/messages?follow=1", "/messages?follow=1&limit=0"];
    with_more_and_more_time(STALL_TIMEOUTS, |stall_timeout| {
        cost_at_most(MEMORY, stall_timeout, stall_timeout, &file, &paths, LENGTH);
    });
}

#[test]
fn thousands_of_followers_that_read_no_long_messages_share_what_they_may_hold() {
    // 64 MiB of them, and what the allocator keeps of those that were let go at once.
    with_more_and_more_time(STALL_TIMEOUTS, |stall_timeout| {
        cost_at_most(400, stall_timeout, Duration::ZERO, "1\n", &["/messages?follow=1"], 100_000);
    });
}

/// While messages of `size` bytes go on and on.
#[track_caller]
fn cost_at_most(
    memory: u64,
    stall_timeout: Duration,
    earliest: Duration,
    file: &str,
    paths: &[&str],
    size: usize,
) {
    let count = room_for(DEAF + 10) - 10;
    let stall = format!("{}s", stall_timeout.as_secs());
    let server =
        Setup::new().file(file).flags(&["--stall-timeout", &stall, "--fsync", "never"]).start();
    let count = taken_by(&server, count);
    let mut crowd = Crowd::around(&server, file);
    let ann = crowd.comes(1, Habit::Reads, &joins("/ws?limit=0"));
    crowd.have_joined(ann.clone());
    crowd.speaks(ann.start);
    // Each has been served once, so its thread is not what the memory grows by.
    let deaf = crowd.comes(count, Habit::Reads, &asks("/messages/1"));
    assert_eq!(crowd.told(&deaf, 200), count, "all are answered");

    crowd.watches();
    let begun = Instant::now();
    crowd.become_of(deaf.clone(), Habit::ReadsNothing);
    for index in deaf.clone() {
        crowd.ask_again(index..index + 1, &asks(paths[index % paths.len()]));
    }
    crowd.says(BEYOND_ALL_BUFFERS / size, size);
    crowd.says_until(size, Duration::from_millis(100), "the deaf are closed", |crowd| {
        crowd.ended(&deaf) == count
    });
    crowd.says(1, size);
    // On a busy machine some had waited for so long that the server closed them before they asked.
    let asked = || crowd.of(&deaf).filter(|member| member.status == 200);
    assert!(asked().count() >= count / 2, "{} of {count} asked in time", asked().count());
    let closed = || asked().filter_map(|member| Some(member.ended? - begun));
    let (first, last) = (closed().min().expect("some"), closed().max().expect("some"));
    tell(&format!(
        "{count} ask for {paths:?} and read nothing: {}; closed after {first:.1?} to {last:.1?}",
        crowd.watch.told(),
    ));
    assert!(first >= earliest, "closed after {first:?}");
    assert!(last < stall_timeout + LATE, "closed after {last:?}");
    assert!(crowd.watch.grown() < memory, "{} MiB more", crowd.watch.grown());
    assert!(crowd.watch.more_threads() <= HANDFUL, "{} more threads", crowd.watch.more_threads());
}
