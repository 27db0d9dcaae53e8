//! What the threads of a cluster ask the hub.

use std::{sync::Arc, time::Duration};

use super::{Command, HubGone, HubHandle, Post, Speaker, Stored};
use crate::{journal::Fatal, piece::Piece, wire::ErrorAnswer};

/// Whom to answer for some lines, in their order, each with the number of its lines.
pub type Speakers = Vec<(Speaker, u64)>;

/// What the threads of a cluster ask the hub.
#[derive(Debug)]
pub enum ClusterCommand {
    /// The sequencer is about to have numbers given to posts with operations or keys: the hub answers
    /// those that it refuses and those that are repeats.
    Decide {
        /// The posts.
        posts: Vec<Post>,
        /// Gets those that are to be sent, without what was refused of them.
        reply: oneshot::Sender<Vec<Post>>,
    },
    /// Lines are refused that have no numbers and will get none.
    Refuse {
        /// Whose they are.
        speakers: Speakers,
        /// Why.
        why: ErrorAnswer,
    },
    /// Posts are repeats: the lines of the first ones have these numbers, which the file may not have
    /// reached.
    Repeat {
        /// Whose they are.
        speakers: Speakers,
        /// The numbers.
        stored: Stored,
    },
    /// The reader has pieces that follow the file's last line: they are written, shown and answered.
    Pieces {
        /// The pieces, in order.
        pieces: Vec<Arrival>,
        /// Gets them back if the disk had no room for them; `None` when they are stored.
        reply: oneshot::Sender<Option<Vec<Arrival>>>,
    },
    /// The file's lines are numbered under another epoch from now on.
    Adopt {
        /// The epoch.
        epoch: Arc<str>,
        /// Gets a word when it is on disk.
        reply: oneshot::Sender<()>,
    },
    /// The copy cannot go on.
    End(Fatal),
}

/// A piece that came from the engine.
#[derive(Debug)]
pub struct Arrival {
    /// The piece.
    pub piece: Piece,
    /// Whom to answer, if it was posted here.
    pub speakers: Speakers,
    /// Whether each line is known to be a message unless it is too long, since it was posted here.
    pub is_checked: bool,
}

/// What has become of pieces so far.
#[derive(Debug)]
pub enum Applied {
    /// They are stored.
    Stored,
    /// The disk has no room for them.
    NoRoom(Vec<Arrival>),
    /// The hub is still at it.
    NotYet,
}

/// Pieces that the hub is writing and showing.
#[derive(Debug)]
pub struct Applying {
    answer: oneshot::Receiver<Option<Vec<Arrival>>>,
}

impl Applying {
    /// Waits so long at the most until the pieces are stored, or come back since the disk is full.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn wait(&self, time: Duration) -> Result<Applied, HubGone> {
        match self.answer.recv_timeout(time) {
            Ok(None) => Ok(Applied::Stored),
            Ok(Some(pieces)) => Ok(Applied::NoRoom(pieces)),
            Err(oneshot::RecvTimeoutError::Timeout) => Ok(Applied::NotYet),
            Err(oneshot::RecvTimeoutError::Disconnected) => Err(HubGone),
        }
    }
}

impl HubHandle {
    /// Has the hub decide about posts that are to be sent; see [`ClusterCommand::Decide`].
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn decide(&self, posts: Vec<Post>) -> Result<Vec<Post>, HubGone> {
        self.ask(|reply| Command::Cluster(ClusterCommand::Decide { posts, reply }))
    }

    /// Refuses lines that were not sent.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn refuse(&self, speakers: Speakers, why: ErrorAnswer) -> Result<(), HubGone> {
        self.send(Command::Cluster(ClusterCommand::Refuse { speakers, why }))
    }

    /// Has posts answered that are repeats; see [`ClusterCommand::Repeat`].
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn answer_repeat(&self, speakers: Speakers, stored: Stored) -> Result<(), HubGone> {
        self.send(Command::Cluster(ClusterCommand::Repeat { speakers, stored }))
    }

    /// Has pieces written and shown, and does not wait for it.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn apply_pieces(&self, pieces: Vec<Arrival>) -> Result<Applying, HubGone> {
        let (reply, answer) = oneshot::channel();
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

    /// Has the hub end, since its copy cannot go on; with that of the default channel the node ends.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn end_copy(&self, why: Fatal) -> Result<(), HubGone> {
        self.send(Command::Cluster(ClusterCommand::End(why)))
    }
}
