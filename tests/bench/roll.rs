//! The peer to be measured against: the contract of the chat, for speed alone.
//!
//! It appends to the file and serves the clients in rounds as the server does (`src/fanout.rs`),
//! each client with one send that brings all that it lacks. What is said during a round joins it, and
//! speakers are served first, so that their next messages come while the round is still running. The
//! frames are the server's. The history and the index of it are in memory. Nothing is validated, no
//! time is kept, nobody is timed out: that is what a server has to add.
//!
//! As `roll` one thread does everything, with epoll (`event_loop.rs`); as `roll-threads` each client
//! has a thread that reads (`threads.rs`). Both leave the disk to the system; with `+sync` they show
//! nothing before one fdatasync of the whole batch. A client whose socket is full leaves the round
//! with its position, and comes back when the socket has taken everything.

mod event_loop;
mod frames;
mod incoming;
mod threads;
mod websocket;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, IoSlice, Write};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use socket2::{Domain, Socket, Type};

use event_loop::EventLoop;
use frames::{Frames, History, Position, unix_ms};

/// What happens to a batch before it is shown.
#[derive(Clone, Copy, PartialEq)]
pub enum Sync {
    Never,
    Always,
}

/// Who reads what clients send.
#[derive(Clone, Copy, PartialEq)]
pub enum Readers {
    /// The thread that does everything.
    EventLoop,
    /// A thread for each client.
    Threads,
}

/// Sends after which the loop looks whether more was said. To 100 clients with one message in flight
/// 16 bring 0.7 times the deliveries; 1 and 2 bring no more and less to 1,000.
const POLL_EVERY: usize = 4;
/// Bytes of frames that the next client in turn lacks, above which nothing more is taken in. To 1,000
/// clients 64 and 128 KiB bring 0.8 times the deliveries; 512 KiB bring 1.1 times as many, but with 16
/// in flight a speaker's p99 is three times as long.
const LAG: usize = 256 << 10;
/// Connections that the kernel holds, so that a burst of them is not dropped.
const BACKLOG: i32 = 4096;

/// A full socket is said at once, and a closed one is no signal.
const AT_ONCE: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

const HISTORY_HEAD: &[u8] = br#"{"type":"message_history","data":["#;
const HISTORY_TAIL: &[u8] = b"]}";

/// Serves until the process is ended.
pub fn serve(port: u16, path: &str, sync: Sync, readers: Readers) -> io::Result<()> {
    let rounds = Rounds::open(path, sync)?;
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.set_reuse_address(true)?;
    // Inherited by what is accepted.
    listener.set_tcp_nodelay(true)?;
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    listener.listen(BACKLOG)?;
    match readers {
        Readers::EventLoop => EventLoop::new(listener)?.run(rounds),
        Readers::Threads => threads::run(listener, rounds),
    }
}

/// Everything but the reading: the file, the history, the clients and whose turn it is.
struct Rounds {
    file: File,
    sync: Sync,
    /// By their numbers, which are those of the sockets in the order in which they were accepted.
    clients: Vec<Option<Client>>,
    /// The clients to serve, in turn. Those whose turn is next lack the most.
    ring: VecDeque<Turn>,
    /// How many turns are left until everybody has everything.
    turns: usize,
    /// How many clients are behind.
    behind: usize,
    history: History,
    /// The latest of the history, as frames.
    frames: Frames,
    /// What was said since the last batch, and who said any of it.
    lines: Vec<u8>,
    speakers: Vec<usize>,
}

/// A place in the round.
struct Turn {
    client: usize,
    /// Everything before was sent to the client at its last turn. Other than its position, this
    /// never counts down along the ring, whatever a speaker was sent out of turn.
    since: usize,
}

struct Client {
    socket: Arc<Socket>,
    /// Whether its socket is full, or it has just come.
    is_behind: bool,
    /// What it must be sent before live messages.
    owed: Owed,
    /// Where in the live messages it stands.
    position: Position,
    has_turn: bool,
}

/// Bytes for one client alone, the middle of them out of the history.
#[derive(Default)]
struct Owed {
    head: Vec<u8>,
    history: Range<usize>,
    tail: &'static [u8],
}

