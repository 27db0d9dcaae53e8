//! How long a message takes to each of its receivers when the server has time, and when it has none
//! to spare.
//!
//! An open loop: messages leave at a fixed rate, whatever comes back, so a server that falls behind
//! is not spared. From the sender's write to the read at every client.
//!
//! Once the processors are busy meanwhile.

use std::time::Duration;

use super::processors::Processors;
use super::{Bench, DRAIN_LIMIT, MESSAGE, grouped, with_clients, without};
use crate::load::{Outcome, Record};
use crate::proc::Meter;
use crate::report::{BASELINE, Better, Column, ROLL, ROLL_THREADS, Sample, Spec, quantile_us};
use crate::server::Contender;

const COLUMNS: &[Column] = &[
    ("p50 µs", Better::Lower),
    ("p99 µs", Better::Lower),
    ("p99.9 µs", Better::Lower),
    ("server CPU µs/delivery", Better::Lower),
];

struct Setting {
    clients: usize,
    per_second: usize,
    duration: Duration,
    processors: Processors,
}

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let duration = Duration::from_millis(bench.pick(800, 2000));
    // A million deliveries a second are more than most servers have time for on two cores; the
    // baseline would only show how long its queues get.
    let able = without(bench.writers(), &[Contender::Baseline]);
    let all = [
        (10, 200, Processors::Idle, bench.writers()),
        (100, 200, Processors::Idle, bench.writers()),
        (100, 200, Processors::Busy, able.clone()),
        (1000, 20, Processors::Idle, able.clone()),
        (1000, 1000, Processors::Idle, able),
    ];
    let settings = all.into_iter().filter(|(clients, ..)| !bench.quick || *clients == 100);
    let specs = settings.map(|(clients, per_second, processors, contenders)| {
        let (many, often) = (grouped(clients), grouped(per_second));
        Spec {
            name: format!("{many} clients, {often} messages/s{processors}"),
            setting: Setting { clients, per_second, duration, processors },
            contenders,
        }
    });
    let specs: Vec<_> = specs.collect();
    let title = "Latency at a fixed rate";
    bench.report.compare(
        &[BASELINE, ROLL, ROLL_THREADS],
        title,
        COLUMNS,
        &specs,
        bench.runs,
        measure,
    );
    Ok(())
}

fn measure(setting: &Setting, contender: &Contender) -> Outcome<Sample> {
    let (_file, server, mut load) = with_clients(contender, setting.clients, MESSAGE)?;
    let _computing = setting.processors.keep();
    let per_second = setting.per_second as f64;
    load.run_open_loop(per_second, Duration::from_millis(300))?;

    load.record = Record::Deliveries;
    let before = load.deliveries;
    let meter = Meter::begin(server.process);
    load.run_open_loop(per_second, setting.duration)?;
    let usage = meter.end();
    let deliveries = (load.deliveries - before) as f64;
    load.drain(DRAIN_LIMIT);

    let values = vec![
        quantile_us(&mut load.times, 0.5),
        quantile_us(&mut load.times, 0.99),
        quantile_us(&mut load.times, 0.999),
        usage.server_cpu * 1e6 / deliveries,
    ];
    Ok(Sample::new(values, &load, &usage))
}
