//! How long a server takes from its start to the first answered handshake, with a history to read.

use std::hint;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Bench, THREADS, grouped, without};
use crate::load::{Load, Outcome};
use crate::proc::Meter;
use crate::report::{BASELINE, Better, Column, ROLL, Sample, Spec};
use crate::server::{Contender, MessageFile, Server};

const COLUMNS: &[Column] = &[
    ("ready after ms", Better::Lower),
    ("CPU ms", Better::Neither),
    ("resident MB then", Better::Lower),
];

struct Setting {
    file: MessageFile,
    cores: Cores,
}

/// Which processors a server finds free when it starts.
#[derive(Clone, Copy)]
enum Cores {
    All,
    One,
}

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let all = [
        (0, Cores::All, ""),
        (100_000, Cores::All, ""),
        (1_000_000, Cores::All, ""),
        (1_000_000, Cores::One, ", one core free"),
    ];
    let rows: &[_] = bench.pick(&all[..2], &all);
    let mut specs = Vec::new();
    for &(messages, cores, note) in rows {
        specs.push(Spec {
            name: format!("{} messages{note}", grouped(messages)),
            setting: Setting { file: MessageFile::with(messages)?, cores },
            contenders: without(bench.readers(), THREADS),
        });
    }
    bench.report.compare(&[BASELINE, ROLL], "Start-up", COLUMNS, &specs, bench.runs, measure);
    Ok(())
}

fn measure(setting: &Setting, contender: &Contender) -> Outcome<Sample> {
    let busy = match setting.cores {
        Cores::All => 0,
        Cores::One => thread::available_parallelism().map_or(0, |cores| cores.get() - 1),
    };
    let done = AtomicBool::new(false);
    let server = thread::scope(|scope| {
        for _ in 0..busy {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        let server = Server::start(contender, &setting.file);
        done.store(true, Ordering::Relaxed);
        server
    })?;
    let values = vec![
        server.ready.as_secs_f64() * 1e3,
        server.process.cpu() * 1e3,
        server.process.resident_kib() / 1024.0,
    ];
    // Everything of interest is over, so there is no usage to tell.
    let usage = Meter::begin(server.process).end();
    Ok(Sample::new(values, &Load::new()?, &usage))
}
