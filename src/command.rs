//! What the hub is asked, what it answers, and the handle to ask it with.
//!
//! Every question goes through one bounded queue; those who ask wait for the hub, and the hub waits
//! for none of them. The hub ends when the last handle is dropped.

use std::{
    io,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crossbeam_channel::{
    Receiver, RecvTimeoutError, SendTimeoutError, Sender, TrySendError, bounded,
};

use crate::{
    history::{Range, Resume, Snapshot, Times, Window},
    metrics::Status,
    outbox::Outbox,
    wire::ErrorAnswer,
};

/// Commands that may wait; a sender of one more waits for the hub. Each may bring a message of
/// `--max-message`, so this also bounds the memory that a crowd of speakers can take.
pub(crate) const QUEUE: usize = 256;

/// Names a client to the hub, in the order of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// What the hub is asked.
#[derive(Debug)]
pub enum Command {
    /// A client wants the history, and from its end on every message.
    Join {
        /// The client's sending side; behind until the history is sent.
        outbox: Arc<Outbox>,
        /// What it asks of the history.
        resume: Resume,
        /// Gets the answer.
        reply: Sender<Joined>,
    },
    /// Somebody says something.
    Post(Post),
    /// Somebody wants to read the history.
    Look {
        /// Which part.
        window: Window,
        /// Told, from now on, whenever there is more; ends when the server stops.
        follow: Option<Sender<()>>,
        /// Gets the answer.
        reply: Sender<View>,
    },
    /// Somebody wants to know how things are.
    Status(Sender<Status>),
    /// A client that is behind and was sent all it was given asks for more, or to be live.
    CatchUp {
        /// The client.
        client: ClientId,
        /// The first message that it has nothing of; `None` when that is as the hub knows it.
        next_id: Option<u64>,
        /// Gets the answer.
        reply: Sender<Next>,
    },
    /// A client is gone.
    Leave(ClientId),
    /// The file is not as it was: somebody may have appended to it.
    Survey,
    /// The channel is put away: clients are told, the file gets another name, and the hub ends.
    PutAway(Sender<io::Result<()>>),
    /// The server stops: nothing more is taken, everybody is told.
    Stop,
}

/// One or more messages of one speaker.
#[derive(Debug)]
pub struct Post {
    /// Who says it.
    pub by: Speaker,
    /// Each a line with its `\n`.
    pub lines: Vec<u8>,
}

impl Post {
    /// The key under which it is said once only.
    pub fn key(&self) -> Option<&String> {
        match &self.by {
            Speaker::Request { key, .. } => key.as_ref(),
            Speaker::Client(_) => None,
        }
    }
}

/// Who speaks, and how to answer.
#[derive(Debug)]
pub enum Speaker {
    /// A client: it is sent its own message like everybody, or an error answer.
    Client(ClientId),
    /// Somebody who waits for the ids.
    Request {
        /// Names the post: the same again within a while is answered with the first one's ids.
        key: Option<String>,
        /// Gets the answer.
        reply: Sender<Result<Stored, ErrorAnswer>>,
    },
}

/// The ids of what was posted: the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Of the first message.
    pub first_id: u64,
    /// Of the last.
    pub last_id: u64,
}

/// A part of the history, and what is known about it.
#[derive(Debug)]
pub struct View {
    /// The lines.
    pub range: Range,
    /// When they were accepted.
    pub times: Times,
    /// The name of the numbering.
    pub epoch: Arc<str>,
    /// The number of the last line there is.
    pub last_id: u64,
    /// The committed length of the file.
    pub end: u64,
}

/// The answer to a join.
#[derive(Debug)]
pub struct Joined {
    /// The name to use from now on.
    pub client: ClientId,
    /// What to send first.
    pub snapshot: Snapshot,
}

/// What a client that catches up does next.
#[derive(Debug)]
pub enum Next {
    /// Send these, and ask again.
    Stretch(Range, Times),
    /// Send what waits between frames, and ask again.
    Control,
    /// Nothing: it has everything, and the hub sends to it from now on.
    Live,
}

/// The hub's end of its queue. Commands wait in boxes: an idle channel's queue takes 4 KiB with them
/// and 24 KiB without.
pub type Commands = Receiver<Box<Command>>;

/// A way to ask the hub, which ends when the last of these is gone.
#[derive(Clone, Debug)]
pub struct HubHandle {
    inbox: Arc<Sender<Box<Command>>>,
}

