//! What Linux tells about processes and the machine: readings of /proc.
//!
//! A figure that cannot be read is NaN, which the tables show as a dash: a benchmark should not stop
//! because a container hides a file.

use std::fs;
use std::time::Instant;

/// A process as seen from outside.
#[derive(Clone, Copy)]
pub struct Process(pub u32);

impl Process {
    /// Processor time so far, user and system, in seconds. It moves in steps of a clock tick
    /// (10 ms), so ask over seconds.
    pub fn cpu(self) -> f64 {
        cpu_of(&format!("/proc/{}/stat", self.0)).unwrap_or(f64::NAN)
    }

    pub fn resident_kib(self) -> f64 {
        self.status("VmRSS:")
    }

    /// The most that was resident since the start or the last `reset_peak`.
    pub fn peak_kib(self) -> f64 {
        self.status("VmHWM:")
    }

    /// Best effort: without it the peak is that of the whole run.
    pub fn reset_peak(self) {
        fs::write(format!("/proc/{}/clear_refs", self.0), "5").ok();
    }

    /// Resident memory with shared pages counted by share: what one process costs the machine.
    pub fn proportional_kib(self) -> f64 {
        field(&format!("/proc/{}/smaps_rollup", self.0), "Pss:")
    }

    pub fn threads(self) -> f64 {
        self.status("Threads:")
    }

    fn status(self, key: &str) -> f64 {
        field(&format!("/proc/{}/status", self.0), key)
    }
}

/// Who used the processors during a measurement: begin, then end.
pub struct Meter {
    servers: Vec<Process>,
    began: Instant,
    cpu: [f64; 3],
}

/// Processor seconds of the server, of this program and of the whole machine.
pub struct Usage {
    pub seconds: f64,
    pub server_cpu: f64,
    own_cpu: f64,
    machine_cpu: f64,
}

impl Meter {
    pub fn begin(server: Process) -> Meter {
        Meter::begin_all(vec![server])
    }

    /// Of several processes, which count as one server.
    pub fn begin_all(servers: Vec<Process>) -> Meter {
        let cpu = Meter::read(&servers);
        Meter { servers, began: Instant::now(), cpu }
    }

    pub fn end(self) -> Usage {
        let seconds = self.began.elapsed().as_secs_f64();
        let now = Meter::read(&self.servers);
        let [server_cpu, own_cpu, machine_cpu] = [0, 1, 2].map(|i| now[i] - self.cpu[i]);
        Usage { seconds, server_cpu, own_cpu, machine_cpu }
    }

    fn read(servers: &[Process]) -> [f64; 3] {
        let own = cpu_of("/proc/self/stat").unwrap_or(f64::NAN);
        [servers.iter().map(|server| server.cpu()).sum(), own, machine_cpu().unwrap_or(f64::NAN)]
    }
}

impl Usage {
    pub fn server_cores(&self) -> f64 {
        self.server_cpu / self.seconds
    }

    pub fn load_cores(&self) -> f64 {
        self.own_cpu / self.seconds
    }

    pub fn other_cores(&self) -> f64 {
        (self.machine_cpu - self.server_cpu - self.own_cpu) / self.seconds
    }
}

/// Processor time that the whole machine has spent working, in seconds over all cores.
fn machine_cpu() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let times = stat.lines().next()?.split_whitespace().skip(1);
    let times: Vec<f64> = times.map(|ticks| ticks.parse().unwrap_or(0.0)).collect();
    // user, nice, system, then idle and iowait, which are no work, then irq and softirq.
    Some([0, 1, 2, 5, 6].iter().filter_map(|&i| times.get(i)).sum::<f64>() / ticks_per_second())
}

/// One line that says what the figures were measured on.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {model}, Linux {}", kernel.trim())
}

fn cpu_of(path: &str) -> Option<f64> {
    let stat = fs::read_to_string(path).ok()?;
    // The second field is the program's name in brackets and may hold anything, spaces too.
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / ticks_per_second())
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

fn field(path: &str, key: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
        .unwrap_or(f64::NAN)
}
