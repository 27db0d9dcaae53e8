//! How fast people get in: many at the same moment, thousands one after the other, and one by one while
//! the processors are busy.
//!
//! Each is in when it has its history, which is empty here.

use std::time::{Duration, Instant};

use super::processors::Processors;
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
/// Between two who come one by one.
const PAUSE: Duration = Duration::from_millis(10);

struct Setting {
    clients: usize,
    /// How many are under way at a time.
    at_once: usize,
    /// A burst is short, so it is repeated until there is processor time to count.
    times: usize,
    /// Whether they leave before the next ones come.
    leave: bool,
    processors: Processors,
}

pub fn run(bench: &mut Bench) -> Outcome<()> {
    const BURST: usize = 256;
    const MANY: usize = 10_000;
    let processors = Processors::Idle;
    let times = bench.pick(1, 10);
    let burst = Setting { clients: BURST, at_once: BURST, times, leave: true, processors };
    let mut specs = vec![Spec {
        name: format!("{BURST} at once"),
        setting: burst,
        contenders: bench.readers(),
    }];
    if !bench.quick {
        let many = Setting { clients: MANY, at_once: OPENING, times: 1, leave: true, processors };
        specs.push(Spec {
            name: format!("{}, {OPENING} at a time", grouped(MANY)),
            setting: many,
            contenders: bench.able(bench.readers(), MANY),
        });
        let processors = Processors::Busy;
        specs.push(Spec {
            name: format!("one by one{processors}"),
            setting: Setting { clients: 1, at_once: 1, times: 100, leave: false, processors },
            contenders: bench.readers(),
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
    let Setting { clients, at_once, times, leave, processors } = *setting;
    let file = MessageFile::with(0)?;
    let server = Server::start(contender, &file)?;
    let _computing = processors.keep();
    let meter = Meter::begin(server.process);
    let mut seconds = Vec::new();
    let mut load = Load::new()?;
    for _ in 0..times {
        if leave {
            load = Load::new()?;
        }
        let began = Instant::now();
        load.open(server.port, clients, at_once, JOIN_LIMIT)?;
        seconds.push(began.elapsed().as_secs_f64());
        if times > 1 {
            load.run_for(if leave { SETTLE } else { PAUSE });
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
