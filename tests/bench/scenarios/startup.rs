//! How long a server takes from its start to the first answered handshake, with a history to read.

use super::{Bench, grouped};
use crate::load::{Load, Outcome};
use crate::proc::Meter;
use crate::report::{Better, Column, Sample, Spec};
use crate::server::{Contender, MessageFile, Server};

const COLUMNS: &[Column] = &[
    ("ready after ms", Better::Lower),
    ("CPU ms", Better::Neither),
    ("resident MB then", Better::Lower),
];

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let mut specs = Vec::new();
    for messages in [0, 100_000, 1_000_000] {
        specs.push(Spec {
            name: format!("{} messages", grouped(messages)),
            setting: MessageFile::with(messages)?,
            contenders: bench.readers(),
        });
    }
    bench.report.compare("Start-up", COLUMNS, &specs, bench.runs, measure);
    Ok(())
}

fn measure(file: &MessageFile, contender: &Contender) -> Outcome<Sample> {
    let server = Server::start(contender, file)?;
    let values = vec![
        server.ready.as_secs_f64() * 1e3,
        server.process.cpu() * 1e3,
        server.process.resident_kib() / 1024.0,
    ];
    // Everything of interest is over, so there is no usage to tell.
    let usage = Meter::begin(server.process).end();
    Ok(Sample::new(values, &Load::new()?, &usage))
}
