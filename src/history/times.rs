//! The times at which messages were accepted, as long as they are remembered.

use std::collections::VecDeque;

use super::Stretch;

/// The times at which messages were accepted, as long as they are remembered.
///
/// The file has no times, so they are known for this run of the server only. Messages of the same
/// millisecond share an entry.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// Pairs of an id and the time that holds from that id on.
    runs: VecDeque<(u64, u64)>,
}

/// How many different times are remembered. They take 1 MiB of memory. A server that is never idle
/// for a millisecond remembers 65 seconds with it, one where people talk remembers months.
const TIMES: usize = 1 << 16;

impl Times {
    /// Remembers that messages from `first_id` on were accepted at `ts`, in Unix milliseconds.
    pub fn push(&mut self, first_id: u64, ts: u64) {
        if self.runs.back().is_some_and(|&(_, last)| last == ts) {
            return;
        }
        if self.runs.len() == TIMES {
            self.runs.pop_front();
        }
        self.runs.push_back((first_id, ts));
    }

    /// When the message was accepted, in Unix milliseconds, if that is remembered.
    pub fn of(&self, id: u64) -> Option<u64> {
        let later = self.runs.partition_point(|&(first_id, _)| first_id <= id);
        later.checked_sub(1).map(|at| self.runs[at].1)
    }

    /// The times of the messages in a stretch.
    pub fn within(&self, stretch: &Stretch) -> Times {
        let from = self.runs.partition_point(|&(first_id, _)| first_id <= stretch.first_id);
        let to = self.runs.partition_point(|&(first_id, _)| first_id <= stretch.last_id);
        Times { runs: self.runs.range(from.saturating_sub(1)..to).copied().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{history::History, testing::file_of};

    #[test]
    fn a_time_holds_from_its_first_message_until_the_next_time() {
        let mut times = Times::default();
        assert_eq!(times.of(1), None);
        times.push(5, 100);
        times.push(6, 100);
        times.push(9, 200);
        let all: Vec<_> = (4..=10).map(|id| times.of(id)).collect();
        let [a, b] = [Some(100), Some(200)];
        assert_eq!(all, [None, a, a, a, a, b, b]);
        assert_eq!(times.runs.len(), 2);
    }

    #[test]
    fn the_oldest_times_are_forgotten_and_their_messages_have_none() {
        let mut times = Times::default();
        for id in 1..=TIMES as u64 + 10 {
            times.push(id, id * 2);
        }
        assert_eq!(times.runs.len(), TIMES);
        assert_eq!((times.of(10), times.of(11)), (None, Some(22)));
        assert_eq!(times.of(TIMES as u64 + 10), Some(2 * (TIMES as u64 + 10)));
    }

    #[test]
    fn a_stretch_has_the_times_of_its_messages() {
        let text = "1\n".repeat(30);
        let history = History::load(file_of(text.as_bytes()), text.len() as u64, 100).unwrap();
        let mut times = Times::default();
        for id in [3, 4, 7, 20] {
            times.push(id, id * 10);
        }
        for first_id in 1..=31 {
            for last_id in first_id - 1..=30 {
                let some = times.within(&history.lines(first_id, last_id));
                assert!(some.runs.len() as u64 <= last_id + 1 - first_id + 1);
                for id in first_id..=last_id {
                    assert_eq!(some.of(id), times.of(id), "{id} of {first_id} to {last_id}");
                }
            }
        }
    }
}
