//! A crowd: thousands of clients on one thread, with their sockets in one epoll. Everything that any
//! of them reads is compared with what was said, and the first difference ends the test.
//!
//! A member with [`Habit::Reads`] reads whatever comes. One with [`Habit::ReadsNothing`] does not even
//! read the answer to its request: the crowd looks at it without taking it from the socket. One with
//! [`Habit::Sips`] reads a little now and then.

use std::{
    env,
    io::{self, ErrorKind, Read, Write},
    mem,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, Event, EventData, EventFlags},
    },
    fd::OwnedFd,
    io::Errno,
    net::{RecvFlags, SendFlags},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    machine::Watch,
    record::{HistoryIn, Record, Told},
    support::{CLOSE, FrameHead, PATIENCE, PING, PONG, Server, TEXT, frame, padded},
    wire,
};

/// A crowd may take this long for anything: thousands of threads start on a busy machine.
const CROWD_PATIENCE: Duration = Duration::from_secs(300);

/// This many requests are without an answer at a time: fewer than the server's backlog holds, or the
/// kernel would try a connect again a second later.
const ASKING: usize = 300;
/// What one read takes at the most, in bytes.
const READ: usize = 1 << 20;
/// The speaker has this many bytes under way when it says many things at once.
const UNDER_WAY: usize = 128 << 10;
/// The longest wait in one go, so that every loop sees its deadline.
const TICK: Duration = Duration::from_millis(20);
/// The receive buffer of a member that does not read all at once. With a larger one, the kernel's own
/// memory for sockets ends before ten thousand of them are behind; and it would hide for many seconds
/// that a slow one reads at all, since the kernel tells the sender of room only when there is much.
const NARROW: usize = 4 << 10;
/// One sip takes this many bytes.
const SIP: usize = 1 << 10;
/// This many connections come from one address, which has 28,000 ports.
const FROM_ONE_ADDRESS: usize = 20_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Habit {
    Reads,
    ReadsNothing,
    Sips,
}

/// What a member reads next.
enum Stage {
    /// An HTTP answer, with its body.
    Answer,
    /// The frame of the history; its head is known once it has begun.
    History(Option<HistoryIn>),
    /// A frame of any kind.
    Live,
}

pub struct Member {
    /// None once it has gone.
    stream: Option<TcpStream>,
    habit: Habit,
    stage: Stage,
    /// The beginning of something that is not there as a whole.
    partial: Vec<u8>,
    unsent: Vec<u8>,
    /// Its socket was full: the epoll says when there is room again.
    waits_for_room: bool,
    /// It has asked and got neither an answer nor an end.
    waits: bool,
    /// It asks for the messages after this id.
    after: u64,
    /// The status of the answer to its last request; 0 before that comes.
    pub status: u16,
    /// What its history said.
    pub told: Option<Told>,
    /// The last message that it has.
    pub last_id: u64,
    /// When the server was seen to have ended the connection.
    pub ended: Option<Instant>,
}

pub struct Crowd<'a> {
    server: &'a Server,
    epoll: OwnedFd,
    events: Vec<Event>,
    buffer: Vec<u8>,
    pub members: Vec<Member>,
    /// How many members wait for an answer.
    waiting: usize,
    record: Record,
    speaker: Option<usize>,
    sipping: Option<Sipping>,
    pub watch: Watch,
    /// How long anything may take.
    pub patience: Duration,
    /// One crowd at a time has the descriptors and the processors.
    _alone: MutexGuard<'static, ()>,
}

/// Members that read a little, one after the other.
struct Sipping {
    members: Range<usize>,
    every: Duration,
    began: Instant,
    sips: usize,
}

