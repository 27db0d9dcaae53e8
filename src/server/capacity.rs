//! What this machine can carry: how many channels and clients, and how much the kernel may hold for
//! each client.
//!
//! A thread that starts when the process has no memory map left aborts the process, inside std and
//! before any of our code runs. So the number of clients is bounded, at the start, by every limit that
//! is known, with room to spare; and what can only be known later is looked at before each thread.

use std::{fmt, fs};

use rlimit::Resource;

use super::{OTHER_FILES, OTHER_THREADS, REFUSALS, STACK};
use crate::fanout::WINDOW;

/// Memory maps of a client's thread: its stack, the stack for signals, and a guard page for each.
const MAPS: u64 = 4;

/// Memory maps for everything else: libraries, heaps, long messages.
const OTHER_MAPS: u64 = 4096;

/// Address space of a client's thread beside its stack: the stack for signals, guard pages, heap.
const OTHER_SPACE: u64 = 32 << 10;

/// Address space that is left alone when a thread starts: threads that have been started and have not
/// run yet still need some, and so does whatever the clients send.
const SPARE_SPACE: u64 = 64 << 20;

/// What the kernel may hold for one client beyond what is on its way to it, in bytes. More would be
/// queued where nobody sees it; less would wake a sender more often.
pub(super) const NOTSENT: u64 = 128 << 10;

/// What the kernel may hold so for one of very many clients. A client that reads is not slower with
/// it: what it has room for does not wait here.
const LEAST_NOTSENT: u64 = 16 << 10;

// A round that goes on as long as the hub lets it must not make a client fall behind that reads.
const _: () = assert!(WINDOW as u64 <= NOTSENT);
const _: () = assert!(LEAST_NOTSENT < NOTSENT);

/// The share of the kernel's memory for TCP that may be filled so, of what it likes to use for all
/// connections of the machine (`tcp_mem`): clients that read nothing would otherwise slow all others
/// down.
const TCP_SHARE: u64 = 8;

/// What the kernel likes to use for TCP when it does not say.
const TCP_MEMORY: u64 = 1 << 30;

/// The page size that the kernel counts TCP memory in. Some have larger pages; a bound that is too low
/// does no harm.
const PAGE: u64 = 4096;

/// Open files of a channel: the text and the lock file.
const FILES_OF_CHANNEL: u64 = 2;

/// The share of threads and open files that channels may take at the most; the rest is for clients.
const CHANNELS_SHARE: u64 = 4;

/// How many channels and clients this process can serve, and what is the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Channels at a time, of those that are wanted.
    pub channels: u64,
    /// Clients at a time, beside so many channels.
    pub clients: u64,
    limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Files,
    Maps,
    Space,
    UserProcesses,
    Threads,
    GroupThreads,
}

impl fmt::Display for Capacity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = match self.limit {
            Limit::Files => "the limit of open files (ulimit -n)",
            Limit::Maps => "the kernel's vm.max_map_count",
            Limit::Space => "the limit of address space (ulimit -v)",
            Limit::UserProcesses => "the limit of processes (ulimit -u)",
            Limit::Threads => "the kernel's limit of threads (kernel.threads-max, kernel.pid_max)",
            Limit::GroupThreads => "the control group's pids.max",
        };
        let Capacity { channels, clients, .. } = self;
        write!(
            out,
            "this machine can carry {clients} clients beside {channels} channels because of {limit}"
        )
    }
}

impl Capacity {
    /// What the limits of this process leave for clients beside `wanted` channels, or as many as leave
    /// enough. The limit of open files is raised before.
    pub fn of_this_machine(wanted: u64) -> Capacity {
        let soft = |resource: Resource| match resource.get_soft() {
            Ok(rlimit::INFINITY) | Err(_) => None,
            Ok(limit) => Some(limit),
        };
        let files = rlimit::increase_nofile_limit(u64::MAX).ok();
        let maps = number_in("/proc/sys/vm/max_map_count");
        let space = soft(Resource::AS);
        let system =
            [number_in("/proc/sys/kernel/threads-max"), number_in("/proc/sys/kernel/pid_max")];
        let threads = |count: u64| count.saturating_sub(OTHER_THREADS);
        // For each limit: how many clients it leaves where there is no channel, and how many of them
        // a channel takes the place of.
        let limits = [
            (Limit::Files, files.map(|count| count.saturating_sub(OTHER_FILES)), FILES_OF_CHANNEL),
            (Limit::Maps, maps.map(|count| threads(count.saturating_sub(OTHER_MAPS) / MAPS)), 1),
            (Limit::Space, space.map(threads_in_space), 1),
            (Limit::UserProcesses, soft(Resource::NPROC).filter(|_| !is_exempt()).map(threads), 1),
            (Limit::Threads, system.into_iter().flatten().min().map(threads), 1),
            (Limit::GroupThreads, group_threads().map(threads), 1),
        ];
        let known = limits.into_iter().filter_map(|(limit, room, each)| Some((room?, each, limit)));
        let channels = known.clone().map(|(room, each, _)| room / CHANNELS_SHARE / each);
        let channels = channels.min().unwrap_or(u64::MAX).min(wanted);
        // Those who are only told that there is no room get some of it too.
        let share = |count: u64| count - (REFUSALS as u64).min(count / 8);
        let clients = known.map(|(room, each, limit)| (share(room - channels * each), limit));
        let (clients, limit) =
            clients.min_by_key(|(clients, _)| *clients).unwrap_or((u64::MAX, Limit::Files));
        // With less it would be no server; whatever fails then is told 503.
        Capacity { channels, clients: clients.max(1), limit }
    }
}

