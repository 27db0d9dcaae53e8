//! The real engine: a `redis-server`, or what `TXTCORD_ENGINE` names, on a free loopback port with a
//! folder of its own, which ends with its handle, whatever happens to the test.

use std::{
    env,
    fs::{self, File, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    resp::{Reply, Resp},
    support::*,
};

/// The stream of the default channel, and what stands beside it.
pub const STREAM: &str = "txtcord:{messages}";
pub const META: &str = "txtcord:{messages}:meta";

/// What an engine keeps of what it acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// `appendonly yes`, `appendfsync always`.
    Always,
    /// `appendonly yes`, `appendfsync everysec`.
    EverySecond,
    /// `appendonly no`.
    Nothing,
}

/// An engine that runs, or one that has ended and can be started again.
pub struct Engine {
    child: Option<Child>,
    port: u16,
    dir: Arc<Dir>,
    keeps: Keeps,
    more: Vec<String>,
    program: String,
}

/// The program that is the engine.
fn program() -> String {
    env::var("TXTCORD_ENGINE").unwrap_or_else(|_| "redis-server".to_owned())
}

/// Whether there is an engine on this machine; says loudly where not that a test is skipped.
pub fn is_here() -> bool {
    let found = Command::new(program())
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match found {
        Ok(status) if status.success() => true,
        _ => {
            let thread = thread::current();
            let test = thread.name().unwrap_or("a test with the engine");
            skipped(test, &format!("there is no {} (apt-get install redis-server)", program()));
            false
        }
    }
}

impl Engine {
    /// None, after saying so, where there is no engine on this machine.
    pub fn start(keeps: Keeps) -> Option<Engine> {
        Engine::with(keeps, &[])
    }

    /// The same with more of the engine's own flags; `{tls}` in them is [`Engine::tls_port`].
    pub fn with(keeps: Keeps, more: &[&str]) -> Option<Engine> {
        is_here().then(|| Engine::run(program(), keeps, more))
    }

    /// A Sentinel that watches `master` under the name `chat`. On a busy machine it may trust nothing for
    /// half a minute; a replica that misses its master for ten times the time until that counts as down is
    /// no good to it afterwards, so that time is not short.
    pub fn sentinel(master: &Engine) -> Engine {
        let mut sentinel =
            Engine::new(program().replace("-server", "-sentinel"), Keeps::Nothing, &[]);
        let settings = format!(
            "sentinel monitor chat 127.0.0.1 {} 1\nsentinel down-after-milliseconds chat 5000\n\
             sentinel failover-timeout chat 2000\n",
            master.port
        );
        fs::write(sentinel.dir.join("sentinel.conf"), settings).expect("a file");
        sentinel.find_port();
        sentinel
    }

    fn new(program: String, keeps: Keeps, more: &[&str]) -> Engine {
        let more = more.iter().map(|word| word.to_string()).collect();
        Engine { child: None, port: 0, dir: Arc::new(Dir::new()), keeps, more, program }
    }

    fn run(program: String, keeps: Keeps, more: &[&str]) -> Engine {
        let mut engine = Engine::new(program, keeps, more);
        engine.find_port();
        engine
    }

    /// The engine takes no port 0, so some are tried until it starts there. They are below those that the
    /// system gives out, or another process could have it when this one is started again.
    fn find_port(&mut self) {
        const TRIES: usize = 20;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..TRIES {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let place = process::id().wrapping_mul(97).wrapping_add(next) % 9_000;
            self.port = 11_000 + place as u16;
            if self.try_start() {
                return;
            }
        }
        panic!("the engine does not start:\n{}", self.log());
    }

