//! The followers: HTTP requests that stream messages as they come. The hub wakes each when there
//! are new messages, and the request then reads them itself.

use crossbeam_channel::{Sender, TrySendError};

/// With more followers than this, the hub looks which of them are gone, even when no message comes.
/// So few cost nothing, gone or not.
const UNCHECKED: usize = 64;

/// All followers of one hub.
#[derive(Debug)]
pub(super) struct Followers {
    wake: Vec<Sender<()>>,
    /// With more followers than this, the hub looks which are gone. It doubles with their number,
    /// so that adding one stays cheap.
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

    /// Wakes all followers, and forgets those that are gone.
    pub(super) fn wake(&mut self) {
        // A full queue means that the follower has been woken and has not read yet.
        let is_connected = |result| !matches!(result, Err(TrySendError::Disconnected(())));
        self.wake.retain(|follower| is_connected(follower.try_send(())));
    }

    /// Drops all followers' queues, which ends their streams.
    pub(super) fn end(&mut self) {
        self.wake.clear();
    }
}
