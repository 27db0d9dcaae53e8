//! The hub: one thread that alone owns the history, the text file and the list of clients.
//!
//! Everybody else asks it through a queue of commands. It takes all that wait as one batch: one
//! write, one sync, one buffer of frames for everybody (group commit). Always in this order, so
//! what anyone has been shown is in the file: write, sync, move the committed end, send.
//! Then it serves the clients in turn (`fanout.rs`), and takes the next batch in between.
//! It waits for nobody but the disk.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    os::unix::fs::FileExt,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use log::{error, warn};
use tungstenite::protocol::frame::coding::CloseCode;

use crate::{
    catch_up::{Behind, CatchUp},
    command::{ClientId, Command, Joined, Next, Post, Speaker, Stored, View, WeakHubHandle},
    fanout::{Fallen, Fanout, Standing},
    history::{BLOCK, BOM, History, Resume, Times, Window},
    journal::{AppendError, Fatal, Journal},
    lines::{Line, Lines},
    message,
    metrics::{Metrics, Status},
    outbox::Outbox,
    tally::Tally,
    wire::ErrorAnswer,
};

/// Bytes of lines in one batch: what one write and one sync are for. More would delay the first of
/// them, and what is written again at a start must cover a batch (`journal::REWRITE`).
const BATCH_BYTES: usize = 1 << 20;

/// Commands in one batch.
const BATCH_COMMANDS: usize = 4096;

/// How often the hub looks at the file without being asked: what others append is taken in within a second.
const TICK: Duration = Duration::from_millis(500);

/// What everybody is told when the server stops.
const STOPPING: (CloseCode, &str) = (CloseCode::Restart, "the server is stopping; come back");

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
    followers: Vec<Sender<()>>,
    /// With more than these, a look at who is gone is due even when nobody says anything.
    followers_at_most: usize,
    keys: Keys,
    metrics: Arc<Metrics>,
    stopping: bool,
    /// The end of what is stored as the policy asks, and so of what anyone may be told of.
    shown: u64,
    last_ts: u64,
    holes: Tally,
    /// Whether it has been said that nothing can be noted beside the file.
    has_warned: bool,
}

impl Hub {
    /// A hub for an open file, which hands the clients that fall behind to `catch_up`, with `handle` to
    /// ask for more.
    pub fn new(
        journal: Journal,
        history: History,
        line_limit: usize,
        metrics: Arc<Metrics>,
        catch_up: CatchUp,
        handle: WeakHubHandle,
    ) -> Hub {
        Hub {
            shown: history.end(),
            fanout: Fanout::new(history.last_id() + 1),
            journal,
            history,
            line_limit,
            times: Times::default(),
            catch_up,
            handle,
            followers: Vec::new(),
            followers_at_most: FOLLOWERS,
            keys: Keys::default(),
            metrics,
            stopping: false,
            last_ts: 0,
            holes: Tally::default(),
            has_warned: false,
        }
    }

    /// Serves commands until it was told to stop and the last client has left, or every handle is
    /// gone, or the file fails; then everybody has been told.
    ///
    /// # Errors
    /// When the file fails.
    pub fn run(mut self, commands: &Receiver<Command>) -> Result<(), Fatal> {
        let done = self.serve(commands);
        if let Err(fatal) = &done {
            error!("{}: {fatal}", self.journal.path().display());
            // What one was shown, all are shown.
            self.fanout.retract();
            self.deliver(|| false);
            self.fanout.close_all(CloseCode::Error, "the server cannot store messages any more");
            self.hand_over_fallen();
        }
        done
    }

