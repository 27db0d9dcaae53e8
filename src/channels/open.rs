//! Opening a channel's file, and the life of its hub's thread.

use std::{
    fs, io,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use crossbeam_channel::{Receiver, bounded};
use log::{debug, error, info, warn};

use super::{Channels, Entry, Made, NoChannel, Open, Shared, State};
use crate::{
    cluster::{self, CopyError, Link, OpenCopy, Settings, Threads},
    command::{self, QUEUE},
    config::Config,
    history::History,
    hub::{Hub, Role},
    journal::{self, Fatal, Journal, OpenError, is_full},
    lines::line_limit,
    name::Name,
    summary::Summary,
    threads::{self, HUB_STACK, USUAL_STACK},
};

/// Channels that are opened at a time: opening is mostly waiting for the disk.
const OPENERS: usize = 8;

/// How a hub has ended.
type Ended = Result<(), Fatal>;

/// A file that a hub can serve, and what makes it one of a cluster.
type Opened = (Journal, History, Option<OpenCopy>);

impl Channels {
    /// Starts the hub of the default channel, whose file is open. Its end is sent to the receiver, which
    /// is disconnected when the hub panicked.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub fn start_default(&self, opened: Opened) -> io::Result<Receiver<Result<(), Fatal>>> {
        let name = Name::default();
        let (ended, hub_ended) = bounded(1);
        self.shared.lock().channels.insert(name.clone(), Entry::opening());
        self.shared.start(&name, opened, move |done| {
            // Nobody waits for it when the process is about to end anyway.
            let _ = ended.send(done);
        })?;
        Ok(hub_ended)
    }

    /// Opens all channels in the folder, several at a time.
    pub fn open_folder(&self) {
        let found = names_in(&self.shared.folder).unwrap_or_default();
        let names = self.shared.take_up(found);
        if !names.is_empty() {
            self.shared.open_all(&names);
            info!("channels in {}: {}", self.shared.folder.display(), names.len());
        }
    }
}

impl Shared {
    /// Opens channels that are noted down as being opened.
    pub(super) fn open_all(self: &Arc<Shared>, names: &[Name]) {
        self.open_all_with(names, USUAL_STACK);
    }

