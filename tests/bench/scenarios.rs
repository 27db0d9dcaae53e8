//! What is measured: one file a scenario, one table each.

pub mod accept;
pub mod channels;
pub mod cluster;
pub mod fanout;
pub mod growth;
pub mod idle;
pub mod join;
pub mod latency;
mod processors;
pub mod slow;
pub mod startup;

use std::time::Duration;

use crate::load::{Load, Outcome};
use crate::report::Report;
use crate::server::{Contender, MessageFile, Server};

/// Eight people who talk, as in the figures that others publish; the rest listen.
const SENDERS: usize = 8;
/// Bytes of a message, JSON included: a line of chat.
const MESSAGE: usize = 100;
/// For all clients to join. A healthy server takes a second for ten thousand.
const JOIN_LIMIT: Duration = Duration::from_secs(60);
/// Handshakes under way at a time when many clients are opened: less than any listen backlog.
const OPENING: usize = 100;
/// For what is in flight to arrive after the last message was sent.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// How thoroughly to measure, who takes part, and what came of it.
pub struct Bench {
    pub quick: bool,
    pub runs: usize,
    /// The limit of open files, here and in the servers, which inherit it.
    pub open_files: usize,
    pub other: Option<Contender>,
    pub report: Report,
}

impl Bench {
    /// The one value for a quick look, the other for figures to rely on.
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// For scenarios in which messages are stored: next to each other who is to be compared.
    fn writers(&self) -> Vec<Contender> {
        let mut all = vec![
            Contender::Roll,
            Contender::RollThreads,
            Contender::FsyncNever,
            Contender::RollSync,
            Contender::RollThreadsSync,
            Contender::FsyncAlways,
            Contender::Baseline,
        ];
        all.extend(self.other.clone());
        all
    }

    /// For scenarios in which none or next to none are, so that syncing makes no difference.
    fn readers(&self) -> Vec<Contender> {
        without(self.writers(), SYNCING)
    }

    /// Those among them that this number of clients does not break; nobody when this process may
    /// not open so many sockets.
    fn able(&self, mut contenders: Vec<Contender>, clients: usize) -> Vec<Contender> {
        if clients > BASELINE_CLIENTS {
            contenders.retain(|contender| *contender != Contender::Baseline);
        }
        if clients + OTHER_FILES > self.open_files {
            let limit = self.open_files;
            eprintln!("no run with {clients} clients: the limit of open files is {limit}");
            contenders.clear();
        }
        contenders
    }
}

/// Those that show nothing before it is on the disk.
const SYNCING: &[Contender] =
    &[Contender::RollSync, Contender::RollThreadsSync, Contender::FsyncAlways];

/// The peers that show what a thread for each client costs.
const THREADS: &[Contender] = &[Contender::RollThreads, Contender::RollThreadsSync];

fn without(mut contenders: Vec<Contender>, left_out: &[Contender]) -> Vec<Contender> {
    contenders.retain(|contender| !left_out.contains(contender));
    contenders
}

/// Two threads and two descriptors a client: beyond this the baseline meets the limits of a machine
/// (memory maps of a process, threads of all) and takes others with it.
const BASELINE_CLIENTS: usize = 4000;

/// Files that a process needs beside its clients' sockets, with room to spare.
const OTHER_FILES: usize = 100;

/// A server with an empty history and these clients, the first of them senders of messages of `size`
/// bytes.
fn with_clients(
    contender: &Contender,
    clients: usize,
    size: usize,
) -> Outcome<(MessageFile, Server, Load)> {
    let file = MessageFile::with(0)?;
    let server = Server::start(contender, &file)?;
    let mut load = Load::new()?;
    load.open(server.port, clients, OPENING, JOIN_LIMIT)?;
    load.appoint_senders(SENDERS.min(clients), size);
    Ok((file, server, load))
}

/// A number of people or messages with its thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
