//! The channels of one server, by name: what finds a hub, opens one, and lets go of one that ended.
//!
//! Each channel is a text file with a hub of its own; this alone finds a channel by its name.
//! Its one lock is held to look something up or to note it down, never while anything waits for a
//! disk or a client. A channel that is open belongs to its hub's thread, which alone takes it off
//! the table when it ends; one that is not open belongs to the thread that opens it.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::warn;

use crate::{
    catch_up::CatchUp,
    cluster::{Link, Settings, Threads},
    command::{HubGone, HubHandle},
    config::Config,
    metrics::{Levels, Metrics},
    name::Name,
    summary::{Figures, Notifier, Summary},
};

mod no_channel;
mod open;
mod roster;
mod watch;

pub use no_channel::{NoChannel, stopping};
pub use open::{names_in, open_file};

/// How often a channel that ended is opened anew, at the most.
const REOPEN: Duration = Duration::from_secs(10);

/// How long a request waits for a channel that is being opened: longer than a file of a gigabyte needs.
const OPEN_TIME: Duration = Duration::from_secs(10);

/// How long a stop waits at a time for a hub that is busy, before it turns to the next one: long enough
/// to be among those who wait for room in its queue, and a hundred that hang delay others by a second.
const TURN: Duration = Duration::from_millis(10);

/// How many channels there may be beside the default one.
#[derive(Clone, Debug)]
pub struct Most {
    /// So many.
    pub count: usize,
    /// The limit of this machine that allows no more; `None` where `--max-channels` does.
    pub limit: Option<String>,
}

/// All channels of one server.
#[derive(Clone, Debug)]
pub struct Channels {
    shared: Arc<Shared>,
}

/// What the handles of the channels share.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    most: Most,
    config: Config,
    metrics: Arc<Metrics>,
    catch_up: CatchUp,
    /// What serves the channels of a node; `None` for a server that is alone.
    threads: Option<Threads>,
    /// What the threads of the default channel's copy share, if there is a cluster.
    link: OnceLock<Arc<Link>>,
    notifier: Arc<Notifier>,
    comings: Arc<Notifier>,
    generation: AtomicU64,
    table: Mutex<Table>,
    /// Told when a channel was opened or has ended.
    changed: Condvar,
}

#[derive(Debug)]
struct Table {
    channels: BTreeMap<Name, Entry>,
    /// Held by every hub's thread that is not the default channel's; gone when the server stops.
    running: Option<Sender<Infallible>>,
}

/// What is known of one channel.
#[derive(Debug)]
struct Entry {
    state: State,
    /// What its hub says, or said last; `None` when it was never open.
    summary: Option<Arc<Summary>>,
    /// Why it was not open last, for a person.
    why: String,
    /// When it was opened anew for the last time.
    reopened: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Opening,
    Open(Open),
    Ended,
}

/// A channel that is open.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its hub, to be asked.
    pub hub: HubHandle,
    /// How far it is.
    pub summary: Arc<Summary>,
}

impl Open {
    /// Whether both are the same opening of the same file.
    pub fn is(&self, other: &Open) -> bool {
        Arc::ptr_eq(&self.summary, &other.summary)
    }
}

impl Entry {
    fn opening() -> Entry {
        Entry { state: State::Opening, summary: None, why: String::new(), reopened: None }
    }
}

/// A channel as a list has it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: Name,
    /// How far it was when it was listed.
    pub figures: Figures,
    /// The name that its numbering had then.
    pub epoch: Arc<str>,
    /// How far it is.
    pub summary: Arc<Summary>,
}

/// Whether a channel that was to be made was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is new.
    Now,
    /// It was there before.
    Before,
}

impl Listed {
    /// A channel as it is now.
    pub fn new(name: Name, summary: Arc<Summary>) -> Listed {
        Listed { name, figures: summary.figures(), epoch: summary.epoch(), summary }
    }

    /// Looks again; returns whether a list has something else to say of it.
    pub fn look_again(&mut self) -> bool {
        let before = self.clone();
        (self.figures, self.epoch) = (self.summary.figures(), self.summary.epoch());
        self.differs_from(&before)
    }

    /// Whether a list that had this says something else now.
    pub fn differs_from(&self, before: &Listed) -> bool {
        self.epoch != before.epoch || self.figures.differ_in_what_was_said(&before.figures)
    }
}

