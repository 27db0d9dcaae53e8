//! How messages become part of the history, in two steps.
//!
//! *Propose* writes the posts to the text file, which decides the order of all lines: other
//! programs append to it, too. *Apply* takes in lines whose place is decided, and gives them their
//! ids, their times and their frames. Foreign lines need this step alone.
//!
//! The messages of a batch always stand together in the file, in the order of the posts, each once.

use std::iter;

use super::{
    Hub, Post, Speaker, TICK,
    batch::BATCH_BYTES,
    operating::posted_operations,
    placing::{Glued, Placed, place},
};
use crate::{
    command::Stored,
    history::{BLOCK, BOM},
    journal::{AppendError, Fatal, REWRITE_BYTES, SYNC_EVERY},
    lines::{Line, Lines, read_at},
    message,
    wire::ErrorAnswer,
};

// A start writes a whole batch again, which may not be on the disk.
const _: () = assert!(BATCH_BYTES as u64 <= REWRITE_BYTES);

// The promise of `--fsync 1s`: a write that just missed being due waits for one more look, and the
// sync itself takes time, too.
const _: () = assert!(SYNC_EVERY.as_millis() + TICK.as_millis() <= 900);

impl Hub {
    /// Stores posts, takes in the foreign lines that came meanwhile, and shows both.
    pub(super) fn commit(&mut self, posts: Vec<Post>) -> Result<(), Fatal> {
        if self.replica.is_some() {
            // No thread posts here; its posts would have no numbers.
            self.refuse(posts, ErrorAnswer::Unavailable);
            return self.clear_foreign();
        }
        if self.stopping && !posts.is_empty() {
            self.refuse(posts, ErrorAnswer::ShuttingDown);
            return Ok(());
        }
        let posts = posts.into_iter().filter_map(|post| self.unless_repeat(post)).collect();
        let size = self.journal.survey(self.history.end())?;
        self.apply_foreign(size)?;
        let (posts, refused) = self.sort_out(posts);
        let posts = self.prepare_deletes(posts);
        if posts.is_empty() {
            self.show()?;
            self.answer_refused(refused);
            return Ok(());
        }
        let first_id = self.propose(&posts, size)?;
        self.show()?;
        self.serve_speakers(&posts);
        // No refusal overtakes what the same client said before.
        self.answer_refused(refused);
        match first_id {
            Some(first_id) => self.acknowledge(posts, first_id),
            None => self.refuse(posts, ErrorAnswer::StorageFull),
        }
        Ok(())
    }

