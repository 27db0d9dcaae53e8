//! What has come of a message that is not whole: how long it may take, and how much memory.

use std::time::{Duration, Instant};

use super::Over;
use crate::intake::{NoRoom, UNCOUNTED, Unfinished};

/// How long a message that is longer than [`UNCOUNTED`] may take until it is whole, so that nobody keeps
/// memory for longer: 1 MiB comes in time at 140 kbit/s.
const MESSAGE_TIME: Duration = Duration::from_secs(60);

/// What has come of a message that is not whole.
#[derive(Debug)]
pub(super) struct Begun {
    bytes: usize,
    /// When it had become so long that it counts.
    since: Option<Instant>,
    memory: Unfinished,
}

impl Default for Begun {
    fn default() -> Begun {
        Begun { bytes: 0, since: None, memory: Unfinished::nothing() }
    }
}

impl Begun {
    /// Takes in that `count` bytes more have come.
    ///
    /// # Errors
    /// When the message took too long, or takes too much memory.
    pub(super) fn grow(&mut self, count: usize) -> Result<(), Over> {
        self.bytes += count;
        if self.bytes <= UNCOUNTED {
            return Ok(());
        }
        let now = Instant::now();
        if now > *self.since.get_or_insert(now) + MESSAGE_TIME {
            return Err(Over::Unfinished);
        }
        self.memory.grow_to(self.bytes).map_err(|NoRoom| Over::NoRoom)
    }

    /// Takes in that `count` of the bytes were something else.
    pub(super) fn shrink(&mut self, count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
    }

    /// The message is whole. It takes its memory until the next one is read: it may have to wait for
    /// the hub.
    pub(super) fn finish(&mut self) {
        (self.bytes, self.since) = (0, None);
    }

    /// The next message is to be read. If none has begun, the one before takes no memory any more.
    pub(super) fn read_on(&mut self) {
        if self.bytes == 0 {
            self.memory.finish();
        }
    }

    /// As if it had begun so long ago that its time is over.
    #[cfg(test)]
    pub(super) fn begin_long_ago(&mut self) {
        self.since = Instant::now().checked_sub(MESSAGE_TIME);
    }

    /// Whether it is too short to count.
    #[cfg(test)]
    pub(super) fn is_short(&self) -> bool {
        self.since.is_none() && self.bytes <= UNCOUNTED
    }

    /// Whether its memory is counted.
    #[cfg(test)]
    pub(super) fn is_counted(&self) -> bool {
        self.memory.is_counted()
    }
}
