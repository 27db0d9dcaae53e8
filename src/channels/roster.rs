//! The channels of a cluster: one that is made on a node is made on all.
//!
//! One thread asks the engine which channels there are, makes those that are missing here, and tells
//! the engine of those that it does not know, unless they were put away: their readers find that out.
//! A channel that is made here begins under the epoch under which it is known elsewhere, so that this
//! file is put away with the others even if nothing ever comes into it.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use log::{debug, warn};

use super::{Channels, NoChannel, Open, Shared};
use crate::{
    cluster::{Engine, EngineError, Settings},
    name::Name,
    threads::{self, NODE_STACK},
};

/// How often the engine is asked. A channel is on all nodes within a second.
const EVERY: Duration = Duration::from_millis(400);

/// A channel that cannot be made here is tried again after this long.
const AGAIN: Duration = Duration::from_secs(10);

/// The channels that could not be made here, each with the time of the next attempt.
type Refused = HashMap<Name, Instant>;

impl Channels {
    /// Starts the thread, if the server is in a cluster. It ends when the server stops.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn follow_roster(&self) -> io::Result<()> {
        let config = &self.shared.config;
        let settings = Settings::of(config, &Name::default(), &config.file);
        let Some(settings) = settings else { return Ok(()) };
        let shared = Arc::downgrade(&self.shared);
        threads::spawn("roster", NODE_STACK, move || run(&shared, &settings)).map(drop)
    }
}

fn run(shared: &Weak<Shared>, settings: &Settings) {
    let mut engine: Option<Engine> = None;
    let mut refused = Refused::new();
    let mut has_warned = false;
    loop {
        let Some(shared) = shared.upgrade() else { return };
        if shared.lock().running.is_none() {
            return;
        }
        match look(&Channels { shared }, settings, &mut engine, &mut refused) {
            Ok(()) => has_warned = false,
            Err(error) => {
                engine = None;
                // That it cannot be reached, and what it forbids, the reader says.
                if error.is_refusal() && !has_warned {
                    warn!("the engine refuses to share channels among the nodes: {error}");
                    has_warned = true;
                } else {
                    debug!("the engine does not tell its channels: {error}");
                }
            }
        }
        thread::sleep(EVERY);
    }
}

fn look(
    channels: &Channels,
    settings: &Settings,
    engine: &mut Option<Engine>,
    refused: &mut Refused,
) -> Result<(), EngineError> {
    let engine = match engine {
        Some(engine) => engine,
        none => none.insert(settings.connect()?),
    };
    let there = engine.channels()?.into_iter();
    let there: HashMap<Name, String> =
        there.filter_map(|(name, epoch)| Some((Name::parse(&name).ok()?, epoch))).collect();
    let open = channels.open();
    for (name, Open { summary, .. }) in open.iter().filter(|(name, _)| !there.contains_key(*name)) {
        if !name.is_default() {
            engine.take_up(name, &summary.epoch())?;
        }
    }
    // Names come and go without end.
    refused.retain(|name, _| there.contains_key(name) && !open.contains_key(name));
    let now = Instant::now();
    for (name, epoch) in there.iter().filter(|(name, _)| !open.contains_key(*name)) {
        if refused.get(name).is_some_and(|due| *due > now) {
            continue;
        }
        let is_epoch = !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_alphanumeric());
        match channels.make_under(name, is_epoch.then(|| epoch.as_str().into())) {
            // Where it is missing, it was put away meanwhile.
            Ok(_) | Err(NoChannel::Missing) => drop(refused.remove(name)),
            Err(why) => {
                if refused.insert(name.clone(), now + AGAIN).is_none() {
                    let why = why.refusal(name).sentence;
                    warn!("the cluster's channel {name} cannot be made here: {why}");
                }
            }
        }
    }
    Ok(())
}
