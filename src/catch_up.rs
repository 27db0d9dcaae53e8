//! Brings one client that is behind up to date: whoever joins, and whoever's socket was full.
//!
//! It sends what the client lacks from the history, block by block, asks the hub for more, and ends
//! when the hub has made the client live. A joiner's own thread starts it, without waiting; once
//! the socket is full, a thread of its own goes on with it.

use std::{io, sync::Arc, thread, time::Duration};

use log::{debug, error};
use tungstenite::protocol::frame::coding::CloseCode;

use crate::{
    fanout::ClientId,
    history::{HistoryFrame, LiveFrames, Snapshot},
    hub::{HubHandle, Next},
    message::close_frame,
    metrics::Metrics,
    outbox::{Last, Outbox, SEND_SLICE, SendError},
};

/// The stack of a thread that catches up: its blocks are on the heap.
const STACK: usize = 64 << 10;

/// What sending to one client needs, apart from what to send.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Its sending side.
    pub outbox: Arc<Outbox>,
    /// To ask for more.
    pub hub: HubHandle,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How long it may take nothing.
    pub stall_timeout: Duration,
    /// The number in the names of its threads.
    pub number: u64,
}

impl Reach {
    /// Starts a thread that catches the client up from where the hub knows it to be.
    ///
    /// # Errors
    /// When the thread cannot be started; nobody sends to the client then, so close it.
    pub fn start_catch_up(&self, client: ClientId) -> io::Result<()> {
        CatchUp::new(self.clone(), client).spawn()
    }
}

/// One client's way from behind to live.
#[derive(Debug)]
pub struct CatchUp {
    reach: Reach,
    client: ClientId,
    source: Source,
    /// On its way out: `buffer[sent..]` is left.
    buffer: Vec<u8>,
    sent: usize,
    /// Whether `buffer` ends with the close frame.
    last: Last,
}

#[derive(Debug)]
enum Source {
    /// Nothing but what waits: ask the hub.
    Hub,
    History(Box<HistoryFrame>),
    Live(Box<LiveFrames>),
}

/// How far it came without waiting.
#[derive(Debug)]
pub enum Start {
    /// The client is live, or closed.
    Done,
    /// Its socket is full: spawn this.
    Full(CatchUp),
}

impl CatchUp {
    fn new(reach: Reach, client: ClientId) -> CatchUp {
        let last = Last::No;
        CatchUp { reach, client, source: Source::Hub, buffer: Vec::new(), sent: 0, last }
    }

    /// For a client that joins: sends `head`, then the snapshot.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn joining(
        reach: Reach,
        client: ClientId,
        head: Vec<u8>,
        snapshot: Snapshot,
    ) -> io::Result<CatchUp> {
        let mut catch_up = CatchUp::new(reach, client);
        let mut frame = Box::new(HistoryFrame::new(snapshot)?);
        catch_up.buffer = head;
        // One packet, as a rule, for the handshake and a short history.
        frame.fill(&mut catch_up.buffer)?;
        catch_up.source = Source::History(frame);
        Ok(catch_up)
    }

    /// Sends as long as the socket takes it at once.
    pub fn start(mut self) -> Start {
        loop {
            match self.reach.outbox.send_now(&self.buffer[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) => {
                    debug!("sending failed: {error}");
                    self.reach.outbox.abort();
                    return Start::Done;
                }
            }
            if self.sent < self.buffer.len() {
                return Start::Full(self);
            }
            if self.refill() == Refilled::Ended {
                return Start::Done;
            }
        }
    }

    /// Goes on in a thread of its own, which waits for the client.
    ///
    /// # Errors
    /// When the thread cannot be started; nobody sends to the client then, so close it.
    pub fn spawn(self) -> io::Result<()> {
        let name = format!("behind-{}", self.reach.number);
        thread::Builder::new().name(name).stack_size(STACK).spawn(move || self.run()).map(drop)
    }

    fn run(mut self) {
        if let Err(error) = self.reach.outbox.socket().set_write_timeout(Some(SEND_SLICE)) {
            debug!("no send timeout: {error}");
            return self.reach.outbox.abort();
        }
        loop {
            let bytes = &self.buffer[self.sent..];
            match self.reach.outbox.send_patiently(bytes, self.reach.stall_timeout) {
                Ok(()) => self.sent = self.buffer.len(),
                Err(SendError::Stalled(sent)) => return self.give_up(sent),
                Err(SendError::Gone) => return self.reach.outbox.abort(),
            }
            if self.refill() == Refilled::Ended {
                return;
            }
        }
    }

    /// Closes a client that takes nothing, with a word if it can still be said between frames.
    fn give_up(&self, sent: usize) {
        debug!("a client took nothing for {:?}; closing it", self.reach.stall_timeout);
        // Only a buffer of live frames is known to begin between frames.
        if sent == 0 && self.sent == 0 && matches!(self.source, Source::Live(_)) {
            let reason = "nothing was taken for too long; come back with after=";
            // The socket is full, so this is a hope and no more.
            let _ = self.reach.outbox.send_now(&close_frame(CloseCode::Again, reason));
        }
        self.reach.outbox.abort_stalled();
    }

    /// Fetches what is to be sent next into the empty buffer.
    fn refill(&mut self) -> Refilled {
        if self.last == Last::Close {
            self.reach.outbox.closed();
            return Refilled::Ended;
        }
        self.buffer.clear();
        self.sent = 0;
        let filled = match &mut self.source {
            Source::Hub => Ok(false),
            Source::History(frame) => frame.fill(&mut self.buffer),
            Source::Live(frames) => frames.fill(&mut self.buffer),
        };
        match filled {
            Ok(true) => {
                if let Source::Live(frames) = &self.source {
                    self.reach.metrics.delivered(frames.filled());
                    self.last = self.reach.outbox.take_waiting(&mut self.buffer);
                }
                return Refilled::More;
            }
            Ok(false) => {}
            Err(error) => {
                error!("reading the history failed: {error}");
                self.reach.outbox.abort();
                return Refilled::Ended;
            }
        }
        // Between frames, with nothing left of the last round.
        self.last = self.reach.outbox.take_waiting(&mut self.buffer);
        if !self.buffer.is_empty() {
            self.source = Source::Hub;
            return Refilled::More;
        }
        match self.reach.hub.catch_up(self.client) {
            Ok(Next::Live) | Err(_) => Refilled::Ended,
            Ok(Next::Control) => {
                self.source = Source::Hub;
                Refilled::More
            }
            Ok(Next::Round(range, times)) => match LiveFrames::new(range, times) {
                Ok(frames) => {
                    self.source = Source::Live(Box::new(frames));
                    Refilled::More
                }
                Err(error) => {
                    error!("reading the history failed: {error}");
                    self.reach.outbox.abort();
                    Refilled::Ended
                }
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refilled {
    More,
    Ended,
}

#[cfg(test)]
mod tests;
