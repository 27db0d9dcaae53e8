//! What the tests talk with: a [`Server`] in a directory of its own, a [`Client`] that says and
//! hears, and a [`Raw`] socket for those who do not keep to the rules.
//!
//! Every wait here ends at a deadline, and every process ends with its handle.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use serde_json::Value;
use socket2::SockRef;
use tungstenite::{
    Error, Message, WebSocket, error::ProtocolError, protocol::CloseFrame,
    protocol::WebSocketConfig, protocol::frame::coding::CloseCode,
};

/// How long anything may take before a test gives it up: far more than it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The seven lines that the original program left behind.
pub const SEED: &str = include_str!("../../messages.txt");

// ---------------------------------------------------------------------------------------------
// A directory

/// A directory of a test's own, removed with it unless the test failed.
pub struct Dir {
    path: PathBuf,
}

impl Dir {
    fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("server-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // A run that was ended from outside may have left one of this name.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary directory");
        Dir { path }
    }

    pub fn file(&self) -> PathBuf {
        self.path.join("messages.txt")
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn read(&self) -> Vec<u8> {
        fs::read(self.file()).expect("messages.txt can be read")
    }

    pub fn write(&self, bytes: impl AsRef<[u8]>) {
        fs::write(self.file(), bytes).expect("messages.txt can be written");
    }

    /// What stands beside messages.txt: names and contents.
    pub fn beside(&self) -> BTreeMap<String, Vec<u8>> {
        fs::read_dir(&self.path)
            .expect("the directory can be listed")
            .map(|entry| entry.expect("a directory entry"))
            .filter(|entry| entry.file_name() != "messages.txt")
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .map(|entry| {
                let name = entry.file_name().into_string().expect("a UTF-8 name");
                (name, fs::read(entry.path()).expect("a file that can be read"))
            })
            .collect()
    }

    /// The tails that recovery saved, oldest first.
    pub fn torn(&self) -> Vec<Vec<u8>> {
        self.beside()
            .into_iter()
            .filter(|(name, _)| name.starts_with("messages.txt.torn-"))
            .map(|(_, bytes)| bytes)
            .collect()
    }

    /// Appends as another program would: one write in append mode.
    pub fn append(&self, bytes: impl AsRef<[u8]>) {
        let mut file = fs::OpenOptions::new().append(true).open(self.file()).expect("the file");
        file.write_all(bytes.as_ref()).expect("messages.txt can be appended to");
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("left for a look: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

// ---------------------------------------------------------------------------------------------
// A server

/// A server that is yet to be started: its directory, its flags, its surroundings.
#[derive(Clone)]
pub struct Setup {
    pub dir: Arc<Dir>,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    shell: String,
}

impl Setup {
    /// A free port, the file in the directory, everything else as it is by default.
    pub fn new() -> Setup {
        let setup = Setup::bare();
        let file = setup.dir.file();
        let file = file.to_str().expect("a UTF-8 path");
        setup.flags(&["--listen", "127.0.0.1:0", "--file", file])
    }

    /// Without any flag.
    pub fn bare() -> Setup {
        let dir = Arc::new(Dir::new());
        Setup { dir, flags: Vec::new(), variables: Vec::new(), shell: String::new() }
    }

    /// With this as its messages.txt.
    pub fn file(self, bytes: impl AsRef<[u8]>) -> Setup {
        self.dir.write(bytes);
        self
    }

    pub fn flags(mut self, flags: &[&str]) -> Setup {
        self.flags.extend(flags.iter().map(|flag| flag.to_string()));
        self
    }

    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Setup {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// What a shell does first in the server's process, such as `ulimit -f 16`.
    pub fn after(mut self, shell: &str) -> Setup {
        self.shell = format!("{shell}; ");
        self
    }

    /// Starts it and waits until it can be talked to.
    #[track_caller]
    pub fn start(&self) -> Server {
        let mut server = self.spawn();
        let port = server.err.wait_for(|line| {
            let rest = line.split_once("ws://127.0.0.1:")?.1;
            rest.split_once("/ws")?.0.parse().ok()
        });
        match port {
            Some(port) => server.port = port,
            None => panic!("the server did not say where it listens:\n{}", server.log()),
        }
        server
    }

    /// Starts it and waits for nothing.
    pub fn begin(&self) -> Server {
        self.spawn()
    }

    /// Starts it and waits for its end, which a test expects to come by itself.
    #[track_caller]
    pub fn ends(&self) -> Ended {
        self.spawn().ends()
    }

    fn spawn(&self) -> Server {
        let binary = env!("CARGO_BIN_EXE_txtcord");
        let mut command = if self.shell.is_empty() {
            Command::new(binary)
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{}exec \"$0\" \"$@\"", self.shell), binary]);
            command
        };
        // Settings of whoever runs the tests must not reach the server.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("TXTCORD_")) {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(&self.flags)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.dir.path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server's binary runs");
        let out = Lines::follow(child.stdout.take().expect("stdout is piped"));
        let err = Lines::follow(child.stderr.take().expect("stderr is piped"));
        Server { child, port: 0, out, err, dir: self.dir.clone(), setup: self.clone() }
    }
}

/// A running server; it is killed when dropped.
pub struct Server {
    child: Child,
    port: u16,
    out: Lines,
    err: Lines,
    pub dir: Arc<Dir>,
    setup: Setup,
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
            let mut lines = self.log.lines().filter(|line| !line.contains("/ws "));
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
        SocketAddr::from(([127, 0, 0, 1], self.port))
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
        Raw { stream: self.connect(), unread: Vec::new() }
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

    /// A raw socket that has asked to join and reads nothing; its receive buffer is small, so that
    /// the server soon feels it.
    #[track_caller]
    pub fn deaf_join(&self) -> Raw {
        let mut raw = Raw { stream: self.connect_narrow(), unread: Vec::new() };
        raw.send(self.head("/ws", &[]));
        raw
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
        let mut raw = self.raw();
        raw.send(request);
        raw.response()
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        shell(&format!("kill -{name} {}", self.pid()));
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

/// What a process prints, while it prints it.
struct Lines {
    text: Arc<Mutex<String>>,
    /// A word for each line; closed when the process has closed its end.
    news: Receiver<()>,
}

impl Lines {
    fn follow(pipe: impl Read + Send + 'static) -> Lines {
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

    fn text(&self) -> String {
        self.text.lock().expect("no panic here").clone()
    }

    /// Waits until a line gives something, or for the end, or for the deadline.
    fn wait_for<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.text().lines().find_map(&find) {
                return Some(found);
            }
            self.news.recv_deadline(deadline).ok()?;
        }
    }

    /// Waits for the end; false when it does not come.
    fn to_the_end(&self) -> bool {
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

/// Runs a line of shell that must succeed.
#[track_caller]
pub fn shell(line: &str) {
    let status = Command::new("sh").args(["-c", line]).status().expect("a shell");
    assert!(status.success(), "{line}: {status}");
}

/// Says on the real standard error that a test could not run here.
pub fn skipped(test: &str, why: &str) {
    // Not eprintln: the test harness hides what a passing test prints.
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {why}");
}

// ---------------------------------------------------------------------------------------------
// A client

/// A well-behaved client.
pub struct Client {
    socket: WebSocket<TcpStream>,
    /// The frame that greeted it.
    pub history: History,
}

/// A live message as a client got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub id: u64,
    pub ts: u64,
    pub data: String,
}

/// An answer to the sender alone.
#[derive(Debug)]
pub struct Answer {
    pub frame: String,
    pub code: String,
}

/// What a server sends after the history.
#[derive(Debug)]
pub enum Frame {
    Message(Heard),
    Answer(Answer),
    Ping,
    Pong(Vec<u8>),
    Close(u16, String),
    /// The connection ended; what the socket said.
    End(String),
}

impl Client {
    /// Shakes hands on a connection and reads the history.
    pub fn on(stream: TcpStream, path: &str) -> Result<Client, Error> {
        let url = format!("ws://{}{path}", stream.peer_addr()?);
        // Histories of any size.
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) = tungstenite::client::client_with_config(url, stream, Some(config))
            .map_err(|error| match error {
                tungstenite::HandshakeError::Failure(error) => error,
                tungstenite::HandshakeError::Interrupted(_) => {
                    Error::Io(io::Error::new(ErrorKind::TimedOut, "no answer to the handshake"))
                }
            })?;
        let mut client = Client { socket, history: History::default() };
        match client.socket.read()? {
            Message::Text(text) => client.history = History::parse(&text),
            other => panic!("the first frame is no history: {other:?}"),
        }
        Ok(client)
    }

    #[track_caller]
    pub fn say(&mut self, text: &str) {
        assert!(self.try_say(text), "the connection is gone");
    }

    /// False when the connection is gone.
    pub fn try_say(&mut self, text: &str) -> bool {
        self.send(Message::text(text))
    }

    /// Sends any frame; false when the connection is gone.
    pub fn send(&mut self, message: Message) -> bool {
        self.socket.send(message).is_ok()
    }

    /// The next frame is this message.
    #[track_caller]
    pub fn hears(&mut self, data: &str) -> Heard {
        let heard = self.hears_one();
        assert!(heard.data == data, "heard {}\nnot   {}", cut(&heard.data), cut(data));
        heard
    }

    /// The next frame is a message.
    #[track_caller]
    pub fn hears_one(&mut self) -> Heard {
        match self.next() {
            Frame::Message(heard) => heard,
            other => panic!("no message but {other:?}"),
        }
    }

    /// Says a thing and hears it back, with nothing in between.
    #[track_caller]
    pub fn says(&mut self, text: &str) -> Heard {
        self.say(text);
        self.hears(text)
    }

    /// Says a thing among others who talk, and hears until it comes back.
    #[track_caller]
    pub fn says_among_others(&mut self, text: &str) -> Heard {
        self.say(text);
        loop {
            let heard = self.hears_one();
            if heard.data == text {
                return heard;
            }
        }
    }

    /// The next frame is an answer with this code.
    #[track_caller]
    pub fn is_told(&mut self, code: &str) -> Answer {
        match self.next() {
            Frame::Answer(answer) if answer.code == code => answer,
            other => panic!("not {code} but {other:?}"),
        }
    }

    /// The connection is closed with this code, whatever comes before; gives the reason.
    #[track_caller]
    pub fn is_closed_with(&mut self, code: u16) -> String {
        loop {
            match self.next() {
                Frame::Close(got, reason) => {
                    assert_eq!(got, code, "close code; reason: {reason}");
                    return reason;
                }
                Frame::End(end) => panic!("no close frame but {end}"),
                _ => (),
            }
        }
    }

    /// The next frame but for pings and pongs.
    pub fn next(&mut self) -> Frame {
        loop {
            match self.next_of_all() {
                Frame::Ping | Frame::Pong(_) => (),
                frame => return frame,
            }
        }
    }

    /// The next frame of any kind; no frame within the deadline is a failure.
    pub fn next_of_all(&mut self) -> Frame {
        match self.socket.read() {
            Ok(Message::Text(text)) => match Heard::parse(&text) {
                Some(heard) => Frame::Message(heard),
                None => Frame::Answer(Answer::parse(&text)),
            },
            Ok(Message::Ping(_)) => Frame::Ping,
            Ok(Message::Pong(payload)) => Frame::Pong(payload.to_vec()),
            Ok(Message::Close(Some(CloseFrame { code, reason }))) => {
                // The answer to it waits in here and must go out.
                let _ = self.socket.flush();
                Frame::Close(code.into(), reason.to_string())
            }
            Ok(other) => panic!("the server sent {other:?}"),
            Err(Error::Io(error)) if is_timeout(&error) => {
                panic!("nothing came within {PATIENCE:?}")
            }
            Err(Error::Io(error)) => Frame::End(error.to_string()),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => Frame::End("closed".into()),
            Err(Error::Protocol(
                error @ (ProtocolError::ResetWithoutClosingHandshake
                | ProtocolError::SendAfterClosing),
            )) => Frame::End(error.to_string()),
            Err(error) => panic!("the server broke the protocol: {error}"),
        }
    }

    /// Says goodbye and waits until the server has answered it.
    #[track_caller]
    pub fn leave(mut self) {
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.socket.close(Some(goodbye)).expect("the connection is there");
        self.is_closed_with(1000);
    }
}

impl Heard {
    /// None for a frame that is no `new_message`.
    pub fn parse(frame: &str) -> Option<Heard> {
        let rest = frame.strip_prefix(r#"{"type":"new_message","data":"#)?;
        let (data, tail) = rest.split_at(rest.rfind(r#","id":"#).expect("a message has an id"));
        let tail = keys(&tail[1..]);
        let id = tail["id"].as_u64().expect("an id is a number");
        let ts = tail["ts"].as_u64().expect("a ts is a number");
        Some(Heard { id, ts, data: data.into() })
    }
}

impl Answer {
    fn parse(frame: &str) -> Answer {
        let value: Value = serde_json::from_str(frame).expect("an answer is JSON");
        assert_eq!(value["type"], "error", "neither a message nor an error: {}", cut(frame));
        assert!(value["message"].as_str().is_some_and(|text| !text.is_empty()), "{frame}");
        let code = value["code"].as_str().expect("an error has a code").into();
        Answer { frame: frame.into(), code }
    }
}

/// The first frame of a connection.
#[derive(Clone, Default)]
pub struct History {
    pub frame: String,
    data: Range<usize>,
    pub first_id: u64,
    pub last_id: u64,
    pub epoch: String,
    pub resumed: Option<bool>,
    pub skipped: Vec<u64>,
}

impl History {
    #[track_caller]
    pub fn parse(frame: &str) -> History {
        let start = r#"{"type":"message_history","data":["#;
        assert!(frame.starts_with(start), "no history: {}", cut(frame));
        let end = frame.rfind(r#"],"first_id":"#).expect("first_id follows data");
        let tail = keys(&frame[end + 2..]);
        let history = History {
            frame: frame.into(),
            data: start.len()..end,
            first_id: tail["first_id"].as_u64().expect("first_id is a number"),
            last_id: tail["last_id"].as_u64().expect("last_id is a number"),
            epoch: tail["epoch"].as_str().expect("epoch is a string").into(),
            resumed: tail.get("resumed").map(|value| value.as_bool().expect("resumed is a bool")),
            skipped: match tail.get("skipped") {
                Some(Value::Array(ids)) if !ids.is_empty() => {
                    ids.iter().map(|id| id.as_u64().expect("ids are numbers")).collect()
                }
                Some(other) => panic!("skipped is {other}"),
                None => Vec::new(),
            },
        };
        assert!(!history.epoch.is_empty(), "an epoch is no empty string");
        history
    }

    /// The bytes between the brackets.
    pub fn data(&self) -> &str {
        &self.frame[self.data.clone()]
    }

    /// Each message with its id. White space around a message, which a foreign editor may have
    /// left in the file, is no part of it.
    #[track_caller]
    pub fn messages(&self) -> Vec<(u64, &str)> {
        let messages = elements(self.data());
        let window = self.first_id..=self.last_id;
        assert!(self.skipped.is_sorted(), "skipped: {:?}", self.skipped);
        assert!(self.skipped.iter().all(|id| window.contains(id)), "skipped: {:?}", self.skipped);
        let mut holes = self.skipped.iter().peekable();
        let ids: Vec<u64> = window.filter(|id| holes.next_if_eq(&id).is_none()).collect();
        assert_eq!(
            messages.len(),
            ids.len(),
            "messages from {} to {} but for {:?}",
            self.first_id,
            self.last_id,
            self.skipped
        );
        ids.into_iter().zip(messages).collect()
    }

    /// The messages without their ids.
    #[track_caller]
    pub fn said(&self) -> Vec<&str> {
        self.messages().into_iter().map(|(_, message)| message).collect()
    }
}

/// The keys at the end of a frame: they are written without white space.
#[track_caller]
fn keys(tail: &str) -> Value {
    assert!(!tail.contains(char::is_whitespace), "white space outside data: {tail}");
    serde_json::from_str(&format!("{{{tail}")).unwrap_or_else(|error| panic!("{tail}: {error}"))
}

/// The elements of a JSON array, byte for byte, given what stands between its brackets.
fn elements(array: &str) -> Vec<&str> {
    let (mut all, mut start, mut depth) = (Vec::new(), 0, 0);
    let (mut in_string, mut escaped) = (false, false);
    for (at, byte) in array.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => (),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                all.push(array[start..at].trim());
                start = at + 1;
            }
            _ => (),
        }
    }
    if !array.is_empty() {
        all.push(array[start..].trim());
    }
    all
}

// ---------------------------------------------------------------------------------------------
// A socket without manners

/// A TCP connection whose every byte is the test's own.
pub struct Raw {
    pub stream: TcpStream,
    /// Read from the socket and not yet asked for.
    unread: Vec<u8>,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// A refusal with this status and a sentence that says each of these.
    #[track_caller]
    pub fn refuses(&self, status: u16, words: &[&str]) -> &Response {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.body.trim().contains(' '), "a refusal has a sentence: {self:?}");
        let length = self.header("Content-Length").and_then(|value| value.parse().ok());
        assert_eq!(length, Some(self.body.len()), "{self:?}");
        for word in words {
            assert!(self.body.contains(word), "{word:?} is not in {self:?}");
        }
        self
    }
}

/// One frame as it came over the wire.
#[derive(Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// FIN, the reserved bits and the opcode.
    pub first: u8,
    pub payload: Vec<u8>,
}

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;
/// The first and the later frames of a fragmented message.
pub const TEXT_BEGINS: u8 = 0x01;
pub const GOES_ON: u8 = 0x00;
pub const ENDS: u8 = 0x80;

/// A masked frame as a client sends it.
pub fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let payload = payload.as_ref();
    let mut frame = frame_header(first, payload.len() as u64);
    frame[1] |= 0x80;
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The header of an unmasked frame.
pub fn frame_header(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..126 => header.push(length as u8),
        126..=0xffff => {
            header.push(126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(127);
            header.extend(length.to_be_bytes());
        }
    }
    header
}

impl Raw {
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the connection is there");
    }

    /// For bytes that the server may no longer take; false when it did not.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    #[track_caller]
    pub fn response(&mut self) -> Response {
        let end = loop {
            match self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.more("an HTTP answer"),
            }
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let head = String::from_utf8(head).expect("an ASCII head");
        let mut lines = head.lines();
        let status_line = lines.next().expect("a status line");
        assert!(status_line.starts_with("HTTP/1.1 "), "{status_line}");
        let status = status_line[9..12].parse().expect("a status");
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.into(), value.trim().into()))
            .collect();
        let mut response = Response { status, headers, body: String::new() };
        let length = response.header("Content-Length").and_then(|text| text.parse().ok());
        if let Some(length) = length {
            while self.unread.len() < length {
                self.more("an HTTP body");
            }
            let body = self.unread.drain(..length).collect();
            response.body = String::from_utf8(body).expect("a UTF-8 body");
        }
        response
    }

    /// The next frame; a frame that breaks the protocol is a failure.
    #[track_caller]
    pub fn frame(&mut self) -> RawFrame {
        match self.try_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => panic!("the connection ended where a frame was expected"),
            Err(error) => panic!("no frame: {error}"),
        }
    }

    /// None at the end of the connection.
    pub fn try_frame(&mut self) -> io::Result<Option<RawFrame>> {
        loop {
            let (header, length) = match *self.unread.as_slice() {
                [_, 127, a, b, c, d, e, f, g, h, ..] => {
                    (10, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize)
                }
                [_, 126, a, b, ..] => (4, u16::from_be_bytes([a, b]) as usize),
                [_, 126 | 127, ..] | [_] | [] => (usize::MAX, 0),
                [_, length @ 0..126, ..] => (2, length as usize),
                [_, _, ..] => panic!("the server masks a frame"),
            };
            if header < usize::MAX && self.unread.len() >= header + length {
                let first = self.unread[0];
                assert_eq!(first & 0x70, 0, "reserved bits of {first:#x}");
                let payload = self.unread[header..header + length].to_vec();
                self.unread.drain(..header + length);
                return Ok(Some(RawFrame { first, payload }));
            }
            if self.read()? == 0 {
                assert!(self.unread.is_empty(), "the connection ended within a frame");
                return Ok(None);
            }
        }
    }

    /// A whole text frame begins; its length is for those who want to read it bit by bit.
    #[track_caller]
    pub fn text_begins(&mut self) -> usize {
        let [first, length] = self.takes(2)[..] else { unreachable!("two bytes") };
        assert_eq!(first, TEXT, "a whole text frame");
        let length = match length {
            127 => self.takes(8),
            126 => self.takes(2),
            _ => vec![length],
        };
        length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
    }

    /// The next bytes.
    #[track_caller]
    pub fn takes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            self.more("the rest of a frame");
        }
        self.unread.drain(..count).collect()
    }

    /// The next frame is a whole text.
    #[track_caller]
    pub fn text(&mut self) -> String {
        let frame = self.frame();
        assert_eq!(frame.first, TEXT, "a whole text frame");
        String::from_utf8(frame.payload).expect("UTF-8")
    }

    /// The next frame is this message.
    #[track_caller]
    pub fn hears(&mut self, data: &str) -> Heard {
        let text = self.text();
        let heard = Heard::parse(&text).unwrap_or_else(|| panic!("no message: {}", cut(&text)));
        assert!(heard.data == data, "heard {}\nnot   {}", cut(&heard.data), cut(data));
        heard
    }

    /// Puts back what a test has read from the socket by itself.
    pub fn having_read(mut self, mut bytes: Vec<u8>) -> Raw {
        bytes.append(&mut self.unread);
        Raw { unread: bytes, ..self }
    }

    /// A close frame with this code comes, whatever comes before, and then the orderly end of the
    /// connection: no reset, which could have eaten the close frame. Gives the reason.
    #[track_caller]
    pub fn is_closed_with(&mut self, code: u16) -> String {
        let frame = loop {
            let frame = self.frame();
            if frame.first == CLOSE {
                break frame;
            }
        };
        let (got, reason) = frame.payload.split_at_checked(2).expect("a close frame has a code");
        let reason = String::from_utf8(reason.to_vec()).expect("a reason is UTF-8");
        assert_eq!(u16::from_be_bytes([got[0], got[1]]), code, "close code; reason: {reason}");
        match self.try_frame() {
            Ok(None) => reason,
            Ok(Some(frame)) => panic!("after the close frame came {frame:?}"),
            Err(error) => panic!("after the close frame: {error}"),
        }
    }

    /// The connection ends, in whatever way; what came until then is dropped.
    #[track_caller]
    pub fn is_gone(&mut self) {
        let mut bytes = [0; 64 << 10];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return,
                Ok(_) => (),
                Err(error) if is_timeout(&error) => panic!("the connection stays"),
                Err(_) => return,
            }
        }
    }

    /// Ends the connection as a peer that crashed does: with a reset.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a linger time");
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub fn sends_no_more(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is there");
    }

    #[track_caller]
    fn more(&mut self, what: &str) {
        match self.read() {
            Ok(0) => panic!("the connection ended before {what}"),
            Ok(_) => (),
            Err(error) => panic!("no {what}: {error}"),
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 64 << 10];
        let count = self.stream.read(&mut bytes)?;
        self.unread.extend(&bytes[..count]);
        Ok(count)
    }
}

pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

// ---------------------------------------------------------------------------------------------
// The system underneath

/// strace, holding the server's system calls and doing something to them until it is dropped.
pub struct Meddling {
    strace: Child,
}

impl Drop for Meddling {
    fn drop(&mut self) {
        // A signal that lets it take its hands off the server before it goes.
        shell(&format!("kill -INT {} 2> /dev/null || true", self.strace.id()));
        let _ = self.strace.wait();
    }
}

/// Injects into the running server, say `fdatasync,fsync:error=EIO`; None where that is not
/// possible, after saying so.
#[track_caller]
pub fn meddle(server: &Server, test: &str, injection: &str) -> Option<Meddling> {
    let pid = server.pid().to_string();
    let calls = injection.split(':').next().expect("names of calls");
    let file = server.dir.file();
    // Without -P the file's descriptor is not told from the sockets.
    let by_path = ["-P", file.to_str().expect("a UTF-8 path")];
    let by_path: &[&str] = if calls.contains("sync") { &[] } else { &by_path };
    let strace = Command::new("strace")
        .args(["-f", "-p", &pid, "-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={injection}")])
        .args(by_path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut strace = match strace {
        Ok(strace) => strace,
        Err(error) => {
            skipped(test, &format!("strace: {error}"));
            return None;
        }
    };
    let mut lines = BufReader::new(strace.stderr.take().expect("stderr is piped")).lines();
    let mut said = String::new();
    // It says so when it has every thread, or says why not and ends.
    let attached = lines.by_ref().map_while(Result::ok).any(|line| {
        said += &line;
        line.contains("attached")
    });
    // Its report must go on being read, or it stops and the server with it.
    thread::spawn(move || lines.for_each(drop));
    let meddling = Meddling { strace };
    if !attached {
        skipped(test, &said);
        return None;
    }
    Some(meddling)
}

