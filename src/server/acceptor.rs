//! Takes connections from the listener, and gives each of them a thread or tells it that there is no
//! room.
//!
//! The accept thread alone runs it. The listener's shutdown ends it.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use http::Method;
use log::{debug, warn};
use socket2::Socket;

use super::{ConnectionLimits, capacity::Space, thread_pool::ThreadPool};
use crate::{
    access::Counted,
    connection::{Admission, ServerContext, converse},
    http::HttpRefusal,
    outbox::Outbox,
    tally::Tally,
    unsent::{UNSENT, Unsent},
};

/// The shortest and the longest time between two attempts to accept, when one failed: the system lacks
/// memory or descriptors, as a rule. The time doubles with each attempt.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// The address of a peer that has none.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Accepts until the listener is shut down.
pub(super) struct Acceptor {
    listener: Arc<Socket>,
    context: ServerContext,
    /// How many connections are served and how many are above that, at the most.
    limits: ConnectionLimits,
    /// How many connections are served.
    clients: Arc<AtomicUsize>,
    /// How many connections are open above those.
    extra: Arc<AtomicUsize>,
    /// Those that may still ask something, the one that has been there longest first.
    asking: VecDeque<Weak<Outbox>>,
    space: Space,
    unsent: Arc<Unsent>,
    /// How many unsent bytes the kernel may hold for a new connection, as the listener has it.
    unsent_of_new: u64,
    pool: ThreadPool,
    /// How many connections were accepted.
    accepted: u64,
    /// How often the system lacked something for one more client.
    shortages: Tally,
}

impl Acceptor {
    pub(super) fn new(
        listener: Arc<Socket>,
        context: ServerContext,
        limits: ConnectionLimits,
        unsent: Arc<Unsent>,
    ) -> Acceptor {
        Acceptor {
            listener,
            context,
            limits,
            clients: Arc::default(),
            extra: Arc::default(),
            asking: VecDeque::new(),
            space: Space::of_this_process(),
            unsent,
            unsent_of_new: UNSENT,
            pool: ThreadPool::new(),
            accepted: 0,
            shortages: Tally::default(),
        }
    }

    pub(super) fn run(mut self) {
        let mut back_off = BACK_OFF.0;
        loop {
            if let Some(count) = self.shortages.due() {
                warn!("{count} more clients could not be served");
            }
            match self.listener.accept() {
                Ok((socket, peer)) => {
                    back_off = BACK_OFF.0;
                    // The listener is one of IP.
                    let peer = peer.as_socket().map_or(UNKNOWN, |peer| peer.ip());
                    self.admit(socket, peer);
                }
                Err(error) => match After::of(&error) {
                    After::Again => {}
                    After::End => return debug!("no longer accepting: {error}"),
                    After::Pause => {
                        self.note_shortage(&format!("cannot accept: {error}; trying again"));
                        thread::sleep(back_off);
                        back_off = (back_off * 2).min(BACK_OFF.1);
                    }
                },
            }
        }
    }

    /// Has a thread serve a connection, or tells the peer that there is no room for it.
    fn admit(&mut self, socket: Socket, peer: IpAddr) {
        // An IPv4 peer of a listener for IPv6 has the same address in its headers and in the rules.
        let peer = peer.to_canonical();
        let counted = self.context.access.count_connection(peer);
        if matches!(counted, Counted::FarAbove) {
            return;
        }
        let slot = ConnectionSlot::take(&self.clients, self.limits.clients);
        let is_extra = slot.is_none();
        // As many as are heard may still be about to leave. Where even more come, they are dropped
        // without a word.
        let most = 2 * self.limits.extra;
        let Some(slot) = slot.or_else(|| ConnectionSlot::take(&self.extra, most)) else { return };
        let admission = match counted {
            Counted::Above(_) => Admission::TooManyOfAddress,
            _ if is_extra => Admission::TooMany,
            _ => Admission::Client,
        };
        self.share_tcp_memory();
        self.accepted += 1;
        let (context, number) = (self.context.clone(), self.accepted);
        let outbox = Arc::new(Outbox::new(socket));
        if is_extra {
            self.hear_extra(&outbox);
        }
        let run = {
            let outbox = outbox.clone();
            move || {
                converse(&context, admission, outbox, peer, number);
                drop((slot, counted));
            }
        };
        let space = self.space;
        let may_start = || match space.has_room() {
            true => Ok(()),
            false => Err(io::Error::other("the limit of address space (ulimit -v) is reached")),
        };
        if let Err(error) = self.pool.serve(run, may_start) {
            self.note_shortage(&format!("cannot start a thread for a client: {error}"));
            // The peer may miss it, since there is no thread to wait for this peer.
            let refusal = HttpRefusal::unavailable("the server has no room now; come back later");
            let _ = outbox.send_now(&refusal.response(&Method::GET));
        }
    }

    /// Lets an extra connection ask something. If too many others do, the one of them that has been
    /// there longest is ended. So connections that say nothing keep no operator from an answer.
    fn hear_extra(&mut self, outbox: &Arc<Outbox>) {
        self.asking.retain(|outbox| outbox.strong_count() > 0);
        if self.asking.len() >= self.limits.extra {
            let longest = self.asking.pop_front().and_then(|outbox| outbox.upgrade());
            longest.into_iter().for_each(|outbox| outbox.abort());
        }
        self.asking.push_back(Arc::downgrade(outbox));
    }

