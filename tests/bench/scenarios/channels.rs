//! What channels cost one another: one that is busy beside many that are idle, and several busy ones.
//!
//! A channel is a file with a hub of its own. Clients in different channels hear different messages,
//! so each busy channel has a load generator of its own, in a thread of its own. Only this server has
//! channels, so the rows are to be compared with one another.

use std::fs;
use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use super::{Bench, DRAIN_LIMIT, JOIN_LIMIT, MESSAGE, OPENING, SENDERS, grouped};
use crate::load::{Faults, Load, Outcome};
use crate::proc::Meter;
use crate::report::{BASELINE, Better, Column, ROLL, Sample, Spec};
use crate::server::{Contender, MessageFile, Server};

const COLUMNS: &[Column] = &[
    ("deliveries/s", Better::Higher),
    ("server CPU µs/delivery", Better::Lower),
    ("server cores", Better::Neither),
    ("load cores", Better::Neither),
    ("resident MB before", Better::Lower),
];

/// All clients, divided among the busy channels.
const CLIENTS: usize = 96;

/// Messages that each sender has in flight.
const WINDOW: usize = 16;

struct Setting {
    busy: usize,
    idle: usize,
    warm_up: Duration,
    duration: Duration,
}

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let all = [(1, 0), (1, 999), (8, 0), (8, 992)];
    let rows: &[_] = bench.pick(&all[..3], &all);
    let specs: Vec<_> = rows
        .iter()
        .map(|&(busy, idle)| Spec {
            name: match idle {
                0 => format!("{busy} busy, no other"),
                _ => format!("{busy} busy, {} idle", grouped(idle)),
            },
            setting: Setting {
                busy,
                idle,
                warm_up: Duration::from_millis(bench.pick(100, 400)),
                duration: Duration::from_millis(bench.pick(400, 1000)),
            },
            contenders: vec![Contender::FsyncNever],
        })
        .collect();
    let title = "Channels: 96 clients in all, 8 of each channel speak, messages of 100 bytes";
    bench.report.compare(&[BASELINE, ROLL], title, COLUMNS, &specs, bench.runs, measure);
    Ok(())
}

fn measure(setting: &Setting, contender: &Contender) -> Outcome<Sample> {
    let file = MessageFile::with(0)?;
    make_channels(&file, setting)?;
    let server = Server::start(contender, &file)?;
    let resident = server.process.resident_kib() / 1024.0;
    let begin = Barrier::new(setting.busy + 1);
    let end = Barrier::new(setting.busy + 1);
    let talk = &|number: usize| -> Outcome<Talk> {
        let opened = open(&server, number, CLIENTS / setting.busy);
        let mut opened = opened.map(|mut load| {
            load.start_closed_loop(WINDOW);
            load.run_for(setting.warm_up);
            load
        });
        // The others wait for this one whatever became of it.
        begin.wait();
        let before = opened.as_ref().map_or(0, |load| load.deliveries);
        if let Ok(load) = &mut opened {
            load.run_for(setting.duration);
        }
        end.wait();
        let mut load = opened?;
        let measured = load.deliveries - before;
        load.drain(DRAIN_LIMIT);
        Ok(Talk { measured, deliveries: load.deliveries, faults: load.faults })
    };
    let (talks, usage) = thread::scope(|scope| {
        let talks: Vec<_> = (0..setting.busy)
            .map(|number| scope.spawn(move || talk(number).map_err(|error| error.to_string())))
            .collect();
        begin.wait();
        let meter = Meter::begin(server.process);
        end.wait();
        let usage = meter.end();
        let talks = talks.into_iter().map(|talk| talk.join().expect("a load does not panic"));
        (talks.collect::<Result<Vec<_>, _>>(), usage)
    });
    let mut all = Load::new()?;
    let mut deliveries = 0.0;
    for talk in talks? {
        deliveries += talk.measured as f64;
        all.deliveries += talk.deliveries;
        all.faults += talk.faults;
    }
    let values = vec![
        deliveries / usage.seconds,
        usage.server_cpu * 1e6 / deliveries,
        usage.server_cores(),
        usage.load_cores(),
        resident,
    ];
    Ok(Sample::new(values, &all, &usage))
}

/// What the clients of one channel got.
struct Talk {
    /// Deliveries while it was measured.
    measured: usize,
    /// All deliveries.
    deliveries: usize,
    faults: Faults,
}

/// The clients of one channel, the first of them senders.
fn open(server: &Server, number: usize, clients: usize) -> Outcome<Load> {
    let mut load = Load::at(&format!("/busy-{number}/ws"))?;
    load.open(server.port, clients, OPENING, JOIN_LIMIT)?;
    load.appoint_senders(SENDERS.min(clients), MESSAGE);
    Ok(load)
}

/// Puts the files of the channels into the folder beside the messages.
fn make_channels(file: &MessageFile, setting: &Setting) -> io::Result<()> {
    let folder = file.path().with_file_name("channels");
    fs::create_dir(&folder)?;
    let busy = (0..setting.busy).map(|number| format!("busy-{number}.txt"));
    let idle = (0..setting.idle).map(|number| format!("idle-{number}.txt"));
    busy.chain(idle).try_for_each(|name| fs::File::create(folder.join(name)).map(drop))
}