// ---------------------------------------------------------------------------------------------
// Odds and ends

/// Waits for a condition that no event announces, by looking again and again.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The start of a long text, for a failure's message.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((at, _)) => format!("{}... ({} bytes)", &text[..at], text.len()),
        None => text.into(),
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// A JSON object of `length` bytes that starts with a number.
pub fn padded(number: usize, length: usize) -> String {
    let start = format!(r#"{{"n":{number},"pad":""#);
    let pad = length.saturating_sub(start.len() + 2);
    format!(r#"{start}{}"}}"#, "x".repeat(pad))
}

/// Lines of about `length` bytes each, `count` of them, with their `\n`.
pub fn padded_lines(count: usize, length: usize) -> String {
    (1..=count).map(|number| padded(number, length - 1) + "\n").collect()
}

/// A small source of chance (xorshift); its seed is printed, so that a failure can be had again.
pub struct Dice(u64);

impl Dice {
    pub fn new() -> Dice {
        let seed = now_ms() | 1;
        println!("dice: {seed}");
        Dice(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Ends a load when it goes, be it by a failure: who makes the load looks at the flag.
pub struct EndsWithMe<'a>(pub &'a AtomicBool);

impl Drop for EndsWithMe<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does the same with each item, on a few threads at once.
pub fn each_of<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    // Starting a server is mostly waiting, so more threads than cores pay.
    const THREADS: usize = 4;
    thread::scope(|scope| {
        for start in 0..THREADS.min(items.len()) {
            let work = &work;
            scope.spawn(move || items.iter().skip(start).step_by(THREADS).for_each(work));
        }
    });
}
