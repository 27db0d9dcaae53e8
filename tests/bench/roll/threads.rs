//! A thread for each client that reads, and one that goes the rounds: the shape of the server, and
//! nothing else. What it has less than the event loop is what threads and their queue cost.

use std::io;
use std::iter;
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::net::RecvFlags;
use socket2::Socket;

use super::Rounds;
use super::incoming::Incoming;

/// What one read takes at most, and so the longest message.
const READ: usize = 32 << 10;
/// Events that wait for the rounds; more make the readers wait.
const QUEUE: usize = 1024;
/// Bytes of a reader's stack, beside its buffer.
const STACK: usize = 64 << 10;
/// How often to look whether full sockets have room, while nothing else happens.
const LOOK: Duration = Duration::from_millis(1);

/// What the reader of a client has to tell, with the client's number.
enum Event {
    Came(usize, Arc<Socket>, Vec<u8>),
    Said(usize, Vec<u8>),
    Left(usize),
}

/// Serves until the process is ended.
pub fn run(listener: Socket, mut rounds: Rounds) -> io::Result<()> {
    let (queue, events) = bounded(QUEUE);
    thread::spawn(move || accept(&listener, &queue));
    loop {
        let first = if rounds.is_under_way() { None } else { wait(&events, &rounds)? };
        for event in first.into_iter().chain(events.try_iter()) {
            match event {
                Event::Came(index, socket, response) => rounds.join(index, socket, response),
                Event::Said(index, lines) => {
                    rounds.lines().extend_from_slice(&lines);
                    rounds.spoke(index);
                }
                Event::Left(index) => rounds.leave(index),
            }
        }
        rounds.catch_up_all();
        rounds.step(|| !events.is_empty())?;
    }
}

fn wait(events: &Receiver<Event>, rounds: &Rounds) -> io::Result<Option<Event>> {
    let event = if rounds.has_behind() {
        events.recv_timeout(LOOK)
    } else {
        events.recv().map_err(RecvTimeoutError::from)
    };
    match event {
        Ok(event) => {
            // Readers that are about to tell something can do so first.
            thread::yield_now();
            Ok(Some(event))
        }
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("nobody accepts any more")),
    }
}

fn accept(listener: &Socket, queue: &Sender<Event>) {
    let sockets = iter::from_fn(|| listener.accept().ok());
    for (index, (socket, _)) in sockets.enumerate() {
        let queue = queue.clone();
        let read = move || read(index, &Arc::new(socket), &queue);
        if thread::Builder::new().stack_size(STACK).spawn(read).is_err() {
            return;
        }
    }
}

fn read(index: usize, socket: &Arc<Socket>, queue: &Sender<Event>) {
    let mut incoming = Incoming::default();
    let mut buffer = vec![0; READ];
    let mut lines = Vec::new();
    loop {
        let Ok(brought) = incoming.read(socket, RecvFlags::empty(), &mut buffer, &mut lines) else {
            queue.send(Event::Left(index)).ok();
            return;
        };
        if let Some(response) = brought.and_then(|brought| brought.response) {
            queue.send(Event::Came(index, socket.clone(), response)).ok();
        }
        if !lines.is_empty() {
            queue.send(Event::Said(index, mem::take(&mut lines))).ok();
        }
    }
}