/// A request for this path.
pub fn asks(line: &str) -> Vec<u8> {
    format!("GET {line} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// A request to join at this path.
pub fn joins(path: &str) -> Vec<u8> {
    wire::handshake(path)
}

/// A number of the server's metrics; none when it is too busy to tell.
pub fn gauge(server: &Server, name: &str) -> Option<u64> {
    let mut stream = TcpStream::connect_timeout(&server.address(), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.parse().ok()
}

impl<'a> Crowd<'a> {
    /// A crowd without members yet, around a server whose file holds these lines.
    #[track_caller]
    pub fn around(server: &'a Server, file: impl AsRef<[u8]>) -> Crowd<'a> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Crowd {
            server,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll"),
            events: Vec::with_capacity(1024),
            buffer: vec![0; READ],
            members: Vec::new(),
            waiting: 0,
            record: Record::of(file.as_ref()),
            speaker: None,
            sipping: None,
            watch: Watch::on(server),
            patience: CROWD_PATIENCE,
            _alone: alone,
        }
    }

    /// The id of the last message that was said.
    pub fn last_id(&self) -> u64 {
        self.record.last_id()
    }

    /// Counts from here on what the server takes beyond what it takes at this moment.
    #[track_caller]
    pub fn watches(&mut self) {
        self.watch = Watch::on(self.server);
    }

    // ------------------------------------------------------------------ who comes and goes

    /// Lets `count` more members connect and ask, until each has an answer or an end.
    #[track_caller]
    pub fn comes(&mut self, count: usize, habit: Habit, request: &[u8]) -> Range<usize> {
        let members = self.members.len()..self.members.len() + count;
        let deadline = Instant::now() + self.patience;
        while self.waiting > 0 || self.members.len() < members.end {
            while self.members.len() < members.end && self.waiting < ASKING {
                self.connects(habit, request);
            }
            self.turn();
            let (waiting, come) = (self.waiting, self.members.len() - members.start);
            assert!(Instant::now() < deadline, "{waiting} of {come} got neither answer nor end");
        }
        members
    }

    /// Lets `count` more members join and read their history.
    #[track_caller]
    pub fn joins(&mut self, count: usize) -> Range<usize> {
        let members = self.comes(count, Habit::Reads, &joins("/ws"));
        self.have_joined(members.clone());
        members
    }

    /// Lets one more member join that has heard all messages up to this id of this epoch.
    #[track_caller]
    pub fn comes_back(&mut self, after: u64, epoch: &str) -> usize {
        self.connects(Habit::Reads, &joins(&format!("/ws?after={after}&epoch={epoch}")));
        let index = self.members.len() - 1;
        self.members[index].after = after;
        self.members[index].last_id = after;
        self.have_joined(index..index + 1);
        let told = self.members[index].told.as_ref().expect("it has its history");
        assert_eq!((told.resumed, &*told.epoch), (Some(true), epoch), "after {after}");
        index
    }

    /// Waits until each of these has its history.
    #[track_caller]
    pub fn have_joined(&mut self, members: Range<usize>) {
        self.until("each has its history", |crowd| {
            crowd.of(&members).all(|member| member.told.is_some())
        });
    }

    /// Lets these go at once, whatever is under way to them.
    pub fn go(&mut self, members: Range<usize>) {
        for member in &mut self.members[members] {
            member.goes();
        }
    }

    /// These members.
    pub fn of(&self, members: &Range<usize>) -> impl Iterator<Item = &Member> {
        self.members[members.clone()].iter()
    }

    /// How many of these got this status.
    pub fn told(&self, members: &Range<usize>, status: u16) -> usize {
        self.of(members).filter(|member| member.status == status).count()
    }

    /// How many of these have lost their connection.
    pub fn ended(&self, members: &Range<usize>) -> usize {
        self.of(members).filter(|member| member.ended.is_some()).count()
    }

    fn connects(&mut self, habit: Habit, request: &[u8]) {
        let index = self.members.len();
        let (stream, ended) = match self.connection(index, habit) {
            Ok(stream) => (Some(stream), None),
            Err(error) if error.kind() == ErrorKind::TimedOut => (None, None),
            // A connection that is refused is an end too.
            Err(_) => (None, Some(Instant::now())),
        };
        self.members.push(Member {
            stream,
            habit,
            stage: Stage::Answer,
            partial: Vec::new(),
            unsent: Vec::new(),
            waits_for_room: false,
            waits: ended.is_none(),
            after: 0,
            status: 0,
            told: None,
            last_id: 0,
            ended,
        });
        self.waiting += usize::from(ended.is_none());
        self.sends(index, request);
    }

    fn connection(&self, index: usize, habit: Habit) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        if habit != Habit::Reads && env::var_os("TXTCORD_CROWD_WIDE").is_none() {
            // After the connect it would be too late for the window.
            socket.set_recv_buffer_size(NARROW)?;
        }
        let from = index / FROM_ONE_ADDRESS;
        if from > 0 {
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + from as u32);
            socket.bind(&SocketAddr::from((address, 0)).into())?;
        }
        socket.connect_timeout(&self.server.address().into(), PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        // A close then is a reset, which leaves no port in use for the next crowd.
        socket.set_linger(Some(Duration::ZERO))?;
        let data = EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &socket, data, EventFlags::IN | EventFlags::RDHUP)?;
        Ok(socket.into())
    }

    /// Gives these another habit.
    pub fn become_of(&mut self, members: Range<usize>, habit: Habit) {
        for index in members {
            self.members[index].habit = habit;
            self.attends(index);
        }
    }

    /// Lets each of these send another request, without waiting for the answers.
    pub fn ask_again(&mut self, members: Range<usize>, request: &[u8]) {
        for index in members {
            self.members[index].waits = true;
            self.members[index].status = 0;
            self.waiting += 1;
            self.attends(index);
            self.sends(index, request);
        }
    }

    // ------------------------------------------------------------------ what is said

    /// Makes this member the one that says everything.
    pub fn speaks(&mut self, index: usize) {
        self.speaker = Some(index);
    }

    /// Says one message of this size.
    pub fn say(&mut self, size: usize) {
        let message = padded(self.last_id() as usize + 1, size);
        self.record.push(message.as_bytes());
        let speaker = self.speaker.expect("somebody speaks");
        self.sends(speaker, &frame(TEXT, message));
    }

    /// Says `count` messages of this size, as fast as they come back, until all members that read have
    /// them.
    #[track_caller]
    pub fn says(&mut self, count: usize, size: usize) {
        let last = self.last_id() + count as u64;
        let window = (UNDER_WAY / size).max(1) as u64;
        let speaker = self.speaker.expect("somebody speaks");
        self.until("all who read have heard all", |crowd| {
            while crowd.last_id() < last
                && crowd.last_id() < crowd.members[speaker].last_id + window
            {
                crowd.say(size);
            }
            crowd.last_id() == last && crowd.all_have_heard(last)
        });
    }

    /// Says a message of this size every `pause`, until something holds.
    #[track_caller]
    pub fn says_until(
        &mut self,
        size: usize,
        pause: Duration,
        what: &str,
        holds: impl Fn(&Crowd<'a>) -> bool,
    ) {
        let mut next = Instant::now();
        self.until(what, |crowd| {
            if Instant::now() >= next {
                crowd.say(size);
                next += pause;
            }
            holds(crowd)
        });
    }

    fn all_have_heard(&self, id: u64) -> bool {
        let reads = |member: &&Member| {
            member.habit == Habit::Reads && member.is_there() && member.told.is_some()
        };
        self.members.iter().filter(reads).all(|member| member.last_id == id)
    }

    /// Reads what had come to a member that read nothing until its connection ended; returns the last
    /// id. A message that was cut does not count.
    pub fn reads_what_had_come(&mut self, index: usize) -> u64 {
        self.members[index].habit = Habit::Reads;
        while self.reads(index, READ) {}
        self.members[index].last_id
    }

    /// Lets these read `rate` bytes a second each, from here on.
    pub fn sip(&mut self, members: Range<usize>, rate: usize) {
        let every = Duration::from_secs(1) * SIP as u32 / rate as u32;
        self.sipping = Some(Sipping { members, every, began: Instant::now(), sips: 0 });
    }

    /// Ends the sipping.
    pub fn sip_no_more(&mut self) {
        self.sipping = None;
    }

    // ------------------------------------------------------------------ one turn

    /// Handles whatever happens until something holds.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Crowd<'a>) -> bool) {
        let deadline = Instant::now() + self.patience;
        while !holds(self) {
            assert!(Instant::now() < deadline, "still waiting until {what}");
            self.turn();
        }
        self.watch.looks_now();
    }

    /// Handles whatever happens for so long.
    #[track_caller]
    pub fn lives_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn();
        }
        self.watch.looks_now();
    }

    /// Waits for something to happen, and handles it.
    #[track_caller]
    fn turn(&mut self) {
        let timeout = Timespec::try_from(TICK).expect("waits are short");
        let mut events = mem::take(&mut self.events);
        // An interrupted wait is one without events.
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)).ok();
        for event in events.drain(..) {
            // Copied out: the kernel's struct is packed.
            let (data, flags) = (event.data.u64(), event.flags);
            self.happens(data as usize, flags);
        }
        self.events = events;
        self.sips();
        self.watch.looks();
    }

    fn happens(&mut self, index: usize, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.flushes(index);
        }
        if self.members[index].habit == Habit::Reads {
            if flags.intersects(ENDS | EventFlags::IN) {
                self.reads(index, READ);
            }
            return;
        }
        if self.members[index].waits && flags.contains(EventFlags::IN) {
            self.looks_ahead(index);
        }
        if flags.intersects(ENDS) {
            self.ends(index);
        }
    }

    /// Sees the status of an answer without reading it.
    fn looks_ahead(&mut self, index: usize) {
        let Some(stream) = &self.members[index].stream else { return };
        let mut start = [0; 12];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        if let Ok((12, _)) = rustix::net::recv(stream, &mut start, flags) {
            self.members[index].status = status_of(&start);
            self.waits_no_more(index);
            self.attends(index);
        }
    }

    fn waits_no_more(&mut self, index: usize) {
        self.waiting -= usize::from(mem::take(&mut self.members[index].waits));
    }

    /// Tells the epoll what matters to a member; ends always do.
    fn attends(&mut self, index: usize) {
        let member = &self.members[index];
        let Some(stream) = member.stream.as_ref().filter(|_| member.ended.is_none()) else {
            return;
        };
        let mut flags = EventFlags::RDHUP;
        if member.habit == Habit::Reads || member.waits {
            flags |= EventFlags::IN;
        }
        if member.waits_for_room {
            flags |= EventFlags::OUT;
        }
        epoll::modify(&self.epoll, stream, EventData::new_u64(index as u64), flags)
            .expect("it is in the epoll");
    }

    fn sends(&mut self, index: usize, bytes: &[u8]) {
        let member = &mut self.members[index];
        let waits = !member.unsent.is_empty();
        member.unsent.extend_from_slice(bytes);
        if !waits {
            self.flushes(index);
        }
    }

    fn flushes(&mut self, index: usize) {
        let member = &mut self.members[index];
        let Some(stream) = &member.stream else { return };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::send(stream, &member.unsent, flags) {
            Ok(count) => drop(member.unsent.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The next read sees what ended it.
            Err(_) => member.unsent.clear(),
        }
        let is_full = !member.unsent.is_empty();
        if mem::replace(&mut member.waits_for_room, is_full) != is_full {
            self.attends(index);
        }
    }

    /// Notes that the connection has ended; what came before may still be read.
    fn ends(&mut self, index: usize) {
        let member = &mut self.members[index];
        if member.ended.is_some() {
            return;
        }
        member.ended = Some(Instant::now());
        if let Some(stream) = &member.stream {
            epoll::delete(&self.epoll, stream).expect("it is in the epoll");
        }
        if member.habit == Habit::Reads {
            member.goes();
        }
        self.waits_no_more(index);
    }

    fn sips(&mut self) {
        let Some(mut sipping) = self.sipping.take() else { return };
        let count = sipping.members.len();
        let rounds = sipping.began.elapsed().as_secs_f64() / sipping.every.as_secs_f64();
        let due = (rounds * count as f64) as usize;
        // A sip that is missed is not made up for: a slow client has no bursts.
        for sip in sipping.sips.max(due.saturating_sub(count))..due {
            self.reads(sipping.members.start + sip % count, SIP);
        }
        sipping.sips = due;
        self.sipping = Some(sipping);
    }

    /// Reads once; false when there is nothing to be read.
    fn reads(&mut self, index: usize, limit: usize) -> bool {
        let Some(stream) = &self.members[index].stream else { return false };
        match rustix::net::recv(stream, &mut self.buffer[..limit], RecvFlags::DONTWAIT) {
            Ok((count @ 1.., _)) => {
                let buffer = mem::take(&mut self.buffer);
                self.takes_in(index, &buffer[..count]);
                self.buffer = buffer;
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            Ok(_) | Err(_) => {
                self.ends(index);
                false
            }
        }
    }

    // ------------------------------------------------------------------ what comes in

    fn takes_in(&mut self, index: usize, fresh: &[u8]) {
        let mut held = mem::take(&mut self.members[index].partial);
        let mut rest = fresh;
        if !held.is_empty() {
            held.extend_from_slice(fresh);
            rest = &held;
        }
        while !rest.is_empty() {
            match self.takes_one(index, rest) {
                Some(count) => rest = &rest[count..],
                None => break,
            }
        }
        self.members[index].partial.extend_from_slice(rest);
    }

    /// Takes one thing from the beginning of these bytes; returns how long it was, or none when it is
    /// not there as a whole.
    fn takes_one(&mut self, index: usize, bytes: &[u8]) -> Option<usize> {
        let member = &mut self.members[index];
        match &mut member.stage {
            Stage::Answer => return self.takes_answer(index, bytes),
            Stage::History(Some(history)) => {
                let piece = &bytes[..bytes.len().min(history.left())];
                if let Some(told) = history.takes(member.after, piece, &self.record) {
                    member.last_id = told.last_id;
                    member.told = Some(told);
                    member.stage = Stage::Live;
                }
                return Some(piece.len());
            }
            Stage::History(None) | Stage::Live => {}
        }
        let head = FrameHead::read(bytes)?;
        if matches!(member.stage, Stage::History(None)) && head.first == TEXT {
            assert!(head.is_last(), "a history in fragments");
            member.stage = Stage::History(Some(HistoryIn::of(head.length)));
            return Some(head.size);
        }
        let end = head.size + head.length;
        let payload = bytes.get(head.size..end)?;
        match head.first {
            TEXT => {
                assert!(head.is_last(), "a message in fragments");
                self.record.check(member.last_id + 1, payload);
                member.last_id += 1;
            }
            PING => self.sends(index, &frame(PONG, payload)),
            // The end of the connection follows.
            CLOSE => {}
            opcode => panic!("a frame with opcode {opcode}"),
        }
        Some(end)
    }

    /// Takes the head of an answer, and its body if its length is given.
    fn takes_answer(&mut self, index: usize, bytes: &[u8]) -> Option<usize> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..end]).expect("an ASCII head");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |text| text.parse().expect("a length"));
        let end = end + length;
        if bytes.len() < end {
            return None;
        }
        let status = status_of(bytes);
        self.members[index].status = status;
        self.waits_no_more(index);
        match status {
            101 => self.members[index].stage = Stage::History(None),
            200 => {}
            // It is refused, and goes.
            _ => self.ends(index),
        }
        Some(end)
    }
}

/// These flags say that the other side has ended a connection.
const ENDS: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

impl Member {
    fn goes(&mut self) {
        self.stream = None;
    }

    /// Whether it is there, as far as is known.
    pub fn is_there(&self) -> bool {
        self.stream.is_some() && self.ended.is_none()
    }
}

fn status_of(answer: &[u8]) -> u16 {
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    let status = status.filter(|_| answer.starts_with(b"HTTP/1.1 "));
    let status = status.and_then(|digits| digits.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(answer)))
}
