//! HTTP requests that stream what comes: each is woken when there is more, and looks for itself.

use crossbeam_channel::{Sender, TrySendError};

/// Followers that may be gone before it is looked who is.
const UNCHECKED: usize = 64;

/// All followers of one hub.
#[derive(Debug)]
pub(super) struct Followers {
    wake: Vec<Sender<()>>,
    /// With more than these, a look at who is gone is due even when nobody says anything.
    check_above: usize,
}

impl Followers {
    pub(super) fn new() -> Followers {
        Followers { wake: Vec::new(), check_above: UNCHECKED }
    }

    pub(super) fn add(&mut self, follower: Sender<()>) {
        self.wake.push(follower);
        if self.wake.len() > self.check_above {
            self.wake();
            self.check_above = UNCHECKED.max(self.wake.len() * 2);
        }
    }

    /// Tells all to look, and forgets those that are gone.
    pub(super) fn wake(&mut self) {
        // One that has been told and has not looked yet need not be told twice.
        let is_connected = |result| !matches!(result, Err(TrySendError::Disconnected(())));
        self.wake.retain(|follower| is_connected(follower.try_send(())));
    }

    /// Ends all streams: their queues are gone.
    pub(super) fn end(&mut self) {
        self.wake.clear();
    }
}
