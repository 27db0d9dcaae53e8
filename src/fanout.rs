//! The clients of one hub, and the messages that are on their way to them.
//!
//! The hub goes round the live clients, again and again. When a client's turn comes, one send
//! brings it all messages that it lacks. Messages that arrive during a round join it: clients whose
//! turn is still to come get them in this round, the other clients in the next. So the more is
//! said, the more one send carries, and no client waits longer than a round. Speakers are served
//! first: their next message then arrives while the round is still running, and joins it.
//!
//! This was compared with one full round for each batch, with 1,000 clients of which 8 speak. It
//! delivers 10 times as many messages where each speaker has one message on its way, and 1.5 times
//! as many where each has 16. At a fixed rate that fills the hub, it halves the median latency
//! (from 7.9 to 4.0 ms at 1,000 messages/s).
//!
//! A client whose socket is full leaves the round; [`Fanout::take_fell_behind`] hands it out.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
    time::Instant,
};

use crate::{
    access::Permit,
    command::ClientId,
    outbox::Outbox,
    unsent::UNSENT,
    wire::{CloseReason, Frames},
};

mod client;
mod dismissals;
mod events;
mod yields;

pub use client::FellBehind;

use client::{Client, Served};
use dismissals::Dismissals;
use events::{Events, Round};
use yields::{Pressure, YIELD_EVERY, Yields};

/// The round does not pause after a client for which more bytes of frames than this had come since
/// its last turn: the next client lacks about as much. It is about what the kernel may hold for
/// a client at first (`unsent::UNSENT`), so that none falls behind because its turn came late. With
/// half of both, 100 clients with 16 messages on their way get 0.9 times as many messages, and 1,000
/// get 0.8 times as many.
const LAG_LIMIT: usize = 256 << 10;

// A client that reads does not fall behind because its turn in a round came late.
const _: () = assert!(LAG_LIMIT as u64 <= UNSENT);

/// Frames that all clients have are forgotten when they have at least this many bytes: moving the
/// other frames to the front of the memory then costs less than a send.
const FORGET_BYTES: usize = 64 << 10;

/// What keeps a client that is behind from being live.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// It lacks messages from this id on, and their frames have been forgotten: the history has
    /// them.
    Messages(u64),
    /// Control frames wait to be sent first.
    ControlFrames,
    /// Nothing: it is live. This many messages were sent to it in the same moment.
    Nothing(u64),
}

/// All clients, and the frames that some of the live ones may lack.
pub struct Fanout {
    /// The clients that were live at their last send, in the order of joining, which is the order
    /// of a round. Whether a client is still live, its outbox knows.
    live: BTreeMap<ClientId, Client>,
    behind: BTreeMap<ClientId, Client>,
    fell_behind: Vec<FellBehind>,
    dismissals: Dismissals,
    next_client: u64,
    frames: Frames,
    /// How many of the frames may be sent.
    published: usize,
    /// All messages from this id on are in `frames`.
    first_id: u64,
    /// The last client that had its turn.
    last_served: ClientId,
    /// How many turns are left until all live clients have all messages.
    turns_left: usize,
    events: Events,
    yields: Yields,
}

impl Fanout {
    /// A fanout without clients, whose first message will have the id `first_id`.
    pub fn new(first_id: u64) -> Fanout {
        Fanout {
            live: BTreeMap::new(),
            behind: BTreeMap::new(),
            fell_behind: Vec::new(),
            dismissals: Dismissals::default(),
            next_client: 1,
            frames: Frames::default(),
            published: 0,
            first_id,
            last_served: ClientId(0),
            turns_left: 0,
            events: Events::default(),
            yields: Yields::default(),
        }
    }

    /// How many clients there are, live or behind.
    pub fn clients(&self) -> usize {
        self.live.len() + self.behind.len()
    }

    /// How many clients are behind.
    pub fn behind(&self) -> usize {
        self.behind.len()
    }

    /// The clients that fell behind since the last call; the catch-up threads are to have them.
    pub fn take_fell_behind(&mut self) -> impl Iterator<Item = FellBehind> {
        self.fell_behind.drain(..)
    }

    /// Takes in a client, which is behind: other threads send it all messages before `next_id`.
    pub fn join(&mut self, outbox: Arc<Outbox>, permit: Arc<Permit>, next_id: u64) -> ClientId {
        let id = ClientId(self.next_client);
        self.next_client += 1;
        let client = Client { outbox, permit, next_id, next_id_at_turn: next_id, listening: None };
        self.behind.insert(id, client);
        self.events.change();
        id
    }

