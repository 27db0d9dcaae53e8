//! More clients connect than the machine can carry: those beyond are told so or closed, those inside
//! are served, the process lives, and when the crowd has left, there is room again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    crowd::{Crowd, Habit, joins},
    machine::{maps, room_for, sized, tell},
    support::*,
};

/// At the most this many of those inside read nothing for a while.
const DEAF: usize = 2_000;
/// Threads that a server may start when it first needs them.
const HANDFUL: u64 = 8;
/// More than the sockets in between hold for a client that reads nothing.
const BEYOND_ALL_BUFFERS: usize = 200_000;
const LONG: usize = 100_000;

/// A machine that is short of something.
struct Short {
    setup: Setup,
    /// What the server calls what is short.
    of: &'static str,
    max_clients: usize,
    connects: usize,
    /// How many sockets of this process those that connect take at a time: fewer when most are refused.
    sockets: usize,
    /// It must carry this many at the least, or it is of no use.
    at_least: usize,
}

#[test]
fn more_connects_than_open_files_do_not_end_the_server() {
    let setup = Setup::new().after("ulimit -n 512");
    let short =
        Short { of: "ulimit -n", connects: 1_000, at_least: 350, ..Short::by_default(setup) };
    short.carries_what_it_says();
}

#[test]
fn files_that_the_server_was_given_open_count_among_the_open_files() {
    let given =
        "ulimit -n 512; for n in $(seq 300); do exec {fd}< /dev/null; done; exec \"$0\" \"$@\"";
    let setup = Setup::new().after(&format!("exec bash -c '{given}' \"$0\" \"$@\""));
    let short = Short { of: "ulimit -n", connects: 500, at_least: 120, ..Short::by_default(setup) };
    short.carries_what_it_says();
}

#[test]
fn more_connects_than_memory_has_room_for_do_not_end_the_server() {
    let setup = Setup::new().after("ulimit -v 600000");
    let short = Short {
        of: "ulimit -v",
        connects: 4_000,
        sockets: 4_000,
        at_least: 2_800,
        ..Short::by_default(setup)
    };
    short.carries_what_it_says();
}

#[test]
fn more_connects_than_a_cgroup_may_have_threads_do_not_end_the_server() {
    let cgroup = match Cgroup::with_tasks(300) {
        Ok(cgroup) => cgroup,
        Err(why) => {
            return skipped(
                "more_connects_than_a_cgroup_may_have_threads_do_not_end_the_server",
                &why,
            );
        }
    };
    let setup = Setup::new().after(&format!("echo $$ > {}/cgroup.procs", cgroup.path.display()));
    let short = Short { of: "pids.max", connects: 600, at_least: 200, ..Short::by_default(setup) };
    short.carries_what_it_says();
}

#[test]
fn more_connects_than_a_user_may_have_threads_do_not_end_the_server() {
    // One that nobody else is, since all threads of a user count together.
    let user = 61_000 + std::process::id() % 1_000;
    let becomes = format!("setpriv --reuid={user} --regid={user} --clear-groups");
    let may =
        Command::new("sh").args(["-c", &format!("prlimit --nproc=300 {becomes} true")]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        let why = "prlimit and setpriv cannot make another user of this one, whom no limit binds";
        return skipped("more_connects_than_a_user_may_have_threads_do_not_end_the_server", why);
    }
    let setup = Setup::new();
    let directory = setup.dir.file();
    let directory = directory.parent().expect("a directory").display();
    let shell = format!("chmod 777 {directory}; exec prlimit --nproc=300 {becomes} \"$0\" \"$@\"");
    let setup = setup.after(&shell);
    let short = Short { of: "ulimit -u", connects: 600, at_least: 200, ..Short::by_default(setup) };
    short.carries_what_it_says();
}

#[test]
fn more_connects_than_memory_maps_do_not_end_the_server() {
    const NAME: &str = "more_connects_than_memory_maps_do_not_end_the_server";
    let connects = sized(17_000, "TXTCORD_CROWD");
    let most = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    // A thread takes about four.
    let threads = most.trim().parse().map_or(usize::MAX, |most: usize| most / 4);
    if threads >= connects {
        return skipped(NAME, &format!("vm.max_map_count is {}", most.trim()));
    }
    // A client that is refused gives its socket back.
    let sockets = connects.min(threads + 1_000);
    let short = Short {
        of: "vm.max_map_count",
        max_clients: connects.max(20_000),
        connects,
        sockets,
        at_least: 12_000,
        setup: Setup::new(),
    };
    short.carries_what_it_says();
}

