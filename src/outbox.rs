//! The sending side of one client.
//!
//! A client is *live* as long as its socket takes at once what it is offered: the hub then sends
//! straight to the socket. When the socket is full, the client falls *behind*: no message is queued
//! for it; a catch-up thread sends it messages from the history (`catch_up.rs`), and the hub makes
//! it live again when it lacks none. The state is kept here and nowhere else, and decides which
//! thread may write: at first the connection's own thread alone, until it has sent a client the
//! beginning of the history or has handed the client over; the catch-up thread alone while the client
//! is behind; any thread while the client is live, if it does not wait for the socket; none once it is
//! closed. So every byte that leaves is part of a whole frame. A connection that never becomes a chat
//! stays as it was at first.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use log::debug;
use socket2::Socket;

use crate::wire::{CloseReason, CutFrame, Frames, close_frame, rest_of_begun};

/// The most bytes of control frames and error answers that wait for a client that is behind. What the
/// client's own thread answers finds room, since nothing is read from the client meanwhile.
/// What the hub answers beyond the limit is dropped. With this limit, ten thousand clients that ask and never read hold 40 MB.
const CONTROL_LIMIT: usize = 4 << 10;

/// Nothing is read from a client for which more bytes of them wait: the other half has room for what the
/// hub answers to messages that were read before.
const CONTROL_ROOM: usize = CONTROL_LIMIT / 2;

/// The most bytes of answers that the hub sends with one call. They always find room for a client from
/// which something was read.
pub(crate) const ANSWERS_AT_ONCE: usize = CONTROL_LIMIT - CONTROL_ROOM;

// The answer to the longest ping fits, when no other frame waits: RFC 6455, section 5.5.
const _: () = assert!(2 + 125 <= CONTROL_LIMIT);

/// How long one blocking send may take. The kernel wakes a sender only when a third of the socket's
/// buffer is free, but a new try sees every byte of progress.
pub const SEND_SLICE: Duration = Duration::from_millis(500);

/// How long a peer may take for the frames before a close frame and for the close frame itself, and how
/// long it may go on after that without an answer: long enough for a peer that reads, and short enough
/// for an orderly stop (`server::STOP_TIME`).
pub(crate) const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// The sending side of one client, shared by its own thread, the hub and a catch-up thread.
#[derive(Debug)]
pub struct Outbox {
    socket: Socket,
    sending: Mutex<Sending>,
    /// Whether a close frame has been sent, or is about to be: so that who reads takes no lock for each
    /// read to learn that none was.
    closes: AtomicBool,
    /// Notified when the state leaves `Behind` or `Closing`, and when frames that waited were taken.
    settled: Condvar,
}

#[derive(Debug)]
struct Sending {
    state: State,
    /// Whole control frames and error answers for a client that is behind; they go out between its
    /// messages.
    waiting: Vec<u8>,
    /// Whether the connection was ended because the client took nothing.
    stalled: bool,
}

impl Sending {
    fn lacks_room(&self) -> bool {
        self.state == State::Behind && self.waiting.len() > CONTROL_ROOM
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Behind,
    /// Behind, and the last frame that waits is a close frame.
    Closing,
    /// The close frame has been sent.
    Closed,
    /// The peer is gone, or was cut off.
    Ended,
}

/// What became of frames that were offered to a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Offered {
    /// The socket took them all.
    Sent,
    /// The socket is full, and the client has fallen behind. The caller must hand it over to a
    /// catch-up thread.
    SocketFull {
        /// The rest of the frame of which the socket took a part.
        cut: CutFrame,
        /// The id of the first message after that frame.
        next_id: u64,
    },
    /// The client is behind, or its connection is closed: others see to it.
    NotLive,
}

/// What became of a control frame or an error answer.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum ControlOutcome {
    /// There is nothing to do for the caller: the frame was sent, or waits for the catch-up thread,
    /// or was dropped, because too many wait or the connection is closed.
    Done,
    /// The socket is full, this is the rest of the frame, and the client has fallen behind. The
    /// caller must hand it over to a catch-up thread.
    SocketFull(CutFrame),
}

