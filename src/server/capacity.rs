//! How many channels and clients this machine can carry.
//!
//! If the process has no memory map left when a thread starts, std aborts the process before any of
//! our code runs. So at the start every limit that is known bounds the number of clients, with room
//! to spare; and address space, which other things take too, is looked at before each thread
//! starts.

use std::{fmt, fs, thread};

use rlimit::Resource;
use rustix::param::page_size;

use super::{EXTRA_CONNECTIONS, FILES_OF_CATCH_UP, OPEN_BEFORE, OTHER_FILES, OTHER_THREADS};
use crate::{
    control_group::{self, number_in},
    threads::{CLIENT_STACK, NODE_STACK},
};

/// How many memory maps a client's thread takes: for its stack, for the stack for signals, and for
/// a guard page of each.
const MAPS: u64 = 4;

/// How many memory maps are kept free of clients: for libraries, heaps and long messages.
const OTHER_MAPS: u64 = 4096;

/// How many memory maps a process may have, and how many threads there may be, where Linux is as it comes.
const USUAL_MAPS: u64 = 65_530;
const USUAL_THREADS: u64 = 32_768;

/// How much address space a client's thread takes beside its stack, in bytes: for the stack for
/// signals, guard pages and heap.
const OTHER_SPACE: u64 = 32 << 10;

/// How much address space must be left over when a thread starts, in bytes: threads that have not
/// run yet will need some, and so will the messages that clients send.
const SPARE_SPACE: u64 = 64 << 20;

/// How much of each limit something takes.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Open files.
    files: u64,
    /// Threads.
    threads: u64,
    /// The address space of its threads, in clients' threads.
    space: u64,
}

/// What channels take.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    each: Cost,
    /// What there is once, beside [`OTHER_FILES`] and [`OTHER_THREADS`].
    once: Cost,
}

impl Costs {
    /// On a server alone: the text file, the lock file and the stamps file; the hub's thread.
    pub const ALONE: Costs = Costs {
        each: Cost { files: 3, threads: 1, space: 1 },
        once: Cost { files: 0, threads: 0, space: 0 },
    };

    /// On a node of a cluster, each has also the sequencer's thread and its connection. Once there are the
    /// default channel's sequencer, the reader and the roster with a connection each, and the inbox.
    pub const ON_NODE: Costs = Costs {
        each: Cost { files: 4, threads: 2, space: 3 },
        once: Cost { files: 3, threads: 4, space: 8 },
    };
}

// The stacks of a node's threads, in stacks of clients' threads.
const _: () = {
    let Costs { each, once } = Costs::ON_NODE;
    let thread = NODE_STACK as u64 + OTHER_SPACE;
    let client = CLIENT_STACK as u64 + OTHER_SPACE;
    assert!((each.space - 1) * client >= thread);
    assert!(once.space * client >= once.threads * thread);
};

/// Where a limit is short, one part in this many is kept for channels; the rest is for clients.
const CHANNELS_SHARE: u64 = 20;

/// Where the folder has more channels than that at the start, they may take one part in this many.
const FOLDER_SHARE: u64 = 4;

/// Where a limit is short, one part in this many is for connections above the clients, which are
/// only told that there are too many, and as much again for those of them that are leaving.
const EXTRA_SHARE: u64 = 16;

/// How many channels and clients an operator wants to allow.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Channels at a time.
    pub channels: u64,
    /// Clients at a time.
    pub clients: u64,
    /// The channels that are in the folder at the start.
    pub in_folder: u64,
    /// What channels take.
    pub costs: Costs,
}

/// How many channels and clients this process can serve, and which limit allows no more of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Channels at a time.
    pub channels: (u64, Limit),
    /// Clients at a time, beside these channels.
    pub clients: (u64, Limit),
    /// Connections above the clients that are heard; see [`EXTRA_CONNECTIONS`].
    pub extra: usize,
}

/// A limit of the system or of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Of open files.
    Files,
    /// Of memory maps.
    Maps,
    /// Of address space.
    Space,
    /// Of processes and threads of the user.
    UserProcesses,
    /// Of threads of the system.
    Threads,
    /// Of threads of the control group.
    GroupThreads,
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Limit::Files => "the limit of open files (ulimit -n)",
            Limit::Maps => "the kernel's vm.max_map_count",
            Limit::Space => "the limit of address space (ulimit -v)",
            Limit::UserProcesses => "the limit of processes (ulimit -u)",
            Limit::Threads => "the kernel's limit of threads (kernel.threads-max, kernel.pid_max)",
            Limit::GroupThreads => "the control group's pids.max",
        })
    }
}

