//! What everybody may know of a channel without asking its hub, and who wants to hear of changes.
//!
//! A hub says how far it has come whenever it shows something; a request for the list reads that, so
//! that a list costs the hubs nothing, however much is said. The locks here are held while a few
//! numbers are copied, and for nothing else.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use crossbeam_channel::{Receiver, bounded};

use crate::followers::Followers;

/// How far a channel is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The number of its last line.
    pub last_id: u64,
    /// How many lines hold a message.
    pub messages: u64,
    /// When its last message was accepted, in Unix milliseconds, where that is known.
    pub ts: Option<u64>,
    /// The committed length of its file, in bytes.
    pub file_bytes: u64,
    /// Clients that have joined and not left.
    pub clients: u64,
    /// Those of them that are catching up.
    pub clients_behind: u64,
}

impl Figures {
    /// Whether something was said between these and others.
    pub fn differ_in_what_was_said(&self, other: &Figures) -> bool {
        (self.last_id, self.messages, self.ts) != (other.last_id, other.messages, other.ts)
    }
}

/// One open channel as everybody may see it.
#[derive(Debug)]
pub struct Summary {
    epoch: Mutex<Arc<str>>,
    /// Names its file: device and inode.
    pub file: (u64, u64),
    figures: Mutex<Figures>,
    is_ending: AtomicBool,
    is_stored: AtomicBool,
    notifier: Arc<Notifier>,
    comings: Arc<Notifier>,
}

impl Summary {
    /// The summary of a channel whose changes are told to the followers of `notifier`, and to those of
    /// `comings` when it is as if another channel had come.
    pub fn new(
        epoch: Arc<str>,
        file: (u64, u64),
        notifier: Arc<Notifier>,
        comings: Arc<Notifier>,
    ) -> Summary {
        let (is_ending, is_stored) = (AtomicBool::new(false), AtomicBool::new(false));
        let (epoch, figures) = (Mutex::new(epoch), Mutex::default());
        Summary { epoch, file, figures, is_ending, is_stored, notifier, comings }
    }

    /// The name of its numbering.
    pub fn epoch(&self) -> Arc<str> {
        lock(&self.epoch).clone()
    }

    /// Says that the numbering has another name: for its hub alone.
    pub fn take_epoch(&self, epoch: Arc<str>) {
        *lock(&self.epoch) = epoch;
        self.notifier.tell();
        self.comings.tell();
    }

    /// How far the channel is.
    pub fn figures(&self) -> Figures {
        *lock(&self.figures)
    }

    /// Whether the hub is about to say goodbye to its clients. A client that comes now must wait
    /// until the channel is open again, or gone.
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(SeqCst)
    }

    /// Says that the hub is about to say goodbye: for itself alone.
    pub fn end(&self) {
        self.is_ending.store(true, SeqCst);
    }

    /// Whether the hub takes no more messages and has all on disk.
    pub fn is_stored(&self) -> bool {
        self.is_stored.load(SeqCst)
    }

    /// Says that the hub takes no more messages and has all on disk: for itself alone.
    pub fn note_stored(&self) {
        self.is_stored.store(true, SeqCst);
    }

    /// Says how far the channel has come: for its hub alone.
    pub fn publish(&self, figures: Figures) {
        let before = std::mem::replace(&mut *lock(&self.figures), figures);
        if figures.differ_in_what_was_said(&before) {
            self.notifier.tell();
        }
    }
}

/// Wakes those who follow what happens in all channels.
#[derive(Debug)]
pub struct Notifier {
    /// Whether all followers have been woken since one of them looked. As long as they have, a
    /// hub that shows something takes no lock for it.
    is_told: AtomicBool,
    /// `None` when the server stops.
    followers: Mutex<Option<Followers>>,
}

impl Default for Notifier {
    fn default() -> Notifier {
        Notifier {
            is_told: AtomicBool::default(),
            followers: Mutex::new(Some(Followers::default())),
        }
    }
}

impl Notifier {
    /// Something is to be seen: wakes all followers that have looked since the last time.
    pub fn tell(&self) {
        if self.is_told.swap(true, SeqCst) {
            return;
        }
        if let Some(followers) = &mut *lock(&self.followers) {
            followers.wake();
        }
    }

    /// A follower: woken at once, and whenever there is something to be seen; ends when the server stops.
    pub fn follow(&self) -> Receiver<()> {
        let (wake, woken) = bounded(1);
        if let Some(followers) = &mut *lock(&self.followers) {
            // There is room for the first word.
            let _ = wake.try_send(());
            followers.add(wake);
        }
        woken
    }

    /// A follower that was woken is about to look: what changes from here on wakes it again.
    pub fn look(&self) {
        self.is_told.store(false, SeqCst);
    }

    /// Ends all followers, and those who come later.
    pub fn end(&self) {
        *lock(&self.followers) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it holds is valid after each statement, so a panic elsewhere takes nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
