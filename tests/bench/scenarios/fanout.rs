//! How many deliveries a second (one message reaching one client) at full load, and what one costs.
//!
//! A closed loop: eight senders keep a number of messages in flight each and send the next one when
//! their own comes back. The processor time of a delivery is the steadier figure, because the load
//! generator shares the machine; where its own cores come near 1, it is what limits the rate.

use std::time::Duration;

use super::{Bench, DRAIN_LIMIT, MESSAGE, SYNCING, grouped, with_clients, without};
use crate::load::{Outcome, Record};
use crate::proc::Meter;
use crate::report::{BASELINE, Better, Column, ROLL, ROLL_THREADS, Sample, Spec, quantile_us};
use crate::server::Contender;

const COLUMNS: &[Column] = &[
    ("deliveries/s", Better::Higher),
    ("server CPU µs/delivery", Better::Lower),
    ("server cores", Better::Neither),
    ("load cores", Better::Neither),
    ("round trip p50 µs", Better::Neither),
    ("p99 µs", Better::Neither),
];

struct Setting {
    clients: usize,
    window: usize,
    /// Bytes of a message.
    size: usize,
    warm_up: Duration,
    duration: Duration,
}

/// A message that is no longer a line: where the bytes cost more than the sends.
const LONG: usize = 10_000;

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let all = [
        (1, 16, MESSAGE),
        (10, 1, MESSAGE),
        (10, 16, MESSAGE),
        (100, 1, MESSAGE),
        (100, 16, MESSAGE),
        (1000, 1, MESSAGE),
        (1000, 16, MESSAGE),
        (10_000, 16, MESSAGE),
        (100, 16, LONG),
    ];
    // A quick look is for the rows that tell most.
    let quick = [(10, 1, MESSAGE), (100, 16, MESSAGE), (1000, 16, MESSAGE)];
    let rows: &[_] = bench.pick(&quick, &all);
    let specs: Vec<_> = rows
        .iter()
        .map(|&(clients, window, size)| Spec {
            name: match size {
                MESSAGE if clients == 1 => format!("1 client, {window} in flight"),
                MESSAGE => format!("{} clients, {window} in flight", grouped(clients)),
                _ => format!("{clients} clients, {window} in flight, of {} bytes", grouped(size)),
            },
            setting: Setting {
                clients,
                window,
                size,
                warm_up: Duration::from_millis(bench.pick(100, 400)),
                duration: Duration::from_millis(bench.pick(400, 1000)),
            },
            contenders: bench.able(contenders(bench, clients, size), clients),
        })
        .collect();
    let title = "Fan-out: 8 senders at most, messages of 100 bytes";
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

/// The baseline takes part where it says something new, and syncing where many wait for it.
fn contenders(bench: &Bench, clients: usize, size: usize) -> Vec<Contender> {
    match (clients, size) {
        (1, _) => without(bench.writers(), SYNCING),
        (_, LONG) => without(bench.writers(), &[Contender::Baseline]),
        _ => bench.writers(),
    }
}

fn measure(setting: &Setting, contender: &Contender) -> Outcome<Sample> {
    let (_file, server, mut load) = with_clients(contender, setting.clients, setting.size)?;
    load.start_closed_loop(setting.window);
    load.run_for(setting.warm_up);

    load.record = Record::RoundTrips;
    let before = load.deliveries;
    let meter = Meter::begin(server.process);
    load.run_for(setting.duration);
    let usage = meter.end();
    let deliveries = (load.deliveries - before) as f64;
    load.record = Record::Nothing;
    load.drain(DRAIN_LIMIT);

    let values = vec![
        deliveries / usage.seconds,
        usage.server_cpu * 1e6 / deliveries,
        usage.server_cores(),
        usage.load_cores(),
        quantile_us(&mut load.times, 0.5),
        quantile_us(&mut load.times, 0.99),
    ];
    Ok(Sample::new(values, &load, &usage))
}
