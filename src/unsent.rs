//! How many unsent bytes the kernel may hold for a client (TCP_NOTSENT_LOWAT).
//!
//! The kernel takes bytes for a client at once, and sends them as the client reads. Those that wait in
//! the kernel cost its memory, and what is sent next waits behind them. So a client that reads slowly
//! is allowed few, and one that takes much in a short time more: a frame may be long, and nobody who
//! reads as fast as they come should fall behind for it.
//!
//! Bytes that the client's own kernel has room for are sent at once, and do not count.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use rustix::param::page_size;

/// How many unsent bytes the kernel may hold for a client at first. More would wait where the server
/// cannot see them; fewer would wake a sender more often.
pub(crate) const UNSENT: u64 = 256 << 10;

/// How many unsent bytes the kernel may hold for a client that takes much in a short time. 100 such
/// clients that are sent 128 messages of 10 KB at a time get 1.4 times as many as with 128 KiB, and a
/// delivery takes 0.65 times the CPU, since fewer of them fall behind. With half of this they get 0.8
/// times as many as with it, with twice as much no more.
const MOST_UNSENT: u64 = 1 << 20;

/// How many unsent bytes the kernel may hold for each of very many clients. A client that reads is no
/// slower with it.
const LEAST_UNSENT: u64 = 16 << 10;

/// What each client may have changes by this many bytes at a time, so that it does not change with each
/// client.
const STEP: u64 = 16 << 10;

const _: () = assert!(LEAST_UNSENT < UNSENT && UNSENT < MOST_UNSENT);

/// All clients together may fill one part in this many of the memory that the kernel likes to use for
/// all TCP connections of the machine (`tcp_mem`). If it were full, clients that read nothing would slow
/// down all other connections. A client keeps what it was given when it came. So if ten thousand
/// come one after the other and read nothing, they fill 3.3 of these parts, which is about half of that
/// memory. If each read fast at first, they fill 4.7 of them.
const TCP_SHARE: u64 = 6;

/// How much memory the kernel likes to use for TCP, in bytes, if it does not say.
const TCP_MEMORY: u64 = 1 << 30;

/// How much the kernel may hold for each client, by how many clients there are.
#[derive(Debug)]
pub struct Unsent {
    /// The memory for TCP that the kernel likes to use, in bytes.
    tcp_memory: u64,
    /// What each client may have of it.
    share: AtomicU64,
}

impl Unsent {
    /// Shares the memory of this machine.
    pub fn of_this_machine() -> Unsent {
        Unsent::of(tcp_memory())
    }

    /// Shares `tcp_memory` bytes.
    pub(crate) fn of(tcp_memory: u64) -> Unsent {
        let unsent = Unsent { tcp_memory, share: AtomicU64::new(0) };
        unsent.share_among(0);
        unsent
    }

    /// Shares the memory among `clients` clients from now on.
    pub fn share_among(&self, clients: u64) {
        let share = self.tcp_memory / TCP_SHARE / clients.max(1);
        let below = share / STEP * STEP;
        self.share.store(below.clamp(LEAST_UNSENT, MOST_UNSENT), Relaxed);
    }

    /// How many bytes the kernel may hold for a client that is new.
    pub fn of_new_client(&self) -> u64 {
        self.of_fast_client().min(UNSENT)
    }

    /// The same for a client that has taken much in a short time.
    pub fn of_fast_client(&self) -> u64 {
        self.share.load(Relaxed)
    }
}

/// How much memory the kernel likes to use for all TCP connections, in bytes.
fn tcp_memory() -> u64 {
    let pressure = || {
        let text = fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").ok()?;
        text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    pressure().map_or(TCP_MEMORY, |pages| pages.saturating_mul(page_size() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_clients_share_what_few_have_each() {
        #[track_caller]
        fn check(clients: u64, new: u64, fast: u64) {
            let unsent = Unsent::of(TCP_SHARE << 27);
            unsent.share_among(clients);
            let both = (unsent.of_new_client(), unsent.of_fast_client());
            assert_eq!(both, (new, fast), "{clients} clients");
        }
        check(0, UNSENT, MOST_UNSENT);
        check(1, UNSENT, MOST_UNSENT);
        check(128, UNSENT, MOST_UNSENT);
        check(129, UNSENT, MOST_UNSENT - STEP);
        check(512, UNSENT, UNSENT);
        check(513, UNSENT - STEP, UNSENT - STEP);
        check(1024, UNSENT / 2, UNSENT / 2);
        check(8192, LEAST_UNSENT, LEAST_UNSENT);
        check(1_000_000, LEAST_UNSENT, LEAST_UNSENT);
    }
}
