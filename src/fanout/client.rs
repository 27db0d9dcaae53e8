//! One client as the hub knows it, and what it is sent at a time.

use std::sync::Arc;

use super::events::{Events, Listening};
use crate::{
    access::Permit,
    command::ClientId,
    outbox::{ControlOutcome, Offered, Outbox},
    wire::{CutFrame, Frames},
};

/// One client as the hub knows it.
pub(super) struct Client {
    pub(super) outbox: Arc<Outbox>,
    /// What it may do in the channel.
    pub(super) permit: Arc<Permit>,
    /// The id of the first message that it has not been sent. For a client that is behind, this is
    /// as it was when the client fell behind.
    pub(super) next_id: u64,
    /// The id after the last message that there was at its last turn. From the client whose turn is
    /// next, these ids never go back along the round. Messages that a client was sent out of turn,
    /// as a speaker, do not change it.
    pub(super) next_id_at_turn: u64,
    /// How far it has come with events, if it asked for them.
    pub(super) listening: Option<Box<Listening>>,
}

/// A client whose socket was found full, to be handed over to the catch-up threads.
#[derive(Debug)]
pub struct FellBehind {
    /// The client.
    pub client: ClientId,
    /// Its sending side.
    pub outbox: Arc<Outbox>,
    /// The rest of the frame of which the socket took a part.
    pub cut: CutFrame,
    /// The id of the first message after the cut frame. `None` when a control frame was cut: the
    /// client then lacks the messages that [`make_live`](super::Fanout::make_live) knows of.
    pub next_id: Option<u64>,
}

/// What a client has been sent, and how it is now.
pub(super) struct Served {
    /// How many messages it got.
    pub(super) messages: u64,
    /// Whether it can be sent more.
    pub(super) is_live: bool,
}

impl Client {
    /// Sends the client all frames that it lacks, and the events that it was not told.
    pub(super) fn serve(
        &mut self,
        id: ClientId,
        frames: &Frames,
        events: &Events,
        fell_behind: &mut Vec<FellBehind>,
    ) -> Served {
        let listening = self.listening.as_mut();
        let events = listening.map_or_else(Vec::new, |listening| events.take_for(id, listening));
        if self.next_id >= frames.next_id() && events.is_empty() {
            return Served { messages: 0, is_live: true };
        }
        let lacked = frames.count_from(self.next_id);
        match self.outbox.offer(frames, frames.start_of(self.next_id), &events) {
            Offered::Sent => {
                self.next_id = frames.next_id().max(self.next_id);
                Served { messages: lacked, is_live: true }
            }
            // The client's own thread found the socket full, or is about to tell the hub that the
            // client has left.
            Offered::NotLive => Served { messages: 0, is_live: false },
            Offered::SocketFull { cut, next_id } => {
                // Where events were cut, there may be no frame of a message.
                self.next_id = next_id.max(self.next_id);
                let (outbox, next_id) = (self.outbox.clone(), Some(self.next_id));
                let messages = lacked - frames.count_from(self.next_id);
                fell_behind.push(FellBehind { client: id, outbox, cut, next_id });
                Served { messages, is_live: false }
            }
        }
    }

    /// Sends the client a control frame by `send`.
    pub(super) fn control(
        &self,
        id: ClientId,
        fell_behind: &mut Vec<FellBehind>,
        send: impl FnOnce(&Outbox) -> ControlOutcome,
    ) {
        if let ControlOutcome::SocketFull(cut) = send(&self.outbox) {
            fell_behind.push(FellBehind {
                client: id,
                outbox: self.outbox.clone(),
                cut,
                next_id: None,
            });
        }
    }
}
