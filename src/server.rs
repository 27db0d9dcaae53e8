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
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use http::Method;
use log::{debug, error, info, warn};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    catch_up::CatchUp,
    channels::Channels,
    config::{Config, Fsync},
    connection::{Admission, House, converse},
    http::HttpRefusal,
    journal::{Fatal, Journal, OpenError},
    metrics::Metrics,
    outbox::Outbox,
    socket::LINGER,
    tally::Tally,
    websocket::CLOSE_WAIT,
    websocket::Limits,
};

mod capacity;

use capacity::{Capacity, NOTSENT, Space, notsent, tcp_memory};

/// Connections that the kernel holds for us; std's 128 drops bursts.
const BACKLOG: i32 = 1024;

/// The stack of a client's thread. What it does not touch takes no memory.
const STACK: usize = 128 << 10;

/// Connections beyond `--max-clients` that are read to be told so; more are just dropped.
const REFUSALS: usize = 64;

/// Descriptors beside those of clients and channels: the default channel's file and its lock, the log,
/// the listener, the folder while it is looked at, and two for each thread that catches clients up.
const OTHER_FILES: u64 = 24;

/// Threads beside those of clients and channels: main, accept, signals, the default channel's hub, the
/// watch and those who open files, those that catch clients up.
const OTHER_THREADS: u64 = 32;

/// How long an orderly stop may take.
const STOP_TIME: Duration = Duration::from_secs(5);

/// How long clients have to take note when the storage failed.
const FAILED_TIME: Duration = Duration::from_secs(1);

// A client that is slow to go is still waited for, or the process would end in the middle of it.
const _: () = assert!(CLOSE_WAIT.as_millis() + LINGER.as_millis() <= STOP_TIME.as_millis());
const _: () = assert!(FAILED_TIME.as_millis() < STOP_TIME.as_millis());

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
    /// How the default channel's hub ended; disconnected when it panicked.
    hub_ended: Receiver<Result<(), Fatal>>,
    channels: Channels,
    /// Disconnected when the server was told to stop and the hubs of all other channels are gone.
    hubs: Receiver<Infallible>,
    /// The files are watched as long as it is held.
    _watching: Sender<()>,
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
        let (max_clients, max_channels) = room(config);
        let (journal, history) = Journal::open(&config.file, config.fsync, config.max_message)
            .map_err(StartError::File)?;
        let (messages, default_file) = (history.messages(), journal.path().to_owned());
        let metrics: Arc<Metrics> = Arc::default();
        let catch_up = CatchUp::start(config.stall_timeout, &metrics)
            .map_err(other("starting to catch clients up"))?;
        let (channels, hubs) =
            Channels::new(config, max_channels, metrics.clone(), catch_up.clone());
        channels.open_folder();
        let listener = listen(config.listen)?;
        let address = listener
            .local_addr()
            .map(|address| address.as_socket().unwrap_or(config.listen))
            .map_err(other("the listener's address"))?;
        info!(
            "txtcord {}: open http://{at}/ in a browser; WebSocket at ws://{at}/ws; {messages} \
             messages in {}; --fsync {}",
            env!("CARGO_PKG_VERSION"),
            config.file.display(),
            promise(config.fsync),
            at = reachable(address),
        );

        let hub_ended =
            channels.start_default(journal, history).map_err(other("starting the hub"))?;
        let (watching, watched) = bounded(0);
        channels
            .watch(default_file, watched)
            .map_err(other("starting to watch the channels' files"))?;
        let listener = Arc::new(listener);
        let (alive, clients) = bounded(0);
        let alive = Arc::new(alive);
        let house = House {
            channels: channels.clone(),
            catch_up,
            metrics,
            limits: Limits { max_message: config.max_message, ping_interval: config.ping_interval },
            alive: Arc::downgrade(&alive),
            config: Arc::new(config.clone()),
        };
        let acceptor = Acceptor::new(listener.clone(), house, max_clients);
        let accept = named("accept", move || {
            let _alive = alive;
            acceptor.run();
        })
        .map_err(other("starting to accept"))?;
        Ok(Server {
            address,
            listener,
            accept,
            hub_ended,
            channels,
            hubs,
            _watching: watching,
            clients,
        })
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
        let deadline = Instant::now() + time;
        self.channels.stop(deadline);
        // Said when nothing that is posted from here on is taken any more.
        info!("stopping");
        if self.clients.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            debug!("some clients did not leave in time");
        } else if self.accept.join().is_err() {
            error!("the accept loop panicked");
        }
        if self.hubs.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            debug!("some channels did not end in time");
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

