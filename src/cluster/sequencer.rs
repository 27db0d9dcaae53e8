//! The sequencer: one thread that has the engine give numbers to what is posted here in a channel.
//!
//! It takes what waits as one batch and sends it. What is posted meanwhile waits until the batch has
//! come back, and is the next one: so a batch costs the engine and this node one sync each, however
//! many post. The sequencer keeps a batch until the reader has seen it come back, since the engine may
//! lose what it has answered; to an engine that was started anew it sends all of these again, in order
//! and under their numbers, and the engine drops those that it has.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, select};
use log::{debug, info, warn};

use super::{
    Settings,
    back_off::BackOff,
    chain::Chain,
    complaint::Complaint,
    engine::{Append, Appended, Engine, EngineError, IfNone},
    link::{Link, Side},
    under_way::Sent,
};
use crate::{
    command::{HubGone, HubHandle, Post, Speakers, Stored},
    piece::senders_text,
    wire::ErrorAnswer,
};

mod waiting;

use waiting::Waiting;

/// This many bytes are sent without waiting until the batch before has come back: they are worth a sync of
/// their own. Nagle's algorithm (RFC 896) sends full segments so.
const LARGE: usize = 32 << 10;

/// How many batches may wait to come back: posts with a key are a batch each, and do not wait for one
/// another.
const BATCHES: usize = 64;

/// While many post, a batch waits a little for as many posts as the one before had, since that saves a
/// sync: for the time that the engine took for that one, divided by this. The idea is PostgreSQL's
/// `commit_delay`. In interleaved runs, 8 clients, each with 16 messages in flight, got 0.52 times what
/// one server alone gives with 2, 0.46 times with 4, and 0.35 times without waiting.
const GATHER_DIVISOR: u32 = 2;

/// The longest that a batch waits so.
const GATHER_MOST: Duration = Duration::from_millis(1);

/// How often the thread looks at batches that wait.
const LOOK: Duration = Duration::from_millis(100);

/// A channel in which nothing is posted for so long has no connection to the engine.
const IDLE: Duration = Duration::from_secs(10);

/// How long an engine that has lost lines is left to those who give them back.
const SHORT_TIME: Duration = Duration::from_millis(20);

pub(super) struct Sequencer {
    settings: Arc<Settings>,
    link: Arc<Link>,
    hub: HubHandle,
    waiting: Waiting,
    engine: Option<Engine>,
    /// The batches that have not come back, in order.
    batches: VecDeque<Batch>,
    last_batch: u64,
    /// How many posts the last batch had, and when it came back if nothing else is under way.
    last_posts: usize,
    came_back: Option<Instant>,
    /// How long the engine took for the last batch.
    append_time: Duration,
    /// The hash after the last line that was posted here. The next one follows it unless other nodes post.
    chain: Chain,
    /// How often the copy had joined when the batches were sent.
    joins: u64,
    back_off: BackOff,
    complaint: Complaint,
}

struct Batch {
    number: u64,
    /// Whom to answer; `None` once it was sent, since the engine may have it then.
    speakers: Option<Speakers>,
    posts: usize,
    lines: Arc<Vec<u8>>,
    count: u64,
    senders: String,
    key: Option<String>,
    /// Whether it was sent since the copy joined.
    is_sent: bool,
}

impl Sequencer {
    pub(super) fn new(
        settings: Arc<Settings>,
        link: Arc<Link>,
        hub: HubHandle,
        posts: Receiver<Post>,
    ) -> Sequencer {
        Sequencer {
            settings,
            link,
            hub,
            waiting: Waiting::new(posts),
            engine: None,
            batches: VecDeque::new(),
            last_batch: 0,
            last_posts: 0,
            came_back: None,
            append_time: Duration::ZERO,
            chain: Chain::default(),
            joins: 0,
            back_off: BackOff::new(),
            complaint: Complaint::default(),
        }
    }

    /// Runs until the channel ends here.
    pub(super) fn run(mut self) {
        while !self.link.is_stopping() && self.step().is_ok() {}
        let posts = self.waiting.queue().clone();
        drop(self);
        // What still waits gets no answer, and is told so by the end of its reply queue; left in a queue
        // that nobody reads, it would wait for half a minute.
        posts.iter().for_each(drop);
    }