    /// Tells a client from now on who is here and who types.
    pub fn listen(&mut self, id: ClientId) {
        let client = self.live.get_mut(&id).or_else(|| self.behind.get_mut(&id));
        if let Some(client) = client.filter(|client| client.listening.is_none()) {
            client.listening = Some(self.events.listen());
        }
    }

    /// Tells the clients that listen that this one types.
    pub fn typing(&mut self, id: ClientId) {
        let client = self.live.get(&id).or_else(|| self.behind.get(&id));
        let sender = client.and_then(|client| client.permit.sender());
        if let Some(sender) = sender.filter(|_| self.events.has_listeners()) {
            let round = if self.turns_left == 0 { Round::Over } else { Round::GoesOn };
            self.events.tell_typing(id, &sender, round);
            self.turns_left = self.live.len();
        }
    }

    /// Tells the clients that listen who is here, if that has changed and is due.
    pub fn tell_presence(&mut self, now: impl FnOnce() -> Instant) {
        if !self.events.has_listeners() {
            return;
        }
        let now = now();
        if self.events.is_presence_due(now) {
            let mut clients: Vec<_> = self.live.iter().chain(&self.behind).collect();
            clients.sort_unstable_by_key(|(id, _)| **id);
            let senders = clients.into_iter().map(|(_, client)| client.permit.sender());
            self.events.tell_presence(senders, now);
            self.turns_left = self.live.len();
        }
    }

    /// Forgets a client.
    pub fn leave(&mut self, id: ClientId) {
        let client = self.live.remove(&id).or_else(|| self.behind.remove(&id));
        if client.is_some_and(|client| client.listening.is_some()) {
            self.events.end_listening();
        }
        self.events.change();
    }

    /// Makes a client live, if the frames that are at hand are all that it lacks, and sends it
    /// those frames. `next_id` is the id of the first message of which it has no part, if it was
    /// sent messages while it was behind. `None` if there is no such client.
    pub fn make_live(&mut self, id: ClientId, next_id: Option<u64>) -> Option<Missing> {
        let mut client = self.live.remove(&id).or_else(|| self.behind.remove(&id))?;
        client.next_id = next_id.unwrap_or(client.next_id);
        if client.next_id < self.first_id {
            let next_id = client.next_id;
            self.behind.insert(id, client);
            return Some(Missing::Messages(next_id));
        }
        if !client.outbox.go_live() {
            self.behind.insert(id, client);
            return Some(Missing::ControlFrames);
        }
        // The frames at hand may have come while the client asked. If it were sent them from the
        // file, more would come in the meantime: on a busy server it would never be live.
        if let Some(listening) = &mut client.listening {
            self.events.skip(listening);
        }
        let Served { messages, is_live } =
            client.serve(id, &self.frames, &self.events, &mut self.fell_behind);
        if is_live {
            // The clients after it in the round may lack frames that it has.
            client.next_id_at_turn = self.first_id;
            self.live.insert(id, client);
            // It may stand before clients whose turn in this round is still to come, and then it
            // has a turn, too.
            self.turns_left += usize::from(self.turns_left > 0);
        } else {
            self.behind.insert(id, client);
        }
        Some(Missing::Nothing(messages))
    }

    /// Prepares for messages from `first_id` on. If all live clients have all messages before,
    /// their frames are forgotten.
    pub fn begin_at(&mut self, first_id: u64) {
        if self.turns_left == 0 {
            self.frames.clear();
            self.published = 0;
            self.first_id = first_id;
        }
    }

    /// Gives the memory for frames back, while there is no client to send any to. The next message has
    /// the id `first_id`.
    pub fn rest(&mut self, first_id: u64) {
        self.begin_at(first_id);
        if self.frames.is_empty() {
            self.frames = Frames::default();
        }
    }

    /// Makes the frame of one more message, which stands at `offset` in the file. No client is sent
    /// the frame before [`Fanout::publish`]. `ts` is in Unix milliseconds, `from` the verified sender.
    pub fn push(&mut self, message: &[u8], offset: u64, id: u64, ts: u64, from: Option<&str>) {
        self.frames.push(message, offset, id, Some(ts), from);
    }

    /// The length of the frames that a live client may lack, in bytes.
    pub fn bytes(&self) -> usize {
        self.frames.bytes().len()
    }

