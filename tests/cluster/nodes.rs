//! The nodes: servers with folders of their own on one engine, each behind a proxy of its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::{engine::Engine, proxy::Proxy, support::*};

/// How long a cluster may take to become well after what was done to it: connections time out after
/// seconds, and it settles for three.
pub const CALM: Duration = Duration::from_secs(240);

/// Where the nodes listen; none for one that does not run. Load looks here whenever it connects.
#[derive(Clone, Default)]
pub struct Addresses(Arc<Mutex<Vec<Option<SocketAddr>>>>);

impl Addresses {
    pub fn of(&self, node: usize) -> Option<SocketAddr> {
        self.0.lock().expect("no panic here").get(node).copied().flatten()
    }

    pub fn count(&self) -> usize {
        self.0.lock().expect("no panic here").len()
    }

    fn set(&self, node: usize, address: Option<SocketAddr>) {
        let mut all = self.0.lock().expect("no panic here");
        if all.len() <= node {
            all.resize(node + 1, None);
        }
        all[node] = address;
    }
}

/// A node that runs, or one that has ended and can be started again.
pub struct Node {
    number: usize,
    pub setup: Setup,
    pub server: Option<Server>,
    pub proxy: Proxy,
    addresses: Addresses,
}

/// Nodes on one engine.
pub struct Nodes {
    pub all: Vec<Node>,
    pub addresses: Addresses,
    flags: Vec<String>,
}

impl Nodes {
    /// `count` nodes on this engine, all started and ready.
    #[track_caller]
    pub fn on(engine: &Engine, count: usize) -> Nodes {
        // As short as nodes on one machine need it; tests of the time itself take the default.
        Nodes::with(engine, count, &["--cluster-settle", "1s"])
    }

    /// The same for an engine that will lose lines: within `settle`, those that have them must give them
    /// back. Since a busy machine may need more, it is for [`with_more_and_more_time`].
    #[track_caller]
    pub fn patient(engine: &Engine, count: usize, settle: Duration) -> Nodes {
        Nodes::with(engine, count, &["--cluster-settle", &format!("{}s", settle.as_secs())])
    }

    /// The same with more flags.
    #[track_caller]
    pub fn with(engine: &Engine, count: usize, flags: &[&str]) -> Nodes {
        let mut nodes = Nodes::begin(engine, count, flags);
        nodes.are_ready();
        nodes
    }

    /// The same without waiting for anything but that they listen.
    #[track_caller]
    pub fn begin(engine: &Engine, count: usize, flags: &[&str]) -> Nodes {
        let flags = flags.iter().map(|flag| flag.to_string()).collect();
        let mut nodes = Nodes { all: Vec::new(), addresses: Addresses::default(), flags };
        (0..count).for_each(|_| nodes.one_more(engine, Setup::new()));
        nodes
    }

    /// One server without an engine, for trying what tries the others.
    #[track_caller]
    pub fn without_an_engine() -> Nodes {
        let mut nodes =
            Nodes { all: Vec::new(), addresses: Addresses::default(), flags: Vec::new() };
        let nowhere = Proxy::to(SocketAddr::from(([127, 0, 0, 1], 9)));
        nodes.add(Setup::new(), nowhere);
        nodes
    }

    /// One more node, with the file that `setup` has.
    #[track_caller]
    pub fn one_more(&mut self, engine: &Engine, setup: Setup) {
        let proxy = Proxy::to(engine.address());
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let setup = setup.flags(&["--cluster", &proxy.url()]).flags(&flags);
        self.add(setup, proxy);
    }

    #[track_caller]
    fn add(&mut self, setup: Setup, proxy: Proxy) {
        let number = self.all.len();
        let addresses = self.addresses.clone();
        let mut node = Node { number, setup, server: None, proxy, addresses };
        node.start();
        self.all.push(node);
    }

    #[track_caller]
    pub fn are_ready(&mut self) {
        self.all.iter().for_each(Node::is_ready);
    }

