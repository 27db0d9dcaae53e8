//! What is counted while the server runs, for `GET /metrics`.
//!
//! Counting is a relaxed add to memory, once a batch or once an event and never once a client, so
//! that it does not show in what the hub can do.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets for sync times, in seconds: from a good SSD to a disk in trouble.
const FSYNC_BOUNDS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// Why a client left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It, or the server, closed as the protocol has it.
    Closed,
    /// The connection broke.
    Gone,
    /// It answered no ping.
    Silent,
    /// It took nothing.
    Stalled,
    /// It broke the protocol.
    Protocol,
    /// It sent what is no UTF-8.
    InvalidText,
    /// It sent too long a message.
    TooBig,
}

impl Reason {
    const ALL: [(Reason, &'static str); 7] = [
        (Reason::Closed, "closed"),
        (Reason::Gone, "gone"),
        (Reason::Silent, "silent"),
        (Reason::Stalled, "stalled"),
        (Reason::Protocol, "protocol"),
        (Reason::InvalidText, "invalid_text"),
        (Reason::TooBig, "too_big"),
    ];
}

/// The counters of one server.
#[derive(Debug, Default)]
pub struct Metrics {
    messages: AtomicU64,
    deliveries: AtomicU64,
    joins: AtomicU64,
    refusals: AtomicU64,
    http_requests: AtomicU64,
    disconnects: [AtomicU64; Reason::ALL.len()],
    fsyncs: [AtomicU64; FSYNC_BOUNDS.len() + 1],
    fsync_nanos: AtomicU64,
}

/// What the hub alone knows, asked for when somebody wants to see it.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Whether messages can be stored, as far as is known.
    pub is_writable: bool,
    /// Whether the server is about to end.
    pub is_stopping: bool,
}

/// What goes up and down, summed over all channels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Levels {
    /// Channels that are open.
    pub channels: u64,
    /// Clients that have joined and not left.
    pub clients: u64,
    /// Those of them that are catching up.
    pub clients_behind: u64,
    /// Bytes of text files.
    pub file_bytes: u64,
    /// Messages in them.
    pub messages: u64,
}

impl Metrics {
    /// Messages were stored, and are on their way to everybody.
    pub fn stored(&self, messages: u64) {
        self.messages.fetch_add(messages, Relaxed);
    }

    /// Messages were sent to clients, each counted once for each client.
    pub fn delivered(&self, messages: u64) {
        self.deliveries.fetch_add(messages, Relaxed);
    }

    /// A client joined.
    pub fn joined(&self) {
        self.joins.fetch_add(1, Relaxed);
    }

    /// A client left.
    pub fn left(&self, reason: Reason) {
        self.disconnects[reason as usize].fetch_add(1, Relaxed);
    }

    /// Messages were not taken.
    pub fn refused(&self, messages: u64) {
        self.refusals.fetch_add(messages, Relaxed);
    }

    /// A request that is no upgrade was answered.
    pub fn http_request(&self) {
        self.http_requests.fetch_add(1, Relaxed);
    }

    /// The file was synced.
    pub fn synced(&self, time: Duration) {
        let bucket = FSYNC_BOUNDS.partition_point(|&bound| bound < time.as_secs_f64());
        self.fsyncs[bucket].fetch_add(1, Relaxed);
        self.fsync_nanos.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    /// Everything in the text format of Prometheus, version 0.0.4.
    pub fn render(&self, levels: &Levels, status: &Status) -> String {
        let mut page = Page::default();
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        page.head("txtcord_build_info", "gauge", "The version that runs.");
        page.sample(
            "txtcord_build_info",
            concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"),
            1,
        );
        let help = "Channels that are open, each with a text file of its own.";
        page.one("txtcord_channels", "gauge", help, levels.channels);
        page.one("txtcord_clients", "gauge", "Clients connected.", levels.clients);
        let help = "Clients that are being sent what they missed.";
        page.one("txtcord_clients_behind", "gauge", help, levels.clients_behind);
        let help = "Clients that have connected since the start.";
        page.one("txtcord_joins_total", "counter", help, get(&self.joins));
        let help = "Messages stored and shown since the start.";
        page.one("txtcord_messages_total", "counter", help, get(&self.messages));
        let help = "Messages sent to clients since the start, each counted once for each client; \
                    histories sent on connect are not in it.";
        page.one("txtcord_deliveries_total", "counter", help, get(&self.deliveries));
        let help = "Messages refused because they could not be stored or the server was stopping.";
        page.one("txtcord_refused_messages_total", "counter", help, get(&self.refusals));
        let help = "HTTP requests answered, apart from upgrades.";
        page.one("txtcord_http_requests_total", "counter", help, get(&self.http_requests));
        let help = "Messages in the text files.";
        page.one("txtcord_file_messages", "gauge", help, levels.messages);
        page.one("txtcord_file_bytes", "gauge", "Size of the text files.", levels.file_bytes);
        let help = "Whether messages can be stored in the default channel.";
        page.one("txtcord_writable", "gauge", help, u64::from(status.is_writable));
        page.head("txtcord_disconnects_total", "counter", "Clients that left, by why.");
        for (reason, label) in Reason::ALL {
            let label = format!("{{reason=\"{label}\"}}");
            page.sample(
                "txtcord_disconnects_total",
                &label,
                get(&self.disconnects[reason as usize]),
            );
        }
        page.head("txtcord_fsync_seconds", "histogram", "How long the disk took to sync.");
        let mut below = 0;
        for (count, bound) in self.fsyncs.iter().zip(&FSYNC_BOUNDS) {
            below += get(count);
            page.sample("txtcord_fsync_seconds_bucket", &format!("{{le=\"{bound}\"}}"), below);
        }
        below += get(&self.fsyncs[FSYNC_BOUNDS.len()]);
        page.sample("txtcord_fsync_seconds_bucket", "{le=\"+Inf\"}", below);
        let sum = Duration::from_nanos(get(&self.fsync_nanos)).as_secs_f64();
        page.sample("txtcord_fsync_seconds_sum", "", sum);
        page.sample("txtcord_fsync_seconds_count", "", below);
        page.text
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let line = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        line.expect("writing to memory cannot fail");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        writeln!(self.text, "{name}{labels} {value}").expect("writing to memory cannot fail");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        self.sample(name, "", value);
    }
}