impl Outbox {
    /// The sending side of a socket. The client is behind, since it has been sent nothing yet.
    pub fn new(socket: Socket) -> Outbox {
        let sending = Sending { state: State::Behind, waiting: Vec::new(), stalled: false };
        Outbox {
            socket,
            sending: Mutex::new(sending),
            closes: AtomicBool::new(false),
            settled: Condvar::new(),
        }
    }

    /// The socket, to be read from. It may be written to through this outbox alone.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Sends the frames from the offset `start` of `frames.bytes()` on, and whole frames of events after
    /// them, all in one send and without waiting. For the hub. Events that the socket does not take
    /// are dropped, but a frame that is begun is finished.
    pub fn offer(&self, frames: &Frames, start: usize, events: &[u8]) -> Offered {
        let mut sending = self.lock();
        if sending.state != State::Live {
            return Offered::NotLive;
        }
        let messages = &frames.bytes()[start..];
        let sent = match events {
            [] => self.send_now(messages),
            events => self.send_both_now(messages, events),
        };
        match sent {
            Ok(sent) if sent >= messages.len() => {
                match rest_of_begun(events, sent - messages.len()) {
                    None => Offered::Sent,
                    Some(cut) => {
                        sending.state = State::Behind;
                        Offered::SocketFull { cut, next_id: frames.next_id() }
                    }
                }
            }
            Ok(sent) => {
                sending.state = State::Behind;
                let (cut, next_id) = frames.cut(start + sent);
                Offered::SocketFull { cut, next_id }
            }
            Err(error) => {
                self.give_up(&mut sending, &error);
                Offered::NotLive
            }
        }
    }

    /// Makes the client live; false when control frames must be sent to it first.
    ///
    /// For the hub alone, when the client lacks no message and no thread has a frame of it to finish:
    /// the catch-up thread sends it nothing until it has the hub's answer, or the client's own thread has
    /// sent it the whole history.
    pub fn go_live(&self) -> bool {
        let mut sending = self.lock();
        match sending.state {
            State::Behind if sending.waiting.is_empty() => {
                self.settle(&mut sending, State::Live);
                true
            }
            State::Behind | State::Closing => false,
            State::Live | State::Closed | State::Ended => true,
        }
    }

    /// Sends a whole control frame, or whole error answers: at once to a client that is live, between
    /// messages to one that is behind.
    pub fn control(&self, frame: &[u8]) -> ControlOutcome {
        self.control_then(frame, State::Behind)
    }

    /// Sends a close frame. Nothing is sent after it.
    pub fn close(&self, reason: CloseReason) -> ControlOutcome {
        self.close_with(&close_frame(reason))
    }

    /// Sends a close frame that is given as its bytes. Nothing is sent after it.
    pub fn close_with(&self, frame: &[u8]) -> ControlOutcome {
        self.control_then(frame, State::Closing)
    }