    /// Lets all frames that were pushed be sent; returns how many messages are new with that.
    pub fn publish(&mut self) -> u64 {
        let new = self.frames.len() - self.published;
        self.published = self.frames.len();
        if new > 0 {
            self.yields.press(match self.turns_left {
                0 => Pressure::Low,
                _ => Pressure::High,
            });
            self.turns_left = self.live.len();
        }
        new as u64
    }

    /// Sends one client all that it lacks before its turn; returns how many messages that were. Its
    /// turn still comes, and may then have nothing to send.
    pub fn serve_out_of_turn(&mut self, id: ClientId) -> u64 {
        let Some(client) = self.live.get_mut(&id) else { return 0 };
        let Served { messages, is_live } =
            client.serve(id, &self.frames, &self.events, &mut self.fell_behind);
        if !is_live {
            self.leave_round(id);
        }
        messages
    }

    /// Lets threads that are about to send the hub a command do so before it takes a batch, where more
    /// commands make for fewer sends.
    pub fn let_others_speak(&self) {
        self.yields.yield_before_batch();
    }

    /// Serves the live clients in turn; returns how many messages they got. It ends when all have
    /// all messages, or when `should_pause` says so and the client that was just served had not
    /// lacked too much. At least one client has its turn, so that the round goes on whatever else
    /// the hub is asked. Frames that all clients have are forgotten on the way.
    pub fn go_round(&mut self, should_pause: impl Fn() -> bool) -> u64 {
        let mut sent = 0;
        let mut sends = 0;
        let mut fell = Vec::new();
        let mut pauses = false;
        while self.turns_left > 0 && !pauses {
            let mut clients = self.live.range_mut((Excluded(self.last_served), Unbounded));
            while self.turns_left > 0 && !pauses {
                let Some((&id, client)) = clients.next() else {
                    // After the client that joined last, it is the turn of the one that joined
                    // first.
                    self.last_served = ClientId(0);
                    break;
                };
                self.last_served = id;
                self.turns_left -= 1;
                // All other clients have had a turn since this client had its last one.
                let forgotten = self.frames.forget_before(client.next_id_at_turn, FORGET_BYTES);
                if forgotten > 0 {
                    self.published -= forgotten;
                    self.first_id = client.next_id_at_turn;
                }
                let lag = self.frames.bytes().len() - self.frames.start_of(client.next_id_at_turn);
                client.next_id_at_turn = self.frames.next_id().max(client.next_id_at_turn);
                let Served { messages, is_live } =
                    client.serve(id, &self.frames, &self.events, &mut self.fell_behind);
                if !is_live {
                    fell.push(id);
                }
                if messages > 0 {
                    sent += messages;
                    sends += 1;
                    if sends % YIELD_EVERY == 0 {
                        self.yields.yield_now();
                    }
                }
                pauses = lag < LAG_LIMIT && should_pause();
            }
            fell.drain(..).for_each(|id| self.leave_round(id));
            if self.live.is_empty() {
                self.turns_left = 0;
            }
        }
        sent
    }

    fn leave_round(&mut self, id: ClientId) {
        if let Some(client) = self.live.remove(&id) {
            self.behind.insert(id, client);
        }
    }

    /// Takes messages that were deleted out of the frames; `ids` are in order. Frames that were cut before
    /// must have been handed over.
    pub fn remove(&mut self, ids: &[u64]) {
        debug_assert!(self.fell_behind.is_empty(), "cut frames were handed over");
        self.published -= self.frames.remove(ids, self.published);
    }

    /// Forgets the frames that were pushed and not published: their messages could not be stored.
    pub fn retract(&mut self) {
        self.frames.truncate(self.published);
    }

    /// Sends a client a whole control frame or error answer.
    pub fn control(&mut self, id: ClientId, frame: &[u8]) {
        if let Some(client) = self.live.get(&id).or_else(|| self.behind.get(&id)) {
            client.control(id, &mut self.fell_behind, |outbox| outbox.control(frame));
        }
    }

    /// Sends one client a close frame.
    pub fn close(&mut self, id: ClientId, reason: CloseReason) {
        if let Some(client) = self.live.get(&id).or_else(|| self.behind.get(&id)) {
            client.control(id, &mut self.fell_behind, |outbox| outbox.close(reason));
        }
    }

    /// Sends all clients a close frame.
    pub fn close_all(&mut self, reason: CloseReason) {
        for (&id, client) in self.live.iter().chain(&self.behind) {
            client.control(id, &mut self.fell_behind, |outbox| outbox.close(reason));
        }
    }
}