    /// False when it ended instead, as it does where the port is taken.
    fn try_start(&mut self) -> bool {
        let log = File::options().create(true).append(true).open(self.dir.join("log"));
        let log = log.expect("a file for the log");
        let mut command = Command::new(&self.program);
        if self.program.ends_with("-sentinel") {
            command.arg("sentinel.conf");
        } else {
            let (appendonly, fsync) = match self.keeps {
                Keeps::Always => ("yes", "always"),
                Keeps::EverySecond => ("yes", "everysec"),
                Keeps::Nothing => ("no", "no"),
            };
            command.args(["--save", "", "--appendonly", appendonly, "--appendfsync", fsync]);
            // A replica asks for a copy at once instead of after five seconds.
            command.args(["--repl-diskless-sync-delay", "0", "--maxmemory-policy", "noeviction"]);
        }
        let tls_port = self.tls_port().to_string();
        let child = command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--daemonize", "no", "--logfile", ""])
            .args(self.more.iter().map(|word| word.replace("{tls}", &tls_port)))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a descriptor"))
            .stdout(log)
            .spawn();
        self.child = Some(child.expect("the engine's program runs"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let child = self.child.as_mut().expect("it was just started");
            if child.try_wait().expect("a child can be waited for").is_some() {
                self.child = None;
                return false;
            }
            let own = format!("process_id:{}\r\n", child.id());
            let info = Resp::connect(self.address()).and_then(|mut resp| resp.ask(&["INFO"]));
            match info {
                // One of another process may have answered; then this one ends soon.
                Ok(reply @ Reply::Bytes(_))
                    if reply.text().contains(&own) && !reply.text().contains("loading:1") =>
                {
                    return true;
                }
                // A password is wanted, which the caller has set.
                Ok(Reply::Error(error)) if error.contains("NOAUTH") => return true,
                _ => assert!(Instant::now() < deadline, "no answer:\n{}", self.log()),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Where it speaks TLS if it was told to.
    pub fn tls_port(&self) -> u16 {
        self.port + 10_000
    }

    /// The engine without a proxy between.
    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address())
    }

    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub fn connect(&self) -> Resp {
        Resp::connect(self.address()).expect("the engine accepts")
    }

    /// The answer to a command; an error is a failure.
    #[track_caller]
    pub fn asks(&self, words: &[&str]) -> Reply {
        match self.connect().ask(words) {
            Ok(Reply::Error(error)) => panic!("{words:?}: {error}"),
            Ok(reply) => reply,
            Err(error) => panic!("{words:?}: {error}\n{}", self.log()),
        }
    }

    /// A field of the default channel's meta hash.
    #[track_caller]
    pub fn meta(&self, field: &str) -> String {
        self.asks(&["HGET", META, field]).text()
    }

    /// The keys that match a pattern.
    #[track_caller]
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        self.asks(&["KEYS", pattern]).many().iter().map(Reply::text).collect()
    }

    /// A field of `INFO`.
    pub fn info(&self, field: &str) -> String {
        let info = self.asks(&["INFO"]).text();
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
    }

    /// Asks it to end, and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            shell(&format!("kill -TERM {}", child.id()));
            child.wait().expect("a child can be waited for");
        }
    }

    /// Starts it again on the same port and folder.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it still runs");
        // The port is its own, but another process may have had it for a moment.
        until("the engine starts again", || self.try_start());
    }

    /// Stops its process in the middle of whatever it does.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            shell(&format!("kill -{name} {}", child.id()));
        }
    }

    /// The file of what it appended last.
    #[track_caller]
    fn tail_file(&self) -> PathBuf {
        let files = fs::read_dir(self.dir.join("appendonlydir")).expect("an append-only folder");
        let mut paths: Vec<PathBuf> =
            files.map(|file| file.expect("a file of the folder").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "aof"));
        paths.retain(|path| path.to_string_lossy().contains(".incr."));
        // They are numbered, so that the longer name is the later one.
        paths.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
        paths.pop().expect("an append-only file")
    }

    /// Bytes of what it has appended.
    #[track_caller]
    pub fn appended(&self) -> u64 {
        fs::metadata(self.tail_file()).expect("an append-only file").len()
    }

    /// Cuts its append-only file, as a power cut may; it must have ended.
    #[track_caller]
    pub fn cut(&self, bytes: u64) {
        assert!(self.child.is_none(), "it still runs");
        let file = OpenOptions::new().write(true).open(self.tail_file()).expect("the file");
        let length = file.metadata().expect("a length").len();
        file.set_len(length.saturating_sub(bytes)).expect("a file that can be cut");
    }

    /// Makes it a replica of another, and waits until it has everything.
    #[track_caller]
    pub fn follows(&self, other: &Engine) {
        self.follows_at(other.address());
    }

    /// The same by way of a proxy.
    #[track_caller]
    pub fn follows_at(&self, address: SocketAddr) {
        let port = address.port().to_string();
        self.asks(&["REPLICAOF", "127.0.0.1", &port]);
        until("the replica has everything", || self.info("master_link_status") == "up");
    }

    /// Makes it a primary.
    #[track_caller]
    pub fn is_promoted(&self) {
        self.asks(&["REPLICAOF", "NO", "ONE"]);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(3000);
            eprintln!("the engine's log ends:\n{}", log.get(from..).unwrap_or(&log));
        }
    }
}