    /// Lets the kernel hold less for each client that does not read, the more clients there are.
    fn share_tcp_memory(&mut self) {
        let clients = self.clients.load(Ordering::Relaxed) as u64;
        self.unsent.share_among(clients);
        let of_new = self.unsent.of_new_client();
        // Accepted connections inherit it from the listener, so none needs a system call of its
        // own.
        if of_new != self.unsent_of_new
            && self.listener.set_tcp_notsent_lowat(of_new as u32).is_ok()
        {
            self.unsent_of_new = of_new;
        }
    }

    fn note_shortage(&mut self, words: &str) {
        if self.shortages.add() {
            warn!("{words}");
        }
    }
}

/// What comes after an attempt to accept that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// The next one: only this connection is affected.
    Again,
    /// The next one in a while: the system lacks something, or a firewall or a security module says no,
    /// which may be over soon.
    Pause,
    /// Nothing: the listener was shut down.
    End,
}

impl After {
    fn of(error: &io::Error) -> After {
        match error.raw_os_error() {
            Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => After::Again,
            Some(libc::EINVAL) => After::End,
            _ => After::Pause,
        }
    }
}

/// A place for one open connection, free again when this is dropped.
#[derive(Debug)]
struct ConnectionSlot {
    taken: Arc<AtomicUsize>,
}

impl ConnectionSlot {
    /// Takes one of `most` slots; `None` when all are taken.
    fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<ConnectionSlot> {
        let before = taken.fetch_add(1, Ordering::Relaxed);
        let slot = ConnectionSlot { taken: taken.clone() };
        (before < most).then_some(slot)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Shutdown, TcpStream},
        time::Instant,
    };

    use clap::Parser;

    use super::*;
    use crate::{
        access::Access,
        catch_up::CatchUp,
        channels::{Channels, Most},
        config::Config,
        server::listen,
    };

    /// An acceptor that shares this much memory, for connections that say nothing.
    fn acceptor(tcp_memory: u64) -> Acceptor {
        let config = Config::parse_from(["txtcord"]);
        let (catch_up, _) = CatchUp::by_hand();
        let most = Most { count: 1, limit: None };
        let (channels, _) = Channels::new(&config, most, Arc::default(), catch_up.clone(), None);
        let context = ServerContext {
            channels,
            catch_up,
            metrics: Arc::default(),
            alive: Weak::new(),
            access: Arc::new(Access::new(&config).expect("there is no access file")),
            config: Arc::new(config),
        };
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).expect("the loopback");
        let unsent = Arc::new(Unsent::of(tcp_memory));
        Acceptor::new(
            Arc::new(listener),
            context,
            ConnectionLimits { clients: 100, extra: 1 },
            unsent,
        )
    }

    impl Acceptor {
        /// Lets one more client in; returns how many unsent bytes the kernel may hold for it.
        fn let_in(&mut self) -> (TcpStream, u64) {
            let address = self.listener.local_addr().expect("it listens");
            let address = address.as_socket().expect("an address of IP");
            let client = TcpStream::connect(address).expect("it listens");
            let (socket, _) = self.listener.accept().expect("the client");
            let may_hold = socket.tcp_notsent_lowat().expect("a socket of TCP");
            self.admit(socket, address.ip());
            (client, may_hold.into())
        }
    }

    #[test]
    fn only_a_listener_that_was_shut_down_ends_the_accepting() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).expect("the loopback");
        listener.shutdown(Shutdown::Both).expect("it listens");
        let error = listener.accept().expect_err("it was shut down");
        assert_eq!(After::of(&error), After::End);
        for errno in [libc::EPERM, libc::EACCES, libc::ENETDOWN, libc::EMFILE, libc::ENOMEM] {
            assert_eq!(After::of(&io::Error::from_raw_os_error(errno)), After::Pause, "{errno}");
        }
    }

    #[test]
    fn the_more_clients_there_are_the_less_the_kernel_may_hold_for_a_new_one() {
        // It is enough for a few clients.
        let mut acceptor = acceptor(32 * UNSENT);
        let (clients, may_hold): (Vec<_>, Vec<_>) = (0..30).map(|_| acceptor.let_in()).unzip();
        assert_eq!(may_hold[0], UNSENT);
        assert!(may_hold.is_sorted_by(|before, after| before >= after), "{may_hold:?}");
        assert!(may_hold[29] < UNSENT / 4, "{may_hold:?}");
        assert!(acceptor.unsent.of_fast_client() < UNSENT / 4, "and for one that is fast");

        drop(clients);
        let deadline = Instant::now() + Duration::from_secs(180);
        while acceptor.clients.load(Ordering::Relaxed) > 0 {
            assert!(Instant::now() < deadline, "clients that left are gone");
            thread::yield_now();
        }
        // The next one is counted when it is let in.
        let _one = acceptor.let_in();
        let (_other, may_hold) = acceptor.let_in();
        assert_eq!(may_hold, UNSENT, "as when the first one came");
    }
}
