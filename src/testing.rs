//! Support of the unit tests: files and directories of their own, frames, peers, and a system under
//! the journal that makes mistakes.

use std::{
    collections::VecDeque,
    env,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read, Seek, Write},
    net::Ipv4Addr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex, MutexGuard, Once,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use http::Request;
use proptest::test_runner::Config as Tries;
use signal_hook::consts::SIGXFSZ;
use socket2::{Domain, Socket, Type};

use crate::{
    access::{Access, Permit},
    config::Config,
    journal::system::{Real, System},
    name::Name,
    route::Resource,
};

/// How often a property is tried: `cases` times, or as `PROPTEST_CASES` says.
pub(crate) fn tries(cases: u32) -> Tries {
    let given = env::var_os("PROPTEST_CASES").is_some();
    let cases = if given { Tries::default().cases } else { cases };
    Tries { cases, failure_persistence: None, ..Tries::default() }
}

fn fresh_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("txtcord-unit-{}-{number}", process::id()))
}

/// A file that holds `bytes` and is gone when it is closed.
pub(crate) fn file_of(bytes: &[u8]) -> Arc<File> {
    let path = fresh_path();
    let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
    let file = file.expect("a temporary file");
    fs::remove_file(&path).expect("the temporary file can be unlinked");
    (&file).write_all(bytes).expect("the temporary file can be written");
    Arc::new(file)
}

/// A directory of a test's own, removed with it.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Dir {
        let path = fresh_path();
        // A run that was ended from outside may have left one of this name.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary directory");
        // Without symbolic links on the way, so that paths in messages can be compared.
        Dir(path.canonicalize().expect("the directory is there"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("messages.txt")
    }

    pub(crate) fn read(&self) -> Vec<u8> {
        fs::read(self.file()).expect("messages.txt can be read")
    }

    pub(crate) fn write(&self, bytes: impl AsRef<[u8]>) {
        fs::write(self.file(), bytes).expect("messages.txt can be written");
    }

    /// Another program's `echo ... >> messages.txt`.
    pub(crate) fn append(&self, bytes: impl AsRef<[u8]>) {
        let file = OpenOptions::new().append(true).create(true).open(self.file());
        let mut file = file.expect("messages.txt can be opened");
        file.write_all(bytes.as_ref()).expect("messages.txt can be appended to");
    }

    /// The contents of the files whose names are `messages.txt.` and then begin with `ending`.
    pub(crate) fn beside(&self, ending: &str) -> Vec<Vec<u8>> {
        let begins = format!("messages.txt.{ending}");
        let mut paths: Vec<_> = fs::read_dir(&self.0)
            .expect("the directory can be listed")
            .map(|entry| entry.expect("a directory entry").path())
            .filter(|path| {
                path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&begins))
            })
            .collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).expect("it can be read")).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // A directory that stays in the temporary directory does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One frame as a peer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The first byte: FIN and opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;

/// The whole frames in bytes that a server sent, and the number of bytes after them.
pub(crate) fn frames_in(mut bytes: &[u8]) -> (Vec<Seen>, usize) {
    let mut frames = Vec::new();
    while let Some((first, payload, rest)) = split_frame(bytes) {
        frames.push(Seen { first, payload: payload.to_vec() });
        bytes = rest;
    }
    (frames, bytes.len())
}

fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [first, short, rest @ ..] = bytes else { return None };
    let (len, rest) = match short {
        0..126 => (usize::from(*short), rest),
        126 => {
            let (len, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        127 => {
            let (len, rest) = rest.split_first_chunk::<8>()?;
            (u64::from_be_bytes(*len) as usize, rest)
        }
        _ => panic!("a server's frame is not masked: {bytes:?}"),
    };
    let (payload, rest) = rest.split_at_checked(len)?;
    Some((*first, payload, rest))
}

/// An unmasked frame with a whole message: RFC 6455, section 5.2.
pub(crate) fn frame_of(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(len as u8),
        len @ 126..0x1_0000 => {
            frame.push(126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// Keeps this process from making any file longer than a size far above that of other tests' files,
/// so that a disk can be full; returns the size.
pub(crate) fn limit_file_size() -> u64 {
    static LIMITED: Once = Once::new();
    const SIZE: u64 = 64 << 20;
    LIMITED.call_once(|| {
        // As in main: the signal would kill.
        let caught = signal_hook::flag::register(SIGXFSZ, Arc::default());
        caught.expect("the signal can be caught");
        rlimit::setrlimit(rlimit::Resource::FSIZE, SIZE, SIZE).expect("a limit can be lowered");
    });
    SIZE
}

/// The other end of a client's socket, which reads as much as it is told to.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) socket: Socket,
    /// All that has been read.
    pub(crate) bytes: Vec<u8>,
}

/// Two ends of a connection; the first takes about `send_buffer` bytes before the peer reads.
pub(crate) fn pair(send_buffer: usize) -> (Socket, Peer) {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("a socket pair");
    ours.set_send_buffer_size(send_buffer).expect("a send buffer");
    theirs.set_nonblocking(true).expect("a non-blocking socket");
    (ours, Peer { socket: theirs, bytes: Vec::new() })
}

impl Peer {
    /// Reads the bytes that have arrived, but not more than `most`.
    pub(crate) fn read(&mut self, most: usize) {
        let mut left = most;
        let mut block = vec![0; most.min(64 << 10)];
        while left > 0 {
            let room = block.len().min(left);
            match (&self.socket).read(&mut block[..room]) {
                Ok(0) => return,
                Ok(count) => {
                    self.bytes.extend_from_slice(&block[..count]);
                    left -= count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("a socket pair does not fail: {error}"),
            }
        }
    }

    /// All frames that came so far; what came must be whole frames.
    pub(crate) fn frames(&mut self) -> Vec<Seen> {
        self.read(usize::MAX);
        let (frames, rest) = frames_in(&self.bytes);
        assert_eq!(rest, 0, "bytes after the last whole frame");
        frames
    }
}

/// What happens to a write that a journal makes to its file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mishap {
    /// Another program appends this right before.
    pub(crate) before: Vec<u8>,
    /// Only this many of the bytes are written.
    pub(crate) takes: Option<usize>,
    /// The call says that it has written this many.
    pub(crate) claims: Option<usize>,
    /// The call for the descriptor's position says this afterwards.
    pub(crate) position: Option<u64>,
    /// Another program appends this right after.
    pub(crate) after: Vec<u8>,
}

/// A system under a journal that makes mistakes: its clock stands still until the test moves it,
/// and the test plans what happens to its writes. A clone is the same system.
#[derive(Clone, Debug)]
pub(crate) struct FaultySystem(Arc<Mutex<Plan>>);

#[derive(Debug)]
struct Plan {
    path: PathBuf,
    now: Instant,
    mishaps: VecDeque<Mishap>,
    position: Option<u64>,
    foreign: Vec<(usize, Vec<u8>)>,
    stamp_room: Option<usize>,
    beside_fails: Option<i32>,
    look_fails: Option<i32>,
    is_append_only: bool,
}

impl FaultySystem {
    /// Under a journal of the text file in `dir`.
    pub(crate) fn new(dir: &Dir) -> FaultySystem {
        FaultySystem(Arc::new(Mutex::new(Plan {
            path: dir.file(),
            now: Instant::now(),
            mishaps: VecDeque::new(),
            position: None,
            foreign: Vec::new(),
            stamp_room: None,
            beside_fails: None,
            look_fails: None,
            is_append_only: false,
        })))
    }

    /// Plans what happens to the next write for which nothing is planned.
    pub(crate) fn plan(&self, mishap: Mishap) {
        self.lock().mishaps.push_back(mishap);
    }

    /// Leaves room for this many bytes of stamps; without a number, for all.
    pub(crate) fn limit_stamps(&self, room: Option<usize>) {
        self.lock().stamp_room = room;
    }

    /// Files beside cannot be written, with this number of an error; without one, they can.
    pub(crate) fn fail_beside(&self, error: Option<i32>) {
        self.lock().beside_fails = error;
    }

    /// Names cannot be looked at, with this number of an error; without one, they can.
    pub(crate) fn fail_looks(&self, error: Option<i32>) {
        self.lock().look_fails = error;
    }

    /// Lets the text file be opened for overwriting, or not.
    pub(crate) fn set_append_only(&self, is_append_only: bool) {
        self.lock().is_append_only = is_append_only;
    }

    /// Forgets what is planned and has not happened.
    pub(crate) fn forget_plan(&self) {
        self.lock().mishaps.clear();
    }

    /// Moves the clock.
    pub(crate) fn wait(&self, time: Duration) {
        self.lock().now += time;
    }

    /// Another program appends to the file now.
    pub(crate) fn append(&self, bytes: impl AsRef<[u8]>) {
        self.lock().append(bytes.as_ref());
    }

    /// All bytes that another program appended through this system, each piece with its offset.
    pub(crate) fn foreign(&self) -> Vec<(usize, Vec<u8>)> {
        self.lock().foreign.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().expect("no test goes on after a panic")
    }
}

impl Plan {
    fn append(&mut self, bytes: &[u8]) {
        let file = OpenOptions::new().append(true).open(&self.path);
        let mut file = file.expect("messages.txt can be opened");
        file.write_all(bytes).expect("messages.txt can be appended to");
        let end = file.stream_position().expect("the file has a position") as usize;
        self.foreign.push((end - bytes.len(), bytes.to_vec()));
    }
}

impl System for FaultySystem {
    fn look_at(&self, path: &Path) -> io::Result<Metadata> {
        match self.lock().look_fails {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => Real.look_at(path),
        }
    }

    fn write(&mut self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        let mut plan = self.lock();
        let mishap = plan.mishaps.pop_front().unwrap_or_default();
        plan.position = mishap.position;
        if !mishap.before.is_empty() {
            plan.append(&mishap.before);
        }
        let written = match mishap.takes.map_or(bytes, |count| &bytes[..count.min(bytes.len())]) {
            [] => 0,
            some => file.write(some)?,
        };
        if !mishap.after.is_empty() {
            plan.append(&mishap.after);
        }
        Ok(mishap.claims.unwrap_or(written))
    }

    fn write_at(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut plan = self.lock();
        let Some(room) = &mut plan.stamp_room else { return file.write_at(bytes, offset) };
        if *room == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let written = file.write_at(&bytes[..bytes.len().min(*room)], offset)?;
        *room -= written;
        Ok(written)
    }

    fn open_in_place(&mut self, path: &Path) -> io::Result<File> {
        match self.lock().is_append_only {
            true => Err(io::Error::from_raw_os_error(libc::EPERM)),
            false => Real.open_in_place(path),
        }
    }

    fn write_beside(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        match self.lock().beside_fails {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => Real.write_beside(path, bytes),
        }
    }

    fn position(&mut self, mut file: &File) -> io::Result<u64> {
        match self.lock().position {
            Some(position) => Ok(position),
            None => file.stream_position(),
        }
    }

    fn now(&self) -> Instant {
        self.lock().now
    }
}

/// The permit of a client that may do what everybody may without an access file.
pub(crate) fn permit() -> Arc<Permit> {
    permit_by(&[])
}

/// The permit of nobody in the default channel of a server with these flags.
pub(crate) fn permit_by(flags: &[&str]) -> Arc<Permit> {
    let config = Config::parse_from(["txtcord"].iter().chain(flags));
    let access = Access::new(&config).expect("the access file makes sense");
    let request = Request::get("/ws").body(()).expect("a request");
    let resource = Resource::WebSocket(Name::default());
    let caller = Arc::new(access).caller(&request, &resource, Ipv4Addr::LOCALHOST.into());
    Arc::new(Permit::new(caller.expect("nobody may ask"), Name::default()))
}
