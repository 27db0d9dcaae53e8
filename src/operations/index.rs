//! The index of operations: what is known of the messages that operations have changed.
//!
//! It grows with the operations alone, by less than 64 bytes each, and takes no memory without any.
//! What an operation says (new data, the key of a reaction) stands in its line, and who said it in
//! its stamp; here are only the ids of these lines, and fingerprints that tell two reactions apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    ops::Bound,
};

use super::{
    Action, Asker, LoggedOperation, MOST_KEYS, Operation, Person, Refusal, Standing, Target, decide,
};

/// How many reactions are forgotten with a message that is deleted, and how many of those that it has
/// beyond that are at each [`Operations::forget_more`]. To forget a million at once would take the hub a
/// third of a second, and a thousand messages may be deleted at once.
const FORGOTTEN_AT_ONCE: usize = 64;
const FORGOTTEN_LATER: usize = 4096;

/// All operations of a channel, as far as they still mean something.
#[derive(Debug, Default)]
pub struct Operations {
    lines: Ids,
    deleted: BTreeSet<u64>,
    /// Pairs of a message and the line of an edit.
    edits: BTreeSet<(u64, u64)>,
    /// The reactions that there are, each with the line that made it.
    reactions: BTreeMap<Reaction, [u32; 2]>,
    pinned: BTreeSet<u64>,
    /// Deleted messages whose reactions are still here. Nobody looks at these any more.
    forgotten: Vec<u64>,
    /// Makes the fingerprints. Nobody outside knows its keys, so nobody can make two fingerprints
    /// meet.
    hasher: RandomState,
}

/// One person's reaction to a message under one key. It has no 64-bit numbers, so that it takes 20
/// bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reaction {
    target: [u32; 2],
    /// The fingerprint of the key: two that meet would count as one key.
    key: u32,
    /// The fingerprint of key and person. It has 64 bits, since two that met would be one reaction.
    person: [u32; 2],
}

impl Reaction {
    /// Whether both have the same key.
    pub fn has_key_of(&self, other: &Reaction) -> bool {
        self.key == other.key
    }
}

fn halves(number: u64) -> [u32; 2] {
    [(number >> 32) as u32, number as u32]
}

