//! The handle that other threads have of the hub, and the queues that it sends commands to.
//!
//! Commands go through one bounded queue. A thread that asks waits for room in it and for the hub's
//! answer, as a rule; the hub waits for no other thread. The hub ends when the last handle is dropped.
//!
//! The disk of one hub may hang, and a thread that looks after many hubs must go on with the others.
//! So a thread that asks for the status or stops the server waits for a limited time, and one that has
//! files or rights looked at does not wait at all. Nor do catch-up threads: their questions have a queue of their own. It
//! needs no bound, as a client that is behind has one question under way at the most. A client that was
//! sent its history asks in the same way.

use std::{
    io,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crossbeam_channel::{
    Receiver, RecvTimeoutError, Select, SendTimeoutError, Sender, TrySendError, bounded, unbounded,
};

use super::{
    ClientId, Command, Joined, NextStep, Post, PostedOperations, Reply, Speaker, States, StatesOf,
    Stored, View, long_posts::Room,
};
use crate::{
    access::{self, Permit},
    history::{Resume, Stretch, Window},
    metrics::Status,
    operations::Reaction,
    outbox::Outbox,
    stamps::{Since, Stamps},
    wire::ErrorAnswer,
};

/// How many commands may wait in the queue; a thread that sends one more waits for the hub. Long posts
/// must also find room (`long_posts.rs`). One batch takes all that wait.
pub(crate) const QUEUE: usize = 256;

/// How long a request waits for an engine to give numbers to its post: half a minute is what proxies
/// commonly wait for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// The hub's end of its queues. Commands wait in boxes: an idle channel's queue takes 4 KiB with them
/// and 24 KiB without.
#[derive(Debug)]
pub struct Commands {
    queue: Receiver<Box<Command>>,
    /// What is asked for clients that are behind.
    questions: Receiver<Box<Command>>,
}

impl Commands {
    /// The next command. Without a deadline it is waited for however long it takes.
    ///
    /// # Errors
    /// When none comes before the deadline, or all handles are gone and no command is left.
    pub fn wait(&self, deadline: Option<Instant>) -> Result<Box<Command>, RecvTimeoutError> {
        // `recv` would yield some times before it sleeps. Where programs that compute share the
        // processor, each yield takes as long as one of their time slices, and a command that comes
        // meanwhile waits as long.
        let mut select = Select::new();
        let questions = select.recv(&self.questions);
        select.recv(&self.queue);
        let ready = match deadline {
            None => select.select(),
            Some(deadline) => {
                select.select_deadline(deadline).map_err(|_| RecvTimeoutError::Timeout)?
            }
        };
        let (first, other) = match ready.index() == questions {
            true => (&self.questions, &self.queue),
            false => (&self.queue, &self.questions),
        };
        // When all handles are gone, commands may be left in the other queue.
        ready.recv(first).or_else(|_| other.recv()).map_err(RecvTimeoutError::from)
    }

    /// The commands that wait. Questions come first, so that they wait for no more than one batch,
    /// however much is posted.
    pub fn try_iter(&self) -> impl Iterator<Item = Box<Command>> {
        self.questions.try_iter().chain(self.queue.try_iter())
    }

    /// Whether no command waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.questions.is_empty()
    }

    /// Drops each command that comes, until all handles are gone: the end of its reply queue tells a
    /// thread that still asks that it gets no answer. If its command were left in a queue that nobody
    /// reads, the thread would wait for ever.
    pub fn drop_all(self) {
        drop(self.questions);
        self.queue.iter().for_each(drop);
    }
}

/// A handle to ask the hub with. The hub ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct HubHandle {
    door: Arc<Door>,
}

/// The queues for commands, for questions about clients that are behind, and for posts.
#[derive(Debug)]
struct Door {
    commands: Sender<Box<Command>>,
    questions: Sender<Box<Command>>,
    /// Where posts go instead, if an engine gives out the numbers.
    sequencer: Option<Sender<Post>>,
    /// The room for long posts in the queue.
    room: Arc<Room>,
}

/// A handle that does not keep the hub running. The hub itself has it, and makes handles from it.
#[derive(Clone, Debug)]
pub struct WeakHubHandle {
    door: Weak<Door>,
}

impl WeakHubHandle {
    /// A handle that keeps the hub running; `None` when the last one of these was dropped.
    pub fn upgrade(&self) -> Option<HubHandle> {
        self.door.upgrade().map(|door| HubHandle { door })
    }
}

/// Makes the hub's queues: the first handle, and the end from which the hub takes commands. Posts go to
/// the sequencer first, where there is one.
pub fn queue(sequencer: Option<Sender<Post>>) -> (HubHandle, Commands) {
    let (commands, queue) = bounded(QUEUE);
    let (asks, questions) = unbounded();
    let room = Arc::default();
    let door = Arc::new(Door { commands, questions: asks, sequencer, room });
    (HubHandle { door }, Commands { queue, questions })
}

