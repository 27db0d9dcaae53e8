//! The server's life: bind, accept, admit, stop.
//!
//! Each ending causes the next: the listener's shutdown ends the accept loop, the hub's goodbye
//! ends the clients, and when the last of them is gone, the hub ends.

use std::{
    convert::Infallible,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, select};
use http::Method;
use log::{debug, error, info, warn};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    config::{Config, Fsync},
    connection::{Admission, House, converse},
    http::HttpRefusal,
    hub::{self, Hub, HubHandle},
    journal::{Fatal, Journal, OpenError},
    lines::line_limit,
    outbox::Outbox,
};

/// Connections that the kernel holds for us; std's 128 drops bursts.
const BACKLOG: i32 = 1024;

/// Bytes that the kernel holds for a client beyond what is on its way to it. More would be queued
/// where nobody sees it; less would wake a sender more often. Set on the listener and inherited, so
/// it costs a connection nothing.
const NOTSENT: u32 = 128 << 10;

/// The stack of a client's thread. What it does not touch takes no memory.
const STACK: usize = 128 << 10;

/// Connections beyond `--max-clients` that are read to be told so; more are just dropped.
const REFUSALS: usize = 64;

/// Descriptors beside those of clients: the file, the lock, the log, the listener.
const OTHER_FILES: u64 = 32;

/// How long an orderly stop may take.
const STOP_TIME: Duration = Duration::from_secs(5);

/// How long clients have to take note when the storage failed.
const FAILED_TIME: Duration = Duration::from_secs(1);

/// Between attempts to accept when the system is out of something: doubling from the first to the
/// last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Why a server could not start.
#[derive(Debug)]
pub enum StartError {
    /// The text file.
    File(OpenError),
    /// Somebody else listens there.
    AddressInUse(SocketAddr),
    /// Anything else; in words.
    Other(String, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::File(error) => error.fmt(out),
            StartError::AddressInUse(address) => write!(
                out,
                "--listen {address}: address in use; stop who listens there or choose another port"
            ),
            StartError::Other(what, error) => write!(out, "{what}: {error}"),
        }
    }
}

/// Why a running server ended when nobody asked it to.
#[derive(Debug)]
pub enum Failure {
    /// The file failed.
    Fatal(Fatal),
    /// The hub panicked, which is a bug: a server that accepts and never answers would be worse.
    Panicked,
}

/// A server that accepts connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    listener: Arc<Socket>,
    accept: JoinHandle<()>,
    /// How the hub ended; disconnected when it panicked.
    hub_ended: Receiver<Result<(), Fatal>>,
    handle: HubHandle,
    /// Disconnected when the accept loop and all clients are gone.
    clients: Receiver<Infallible>,
}

