//! The load generator: every client of a run on one thread, their sockets in one epoll.
//!
//! It shares the machine with the server, so it must cost less than what it measures: frames are
//! masked beforehand, all sockets are read into one buffer, nothing is parsed but frame heads.
//!
//! And yet every delivery is checked. `order` is the order of messages as the client that was furthest
//! along saw it. Each client has a position in it, and must get next what stands there. Each sender's
//! numbers must count up in it. When at the end every position equals the number of messages sent,
//! everyone got everything exactly once and in one order.

use std::error::Error;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};

use crate::frames::{self, FrameHead};
use crate::wire::{self, HistoryCheck, Marker, Template};

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// What one read takes at most: large enough that a fast server never waits for a second one.
const READ: usize = 1 << 20;
/// A longer frame is not collected but checked and counted as it streams by. Histories are long,
/// live messages are not.
const STREAMED: usize = 64 << 10;
/// So much of a history's beginning is kept to see that it is one.
const HISTORY_HEAD: usize = 32;
/// How far ahead to look for a message that came out of turn, to tell lost ones from repeated ones.
const LOOK_AHEAD: usize = 1 << 16;
/// The receive buffer of a slow client; so small that taking 20 KB/s is progress every few seconds.
const NARROW: usize = 64 << 10;
/// For a connection to be made: longer only when the server's backlog stays full.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// After everything has arrived: what comes now is once too often.
const SURPLUS: Duration = Duration::from_millis(20);
/// The epoll data of the timer; clients are numbered from 0.
const TIMER: u64 = u64::MAX;
/// The longest wait in one go, so that every loop sees its deadline in time.
const TICK: Duration = Duration::from_millis(50);

/// What went wrong with the deliveries of a run.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub lost: usize,
    pub repeated: usize,
    pub out_of_turn: usize,
    pub malformed: usize,
    pub closed: usize,
}

impl Faults {
    pub fn none(&self) -> bool {
        let Faults { lost, repeated, out_of_turn, malformed, closed } = *self;
        lost + repeated + out_of_turn + malformed + closed == 0
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Faults) {
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.out_of_turn += other.out_of_turn;
        self.malformed += other.malformed;
        self.closed += other.closed;
    }
}

/// Which times are taken down in `Load::times`.
#[derive(Clone, Copy, PartialEq)]
pub enum Record {
    Nothing,
    /// From a sender's write until its own message is back.
    RoundTrips,
    /// From a sender's write until any client has the message.
    Deliveries,
}

#[derive(PartialEq)]
enum Stage {
    Handshake,
    History,
    Live,
}

struct Client {
    /// `None` once it is closed.
    stream: Option<TcpStream>,
    stage: Stage,
    /// The piece of a frame that has not come in as a whole.
    partial: Vec<u8>,
    /// Bytes still to come of a frame that streams by, and whether that frame ends its message.
    streaming: usize,
    streaming_last: bool,
    fragmented: bool,
    history_head: Vec<u8>,
    history_bytes: usize,
    history_check: Option<HistoryCheck>,
    upgraded_at: Option<Instant>,
    history_at: Option<Instant>,
    /// How many messages of `order` it has got.
    position: usize,
    marker_place: usize,
    sender: Option<usize>,
    own_digits: [u8; 4],
    unsent: Vec<u8>,
    /// The socket was full: the epoll says when there is room again.
    waits_for_room: bool,
}

struct Sender {
    client: usize,
    template: Template,
    /// When each message was written, in nanoseconds of the run; its length is the next number.
    sent_at: Vec<u64>,
    /// The number that must stand next in the order.
    expected: usize,
    /// Own messages that came back and were not replaced yet.
    returned: usize,
}

pub struct Load {
    handshake: Vec<u8>,
    epoll: OwnedFd,
    events: Vec<Event>,
    timer: Option<OwnedFd>,
    ticks: u64,
    started: Instant,
    buffer: Vec<u8>,
    clients: Vec<Client>,
    senders: Vec<Sender>,
    order: Vec<Marker>,
    /// Closed loop: a sender sends again whenever its own message is back.
    pub refill: bool,
    pub record: Record,
    pub times: Vec<u64>,
    /// Throw streamed histories away inside the kernel: for timing many at once.
    pub discard: bool,
    /// Check the history of clients that connect from now on against the preloaded lines.
    pub check_history: bool,
    pub sent: usize,
    pub deliveries: usize,
    /// Clients that have got their history so far.
    pub joined: usize,
    pub faults: Faults,
}

