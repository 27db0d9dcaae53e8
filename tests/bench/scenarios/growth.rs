//! How the cost of joining grows with the length of the history; how costs grow with the number of
//! clients is what the rows of `fanout` show.

use super::{Bench, grouped, join, without};
use crate::load::Outcome;
use crate::report::{BASELINE, ROLL, Spec};
use crate::server::Contender;

/// Beyond this history the baseline, which keeps it in memory and joins it to one string for every
/// joiner, would take gigabytes and tell nothing new.
const BASELINE_MESSAGES: usize = 100_000;

pub fn run(bench: &mut Bench) -> Outcome<()> {
    let sizes: &[usize] =
        bench.pick(&[1000, 10_000, 100_000], &[1000, 10_000, 100_000, 1_000_000, 10_000_000]);
    let mut specs = Vec::new();
    for &messages in sizes {
        let mut contenders = without(bench.readers(), &[Contender::Roll, Contender::RollThreads]);
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
    bench.report.compare(
        &[BASELINE, ROLL],
        title,
        join::COLUMNS,
        &specs,
        bench.runs,
        join::measure,
    );
    Ok(())
}
