//! The batches of a copy that are on their way to the engine and back: what they say, and whom to
//! answer.
//!
//! The sequencer puts a batch here before it sends it, and the mirror takes it when it comes back, or
//! the sequencer when it will not. Lines that come back as they were sent need not be checked and
//! hashed again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chain::Chain;
use crate::command::Speakers;

/// The batches of a copy that were sent and have not come back; `None` when the hub has ended.
#[derive(Debug)]
pub struct UnderWay(Mutex<Option<Vec<Sent>>>);

impl Default for UnderWay {
    fn default() -> UnderWay {
        UnderWay(Mutex::new(Some(Vec::new())))
    }
}

/// A batch that was sent.
#[derive(Debug)]
pub struct Sent {
    /// Its number, which is higher than those before.
    pub number: u64,
    /// Its lines, each with its `\n`; all are messages unless they are too long.
    pub lines: Arc<Vec<u8>>,
    /// A hash, which is the one before the lines unless other nodes post.
    pub before: Chain,
    /// The hash after the lines where they follow that one.
    pub after: Chain,
    /// Whom to answer.
    pub speakers: Speakers,
}

impl UnderWay {
    fn batches(&self) -> MutexGuard<'_, Option<Vec<Sent>>> {
        // Each statement leaves it valid, so a panic elsewhere takes nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in a batch that is about to be sent, or one whose return was not believed.
    pub fn put(&self, batch: Sent) {
        if let Some(batches) = &mut *self.batches() {
            batches.push(batch);
        }
    }

    /// Takes out the batch with this number.
    pub fn take(&self, number: u64) -> Option<Sent> {
        let mut batches = self.batches();
        let batches = batches.as_mut()?;
        let at = batches.iter().position(|batch| batch.number == number)?;
        Some(batches.remove(at))
    }

    /// Lets all go, also what is put later: nobody will answer. A request that waits is told so by the
    /// end of its reply queue.
    pub fn close(&self) {
        let all = self.batches().take();
        // Not under the lock.
        drop(all);
    }
}
