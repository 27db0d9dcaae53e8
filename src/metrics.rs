//! The counters of a running server, for `GET /metrics`.
//!
//! To count is a relaxed add to memory, once for each batch or event and never once for each
//! client, so it costs the hub next to nothing.

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
pub enum LeaveReason {
    /// The client or the server sent a close frame, and the other answered it.
    Closed,
    /// The connection broke.
    Gone,
    /// The client answered no ping.
    Silent,
    /// The client took nothing for too long.
    Stalled,
    /// The client broke the WebSocket protocol.
    Protocol,
    /// The client sent text that is not UTF-8.
    InvalidText,
    /// The client sent too long a message.
    TooBig,
    /// The client did not finish a long message in time, or there was no memory for more of it.
    Unfinished,
}

impl LeaveReason {
    const ALL: [(LeaveReason, &'static str); 8] = [
        (LeaveReason::Closed, "closed"),
        (LeaveReason::Gone, "gone"),
        (LeaveReason::Silent, "silent"),
        (LeaveReason::Stalled, "stalled"),
        (LeaveReason::Protocol, "protocol"),
        (LeaveReason::InvalidText, "invalid_text"),
        (LeaveReason::TooBig, "too_big"),
        (LeaveReason::Unfinished, "unfinished"),
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
    disconnects: [AtomicU64; LeaveReason::ALL.len()],
    fsyncs: [AtomicU64; FSYNC_BOUNDS.len() + 1],
    fsync_nanos: AtomicU64,
}

/// The state of the server that the hub alone knows. The hub is asked when a request wants it.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Whether messages can be stored, as far as the server knows.
    pub is_writable: bool,
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
    /// Counts messages that were stored and may be sent.
    pub fn stored(&self, messages: u64) {
        self.messages.fetch_add(messages, Relaxed);
    }

    /// Counts messages that were sent to clients, each once for each client.
    pub fn delivered(&self, messages: u64) {
        self.deliveries.fetch_add(messages, Relaxed);
    }

    /// Counts a client that joined.
    pub fn joined(&self) {
        self.joins.fetch_add(1, Relaxed);
    }

    /// Counts a client that left.
    pub fn left(&self, reason: LeaveReason) {
        self.disconnects[reason as usize].fetch_add(1, Relaxed);
    }

    /// Counts messages that were refused.
    pub fn refused(&self, messages: u64) {
        self.refusals.fetch_add(messages, Relaxed);
    }

    /// Counts a request that was answered, unless it was an upgrade.
    pub fn http_request(&self) {
        self.http_requests.fetch_add(1, Relaxed);
    }

    /// Counts a sync of the file, and the time that it took.
    pub fn synced(&self, time: Duration) {
        let bucket = FSYNC_BOUNDS.partition_point(|&bound| bound < time.as_secs_f64());
        self.fsyncs[bucket].fetch_add(1, Relaxed);
        self.fsync_nanos.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    /// All counters, the levels and the state, in the text format of Prometheus, version 0.0.4.
    pub fn render(&self, levels: &Levels, status: &Status) -> String {
        let mut page = Page::default();
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        page.begin_metric("txtcord_build_info", "gauge", "The version that runs.");
        page.sample(
            "txtcord_build_info",
            concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"),
            1,
        );
        let help = "Channels that are open, each with a text file of its own.";
        page.metric("txtcord_channels", "gauge", help, levels.channels);
        page.metric("txtcord_clients", "gauge", "Clients connected.", levels.clients);
        let help = "Clients that are being sent what they missed.";
        page.metric("txtcord_clients_behind", "gauge", help, levels.clients_behind);
        let help = "Clients that have connected since the start.";
        page.metric("txtcord_joins_total", "counter", help, get(&self.joins));
        let help = "Messages stored and shown since the start.";
        page.metric("txtcord_messages_total", "counter", help, get(&self.messages));
        let help = "Messages sent to clients since the start, each counted once for each client; \
                    histories sent on connect are not in it.";
        page.metric("txtcord_deliveries_total", "counter", help, get(&self.deliveries));
        let help = "Messages refused because they could not be stored or the server was stopping.";
        page.metric("txtcord_refused_messages_total", "counter", help, get(&self.refusals));
        let help = "HTTP requests answered, apart from upgrades.";
        page.metric("txtcord_http_requests_total", "counter", help, get(&self.http_requests));
        let help = "Messages in the text files.";
        page.metric("txtcord_file_messages", "gauge", help, levels.messages);
        page.metric("txtcord_file_bytes", "gauge", "Size of the text files.", levels.file_bytes);
        let help = "Whether messages can be stored in the default channel.";
        page.metric("txtcord_writable", "gauge", help, u64::from(status.is_writable));
        page.begin_metric("txtcord_disconnects_total", "counter", "Clients that left, by reason.");
        for (reason, label) in LeaveReason::ALL {
            let label = format!("{{reason=\"{label}\"}}");
            page.sample(
                "txtcord_disconnects_total",
                &label,
                get(&self.disconnects[reason as usize]),
            );
        }
        page.begin_metric("txtcord_fsync_seconds", "histogram", "How long the disk took to sync.");
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

/// A page in the text format of Prometheus.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) text: String,
}

impl Page {
    /// Begins a metric that has several samples.
    pub(crate) fn begin_metric(&mut self, name: &str, kind: &str, help: &str) {
        let line = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        line.expect("writing to memory cannot fail");
    }

    /// One number; of a metric with several, its name ends in what it is.
    pub(crate) fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        writeln!(self.text, "{name}{labels} {value}").expect("writing to memory cannot fail");
    }

    /// A metric that is one number.
    pub(crate) fn metric(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.begin_metric(name, kind, help);
        self.sample(name, "", value);
    }
}
