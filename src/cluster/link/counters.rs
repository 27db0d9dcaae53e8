//! What is counted of a copy, and its metrics.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

/// What is counted of a copy.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Posts that wait for the engine.
    pub(super) pending: AtomicU64,
    /// Connections to the engine that were lost or could not be made.
    pub(super) reconnects: AtomicU64,
    /// Lines that were given back to the engine.
    pub(super) restored: AtomicU64,
    pub(super) forks: AtomicU64,
    /// Batches that the engine gave numbers to, and how long that took, in nanoseconds.
    pub(super) appends: AtomicU64,
    pub(super) append_nanos: AtomicU64,
}

impl Counters {
    /// The metrics of a copy that is up or not and lacks `lag` lines, in the text format of Prometheus.
    pub(super) fn render(&self, is_up: bool, lag: u64) -> String {
        let get = |number: &AtomicU64| number.load(SeqCst).to_string();
        let seconds = Duration::from_nanos(self.append_nanos.load(SeqCst)).as_secs_f64();
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, samples: &[(&str, String)]| {
            let name = format!("txtcord_cluster_{name}");
            let mut write = |line: String| {
                writeln!(text, "{line}").expect("writing to memory cannot fail");
            };
            write(format!("# HELP {name} {help}"));
            write(format!("# TYPE {name} {kind}"));
            samples.iter().for_each(|(ending, value)| write(format!("{name}{ending} {value}")));
        };
        let one = |value: String| [("", value)];
        let up = u64::from(is_up).to_string();
        metric("up", "gauge", "Whether the engine is there and gives out numbers.", &one(up));
        let help = "Lines of the order that this node's file lacks.";
        metric("lag_lines", "gauge", help, &one(lag.to_string()));
        let help = "How long the engine took to give numbers to a batch.";
        let samples = [("_sum", seconds.to_string()), ("_count", get(&self.appends))];
        metric("append_seconds", "summary", help, &samples);
        let help = "Times that a connection to the engine was lost or could not be made.";
        metric("reconnects_total", "counter", help, &one(get(&self.reconnects)));
        let help = "Lines that this node gave back to an engine that had lost them.";
        metric("restored_lines_total", "counter", help, &one(get(&self.restored)));
        let help = "Times that this node's file was found to differ from the order.";
        metric("forks_total", "counter", help, &one(get(&self.forks)));
        let help = "Posts that wait for the engine.";
        metric("pending_posts", "gauge", help, &one(get(&self.pending)));
        text
    }
}
