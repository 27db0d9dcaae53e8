//! How the costs grow with the number of clients and with the length of the history.

use std::time::Duration;

use super::{Bench, fanout, grouped, join, without};
use crate::load::Outcome;
use crate::report::Spec;
use crate::server::Contender;

/// Beyond this history the baseline, which keeps it in memory and joins it to one string for every
/// joiner, would take gigabytes and tell nothing new.
const BASELINE_MESSAGES: usize = 1_000_000;

pub fn run(bench: &mut Bench) -> Outcome<()> {
    by_clients(bench);
    by_history(bench)
}

fn by_clients(bench: &mut Bench) {
    let sizes: &[usize] = bench.pick(&[1, 10, 100, 1000], &[1, 10, 100, 1000, 10_000]);
    let specs = sizes.iter().map(|&clients| Spec {
        name: format!("{} clients", grouped(clients)),
        setting: fanout::Setting {
            clients,
            window: 16,
            warm_up: Duration::from_millis(bench.pick(200, 500)),
            duration: Duration::from_millis(bench.pick(700, 1500)),
        },
        contenders: bench.able(bench.readers(), clients),
    });
    let specs: Vec<_> = specs.collect();
    let title = "Growth by clients: 8 senders at most, 16 in flight, messages of 100 bytes";
    bench.report.compare(title, fanout::COLUMNS, &specs, bench.runs, fanout::measure);
}

fn by_history(bench: &mut Bench) -> Outcome<()> {
    let sizes: &[usize] =
        bench.pick(&[1000, 10_000, 100_000], &[1000, 10_000, 100_000, 1_000_000, 10_000_000]);
    let mut specs = Vec::new();
    for &messages in sizes {
        let mut contenders = without(bench.readers(), &[Contender::Roll]);
        if messages > BASELINE_MESSAGES {
            contenders.retain(|contender| *contender != Contender::Baseline);
        }
        specs.push(Spec {
            name: format!("{} messages", grouped(messages)),
            setting: join::Setting::new(messages, 10)?,
            contenders,
        });
    }
    let title = "Growth by history: ten join at once";
    bench.report.compare(title, join::COLUMNS, &specs, bench.runs, join::measure);
    Ok(())
}
