//! Followers: HTTP requests that stream what happens in a channel, or in all of them. Each is woken when
//! there is something new, and then reads it itself.

use crossbeam_channel::{Sender, TrySendError};

/// Up to this many followers are kept without a look at which of them are gone, as long as nothing new comes.
const UNCHECKED: usize = 64;

/// Those who follow the same.
#[derive(Debug)]
pub struct Followers {
    wake: Vec<Sender<()>>,
    /// With more followers than this, a new one has those forgotten that are gone. It doubles with their
    /// number, so that adding one stays cheap.
    check_above: usize,
}

impl Default for Followers {
    fn default() -> Followers {
        Followers { wake: Vec::new(), check_above: UNCHECKED }
    }
}

impl Followers {
    /// Adds one: the end of a queue with room for one word.
    pub fn add(&mut self, follower: Sender<()>) {
        self.wake.push(follower);
        if self.wake.len() > self.check_above {
            self.wake();
            self.check_above = UNCHECKED.max(self.wake.len() * 2);
        }
    }

    /// Wakes all followers, and forgets those that are gone.
    pub fn wake(&mut self) {
        // A full queue means that the follower has been woken and has not read yet.
        let is_connected = |result| !matches!(result, Err(TrySendError::Disconnected(())));
        self.wake.retain(|follower| is_connected(follower.try_send(())));
    }

    /// Drops all followers' queues, which ends their streams. More may be added afterwards.
    pub fn end(&mut self) {
        self.wake.clear();
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn those_that_are_gone_do_not_pile_up_and_the_others_are_woken_and_ended() {
        let mut followers = Followers::default();
        let mut follow = || {
            let (wake, woken) = bounded::<()>(1);
            followers.add(wake);
            woken
        };
        (0..10_000).for_each(|_| drop(follow()));
        let staying: Vec<_> = (0..100).map(|_| follow()).collect();
        assert!(followers.wake.len() <= UNCHECKED + 2 * staying.len());
        staying.iter().for_each(|woken| while woken.try_recv().is_ok() {});
        followers.wake();
        followers.wake();
        for woken in &staying {
            woken.try_recv().expect("each is woken");
            assert!(woken.try_recv().is_err(), "once is enough");
        }
        followers.end();
        staying.iter().for_each(|woken| assert!(woken.recv().is_err(), "its stream is over"));
    }
}
