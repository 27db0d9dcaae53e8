//! The hub: one thread that alone owns the history, the text file and the list of clients.
//!
//! Other threads ask it through its queues of commands. It takes all commands that wait as one batch,
//! with one write, one sync and one buffer of frames for all clients: what databases call group
//! commit. It writes first, then moves the committed end, then syncs, then sends, always in this
//! order, so every message that a client has been shown is in the file. Then it serves the clients
//! in turn (`fanout.rs`), and takes the next batch in between. It waits for nothing but the disk.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::RecvTimeoutError;

use crate::{
    catch_up::{Behind, CatchUp},
    command::{ClientId, Command, Commands, Post, Speaker, WeakHubHandle},
    fanout::{Fanout, FellBehind},
    followers::Followers,
    history::History,
    journal::{Fatal, Journal},
    metrics::{Metrics, Status},
    outbox::ANSWERS_AT_ONCE,
    stamps::{NewStamps, Recent},
    summary::{Figures, Summary},
    wire::ErrorAnswer,
};

mod answers;
mod batch;
mod commit;
mod ending;
mod keys;
mod operating;
mod placing;
mod replica;
mod stamping;
mod warnings;

use batch::Batch;
pub use ending::Role;
use keys::Keys;
use replica::Replica;
use stamping::time_of_last;
use warnings::Warnings;

/// How often the hub looks at the file when it has no command: foreign lines are taken in within a
/// second.
const TICK: Duration = Duration::from_millis(500);

/// The hub: the file, its history, the clients, and all that is decided about them.
pub struct Hub {
    journal: Journal,
    history: History,
    line_limit: usize,
    /// The stamps of the latest messages, where the journal keeps none.
    recent: Recent,
    /// Stamps that are about to be written. It is empty between two writes.
    new_stamps: NewStamps,
    fanout: Fanout,
    /// The threads that take over clients that fall behind.
    catch_up: CatchUp,
    /// The hub's own handle, of which these threads get a strong one.
    handle: WeakHubHandle,
    followers: Followers,
    keys: Keys,
    metrics: Arc<Metrics>,
    /// Where everybody can see how far this channel has come.
    summary: Arc<Summary>,
    published: Figures,
    stopping: bool,
    /// Whether the file was put away. The hub ends then.
    is_put_away: bool,
    /// The end of the lines that are stored as `--fsync` asks for it. Their messages may be sent,
    /// and no other messages.
    shown_end: u64,
    /// Up to here the line that another program has begun is not searched again for its end. It is no
    /// offset after the committed end while that line is short, or none is begun.
    searched_end: u64,
    /// The last time of acceptance that was given, in Unix milliseconds.
    last_ts: u64,
    /// When the last message was accepted, if that was in this run.
    said_at: Option<u64>,
    /// How far the lock file says that the numbering has come; `None` when it must be told anew.
    noted: Option<u64>,
    /// Messages that were deleted and must be erased before anybody is shown that.
    deleted: Vec<u64>,
    /// Edits of messages that had been deleted before. These lines must be erased, too.
    late_edits: Vec<u64>,
    warnings: Warnings,
    /// What belongs to a cluster; `None` for a server that is alone.
    replica: Option<Replica>,
}

impl Hub {
    /// A hub for an open file. It hands clients that fall behind over to `catch_up`, with a handle
    /// from `handle` to ask for more, and publishes in `summary` how far the channel has come. No line longer
    /// than `line_limit` bytes holds a message.
    pub fn new(
        journal: Journal,
        history: History,
        line_limit: usize,
        metrics: Arc<Metrics>,
        catch_up: CatchUp,
        handle: WeakHubHandle,
        summary: Arc<Summary>,
    ) -> Hub {
        let last_ts = journal.latest_time();
        let said_at = time_of_last(&journal, &history);
        let mut hub = Hub {
            shown_end: history.end(),
            noted: Some(history.end()),
            fanout: Fanout::new(history.last_id() + 1),
            journal,
            history,
            line_limit,
            recent: Recent::default(),
            new_stamps: NewStamps::default(),
            catch_up,
            handle,
            followers: Followers::default(),
            keys: Keys::default(),
            metrics,
            summary,
            published: Figures::default(),
            stopping: false,
            is_put_away: false,
            searched_end: 0,
            last_ts,
            said_at,
            deleted: Vec::new(),
            late_edits: Vec::new(),
            warnings: Warnings::default(),
            replica: None,
        };
        hub.compare_clock();
        hub.publish();
        hub
    }

    /// Serves commands until [`Command::Stop`] has come and the last client has left, or the last
    /// handle is dropped, or the channel is put away, or the file fails.
    ///
    /// # Errors
    /// When the file fails. All clients have been sent what any client was shown, and a close
    /// frame.
    ///
    /// # Panics
    /// On a bug, if the role is the default channel's. The clients of another channel are sent a close
    /// frame even then.
    pub fn run(mut self, commands: &Commands, role: Role) -> Result<(), Fatal> {
        let done = match role {
            Role::Default => self.run_batches(commands),
            Role::Channel => panic::catch_unwind(AssertUnwindSafe(|| self.run_batches(commands)))
                .unwrap_or(Err(Fatal::Panicked)),
        };
        if let Err(fatal) = &done {
            self.fail(fatal, role);
        }
        done
    }