impl Server {
    /// Opens the file, then the port, and accepts.
    ///
    /// # Errors
    /// When either cannot be had; nothing of the file was changed then, except to repair it.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        let other = |what: &str| {
            let what = what.to_owned();
            move |error| StartError::Other(what, error)
        };
        raise_file_limit(config.max_clients);
        let (journal, history) = Journal::open(&config.file, config.fsync, config.max_message)
            .map_err(StartError::File)?;
        let messages = history.messages();
        let hub = Hub::new(journal, history, line_limit(config.max_message));
        let metrics = hub.metrics().clone();
        let listener = listen(config.listen)?;
        let address = listener
            .local_addr()
            .map(|address| address.as_socket().unwrap_or(config.listen))
            .map_err(other("the listener's address"))?;
        info!(
            "txtcord {} serves {} from {} with {messages} messages; --fsync {}",
            env!("CARGO_PKG_VERSION"),
            url(address),
            config.file.display(),
            promise(config.fsync),
        );

        let (handle, commands) = hub::queue();
        let (ended, hub_ended) = bounded(1);
        named("hub", move || {
            let done = hub.run(&commands);
            // Nobody waits for it when the process is about to end anyway.
            let _ = ended.send(done);
            drop(ended);
            // What is still asked gets no answer, and is told so by the end of its reply queue; left
            // in a queue that nobody reads, it would wait for ever.
            commands.iter().for_each(drop);
        })
        .map_err(other("starting the hub"))?;
        let listener = Arc::new(listener);
        let (alive, clients) = bounded(0);
        let alive = Arc::new(alive);
        let house = House {
            hub: handle.clone(),
            metrics,
            alive: Arc::downgrade(&alive),
            open: Arc::new(AtomicUsize::new(0)),
            config: Arc::new(config.clone()),
        };
        let accepting = listener.clone();
        let accept = named("accept", move || {
            let _alive = alive;
            accept_loop(&accepting, &house);
        })
        .map_err(other("starting to accept"))?;
        Ok(Server { address, listener, accept, hub_ended, handle, clients })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` says so, or is dropped, or the storage fails; then tells everybody,
    /// waits for them a while, and returns.
    ///
    /// # Errors
    /// When the storage failed; what was shown before is stored all the same.
    pub fn run(self, stop: &Receiver<()>) -> Result<(), Failure> {
        let (time, ended) = select! {
            recv(stop) -> _ => (STOP_TIME, None),
            recv(self.hub_ended) -> done => (FAILED_TIME, Some(done.map_err(RecvTimeoutError::from))),
        };
        // It ends the accept loop; if it fails, the process's end does.
        let _ = self.listener.shutdown(Shutdown::Both);
        self.handle.stop();
        drop(self.handle);
        // Said when nothing that is posted from here on is taken any more.
        info!("stopping");
        let deadline = Instant::now() + time;
        if self.clients.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            debug!("some clients did not leave in time");
        } else if self.accept.join().is_err() {
            error!("the accept loop panicked");
        }
        // The hub has synced when it was told to stop; what is left is to hear how it ended.
        match ended.unwrap_or_else(|| self.hub_ended.recv_deadline(deadline)) {
            Ok(Ok(())) | Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(Err(fatal)) => Err(Failure::Fatal(fatal)),
            Err(RecvTimeoutError::Disconnected) => Err(Failure::Panicked),
        }
    }
}

fn named<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn url(address: SocketAddr) -> String {
    format!("ws://{}/ws", reachable(address))
}

/// The address as a client types it: one that means all addresses is no address to connect to.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn promise(fsync: Fsync) -> &'static str {
    match fsync {
        Fsync::Always => "always: on disk before anyone sees it",
        Fsync::EverySecond => "1s: on disk within a second; a power cut may lose that second",
        Fsync::Never => "never: kill -9 loses nothing, a power cut may lose the latest",
    }
}

fn raise_file_limit(max_clients: usize) {
    let wanted = max_clients as u64 + OTHER_FILES;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit >= wanted => {}
        Ok(limit) => warn!(
            "only {limit} open files are allowed, too few for --max-clients {max_clients}; raise \
             it with ulimit -n {wanted}"
        ),
        Err(error) => warn!("the limit of open files could not be raised: {error}"),
    }
}

fn listen(address: SocketAddr) -> Result<Socket, StartError> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // Inherited by what is accepted.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(NOTSENT)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    };
    open().map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse(address),
        _ => StartError::Other(format!("--listen {address}"), error),
    })
}

/// Accepts until the listener is shut down.
fn accept_loop(listener: &Socket, house: &House) {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let mut back_off = BACK_OFF.0;
    let mut quiet_until = Instant::now();
    loop {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => continue,
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    if Instant::now() >= quiet_until {
                        warn!("cannot accept: {error}; trying again");
                        quiet_until = Instant::now() + Duration::from_secs(1);
                    }
                    thread::sleep(back_off);
                    back_off = (back_off * 2).min(BACK_OFF.1);
                    continue;
                }
                // What a listener that was shut down says.
                _ => return debug!("no longer accepting: {error}"),
            },
        };
        back_off = BACK_OFF.0;
        let Some(seat) = Seat::take(house) else { continue };
        let house = house.clone();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let outbox = Arc::new(Outbox::new(socket));
        let run = {
            let outbox = outbox.clone();
            move || converse(&house, seat.admission(), outbox, number)
        };
        let name = format!("client-{number}");
        if let Err(error) = thread::Builder::new().name(name).stack_size(STACK).spawn(run) {
            if Instant::now() >= quiet_until {
                warn!("cannot start a thread for a client: {error}");
                quiet_until = Instant::now() + Duration::from_secs(1);
            }
            // Best effort: there is no thread to wait for this peer.
            let refused = HttpRefusal::unavailable("the server has no room now; come back later");
            let _ = outbox.send_now(&refused.response(&Method::GET));
        }
    }
}

/// One of the connections that may be open.
#[derive(Debug)]
struct Seat {
    open: Arc<AtomicUsize>,
    /// Whether it is one too many, and only there to be told so.
    is_extra: bool,
}

impl Seat {
    /// None when there is not even room for a refusal.
    fn take(house: &House) -> Option<Seat> {
        let before = house.open.fetch_add(1, Ordering::Relaxed);
        let is_extra = before >= house.config.max_clients;
        let seat = Seat { open: house.open.clone(), is_extra };
        (before < house.config.max_clients + REFUSALS).then_some(seat)
    }

    fn admission(&self) -> Admission {
        if self.is_extra { Admission::TooMany } else { Admission::Client }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
