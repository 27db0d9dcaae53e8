//! How clients are dismissed that may not read the channel any more: each is sent a close frame, and is
//! ended if it does not leave.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Fanout;
use crate::{command::ClientId, outbox::CLOSE_WAIT, wire::CloseReason};

/// How long a client that may not read any more may take for the frame that it is being sent. A
/// history is one frame, which may be long, so that its close frame could come much later.
const LAST_FRAME_TIME: Duration = Duration::from_millis(500);

/// The clients that were dismissed and may still be there.
#[derive(Debug, Default)]
pub(super) struct Dismissals {
    /// When each was sent its close frame.
    since: BTreeMap<ClientId, Instant>,
    /// The generation of the rules by which the clients were last looked at.
    generation: u64,
}

impl Fanout {
    /// Dismisses the clients that may not read the channel; see [`Fanout::dismiss`].
    pub fn dismiss_those_who_may_not_read(&mut self, now: Instant) {
        // It is taken first: rules that change from here on are found by the next look.
        let latest = self.latest_generation();
        self.dismissals.generation = latest.unwrap_or(self.dismissals.generation);
        let clients = self.live.iter().chain(&self.behind);
        let dismissed = clients.filter(|(_, client)| !client.permit.may_read()).map(|(&id, _)| id);
        for id in dismissed.collect::<Vec<_>>() {
            self.dismiss(id, now);
        }
    }

    /// Sends a client that may not read the channel a close frame, after which it is sent nothing.
    /// [`Fanout::end_dismissed`] ends its connection if it does not end it itself.
    pub fn dismiss(&mut self, id: ClientId, now: Instant) {
        self.close(id, CloseReason::NotAReader);
        self.dismissals.since.entry(id).or_insert(now);
    }

    /// Ends the connections of clients that were dismissed and are still there: some cannot be sent
    /// the close frame soon enough, others do not answer it.
    pub fn end_dismissed(&mut self, now: Instant) {
        let Fanout { live, behind, dismissals, .. } = self;
        dismissals.since.retain(|id, since| {
            let Some(client) = live.get(id).or_else(|| behind.get(id)) else { return false };
            let may_take = if client.outbox.is_behind() { LAST_FRAME_TIME } else { CLOSE_WAIT };
            let is_late = now.saturating_duration_since(*since) >= may_take;
            if is_late {
                client.outbox.abort();
            }
            !is_late
        });
    }

    /// Whether the rules have changed since the clients were last looked at.
    pub fn is_due_for_dismissals(&self) -> bool {
        self.latest_generation().is_some_and(|latest| latest != self.dismissals.generation)
    }

    /// The generation of the rules, which are the same for all clients; `None` without clients.
    fn latest_generation(&self) -> Option<u64> {
        let mut clients = self.live.values().chain(self.behind.values());
        Some(clients.next()?.permit.access().generation())
    }
}
