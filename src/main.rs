//! The program: arguments, logging, signals, exit code; the one place that prints and exits.

use std::{
    env,
    fmt::Display,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
    time::Duration,
};

use clap::Parser;
use crossbeam_channel::{Receiver, bounded, select};
use log::{error, info};
use rlimit::Resource;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    iterator::Signals,
};
use txtcord::{
    access::new_token,
    config::{Config, Task},
    health,
    journal::{Fatal, OpenError},
    logging,
    server::{self, Failure, Instruction, Server, StartError},
    threads::{self, USUAL_STACK},
};

/// The exit code after a second signal. The first one stops the server in order, with exit code 0.
const EXIT_ON_SECOND_SIGNAL: i32 = 1;

/// How long a start may still take when the process is told to stop. One that is nearly over ends in order
/// then, and an orderly stop follows.
const REST_OF_START: Duration = Duration::from_millis(500);

/// How many instructions may wait.
const INSTRUCTIONS: usize = 16;

// The exit codes of failures are those that sysexits.h has for them, so that a supervisor can tell
// what is worth another start.

/// The text file is no file that can be used (EX_NOINPUT).
const EXIT_UNUSABLE: u8 = 66;

/// The access file cannot be used (EX_CONFIG).
const EXIT_ACCESS: u8 = 78;

/// Another server uses the text file (EX_CANTCREAT).
const EXIT_IN_USE: u8 = 73;

/// The storage failed, or did not answer during a stop (EX_IOERR).
const EXIT_STORAGE: u8 = 74;

/// The text file was changed in a way that ends the server; a new start may serve it (EX_TEMPFAIL).
const EXIT_CHANGED: u8 = 75;

/// The address is in use; sysexits.h has no code for it, so this is the number of EADDRINUSE on
/// Linux.
const EXIT_ADDRESS_IN_USE: u8 = 98;

fn main() -> ExitCode {
    share_one_heap_where_space_is_limited();
    let config = Config::parse();
    match &config.task {
        Some(Task::Health) => return health(&config),
        Some(Task::Token { name }) => return token(name),
        None => {}
    }
    match logging::start(&config) {
        Ok(log) => {
            let code = serve(&config);
            log.flush();
            code
        }
        Err(error) => failure(error),
    }
}

fn serve(config: &Config) -> ExitCode {
    let (instructions, stopped) = match instructions_of_signals(config) {
        Ok(queues) => queues,
        Err(error) => {
            error!("cannot handle signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let started = match start_unless_stopped(config, &stopped) {
        Some(started) => started,
        None => {
            info!("told to stop before the start was over");
            return ExitCode::SUCCESS;
        }
    };
    let server = match started {
        Ok(server) => server,
        Err(error) => {
            error!("{error}");
            return ExitCode::from(match error {
                StartError::Access(..) => EXIT_ACCESS,
                StartError::File(
                    OpenError::Unusable(..)
                    | OpenError::NoFolder(..)
                    | OpenError::Lock(..)
                    | OpenError::Stamps(..),
                ) => EXIT_UNUSABLE,
                StartError::File(OpenError::InUse(..)) => EXIT_IN_USE,
                StartError::File(OpenError::Failed(..)) => EXIT_STORAGE,
                StartError::Cluster(fatal) => exit_code(&fatal),
                StartError::AddressInUse(..) => EXIT_ADDRESS_IN_USE,
                StartError::Other(..) => 1,
            });
        }
    };
    match server.run(&instructions) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Fatal(fatal)) => ExitCode::from(exit_code(&fatal)),
        Err(Failure::DiskHangs) => ExitCode::from(EXIT_STORAGE),
        Err(Failure::Panicked) => ExitCode::FAILURE,
    }
}

