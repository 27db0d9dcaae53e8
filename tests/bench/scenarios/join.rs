//! How long people wait for a long history when they join, alone and all at once, and how much
//! memory that takes.
//!
//! The first joiner is not timed: it checks every line of the history. The others must get as many
//! bytes as it did. When many join at once their histories are thrown away inside the kernel, or the
//! load generator's own copying would be half of what is measured.

use std::io;
use std::time::{Duration, Instant};

use super::{Bench, grouped};
use crate::load::{Faults, Load, Outcome};
use crate::proc::Meter;
use crate::report::{BASELINE, Better, Column, ROLL, ROLL_THREADS, Sample, Spec, median};
use crate::server::{Contender, MessageFile, Server};

pub const COLUMNS: &[Column] = &[
    ("one joins, ms", Better::Lower),
    ("all join at once, ms", Better::Lower),
    ("server CPU ms", Better::Lower),
    ("resident MB before", Better::Neither),
    ("peak MB meanwhile", Better::Lower),
];

/// Joiners timed one after the other in each run.
const SINGLES: usize = 3;
/// For the slowest: ten million messages to ten at once.
const LIMIT: Duration = Duration::from_secs(120);

pub struct Setting {
    pub at_once: usize,
    messages: usize,
    /// All contenders read the same file in turn: none of them changes it.
    file: MessageFile,
}

impl Setting {
    pub fn new(messages: usize, at_once: usize) -> io::Result<Setting> {
        eprintln!("writing a history of {} messages", grouped(messages));
        Ok(Setting { at_once, messages, file: MessageFile::with(messages)? })
    }
}

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let sizes: &[(usize, usize)] =
        bench.pick(&[(100_000, 10)], &[(1000, 100), (100_000, 100), (1_000_000, 10)]);
    let mut specs = Vec::new();
    for &(messages, at_once) in sizes {
        specs.push(Spec {
            name: format!("{} messages, {at_once} at once", grouped(messages)),
            setting: Setting::new(messages, at_once)?,
            contenders: bench.readers(),
        });
    }
    bench.report.compare(
        &[BASELINE, ROLL, ROLL_THREADS],
        "Joining",
        COLUMNS,
        &specs,
        bench.runs,
        measure,
    );
    Ok(())
}

pub fn measure(setting: &Setting, contender: &Contender) -> Outcome<Sample> {
    let server = Server::start(contender, &setting.file)?;
    let resident = server.process.resident_kib() / 1024.0;
    let (bytes, mut faults) = check_history(&server, setting.messages)?;
    let mut singles = Vec::new();
    for _ in 0..SINGLES {
        let (seconds, load) = join(&server, 1, bytes)?;
        singles.push(seconds * 1e3);
        faults += load.faults;
    }

    server.process.reset_peak();
    let meter = Meter::begin(server.process);
    let (seconds, mut load) = join(&server, setting.at_once, bytes)?;
    let usage = meter.end();
    load.faults += faults;

    let values = vec![
        median(singles.into_iter()),
        seconds * 1e3,
        usage.server_cpu * 1e3,
        resident,
        server.process.peak_kib() / 1024.0,
    ];
    Ok(Sample::new(values, &load, &usage))
}

/// A first joiner reads every line; returns how many bytes the history has.
fn check_history(server: &Server, messages: usize) -> Outcome<(usize, Faults)> {
    let mut load = Load::new()?;
    load.check_history = true;
    load.open(server.port, 1, 1, LIMIT)?;
    let (seen, misplaced) = load.history_markers(0);
    load.faults.lost += messages.saturating_sub(seen);
    load.faults.repeated += seen.saturating_sub(messages);
    load.faults.out_of_turn += misplaced;
    Ok((load.history_bytes(0), load.faults))
}

/// Lets so many join at the same moment; returns the seconds until the last one has its history.
fn join(server: &Server, count: usize, bytes: usize) -> Outcome<(f64, Load)> {
    let mut load = Load::new()?;
    load.discard = true;
    for _ in 0..count {
        load.connect(server.port)?;
    }
    let began = Instant::now();
    for index in 0..count {
        load.shake_hands(index);
    }
    while load.joined < count {
        load.poll(Duration::from_millis(50));
        if load.faults.closed > 0 {
            return Err("the server closed a client that was joining".into());
        }
        if began.elapsed() > LIMIT {
            return Err(format!("only {} of {count} joined in time", load.joined).into());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let complete = (0..count).filter(|&index| load.history_bytes(index) == bytes).count();
    load.faults.malformed += count - complete;
    Ok((seconds, load))
}
