//! What the threads of a copy share: how far it has come, whether its engine is available and its hub takes
//! posts, and which batches are under way.
//!
//! The reader says how far the order has come, the sequencer how posting goes, the hub whether it takes
//! posts; health checks and metrics look at it, too. The locks are held while a few values are copied.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use data_encoding::HEXLOWER;

use super::under_way::UnderWay;
use crate::wire::ErrorAnswer;

mod counters;

use counters::Counters;

/// After this long without its engine a copy takes no posts. Until then posts wait.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many random bytes make the name of a node in a channel.
const NODE_BYTES: usize = 8;

/// What the threads of a copy share.
#[derive(Debug)]
pub struct Link {
    node_name: String,
    state: Mutex<State>,
    under_way: UnderWay,
    counters: Counters,
    /// The last line of the file, and of the order as far as is known.
    last: AtomicU64,
    order_last: AtomicU64,
    first_to_keep: AtomicU64,
    /// The highest batch that came back.
    returned: AtomicU64,
    joins: AtomicU64,
    is_stopping: AtomicBool,
    /// Gets a word when a batch came back, when the copy has joined, and when the threads are to end.
    nudge: (Sender<()>, Receiver<()>),
}

#[derive(Debug)]
struct State {
    /// The epoch under which posts are sent; `None` until the copy has joined the order.
    epoch: Option<Arc<str>>,
    /// Since when the engine is unavailable to the reader, and to the sequencer.
    unavailable_since: [Option<Instant>; 2],
    /// When the engine gives out numbers.
    settled: Instant,
    /// Why the hub refuses posts, if it does.
    refusal: Option<ErrorAnswer>,
}

impl State {
    fn is_given_up(&self) -> bool {
        self.unavailable_since.iter().flatten().any(|since| since.elapsed() >= PATIENCE)
    }
}

/// One of the two threads with a connection to the engine.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// It reads what the order is.
    Reader,
    /// It sends posts.
    Sequencer,
}

