//! One thread that does everything: it accepts and reads what epoll tells of, between the rounds.

use std::io;
use std::mem;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::Socket;

use super::Rounds;
use super::incoming::Incoming;

/// What one read takes at most, and so the longest message: far longer than those of the bench.
const READ: usize = 256 << 10;
/// Events that one look brings at most.
const EVENTS: usize = 1024;
/// The epoll data of the listener; clients are numbered from 0.
const LISTENER: u64 = u64::MAX;

pub struct EventLoop {
    epoll: OwnedFd,
    events: Vec<Event>,
    listener: Socket,
    /// By the number that epoll knows them by, which the rounds use, too. Numbers are not used
    /// again: a run is short.
    peers: Vec<Option<Peer>>,
    buffer: Vec<u8>,
}

struct Peer {
    socket: Arc<Socket>,
    incoming: Incoming,
}

impl EventLoop {
    pub fn new(listener: Socket) -> io::Result<EventLoop> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let events = Vec::with_capacity(EVENTS);
        Ok(EventLoop { epoll, events, listener, peers: Vec::new(), buffer: vec![0; READ] })
    }

    /// Serves until the process is ended.
    pub fn run(mut self, mut rounds: Rounds) -> io::Result<()> {
        loop {
            self.take_events(&mut rounds)?;
            rounds.step(|| true)?;
        }
    }

    fn take_events(&mut self, rounds: &mut Rounds) -> io::Result<()> {
        let at_once = Timespec::default();
        let wait = if rounds.is_under_way() { Some(&at_once) } else { None };
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
                self.read(index, rounds);
            }
            if flags.contains(EventFlags::OUT) {
                rounds.catch_up(index);
            }
        }
        self.events = events;
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((socket, _)) = self.listener.accept() {
            let index = self.peers.len();
            // Edges, so that a socket that is full needs no further call to be watched.
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&self.epoll, &socket, EventData::new_u64(index as u64), flags)?;
            let socket = Arc::new(socket);
            self.peers.push(Some(Peer { socket, incoming: Incoming::default() }));
        }
        Ok(())
    }

    fn read(&mut self, index: usize, rounds: &mut Rounds) {
        while let Some(Peer { socket, incoming }) = &mut self.peers[index] {
            let lines = rounds.lines();
            let said = lines.len();
            match incoming.read(socket, RecvFlags::DONTWAIT, &mut self.buffer, lines) {
                Ok(None) => break,
                Ok(Some(brought)) => {
                    let has_spoken = lines.len() > said;
                    if let Some(response) = brought.response {
                        rounds.join(index, socket.clone(), response);
                    }
                    if has_spoken {
                        rounds.spoke(index);
                    }
                    if !brought.is_full {
                        break;
                    }
                }
                Err(_) => {
                    self.peers[index] = None;
                    rounds.leave(index);
                }
            }
        }
    }
}
