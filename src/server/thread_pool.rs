//! The threads that serve connections, one at a time each.
//!
//! One thread waits before its connection comes: the reserve. A thread that is only started then must
//! be given a processor first, and where other programs compute on all of them, that takes a whole time
//! slice of theirs: a client that joins there has its history after 0.3 ms, and without the reserve
//! after 2 ms.
//!
//! A thread whose connection has ended waits for the next one for a while. So a program that
//! connects for each request is served by the same few threads: 16 connections at a time get 1.4
//! times as many answers, and an answer costs 0.6 times the CPU (78 µs, not 130).

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::threads::{self, CLIENT_STACK};

/// How many threads wait before their connections come, where there is room for them. With more of
/// them, several clients that join at once are served no sooner.
pub(super) const RESERVE: usize = 1;

/// How many threads may wait for a connection: a burst of as many is served without a new one. Each
/// keeps the part of its stack that it has used, some 12 KB. Where 256 clients come at once, again and
/// again, 1.17 times as many are connected per second as with 64.
const MAX_WAITING: usize = 256;

/// How long a thread waits for a connection that is not the reserve: longer than the pauses of a program
/// that polls.
const WAIT: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce() + Send>;

/// The threads. When it is dropped, those that wait end.
#[derive(Debug)]
pub struct ThreadPool {
    waiting: Arc<Waiting>,
    /// How many threads were started. The number of a thread names it.
    started: u64,
}

/// Where threads wait for connections. A crossbeam channel would do, but who is woken by one may find its
/// lock held or its message not yet written, and yields or sleeps again.
#[derive(Debug)]
struct Waiting {
    state: Mutex<State>,
    /// There is a job, or the pool was dropped.
    changed: Condvar,
    /// See [`WAIT`].
    wait: Duration,
}

#[derive(Default)]
struct State {
    /// What threads that wait are to do. There are always threads enough for it.
    jobs: VecDeque<Job>,
    /// How many threads wait, without those for which there is a job.
    free: usize,
    is_over: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { jobs, free, is_over } = self;
        let jobs = jobs.len();
        write!(out, "State {{ jobs: {jobs}, free: {free}, is_over: {is_over} }}")
    }
}

impl ThreadPool {
    /// A pool without threads.
    pub fn new() -> ThreadPool {
        ThreadPool::whose_threads_wait(WAIT)
    }

    fn whose_threads_wait(wait: Duration) -> ThreadPool {
        let waiting = Waiting { state: Mutex::default(), changed: Condvar::new(), wait };
        ThreadPool { waiting: Arc::new(waiting), started: 0 }
    }

    /// Has a thread serve a connection: one that waits, or a new one if `may_start` says that there is
    /// room for it. Then the reserve is filled up.
    ///
    /// # Errors
    /// When no thread waits and none can be started.
    pub fn serve(
        &mut self,
        connection: impl FnOnce() + Send + 'static,
        may_start: impl Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        if let Some(job) = self.waiting.hand_over(Box::new(connection)) {
            may_start()?;
            self.start(Some(job))?;
        }
        // Without a reserve, the next connection gets a thread of its own if there is room then.
        if self.waiting.lock().free < RESERVE && may_start().is_ok() {
            self.waiting.lock().free += 1;
            if self.start(None).is_err() {
                self.waiting.lock().free -= 1;
            }
        }
        Ok(())
    }

    /// Starts a thread for a job, or one that is counted as free already.
    fn start(&mut self, job: Option<Job>) -> io::Result<()> {
        self.started += 1;
        let waiting = self.waiting.clone();
        let run = move || {
            let mut next = job.or_else(|| waiting.wait_for_job());
            while let Some(job) = next {
                job();
                next = waiting.next_job();
            }
        };
        threads::spawn(format!("client-{}", self.started), CLIENT_STACK, run).map(drop)
    }
}

impl Waiting {
    /// Gives a job to a thread that waits. It comes back if none is free.
    fn hand_over(&self, job: Job) -> Option<Job> {
        let mut state = self.lock();
        if state.free == 0 {
            return Some(job);
        }
        state.free -= 1;
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
        None
    }

