//! How long a message takes to each of its receivers when the server has time.
//!
//! An open loop: messages leave at a fixed rate, whatever comes back, so a server that falls behind
//! is not spared. From the sender's write to the read at every client.

use std::time::Duration;

use super::{Bench, DRAIN_LIMIT, with_clients};
use crate::load::{Outcome, Record};
use crate::proc::Meter;
use crate::report::{Better, Column, Sample, Spec, quantile_us};
use crate::server::Contender;

const PER_SECOND: f64 = 200.0;

const COLUMNS: &[Column] = &[
    ("p50 µs", Better::Lower),
    ("p99 µs", Better::Lower),
    ("p99.9 µs", Better::Lower),
    ("server CPU µs/delivery", Better::Lower),
];

struct Setting {
    clients: usize,
    duration: Duration,
}

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let duration = Duration::from_millis(bench.pick(1000, 4000));
    let specs = bench.pick(&[100][..], &[10, 100]).iter().map(|&clients| Spec {
        name: format!("{clients} clients"),
        setting: Setting { clients, duration },
        contenders: bench.writers(),
    });
    let specs: Vec<_> = specs.collect();
    let title = "Latency at 200 messages/s";
    bench.report.compare(title, COLUMNS, &specs, bench.runs, measure);
    Ok(())
}

fn measure(setting: &Setting, contender: &Contender) -> Outcome<Sample> {
    let (_file, server, mut load) = with_clients(contender, setting.clients)?;
    load.run_open_loop(PER_SECOND, Duration::from_millis(300))?;

    load.record = Record::Deliveries;
    let before = load.deliveries;
    let meter = Meter::begin(server.process);
    load.run_open_loop(PER_SECOND, setting.duration)?;
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
