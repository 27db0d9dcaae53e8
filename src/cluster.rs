//! Many machines with one order: an engine gives out the numbers, and every node's file is a copy.
//!
//! The engine, Redis or Valkey, does one thing: it decides the order. Posts go to the *sequencer*,
//! which has the engine give numbers to them; the *reader* brings what the order has to the hub,
//! which writes and shows it. So every file has the same bytes, and a client that knows an id and the
//! epoch resumes on any node. A message counts as stored when the engine has answered and the line
//! has come back into this node's file.
//!
//! ```text
//! client-N --post--> queue --> sequencer --append--> engine
//! client-N --all else--> hub <--pieces-- reader <--XREAD-- engine
//! ```
//!
//! The design follows what a prototype was forced to: an entry is a batch of whole lines, each entry
//! carries a running hash, numbers come from a script, and nodes give back what an engine lost.

use std::{io, path::PathBuf, sync::Arc, thread, time::Duration};

use crossbeam_channel::Receiver;

use crate::{
    command::{HubHandle, Post},
    config::EngineUrl,
    history::History,
    journal::Journal,
    name::Name,
};

mod chain;
mod compare;
mod engine;
mod inbox;
mod link;
mod reader;
mod sequencer;
mod start;

pub use engine::{Engine, EngineError};
pub use link::Link;
pub use start::{CopyError, open_as_copy};

use engine::Keys;
use reader::{Ours, Reader};
use sequencer::Sequencer;

/// What the threads of a node are told.
#[derive(Debug)]
pub struct Settings {
    url: EngineUrl,
    keys: Keys,
    /// For how long an engine that was started gives out no numbers.
    settle: Duration,
    /// The node's text file.
    file: PathBuf,
}

impl Settings {
    /// Of the file of a channel.
    pub fn new(url: EngineUrl, name: &Name, settle: Duration, file: PathBuf) -> Settings {
        Settings { url, keys: Keys::of(name), settle, file }
    }

    /// Connects to the engine.
    ///
    /// # Errors
    /// When it cannot be reached, or is none that can be used.
    pub fn connect(&self) -> Result<Engine, EngineError> {
        Engine::connect(&self.url, self.keys.clone())
    }
}

/// The part of a node's file that has numbers when its threads start.
#[derive(Debug)]
pub struct Beginning {
    ours: Ours,
}

impl Beginning {
    /// Of a file that was just opened.
    pub fn of(journal: &Journal, history: &History) -> Beginning {
        Beginning {
            ours: Ours {
                file: journal.file().clone(),
                epoch: journal.epoch().clone(),
                last: history.last_id(),
                end: history.end(),
                chain: None,
            },
        }
    }
}

/// Starts the threads of a node: they end when the link is stopped, or the hub is gone.
///
/// # Errors
/// When a thread cannot be started.
pub fn start(
    settings: Settings,
    link: &Arc<Link>,
    beginning: Beginning,
    hub: HubHandle,
    posts: Receiver<Post>,
) -> io::Result<()> {
    let settings = Arc::new(settings);
    let ours = beginning.ours;
    link.applied(ours.last);
    let sequencer = Sequencer::new(settings.clone(), link.clone(), hub.clone(), posts);
    spawn("sequencer", move || sequencer.run())?;
    let (inbox_settings, inbox_link, inbox_hub) = (settings.clone(), link.clone(), hub.clone());
    spawn("inbox", move || inbox::run(&inbox_settings.file, &inbox_link, &inbox_hub))?;
    let reader = Reader::new(settings, link.clone(), hub, ours);
    spawn("reader", move || reader.run())
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(run).map(drop)
}
