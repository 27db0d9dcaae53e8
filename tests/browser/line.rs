//! A line between pages and their server that can be made to fail: what the server says gets lost,
//! then the connections break.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Passes bytes on, both ways, from a port of its own.
pub struct Line {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    /// What the server says is thrown away.
    is_mute: AtomicBool,
    is_over: AtomicBool,
    /// Bytes that the server says, and as many that arrive instead.
    replaced: Mutex<Option<(Vec<u8>, Vec<u8>)>>,
    /// A folder that the pages' addresses begin with and the server's do not.
    folder: Mutex<Option<&'static str>>,
    /// Both ends of every connection so far.
    ends: Mutex<Vec<TcpStream>>,
}

impl Line {
    pub fn to(server: SocketAddr) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            server,
            is_mute: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            replaced: Mutex::default(),
            folder: Mutex::default(),
            ends: Mutex::default(),
        });
        let line = Line { address, shared: shared.clone() };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                shared.connect(stream);
            }
        });
        line
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing of what the server says arrives.
    pub fn falls_mute(&self) {
        self.shared.is_mute.store(true, Ordering::SeqCst);
    }

    /// From now on other words arrive than the server says, as long as they are.
    pub fn replaces(&self, said: &str, heard: &str) {
        assert_eq!(said.len(), heard.len());
        *self.shared.replaced.lock().expect("no panic here") = Some((said.into(), heard.into()));
    }

    /// From now on the server is in a folder, such as `/chat`, as a proxy has it: what is asked for
    /// elsewhere is not found.
    pub fn puts_in(&self, folder: &'static str) {
        *self.shared.folder.lock().expect("no panic here") = Some(folder);
    }

    /// All connections break; new ones work again.
    pub fn breaks(&self) {
        for end in self.shared.ends.lock().expect("no panic here").drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
        self.shared.is_mute.store(false, Ordering::SeqCst);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.breaks();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn connect(self: &Arc<Shared>, page: TcpStream) {
        let Ok(server) = TcpStream::connect(self.server) else { return };
        let both = || Some((page.try_clone().ok()?, server.try_clone().ok()?));
        let (Some((page_end, server_end)), Some((to_page, from_server))) = (both(), both()) else {
            return;
        };
        self.ends.lock().expect("no panic here").extend([page_end, server_end]);
        let shared = self.clone();
        thread::spawn(move || pass(from_server, to_page, |bytes| shared.hears(bytes)));
        let shared = self.clone();
        thread::spawn(move || pass(page, server, |bytes| shared.says(bytes)));
    }

    /// What arrives of what the page says. The beginning of a request comes in one piece.
    fn says(&self, bytes: &mut Vec<u8>) -> bool {
        if let Some(folder) = *self.folder.lock().expect("no panic here") {
            let method =
                ["GET ", "POST ", "PUT "].iter().find(|one| bytes.starts_with(one.as_bytes()));
            if let Some(path) = method.map(|method| method.len()) {
                let is_inside = bytes[path..].starts_with(format!("{folder}/").as_bytes());
                let elsewhere = b"/nothing/here".iter().copied();
                match is_inside {
                    true => drop(bytes.drain(path..path + folder.len())),
                    false => drop(bytes.splice(path..path, elsewhere)),
                }
            }
        }
        true
    }

    /// What arrives of what the server says; false when that is nothing.
    fn hears(&self, bytes: &mut [u8]) -> bool {
        if let Some((said, heard)) = &*self.replaced.lock().expect("no panic here") {
            for at in 0..(bytes.len() + 1).saturating_sub(said.len()) {
                if bytes[at..].starts_with(said) {
                    bytes[at..at + said.len()].copy_from_slice(heard);
                }
            }
        }
        !self.is_mute.load(Ordering::SeqCst)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, arrives: impl Fn(&mut Vec<u8>) -> bool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut bytes = buffer[..count].to_vec();
        if arrives(&mut bytes) && to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
