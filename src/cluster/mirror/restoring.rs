//! Giving lines back to an engine that has lost them.
//!
//! What came as a piece goes back as the same piece, with its stamps, its origin and its key, as far
//! as these are remembered: the engine then knows a batch again that it is sent once more.

use std::io;

use log::info;

use super::{End, Mirror};
use crate::{
    cluster::{
        chain::{Chain, bytes_at},
        engine::{Engine, Restore, Restored},
    },
    command::HubGone,
    journal::Fatal,
    piece::{Piece, StampRun},
};

/// About how many bytes are given back to the engine as one piece.
const PIECE_BYTES: u64 = 256 << 10;

impl Mirror {
    /// Gives back to the engine the lines after line `last`; `chain` is the hash after it.
    pub(super) fn restore(
        &mut self,
        engine: &mut Engine,
        last: u64,
        mut chain: Chain,
    ) -> Result<(), End> {
        let begin = self.own.place_after(last, self.recent.checkpoint(last));
        let mut offset = begin.map_err(|why| self.end_unreadable(why))?.offset;
        let mut next = last + 1;
        let begun = next;
        while next <= self.own.last {
            let piece = self.piece(next, offset)?;
            let after = chain.after(&piece.lines);
            let restore = Restore {
                epoch: &self.own.epoch,
                piece: &piece,
                before: &chain,
                after: &after,
                settle: self.settings.settle,
                first_to_keep: self.link.first_to_keep(),
            };
            match engine.restore(self.keys(), &restore)? {
                Restored::Done => {}
                // The next comparison says what is to be done.
                Restored::Moved | Restored::Fork | Restored::Changed => return Ok(()),
            }
            chain = after;
            offset += piece.lines.len() as u64;
            next = piece.last_id() + 1;
            self.link.count_restored(piece.count());
        }
        self.learn_chain(Some(chain));
        let path = self.settings.file.display();
        info!("{path}: gave {} lines back to the engine, from line {begun} on", next - begun);
        Ok(())
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
