//! How fast a caller may post: `--post-rate` messages a second, and `--post-burst` at once.
//!
//! This is the generic cell rate algorithm (ITU-T I.371): for each caller, one point in time is kept,
//! at which the caller's messages would all be due if they had come evenly. A caller whose point has
//! passed is like one that was never here, and is forgotten. What is kept is bounded, whatever callers
//! turn up.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::config::Config;

/// The callers are divided among this many tables, so that two of them seldom wait for one another.
const TABLES: usize = 16;

/// The most callers in one table: with all tables full, they take some 10 MB. The strangers that do
/// not fit share one allowance. A caller with a token always fits.
const TABLE_SIZE: usize = 8192;

/// A full table is looked through this often at the most, so that a flood of callers does not make
/// everybody wait.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// Without `--post-burst`, as many messages are allowed at once as the rate allows in this time.
const BURST_TIME: Duration = Duration::from_secs(10);

/// Whose messages are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Those of a name, which has a token. There are no more names than the access file has had.
    Name(Arc<str>),
    /// Those of a pseudonym.
    Pseudonym(Arc<str>),
    /// Those of everybody else at an address.
    Address(IpAddr),
}

/// The messages are more than the rate allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    /// They would be allowed after this time. `None` when they are more than may ever come at once.
    pub retry_after: Option<Duration>,
    burst: u32,
}

impl TooFast {
    /// The time to wait in tenths of a second, rounded up.
    pub fn tenths(&self) -> u64 {
        self.retry_after.unwrap_or_default().as_millis().div_ceil(100).max(1) as u64
    }

    /// The time to wait as `Retry-After` has it: in whole seconds, rounded up.
    pub fn whole_seconds(&self) -> String {
        self.tenths().div_ceil(10).to_string()
    }
}

impl fmt::Display for TooFast {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retry_after {
            Some(_) => {
                let tenths = self.tenths();
                write!(out, "too many messages; go on in {}.{} s", tenths / 10, tenths % 10)
            }
            None => write!(out, "too many messages; send {} at a time at the most", self.burst),
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    dues: HashMap<Subject, Instant>,
    /// When the table was last looked through for callers to forget.
    swept: Option<Instant>,
}

impl Table {
    /// Whether there is room for one more caller.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.dues.len() < TABLE_SIZE {
            return true;
        }
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_EVERY) {
            return false;
        }
        self.swept = Some(now);
        self.dues.retain(|_, due| *due > now);
        self.dues.len() < TABLE_SIZE
    }
}

/// The rate, and how much of it each caller has used.
#[derive(Debug)]
pub struct PostRate {
    /// The time from one message to the next.
    interval: Duration,
    burst: u32,
    hasher: RandomState,
    tables: Vec<Mutex<Table>>,
    /// The point in time of all who do not fit in the tables.
    others: Mutex<Option<Instant>>,
}

impl PostRate {
    /// As the operator wants it; `None` when there is no limit.
    pub fn new(config: &Config) -> Option<PostRate> {
        let interval = config.post_rate?;
        // Rounded, since the interval is one of whole nanoseconds.
        let worth = (BURST_TIME.as_secs_f64() / interval.as_secs_f64()).round().max(1.0) as u32;
        let burst = config.post_burst.map_or(worth, NonZeroU32::get);
        let tables = (0..TABLES).map(|_| Mutex::default()).collect();
        Some(PostRate {
            interval,
            burst,
            hasher: RandomState::new(),
            tables,
            others: Mutex::default(),
        })
    }

    /// Counts messages of a caller, all of them or none.
    ///
    /// # Errors
    /// When they are more than the rate allows now.
    pub fn take(&self, subject: Subject, messages: u32) -> Result<(), TooFast> {
        self.take_at(Instant::now(), subject, messages)
    }

    fn take_at(&self, now: Instant, subject: Subject, messages: u32) -> Result<(), TooFast> {
        if messages > self.burst {
            return Err(TooFast { retry_after: None, burst: self.burst });
        }
        let table = self.hasher.hash_one(&subject) as usize % TABLES;
        let mut table = self.tables[table].lock().unwrap_or_else(PoisonError::into_inner);
        let known = table.dues.get(&subject).copied();
        let is_stranger = !matches!(subject, Subject::Name(_));
        if known.is_none() && is_stranger && !table.has_room(now) {
            drop(table);
            let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            *others = Some(self.advance(now, *others, messages)?);
            return Ok(());
        }
        let due = self.advance(now, known, messages)?;
        table.dues.insert(subject, due);
        Ok(())
    }

    /// The point in time after `messages` more messages.
    fn advance(
        &self,
        now: Instant,
        due: Option<Instant>,
        messages: u32,
    ) -> Result<Instant, TooFast> {
        let due = due.unwrap_or(now).max(now) + self.interval * messages;
        let latest = now + self.interval * self.burst;
        match due.checked_duration_since(latest) {
            Some(wait) if !wait.is_zero() => {
                Err(TooFast { retry_after: Some(wait), burst: self.burst })
            }
            _ => Ok(due),
        }
    }
}

#[cfg(test)]
mod tests;
