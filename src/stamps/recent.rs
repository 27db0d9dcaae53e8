//! The stamps of the latest messages, where there is no stamps file.

use std::{collections::VecDeque, sync::Arc};

use super::{Since, Stamp};

/// The stamps of the latest messages, in memory. They are known for this run of the server only.
/// Messages of the same millisecond and sender share an entry.
///
/// They stand in chunks, none of them empty, which the hub and its readers share. A slow reader has to
/// itself the list of chunks and the last of them, if more was pushed since: 10 KB at the most. What the
/// hub forgets stays as long as a reader has it.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    chunks: VecDeque<Arc<Vec<StampRun>>>,
}

/// A stamp that holds from a message on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StampRun {
    first_id: u64,
    ts: u64,
    from: Option<Arc<str>>,
}

/// How many different stamps are remembered; right after the oldest chunk was forgotten, one chunk
/// fewer. They take 2 MiB of memory. A server that is never idle for a millisecond remembers 65 seconds
/// with it, one where people talk remembers months.
const RUNS: usize = 1 << 16;

/// The most runs in a chunk. A batch copies one chunk at the most, 8 KB, and the list of chunks has
/// 2 KB.
const CHUNK: usize = 256;

const _: () = assert!(RUNS.is_multiple_of(CHUNK));

impl Recent {
    /// Remembers that messages from `first_id` on were accepted at `ts`, in Unix milliseconds.
    pub fn push(&mut self, first_id: u64, ts: u64, from: Option<&str>) {
        let last = self.chunks.back().and_then(|chunk| chunk.last());
        if last.is_some_and(|run| run.ts == ts && run.from.as_deref() == from) {
            return;
        }
        if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
            if self.chunks.len() == RUNS / CHUNK {
                self.chunks.pop_front();
            }
            self.chunks.push_back(Arc::default());
        }
        let chunk = Arc::make_mut(self.chunks.back_mut().expect("there is one with room"));
        if chunk.len() == chunk.capacity() {
            // No more than the chunk may have: one that was copied would else double from any size.
            chunk.reserve_exact(chunk.len().max(4).min(CHUNK - chunk.len()));
        }
        chunk.push(StampRun { first_id, ts, from: from.map(Arc::from) });
    }

    /// The stamp of a message, as far as it is remembered.
    pub fn of(&self, id: u64) -> Stamp<'_> {
        let later = self.begun_by(id);
        let chunk = later.checked_sub(1).map_or(&[][..], |at| &self.chunks[at]);
        let later = chunk.partition_point(|run| run.first_id <= id);
        let run = later.checked_sub(1).map(|at| &chunk[at]);
        run.map_or(Stamp::default(), |run| Stamp { ts: Some(run.ts), from: run.from.as_deref() })
    }

    /// The stamps of the messages `first_id..=last_id`, and of some before and after them.
    pub fn around(&self, first_id: u64, last_id: u64) -> Recent {
        let (from, to) = (self.begun_by(first_id), self.begun_by(last_id));
        Recent { chunks: self.chunks.range(from.saturating_sub(1)..to).cloned().collect() }
    }

    /// How many chunks begin with this message or one before it.
    fn begun_by(&self, id: u64) -> usize {
        self.chunks.partition_point(|chunk| chunk[0].first_id <= id)
    }

    /// The first message at or after a time; `next_id` is the id of the next message to come.
    pub fn since(&self, ts: u64, next_id: u64) -> Since {
        if ts == 0 {
            return Since::Known(1);
        }
        let at = self.chunks.partition_point(|chunk| chunk[chunk.len() - 1].ts < ts);
        let chunk = self.chunks.get(at).map_or(&[][..], |chunk| chunk);
        let run = chunk.get(chunk.partition_point(|run| run.ts < ts));
        Since::Known(run.map_or(next_id, |run| run.first_id))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    impl Recent {
        fn runs(&self) -> usize {
            self.chunks.iter().map(|chunk| chunk.len()).sum()
        }
    }

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
        assert_eq!(recent.runs(), 3);
    }

    #[test]
    fn the_oldest_stamps_are_forgotten_and_their_messages_have_none() {
        let mut recent = Recent::default();
        for id in 1..=RUNS as u64 + 10 {
            recent.push(id, id * 2, None);
            assert!(recent.runs() == id as usize || recent.runs() > RUNS - CHUNK);
            assert!(recent.runs() <= RUNS);
        }
        let last_forgotten = CHUNK as u64;
        assert_eq!(recent.of(last_forgotten).ts, None);
        assert_eq!(recent.of(last_forgotten + 1).ts, Some(2 * (last_forgotten + 1)));
        assert_eq!(recent.of(RUNS as u64 + 10).ts, Some(2 * (RUNS as u64 + 10)));
    }

    #[test]
    fn a_part_has_the_stamps_of_its_messages_and_of_few_others() {
        let mut recent = Recent::default();
        let ids: Vec<u64> = (0..3 * CHUNK as u64).map(|number| 3 + number * 2).collect();
        ids.iter().for_each(|&id| recent.push(id, id * 10, None));
        let ends = [0, CHUNK - 1, CHUNK, 2 * CHUNK, 3 * CHUNK - 1].map(|at| ids[at]);
        let near: Vec<u64> = ends.iter().flat_map(|end| end - 2..=end + 2).collect();
        for &first_id in &near {
            for &last_id in near.iter().filter(|last_id| **last_id >= first_id - 1) {
                let some = recent.around(first_id, last_id);
                assert!(some.runs() as u64 <= last_id + 1 - first_id + 2 * CHUNK as u64);
                for id in first_id..=last_id {
                    assert_eq!(some.of(id), recent.of(id), "{id} of {first_id} to {last_id}");
                }
            }
        }
    }

    #[test]
    fn readers_share_what_is_remembered_and_keep_it_as_it_was() {
        const READERS: u64 = 200;
        let mut recent = Recent::default();
        let mut readers = Vec::new();
        for id in 1..=RUNS as u64 + READERS {
            if id > RUNS as u64 {
                readers.push((id - 1, recent.around(1, id - 1)));
            }
            recent.push(id, id * 2, None);
        }
        let all = readers.iter().map(|(_, reader)| reader).chain([&recent]);
        let chunks: HashSet<_> = all.flat_map(|it| it.chunks.iter().map(Arc::as_ptr)).collect();
        assert!(chunks.len() <= RUNS / CHUNK + 1 + readers.len(), "{} chunks", chunks.len());
        for (last_id, reader) in readers {
            assert_eq!(reader.of(u64::MAX).ts, Some(last_id * 2), "the last one of the time then");
        }
        let room = recent.chunks.iter().map(|chunk| chunk.capacity());
        assert!(room.max() <= Some(CHUNK), "no chunk has room for more than it may have");
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
