//! A WebSocket: tungstenite reads, and the outbox sends.
//!
//! A read gives a message. Meanwhile control frames are answered, errors are answered with a close
//! code, and silence is answered with a ping. tungstenite also writes while it reads; its frames go
//! to the outbox, which alone writes to the socket. A frame that finds the socket full is given to
//! the caller of the read.

use std::{
    io::{self, Read, Write},
    sync::Arc,
    time::Instant,
};

use log::debug;
use tungstenite::{
    Bytes, Error, Message, Utf8Bytes, WebSocket,
    error::ProtocolError,
    protocol::{Role, WebSocketConfig},
};

use crate::{
    config::Config,
    metrics::LeaveReason,
    outbox::{CLOSE_WAIT, ControlOutcome, Outbox},
    socket::{Lingered, limit_reads, linger, read, would_block},
    wire::{CloseReason, CutFrame, ping_frame},
};

mod begun;

use begun::Begun;

/// The size of tungstenite's read buffer, in bytes. It holds a dozen chat messages and more. Every
/// connection has one: with 4 KiB an idle client takes 21.2 KB of memory, with 2 KiB 19.2 KB, and
/// messages are read as fast.
const READ_BUFFER: usize = 2 << 10;

// The longest control frame fits, with its header, mask and payload (RFC 6455, section 5.5), so
// that none makes tungstenite allocate.
const _: () = assert!(CONTROL_HEAD + 125 <= READ_BUFFER);

/// The header of a client's control frame and its mask, in bytes.
const CONTROL_HEAD: usize = 2 + 4;

/// The reading side of a WebSocket. The sending side is its outbox.
#[derive(Debug)]
pub struct Connection {
    websocket: WebSocket<Stream>,
}

/// What the peer sent.
#[derive(Debug)]
pub enum Received {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary(Bytes),
    /// No whole message has arrived. Read again to wait for one.
    Nothing,
    /// A control frame found the socket full, and this is the rest of it. The client has fallen
    /// behind; the caller must hand it over to a catch-up thread before the next read.
    SocketFull(CutFrame),
    /// The connection is over. The caller must pass the reason to [`Connection::finish`].
    Over(Over),
}

/// Why a connection is over.
#[derive(Debug)]
pub enum Over {
    /// The peer closed or is gone, or broke the protocol: tungstenite's error says which.
    Ended(Error),
    /// Nothing was read for twice the ping interval.
    Silent,
    /// The peer may not read the channel any more.
    NotAReader,
    /// Another thread sent the peer a close frame, and the peer did not answer it in time.
    Unanswered,
    /// A long message did not come in time.
    Unfinished,
    /// Peers have not finished so many long messages that there is no room for more of this one.
    NoRoom,
}

impl Over {
    /// The reason as it is counted.
    pub fn reason(&self) -> LeaveReason {
        match self {
            Over::Silent => LeaveReason::Silent,
            Over::Unfinished | Over::NoRoom => LeaveReason::Unfinished,
            Over::NotAReader
            | Over::Unanswered
            | Over::Ended(Error::ConnectionClosed | Error::AlreadyClosed) => LeaveReason::Closed,
            Over::Ended(Error::Utf8(_)) => LeaveReason::InvalidText,
            Over::Ended(Error::Capacity(_)) => LeaveReason::TooBig,
            Over::Ended(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                LeaveReason::Gone
            }
            Over::Ended(Error::Protocol(_)) => LeaveReason::Protocol,
            Over::Ended(_) => LeaveReason::Gone,
        }
    }
}

/// Whether a read may wait for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It may wait as long as the peer lives.
    ForPeer,
    /// It may not: it gives a message only if all its bytes have been read before.
    Not,
}

