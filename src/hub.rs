//! The hub: one thread that alone owns the history, the text file and the list of clients.
//!
//! Everybody else asks it through a queue of commands. It takes all that wait as one batch: one
//! write, one sync, one buffer of frames for everybody (group commit). Always in this order, so
//! what anyone has been shown is in the file: write, sync, move the committed end, send.
//! It waits for nobody but the disk.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::{error, warn};
use tungstenite::protocol::frame::coding::CloseCode;

use crate::{
    history::{BLOCK, BOM, History, Range, Resume, Snapshot, Times},
    journal::{AppendError, Fatal, Journal},
    lines::{Line, Lines},
    message::{self, Frames, Refusal},
    outbox::{Control, Offer, Outbox},
};

/// Commands that may wait; whoever sends one more waits for the hub.
const QUEUE: usize = 1024;

/// Bytes of lines in one batch: what one write and one sync are for. More would delay the first of
/// them, and what is written again at a start must cover a batch (`journal::REWRITE`).
const BATCH_BYTES: usize = 1 << 20;

/// Commands in one batch.
const BATCH_COMMANDS: usize = 4096;

/// How often an idle hub looks at the file: what others append is taken in within a second.
const TICK: Duration = Duration::from_millis(500);

/// Names a client to the hub, in the order of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(u64);

/// Starts the thread that catches a client up; called when its socket is found full.
pub type StartCatchUp = Box<dyn Fn(ClientId) -> io::Result<()> + Send>;

/// What the hub is asked.
pub enum Command {
    /// A client wants the history, and from its end on every message.
    Join {
        /// The client's sending side; behind until the history is sent.
        outbox: Arc<Outbox>,
        /// How to catch it up, should it fall behind.
        start_catch_up: StartCatchUp,
        /// What it asks of the history.
        resume: Resume,
        /// Gets the answer.
        reply: Sender<Joined>,
    },
    /// A client says something: whole lines.
    Post {
        /// Who, to be answered when it is refused.
        client: ClientId,
        /// One or more messages, each a line with its `\n`.
        lines: Vec<u8>,
    },
    /// A client that was sent all it was given asks for more, or to be live.
    CatchUp {
        /// Who.
        client: ClientId,
        /// Gets the answer.
        reply: Sender<Next>,
    },
    /// A client is gone.
    Leave(ClientId),
    /// The server stops: nothing more is taken, everybody is told.
    Stop,
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
    Round(Range, Times),
    /// Send what waits between frames, and ask again.
    Control,
    /// Nothing: it has everything, and the hub sends to it from now on.
    Live,
}

/// A way to ask the hub; it ends when the last of these is gone.
#[derive(Clone, Debug)]
pub struct HubHandle {
    inbox: Sender<Command>,
}

/// The hub's queue: what is sent through the handle waits for [`Hub::run`].
pub fn queue() -> (HubHandle, Receiver<Command>) {
    let (inbox, commands) = bounded(QUEUE);
    (HubHandle { inbox }, commands)
}

/// The hub is gone: the process is about to end.
#[derive(Debug)]
pub struct HubGone;

impl HubHandle {
    /// Joins a client; see [`Command::Join`].
    pub fn join(
        &self,
        outbox: Arc<Outbox>,
        start_catch_up: StartCatchUp,
        resume: Resume,
    ) -> Result<Joined, HubGone> {
        self.ask(|reply| Command::Join { outbox, start_catch_up, resume, reply })
    }

    /// Posts whole lines. They are stored and shown to all, or answered with a refusal.
    pub fn post(&self, client: ClientId, lines: Vec<u8>) -> Result<(), HubGone> {
        self.send(Command::Post { client, lines })
    }

    /// Asks what a client that is behind does next.
    pub fn catch_up(&self, client: ClientId) -> Result<Next, HubGone> {
        self.ask(|reply| Command::CatchUp { client, reply })
    }

