//! What twenty fast clients notice of two slow ones: one that stops reading, one that reads 20 KB/s.
//!
//! The reader that was slow goes on at full speed after the last message and must get every message
//! in order like all others, however far behind it was. The one that read nothing is let go.

use std::time::{Duration, Instant};

use super::{Bench, MESSAGE, SENDERS, THREADS, with_clients, without};
use crate::load::{Load, Outcome, Record};
use crate::proc::{Meter, Process};
use crate::report::{BASELINE, Better, Column, ROLL, Sample, Spec, median, quantile_us};
use crate::server::Contender;

const COLUMNS: &[Column] = &[
    ("messages/s with two slow ones", Better::Higher),
    ("before", Better::Neither),
    ("with/before", Better::Higher),
    ("round trip p99 µs with", Better::Neither),
    ("before", Better::Neither),
    ("resident MB with, at most", Better::Neither),
    ("before", Better::Neither),
    ("all caught up after s", Better::Neither),
];

/// Twenty fast ones and two that become slow.
const FAST: usize = 20;
const MUTE: usize = FAST;
const TRICKLE: usize = FAST + 1;

const WINDOW: usize = 16;
/// 20 KB/s, in sips of a twentieth of a second.
const SIP: usize = 1000;
const SIP_EVERY: Duration = Duration::from_millis(50);
/// The rate is taken in slices and their median counts: one hiccup of the machine is not the server.
const SLICE: Duration = Duration::from_millis(250);
/// For the slow one to get hundreds of megabytes that it missed.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);

struct Setting {
    before: Duration,
    during: Duration,
}

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let setting = Setting {
        before: Duration::from_millis(bench.pick(500, 1500)),
        // Shorter than a server's patience with somebody who takes nothing (10 s).
        during: Duration::from_millis(bench.pick(1000, 4000)),
    };
    let name = format!("{SENDERS} senders");
    let contenders = without(without(bench.writers(), THREADS), &[Contender::RollSync]);
    let specs = [Spec { name, setting, contenders }];
    let title = "Slow clients: one stops reading, one reads 20 KB/s, 20 fast ones at full load";
    bench.report.compare(&[BASELINE, ROLL], title, COLUMNS, &specs, bench.runs, measure);
    Ok(())
}

/// One phase at full load.
struct Phase {
    messages_s: f64,
    p99_us: f64,
    most_resident_mb: f64,
}

fn measure(setting: &Setting, contender: &Contender) -> Outcome<Sample> {
    let (_file, server, mut load) = with_clients(contender, FAST + 2, MESSAGE)?;
    // Or the kernel's buffers, grown while they still read fast, would hide what the server does.
    load.narrow(MUTE)?;
    load.narrow(TRICKLE)?;
    load.start_closed_loop(WINDOW);
    load.run_for(Duration::from_millis(300));
    let meter = Meter::begin(server.process);
    load.record = Record::RoundTrips;
    let before = run_phase(&mut load, server.process, setting.before);

    load.pause(MUTE);
    load.pause(TRICKLE);
    let during = run_phase(&mut load, server.process, setting.during);
    let usage = meter.end();

    load.record = Record::Nothing;
    load.dismiss(MUTE);
    load.resume(TRICKLE);
    let last = Instant::now();
    load.drain(CATCH_UP_LIMIT);
    let values = vec![
        during.messages_s,
        before.messages_s,
        during.messages_s / before.messages_s,
        during.p99_us,
        before.p99_us,
        during.most_resident_mb,
        before.most_resident_mb,
        last.elapsed().as_secs_f64(),
    ];
    Ok(Sample::new(values, &load, &usage))
}

fn run_phase(load: &mut Load, process: Process, duration: Duration) -> Phase {
    let until = Instant::now() + duration;
    let mut rates = Vec::new();
    let mut most_resident_mb = 0.0;
    load.times.clear();
    while Instant::now() < until {
        let (messages, began) = (load.messages(), Instant::now());
        while began.elapsed() < SLICE {
            load.run_for(SIP_EVERY);
            load.sip(TRICKLE, SIP);
        }
        rates.push((load.messages() - messages) as f64 / began.elapsed().as_secs_f64());
        most_resident_mb = process.resident_kib().max(most_resident_mb * 1024.0) / 1024.0;
    }
    Phase {
        messages_s: median(rates.into_iter()),
        p99_us: quantile_us(&mut load.times, 0.99),
        most_resident_mb,
    }
}