impl Connection {
    /// Begins to read after the handshake. `received` are the bytes that came after the request. A peer
    /// of which no byte comes for the ping interval is sent a ping; after twice as long, the connection
    /// is over.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn new(outbox: Arc<Outbox>, received: Vec<u8>, config: &Config) -> io::Result<Connection> {
        limit_reads(outbox.socket(), config.ping_interval)?;
        let limits = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(config.max_message))
            .max_frame_size(Some(config.max_message));
        let stream = Stream {
            outbox,
            wait: Wait::ForPeer,
            silent_intervals: 0,
            cut: None,
            has_answered: false,
            answer_by: None,
            long_message: None,
            begun: Begun::default(),
            turned_away: None,
        };
        let websocket =
            WebSocket::from_partially_read(stream, received, Role::Server, Some(limits));
        Ok(Connection { websocket })
    }

    /// Reads the next message. Pings and close frames are answered meanwhile. What the peer says after
    /// it was sent a close frame is dropped.
    pub fn read(&mut self, wait: Wait) -> Received {
        loop {
            // One call of tungstenite may read a message and write an answer that the socket cuts.
            // The message has been given out then; now comes the rest of the answer.
            if let Some(cut) = self.websocket.get_mut().cut.take() {
                return Received::SocketFull(cut);
            }
            if std::mem::take(&mut self.websocket.get_mut().has_answered)
                && self.outbox().lacks_room()
            {
                // A peer that asks and does not read must not miss an answer.
                match wait {
                    Wait::ForPeer => self.outbox().wait_for_room(),
                    Wait::Not => {
                        self.websocket.get_mut().has_answered = true;
                        return Received::Nothing;
                    }
                }
            }
            self.websocket.get_mut().wait = wait;
            let result = self.websocket.read();
            self.websocket.get_mut().note_read(&result);
            match result {
                Ok(Message::Text(_) | Message::Binary(_))
                    if self.websocket.get_ref().answer_by.is_some() => {}
                Ok(Message::Text(text)) => {
                    if text.len() > READ_BUFFER {
                        self.websocket.get_mut().long_message = Some(text.clone());
                    }
                    return Received::Text(text);
                }
                Ok(Message::Binary(bytes)) => return Received::Binary(bytes),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {
                }
                Err(Error::Io(error)) if would_block(&error) => {
                    if wait == Wait::Not {
                        return Received::Nothing;
                    }
                    if let Some(over) = self.websocket.get_mut().turned_away.take() {
                        return Received::Over(over);
                    }
                    if self.outbox().has_sent_close() {
                        return Received::Over(Over::Unanswered);
                    }
                    if self.ping() == PingAnswer::Missing {
                        return Received::Over(Over::Silent);
                    }
                }
                Err(error) => return Received::Over(Over::Ended(error)),
            }
        }
    }

    /// Sends a whole control frame or error answer. If it finds the socket full, the next read says
    /// so.
    pub fn send(&mut self, frame: &[u8]) {
        let sent = self.outbox().control(frame);
        self.websocket.get_mut().keep_cut(sent);
    }

    /// The sending side.
    pub fn outbox(&self) -> &Outbox {
        &self.websocket.get_ref().outbox
    }

    /// Sends a ping after a ping interval without a byte, unless one is unanswered.
    fn ping(&mut self) -> PingAnswer {
        // A ping would not reach a client that is behind. The catch-up thread decides how long such
        // a client may take nothing.
        if self.outbox().is_behind() {
            return PingAnswer::Awaited;
        }
        let silent_intervals = &mut self.websocket.get_mut().silent_intervals;
        *silent_intervals += 1;
        if *silent_intervals > 1 {
            return PingAnswer::Missing;
        }
        self.send(&ping_frame());
        PingAnswer::Awaited
    }

    /// Ends the connection. Where tungstenite has not told the peer why, this sends a close frame,
    /// and waits so that the peer can read it. `hand_over` gets the rest of a frame that found the
    /// socket full.
    pub fn finish(mut self, over: &Over, hand_over: impl FnOnce(CutFrame)) {
        let reason = match over {
            // The peer sent a close frame, and tungstenite answered it; or it was sent one before.
            Over::Ended(Error::ConnectionClosed | Error::AlreadyClosed) | Over::Unanswered => None,
            Over::Ended(
                Error::Io(_) | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
            ) => return self.outbox().closed(),
            Over::Ended(Error::Capacity(_)) => Some(CloseReason::TooLong),
            Over::Ended(Error::Utf8(_)) => Some(CloseReason::NotUtf8),
            Over::Ended(Error::Protocol(_)) => Some(CloseReason::Protocol),
            Over::Ended(_) => Some(CloseReason::Unexpected),
            Over::NotAReader => Some(CloseReason::NotAReader),
            Over::Unfinished => Some(CloseReason::Unfinished),
            Over::NoRoom => Some(CloseReason::NoRoom),
            Over::Silent => {
                // The peer may still be there and read it, but is not waited for.
                let _ = self.outbox().close(CloseReason::Silent);
                return self.outbox().abort();
            }
        };
        if let Some(reason) = reason {
            debug!("closing a client: {}: {over:?}", reason.sentence());
            let sent = self.outbox().close(reason);
            self.websocket.get_mut().keep_cut(sent);
        }
        if let Some(cut) = self.websocket.get_mut().cut.take() {
            hand_over(cut);
        }
        self.leave();
    }

    /// Waits until the close frame has been sent, then for the peer to end the connection.
    fn leave(self) {
        let outbox = self.outbox();
        if outbox.wait_closed(CLOSE_WAIT) {
            outbox.closed();
            if linger(outbox.socket()) == Lingered::PeerEnded {
                return;
            }
        }
        outbox.abort();
    }
}

