//! Who is connected, and the messages that are on their way to them.
//!
//! The live are served in turn, round after round, each with all that it lacks in one send. What is
//! said while a round is under way joins it: those whose turn is still to come get it then, the
//! others in the round that follows. So the more is said, the more one send carries, and nobody
//! waits for more than a round. Only who speaks is served out of turn: who hears its own message
//! says the next one while the round goes on, and that is what there is to join it.
//!
//! To 1,000 clients, 8 of them speaking with one message on its way each, this brings 10 times the
//! deliveries of one round a batch, 1.5 times with 16 on their way each; at a fixed rate that fills
//! the hub, it halves the median latency (7.9 to 4.0 ms at 1,000 messages/s).

use std::{io, sync::Arc, thread};

use log::warn;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::{
    message::Frames,
    outbox::{Control, Offer, Outbox},
};

/// Bytes of frames at which a round is ended before more is taken in: about what the kernel holds for
/// a client at the most (`server::NOTSENT`), so that nobody falls behind because its turn came late.
/// Half of it brings 0.9 times the deliveries to 1,000 clients, twice as much none more, but some
/// fall behind.
const WINDOW: usize = 128 << 10;

/// Sends after which others get the processor, should they wait for it: whoever reads what was just
/// sent, on this machine (a proxy, as a rule), and whoever asks the hub something. On one processor
/// it brings 1.36 times the deliveries to 100 clients with 16 messages on their way. On two, the
/// median latency to 100 clients at 200 messages/s is 0.8 times what it was, to 1,000 at 20/s 1.15
/// times, and deliveries are the same.
const YIELD_EVERY: usize = 16;

/// Names a client to the hub, in the order of joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(u64);

/// Starts the thread that catches a client up; called when its socket is found full.
pub type StartCatchUp = Box<dyn Fn(ClientId) -> io::Result<()> + Send>;

/// One client as the hub knows it.
pub struct Client {
    id: ClientId,
    outbox: Arc<Outbox>,
    start_catch_up: StartCatchUp,
    /// The first message that it has not been sent.
    next_id: u64,
    /// Whether it is sent to from here; else it is behind, and its own thread does that.
    is_live: bool,
}

impl Client {
    /// Its name.
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Sends it all frames that it lacks, if it is live; returns how many messages that brings it,
    /// now or by its own thread.
    fn serve(&mut self, frames: &Frames) -> u64 {
        if !self.is_live || self.next_id >= frames.next_id() {
            return 0;
        }
        let lacked = frames.count_from(self.next_id);
        match self.outbox.offer(frames, frames.start_of(self.next_id)) {
            Offer::Sent => {
                self.next_id = frames.next_id();
                lacked
            }
            // Its own thread will say that it is behind, or has left.
            Offer::Behind | Offer::Closed => 0,
            Offer::Full(next_id) => {
                self.next_id = next_id;
                self.is_live = false;
                self.catch_up();
                lacked - frames.count_from(next_id)
            }
        }
    }

    /// What follows when its socket was found full.
    fn catch_up(&self) {
        if let Err(error) = (self.start_catch_up)(self.id) {
            warn!("cannot start a thread to catch a client up, closing it: {error}");
            self.outbox.abort();
        }
    }

    /// Sends a whole control frame or error answer.
    pub fn control(&self, frame: &[u8]) {
        if self.outbox.control(frame) == Control::Full {
            self.catch_up();
        }
    }

    /// Says goodbye.
    pub fn close(&self, code: CloseCode, reason: &'static str) {
        if self.outbox.close(code, reason) == Control::Full {
            self.catch_up();
        }
    }
}

/// Where a client stands that has been sent all it was given.
pub enum Place {
    /// It lacks messages from this one on that are in the history only.
    Lacks(u64),
    /// Frames of its own wait to be sent first.
    Waits,
    /// It is live; so many messages were sent with that.
    Live(u64),
}

/// All clients, in the order of joining, and the frames that some of the live may lack.
pub struct Fanout {
    clients: Vec<Client>,
    next_client: u64,
    frames: Frames,
    /// How many of the frames may be sent.
    published: usize,
    /// All messages from this id on are in `frames`.
    first_id: u64,
    /// Whose turn it is.
    turn: usize,
    /// How many turns are left until everybody has everything.
    turns: usize,
}

impl Fanout {
    /// Nobody is connected, and messages begin with `first_id`.
    pub fn new(first_id: u64) -> Fanout {
        Fanout {
            clients: Vec::new(),
            next_client: 1,
            frames: Frames::default(),
            published: 0,
            first_id,
            turn: 0,
            turns: 0,
        }
    }

