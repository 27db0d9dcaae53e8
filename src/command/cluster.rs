//! What the threads of a cluster ask the hub.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Command, HubGone, HubHandle, Post, Stored};
use crate::{
    access,
    journal::Fatal,
    piece::{Piece, senders_text},
    wire::ErrorAnswer,
};

/// What the threads of a cluster ask the hub.
#[derive(Debug)]
pub enum ClusterCommand {
    /// The sequencer is about to have numbers given to posts: the hub decides about their operations,
    /// and will answer the speakers when the batch comes back.
    Expect {
        /// The number of the batch, which is higher than those before.
        batch: u64,
        /// The posts.
        posts: Vec<Post>,
        /// Gets what is to be sent of them.
        reply: Sender<Accepted>,
    },
    /// Posts are refused before they were sent.
    Refuse {
        /// The posts.
        posts: Vec<Post>,
        /// Why.
        why: ErrorAnswer,
    },
    /// A batch is not sent, as the engine is away: its posts are refused.
    TakeBack {
        /// The number of the batch.
        batch: u64,
    },
    /// A batch is not sent, as its key was known: its lines have these numbers.
    Known {
        /// The number of the batch.
        batch: u64,
        /// The numbers.
        stored: Stored,
    },
    /// The reader has pieces that follow the file's last line: they are written, shown and answered.
    Pieces {
        /// The pieces, in order.
        pieces: Vec<Piece>,
        /// Gets them back if the disk had no room for them; `None` when they are stored.
        reply: Sender<Option<Vec<Piece>>>,
    },
    /// The file's lines are numbered under another epoch from now on.
    Adopt {
        /// The epoch.
        epoch: Arc<str>,
        /// Gets a word when it is on disk.
        reply: Sender<()>,
    },
    /// The node cannot go on.
    End(Fatal),
}

/// What the hub accepted of some posts.
#[derive(Debug)]
pub struct Accepted {
    /// The posts, without what the hub keeps to answer them.
    pub posts: Vec<AcceptedPost>,
    /// The key of the first post, if it has one.
    pub key: Option<String>,
    /// The first line that the engine is to keep.
    pub keep: u64,
}

/// A post that the hub accepted.
#[derive(Debug)]
pub struct AcceptedPost {
    /// The verified sender; `None` for nobody.
    pub sender: Option<access::Sender>,
    /// The messages, each as one line with its `\n`.
    pub lines: Vec<u8>,
    /// How many these are.
    pub count: u64,
}

/// A batch as it is sent to the engine.
#[derive(Debug)]
pub struct Expected {
    /// The lines, each with its `\n`; empty when all posts were refused.
    pub lines: Vec<u8>,
    /// Their senders, as they stand in the engine.
    pub senders: String,
    /// The Idempotency-Key, if the batch is one post that has one.
    pub key: Option<String>,
    /// How many posts it is.
    pub posts: u64,
    /// The first line that the engine is to keep.
    pub keep: u64,
}

impl Expected {
    fn of(accepted: Accepted) -> Expected {
        let Accepted { posts, key, keep } = accepted;
        let senders = senders_text(posts.iter().map(|post| (post.count, post.sender.as_deref())));
        let mut lines = Vec::with_capacity(posts.iter().map(|post| post.lines.len()).sum());
        posts.iter().for_each(|post| lines.extend_from_slice(&post.lines));
        Expected { lines, senders, key, posts: posts.len() as u64, keep }
    }
}

/// Pieces that the hub is writing and showing.
#[derive(Debug)]
pub struct Applying {
    answer: Receiver<Option<Vec<Piece>>>,
}

impl Applying {
    /// Waits until the pieces are stored. They come back when the disk is full.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn wait(self) -> Result<Option<Vec<Piece>>, HubGone> {
        self.answer.recv().map_err(|_| HubGone)
    }
}

impl HubHandle {
    /// Tells the hub which posts are about to be sent; see [`ClusterCommand::Expect`]. The thread that
    /// asks makes one batch of what the hub accepts.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn expect(&self, batch: u64, posts: Vec<Post>) -> Result<Expected, HubGone> {
        self.ask(|reply| Command::Cluster(ClusterCommand::Expect { batch, posts, reply }))
            .map(Expected::of)
    }

    /// Refuses posts because the engine is away.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn refuse_unavailable(&self, posts: Vec<Post>) -> Result<(), HubGone> {
        let why = ErrorAnswer::Unavailable;
        self.send(Command::Cluster(ClusterCommand::Refuse { posts, why }))
    }

    /// Refuses a batch that was not sent.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn take_back(&self, batch: u64) -> Result<(), HubGone> {
        self.send(Command::Cluster(ClusterCommand::TakeBack { batch }))
    }

    /// Tells the hub the numbers of a batch that was known; see [`ClusterCommand::Known`].
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn known(&self, batch: u64, stored: Stored) -> Result<(), HubGone> {
        self.send(Command::Cluster(ClusterCommand::Known { batch, stored }))
    }

    /// Has pieces written and shown, and does not wait for it.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn apply_pieces(&self, pieces: Vec<Piece>) -> Result<Applying, HubGone> {
        let (reply, answer) = bounded(1);
        self.send(Command::Cluster(ClusterCommand::Pieces { pieces, reply }))?;
        Ok(Applying { answer })
    }

    /// Has the file numbered under another epoch.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn adopt(&self, epoch: Arc<str>) -> Result<(), HubGone> {
        self.ask(|reply| Command::Cluster(ClusterCommand::Adopt { epoch, reply }))
    }

    /// Ends the node.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn end_node(&self, why: Fatal) -> Result<(), HubGone> {
        self.send(Command::Cluster(ClusterCommand::End(why)))
    }
}
