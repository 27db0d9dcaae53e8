//! The log: every line goes through a queue to a thread that writes it.
//!
//! Whoever reads the log may stop reading: a terminal after Ctrl-S, a pipe to a program that hangs. No
//! thread of the server waits for that. Lines that find the queue full are counted, and that count is
//! written once there is room again.

use std::{
    ascii,
    fs::OpenOptions,
    io::{self, Write},
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use simplelog::{ConfigBuilder, WriteLogger};

use crate::{
    config::Config,
    threads::{self, USUAL_STACK},
};

/// How many lines may wait to be written. Each has some hundred bytes.
const QUEUE: usize = 1024;

/// How long the end of the process waits for room in the queue, and then for what is in it to be written.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// The running log.
#[derive(Debug)]
pub struct Log {
    entries: Sender<Entry>,
}

/// What the thread is given.
#[derive(Debug)]
enum Entry {
    /// A line, with its `\n`.
    Line(Vec<u8>),
    /// All lines before this are to be written; then this is dropped.
    Flush(Sender<()>),
}

/// Starts the log, at the level and in the place that the operator asked for.
///
/// # Errors
/// When the file of the log cannot be opened, or a log was started before.
pub fn start(config: &Config) -> Result<Log, String> {
    let out: Box<dyn Write + Send> = match &config.log_file {
        None => Box::new(io::stderr()),
        Some(path) => {
            let file = OpenOptions::new().append(true).create(true).open(path);
            Box::new(file.map_err(|error| format!("--log-file {}: {error}", path.display()))?)
        }
    };
    let format = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_target_level(log::LevelFilter::Off)
        .set_location_level(log::LevelFilter::Off)
        .set_thread_level(log::LevelFilter::Debug)
        .set_thread_mode(simplelog::ThreadLogMode::Names)
        // Without this filter, tungstenite would log every frame at the level trace, and so all
        // that people say.
        .add_filter_allow_str("txtcord")
        .build();
    let (entries, to_write) = bounded(QUEUE);
    let lost = Arc::<AtomicU64>::default();
    let queue = LogQueue { line: Vec::new(), entries: entries.clone(), lost: lost.clone() };
    let write = move || write_all(&to_write, &lost, out);
    let spawned = threads::spawn("log", USUAL_STACK, write);
    spawned.map_err(|error| format!("cannot start a thread for the log: {error}"))?;
    WriteLogger::init(config.log_level, format, queue).map_err(|error| error.to_string())?;
    Ok(Log { entries })
}

impl Log {
    /// Waits until all lines are written, for two seconds at the most.
    pub fn flush(&self) {
        let (flush, flushed) = bounded(0);
        if self.entries.send_timeout(Entry::Flush(flush), FLUSH_TIME).is_ok() {
            // Nothing is sent; the other end is dropped.
            let _ = flushed.recv_timeout(FLUSH_TIME);
        }
    }
}

/// Puts lines into the queue. simplelog writes each line in twenty parts, of which its `\n` is the last.
/// Control characters in what is said, such as in the name of a file, are escaped.
#[derive(Debug)]
struct LogQueue {
    line: Vec<u8>,
    entries: Sender<Entry>,
    lost: Arc<AtomicU64>,
}

impl Write for LogQueue {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if part != b"\n" {
            self.line.extend(part.iter().flat_map(|&byte| shown(byte)));
        } else {
            self.line.push(b'\n');
            let line = Entry::Line(mem::take(&mut self.line));
            if self.entries.try_send(line).is_err() {
                self.lost.fetch_add(1, Relaxed);
            }
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A byte as a line of the log has it.
fn shown(byte: u8) -> impl Iterator<Item = u8> {
    let escaped = byte.is_ascii_control().then(|| ascii::escape_default(byte));
    let plain = escaped.is_none().then_some(byte);
    escaped.into_iter().flatten().chain(plain)
}

/// Writes lines for as long as the process lives.
fn write_all(entries: &Receiver<Entry>, lost: &AtomicU64, mut out: impl Write) {
    for entry in entries {
        // What cannot be written can be told to nobody.
        let _ = match entry {
            Entry::Line(line) => out.write_all(&line),
            Entry::Flush(_flush) => out.flush(),
        };
        let lost = lost.swap(0, Relaxed);
        if lost > 0 {
            let _ = writeln!(out, "{lost} lines of this log were lost, since it was not read");
        }
    }
}
