//! The life of a server: it opens the file, listens, starts to accept connections, and stops.
//!
//! Each ending causes the next: the listener's shutdown ends the accept loop, the hub's close
//! frames end the clients, and when the last client is gone, the hub ends.

use std::{
    convert::Infallible,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, UdpSocket},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use log::{debug, error, info, warn};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::{
    access::{Access, RulesError},
    catch_up::CatchUp,
    channels::{self, Channels, Most},
    cluster::{CopyError, Threads},
    config::{Config, Fsync},
    connection::ServerContext,
    journal::{Fatal, Journal, OpenError, boot},
    metrics::Metrics,
    name::Name,
    outbox::CLOSE_WAIT,
    socket::LINGER,
    threads::{self, USUAL_STACK},
    unsent::{UNSENT, Unsent},
};

mod acceptor;
mod capacity;
mod thread_pool;

use acceptor::Acceptor;
use capacity::{Capacity, Costs, Limit, Wanted};

/// How many connections may wait in the kernel to be accepted. With std's 128, the kernel drops
/// some of a burst.
const BACKLOG: i32 = 1024;

/// After this long without a byte, the kernel asks whether a peer is still there. One that vanished
/// without a word, with its machine or its network, would keep its thread and its place for ever: who
/// follows a stream need not say anything. It is gone within two minutes; if it has not taken all that
/// it was sent, when the kernel gives that up, which takes about a quarter of an hour.
const QUIET: Duration = Duration::from_secs(60);

/// How long it waits for an answer before it asks again, and how often it asks.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 6;

const _: () = assert!(QUIET.as_secs() + PROBE_INTERVAL.as_secs() * PROBES as u64 <= 2 * 60);

/// How many connections above `--max-clients` are heard, to be told that there are too many; fewer
/// where the machine can carry few clients. When one more comes, the oldest of them is ended, and as many
/// may still be about to leave.
const EXTRA_CONNECTIONS: usize = 64;

/// How many descriptors are kept free of clients and channels: for the three of every program, the
/// default channel's three files, the log, the listener, signals, and what is open for a moment, such
/// as the folder while it is looked at.
const OTHER_FILES: u64 = 20;

/// How many of these may be open before any of the server's files is: the three of every program, two of
/// signals, the log, and the one that is open while they are counted.
const OPEN_BEFORE: u64 = 7;

/// How many descriptors a catch-up thread has. There are as many threads as processors.
const FILES_OF_CATCH_UP: u64 = 2;

/// How many threads are kept free of clients and channels: for main, accept, signals, the default
/// channel's hub, the threads that watch and open files, and the reserve. Those of catch-up are as many as
/// processors, and come on top.
const OTHER_THREADS: u64 = 32;

/// How long an orderly stop may take: half of the 10 s that docker waits before it kills.
const STOP_TIME: Duration = Duration::from_secs(5);

/// How long clients have to read their close frames when the file failed. The process must end
/// soon, so that it can be started again.
const FAILED_TIME: Duration = Duration::from_secs(1);

// An orderly stop waits longer than a client that is slow to leave may take.
const _: () = assert!(CLOSE_WAIT.as_millis() + LINGER.as_millis() <= STOP_TIME.as_millis());
const _: () = assert!(FAILED_TIME.as_millis() < STOP_TIME.as_millis());

/// Why a server could not start.
#[derive(Debug)]
pub enum StartError {
    /// The access file cannot be used.
    Access(RulesError),
    /// The text file cannot be served.
    File(OpenError),
    /// The text file is not of the order of the cluster.
    Cluster(Fatal),
    /// Another program listens on the address.
    AddressInUse(SocketAddr),
    /// Something else failed; the text says what.
    Other(String, io::Error),
}