/// A socket as tungstenite sees it: reads come from the socket, and whole frames that tungstenite
/// writes go to the outbox.
#[derive(Debug)]
struct Stream {
    outbox: Arc<Outbox>,
    wait: Wait,
    /// How many ping intervals have passed without a byte from the peer.
    silent_intervals: u32,
    /// The rest of a frame that found the socket full.
    cut: Option<CutFrame>,
    /// Whether something was answered since it was last looked whether there is room for answers.
    has_answered: bool,
    /// Until when the peer may answer the close frame that another thread sent; known when something
    /// comes after it.
    answer_by: Option<Instant>,
    /// The last message that was longer than the read buffer. While it is held, tungstenite cannot
    /// use its memory again and takes a small buffer instead; else every client that once sent a
    /// long message would keep as much memory for life.
    long_message: Option<Utf8Bytes>,
    /// What has come of a message that is not whole.
    begun: Begun,
    /// Why the peer may not go on with it.
    turned_away: Option<Over>,
}

impl Stream {
    /// Takes in what tungstenite made of the bytes that came.
    fn note_read(&mut self, result: &Result<Message, Error>) {
        match result {
            Ok(Message::Text(_) | Message::Binary(_)) => self.begun.finish(),
            // A control frame may stand within a message. A client's has a mask.
            Ok(Message::Ping(data) | Message::Pong(data)) => {
                self.begun.shrink(CONTROL_HEAD + data.len());
            }
            _ => {}
        }
    }

    fn keep_cut(&mut self, sent: ControlOutcome) {
        self.has_answered = true;
        if let ControlOutcome::SocketFull(cut) = sent {
            // From now on the client is behind and frames wait in the outbox, so no second frame is
            // cut before this one is handed over.
            self.cut = Some(cut);
        }
    }
}

/// Whether a peer has answered a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PingAnswer {
    /// It still has time to answer.
    Awaited,
    /// It has not answered in time.
    Missing,
}

