//! The posts of a channel that are in no batch yet: those in the queue, and those taken from it.

use std::{collections::VecDeque, time::Instant};

use crossbeam_channel::Receiver;

use crate::command::Post;

/// A batch takes no more posts when it has this many bytes.
const BATCH_BYTES: usize = 256 << 10;

pub(super) struct Waiting {
    queue: Receiver<Post>,
    taken: VecDeque<Post>,
    bytes: usize,
}

impl Waiting {
    /// Those that are in the queue or come through it.
    pub(super) fn new(queue: Receiver<Post>) -> Waiting {
        Waiting { queue, taken: VecDeque::new(), bytes: 0 }
    }

    /// The queue; what comes through it is to be [added](Waiting::add).
    pub(super) fn queue(&self) -> &Receiver<Post> {
        &self.queue
    }

    /// How many posts there are.
    pub(super) fn count(&self) -> usize {
        self.taken.len() + self.queue.len()
    }

    /// Whether no post was taken from the queue.
    pub(super) fn has_taken_none(&self) -> bool {
        self.taken.is_empty()
    }

    /// How many bytes those have that were taken.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a post that was taken from the queue.
    pub(super) fn add(&mut self, post: Post) {
        self.bytes += post.lines.len();
        self.taken.push_back(post);
    }

    /// Takes as many from the queue as one batch may have.
    pub(super) fn take(&mut self) {
        while self.bytes < BATCH_BYTES
            && let Ok(post) = self.queue.try_recv()
        {
            self.add(post);
        }
    }

    /// Waits until this many posts or bytes were taken, but not longer than to the deadline.
    pub(super) fn wait_for(&mut self, posts: usize, bytes: usize, deadline: Instant) {
        while self.taken.len() < posts
            && self.bytes < bytes
            && let Ok(post) = self.queue.recv_deadline(deadline)
        {
            self.add(post);
        }
    }

    /// Takes out those of the next batch. A post with a key is a batch by itself, so that the engine can
    /// know it again.
    pub(super) fn next_batch(&mut self) -> Vec<Post> {
        let has_key = |post: &Post| post.key().is_some();
        let before_key = self.taken.iter().position(has_key).unwrap_or(self.taken.len());
        let posts: Vec<Post> = self.taken.drain(..before_key.max(1)).collect();
        self.bytes -= posts.iter().map(|post| post.lines.len()).sum::<usize>();
        posts
    }

    /// Takes out all.
    pub(super) fn take_all(&mut self) -> Vec<Post> {
        self.bytes = 0;
        self.taken.drain(..).chain(self.queue.try_iter()).collect()
    }
}
