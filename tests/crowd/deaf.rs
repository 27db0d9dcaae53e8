//! Thousands of clients that connect and read nothing: the server lives and stays small, closes them
//! in time, and serves the others as before.

use std::time::{Duration, Instant};

use crate::{
    crowd::{Crowd, Habit, gauge, joins},
    machine::{maps, room_for_deaf, taken_by, tell, threads_by_name},
    support::*,
};

/// The default settings leave room for a few more: the clients that read, and some requests.
const DEAF: usize = 9_950;
const READING: usize = 10;
/// This many of the deaf come back.
const COMING_BACK: usize = 20;
/// More than the sockets in between hold for a client that reads nothing.
const BEYOND_ALL_BUFFERS: usize = 512 << 10;
/// The server's memory may grow by this much, however many fall behind, in MiB.
const MEMORY: u64 = 100;
/// No more threads than this may be added.
const HANDFUL: u64 = 8;
/// The log may have this many lines about all of them.
const LINES: usize = 5;
/// It may have this many more each time that a count is due.
const LINES_EACH_TIME: u64 = 2;
const LOG_EVERY: u64 = 30;
/// The last one may be closed this much later than its stall timeout: two busy processors close ten
/// thousand.
const LATE: Duration = Duration::from_secs(240);

#[test]
fn ten_thousand_clients_that_read_no_short_messages_do_not_end_the_server() {
    // A busy machine may keep the clients that read from it for longer than the first time.
    with_more_and_more_time([2, 10, 50].map(Duration::from_secs), |stall_timeout| {
        the_server_closes_them_in_time(100, stall_timeout);
    });
}

#[test]
fn ten_thousand_clients_that_read_no_long_messages_do_not_end_the_server() {
    with_more_and_more_time([10, 30, 90].map(Duration::from_secs), |stall_timeout| {
        the_server_closes_them_in_time(100_000, stall_timeout);
    });
}

/// While messages of `size` bytes go on and on.
#[track_caller]
fn the_server_closes_them_in_time(size: usize, stall_timeout: Duration) {
    let count = room_for_deaf(DEAF + READING + COMING_BACK) - READING - COMING_BACK;
    let stall = format!("{}s", stall_timeout.as_secs());
    let server = Setup::new().flags(&["--fsync", "never", "--stall-timeout", &stall]).start();
    let count = taken_by(&server, count);
    let mut crowd = Crowd::around(&server, "");
    let reading = crowd.joins(READING);
    crowd.speaks(reading.start);
    let epoch = crowd.members[0].told.as_ref().expect("it has joined").epoch.clone();
    let begun = Instant::now();
    let deaf = crowd.comes(count, Habit::ReadsNothing, &joins("/ws"));
    assert_eq!(crowd.told(&deaf, 101), count, "all are let in");
    let all = (count + READING) as u64;
    crowd.until("all have joined", |_| gauge(&server, "txtcord_clients") == Some(all));
    let joined = begun.elapsed();

    crowd.watches();
    let log = server.log().len();
    let begun = Instant::now();
    crowd.says(BEYOND_ALL_BUFFERS / size, size);
    let behind = begun.elapsed();
    crowd.says_until(size, Duration::from_millis(50), "the first deaf one is closed", |crowd| {
        crowd.ended(&deaf) > 0
    });
    let (names, maps) = (threads_by_name(&server), maps(&server));
    crowd.says_until(size, Duration::from_millis(50), "all deaf ones are closed", |crowd| {
        crowd.ended(&deaf) == count
    });
    crowd.says(1, size);

    let closed = || crowd.of(&deaf).filter_map(|member| Some(member.ended? - begun));
    let (first, last) = (closed().min().expect("some"), closed().max().expect("some"));
    tell(&format!(
        "{count} clients that read nothing of {} messages of {size} bytes: joined in {joined:.1?}, \
         {}; {maps} maps, {names:?}; all was heard after {behind:.1?}, closed after {first:.1?} to \
         {last:.1?}",
        crowd.last_id(),
        crowd.watch.told(),
    ));
    assert!(first >= stall_timeout, "closed after {first:?}");
    assert!(last < behind + stall_timeout + LATE, "closed after {last:?}");
    assert!(crowd.watch.grown() < MEMORY, "{} MiB more", crowd.watch.grown());
    assert!(crowd.watch.more_threads() <= HANDFUL, "{} more threads", crowd.watch.more_threads());
    assert_eq!(crowd.ended(&reading), 0, "clients that read were closed");

    // Some come back for what they missed, and hear the rest like the others.
    for index in deaf.clone().step_by(count.div_ceil(COMING_BACK)) {
        let heard = crowd.reads_what_had_come(index);
        assert!(heard < crowd.last_id(), "it has heard everything, so it was not deaf");
        crowd.comes_back(heard, &epoch);
    }
    crowd.says(10, size);
    let counts = (last - first).as_secs() / LOG_EVERY;
    says_so_in(LINES + (LINES_EACH_TIME * counts) as usize, &server, log);
}

/// The log has at most `most` lines about the crowd, one of them with a count.
#[track_caller]
fn says_so_in(most: usize, server: &Server, log: usize) {
    let lines = || {
        let log = server.log()[log..].to_owned();
        let mut lines = Vec::new();
        for line in log.lines().filter(|line| line.contains("[WARN]") || line.contains("[ERROR]")) {
            lines.push(line.to_owned());
        }
        lines
    };
    let counts = |line: &String| {
        // The line begins with a time.
        let said = line.split_once(']').map_or("", |(_, said)| said);
        said.contains("client") && said.bytes().any(|byte| byte.is_ascii_digit())
    };
    until("the log says how many were closed", || lines().iter().any(counts));
    let lines = lines();
    assert!(lines.len() <= most, "{} lines, such as {}", lines.len(), lines[0]);
}