impl Read for Stream {
    /// A peer that was sent a close frame and goes on is read until its time to answer is over; then it
    /// looks as if nothing more came. This is decided here, since tungstenite reads on for as long as a
    /// message lasts, and a message may never end.
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.long_message = None;
        if self.wait == Wait::Not {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.begun.read_on();
        let count = read(self.outbox.socket(), space)?;
        self.silent_intervals = 0;
        if let Err(over) = self.begun.grow(count) {
            self.turned_away = Some(over);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.outbox.has_sent_close() {
            let now = Instant::now();
            if now >= *self.answer_by.get_or_insert(now + CLOSE_WAIT) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        Ok(count)
    }
}

impl Write for Stream {
    /// With a write buffer size of 0, tungstenite writes exactly one whole control frame with each
    /// call.
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        const OPCODE: u8 = 0x0f;
        const CLOSE: u8 = 0x8;
        let control = match frame[0] & OPCODE {
            CLOSE => self.outbox.close_with(frame),
            _ => self.outbox.control(frame),
        };
        self.keep_cut(control);
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        intake::UNCOUNTED,
        testing::{CLOSE, PING, Peer, TEXT, pair},
    };

    const FIN: u8 = 0x80;
    const CONTINUATION: u8 = 0;
    const PONG: u8 = 0x8a;

    /// The connection of a client that is live, and its peer.
    fn live() -> (Connection, Peer) {
        let (socket, peer) = pair(1 << 20);
        let outbox = Arc::new(Outbox::new(socket));
        assert!(outbox.go_live(), "nothing waits to be sent first");
        let config = Config::parse_from(["txtcord", "--ping-interval", "1h"]);
        (Connection::new(outbox, Vec::new(), &config).expect("a socket pair"), peer)
    }

    /// Sends a frame that is masked, with a mask that changes nothing.
    fn say(peer: &Peer, first: u8, payload: &[u8]) {
        let head = [first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        (&peer.socket).write_all(&[&head, payload].concat()).expect("a socket pair has room");
    }

    #[test]
    fn what_a_peer_says_after_it_was_sent_a_close_frame_is_dropped() {
        let (mut connection, peer) = live();
        assert_eq!(connection.outbox().close(CloseReason::PutAway), ControlOutcome::Done);
        say(&peer, TEXT, b"1");
        say(&peer, CLOSE, &1001_u16.to_be_bytes());
        let received = connection.read(Wait::ForPeer);
        assert!(matches!(received, Received::Over(Over::Ended(Error::ConnectionClosed))));
    }

    #[test]
    fn a_long_message_that_does_not_come_in_time_ends_the_connection() {
        let (mut connection, peer) = live();
        let fragment = [b' '; 100];
        say(&peer, TEXT & !FIN, &fragment);
        for _ in 0..UNCOUNTED / fragment.len() {
            say(&peer, PING, b"");
            say(&peer, CONTINUATION, &fragment);
        }
        connection.websocket.get_mut().begun.begin_long_ago();
        let received = connection.read(Wait::ForPeer);
        assert!(matches!(received, Received::Over(Over::Unfinished)), "{received:?}");
    }

    #[test]
    fn control_frames_and_short_messages_are_no_part_of_a_long_one() {
        let (mut connection, peer) = live();
        for _ in 0..UNCOUNTED / 100 {
            say(&peer, PING, b"");
            say(&peer, PONG, &[b' '; 100]);
            say(&peer, TEXT, &[b'1'; 100]);
            assert!(matches!(connection.read(Wait::ForPeer), Received::Text(_)));
        }
        let begun = &connection.websocket.get_ref().begun;
        assert!(begun.is_short(), "{begun:?}");
        say(&peer, PONG, b"");
        say(&peer, TEXT & !FIN, b"1");
        say(&peer, PING, b"");
        say(&peer, FIN, b"2");
        assert!(matches!(connection.read(Wait::ForPeer), Received::Text(text) if text == "12"));
    }

    #[test]
    fn a_long_message_counts_until_the_next_one_is_read() {
        let (mut connection, peer) = live();
        let fragment = [b'1'; 100];
        say(&peer, TEXT & !FIN, &fragment);
        (0..UNCOUNTED / fragment.len()).for_each(|_| say(&peer, CONTINUATION, &fragment));
        say(&peer, FIN, b"");
        assert!(matches!(connection.read(Wait::ForPeer), Received::Text(_)));
        assert!(connection.websocket.get_ref().begun.is_counted(), "it may wait for the hub");
        say(&peer, TEXT, b"1");
        assert!(matches!(connection.read(Wait::ForPeer), Received::Text(_)));
        assert!(!connection.websocket.get_ref().begun.is_counted());
    }

    #[test]
    fn what_a_peer_said_before_it_was_gone_is_read() {
        let (mut connection, peer) = live();
        say(&peer, TEXT, b"1");
        connection.outbox().abort();
        assert!(matches!(connection.read(Wait::ForPeer), Received::Text(text) if text == "1"));
    }
}
