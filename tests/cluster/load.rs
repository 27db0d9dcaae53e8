//! Load: speakers on sockets, posters by HTTP, and listeners, who survive whatever happens to the nodes
//! and record what they were told and shown.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tungstenite::{Error, Message, WebSocket, protocol::WebSocketConfig};

use crate::{
    check::Record,
    nodes::{Addresses, CALM, answer_of},
    support::*,
};

/// How long a read waits before the load looks whether it is over.
const LOOK: Duration = Duration::from_millis(50);

/// How many messages a speaker has in flight.
const IN_FLIGHT: usize = 6;

/// Load that runs until it is told to end.
pub struct Load {
    over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Record>>,
}

/// What a thread of the load has.
#[derive(Clone)]
struct Task {
    name: String,
    home: usize,
    addresses: Addresses,
    over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Load {
    /// A speaker, a poster and a listener on each node. A `name` makes the texts its own.
    pub fn on(addresses: &Addresses, name: &str) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for home in 0..addresses.count() {
            let task = |kind: &str| Task {
                name: format!("{name}-{kind}{home}"),
                home,
                addresses: addresses.clone(),
                over: over.clone(),
                acknowledged: acknowledged.clone(),
            };
            let (speaker, poster, listener) = (task("says"), task("posts"), task("hears"));
            threads.push(thread::spawn(move || speak(&speaker)));
            threads.push(thread::spawn(move || post(&poster)));
            threads.push(thread::spawn(move || listen(&listener)));
        }
        Load { over, acknowledged, threads }
    }