    /// The same with helpers that have such a stack. Where no more of them can be started, there are fewer: this
    /// thread opens what they do not.
    pub(super) fn open_all_with(self: &Arc<Shared>, names: &[Name], stack: usize) {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(name) = names.get(next.fetch_add(1, Relaxed)) {
                self.open(name);
            }
        };
        thread::scope(|scope| {
            for _ in 1..OPENERS.min(names.len()) {
                if let Err(error) = threads::spawn_scoped(scope, "open", stack, work) {
                    warn!("channels are opened by fewer threads than at other times: {error}");
                    break;
                }
            }
            work();
        });
    }

    /// Opens a channel that is noted down as being opened; afterwards it is open, or has ended, or is
    /// not there any more.
    pub(super) fn open(self: &Arc<Shared>, name: &Name) {
        self.open_under(name, None);
    }

    /// The same; a file that is empty has this epoch afterwards.
    fn open_under(self: &Arc<Shared>, name: &Name, epoch: Option<Arc<str>>) {
        // A panic ends neither the thread nor what else it is to open, and a channel is not left as
        // being opened.
        let opened = panic::catch_unwind(AssertUnwindSafe(|| self.try_open(name, epoch)));
        if let Err(why) = opened.unwrap_or_else(|_| Err("opening it failed, by a bug".into())) {
            self.note(name, |entry| {
                entry.state = State::Ended;
                entry.why = why;
            });
        }
    }

    /// Opens a channel and starts its hub. One that is not there any more is forgotten.
    ///
    /// # Errors
    /// When it cannot be served; why, for a stranger.
    fn try_open(self: &Arc<Shared>, name: &Name, epoch: Option<Arc<str>>) -> Result<(), String> {
        let config = &self.config;
        let path = self.path(name);
        let open = || {
            let opened = Journal::open_in_folder(&path, config.fsync, config.max_message);
            let (mut journal, history) = opened?;
            if let Some(epoch) = epoch.clone().filter(|_| history.end() == 0) {
                let taken = journal.take_epoch(epoch, &history);
                taken.map_err(|why| OpenError::Failed(path.clone(), why))?;
            }
            Ok((journal, history))
        };
        let opened = match open_file(config, self.threads.as_ref(), name, &path, open) {
            Ok(opened) => opened,
            Err(CopyError::Open(error)) if is_missing(&error) => {
                self.forget(name);
                return Ok(());
            }
            Err(CopyError::Open(error)) => {
                let why = reason(&error);
                // Every request tries it again, and the log says it once.
                if self.lock().channels.get(name).is_none_or(|entry| entry.why != why) {
                    error!("channel {name} cannot be served: {error}");
                }
                return Err(why);
            }
            Err(CopyError::Order(fatal)) => {
                error!("channel {name} cannot be served: {fatal}");
                return Err(fatal.to_string());
            }
            Err(CopyError::PutAway(opened)) => {
                put_away(*opened)
                    .map_err(|why| format!("its file cannot be put away ({})", why.kind()))?;
                self.forget(name);
                return Ok(());
            }
        };
        let (shared, of) = (Arc::downgrade(self), name.clone());
        let ended = move |done| {
            // When all handles of the channels are gone, nobody asks for this one.
            if let Some(shared) = shared.upgrade() {
                shared.ended(&of, done);
            }
        };
        self.start(name, opened, ended).map_err(|error| {
            if self.lock().running.is_none() {
                debug!("channel {name} is not opened: {error}");
                return "the server is stopping".into();
            }
            error!("channel {name}: cannot start a thread for it: {error}");
            "the server has no room for one more".into()
        })
    }

    /// Makes the file of a channel that is noted down as being opened, under this epoch if it is given,
    /// and opens it.
    pub(super) fn make(
        self: &Arc<Shared>,
        name: &Name,
        epoch: Option<Arc<str>>,
    ) -> Result<Made, NoChannel> {
        let path = self.path(name);
        let made = match journal::create(&path) {
            Ok(()) => Made::Now,
            // Somebody put a file there a moment ago.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Made::Before,
            Err(error) => {
                if !is_full(&error) {
                    warn!("{} cannot be made: {error}", path.display());
                }
                self.forget(name);
                return Err(NoChannel::NoFile(error));
            }
        };
        self.open_under(name, epoch);
        let table = self.lock();
        let why = match table.channels.get(name).map(|entry| (&entry.state, &entry.why)) {
            Some((State::Ended, why)) => why.clone(),
            Some(_) => {
                info!("channel {name} was made");
                return Ok(made);
            }
            // Somebody took it away already.
            None => return Err(NoChannel::Missing),
        };
        drop(table);
        if made == Made::Now && fs::metadata(&path).is_ok_and(|meta| meta.len() == 0) {
            // Nothing of what was refused is left.
            let _ = fs::remove_file(&path);
            self.forget(name);
        }
        Err(NoChannel::Unavailable(why))
    }

    /// Starts the thread of a hub; `ended` is told, when the file is closed, how it ended.
    fn start(
        self: &Arc<Shared>,
        name: &Name,
        (journal, history, copy): Opened,
        ended: impl FnOnce(Ended) + Send + 'static,
    ) -> io::Result<()> {
        let role = Role::of(name);
        let (notifier, comings) = (self.notifier.clone(), self.comings.clone());
        let (epoch, file) = (journal.epoch().clone(), journal.identity());
        let summary = Arc::new(Summary::new(epoch, file, notifier, comings));
        let (posts, waiting) = bounded(QUEUE);
        let (handle, commands) = command::queue(copy.is_some().then_some(posts));
        let mut hub = Hub::new(
            journal,
            history,
            line_limit(self.config.max_message),
            self.metrics.clone(),
            self.catch_up.clone(),
            handle.downgrade(),
            summary.clone(),
        );
        let mut linked = None;
        if let Some((copy, threads)) = copy.zip(self.threads.as_ref()) {
            let link = copy.link();
            hub = hub.with_link(link.clone());
            // The threads of the copy end with the hub, or when it cannot be started.
            linked = Some(Linked(link.clone()));
            copy.start(threads, handle.clone(), waiting)?;
            if role == Role::Default {
                // There is one default channel.
                let _ = self.link.set(link);
            }
        }
        let running = {
            let mut table = self.lock();
            let running = table.running.clone();
            if running.is_none() {
                // The thread that stops the server has not seen this one, and would not tell it.
                return Err(io::Error::other("the server is stopping"));
            }
            // Before the hub can end.
            if let Some(entry) = table.channels.get_mut(name) {
                entry.summary = Some(summary.clone());
                entry.state = State::Open(Open { hub: handle, summary });
                entry.why.clear();
            }
            running.filter(|_| role == Role::Channel)
        };
        self.tell();
        let run = move || {
            let done = hub.run(&commands, role);
            drop(linked);
            ended(done);
            drop(running);
            commands.drop_all();
        };
        threads::spawn(format!("hub-{name}"), HUB_STACK, run).map(drop)
    }

    /// The hub of a channel has ended, and its file is closed.
    fn ended(&self, name: &Name, done: Ended) {
        let is_gone = fs::symlink_metadata(self.path(name)).is_err_and(|error| is_gone(&error));
        match done {
            Err(fatal) if !is_gone => self.note(name, |entry| {
                entry.state = State::Ended;
                entry.why = match fatal {
                    Fatal::Storage(why) => format!("its file failed ({})", why.kind()),
                    Fatal::Changed(_) => "its file was replaced".to_owned(),
                    Fatal::Forked(what) | Fatal::CannotJoin(what) => what,
                    Fatal::Panicked => "its hub ended, by a bug".to_owned(),
                };
            }),
            Ok(()) if self.lock().running.is_none() => {
                self.note(name, |entry| entry.state = State::Ended);
            }
            // Put away, or taken away.
            _ => self.forget(name),
        }
    }

    /// Notes down those of the names that are new, as far as there may be more; they are to be opened.
    pub(super) fn take_up(&self, found: Vec<Name>) -> Vec<Name> {
        let mut table = self.lock();
        if table.running.is_none() {
            return Vec::new();
        }
        let mut new: Vec<_> =
            found.into_iter().filter(|name| !table.channels.contains_key(name)).collect();
        new.truncate(self.most.count.saturating_sub(table.count()));
        for name in &new {
            table.channels.insert(name.clone(), Entry::opening());
        }
        new
    }
}

