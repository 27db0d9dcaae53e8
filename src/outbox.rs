//! The sending side of one client.
//!
//! It is *live* as long as its socket takes at once what it is offered: then the hub sends straight
//! into it. When the socket is full it is *behind*: nothing is queued for it, it is caught up from the
//! history (`catch_up.rs`), and the hub makes it live again when nothing is missing. The state, which
//! has its only home here, decides who may write: everybody, never waiting, while live; only the
//! thread that catches it up, while behind; nobody, once closed. So every byte that leaves is part of
//! a whole frame.

use std::{
    io,
    net::Shutdown,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use log::debug;
use socket2::Socket;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::wire::{CutFrame, Frames, close_frame};

/// Bytes of control frames and error answers that wait for a client that is behind. Further ones are
/// dropped: a peer that reads none of so many answers does not miss the next. Ten thousand clients
/// that ask and never read hold 40 MB with this.
const CONTROL_LIMIT: usize = 4 << 10;

// Where nothing waits yet, the answer to the longest ping fits.
const _: () = assert!(2 + 125 <= CONTROL_LIMIT);

/// How long one blocking send may take. The kernel wakes a sender only when a third of the socket's
/// buffer is free; a try of our own sees every byte of progress.
pub const SEND_SLICE: Duration = Duration::from_millis(500);

/// The sending side of one client, shared by its thread, the hub and the thread that catches up.
#[derive(Debug)]
pub struct Outbox {
    socket: Socket,
    sending: Mutex<Sending>,
    /// Told when the state leaves `Behind` or `Closing`.
    settled: Condvar,
}

#[derive(Debug)]
struct Sending {
    state: State,
    /// While behind: whole control frames and error answers, which go out between messages.
    waiting: Vec<u8>,
    /// Whether it was ended because the client took nothing.
    stalled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Behind,
    /// Behind, and the last frame that waits is a close.
    Closing,
    Closed,
}

/// What became of frames offered to a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Offered {
    /// The socket took them all.
    Sent,
    /// The socket is full. The client is behind, and has to be caught up by the thread that offered.
    SocketFull {
        /// What is left of the frame that was cut.
        cut: CutFrame,
        /// The first message after that.
        next_id: u64,
    },
    /// The client is behind already; it has none of them.
    Behind,
    /// There is nobody to send to.
    Closed,
}

/// What became of a control frame.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum ControlOutcome {
    /// It is sent, it waits until the client has what goes before it, or nobody is there to take it.
    Done,
    /// The socket is full, and this is what is left of the frame. The client is behind, and has to be
    /// caught up by the thread that sent.
    SocketFull(CutFrame),
}

/// Why a client cannot be sent to any more.
#[derive(Debug)]
pub enum SendError {
    /// It took nothing for the time it is allowed, after so many bytes.
    Stalled(usize),
    /// The connection is gone.
    Gone,
}

impl Outbox {
    /// The sending side of a socket, behind: it has been sent nothing yet.
    pub fn new(socket: Socket) -> Outbox {
        let sending = Sending { state: State::Behind, waiting: Vec::new(), stalled: false };
        Outbox { socket, sending: Mutex::new(sending), settled: Condvar::new() }
    }

    /// The socket, to read from; nobody writes to it but this.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Sends live frames, those that begin at `start` or behind it, without waiting: the hub's side.
    pub fn offer(&self, frames: &Frames, start: usize) -> Offered {
        let mut sending = self.lock();
        match sending.state {
            State::Live => {}
            State::Behind => return Offered::Behind,
            State::Closing | State::Closed => return Offered::Closed,
        }
        match self.send_now(&frames.bytes()[start..]) {
            Ok(sent) if start + sent == frames.bytes().len() => Offered::Sent,
            Ok(sent) => {
                sending.state = State::Behind;
                let (cut, next_id) = frames.cut(start + sent);
                Offered::SocketFull { cut, next_id }
            }
            Err(error) => {
                self.give_up(&mut sending, &error);
                Offered::Closed
            }
        }
    }

    /// Makes the client live; false when frames still wait to be sent before.
    ///
    /// Only for the hub, when the client has been sent every message, and only while the thread that
    /// catches it up waits for the answer with nothing left of a frame.
    pub fn go_live(&self) -> bool {
        let mut sending = self.lock();
        match sending.state {
            State::Behind if sending.waiting.is_empty() => {
                self.settle(&mut sending, State::Live);
                true
            }
            State::Behind | State::Closing => false,
            State::Live | State::Closed => true,
        }
    }

    /// Sends a whole control frame or error answer: at once, or between frames when behind.
    pub fn control(&self, frame: &[u8]) -> ControlOutcome {
        self.control_then(frame, State::Behind)
    }

    /// Sends a close frame, after which nothing more is sent.
    pub fn close(&self, code: CloseCode, reason: &'static str) -> ControlOutcome {
        self.close_with(&close_frame(code, reason))
    }