/// The hub gave no answer: its channel has ended, or the process is about to end, or it does not know
/// the client.
#[derive(Debug)]
pub struct HubGone;

impl HubHandle {
    /// A handle that does not keep the hub running.
    pub fn downgrade(&self) -> WeakHubHandle {
        WeakHubHandle { door: Arc::downgrade(&self.door) }
    }

    /// Joins a client to the hub; see [`Command::Join`].
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn join(
        &self,
        outbox: Arc<Outbox>,
        resume: Resume,
        permit: Arc<Permit>,
    ) -> Result<Joined, HubGone> {
        self.ask(|reply| Command::Join { outbox, resume, permit, reply })
    }

    /// Posts whole lines for a client, and the operations among them. The lines are stored and sent to
    /// all clients, or the client is sent an error answer for each of them. Each operation that is
    /// refused is answered with an error of its own.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn post(
        &self,
        client: ClientId,
        sender: Option<access::Sender>,
        lines: Vec<u8>,
        operations: Option<Box<PostedOperations>>,
    ) -> Result<(), HubGone> {
        let by = Speaker::Client(client);
        self.post_or_queue(Post::new(by, sender, lines, operations))
    }

    /// Waits until what was posted before is stored or refused, and its speakers were told so, as far
    /// as their sockets take it at once. On a node of a cluster it does not wait: posts go to an engine
    /// first, which may be unavailable.
    pub fn wait_for_posts(&self) {
        if self.door.sequencer.is_none() {
            // A hub that is gone tells nobody anything more.
            let _ = self.ask(Command::AfterPosts);
        }
    }

    /// Posts whole lines for a request, and the operations among them, and waits until they are stored
    /// or refused; see [`Speaker::Request`]. If one of the operations is refused, all lines are.
    ///
    /// # Errors
    /// When the hub is gone; the lines may be stored or not then. The inner error says why the post
    /// was refused; nothing of it is stored then.
    pub fn store(
        &self,
        key: Option<String>,
        sender: Option<access::Sender>,
        lines: Vec<u8>,
        operations: Option<Box<PostedOperations>>,
    ) -> Result<Result<Stored, ErrorAnswer>, HubGone> {
        let (reply, answer) = oneshot::channel();
        let by = Speaker::Request { key, reply };
        self.post_or_queue(Post::new(by, sender, lines, operations))?;
        if self.door.sequencer.is_none() {
            return answer.recv().map_err(|_| HubGone);
        }
        match answer.recv_timeout(ANSWER_TIME) {
            Ok(answer) => Ok(answer),
            Err(oneshot::RecvTimeoutError::Timeout) => Ok(Err(ErrorAnswer::Unanswered)),
            Err(oneshot::RecvTimeoutError::Disconnected) => Err(HubGone),
        }
    }

    /// Looks at a part of the history; see [`Command::Look`].
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn look(&self, window: Window, follow: Option<Sender<()>>) -> Result<View, HubGone> {
        self.ask(|reply| Command::Look { window, follow, reply })
    }

    /// Asks for the present state of messages; see [`Command::States`].
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn states(&self, of: StatesOf) -> Result<States, HubGone> {
        self.ask(|reply| Command::States { of, reply })
    }

    /// Asks for the next of the many reactions that a message has; see [`Command::Reactions`].
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn reactions(
        &self,
        target: u64,
        after: Option<Reaction>,
    ) -> Result<Option<Vec<(Reaction, u64)>>, HubGone> {
        self.ask(|reply| Command::Reactions { target, after, reply })
    }

    /// Asks where the messages since a time in Unix milliseconds begin.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn since(&self, ts: u64) -> Result<Since, HubGone> {
        self.ask(|reply| Command::Since { ts, reply })
    }

    /// Asks for a stretch of the history, and its stamps; see [`Command::History`].
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn history(&self, next_id: u64, last_id: u64) -> Result<(Stretch, Stamps), HubGone> {
        self.ask(|reply| Command::History { next_id, last_id, reply: reply.into() })
    }

    /// The same, but it waits for nothing.
    pub fn history_later(&self, next_id: u64, last_id: u64, reply: Reply<(Stretch, Stamps)>) {
        self.ask_later(Command::History { next_id, last_id, reply });
    }

    /// Asks for the state of the server; `None` when there is no answer within `timeout`, or with a
    /// full queue within twice that.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn status(&self, timeout: Duration) -> Result<Option<Status>, HubGone> {
        let (reply, answer) = oneshot::channel();
        match self.door.commands.send_timeout(Box::new(Command::Status(reply)), timeout) {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_)) => return Ok(None),
            Err(SendTimeoutError::Disconnected(_)) => return Err(HubGone),
        }
        match answer.recv_timeout(timeout) {
            Ok(status) => Ok(Some(status)),
            Err(oneshot::RecvTimeoutError::Timeout) => Ok(None),
            Err(oneshot::RecvTimeoutError::Disconnected) => Err(HubGone),
        }
    }

    /// Asks what is done next with a client that is behind, and waits for nothing; see
    /// [`Command::NextStep`].
    pub fn next_step_later(&self, client: ClientId, next_id: Option<u64>, reply: Reply<NextStep>) {
        self.ask_later(Command::NextStep { client, next_id, reply });
    }

    /// Tells the hub that a client wants to know who is here and who types.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn listen(&self, client: ClientId) -> Result<(), HubGone> {
        self.send(Command::Listen(client))
    }

    /// Tells the hub that a client types.
    ///
    /// # Errors
    /// When the hub is gone.
    pub fn typing(&self, client: ClientId) -> Result<(), HubGone> {
        self.send(Command::Typing(client))
    }

    /// Tells the hub that a client is gone.
    pub fn leave(&self, client: ClientId) {
        // A hub that has ended has forgotten all clients.
        let _ = self.send(Command::Leave(client));
    }

    /// Has the hub look at its file; false when its queue is full.
    pub fn survey(&self) -> bool {
        !matches!(
            self.door.commands.try_send(Box::new(Command::Survey)),
            Err(TrySendError::Full(_))
        )
    }

    /// Has the hub look at once who may still read the channel; see [`Command::CheckRights`].
    pub fn check_rights(&self) {
        // A hub whose queue is full may wait for a disk that hangs, and nobody waits for that. It
        // looks at its next tick. The clients of a hub that has ended are gone.
        let _ = self.door.commands.try_send(Box::new(Command::CheckRights));
    }

    /// Puts the channel away; see [`Command::PutAway`].
    ///
    /// # Errors
    /// When the hub has ended. The inner error says that the file could not get another name; the
    /// channel goes on then.
    pub fn put_away(&self) -> Result<io::Result<()>, HubGone> {
        self.ask(Command::PutAway)
    }

    /// Tells the hub to stop in order; see [`Command::Stop`]. Returns false when the hub takes no
    /// command before the deadline.
    pub fn stop(&self, deadline: Instant) -> bool {
        // A hub that has ended has stopped.
        !matches!(
            self.door.commands.send_deadline(Box::new(Command::Stop), deadline),
            Err(SendTimeoutError::Timeout(_))
        )
    }

    fn post_or_queue(&self, mut post: Post) -> Result<(), HubGone> {
        match &self.door.sequencer {
            Some(sequencer) => sequencer.send(post).map_err(|_| HubGone),
            None => {
                post.place = self.door.room.enter(post.lines.len());
                self.send(Command::Post(post))
            }
        }
    }

    pub(super) fn ask<Answer>(
        &self,
        command: impl FnOnce(oneshot::Sender<Answer>) -> Command,
    ) -> Result<Answer, HubGone> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        answer.recv().map_err(|_| HubGone)
    }

    fn ask_later(&self, question: Command) {
        // With a hub that has ended, the reply is dropped here, and says so.
        let _ = self.door.questions.send(Box::new(question));
    }

    pub(super) fn send(&self, command: Command) -> Result<(), HubGone> {
        self.door.commands.send(Box::new(command)).map_err(|_| HubGone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hub's queues, the bounded one full, and a question.
    fn full_with_a_question() -> (HubHandle, Commands) {
        let (handle, commands) = queue(None);
        while handle.survey() {}
        handle.next_step_later(ClientId(1), None, Reply::new(drop));
        (handle, commands)
    }

    #[test]
    fn a_question_finds_room_beside_a_full_queue_and_is_taken_first() {
        let (_handle, commands) = full_with_a_question();
        let taken: Vec<_> = commands.try_iter().collect();
        assert!(matches!(*taken[0], Command::NextStep { .. }));
        assert_eq!(taken.len(), QUEUE + 1);
        assert!(commands.is_empty());
    }

    #[test]
    fn what_waits_when_the_last_handle_is_dropped_is_still_taken() {
        let (handle, commands) = full_with_a_question();
        drop(handle);
        for _ in 0..=QUEUE {
            commands.wait(None).expect("it was sent");
        }
        assert_eq!(commands.wait(None).map(drop), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_question_is_answered_with_the_end_of_the_hub_wherever_it_is() {
        let (handle, commands) = queue(None);
        let (tells, told) = unbounded();
        let ask = || {
            let tells = tells.clone();
            let take = move |answer: Result<_, HubGone>| {
                tells.send(answer.is_err()).expect("it is heard");
            };
            handle.next_step_later(ClientId(1), None, Reply::new(take));
        };
        ask();
        assert!(told.is_empty());
        drop(commands);
        assert_eq!(told.try_recv(), Ok(true), "it was in the queue");
        ask();
        assert_eq!(told.try_recv(), Ok(true), "there is no queue");
    }
}
