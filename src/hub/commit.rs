//! How messages become part of the history, in two steps.
//!
//! *Propose* hands what clients said to what decides the order of lines. That is the text file:
//! others append to it, too, and the order in the file is the order. *Apply* takes in lines whose
//! place is decided, and gives them their number, their time and their frames. Lines that others
//! appended need this step alone.
//!
//! The messages of a batch always stand together in the file, in the order of the posts, each once.

use log::warn;

use super::{
    BATCH_BYTES, Hub, Post, Speaker, Stored, TICK, count_lines,
    placing::{Glued, Placed, place},
};
use crate::{
    history::{BLOCK, BOM},
    journal::{AppendError, Fatal, REWRITE, SYNC_EVERY},
    lines::{Line, Lines},
    message,
    wire::ErrorAnswer,
};

// A start writes a whole batch again.
const _: () = assert!(BATCH_BYTES as u64 <= REWRITE);

// The promise of `--fsync 1s`: a write that just missed being due waits for one more look.
const _: () = assert!(SYNC_EVERY.as_millis() + TICK.as_millis() <= 1000);

impl Hub {
    /// Stores what is said, together with what others appended to the file meanwhile, and shows it.
    pub(super) fn commit(&mut self, mut posts: Vec<Post>) -> Result<(), Fatal> {
        if self.stopping && !posts.is_empty() {
            self.refuse(posts, ErrorAnswer::ShuttingDown);
            return Ok(());
        }
        posts.retain(|post| !self.is_known(post));
        let size = self.journal.survey(self.history.end())?;
        self.apply_foreign(size)?;
        if posts.is_empty() {
            return self.show();
        }
        let first_id = self.propose(&posts, size)?;
        self.show()?;
        self.serve_speakers(&posts);
        match first_id {
            Some(first_id) => self.acknowledge(posts, first_id),
            None => self.refuse(posts, ErrorAnswer::StorageFull),
        }
        Ok(())
    }

    /// Appends what is said to the file and applies it where it stands then; returns the id of the
    /// first message, or `None` when there is no room and nothing of it stands there.
    ///
    /// The file had `size` bytes a moment ago. What stood behind the last whole line then is a line
    /// that others have begun: it gets its end, so that ours is not glued to it.
    fn propose(&mut self, posts: &[Post], size: u64) -> Result<Option<u64>, Fatal> {
        let len: usize = posts.iter().map(|post| post.lines.len()).sum();
        let mut protected = Vec::with_capacity(len + 1);
        protected.push(b'\n');
        for post in posts {
            protected.extend_from_slice(&post.lines);
        }
        let is_begun = self.history.end() < size;
        let mut lines = if is_begun { &protected[..] } else { &protected[1..] };
        loop {
            let start = match self.journal.append(lines, self.history.end()) {
                Ok(start) => start,
                Err(AppendError::DiskFull) => return Ok(None),
                Err(AppendError::Fatal(fatal)) => return Err(fatal),
            };
            self.apply_foreign(start)?;
            match place(start - self.history.end(), lines) {
                Ok(placed) => {
                    let first_id = self.apply_placed(placed, start)?;
                    assert_eq!(self.history.end(), start + lines.len() as u64, "all is applied");
                    return Ok(Some(first_id));
                }
                Err(Glued) => {
                    self.journal.blank(start..start + lines.len() as u64)?;
                    lines = &protected;
                }
            }
        }
    }

    /// Applies lines of ours, or that ours ended, from `start` on; returns the id of the first
    /// message of ours.
    fn apply_placed<'a>(
        &mut self,
        placed: impl Iterator<Item = Placed<'a>>,
        start: u64,
    ) -> Result<u64, Fatal> {
        let ts = self.now();
        let mut first_id = None;
        for line in placed {
            match line {
                Placed::Foreign => self.apply_foreign(start + 1)?,
                Placed::Blank => {
                    self.apply(1, None, ts);
                }
                Placed::Ours(line) => {
                    let message = &line[..line.len() - 1];
                    let id = self.apply(line.len() as u64, Some((message, 0)), ts);
                    first_id.get_or_insert(id);
                }
            }
        }
        Ok(first_id.expect("each post has a message"))
    }

    /// Applies the whole lines that others appended, from the committed end up to `until`.
    fn apply_foreign(&mut self, until: u64) -> Result<(), Fatal> {
        let from = self.history.end();
        if from >= until {
            return Ok(());
        }
        let ts = self.now();
        let mut lines = Lines::new(self.journal.file(), from, until, BLOCK, self.line_limit);
        while let Some(line) = lines.next().map_err(Fatal::Storage)? {
            let (len, message) = match line {
                Line::Unfinished(_) => break,
                Line::TooLong(len) => (len, None),
                Line::Whole(mut text) => {
                    if self.history.end() == 0 && text.starts_with(BOM) {
                        self.history.skip_bom();
                        text = &text[BOM.len()..];
                    }
                    let lead = message::leading_space(text) as u64;
                    (text.len() as u64 + 1, message::on_line(text).map(|message| (message, lead)))
                }
            };
            let id = self.apply(len, message, ts);
            if message.is_none() && self.holes.add() {
                warn!("line {id}, appended by somebody else, holds no message; skipped");
            }
            if self.fanout.bytes() >= BATCH_BYTES {
                self.show()?;
                self.deliver(|| false);
            }
        }
        Ok(())
    }

    /// Applies the next line of the file: `len` bytes with its `\n`, and the message on it with the bytes
    /// of white space before it, or none when it is a hole. Returns its id.
    fn apply(&mut self, len: u64, message: Option<(&[u8], u64)>, ts: u64) -> u64 {
        if self.history.end() == self.shown {
            // The first line since everything was shown.
            self.fanout.begin(self.history.last_id() + 1);
        }
        let Some((message, lead)) = message else { return self.history.push_hole(len) };
        let offset = self.history.end() + lead;
        let id = self.history.push_line(len);
        self.times.push(id, ts);
        self.said_at = Some(ts);
        self.fanout.push(message, offset, id, ts);
        id
    }

    /// Tells those who wait for them the ids of their messages, which are dense from `first_id` on.
    fn acknowledge(&mut self, posts: Vec<Post>, first_id: u64) {
        let mut next_id = first_id;
        for post in posts {
            let first_id = next_id;
            next_id += count_lines(&post.lines) as u64;
            let Speaker::Request { key, reply } = post.by else { continue };
            let stored = Stored { first_id, last_id: next_id - 1 };
            if let Some(key) = key {
                self.keys.insert(key, stored);
            }
            // A caller that waits no more finds its messages in the history.
            let _ = reply.send(Ok(stored));
        }
        assert_eq!(next_id, self.history.last_id() + 1, "a batch has dense ids");
    }
}

#[cfg(test)]
mod tests;