    /// Appends posts to the file and applies them where they stand then. Returns the id of the
    /// first message, or `None` when the disk has no room; nothing of the posts is in the file
    /// then.
    ///
    /// The file had `size` bytes a moment ago. If it did not end with a whole line, another program
    /// has begun one: our `\n` ends that line, so that our first message is not glued to it.
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
            // Where our lines stand decides about their ids, so nothing is taken from memory here: the
            // line that was searched may be another by now.
            self.searched_end = 0;
            self.apply_foreign(start)?;
            match place(start - self.history.end(), lines) {
                Ok(placed) => {
                    let end = start + lines.len() as u64;
                    let ts = self.acceptance_time();
                    let others = (lines.len() - len) as u64;
                    if !self.stamp_posts(posts, others, ts)? {
                        // Our `\n` stays: a foreign line may have been begun after it.
                        self.journal.retract(start + others..end)?;
                        return Ok(None);
                    }
                    let first_id = self.apply_placed(placed, posts, start, ts)?;
                    assert_eq!(self.history.end(), end, "all lines are applied");
                    return Ok(Some(first_id));
                }
                Err(Glued) => {
                    self.journal.blank(start..start + lines.len() as u64)?;
                    lines = &protected;
                }
            }
        }
    }

    /// Applies the lines that our write of the posts made, from `start` on; returns the id of our
    /// first message.
    fn apply_placed<'a>(
        &mut self,
        placed: impl Iterator<Item = Placed<'a>>,
        posts: &[Post],
        start: u64,
        ts: u64,
    ) -> Result<u64, Fatal> {
        let mut senders =
            posts.iter().flat_map(|post| iter::repeat_n(post.sender.as_deref(), post.count()));
        let mut operations = posted_operations(posts).into_iter().peekable();
        let mut lines_before = 0;
        let mut first_id = None;
        for line in placed {
            match line {
                Placed::Foreign => self.apply_foreign_at(start + 1, ts)?,
                Placed::Blank => {
                    self.apply(1, None, ts, None);
                }
                Placed::Ours(line) => {
                    let message = &line[..line.len() - 1];
                    let from = senders.next().expect("each of our lines is of a post");
                    let id = self.apply(line.len() as u64, Some((message, 0)), ts, from);
                    first_id.get_or_insert(id);
                    if let Some((_, operation)) =
                        operations.next_if(|(line, _)| *line == lines_before)
                    {
                        self.apply_operation(Some(operation), id, from)?;
                    }
                    lines_before += 1;
                }
            }
        }
        Ok(first_id.expect("each post has a message"))
    }

    /// Applies the whole foreign lines from the committed end up to `until`.
    fn apply_foreign(&mut self, until: u64) -> Result<(), Fatal> {
        if !self.may_have_ended(until)? || self.history.end() >= until {
            return Ok(());
        }
        let ts = self.acceptance_time();
        self.apply_foreign_at(until, ts)?;
        self.stamp_foreign(ts)
    }

    /// Whether a line may end between the committed end and `until`. A long line that another program
    /// does not end would be read from its beginning at each look, so only what came since the last one
    /// is searched, and the block before: the program may overwrite what it wrote last.
    fn may_have_ended(&mut self, until: u64) -> Result<bool, Fatal> {
        if until < self.searched_end {
            // The line was cut, and may be begun anew.
            self.searched_end = 0;
        }
        if self.searched_end <= self.history.end() {
            return Ok(true);
        }
        let mut block = vec![0; BLOCK];
        let mut from = self.searched_end;
        while from < until {
            let want = (until - from).min(BLOCK as u64) as usize;
            let got = read_at(self.journal.file(), &mut block[..want], from);
            let got = got.map_err(Fatal::Storage)?;
            if memchr::memchr(b'\n', &block[..got]).is_some() {
                return Ok(true);
            }
            from += got as u64;
        }
        self.note_searched(until);
        Ok(false)
    }

    fn note_searched(&mut self, until: u64) {
        self.searched_end = until.saturating_sub(BLOCK as u64);
    }

    fn apply_foreign_at(&mut self, until: u64, ts: u64) -> Result<(), Fatal> {
        let from = self.history.end();
        let mut lines = Lines::new(self.journal.file(), from, until, BLOCK, self.line_limit);
        while let Some(line) = lines.next().map_err(Fatal::Storage)? {
            let (len, message) = match line {
                Line::Unfinished(_) => {
                    self.note_searched(until);
                    break;
                }
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
            let id = self.apply(len, message, ts, None);
            if let Some((message, _)) = message {
                self.apply_foreign_operation(id, message)?;
            } else {
                self.warnings.foreign_hole(self.journal.path(), id);
            }
            if self.fanout.bytes() >= BATCH_BYTES {
                self.stamp_foreign(ts)?;
                self.show()?;
                self.deliver(|| false);
            }
        }
        Ok(())
    }

    /// Applies the next line of the file and returns its id. It has `len` bytes with its `\n`. If
    /// it is no hole, `message` has the message and the number of bytes before it on the line. `from`
    /// is the verified sender.
    pub(super) fn apply(
        &mut self,
        len: u64,
        message: Option<(&[u8], u64)>,
        ts: u64,
        from: Option<&str>,
    ) -> u64 {
        if self.history.end() == self.shown_end {
            // This is the first line after those that have been shown.
            self.fanout.begin_at(self.history.last_id() + 1);
        }
        let Some((message, lead)) = message else { return self.history.push_hole(len) };
        let offset = self.history.end() + lead;
        let id = self.history.push_line(len);
        if !self.journal.has_stamps() {
            self.recent.push(id, ts, from);
        }
        self.said_at = Some(ts);
        self.fanout.push(message, offset, id, ts, from);
        id
    }

    /// Answers the requests among the speakers with their ids. The ids of the batch begin with
    /// `first_id` and have no gap.
    fn acknowledge(&mut self, posts: Vec<Post>, first_id: u64) {
        let mut next_id = first_id;
        for post in posts {
            let first_id = next_id;
            next_id += post.count() as u64;
            self.acknowledge_one(post.by, Stored { first_id, last_id: next_id - 1 });
        }
        assert_eq!(next_id, self.history.last_id() + 1, "the ids of a batch have no gap");
    }

    /// Tells a request which ids its messages have, and remembers them for its key. A client hears its
    /// messages instead.
    pub(super) fn acknowledge_one(&mut self, by: Speaker, stored: Stored) {
        let Speaker::Request { key, reply } = by else { return };
        key.into_iter().for_each(|key| self.keys.insert(key, stored));
        // A caller that has stopped waiting finds its messages in the history.
        let _ = reply.send(Ok(stored));
    }
}

#[cfg(test)]
mod tests;