    /// Says that a client is gone.
    pub fn leave(&self, client: ClientId) {
        // A hub that is gone has forgotten everybody.
        let _ = self.send(Command::Leave(client));
    }

    /// Asks for the orderly end.
    pub fn stop(&self) {
        // A hub that is gone has stopped.
        let _ = self.send(Command::Stop);
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
        self.inbox.send(command).map_err(|_| HubGone)
    }
}

/// One client as the hub knows it.
struct Client {
    id: ClientId,
    outbox: Arc<Outbox>,
    start_catch_up: StartCatchUp,
    /// The next message that a client which is behind has to be sent; none when it is live.
    behind: Option<u64>,
}

impl Client {
    /// What follows when its socket was found full.
    fn catch_up(&self) {
        if let Err(error) = (self.start_catch_up)(self.id) {
            warn!("cannot start a thread to catch a client up, closing it: {error}");
            self.outbox.abort();
        }
    }

    fn close(&self, code: CloseCode, reason: &'static str) {
        if self.outbox.close(code, reason) == Control::Full {
            self.catch_up();
        }
    }
}

/// What everybody is told when the server stops.
const STOPPING: (CloseCode, &str) = (CloseCode::Restart, "the server is stopping; come back");

/// The hub.
pub struct Hub {
    journal: Journal,
    history: History,
    line_limit: usize,
    times: Times,
    clients: Vec<Client>,
    next_client: u64,
    stopping: bool,
    /// The end of what is stored as the policy asks, and so of what anyone may be told of.
    shown: u64,
    /// Of the batch under way.
    frames: Frames,
    last_ts: u64,
}

impl Hub {
    /// A hub for an open file.
    pub fn new(journal: Journal, history: History, line_limit: usize) -> Hub {
        Hub {
            shown: history.end(),
            journal,
            history,
            line_limit,
            times: Times::default(),
            clients: Vec::new(),
            next_client: 1,
            stopping: false,
            frames: Frames::default(),
            last_ts: 0,
        }
    }

    /// Serves commands until every handle is gone or the file fails; then everybody has been told.
    ///
    /// # Errors
    /// When the file fails.
    pub fn run(mut self, commands: &Receiver<Command>) -> Result<(), Fatal> {
        let done = self.serve(commands);
        if let Err(fatal) = &done {
            error!("{fatal}");
            self.close_all(CloseCode::Error, "the server cannot store messages any more");
        }
        done
    }

