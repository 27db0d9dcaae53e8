//! One connection: requests, answered one after the other, until one of them makes it a chat.
//!
//! A connection has a thread of its own, which ends with it. The thread waits for the peer, never
//! the other way round, and nothing here is shared between two connections but `House`.

use std::{
    convert::Infallible,
    sync::{Arc, Weak},
};

use crossbeam_channel::Sender;
use http::{Method, Request};
use log::debug;

use crate::{
    access::Caller,
    catch_up::CatchUp,
    channels::Channels,
    client::{self, JoinRequest, Services},
    command::HubHandle,
    config::Config,
    http::{Head, HeadError, HttpRefusal, head::read_head},
    metrics::Metrics,
    name::Name,
    outbox::Outbox,
    route::Resource,
    socket::linger,
    upgrade::upgrade,
    web::{Then, Web},
    websocket::Limits,
};

/// What every connection's thread is given.
#[derive(Clone, Debug)]
pub(crate) struct House {
    pub(crate) channels: Channels,
    pub(crate) catch_up: CatchUp,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    /// Held by the accept loop and by every connection that is answering somebody.
    pub(crate) alive: Weak<Sender<Infallible>>,
    pub(crate) config: Arc<Config>,
}

/// What a connection was accepted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// To be served.
    Client,
    /// To be told that there are too many clients, whatever it asks, but for whether the server is
    /// well.
    TooMany,
}

/// Serves one connection to its end.
pub(crate) fn converse(house: &House, admission: Admission, outbox: Arc<Outbox>, number: u64) {
    let mut received = Vec::new();
    loop {
        let head = match read_head(outbox.socket(), received) {
            Ok(head) => head,
            Err(HeadError::PeerGone | HeadError::Silent) => return,
            Err(HeadError::Refused(refusal)) => return refuse(&outbox, &Method::GET, &refusal),
        };
        // From here to the answer, an orderly stop waits.
        let Some(_alive) = house.alive.upgrade() else {
            let refusal = HttpRefusal::unavailable("the server is stopping; come back soon");
            return refuse(&outbox, head.request.method(), &refusal);
        };
        let request = &head.request;
        let resource = Resource::at(request.uri().path());
        if admission == Admission::TooMany && !is_for_operators(&resource) {
            let sentence = "too many clients are connected; come back later";
            return refuse(&outbox, request.method(), &HttpRefusal::unavailable(sentence));
        }
        let caller = Caller::of(request.headers(), &resource, &house.config.allow_origins);
        if let Resource::WebSocket(name) = &resource {
            return chat(house, outbox, head, name, caller, number);
        }
        let House { channels, metrics, config, .. } = house;
        let web = Web { outbox: &outbox, channels, metrics, config };
        match web.answer(request, resource, caller, head.received) {
            Then::Next(rest) => received = rest,
            Then::Close => {
                linger(outbox.socket());
                return;
            }
            Then::PeerGone => return outbox.abort(),
        }
    }
}

/// Whether somebody watches the server by it, who must be answered however full it is.
fn is_for_operators(resource: &Resource) -> bool {
    matches!(resource, Resource::Health | Resource::Ready)
}

/// Serves one client of the chat.
fn chat(
    house: &House,
    outbox: Arc<Outbox>,
    head: Head,
    channel: &Name,
    caller: Result<Caller, HttpRefusal>,
    number: u64,
) {
    let (hub, response, join) = match caller.and_then(|_| admit(&head.request, channel, house)) {
        Ok(admitted) => admitted,
        Err(refusal) => return refuse(&outbox, head.request.method(), &refusal),
    };
    let received = head.received;
    // A client may stay for days, and its request takes more memory than everything else.
    drop(head.request);
    let House { catch_up, metrics, limits, .. } = house;
    let (catch_up, metrics, limits) = (catch_up.clone(), metrics.clone(), *limits);
    let services = Services { hub, catch_up, metrics, limits };
    if let Err(error) = client::serve(services, outbox.clone(), response, received, join) {
        debug!("client-{number}: {error}");
        outbox.abort();
    }
}

/// The hub to join, the response that makes it a chat, and what the client asks for, as far as the
/// operator allows.
fn admit(
    request: &Request<()>,
    channel: &Name,
    house: &House,
) -> Result<(HubHandle, Vec<u8>, JoinRequest), HttpRefusal> {
    Resource::WebSocket(channel.clone()).check(request.method(), request.uri().path())?;
    let found = house.channels.find(channel).map_err(|none| none.refusal(channel))?;
    let (response, mut join) = upgrade(request)?;
    if let Some(cap) = house.config.history_limit {
        join.resume.limit = Some(join.resume.limit.unwrap_or(cap).min(cap));
    }
    Ok((found.hub, response, join))
}

fn refuse(outbox: &Outbox, method: &Method, refusal: &HttpRefusal) {
    debug!("refused with {}", refusal.status);
    // A fresh socket has room for it; a peer that filled its own is past helping.
    let _ = outbox.send_now(&refusal.response(method));
    linger(outbox.socket());
}