impl From<CopyError> for StartError {
    fn from(error: CopyError) -> StartError {
        match error {
            CopyError::Open(error) => StartError::File(error),
            CopyError::Order(fatal) => StartError::Cluster(fatal),
            CopyError::PutAway(_) => StartError::Cluster(Fatal::CannotJoin(
                "the engine says that the default channel was put away, which no server does"
                    .into(),
            )),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Access(error) => write!(out, "--access {error}"),
            StartError::File(error) => write!(out, "{error}{}", way_out(error)),
            StartError::Cluster(error) => error.fmt(out),
            StartError::AddressInUse(address) => write!(
                out,
                "--listen {address}: address in use; stop the program that listens there, or \
                 choose another port"
            ),
            StartError::Other(what, error) => write!(out, "{what}: {error}"),
        }
    }
}

/// What can be done about the file that `--file` names.
fn way_out(error: &OpenError) -> &'static str {
    match error {
        OpenError::Unusable(..) => "; name a text file with --file",
        OpenError::NoFolder(..) => "; make it, or name another --file",
        OpenError::InUse(..) => "; stop that one or choose another --file",
        OpenError::Lock(..) | OpenError::Stamps(..) | OpenError::Failed(..) => "",
    }
}

/// Why a running server ended without being told to.
#[derive(Debug)]
pub enum Failure {
    /// The file failed.
    Fatal(Fatal),
    /// The disk did not answer during an orderly stop.
    DiskHangs,
    /// The hub panicked, which is a bug: a server that accepts and never answers would be worse.
    Panicked,
}

/// What a running server is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// End in order.
    Stop,
    /// Read the access file again.
    ReadAccessFile,
}

/// A server that accepts connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    listener: Arc<Socket>,
    accept: JoinHandle<()>,
    /// Gets the result of the default channel's hub when it ends, and is disconnected when it panicked.
    hub_ended: Receiver<Result<(), Fatal>>,
    channels: Channels,
    access: Arc<Access>,
    /// Is disconnected when the server was told to stop and the hubs of all other channels are gone.
    hubs: Receiver<Infallible>,
    /// The files are watched until it is dropped.
    _watching: Sender<()>,
    /// Is disconnected when the accept loop and all clients are gone.
    clients: Receiver<Infallible>,
}

