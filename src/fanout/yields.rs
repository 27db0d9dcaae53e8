//! When the hub lets other threads have its processor, in a round or before a batch.
//!
//! Programs on this machine that read what was just sent (a proxy, as a rule) may wait for the hub's
//! processor, and a yield lets them have it. But if a program that computes waits for it, too, that one
//! runs for a whole time slice: the scheduler of Linux (EEVDF, since 6.6) takes a yield as the end of
//! the hub's own slice. So a yield takes either some microseconds or some milliseconds, and the hub
//! finds out which.

use std::{
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

/// After this many sends in a row the hub may yield. With 100 clients and 200 messages/s on two
/// processors, the median latency is 0.85 times what it is without yields.
pub(super) const YIELD_EVERY: usize = 16;

/// A yield that took longer was to a program that computes, whose time slice is 0.7 ms at the least.
const LONG_YIELD: Duration = Duration::from_micros(500);

/// How long the hub does not yield after a long yield. On two processors with a program that computes
/// on each, the median latency to 100 clients at 200 messages/s is 0.1 times what it is with all
/// yields.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether there is only one processor. Who reads and speaks on this machine can do so only while the
/// hub does not run; there it yields even under pressure, so that more messages join a round. So 100
/// clients with 16 messages on their way get 2 times as many, and 1,000 get 2.7 times as many.
static ONE_PROCESSOR: LazyLock<bool> =
    LazyLock::new(|| thread::available_parallelism().is_ok_and(|count| count.get() == 1));

/// Whether messages come faster than the hub goes its rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressure {
    /// They came while a round was under way. If a hub under pressure yielded for long, more would
    /// come meanwhile, and it might never be at ease again.
    High,
    /// Everybody had everything when they came.
    Low,
}

/// The yields of one hub.
#[derive(Debug)]
pub(super) struct Yields {
    has_one_processor: bool,
    pressure: Pressure,
    /// When the hub may yield again, after a long yield.
    again_at: Option<Instant>,
}

impl Default for Yields {
    fn default() -> Yields {
        Yields::on(*ONE_PROCESSOR)
    }
}

impl Yields {
    fn on(has_one_processor: bool) -> Yields {
        Yields { has_one_processor, pressure: Pressure::Low, again_at: None }
    }

    /// Notes how fast messages come.
    pub(super) fn press(&mut self, pressure: Pressure) {
        self.pressure = pressure;
    }

    /// Yields where many messages come and all threads wait for one processor. 100 clients with one
    /// message on their way get 1.2 times as many with that.
    pub(super) fn yield_before_batch(&self) {
        if self.has_one_processor && self.pressure == Pressure::High {
            thread::yield_now();
        }
    }

    /// Yields in a round, unless that is known to take long. Under pressure it yields only where there
    /// is one processor.
    pub(super) fn yield_now(&mut self) {
        self.yield_by(Instant::now, thread::yield_now);
    }

    fn yield_by(&mut self, now: impl Fn() -> Instant, yield_now: impl FnOnce()) {
        if self.pressure == Pressure::High {
            if self.has_one_processor {
                yield_now();
            }
            return;
        }
        let before = now();
        if self.again_at.is_some_and(|again_at| before < again_at) {
            return;
        }
        yield_now();
        let after = now();
        self.again_at = (after - before > LONG_YIELD).then(|| after + PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Has the hub yield at a time, and be away for so long; returns whether it did.
    fn yields_at(yields: &mut Yields, time: Instant, away: Duration) -> bool {
        let clock = Cell::new(time);
        yields.yield_by(|| clock.get(), || clock.set(time + away));
        clock.get() > time
    }

    #[test]
    fn after_a_long_yield_there_is_none_for_a_while() {
        let (short, long) = (LONG_YIELD / 10, LONG_YIELD * 2);
        let mut yields = Yields::on(false);
        let start = Instant::now();
        assert!(yields_at(&mut yields, start, short));
        assert!(yields_at(&mut yields, start, long), "the last one was short");
        assert!(!yields_at(&mut yields, start + PAUSE, short));
        assert!(yields_at(&mut yields, start + long + PAUSE, short), "the while is over");
        assert!(yields_at(&mut yields, start + long + PAUSE, short));
    }

    #[test]
    fn a_hub_under_pressure_yields_only_where_there_is_one_processor() {
        let start = Instant::now();
        for has_one_processor in [false, true] {
            let mut yields = Yields::on(has_one_processor);
            yields.press(Pressure::High);
            for _ in 0..2 {
                let yielded = yields_at(&mut yields, start, LONG_YIELD * 2);
                assert_eq!(yielded, has_one_processor);
            }
            yields.press(Pressure::Low);
            assert!(yields_at(&mut yields, start, LONG_YIELD));
        }
    }
}