    fn serve(&mut self, commands: &Receiver<Command>) -> Result<(), Fatal> {
        loop {
            match commands.recv_timeout(TICK) {
                Ok(first) => {
                    let waiting = std::iter::once(first).chain(commands.try_iter());
                    self.turn(waiting)?;
                }
                Err(RecvTimeoutError::Timeout) => self.tick()?,
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
        }
    }

    /// Takes what waits as one batch: first what is said, then everything else.
    ///
    /// A client's own commands keep their order where it matters: it joins before it posts, and
    /// leaves afterwards.
    ///
    /// # Errors
    /// When the file fails; nothing of the batch has been shown then.
    pub fn turn(&mut self, commands: impl Iterator<Item = Command>) -> Result<(), Fatal> {
        let mut posts = Vec::new();
        let mut others = Vec::new();
        let mut bytes = 0;
        for command in commands.take(BATCH_COMMANDS) {
            match command {
                Command::Post { client, lines } => {
                    bytes += lines.len();
                    posts.push(Post { client, lines });
                    if bytes >= BATCH_BYTES {
                        break;
                    }
                }
                other => others.push(other),
            }
        }
        if !posts.is_empty() {
            self.commit(posts)?;
        }
        for command in others {
            match command {
                Command::Join { outbox, start_catch_up, resume, reply } => {
                    self.join(outbox, start_catch_up, &resume, &reply);
                }
                Command::CatchUp { client, reply } => self.catch_up(client, &reply),
                Command::Leave(client) => self.leave(client),
                Command::Stop => self.stop()?,
                Command::Post { .. } => unreachable!("posts were taken out"),
            }
        }
        Ok(())
    }

    /// What an idle hub does: takes in what others appended, and keeps its promises about time.
    ///
    /// # Errors
    /// When the file fails.
    pub fn tick(&mut self) -> Result<(), Fatal> {
        self.commit(Vec::new())?;
        self.journal.sync_when_due()?;
        self.journal.remember(&self.history).map_err(Fatal::Storage)
    }

    fn join(
        &mut self,
        outbox: Arc<Outbox>,
        start_catch_up: StartCatchUp,
        resume: &Resume,
        reply: &Sender<Joined>,
    ) {
        let id = ClientId(self.next_client);
        self.next_client += 1;
        let behind = Some(self.history.last_id() + 1);
        let client = Client { id, outbox, start_catch_up, behind };
        if self.stopping {
            client.close(STOPPING.0, STOPPING.1);
        }
        self.clients.push(client);
        let snapshot = self.history.snapshot(resume, self.journal.epoch());
        // Who does not wait for the answer any more is about to leave.
        let _ = reply.send(Joined { client: id, snapshot });
    }

    fn catch_up(&mut self, id: ClientId, reply: &Sender<Next>) {
        let last_id = self.history.last_id();
        let Some(at) = self.find(id) else { return };
        let client = &mut self.clients[at];
        let next_id = client.behind.unwrap_or(last_id + 1);
        let next = if next_id <= last_id {
            let round = self.history.round(next_id);
            client.behind = Some(round.last_id + 1);
            let times = self.times.within(&round);
            Next::Round(round, times)
        } else if client.outbox.go_live() {
            client.behind = None;
            Next::Live
        } else {
            client.behind = Some(next_id);
            Next::Control
        };
        // Who does not wait for the answer any more is about to leave.
        let _ = reply.send(next);
    }

    fn leave(&mut self, id: ClientId) {
        if let Some(at) = self.find(id) {
            self.clients.remove(at);
        }
    }

    fn find(&self, id: ClientId) -> Option<usize> {
        self.clients.binary_search_by_key(&id, |client| client.id).ok()
    }

    fn stop(&mut self) -> Result<(), Fatal> {
        self.stopping = true;
        self.end()?;
        self.close_all(STOPPING.0, STOPPING.1);
        Ok(())
    }

    fn close_all(&mut self, code: CloseCode, reason: &'static str) {
        for client in &self.clients {
            client.close(code, reason);
        }
    }

    /// Nothing is on its way to the disk afterwards.
    fn end(&mut self) -> Result<(), Fatal> {
        self.journal.sync()?;
        self.journal.remember(&self.history).map_err(Fatal::Storage)
    }

    /// Stores what is said, together with what others appended to the file meanwhile, and shows it.
    fn commit(&mut self, posts: Vec<Post>) -> Result<(), Fatal> {
        if self.stopping && !posts.is_empty() {
            self.refuse(&posts, Refusal::ShuttingDown);
            return Ok(());
        }
        let size = self.journal.survey(self.history.end())?;
        self.read_in(size)?;
        if !posts.is_empty() && !self.write(&posts, size)? {
            self.refuse(&posts, Refusal::StorageFull);
        }
        self.show()
    }

    /// Appends what is said; false when there is no room for it.
    fn write(&mut self, posts: &[Post], size: u64) -> Result<bool, Fatal> {
        let mut lines = Vec::with_capacity(posts.iter().map(|post| post.lines.len() + 1).sum());
        if self.history.end() < size {
            // Somebody's line without an end: it gets one, so that ours is not glued to it.
            lines.push(b'\n');
        }
        for post in posts {
            lines.extend_from_slice(&post.lines);
        }
        let mut lines = &lines[..];
        while !lines.is_empty() {
            let start = match self.journal.append(lines) {
                Ok(start) => start,
                Err(AppendError::Full) => return Ok(false),
                Err(AppendError::Fatal(fatal)) => return Err(fatal),
            };
            lines = self.place(lines, start)?;
        }
        Ok(true)
    }

    /// Takes in lines of ours that were appended at `start`, after what others slipped in before.
    ///
    /// Returns what has to be written again: the first line, should it be glued to another's line
    /// that had no end yet.
    fn place<'a>(&mut self, lines: &'a [u8], start: u64) -> Result<&'a [u8], Fatal> {
        self.read_in(start)?;
        let mut ours = lines;
        let mut again = &lines[..0];
        if self.history.end() < start {
            let len = memchr::memchr(b'\n', lines).map_or(lines.len(), |at| at + 1);
            self.read_in(start + len as u64)?;
            (again, ours) = lines.split_at(len);
            if again == b"\n" {
                again = &lines[..0];
            }
        }
        let ts = self.now();
        for line in ours.split_inclusive(|&byte| byte == b'\n') {
            match line {
                b"\n" => {
                    self.history.push_hole(1);
                }
                _ => {
                    let id = self.history.push_line(line.len() as u64);
                    self.times.push(id, ts);
                    self.frames.push(&line[..line.len() - 1], id, Some(ts));
                }
            }
        }
        Ok(again)
    }

    /// Takes in whole lines that others appended, from the committed end up to `until`.
    fn read_in(&mut self, until: u64) -> Result<(), Fatal> {
        let from = self.history.end();
        if from >= until {
            return Ok(());
        }
        let ts = self.now();
        let mut lines = Lines::new(self.journal.file(), from, until, BLOCK, self.line_limit);
        while let Some(line) = lines.next().map_err(Fatal::Storage)? {
            let len = match line {
                Line::Unfinished(_) => break,
                Line::TooLong(len) => len,
                Line::Whole(mut text) => {
                    if self.history.last_id() == 0 && text.starts_with(BOM) {
                        self.history.skip_bom();
                        text = &text[BOM.len()..];
                    }
                    let len = text.len() as u64 + 1;
                    if let Some(message) = message::on_line(text) {
                        let id = self.history.push_line(len);
                        self.times.push(id, ts);
                        self.frames.push(message, id, Some(ts));
                        if self.frames.bytes().len() >= BATCH_BYTES {
                            self.show()?;
                        }
                        continue;
                    }
                    len
                }
            };
            let id = self.history.push_hole(len);
            warn!("line {id}, appended by somebody else, holds no message; skipped");
        }
        Ok(())
    }

    /// Syncs what was taken in, as far as the policy asks for it, and sends it to everybody live.
    fn show(&mut self) -> Result<(), Fatal> {
        if self.history.end() == self.shown {
            return Ok(());
        }
        self.journal.commit()?;
        self.shown = self.history.end();
        if self.frames.is_empty() {
            return Ok(());
        }
        for client in self.clients.iter_mut().filter(|client| client.behind.is_none()) {
            match client.outbox.offer(&self.frames) {
                Offer::Sent | Offer::Closed => {}
                Offer::Behind => client.behind = self.frames.first_id(),
                Offer::Full(next_id) => {
                    client.behind = Some(next_id);
                    client.catch_up();
                }
            }
        }
        self.frames.clear();
        Ok(())
    }

    fn refuse(&self, posts: &[Post], why: Refusal) {
        let frame = why.frame(why.sentence());
        for post in posts {
            let Some(at) = self.find(post.client) else { continue };
            let client = &self.clients[at];
            for _ in memchr::memchr_iter(b'\n', &post.lines) {
                if client.outbox.control(&frame) == Control::Full {
                    client.catch_up();
                }
            }
        }
    }

    /// The time of acceptance in Unix milliseconds, which never goes back.
    fn now(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
        self.last_ts = self.last_ts.max(now as u64);
        self.last_ts
    }
}

struct Post {
    client: ClientId,
    lines: Vec<u8>,
}
