//! Brings clients that are behind up to date: those that join and could not be sent the whole history
//! at once, and those whose sockets were full.
//!
//! A few threads serve all these clients, those of all channels. Each thread waits until one of its
//! sockets takes more (epoll), sends the client what it lacks from the history, and asks the hub for
//! more, until the hub has made the client live. Nothing is kept for a client but its `Cursor`: bytes that
//! the socket did not take are read again from the file, unless they are at hand because other clients
//! lack them, too. So ten thousand clients that are behind cost a few megabytes and no thread.
//!
//! A thread does not wait for a hub, whose disk may hang: it goes on with its other clients until the
//! answer is there. The socket of a client whose hub was asked is not in epoll meanwhile. It does wait for
//! a disk when it reads a file itself. As a rule the system has those bytes in memory, and where it has
//! not, only a thread for each channel would help.

use std::{
    collections::HashMap,
    io,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, unbounded};
use log::{debug, error, warn};
use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, Timespec, epoll, eventfd},
    fd::OwnedFd,
};

use crate::{
    command::{ClientId, HubHandle},
    lines::TextFile,
    metrics::Metrics,
    outbox::Outbox,
    tally::Tally,
    threads::{self, CATCH_UP_STACK},
    unsent::Unsent,
    wire::{CutFrame, HistoryEnd, HistoryFrame},
};

mod cursor;
mod pace;
mod shared_frames;
mod shared_text;

use cursor::{Answer, Buffers, Cursor, Progress};

/// How often, within the stall timeout, a step is tried for a client that does not seem to take
/// anything. The kernel reports that a socket takes more only when half of what it may hold is
/// free; a try sees every byte of progress. Ten thousand tries cost some 30 ms.
const TRIES_PER_TIMEOUT: u32 = 4;

/// Events taken from the kernel at a time: enough that a wait costs little beside its sends.
const EVENTS_AT_ONCE: usize = 256;

/// How long a thread without clients waits before it looks whether a count is to be logged. Counts
/// are logged no more often than that (`tally.rs`).
const LOG_WAIT: Duration = Duration::from_secs(30);

/// The number of the event that a client or an answer has come. Clients are numbered from 1.
const INBOX_EVENT: u64 = 0;

/// A client that is behind, with all that a catch-up thread needs for it.
#[derive(Debug)]
pub struct Behind {
    /// The client.
    pub client: ClientId,
    /// Its sending side.
    pub outbox: Arc<Outbox>,
    /// The hub to ask for more.
    pub hub: HubHandle,
    /// The text file as it was when the frame was cut, or when the hub last named messages. The cut frame
    /// is read from it, and what other clients had read is used only if it is from the same.
    pub file: TextFile,
    /// The rest of the frame of which the socket took a part; it is sent first.
    pub cut: CutFrame,
    /// The rest of the history frame, for a client that joins; it is sent next.
    pub history: Option<Box<HistoryFrame>>,
    /// The end of the history, for a client that joins and gets each message of it in a frame of its
    /// own. Its messages begin with `next_id`.
    pub each: Option<Box<HistoryEnd>>,
    /// The id of the first message after these; `None` when it is the first that the hub did not
    /// send.
    pub next_id: Option<u64>,
}

/// A handle of the catch-up threads: it takes clients that are behind.
#[derive(Clone, Debug)]
pub struct CatchUp {
    threads: Arc<[Inbox]>,
}

#[derive(Debug)]
struct Inbox {
    clients: Sender<Behind>,
    /// Wakes the thread from its wait for sockets.
    wake: Arc<OwnedFd>,
}

impl CatchUp {
    /// Starts the threads, as many as there are processors. A thread ends when the last handle is
    /// dropped and its last client is served. A client that takes nothing for `stall_timeout` is
    /// closed. `unsent` says how much the kernel may hold for one that is fast.
    ///
    /// # Errors
    /// When the system has no thread, or no descriptor for a thread to wait with.
    pub fn start(
        stall_timeout: Duration,
        metrics: &Arc<Metrics>,
        unsent: &Arc<Unsent>,
    ) -> io::Result<CatchUp> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let tallies = Arc::default();
        let start = |number| {
            let (inbox, thread) =
                Thread::new(stall_timeout, metrics.clone(), unsent.clone(), &tallies)?;
            threads::spawn(format!("catch-up-{number}"), CATCH_UP_STACK, || thread.run())?;
            Ok(inbox)
        };
        Ok(CatchUp { threads: (1..=processors).map(start).collect::<io::Result<_>>()? })
    }

    /// Takes over a client that is behind: nothing else sends to it until it is live again.
    pub fn take(&self, behind: Behind) {
        let inbox = &self.threads[behind.client.0 as usize % self.threads.len()];
        let outbox = behind.outbox.clone();
        if inbox.clients.send(behind).is_err() {
            // The thread has panicked, which is a bug. The clients of the other threads go on.
            return outbox.abort();
        }
        wake(&inbox.wake);
    }
}

