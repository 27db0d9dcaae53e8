//! The peer to be measured against: the contract of the chat in one event loop, for speed alone.
//!
//! One thread does everything: it accepts, reads, appends to the file, and serves the clients in
//! rounds as the server does (`src/fanout.rs`), each client with one send that brings all that it
//! lacks. What is said during a round joins it, and speakers are served first, so that their next
//! messages come while the round is still running. The history and the index of it are in memory.
//! Nothing is validated, no time is kept, nobody is timed out: that is what a server has to add.
//!
//! As `roll` it leaves the disk to the system; as `roll+sync` it shows nothing before one fdatasync of
//! the whole batch. A client whose socket is full leaves the round with its position, and comes
//! back when the socket has taken everything.

mod frames;
mod websocket;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, IoSlice, Write};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::{Domain, Socket, Type};

use crate::frames::{PONG, TEXT};
use frames::{Frames, History, Position};

/// What happens to a batch before it is shown.
#[derive(Clone, Copy, PartialEq)]
pub enum Sync {
    Never,
    Always,
}

/// What one read takes at most, and so the longest message: far longer than those of the bench.
const READ: usize = 256 << 10;
/// Sends after which the loop looks whether more was said. To 100 clients with one message in flight
/// 16 bring 0.7 times the deliveries; 1 and 2 bring no more and less to 1,000.
const POLL_EVERY: usize = 4;
/// Bytes of frames that the next client in turn lacks, above which nothing more is taken in. To 1,000
/// clients 64 and 128 KiB bring 0.8 times the deliveries; 512 KiB bring 1.1 times as many, but with 16
/// in flight a speaker's p99 is three times as long.
const LAG: usize = 256 << 10;
/// Connections that the kernel holds, so that a burst of them is not dropped.
const BACKLOG: i32 = 4096;
/// Events that one look brings at most.
const EVENTS: usize = 1024;
/// The epoll data of the listener; clients are numbered from 0.
const LISTENER: u64 = u64::MAX;

/// A full socket is said at once, and a closed one is no signal.
const AT_ONCE: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

const HISTORY_HEAD: &[u8] = br#"{"type":"message_history","data":["#;
const HISTORY_TAIL: &[u8] = b"]}";

/// Serves until the process is ended.
pub fn serve(port: u16, path: &str, sync: Sync) -> io::Result<()> {
    let mut roll = Roll::open(port, path, sync)?;
    loop {
        roll.step()?;
    }
}

struct Roll {
    epoll: OwnedFd,
    events: Vec<Event>,
    listener: Socket,
    file: File,
    sync: Sync,
    /// By the number that epoll knows them by. Numbers are not used again: a run is short.
    clients: Vec<Option<Client>>,
    /// The clients to serve, in turn. Those whose turn is next lack the most.
    ring: VecDeque<Turn>,
    /// How many turns are left until everybody has everything.
    turns: usize,
    history: History,
    /// The latest of the history, as frames.
    frames: Frames,
    /// What was said since the last batch: lines, where each ends, and who said any.
    lines: Vec<u8>,
    line_ends: Vec<usize>,
    speakers: Vec<usize>,
    buffer: Vec<u8>,
}

/// A place in the round.
struct Turn {
    client: usize,
    /// Everything before was sent to the client at its last turn. Other than its position, this
    /// never counts down along the ring, whatever a speaker was sent out of turn.
    since: usize,
}

struct Client {
    socket: Socket,
    /// The piece of a request or a frame that has not come in as a whole.
    partial: Vec<u8>,
    stage: Stage,
    /// What it must be sent before live messages.
    owed: Owed,
    /// Where in the live messages it stands.
    position: Position,
    has_turn: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Request,
    /// Its socket is full, or it has just come.
    Behind,
    Live,
}

/// Bytes for one client alone, the middle of them out of the history.
#[derive(Default)]
struct Owed {
    head: Vec<u8>,
    history: Range<usize>,
    tail: &'static [u8],
}

