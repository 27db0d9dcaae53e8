//! How many deliveries a second (one message reaching one client) at full load, and what one costs.
//!
//! A closed loop: eight senders keep a number of messages in flight each and send the next one when
//! their own comes back. The processor time of a delivery is the steadier figure, because the load
//! generator shares the machine; where its own cores come near 1, it is what limits the rate.

use std::time::Duration;

use super::{Bench, DRAIN_LIMIT, grouped, with_clients};
use crate::load::{Outcome, Record};
use crate::proc::Meter;
use crate::report::{Better, Column, Sample, Spec, quantile_us};
use crate::server::Contender;

pub const COLUMNS: &[Column] = &[
    ("deliveries/s", Better::Higher),
    ("server CPU µs/delivery", Better::Lower),
    ("server cores", Better::Neither),
    ("load cores", Better::Neither),
    ("round trip p50 µs", Better::Neither),
    ("p99 µs", Better::Neither),
];

pub struct Setting {
    pub clients: usize,
    pub window: usize,
    pub warm_up: Duration,
    pub duration: Duration,
}

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let clients = [10, 100, 1000].into_iter();
    let settings = clients.flat_map(|clients| [(clients, 1), (clients, 16)]);
    // A quick look leaves out what tells least: few clients with little in flight.
    let settings =
        settings.filter(|setting| !bench.quick || ![(10, 1), (1000, 1)].contains(setting));
    let specs: Vec<_> = settings
        .map(|(clients, window)| Spec {
            name: format!("{} clients, {window} in flight", grouped(clients)),
            setting: Setting {
                clients,
                window,
                warm_up: Duration::from_millis(bench.pick(200, 500)),
                duration: Duration::from_millis(bench.pick(700, 1500)),
            },
            contenders: bench.writers(),
        })
        .collect();
    let title = "Fan-out: 8 senders, messages of 100 bytes";
    bench.report.compare(title, COLUMNS, &specs, bench.runs, measure);
    Ok(())
}

pub fn measure(setting: &Setting, contender: &Contender) -> Outcome<Sample> {
    let (_file, server, mut load) = with_clients(contender, setting.clients)?;
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