impl Rounds {
    fn open(path: &str, sync: Sync) -> io::Result<Rounds> {
        let history = History::read(fs::read(path).unwrap_or_default());
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Rounds {
            file,
            sync,
            clients: Vec::new(),
            ring: VecDeque::new(),
            turns: 0,
            behind: 0,
            frames: Frames::from(history.len()),
            history,
            lines: Vec::new(),
            speakers: Vec::new(),
        })
    }

    /// Stores what was said, and serves clients until it is time to look again: `has_more` says that
    /// more was said, as far as that is known.
    fn step(&mut self, has_more: impl Fn() -> bool) -> io::Result<()> {
        let begun = Instant::now();
        self.commit()?;
        for index in mem::take(&mut self.speakers) {
            self.serve(index);
        }
        // Listening gets no less time than the disk did.
        self.go_round(begun.elapsed(), has_more);
        Ok(())
    }

    /// Whether somebody's turn is still to come.
    fn is_under_way(&self) -> bool {
        self.turns > 0
    }

    // ------------------------------------------------------------------ what comes in

    /// Where what a client says is to be appended, each message with its `\n`.
    fn lines(&mut self) -> &mut Vec<u8> {
        &mut self.lines
    }

    /// The client said some of the lines.
    fn spoke(&mut self, index: usize) {
        self.speakers.push(index);
    }

    fn join(&mut self, index: usize, socket: Arc<Socket>, response: Vec<u8>) {
        let history = 0..self.history.text().len();
        let mut head = response;
        websocket::push_text_head(
            HISTORY_HEAD.len() + history.len() + HISTORY_TAIL.len(),
            &mut head,
        );
        head.extend_from_slice(HISTORY_HEAD);
        if self.clients.len() <= index {
            self.clients.resize_with(index + 1, || None);
        }
        self.clients[index] = Some(Client {
            socket,
            is_behind: true,
            owed: Owed { head, history, tail: HISTORY_TAIL },
            position: Position::at(self.history.len()),
            has_turn: false,
        });
        self.behind += 1;
        self.catch_up(index);
    }

    fn leave(&mut self, index: usize) {
        let client = self.clients.get_mut(index).and_then(Option::take);
        self.behind -= usize::from(client.is_some_and(|client| client.is_behind));
    }

    /// Appends what was said to the file, and shows it.
    fn commit(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.file.write_all(&self.lines)?;
        if self.sync == Sync::Always {
            self.file.sync_data()?;
        }
        let ts = unix_ms();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &self.lines) {
            let message = &self.lines[start..end];
            self.history.push(message);
            self.frames.push(message, ts);
            start = end + 1;
        }
        self.lines.clear();
        self.turns = self.ring.len();
        Ok(())
    }

    // ------------------------------------------------------------------ what goes out

    /// Serves clients in turn, at least for so long, until all have everything or it is time to look
    /// who said more.
    fn go_round(&mut self, at_least: Duration, has_more: impl Fn() -> bool) {
        let until = Instant::now() + at_least;
        let mut sends = 0;
        while self.turns > 0 {
            self.turns -= 1;
            let Some(Turn { client: index, .. }) = self.ring.pop_front() else { return };
            sends += self.serve(index);
            if let Some(client) = &mut self.clients[index] {
                client.has_turn = !client.is_behind;
                if client.has_turn {
                    let since = self.frames.next_id();
                    self.ring.push_back(Turn { client: index, since });
                }
            }
            if sends >= POLL_EVERY && self.lag() < LAG && Instant::now() >= until && has_more() {
                break;
            }
        }
        self.frames.forget_before(self.oldest());
    }

    /// The first message that somebody may lack whose turn is still to come.
    fn oldest(&self) -> usize {
        match self.ring.front() {
            Some(turn) if self.turns > 0 => turn.since,
            _ => self.frames.next_id(),
        }
    }

    fn lag(&self) -> usize {
        self.frames.bytes_from(Position::at(self.oldest())).map_or(0, <[u8]>::len)
    }

    /// Sends a live client all that it lacks; how many sends that took.
    fn serve(&mut self, index: usize) -> usize {
        let Some(client) = &mut self.clients[index] else { return 0 };
        let Some(bytes) = self.frames.bytes_from(client.position) else { return 0 };
        if client.is_behind || bytes.is_empty() {
            return 0;
        }
        match sent(rustix::net::send(&client.socket, bytes, AT_ONCE)) {
            Ok(count) if count == bytes.len() => {
                client.position = Position::at(self.frames.next_id());
            }
            Ok(count) => {
                client.position = self.frames.position_after(client.position, count);
                client.is_behind = true;
                self.behind += 1;
            }
            Err(_) => self.leave(index),
        }
        1
    }

    /// Whether a client is behind.
    fn has_behind(&self) -> bool {
        self.behind > 0
    }

    /// Does [`Rounds::catch_up`] for all clients that are behind.
    fn catch_up_all(&mut self) {
        if self.has_behind() {
            (0..self.clients.len()).for_each(|index| self.catch_up(index));
        }
    }

    /// Sends a client that is behind as much as its socket takes; with all of it, it is live.
    fn catch_up(&mut self, index: usize) {
        while let Some(Some(client)) = self.clients.get_mut(index)
            && client.is_behind
        {
            match client.owed.pay(&client.socket, self.history.text()) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => return self.leave(index),
            }
            if self.frames.bytes_from(client.position).is_none() {
                // The frames were forgotten meanwhile, so they are made again for this client.
                (client.owed.head, client.position) = self.history.frames_from(client.position);
                continue;
            }
            client.is_behind = false;
            self.behind -= 1;
            self.serve(index);
            if let Some(client) = &mut self.clients[index]
                && !client.is_behind
                && !mem::replace(&mut client.has_turn, true)
            {
                self.ring.push_back(Turn { client: index, since: self.frames.next_id() });
            }
            return;
        }
    }
}

impl Owed {
    /// Sends what the socket takes; whether that was all.
    fn pay(&mut self, socket: &Socket, text: &[u8]) -> io::Result<bool> {
        loop {
            let Owed { head, history, tail } = self;
            let size = head.len() + history.len() + tail.len();
            if size == 0 {
                return Ok(true);
            }
            let parts = [head, &text[history.clone()], tail].map(IoSlice::new);
            let mut no_control = SendAncillaryBuffer::default();
            let count = sent(rustix::net::sendmsg(socket, &parts, &mut no_control, AT_ONCE))?;
            if count == 0 {
                return Ok(false);
            }
            let from_head = count.min(head.len());
            head.drain(..from_head);
            let from_history = (count - from_head).min(history.len());
            history.start += from_history;
            *tail = &tail[count - from_head - from_history..];
        }
    }
}

/// How many bytes the socket took, none when it is full.
fn sent(result: rustix::io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        result => Ok(result?),
    }
}
