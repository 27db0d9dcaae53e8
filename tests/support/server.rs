//! A server that runs: the real binary in a process of its own, which ends with its handle.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::{Child, ExitStatus},
    sync::Arc,
    thread,
};

use socket2::SockRef;
use tungstenite::Error;

use super::{
    client::Client,
    dir::Dir,
    envelopes::History,
    http::{Response, ask},
    output::Lines,
    patience::{PATIENCE, until},
    raw::Raw,
    setup::Setup,
    system::shell,
};

/// A running server; it is killed when dropped.
pub struct Server {
    pub(super) child: Child,
    pub(super) address: SocketAddr,
    pub(super) out: Lines,
    pub(super) err: Lines,
    pub dir: Arc<Dir>,
    pub(super) setup: Setup,
}

/// What a server holds of what the system has little of.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub threads: u64,
    pub descriptors: u64,
}

/// How a server ended.
pub struct Ended {
    pub status: ExitStatus,
    pub out: String,
    pub log: String,
}

impl Ended {
    /// Checks the exit code, and that the log says each of these; the line at the start, which names
    /// everything, does not count.
    #[track_caller]
    pub fn with(&self, code: i32, words: &[&str]) -> &Ended {
        assert_eq!(self.status.code(), Some(code), "exit code; the log:\n{}", self.log);
        for word in words {
            let mut lines = self.log.lines().filter(|line| !line.contains("ws://"));
            assert!(lines.any(|line| line.contains(word)), "{word:?} is not in\n{}", self.log);
        }
        assert!(!self.log.contains("panicked"), "a panic:\n{}", self.log);
        self
    }
}

impl Server {
    /// On an empty file with the default settings.
    #[track_caller]
    pub fn start() -> Server {
        Setup::new().start()
    }

    /// On an empty file with these flags.
    #[track_caller]
    pub fn with(flags: &[&str]) -> Server {
        Setup::new().flags(flags).start()
    }

    /// With this as its messages.txt.
    #[track_caller]
    pub fn on(file: impl AsRef<[u8]>) -> Server {
        Setup::new().file(file).start()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.err.text()
    }

    /// What it takes to start another server on the same file.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The lines of the file as they stand, without their `\n`.
    pub fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.dir.read()).expect("a UTF-8 file");
        text.lines().map(String::from).collect()
    }

    #[track_caller]
    pub fn join(&self) -> Client {
        self.join_at("/ws")
    }

    /// Joins at a path with a query, such as `/ws?after=3`.
    #[track_caller]
    pub fn join_at(&self, path: &str) -> Client {
        Client::on(self.connect(), path).unwrap_or_else(|error| panic!("cannot join: {error}"))
    }

    /// Joins, or says why not; for servers that may be full or gone.
    pub fn try_join(&self) -> Result<Client, Error> {
        let stream = TcpStream::connect_timeout(&self.address(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Client::on(stream, "/ws")
    }

    /// A connection on which nothing has been sent.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address(), PATIENCE).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        stream.set_nodelay(true).expect("a socket takes TCP_NODELAY");
        stream
    }

    #[track_caller]
    pub fn raw(&self) -> Raw {
        Raw::on(self.connect())
    }

    /// A raw socket that has joined and read its history.
    #[track_caller]
    pub fn raw_join(&self) -> Raw {
        let mut raw = self.raw();
        raw.send(self.head("/ws", &[]));
        assert_eq!(raw.response().status, 101);
        History::parse(&raw.text());
        raw
    }

    /// A raw socket that has asked to join and reads nothing; it is narrow, too.
    #[track_caller]
    pub fn deaf_join(&self) -> Raw {
        let mut raw = self.raw_narrow();
        raw.send(self.head("/ws", &[]));
        raw
    }

    /// A raw socket whose receive buffer is so small that the server soon feels it.
    #[track_caller]
    pub fn raw_narrow(&self) -> Raw {
        Raw::on(self.connect_narrow())
    }

    /// A connection with a small receive buffer.
    #[track_caller]
    pub fn connect_narrow(&self) -> TcpStream {
        let stream = self.connect();
        SockRef::from(&stream)
            .set_recv_buffer_size(32 << 10)
            .expect("a socket takes a buffer size");
        stream
    }

    /// A good request head for `path`, with more headers.
    pub fn head(&self, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut head = format!("GET {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head += &format!("Host: {}\r\n", self.address());
        }
        head += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        head += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        (head + "\r\n").into_bytes()
    }

    /// The answer to a request, on a connection of its own.
    #[track_caller]
    pub fn asked(&self, request: impl AsRef<[u8]>) -> Response {
        self.raw().asks(request)
    }

    /// The answer to a request without a body, as [`ask`] makes it.
    #[track_caller]
    pub fn asks(&self, line: &str, headers: &[&str]) -> Response {
        self.asked(ask(line, headers))
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        shell(&format!("kill -{name} {}", self.pid()));
    }

    /// Stops its process in the middle of whatever it does, until it gets the signal `CONT`.
    #[track_caller]
    pub fn freezes(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.pid());
        let stands = |task: fs::DirEntry| {
            // A thread may end meanwhile.
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.is_empty() || stat.rsplit(')').next().is_some_and(|stat| stat.starts_with(" T"))
        };
        until("each of its threads stands", || {
            fs::read_dir(&tasks).expect("the server runs").flatten().all(stands)
        });
    }

    /// Waits for the server to end by itself.
    #[track_caller]
    pub fn ends(mut self) -> Ended {
        if !self.err.to_the_end() {
            panic!("the server did not end; its log:\n{}", self.log());
        }
        // Standard error is closed, so only the exit itself is left to wait for.
        let status = self.child.wait().expect("a child can be waited for");
        self.out.to_the_end();
        Ended { status, out: self.out.text(), log: self.err.text() }
    }

    /// Ends it as `kill -9` does, and gives what it takes to start it again.
    pub fn kill(mut self) -> Setup {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
        self.setup.clone()
    }

    /// Asks it to stop, and starts it again on the same directory.
    #[track_caller]
    pub fn restart(self) -> Server {
        self.stop().start()
    }

    /// Asks it to stop and waits until it has.
    #[track_caller]
    pub fn stop(self) -> Setup {
        let setup = self.setup.clone();
        self.signal("TERM");
        self.ends().with(0, &[]);
        setup
    }

    /// How many threads and descriptors it has.
    pub fn size(&self) -> Size {
        Size { threads: self.status("Threads"), descriptors: self.descriptors() }
    }

    /// Waits until it has no more threads and descriptors than that.
    #[track_caller]
    pub fn shrinks_to(&self, size: Size) {
        until("nothing is left of who has gone", || {
            let now = self.size();
            now.threads <= size.threads && now.descriptors <= size.descriptors
        });
    }

    /// A number of /proc/PID/status, such as `VmHWM` (KiB) or `Threads`.
    #[track_caller]
    pub fn status(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(path).expect("the server runs");
        let line = status.lines().find(|line| line.starts_with(field)).expect("a known field");
        line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
    }

    #[track_caller]
    pub fn descriptors(&self) -> u64 {
        let path = format!("/proc/{}/fd", self.pid());
        fs::read_dir(path).expect("the server runs").count() as u64
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}
