//! One client, from the upgrade to the goodbye.
//!
//! Its thread reads; the sending is the outbox's. `Connection` is the WebSocket: frames in, control
//! frames answered, errors answered with a close code, silence answered with a ping. `chat` is what
//! is done with it: text becomes lines for the hub.

use std::{
    io::{self, Read, Write},
    sync::Arc,
    time::Duration,
};

use log::{debug, warn};
use tungstenite::{
    Bytes, Error, Message, Utf8Bytes, WebSocket,
    error::ProtocolError,
    protocol::{Role, WebSocketConfig, frame::coding::CloseCode},
};

use crate::{
    catch_up::{CatchUp, Reach, Start},
    fanout::ClientId,
    history::Resume,
    hub::{HubGone, HubHandle, Joined},
    message::{self, Refusal, ping_frame},
    metrics::{Metrics, Reason},
    outbox::{Control, Outbox},
    socket::{Lingered, linger, read, would_block},
};

/// tungstenite's read buffer, taken by every connection at once: a dozen chat messages and more. With
/// 4 KiB an idle client takes 21.2 KB of memory, with 2 KiB 19.2 KB, and what clients say is no
/// slower.
const READ_BUFFER: usize = 2 << 10;

/// Lines that one command brings to the hub at the most, in bytes; a single message may be longer.
const POST_BYTES: usize = 64 << 10;

/// How long a peer may take to answer a close, or to take what goes before one.
const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// What every connection keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest message, in bytes.
    pub max_message: usize,
    /// Silence after which a ping is sent; twice as long ends the connection.
    pub ping_interval: Duration,
}

/// A WebSocket whose reading is here and whose sending is the outbox's.
pub struct Connection {
    websocket: WebSocket<Stream>,
    fell_behind: FellBehind,
}

/// What is called when a control frame finds the socket full: starts a thread that catches up.
pub type FellBehind = Box<dyn Fn() -> io::Result<()> + Send>;

