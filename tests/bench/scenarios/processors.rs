//! What else the processors have to do while a server is measured.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{hint, thread};

#[derive(Clone, Copy)]
pub enum Processors {
    Idle,
    /// A thread that only computes is on each of them, as on a machine that others use.
    Busy,
}

/// Comes after the name of a row.
impl fmt::Display for Processors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Processors::Idle => "",
            Processors::Busy => ", processors busy",
        })
    }
}

impl Processors {
    /// Keeps them so until what this returns is dropped.
    pub fn keep(self) -> Option<Computing> {
        match self {
            Processors::Idle => None,
            Processors::Busy => Some(Computing::start()),
        }
    }
}

/// A thread on each processor that computes until this is dropped.
pub struct Computing {
    ends: Arc<AtomicBool>,
}

impl Computing {
    fn start() -> Computing {
        let ends: Arc<AtomicBool> = Arc::default();
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let ends = ends.clone();
            thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        Computing { ends }
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}