impl Channels {
    /// The channels of a server, none of which is open yet, and a queue that is disconnected when
    /// the server stops and all hubs but the default channel's are gone. At most `most` channels
    /// are taken from the folder. A node of a cluster has `threads`.
    pub fn new(
        config: &Config,
        most: Most,
        metrics: Arc<Metrics>,
        catch_up: CatchUp,
        threads: Option<Threads>,
    ) -> (Channels, Receiver<Infallible>) {
        let (running, ended) = bounded(0);
        let shared = Shared {
            folder: config.channels_folder(),
            most,
            config: config.clone(),
            metrics,
            catch_up,
            threads,
            link: OnceLock::new(),
            notifier: Arc::default(),
            comings: Arc::default(),
            generation: AtomicU64::new(0),
            table: Mutex::new(Table { channels: BTreeMap::new(), running: Some(running) }),
            changed: Condvar::new(),
        };
        (Channels { shared: Arc::new(shared) }, ended)
    }

    /// A channel. One that ended is opened anew, if that was not tried lately.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, name: &Name) -> Result<Open, NoChannel> {
        let deadline = Instant::now() + OPEN_TIME;
        let mut table = self.shared.lock();
        loop {
            let is_stopping = table.running.is_none();
            let Some(entry) = table.channels.get_mut(name) else { return Err(NoChannel::Missing) };
            match &entry.state {
                // Where the default channel ends, the server does.
                State::Open(open) if name.is_default() || !open.summary.is_ending() => {
                    return Ok(open.clone());
                }
                _ if is_stopping => return Err(NoChannel::Stopping),
                State::Opening | State::Open(_) => table = self.shared.wait(table, deadline)?,
                State::Ended if entry.reopened.is_some_and(|last| last.elapsed() < REOPEN) => {
                    return Err(NoChannel::Unavailable(entry.why.clone()));
                }
                State::Ended => {
                    entry.state = State::Opening;
                    entry.reopened = Some(Instant::now());
                    drop(table);
                    self.shared.open(name);
                    table = self.shared.lock();
                }
            }
        }
    }

    /// Makes a channel that is not there. It is on disk afterwards, with its file and its folder.
    ///
    /// # Errors
    /// When it cannot be made, or is there and cannot be served.
    pub fn make(&self, name: &Name) -> Result<Made, NoChannel> {
        self.make_under(name, None)
    }

    /// The same under an epoch that is known elsewhere.
    fn make_under(&self, name: &Name, epoch: Option<Arc<str>>) -> Result<Made, NoChannel> {
        let mut table = self.shared.lock();
        if !table.channels.contains_key(name) {
            if table.running.is_none() {
                return Err(NoChannel::Stopping);
            }
            if table.count() >= self.shared.most.count {
                return Err(NoChannel::TooMany(self.shared.most.clone()));
            }
            table.channels.insert(name.clone(), Entry::opening());
            drop(table);
            return self.shared.make(name, epoch);
        }
        drop(table);
        self.find(name).map(|_| Made::Before)
    }

    /// Puts a channel away: its clients are told, and its file gets another name.
    ///
    /// # Errors
    /// When there is none, or its file cannot get another name; then all is as it was.
    pub fn put_away(&self, name: &Name) -> Result<(), NoChannel> {
        let found = self.find(name)?;
        let cluster = Settings::of(&self.shared.config, name, &self.shared.path(name));
        if let Some(settings) = &cluster {
            put_away_on_all(settings, name, &found)?;
        }
        match found.hub.put_away() {
            Ok(done) => done.map_err(NoChannel::NotPutAway)?,
            // Its reader was told, and has put it away already.
            Err(HubGone) if cluster.is_some() => {}
            Err(HubGone) => return Err(NoChannel::Unavailable("it ended just now".into())),
        }
        let deadline = Instant::now() + OPEN_TIME;
        let mut table = self.shared.lock();
        let is_it = |entry: &Entry| matches!(&entry.state, State::Open(open) if open.is(&found));
        while table.channels.get(name).is_some_and(is_it) {
            table = self.shared.wait(table, deadline)?;
        }
        Ok(())
    }

    /// All channels that are or were open, by name.
    pub fn list(&self) -> Vec<Listed> {
        let table = self.shared.lock();
        let listed = |(name, entry): (&Name, &Entry)| {
            Some(Listed::new(name.clone(), entry.summary.clone()?))
        };
        table.channels.iter().filter_map(listed).collect()
    }

    /// Those that are open now, by name.
    pub fn open(&self) -> BTreeMap<Name, Open> {
        self.shared.open_ones()
    }

    /// A number that is another one whenever a channel has come or gone.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(SeqCst)
    }

    /// Wakes those who follow when a channel has more, comes or goes.
    pub fn notifier(&self) -> &Notifier {
        &self.shared.notifier
    }

    /// The same when a channel comes or goes or takes another epoch, and not when it has more.
    pub fn comings(&self) -> &Notifier {
        &self.shared.comings
    }

    /// What goes up and down, summed over all channels that are open.
    pub fn levels(&self) -> Levels {
        let mut levels = Levels::default();
        let table = self.shared.lock();
        for entry in table.channels.values() {
            let State::Open(open) = &entry.state else { continue };
            let figures = open.summary.figures();
            levels.channels += 1;
            levels.clients += figures.clients;
            levels.clients_behind += figures.clients_behind;
            levels.file_bytes += figures.file_bytes;
            levels.messages += figures.messages;
        }
        levels
    }

    /// Has all hubs look who may still read, and wakes all followers.
    pub fn check_rights(&self) {
        self.shared.open_ones().values().for_each(|open| open.hub.check_rights());
        self.shared.notifier.tell();
        self.shared.comings.tell();
    }

    /// What the threads of the default channel's copy share; `None` for a server that is alone.
    pub fn link(&self) -> Option<&Link> {
        self.shared.link.get().map(|link| &**link)
    }

    /// Whether the server is about to end.
    pub fn are_stopping(&self) -> bool {
        self.shared.lock().running.is_none()
    }

    /// Asks all hubs to end in order. No channel is opened any more.
    pub fn stop(&self, deadline: Instant) {
        self.shared.lock().running = None;
        self.shared.link.get().into_iter().for_each(|link| link.stop());
        let open = self.shared.open_ones();
        self.shared.changed.notify_all();
        self.shared.notifier.end();
        self.shared.comings.end();
        // A hub whose disk hangs delays none of the others: at first none is waited for, and then
        // those that are busy are in turn.
        let mut turn = Duration::ZERO;
        let mut busy: Vec<_> = open.into_values().collect();
        while !busy.is_empty() {
            busy.retain(|open| !open.hub.stop(deadline.min(Instant::now() + turn)));
            if Instant::now() >= deadline {
                // A hub that takes no command by then is not waited for.
                return;
            }
            turn = TURN;
        }
    }

    /// After the stop: the channels whose hubs still wait for the disk.
    pub fn unstored(&self) -> Vec<Name> {
        let mut open = self.shared.open_ones();
        open.retain(|_, Open { summary, .. }| !summary.is_ending() && !summary.is_stored());
        open.into_keys().collect()
    }
}