/// What the peer sent.
#[derive(Debug)]
pub enum Received {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary(Bytes),
    /// Nothing more that has arrived is whole; read again to wait for it.
    Nothing,
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
    pub fn reason(&self) -> Reason {
        match self {
            Over::Silent => Reason::Silent,
            Over::Ended(Error::ConnectionClosed | Error::AlreadyClosed) => Reason::Closed,
            Over::Ended(Error::Utf8(_)) => Reason::InvalidText,
            Over::Ended(Error::Capacity(_)) => Reason::TooBig,
            Over::Ended(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                Reason::Gone
            }
            Over::Ended(Error::Protocol(_)) => Reason::Protocol,
            Over::Ended(_) => Reason::Gone,
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
    pub fn new(
        outbox: Arc<Outbox>,
        received: Vec<u8>,
        limits: Limits,
        fell_behind: FellBehind,
    ) -> io::Result<Connection> {
        outbox.socket().set_read_timeout(Some(limits.ping_interval))?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(limits.max_message))
            .max_frame_size(Some(limits.max_message));
        let stream = Stream { outbox, wait: Wait::ForPeer, silent: 0, full: false, big: None };
        let websocket =
            WebSocket::from_partially_read(stream, received, Role::Server, Some(config));
        Ok(Connection { websocket, fell_behind })
    }

    /// The next message; pings and closes are answered meanwhile.
    pub fn read(&mut self, wait: Wait) -> Received {
        loop {
            self.websocket.get_mut().wait = wait;
            let result = self.websocket.read();
            if std::mem::take(&mut self.websocket.get_mut().full) {
                self.catch_up();
            }
            match result {
                Ok(Message::Text(text)) => {
                    if text.len() > READ_BUFFER {
                        self.websocket.get_mut().big = Some(text.clone());
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
                    if !self.ping() {
                        return Received::Over(Over::Silent);
                    }
                }
                Err(error) => return Received::Over(Over::Ended(error)),
            }
        }
    }

    /// Sends a whole frame that is not one of the hub's.
    pub fn send(&self, frame: &[u8]) {
        if self.outbox().control(frame) == Control::Full {
            self.catch_up();
        }
    }

    /// The sending side.
    pub fn outbox(&self) -> &Outbox {
        &self.websocket.get_ref().outbox
    }

    fn catch_up(&self) {
        if let Err(error) = (self.fell_behind)() {
            warn!("cannot start a thread to catch a client up, closing it: {error}");
            self.outbox().abort();
        }
    }

    /// Nothing was read for a ping interval: asks whether anybody is there. False when that had
    /// been asked already.
    fn ping(&mut self) -> bool {
        // A client that is behind cannot be sent a ping, and how long it may take nothing is
        // decided where it is sent to.
        if self.outbox().is_behind() {
            return true;
        }
        let silent = &mut self.websocket.get_mut().silent;
        *silent += 1;
        if *silent > 1 {
            return false;
        }
        self.send(&ping_frame());
        true
    }

    /// Ends the connection: says to the peer, where tungstenite does not, why it is over, and
    /// leaves so that the peer can read it.
    pub fn finish(self, over: &Over) {
        let (code, reason) = match over {
            // The peer closed and has its answer.
            Over::Ended(Error::ConnectionClosed | Error::AlreadyClosed) => return self.leave(),
            Over::Ended(
                Error::Io(_) | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
            ) => return self.outbox().closed(),
            Over::Ended(Error::Capacity(_)) => {
                (CloseCode::Size, "the message is longer than this server takes")
            }
            Over::Ended(Error::Utf8(_)) => (CloseCode::Invalid, "text must be UTF-8"),
            Over::Ended(Error::Protocol(_)) => (CloseCode::Protocol, "not the WebSocket protocol"),
            Over::Ended(_) => (CloseCode::Error, "unexpected"),
            Over::Silent => {
                let reason = "no answer to a ping; come back with after=";
                // For whoever may still be there; the connection is not waited for.
                let _ = self.outbox().close(CloseCode::Again, reason);
                return self.outbox().abort();
            }
        };
        debug!("closing a client: {reason}: {over:?}");
        if self.outbox().close(code, reason) == Control::Full {
            self.catch_up();
        }
        self.leave();
    }

    /// Waits until the close frame is out, then for the peer to go.
    fn leave(self) {
        let outbox = self.outbox();
        if outbox.wait_closed(CLOSE_WAIT) {
            outbox.closed();
            if linger(outbox.socket()) == Lingered::Gone {
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
    silent: u32,
    /// Whether a frame found the socket full.
    full: bool,
    /// The last message that was longer than the read buffer. While it is held, tungstenite cannot
    /// use its memory again and takes a small buffer instead; else every client that once sent a
    /// long message would keep as much memory for life.
    big: Option<Utf8Bytes>,
}

impl Read for Stream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.big = None;
        if self.wait == Wait::Not {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = read(self.outbox.socket(), space)?;
        self.silent = 0;
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
        self.full |= control == Control::Full;
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a client asked for when it connected.
#[derive(Clone, Debug, Default)]
pub struct JoinRequest {
    /// What it wants of the history.
    pub resume: Resume,
    /// `as=NAME`: who types.
    pub name: Option<String>,
}

/// A client for as long as it is one of the hub's.
struct Membership {
    hub: HubHandle,
    metrics: Arc<Metrics>,
    client: ClientId,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.hub.leave(self.client);
    }
}

/// Serves one client to its end: `response` accepts the upgrade, `received` came behind it.
///
/// # Errors
/// When it cannot be begun; the connection is to be dropped then.
pub fn serve(
    reach: Reach,
    response: Vec<u8>,
    received: Vec<u8>,
    join: JoinRequest,
    limits: Limits,
) -> io::Result<()> {
    let name = join.name;
    let (connection, membership) = begin(reach, response, received, join.resume, limits)?;
    chat(connection, &membership, name.as_deref());
    Ok(())
}

/// Joins, and sends what can be sent at once.
fn begin(
    reach: Reach,
    response: Vec<u8>,
    received: Vec<u8>,
    resume: Resume,
    limits: Limits,
) -> io::Result<(Connection, Membership)> {
    let starter = reach.clone();
    let start_catch_up = Box::new(move |client| starter.start_catch_up(client));
    let gone = |HubGone| io::Error::other("the hub is gone");
    let Joined { client, snapshot } =
        reach.hub.join(reach.outbox.clone(), start_catch_up, resume).map_err(gone)?;
    let (hub, metrics) = (reach.hub.clone(), reach.metrics.clone());
    let membership = Membership { hub, metrics, client };
    match CatchUp::joining(reach.clone(), client, response, snapshot)?.start() {
        Start::Done => {}
        Start::Full(catch_up) => catch_up.spawn()?,
    }
    let outbox = reach.outbox.clone();
    let fell_behind = Box::new(move || reach.start_catch_up(client));
    Ok((Connection::new(outbox, received, limits, fell_behind)?, membership))
}

/// Reads until the connection is over, handing over what is said in as few commands as possible:
/// all that one read of the socket brought.
fn chat(mut connection: Connection, membership: &Membership, name: Option<&str>) {
    let mut lines = Vec::new();
    loop {
        let wait = if lines.is_empty() { Wait::ForPeer } else { Wait::Not };
        let received = connection.read(wait);
        if let Received::Text(text) = &received {
            match name {
                Some(name) => message::push_line_as(name, text, &mut lines),
                None => {
                    if let Err(error) = message::push_line(text, &mut lines) {
                        connection.send(&Refusal::NotJson.frame(&error.to_string()));
                    }
                }
            }
            if lines.len() < POST_BYTES {
                continue;
            }
        }
        if !lines.is_empty() {
            let lines = std::mem::take(&mut lines);
            if membership.hub.post(membership.client, lines).is_err() {
                return;
            }
        }
        match received {
            Received::Text(_) | Received::Nothing => {}
            Received::Binary(_) => {
                let refusal = Refusal::BinaryUnsupported;
                connection.send(&refusal.frame(refusal.sentence()));
            }
            Received::Over(over) => {
                let stalled = connection.outbox().has_stalled();
                membership.metrics.left(if stalled { Reason::Stalled } else { over.reason() });
                return connection.finish(&over);
            }
        }
    }
}
