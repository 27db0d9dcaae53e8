use std::collections::HashSet;

use proptest::{
    prelude::*,
    sample::{Index, Selector},
};

use super::*;
use crate::testing::tries;

/// A file whose lines are of these lengths, and which of them are holes.
#[derive(Clone, Debug)]
struct Model {
    lines: Vec<(u64, bool)>,
}

impl Model {
    /// The runs, worked out line by line.
    fn runs(&self) -> Vec<HoleRun> {
        let mut runs: Vec<HoleRun> = Vec::new();
        let mut start = 0;
        for (at, &(len, is_hole)) in self.lines.iter().enumerate() {
            let line = HoleRun { first_id: at as u64 + 1, lines: 1, start, end: start + len };
            start = line.end;
            match runs.last_mut() {
                _ if !is_hole => {}
                Some(run) if run.end == line.start => {
                    run.lines += 1;
                    run.end = line.end;
                }
                _ => runs.push(line),
            }
        }
        runs
    }

    fn line(&self, at: usize) -> HoleRun {
        let start = self.lines[..at].iter().map(|(len, _)| len).sum();
        HoleRun { first_id: at as u64 + 1, lines: 1, start, end: start + self.lines[at].0 }
    }

    fn pushed<const MOST: usize>(&self) -> Holes<MOST> {
        let mut holes = Holes::default();
        for at in 0..self.lines.len() {
            if self.lines[at].1 {
                holes.push(self.line(at));
            }
        }
        holes
    }

    /// Compares all that holes can be asked with the model.
    fn check<const MOST: usize>(&self, holes: &Holes<MOST>) {
        let runs = self.runs();
        assert!(holes.iter().eq(&runs), "{holes:?} instead of {runs:?}");
        assert_eq!(holes.first(), runs.first());
        assert!(holes.chunks.iter().all(|chunk| (1..=MOST).contains(&chunk.len())), "{holes:?}");
        for id in 0..self.lines.len() as u64 + 2 {
            let expected: Vec<_> = runs.iter().filter(|run| run.last_id() >= id).collect();
            check_from(holes, holes.at_id(id), &expected);
            let before = runs.iter().rev().filter(|run| run.first_id < id);
            assert!(holes.iter_back(id).eq(before), "back from line {id}");
        }
        let end: u64 = self.lines.iter().map(|(len, _)| len).sum();
        for offset in 0..=end + 1 {
            let expected: Vec<_> = runs.iter().filter(|run| run.end > offset).collect();
            check_from(holes, holes.at_offset(offset), &expected);
        }
    }
}

fn check_from<const MOST: usize>(holes: &Holes<MOST>, place: Place, expected: &[&HoleRun]) {
    assert!(holes.iter_from(place).eq(expected.iter().copied()), "from {place:?}");
    let mut place = place;
    for &run in expected {
        assert_eq!(holes.get(place), Some(run), "at {place:?}");
        place = holes.after(place);
    }
    assert_eq!(holes.get(place), None, "at {place:?}");
}

/// Makes holes of lines one after the other, while readers hold what was there before.
fn check_inserted<const MOST: usize>(mut model: Model, order: &[Index]) {
    let mut holes = model.pushed::<MOST>();
    model.check(&holes);
    let mut readers = Vec::new();
    for which in order {
        let messages: Vec<_> = (0..model.lines.len()).filter(|&at| !model.lines[at].1).collect();
        if messages.is_empty() {
            break;
        }
        let at = *which.get(&messages);
        // Some changes come with no reader between them.
        if at % 3 > 0 {
            readers.push((model.clone(), holes.clone()));
        }
        model.lines[at].1 = true;
        holes.insert(model.line(at));
        model.check(&holes);
    }
    for (model, holes) in readers {
        assert!(holes.iter().eq(&model.runs()), "a reader's holes changed");
    }
}