impl Capacity {
    /// What the limits of this process allow. Where there is no room for all that is wanted, most of it
    /// is for clients. The limit of open files is raised before; `inherited` files are open already.
    pub fn of_this_machine(wanted: Wanted, inherited: u64) -> Capacity {
        let soft = |resource: Resource| match resource.get_soft() {
            Ok(rlimit::INFINITY) | Err(_) => None,
            Ok(limit) => Some(limit),
        };
        let files = rlimit::increase_nofile_limit(u64::MAX).ok();
        // Where /proc/sys is hidden, most machines have these.
        let maps = number_in("/proc/sys/vm/max_map_count").or(Some(USUAL_MAPS));
        let space = soft(Resource::AS);
        let system =
            [number_in("/proc/sys/kernel/threads-max"), number_in("/proc/sys/kernel/pid_max")];
        let system = system.into_iter().flatten().min().or(Some(USUAL_THREADS));
        let threads = |count: u64| count.saturating_sub(OTHER_THREADS + processors());
        let limits = [
            (Limit::Files, files.map(|count| count.saturating_sub(other_files() + inherited))),
            (Limit::Maps, maps.map(|count| threads(count.saturating_sub(OTHER_MAPS) / MAPS))),
            (Limit::Space, space.map(threads_in_space)),
            (Limit::UserProcesses, soft(Resource::NPROC).filter(|_| !is_exempt()).map(threads)),
            (Limit::Threads, system.map(threads)),
            (Limit::GroupThreads, group_threads().map(threads)),
        ];
        let known = limits.into_iter().filter_map(|(limit, room)| Some((limit, room?)));
        Capacity::within(known, wanted)
    }

    /// What limits allow, given as how many clients each leaves where there is no channel.
    fn within(limits: impl Iterator<Item = (Limit, u64)> + Clone, wanted: Wanted) -> Capacity {
        let Costs { each, once } = wanted.costs;
        // With each limit: how many clients a channel takes the place of.
        let known = limits.map(|(limit, room)| {
            let cost = |cost: Cost| match limit {
                Limit::Files => cost.files,
                Limit::Space => cost.space,
                _ => cost.threads,
            };
            (room.saturating_sub(cost(once)), cost(each), limit)
        });
        // Those that are heard, and as many that are about to leave.
        let all_extra = |extra: usize| 2 * extra as u64;
        let beside_all_clients = wanted.clients.saturating_add(all_extra(EXTRA_CONNECTIONS));
        let channels = known.clone().map(|(room, each, limit)| {
            let kept =
                (room / CHANNELS_SHARE / each).max(room.saturating_sub(beside_all_clients) / each);
            (kept.max(wanted.in_folder.min(room / FOLDER_SHARE / each)), limit)
        });
        let none = (u64::MAX, Limit::Files);
        let channels = channels.min_by_key(|(channels, _)| *channels).unwrap_or(none);
        let taken = channels.0.min(wanted.channels);
        let left = known.map(|(room, each, limit)| (room - taken * each, limit));
        let left = left.min_by_key(|(left, _)| *left).unwrap_or(none);
        let extra = (left.0 / EXTRA_SHARE).clamp(1, EXTRA_CONNECTIONS as u64) as usize;
        // With no client it would be no server. A client that finds no room all the same is told
        // 503.
        let clients = left.0.saturating_sub(all_extra(extra)).max(1);
        Capacity { channels, clients: (clients, left.1), extra }
    }
}

/// How many descriptors are not for clients and channels.
fn other_files() -> u64 {
    OTHER_FILES + FILES_OF_CATCH_UP * processors()
}

/// How many descriptors this process was given by the program that started it, beside the usual three. It
/// must be called before the server opens anything.
pub fn inherited_files() -> u64 {
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    (open as u64).saturating_sub(OPEN_BEFORE)
}

fn processors() -> u64 {
    thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

fn threads_in_space(limit: u64) -> u64 {
    let used = space_used().unwrap_or(0);
    limit.saturating_sub(used + SPARE_SPACE) / (CLIENT_STACK as u64 + OTHER_SPACE)
}

/// The limit of address space, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    limit: Option<u64>,
}

impl Space {
    /// The limit of this process, as it is now.
    pub fn of_this_process() -> Space {
        let limit = Resource::AS.get_soft().ok().filter(|&limit| limit != rlimit::INFINITY);
        Space { limit }
    }

