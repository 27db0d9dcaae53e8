//! The hub of a copy: the order of lines is decided elsewhere, and it applies it.
//!
//! It decides about the operations of posts before they are sent. When their lines come back, it writes
//! and syncs them like all lines, and answers those who posted them. What other programs append to the
//! file has no number, and is moved to the inbox.

use std::{borrow::Cow, sync::Arc};

use super::{Hub, Speaker};
use crate::{
    cluster::Link,
    command::{Arrival, ClientId, ClusterCommand, Stored},
    history::BOM,
    journal::{AppendError, Fatal, Torn},
    lines::each_line,
    message,
    piece::Piece,
    wire::{CloseReason, ErrorAnswer},
};

/// How many bytes of the latest lines the engine keeps: what a node may lack that was down for a while.
const KEPT: u64 = 64 << 20;

/// What the hub of a copy knows beside what each hub knows.
#[derive(Debug)]
pub(super) struct Replica {
    link: Arc<Link>,
    /// Requests that repeat an earlier one, whose lines have numbers that this file has not reached.
    repeats: Vec<(Stored, Speaker)>,
}

impl Hub {
    /// Has the hub apply what a cluster decides.
    pub fn with_link(mut self, link: Arc<Link>) -> Hub {
        link.set_applied(self.history.last_id(), self.first_to_keep());
        self.replica = Some(Replica { link, repeats: Vec::new() });
        self
    }

    /// Whether posts can be given numbers, as far as this is decided elsewhere.
    pub(super) fn has_order(&self) -> bool {
        self.replica.as_ref().is_none_or(|replica| replica.link.is_up())
    }

    pub(super) fn cluster(&mut self, command: ClusterCommand) -> Result<(), Fatal> {
        match command {
            ClusterCommand::Decide { posts, reply } => {
                let posts = posts.into_iter().filter_map(|post| self.unless_repeat(post)).collect();
                // A caller that has stopped waiting is about to end.
                let _ = reply.send(self.decide(posts));
            }
            ClusterCommand::Refuse { speakers, why } => {
                for (by, count) in speakers {
                    self.refuse_one(by, count as usize, why);
                }
            }
            ClusterCommand::Repeat { speakers, stored } => {
                if let Some(replica) = &mut self.replica {
                    replica.repeats.extend(speakers.into_iter().map(|(by, _)| (stored, by)));
                }
                self.answer_repeats();
            }
            ClusterCommand::Pieces { pieces, reply } => {
                let back = self.apply_pieces(pieces)?;
                if let Some(replica) = self.replica.as_ref().filter(|_| !self.stopping) {
                    replica.link.set_refusal(back.as_ref().map(|_| ErrorAnswer::StorageFull));
                }
                let _ = reply.send(back);
            }
            ClusterCommand::Adopt { epoch, reply } => {
                self.adopt(epoch)?;
                let _ = reply.send(());
            }
            ClusterCommand::End(fatal) => return Err(fatal),
        }
        Ok(())
    }

    /// Looks for lines that other programs appended, and moves them to the inbox.
    pub(super) fn clear_foreign(&mut self) -> Result<(), Fatal> {
        let end = self.history.end();
        if self.journal.survey(end)? > end {
            self.journal.clear_after(end, Torn::Waits)?;
        }
        Ok(())
    }

    /// Has no more posts sent, as the hub stops.
    pub(super) fn refuse_posts_to_come(&self) {
        if let Some(replica) = &self.replica {
            replica.link.set_refusal(Some(ErrorAnswer::ShuttingDown));
        }
    }

    /// The first line that the engine is to keep.
    fn first_to_keep(&self) -> u64 {
        self.history.line_near(self.history.end().saturating_sub(KEPT))
    }

    /// Answers repeats whose lines have come.
    fn answer_repeats(&mut self) {
        let Some(replica) = &mut self.replica else { return };
        let last_id = self.history.last_id();
        let have_come = replica.repeats.extract_if(.., |(stored, _)| stored.last_id <= last_id);
        for (stored, by) in have_come.collect::<Vec<_>>() {
            self.acknowledge_one(by, stored);
        }
    }

    /// Writes, applies and shows pieces that follow the last line, and answers those who posted them.
    /// They come back if the disk has no room; nothing of them is in the file then.
    fn apply_pieces(&mut self, pieces: Vec<Arrival>) -> Result<Option<Vec<Arrival>>, Fatal> {
        let first_id = pieces.first().map(|arrival| arrival.piece.first_id);
        assert_eq!(first_id, Some(self.history.last_id() + 1));
        if !self.write_pieces(&pieces)? {
            return Ok(Some(pieces));
        }
        for arrival in &pieces {
            self.apply_piece(arrival)?;
            self.remember_key(&arrival.piece);
        }
        self.show()?;
        if let Some(replica) = &self.replica {
            replica.link.set_applied(self.history.last_id(), self.first_to_keep());
        }
        pieces.into_iter().for_each(|arrival| self.answer(arrival));
        self.answer_repeats();
        Ok(None)
    }

