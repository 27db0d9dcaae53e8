//! The sequencer: one thread that has the engine give numbers to what is posted on this node.
//!
//! It takes what waits as one batch, tells the hub whom to answer, and sends the batch. It keeps the
//! batch until the reader has seen it come back, since the engine may lose what it has answered; to
//! an engine that was started anew it sends all of these again, in order and under their numbers,
//! and the engine drops those that it has.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, select};
use log::{debug, warn};

use super::{
    Settings,
    chain::Chain,
    engine::{Appended, Batch, Engine, EngineError, IfNone},
    link::{Link, Side},
};
use crate::command::{Expected, HubGone, HubHandle, Post, Stored};

/// A batch takes no more posts when it has this many bytes.
const BATCH_BYTES: usize = 256 << 10;

/// How many batches may wait to come back. Then posts wait in the queue, and those who post with
/// them.
const BATCHES: usize = 64;

/// How often the thread looks at batches that wait.
const LOOK: Duration = Duration::from_millis(100);

/// A channel in which nothing is posted for so long has no connection to the engine.
const IDLE: Duration = Duration::from_secs(10);

/// The shortest and the longest time between two attempts to reach the engine.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// How long an engine that has lost lines is left to those who give them back.
const SHORT_TIME: Duration = Duration::from_millis(20);

pub(super) struct Sequencer {
    settings: Arc<Settings>,
    link: Arc<Link>,
    hub: HubHandle,
    posts: Receiver<Post>,
    /// A post that came while a batch was full or that is a batch by itself.
    next_post: Option<Post>,
    engine: Option<Engine>,
    /// The batches that have not come back, in order.
    batches: VecDeque<Waiting>,
    last_batch: u64,
    /// The hash after the last line of this node; the next one follows it unless other nodes post.
    after: Chain,
    /// How often the node had joined when the batches were sent.
    joins: u64,
    back_off: Duration,
    has_warned: bool,
}

