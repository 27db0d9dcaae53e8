//! The pieces that came last, without their lines.
//!
//! An engine that lost the end of what it had gets it back as it was: with their origins it can drop
//! what it is sent again afterwards. And with their ends a node knows at once which lines those are:
//! hashing a long file takes longer than an engine waits for those who have what it lost.

use std::collections::VecDeque;

use crate::{
    cluster::chain::Place,
    piece::{Origin, Piece},
};

/// How many pieces are remembered. An engine that syncs each second loses fewer.
const RECENT: usize = 4096;

/// The pieces that came last, each following the one before.
#[derive(Debug)]
pub(super) struct RecentPieces {
    /// Where the first of them begins; the beginning of the file where that is not known.
    begin: Place,
    pieces: VecDeque<Recent>,
}

/// A piece that came, without its lines.
#[derive(Debug)]
pub(super) struct Recent {
    pub(super) first_id: u64,
    /// The end of its last line.
    pub(super) end: Place,
    pub(super) origin: Option<Origin>,
    pub(super) key: Option<String>,
}

impl RecentPieces {
    /// None yet; they will begin here, if that is known.
    pub(super) fn from(begin: Option<Place>) -> RecentPieces {
        RecentPieces { begin: begin.unwrap_or_default(), pieces: VecDeque::new() }
    }

    /// Learns where they will begin, if none has come.
    pub(super) fn begin_at(&mut self, begin: Place) {
        if self.pieces.is_empty() {
            self.begin = begin;
        }
    }

    /// Remembers a piece that came, and where it ends in the file.
    pub(super) fn push(&mut self, piece: &Piece, end: Place) {
        if self.pieces.len() == RECENT
            && let Some(first) = self.pieces.pop_front()
        {
            self.begin = first.end;
        }
        self.pieces.push_back(Recent {
            first_id: piece.first_id,
            end,
            origin: piece.origin.clone(),
            key: piece.key.clone(),
        });
    }

    /// The first piece that begins with line `id` or later.
    pub(super) fn next_from(&self, id: u64) -> Option<&Recent> {
        self.pieces.get(self.pieces.partition_point(|piece| piece.first_id < id))
    }

    /// The last place at or before the end of line `id` whose hash is known.
    pub(super) fn checkpoint(&self, id: u64) -> Place {
        let after = self.pieces.partition_point(|piece| piece.end.lines <= id);
        match after.checked_sub(1) {
            Some(at) => self.pieces[at].end.clone(),
            None if self.begin.lines <= id => self.begin.clone(),
            None => Place::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(lines: u64) -> Place {
        Place { lines, offset: 10 * lines, ..Place::default() }
    }

    #[test]
    fn the_last_checkpoint_before_a_line_is_found_however_many_pieces_came() {
        let mut recent = RecentPieces::from(Some(place(7)));
        let ask = |recent: &RecentPieces, ids: [u64; 4]| ids.map(|id| recent.checkpoint(id).lines);
        assert_eq!(ask(&recent, [6, 7, 8, 100]), [0, 7, 7, 7]);
        recent.begin_at(place(9));
        for number in 0..RECENT as u64 {
            let first_id = 10 + 2 * number;
            let lines = b"1\n2\n".to_vec();
            let piece = Piece { first_id, lines, origin: None, key: None, stamps: Vec::new() };
            recent.push(&piece, place(piece.last_id()));
        }
        assert_eq!(ask(&recent, [8, 9, 10, 11]), [0, 9, 9, 11]);
        let piece = Piece {
            first_id: 9000,
            lines: b"1\n".to_vec(),
            origin: None,
            key: None,
            stamps: Vec::new(),
        };
        recent.push(&piece, place(9000));
        // The first one is forgotten, but not where it ended. Where they begin does not change.
        recent.begin_at(place(1));
        assert_eq!(ask(&recent, [10, 11, 12, 13]), [0, 11, 11, 13]);
        assert_eq!(ask(&recent, [8201, 8999, 9000, 9001]), [8201, 8201, 9000, 9000]);
        assert_eq!(recent.next_from(12).map(|piece| piece.first_id), Some(12));
        assert_eq!(recent.next_from(8201).map(|piece| piece.first_id), Some(9000));
        assert!(recent.next_from(9001).is_none());
    }
}
