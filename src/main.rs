//! The program: arguments, logging, signals, exit code; the one place that prints and exits.

use std::{
    env,
    fs::OpenOptions,
    io::{self, LineWriter, Write},
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
    thread,
};

use clap::Parser;
use crossbeam_channel::{Receiver, bounded};
use log::error;
use rlimit::Resource;
use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGXFSZ},
    iterator::Signals,
};
use simplelog::{ConfigBuilder, WriteLogger};
use txtcord::{
    config::{Config, Task},
    health,
    journal::{Fatal, OpenError},
    server::{self, Failure, Server, StartError},
};

/// What a second signal exits with; the first is an orderly stop, and exits with 0.
const EXIT_ON_SECOND_SIGNAL: i32 = 1;

fn main() -> ExitCode {
    share_one_heap_where_space_is_limited();
    let config = Config::parse();
    if let Some(Task::Health) = config.task {
        return health(&config);
    }
    if let Err(error) = start_logging(&config) {
        eprintln!("txtcord: {error}");
        return ExitCode::FAILURE;
    }
    let stop = match stop_on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            error!("cannot handle signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let server = match Server::start(&config) {
        Ok(server) => server,
        Err(error) => {
            error!("{error}");
            return ExitCode::from(match error {
                StartError::File(OpenError::Unusable(..)) => 66,
                StartError::File(OpenError::InUse(..)) => 73,
                StartError::File(OpenError::Failed(..)) => 74,
                StartError::AddressInUse(..) => 98,
                StartError::Other(..) => 1,
            });
        }
    };
    match server.run(&stop) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Fatal(Fatal::Storage(_))) => ExitCode::from(74),
        Err(Failure::Fatal(Fatal::Changed(_))) => ExitCode::from(75),
        Err(Failure::Panicked) => ExitCode::FAILURE,
    }
}

fn health(config: &Config) -> ExitCode {
    match health::ask(server::reachable(config.listen)) {
        Ok(()) => {
            println!("ok");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("txtcord: {error}");
            ExitCode::FAILURE
        }
    }
}

/// glibc reserves 64 MiB of address space for the heap of a thread, up to eight heaps a processor. Where
/// the space is limited (`ulimit -v`) that would be all of it, so the program starts again with one
/// heap for all threads.
fn share_one_heap_where_space_is_limited() {
    const HEAPS_VARIABLE: &str = "MALLOC_ARENA_MAX";
    let is_limited = Resource::AS.get_soft().is_ok_and(|limit| limit != rlimit::INFINITY);
    if !is_limited || env::var_os(HEAPS_VARIABLE).is_some() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        // It returns only when that fails; the server then serves fewer clients.
        let _ = Command::new(program).args(env::args_os().skip(1)).env(HEAPS_VARIABLE, "1").exec();
    }
}

fn start_logging(config: &Config) -> Result<(), String> {
    let out: Box<dyn Write + Send> = match &config.log_file {
        None => Box::new(io::stderr()),
        Some(path) => {
            let file = OpenOptions::new().append(true).create(true).open(path);
            Box::new(file.map_err(|error| format!("--log-file {}: {error}", path.display()))?)
        }
    };
    // simplelog writes a line in twenty parts.
    let out = LineWriter::new(out);
    let format = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_target_level(log::LevelFilter::Off)
        .set_location_level(log::LevelFilter::Off)
        .set_thread_level(log::LevelFilter::Debug)
        .set_thread_mode(simplelog::ThreadLogMode::Names)
        // tungstenite traces every frame, and with it what people say.
        .add_filter_allow_str("txtcord")
        .build();
    WriteLogger::init(config.log_level, format, out).map_err(|error| error.to_string())
}

/// The first SIGTERM or SIGINT is passed on, the second ends the process at once.
fn stop_on_signals() -> io::Result<Receiver<()>> {
    // SIGXFSZ, of a file that may not grow any more, is only caught so that it does not kill: the
    // write fails then, and is handled like a full disk.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGXFSZ])?;
    let (stop, stopped) = bounded(1);
    let watch = move || {
        let mut asked = None;
        for signal in signals.forever().filter(|&signal| signal != SIGXFSZ) {
            if asked.replace(signal).is_some() {
                std::process::exit(EXIT_ON_SECOND_SIGNAL);
            }
            // If nobody listens any more, the end is on its way.
            let _ = stop.try_send(());
        }
    };
    thread::Builder::new().name("signals".into()).spawn(watch)?;
    Ok(stopped)
}
