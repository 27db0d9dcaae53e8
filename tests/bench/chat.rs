//! `cargo bench --bench chat`: the server beside a simple one, on this machine, checked while measured.
//!
//! Arguments and the plan are here. `server` starts and ends what is measured, `load` makes the
//! clients, `frames` and `wire` know what goes over the wire, `proc` reads what Linux counts,
//! `baseline` is the simple server, `roll` the fastest one, `report` makes the tables, and `scenarios`
//! says what is measured. Linux only: it reads /proc.
//!
//! Every figure is a median of interleaved runs, every ratio the median of the ratios within a run.
//! Every delivery is checked; when a client missed a message or got one twice or out of order, the
//! table is printed all the same and the exit code is 1.

mod baseline;
#[path = "../support/frames.rs"]
#[allow(dead_code, reason = "the integration tests use the rest of it")]
mod frames;
mod load;
mod proc;
mod report;
mod roll;
mod scenarios;
mod server;
#[path = "../support/settings.rs"]
mod settings;
mod wire;

use std::env;
use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::load::Outcome;
use crate::report::{Report, median};
use crate::roll::{Readers, Sync};
use crate::scenarios::Bench;
use crate::server::{Contender, MessageFile};

/// Measures txtcord beside a simple baseline; prints Markdown tables
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench chat --")]
struct Arguments {
    /// A look in less than a minute instead of figures to rely on
    #[arg(long)]
    quick: bool,

    /// Only these scenarios
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SCENARIO,...")]
    only: Vec<Scenario>,

    /// Runs that each median is taken of [default: 3, with --quick 1]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: Option<u16>,

    /// Another server to measure beside: a command with {port} and {file}
    #[arg(long, value_name = "COMMAND")]
    server: Option<String>,

    /// What cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Scenario {
    Fanout,
    Latency,
    Join,
    Startup,
    Accept,
    Idle,
    Slow,
    Channels,
    Cluster,
    Growth,
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let outcome = match arguments.next().as_deref() {
        Some(server::TETHERED) => Err(server::become_tethered(arguments).into()),
        Some(server::BASELINE) => serve_baseline(arguments),
        Some(server::ROLL) => serve_roll(arguments, Sync::Never, Readers::EventLoop),
        Some(server::ROLL_SYNC) => serve_roll(arguments, Sync::Always, Readers::EventLoop),
        Some(server::ROLL_THREADS) => serve_roll(arguments, Sync::Never, Readers::Threads),
        Some(server::ROLL_THREADS_SYNC) => serve_roll(arguments, Sync::Always, Readers::Threads),
        _ => run_bench(Arguments::parse()),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_baseline(mut arguments: impl Iterator<Item = String>) -> Outcome<ExitCode> {
    let (Some(port), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("baseline PORT FILE".into());
    };
    baseline::serve(port.parse()?, &path)?;
    Ok(ExitCode::SUCCESS)
}

fn serve_roll(
    mut arguments: impl Iterator<Item = String>,
    sync: Sync,
    readers: Readers,
) -> Outcome<ExitCode> {
    let (Some(port), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("roll PORT FILE".into());
    };
    roll::serve(port.parse()?, &path, sync, readers)?;
    Ok(ExitCode::SUCCESS)
}

fn run_bench(arguments: Arguments) -> Outcome<ExitCode> {
    if !arguments.bench {
        // `cargo test --all-targets` runs benchmarks too, without this argument.
        println!("nothing measured: this is for `cargo bench`");
        return Ok(ExitCode::SUCCESS);
    }
    let began = Instant::now();
    server::sweep();
    let mut bench = Bench {
        quick: arguments.quick,
        runs: arguments.runs.map_or(if arguments.quick { 1 } else { 3 }, usize::from),
        open_files: raise_open_files()?,
        other: arguments.server.map(Contender::Other),
        report: Report::default(),
    };
    println!("{}; fdatasync of one line: {:.2} ms (median)", proc::machine(), fdatasync_ms()?);
    for scenario in plan(arguments.quick, arguments.only) {
        let outcome = match scenario {
            Scenario::Fanout => scenarios::fanout::run(&mut bench),
            Scenario::Latency => scenarios::latency::run(&mut bench),
            Scenario::Join => scenarios::join::run(&mut bench),
            Scenario::Startup => scenarios::startup::run(&mut bench),
            Scenario::Accept => scenarios::accept::run(&mut bench),
            Scenario::Idle => scenarios::idle::run(&mut bench),
            Scenario::Slow => scenarios::slow::run(&mut bench),
            Scenario::Channels => scenarios::channels::run(&mut bench),
            Scenario::Cluster => scenarios::cluster::run(&mut bench),
            Scenario::Growth => scenarios::growth::run(&mut bench),
        };
        if let Err(error) = outcome {
            bench.report.failures.push(error.to_string());
        }
    }
    let Report { deliveries, failures } = bench.report;
    eprintln!("done in {:.0} s", began.elapsed().as_secs_f64());
    if failures.is_empty() {
        println!("All checks passed: {deliveries} deliveries, each once and in order.");
        return Ok(ExitCode::SUCCESS);
    }
    println!("FAILED:");
    for failure in failures {
        println!("- {failure}");
    }
    Ok(ExitCode::FAILURE)
}

/// All of them unless some are named; a quick look goes without the long tables of growth.
fn plan(quick: bool, only: Vec<Scenario>) -> Vec<Scenario> {
    if !only.is_empty() {
        return only;
    }
    let mut all = Scenario::value_variants().to_vec();
    all.retain(|scenario| !(quick && *scenario == Scenario::Growth));
    all
}

/// Ten thousand clients are as many sockets, here and in the server, which inherits the limit.
/// Returns how many are allowed.
fn raise_open_files() -> Outcome<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum.map_or(usize::MAX, |maximum| maximum as usize))
}

/// What `--fsync always` has to pay on this disk: figures with it mean little without this one.
fn fdatasync_ms() -> Outcome<f64> {
    const LINES: usize = 200;
    let messages = MessageFile::with(0)?;
    let mut file = File::create(messages.path())?;
    let mut times = Vec::with_capacity(LINES);
    for _ in 0..LINES {
        file.write_all(&[b'x'; 100])?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(times.into_iter()))
}
