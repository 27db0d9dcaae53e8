//! The commands of the hub and its answers.
//!
//! Other threads send a command with a [`HubHandle`] (`command/handle.rs`). A command that asks
//! carries the way back of its answer.

use std::{fmt, io, sync::Arc};

use crossbeam_channel::Sender;

use crate::{
    access::{self, Permit},
    history::{Resume, Snapshot, Stretch, Window},
    lines::count_lines,
    metrics::Status,
    operations::{Operation, Reaction, Standing},
    outbox::Outbox,
    stamps::{Since, Stamps},
    wire::ErrorAnswer,
};

mod cluster;
mod handle;
mod long_posts;

pub use cluster::{Applied, Applying, Arrival, ClusterCommand, Speakers};
pub(crate) use handle::QUEUE;
pub use handle::{Commands, HubGone, HubHandle, WeakHubHandle, queue};
use long_posts::Place;

/// The number of a client, in the order of joining, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// What the hub is asked.
#[derive(Debug)]
pub enum Command {
    /// A client joins: it wants the history, and after that every message.
    Join {
        /// The client's sending side, which is behind until the history has been sent.
        outbox: Arc<Outbox>,
        /// The part of the history that the client asks for.
        resume: Resume,
        /// What the client may do in the channel.
        permit: Arc<Permit>,
        /// Gets the answer.
        reply: oneshot::Sender<Joined>,
    },
    /// A client or a request says something.
    Post(Post),
    /// A request reads the history.
    Look {
        /// The part that it asks for.
        window: Window,
        /// Gets a word whenever there are new messages, from now on. The hub drops it when the
        /// server stops.
        follow: Option<Sender<()>>,
        /// Gets the answer.
        reply: oneshot::Sender<View>,
    },
    /// A request asks for the present state of messages.
    States {
        /// Which messages.
        of: StatesOf,
        /// Gets the answer.
        reply: oneshot::Sender<States>,
    },
    /// A request asks for the next of the many reactions that a message has.
    Reactions {
        /// The message.
        target: u64,
        /// The last of those before; `None` for the first ones.
        after: Option<Reaction>,
        /// Gets them, each with its line, or nothing after the last one; `None` when the message was
        /// deleted.
        reply: oneshot::Sender<Option<Vec<(Reaction, u64)>>>,
    },
    /// A thread asks where the messages since a time begin.
    Since {
        /// The time, in Unix milliseconds.
        ts: u64,
        /// Gets the answer.
        reply: oneshot::Sender<Since>,
    },
    /// A thread reads a part of the history a stretch at a time, and asks for the next one.
    History {
        /// The id of the first one.
        next_id: u64,
        /// The id where the history ends.
        last_id: u64,
        /// Gets the answer.
        reply: Reply<(Stretch, Stamps)>,
    },
    /// A request asks for the state of the server.
    Status(oneshot::Sender<Status>),
    /// A client that is behind was sent all that the hub named, and its thread or a catch-up thread asks
    /// what comes next.
    NextStep {
        /// The client.
        client: ClientId,
        /// The id of the first message of which the client has no part; `None` when that is as the
        /// hub knows it.
        next_id: Option<u64>,
        /// Gets the answer. It is dropped if the hub does not know the client any more.
        reply: Reply<NextStep>,
    },
    /// A client wants to be told who is here and who types.
    Listen(ClientId),
    /// A client types: those that want to know are told.
    Typing(ClientId),
    /// A client is gone.
    Leave(ClientId),
    /// A client's thread waits until the hub is done with all posts before this.
    AfterPosts(oneshot::Sender<()>),
    /// The rules have changed: clients that may not read the channel any more are sent a close frame,
    /// and followers are woken.
    CheckRights,
    /// Another program may have changed the file: the hub looks at it.
    Survey,
    /// The channel is put away: clients are sent a close frame, the file gets another name, and the
    /// hub ends.
    PutAway(oneshot::Sender<io::Result<()>>),
    /// A thread of the cluster asks.
    Cluster(ClusterCommand),
    /// The server stops: the hub refuses posts from now on, and sends all clients a close frame.
    Stop,
}

