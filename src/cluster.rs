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
//! Each channel has a sequencer, which is connected while somebody posts there. One reader and one
//! inbox serve all channels of a node.
//!
//! An entry of the order is a batch of whole lines. Each entry carries a running hash, which shows whether
//! a file is the beginning of the order. A script gives out the numbers, so that nothing comes in between,
//! and nodes give back what an engine lost.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use log::warn;

use crate::{
    command::{HubHandle, Post},
    config::{Config, EngineUrl},
    journal::Fatal,
    name::Name,
    threads::{self, NODE_STACK},
};

mod back_off;
mod chain;
mod compare;
mod complaint;
mod engine;
mod inbox;
mod link;
mod mirror;
mod own_file;
mod reader;
mod sequencer;
mod start;
mod under_way;

pub use engine::{Engine, EngineError};
pub use link::Link;
pub use start::{CopyError, open_as_copy};

use engine::Keys;
use inbox::Inbox;
use mirror::Mirror;
use own_file::OwnFile;
use reader::Reader;
use sequencer::Sequencer;

/// What the threads of a channel's copy are told.
#[derive(Clone, Debug)]
pub struct Settings {
    url: EngineUrl,
    keys: Keys,
    /// For how long an engine that was started gives out no numbers.
    settle: Duration,
    /// The node's text file.
    file: PathBuf,
}

impl Settings {
    /// Of a channel with this file; `None` for a server that is alone.
    pub fn of(config: &Config, name: &Name, file: &Path) -> Option<Settings> {
        let (url, settle) = (config.cluster.clone()?, config.cluster_settle);
        Some(Settings { url, keys: Keys::of(name), settle, file: file.to_owned() })
    }

    /// Connects to the engine.
    ///
    /// # Errors
    /// When it cannot be reached, or is none that can be used.
    pub fn connect(&self) -> Result<Engine, EngineError> {
        Engine::connect(&self.url)
    }

    /// Takes out of the stream what is not in the order, and keeps the next entry from it.
    ///
    /// # Errors
    /// When the engine gives no answer.
    fn cleanse(&self, engine: &mut Engine) -> Result<(), EngineError> {
        let strays = engine.cleanse(&self.keys)?;
        if strays > 0 {
            let path = self.file.display();
            warn!("{path}: the stream had {strays} entries that no node had added; taken out");
        }
        Ok(())
    }

    /// Puts the channel away on all nodes; see [`Engine::put_away`]. This node's file has this epoch.
    ///
    /// # Errors
    /// When the engine cannot be reached or gives no answer.
    pub fn put_away(&self, epoch: &str) -> Result<(), EngineError> {
        self.connect()?.put_away(&self.keys, epoch)
    }
}

/// For so long after an attempt that failed, channels are opened without another one. A thousand that each
/// waited for an engine that hangs would take minutes.
const ABSENT: Duration = Duration::from_secs(10);

/// The threads that all channels of a node share.
#[derive(Debug)]
pub struct Threads {
    // No more wait in these queues than there are channels.
    mirrors: Sender<Mirror>,
    inboxes: Sender<Inbox>,
    /// When a channel that was opened could not reach the engine for the last time.
    missed: Mutex<Option<Instant>>,
}

impl Threads {
    /// Starts the threads of a node. They end when this value and all channels are gone.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start(url: &EngineUrl) -> io::Result<Threads> {
        let (mirrors, new) = unbounded();
        let reader = Reader::new(url.clone(), new);
        threads::spawn("reader", NODE_STACK, move || reader.run())?;
        let (inboxes, new) = unbounded();
        threads::spawn("inbox", NODE_STACK, move || inbox::run(&new))?;
        Ok(Threads { mirrors, inboxes, missed: Mutex::new(None) })
    }

    /// Connects to the engine for a channel that is being opened.
    ///
    /// # Errors
    /// As with [`Settings::connect`], and when another channel could not a moment ago.
    fn connect(&self, settings: &Settings) -> Result<Engine, EngineError> {
        let missed = || self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if missed().is_some_and(|at| at.elapsed() < ABSENT) {
            return Err(EngineError::Unfit("it was unavailable a moment ago".into()));
        }
        settings.connect().inspect_err(|_| *missed() = Some(Instant::now()))
    }
}

/// A channel's file that was opened as a copy of its order, before anything serves it.
#[derive(Debug)]
pub struct OpenCopy {
    settings: Settings,
    link: Arc<Link>,
    own: OwnFile,
}

impl OpenCopy {
    /// Of a file that was just opened.
    fn new(settings: Settings, own: OwnFile) -> io::Result<OpenCopy> {
        let link = Arc::new(Link::new().map_err(io::Error::other)?);
        Ok(OpenCopy { settings, link, own })
    }

    /// What its threads share.
    pub fn link(&self) -> Arc<Link> {
        self.link.clone()
    }

    /// Has the threads of the node serve the copy, until the link is stopped or the hub is gone.
    ///
    /// # Errors
    /// When its sequencer cannot be started.
    pub fn start(self, threads: &Threads, hub: HubHandle, posts: Receiver<Post>) -> io::Result<()> {
        let OpenCopy { settings, link, own } = self;
        let settings = Arc::new(settings);
        let sequencer = Sequencer::new(settings.clone(), link.clone(), hub.clone(), posts);
        threads::spawn("sequencer", NODE_STACK, move || sequencer.run())?;
        let gone = || io::Error::other("the threads of the cluster have ended");
        let inbox = Inbox::new(settings.clone(), link.clone(), hub.clone());
        threads.inboxes.send(inbox).map_err(|_| gone())?;
        threads.mirrors.send(Mirror::new(settings, link, hub, own)).map_err(|_| gone())
    }
}

/// Why a copy does not go on, or not now.
#[derive(Debug)]
enum Trouble {
    /// The engine is unavailable, or is none that can be used.
    Engine(EngineError),
    /// The channel must end.
    Fatal(Fatal),
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Trouble {
        Trouble::Engine(error)
    }
}

/// The file cannot be read.
impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Fatal(Fatal::Storage(error))
    }
}

/// Lets go what is over and takes in what is new; waits while there is nothing. False when nothing can
/// come any more.
fn refresh<T>(new: &Receiver<T>, all: &mut Vec<T>, is_over: impl Fn(&T) -> bool) -> bool {
    all.retain(|one| !is_over(one));
    all.extend(new.try_iter());
    if all.is_empty() {
        all.extend(new.recv());
    }
    !all.is_empty()
}
