//! A WebSocket: tungstenite reads, and the outbox sends.
//!
//! Frames come in as messages, control frames are answered, errors are answered with a close code, and
//! silence with a ping. tungstenite writes while it reads; here its frames go to the outbox, which
//! alone writes to the socket. A frame that finds the socket full is given to the caller.

use std::{
    io::{self, Read, Write},
    sync::Arc,
    time::Duration,
};

use log::debug;
use tungstenite::{
    Bytes, Error, Message, Utf8Bytes, WebSocket,
    error::ProtocolError,
    protocol::{Role, WebSocketConfig, frame::coding::CloseCode},
};

use crate::{
    metrics::LeaveReason,
    outbox::{ControlOutcome, Outbox},
    socket::{Lingered, linger, read, would_block},
    wire::{CutFrame, ping_frame},
};

/// tungstenite's read buffer, taken by every connection at once: a dozen chat messages and more. With
/// 4 KiB an idle client takes 21.2 KB of memory, with 2 KiB 19.2 KB, and what clients say is no
/// slower.
const READ_BUFFER: usize = 2 << 10;

// Head, mask and payload of the longest control frame: none makes tungstenite allocate.
const _: () = assert!(2 + 4 + 125 <= READ_BUFFER);

/// How long a peer may take to answer a close, or to take what goes before one.
pub(crate) const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// What every connection keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest message, in bytes.
    pub max_message: usize,
    /// Silence after which a ping is sent; twice as long ends the connection.
    pub ping_interval: Duration,
}

/// A WebSocket whose reading is here and whose sending is the outbox's.
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
    /// Nothing more that has arrived is whole; read again to wait for it.
    Nothing,
    /// A control frame found the socket full, and this is left of it: the client is behind, and is to be
    /// caught up before the next read.
    SocketFull(CutFrame),
    /// The connection is over; [`Connection::finish`] is to be told why.
    Over(Over),
}

/// Why a connection is over.
#[derive(Debug)]
pub enum Over {
    /// tungstenite's reason: closed by the peer, gone, or an error of the protocol.
    Ended(Error),
    /// Nothing was read for twice the ping interval.
    Silent,
}

impl Over {
    /// The same in a word.
    pub fn reason(&self) -> LeaveReason {
        match self {
            Over::Silent => LeaveReason::Silent,
            Over::Ended(Error::ConnectionClosed | Error::AlreadyClosed) => LeaveReason::Closed,
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
    /// As long as the peer lives.
    ForPeer,
    /// No: only what has been received already.
    Not,
}

impl Connection {
    /// Goes on with a socket after the handshake; `received` is what came behind the request.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn new(outbox: Arc<Outbox>, received: Vec<u8>, limits: Limits) -> io::Result<Connection> {
        outbox.socket().set_read_timeout(Some(limits.ping_interval))?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(limits.max_message))
            .max_frame_size(Some(limits.max_message));
        let stream = Stream {
            outbox,
            wait: Wait::ForPeer,
            silent_intervals: 0,
            cut: None,
            long_message: None,
        };
        let websocket =
            WebSocket::from_partially_read(stream, received, Role::Server, Some(config));
        Ok(Connection { websocket })
    }

    /// The next message; pings and closes are answered meanwhile.
    pub fn read(&mut self, wait: Wait) -> Received {
        loop {
            // A message may have been read with the frame that was cut; it is given out first.
            if let Some(cut) = self.websocket.get_mut().cut.take() {
                return Received::SocketFull(cut);
            }
            self.websocket.get_mut().wait = wait;
            let result = self.websocket.read();
            match result {
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
                    if self.ping() == PingAnswer::Missing {
                        return Received::Over(Over::Silent);
                    }
                }
                Err(error) => return Received::Over(Over::Ended(error)),
            }
        }
    }

    /// Sends a whole frame that is not one of the hub's.
    pub fn send(&mut self, frame: &[u8]) {
        let sent = self.outbox().control(frame);
        self.websocket.get_mut().keep_cut(sent);
    }

    /// The sending side.
    pub fn outbox(&self) -> &Outbox {
        &self.websocket.get_ref().outbox
    }

    /// Nothing was read for a ping interval: asks whether anybody is there, unless that was asked then.
    fn ping(&mut self) -> PingAnswer {
        // A client that is behind cannot be sent a ping, and how long it may take nothing is
        // decided where it is sent to.
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

    /// Ends the connection: says to the peer, where tungstenite does not, why it is over, and
    /// leaves so that the peer can read it. `catch_up` is given a frame that found the socket full.
    pub fn finish(mut self, over: &Over, catch_up: impl FnOnce(CutFrame)) {
        let goodbye = match over {
            // The peer closed and has its answer.
            Over::Ended(Error::ConnectionClosed | Error::AlreadyClosed) => None,
            Over::Ended(
                Error::Io(_) | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
            ) => return self.outbox().closed(),
            Over::Ended(Error::Capacity(_)) => {
                Some((CloseCode::Size, "the message is longer than this server takes"))
            }
            Over::Ended(Error::Utf8(_)) => Some((CloseCode::Invalid, "text must be UTF-8")),
            Over::Ended(Error::Protocol(_)) => {
                Some((CloseCode::Protocol, "not the WebSocket protocol"))
            }
            Over::Ended(_) => Some((CloseCode::Error, "unexpected")),
            Over::Silent => {
                let reason = "no answer to a ping; come back with after=";
                // For a peer that may still be there; the connection is not waited for.
                let _ = self.outbox().close(CloseCode::Again, reason);
                return self.outbox().abort();
            }
        };
        if let Some((code, reason)) = goodbye {
            debug!("closing a client: {reason}: {over:?}");
            let sent = self.outbox().close(code, reason);
            self.websocket.get_mut().keep_cut(sent);
        }
        if let Some(cut) = self.websocket.get_mut().cut.take() {
            catch_up(cut);
        }
        self.leave();
    }

    /// Waits until the close frame is out, then for the peer to go.
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

/// A socket as tungstenite sees it: reads come from it, whole frames written go to the outbox.
#[derive(Debug)]
struct Stream {
    outbox: Arc<Outbox>,
    wait: Wait,
    /// Ping intervals without a byte.
    silent_intervals: u32,
    /// What is left of a frame that found the socket full.
    cut: Option<CutFrame>,
    /// The last message that was longer than the read buffer. While it is held, tungstenite cannot
    /// use its memory again and takes a small buffer instead; else every client that once sent a
    /// long message would keep as much memory for life.
    long_message: Option<Utf8Bytes>,
}

impl Stream {
    fn keep_cut(&mut self, sent: ControlOutcome) {
        if let ControlOutcome::SocketFull(cut) = sent {
            // Once behind, frames wait in the outbox, so there is one of these at a time.
            self.cut = Some(cut);
        }
    }
}

/// Whether a peer that was asked has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PingAnswer {
    /// It has time to.
    Awaited,
    /// It has not, and had time to.
    Missing,
}

impl Read for Stream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.long_message = None;
        if self.wait == Wait::Not {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = read(self.outbox.socket(), space)?;
        self.silent_intervals = 0;
        Ok(count)
    }
}

impl Write for Stream {
    /// With a write buffer size of 0, tungstenite writes exactly one whole control frame a call.
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