/// Has the engine of a cluster tell all nodes that a channel was put away.
fn put_away_on_all(settings: &Settings, name: &Name, found: &Open) -> Result<(), NoChannel> {
    let done = settings.put_away(&found.summary.epoch());
    done.map_err(|why| {
        warn!("channel {name} could not be put away, as the engine is unavailable: {why}");
        NoChannel::NoEngine
    })
}

impl Table {
    /// How many channels there are beside the default one.
    fn count(&self) -> usize {
        self.channels.keys().filter(|name| !name.is_default()).count()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each statement leaves it valid, so a panic elsewhere takes nothing.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_ones(&self) -> BTreeMap<Name, Open> {
        let table = self.lock();
        let open = table.channels.iter().filter_map(|(name, entry)| match &entry.state {
            State::Open(open) => Some((name.clone(), open.clone())),
            _ => None,
        });
        open.collect()
    }

    /// Waits until something changed; gives up at the deadline.
    fn wait<'a>(
        &self,
        table: MutexGuard<'a, Table>,
        deadline: Instant,
    ) -> Result<MutexGuard<'a, Table>, NoChannel> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NoChannel::Unavailable("its file takes long".into()));
        }
        let waited = self.changed.wait_timeout(table, left);
        Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Changes what is known of a channel, and tells everybody.
    fn note(&self, name: &Name, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().channels.get_mut(name) {
            change(entry);
        }
        self.tell();
    }

    fn forget(&self, name: &Name) {
        self.lock().channels.remove(name);
        self.tell();
    }

    fn tell(&self) {
        self.changed.notify_all();
        self.generation.fetch_add(1, SeqCst);
        self.notifier.tell();
        self.comings.tell();
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.folder.join(format!("{name}.txt"))
    }
}

#[cfg(test)]
mod tests;