/// Whether a look at a file failed since there is none. Where it failed otherwise, the disk may answer
/// the next one, or the folder may be open to us again.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether a file cannot be opened since there is none.
fn is_missing(error: &OpenError) -> bool {
    match error {
        OpenError::NoFolder(_) => true,
        OpenError::Unusable(_, why) | OpenError::Lock(_, why) => is_gone(why),
        _ => false,
    }
}

/// Ends the threads of a copy when it is dropped.
struct Linked(Arc<Link>);

impl Drop for Linked {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Opens the text file of a channel by `open`, with its stamps and operations. On a node of a cluster
/// it is made a copy of the order first; its threads are those of the node, if they were started.
///
/// # Errors
/// When it cannot be opened, or cannot join the order, or its channel was put away on another node.
pub fn open_file(
    config: &Config,
    threads: Option<&Threads>,
    name: &Name,
    path: &Path,
    open: impl Fn() -> Result<(Journal, History), OpenError>,
) -> Result<Opened, CopyError> {
    match Settings::of(config, name, path) {
        None => open()
            .map_err(CopyError::Open)
            .and_then(|(journal, history)| complete(config, journal, history, None)),
        Some(settings) => cluster::open_as_copy(settings, threads, !config.no_stamps, open)
            .and_then(|(journal, history, copy)| complete(config, journal, history, Some(copy))),
    }
}

/// Opens what belongs to a text file that is open. It is not a part of [`open_file`], since a client's
/// thread may open a channel, and its stack is small: what is to come takes none of it yet while the
/// engine is asked.
fn complete(
    config: &Config,
    mut journal: Journal,
    history: History,
    copy: Option<OpenCopy>,
) -> Result<Opened, CopyError> {
    if !config.no_stamps {
        journal = journal.with_stamps(&history).map_err(CopyError::Open)?;
    }
    let (journal, history) = journal.with_operations(history).map_err(CopyError::Open)?;
    Ok((journal, history, copy))
}

/// Puts the file of a channel away that was put away on another node; an empty one holds nothing, and is
/// removed.
fn put_away((mut journal, history): (Journal, History)) -> io::Result<()> {
    let path = journal.path().to_owned();
    if history.end() == 0 {
        fs::remove_file(&path)?;
        return journal.forget_epoch();
    }
    let away = journal.put_away_copy()?;
    info!("{}: put away on another node, and here as {}", path.display(), away.display());
    Ok(())
}

/// The channels of a folder, by name: its files that are named like channels.
///
/// # Errors
/// When the folder is there and cannot be read.
pub fn names_in(folder: &Path) -> io::Result<Vec<Name>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = PathBuf::from(entry?.file_name());
        let Some(text) = file.to_str().and_then(|text| text.strip_suffix(".txt")) else {
            continue;
        };
        // The default channel's file is elsewhere.
        names.extend(Name::parse(text).ok().filter(|name| !name.is_default()));
    }
    names.sort();
    Ok(names)
}

/// Why a file cannot be served, for a stranger: without a path.
fn reason(error: &OpenError) -> String {
    match error {
        OpenError::InUse(_) => "its file is in use by another server".into(),
        OpenError::NoFolder(_) => "its folder is not there".into(),
        OpenError::Unusable(_, why) if why.raw_os_error().is_none() => format!("its file {why}"),
        OpenError::Lock(_, why) if why.raw_os_error().is_none() => format!("its lock file {why}"),
        OpenError::Lock(_, why) => format!("its lock file cannot be opened ({})", why.kind()),
        OpenError::Stamps(_, why) if why.raw_os_error().is_none() => {
            format!("its stamps file {why}")
        }
        OpenError::Stamps(_, why) => format!("its stamps file cannot be opened ({})", why.kind()),
        OpenError::Unusable(_, why) | OpenError::Failed(_, why) => {
            format!("its file cannot be opened ({})", why.kind())
        }
    }
}