fn wake(wake: &OwnedFd) {
    // It fails only when the count of wakes is at its limit, and then the thread wakes anyway.
    let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
}

#[cfg(test)]
impl CatchUp {
    /// A handle without threads: the test gets the clients.
    pub(crate) fn by_hand() -> (CatchUp, Receiver<Behind>) {
        let (clients, taken) = unbounded();
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).expect("a descriptor"));
        (CatchUp { threads: Arc::new([Inbox { clients, wake }]) }, taken)
    }
}

/// What happened to clients of all threads: many of a kind get one log line together.
#[derive(Debug, Default)]
struct Tallies {
    /// They took nothing for too long.
    stalled: Tally,
    /// Their sockets could not be waited for.
    unwatched: Tally,
}

impl Tallies {
    /// Whether counts wait to be logged, though nothing may happen any more.
    fn are_pending(&self) -> bool {
        self.stalled.is_pending() || self.unwatched.is_pending()
    }

    /// Logs the counts that are due.
    fn log_counts(&mut self) {
        if let Some(count) = self.stalled.due() {
            warn!("{count} more clients took nothing for too long and were closed");
        }
        if let Some(count) = self.unwatched.due() {
            warn!("{count} more clients could not be waited for and were closed");
        }
    }
}

/// One catch-up thread.
struct Thread {
    inbox: Receiver<Behind>,
    /// What hubs have answered, each with the number of the client.
    answers: Receiver<(u64, Answer)>,
    /// Where the answers come from.
    answer: Sender<(u64, Answer)>,
    wake: Arc<OwnedFd>,
    epoll: OwnedFd,
    clients: HashMap<u64, Cursor>,
    next_number: u64,
    buffers: Buffers,
    unsent: Arc<Unsent>,
    stall_timeout: Duration,
    tallies: Arc<Mutex<Tallies>>,
}

