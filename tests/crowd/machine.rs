//! The machine: how large a crowd it has room for, and how much of it the server takes.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::Server;

/// A test or a server has this many descriptors beside those of the crowd.
const OTHER_FILES: usize = 100;
/// What the kernel holds for a client that reads nothing, at the most, in bytes. Its memory for sockets is
/// limited, and beyond the limit it ends connections of its own accord.
const HELD_BY_KERNEL: usize = 200 << 10;
/// The time between two looks at the server, short enough to see a crowd of threads come and go.
const LOOK: Duration = Duration::from_millis(100);

/// Says something on the real standard error, so that a run that passes shows it too.
pub fn tell(what: &str) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// A size that a variable of the environment raises.
pub fn sized(usual: usize, variable: &str) -> usize {
    let raised = std::env::var(variable).ok();
    let raised = raised.map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")));
    raised.map_or(usual, |raised: usize| raised.max(usual))
}

/// Makes room for `wanted` sockets in this process and in the servers that it starts from here on.
/// Returns how many there is room for, and says so when they are fewer.
pub fn room_for(wanted: usize) -> usize {
    let needed = (wanted + OTHER_FILES) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let has = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if !has(current) {
        // A privileged user may raise the hard limit too.
        let maximum = if has(maximum) { maximum } else { Some(needed) };
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let mut now = getrlimit(Resource::Nofile);
    if !has(now.current) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, ..now });
        now = getrlimit(Resource::Nofile);
    }
    let room = now.current.map_or(wanted, |limit| (limit as usize).saturating_sub(OTHER_FILES));
    if room < wanted {
        tell(&format!("ulimit -n has room for {room} clients instead of {wanted}"));
    }
    room.min(wanted)
}

/// The same for clients that read nothing, which take memory of the kernel too.
pub fn room_for_deaf(wanted: usize) -> usize {
    let limits = fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").unwrap_or_default();
    // Three numbers of pages; the last is the most.
    let most = limits.split_whitespace().nth(2).and_then(|pages| pages.parse::<usize>().ok());
    let most = most.map_or(usize::MAX, |pages| pages.saturating_mul(rustix::param::page_size()));
    let room = (most / HELD_BY_KERNEL).min(wanted);
    if room < wanted {
        tell(&format!("net.ipv4.tcp_mem has room for {room} deaf clients instead of {wanted}"));
    }
    room_for(room)
}

/// How many of these clients a server takes in, beside some others: it says so at its start where the
/// machine has room for fewer than the server would allow, such as in a group of few threads.
pub fn taken_by(server: &Server, wanted: usize) -> usize {
    let log = server.log();
    let carried = log.lines().find_map(|line| {
        let (_, said) = line.split_once("this machine can carry ")?;
        said.split_once(" clients")?.0.parse::<usize>().ok()
    });
    let room = carried.map_or(wanted, |carried| carried.saturating_sub(OTHER_FILES).min(wanted));
    if room < wanted {
        tell(&format!("the server has room for {room} clients instead of {wanted}"));
    }
    room
}

/// What the server takes, as the system tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Resident now, in KiB.
    pub resident: u64,
    /// The most that was resident since the watch began, in KiB.
    pub peak: u64,
    pub threads: u64,
}

/// Watches what the server takes, beyond what it took when the watch began.
pub struct Watch {
    pid: u32,
    base: Vitals,
    most: Vitals,
    looked: Instant,
}

impl Watch {
    #[track_caller]
    pub fn on(server: &Server) -> Watch {
        let pid = server.pid();
        // This makes the peak what is resident at this moment. Where that is not allowed, the looks
        // have to do.
        let is_reset = fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok();
        let mut base = vitals(pid);
        base.peak = if is_reset { base.resident } else { base.peak.max(base.resident) };
        Watch { pid, base, most: base, looked: Instant::now() }
    }

    /// Looks again when it is time; a server that has ended is a failure.
    #[track_caller]
    pub fn looks(&mut self) {
        if self.looked.elapsed() >= LOOK {
            self.looks_now();
        }
    }

    #[track_caller]
    pub fn looks_now(&mut self) {
        let now = vitals(self.pid);
        self.most.resident = self.most.resident.max(now.resident);
        self.most.peak = self.most.peak.max(now.peak);
        self.most.threads = self.most.threads.max(now.threads);
        self.looked = Instant::now();
    }

    /// By how many MiB its memory has grown at the most.
    pub fn grown(&self) -> u64 {
        let by_peak = match self.most.peak > self.base.peak {
            true => self.most.peak - self.base.resident,
            false => 0,
        };
        by_peak.max(self.most.resident - self.base.resident) >> 10
    }

    /// By how many its threads have grown at the most.
    pub fn more_threads(&self) -> u64 {
        self.most.threads.saturating_sub(self.base.threads)
    }

    /// All of it in a line.
    pub fn told(&self) -> String {
        let Vitals { resident, threads, .. } = self.base;
        let (grown, more) = (self.grown(), self.more_threads());
        format!("{} MiB and {threads} threads, then {grown} MiB and {more} more", resident >> 10)
    }
}

#[track_caller]
fn vitals(pid: u32) -> Vitals {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
    };
    // A process that has ended and was not waited for yet has no memory.
    match (field("VmRSS"), field("VmHWM"), field("Threads")) {
        (Some(resident), Some(peak), Some(threads)) => Vitals { resident, peak, threads },
        _ => panic!("the server has ended: {}", how_it_ended(pid)),
    }
}

/// The last field of /proc/PID/stat, of a process that nobody has waited for yet.
fn how_it_ended(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match stat.split_whitespace().last().and_then(|word| word.parse::<i32>().ok()) {
        Some(status) if status & 0x7f != 0 => format!("by signal {}", status & 0x7f),
        Some(status) => format!("with exit code {}", status >> 8),
        None => "nobody knows how".into(),
    }
}

/// How many threads of the server have which name, without its number.
pub fn threads_by_name(server: &Server) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).into_iter().flatten();
    for task in tasks.flatten() {
        // A thread may end meanwhile.
        let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
        let name = name.trim().trim_end_matches(|letter: char| letter.is_ascii_digit());
        *names.entry(name.trim_end_matches('-').to_owned()).or_default() += 1;
    }
    names
}

/// How many memory maps the server has.
pub fn maps(server: &Server) -> usize {
    let maps = fs::read_to_string(format!("/proc/{}/maps", server.pid()));
    maps.map_or(0, |maps| maps.lines().count())
}