/// Starts a server; `None` when the process is told to stop and that is not over soon. A disk may hold up
/// a start for long, and nobody was promised anything yet, so the process may end in the middle of it.
fn start_unless_stopped(
    config: &Config,
    stopped: &Receiver<()>,
) -> Option<Result<Server, StartError>> {
    let (give, started) = bounded(1);
    let config = config.clone();
    // If nobody waits any more, the process is ending.
    let start = move || drop(give.send(Server::start(&config)));
    if let Err(error) = threads::spawn("start", USUAL_STACK, start) {
        return Some(Err(StartError::Other("a thread for the start".into(), error)));
    }
    select! {
        recv(started) -> server => Some(server.unwrap_or_else(|_| {
            let panicked = io::Error::other("a panic, which is a bug");
            Err(StartError::Other("the start".into(), panicked))
        })),
        recv(stopped) -> _ => started.recv_timeout(REST_OF_START).ok(),
    }
}

fn exit_code(fatal: &Fatal) -> u8 {
    match fatal {
        Fatal::Storage(_) => EXIT_STORAGE,
        Fatal::Changed(_) | Fatal::Forked(_) => EXIT_CHANGED,
        Fatal::CannotJoin(_) => EXIT_UNUSABLE,
        Fatal::Panicked => 1,
    }
}

fn health(config: &Config) -> ExitCode {
    match health::ask(server::reachable(config.listen)) {
        Ok(()) => {
            // The exit code says it, too.
            let _ = print("ok");
            ExitCode::SUCCESS
        }
        Err(error) => failure(error),
    }
}

fn token(name: &str) -> ExitCode {
    match new_token(name) {
        Ok((token, line)) => match print(&format!("{token}\n{line}")) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failure(format_args!("the token cannot be printed: {error}")),
        },
        Err(error) => failure(error),
    }
}

/// Prints on standard output; `println!` would panic when that fails.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// Says why there is no result.
fn failure(why: impl Display) -> ExitCode {
    // Where that cannot be printed, the exit code alone says it.
    let _ = writeln!(io::stderr(), "txtcord: {why}");
    ExitCode::FAILURE
}

/// Starts the program again with one heap for all threads, if address space is limited (`ulimit
/// -v`). glibc reserves 64 MiB of it for a heap, and makes up to eight heaps for each processor:
/// they would take all of it.
fn share_one_heap_where_space_is_limited() {
    const HEAPS_VARIABLE: &str = "MALLOC_ARENA_MAX";
    let is_limited = Resource::AS.get_soft().is_ok_and(|limit| limit != rlimit::INFINITY);
    if !is_limited || env::var_os(HEAPS_VARIABLE).is_some() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        // This returns only when it fails; the server then serves fewer clients.
        let _ = Command::new(program).args(env::args_os().skip(1)).env(HEAPS_VARIABLE, "1").exec();
    }
}

/// Catches signals, and sends instructions through the first queue that is returned; the second one is told
/// of a stop, too. A second SIGTERM or SIGINT ends the process at once.
fn instructions_of_signals(config: &Config) -> io::Result<(Receiver<Instruction>, Receiver<()>)> {
    // SIGXFSZ comes when a file may not grow any more (`ulimit -f`). It is caught so that it does
    // not kill the process: the write fails then, and is handled as on a full disk.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGXFSZ])?;
    if config.access.is_some() {
        // Without an access file, the end of a terminal ends the server, as everywhere.
        signals.add_signal(SIGHUP)?;
    }
    let (give, instructions) = bounded(INSTRUCTIONS);
    let (stop, stopped) = bounded(1);
    let watch = move || {
        let mut is_stopping = false;
        for signal in signals.forever() {
            let instruction = match signal {
                SIGXFSZ => continue,
                SIGHUP => Instruction::ReadAccessFile,
                _ if is_stopping => std::process::exit(EXIT_ON_SECOND_SIGNAL),
                _ => Instruction::Stop,
            };
            is_stopping |= instruction == Instruction::Stop;
            if instruction == Instruction::Stop {
                // It has room for one, and there is one.
                let _ = stop.try_send(());
            }
            // If the queue has no receiver any more, the server is ending. If it is full, the access
            // file will be read again all the same.
            let _ = match instruction {
                Instruction::Stop => give.send(instruction).is_ok(),
                Instruction::ReadAccessFile => give.try_send(instruction).is_ok(),
            };
        }
    };
    threads::spawn("signals", USUAL_STACK, watch)?;
    Ok((instructions, stopped))
}