    /// How many messages were acknowledged so far.
    pub fn so_far(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    /// Waits until `more` more are acknowledged.
    #[track_caller]
    pub fn goes_on(&self, more: u64) {
        let wanted = self.acknowledged.load(Relaxed) + more;
        let deadline = Instant::now() + CALM;
        while self.acknowledged.load(Relaxed) < wanted {
            assert!(
                Instant::now() < deadline,
                "{} of {wanted} messages were acknowledged",
                self.acknowledged.load(Relaxed)
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets everybody finish what is pending; what they were told and shown.
    #[track_caller]
    pub fn ends(mut self) -> Record {
        self.over.store(true, Relaxed);
        let mut record = Record::default();
        for thread in self.threads.drain(..) {
            record.takes(thread.join().expect("the load does not panic"));
        }
        record
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
    }
}

impl Task {
    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// A node to connect to: the own one first, then whichever runs.
    fn node(&self, attempt: usize) -> Option<SocketAddr> {
        let count = self.addresses.count();
        self.addresses.of((self.home + attempt) % count)
    }
}

/// A socket that goes on at another node with `after` and `epoch`.
struct Ear {
    socket: Option<WebSocket<TcpStream>>,
    attempt: usize,
    after: Option<u64>,
    epoch: String,
}

/// What an ear hears.
enum Told {
    Message(u64, String),
    Refused(String),
    /// The connection is new; what was in flight may be lost.
    Again,
    Nothing,
}

impl Ear {
    fn new() -> Ear {
        Ear { socket: None, attempt: 0, after: None, epoch: String::new() }
    }

    /// The next thing, within a moment.
    fn next(&mut self, task: &Task, record: &mut Record) -> Vec<Told> {
        let Some(socket) = &mut self.socket else {
            return match self.connect(task, record) {
                Ok(mut heard) => {
                    heard.push(Told::Again);
                    heard
                }
                Err(_) => {
                    self.attempt += 1;
                    thread::sleep(Duration::from_millis(20));
                    Vec::new()
                }
            };
        };
        match socket.read() {
            Ok(Message::Text(text)) => match Heard::parse(&text) {
                Some(heard) => {
                    if let Some(after) = self.after
                        && heard.id <= after
                    {
                        let what = format!("{}: {} after {after}", task.name, heard.id);
                        record.complaints.push(what);
                    }
                    self.after = Some(heard.id);
                    record.is_shown(heard.id, &heard.data);
                    vec![Told::Message(heard.id, heard.data)]
                }
                None => vec![Told::Refused(Answer::parse(&text).code)],
            },
            Ok(Message::Close(_)) => {
                let _ = socket.flush();
                self.socket = None;
                Vec::new()
            }
            Ok(_) => vec![Told::Nothing],
            Err(Error::Io(error)) if is_timeout(&error) => vec![Told::Nothing],
            Err(_) => {
                self.socket = None;
                Vec::new()
            }
        }
    }

    fn connect(&mut self, task: &Task, record: &mut Record) -> Result<Vec<Told>, Error> {
        let gone = || Error::Io(io::ErrorKind::NotConnected.into());
        let address = task.node(self.attempt).ok_or_else(gone)?;
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        let query = match self.after {
            Some(after) => format!("after={after}&epoch={}", self.epoch),
            // From the beginning of the test.
            None => "after=0".to_owned(),
        };
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let url = format!("ws://{address}/ws?{query}");
        let shaken = tungstenite::client::client_with_config(url, stream, Some(config));
        let (mut socket, _) = shaken.map_err(|_| gone())?;
        let Message::Text(text) = socket.read()? else { return Err(gone()) };
        let history = History::parse(&text);
        record.epochs.insert(history.epoch.clone());
        let mut heard = Vec::new();
        for (id, text) in history.messages() {
            record.is_shown(id, text);
            heard.push(Told::Message(id, text.to_owned()));
        }
        if history.resumed == Some(true) && history.first_id != self.after.unwrap_or(0) + 1 {
            record.complaints.push(format!("{}: resumed at {}", task.name, history.first_id));
        }
        self.after = Some(history.last_id);
        self.epoch = history.epoch;
        socket.get_ref().set_read_timeout(Some(LOOK))?;
        self.socket = Some(socket);
        Ok(heard)
    }

    fn say(&mut self, text: &str) {
        if let Some(socket) = &mut self.socket
            && socket.send(Message::text(text)).is_err()
        {
            self.socket = None;
        }
    }
}

/// Says things, a few in flight, and says again what was in flight when a connection ended and has not
/// come back.
fn speak(task: &Task) -> Record {
    let mut record = Record::default();
    let mut ear = Ear::new();
    let mut pending: VecDeque<String> = VecDeque::new();
    let mut number = 0;
    let mut end = None;
    loop {
        for heard in ear.next(task, &mut record) {
            match heard {
                Told::Message(id, text) => {
                    if let Some(at) = pending.iter().position(|sent| *sent == text) {
                        // What one speaker says comes in the order in which it was said.
                        if at > 0 && record.once.contains(&pending[0]) {
                            let what = format!("{} came before {}", text, pending[0]);
                            record.complaints.push(what);
                        }
                        pending.remove(at);
                        record.acknowledged.push((id, text));
                        task.acknowledged.fetch_add(1, Relaxed);
                    }
                }
                Told::Refused(code) => {
                    if code != "unavailable" && code != "shutting_down" && code != "storage_full" {
                        record.complaints.push(format!("{}: refused with {code}", task.name));
                    }
                    // Which of them is not said, so the connection is begun anew.
                    ear.socket = None;
                    ear.attempt += 1;
                    thread::sleep(Duration::from_millis(50));
                }
                Told::Again => {
                    for text in &pending {
                        record.once.remove(text);
                        ear.say(text);
                    }
                }
                Told::Nothing => (),
            }
        }
        if task.is_over() {
            let end = *end.get_or_insert_with(|| Instant::now() + CALM);
            if pending.is_empty() || Instant::now() > end {
                return record;
            }
        } else if ear.socket.is_some() {
            while pending.len() < IN_FLIGHT {
                number += 1;
                // Every hundredth is long.
                let length = if number % 100 == 0 { 20_000 } else { number % 150 };
                let text = format!(
                    r#"{{"{}":{number},"é":"\u00e9 1.10","pad":"{}"}}"#,
                    task.name,
                    "x".repeat(length)
                );
                record.once.insert(text.clone());
                ear.say(&text);
                pending.push_back(text);
            }
        }
    }
}

/// Posts by HTTP, each with a key, and posts again with the same key, at any node, until it is answered
/// with an id.
fn post(task: &Task) -> Record {
    let mut record = Record::default();
    let mut number = 0;
    let mut attempt = 0;
    while !task.is_over() {
        number += 1;
        let count = if number % 5 == 0 { 3 } else { 1 };
        let texts: Vec<String> =
            (0..count).map(|part| format!(r#"{{"{}":[{number},{part}]}}"#, task.name)).collect();
        record.once.extend(texts.iter().cloned());
        let key = format!("Idempotency-Key: {} {number}", task.name);
        let kind = "Content-Type: application/x-ndjson";
        let body = texts.join("\n");
        let request = ask_with("POST /messages", &[kind, &key, "Connection: close"], &body);
        let mut end = None;
        loop {
            let node = task.node(attempt);
            let answer =
                node.and_then(|address| answer_of(address, &request, Duration::from_secs(8)));
            match answer {
                Some((201, body)) => {
                    let first = json(&body)["id"].as_u64().expect("an id");
                    let last = json(&body)["last_id"].as_u64().expect("the last id");
                    if last + 1 - first != count {
                        record.complaints.push(format!("{count} messages became {body}"));
                    }
                    task.acknowledged.fetch_add(count, Relaxed);
                    record.acknowledged.extend((first..).zip(texts));
                    break;
                }
                Some((503, _)) | None => (),
                Some(other) => {
                    record.complaints.push(format!("{}: {other:?}", task.name));
                    break;
                }
            }
            attempt += 1;
            thread::sleep(Duration::from_millis(20));
            if task.is_over() {
                let end = *end.get_or_insert_with(|| Instant::now() + CALM);
                if Instant::now() > end {
                    return record;
                }
            }
        }
    }
    record
}

fn listen(task: &Task) -> Record {
    let mut record = Record::default();
    let mut ear = Ear::new();
    while !task.is_over() {
        ear.next(task, &mut record);
    }
    record
}
