//! What stands for a cluster in a server that is built without the cargo feature `cluster`.
//!
//! It has the names and the signatures of `cluster.rs`, so that nobody else needs to know. There is no
//! [`EngineUrl`], hence no settings and no copy, and nothing here is ever called.

use std::{collections::HashMap, convert::Infallible, fmt, io, path::Path, sync::Arc};

use crossbeam_channel::Receiver;

use crate::{
    command::{HubHandle, Post},
    config::{Config, EngineUrl},
    history::History,
    journal::{Fatal, Journal, OpenError},
    name::Name,
    wire::ErrorAnswer,
};

/// What the threads of a channel's copy are told.
#[derive(Debug)]
pub struct Settings(Infallible);

impl Settings {
    /// None.
    pub fn of(config: &Config, _: &Name, _: &Path) -> Option<Settings> {
        config.cluster.as_ref().map(|url| match *url {})
    }

    /// Connects to the engine.
    ///
    /// # Errors
    /// Never.
    pub fn connect(&self) -> Result<Engine, EngineError> {
        match self.0 {}
    }

    /// Puts the channel away.
    ///
    /// # Errors
    /// Never.
    pub fn put_away(&self, _: &str) -> Result<(), EngineError> {
        match self.0 {}
    }
}

/// A connection to the engine.
#[derive(Debug)]
pub struct Engine(Infallible);

impl Engine {
    /// The channels of the cluster.
    ///
    /// # Errors
    /// Never.
    pub fn channels(&mut self) -> Result<HashMap<String, String>, EngineError> {
        match self.0 {}
    }

    /// Tells all nodes of a channel.
    ///
    /// # Errors
    /// Never.
    pub fn take_up(&mut self, _: &Name, _: &str) -> Result<(), EngineError> {
        match self.0 {}
    }
}

/// Why an engine cannot be used.
#[derive(Debug)]
pub struct EngineError(Infallible);

impl EngineError {
    /// Whether the engine refused something.
    pub fn is_refusal(&self) -> bool {
        match self.0 {}
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

/// The threads that all channels of a node share.
#[derive(Debug)]
pub struct Threads(Infallible);

impl Threads {
    /// Starts the threads of a node.
    ///
    /// # Errors
    /// Never.
    pub fn start(url: &EngineUrl) -> io::Result<Threads> {
        match *url {}
    }
}

/// A channel's file that was opened as a copy of its order.
#[derive(Debug)]
pub struct OpenCopy(Infallible);

impl OpenCopy {
    /// What its threads share.
    pub fn link(&self) -> Arc<Link> {
        match self.0 {}
    }

    /// Has the threads of the node serve the copy.
    ///
    /// # Errors
    /// Never.
    pub fn start(self, _: &Threads, _: HubHandle, _: Receiver<Post>) -> io::Result<()> {
        match self.0 {}
    }
}

/// What the threads of a copy share.
#[derive(Debug)]
pub struct Link(Infallible);

impl Link {
    /// The node's name in this channel.
    pub fn node_name(&self) -> &str {
        match self.0 {}
    }

    /// Whether the engine is there and gives out numbers.
    pub fn is_up(&self) -> bool {
        match self.0 {}
    }

    /// Notes how far the file has come.
    pub fn set_applied(&self, _: u64, _: u64) {
        match self.0 {}
    }

    /// Notes why the hub refuses posts.
    pub fn set_refusal(&self, _: Option<ErrorAnswer>) {
        match self.0 {}
    }

    /// Notes that a batch of this node came back.
    pub fn set_returned(&self, _: u64) {
        match self.0 {}
    }

    /// Has the threads end.
    pub fn stop(&self) {
        match self.0 {}
    }

    /// The hub has ended.
    pub fn end(&self) {
        match self.0 {}
    }

    /// The metrics of the copy.
    pub fn render(&self) -> String {
        match self.0 {}
    }
}

/// Why a copy cannot be served.
#[derive(Debug)]
pub enum CopyError {
    /// It cannot be opened.
    Open(OpenError),
    /// It cannot join the order.
    Order(Fatal),
    /// Its channel was put away on another node.
    PutAway(Box<(Journal, History)>),
}

/// Opens a channel's file as a copy.
///
/// # Errors
/// Never.
pub fn open_as_copy(
    settings: Settings,
    _: Option<&Threads>,
    _: bool,
    _: impl Fn() -> Result<(Journal, History), OpenError>,
) -> Result<(Journal, History, OpenCopy), CopyError> {
    match settings.0 {}
}