    fn serve(&mut self, commands: &Receiver<Command>) -> Result<(), Fatal> {
        let mut next_tick = Instant::now() + TICK;
        loop {
            let first = match commands.recv_deadline(next_tick) {
                Ok(first) => {
                    // Whoever is about to ask gets to do it before the batch is taken: 1.1 times
                    // the messages to 10 clients, the same to more, and no later for one alone.
                    thread::yield_now();
                    Some(first)
                }
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            };
            let begun = Instant::now();
            self.step(first.into_iter().chain(commands.try_iter()))?;
            if self.stopping && self.fanout.clients() == 0 {
                return self.end();
            }
            // Also while others keep it busy: with questions, or joins, or with posts alone.
            let now = Instant::now();
            if now >= next_tick {
                self.tick()?;
                next_tick = now + TICK;
            }
            // What waits meanwhile joins the round, but those who listen get no less of the hub's time
            // than those who ask, however long the disk takes. The look at the clock and the queue
            // costs a hundredth of a send.
            let due = now + (now - begun);
            self.deliver(|| Instant::now() >= due && !commands.is_empty());
        }
    }

    /// Takes what waits as one batch: first what is said, then everything else. Afterwards who spoke
    /// has heard it; everybody else does with [`Hub::deliver`].
    ///
    /// A client's own commands keep their order where it matters: it joins before it posts, and
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
                Command::Look { window, follow, reply } => self.look(&window, follow, &reply),
                Command::Status(reply) => {
                    // Who does not wait any more does not need to know.
                    let _ = reply.send(self.status());
                }
                Command::Post(post) => self.commit(vec![post])?,
                Command::Stop => self.stop()?,
            }
        }
        self.hand_over_fallen();
        Ok(())
    }

    /// What is done from time to time: takes in what others appended, and keeps promises about time.
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

    /// Notes how far the numbering has come. Without it, the next start may take the numbering for
    /// another and send whole histories; nothing that was said depends on it.
    fn remember(&mut self) {
        match self.journal.remember(&self.history) {
            Err(error) if !self.has_warned => {
                warn!("how far the file has come could not be noted beside it: {error}");
                self.has_warned = true;
            }
            result => self.has_warned &= result.is_err(),
        }
    }

    fn join(&mut self, outbox: Arc<Outbox>, resume: &Resume, reply: &Sender<Joined>) {
        let client = self.fanout.join(outbox, self.history.last_id() + 1);
        if self.stopping {
            self.fanout.close(client, STOPPING.0, STOPPING.1);
        }
        self.metrics.joined();
        let snapshot = self.history.snapshot(resume, self.journal.epoch());
        // A client that does not wait for the answer any more is about to leave.
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
        // A client that does not wait for the answer any more is about to leave.
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
        if !self.stopping {
            self.followers.extend(follow);
            if self.followers.len() > self.followers_at_most {
                self.wake_followers();
                self.followers_at_most = FOLLOWERS.max(self.followers.len() * 2);
            }
        }
        let range = self.history.window(window);
        let view = View {
            times: self.times.within(&range),
            range,
            epoch: self.journal.epoch().clone(),
            last_id: self.history.last_id(),
            end: self.history.end(),
        };
        // Who does not wait for the answer any more does not need it.
        let _ = reply.send(view);
    }

    fn status(&self) -> Status {
        Status {
            clients: self.fanout.clients(),
            clients_behind: self.fanout.behind(),
            file_bytes: self.history.end(),
            last_id: self.history.last_id(),
            messages: self.history.messages(),
            is_writable: !self.journal.is_full(),
            is_stopping: self.stopping,
        }
    }

    fn stop(&mut self) -> Result<(), Fatal> {
        self.stopping = true;
        self.followers.clear();
        self.end()?;
        self.deliver(|| false);
        self.fanout.close_all(STOPPING.0, STOPPING.1);
        self.hand_over_fallen();
        Ok(())
    }

    /// Nothing is on its way to the disk afterwards.
    fn end(&mut self) -> Result<(), Fatal> {
        self.journal.sync()?;
        self.remember();
        Ok(())
    }

    /// Stores what is said, together with what others appended to the file meanwhile, and shows it.
    fn commit(&mut self, mut posts: Vec<Post>) -> Result<(), Fatal> {
        if self.stopping && !posts.is_empty() {
            self.refuse(posts, ErrorAnswer::ShuttingDown);
            return Ok(());
        }
        posts.retain(|post| !self.is_known(post));
        let size = self.journal.survey(self.history.end())?;
        self.read_in(size)?;
        let stored = match posts.is_empty() {
            true => Some(Vec::new()),
            false => self.write(&posts, size)?,
        };
        self.show()?;
        self.serve_speakers(&posts);
        match stored {
            Some(ids) => self.acknowledge(posts, &ids),
            None => self.refuse(posts, ErrorAnswer::StorageFull),
        }
        Ok(())
    }

    /// Who speaks hears it first: who speaks again then does so while the others are served, and
    /// that goes along with what they are sent.
    fn serve_speakers(&mut self, posts: &[Post]) {
        let mut sent = 0;
        for post in posts {
            if let Speaker::Client(client) = post.by {
                sent += self.fanout.serve(client);
            }
        }
        self.metrics.delivered(sent);
    }

    /// Serves everybody else in turn, until all have everything or it is enough for now; see
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
        // Who does not wait any more has what it wanted all the same.
        let _ = reply.send(Ok(stored));
        true
    }

    /// Appends what is said; returns the ids, or none when there is no room for it.
    fn write(&mut self, posts: &[Post], size: u64) -> Result<Option<Vec<u64>>, Fatal> {
        let mut lines =
            Vec::with_capacity(posts.iter().map(|post| post.lines.len()).sum::<usize>() + 1);
        if self.history.end() < size {
            // Somebody's line without an end: it gets one, so that ours is not glued to it.
            lines.push(b'\n');
        }
        for post in posts {
            lines.extend_from_slice(&post.lines);
        }
        let mut ids = Vec::new();
        let mut lines = &lines[..];
        while !lines.is_empty() {
            let start = match self.journal.append(lines, self.history.end()) {
                Ok(start) => start,
                Err(AppendError::DiskFull) => return Ok(None),
                Err(AppendError::Fatal(fatal)) => return Err(fatal),
            };
            // What is written again comes first in the order of the posts.
            let placed = ids.len();
            lines = self.place(lines, start, &mut ids)?;
            ids.rotate_left(placed);
        }
        Ok(Some(ids))
    }

    /// Tells those who wait for them the ids of what they posted.
    fn acknowledge(&mut self, posts: Vec<Post>, ids: &[u64]) {
        if posts.iter().all(|post| matches!(post.by, Speaker::Client(_))) {
            return;
        }
        let mut ids = ids.iter();
        for post in posts {
            let Speaker::Request { key, reply } = post.by else {
                ids.nth(count_lines(&post.lines) - 1);
                continue;
            };
            let mut mine = ids.by_ref().take(count_lines(&post.lines)).copied();
            let Some(first_id) = mine.next() else { continue };
            let stored = Stored { first_id, last_id: mine.last().unwrap_or(first_id) };
            if let Some(key) = key {
                self.keys.insert(key, stored);
            }
            // Who does not wait any more finds it in the history.
            let _ = reply.send(Ok(stored));
        }
    }

    /// Takes in lines of ours that were appended at `start`, after what others slipped in before.
    ///
    /// Returns what has to be written again: the first line, should it be glued to another's line
    /// that had no end yet.
    fn place<'a>(
        &mut self,
        lines: &'a [u8],
        start: u64,
        ids: &mut Vec<u64>,
    ) -> Result<&'a [u8], Fatal> {
        self.read_in(start)?;
        let mut ours = lines;
        let mut again = &lines[..0];
        if self.history.end() < start && !self.is_blank_up_to(start)? {
            let len = memchr::memchr(b'\n', lines).map_or(lines.len(), |at| at + 1);
            self.read_in(start + len as u64)?;
            (again, ours) = lines.split_at(len);
            if again == b"\n" {
                again = &lines[..0];
            }
        }
        self.begin_batch();
        let ts = self.now();
        // White space that slipped in before is the beginning of the first line.
        let mut blank = start.saturating_sub(self.history.end());
        for line in ours.split_inclusive(|&byte| byte == b'\n') {
            let len = std::mem::take(&mut blank) + line.len() as u64;
            match line {
                b"\n" => {
                    self.history.push_hole(len);
                }
                _ => {
                    let id = self.history.push_line(len);
                    self.times.push(id, ts);
                    let offset = self.history.end() - line.len() as u64;
                    self.fanout.push(&line[..line.len() - 1], offset, id, ts);
                    ids.push(id);
                }
            }
        }
        Ok(again)
    }

    /// Whether what others left between the last whole line and `until` is white space, so that a
    /// message behind it is still the message.
    fn is_blank_up_to(&mut self, until: u64) -> Result<bool, Fatal> {
        /// More than anybody leaves there by accident.
        const BLANK: u64 = 64;
        if until - self.history.end() > BLANK {
            return Ok(false);
        }
        let mut slipped = vec![0; (until - self.history.end()) as usize];
        let file = self.journal.file();
        file.read_exact_at(&mut slipped, self.history.end()).map_err(Fatal::Storage)?;
        if self.history.end() == 0 && slipped.starts_with(BOM) {
            self.history.skip_bom();
            slipped.drain(..BOM.len());
        }
        Ok(message::trim(&slipped).is_empty())
    }

    /// Takes in whole lines that others appended, from the committed end up to `until`.
    fn read_in(&mut self, until: u64) -> Result<(), Fatal> {
        let from = self.history.end();
        if from >= until {
            return Ok(());
        }
        self.begin_batch();
        let ts = self.now();
        let mut lines = Lines::new(self.journal.file(), from, until, BLOCK, self.line_limit);
        while let Some(line) = lines.next().map_err(Fatal::Storage)? {
            let len = match line {
                Line::Unfinished(_) => break,
                Line::TooLong(len) => len,
                Line::Whole(mut text) => {
                    if self.history.end() == 0 && text.starts_with(BOM) {
                        self.history.skip_bom();
                        text = &text[BOM.len()..];
                    }
                    let len = text.len() as u64 + 1;
                    if let Some(message) = message::on_line(text) {
                        let offset = self.history.end() + message::leading_space(text) as u64;
                        let id = self.history.push_line(len);
                        self.times.push(id, ts);
                        self.fanout.push(message, offset, id, ts);
                        if self.fanout.bytes() >= BATCH_BYTES {
                            self.show()?;
                            self.deliver(|| false);
                            self.begin_batch();
                        }
                        continue;
                    }
                    len
                }
            };
            let id = self.history.push_hole(len);
            if self.holes.add() {
                warn!("line {id}, appended by somebody else, holds no message; skipped");
            }
        }
        Ok(())
    }

    /// The next line is taken in: the first of a batch, if everything before has been shown.
    fn begin_batch(&mut self) {
        if self.history.end() == self.shown {
            self.fanout.begin(self.history.last_id() + 1);
        }
    }

    /// Syncs what was taken in, as far as the policy asks for it, and sends it to everybody live.
    fn show(&mut self) -> Result<(), Fatal> {
        if self.history.end() == self.shown {
            return Ok(());
        }
        let synced = self.journal.sync_per_policy()?;
        synced.into_iter().for_each(|time| self.metrics.synced(time));
        self.shown = self.history.end();
        let messages = self.fanout.publish();
        if messages > 0 {
            self.metrics.stored(messages);
            self.wake_followers();
        }
        Ok(())
    }

    /// Tells those who follow to look, and forgets those who are gone.
    fn wake_followers(&mut self) {
        // One that has been told and has not looked yet need not be told twice.
        let is_there = |result| !matches!(result, Err(TrySendError::Disconnected(())));
        self.followers.retain(|follower| is_there(follower.try_send(())));
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
                    // Who does not wait any more does not need to know.
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

/// Followers that may be gone without anybody looking.
const FOLLOWERS: usize = 64;

/// How many posts with a key are remembered.
const KEYS: usize = 4096;

/// The ids of the latest posts that had a key, for as long as the server runs.
#[derive(Debug, Default)]
struct Keys {
    stored: HashMap<String, Stored>,
    order: VecDeque<String>,
}

impl Keys {
    fn get(&self, key: &str) -> Option<Stored> {
        self.stored.get(key).copied()
    }

    fn insert(&mut self, key: String, stored: Stored) {
        if self.order.len() == KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.stored.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.stored.insert(key, stored);
    }
}

#[cfg(test)]
mod tests;
