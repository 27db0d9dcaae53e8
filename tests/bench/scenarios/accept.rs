//! How fast people get in: many at the same moment, and thousands one after the other.
//!
//! Each is in when it has its history, which is empty here.

use std::time::{Duration, Instant};

use super::{Bench, JOIN_LIMIT, OPENING, grouped};
use crate::load::{Load, Outcome};
use crate::proc::Meter;
use crate::report::{BASELINE, Better, Column, ROLL, ROLL_THREADS, Sample, Spec, median};
use crate::server::{Contender, MessageFile, Server};

const COLUMNS: &[Column] = &[
    ("accepted/s", Better::Higher),
    ("server CPU µs/connection", Better::Lower),
    ("all in after ms", Better::Neither),
];

/// Until a server has noticed that those of one time have left.
const SETTLE: Duration = Duration::from_millis(100);

struct Setting {
    clients: usize,
    /// How many are under way at a time.
    at_once: usize,
    /// A burst is short, so it is repeated until there is processor time to count.
    times: usize,
}

pub fn run(bench: &mut Bench) -> Outcome<()> {
    const BURST: usize = 256;
    const MANY: usize = 10_000;
    let burst = Setting { clients: BURST, at_once: BURST, times: bench.pick(1, 10) };
    let mut specs = vec![Spec {
        name: format!("{BURST} at once"),
        setting: burst,
        contenders: bench.readers(),
    }];
    if !bench.quick {
        specs.push(Spec {
            name: format!("{}, {OPENING} at a time", grouped(MANY)),
            setting: Setting { clients: MANY, at_once: OPENING, times: 1 },
            contenders: bench.able(bench.readers(), MANY),
        });
    }
    bench.report.compare(
        &[BASELINE, ROLL, ROLL_THREADS],
        "Accepting",
        COLUMNS,
        &specs,
        bench.runs,
        measure,
    );
    Ok(())
}

fn measure(setting: &Setting, contender: &Contender) -> Outcome<Sample> {
    let Setting { clients, at_once, times } = *setting;
    let file = MessageFile::with(0)?;
    let server = Server::start(contender, &file)?;
    let meter = Meter::begin(server.process);
    let mut seconds = Vec::new();
    let mut load = Load::new()?;
    for _ in 0..times {
        load = Load::new()?;
        let began = Instant::now();
        load.open(server.port, clients, at_once, JOIN_LIMIT)?;
        seconds.push(began.elapsed().as_secs_f64());
        if times > 1 {
            load.run_for(SETTLE);
        }
    }
    let usage = meter.end();
    let seconds = median(seconds.into_iter());
    let values = vec![
        clients as f64 / seconds,
        usage.server_cpu * 1e6 / (clients * times) as f64,
        seconds * 1e3,
    ];
    Ok(Sample::new(values, &load, &usage))
}