    /// Sends a close frame that somebody else formatted.
    pub fn close_with(&self, frame: &[u8]) -> ControlOutcome {
        self.control_then(frame, State::Closing)
    }

    fn control_then(&self, frame: &[u8], then: State) -> ControlOutcome {
        let mut sending = self.lock();
        match sending.state {
            State::Live => match self.send_now(frame) {
                Ok(sent) if sent == frame.len() => {
                    if then == State::Closing {
                        self.settle(&mut sending, State::Closed);
                    }
                    ControlOutcome::Done
                }
                Ok(sent) => {
                    sending.state = then;
                    ControlOutcome::SocketFull(CutFrame::of(frame, sent))
                }
                Err(error) => {
                    self.give_up(&mut sending, &error);
                    ControlOutcome::Done
                }
            },
            State::Behind => {
                let room = sending.waiting.len() + frame.len() <= CONTROL_LIMIT;
                if room || then == State::Closing {
                    sending.waiting.extend_from_slice(frame);
                    sending.state = then;
                }
                ControlOutcome::Done
            }
            State::Closing | State::Closed => ControlOutcome::Done,
        }
    }

    /// What waits to be sent between frames, and whether it ends with a close: for the thread that
    /// catches up.
    pub fn take_waiting(&self, out: &mut Vec<u8>) -> Last {
        let mut sending = self.lock();
        out.append(&mut sending.waiting);
        sending.waiting = Vec::new();
        match sending.state {
            State::Closing => Last::Close,
            _ => Last::No,
        }
    }

    /// Sends as much as the socket takes at once: none when it is full.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        loop {
            match self.socket.send_with_flags(bytes, flags) {
                Ok(sent) => return Ok(sent),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return Ok(0),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Sends all of `bytes`, waiting as long as the client takes some of it every `stall_timeout`:
    /// for the thread that catches up, whose socket has `SEND_SLICE` as its send timeout.
    pub fn send_patiently(
        &self,
        bytes: &[u8],
        more: More,
        stall_timeout: Duration,
    ) -> Result<(), SendError> {
        let flags = match more {
            More::Follows => libc::MSG_NOSIGNAL | libc::MSG_MORE,
            More::No => libc::MSG_NOSIGNAL,
        };
        let mut sent = 0;
        let mut progress = Instant::now();
        while sent < bytes.len() {
            match self.socket.send_with_flags(&bytes[sent..], flags) {
                Ok(count) => {
                    sent += count;
                    progress = Instant::now();
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock if progress.elapsed() < stall_timeout => {}
                    io::ErrorKind::WouldBlock => return Err(SendError::Stalled(sent)),
                    _ => return Err(SendError::Gone),
                },
            }
        }
        Ok(())
    }

    /// Whether a thread is at work to catch the client up.
    pub fn is_behind(&self) -> bool {
        matches!(self.lock().state, State::Behind | State::Closing)
    }

    /// Whether the close frame is out, or nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.lock().state == State::Closed
    }

    /// Nothing more is sent; the last frame that was given out is out.
    pub fn closed(&self) {
        self.settle(&mut self.lock(), State::Closed);
    }

    /// Waits until the close frame is out or nothing can be sent; false when that took too long.
    pub fn wait_closed(&self, timeout: Duration) -> bool {
        let sending = self.lock();
        let waits = |sending: &mut Sending| sending.state == State::Closing;
        let (_side, result) = self
            .settled
            .wait_timeout_while(sending, timeout, waits)
            .unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    /// Ends the connection at once, for a peer that is gone or takes nothing: what was not sent is
    /// dropped, whoever waits on the socket wakes up, and no kernel memory stays behind.
    pub fn abort(&self) {
        self.shut_down(&mut self.lock());
    }

    /// The same, for a client that took nothing for too long.
    pub fn abort_stalled(&self) {
        let mut sending = self.lock();
        sending.stalled = true;
        self.shut_down(&mut sending);
    }

    /// Whether it was ended because the client took nothing.
    pub fn has_stalled(&self) -> bool {
        self.lock().stalled
    }

    fn give_up(&self, sending: &mut Sending, error: &io::Error) {
        debug!("sending failed: {error}");
        self.shut_down(sending);
    }

    fn shut_down(&self, sending: &mut Sending) {
        self.settle(sending, State::Closed);
        // Both fail only on a socket that is gone already, which is as good. The shutdown wakes the
        // client's thread from its read; without the linger, a close would go on sending.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn settle(&self, sending: &mut Sending, state: State) {
        sending.state = state;
        self.settled.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Sending> {
        // Each step leaves it valid, so a panic elsewhere in a thread that held it takes nothing.
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether more is about to be sent, so that the kernel may wait for it to fill a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// At once.
    Follows,
    /// The peer is to get this now.
    No,
}

/// Whether what was taken ends with a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// More may follow.
    No,
    /// Nothing follows.
    Close,
}

#[cfg(test)]
mod tests;