impl Roll {
    fn open(port: u16, path: &str, sync: Sync) -> io::Result<Roll> {
        let history = History::read(fs::read(path).unwrap_or_default());
        let file = File::options().create(true).append(true).open(path)?;
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.set_reuse_address(true)?;
        listener.set_nonblocking(true)?;
        // Inherited by what is accepted.
        listener.set_tcp_nodelay(true)?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        listener.listen(BACKLOG)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Roll {
            epoll,
            events: Vec::with_capacity(EVENTS),
            listener,
            file,
            sync,
            clients: Vec::new(),
            ring: VecDeque::new(),
            turns: 0,
            frames: Frames::from(history.len()),
            history,
            lines: Vec::new(),
            line_ends: Vec::new(),
            speakers: Vec::new(),
            buffer: vec![0; READ],
        })
    }

    /// Takes in what has come, stores it, and serves clients until it is time to look again.
    fn step(&mut self) -> io::Result<()> {
        self.take_events()?;
        let begun = Instant::now();
        self.commit()?;
        for index in mem::take(&mut self.speakers) {
            self.serve(index);
        }
        // Listening gets no less time than the disk did.
        self.go_round(begun.elapsed());
        Ok(())
    }

    fn take_events(&mut self) -> io::Result<()> {
        let at_once = Timespec::default();
        let wait = if self.turns > 0 { Some(&at_once) } else { None };
        let mut events = mem::take(&mut self.events);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), wait) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            // Copied out: the kernel's struct is packed.
            let (data, flags) = (event.data.u64(), event.flags);
            if data == LISTENER {
                self.accept()?;
                continue;
            }
            let index = data as usize;
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(index);
            }
            if flags.contains(EventFlags::OUT) {
                self.catch_up(index);
            }
        }
        self.events = events;
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((socket, _)) = self.listener.accept() {
            let index = self.clients.len();
            // Edges, so that a socket that is full needs no further call to be watched.
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&self.epoll, &socket, EventData::new_u64(index as u64), flags)?;
            self.clients.push(Some(Client {
                socket,
                partial: Vec::new(),
                stage: Stage::Request,
                owed: Owed::default(),
                position: Position::default(),
                has_turn: false,
            }));
        }
        Ok(())
    }

    // ------------------------------------------------------------------ what comes in

    fn read(&mut self, index: usize) {
        let mut buffer = mem::take(&mut self.buffer);
        while let Some(client) = &mut self.clients[index] {
            let kept = client.partial.len();
            buffer[..kept].copy_from_slice(&client.partial);
            client.partial.clear();
            let room = &mut buffer[kept..];
            let size = room.len();
            match rustix::net::recv(&client.socket, room, RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.clients[index] = None,
                Ok((count, _)) => {
                    self.take_in(index, &mut buffer[..kept + count]);
                    if count == size {
                        continue;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {
                    client.partial.extend_from_slice(&buffer[..kept])
                }
                Err(_) => self.clients[index] = None,
            }
            break;
        }
        self.buffer = buffer;
    }

    fn take_in(&mut self, index: usize, bytes: &mut [u8]) {
        let mut at = 0;
        let Some(client) = &mut self.clients[index] else { return };
        if client.stage == Stage::Request {
            match websocket::response(bytes) {
                Some((response, size)) => {
                    self.join(index, response);
                    at = size;
                }
                None => return client.partial.extend_from_slice(bytes),
            }
        }
        let said = self.line_ends.len();
        while let Some(frame) = websocket::unmask_frame(&mut bytes[at..]) {
            match frame.first {
                TEXT => {
                    self.lines.extend_from_slice(&bytes[at..][frame.payload.clone()]);
                    self.lines.push(b'\n');
                    self.line_ends.push(self.lines.len());
                }
                PONG => {}
                // The load generator sends nothing else; whatever else comes is the end.
                _ => {
                    self.clients[index] = None;
                    return;
                }
            }
            at += frame.payload.end;
        }
        if self.line_ends.len() > said {
            self.speakers.push(index);
        }
        match &mut self.clients[index] {
            Some(client) if bytes.len() - at < READ => {
                client.partial.extend_from_slice(&bytes[at..]);
            }
            // A message that does not fit into the buffer would never end.
            gone => *gone = None,
        }
    }

    fn join(&mut self, index: usize, response: Vec<u8>) {
        let Some(client) = &mut self.clients[index] else { return };
        let history = 0..self.history.text().len();
        let mut head = response;
        websocket::push_text_head(
            HISTORY_HEAD.len() + history.len() + HISTORY_TAIL.len(),
            &mut head,
        );
        head.extend_from_slice(HISTORY_HEAD);
        client.stage = Stage::Behind;
        client.owed = Owed { head, history, tail: HISTORY_TAIL };
        client.position = Position::at(self.history.len());
        self.catch_up(index);
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
        let mut start = 0;
        for end in self.line_ends.drain(..) {
            let message = &self.lines[start..end - 1];
            self.history.push(message);
            self.frames.push(message);
            start = end;
        }
        self.lines.clear();
        self.turns = self.ring.len();
        Ok(())
    }

    // ------------------------------------------------------------------ what goes out

    /// Serves clients in turn, at least for so long, until all have everything or it is time to look
    /// who said more.
    fn go_round(&mut self, at_least: Duration) {
        let until = Instant::now() + at_least;
        let mut sends = 0;
        while self.turns > 0 {
            self.turns -= 1;
            let Some(Turn { client: index, .. }) = self.ring.pop_front() else { return };
            sends += self.serve(index);
            if let Some(client) = &mut self.clients[index] {
                client.has_turn = client.stage == Stage::Live;
                if client.has_turn {
                    let since = self.frames.next_id();
                    self.ring.push_back(Turn { client: index, since });
                }
            }
            if sends >= POLL_EVERY && self.lag() < LAG && Instant::now() >= until {
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
        if client.stage != Stage::Live || bytes.is_empty() {
            return 0;
        }
        match sent(rustix::net::send(&client.socket, bytes, AT_ONCE)) {
            Ok(count) if count == bytes.len() => {
                client.position = Position::at(self.frames.next_id());
            }
            Ok(count) => {
                client.position = self.frames.position_after(client.position, count);
                client.stage = Stage::Behind;
            }
            Err(_) => self.clients[index] = None,
        }
        1
    }

    /// Sends a client that is behind as much as its socket takes; with all of it, it is live.
    fn catch_up(&mut self, index: usize) {
        while let Some(client) = &mut self.clients[index]
            && client.stage == Stage::Behind
        {
            match client.owed.pay(&client.socket, self.history.text()) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => {
                    self.clients[index] = None;
                    return;
                }
            }
            if self.frames.bytes_from(client.position).is_none() {
                // The frames were forgotten meanwhile, so they are made again for this client.
                (client.owed.head, client.position) = self.history.frames_from(client.position);
                continue;
            }
            client.stage = Stage::Live;
            self.serve(index);
            if let Some(client) = &mut self.clients[index]
                && client.stage == Stage::Live
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