/// A handle for the hub itself to give away, which does not keep it running.
#[derive(Clone, Debug)]
pub struct WeakHubHandle {
    inbox: Weak<Sender<Box<Command>>>,
}

impl WeakHubHandle {
    /// A handle, as long as somebody else has one.
    pub fn upgrade(&self) -> Option<HubHandle> {
        self.inbox.upgrade().map(|inbox| HubHandle { inbox })
    }
}

/// The hub's queue: what is sent through the handle waits for the hub to take it.
pub fn queue() -> (HubHandle, Commands) {
    let (inbox, commands) = bounded(QUEUE);
    (HubHandle { inbox: Arc::new(inbox) }, commands)
}

/// The hub is gone: its channel has ended, or the process is about to.
#[derive(Debug)]
pub struct HubGone;

impl HubHandle {
    /// The same for the hub itself.
    pub fn downgrade(&self) -> WeakHubHandle {
        WeakHubHandle { inbox: Arc::downgrade(&self.inbox) }
    }

    /// Joins a client; see [`Command::Join`].
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn join(&self, outbox: Arc<Outbox>, resume: Resume) -> Result<Joined, HubGone> {
        self.ask(|reply| Command::Join { outbox, resume, reply })
    }

    /// Posts whole lines. They are stored and shown to all, or answered with an error.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn post(&self, client: ClientId, lines: Vec<u8>) -> Result<(), HubGone> {
        self.send(Command::Post(Post { by: Speaker::Client(client), lines }))
    }

    /// Posts whole lines, and waits until they are stored; see [`Speaker::Request`].
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn store(
        &self,
        key: Option<String>,
        lines: Vec<u8>,
    ) -> Result<Result<Stored, ErrorAnswer>, HubGone> {
        self.ask(|reply| Command::Post(Post { by: Speaker::Request { key, reply }, lines }))
    }

    /// Looks at a part of the history; see [`Command::Look`].
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn look(&self, window: Window, follow: Option<Sender<()>>) -> Result<View, HubGone> {
        self.ask(|reply| Command::Look { window, follow, reply })
    }

    /// Asks how things are; `None` when there is no answer in time.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn status(&self, timeout: Duration) -> Result<Option<Status>, HubGone> {
        let (reply, answer) = bounded(1);
        match self.inbox.send_timeout(Box::new(Command::Status(reply)), timeout) {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_)) => return Ok(None),
            Err(SendTimeoutError::Disconnected(_)) => return Err(HubGone),
        }
        match answer.recv_timeout(timeout) {
            Ok(status) => Ok(Some(status)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(HubGone),
        }
    }

    /// Asks what a client that is behind does next; see [`Command::CatchUp`].
    ///
    /// # Errors
    /// When the hub is gone, or knows no such client any more.
    pub fn catch_up(&self, client: ClientId, next_id: Option<u64>) -> Result<Next, HubGone> {
        self.ask(|reply| Command::CatchUp { client, next_id, reply })
    }

    /// Says that a client is gone.
    pub fn leave(&self, client: ClientId) {
        // A hub that is gone has forgotten everybody.
        let _ = self.send(Command::Leave(client));
    }

    /// Has the hub look at its file; false when it is too busy to be told so now.
    pub fn survey(&self) -> bool {
        !matches!(self.inbox.try_send(Box::new(Command::Survey)), Err(TrySendError::Full(_)))
    }

    /// Puts the channel away; see [`Command::PutAway`].
    ///
    /// # Errors
    /// When the hub is gone; the inner one when the file could not get another name, and all is as
    /// it was.
    pub fn put_away(&self) -> Result<io::Result<()>, HubGone> {
        self.ask(Command::PutAway)
    }

    /// Asks for the orderly end; false when the hub takes no command before the deadline.
    pub fn stop(&self, deadline: Instant) -> bool {
        // A hub that is gone has stopped.
        !matches!(
            self.inbox.send_deadline(Box::new(Command::Stop), deadline),
            Err(SendTimeoutError::Timeout(_))
        )
    }

    fn ask<Answer>(
        &self,
        command: impl FnOnce(Sender<Answer>) -> Command,
    ) -> Result<Answer, HubGone> {
        let (reply, answer) = bounded(1);
        self.send(command(reply))?;
        answer.recv().map_err(|_| HubGone)
    }

    fn send(&self, command: Command) -> Result<(), HubGone> {
        self.inbox.send(Box::new(command)).map_err(|_| HubGone)
    }
}