impl Thread {
    fn new(
        stall_timeout: Duration,
        metrics: Arc<Metrics>,
        unsent: Arc<Unsent>,
        tallies: &Arc<Mutex<Tallies>>,
    ) -> io::Result<(Inbox, Thread)> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(INBOX_EVENT), epoll::EventFlags::IN)?;
        let (clients, inbox) = unbounded();
        let (answer, answers) = unbounded();
        let thread = Thread {
            inbox,
            answers,
            answer,
            wake: wake.clone(),
            epoll,
            clients: HashMap::new(),
            next_number: INBOX_EVENT + 1,
            buffers: Buffers::new(metrics),
            unsent,
            stall_timeout,
            tallies: tallies.clone(),
        };
        Ok((Inbox { clients, wake }, thread))
    }

    fn run(mut self) {
        let between_tries = self.stall_timeout / TRIES_PER_TIMEOUT;
        let mut try_at = Instant::now() + between_tries;
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        loop {
            if self.clients.is_empty() {
                self.buffers.shrink();
                match self.wait_for_a_client() {
                    Ok(behind) => self.begin(behind),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            self.take_inbox();
            self.take_answers();
            let left = try_at.saturating_duration_since(Instant::now());
            if let Err(error) = self.wait(&mut events, left) {
                error!("catching up failed, and {} clients with it: {error}", self.clients.len());
                return self.clients.values().for_each(|cursor| cursor.outbox().abort());
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    INBOX_EVENT => self.clear_wake(),
                    number => self.step_client(number, None, Instant::now()),
                }
            }
            let now = Instant::now();
            if now >= try_at {
                self.step_idle_clients(now);
                self.buffers.shrink();
                self.lock_tallies().log_counts();
                try_at = now + between_tries;
            }
        }
    }

    fn wait_for_a_client(&mut self) -> Result<Behind, RecvTimeoutError> {
        loop {
            if !self.lock_tallies().are_pending() {
                return self.inbox.recv().map_err(RecvTimeoutError::from);
            }
            match self.inbox.recv_timeout(LOG_WAIT) {
                Err(RecvTimeoutError::Timeout) => self.lock_tallies().log_counts(),
                result => return result,
            }
        }
    }

    fn take_inbox(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(behind) => self.begin(behind),
                // Without handles, the clients that are left are still served to their end.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Goes on with the clients whose hubs have answered. Answers that come meanwhile have their turn
    /// after the sockets.
    fn take_answers(&mut self) {
        for _ in 0..self.answers.len() {
            let Ok((number, answer)) = self.answers.try_recv() else { return };
            self.step_client(number, Some(answer), Instant::now());
        }
    }

    fn clear_wake(&self) {
        // If it fails, there is nothing to clear.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Waits until a socket takes more, or a client or an answer comes, for `most` at the longest.
    fn wait(&self, events: &mut Vec<epoll::Event>, most: Duration) -> io::Result<()> {
        let most = Timespec::try_from(most).ok();
        match epoll::wait(&self.epoll, spare_capacity(events), most.as_ref()) {
            Err(rustix::io::Errno::INTR) => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }

    fn begin(&mut self, behind: Behind) {
        let number = self.next_number;
        self.next_number += 1;
        self.clients.insert(number, Cursor::new(behind));
        self.watch(number);
    }

    /// Makes one step with a client, and forgets the client if that was the last. A client whose hub was
    /// asked has its next step with the answer.
    fn step_client(&mut self, number: u64, answer: Option<Answer>, now: Instant) {
        // The client may have been dropped at an earlier event of the same wait.
        let Some(cursor) = self.clients.get_mut(&number) else { return };
        let is_watched = answer.is_none();
        if !is_watched {
            // It was sent nothing as long as its hub did not answer.
            cursor.last_progress = now;
        }
        let buffers = &mut self.buffers;
        let step = panic::catch_unwind(AssertUnwindSafe(|| cursor.step(answer, buffers)));
        cursor.make_room(now, &self.unsent);
        match step {
            Ok(Ok(Progress::None)) if now >= cursor.last_progress + self.stall_timeout => {
                cursor.give_up();
                if self.lock_tallies().stalled.add() {
                    let timeout = humantime::format_duration(self.stall_timeout);
                    warn!("a client took nothing for {timeout} and was closed; it can resume");
                }
            }
            Ok(Ok(progress @ (Progress::None | Progress::Some))) => {
                if progress == Progress::Some {
                    cursor.last_progress = now;
                }
                if !is_watched {
                    self.watch(number);
                }
                return;
            }
            Ok(Ok(Progress::Asks)) => {
                if is_watched {
                    self.unwatch(number);
                }
                return self.ask(number);
            }
            Ok(Ok(Progress::Done)) => {}
            Ok(Err(error)) => {
                debug!("a client that was behind is gone: {error}");
                cursor.outbox().abort();
            }
            Err(_) => {
                error!("a panic ended a client that was behind");
                cursor.outbox().abort();
                self.buffers.shrink();
            }
        }
        // One that is live may have fallen behind again, and its socket be watched under a new number.
        if is_watched {
            self.unwatch(number);
        }
        self.clients.remove(&number);
    }

    /// Has epoll tell when the socket of a client takes more. If that is not possible, the client is
    /// closed.
    fn watch(&mut self, number: u64) {
        let Some(cursor) = self.clients.get(&number) else { return };
        let data = epoll::EventData::new_u64(number);
        let socket = cursor.outbox().socket();
        if let Err(error) = epoll::add(&self.epoll, socket, data, epoll::EventFlags::OUT) {
            if self.lock_tallies().unwatched.add() {
                warn!("cannot wait for a client, closing it: {error}");
            }
            cursor.outbox().abort();
            self.clients.remove(&number);
        }
    }

    fn unwatch(&self, number: u64) {
        if let Some(cursor) = self.clients.get(&number) {
            // It fails only when epoll does not know the socket, and then there is nothing to do.
            let _ = epoll::delete(&self.epoll, cursor.outbox().socket());
        }
    }

    /// Asks the hub of a client what comes next. The answer wakes this thread.
    fn ask(&self, number: u64) {
        if let Some(cursor) = self.clients.get(&number) {
            let (answers, wakes) = (self.answer.clone(), self.wake.clone());
            cursor.ask(move |answer| {
                // It fails only when this thread has ended, and its clients with it.
                let _ = answers.send((number, answer));
                wake(&wakes);
            });
        }
    }

    /// Makes one step with each client whose socket has not taken anything lately.
    fn step_idle_clients(&mut self, now: Instant) {
        let tried = self.stall_timeout / TRIES_PER_TIMEOUT;
        let is_idle = |cursor: &Cursor| !cursor.asks() && now >= cursor.last_progress + tried;
        let idle = self.clients.iter().filter(|(_, cursor)| is_idle(cursor));
        let idle: Vec<u64> = idle.map(|(&number, _)| number).collect();
        idle.into_iter().for_each(|number| self.step_client(number, None, now));
    }

    fn lock_tallies(&self) -> MutexGuard<'_, Tallies> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
