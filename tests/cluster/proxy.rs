//! A proxy between a node and the engine: its target can change, and the way can be cut, frozen, or made
//! one that answers do not come back on.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

/// How much of what a connection asks is looked at: a reader's first question is among it.
const ASKED: usize = 16 << 10;

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Connections end, and new ones end at once.
    Cut,
    /// Nothing goes on, in either direction, and nothing is lost.
    Frozen,
    /// What the engine answers is swallowed.
    Deaf,
    /// What the engine answers is swallowed on connections that have asked for this, such as
    /// `XREAD`.
    DeafTo(&'static [u8]),
}

struct State {
    way: Way,
    target: SocketAddr,
    /// Both ends of each connection, by its number.
    open: BTreeMap<u64, [TcpStream; 2]>,
    next: u64,
    /// How many bytes were swallowed so far.
    swallowed: usize,
    is_over: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A proxy; its threads end with it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    pub fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = State {
            way: Way::Open,
            target,
            open: BTreeMap::new(),
            next: 0,
            swallowed: 0,
            is_over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = shared.clone();
        thread::spawn(move || accept(&listener, &accepting));
        Proxy { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// Where new connections go; those that are there stay.
    pub fn leads_to(&self, target: SocketAddr) {
        self.shared.lock().target = target;
    }

    /// Changes what becomes of bytes from here on.
    pub fn becomes(&self, way: Way) {
        let mut state = self.shared.lock();
        state.way = way;
        if way == Way::Cut {
            state.end_all();
        }
        self.shared.changed.notify_all();
    }

    /// How many bytes were swallowed so far.
    pub fn swallowed(&self) -> usize {
        self.shared.lock().swallowed
    }

    /// Ends the connections that are there; new ones go on.
    pub fn drops_all(&self) {
        self.shared.lock().end_all();
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        state.end_all();
        self.shared.changed.notify_all();
        drop(state);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn end_all(&mut self) {
        for (_, ends) in std::mem::take(&mut self.open) {
            ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    /// Waits while nothing goes on; what becomes of the bytes of connection `number`, or none when it
    /// is over.
    fn way_of(&self, number: u64) -> Option<Way> {
        let mut state = self.lock();
        while state.way == Way::Frozen && state.open.contains_key(&number) {
            state = self.changed.wait(state).expect("no panic under the lock");
        }
        state.open.contains_key(&number).then_some(state.way)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        let (way, target) = {
            let state = shared.lock();
            if state.is_over {
                return;
            }
            (state.way, state.target)
        };
        if way == Way::Cut {
            continue;
        }
        let Ok(engine) = TcpStream::connect_timeout(&target, Duration::from_secs(1)) else {
            continue;
        };
        let pair = || Some([client.try_clone().ok()?, engine.try_clone().ok()?]);
        let (Some(ends), Some(back)) = (pair(), pair()) else { continue };
        let _ = (client.set_nodelay(true), engine.set_nodelay(true));
        let number = {
            let mut state = shared.lock();
            state.next += 1;
            let number = state.next;
            state.open.insert(number, ends);
            number
        };
        // What this connection has asked for first.
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (there, asked_there) = (shared.clone(), asked.clone());
        thread::spawn(move || {
            forward(client, engine, number, &there, |_, bytes| {
                let mut asked = asked_there.lock().expect("no panic here");
                if asked.len() < ASKED {
                    asked.extend_from_slice(bytes);
                }
                true
            });
        });
        let here = shared.clone();
        thread::spawn(move || {
            let [client, engine] = back;
            forward(engine, client, number, &here, |way, _| match way {
                Way::Deaf => false,
                Way::DeafTo(word) => {
                    let asked = asked.lock().expect("no panic here");
                    !asked.windows(word.len()).any(|bytes| bytes.eq_ignore_ascii_case(word))
                }
                _ => true,
            });
        });
    }
}

/// Copies what comes, as long as the connection is there.
fn forward(
    mut from: TcpStream,
    mut to: TcpStream,
    number: u64,
    shared: &Shared,
    mut goes_on: impl FnMut(Way, &[u8]) -> bool,
) {
    let mut bytes = [0; 64 << 10];
    loop {
        let count = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let Some(way) = shared.way_of(number) else { break };
        if !goes_on(way, &bytes[..count]) {
            shared.lock().swallowed += count;
        } else if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    shared.lock().open.remove(&number);
}
