//! How a server is to be started: its directory, its flags, its environment.

use std::{
    fmt::Display,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{self, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use super::{
    dir::Dir,
    output::Lines,
    server::{Ended, Server},
    settings::without_settings,
};

/// A server that is yet to be started.
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
        Setup::at("127.0.0.1:0", Arc::new(Dir::new()))
    }

    /// The same on an address of its own, where it can be started again: no port of it is anybody
    /// else's meanwhile. All other servers listen on 127.0.0.1, and all clients connect from there.
    pub fn on_its_own_address() -> Setup {
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let [.., b, c] = process::id().to_be_bytes();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // The last byte is never 0 or 1, and differs within this process.
        let own = Ipv4Addr::new(127, b, c, 2 + count % 250);
        // Not every system has all loopback addresses; then a free port of the usual one must do.
        let has_it = TcpListener::bind((own, 0)).is_ok();
        let address = if has_it { own } else { Ipv4Addr::LOCALHOST };
        Setup::at(format!("{address}:0"), Arc::new(Dir::new()))
    }

    /// An address, and the file in a directory that may hold one already.
    ///
    /// The server has more patience with its clients than by default: a busy machine may keep a test
    /// from reading for longer than a minute. Flags come before these variables.
    pub fn at(address: impl Display, dir: Arc<Dir>) -> Setup {
        let file = dir.file();
        let file = file.to_str().expect("a UTF-8 path");
        Setup::within(dir)
            .flags(&["--listen", &address.to_string(), "--file", file])
            .variable("TXTCORD_PING_INTERVAL", "1h")
            .variable("TXTCORD_STALL_TIMEOUT", "1h")
    }

    /// Without any flag.
    pub fn bare() -> Setup {
        Setup::within(Arc::new(Dir::new()))
    }

    fn within(dir: Arc<Dir>) -> Setup {
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
        match self.try_start() {
            Ok(server) => server,
            Err(ended) => panic!("the server did not say where it listens:\n{}", ended.log),
        }
    }

    /// Starts it and waits until it can be talked to, or ends instead.
    #[track_caller]
    pub fn try_start(&self) -> Result<Server, Ended> {
        let mut server = self.spawn();
        let listening = server.err.wait_for(|line| {
            let (address, _) = line.split_once("ws://")?.1.split_once("/ws")?;
            let (host, port) = address.rsplit_once(':')?;
            Some((host.to_owned(), port.parse().ok()?))
        });
        let Some((host, port)) = listening else { return Err(server.ends()) };
        // One that listens everywhere is reached at the usual address.
        let own = host.parse().ok().filter(Ipv4Addr::is_loopback);
        server.address = SocketAddr::from((own.unwrap_or(Ipv4Addr::LOCALHOST), port));
        Ok(server)
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

    /// The program with its flags, in its directory and without the settings of the tests'
    /// environment; where its output goes is the caller's to say.
    pub fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_txtcord");
        let mut command = if self.shell.is_empty() {
            Command::new(binary)
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{}exec \"$0\" \"$@\"", self.shell), binary]);
            command
        };
        without_settings(&mut command);
        command
            .args(&self.flags)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    fn spawn(&self) -> Server {
        let mut child = self
            .command()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server's binary runs");
        let out = Lines::follow(child.stdout.take().expect("stdout is piped"));
        let err = Lines::follow(child.stderr.take().expect("stderr is piped"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Server { child, address, out, err, dir: self.dir.clone(), setup: self.clone() }
    }
}
