//! The holes of a file, or of a part of it. The hub changes them, and readers keep them as they were.
//!
//! Lines become holes at any time, and a reader needs the holes of the time when it began for as long
//! as it reads. So they stand in chunks: a clone shares all of them, and a change copies the one or two
//! that it touches, and the list of chunks. A slow reader has to itself what was changed between it and
//! the next reader: 8 KB for each chunk, and for the list 32 KB for each million of holes, or twice as
//! much where chunks were divided.

use std::sync::Arc;

/// The most runs in a chunk. A change copies 8 KB then, which costs less than to erase a line; and
/// the list, 8 bytes for each chunk, is shorter than the runs by a factor of 500 or more.
const CHUNK: usize = 256;

/// A hole, or several holes one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HoleRun {
    pub(super) first_id: u64,
    pub(super) lines: u64,
    pub(super) start: u64,
    pub(super) end: u64,
}

impl HoleRun {
    pub(super) fn last_id(&self) -> u64 {
        self.first_id + self.lines - 1
    }

    /// Both as one; `next` begins where this one ends.
    fn with(self, next: HoleRun) -> HoleRun {
        HoleRun { lines: self.lines + next.lines, end: next.end, ..self }
    }
}

/// All runs in the order of the file, no two of which touch. A chunk has at least one of them, and at
/// most `MOST`.
#[derive(Clone, Debug, Default)]
pub(super) struct Holes<const MOST: usize = CHUNK> {
    chunks: Arc<Vec<Arc<Vec<HoleRun>>>>,
}

/// Where a run stands among the others. It stays right until they change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    chunk: usize,
    at: usize,
}

impl<const MOST: usize> Holes<MOST> {
    /// Takes in a run that stands after all others.
    pub(super) fn push(&mut self, run: HoleRun) {
        self.join(run, Place { chunk: self.chunks.len(), at: 0 });
    }

    /// Takes in a run that stands anywhere between the others.
    pub(super) fn insert(&mut self, run: HoleRun) {
        self.join(run, self.first_not(|other| other.first_id < run.first_id));
    }

    /// The first run.
    pub(super) fn first(&self) -> Option<&HoleRun> {
        self.get(Place { chunk: 0, at: 0 })
    }

    /// The first run that does not end before this line.
    pub(super) fn at_id(&self, id: u64) -> Place {
        self.first_not(|run| run.last_id() < id)
    }

    /// The first run that ends after this offset.
    pub(super) fn at_offset(&self, offset: u64) -> Place {
        self.first_not(|run| run.end <= offset)
    }

    /// The run at this place; `None` after the last one.
    pub(super) fn get(&self, place: Place) -> Option<&HoleRun> {
        self.chunks.get(place.chunk)?.get(place.at)
    }

    /// The place after this one, at which there is a run.
    pub(super) fn after(&self, Place { chunk, at }: Place) -> Place {
        let is_last = at + 1 == self.chunks[chunk].len();
        if is_last { Place { chunk: chunk + 1, at: 0 } } else { Place { chunk, at: at + 1 } }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &HoleRun> {
        self.chunks.iter().flat_map(|chunk| &**chunk)
    }

    /// The runs from this place on.
    pub(super) fn iter_from(&self, Place { chunk, at }: Place) -> impl Iterator<Item = &HoleRun> {
        self.chunks.iter().skip(chunk).flat_map(|chunk| &**chunk).skip(at)
    }

    /// The runs that begin before this line, the last one first.
    pub(super) fn iter_back(&self, before_id: u64) -> impl Iterator<Item = &HoleRun> {
        let Place { chunk, at } = self.first_not(|run| run.first_id < before_id);
        let begun = self.chunks.get(chunk).map_or(&[][..], |chunk| &chunk[..at]);
        let whole = self.chunks[..chunk].iter().rev().flat_map(|chunk| chunk.iter().rev());
        begun.iter().rev().chain(whole)
    }

    /// The first run for which this does not hold, where it holds for all runs before that one and for
    /// none after it.
    fn first_not(&self, holds: impl Fn(&HoleRun) -> bool) -> Place {
        let chunk = self.chunks.partition_point(|chunk| holds(&chunk[chunk.len() - 1]));
        let at = self.chunks.get(chunk).map_or(0, |chunk| chunk.partition_point(holds));
        Place { chunk, at }
    }

    /// The place before this one, at which there may be no run; `None` for the first one.
    fn before(&self, Place { chunk, at }: Place) -> Option<Place> {
        match at.checked_sub(1) {
            Some(at) => Some(Place { chunk, at }),
            None => {
                let chunk = chunk.checked_sub(1)?;
                Some(Place { chunk, at: self.chunks[chunk].len() - 1 })
            }
        }
    }

    /// Takes in a run that stands right before the one at `next`. Those that it touches become one
    /// with it.
    fn join(&mut self, run: HoleRun, next: Place) {
        let last = self.before(next);
        let touches = |last: &Place| self.get(*last).is_some_and(|last| last.end == run.start);
        let joins_last = last.filter(touches);
        let joins_next = self.get(next).copied().filter(|next| next.start == run.end);
        match (joins_last, joins_next) {
            (Some(last), Some(next_run)) => {
                self.change(last, |last| last.with(run).with(next_run));
                self.remove(next);
            }
            (Some(last), None) => self.change(last, |last| last.with(run)),
            (None, Some(_)) => self.change(next, |next| run.with(next)),
            (None, None) => {
                let place = last.map_or(next, |last| Place { at: last.at + 1, ..last });
                self.insert_at(place, run);
            }
        }
    }

    fn change(&mut self, place: Place, to: impl FnOnce(HoleRun) -> HoleRun) {
        let chunks = Arc::make_mut(&mut self.chunks);
        let run = &mut Arc::make_mut(&mut chunks[place.chunk])[place.at];
        *run = to(*run);
    }

    fn remove(&mut self, place: Place) {
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[place.chunk]);
        chunk.remove(place.at);
        if chunk.is_empty() {
            chunks.remove(place.chunk);
        }
    }

    fn insert_at(&mut self, place: Place, run: HoleRun) {
        let chunks = Arc::make_mut(&mut self.chunks);
        let place = make_room::<MOST>(chunks, place);
        let chunk = Arc::make_mut(&mut chunks[place.chunk]);
        if chunk.len() == chunk.capacity() {
            // An eighth more: each deleted message may be a run of its own.
            chunk.reserve_exact((chunk.len() / 8 + 4).min(MOST - chunk.len()));
        }
        chunk.insert(place.at, run);
    }
}

/// Makes room for one more run at a place; returns where that is then.
fn make_room<const MOST: usize>(chunks: &mut Vec<Arc<Vec<HoleRun>>>, place: Place) -> Place {
    let Place { chunk, at } = place;
    let is_last = chunk + 1 >= chunks.len();
    match chunks.get_mut(chunk) {
        Some(runs) if runs.len() < MOST => place,
        Some(runs) if at < MOST || !is_last => {
            let runs = Arc::make_mut(runs);
            let rest = runs.split_off(MOST / 2);
            runs.shrink_to_fit();
            chunks.insert(chunk + 1, Arc::new(rest));
            let is_in_rest = at > MOST / 2;
            if is_in_rest { Place { chunk: chunk + 1, at: at - MOST / 2 } } else { place }
        }
        // The end of all runs, where most are taken in: the chunks before it stay full.
        _ => {
            chunks.push(Arc::default());
            Place { chunk: chunks.len() - 1, at: 0 }
        }
    }
}

#[cfg(test)]
mod tests;