fn whole([high, low]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// What an operation changed in the index, to be undone.
#[must_use]
#[derive(Debug)]
pub struct Applied(Change);

#[derive(Debug)]
enum Change {
    Nothing,
    Deleted(u64),
    Edited(u64, u64),
    Reaction(Reaction, Option<[u32; 2]>),
    /// Whether the message was pinned before.
    Pinned(u64, bool),
}

impl Operations {
    /// Whether this line is an operation.
    pub fn is_operation(&self, id: u64) -> bool {
        self.lines.contains(id)
    }

    /// Whether this message was deleted.
    pub fn is_deleted(&self, target: u64) -> bool {
        self.deleted.contains(&target)
    }

    /// How many messages were deleted.
    pub fn deleted(&self) -> u64 {
        self.deleted.len() as u64
    }

    /// Whether it edits a message that was deleted before it. It means nothing, and its line is erased as
    /// those of the edits before it were.
    pub fn is_late_edit(&self, operation: &Operation) -> bool {
        operation.action == Action::Edit && self.is_deleted(operation.target)
    }

    /// The line of the last edit of a message.
    pub fn last_edit(&self, target: u64) -> Option<u64> {
        self.edits_of(target).next_back()
    }

    /// The lines of a message's edits, in their order.
    pub fn edits_of(&self, target: u64) -> impl DoubleEndedIterator<Item = u64> {
        self.edits.range((target, 0)..=(target, u64::MAX)).map(|&(_, id)| id)
    }

    /// The reactions that a message has, each with its line: those after `after`, or all of them. Those
    /// with the same key stand together, and in no order of their lines. Finding the first one takes no
    /// longer when many stand before it.
    pub fn reactions(
        &self,
        target: u64,
        after: Option<Reaction>,
    ) -> impl Iterator<Item = (Reaction, u64)> {
        let first = Reaction { target: halves(target), key: 0, person: [0; 2] };
        let last = Reaction { key: u32::MAX, person: [u32::MAX; 2], ..first };
        // One of another message would begin elsewhere.
        let after = after.filter(|after| after.target == first.target);
        let from = after.map_or(Bound::Included(first), Bound::Excluded);
        let found = self.reactions.range((from, Bound::Included(last)));
        found.map(|(reaction, id)| (*reaction, whole(*id)))
    }

    /// Whether a message is pinned.
    pub fn is_pinned(&self, target: u64) -> bool {
        self.pinned.contains(&target)
    }

    /// The messages after this id that are pinned, in their order. Finding the first one takes no
    /// longer when many stand before it.
    pub fn pinned_after(&self, id: u64) -> impl Iterator<Item = u64> {
        self.pinned.range((Bound::Excluded(id), Bound::Unbounded)).copied()
    }

    /// Whether a message may have reactions under this key: it has some, or fewer different keys
    /// than it may have.
    pub fn has_room_for(&self, target: u64, key: &str) -> bool {
        let key = self.key(key);
        let target = halves(target);
        let mut count = 0;
        let mut from = Reaction { target, key: 0, person: [0; 2] };
        // From key to key, past all persons: the cost does not grow with the number of reactions.
        while let Some((found, _)) = self.reactions.range(from..).next()
            && found.target == target
        {
            count += 1;
            if found.key == key {
                return true;
            }
            let Some(next) = found.key.checked_add(1) else { break };
            from = Reaction { target, key: next, person: [0; 2] };
        }
        count < MOST_KEYS
    }

    /// Notes that a line is an operation, whatever it says.
    pub fn push_line(&mut self, id: u64) {
        self.lines.push(id);
    }

    /// Applies an operation that stands on the line `id` and was accepted. `by` is the person whose
    /// reaction it is.
    pub fn apply(&mut self, operation: &Operation, id: u64, by: Option<Person<'_>>) -> Applied {
        let target = operation.target;
        let pin = |pinned: &mut BTreeSet<u64>, is_new: bool| match is_new {
            true => !pinned.insert(target),
            false => pinned.remove(&target),
        };
        Applied(match (&operation.action, by) {
            (Action::Edit, _) => {
                self.edits.insert((target, id));
                Change::Edited(target, id)
            }
            (Action::Delete, _) => {
                self.deleted.insert(target);
                Change::Deleted(target)
            }
            (Action::React(key), Some(person)) => {
                let reaction = self.reaction(target, key, person);
                // The first of several equal reactions counts, so that they keep their order.
                let before = self.reactions.get(&reaction).copied();
                self.reactions.entry(reaction).or_insert(halves(id));
                Change::Reaction(reaction, before)
            }
            (Action::Unreact(key), Some(person)) => {
                let reaction = self.reaction(target, key, person);
                let before = self.reactions.remove(&reaction);
                Change::Reaction(reaction, before)
            }
            (Action::React(_) | Action::Unreact(_), None) => Change::Nothing,
            (Action::Pin, _) => Change::Pinned(target, pin(&mut self.pinned, true)),
            (Action::Unpin, _) => Change::Pinned(target, pin(&mut self.pinned, false)),
        })
    }

    /// Undoes the last of the operations that were applied and not undone. A delete can be undone
    /// until [`Operations::forget`].
    pub fn undo(&mut self, applied: Applied) {
        match applied.0 {
            Change::Nothing => {}
            Change::Deleted(target) => {
                self.deleted.remove(&target);
            }
            Change::Edited(target, id) => {
                self.edits.remove(&(target, id));
            }
            Change::Reaction(reaction, Some(id)) => {
                self.reactions.insert(reaction, id);
            }
            Change::Reaction(reaction, None) => {
                self.reactions.remove(&reaction);
            }
            Change::Pinned(target, true) => {
                self.pinned.insert(target);
            }
            Change::Pinned(target, false) => {
                self.pinned.remove(&target);
            }
        }
    }

    /// Forgets what was said about a message that was deleted; returns the lines of its edits, which
    /// must be erased with it. Where it has very many reactions, most of them are left to
    /// [`Operations::forget_more`].
    pub fn forget(&mut self, target: u64) -> Vec<u64> {
        debug_assert!(self.is_deleted(target), "only a deleted message is forgotten");
        let edits: Vec<u64> = self.edits_of(target).collect();
        for &id in &edits {
            self.edits.remove(&(target, id));
        }
        self.pinned.remove(&target);
        if self.forget_reactions(target, FORGOTTEN_AT_ONCE) == FORGOTTEN_AT_ONCE {
            self.forgotten.push(target);
        }
        edits
    }

    /// Forgets more of the reactions to messages that were deleted. It is to be called now and then.
    pub fn forget_more(&mut self) {
        let mut left = FORGOTTEN_LATER;
        while let Some(&target) = self.forgotten.last() {
            left -= self.forget_reactions(target, left);
            if left == 0 {
                return;
            }
            self.forgotten.pop();
        }
    }

    /// Forgets `most` of the reactions to a message, or all of them; returns how many.
    fn forget_reactions(&mut self, target: u64, most: usize) -> usize {
        let some: Vec<_> = self.reactions(target, None).take(most).map(|(it, _)| it).collect();
        for reaction in &some {
            self.reactions.remove(reaction);
        }
        some.len()
    }

    /// Takes in the operations of a log, in its order. `sender_of` tells the verified sender of a
    /// line. Returns the lines that hold nothing any more: those of deleted messages, and of their
    /// edits, before and after.
    pub fn replay(
        &mut self,
        log: impl IntoIterator<Item = LoggedOperation>,
        mut sender_of: impl FnMut(u64) -> Option<String>,
    ) -> Vec<u64> {
        let mut erased = Vec::new();
        for LoggedOperation { id, operation } in log {
            if let Some(operation) = operation {
                if self.is_late_edit(&operation) {
                    erased.push(id);
                }
                let sender = match operation.action {
                    Action::React(_) | Action::Unreact(_) => sender_of(id),
                    _ => None,
                };
                if self.replay_one(&operation, id, sender.as_deref()).is_ok()
                    && operation.action == Action::Delete
                {
                    erased.push(operation.target);
                    erased.extend(self.forget(operation.target));
                }
            }
            self.push_line(id);
        }
        erased
    }

    /// Takes in an operation of the log, which was allowed when it was stored. The message that it
    /// names may have been erased since, by an operation that is still to come.
    fn replay_one(
        &mut self,
        operation: &Operation,
        id: u64,
        sender: Option<&str>,
    ) -> Result<(), Refusal> {
        let target = if operation.target < id { Target::Message(None) } else { Target::Missing };
        let asker = Asker { sender, standing: Standing::Admin };
        decide(operation, asker, target, self)?;
        let _ = self.apply(operation, id, sender.map(Person::of));
        Ok(())
    }

    fn reaction(&self, target: u64, key: &str, person: Person<'_>) -> Reaction {
        let person = halves(self.hasher.hash_one((key, person)));
        Reaction { target: halves(target), key: self.key(key), person }
    }

    fn key(&self, key: &str) -> u32 {
        self.hasher.hash_one(key) as u32
    }
}

/// Ascending ids, four bytes each.
#[derive(Debug, Default)]
struct Ids(BTreeMap<u32, Vec<u32>>);

impl Ids {
    fn push(&mut self, id: u64) {
        let [high, low] = halves(id);
        let lows = self.0.entry(high).or_default();
        if lows.len() == lows.capacity() {
            // An eighth more: twice as much would be more than the ids themselves.
            lows.reserve_exact(lows.len() / 8 + 4);
        }
        debug_assert!(lows.last().is_none_or(|&last| last < low), "ids ascend");
        lows.push(low);
    }

    fn contains(&self, id: u64) -> bool {
        let [high, low] = halves(id);
        self.0.get(&high).is_some_and(|lows| lows.binary_search(&low).is_ok())
    }
}

#[cfg(test)]
mod tests;