/// How many clients and channels are served: as many as the operator allows, or what this machine can
/// carry.
fn room(config: &Config) -> (usize, usize) {
    let Config { max_clients, max_channels, .. } = *config;
    let capacity = Capacity::of_this_machine(max_channels as u64);
    if capacity.clients < max_clients as u64 {
        warn!("{capacity}, fewer than --max-clients {max_clients}");
    }
    if capacity.channels < max_channels as u64 {
        warn!("{capacity}, fewer than --max-channels {max_channels}");
    }
    let at_most = |count| usize::try_from(count).unwrap_or(usize::MAX);
    (max_clients.min(at_most(capacity.clients)), max_channels.min(at_most(capacity.channels)))
}

fn listen(address: SocketAddr) -> Result<Socket, StartError> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // Inherited by what is accepted, as is what the kernel may hold.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(NOTSENT as u32)?;
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
struct Acceptor {
    listener: Arc<Socket>,
    house: House,
    /// Connections that are open.
    open: Arc<AtomicUsize>,
    /// Most of them that are served.
    max_clients: usize,
    space: Space,
    tcp_memory: u64,
    /// What connections inherit; see [`notsent`].
    notsent: u64,
    /// Connections that were accepted, which names their threads.
    accepted: u64,
    /// How often something was missing for one more client.
    shortages: Tally,
}

impl Acceptor {
    fn new(listener: Arc<Socket>, house: House, max_clients: usize) -> Acceptor {
        Acceptor {
            listener,
            house,
            open: Arc::default(),
            max_clients,
            space: Space::of_this_process(),
            tcp_memory: tcp_memory(),
            notsent: NOTSENT,
            accepted: 0,
            shortages: Tally::default(),
        }
    }

    fn run(mut self) {
        let mut back_off = BACK_OFF.0;
        loop {
            if let Some(count) = self.shortages.due() {
                warn!("{count} more clients could not be served");
            }
            match self.listener.accept() {
                Ok((socket, _)) => {
                    back_off = BACK_OFF.0;
                    self.serve(socket);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => {}
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        self.is_short_of(&format!("cannot accept: {error}; trying again"));
                        thread::sleep(back_off);
                        back_off = (back_off * 2).min(BACK_OFF.1);
                    }
                    // What a listener that was shut down says.
                    _ => return debug!("no longer accepting: {error}"),
                },
            }
        }
    }

    /// Starts a thread for a connection, or tells the peer that there is no room.
    fn serve(&mut self, socket: Socket) {
        let Some(seat) = Seat::take(&self.open, self.max_clients) else { return };
        self.share_tcp_memory();
        self.accepted += 1;
        let (house, number) = (self.house.clone(), self.accepted);
        let outbox = Arc::new(Outbox::new(socket));
        let run = {
            let outbox = outbox.clone();
            move || converse(&house, seat.admission(), outbox, number)
        };
        let thread = thread::Builder::new().name(format!("client-{number}")).stack_size(STACK);
        let started = match self.space.has_room() {
            true => thread.spawn(run).map(drop),
            false => Err(io::Error::other("the limit of address space (ulimit -v) is reached")),
        };
        if let Err(error) = started {
            self.is_short_of(&format!("cannot start a thread for a client: {error}"));
            // Best effort: there is no thread to wait for this peer.
            let refusal = HttpRefusal::unavailable("the server has no room now; come back later");
            let _ = outbox.send_now(&refusal.response(&Method::GET));
        }
    }

    /// The more clients there are, the less the kernel holds for each that does not read.
    fn share_tcp_memory(&mut self) {
        let clients = self.open.load(Ordering::Relaxed) as u64;
        let notsent = notsent(clients, self.tcp_memory);
        // Inherited by what is accepted, so it costs a connection nothing.
        if notsent != self.notsent && self.listener.set_tcp_notsent_lowat(notsent as u32).is_ok() {
            self.notsent = notsent;
        }
    }

    fn is_short_of(&mut self, words: &str) {
        if self.shortages.add() {
            warn!("{words}");
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
    fn take(open: &Arc<AtomicUsize>, max_clients: usize) -> Option<Seat> {
        let before = open.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { open: open.clone(), is_extra: before >= max_clients };
        (before < max_clients + REFUSALS).then_some(seat)
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