    /// Does what is due: sends a batch, waits until one has come back, or makes a new one.
    fn step(&mut self) -> Result<(), HubGone> {
        self.drop_returned();
        self.send_again_if_joined();
        let under_way: usize = self.batches.iter().map(|batch| batch.posts).sum();
        self.link.set_pending((under_way + self.waiting.count()) as u64);
        if let Some(at) = self.batches.iter().position(|batch| !batch.is_sent) {
            if let Some(epoch) = self.link.epoch() {
                return self.send(at, &epoch);
            }
            // The copy has not joined yet; what waits longer than that is told.
            self.refuse_what_waits();
        }
        if !self.batches.is_empty() {
            self.waiting.take();
        }
        if self.must_wait() && self.link.refusal().is_none() {
            // Whatever comes, it is looked at again.
            let _ = self.link.nudges().recv_timeout(LOOK);
            return Ok(());
        }
        if self.complaint.was_made() {
            // Nothing is to be sent that would show whether the engine is available again.
            match self.connect() {
                Ok(()) => self.regain_engine(),
                Err(error) => self.lose_engine(&error),
            }
            return Ok(());
        }
        if self.waiting.has_taken_none() && !self.await_post()? {
            return Ok(());
        }
        self.gather();
        self.begin_batch()
    }

    /// Lets go the batches that came back.
    fn drop_returned(&mut self) {
        let returned = self.link.returned();
        while self.batches.front().is_some_and(|batch| batch.number <= returned) {
            self.batches.pop_front();
            self.came_back = self.batches.is_empty().then(Instant::now);
        }
    }

    /// Has all batches sent again when the copy has joined anew: what has not come back may be lost.
    fn send_again_if_joined(&mut self) {
        let joins = self.link.joins();
        if joins != self.joins {
            self.joins = joins;
            self.send_all_again();
        }
    }

    /// Whether what was sent must come back before more is sent.
    fn must_wait(&self) -> bool {
        let Some(last) = self.batches.back() else { return false };
        // A post with a key can share its batch with none, so what comes after it would gain nothing.
        let is_alone = last.key.is_some();
        self.batches.len() >= BATCHES || !is_alone && self.waiting.bytes() < LARGE
    }

    /// Waits for a post; false when something else is to be looked at. A sequencer that waits for long with
    /// nothing under way lets its connection go.
    fn await_post(&mut self) -> Result<bool, HubGone> {
        let is_idle = self.batches.is_empty();
        select! {
            recv(self.waiting.queue()) -> post => {
                self.waiting.add(post.map_err(|_| HubGone)?);
                Ok(true)
            }
            recv(self.link.nudges()) -> _ => Ok(false),
            default(if is_idle { IDLE } else { LOOK }) => {
                if is_idle {
                    self.engine = None;
                }
                Ok(false)
            }
        }
    }

    /// Takes what waits; and waits a little for as many posts as the batch had that came back just now.
    fn gather(&mut self) {
        self.waiting.take();
        if let Some(came_back) = self.came_back.take() {
            let deadline = came_back + (self.append_time / GATHER_DIVISOR).min(GATHER_MOST);
            self.waiting.wait_for(self.last_posts, LARGE, deadline);
        }
    }

    /// Makes a batch of what waits, to be sent in the next step.
    fn begin_batch(&mut self) -> Result<(), HubGone> {
        let posts = self.waiting.next_batch();
        self.last_posts = posts.len();
        let is_plain = |post: &Post| post.operations.is_none() && post.key().is_none();
        // The hub may be busy, so it is asked about nothing that it would accept anyway.
        let posts = if posts.iter().all(is_plain) { posts } else { self.hub.decide(posts)? };
        // Only now: a post that is repeated gets its answer even if nothing more is taken.
        if let Some(why) = self.link.refusal() {
            return self.refuse(posts, why);
        }
        if posts.is_empty() {
            return Ok(());
        }
        self.last_batch += 1;
        self.batches.push_back(Batch::of(self.last_batch, posts));
        Ok(())
    }

    /// Sends the batch at this place of all that have not come back, and does what the answer asks for.
    fn send(&mut self, at: usize, epoch: &str) -> Result<(), HubGone> {
        let begun = Instant::now();
        match self.try_send(at, epoch) {
            Ok(Appended::Ordered(chain)) => {
                self.append_time = begun.elapsed();
                self.link.count_append(self.append_time);
                self.batches[at].is_sent = true;
                self.chain = chain;
                self.regain_engine();
            }
            Ok(Appended::Resent) => {
                self.batches[at].is_sent = true;
                self.regain_engine();
            }
            Ok(Appended::Repeat(first_id, last_id)) => {
                self.regain_engine();
                let batch = self.batches.remove(at).expect("it was there a moment ago");
                let sent = self.link.under_way().take(batch.number);
                let speakers = sent.map(|sent| sent.speakers).unwrap_or_default();
                return self.hub.answer_repeat(speakers, Stored { first_id, last_id });
            }
            Ok(Appended::Short) => thread::sleep(SHORT_TIME),
            Ok(Appended::Settling(time)) => {
                self.regain_engine();
                if time > self.settings.settle {
                    // The engine's clock was set back, which it notices when a node arrives.
                    self.engine = None;
                }
                thread::sleep(time.min(LOOK));
            }
            Ok(Appended::Changed) => {
                self.engine = None;
                self.send_all_again();
                thread::sleep(SHORT_TIME);
            }
            Err(error) => self.lose_engine(&error),
        }
        Ok(())
    }