impl Load {
    pub fn new() -> io::Result<Load> {
        Load::at("/ws")
    }

    /// One whose clients connect to this path.
    pub fn at(path: &str) -> io::Result<Load> {
        Ok(Load {
            handshake: wire::handshake(path),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(512),
            timer: None,
            ticks: 0,
            started: Instant::now(),
            // An incomplete frame, which is no longer than one that does not stream, and a read.
            buffer: vec![0; FrameHead::LONGEST + STREAMED + READ],
            clients: Vec::new(),
            senders: Vec::new(),
            order: Vec::with_capacity(1 << 20),
            refill: false,
            record: Record::Nothing,
            times: Vec::new(),
            discard: false,
            check_history: false,
            sent: 0,
            deliveries: 0,
            joined: 0,
            faults: Faults::default(),
        })
    }

    /// Messages that at least one client has got.
    pub fn messages(&self) -> usize {
        self.order.len()
    }

    // ------------------------------------------------------------------ clients come

    /// Connects without a word yet; returns the number of the client.
    pub fn connect(&mut self, port: u16) -> io::Result<usize> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        self.adopt(TcpStream::connect_timeout(&address, CONNECT_LIMIT)?)
    }

    pub fn adopt(&mut self, stream: TcpStream) -> io::Result<usize> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let index = self.clients.len();
        epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), EventFlags::IN)?;
        self.clients.push(Client {
            stream: Some(stream),
            stage: Stage::Handshake,
            partial: Vec::new(),
            streaming: 0,
            streaming_last: true,
            fragmented: false,
            history_head: Vec::new(),
            history_bytes: 0,
            history_check: self.check_history.then(HistoryCheck::default),
            upgraded_at: None,
            history_at: None,
            position: 0,
            marker_place: 0,
            sender: None,
            own_digits: [0; 4],
            unsent: Vec::new(),
            waits_for_room: false,
        });
        Ok(index)
    }

    pub fn shake_hands(&mut self, index: usize) {
        self.clients[index].unsent.extend_from_slice(&self.handshake);
        self.flush(index);
    }

    /// Connects `count` clients, so many at a time, and waits until each has its history.
    pub fn open(
        &mut self,
        port: u16,
        count: usize,
        at_once: usize,
        limit: Duration,
    ) -> Outcome<()> {
        let until = Instant::now() + limit;
        let first = self.clients.len();
        let already = self.joined;
        while self.joined - already < count {
            while self.clients.len() - first < count.min(self.joined - already + at_once) {
                let index = self.connect(port)?;
                self.shake_hands(index);
            }
            self.poll(TICK);
            if self.faults.closed > 0 {
                return Err("the server closed a client that was joining".into());
            }
            if Instant::now() > until {
                let joined = self.joined - already;
                return Err(format!("only {joined} of {count} clients joined in time").into());
            }
        }
        Ok(())
    }

    /// Makes the first `count` clients senders of messages of `size` bytes.
    pub fn appoint_senders(&mut self, count: usize, size: usize) {
        for index in 0..count.min(self.clients.len()) {
            let template = Template::new(self.senders.len(), size);
            self.clients[index].sender = Some(self.senders.len());
            self.clients[index].own_digits = template.sender_digits;
            self.senders.push(Sender {
                client: index,
                template,
                sent_at: Vec::with_capacity(1 << 16),
                expected: 0,
                returned: 0,
            });
        }
    }

    /// When the server had answered the handshake, and when the history was complete.
    pub fn joined_at(&self, index: usize) -> Option<(Instant, Instant)> {
        let client = &self.clients[index];
        client.upgraded_at.zip(client.history_at)
    }

    pub fn history_bytes(&self, index: usize) -> usize {
        self.clients[index].history_bytes
    }

    /// The markers of a checked history: how many there were, and how many out of place.
    pub fn history_markers(&self, index: usize) -> (usize, usize) {
        let check = self.clients[index].history_check.as_ref();
        check.map_or((0, 0), |check| (check.seen, check.misplaced))
    }

    // ------------------------------------------------------------------ and talk

    /// Lets every sender have `window` messages in flight from now on.
    pub fn start_closed_loop(&mut self, window: usize) {
        self.refill = true;
        for sender in 0..self.senders.len() {
            self.send(sender, window);
        }
    }

    /// Sends `count` messages of one sender in one write.
    pub fn send(&mut self, sender: usize, count: usize) {
        let now = self.now();
        let Sender { client, template, sent_at, .. } = &mut self.senders[sender];
        let index = *client;
        let client = &mut self.clients[index];
        if client.stream.is_none() {
            return;
        }
        let waiting = !client.unsent.is_empty();
        for _ in 0..count {
            template.append(sent_at.len(), &mut client.unsent);
            sent_at.push(now);
        }
        self.sent += count;
        if !waiting {
            self.flush(index);
        }
    }

    /// Sends at a fixed rate for some time, the senders in turn, whatever comes back: an open loop.
    /// A turn that came late is made up for at once.
    pub fn run_open_loop(&mut self, per_second: f64, duration: Duration) -> io::Result<()> {
        if self.timer.is_none() {
            self.start_timer(per_second)?;
        }
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.poll(TICK);
            for _ in 0..mem::take(&mut self.ticks) {
                self.send(self.sent % self.senders.len(), 1);
            }
        }
        Ok(())
    }

    /// A timer in the epoll itself: the wait alone would count in whole milliseconds.
    fn start_timer(&mut self, per_second: f64) -> io::Result<()> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let period = Timespec::try_from(Duration::from_secs_f64(1.0 / per_second))
            .expect("a period is short");
        let period = Itimerspec { it_interval: period, it_value: period };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &period)?;
        epoll::add(&self.epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        self.timer = Some(timer);
        Ok(())
    }

    /// Handles what comes in for so long.
    pub fn run_for(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.poll(left.min(TICK));
        }
    }

    /// Lets what is in flight arrive. What is still missing after `limit` is lost.
    pub fn drain(&mut self, limit: Duration) {
        self.refill = false;
        let until = Instant::now() + limit;
        while self.missing() > 0 && Instant::now() < until {
            self.poll(TICK);
        }
        self.faults.lost += self.missing();
        self.run_for(SURPLUS);
    }

    /// Deliveries still to come to the clients that are there.
    fn missing(&self) -> usize {
        let there = self.clients.iter().filter(|client| client.stream.is_some());
        there.map(|client| self.sent.saturating_sub(client.position)).sum()
    }

    // ------------------------------------------------------------------ some are slow

    /// Gives a client the receive buffer of a small device, before it gets anything to speak of.
    pub fn narrow(&self, index: usize) -> io::Result<()> {
        match &self.clients[index].stream {
            Some(stream) => Ok(sockopt::set_socket_recv_buffer_size(stream, NARROW)?),
            None => Ok(()),
        }
    }

    /// From here on this client reads only what `sip` reads.
    pub fn pause(&mut self, index: usize) {
        if let Some(stream) = &self.clients[index].stream {
            epoll::delete(&self.epoll, stream).ok();
        }
    }

    pub fn resume(&mut self, index: usize) {
        if let Some(stream) = &self.clients[index].stream {
            let data = EventData::new_u64(index as u64);
            epoll::add(&self.epoll, stream, data, EventFlags::IN).ok();
        }
    }

    /// Reads at most so many bytes for one client, whether it is paused or not.
    pub fn sip(&mut self, index: usize, limit: usize) {
        self.read(index, limit.min(READ));
    }

    /// Lets a client go, whatever it has missed.
    pub fn dismiss(&mut self, index: usize) {
        if let Some(stream) = self.clients[index].stream.take() {
            reset(&stream);
        }
    }

    // ------------------------------------------------------------------ one turn

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Waits for something to happen, and handles it.
    pub fn poll(&mut self, timeout: Duration) {
        let timeout = Timespec::try_from(timeout).expect("waits are short");
        let mut events = mem::take(&mut self.events);
        // An interrupted wait is one without events.
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)).ok();
        for event in events.drain(..) {
            // Copied out: the kernel's struct is packed.
            let (data, flags) = (event.data.u64(), event.flags);
            if data == TIMER {
                self.count_ticks();
                continue;
            }
            let index = data as usize;
            if flags.contains(EventFlags::OUT) {
                self.flush(index);
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(index, READ);
            }
        }
        self.events = events;
    }

    fn count_ticks(&mut self) {
        let mut count = [0; 8];
        let Some(timer) = &self.timer else { return };
        if rustix::io::read(timer, &mut count).is_ok() {
            self.ticks += u64::from_ne_bytes(count);
        }
    }

    fn flush(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(stream) = &client.stream else { return };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::send(stream, &client.unsent, flags) {
            Ok(count) => drop(client.unsent.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return self.close(index),
        }
        let full = !client.unsent.is_empty();
        if mem::replace(&mut client.waits_for_room, full) != full {
            let data = EventData::new_u64(index as u64);
            let room = if full { EventFlags::OUT } else { EventFlags::empty() };
            epoll::modify(&self.epoll, stream, data, EventFlags::IN | room).ok();
        }
    }

    fn read(&mut self, index: usize, limit: usize) {
        let client = &mut self.clients[index];
        let Some(stream) = &client.stream else { return };
        if self.discard && client.streaming > STREAMED {
            let limit = client.streaming.min(self.buffer.len());
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            match rustix::net::recv(stream, &mut self.buffer[..limit], flags) {
                Ok((_, count @ 1..)) => self.stream_by(index, count),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok(_) | Err(_) => self.close(index),
            }
            return;
        }
        let kept = client.partial.len();
        let room = &mut self.buffer[kept..kept + limit];
        match rustix::net::recv(stream, room, RecvFlags::DONTWAIT) {
            Ok((count @ 1.., _)) => {
                let mut buffer = mem::take(&mut self.buffer);
                buffer[..kept].copy_from_slice(&client.partial);
                client.partial.clear();
                self.take_in(index, &buffer[..kept + count]);
                self.buffer = buffer;
                self.send_again(index);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => self.close(index),
        }
    }

    fn send_again(&mut self, index: usize) {
        if let Some(sender) = self.clients[index].sender {
            let count = mem::take(&mut self.senders[sender].returned);
            if count > 0 && self.refill {
                self.send(sender, count);
            }
        }
    }

    fn close(&mut self, index: usize) {
        self.faults.closed += 1;
        self.dismiss(index);
    }

    // ------------------------------------------------------------------ what came in

    /// Takes in what was read for one client, from the beginning of a frame or inside one that
    /// streams by; an incomplete end is kept for the next time.
    fn take_in(&mut self, index: usize, bytes: &[u8]) {
        let now = self.now();
        let mut at = 0;
        if self.clients[index].stage == Stage::Handshake {
            match self.take_response(index, bytes) {
                Some(size) => at = size,
                None => return,
            }
        }
        while at < bytes.len() {
            let client = &mut self.clients[index];
            if client.streaming > 0 {
                let piece = &bytes[at..bytes.len().min(at + client.streaming)];
                client.take_history(piece);
                at += piece.len();
                self.stream_by(index, piece.len());
                continue;
            }
            let Some(head) = FrameHead::read(&bytes[at..]) else { break };
            let start = at + head.size;
            if head.carries_data()
                && (head.length > STREAMED || !head.is_last() || client.fragmented)
            {
                client.streaming = head.length;
                client.streaming_last = head.is_last();
                client.fragmented = !head.is_last();
                at = start;
                if head.length == 0 {
                    self.stream_by(index, 0);
                }
                continue;
            }
            let Some(payload) = bytes.get(start..start + head.length) else { break };
            at = start + head.length;
            match head.first {
                frames::TEXT if client.stage == Stage::Live => self.deliver(index, payload, now),
                frames::TEXT => {
                    client.take_history(payload);
                    client.history_bytes += payload.len();
                    self.finish_history(index);
                }
                frames::PING => {
                    client.unsent.extend(frames::frame(frames::PONG, payload));
                    self.flush(index);
                }
                frames::CLOSE => return self.close(index),
                frames::PONG => {}
                _ => self.faults.malformed += 1,
            }
        }
        self.clients[index].partial.extend_from_slice(&bytes[at..]);
    }

    /// Returns how long the response is, `None` while it is incomplete or when it is a refusal.
    fn take_response(&mut self, index: usize, bytes: &[u8]) -> Option<usize> {
        const END: &[u8] = b"\r\n\r\n";
        let client = &mut self.clients[index];
        let Some(end) = bytes.windows(END.len()).position(|window| window == END) else {
            client.partial.extend_from_slice(bytes);
            return None;
        };
        if !bytes.starts_with(b"HTTP/1.1 101") {
            self.faults.malformed += 1;
            self.close(index);
            return None;
        }
        client.stage = Stage::History;
        client.upgraded_at = Some(Instant::now());
        Some(end + END.len())
    }

    /// `count` more bytes of a streamed frame have gone by.
    fn stream_by(&mut self, index: usize, count: usize) {
        let client = &mut self.clients[index];
        if client.stage == Stage::Live {
            // Live messages are small here: nothing that long was ever sent.
            self.faults.malformed += 1;
        }
        client.streaming -= count;
        client.history_bytes += count;
        if client.streaming == 0 && client.streaming_last {
            self.finish_history(index);
        }
    }

    fn finish_history(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if memchr::memmem::find(&client.history_head, b"message_history").is_none() {
            self.faults.malformed += 1;
        }
        client.stage = Stage::Live;
        client.history_at = Some(Instant::now());
        self.joined += 1;
    }

    /// A live message has reached a client: the hot path of every run.
    #[inline]
    fn deliver(&mut self, index: usize, payload: &[u8], now: u64) {
        let client = &mut self.clients[index];
        self.deliveries += 1;
        let Some(marker) = Marker::find(payload, &mut client.marker_place) else {
            self.faults.malformed += 1;
            return;
        };
        match self.order.get(client.position) {
            Some(next) if *next == marker => client.position += 1,
            Some(_) => return self.blame(index, marker),
            None => {
                client.position += 1;
                self.extend_order(marker);
            }
        }
        let client = &self.clients[index];
        let own = client.own_digits == marker.sender_digits();
        if let (true, Some(sender)) = (own, client.sender) {
            self.senders[sender].returned += 1;
        }
        if self.record == Record::Deliveries || (own && self.record == Record::RoundTrips) {
            let sent_at = self.senders.get(marker.sender()).map(|sender| &sender.sent_at);
            if let Some(sent_at) = sent_at.and_then(|sent_at| sent_at.get(marker.number())) {
                self.times.push(now - sent_at);
            }
        }
    }

    /// Nobody had this message before, so it is the one that comes next for all.
    fn extend_order(&mut self, marker: Marker) {
        self.order.push(marker);
        match self.senders.get_mut(marker.sender()) {
            Some(sender) => {
                self.faults.out_of_turn += usize::from(sender.expected != marker.number());
                sender.expected = marker.number() + 1;
            }
            None => self.faults.malformed += 1,
        }
    }

    /// A client got something else than what stands next: ahead of it means that it lost what lies
    /// between, anything else is a repetition or another order.
    #[cold]
    fn blame(&mut self, index: usize, marker: Marker) {
        let client = &mut self.clients[index];
        let ahead = &self.order[client.position..];
        match ahead.iter().take(LOOK_AHEAD).position(|next| *next == marker) {
            Some(skipped) => {
                self.faults.lost += skipped;
                client.position += skipped + 1;
            }
            None => self.faults.repeated += 1,
        }
    }
}

impl Client {
    fn take_history(&mut self, piece: &[u8]) {
        let missing = HISTORY_HEAD - self.history_head.len();
        self.history_head.extend_from_slice(&piece[..missing.min(piece.len())]);
        if let Some(check) = &mut self.history_check {
            check.feed(piece);
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for client in &self.clients {
            client.stream.as_ref().map(reset);
        }
    }
}

/// Makes the close that follows a reset: thousands of connections must not linger in TIME_WAIT and
/// take the ports of the next run.
fn reset(stream: &TcpStream) {
    sockopt::set_socket_linger(stream, Some(Duration::ZERO)).ok();
}
