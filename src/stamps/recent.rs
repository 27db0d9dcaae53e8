//! The stamps of the latest messages, where there is no stamps file.

use std::{collections::VecDeque, sync::Arc};

use super::{Since, Stamp};

/// The stamps of the latest messages, in memory. They are known for this run of the server only.
/// Messages of the same millisecond and sender share an entry.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    runs: VecDeque<Run>,
}

/// A stamp that holds from a message on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    first_id: u64,
    ts: u64,
    from: Option<Arc<str>>,
}

/// How many different stamps are remembered. They take 2 MiB of memory. A server that is never idle
/// for a millisecond remembers 65 seconds with it, one where people talk remembers months.
const RUNS: usize = 1 << 16;

impl Recent {
    /// Remembers that messages from `first_id` on were accepted at `ts`, in Unix milliseconds.
    pub fn push(&mut self, first_id: u64, ts: u64, from: Option<&str>) {
        if self.runs.back().is_some_and(|run| run.ts == ts && run.from.as_deref() == from) {
            return;
        }
        if self.runs.len() == RUNS {
            self.runs.pop_front();
        }
        self.runs.push_back(Run { first_id, ts, from: from.map(Arc::from) });
    }

    /// The stamp of a message, as far as it is remembered.
    pub fn of(&self, id: u64) -> Stamp<'_> {
        let later = self.runs.partition_point(|run| run.first_id <= id);
        let run = later.checked_sub(1).map(|at| &self.runs[at]);
        run.map_or(Stamp::default(), |run| Stamp { ts: Some(run.ts), from: run.from.as_deref() })
    }

    /// The stamps of the messages `first_id..=last_id`.
    pub fn within(&self, first_id: u64, last_id: u64) -> Recent {
        let from = self.runs.partition_point(|run| run.first_id <= first_id);
        let to = self.runs.partition_point(|run| run.first_id <= last_id);
        Recent { runs: self.runs.range(from.saturating_sub(1)..to).cloned().collect() }
    }

    /// The first message at or after a time; `next_id` is the id of the next message to come.
    pub fn since(&self, ts: u64, next_id: u64) -> Since {
        if ts == 0 {
            return Since::Known(1);
        }
        let at = self.runs.partition_point(|run| run.ts < ts);
        Since::Known(self.runs.get(at).map_or(next_id, |run| run.first_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_from_its_first_message_until_the_next_stamp() {
        let mut recent = Recent::default();
        let ann = Some("ann");
        assert_eq!(recent.of(1), Stamp::default());
        recent.push(5, 100, None);
        recent.push(6, 100, None);
        recent.push(7, 100, ann);
        recent.push(9, 200, ann);
        let all: Vec<_> = (4..=10).map(|id| recent.of(id)).collect();
        let [a, b, c] =
            [(100, None), (100, ann), (200, ann)].map(|(ts, from)| Stamp { ts: Some(ts), from });
        assert_eq!(all, [Stamp::default(), a, a, b, b, c, c]);
        assert_eq!(recent.runs.len(), 3);
    }

    #[test]
    fn the_oldest_stamps_are_forgotten_and_their_messages_have_none() {
        let mut recent = Recent::default();
        for id in 1..=RUNS as u64 + 10 {
            recent.push(id, id * 2, None);
        }
        assert_eq!(recent.runs.len(), RUNS);
        assert_eq!((recent.of(10).ts, recent.of(11).ts), (None, Some(22)));
        assert_eq!(recent.of(RUNS as u64 + 10).ts, Some(2 * (RUNS as u64 + 10)));
    }

    #[test]
    fn a_part_has_the_stamps_of_its_messages() {
        let mut recent = Recent::default();
        for id in [3, 4, 7, 20] {
            recent.push(id, id * 10, None);
        }
        for first_id in 1..=31 {
            for last_id in first_id - 1..=30 {
                let some = recent.within(first_id, last_id);
                assert!(some.runs.len() as u64 <= last_id + 1 - first_id + 1);
                for id in first_id..=last_id {
                    assert_eq!(some.of(id), recent.of(id), "{id} of {first_id} to {last_id}");
                }
            }
        }
    }

    #[test]
    fn the_first_message_at_or_after_a_time_is_found_as_far_as_it_is_remembered() {
        let mut recent = Recent::default();
        recent.push(3, 100, None);
        recent.push(8, 200, None);
        let first_id = |ts| recent.since(ts, 12).first_id().expect("nothing is read");
        assert_eq!([0, 1, 100, 101, 200, 201].map(first_id), [1, 3, 3, 8, 8, 12]);
    }
}
