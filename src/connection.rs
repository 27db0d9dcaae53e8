//! One connection: requests, answered one after the other, until one of them makes it a chat.
//!
//! A connection has a thread to itself until it ends. The thread waits for the peer, never the other
//! way round, and nothing here is shared between two connections but `ServerContext`.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use http::{Method, Request};
use log::debug;

use crate::{
    access::{Access, Caller, Counted, Permit, Right},
    catch_up::CatchUp,
    channels::{Channels, NoChannel, stopping},
    client::{self, JoinRequest, Services},
    command::HubHandle,
    config::Config,
    history::Resume,
    http::{Head, HttpRefusal, ReadError, head::read_head},
    metrics::Metrics,
    name::Name,
    outbox::Outbox,
    route::Resource,
    socket::linger,
    summary::Summary,
    upgrade::upgrade,
    web::{Then, Web},
};

/// How long a client that comes from another node waits until this one has what it has heard there. Nodes
/// are some milliseconds apart, as a rule.
const NODES_APART: Duration = Duration::from_secs(1);

/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(5);

/// What every connection's thread is given.
#[derive(Clone, Debug)]
pub(crate) struct ServerContext {
    pub(crate) channels: Channels,
    pub(crate) catch_up: CatchUp,
    pub(crate) metrics: Arc<Metrics>,
    /// Held by the accept loop and by every connection that is answering somebody.
    pub(crate) alive: Weak<Sender<Infallible>>,
    pub(crate) access: Arc<Access>,
    pub(crate) config: Arc<Config>,
}

/// What a connection was accepted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// To be served.
    Client,
    /// To be told that there are too many clients, unless it asks whether the server is well.
    TooMany,
    /// The same, since its address has too many.
    TooManyOfAddress,
}

/// Serves one connection from `peer` to its end.
pub(crate) fn converse(
    context: &ServerContext,
    admission: Admission,
    outbox: Arc<Outbox>,
    peer: IpAddr,
    number: u64,
) {
    let mut received = Vec::new();
    loop {
        let head = match read_head(outbox.socket(), received) {
            Ok(head) => head,
            Err(ReadError::PeerGone) => return,
            Err(ReadError::Refused(refusal)) => return refuse(&outbox, &Method::GET, &refusal),
        };
        let request = &head.request;
        let resource = Resource::at(request.uri().path());
        // From here to the answer, an orderly stop waits.
        let alive = context.alive.upgrade();
        // A request that comes during the stop is not served, even while others are waited for. Operators
        // see then that the server lives and is not ready.
        let may_ask = is_for_operators(&resource) || !context.channels.are_stopping();
        if alive.is_none() || !may_ask {
            return refuse(&outbox, request.method(), &stopping());
        }
        if admission != Admission::Client && !is_for_operators(&resource) {
            return refuse(&outbox, request.method(), &admission.refusal());
        }
        let caller = context.access.caller(request, &resource, peer);
        let _counted = match &caller {
            // A proxy has many connections, and each of its requests is counted for its own client.
            Ok(caller) if caller.address() != peer && !is_for_operators(&resource) => {
                match context.access.count_connection(caller.address()) {
                    Counted::Within(count) => count,
                    Counted::Above(_) | Counted::FarAbove => {
                        let refusal = Admission::TooManyOfAddress.refusal();
                        return refuse(&outbox, request.method(), &refusal);
                    }
                }
            }
            _ => None,
        };
        if let Resource::WebSocket(name) = &resource {
            return chat(context, outbox, head, name, caller, number);
        }
        let ServerContext { channels, metrics, config, .. } = context;
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

impl Admission {
    fn refusal(self) -> HttpRefusal {
        HttpRefusal::unavailable(match self {
            Admission::TooManyOfAddress => {
                "too many clients are connected from this address; come back later"
            }
            _ => "too many clients are connected; come back later",
        })
    }
}

/// Whether a resource tells operators how the server is. They must be answered however full it is.
fn is_for_operators(resource: &Resource) -> bool {
    matches!(resource, Resource::Health | Resource::Ready)
}

/// Serves one client of the chat.
fn chat(
    context: &ServerContext,
    outbox: Arc<Outbox>,
    head: Head,
    channel: &Name,
    caller: Result<Caller, HttpRefusal>,
    number: u64,
) {
    let admitted = caller.and_then(|caller| admit(&head.request, channel, caller, context));
    let Admitted { hub, permit, response, join } = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => return refuse(&outbox, head.request.method(), &refusal),
    };
    let received = head.received;
    // A client may stay for days, and its request takes more memory than everything else.
    drop(head.request);
    let ServerContext { catch_up, metrics, config, .. } = context;
    let (catch_up, metrics, config) = (catch_up.clone(), metrics.clone(), config.clone());
    let services = Services { hub, catch_up, metrics, config };
    if let Err(error) = client::serve(services, outbox.clone(), response, received, join, permit) {
        debug!("connection {number}: {error}");
        outbox.abort();
    }
}

/// A client that may join.
struct Admitted {
    hub: HubHandle,
    permit: Arc<Permit>,
    /// The response that makes it a chat.
    response: Vec<u8>,
    /// What it asks for, as far as the operator allows.
    join: JoinRequest,
}

/// Looks whether a request may join the chat of a channel.
fn admit(
    request: &Request<()>,
    channel: &Name,
    caller: Caller,
    context: &ServerContext,
) -> Result<Admitted, HttpRefusal> {
    Resource::WebSocket(channel.clone()).check(request.method(), request.uri().path())?;
    if !caller.may(Right::Read, channel) {
        return Err(NoChannel::Missing.refusal(channel));
    }
    let found = context.channels.find(channel).map_err(|none| none.refusal(channel))?;
    let permit = Arc::new(Permit::new(caller, channel.clone()));
    let (response, mut join) = upgrade(request)?;
    if let Some(cap) = context.config.history_limit {
        join.resume.limit = Some(join.resume.limit.unwrap_or(cap).min(cap));
    }
    if context.config.cluster.is_some() {
        wait_for_what_it_has(&join.resume, &found.summary);
    }
    Ok(Admitted { hub: found.hub, permit, response, join })
}

/// Waits a moment where a client has heard more on another node of a cluster than this node has yet. It
/// would be sent the whole history otherwise, since it seems to have lines that are not there.
fn wait_for_what_it_has(resume: &Resume, summary: &Summary) {
    let (Some(after), Some(epoch)) = (resume.after, &resume.epoch) else { return };
    let deadline = Instant::now() + NODES_APART;
    let is_behind = || **epoch == *summary.epoch() && summary.figures().last_id < after;
    while is_behind() && Instant::now() < deadline {
        thread::sleep(LOOK);
    }
}

fn refuse(outbox: &Outbox, method: &Method, refusal: &HttpRefusal) {
    debug!("refused with {}", refusal.status);
    // A fresh socket has room for it; a peer that filled its own is past helping.
    let _ = outbox.send_now(&refusal.response(method));
    linger(outbox.socket());
}
