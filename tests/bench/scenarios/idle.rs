//! What people cost who are there and say nothing.
//!
//! At the end one message goes to everybody: a server that forgot somebody is found out.

use std::time::{Duration, Instant};

use super::{Bench, DRAIN_LIMIT, JOIN_LIMIT, MESSAGE, OPENING, THREADS, grouped, without};
use crate::load::{Load, Outcome};
use crate::proc::Meter;
use crate::report::{BASELINE, Better, Column, ROLL, Sample, Spec};
use crate::server::{Contender, MessageFile, Server};

const COLUMNS: &[Column] = &[
    ("KB/client (PSS)", Better::Lower),
    ("threads", Better::Neither),
    ("idle CPU ms/s", Better::Neither),
    ("one message to all, ms", Better::Lower),
];

/// After the last client joined, until threads have settled and memory is what stays.
const SETTLE: Duration = Duration::from_millis(700);

struct Setting {
    clients: usize,
    idle: Duration,
}

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let idle = Duration::from_millis(bench.pick(500, 1000));
    let sizes: &[usize] = bench.pick(&[1000], &[1000, 10_000]);
    let specs = sizes.iter().map(|&clients| Spec {
        name: format!("{} clients", grouped(clients)),
        setting: Setting { clients, idle },
        contenders: bench.able(without(bench.readers(), THREADS), clients),
    });
    let specs: Vec<_> = specs.collect();
    bench.report.compare(&[BASELINE, ROLL], "Idle clients", COLUMNS, &specs, bench.runs, measure);
    Ok(())
}

fn measure(setting: &Setting, contender: &Contender) -> Outcome<Sample> {
    let clients = setting.clients;
    let file = MessageFile::with(0)?;
    let server = Server::start(contender, &file)?;
    let process = server.process;
    let empty = process.proportional_kib();
    let mut load = Load::new()?;
    load.open(server.port, clients, OPENING, JOIN_LIMIT)?;
    load.run_for(SETTLE);
    let full = process.proportional_kib();
    let threads = process.threads();

    let meter = Meter::begin(process);
    load.run_for(setting.idle);
    let usage = meter.end();

    load.appoint_senders(1, MESSAGE);
    let said = Instant::now();
    load.send(0, 1);
    load.drain(DRAIN_LIMIT);
    let values = vec![
        (full - empty) / clients as f64,
        threads,
        usage.server_cpu * 1e3 / usage.seconds,
        said.elapsed().as_secs_f64() * 1e3,
    ];
    Ok(Sample::new(values, &load, &usage))
}