impl Server {
    /// Opens the file, then listens, and starts to accept connections.
    ///
    /// # Errors
    /// When the file cannot be served, the address cannot be listened on, or a thread cannot be
    /// started. The file was at most repaired then.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        let other = |what: &str| {
            let what = what.to_owned();
            move |error| StartError::Other(what, error)
        };
        let access = Arc::new(Access::new(config).map_err(StartError::Access)?);
        warn_if_shut(&access);
        let (limits, most_channels) = limits(config);
        let open = || Journal::open(&config.file, config.fsync, config.max_message);
        let opened = channels::open_file(config, None, &Name::default(), &config.file, open)?;
        let (journal, history, _) = &opened;
        let (messages, default_file) = (history.messages(), journal.path().to_owned());
        let metrics: Arc<Metrics> = Arc::default();
        let unsent = Arc::new(Unsent::of_this_machine());
        let catch_up = CatchUp::start(config.stall_timeout, &metrics, &unsent)
            .map_err(other("starting to catch clients up"))?;
        let threads = config.cluster.as_ref().map(Threads::start).transpose();
        let threads = threads.map_err(other("starting the threads of a cluster"))?;
        let (channels, hubs) =
            Channels::new(config, most_channels, metrics.clone(), catch_up.clone(), threads);
        channels.open_folder();
        let listener = listen(config.listen)?;
        let address = listener
            .local_addr()
            .map(|address| address.as_socket().unwrap_or(config.listen))
            .map_err(other("the listener's address"))?;
        announce(config, address, messages);
        let hub_ended = channels.start_default(opened).map_err(other("starting the hub"))?;
        let (watching, watched) = bounded(0);
        channels
            .watch(default_file, watched)
            .map_err(other("starting to watch the channels' files"))?;
        channels.follow_roster().map_err(other("starting to follow the cluster's channels"))?;
        let listener = Arc::new(listener);
        let (alive, clients) = bounded(0);
        let alive = Arc::new(alive);
        let context = ServerContext {
            channels: channels.clone(),
            catch_up,
            metrics,
            alive: Arc::downgrade(&alive),
            access: access.clone(),
            config: Arc::new(config.clone()),
        };
        let acceptor = Acceptor::new(listener.clone(), context, limits, unsent);
        let accept = threads::spawn("accept", USUAL_STACK, move || {
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
            access,
            hubs,
            _watching: watching,
            clients,
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is told to stop, or the sender of instructions is dropped, or the hub ends. Then
    /// it tells all clients, waits for them for some seconds at the most, and returns.
    ///
    /// # Errors
    /// When the file failed or the hub panicked. Messages that were shown before are stored all the
    /// same.
    pub fn run(self, instructions: &Receiver<Instruction>) -> Result<(), Failure> {
        let (time, ended) = loop {
            select! {
                recv(instructions) -> instruction => match instruction {
                    Ok(Instruction::ReadAccessFile) => self.read_access_file(),
                    Ok(Instruction::Stop) | Err(_) => break (STOP_TIME, None),
                },
                recv(self.hub_ended) -> done => {
                    break (FAILED_TIME, Some(done.map_err(RecvTimeoutError::from)));
                }
            }
        };
        // This ends the accept loop. If it fails, the loop ends with the process.
        let _ = self.listener.shutdown(Shutdown::Both);
        let deadline = Instant::now() + time;
        self.channels.stop(deadline);
        // From here on, the hubs refuse every post that they get.
        info!("stopping");
        if self.clients.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            debug!("some clients did not leave in time");
        } else if self.accept.join().is_err() {
            error!("the accept loop panicked");
        }
        if self.hubs.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            debug!("some channels did not end in time");
        }
        // The hub synced the file when it was told to stop. Only its result is missing.
        match ended.unwrap_or_else(|| self.hub_ended.recv_deadline(deadline)) {
            Ok(Ok(())) | Err(RecvTimeoutError::Timeout) => check_stored(&self.channels),
            Ok(Err(fatal)) => Err(Failure::Fatal(fatal)),
            Err(RecvTimeoutError::Disconnected) => Err(Failure::Panicked),
        }
    }

    /// Reads the access file again, and has all hubs look who may still read.
    fn read_access_file(&self) {
        match self.access.read_again() {
            Ok(()) => {
                info!("the access file was read again");
                warn_if_shut(&self.access);
                self.channels.check_rights();
            }
            Err(error) => error!("--access {error}; the rules stay as they were"),
        }
    }
}

/// Says where the server is and what it has.
fn announce(config: &Config, address: SocketAddr, messages: u64) {
    info!(
        "txtcord {}: open http://{at}/ in a browser; WebSocket at ws://{at}/ws; {messages} \
         messages in {}; --fsync {}",
        env!("CARGO_PKG_VERSION"),
        config.file.display(),
        in_words(config.fsync),
        at = reachable(address),
    );
    if !config.no_stamps && boot().is_none() {
        warn!(
            "/proc/sys/kernel/random/boot_id cannot be read (ProcSubset=pid in the unit?); after a \
             kill -9, the times and senders of the last messages are not believed"
        );
    }
}

/// Warns of an access file without rules, such as one that somebody emptied and is about to write.
fn warn_if_shut(access: &Access) {
    if access.rule_count() == Some(0) {
        warn!(
            "the access file has no rules, so nobody may read or post; after a change, send SIGHUP"
        );
    }
}

/// Checks that all is on disk when the time for an orderly stop is over. A hub may still wait for
/// clients that are slow to leave, which loses nothing, or for the disk.
fn check_stored(channels: &Channels) -> Result<(), Failure> {
    let unstored = channels.unstored();
    let Some(name) = unstored.first() else { return Ok(()) };
    let others = match unstored.len() - 1 {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    error!(
        "{name}{others}: the disk did not answer within {} s of the stop. What it had not stored \
         may be lost; with --fsync always, nobody was shown any of that.",
        STOP_TIME.as_secs()
    );
    Err(Failure::DiskHangs)
}

/// The address under which a program on this machine reaches the server. An address that means all
/// addresses (0.0.0.0) becomes the loopback. `[::]` means those of IPv4, too, and means these alone where
/// IPv6 is off.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(match has_ipv6() {
            true => Ipv6Addr::LOCALHOST.into(),
            false => Ipv4Addr::LOCALHOST.into(),
        }),
        _ => {}
    }
    address
}

