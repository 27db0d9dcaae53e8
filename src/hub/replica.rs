//! The hub of a node in a cluster: the order of lines is decided elsewhere, and it applies it.
//!
//! It decides about the operations of posts before they are sent, remembers whom to answer, and does
//! so when their lines come back, written and synced like all lines. What other programs append to the
//! file has no number, and is moved to the inbox.

use std::{collections::VecDeque, sync::Arc};

use log::warn;

use super::{Hub, Post, Speaker, ending::FORKED};
use crate::{
    cluster::Link,
    command::{Accepted, AcceptedPost, ClientId, ClusterCommand, Stored},
    history::BOM,
    journal::{AppendError, Fatal, Torn},
    message,
    piece::Piece,
    wire::ErrorAnswer,
};

/// How many bytes of the latest lines the engine keeps: what a node may lack that was away for a while.
const KEPT: u64 = 64 << 20;

/// What the hub of a node knows beside what each hub knows.
#[derive(Debug)]
pub(super) struct Replica {
    link: Arc<Link>,
    /// The batches that were sent and did not come back.
    sent: VecDeque<Batch>,
    /// Requests whose lines have numbers that this file has not reached.
    known: Vec<(Stored, Speaker)>,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    speakers: Vec<(Speaker, u64)>,
}

impl Hub {
    /// Has the hub apply what a cluster decides.
    pub fn with_link(mut self, link: Arc<Link>) -> Hub {
        self.replica = Some(Replica { link, sent: VecDeque::new(), known: Vec::new() });
        self
    }

    /// Whether posts can be given numbers, as far as this is decided elsewhere.
    pub(super) fn has_order(&self) -> bool {
        self.replica.as_ref().is_none_or(|replica| replica.link.is_up())
    }

