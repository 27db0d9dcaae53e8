//! What is counted of a copy, and its metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use crate::metrics::Page;

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
        let get = |number: &AtomicU64| number.load(SeqCst);
        let mut page = Page::default();
        let help = "Whether the engine is there and gives out numbers.";
        page.metric("txtcord_cluster_up", "gauge", help, u64::from(is_up));
        let help = "Lines of the order that this node's file lacks.";
        page.metric("txtcord_cluster_lag_lines", "gauge", help, lag);
        let help = "How long the engine took to give numbers to a batch.";
        page.begin_metric("txtcord_cluster_append_seconds", "summary", help);
        let seconds = Duration::from_nanos(get(&self.append_nanos)).as_secs_f64();
        page.sample("txtcord_cluster_append_seconds_sum", "", seconds);
        page.sample("txtcord_cluster_append_seconds_count", "", get(&self.appends));
        let help = "Times that a connection to the engine was lost or could not be made.";
        page.metric("txtcord_cluster_reconnects_total", "counter", help, get(&self.reconnects));
        let help = "Lines that this node gave back to an engine that had lost them.";
        page.metric("txtcord_cluster_restored_lines_total", "counter", help, get(&self.restored));
        let help = "Times that this node's file was found to differ from the order.";
        page.metric("txtcord_cluster_forks_total", "counter", help, get(&self.forks));
        let help = "Posts that wait for the engine.";
        page.metric("txtcord_cluster_pending_posts", "gauge", help, get(&self.pending));
        page.text
    }
}