/// One or more messages of one speaker.
#[derive(Debug)]
pub struct Post {
    /// The client or the request that says it.
    pub by: Speaker,
    /// The verified sender of the messages; `None` for nobody.
    pub sender: Option<access::Sender>,
    /// The messages, each as one line with its `\n`.
    pub lines: Vec<u8>,
    /// The operations among them; `None` when there are none.
    pub operations: Option<Box<PostedOperations>>,
    /// How many lines there are. The thread that makes the post counts them, and not the hub.
    count: usize,
    /// The place that a long post has in the hub's queue, and until it is stored or refused.
    place: Option<Place>,
}

/// The most operations in one post. The hub looks senders up for them, and a delete overwrites its line in
/// the file: so many take it some 0.3 s, in which it does nothing else.
pub const MOST_OPERATIONS: usize = 10_000;

/// What a message costs the hub beside its bytes, and what an operation costs it beside that, in bytes of a
/// message that cost as much. A message of 100 bytes takes it about a microsecond, half of which does not
/// depend on the bytes; a delete takes it some 30.
const MESSAGE_COST: usize = 16;
const OPERATION_COST: usize = 1 << 10;

/// The operations among the messages of a post.
#[derive(Clone, Debug)]
pub struct PostedOperations {
    /// What the speaker may do, apart from posting.
    pub standing: Standing,
    /// The operations, each with the number of its line in the post, from 0.
    pub list: Vec<(usize, Operation)>,
}

impl PostedOperations {
    /// The operations of a list, if there are any.
    pub fn of(standing: Standing, list: Vec<(usize, Operation)>) -> Option<Box<PostedOperations>> {
        (!list.is_empty()).then(|| Box::new(PostedOperations { standing, list }))
    }
}

impl Post {
    /// A post of whole lines; see [`Post::lines`].
    pub fn new(
        by: Speaker,
        sender: Option<access::Sender>,
        lines: Vec<u8>,
        operations: Option<Box<PostedOperations>>,
    ) -> Post {
        let count = count_lines(&lines) as usize;
        Post { by, sender, lines, operations, count, place: None }
    }

    /// How many messages it has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What it costs the hub, in bytes of a message that cost as much: at least as many as it has.
    pub fn cost(&self) -> usize {
        let operations = self.operations.as_ref().map_or(0, |operations| operations.list.len());
        self.lines.len() + self.count * MESSAGE_COST + operations * OPERATION_COST
    }

    /// The key that names the post, if it has one: posts with the same key are stored only once.
    pub fn key(&self) -> Option<&String> {
        match &self.by {
            Speaker::Request { key, .. } => key.as_ref(),
            Speaker::Client(_) => None,
        }
    }
}

/// The way back of an answer to a thread that does not wait for it. If this is dropped without an
/// answer, the thread is told that the hub is gone; so also when the hub ends with the question in its
/// queue.
pub struct Reply<Answer> {
    take: Option<Box<Take<Answer>>>,
}

type Take<Answer> = dyn FnOnce(Result<Answer, HubGone>) + Send;

impl<Answer> Reply<Answer> {
    /// Has the answer taken by `take`, which is called once. It is called on the hub's thread as a rule,
    /// and must wait for nothing.
    pub fn new(take: impl FnOnce(Result<Answer, HubGone>) + Send + 'static) -> Reply<Answer> {
        Reply { take: Some(Box::new(take)) }
    }

    /// Gives the answer.
    pub fn send(mut self, answer: Answer) {
        if let Some(take) = self.take.take() {
            take(Ok(answer));
        }
    }
}

impl<Answer> Drop for Reply<Answer> {
    fn drop(&mut self) {
        if let Some(take) = self.take.take() {
            take(Err(HubGone));
        }
    }
}