    pub(super) fn cluster(&mut self, command: ClusterCommand) -> Result<(), Fatal> {
        match command {
            ClusterCommand::Expect { batch, posts, reply } => {
                // A caller that has stopped waiting is about to end.
                let _ = reply.send(self.expect(batch, posts));
            }
            ClusterCommand::Refuse { posts, why } => self.refuse(posts, why),
            ClusterCommand::TakeBack { batch } => self.take_back(batch),
            ClusterCommand::Known { batch, stored } => self.note_known(batch, stored),
            ClusterCommand::Pieces { pieces, reply } => {
                let back = self.apply_pieces(pieces)?;
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

    fn expect(&mut self, number: u64, mut posts: Vec<Post>) -> Accepted {
        posts.retain(|post| !self.answer_if_known(post));
        let why = match (self.stopping, self.journal.is_full()) {
            (true, _) => Some(ErrorAnswer::ShuttingDown),
            (false, true) => Some(ErrorAnswer::StorageFull),
            (false, false) => None,
        };
        if let Some(why) = why {
            self.refuse(std::mem::take(&mut posts), why);
        }
        let posts = self.decide(posts);
        let key = posts.first().and_then(Post::key).cloned();
        let keep = self.history.line_near(self.history.end().saturating_sub(KEPT));
        let mut speakers = Vec::with_capacity(posts.len());
        let accept = |post: Post| {
            let count = post.count() as u64;
            speakers.push((post.by, count));
            AcceptedPost { sender: post.sender, lines: post.lines, count }
        };
        let posts: Vec<AcceptedPost> = posts.into_iter().map(accept).collect();
        if !posts.is_empty()
            && let Some(replica) = &mut self.replica
        {
            replica.sent.push_back(Batch { number, speakers });
        }
        Accepted { posts, key, keep }
    }

    fn take_back(&mut self, number: u64) {
        let Some(replica) = &mut self.replica else { return };
        let at = replica.sent.iter().position(|batch| batch.number == number);
        let batch = at.and_then(|at| replica.sent.remove(at));
        for (by, count) in batch.into_iter().flat_map(|batch| batch.speakers) {
            self.refuse_one(by, count as usize, ErrorAnswer::Unavailable);
        }
    }

    fn note_known(&mut self, number: u64, stored: Stored) {
        let Some(replica) = &mut self.replica else { return };
        if let Some(at) = replica.sent.iter().position(|batch| batch.number == number) {
            let batch = replica.sent.remove(at).expect("it was there a moment ago");
            replica.known.extend(batch.speakers.into_iter().map(|(by, _)| (stored, by)));
        }
        self.answer_known();
    }

    /// Answers requests whose lines have come.
    fn answer_known(&mut self) {
        let Some(replica) = &mut self.replica else { return };
        let last_id = self.history.last_id();
        for (stored, by) in replica.known.extract_if(.., |(stored, _)| stored.last_id <= last_id) {
            if let Speaker::Request { key, reply } = by {
                key.into_iter().for_each(|key| self.keys.insert(key, stored));
                // A caller that has stopped waiting needs no answer.
                let _ = reply.send(Ok(stored));
            }
        }
    }

    /// Writes, applies and shows pieces that follow the last line, and answers those who posted them.
    /// They come back if the disk has no room; nothing of them is in the file then.
    fn apply_pieces(&mut self, pieces: Vec<Piece>) -> Result<Option<Vec<Piece>>, Fatal> {
        assert_eq!(pieces.first().map(|piece| piece.first_id), Some(self.history.last_id() + 1));
        let lines = pieces.iter().map(|piece| &piece.lines[..]).collect::<Vec<_>>().concat();
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
                Err(AppendError::DiskFull) => return Ok(Some(pieces)),
                Err(AppendError::Fatal(fatal)) => return Err(fatal),
            }
        };
        if !self.stamp_pieces(&pieces)? {
            self.journal.retract(start..start + len)?;
            return Ok(Some(pieces));
        }
        for piece in &pieces {
            self.apply_piece(piece);
        }
        self.show()?;
        if let Some(replica) = &self.replica {
            replica.link.applied(self.history.last_id());
        }
        pieces.iter().for_each(|piece| self.answer(piece));
        self.answer_known();
        Ok(None)
    }

    fn apply_piece(&mut self, piece: &Piece) {
        let mut stamps = piece
            .stamps
            .iter()
            .flat_map(|run| (0..run.lines).map(move |_| (run.ts, run.from.as_deref())));
        for line in piece.lines.split_inclusive(|&byte| byte == b'\n') {
            let (ts, from) = stamps.next().expect("each line of a piece has a stamp");
            let mut text = &line[..line.len() - 1];
            if self.history.end() == 0 && text.starts_with(BOM) {
                self.history.skip_bom();
                text = &text[BOM.len()..];
            }
            let (lead, len) = (message::leading_space(text) as u64, text.len() as u64 + 1);
            let text = Some(text).filter(|text| text.len() <= self.line_limit);
            let message = text.and_then(message::on_line);
            let id = self.apply(len, message.map(|message| (message, lead)), ts, from);
            match message {
                Some(message) => self.apply_ordered_operation(id, message, from),
                None if self.holes.add() => {
                    warn!("line {id} of the order holds no message; skipped")
                }
                None => {}
            }
            self.last_ts = self.last_ts.max(ts);
        }
    }

    /// Answers those whose posts have come back as this piece.
    fn answer(&mut self, piece: &Piece) {
        let Some(replica) = &mut self.replica else { return };
        let Some(origin) = piece.origin.as_ref().filter(|o| o.node == replica.link.node()) else {
            return;
        };
        let at = replica.sent.iter().position(|batch| batch.number == origin.batch);
        let speakers = at.and_then(|at| replica.sent.remove(at)).map(|batch| batch.speakers);
        replica.link.has_seen(origin.batch);
        let mut first_id = piece.first_id;
        let mut clients: Vec<ClientId> = Vec::new();
        for (by, count) in speakers.into_iter().flatten() {
            let stored = Stored { first_id, last_id: first_id + count - 1 };
            first_id += count;
            match by {
                Speaker::Client(client) => clients.push(client),
                Speaker::Request { key, reply } => {
                    key.into_iter().for_each(|key| self.keys.insert(key, stored));
                    // A caller that has stopped waiting finds its messages in the history.
                    let _ = reply.send(Ok(stored));
                }
            }
        }
        let sent = clients.into_iter().map(|client| self.fanout.serve_out_of_turn(client)).sum();
        self.metrics.delivered(sent);
    }

    /// Numbers the lines under another epoch. Clients know them under the old one, so they are told to
    /// come back.
    fn adopt(&mut self, epoch: Arc<str>) -> Result<(), Fatal> {
        self.journal.take_epoch(epoch.clone(), &self.history).map_err(Fatal::Storage)?;
        self.noted = Some(self.history.end());
        self.summary.take_epoch(epoch);
        self.deliver(|| false);
        self.fanout.close_all(FORKED.0, FORKED.1);
        self.followers.end();
        self.hand_over_clients();
        Ok(())
    }
}
