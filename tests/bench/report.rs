//! Medians of interleaved runs as Markdown tables on standard output, progress on standard error.

use std::fmt::Write as _;

use crate::load::{Faults, Load, Outcome};
use crate::proc::Usage;
use crate::server::Contender;

/// When programs outside of a run used more than this many cores meanwhile, the run is called
/// disturbed under its table.
const DISTURBED: f64 = 0.2;

#[derive(Clone, Copy, PartialEq)]
pub enum Better {
    Higher,
    Lower,
    /// Shown for the understanding, without ratios.
    Neither,
}

/// Whom the others are compared with, in a column of ratios.
pub struct Yardstick {
    pub head: &'static str,
    /// What stands after a ratio.
    pub sign: &'static str,
    /// The contender that this one is compared with, if there is one for it.
    pub of: fn(&Contender) -> Option<Contender>,
}

pub const BASELINE: Yardstick =
    Yardstick { head: "× baseline", sign: "×", of: Contender::baseline };
pub const ROLL: Yardstick = Yardstick { head: "of roll", sign: "", of: Contender::limit };
pub const ROLL_THREADS: Yardstick =
    Yardstick { head: "of roll-threads", sign: "", of: Contender::limit_with_threads };

/// A measured quantity: name with unit, and which direction is good.
pub type Column = (&'static str, Better);

/// What one run gave: a value for each column, and whether it can be trusted.
pub struct Sample {
    pub values: Vec<f64>,
    pub faults: Faults,
    pub deliveries: usize,
    pub other_cores: f64,
}

impl Sample {
    pub fn new(values: Vec<f64>, load: &Load, usage: &Usage) -> Sample {
        let (faults, deliveries) = (load.faults, load.deliveries);
        Sample { values, faults, deliveries, other_cores: usage.other_cores() }
    }
}

/// What one contender gave, run after run; `None` where a run failed.
type Samples = Vec<Option<Sample>>;

/// One line of a comparison before it is run: a name, what is special about it, who takes part.
pub struct Spec<T> {
    pub name: String,
    pub setting: T,
    pub contenders: Vec<Contender>,
}

/// What is left over from all tables for the last lines and the exit code.
#[derive(Default)]
pub struct Report {
    pub deliveries: usize,
    pub failures: Vec<String>,
}

impl Report {
    /// Measures every contender of every spec `runs` times, taking turns so that whatever else
    /// happens on the machine meets all of them, and prints the medians beside the yardsticks.
    pub fn compare<T>(
        &mut self,
        yardsticks: &[Yardstick],
        title: &str,
        columns: &[Column],
        specs: &[Spec<T>],
        runs: usize,
        mut measure: impl FnMut(&T, &Contender) -> Outcome<Sample>,
    ) {
        let mut table = head(yardsticks, title, columns, runs);
        let topic = title.split(':').next().unwrap_or(title);
        let mut disturbed = 0;
        let mut total = 0;
        for spec in specs {
            let mut samples: Vec<Samples> = Vec::new();
            samples.resize_with(spec.contenders.len(), Vec::new);
            for run in 1..=runs {
                for (contender, samples) in spec.contenders.iter().zip(&mut samples) {
                    let place = format!("{topic}: {}, {}", spec.name, contender.label());
                    let sample = measure(&spec.setting, contender);
                    self.note(&place, run, runs, columns, &sample);
                    samples.push(sample.ok());
                }
            }
            let all = || samples.iter().flatten().flatten();
            total += all().count();
            disturbed += all().filter(|sample| sample.other_cores > DISTURBED).count();
            let find = |wanted: Option<Contender>| {
                let at = spec.contenders.iter().position(|it| Some(it) == wanted.as_ref())?;
                Some(&samples[at])
            };
            for (i, contender) in spec.contenders.iter().enumerate() {
                let name = if i == 0 { &spec.name } else { "" };
                write!(table, "| {name} | {} |", contender.label()).expect("strings take all");
                let others: Vec<_> =
                    yardsticks.iter().map(|it| (find((it.of)(contender)), it.sign)).collect();
                table += &row(columns, &samples[i], &others, runs);
            }
        }
        println!("{table}");
        if disturbed > 0 {
            println!(
                "{disturbed} of these {total} runs were disturbed: other programs used more than \
                 {DISTURBED} of a core meanwhile.\n"
            );
        }
    }

    /// Says how a run went, and keeps what was wrong with it.
    fn note(
        &mut self,
        place: &str,
        run: usize,
        runs: usize,
        columns: &[Column],
        sample: &Outcome<Sample>,
    ) {
        let wrong = match sample {
            Ok(sample) => {
                self.deliveries += sample.deliveries;
                let (name, value) = (columns[0].0, sample.values[0]);
                eprintln!("{place}, run {run} of {runs}: {} {name}", number(value));
                (!sample.faults.none()).then(|| describe(&sample.faults))
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(wrong) = wrong {
            eprintln!("FAILED {place}, run {run} of {runs}: {wrong}");
            self.failures.push(format!("{place}: {wrong}"));
        }
    }
}

fn describe(faults: &Faults) -> String {
    let Faults { lost, repeated, out_of_turn, malformed, closed } = faults;
    format!(
        "{lost} deliveries lost, {repeated} repeated, {out_of_turn} out of turn, \
         {malformed} malformed, {closed} clients closed by the server"
    )
}

fn head(yardsticks: &[Yardstick], title: &str, columns: &[Column], runs: usize) -> String {
    let mut table = format!("\n## {title}\n\n| | server |");
    let mut line = String::from("|---|---|");
    for (i, (name, better)) in columns.iter().enumerate() {
        write!(table, " {name} |").expect("strings take all");
        line += "---:|";
        if i == 0 && runs > 1 {
            table += " min – max |";
            line += "---:|";
        }
        if *better != Better::Neither {
            for yardstick in yardsticks {
                write!(table, " {} |", yardstick.head).expect("strings take all");
                line += "---:|";
            }
        }
    }
    format!("{table}\n{line}\n")
}

/// One contender's medians, each with its ratios to the others.
fn row(
    columns: &[Column],
    samples: &Samples,
    others: &[(Option<&Samples>, &str)],
    runs: usize,
) -> String {
    let mut row = String::new();
    for (i, (_, better)) in columns.iter().enumerate() {
        let values = || samples.iter().flatten().map(|sample| sample.values[i]);
        write!(row, " {} |", number(median(values()))).expect("strings take all");
        if i == 0 && runs > 1 {
            let sorted = sorted(values());
            let ends = sorted.first().zip(sorted.last());
            let ends = ends
                .map_or("–".into(), |(min, max)| format!("{} – {}", number(*min), number(*max)));
            write!(row, " {ends} |").expect("strings take all");
        }
        if *better != Better::Neither {
            for (other, sign) in others {
                let ratio = other.map_or(f64::NAN, |other| ratio(samples, other, i, *better));
                let ratio = if ratio.is_finite() { number(ratio) + sign } else { "–".into() };
                write!(row, " {ratio} |").expect("strings take all");
            }
        }
    }
    row + "\n"
}

/// How much better one contender is than another, above 1, or worse: the median of the ratios within
/// each run, since the machine is not equally fast in all of them.
fn ratio(samples: &Samples, others: &Samples, column: usize, better: Better) -> f64 {
    let pairs = samples.iter().zip(others).filter_map(|(one, other)| {
        let (one, other) = (one.as_ref()?.values[column], other.as_ref()?.values[column]);
        let ratio = if better == Better::Higher { one / other } else { other / one };
        // Processor time that is less than a tick of the clock tells nothing.
        (one > 0.0 && other > 0.0).then_some(ratio)
    });
    median(pairs)
}

/// The middle one, of an even number the mean of the two; NaN when there is none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let values = sorted(values);
    match values.len() {
        0 => f64::NAN,
        count => (values[(count - 1) / 2] + values[count / 2]) / 2.0,
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Microseconds below which the share `q` of the times lies; sorts them.
pub fn quantile_us(times: &mut [u64], q: f64) -> f64 {
    times.sort_unstable();
    let index = (times.len() as f64 * q).ceil() as usize;
    match times.get(index.saturating_sub(1)) {
        Some(nanoseconds) => *nanoseconds as f64 / 1e3,
        None => f64::NAN,
    }
}

/// Three digits or so, as a person would write them.
pub fn number(value: f64) -> String {
    match value.abs() {
        it if it.is_nan() => "–".into(),
        it if it >= 99_950_000.0 => format!("{:.0} M", value / 1e6),
        it if it >= 999_500.0 => format!("{:.1} M", value / 1e6),
        it if it >= 99_950.0 => format!("{:.0} k", value / 1e3),
        it if it >= 9_995.0 => format!("{:.1} k", value / 1e3),
        it if it >= 99.95 => format!("{value:.0}"),
        it if it >= 9.995 => format!("{value:.1}"),
        it if it >= 0.9995 => format!("{value:.2}"),
        0.0 => "0".into(),
        _ => format!("{value:.3}"),
    }
}
