//! What the hub answers to clients that join or are behind, and to requests that read.
//!
//! The hub reads no file for it: it names stretches and stamps, and the threads that ask read them.

use std::{sync::Arc, time::Instant};

use crossbeam_channel::Sender;

use super::Hub;
use crate::{
    access::Permit,
    command::{
        ClientId, Joined, MessageState, NextStep, Reactions, Reply, StampedLine, States, StatesOf,
        View,
    },
    fanout::Missing,
    history::{Resume, Stretch, Window},
    operations::Reaction,
    outbox::Outbox,
    stamps::{Since, Stamps},
    wire::CloseReason,
};

/// The hub names no more pinned messages at a time when it has named this many lines of messages, edits
/// and reactions. These lines take about 10 KiB in the thread that asked, as much as the bytes that it
/// sends at a time (`web/sending.rs`), and the hub a few microseconds. With fewer, the commands would cost
/// more than the answers.
const PINNED_LINES: usize = 32;

const _: () = assert!(PINNED_LINES * size_of::<MessageState>() <= 10 << 10);

/// The most reactions of which the hub names the lines along with the message. Where there are more, it
/// tells where their lines stand when it is asked for them, since anybody can make any number of
/// pseudonyms, each with a reaction.
const FEW_REACTIONS: usize = PINNED_LINES;

/// Of more reactions, the hub tells this many at a time. They take it less than 0.1 ms.
const REACTIONS_AT_ONCE: usize = 1024;

impl Hub {
    pub(super) fn join(
        &mut self,
        outbox: Arc<Outbox>,
        permit: Arc<Permit>,
        resume: &Resume,
        reply: oneshot::Sender<Joined>,
    ) {
        let client = self.fanout.join(outbox, permit.clone(), self.history.last_id() + 1);
        if self.stopping {
            self.fanout.close(client, CloseReason::Stopping);
        } else if !permit.may_read() {
            // The rules changed after its request was looked at, and the hub may have looked at the
            // other clients before this one came.
            self.fanout.dismiss(client, Instant::now());
        }
        self.metrics.joined();
        self.publish();
        let snapshot = self.history.snapshot(resume, self.journal.epoch());
        // A client that has stopped waiting is about to leave.
        let _ = reply.send(Joined { client, snapshot });
    }

    pub(super) fn next_step(
        &mut self,
        client: ClientId,
        next_id: Option<u64>,
        reply: Reply<NextStep>,
    ) {
        let Some(missing) = self.fanout.make_live(client, next_id) else { return };
        let next = match missing {
            Missing::Messages(next_id) => {
                let stretch = self.history.stretch(next_id);
                let stamps = self.stamps_of(&stretch);
                NextStep::Stretch(stretch, stamps)
            }
            Missing::ControlFrames => NextStep::ControlFrames,
            Missing::Nothing(sent) => {
                self.metrics.delivered(sent);
                NextStep::Live
            }
        };
        reply.send(next);
    }

    /// Names the next lines of a part of the history that is read a stretch at a time.
    pub(super) fn next_of_history(
        &mut self,
        next_id: u64,
        last_id: u64,
        reply: Reply<(Stretch, Stamps)>,
    ) {
        let stretch = self.history.stretch_up_to(next_id, last_id);
        let stamps = self.stamps_of(&stretch);
        reply.send((stretch, stamps));
    }

    pub(super) fn look(
        &mut self,
        window: &Window,
        follow: Option<Sender<()>>,
        reply: oneshot::Sender<View>,
    ) {
        // A server that stops drops the follower at once, which ends its stream.
        if let Some(follower) = follow.filter(|_| !self.stopping) {
            self.followers.add(follower);
        }
        let stretch = self.history.window(window);
        let view = View {
            stamps: self.stamps_of(&stretch),
            stretch,
            epoch: self.journal.epoch().clone(),
            last_id: self.history.last_id(),
            end: self.history.end(),
            deleted: self.history.operations().deleted(),
        };
        // A caller that has stopped waiting needs no answer.
        let _ = reply.send(view);
    }

    pub(super) fn states(&self, of: StatesOf, reply: oneshot::Sender<States>) {
        let mut states = States {
            epoch: self.journal.epoch().clone(),
            messages: Vec::new(),
            is_deleted: false,
            more_after: None,
        };
        match of {
            StatesOf::Message(id) => {
                states.messages.extend(self.state(id));
                states.is_deleted = self.history.operations().is_deleted(id);
            }
            StatesOf::PinnedAfter(id) => self.name_pinned(id, &mut states),
        }
        // A caller that has stopped waiting needs no answer.
        let _ = reply.send(states);
    }

    /// Names the next messages after an id that are pinned, and says where the rest begins.
    fn name_pinned(&self, mut after: u64, states: &mut States) {
        let mut lines = 0;
        for id in self.history.operations().pinned_after(after) {
            if lines >= PINNED_LINES {
                states.more_after = Some(after);
                return;
            }
            // A hole that a file pins counts as a line, too: looking at it takes time.
            lines += 1;
            if let Some(state) = self.state(id) {
                lines += usize::from(state.edit.is_some());
                if let Reactions::Few(reactions) = &state.reactions {
                    lines += reactions.len();
                }
                states.messages.push(state);
            }
            after = id;
        }
    }

    /// The present state of a message; `None` when it is not there.
    fn state(&self, id: u64) -> Option<MessageState> {
        let operations = self.history.operations();
        let line = |id| self.line(id);
        self.history.is_message(id).then(|| MessageState {
            message: self.line(id),
            edit: operations.last_edit(id).map(line),
            reactions: self.reactions(id),
            is_pinned: operations.is_pinned(id),
        })
    }

    fn reactions(&self, target: u64) -> Reactions {
        let reactions = self.history.operations().reactions(target, None);
        let mut ids: Vec<u64> = reactions.take(FEW_REACTIONS + 1).map(|(_, id)| id).collect();
        if ids.len() > FEW_REACTIONS {
            return Reactions::Many;
        }
        ids.sort_unstable();
        Reactions::Few(ids.into_iter().map(|id| self.line(id)).collect())
    }

    /// Tells the next of the many reactions that a message has.
    pub(super) fn next_reactions(
        &self,
        target: u64,
        after: Option<Reaction>,
        reply: oneshot::Sender<Option<Vec<(Reaction, u64)>>>,
    ) {
        let reactions = self.history.operations().reactions(target, after);
        let next =
            self.history.is_message(target).then(|| reactions.take(REACTIONS_AT_ONCE).collect());
        // A caller that has stopped waiting needs no answer.
        let _ = reply.send(next);
    }

    fn line(&self, id: u64) -> StampedLine {
        let stretch = self.history.stretch_up_to(id, id);
        StampedLine { stamps: self.stamps_of(&stretch), stretch }
    }

    pub(super) fn since(&self, ts: u64, reply: oneshot::Sender<Since>) {
        let since = self.journal.since(ts);
        let since = since.unwrap_or_else(|| self.recent.since(ts, self.history.last_id() + 1));
        // A caller that has stopped waiting needs no answer.
        let _ = reply.send(since);
    }

    /// The stamps of the messages in a stretch.
    fn stamps_of(&self, stretch: &Stretch) -> Stamps {
        let (first_id, last_id) = (stretch.first_id, stretch.last_id);
        let stored = self.journal.stamps_from(first_id);
        stored.unwrap_or_else(|| Stamps::Remembered(self.recent.around(first_id, last_id)))
    }
}

#[cfg(test)]
mod tests;
