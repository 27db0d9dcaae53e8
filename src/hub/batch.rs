//! A batch: the commands that the hub takes from its queue at once, and what it does first of them.

use std::collections::HashSet;

use crate::command::{Command, Post, QUEUE};

/// A batch takes no more posts when it has this many bytes of lines, or posts that cost as much. A
/// longer write would delay the first messages in it, and a start must write a whole batch again
/// (`journal::REWRITE_BYTES`).
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// The most commands in one batch: more than can wait in the bounded queue, and so few that a crowd of
/// senders does not keep the hub from its clients.
pub(super) const BATCH_COMMANDS: usize = 4096;

// One batch takes all commands that wait in the bounded queue.
const _: () = assert!(QUEUE <= BATCH_COMMANDS);

/// Commands that are taken together. Those of one client keep their order where it matters: it joins
/// before it posts, and leaves afterwards.
#[derive(Debug)]
pub(super) struct Batch {
    /// The posts that are stored together, before anything else is done.
    pub(super) posts: Vec<Post>,
    /// The other commands, in the order of the queue.
    pub(super) others: Vec<Command>,
}

impl Batch {
    /// Takes commands as far as they fit in one batch.
    pub(super) fn take(commands: impl Iterator<Item = Command>) -> Batch {
        let mut batch = Batch { posts: Vec::new(), others: Vec::new() };
        let mut keys = HashSet::new();
        let mut cost = 0;
        for command in commands.take(BATCH_COMMANDS) {
            match command {
                // A post with the key of an earlier one waits until that one has its ids.
                Command::Post(post) if post.key().is_none_or(|key| keys.insert(key.to_owned())) => {
                    cost += post.cost();
                    batch.posts.push(post);
                    if cost >= BATCH_BYTES {
                        break;
                    }
                }
                // Nothing that is posted after the stop is taken.
                Command::Stop => {
                    batch.others.push(command);
                    break;
                }
                other => batch.others.push(other),
            }
        }
        batch
    }
}
