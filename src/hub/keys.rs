//! The answers to the latest posts that had an `Idempotency-Key`, so that each is stored only once.

use std::collections::{HashMap, VecDeque};

use crate::command::Stored;

/// How many posts with a key are remembered: enough for a request that is tried again some seconds
/// later, and less than 3 MB with the longest keys and senders.
pub(super) const KEYS: usize = 4096;

/// The ids of the latest posts that had a key. They are forgotten when the server ends.
#[derive(Debug, Default)]
pub(super) struct Keys {
    stored: HashMap<String, Stored>,
    order: VecDeque<String>,
}

impl Keys {
    pub(super) fn get(&self, key: &str) -> Option<Stored> {
        self.stored.get(key).copied()
    }

    pub(super) fn insert(&mut self, key: String, stored: Stored) {
        if self.stored.insert(key.clone(), stored).is_some() {
            // Its place in the order stays.
            return;
        }
        if self.order.len() == KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.stored.remove(&oldest);
        }
        self.order.push_back(key);
    }
}