fn threads_in_space(limit: u64) -> u64 {
    let used = space_used().unwrap_or(0);
    limit.saturating_sub(used + SPARE_SPACE) / (STACK as u64 + OTHER_SPACE)
}

/// Whether there is address space for one more thread, as far as it is limited.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    limit: Option<u64>,
}

impl Space {
    /// The limit of this process.
    pub fn of_this_process() -> Space {
        let limit = Resource::AS.get_soft().ok().filter(|&limit| limit != rlimit::INFINITY);
        Space { limit }
    }

    /// Whether a thread can be started.
    pub fn has_room(self) -> bool {
        let Some(limit) = self.limit else { return true };
        let spare = SPARE_SPACE.min(limit / 4);
        space_used().is_none_or(|used| used + STACK as u64 + spare <= limit)
    }
}

/// The address space that this process uses, in bytes.
fn space_used() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(pages * PAGE)
}

/// How much the kernel may hold for each of so many clients beyond what is on its way to it, in bytes.
pub(super) fn notsent(clients: u64, tcp_memory: u64) -> u64 {
    let share = tcp_memory / TCP_SHARE / clients.max(1);
    // Powers of two, so that it does not change with each client.
    let below = share.checked_ilog2().map_or(0, |power| 1 << power);
    below.clamp(LEAST_NOTSENT, NOTSENT)
}

/// What the kernel likes to use for all TCP connections, in bytes.
pub(super) fn tcp_memory() -> u64 {
    let pressure = || {
        let text = fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").ok()?;
        text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    pressure().map_or(TCP_MEMORY, |pages| pages.saturating_mul(PAGE))
}

fn number_in(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether the limit of processes does not hold for this one: it has CAP_SYS_ADMIN or
/// CAP_SYS_RESOURCE.
fn is_exempt() -> bool {
    const EXEMPTING: u64 = 1 << 21 | 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & EXEMPTING != 0)
}

/// Threads that the control groups of this process still allow, of version 1 or 2.
fn group_threads() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let left = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let root = match parts.next()? {
            "" => "/sys/fs/cgroup",
            controllers if controllers.split(',').any(|name| name == "pids") => {
                "/sys/fs/cgroup/pids"
            }
            _ => return None,
        };
        let path = format!("{root}{}", parts.next()?);
        // A limit of any group around counts; `max` is no number.
        let above = std::path::Path::new(&path).ancestors();
        let left = above.take_while(|path| path.starts_with(root)).filter_map(|path| {
            let read = |name| number_in(path.join(name).to_str()?);
            Some(read("pids.max")?.saturating_sub(read("pids.current").unwrap_or(0)))
        });
        left.min()
    });
    left.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_clients_share_what_few_have_each() {
        #[track_caller]
        fn check(clients: u64, expected: u64) {
            assert_eq!(notsent(clients, 1 << 30), expected, "{clients} clients");
        }
        check(0, NOTSENT);
        check(1, NOTSENT);
        check(1024, NOTSENT);
        check(1025, NOTSENT / 2);
        check(2048, NOTSENT / 2);
        check(5000, LEAST_NOTSENT);
        check(1_000_000, LEAST_NOTSENT);
    }

    #[test]
    fn a_process_without_a_limit_of_space_has_room() {
        assert!(Space { limit: None }.has_room());
        assert!(Space { limit: Some(1 << 50) }.has_room());
        assert!(!Space { limit: Some(1 << 20) }.has_room());
    }

    #[test]
    fn this_machine_can_carry_somebody_and_says_why_no_more() {
        let capacity = Capacity::of_this_machine(10);
        assert!(capacity.clients >= 1 && capacity.channels <= 10);
        let many = Capacity::of_this_machine(u64::MAX);
        assert!(many.channels >= capacity.channels && many.clients <= capacity.clients);
        assert!(capacity.to_string().contains(" because of the "), "{capacity}");
    }
}
