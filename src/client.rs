//! One client of the chat, from the upgrade to the goodbye.
//!
//! Its thread joins it, sends it the beginning of the history, and then reads: text becomes lines for
//! the hub. From the hub's answer on, the hub and those who catch clients up send; this thread sends
//! control frames only.

use std::{fs::File, io, sync::Arc};

use crate::{
    catch_up::{Behind, CatchUp},
    command::{ClientId, HubGone, HubHandle, Joined, NextStep},
    history::{BLOCK, Resume},
    http::query::NAME_BYTES,
    lines::BESIDE_TEXT,
    message::{self, AROUND_WORDS},
    metrics::{LeaveReason, Metrics},
    outbox::Outbox,
    websocket::{Connection, Limits, Received, Wait},
    wire::{CutFrame, ErrorAnswer, HistoryFrame},
};

/// Lines that one command brings to the hub at the most, in bytes; a single message may be longer.
const POST_BYTES: usize = 64 << 10;

// The longest post of a client: what was collected, and a message more whose name, like its text, may
// be all control characters, six bytes each in JSON. The journal counts on it that no post is longer
// than a line may be.
const _: () = assert!(POST_BYTES + 6 * NAME_BYTES + AROUND_WORDS <= BESIDE_TEXT);

/// What a client asked for when it connected.
#[derive(Clone, Debug, Default)]
pub struct JoinRequest {
    /// What it wants of the history.
    pub resume: Resume,
    /// `as=NAME`: who types.
    pub name: Option<String>,
}

/// What a client is served with, apart from its connection.
#[derive(Clone, Debug)]
pub struct Services {
    /// The hub that it joins.
    pub hub: HubHandle,
    /// Takes over when its socket is full.
    pub catch_up: CatchUp,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What its connection keeps to.
    pub limits: Limits,
}

/// A client for as long as it is one of the hub's.
struct Membership {
    services: Services,
    outbox: Arc<Outbox>,
    file: Arc<File>,
    client: ClientId,
}

impl Membership {
    /// Has the client caught up after a control frame found its socket full.
    fn hand_over(&self, cut: CutFrame) {
        self.hand_over_at(cut, None, None);
    }

    /// Has the client caught up from where it stands.
    fn hand_over_at(&self, cut: CutFrame, history: Option<HistoryFrame>, next_id: Option<u64>) {
        self.services.catch_up.take(Behind {
            client: self.client,
            outbox: self.outbox.clone(),
            hub: self.services.hub.clone(),
            file: self.file.clone(),
            cut,
            history: history.map(Box::new),
            next_id,
        });
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.services.hub.leave(self.client);
    }
}

/// Serves one client to its end: `response` accepts the upgrade, `received` came behind the request.
///
/// # Errors
/// When it cannot be begun; the connection is to be dropped then.
pub fn serve(
    services: Services,
    outbox: Arc<Outbox>,
    response: Vec<u8>,
    received: Vec<u8>,
    request: JoinRequest,
) -> io::Result<()> {
    let connection = Connection::new(outbox.clone(), received, services.limits)?;
    let membership = join(services, outbox, response, request.resume)?;
    chat(connection, &membership, request.name.as_deref());
    Ok(())
}

/// Joins, and sends what can be sent at once of the response and the history.
fn join(
    services: Services,
    outbox: Arc<Outbox>,
    response: Vec<u8>,
    resume: Resume,
) -> io::Result<Membership> {
    let gone = |HubGone| io::Error::other("the hub is gone");
    let Joined { client, snapshot } = services.hub.join(outbox.clone(), resume).map_err(gone)?;
    let file = snapshot.stretch.file().clone();
    let next_id = Some(snapshot.stretch.last_id + 1);
    let membership = Membership { services, outbox, file, client };
    let mut history = HistoryFrame::new(snapshot)?;
    let head = response.len();
    // One packet, as a rule, for the handshake and a short history.
    let mut bytes = response;
    history.peek(&mut bytes, BLOCK)?;
    let sent = membership.outbox.send_now(&bytes)?;
    history.advance(sent.saturating_sub(head));
    if sent < head {
        membership.hand_over_at(CutFrame::of(&bytes[..head], sent), Some(history), next_id);
    } else if !history.is_done() {
        membership.hand_over_at(CutFrame::default(), Some(history), next_id);
    } else if !matches!(membership.services.hub.next_step(client, next_id), Ok(NextStep::Live)) {
        // There is more already; it is asked for again.
        membership.hand_over_at(CutFrame::default(), None, next_id);
    }
    Ok(membership)
}

/// Reads until the connection is over, handing over what is said in as few commands as possible:
/// all that one read of the socket brought.
fn chat(mut connection: Connection, membership: &Membership, name: Option<&str>) {
    let mut lines = Vec::new();
    loop {
        let wait = if lines.is_empty() { Wait::ForPeer } else { Wait::Not };
        let received = connection.read(wait);
        if let Received::Text(text) = &received {
            match name {
                Some(name) => message::push_line_as(name, text, &mut lines),
                None => {
                    if let Err(error) = message::push_line(text, &mut lines) {
                        connection.send(&ErrorAnswer::NotJson.frame(&error.to_string()));
                    }
                }
            }
            if lines.len() < POST_BYTES {
                continue;
            }
        }
        if !lines.is_empty() {
            let lines = std::mem::take(&mut lines);
            if membership.services.hub.post(membership.client, lines).is_err() {
                return;
            }
        }
        match received {
            Received::Text(_) | Received::Nothing => {}
            Received::SocketFull(cut) => membership.hand_over(cut),
            Received::Binary(_) => {
                let refusal = ErrorAnswer::BinaryUnsupported;
                connection.send(&refusal.frame(refusal.sentence()));
            }
            Received::Over(over) => {
                let stalled = connection.outbox().has_stalled();
                let reason = if stalled { LeaveReason::Stalled } else { over.reason() };
                membership.services.metrics.left(reason);
                return connection.finish(&over, |cut| membership.hand_over(cut));
            }
        }
    }
}