    fn run_batches(&mut self, commands: &Commands) -> Result<(), Fatal> {
        let mut next_tick = Instant::now() + TICK;
        loop {
            let first = match self.wait(commands, next_tick) {
                Ok(first) => {
                    self.fanout.let_others_speak();
                    Some(first)
                }
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.sync_and_note(),
            };
            let begun = Instant::now();
            self.step(first.into_iter().chain(commands.try_iter()).map(|command| *command))?;
            if self.is_put_away {
                return Ok(());
            }
            if self.stopping && self.fanout.clients() == 0 {
                return self.sync_and_note();
            }
            // The tick comes also while commands of any kind keep the hub busy.
            let now = Instant::now();
            if now >= next_tick {
                self.tick()?;
                next_tick = now + TICK;
            }
            // Commands that arrive now let the round pause, and their messages join it. The round
            // gets at least as much time as the step took, however long the disk needs. A look at
            // the clock and the queue costs a hundredth of a send.
            let due = now + (now - begun);
            self.deliver(|| Instant::now() >= due && !commands.is_empty());
        }
    }

    /// The next command, or the time for a tick. A channel that has no clients and nothing to do
    /// waits without a clock, so that it costs nothing; the `watch` thread looks at its file
    /// ([`Command::Survey`]).
    fn wait(
        &mut self,
        commands: &Commands,
        next_tick: Instant,
    ) -> Result<Box<Command>, RecvTimeoutError> {
        let is_idle = self.fanout.clients() == 0
            && !self.journal.is_sync_due_later()
            && !self.journal.has_unerased()
            && !self.warnings.are_pending()
            && self.noted == Some(self.history.end());
        if is_idle {
            self.fanout.rest(self.history.last_id() + 1);
        }
        commands.wait((!is_idle).then_some(next_tick))
    }

    /// Takes `commands` as one batch, as far as they fit in one: first the posts, then the other
    /// commands. Afterwards the speakers have been sent their messages, and [`Hub::deliver`] sends
    /// them to the other clients.
    ///
    /// # Errors
    /// When the file fails. No client has been shown anything of the batch then.
    pub fn step(&mut self, commands: impl Iterator<Item = Command>) -> Result<(), Fatal> {
        let Batch { posts, others } = Batch::take(commands);
        if !posts.is_empty() {
            self.commit(posts)?;
        }
        for command in others {
            self.obey(command)?;
            if self.is_put_away {
                // The end of its reply queue tells a thread that asked anything else.
                break;
            }
        }
        self.hand_over_clients();
        self.publish();
        Ok(())
    }

    fn obey(&mut self, command: Command) -> Result<(), Fatal> {
        match command {
            Command::Join { outbox, resume, permit, reply } => {
                self.join(outbox, permit, &resume, reply);
            }
            Command::NextStep { client, next_id, reply } => {
                self.next_step(client, next_id, reply);
            }
            Command::Listen(client) => self.fanout.listen(client),
            Command::Typing(client) => self.fanout.typing(client),
            Command::Leave(client) => self.fanout.leave(client),
            Command::AfterPosts(reply) => {
                // A client that has stopped waiting is about to leave.
                let _ = reply.send(());
            }
            Command::CheckRights => self.check_rights(),
            Command::Survey => {
                self.look_after_lock()?;
                self.commit(Vec::new())?;
            }
            Command::States { of, reply } => self.states(of, reply),
            Command::Reactions { target, after, reply } => {
                self.next_reactions(target, after, reply);
            }
            Command::Since { ts, reply } => self.since(ts, reply),
            Command::History { next_id, last_id, reply } => {
                self.next_of_history(next_id, last_id, reply);
            }
            Command::Look { window, follow, reply } => self.look(&window, follow, reply),
            Command::Status(reply) => {
                // A caller that has stopped waiting needs no answer.
                let _ = reply.send(self.status());
            }
            Command::Post(post) => self.commit(vec![post])?,
            Command::Cluster(command) => self.cluster(command)?,
            Command::Stop => self.stop()?,
            Command::PutAway(reply) => self.put_away(reply)?,
        }
        Ok(())
    }

    /// Takes in foreign lines, and syncs the file when that is due. It must be called twice a
    /// second.
    ///
    /// # Errors
    /// When the file fails.
    pub fn tick(&mut self) -> Result<(), Fatal> {
        self.look_after_lock()?;
        self.commit(Vec::new())?;
        self.warnings.log_counts(self.journal.path());
        let synced = self.journal.sync_when_due()?;
        synced.into_iter().for_each(|time| self.metrics.synced(time));
        self.erase_what_is_left()?;
        self.history.operations_mut().forget_more();
        self.look_after_stamps()?;
        self.note_numbering();
        if self.fanout.is_due_for_dismissals() {
            self.check_rights();
        }
        self.fanout.end_dismissed(Instant::now());
        Ok(())
    }