    /// Waits until all files are the same and have at least `lines` lines; gives them.
    #[track_caller]
    pub fn agree(&self, lines: u64) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + CALM;
        let mut before = Vec::new();
        loop {
            let files: Vec<Vec<u8>> = self.all.iter().map(Node::file).collect();
            let is_same = files.iter().all(|file| *file == files[0]);
            let has = files[0].iter().filter(|&&byte| byte == b'\n').count() as u64;
            // Twice the same: nothing is on its way.
            if is_same && has >= lines && files == before {
                return files;
            }
            if Instant::now() > deadline {
                let lengths: Vec<usize> = files.iter().map(Vec::len).collect();
                panic!(
                    "the files do not become one: {lengths:?} bytes, {has} of {lines} lines\n{}",
                    self.logs()
                );
            }
            before = files;
            thread::sleep(Duration::from_millis(150));
        }
    }

    /// Starts those again that end because of a fork, until all are ready; how often that was.
    #[track_caller]
    pub fn rejoin(&mut self) -> usize {
        let mut forks = 0;
        let deadline = Instant::now() + CALM;
        while self.all.iter().any(|node| !node.is_alive() || node.readiness() != 200) {
            for node in &mut self.all {
                while !node.is_alive() {
                    let ended = match &node.server {
                        Some(_) => Err(node.ends()),
                        None => node.try_start(),
                    };
                    if let Err(ended) = ended {
                        ended.with(75, &[]);
                        forks += 1;
                    }
                }
            }
            assert!(Instant::now() < deadline, "not all become ready again:\n{}", self.logs());
            thread::sleep(Duration::from_millis(50));
        }
        forks
    }

    /// The sum of a metric over the nodes that run.
    #[track_caller]
    pub fn sum(&self, metric: &str) -> f64 {
        self.all.iter().filter_map(|node| node.metric(metric)).sum()
    }

    fn logs(&self) -> String {
        let log = |node: &Node| {
            let log = node.server.as_ref().map(Server::log).unwrap_or_default();
            format!("node {}:\n{log}", node.number)
        };
        self.all.iter().map(log).collect()
    }

    /// Changes where all proxies lead, and ends what went elsewhere.
    pub fn lead_to(&self, engine: &Engine) {
        for node in &self.all {
            node.leads_to(engine);
        }
    }

    /// What was set aside after forks, by any node.
    pub fn set_aside(&self) -> Vec<String> {
        let all = self.all.iter().flat_map(Node::set_aside);
        all.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

impl Node {
    /// Starts it on its folder, and waits until it listens.
    #[track_caller]
    pub fn start(&mut self) {
        if let Err(ended) = self.try_start() {
            panic!("node {} ends with {}:\n{}", self.number, ended.status, ended.log);
        }
    }

    /// The same for one that may end instead.
    #[track_caller]
    pub fn try_start(&mut self) -> Result<(), Ended> {
        assert!(self.server.is_none(), "it runs already");
        let server = self.setup.try_start()?;
        self.addresses.set(self.number, Some(server.address()));
        self.server = Some(server);
        Ok(())
    }

    /// Starts it and waits for its end, which comes before or after it listens.
    #[track_caller]
    pub fn starts_and_ends(&mut self) -> Ended {
        match self.try_start() {
            Ok(()) => self.ends(),
            Err(ended) => ended,
        }
    }

    #[track_caller]
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("the node runs")
    }

    fn take(&mut self) -> Server {
        self.addresses.set(self.number, None);
        self.server.take().expect("the node runs")
    }

    pub fn kill(&mut self) {
        drop(self.take().kill());
    }

    /// What stands beside the file once it tells of `lines` lines, and is on the disk.
    #[track_caller]
    pub fn noted(&self, lines: u64) -> [(PathBuf, Vec<u8>); 2] {
        let read = |ending| {
            let path = self.setup.dir.join(&format!("messages.txt.{ending}"));
            let bytes = fs::read(&path).expect("a file");
            (path, bytes)
        };
        let is_noted = || {
            let record = String::from_utf8(read("lock").1).expect("UTF-8");
            record.contains(&format!(" stamps {lines} "))
        };
        until("it is noted", is_noted);
        ["lock", "stamps"].map(read)
    }

    /// Ends it as a power cut does: the file is on the disk, what stands beside it only as it was noted.
    #[track_caller]
    pub fn loses_power(&mut self, noted: [(PathBuf, Vec<u8>); 2]) {
        self.kill();
        for (path, bytes) in noted {
            fs::write(path, bytes).expect("it can be written");
        }
        // The machine was started long after the last line was written.
        let file = File::options().write(true).open(self.setup.dir.file()).expect("the file");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("a time that can be set");
    }

    #[track_caller]
    pub fn stop(&mut self) {
        drop(self.take().stop());
    }

    /// Waits for its end, which comes by itself.
    #[track_caller]
    pub fn ends(&mut self) -> Ended {
        let deadline = Instant::now() + CALM;
        while self.is_alive() {
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.server().log());
            thread::sleep(Duration::from_millis(20));
        }
        self.take().ends()
    }

    pub fn is_alive(&self) -> bool {
        self.server.as_ref().is_some_and(|server| {
            // A process that has ended and was not waited for is still there, as a zombie.
            let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid()));
            stat.is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|s| s.starts_with(" Z")))
        })
    }

    /// Waits until it says that it is ready.
    #[track_caller]
    pub fn is_ready(&self) {
        let server = self.server();
        within(CALM, "a node is ready", || self.readiness() == 200, || server.log());
    }

    #[track_caller]
    pub fn is_unready(&self) {
        let server = self.server();
        within(CALM, "a node is not ready", || self.readiness() == 503, || server.log());
    }

    /// 0 when it does not answer, or not in time.
    fn readiness(&self) -> u16 {
        let request = ask("GET /readyz", &["Connection: close"]);
        let answer = answer_of(self.server().address(), &request, PATIENCE);
        answer.filter(|(_, body)| !body.contains(HUB_IS_LATE)).map_or(0, |(status, _)| status)
    }

    /// Where its proxy leads; what went elsewhere ends.
    pub fn leads_to(&self, engine: &Engine) {
        self.proxy.leads_to(engine.address());
        self.proxy.drops_all();
    }

    pub fn file(&self) -> Vec<u8> {
        fs::read(self.setup.dir.file()).unwrap_or_default()
    }

    /// Its file's lines.
    pub fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.file()).lines().map(str::to_owned).collect()
    }

    /// Waits until its file has `count` lines.
    #[track_caller]
    pub fn has_lines(&self, count: usize) {
        let what = format!("node {} has {count} lines", self.number);
        within(
            CALM,
            &what,
            || self.lines().len() >= count,
            || {
                let log = self.server.as_ref().map(Server::log).unwrap_or_default();
                format!("{} lines\n{log}", self.lines().len())
            },
        );
    }

    /// The texts that forks set aside.
    pub fn set_aside(&self) -> Vec<String> {
        let beside: BTreeMap<String, Vec<u8>> = self.setup.dir.beside();
        let forked = beside.into_iter().filter(|(name, _)| name.contains(".forked-"));
        forked.map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned()).collect()
    }

    /// The answer to a post of one JSON message to the default channel.
    pub fn posts(&self, message: &str) -> Response {
        let kind = "Content-Type: application/json";
        self.server().asked(ask_with("POST /messages", &[kind, "Connection: close"], message))
    }

    /// Stores a message; gives its id.
    #[track_caller]
    pub fn stores(&self, message: &str) -> u64 {
        let answer = self.posts(message);
        assert_eq!(answer.status, 201, "{message}: {answer:?}\n{}", self.server().log());
        json(&answer.body)["id"].as_u64().expect("an id")
    }

    /// Stores a message as soon as that works again.
    #[track_caller]
    pub fn stores_in_the_end(&self, message: &str) -> u64 {
        self.stores_with(message, message)
    }

    /// The same with a key.
    #[track_caller]
    pub fn stores_with(&self, key: &str, message: &str) -> u64 {
        let mut stored = 0;
        let key = format!("Idempotency-Key: {key}");
        let request = ask_with("POST /messages", &[&key, "Connection: close"], message);
        let store = || match answer_of(self.server().address(), &request, CALM) {
            Some((201, body)) => {
                stored = json(&body)["id"].as_u64().expect("an id");
                true
            }
            _ => false,
        };
        within(CALM, "a post is stored", store, || self.server().log());
        stored
    }

    /// A sample of `/metrics`.
    #[track_caller]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let metrics = self.server().gets("/metrics");
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
}

/// How long an engine settles that will lose lines: first as short as nodes on one machine need it.
pub const SETTLES: [Duration; 3] =
    [Duration::from_secs(8), Duration::from_secs(30), Duration::from_secs(120)];

/// Waits for a condition, longer than `until` does; `why` tells more when it does not come.
#[track_caller]
pub fn within(
    time: Duration,
    what: &str,
    mut holds: impl FnMut() -> bool,
    why: impl Fn() -> String,
) {
    let deadline = Instant::now() + time;
    while !holds() {
        assert!(Instant::now() < deadline, "still waiting until {what}:\n{}", why());
        thread::sleep(Duration::from_millis(20));
    }
}

/// The status and body of an answer on a connection of its own; none when there is none.
pub fn answer_of(address: SocketAddr, request: &[u8], time: Duration) -> Option<(u16, String)> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&address, time).ok()?;
    stream.set_read_timeout(Some(time)).ok()?;
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}
