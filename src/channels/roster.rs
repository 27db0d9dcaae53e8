//! The channels of a cluster: one that is made on a node is made on all.
//!
//! One thread asks the engine which channels there are, makes those that are missing here, and tells
//! the engine of those that it does not know.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use log::{debug, warn};

use super::{Channels, Room};
use crate::{
    cluster::{Engine, EngineError, Settings},
    name::Name,
};

/// How often the engine is asked. A channel is on all nodes within a second.
const EVERY: Duration = Duration::from_millis(400);

impl Channels {
    /// Starts the thread, if the server is in a cluster. It ends when the server stops.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn follow_roster(&self) -> io::Result<()> {
        let config = &self.room.config;
        let Some(url) = &config.cluster else { return Ok(()) };
        let settle = config.cluster_settle;
        let settings = Settings::new(url, &Name::default(), settle, config.file.clone());
        let room = Arc::downgrade(&self.room);
        thread::Builder::new().name("roster".into()).spawn(move || run(&room, &settings)).map(drop)
    }
}

fn run(room: &Weak<Room>, settings: &Settings) {
    let mut engine: Option<Engine> = None;
    let mut refused = HashSet::new();
    loop {
        let Some(room) = room.upgrade() else { return };
        if room.lock().running.is_none() {
            return;
        }
        if let Err(error) = look(&Channels { room }, settings, &mut engine, &mut refused) {
            // The reader says so.
            debug!("the engine does not tell its channels: {error}");
            engine = None;
        }
        thread::sleep(EVERY);
    }
}

fn look(
    channels: &Channels,
    settings: &Settings,
    engine: &mut Option<Engine>,
    refused: &mut HashSet<Name>,
) -> Result<(), EngineError> {
    let engine = match engine {
        Some(engine) => engine,
        none => none.insert(settings.connect()?),
    };
    let there: HashSet<Name> =
        engine.channels()?.iter().filter_map(|name| Name::parse(name).ok()).collect();
    let open = channels.open();
    for name in open.keys().filter(|name| !name.is_default() && !there.contains(*name)) {
        engine.add_channel(name)?;
    }
    for name in there.iter().filter(|name| !open.contains_key(*name)) {
        match channels.make(name) {
            Ok(_) => drop(refused.remove(name)),
            Err(why) => {
                if refused.insert(name.clone()) {
                    warn!("the cluster's channel {name} cannot be made here: {why}");
                }
            }
        }
    }
    Ok(())
}