/// Whether this machine has the loopback of IPv6. Nothing is sent.
fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn in_words(fsync: Fsync) -> &'static str {
    match fsync {
        Fsync::Always => "always: on disk before anyone sees it",
        Fsync::EverySecond => "1s: on disk within a second; a power cut may lose that second",
        Fsync::Never => "never: kill -9 loses nothing, a power cut may lose the latest",
    }
}

/// How many connections are open at a time, at the most.
#[derive(Clone, Copy, Debug)]
struct ConnectionLimits {
    /// Those that are served.
    clients: usize,
    /// Those above that are heard.
    extra: usize,
}

/// How many connections and channels there may be: as many as the operator allows, or what this machine can
/// carry.
fn limits(config: &Config) -> (ConnectionLimits, Most) {
    let Config { max_clients, max_channels, .. } = *config;
    let in_folder = channels::names_in(&config.channels_folder()).map_or(0, |names| names.len());
    let wanted = Wanted {
        channels: max_channels as u64,
        clients: max_clients as u64,
        in_folder: in_folder as u64,
        costs: if config.cluster.is_some() { Costs::ON_NODE } else { Costs::ALONE },
    };
    let Capacity { channels, clients, extra } =
        Capacity::of_this_machine(wanted, capacity::inherited_files());
    let at_most = |wanted: usize, what: &str, (count, limit): (u64, Limit)| {
        let is_enough = count >= wanted as u64;
        if !is_enough {
            warn!(
                "this machine can carry {count} {what}, fewer than --max-{what} {wanted}; {limit} \
                 allows no more"
            );
        }
        let count = wanted.min(usize::try_from(count).unwrap_or(usize::MAX));
        Most { count, limit: (!is_enough).then(|| limit.to_string()) }
    };
    let clients = at_most(max_clients, "clients", clients).count;
    (ConnectionLimits { clients, extra }, at_most(max_channels, "channels", channels))
}

fn listen(address: SocketAddr) -> Result<Socket, StartError> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // Accepted connections inherit this setting and the next two.
        socket.set_tcp_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(QUIET).with_interval(PROBE_INTERVAL);
        socket.set_tcp_keepalive(&keepalive.with_retries(PROBES))?;
        socket.set_tcp_notsent_lowat(UNSENT as u32)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    };
    open().map_err(|error| not_listening(address, error))
}

/// Why the server does not listen there, and what helps.
fn not_listening(address: SocketAddr, error: io::Error) -> StartError {
    let what_helps = match error.kind() {
        io::ErrorKind::AddrInUse => return StartError::AddressInUse(address),
        io::ErrorKind::PermissionDenied => " (choose a port above 1023)".to_owned(),
        io::ErrorKind::AddrNotAvailable => {
            let any = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
            format!(" (choose an address of this machine, or {any} for all that it has)")
        }
        _ => String::new(),
    };
    StartError::Other(format!("--listen {address}{what_helps}"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_listen_there_is_told_where() {
        #[track_caller]
        fn check(address: &str, kind: io::ErrorKind, words: &str) {
            let address = address.parse().expect("an address");
            let told = not_listening(address, kind.into()).to_string();
            assert!(told.contains(&address.to_string()) && told.contains(words), "{told}");
        }
        check("127.0.0.1:80", io::ErrorKind::PermissionDenied, "choose a port above 1023");
        check("192.0.2.1:8000", io::ErrorKind::AddrNotAvailable, "or 0.0.0.0 for all");
        check("[::1]:8000", io::ErrorKind::AddrNotAvailable, "or [::] for all");
        check("127.0.0.1:8000", io::ErrorKind::AddrInUse, "choose another port");
    }
}