    /// Sees to it that the lock file is in its place. That comes before foreign lines are taken in: those
    /// of another server that uses the file have stamps already.
    fn look_after_lock(&mut self) -> Result<(), Fatal> {
        if self.journal.survey_lock()? {
            self.note_numbering_anew();
        }
        Ok(())
    }

    /// Notes in the lock file how far the numbering has come. Without that note, the next start may
    /// begin a new epoch, so that clients are sent whole histories. No message depends on it.
    fn note_numbering(&mut self) {
        if self.noted == Some(self.history.end()) {
            return;
        }
        let result = self.journal.note_numbering(&self.history);
        self.warnings.noted(self.journal.path(), &result);
        if result.is_ok() {
            self.noted = Some(self.history.end());
        }
    }

    /// The same, though the file has not grown: bytes that the note depends on have changed.
    fn note_numbering_anew(&mut self) {
        self.noted = None;
        self.note_numbering();
    }

    /// Publishes how far this channel has come.
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

    /// Dismisses the clients that may not read the channel any more; followers find out for
    /// themselves.
    fn check_rights(&mut self) {
        self.fanout.dismiss_those_who_may_not_read(Instant::now());
        self.followers.wake();
    }

    /// Hands clients that fell behind over to the catch-up threads.
    fn hand_over_clients(&mut self) {
        for FellBehind { client, outbox, cut, next_id } in self.fanout.take_fell_behind() {
            // When all handles are gone, no thread reads from the client any more.
            let Some(hub) = self.handle.upgrade() else { return };
            // No line is erased between the cut and here, so this is the file of which it was cut.
            let file = self.history.file().clone();
            self.catch_up.take(Behind {
                client,
                outbox,
                hub,
                file,
                cut,
                history: None,
                each: None,
                next_id,
            });
        }
    }

    fn status(&self) -> Status {
        Status { is_writable: !self.journal.is_full() && self.has_order() }
    }

    /// Sends the speakers what they lack, before the round. Their next message then arrives while
    /// the round is still running, and joins it.
    fn serve_speakers(&mut self, posts: &[Post]) {
        let mut sent = 0;
        for post in posts {
            if let Speaker::Client(client) = post.by {
                sent += self.fanout.serve_out_of_turn(client);
            }
        }
        self.metrics.delivered(sent);
    }

    /// Serves the live clients in turn, until all have all messages or `should_pause` says so; see
    /// [`Fanout::go_round`].
    pub fn deliver(&mut self, should_pause: impl Fn() -> bool) {
        self.fanout.tell_presence(Instant::now);
        let sent = self.fanout.go_round(should_pause);
        self.metrics.delivered(sent);
        self.hand_over_clients();
    }

    /// Answers a post that repeats an earlier one with the ids of that one. Returns any other.
    fn unless_repeat(&self, post: Post) -> Option<Post> {
        let stored = match &post.by {
            Speaker::Request { key: Some(key), .. } => self.keys.get(key),
            _ => None,
        };
        let Some(stored) = stored else { return Some(post) };
        if let Speaker::Request { reply, .. } = post.by {
            // A caller that has stopped waiting needs no answer.
            let _ = reply.send(Ok(stored));
        }
        None
    }

    /// Syncs the lines that were applied, as far as `--fsync` asks for it. From here on their
    /// messages may be sent.
    fn show(&mut self) -> Result<(), Fatal> {
        if self.history.end() == self.shown_end {
            return Ok(());
        }
        self.erase_deleted()?;
        let synced = self.journal.sync_per_policy()?;
        synced.into_iter().for_each(|time| self.metrics.synced(time));
        self.shown_end = self.history.end();
        let messages = self.fanout.publish();
        self.publish();
        if messages > 0 {
            self.metrics.stored(messages);
            self.followers.wake();
        }
        Ok(())
    }

    fn refuse(&mut self, posts: Vec<Post>, why: ErrorAnswer) {
        for post in posts {
            let count = post.count();
            self.refuse_one(post.by, count, why);
        }
    }

    /// Refuses a post of `count` lines.
    fn refuse_one(&mut self, by: Speaker, count: usize, why: ErrorAnswer) {
        self.metrics.refused(count as u64);
        match by {
            Speaker::Client(client) => {
                self.answer_each(client, count, &why.frame(why.sentence()));
            }
            Speaker::Request { reply, .. } => {
                // A caller that has stopped waiting needs no answer.
                let _ = reply.send(Err(why));
            }
        }
    }

    /// Sends a client the same answer to each of `count` lines. A post may have tens of thousands of lines,
    /// and while they are answered nobody else is served, so many answers go with one send.
    fn answer_each(&mut self, client: ClientId, count: usize, answer: &[u8]) {
        let at_once = (ANSWERS_AT_ONCE / answer.len()).max(1);
        let answers = answer.repeat(count.min(at_once));
        let mut left = count;
        while left > 0 {
            let next = left.min(at_once);
            self.fanout.control(client, &answers[..next * answer.len()]);
            left -= next;
        }
    }
}

#[cfg(test)]
mod tests;