impl Link {
    /// Of a copy that has not joined the order, with a new name for the node.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new() -> Result<Link, getrandom::Error> {
        let mut name = [0; NODE_BYTES];
        getrandom::fill(&mut name)?;
        let now = Instant::now();
        let state = State {
            epoch: None,
            unavailable_since: [Some(now), None],
            settled: now,
            refusal: None,
        };
        Ok(Link {
            node_name: HEXLOWER.encode(&name),
            state: Mutex::new(state),
            under_way: UnderWay::default(),
            counters: Counters::default(),
            last: AtomicU64::new(0),
            order_last: AtomicU64::new(0),
            first_to_keep: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            joins: AtomicU64::new(0),
            is_stopping: AtomicBool::new(false),
            nudge: bounded(1),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each statement leaves it valid, so a panic elsewhere takes nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node's name in this channel, which it has at no other opening and no other node has.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// The epoch under which posts are sent; `None` while the copy has not joined.
    pub fn epoch(&self) -> Option<Arc<str>> {
        self.state().epoch.clone()
    }

    /// Notes that the copy has joined the order, under this epoch; the engine gives out numbers after
    /// `settles`.
    pub fn set_joined(&self, epoch: Arc<str>, settles: Duration) {
        let mut state = self.state();
        state.epoch = Some(epoch);
        state.unavailable_since[Side::Reader as usize] = None;
        state.settled = Instant::now() + settles;
        drop(state);
        self.joins.fetch_add(1, SeqCst);
        self.nudge();
    }

    /// How often the copy has joined. Batches that were sent before the last time may be lost.
    pub fn joins(&self) -> u64 {
        self.joins.load(SeqCst)
    }

    /// Notes that a side has its engine.
    pub fn set_available(&self, side: Side) {
        self.state().unavailable_since[side as usize] = None;
    }

    /// Notes that the engine cannot be used by a side.
    pub fn set_unavailable(&self, side: Side) {
        self.state().unavailable_since[side as usize].get_or_insert_with(Instant::now);
    }

    /// Notes that a side has lost its connection or could not make one, and counts that.
    pub fn lose_connection(&self, side: Side) {
        self.set_unavailable(side);
        self.counters.reconnects.fetch_add(1, SeqCst);
    }

    /// Whether a side has its engine.
    pub fn is_available(&self, side: Side) -> bool {
        self.state().unavailable_since[side as usize].is_none()
    }

    /// Whether the copy has joined, and its engine is available and gives out numbers.
    pub fn is_up(&self) -> bool {
        let state = self.state();
        state.epoch.is_some()
            && state.unavailable_since.iter().all(Option::is_none)
            && state.settled <= Instant::now()
    }

    /// Whether the engine has been unavailable for so long that posts are refused.
    pub fn is_given_up(&self) -> bool {
        self.state().is_given_up()
    }

    /// The number of the last line in the file.
    pub fn last(&self) -> u64 {
        self.last.load(SeqCst)
    }

    /// Notes how far the file has come, and that the engine is to keep what comes from line
    /// `first_to_keep` on.
    pub fn set_applied(&self, last: u64, first_to_keep: u64) {
        self.last.store(last, SeqCst);
        self.first_to_keep.store(first_to_keep, SeqCst);
        self.order_last.fetch_max(last, SeqCst);
    }

    /// The first line that the engine is to keep.
    pub(super) fn first_to_keep(&self) -> u64 {
        self.first_to_keep.load(SeqCst)
    }

    /// Notes why the hub refuses posts, or that it takes them again.
    pub fn set_refusal(&self, why: Option<ErrorAnswer>) {
        self.state().refusal = why;
    }

    /// Why posts are refused, if they are: the engine has been unavailable for too long, or the hub says so.
    pub(super) fn refusal(&self) -> Option<ErrorAnswer> {
        let state = self.state();
        if state.is_given_up() { Some(ErrorAnswer::Unavailable) } else { state.refusal }
    }

    /// The batches that are on their way.
    pub(super) fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    /// Notes how far the order has come.
    pub fn set_ordered(&self, last: u64) {
        self.order_last.store(last, SeqCst);
    }

    /// The highest batch that was posted here and came back.
    pub fn returned(&self) -> u64 {
        self.returned.load(SeqCst)
    }

    /// Notes that a batch that was posted here came back.
    pub fn set_returned(&self, batch: u64) {
        self.returned.fetch_max(batch, SeqCst);
        self.nudge();
    }

    fn nudge(&self) {
        // One word that waits is enough.
        let _ = self.nudge.0.try_send(());
    }

    /// Gets a word when a batch came back, when the copy has joined, and when the threads are to end.
    pub fn nudges(&self) -> &Receiver<()> {
        &self.nudge.1
    }

    /// Notes how many posts wait for the engine.
    pub fn set_pending(&self, posts: u64) {
        self.counters.pending.store(posts, SeqCst);
    }

    /// Counts lines that were given back to the engine.
    pub fn count_restored(&self, lines: u64) {
        self.counters.restored.fetch_add(lines, SeqCst);
    }

    /// Counts a fork.
    pub fn count_fork(&self) {
        self.counters.forks.fetch_add(1, SeqCst);
    }

    /// Counts a batch that the engine answered, and how long that took.
    pub fn count_append(&self, time: Duration) {
        self.counters.appends.fetch_add(1, SeqCst);
        self.counters.append_nanos.fetch_add(time.as_nanos() as u64, SeqCst);
    }

    /// Has the threads end.
    pub fn stop(&self) {
        self.is_stopping.store(true, SeqCst);
        self.nudge();
    }

    /// The hub has ended, and so must the threads. Requests that wait for a batch are told so.
    pub fn end(&self) {
        self.stop();
        self.under_way.close();
    }

    /// Whether the threads are to end.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(SeqCst)
    }

    /// The metrics of the copy, in the text format of Prometheus.
    pub fn render(&self) -> String {
        let lag = self.order_last.load(SeqCst).saturating_sub(self.last());
        self.counters.render(self.is_up(), lag)
    }
}
