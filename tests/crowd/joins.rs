//! Clients that join a long history all at once: each gets all of it, and the server holds none of it.

use std::time::Instant;

use crate::{
    crowd::{Crowd, Habit, joins},
    machine::{room_for, sized, taken_by, tell, threads_by_name},
    record::Told,
    support::*,
    wire,
};

const JOINERS: usize = 1_000;
/// Ten megabytes of messages; a debug build takes too long to send that much to all of them.
const HISTORY: usize = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
/// The server's memory may grow by this much, in MiB: with the threads of the joiners, a third of it.
const MEMORY: u64 = 100;
/// No more threads than this may be added beside those of the joiners.
const HANDFUL: u64 = 8;

#[test]
fn a_thousand_joiners_at_once_get_the_whole_history_and_the_server_holds_none_of_it() {
    let lines = sized(HISTORY, "TXTCORD_CROWD_HISTORY");
    let mut file = Vec::with_capacity(lines * 100);
    for number in 0..lines {
        wire::write_stored_line(number, &mut file).expect("memory takes it");
    }
    let count = room_for(JOINERS + 2) - 2;
    let server = Setup::new().file(&file).flags(&["--fsync", "never"]).start();
    let count = taken_by(&server, count);
    let mut crowd = Crowd::around(&server, &file);
    crowd.patience *= (lines / HISTORY) as u32;
    let ann = crowd.joins(1).start;
    crowd.speaks(ann);
    crowd.watches();
    // All of them have joined before any of them reads.
    let joiners = crowd.comes(count, Habit::ReadsNothing, &joins("/ws"));
    assert_eq!(crowd.told(&joiners, 101), count, "all are let in");
    crowd.says(10, 1000);
    let names = threads_by_name(&server);
    let begun = Instant::now();
    crowd.become_of(joiners.clone(), Habit::Reads);
    crowd.have_joined(joiners.clone());
    let took = begun.elapsed();
    crowd.says(10, 1000);
    tell(&format!(
        "{count} joiners of {lines} messages: {}; {names:?}; whole in {took:.1?}",
        crowd.watch.told(),
    ));
    let whole = |history: &Told| (history.first_id, history.resumed) == (1, None);
    assert!(crowd.of(&joiners).all(|member| member.told.as_ref().is_some_and(whole)));
    assert_eq!(crowd.ended(&joiners), 0, "clients were closed although they read");
    assert!(crowd.watch.grown() < MEMORY, "{} MiB more", crowd.watch.grown());
    let more = crowd.watch.more_threads();
    assert!(more <= count as u64 + HANDFUL, "{more} more threads");
}
