//! Thousands of clients that read slowly: they are far behind, and yet none loses anything.

use std::time::Duration;

use crate::{
    crowd::{Crowd, Habit, gauge, joins},
    machine::{room_for, sized, taken_by, tell},
    support::*,
};

/// A debug build serves this many in the time that a test may take.
const SLOW: usize = 2_000;
/// Each reads this many bytes while the stall timeout goes by.
const READS: usize = 12_000;
/// How often something is said meanwhile.
const SAYS: u32 = 12;
/// What is said at once, in bytes: more than the sockets in between hold, so that all are behind.
const SAID: usize = 256 << 10;
const SIZE: usize = 500;
/// The server's memory may grow by this much, in MiB.
const MEMORY: u64 = 100;
/// No more threads than this may be added.
const HANDFUL: u64 = 8;

#[test]
fn thousands_of_slow_readers_lose_nothing_and_delay_nobody() {
    // A busy machine does not read for thousands so often in so short a time.
    with_more_and_more_time([6, 24, 96].map(Duration::from_secs), slow_readers_lose_nothing);
}

/// With this stall timeout, and the slower the longer it is.
#[track_caller]
fn slow_readers_lose_nothing(stall_timeout: Duration) {
    const READING: usize = 3;
    let rate = READS / stall_timeout.as_secs() as usize;
    // Half as much again as the stall timeout: a server that took them for deaf would close them.
    let time = stall_timeout * 3 / 2;
    let stall = format!("{}s", stall_timeout.as_secs());
    let count = room_for(sized(SLOW, "TXTCORD_CROWD").min(9_950) + READING) - READING;
    let server = Setup::new().flags(&["--fsync", "never", "--stall-timeout", &stall]).start();
    let count = taken_by(&server, count);
    let mut crowd = Crowd::around(&server, "");
    let reading = crowd.joins(READING);
    crowd.speaks(reading.start);
    let slow = crowd.comes(count, Habit::Sips, &joins("/ws"));
    crowd.watches();
    crowd.sip(slow.clone(), rate);
    crowd.says(SAID / SIZE, SIZE);
    // Some may still be to have their turn. Without all of them behind, this shows nothing.
    crowd.until("all are behind", |_| {
        gauge(&server, "txtcord_clients_behind") == Some(count as u64)
    });
    let begun: Vec<u64> = crowd.of(&slow).map(|member| member.last_id).collect();
    for _ in 0..SAYS * 3 / 2 {
        // The clients that read hear each one at once.
        crowd.says(1, SIZE);
        crowd.lives_for(stall_timeout / SAYS);
    }
    assert_eq!(crowd.ended(&slow), 0, "clients were closed although they read");
    let least = READS * 3 / 2 / (SIZE + 100) / 2;
    for (member, begun) in crowd.of(&slow).zip(&begun) {
        let heard = member.last_id - begun;
        assert!(heard >= least as u64, "{heard} messages in {time:?}");
    }
    let heard = || crowd.of(&slow).map(|member| member.last_id);
    tell(&format!(
        "{count} slow readers: {}; they have heard {} to {} of {} messages",
        crowd.watch.told(),
        heard().min().unwrap_or_default(),
        heard().max().unwrap_or_default(),
        crowd.last_id(),
    ));
    // When they read faster, they hear the rest.
    crowd.sip_no_more();
    crowd.become_of(slow.clone(), Habit::Reads);
    crowd.says(10, SIZE);
    assert_eq!(crowd.ended(&slow), 0, "clients were closed although they read");
    assert!(crowd.watch.grown() < MEMORY, "{} MiB more", crowd.watch.grown());
    assert!(crowd.watch.more_threads() <= HANDFUL, "{} more threads", crowd.watch.more_threads());
}