struct Waiting {
    number: u64,
    expected: Expected,
    /// Whether it was sent since the node joined.
    is_sent: bool,
    /// Whether it was sent at all, so that the engine may have it.
    was_tried: bool,
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
            posts,
            next_post: None,
            engine: None,
            batches: VecDeque::new(),
            last_batch: 0,
            after: Chain::default(),
            joins: 0,
            back_off: BACK_OFF.0,
            has_warned: false,
        }
    }

    /// Runs until the node stops or its hub is gone.
    pub(super) fn run(mut self) {
        while !self.link.is_stopping() && self.look_after_batches().is_ok() {}
        let posts = self.posts.clone();
        drop(self);
        // What still waits gets no answer, and is told so by the end of its reply queue; left in a queue
        // that nobody reads, it would wait for half a minute.
        posts.iter().for_each(drop);
    }

    fn look_after_batches(&mut self) -> Result<(), HubGone> {
        let seen = self.link.seen();
        while self.batches.front().is_some_and(|batch| batch.number <= seen) {
            self.batches.pop_front();
        }
        let joins = self.link.joins();
        if joins != self.joins {
            // What has not come back may be lost.
            self.joins = joins;
            self.send_all_again();
        }
        self.link.set_pending(self.batches.iter().map(|batch| batch.expected.posts).sum());
        if let Some(at) = self.batches.iter().position(|batch| !batch.is_sent) {
            if let Some(epoch) = self.link.epoch() {
                return self.send(at, &epoch);
            }
            // The node has not joined yet; what waits longer than that is told.
            self.refuse_what_waits();
        }
        if self.batches.len() >= BATCHES && !self.link.is_given_up() {
            // Whatever comes, it is looked at again.
            let _ = self.link.nudges().recv_timeout(LOOK);
            return Ok(());
        }
        if self.has_warned {
            // Nothing is to be sent that would show whether the engine is there again.
            match self.connect() {
                Ok(()) => self.is_well(),
                Err(error) => self.lose_engine(&error),
            }
            return Ok(());
        }
        let post = match self.next_post.take() {
            Some(post) => post,
            None => select! {
                recv(self.posts) -> post => match post {
                    Ok(post) => post,
                    Err(_) => return Err(HubGone),
                },
                recv(self.link.nudges()) -> _ => return Ok(()),
                default(if self.batches.is_empty() { IDLE } else { LOOK }) => {
                    if self.batches.is_empty() {
                        self.engine = None;
                    }
                    return Ok(());
                }
            },
        };
        self.take(post)
    }

    /// Makes a batch of a post and of what waits behind it. A post with a key is a batch by itself, so
    /// that the engine can know it again.
    fn take(&mut self, first: Post) -> Result<(), HubGone> {
        let is_alone = first.key().is_some();
        let mut bytes = first.lines.len();
        let mut posts = vec![first];
        while !is_alone && bytes < BATCH_BYTES {
            let Ok(post) = self.posts.try_recv() else { break };
            if post.key().is_some() {
                self.next_post = Some(post);
                break;
            }
            bytes += post.lines.len();
            posts.push(post);
        }
        if self.link.is_given_up() {
            return self.hub.refuse_unavailable(posts);
        }
        let number = self.last_batch + 1;
        let expected = self.hub.expect(number, posts)?;
        // The hub may have refused all of it.
        if !expected.lines.is_empty() {
            self.last_batch = number;
            self.batches.push_back(Waiting { number, expected, is_sent: false, was_tried: false });
        }
        Ok(())
    }

    fn send(&mut self, at: usize, epoch: &str) -> Result<(), HubGone> {
        let begun = Instant::now();
        match self.try_send(at, epoch) {
            Ok(Appended::Ordered(after)) => {
                self.link.appended(begun.elapsed());
                self.batches[at].is_sent = true;
                self.after = after;
                self.is_well();
            }
            Ok(Appended::Seen) => {
                self.batches[at].is_sent = true;
                self.is_well();
            }
            Ok(Appended::Known(first_id, last_id)) => {
                self.is_well();
                let batch = self.batches.remove(at).expect("it was there a moment ago");
                return self.hub.known(batch.number, Stored { first_id, last_id });
            }
            Ok(Appended::Short) => thread::sleep(SHORT_TIME),
            Ok(Appended::Settling(time)) => {
                self.is_well();
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
        self.batches[at].was_tried = true;
        let Waiting { number, expected, .. } = &self.batches[at];
        let batch = Batch {
            node: self.link.node(),
            number: *number,
            key: expected.key.as_deref(),
            senders: &expected.senders,
            lines: &expected.lines,
            before: &self.after,
        };
        engine.append(&self.settings.keys, epoch, &batch, self.link.last(), expected.keep)
    }

    fn connect(&mut self) -> Result<(), EngineError> {
        if self.link.is_reader_away() {
            // This connection may be broken, too: what is sent over it may be lost or not.
            self.engine = None;
        }
        if self.engine.is_none() {
            let mut engine = self.settings.connect()?;
            let (keys, epoch) = (&self.settings.keys, self.link.epoch());
            let epoch = epoch.as_deref().unwrap_or_default();
            engine.arrive(keys, self.settings.settle, epoch, IfNone::Waits)?;
            self.engine = Some(engine);
        }
        Ok(())
    }

    fn is_well(&mut self) {
        self.link.is_there(Side::Sequencer);
        self.back_off = BACK_OFF.0;
        self.has_warned = false;
    }

    fn send_all_again(&mut self) {
        self.batches.iter_mut().for_each(|batch| batch.is_sent = false);
    }

    fn lose_engine(&mut self, error: &EngineError) {
        self.engine = None;
        self.link.is_away(Side::Sequencer);
        self.send_all_again();
        // The reader says that the channel was put away, and the hub ends soon.
        if self.has_warned || matches!(error, EngineError::PutAway) {
            debug!("the engine takes no posts: {error}");
        } else {
            warn!("the engine takes no posts: {error}; trying again");
            self.has_warned = true;
        }
        thread::sleep(self.back_off);
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
        self.refuse_what_waits();
    }

    /// Tells those who posted while the engine is given up. What was sent stays pending.
    fn refuse_what_waits(&mut self) {
        if !self.link.is_given_up() {
            return;
        }
        while self.batches.back().is_some_and(|batch| !batch.was_tried) {
            let batch = self.batches.pop_back().expect("there is one");
            // A hub that is gone has no clients to tell.
            let _ = self.hub.take_back(batch.number);
        }
        let posts: Vec<Post> =
            self.next_post.take().into_iter().chain(self.posts.try_iter()).collect();
        if !posts.is_empty() {
            // A hub that is gone has no clients to tell.
            let _ = self.hub.refuse_unavailable(posts);
        }
    }
}
