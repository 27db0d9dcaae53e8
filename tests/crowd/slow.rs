//! Thousands of clients that read slowly: they are far behind, and yet none loses anything.

use std::time::Duration;

use crate::{
    crowd::{Crowd, Habit, gauge, joins},
    machine::{room_for, sized, tell},
    support::*,
};

/// A debug build serves so many in the time that a test may take.
const SLOW: usize = 2_000;
/// Each reads so many bytes in a second.
const RATE: usize = 2_000;
const STALL_TIMEOUT: &str = "6s";
/// Half as much again as the stall timeout: a server that took them for deaf would close them.
const TIME: Duration = Duration::from_secs(9);
/// So much is said at once, more than the sockets in between hold, so that all are behind.
const SAID: usize = 256 << 10;
const SIZE: usize = 500;
/// The server's memory may grow by so much, in MiB.
const MEMORY: u64 = 100;
/// No more threads than this may be added.
const HANDFUL: u64 = 8;

#[test]
fn thousands_of_slow_readers_lose_nothing_and_delay_nobody() {
    const READING: usize = 3;
    let count = room_for(sized(SLOW, "TXTCORD_CROWD").min(9_950) + READING) - READING;
    let server =
        Setup::new().flags(&["--fsync", "never", "--stall-timeout", STALL_TIMEOUT]).start();
    let mut crowd = Crowd::around(&server, "");
    let reading = crowd.joins(READING);
    crowd.speaks(reading.start);
    let slow = crowd.comes(count, Habit::Sips, &joins("/ws"));
    crowd.watches();
    crowd.sip(slow.clone(), RATE);
    crowd.says(SAID / SIZE, SIZE);
    // Some may still be to have their turn. Without all of them behind, this shows nothing.
    crowd.until("all are behind", |_| {
        gauge(&server, "txtcord_clients_behind") == Some(count as u64)
    });
    let begun: Vec<u64> = crowd.of(&slow).map(|member| member.last_id).collect();
    let pause = Duration::from_millis(500);
    let mut left = (TIME.as_millis() / pause.as_millis()) as usize;
    while left > 0 {
        // The clients that read hear each one at once.
        crowd.says(1, SIZE);
        crowd.lives_for(pause);
        left -= 1;
    }
    assert_eq!(crowd.ended(&slow), 0, "clients were closed although they read");
    let least = TIME.as_secs() as usize * RATE / (SIZE + 100) / 2;
    for (member, begun) in crowd.of(&slow).zip(&begun) {
        let heard = member.last_id - begun;
        assert!(heard >= least as u64, "{heard} messages in {TIME:?}");
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
