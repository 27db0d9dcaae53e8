//! What a process prints, read while it prints it. Whoever asks for the text gets all that the process
//! had printed by then.

use std::{
    io::{self, Read},
    os::fd::AsFd,
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::ioctl_fionread,
};

use super::patience::PATIENCE;

/// What a process has printed so far.
pub struct Lines {
    printed: Arc<Mutex<dyn Drain + Send>>,
    /// A word whenever there is more; closed when the process has closed its end.
    news: Receiver<()>,
}

/// The pipe, and what came through it. The lock is held while it is read, so that nothing is between.
struct Printed<P> {
    pipe: P,
    bytes: Vec<u8>,
}

trait Drain {
    /// Takes what is in the pipe, and gives all that ever was.
    fn drain(&mut self) -> &[u8];
}

impl<P: Read + AsFd> Printed<P> {
    fn read_what_is_there(&mut self) -> io::Result<usize> {
        let there = ioctl_fionread(&self.pipe)? as usize;
        let from = self.bytes.len();
        self.bytes.resize(from + there, 0);
        let read = self.pipe.read_exact(&mut self.bytes[from..]);
        read.inspect_err(|_| self.bytes.truncate(from)).map(|()| there)
    }
}

impl<P: Read + AsFd> Drain for Printed<P> {
    fn drain(&mut self) -> &[u8] {
        // A pipe that cannot be read has nothing more.
        let _ = self.read_what_is_there();
        &self.bytes
    }
}

impl Lines {
    pub fn follow(pipe: impl Read + AsFd + Send + 'static) -> Lines {
        let (sender, news) = crossbeam_channel::unbounded();
        // The process must never wait for a full pipe, so a thread reads it.
        let end = pipe.as_fd().try_clone_to_owned().expect("a descriptor");
        let printed = Arc::new(Mutex::new(Printed { pipe, bytes: Vec::new() }));
        let all = printed.clone();
        thread::spawn(move || {
            loop {
                let mut ends = [PollFd::new(&end, PollFlags::IN)];
                if poll(&mut ends, None).is_err() {
                    continue;
                }
                let flags = ends[0].revents();
                match all.lock().expect("no panic here").read_what_is_there() {
                    // Somebody else took it, unless nothing comes any more.
                    Ok(0) if flags.intersects(PollFlags::HUP | PollFlags::ERR) => return,
                    Ok(_) => drop(sender.send(())),
                    Err(_) => return,
                }
            }
        });
        Lines { printed, news }
    }

    /// All that the process has printed so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.printed.lock().expect("no panic here").drain()).into_owned()
    }

    /// Waits until a line gives something, or for the end, or for the deadline.
    pub fn wait_for<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.text().lines().find_map(&find) {
                return Some(found);
            }
            self.news.recv_deadline(deadline).ok()?;
        }
    }

    /// Waits for the end; false when it does not come.
    pub fn to_the_end(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.news.recv_deadline(deadline) {
                Ok(()) => (),
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}