    /// Whether there is address space for one more thread.
    pub fn has_room(self) -> bool {
        let Some(limit) = self.limit else { return true };
        let spare = SPARE_SPACE.min(limit / 4);
        space_used().is_none_or(|used| used + CLIENT_STACK as u64 + spare <= limit)
    }
}

/// The address space that this process uses, in bytes.
fn space_used() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(pages * page_size() as u64)
}

/// Whether the limit of processes does not bind this process, which is so if it has CAP_SYS_ADMIN
/// or CAP_SYS_RESOURCE.
fn is_exempt() -> bool {
    const EXEMPTING: u64 = 1 << 21 | 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & EXEMPTING != 0)
}

/// How many threads the control groups of this process still allow.
fn group_threads() -> Option<u64> {
    control_group::lowest("pids", |group| {
        let read = |name| number_in(group.join(name));
        Some(read("pids.max")?.saturating_sub(read("pids.current").unwrap_or(0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_of_a_cluster_takes_the_place_of_more_clients() {
        #[track_caller]
        fn check(limit: Limit, costs: Costs, in_folder: u64, channels: u64, clients: u64) {
            let wanted = Wanted { channels: 1_000, clients: 10_000, in_folder, costs };
            let limits = [(limit, 6_000), (Limit::Files, 1_000_000)];
            let Capacity { channels: many, clients: beside, .. } =
                Capacity::within(limits.into_iter(), wanted);
            assert_eq!((many, beside), ((channels, limit), (clients, limit)), "{limit}: {costs:?}");
        }
        let (alone, node) = (Costs::ALONE, Costs::ON_NODE);
        // A twentieth is kept for channels, and twice 64 for connections that are
        // told that there are too many.
        check(Limit::Threads, alone, 0, 300, 6_000 - 300 - 128);
        check(Limit::Threads, node, 0, 149, 6_000 - 4 - 149 * 2 - 128);
        check(Limit::Space, node, 0, 99, 6_000 - 8 - 99 * 3 - 128);
        // Up to a quarter is for those that are there.
        check(Limit::Maps, alone, 10_000, 1_500, 6_000 - 1_000 - 128);
        check(Limit::Maps, node, 10_000, 749, 6_000 - 4 - 749 * 2 - 128);
    }

    #[test]
    fn all_connections_fit_into_a_limit_however_low_it_is() {
        for limit in [64, 100, 256, 300, 512, 1024, 4096, 100_000] {
            let costs = Costs::ALONE;
            let wanted = Wanted { channels: 1_000, clients: 10_000, in_folder: 0, costs };
            let left = limit - OTHER_FILES;
            let Capacity { channels, clients, extra } =
                Capacity::within([(Limit::Files, left)].into_iter(), wanted);
            let channels = channels.0.min(wanted.channels) * costs.each.files;
            let clients = clients.0.min(wanted.clients);
            // Those that are heard, and as many that leave.
            let taken = channels + clients + 2 * extra as u64;
            assert!(taken <= left, "{taken} of {left}: {clients} clients, {extra} above");
            assert!(extra >= 1 && clients >= left * 3 / 4 || clients == wanted.clients);
            assert_eq!(extra == EXTRA_CONNECTIONS, limit > 1024, "{extra} of {limit}");
        }
    }

    #[test]
    fn a_process_without_a_limit_of_space_has_room() {
        assert!(Space { limit: None }.has_room());
        assert!(Space { limit: Some(1 << 50) }.has_room());
        assert!(!Space { limit: Some(1 << 20) }.has_room());
    }

    #[test]
    fn this_machine_can_carry_a_client_and_says_why_no_more() {
        let costs = Costs::ALONE;
        let wanted = Wanted { channels: 10, clients: 1, in_folder: 0, costs };
        let few = Capacity::of_this_machine(wanted, 0);
        assert!(few.clients.0 >= 1 && few.channels.0 >= 1);
        let many = Capacity::of_this_machine(Wanted { channels: u64::MAX, ..wanted }, 0);
        assert!(many.channels == few.channels && many.clients.0 <= few.clients.0);
        let crowd = Capacity::of_this_machine(Wanted { clients: u64::MAX, ..wanted }, 0);
        assert!(crowd.channels.0 <= few.channels.0, "what clients want is not kept for channels");
        assert!(few.clients.1.to_string().starts_with("the "));
    }
}
