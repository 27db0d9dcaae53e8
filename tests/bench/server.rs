//! The servers under comparison, each run a process of its own with a file of its own.
//!
//! A server is ended by its own handle when `Server` is dropped, on a panic too, and by the kernel
//! when the benchmark itself is killed.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::load::{Load, Outcome};
use crate::proc::Process;
use crate::settings::without_settings;
use crate::wire;

/// First arguments that make this program something else than the benchmark.
pub const BASELINE: &str = "baseline";
pub const ROLL: &str = "roll";
pub const ROLL_SYNC: &str = "roll+sync";
pub const ROLL_THREADS: &str = "roll-threads";
pub const ROLL_THREADS_SYNC: &str = "roll-threads+sync";
pub const TETHERED: &str = "tethered";

/// What a cluster has its numbers from.
const ENGINE: &str = "redis-server";

/// Ten million messages, read and parsed one by one, on a slow machine.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How often to knock while a server starts: fine enough for starts of a few milliseconds.
const KNOCK: Duration = Duration::from_micros(200);

/// A server that takes part.
#[derive(Clone, PartialEq)]
pub enum Contender {
    FsyncNever,
    FsyncAlways,
    /// One event loop, written for speed alone.
    Roll,
    /// The same with one fdatasync a batch.
    RollSync,
    /// The two with a thread for each client that reads, as the server has.
    RollThreads,
    RollThreadsSync,
    Baseline,
    /// So many nodes of a cluster, with an engine of their own: all sync.
    Nodes(usize),
    /// Any other one that speaks the contract: a shell command with `{port}` and `{file}`.
    Other(String),
}

impl Contender {
    pub fn label(&self) -> &str {
        match self {
            Contender::FsyncNever => "txtcord --fsync never",
            Contender::FsyncAlways => "txtcord --fsync always",
            Contender::Roll => ROLL,
            Contender::RollSync => ROLL_SYNC,
            Contender::RollThreads => ROLL_THREADS,
            Contender::RollThreadsSync => ROLL_THREADS_SYNC,
            Contender::Baseline => BASELINE,
            Contender::Nodes(1) => "a node of a cluster",
            Contender::Nodes(_) => "three nodes of a cluster",
            Contender::Other(_) => "other (--server)",
        }
    }

    /// The peer that shows how fast it could be on this machine, keeping the same promise.
    pub fn limit(&self) -> Option<Contender> {
        match self {
            Contender::FsyncNever | Contender::RollThreads | Contender::Other(_) => {
                Some(Contender::Roll)
            }
            Contender::FsyncAlways | Contender::RollThreadsSync => Some(Contender::RollSync),
            Contender::Nodes(_) => Some(Contender::FsyncAlways),
            Contender::Roll | Contender::RollSync | Contender::Baseline => None,
        }
    }

    /// The peer that shows how fast it could be with a thread for each client.
    pub fn limit_with_threads(&self) -> Option<Contender> {
        match self {
            Contender::FsyncNever | Contender::Other(_) => Some(Contender::RollThreads),
            Contender::FsyncAlways => Some(Contender::RollThreadsSync),
            _ => None,
        }
    }

    /// The simple server.
    pub fn baseline(&self) -> Option<Contender> {
        (*self != Contender::Baseline).then_some(Contender::Baseline)
    }

    fn command(&self, port: u16, file: &Path) -> io::Result<Command> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(TETHERED);
        let fsync = match self {
            Contender::FsyncNever => "never",
            Contender::FsyncAlways => "always",
            Contender::Roll
            | Contender::RollSync
            | Contender::RollThreads
            | Contender::RollThreadsSync
            | Contender::Baseline => {
                command.arg(env::current_exe()?).args([self.label(), &port.to_string()]).arg(file);
                return Ok(command);
            }
            Contender::Nodes(_) => return Err(io::Error::other("it is several processes")),
            Contender::Other(line) => {
                let line = line.replace("{port}", &port.to_string());
                let line = line.replace("{file}", &file.to_string_lossy());
                // With `exec` the process measured is the server, not the shell.
                command.args(["sh", "-c", &format!("exec {line}")]);
                return Ok(command);
            }
        };
        command.args([env!("CARGO_BIN_EXE_txtcord"), "--fsync", fsync, "--listen"]);
        command.arg(format!("127.0.0.1:{port}")).arg("--file").arg(file);
        Ok(command)
    }
}

