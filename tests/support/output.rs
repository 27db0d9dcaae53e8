//! What a process prints, read while it prints it.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::patience::PATIENCE;

/// What a process has printed so far.
pub struct Lines {
    text: Arc<Mutex<String>>,
    /// A word for each line; closed when the process has closed its end.
    news: Receiver<()>,
}

impl Lines {
    pub fn follow(pipe: impl Read + Send + 'static) -> Lines {
        let text = Arc::new(Mutex::new(String::new()));
        let (sender, news) = crossbeam_channel::unbounded();
        let all = text.clone();
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                all.lock().expect("no panic here").push_str(&String::from_utf8_lossy(&line));
                line.clear();
                let _ = sender.send(());
            }
        });
        Lines { text, news }
    }

    pub fn text(&self) -> String {
        self.text.lock().expect("no panic here").clone()
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