    /// Writes the lines of pieces and their stamps; false if the disk has no room, and nothing of them is in
    /// the file then.
    fn write_pieces(&mut self, pieces: &[Arrival]) -> Result<bool, Fatal> {
        let lines = match pieces {
            [one] => Cow::Borrowed(&one.piece.lines),
            all => {
                let each: Vec<&[u8]> = all.iter().map(|arrival| &arrival.piece.lines[..]).collect();
                Cow::Owned(each.concat())
            }
        };
        let len = lines.len() as u64;
        let start = loop {
            let end = self.history.end();
            if self.journal.survey(end)? > end {
                self.journal.clear_after(end, Torn::MovesToo)?;
            }
            match self.journal.append(&lines, end) {
                Ok(start) if start == end => break start,
                // Another program appended a moment before: its lines go first, but to the inbox.
                Ok(start) => self.journal.retract(start..start + len)?,
                Err(AppendError::DiskFull) => return Ok(false),
                Err(AppendError::Fatal(fatal)) => return Err(fatal),
            }
        };
        if !self.stamp_pieces(pieces.iter().map(|arrival| &arrival.piece))? {
            self.journal.retract(start..start + len)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes in the lines of a piece, which are in the file.
    fn apply_piece(&mut self, Arrival { piece, is_checked, .. }: &Arrival) -> Result<(), Fatal> {
        let mut stamps = piece
            .stamps
            .iter()
            .flat_map(|run| (0..run.lines).map(move |_| (run.ts, run.from.as_deref())));
        for line in each_line(&piece.lines) {
            let (ts, from) = stamps.next().expect("each line of a piece has a stamp");
            let mut text = &line[..line.len() - 1];
            if self.history.end() == 0 && text.starts_with(BOM) {
                self.history.skip_bom();
                text = &text[BOM.len()..];
            }
            let (lead, len) = (message::leading_space(text) as u64, text.len() as u64 + 1);
            // What other programs appended may be too long even if it was posted here.
            let text = Some(text).filter(|text| text.len() <= self.line_limit);
            let message = if *is_checked { text } else { text.and_then(message::on_line) };
            let id = self.apply(len, message.map(|message| (message, lead)), ts, from);
            match message {
                Some(message) => self.apply_ordered_operation(id, message, from)?,
                None => self.warnings.hole_of_order(self.journal.path(), id),
            }
            self.last_ts = self.last_ts.max(ts);
        }
        Ok(())
    }

    /// Remembers the ids of a post with a key, on whichever node it was posted. It may be repeated here,
    /// and to decide about its operations again would refuse the deletion of a message that it has deleted.
    fn remember_key(&mut self, piece: &Piece) {
        if let Some(key) = &piece.key {
            let stored = Stored { first_id: piece.first_id, last_id: piece.last_id() };
            self.keys.insert(key.clone(), stored);
        }
    }

    /// Answers those whose lines have come back as this piece.
    fn answer(&mut self, Arrival { piece, speakers, .. }: Arrival) {
        let mut first_id = piece.first_id;
        let mut clients: Vec<ClientId> = Vec::new();
        for (by, count) in speakers {
            let stored = Stored { first_id, last_id: first_id + count - 1 };
            first_id += count;
            match by {
                Speaker::Client(client) => clients.push(client),
                request => self.acknowledge_one(request, stored),
            }
        }
        let sent = clients.into_iter().map(|client| self.fanout.serve_out_of_turn(client)).sum();
        self.metrics.delivered(sent);
        // Afterwards, so that the clients post before the next batch is taken.
        if let Some(Replica { link, .. }) = &self.replica
            && let Some(origin) = piece.origin.filter(|origin| origin.node == link.node_name())
        {
            link.set_returned(origin.batch);
        }
    }

    /// Numbers the lines under another epoch. Clients know them under the old one, so they are told to
    /// come back.
    fn adopt(&mut self, epoch: Arc<str>) -> Result<(), Fatal> {
        self.journal.take_epoch(epoch.clone(), &self.history).map_err(Fatal::Storage)?;
        self.noted = Some(self.history.end());
        self.summary.take_epoch(epoch);
        self.deliver(|| false);
        self.fanout.close_all(CloseReason::Renumbered);
        self.followers.end();
        self.hand_over_clients();
        Ok(())
    }
}