/// Becomes the program named in the arguments, tied to the life of the process that started it.
/// A wrapper because a parent cannot ask for this on its child's behalf without unsafe code; it adds
/// about a millisecond to every start, the same for all.
pub fn become_tethered(mut arguments: impl Iterator<Item = String>) -> io::Error {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    let program = arguments.next().unwrap_or_default();
    Command::new(program).args(arguments).exec()
}

pub struct Server {
    pub port: u16,
    pub process: Process,
    /// From before the process was made to the first answered handshake.
    pub ready: Duration,
    child: Child,
}

impl Server {
    /// Starts a server on this file; when this returns, a first client has been there and left.
    pub fn start(contender: &Contender, file: &MessageFile) -> Outcome<Server> {
        let file = file.path();
        // Between asking for a free port and using it another program may take it; then the server
        // fails to start and says so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let errors = file.with_extension("stderr");
        let mut command = contender.command(port, file)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&errors)?);
        without_settings(&mut command);
        let started = Instant::now();
        let child = command.spawn()?;
        let process = Process(child.id());
        let mut server = Server { port, process, ready: Duration::ZERO, child };
        server.await_first_client(started).map_err(|error| {
            let said = fs::read_to_string(&errors).unwrap_or_default();
            format!("{} did not start: {error}. {}", contender.label(), said.trim())
        })?;
        Ok(server)
    }

    fn await_first_client(&mut self, started: Instant) -> Outcome<()> {
        let stream = loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) {
                break stream;
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("it ended with {status}").into());
            }
            if started.elapsed() > START_LIMIT {
                return Err("nobody answered".into());
            }
            thread::sleep(KNOCK);
        };
        let mut load = Load::new()?;
        load.discard = true;
        let first = load.adopt(stream)?;
        load.shake_hands(first);
        while load.joined == 0 {
            load.poll(Duration::from_millis(50));
            if !load.faults.none() || started.elapsed() > START_LIMIT {
                return Err("the first client got no history".into());
            }
        }
        if let Some((upgraded_at, _)) = load.joined_at(first) {
            self.ready = upgraded_at - started;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing of the file is needed any more, so there is nothing to wait for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The engine of a cluster: a `redis-server` that syncs whatever it answers.
pub struct Engine {
    pub process: Process,
    pub url: String,
    child: Child,
}

impl Engine {
    /// Whether this machine has one.
    pub fn is_here() -> bool {
        let mut asked = Command::new(ENGINE);
        asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        asked.status().is_ok_and(|status| status.success())
    }

    /// Starts one that keeps its files beside this one.
    pub fn start(file: &MessageFile) -> Outcome<Engine> {
        let directory = file.path().parent().expect("the file is in a directory");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(env::current_exe()?);
        command.args([TETHERED, ENGINE, "--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        // As the README has it.
        command.args(["--auto-aof-rewrite-min-size", "1gb", "--dir"]);
        command.arg(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        let url = format!("redis://127.0.0.1:{port}");
        let engine = Engine { process: Process(child.id()), url, child };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if started.elapsed() > START_LIMIT {
                return Err("the engine did not start".into());
            }
            thread::sleep(KNOCK);
        }
        Ok(engine)
    }

    /// A node of its cluster.
    pub fn node(&self) -> Contender {
        Contender::Other(format!(
            "{} --listen 127.0.0.1:{{port}} --file {{file}} --fsync always --cluster {} \
             --cluster-settle 0s",
            env!("CARGO_BIN_EXE_txtcord"),
            self.url
        ))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Where the files of messages lie, each in a directory named after this process.
const DIRECTORY: &str = env!("CARGO_TARGET_TMPDIR");
const PREFIX: &str = "bench-";

/// Removes what earlier runs left behind that were killed.
pub fn sweep() {
    for entry in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// A file of messages in a directory of its own, which goes with it. It lies in the target directory,
/// on a real disk as a rule: a temporary directory may be in memory, where `--fsync always` is free.
pub struct MessageFile {
    directory: PathBuf,
    path: PathBuf,
}

impl MessageFile {
    /// With so many messages written and on the disk, so that no server pays for the writing.
    pub fn with(messages: usize) -> io::Result<MessageFile> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = Path::new(DIRECTORY).join(format!("{PREFIX}{}-{count}", process::id()));
        fs::create_dir_all(&directory)?;
        let path = directory.join("messages.txt");
        // Made before the file is filled, so that a full disk is emptied again.
        let made = MessageFile { directory, path };
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&made.path)?);
        for number in 0..messages {
            wire::write_stored_line(number, &mut file)?;
        }
        file.into_inner()?.sync_all()?;
        Ok(made)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for MessageFile {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).ok();
    }
}
