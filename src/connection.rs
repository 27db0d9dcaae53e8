//! One connection: requests, answered one after the other, until one of them makes it a chat.
//!
//! A connection has a thread of its own, which ends with it. The thread waits for the peer, never
//! the other way round, and nothing here is shared between two connections but [`House`].

use std::{
    convert::Infallible,
    sync::{Arc, Weak, atomic::AtomicUsize},
};

use crossbeam_channel::Sender;
use http::Method;
use log::debug;

use crate::{
    catch_up::Reach,
    client::{self, JoinRequest, Limits},
    config::Config,
    http::{Head, HeadError, HttpRefusal, head::read_head},
    hub::HubHandle,
    metrics::Metrics,
    outbox::Outbox,
    socket::linger,
    upgrade::upgrade,
    web::{Then, Web},
};

/// What every connection's thread is given.
#[derive(Clone, Debug)]
pub(crate) struct House {
    pub(crate) hub: HubHandle,
    pub(crate) metrics: Arc<Metrics>,
    /// Held by the accept loop and by every connection that is answering somebody.
    pub(crate) alive: Weak<Sender<Infallible>>,
    /// How many connections are open.
    pub(crate) open: Arc<AtomicUsize>,
    pub(crate) config: Arc<Config>,
}

/// What a connection was accepted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// To be served.
    Client,
    /// To be told that there are too many clients.
    TooMany,
}

/// Serves one connection to its end.
pub(crate) fn converse(house: &House, admission: Admission, outbox: Arc<Outbox>, number: u64) {
    let mut received = Vec::new();
    loop {
        let head = match read_head(outbox.socket(), received) {
            Ok(head) => head,
            Err(HeadError::PeerGone | HeadError::Silent) => return,
            Err(HeadError::Refused(refused)) => return refuse(&outbox, &Method::GET, &refused),
        };
        // From here to the answer, an orderly stop waits.
        let Some(_alive) = house.alive.upgrade() else {
            let refused = HttpRefusal::unavailable("the server is stopping; come back soon");
            return refuse(&outbox, head.request.method(), &refused);
        };
        if head.request.uri().path() == "/ws" {
            return chat(house, admission, outbox, head, number);
        }
        let (hub, metrics, config) = (&house.hub, &*house.metrics, &*house.config);
        let web = Web { outbox: &outbox, hub, metrics, config };
        match web.answer(&head.request, head.received) {
            Then::Next(rest) => received = rest,
            Then::Close => {
                linger(outbox.socket());
                return;
            }
            Then::Gone => return outbox.abort(),
        }
    }
}

/// Serves one client of the chat.
fn chat(house: &House, admission: Admission, outbox: Arc<Outbox>, head: Head, number: u64) {
    let Some((response, received, join)) = admit(house, admission, &outbox, head) else { return };
    let config = &house.config;
    let limits = Limits { max_message: config.max_message, ping_interval: config.ping_interval };
    let reach = Reach {
        outbox: outbox.clone(),
        hub: house.hub.clone(),
        metrics: house.metrics.clone(),
        stall_timeout: config.stall_timeout,
        number,
    };
    if let Err(error) = client::serve(reach, response, received, join, limits) {
        debug!("client-{number}: {error}");
        outbox.abort();
    }
}

/// The answer that makes it a chat, the bytes received after the request, and what the client asks
/// for; or none, with a refusal sent. The memory that the request takes is freed here, since a
/// client may stay for days.
fn admit(
    house: &House,
    admission: Admission,
    outbox: &Outbox,
    head: Head,
) -> Option<(Vec<u8>, Vec<u8>, JoinRequest)> {
    let answer = match admission {
        Admission::TooMany => {
            Err(HttpRefusal::unavailable("too many clients are connected; come back later"))
        }
        Admission::Client => upgrade(&head.request, &house.config.allow_origins),
    };
    match answer {
        Ok((response, mut join)) => {
            if let Some(cap) = house.config.history_limit {
                join.resume.limit = Some(join.resume.limit.unwrap_or(cap).min(cap));
            }
            Some((response, head.received, join))
        }
        Err(refused) => {
            refuse(outbox, head.request.method(), &refused);
            None
        }
    }
}

fn refuse(outbox: &Outbox, method: &Method, refused: &HttpRefusal) {
    debug!("refused with {}", refused.status);
    // A fresh socket has room for it; a peer that filled its own is past helping.
    let _ = outbox.send_now(&refused.response(method));
    linger(outbox.socket());
}