    fn try_send(&mut self, at: usize, epoch: &str) -> Result<Appended, EngineError> {
        self.connect()?;
        let engine = self.engine.as_mut().expect("it was connected a moment ago");
        let batch = &mut self.batches[at];
        let after = self.chain.after(&batch.lines);
        if let Some(speakers) = batch.speakers.take() {
            self.link.under_way().put(Sent {
                number: batch.number,
                lines: batch.lines.clone(),
                before: self.chain.clone(),
                after: after.clone(),
                speakers,
            });
        }
        let append = Append {
            epoch,
            node: self.link.node_name(),
            batch: batch.number,
            key: batch.key.as_deref(),
            senders: &batch.senders,
            lines: &batch.lines,
            count: batch.count,
            before: &self.chain,
            after: &after,
            last: self.link.last(),
            first_to_keep: self.link.first_to_keep(),
        };
        engine.append(&self.settings.keys, &append)
    }

    /// Connects to the engine if there is no connection that can be trusted.
    fn connect(&mut self) -> Result<(), EngineError> {
        if !self.link.is_available(Side::Reader) {
            // This connection may be broken, too: what is sent over it may be lost or not.
            self.engine = None;
        }
        if self.engine.is_none() {
            let mut engine = self.settings.connect()?;
            let (keys, epoch) = (&self.settings.keys, self.link.epoch());
            let epoch = epoch.as_deref().unwrap_or_default();
            engine.arrive(keys, self.settings.settle, epoch, IfNone::Waits)?;
            // What is in the way of the next entry the reader need not have seen.
            self.settings.cleanse(&mut engine)?;
            self.engine = Some(engine);
        }
        Ok(())
    }

    /// Notes that the engine has answered.
    fn regain_engine(&mut self) {
        self.link.set_available(Side::Sequencer);
        self.back_off.reset();
        if self.complaint.ends() {
            info!("{}: the engine takes posts again", self.settings.file.display());
        }
    }

    fn send_all_again(&mut self) {
        self.batches.iter_mut().for_each(|batch| batch.is_sent = false);
    }

    /// Lets go a connection that failed, and waits before the next attempt.
    fn lose_engine(&mut self, error: &EngineError) {
        self.engine = None;
        self.link.lose_connection(Side::Sequencer);
        self.send_all_again();
        let path = self.settings.file.display();
        // The reader says that the channel was put away, and the hub ends soon.
        if !matches!(error, EngineError::PutAway) && self.complaint.is_news(error) {
            warn!("{path}: the engine takes no posts: {error}; trying again");
        } else {
            debug!("{path}: the engine takes no posts: {error}");
        }
        self.back_off.wait();
        self.refuse_what_waits();
    }

    /// Tells those who posted while the engine is given up. What was sent stays pending.
    fn refuse_what_waits(&mut self) {
        if !self.link.is_given_up() {
            return;
        }
        while self.batches.back().is_some_and(|batch| batch.speakers.is_some()) {
            let batch = self.batches.pop_back().expect("there is one");
            // A hub that is gone has no clients to tell.
            let _ = self.hub.refuse(batch.speakers.unwrap_or_default(), ErrorAnswer::Unavailable);
        }
        let posts = self.waiting.take_all();
        // The same.
        let _ = self.refuse(posts, ErrorAnswer::Unavailable);
    }

    fn refuse(&self, posts: Vec<Post>, why: ErrorAnswer) -> Result<(), HubGone> {
        match posts.is_empty() {
            true => Ok(()),
            false => self.hub.refuse(speakers_of(posts), why),
        }
    }
}

impl Batch {
    fn of(number: u64, posts: Vec<Post>) -> Batch {
        let key = posts.first().and_then(Post::key).cloned();
        let runs = posts.iter().map(|post| (post.count() as u64, post.sender.as_deref()));
        let senders = senders_text(runs);
        let mut lines = Vec::with_capacity(posts.iter().map(|post| post.lines.len()).sum());
        posts.iter().for_each(|post| lines.extend_from_slice(&post.lines));
        let speakers = speakers_of(posts);
        Batch {
            number,
            posts: speakers.len(),
            count: speakers.iter().map(|(_, count)| count).sum(),
            speakers: Some(speakers),
            lines: Arc::new(lines),
            senders,
            key,
            is_sent: false,
        }
    }
}

fn speakers_of(posts: Vec<Post>) -> Speakers {
    let of = |post: Post| {
        let count = post.count() as u64;
        (post.by, count)
    };
    posts.into_iter().map(of).collect()
}
