use std::net::Ipv4Addr;

use clap::Parser;

use super::*;

fn rate(flags: &[&str]) -> PostRate {
    let flags = ["txtcord"].iter().chain(flags);
    PostRate::new(&Config::parse_from(flags)).expect("there is a limit")
}

fn at(address: u32) -> Subject {
    Subject::Address(Ipv4Addr::from(address).into())
}

#[test]
fn a_caller_has_a_burst_and_then_the_rate() {
    let rate = rate(&["--post-rate", "10/s", "--post-burst", "3"]);
    let begun = Instant::now();
    let take = |millis: u64, messages: u32| {
        let taken = rate.take_at(begun + Duration::from_millis(millis), at(1), messages);
        taken.map_err(|too_fast| too_fast.retry_after.map(|time| time.as_millis()))
    };
    assert_eq!(take(0, 2), Ok(()));
    assert_eq!(take(0, 2), Err(Some(100)), "all or none");
    assert_eq!(take(0, 1), Ok(()));
    assert_eq!(take(0, 1), Err(Some(100)));
    assert_eq!(take(40, 1), Err(Some(60)));
    assert_eq!(take(100, 1), Ok(()));
    assert_eq!(take(100, 1), Err(Some(100)));
    assert_eq!(take(100, 4), Err(None), "never so many at once");
    assert_eq!(take(10_000, 3), Ok(()), "the burst is whole again, and no larger");
    assert_eq!(take(10_000, 1), Err(Some(100)));
    assert_eq!(rate.take_at(begun, at(2), 3), Ok(()), "another one has an own allowance");
}

#[test]
fn without_a_burst_ten_seconds_worth_is_allowed_at_once() {
    assert_eq!(rate(&["--post-rate", "5/s"]).burst, 50);
    assert_eq!(rate(&["--post-rate", "5"]).burst, 50);
    // The time between two messages is no whole number of nanoseconds.
    assert_eq!(rate(&["--post-rate", "3/s"]).burst, 30);
    assert_eq!(rate(&["--post-rate", "90/m"]).burst, 15);
    assert_eq!(rate(&["--post-rate", "1/m"]).burst, 1);
}

#[test]
fn the_time_to_wait_is_rounded_up() {
    #[track_caller]
    fn check(millis: u64, sentence: &str, retry_after: &str) {
        let wait = TooFast { retry_after: Some(Duration::from_millis(millis)), burst: 1 };
        assert!(wait.to_string().ends_with(sentence), "{wait}");
        assert_eq!(wait.whole_seconds(), retry_after);
    }
    check(1, "in 0.1 s", "1");
    check(1_101, "in 1.2 s", "2");
    check(2_000, "in 2.0 s", "2");
}

#[test]
fn what_is_kept_is_bounded_however_many_come_and_callers_that_are_known_keep_their_allowance() {
    let rate = rate(&["--post-rate", "1/s", "--post-burst", "2"]);
    let begun = Instant::now();
    let ann = || Subject::Pseudonym("~ra5k4rs4tily".into());
    rate.take_at(begun, ann(), 1).expect("it is the first");
    let count = || {
        rate.tables
            .iter()
            .map(|table| table.lock().expect("no panic here").dues.len())
            .sum::<usize>()
    };
    let refused = (0..1_000_000).filter(|&n| rate.take_at(begun, at(n), 1).is_err()).count();
    assert!(count() <= TABLES * TABLE_SIZE);
    assert!(refused > 800_000, "those that do not fit share one allowance: {refused}");
    rate.take_at(begun, ann(), 1).expect("it has one left");
    rate.take_at(begun, ann(), 1).expect_err("it has none left");
    // A caller with a token is always counted apart from strangers.
    let root = || Subject::Name("root".into());
    rate.take_at(begun, at(5_000_000), 1).expect_err("the strangers have used up what they share");
    rate.take_at(begun, root(), 2).expect("it has a burst of its own");
    rate.take_at(begun, root(), 1).expect_err("it has none left");
    // All of these may post again, so they are forgotten for those who come.
    let later = begun + Duration::from_secs(3);
    (0..100_000).for_each(|n| rate.take_at(later, at(n + 2_000_000), 1).expect("there is room"));
}
