//! The index of the file: marks, which are the offsets of some lines, and the holes.
//!
//! Both stand in the order of the file, so a binary search finds the mark that is nearest to a line. The
//! line itself is found by reading on from there. While the file is loaded, each part of it has an index
//! of its own, in which the first line of the part is line 1.

use super::holes::{HoleRun, Holes};
use crate::operations::LoggedOperation;

/// The distance in the file between two lines whose offsets are remembered, in bytes. This much of
/// the file is searched to find a line, and each offset takes 16 bytes of memory: about two
/// megabytes for ten million short lines.
pub(super) const STRIDE: u64 = 8 << 10;

/// The offset of a line in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: u64,
    pub(super) offset: u64,
}

/// What is known of the lines of the file, or of a part of it.
#[derive(Debug)]
pub(super) struct Index {
    /// The offset of line 1.
    start: u64,
    /// The offset where the last whole line ends.
    pub(super) end: u64,
    /// How many lines there are.
    pub(super) lines: u64,
    pub(super) marks: Vec<Mark>,
    pub(super) holes: Holes,
    /// How many lines are holes.
    pub(super) hole_lines: u64,
    /// The operations that were found while a part of the file was read.
    pub(super) log: Vec<LoggedOperation>,
    /// The lines that read as erased, found in the same way.
    pub(super) erased: Vec<u64>,
}

impl Index {
    pub(super) fn new(start: u64) -> Index {
        Index {
            start,
            end: start,
            lines: 0,
            marks: vec![],
            holes: Holes::default(),
            hole_lines: 0,
            log: vec![],
            erased: vec![],
        }
    }

    /// Takes in the next line, of `len` bytes with its `\n`.
    pub(super) fn push_line(&mut self, len: u64) {
        self.lines += 1;
        if self.marks.last().is_none_or(|mark| self.end - mark.offset >= STRIDE) {
            self.marks.push(Mark { id: self.lines, offset: self.end });
        }
        self.end += len;
    }

    /// Takes in the next line, of `len` bytes with its `\n`, as a hole.
    pub(super) fn push_hole(&mut self, len: u64) {
        let start = self.end;
        self.push_line(len);
        self.hole_lines += 1;
        self.holes.push(HoleRun { first_id: self.lines, lines: 1, start, end: self.end });
    }

    /// Notes that a line that was taken in, from `start` to `end` with its `\n`, is a hole from now
    /// on.
    pub(super) fn make_hole(&mut self, id: u64, start: u64, end: u64) {
        self.hole_lines += 1;
        self.holes.insert(HoleRun { first_id: id, lines: 1, start, end });
    }

    pub(super) fn is_hole(&self, id: u64) -> bool {
        self.holes.get(self.holes.at_id(id)).is_some_and(|run| run.first_id <= id)
    }

    /// Takes in the lines of the part of the file that follows.
    pub(super) fn absorb(&mut self, next: Index) {
        debug_assert!(next.lines == 0 || next.start == self.end);
        let before = self.lines;
        self.marks.extend(next.marks.iter().map(|mark| Mark { id: mark.id + before, ..*mark }));
        for run in next.holes.iter() {
            self.holes.push(HoleRun { first_id: run.first_id + before, ..*run });
        }
        self.hole_lines += next.hole_lines;
        self.lines += next.lines;
        self.end = self.end.max(next.end);
    }

    /// The nearest line at or before `id` whose offset is known. That of the line after the last
    /// one is known, too.
    pub(super) fn near(&self, id: u64) -> Mark {
        if id > self.lines {
            return Mark { id: self.lines + 1, offset: self.end };
        }
        match self.marks.partition_point(|mark| mark.id <= id) {
            0 => Mark { id: 1, offset: self.start },
            near => self.marks[near - 1],
        }
    }

    /// The last mark at or before `offset`.
    pub(super) fn mark_before(&self, offset: u64) -> Option<Mark> {
        let after = self.marks.partition_point(|mark| mark.offset <= offset);
        self.marks[..after].last().copied()
    }

    /// The first mark at or after `offset`.
    pub(super) fn mark_from(&self, offset: u64) -> Option<Mark> {
        let at = self.marks.partition_point(|mark| mark.offset < offset);
        self.marks.get(at).copied()
    }

    /// The last mark, and those that stand 1, 3, 7, 15 and so on before it.
    pub(super) fn spaced_marks(&self) -> impl Iterator<Item = Mark> {
        let backwards =
            (0..usize::BITS).map_while(|power| self.marks.len().checked_sub(1 << power));
        backwards.map(|at| self.marks[at])
    }

    /// The id where the last `count` messages before the line `before` begin.
    pub(super) fn first_of_last(&self, count: u64, before: u64) -> u64 {
        let mut first_id = before;
        let mut missing = count;
        for run in self.holes.iter_back(before) {
            let between = first_id.saturating_sub(run.last_id() + 1);
            if between >= missing {
                break;
            }
            missing -= between;
            first_id = run.first_id;
        }
        first_id - missing.min(first_id - 1)
    }

    /// The id where the first `count` messages from the line `first_id` on end.
    pub(super) fn last_of_first(&self, count: u64, first_id: u64) -> u64 {
        let mut next_id = first_id;
        let mut missing = count;
        for run in self.holes.iter_from(self.holes.at_id(first_id)) {
            let before = run.first_id.saturating_sub(next_id);
            if before >= missing {
                break;
            }
            missing -= before;
            next_id = run.last_id() + 1;
        }
        next_id.saturating_add(missing) - 1
    }

    /// Whether the lines from `limited` on have all messages that the lines from `from` on have. If
    /// `limited` is the later one, only holes may stand between the two.
    pub(super) fn same_messages(&self, from: u64, limited: u64) -> bool {
        let spans_both = |run: &HoleRun| run.first_id <= from && limited <= run.last_id() + 1;
        limited <= from || self.holes.get(self.holes.at_id(from)).is_some_and(spans_both)
    }
}