    /// All clients.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// How many of them are not live.
    pub fn behind(&self) -> usize {
        self.clients.iter().filter(|client| !client.is_live).count()
    }

    /// Takes in a client that will be sent everything before `next_id` by its own thread.
    pub fn join(
        &mut self,
        outbox: Arc<Outbox>,
        start_catch_up: StartCatchUp,
        next_id: u64,
    ) -> &Client {
        let id = ClientId(self.next_client);
        self.next_client += 1;
        // It stands where the round begins again: those behind it are served one turn later.
        self.turns += usize::from(self.turns > 0);
        self.clients.push(Client { id, outbox, start_catch_up, next_id, is_live: false });
        self.clients.last().expect("it was just pushed")
    }

    /// Forgets a client.
    pub fn leave(&mut self, id: ClientId) {
        if let Some(at) = self.position(id) {
            self.clients.remove(at);
            self.turn -= usize::from(at < self.turn);
        }
    }

    /// A client, as long as it is there.
    pub fn get(&self, id: ClientId) -> Option<&Client> {
        self.position(id).map(|at| &self.clients[at])
    }

    fn position(&self, id: ClientId) -> Option<usize> {
        self.clients.binary_search_by_key(&id, |client| client.id).ok()
    }

    /// Makes a client live if it lacks nothing that is not at hand, and sends it that.
    pub fn catch_up(&mut self, id: ClientId) -> Option<Place> {
        let at = self.position(id)?;
        let client = &mut self.clients[at];
        client.is_live = false;
        if client.next_id < self.first_id {
            return Some(Place::Lacks(client.next_id));
        }
        if !client.outbox.go_live() {
            return Some(Place::Waits);
        }
        client.is_live = true;
        // What is at hand may have come while it asked. If that were a round of its own, the next
        // one would come while it sent that: it would never be live on a busy server.
        Some(Place::Live(client.serve(&self.frames)))
    }

    /// A client is sent, by its own thread, everything before `next_id`.
    pub fn promise(&mut self, id: ClientId, next_id: u64) {
        if let Some(at) = self.position(id) {
            self.clients[at].next_id = next_id;
        }
    }

    /// Messages from `first_id` on follow. If everybody has all that went before, that is forgotten.
    pub fn begin(&mut self, first_id: u64) {
        if self.turns == 0 {
            self.frames.clear();
            self.published = 0;
            self.first_id = first_id;
        }
    }

    /// Encodes one more message, once for everybody; nobody is sent it before [`Fanout::publish`].
    pub fn push(&mut self, message: &[u8], id: u64, ts: u64) {
        self.frames.push(message, id, Some(ts));
    }

    /// Bytes of frames that somebody may lack.
    pub fn bytes(&self) -> usize {
        self.frames.bytes().len()
    }

    /// From now on, what was pushed is sent to everybody; how many messages that was.
    pub fn publish(&mut self) -> u64 {
        let new = self.frames.len() - self.published;
        self.published = self.frames.len();
        if new > 0 {
            self.turns = self.clients.len();
        }
        new as u64
    }

    /// Serves one client out of turn; how many messages it got. Its turn will find it served.
    pub fn serve(&mut self, id: ClientId) -> u64 {
        self.position(id).map_or(0, |at| self.clients[at].serve(&self.frames))
    }

    /// Serves everybody in turn, until all have everything, or it is enough for now and there is room
    /// for more to join the round; how many messages they got. At least one turn is taken, so that
    /// the round goes on whatever else the hub is asked.
    pub fn go_round(&mut self, enough: impl Fn() -> bool) -> u64 {
        let mut sent = 0;
        let mut sends = 0;
        while self.turns > 0 {
            self.turns -= 1;
            if self.turn >= self.clients.len() {
                self.turn = 0;
            }
            let Some(client) = self.clients.get_mut(self.turn) else { continue };
            self.turn += 1;
            let messages = client.serve(&self.frames);
            if messages > 0 {
                sent += messages;
                sends += 1;
                if sends % YIELD_EVERY == 0 {
                    thread::yield_now();
                }
            }
            if self.bytes() < WINDOW && enough() {
                break;
            }
        }
        sent
    }

    /// Forgets what was pushed and is not to be sent, since it could not be stored.
    pub fn retract(&mut self) {
        self.frames.truncate(self.published);
    }

    /// Says goodbye to everybody.
    pub fn close_all(&self, code: CloseCode, reason: &'static str) {
        for client in &self.clients {
            client.close(code, reason);
        }
    }
}