impl Short {
    fn by_default(setup: Setup) -> Short {
        Short { setup, of: "", max_clients: 10_000, connects: 0, sockets: 2_000, at_least: 0 }
    }

    #[track_caller]
    fn carries_what_it_says(self) {
        if room_for(self.sockets) < self.sockets {
            let why = format!("this process cannot have {} sockets", self.sockets);
            return skipped(&format!("more connects than {} allows", self.of), &why);
        }
        let max_clients = self.max_clients.to_string();
        let flags = ["--fsync", "never", "--max-clients", &max_clients];
        let server = self.setup.clone().flags(&flags).start();
        let said = self.says_what_it_can_carry(&server);
        let size = server.size();
        let mut crowd = Crowd::around(&server, "");
        let begun = Instant::now();
        let ann = crowd.joins(1).start;
        crowd.speaks(ann);
        // These will fall behind, which must take nothing of what is short.
        let deaf = crowd.comes((self.at_least / 2).min(DEAF), Habit::ReadsNothing, &joins("/ws"));
        assert_eq!(crowd.told(&deaf, 101), deaf.len(), "the first are let in");
        crowd.comes(self.connects - deaf.end, Habit::Reads, &joins("/ws"));
        let (all, others) = (ann..self.connects, deaf.end..self.connects);
        crowd.until("everybody is in or not", |crowd| {
            crowd.of(&others).all(|member| member.told.is_some() || member.ended.is_some())
        });
        let took = begun.elapsed();
        let inside = crowd.of(&all).filter(|member| member.is_there()).count();
        let refused = crowd.told(&all, 503);
        tell(&format!(
            "{} connects where {} is short: {inside} are in, {refused} are told 503, {} are \
             closed, after {took:.1?}; {} maps; the server says {said:?}",
            self.connects,
            self.of,
            self.connects - inside - refused,
            maps(&server),
        ));
        for _ in 0..BEYOND_ALL_BUFFERS / LONG {
            crowd.says(1, LONG);
        }
        crowd.become_of(deaf, Habit::Reads);
        crowd.says(1, 100);
        let served = crowd.of(&all).filter(|member| member.is_there()).count();
        assert_eq!(served, inside, "clients inside were lost");

        let carried = said.unwrap_or_else(|| {
            panic!("the log does not say how many clients the machine can carry")
        });
        assert!(carried >= self.at_least, "the machine can carry more than {carried}");
        let (least, most) = (carried - carried / 10, carried);
        assert!((least..=most).contains(&inside), "{inside} are in, not {carried}");

        crowd.go(all);
        crowd.until("all have left", |_| server.size().threads <= size.threads + HANDFUL);
        let newcomers = crowd.comes(50, Habit::Reads, &joins("/ws"));
        assert_eq!(crowd.told(&newcomers, 101), 50, "there is room again");
        crowd.have_joined(newcomers.clone());
        crowd.speaks(newcomers.start);
        crowd.says(1, 100);
    }

    /// The number of clients that the machine can carry, as the log says at the start, with the reason.
    fn says_what_it_can_carry(&self, server: &Server) -> Option<usize> {
        let wanted = format!(" clients, fewer than --max-clients {}", self.max_clients);
        // The line that says where it listens may come first.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = server.log();
            let mut lines = log.lines().filter_map(|line| {
                let (_, said) = line.split_once("this machine can carry ")?;
                let (number, reason) = said.split_once(&wanted)?;
                reason.contains(self.of).then(|| number.parse().expect("a number"))
            });
            match lines.next() {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                found => return found,
            }
        }
    }
}

/// A group of processes, with a limit to the threads that they may have together. It is removed when it
/// is dropped, which must be after its processes have ended.
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one, or says why that is not possible.
    fn with_tasks(most: usize) -> Result<Cgroup, String> {
        let name = format!("txtcord-crowd-{}", std::process::id());
        // The first is for systems with a hierarchy for each controller, the second for those with one
        // for all.
        let mut why = String::new();
        for root in ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"] {
            let path = Path::new(root).join(&name);
            let _ = fs::write(Path::new(root).join("cgroup.subtree_control"), "+pids");
            if let Err(error) = fs::create_dir(&path) {
                why = format!("{}: {error}", path.display());
                continue;
            }
            let cgroup = Cgroup { path };
            match fs::write(cgroup.path.join("pids.max"), most.to_string()) {
                Ok(()) => return Ok(cgroup),
                Err(error) => why = format!("{}/pids.max: {error}", cgroup.path.display()),
            }
        }
        Err(why)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has ended may be in it for a moment.
        until("the cgroup is empty", || fs::remove_dir(&self.path).is_ok());
    }
}
