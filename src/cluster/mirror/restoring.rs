//! Giving lines back to an engine that has lost them.
//!
//! What came as a piece goes back as the same piece, with its stamps, its origin and its key, as far
//! as these are remembered: the engine then knows a batch again that it is sent once more. A long file
//! goes back in turns, so that it holds up no other channel.

use std::{
    io,
    time::{Duration, Instant},
};

use log::info;

use super::{End, Mirror, Phase};
use crate::{
    cluster::{
        chain::{Chain, Place, bytes_at},
        engine::{Engine, Restore, Restored},
    },
    command::HubGone,
    journal::Fatal,
    piece::{Piece, StampRun},
};

/// About how many bytes are given back to the engine as one piece.
const PIECE_BYTES: u64 = 256 << 10;

/// How long a channel gives lines back before the others get their turn: long enough that the look at
/// these costs little, and short enough that hundreds of channels do it while an engine settles.
const TURN: Duration = Duration::from_millis(5);

impl Mirror {
    /// Begins to give back to the engine the lines after line `last`; `chain` is the hash after it.
    pub(super) fn begin_restoring(&mut self, last: u64, chain: Chain) -> Result<(), End> {
        let begin = self.own.place_after(last, self.recent.checkpoint(last));
        let offset = begin.map_err(|why| self.end_unreadable(why))?.offset;
        self.phase = Phase::Restoring { first: last + 1, at: Place { lines: last, offset, chain } };
        Ok(())
    }

    /// Gives back the next lines, after those from line `first` to the place where it has come to.
    pub(super) fn restore(
        &mut self,
        engine: &mut Engine,
        first: u64,
        mut at: Place,
    ) -> Result<(), End> {
        let turn_ends = Instant::now() + TURN;
        while at.lines < self.own.last {
            let Some(next) = self.restore_piece(engine, &at)? else {
                self.phase = Phase::Comparing;
                return Ok(());
            };
            at = next;
            if Instant::now() >= turn_ends {
                self.phase = Phase::Restoring { first, at };
                return Ok(());
            }
        }
        let path = self.settings.file.display();
        let lines = at.lines + 1 - first;
        info!("{path}: gave {lines} lines back to the engine, from line {first} on");
        self.learn_chain(Some(at.chain));
        // What came of it shows when it is compared again.
        self.phase = Phase::Comparing;
        Ok(())
    }

    /// Gives back the piece at a place, and returns where it ends; `None` when the file is to be compared
    /// again, since the order went on or is another one.
    fn restore_piece(&mut self, engine: &mut Engine, at: &Place) -> Result<Option<Place>, End> {
        let piece = self.piece(at.lines + 1, at.offset)?;
        let after = at.chain.after(&piece.lines);
        let restore = Restore {
            epoch: &self.own.epoch,
            piece: &piece,
            before: &at.chain,
            after: &after,
            settle: self.settings.settle,
            first_to_keep: self.link.first_to_keep(),
        };
        match engine.restore(self.keys(), &restore)? {
            Restored::Done => {}
            Restored::Moved | Restored::Fork | Restored::Changed => return Ok(None),
        }
        self.link.count_restored(piece.count());
        let offset = at.offset + piece.lines.len() as u64;
        Ok(Some(Place { lines: piece.last_id(), offset, chain: after }))
    }

    /// The piece that begins with line `first_id` at `offset`: as it came, if that is remembered.
    fn piece(&self, first_id: u64, offset: u64) -> Result<Piece, End> {
        let next = self.recent.next_from(first_id);
        let recent = next.filter(|piece| piece.first_id == first_id);
        let lines = match (recent, next) {
            (Some(recent), _) => self.bytes(offset, recent.end.offset - offset),
            // What came as a piece is to go back as one, so this ends where that begins.
            (None, Some(next)) => self.some_lines(offset, next.first_id - first_id),
            (None, None) => self.some_lines(offset, self.own.last - first_id + 1),
        };
        let lines = lines.map_err(|why| self.end_unreadable(why))?;
        let mut piece = Piece { first_id, lines, origin: None, key: None, stamps: Vec::new() };
        let is_other = recent.is_some_and(|recent| recent.end.lines != piece.last_id());
        if is_other || !piece.lines.ends_with(b"\n") {
            return Err(self.end(Fatal::Changed("the ends of its lines were overwritten".into())));
        }
        piece.stamps = self.stamps(first_id, piece.last_id())?;
        if let Some(recent) = recent {
            piece.origin = recent.origin.clone();
            piece.key = recent.key.clone();
        }
        Ok(piece)
    }

    /// The stamps of lines, as the hub has them.
    fn stamps(&self, first_id: u64, last_id: u64) -> Result<Vec<StampRun>, HubGone> {
        let mut runs: Vec<StampRun> = Vec::new();
        let mut id = first_id;
        while id <= last_id {
            let (stretch, stamps) = self.hub.history(id, last_id)?;
            let mut stamps = stamps.read();
            while id <= stretch.last_id.min(last_id) {
                let stamp = stamps.of(id);
                let (ts, from) = (stamp.ts.unwrap_or(0), stamp.from);
                match runs.last_mut() {
                    Some(run) if run.ts == ts && run.from.as_deref() == from => run.lines += 1,
                    _ => runs.push(StampRun { lines: 1, ts, from: from.map(str::to_owned) }),
                }
                id += 1;
            }
        }
        Ok(runs)
    }

    /// Whole lines from an offset on: as many as there are in about [`PIECE_BYTES`], but one at least and
    /// `most` at the most.
    fn some_lines(&self, offset: u64, most: u64) -> io::Result<Vec<u8>> {
        let mut len = PIECE_BYTES;
        loop {
            let mut lines = self.bytes(offset, len.min(self.own.end - offset))?;
            let ends = memchr::memchr_iter(b'\n', &lines).take(most as usize);
            let end = ends.last();
            if end.is_some() || offset + len >= self.own.end {
                lines.truncate(end.map_or(lines.len(), |end| end + 1));
                return Ok(lines);
            }
            len *= 2;
        }
    }

    /// The `len` bytes at an offset of the file, which has them.
    fn bytes(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let bytes = bytes_at(&self.own.file, offset, len as usize, self.own.end)?;
        Ok(bytes.expect("no more is asked for than there is"))
    }
}
