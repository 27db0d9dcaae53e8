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
    /// Shown for the understanding, without a ratio to the baseline.
    Neither,
}

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
    /// happens on the machine meets all of them, and prints the medians.
    pub fn compare<T>(
        &mut self,
        title: &str,
        columns: &[Column],
        specs: &[Spec<T>],
        runs: usize,
        mut measure: impl FnMut(&T, &Contender) -> Outcome<Sample>,
    ) {
        let mut table = head(title, columns, runs);
        let topic = title.split(':').next().unwrap_or(title);
        let mut disturbed = 0;
        let mut total = 0;
        for spec in specs {
            let mut samples: Vec<Vec<Sample>> = Vec::new();
            samples.resize_with(spec.contenders.len(), Vec::new);
            for run in 1..=runs {
                for (contender, samples) in spec.contenders.iter().zip(&mut samples) {
                    let place = format!("{topic}: {}, {}", spec.name, contender.label());
                    let sample = measure(&spec.setting, contender);
                    self.note(&place, run, runs, columns, &sample);
                    samples.extend(sample);
                }
            }
            let all = || samples.iter().flatten();
            total += all().count();
            disturbed += all().filter(|sample| sample.other_cores > DISTURBED).count();
            let medians: Vec<_> =
                samples.iter().map(|samples| medians(samples, columns.len())).collect();
            let baseline = spec.contenders.iter().position(|it| *it == Contender::Baseline);
            let baseline = baseline.map(|index| &medians[index]);
            for (i, contender) in spec.contenders.iter().enumerate() {
                let name = if i == 0 { &spec.name } else { "" };
                let base = baseline.filter(|_| *contender != Contender::Baseline);
                write!(table, "| {name} | {} |", contender.label()).expect("strings take all");
                table += &row(columns, &medians[i], base, runs, &samples[i]);
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

fn head(title: &str, columns: &[Column], runs: usize) -> String {
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
            table += " × baseline |";
            line += "---:|";
        }
    }
    format!("{table}\n{line}\n")
}

fn row(
    columns: &[Column],
    medians: &[f64],
    base: Option<&Vec<f64>>,
    runs: usize,
    samples: &[Sample],
) -> String {
    let mut row = String::new();
    for (i, (_, better)) in columns.iter().enumerate() {
        let ratio = base.map_or(f64::NAN, |base| match better {
            Better::Higher => medians[i] / base[i],
            Better::Lower | Better::Neither => base[i] / medians[i],
        });
        write!(row, " {} |", number(medians[i])).expect("strings take all");
        if i == 0 && runs > 1 {
            let sorted = sorted(samples.iter().map(|sample| sample.values[0]));
            let ends = sorted.first().zip(sorted.last());
            let ends = ends
                .map_or("–".into(), |(min, max)| format!("{} – {}", number(*min), number(*max)));
            write!(row, " {ends} |").expect("strings take all");
        }
        if *better != Better::Neither {
            let ratio = if ratio.is_finite() { number(ratio) + "×" } else { "–".into() };
            write!(row, " {ratio} |").expect("strings take all");
        }
    }
    row + "\n"
}

fn medians(samples: &[Sample], columns: usize) -> Vec<f64> {
    (0..columns).map(|i| median(samples.iter().map(|sample| sample.values[i]))).collect()
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
