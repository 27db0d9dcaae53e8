//! The hub: one thread that alone owns the history, the text file and the list of clients.
//!
//! Everybody else asks it through a queue of commands. It takes all that wait as one batch: one
//! write, one sync, one buffer of frames for everybody (group commit). Always in this order, so
//! what anyone has been shown is in the file: write, sync, move the committed end, send.
//! Then it serves the clients in turn (`fanout.rs`), and takes the next batch in between.
//! It waits for nobody but the disk.

use std::{
    collections::HashSet,
    io,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::{RecvTimeoutError, Sender};
use log::warn;

use crate::{
    catch_up::{Behind, CatchUp},
    command::{
        ClientId, Command, Commands, Joined, Next, Post, QUEUE, Speaker, Stored, View,
        WeakHubHandle,
    },
    fanout::{Fallen, Fanout, Standing},
    history::{History, Resume, Times, Window},
    journal::{Fatal, Journal},
    metrics::{Metrics, Status},
    outbox::Outbox,
    summary::{Figures, Summary},
    tally::Tally,
    wire::ErrorAnswer,
};

mod commit;
mod ending;
mod followers;
mod keys;
mod placing;

pub use ending::Role;
use ending::STOPPING;
use followers::Followers;
use keys::Keys;

/// Bytes of lines in one batch: what one write and one sync are for. More would delay the first of
/// them, and what is written again at a start must cover a batch (`journal::REWRITE`).
const BATCH_BYTES: usize = 1 << 20;

/// Commands in one batch.
const BATCH_COMMANDS: usize = 4096;

// One batch takes all that waits.
const _: () = assert!(QUEUE <= BATCH_COMMANDS);

/// How often the hub looks at the file by itself: lines that others append are taken in within a second.
const TICK: Duration = Duration::from_millis(500);

/// The hub.
pub struct Hub {
    journal: Journal,
    history: History,
    line_limit: usize,
    times: Times,
    fanout: Fanout,
    /// Takes over the clients that fall behind.
    catch_up: CatchUp,
    /// What they ask for more with.
    handle: WeakHubHandle,
    followers: Followers,
    keys: Keys,
    metrics: Arc<Metrics>,
    /// Where everybody can see how far this channel is.
    summary: Arc<Summary>,
    published: Figures,
    stopping: bool,
    /// Whether the file was put away, which is the end.
    is_away: bool,
    /// The end of what is stored as the policy asks, and so of what anyone may be told of.
    shown: u64,
    last_ts: u64,
    /// When the last message was accepted, if that was in this run.
    said_at: Option<u64>,
    /// How far the lock file says that the numbering has come.
    noted: u64,
    holes: Tally,
    /// Whether it has been said that nothing can be noted beside the file.
    has_warned: bool,
}

impl Hub {
    /// A hub for an open file, which hands the clients that fall behind to `catch_up`, with `handle` to
    /// ask for more, and says in `summary` how far it is.
    pub fn new(
        journal: Journal,
        history: History,
        line_limit: usize,
        metrics: Arc<Metrics>,
        catch_up: CatchUp,
        handle: WeakHubHandle,
        summary: Arc<Summary>,
    ) -> Hub {
        let mut hub = Hub {
            shown: history.end(),
            noted: history.end(),
            fanout: Fanout::new(history.last_id() + 1),
            journal,
            history,
            line_limit,
            times: Times::default(),
            catch_up,
            handle,
            followers: Followers::new(),
            keys: Keys::default(),
            metrics,
            summary,
            published: Figures::default(),
            stopping: false,
            is_away: false,
            last_ts: 0,
            said_at: None,
            holes: Tally::default(),
            has_warned: false,
        };
        hub.publish();
        hub
    }

    /// Serves commands until it was told to stop and the last client has left, or the last handle is
    /// dropped, or the channel is put away, or the file fails. Then everybody has been told.
    ///
    /// # Errors
    /// When the file fails.
    ///
    /// # Panics
    /// On a bug, when its end is the server's. A channel that ends alone tells its clients even then.
    pub fn run(mut self, commands: &Commands, role: Role) -> Result<(), Fatal> {
        let done = match role {
            Role::Default => self.serve(commands),
            Role::Channel => panic::catch_unwind(AssertUnwindSafe(|| self.serve(commands)))
                .unwrap_or_else(|_| {
                    Err(Fatal::Storage(io::Error::other("a panic, which is a bug")))
                }),
        };
        if let Err(fatal) = &done {
            self.fail(fatal, role);
        }
        done
    }

    fn serve(&mut self, commands: &Commands) -> Result<(), Fatal> {
        let mut next_tick = Instant::now() + TICK;
        loop {
            let first = match self.wait(commands, next_tick) {
                Ok(first) => {
                    // Threads that are about to send a command get to do so before the batch is
                    // taken: 1.1 times the messages to 10 clients, the same to more, and a single
                    // client is not served later.
                    thread::yield_now();
                    Some(first)
                }
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            };
            let begun = Instant::now();
            self.step(first.into_iter().chain(commands.try_iter()).map(|command| *command))?;
            if self.is_away {
                return Ok(());
            }
            if self.stopping && self.fanout.clients() == 0 {
                return self.end();
            }
            // Also while others keep it busy: with questions, or joins, or with posts alone.
            let now = Instant::now();
            if now >= next_tick {
                self.tick()?;
                next_tick = now + TICK;
            }
            // Commands that arrive meanwhile interrupt the round, and their messages join it. The round
            // gets at least as much time as the step took, however long the disk needs. A look at the
            // clock and the queue costs a hundredth of a send.
            let due = now + (now - begun);
            self.deliver(|| Instant::now() >= due && !commands.is_empty());
        }
    }

    /// The next command, or the time for a tick. A channel where nobody is and nothing is to be done
    /// waits without a clock, so that it costs nothing; its file is looked at by others
    /// ([`Command::Survey`]).
    fn wait(
        &mut self,
        commands: &Commands,
        next_tick: Instant,
    ) -> Result<Box<Command>, RecvTimeoutError> {
        let is_idle = self.fanout.clients() == 0
            && !self.journal.is_sync_due_later()
            && !self.holes.is_pending()
            && self.noted == self.history.end();
        if !is_idle {
            return commands.recv_deadline(next_tick);
        }
        self.fanout.rest(self.history.last_id() + 1);
        commands.recv().map_err(RecvTimeoutError::from)
    }

    /// Takes the commands that wait as one batch: first the posts, then everything else. Afterwards the
    /// speakers have been sent their messages; [`Hub::deliver`] serves everybody else.
    ///
    /// The commands of one client keep their order where it matters: it joins before it posts, and
    /// leaves afterwards.
    ///
    /// # Errors
    /// When the file fails; nothing of the batch has been shown then.
    pub fn step(&mut self, commands: impl Iterator<Item = Command>) -> Result<(), Fatal> {
        let mut posts = Vec::new();
        let mut others = Vec::new();
        let mut keys = HashSet::new();
        let mut bytes = 0;
        for command in commands.take(BATCH_COMMANDS) {
            match command {
                // One with the key of another waits until that one has its ids.
                Command::Post(post) if post.key().is_none_or(|key| keys.insert(key.to_owned())) => {
                    bytes += post.lines.len();
                    posts.push(post);
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
                Command::Join { outbox, resume, reply } => self.join(outbox, &resume, &reply),
                Command::CatchUp { client, next_id, reply } => {
                    self.catch_up(client, next_id, &reply);
                }
                Command::Leave(client) => self.fanout.leave(client),
                Command::Survey => self.commit(Vec::new())?,
                Command::Look { window, follow, reply } => self.look(&window, follow, &reply),
                Command::Status(reply) => {
                    // A caller that has stopped waiting needs no answer.
                    let _ = reply.send(self.status());
                }
                Command::Post(post) => self.commit(vec![post])?,
                Command::Stop => self.stop()?,
                Command::PutAway(reply) => self.put_away(&reply)?,
            }
            if self.is_away {
                // What else was asked is told so by the end of its reply queue.
                break;
            }
        }
        self.hand_over_fallen();
        self.publish();
        Ok(())
    }

    /// Takes in what others appended to the file, and syncs what is due. To be called twice a second.
    ///
    /// # Errors
    /// When the file fails.
    pub fn tick(&mut self) -> Result<(), Fatal> {
        self.commit(Vec::new())?;
        if let Some(count) = self.holes.due() {
            warn!("{count} more lines that others appended hold no message; skipped");
        }
        let synced = self.journal.sync_when_due()?;
        synced.into_iter().for_each(|time| self.metrics.synced(time));
        self.remember();
        Ok(())
    }

    /// Notes in the lock file how far the numbering has come. Without that note, the next start may give
    /// the numbering another name, so that clients start over; no message depends on it.
    fn remember(&mut self) {
        if self.noted == self.history.end() {
            return;
        }
        match self.journal.remember(&self.history) {
            Err(error) if !self.has_warned => {
                warn!("how far the file has come could not be noted beside it: {error}");
                self.has_warned = true;
            }
            Err(_) => {}
            Ok(()) => {
                self.has_warned = false;
                self.noted = self.history.end();
            }
        }
    }

    /// Says how far this channel is, to whoever wants to know.
    fn publish(&mut self) {
        let figures = self.figures();
        if figures != self.published {
            self.summary.publish(figures);
            self.published = figures;
        }
    }

    fn figures(&self) -> Figures {
        Figures {
            last_id: self.history.last_id(),
            messages: self.history.messages(),
            ts: self.said_at,
            file_bytes: self.history.end(),
            clients: self.fanout.clients() as u64,
            clients_behind: self.fanout.behind() as u64,
        }
    }

    fn join(&mut self, outbox: Arc<Outbox>, resume: &Resume, reply: &Sender<Joined>) {
        let client = self.fanout.join(outbox, self.history.last_id() + 1);
        if self.stopping {
            self.fanout.close(client, STOPPING.0, STOPPING.1);
        }
        self.metrics.joined();
        self.publish();
        let snapshot = self.history.snapshot(resume, self.journal.epoch());
        // A client that has stopped waiting is about to leave.
        let _ = reply.send(Joined { client, snapshot });
    }

    fn catch_up(&mut self, client: ClientId, next_id: Option<u64>, reply: &Sender<Next>) {
        let Some(standing) = self.fanout.catch_up(client, next_id) else { return };
        let next = match standing {
            Standing::Lacks(next_id) => {
                let range = self.history.stretch(next_id);
                let times = self.times.within(&range);
                Next::Stretch(range, times)
            }
            Standing::Waits => Next::Control,
            Standing::Live(sent) => {
                self.metrics.delivered(sent);
                Next::Live
            }
        };
        // A client that has stopped waiting is about to leave.
        let _ = reply.send(next);
    }

    /// Passes on the clients that fell behind.
    fn hand_over_fallen(&mut self) {
        for Fallen { client, outbox, cut, next_id } in self.fanout.fallen() {
            // Without a handle there is no thread that reads from the client either.
            let Some(hub) = self.handle.upgrade() else { return };
            let file = self.journal.file().clone();
            self.catch_up.take(Behind { client, outbox, hub, file, cut, history: None, next_id });
        }
    }

    fn look(&mut self, window: &Window, follow: Option<Sender<()>>, reply: &Sender<View>) {
        // When the server stops, dropping it is the answer.
        if let Some(follower) = follow.filter(|_| !self.stopping) {
            self.followers.add(follower);
        }
        let range = self.history.window(window);
        let view = View {
            times: self.times.within(&range),
            range,
            epoch: self.journal.epoch().clone(),
            last_id: self.history.last_id(),
            end: self.history.end(),
        };
        // A caller that has stopped waiting needs no answer.
        let _ = reply.send(view);
    }

    fn status(&self) -> Status {
        Status { is_writable: !self.journal.is_full(), is_stopping: self.stopping }
    }

    /// Serves the speakers first. Their next message then arrives while the round is still running, and
    /// joins it.
    fn serve_speakers(&mut self, posts: &[Post]) {
        let mut sent = 0;
        for post in posts {
            if let Speaker::Client(client) = post.by {
                sent += self.fanout.serve(client);
            }
        }
        self.metrics.delivered(sent);
    }

    /// Serves the live clients in turn, until all have everything or it is enough for now; see
    /// [`Fanout::go_round`].
    pub fn deliver(&mut self, enough: impl Fn() -> bool) {
        let sent = self.fanout.go_round(enough);
        self.metrics.delivered(sent);
        self.hand_over_fallen();
    }

    /// Answers what was posted before under the same key.
    fn is_known(&self, post: &Post) -> bool {
        let Speaker::Request { key: Some(key), reply } = &post.by else { return false };
        let Some(stored) = self.keys.get(key) else { return false };
        // A caller that has stopped waiting has what it wanted all the same.
        let _ = reply.send(Ok(stored));
        true
    }

    /// Syncs what was taken in, as far as `--fsync` asks for it. From here on it may be sent.
    fn show(&mut self) -> Result<(), Fatal> {
        if self.history.end() == self.shown {
            return Ok(());
        }
        let synced = self.journal.sync_per_policy()?;
        synced.into_iter().for_each(|time| self.metrics.synced(time));
        self.shown = self.history.end();
        let messages = self.fanout.publish();
        self.publish();
        if messages > 0 {
            self.metrics.stored(messages);
            self.followers.wake();
        }
        Ok(())
    }

    fn refuse(&mut self, posts: Vec<Post>, why: ErrorAnswer) {
        let frame = why.frame(why.sentence());
        for post in posts {
            let count = count_lines(&post.lines);
            self.metrics.refused(count as u64);
            match post.by {
                Speaker::Client(client) => {
                    (0..count).for_each(|_| self.fanout.control(client, &frame));
                }
                Speaker::Request { reply, .. } => {
                    // A caller that has stopped waiting needs no answer.
                    let _ = reply.send(Err(why));
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

fn count_lines(lines: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', lines).count()
}

#[cfg(test)]
mod tests;