proptest! {
    #![proptest_config(tries(128))]

    #[test]
    fn holes_are_those_of_a_plain_list_and_a_reader_keeps_them_as_they_were(
        lines in prop::collection::vec((1..4u64, prop::bool::weighted(0.3)), 0..48),
        order in prop::collection::vec(any::<Index>(), 0..48),
    ) {
        let model = Model { lines };
        check_inserted::<2>(model.clone(), &order);
        check_inserted::<3>(model.clone(), &order);
        check_inserted::<CHUNK>(model, &order);
    }

    #[test]
    fn holes_may_come_in_any_order(selector in any::<Selector>(), count in 0..40_u64) {
        // Every second line first, so that there are many chunks, and then those between.
        let mut model = Model { lines: vec![(2, false); 2 * count as usize] };
        let mut holes = Holes::<3>::default();
        for part in [0, 1] {
            let mut left: Vec<usize> = (0..count as usize).map(|at| 2 * at + part).collect();
            while !left.is_empty() {
                let at = selector.select(0..left.len());
                let at = left.swap_remove(at);
                model.lines[at].1 = true;
                holes.insert(model.line(at));
                assert!(holes.iter().eq(&model.runs()), "{holes:?}");
            }
        }
        assert_eq!(holes.iter().count() as u64, count.min(1));
    }
}

/// A hole that touches no other one.
fn alone(number: u64) -> HoleRun {
    HoleRun { first_id: 2 * number, lines: 1, start: 200 * number, end: 200 * number + 100 }
}

/// The bytes that these take together, where what is shared counts once.
fn bytes<'a>(all: impl IntoIterator<Item = &'a Holes>) -> usize {
    // The two counts of an `Arc`, and the `Vec` in it.
    const LIST: usize = 2 * size_of::<usize>() + size_of::<Vec<HoleRun>>();
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for Holes { chunks } in all {
        if seen.insert(Arc::as_ptr(chunks).cast::<()>()) {
            bytes += LIST + chunks.capacity() * size_of::<usize>();
        }
        for chunk in &**chunks {
            if seen.insert(Arc::as_ptr(chunk).cast()) {
                bytes += LIST + chunk.capacity() * size_of::<HoleRun>();
            }
        }
    }
    bytes
}

/// So many holes that a list of its own for each reader would be seen.
const MANY: u64 = 100_000;

/// The numbers below `MANY` in the order of a file, backwards, and in no order.
fn orders() -> [Vec<u64>; 3] {
    const PRIME: u64 = 7919;
    let forwards = (0..MANY).collect();
    let backwards = (0..MANY).rev().collect();
    [forwards, backwards, (0..MANY).map(|at| at * PRIME % MANY).collect()]
}

#[test]
fn a_hole_takes_little_more_than_its_32_bytes_in_whatever_order_they_come() {
    for order in orders() {
        let mut holes = Holes::default();
        let mut reader = holes.clone();
        for number in order {
            holes.insert(alone(number));
            reader = holes.clone();
        }
        drop(reader);
        let each = bytes([&holes]) as f64 / MANY as f64;
        assert!((32.0..37.0).contains(&each), "{each} bytes");
    }
}

#[test]
fn a_slow_reader_holds_few_holes_of_its_own_however_many_there_are() {
    const READERS: u64 = 300;
    // Two chunks, and the list of chunks that are half full at worst.
    let most =
        2 * CHUNK * size_of::<HoleRun>() + (2 * MANY as usize / CHUNK + 2) * size_of::<usize>();
    for order in orders() {
        let mut holes = Holes::default();
        let (before, between) = order.split_at((MANY - READERS) as usize);
        before.iter().for_each(|&number| holes.insert(alone(number)));
        let own = bytes([&holes]);
        let mut all = Vec::new();
        for &number in between {
            all.push(holes.clone());
            holes.insert(alone(number));
        }
        all.push(holes);
        let each = (bytes(&all) - own) / READERS as usize;
        assert!(each <= most, "each reader holds {each} bytes");
    }
}
