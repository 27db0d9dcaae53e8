//! The room that long posts have in the queue of a hub. The queue is bounded by the number of its
//! commands, which would be hundreds of megabytes if each had a long message.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A post with at most this many bytes needs no room: as many as the queue holds have no more than
/// [`MOST`] together.
const SHORT: usize = MOST / super::QUEUE;

/// How many bytes the long posts may have that wait in the queue or are being stored. One alone may have
/// more.
const MOST: usize = 16 << 20;

/// The room in the queue of one hub.
#[derive(Debug, Default)]
pub(super) struct Room {
    taken: Mutex<usize>,
    freed: Condvar,
}

/// What a post takes of the room, until it is stored or refused.
#[derive(Debug)]
pub(super) struct Place {
    bytes: usize,
    room: Arc<Room>,
}

impl Room {
    /// A place for a post of `bytes` bytes, which is waited for; `None` for a short one, which needs none.
    pub(super) fn enter(self: &Arc<Room>, bytes: usize) -> Option<Place> {
        if bytes <= SHORT {
            return None;
        }
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let lacks_room = |taken: &mut usize| *taken > 0 && *taken + bytes > MOST;
        let taken = self.freed.wait_while(taken, lacks_room);
        *taken.unwrap_or_else(PoisonError::into_inner) += bytes;
        Some(Place { bytes, room: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.room.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn long_posts_wait_for_room_and_short_ones_do_not() {
        let room = Arc::<Room>::default();
        let half = room.enter(MOST / 2).expect("a long post");
        let other_half = room.enter(MOST / 2).expect("a long post");
        assert!(room.enter(SHORT).is_none());
        let (entered, told) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                // One alone may be longer than all the room.
                let _place = room.enter(MOST * 2);
                entered.send(()).expect("somebody waits");
            });
            drop(half);
            assert!(told.try_recv().is_err(), "there is room for one half");
            drop(other_half);
            told.recv().expect("it enters");
        });
        assert_eq!(*room.taken.lock().expect("nobody panicked"), 0);
    }
}