impl<Answer> fmt::Debug for Reply<Answer> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Reply")
    }
}

/// For a thread that waits for the answer all the same.
impl<Answer: Send + 'static> From<oneshot::Sender<Answer>> for Reply<Answer> {
    fn from(reply: oneshot::Sender<Answer>) -> Reply<Answer> {
        Reply::new(move |answer| {
            if let Ok(answer) = answer {
                // A thread that has stopped waiting needs no answer.
                let _ = reply.send(answer);
            }
        })
    }
}

/// Where a post comes from, and how it is answered.
#[derive(Debug)]
pub enum Speaker {
    /// A client: it is sent its own messages as all clients are, or an error answer for each.
    Client(ClientId),
    /// A request, which waits for the ids.
    Request {
        /// The `Idempotency-Key`, which names the post. A later post with the same key is not
        /// stored, but answered with the ids of the first, as long as the hub remembers the key.
        key: Option<String>,
        /// Gets the answer.
        reply: oneshot::Sender<Result<Stored, ErrorAnswer>>,
    },
}

/// The ids of a post that was stored. Its messages have all ids from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The id of the first message.
    pub first_id: u64,
    /// The id of the last message.
    pub last_id: u64,
}

/// The answer to a look at the history.
#[derive(Debug)]
pub struct View {
    /// The lines that were asked for, as far as they exist.
    pub stretch: Stretch,
    /// When their messages were accepted, and from whom, as far as that is known.
    pub stamps: Stamps,
    /// The epoch of the file.
    pub epoch: Arc<str>,
    /// The id of the last line of the file, whether or not it is in the stretch.
    pub last_id: u64,
    /// The committed end of the file, in bytes.
    pub end: u64,
    /// How many messages were deleted.
    pub deleted: u64,
}

/// Of which messages the present state is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatesOf {
    /// The one with this id.
    Message(u64),
    /// The next ones after this id that are pinned. The hub names a few at a time, so that neither
    /// its other clients nor the memory feel how many there are.
    PinnedAfter(u64),
}

/// The present state of messages.
#[derive(Debug)]
pub struct States {
    /// The epoch of the file.
    pub epoch: Arc<str>,
    /// The messages that are there, in the order of the file.
    pub messages: Vec<MessageState>,
    /// Whether the message that was asked for was deleted.
    pub is_deleted: bool,
    /// The id to ask after for more; `None` when these are the last.
    pub more_after: Option<u64>,
}

/// What operations have made of a message: where everything about it stands.
#[derive(Debug)]
pub struct MessageState {
    /// The message itself.
    pub message: StampedLine,
    /// The last edit, if there is one.
    pub edit: Option<StampedLine>,
    /// The reactions.
    pub reactions: Reactions,
    /// Whether it is pinned.
    pub is_pinned: bool,
}

/// The reactions to a message: a line for each key and person.
#[derive(Debug)]
pub enum Reactions {
    /// These, in the order of the file.
    Few(Vec<StampedLine>),
    /// So many that they are asked for a part at a time; see [`Command::Reactions`].
    Many,
}

/// One line, to be read by the thread that holds it.
#[derive(Debug)]
pub struct StampedLine {
    /// The line.
    pub stretch: Stretch,
    /// Its stamp.
    pub stamps: Stamps,
}

/// The answer to a join.
#[derive(Debug)]
pub struct Joined {
    /// The client's number, for all further commands.
    pub client: ClientId,
    /// The part of the history that the client is to be sent first.
    pub snapshot: Snapshot,
}

/// What is done next with a client that is behind.
#[derive(Debug)]
pub enum NextStep {
    /// Send the messages of this stretch, with their stamps, and ask again.
    Stretch(Stretch, Stamps),
    /// Send the control frames that wait, and ask again.
    ControlFrames,
    /// Nothing: the client lacks no message, and the hub sends to it from now on.
    Live,
}
