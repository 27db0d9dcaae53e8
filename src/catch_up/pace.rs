//! Whether a client takes what it is sent so fast that the kernel may hold more for it.

use std::time::{Duration, Instant};

use crate::unsent::UNSENT;

/// How many bytes a client takes before its pace is known.
const PROOF: u64 = 128 << 10;

/// A client is fast that takes so many bytes a second or more, on average since it fell behind. At
/// this speed, what the kernel may hold for it is sent within a second, so that a ping or a close frame
/// waits no longer than that.
const FAST: u64 = 1 << 20;

/// How fast one client has been since it fell behind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    began: Instant,
    /// So many of its next bytes are not counted: the kernel takes them even if the client reads nothing.
    uncounted: u64,
    taken: u64,
    /// Whether it was found to be fast.
    is_fast: bool,
}

impl Pace {
    /// The pace of a client whose socket was found full.
    pub(super) fn of_full(began: Instant) -> Pace {
        Pace { began, uncounted: 0, taken: 0, is_fast: false }
    }

    /// The pace of a client that joins, which was sent next to nothing.
    pub(super) fn of_empty(began: Instant) -> Pace {
        Pace { uncounted: UNSENT, ..Pace::of_full(began) }
    }

    /// The client took so many bytes more.
    pub(super) fn took(&mut self, bytes: usize) {
        let counted = (bytes as u64).saturating_sub(self.uncounted);
        self.uncounted -= bytes as u64 - counted;
        self.taken += counted;
    }

    /// Whether the client is found to be fast now. It is true once at the most.
    pub(super) fn is_now_fast(&mut self, now: Instant) -> bool {
        if self.is_fast || self.taken < PROOF {
            return false;
        }
        let may_take = Duration::from_secs_f64(self.taken as f64 / FAST as f64);
        self.is_fast = now.saturating_duration_since(self.began) <= may_take;
        self.is_fast
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_fast_once_it_has_taken_much_in_a_short_time() {
        let began = Instant::now();
        let after = |millis| began + Duration::from_millis(millis);
        let mut pace = Pace::of_full(began);
        assert!(!pace.is_now_fast(began), "nothing is known of it");
        pace.took(PROOF as usize - 1);
        assert!(!pace.is_now_fast(after(1)), "it is too little to know");
        pace.took(1);
        assert!(!pace.is_now_fast(after(200)), "128 KiB in 200 ms");
        pace.took(PROOF as usize);
        assert!(pace.is_now_fast(after(250)), "256 KiB in 250 ms");
        assert!(!pace.is_now_fast(after(250)), "it was said");
    }

    #[test]
    fn what_the_kernel_takes_of_a_client_that_joins_says_nothing() {
        let began = Instant::now();
        let mut pace = Pace::of_empty(began);
        pace.took(UNSENT as usize - 1);
        pace.took(PROOF as usize);
        assert!(!pace.is_now_fast(began));
        pace.took(1);
        assert!(pace.is_now_fast(began));
    }
}