    /// What a thread does next whose job is done; `None` when it is needed no longer.
    fn next_job(&self) -> Option<Job> {
        {
            let mut state = self.lock();
            if state.free >= MAX_WAITING {
                return None;
            }
            state.free += 1;
        }
        self.wait_for_job()
    }

    /// What a thread does next that is counted as free; `None` when it is needed no longer.
    fn wait_for_job(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.is_over {
                state.free -= 1;
                return None;
            }
            state = if state.free <= RESERVE {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = self.changed.wait_timeout(state, self.wait);
                let (mut state, end) = waited.unwrap_or_else(PoisonError::into_inner);
                if end.timed_out() && state.jobs.is_empty() && state.free > RESERVE {
                    state.free -= 1;
                    return None;
                }
                state
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic is done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.waiting.lock().is_over = true;
        self.waiting.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, thread, time::Instant};

    use crossbeam_channel::bounded;

    use super::*;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(3600);

    /// Waits until it is so.
    fn until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(180);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    }

    /// How many threads of the pool there are, with those that are about to end.
    fn threads(pool: &ThreadPool) -> usize {
        Arc::strong_count(&pool.waiting) - 1
    }

    fn no_room() -> io::Result<()> {
        Err(io::Error::other("no room"))
    }

    #[test]
    fn a_thread_waits_before_its_connection_comes() {
        let mut pool = ThreadPool::whose_threads_wait(LONG);
        let (done, ended) = bounded::<()>(0);
        for connections in 1..=5 {
            let ended = ended.clone();
            let until_the_end = move || ended.recv().unwrap_or_default();
            pool.serve(until_the_end, || Ok(())).expect("a thread");
            assert_eq!(threads(&pool), connections + RESERVE);
        }
        let (says, said) = bounded(1);
        pool.serve(move || says.send(()).expect("it is heard"), no_room).expect("the reserve");
        said.recv().expect("it was served");
        drop(done);
    }

    #[test]
    fn without_room_for_a_reserve_a_connection_is_served_all_the_same() {
        let mut pool = ThreadPool::whose_threads_wait(LONG);
        let room = Cell::new(1);
        let may_start = || match room.replace(0) {
            0 => no_room(),
            _ => Ok(()),
        };
        let (says, said) = bounded(1);
        pool.serve(move || says.send(()).expect("it is heard"), may_start).expect("a thread");
        said.recv().expect("it was served");
        assert_eq!((threads(&pool), pool.started), (1, 1));
    }

    #[test]
    fn threads_that_wait_serve_the_next_connections_and_no_more_wait_than_may() {
        let mut pool = ThreadPool::whose_threads_wait(LONG);
        let (done, ended) = bounded::<()>(0);
        for _ in 0..MAX_WAITING + 10 {
            let ended = ended.clone();
            let until_the_end = move || ended.recv().unwrap_or_default();
            pool.serve(until_the_end, || Ok(())).expect("a thread");
        }
        drop(done);
        until("those above the limit end", || threads(&pool) == MAX_WAITING);
        let started = pool.started;
        let (says, said) = bounded(MAX_WAITING);
        for _ in 0..MAX_WAITING {
            let says = says.clone();
            pool.serve(move || says.send(()).expect("it is heard"), no_room).expect("one waits");
        }
        for _ in 0..MAX_WAITING {
            said.recv().expect("it was served");
        }
        assert_eq!(pool.started, started, "without a new thread");
        let waiting = pool.waiting.clone();
        drop(pool);
        until("threads that wait end with the pool", || Arc::strong_count(&waiting) == 1);
    }

    #[test]
    fn threads_that_nobody_needs_end_and_the_reserve_stays() {
        let mut pool = ThreadPool::whose_threads_wait(Duration::from_millis(1));
        for _ in 0..3 {
            let (done, ended) = bounded::<()>(0);
            for _ in 0..10 {
                let ended = ended.clone();
                pool.serve(move || ended.recv().unwrap_or_default(), || Ok(())).expect("a thread");
            }
            drop(done);
            until("all but the reserve end", || threads(&pool) == RESERVE);
            assert_eq!(pool.waiting.lock().free, RESERVE);
        }
    }
}
