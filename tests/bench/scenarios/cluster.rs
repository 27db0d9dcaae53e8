//! What one order for several machines costs: nodes with an engine, beside one server that is alone.
//!
//! All share the processors and the disk of this machine, which is the worst case: in life each node
//! has its own. All clients speak, and are spread evenly over the nodes. With one speaker and one message
//! in flight, the round trip is what a speaker waits for the own echo.

use std::time::Duration;

use super::{Bench, DRAIN_LIMIT, JOIN_LIMIT, MESSAGE, SENDERS};
use crate::load::{Load, Outcome, Record};
use crate::proc::Meter;
use crate::report::{BASELINE, Better, Column, Sample, Spec, Yardstick, quantile_us};
use crate::server::{Contender, Engine, MessageFile, Server};

const COLUMNS: &[Column] = &[
    ("messages/s", Better::Higher),
    ("server and engine CPU µs/message", Better::Neither),
    ("round trip p50 µs", Better::Lower),
    ("p99 µs", Better::Neither),
];

struct Setting {
    /// All of them speak.
    clients: usize,
    window: usize,
    warm_up: Duration,
    duration: Duration,
}

const ALONE: Yardstick = Yardstick { head: "of one alone", sign: "", of: Contender::limit };

pub fn run(bench: &mut Bench) -> Outcome<()> {
    if !Engine::is_here() {
        eprintln!("no cluster is measured: there is no redis-server on this machine");
        return Ok(());
    }
    let rows = [(1, 1), (SENDERS, 16), (SENDERS, 128)];
    let specs: Vec<_> = rows
        .iter()
        .map(|&(clients, window)| Spec {
            name: match clients {
                1 => format!("1 speaker, {window} in flight"),
                _ => format!("{clients} speakers, {window} in flight"),
            },
            setting: Setting {
                clients,
                window,
                warm_up: Duration::from_millis(bench.pick(300, 1000)),
                duration: Duration::from_millis(bench.pick(500, 2000)),
            },
            contenders: vec![Contender::FsyncAlways, Contender::Nodes(1), Contender::Nodes(3)],
        })
        .collect();
    let title = "Cluster: messages of 100 bytes, on disk everywhere before they are shown";
    bench.report.compare(&[BASELINE, ALONE], title, COLUMNS, &specs, bench.runs, measure);
    Ok(())
}

fn measure(setting: &Setting, contender: &Contender) -> Outcome<Sample> {
    let mut load = Load::new()?;
    let file = MessageFile::with(0)?;
    let (engine, node, count) = match contender {
        Contender::Nodes(count) => {
            let engine = Engine::start(&file)?;
            let node = engine.node();
            (Some(engine), node, *count)
        }
        alone => (None, alone.clone(), 1),
    };
    let files = (0..count).map(|_| MessageFile::with(0)).collect::<Result<Vec<_>, _>>()?;
    let servers =
        files.iter().map(|file| Server::start(&node, file)).collect::<Outcome<Vec<_>>>()?;
    for client in 0..setting.clients {
        load.open(servers[client % count].port, 1, 1, JOIN_LIMIT)?;
    }
    load.appoint_senders(setting.clients, MESSAGE);
    load.start_closed_loop(setting.window);
    load.run_for(setting.warm_up);

    load.record = Record::RoundTrips;
    let before = load.messages();
    let processes = servers.iter().map(|server| server.process);
    let meter = Meter::begin_all(processes.chain(engine.iter().map(|it| it.process)).collect());
    load.run_for(setting.duration);
    let usage = meter.end();
    let messages = (load.messages() - before) as f64;
    load.record = Record::Nothing;
    load.drain(DRAIN_LIMIT);

    let values = vec![
        messages / usage.seconds,
        usage.server_cpu * 1e6 / messages,
        quantile_us(&mut load.times, 0.5),
        quantile_us(&mut load.times, 0.99),
    ];
    Ok(Sample::new(values, &load, &usage))
}
