//! Events: clients that ask for them are told who is here and who types. Nothing of it is stored.
//!
//! Presence is a state: a client is told the latest one, at its turn. That somebody types is told once,
//! and a client that is behind misses it. Without a client that asks, nothing is made or kept.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    command::ClientId,
    operations::Person,
    wire::{presence_frame, typing_frame},
};

/// Presence is told at most once in this time, however many come and go.
const PRESENCE_EVERY: Duration = Duration::from_secs(1);

/// The most different names that presence tells.
const NAMES: usize = 100;

/// This many frames about typing are kept for clients whose turn is still to come. On the fullest
/// channel, clients miss the oldest.
const TYPING_KEPT: usize = 256;

/// What clients with `events=1` are told.
#[derive(Debug, Default)]
pub(super) struct Events {
    listeners: usize,
    /// The last frame about presence, and its number, from 1.
    presence: Vec<u8>,
    presence_number: u64,
    /// Whether somebody came or left since then.
    has_changed: bool,
    told_at: Option<Instant>,
    typing: VecDeque<Typing>,
    /// The number of the first of these.
    first_typing: u64,
}

#[derive(Debug)]
struct Typing {
    by: ClientId,
    frame: Vec<u8>,
}

/// How far a client that listens has come.
#[derive(Debug)]
pub(super) struct Listening {
    presence_number: u64,
    next_typing: u64,
}

impl Events {
    pub(super) fn has_listeners(&self) -> bool {
        self.listeners > 0
    }

    /// Takes in a client that listens. It is told the next presence, in which it counts.
    pub(super) fn listen(&mut self) -> Box<Listening> {
        self.listeners += 1;
        self.has_changed = true;
        let presence_number = self.presence_number;
        Box::new(Listening { presence_number, next_typing: self.next_typing() })
    }

    /// Forgets a client that listened.
    pub(super) fn end_listening(&mut self) {
        self.listeners -= 1;
        if self.listeners == 0 {
            self.typing = VecDeque::new();
            self.presence = Vec::new();
        }
    }

    /// Notes that a client came or left.
    pub(super) fn change(&mut self) {
        self.has_changed = self.has_listeners();
    }

    /// Whether a new presence is to be told now.
    pub(super) fn is_presence_due(&self, now: Instant) -> bool {
        self.has_changed
            && self.has_listeners()
            && self.told_at.is_none_or(|told_at| now >= told_at + PRESENCE_EVERY)
    }

    /// Makes the frame of a new presence: the senders of all clients, in the order of joining, where
    /// nobody is `None`.
    pub(super) fn tell_presence(
        &mut self,
        senders: impl ExactSizeIterator<Item = Option<Arc<str>>>,
        now: Instant,
    ) {
        let count = senders.len();
        let mut known = HashSet::new();
        let senders: Vec<_> = senders.flatten().collect();
        // A person has one key, and one name here, however many names it gives itself.
        let names = senders.iter().filter(|sender| known.insert(Person::of(sender)));
        let names: Vec<_> = names.take(NAMES).cloned().collect();
        self.presence = presence_frame(count, &names);
        self.presence_number += 1;
        self.has_changed = false;
        self.told_at = Some(now);
    }

    /// Makes the frame that a client types.
    pub(super) fn tell_typing(&mut self, by: ClientId, sender: &str, round: Round) {
        if round == Round::Over {
            self.first_typing = self.next_typing();
            self.typing.clear();
        } else if self.typing.len() == TYPING_KEPT {
            self.typing.pop_front();
            self.first_typing += 1;
        }
        self.typing.push_back(Typing { by, frame: typing_frame(sender) });
    }

    fn next_typing(&self) -> u64 {
        self.first_typing + self.typing.len() as u64
    }

    /// Lets a client that was behind miss what was told meanwhile, but for presence.
    pub(super) fn skip(&self, listening: &mut Listening) {
        listening.next_typing = self.next_typing();
    }

    /// The frames that a client has not been told, whole and one after the other. It counts as told
    /// afterwards.
    pub(super) fn take_for(&self, client: ClientId, listening: &mut Listening) -> Vec<u8> {
        let mut frames = Vec::new();
        if listening.presence_number < self.presence_number {
            listening.presence_number = self.presence_number;
            frames.extend_from_slice(&self.presence);
        }
        let from = listening.next_typing.saturating_sub(self.first_typing) as usize;
        let missed = self.typing.iter().skip(from).filter(|typing| typing.by != client);
        missed.for_each(|typing| frames.extend_from_slice(&typing.frame));
        listening.next_typing = self.next_typing();
        frames
    }
}

/// Whether all live clients have had their turn since something was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// They have.
    Over,
    /// Some have not.
    GoesOn,
}

#[cfg(test)]
mod tests;