    fn control_then(&self, frame: &[u8], then: State) -> ControlOutcome {
        let mut sending = self.lock();
        if then == State::Closing {
            // Before the frame leaves, so that nothing that answers it is read before.
            self.closes.store(true, Relaxed);
        }
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
            State::Closing | State::Closed | State::Ended => ControlOutcome::Done,
        }
    }

    /// Moves the control frames that wait to the end of `out`, and says whether the last of them is
    /// a close frame. For the catch-up thread.
    pub fn take_waiting(&self, out: &mut Vec<u8>) -> Last {
        let mut sending = self.lock();
        out.append(&mut sending.waiting);
        sending.waiting = Vec::new();
        self.settled.notify_all();
        match sending.state {
            State::Closing => Last::Close,
            _ => Last::No,
        }
    }

    /// Whether so many answers wait that nothing more should be read from the client.
    pub fn lacks_room(&self) -> bool {
        self.lock().lacks_room()
    }

    /// Waits until there is room for further answers. The catch-up thread makes it, or ends a client
    /// that takes nothing. For the client's own thread, when it has no cut frame to hand over.
    pub fn wait_for_room(&self) {
        let lacks_room = |sending: &mut Sending| sending.lacks_room();
        drop(
            self.settled
                .wait_while(self.lock(), lacks_room)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn send_both_now(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let both = [IoSlice::new(first), IoSlice::new(second)];
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        retry_now(|| self.socket.send_vectored_with_flags(&both, flags))
    }

    /// Sends as much as the socket takes at once; returns how many bytes that were, 0 when the
    /// socket is full.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        retry_now(|| self.socket.send_with_flags(bytes, flags))
    }

    /// Sends all of `bytes`, and waits as long as the peer takes some of them within every
    /// `stall_timeout`. The socket must have [`SEND_SLICE`] as its send timeout. For threads that
    /// serve one peer alone.
    ///
    /// # Errors
    /// When the peer took nothing for too long (`TimedOut`) or is gone. A part of the bytes may have been sent.
    pub fn send_patiently(
        &self,
        bytes: &[u8],
        more: More,
        stall_timeout: Duration,
    ) -> io::Result<()> {
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
                    io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Whether the client is behind, with or without a close frame that waits.
    pub fn is_behind(&self) -> bool {
        matches!(self.lock().state, State::Behind | State::Closing)
    }

    /// Whether the close frame has been sent, or nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        matches!(self.lock().state, State::Closed | State::Ended)
    }

    /// Whether a close frame has been sent to a peer that may still be there.
    pub fn has_sent_close(&self) -> bool {
        self.closes.load(Relaxed) && self.lock().state == State::Closed
    }

    /// Notes that the last frame has been sent. Nothing is sent after it.
    pub fn closed(&self) {
        self.closes.store(true, Relaxed);
        self.settle(&mut self.lock(), State::Closed);
    }

    /// Waits until the close frame has been sent or nothing can be sent any more; false when that
    /// took longer than `timeout`.
    pub fn wait_closed(&self, timeout: Duration) -> bool {
        let sending = self.lock();
        let waits = |sending: &mut Sending| sending.state == State::Closing;
        let (_sending, result) = self
            .settled
            .wait_timeout_while(sending, timeout, waits)
            .unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    /// Ends the connection at once, for a peer that is gone or takes nothing. Bytes that the kernel
    /// has not sent are dropped and their memory is free; threads that wait for the socket wake up.
    pub fn abort(&self) {
        self.shut_down(&mut self.lock());
    }

    /// Does the same as [`Outbox::abort`], for a client that took nothing for too long.
    pub fn abort_stalled(&self) {
        let mut sending = self.lock();
        sending.stalled = true;
        self.shut_down(&mut sending);
    }

    /// Whether the connection was ended because the client took nothing.
    pub fn has_stalled(&self) -> bool {
        self.lock().stalled
    }

    fn give_up(&self, sending: &mut Sending, error: &io::Error) {
        debug!("sending failed: {error}");
        self.shut_down(sending);
    }

    fn shut_down(&self, sending: &mut Sending) {
        self.settle(sending, State::Ended);
        // Both calls fail only when the connection is gone, and then there is nothing to end. The
        // shutdown wakes the client's thread from its read. With a linger time of zero, the kernel
        // drops what it has not sent.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn settle(&self, sending: &mut Sending, state: State) {
        sending.state = state;
        self.settled.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Sending> {
        // Each change leaves a valid state, so a thread that panicked with the lock did no harm.
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends, again if a signal came; 0 when the socket is full.
fn retry_now(send: impl Fn() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match send() {
            Ok(sent) => return Ok(sent),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(0),
                _ => return Err(error),
            },
        }
    }
}

/// Whether more is about to be sent, so that the kernel may wait for it to fill a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// More follows at once.
    Follows,
    /// The peer is to get this now.
    No,
}

/// Whether the frames that were taken end with a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// They do not: more frames may follow.
    No,
    /// They do: nothing may follow.
    Close,
}

#[cfg(test)]
mod tests;
