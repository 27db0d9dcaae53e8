//! The thread that looks at all files and at the folder, so that hubs without clients can sleep.
//!
//! When a file is not as its hub knows it, the hub is woken. A file that is new in the folder
//! becomes a channel. A channel whose file is gone is forgotten.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::{Arc, Weak, atomic::Ordering::SeqCst},
    time::{Duration, SystemTime},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use log::{error, warn};

use super::{Channels, Most, Open, Shared, State, names_in};
use crate::{
    lines::log_unreadable_count,
    name::Name,
    threads::{self, USUAL_STACK},
};

/// How often everything is looked at: what others append is taken in within a second, and a look at a
/// thousand files takes 3 to 5 ms.
const EVERY: Duration = Duration::from_millis(800);

/// For so long after a change of the folder, each look lists it again. Some file systems count time
/// so coarsely that a change right after a look leaves the folder with the same time.
const SETTLED: Duration = Duration::from_secs(3);

/// A file as it was seen: device, inode and size; `None` when it is not there.
type Seen = Option<(u64, u64, u64)>;

/// What the thread remembers from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// How each file was when its hub was last woken for it: a hub is woken once for each change.
    told: HashMap<Name, Seen>,
    /// When the folder had changed last, and the generation of the channels, as of the last time that
    /// it was listed; `None` when it has to be listed again. A channel that was forgotten may be back
    /// in a folder that does not look changed: somebody moved the folder away and back.
    listed: Option<(SystemTime, u64)>,
    /// What has been logged of the folder.
    complaint: Option<String>,
}

impl Channels {
    /// Starts the thread. It ends when `stop` is disconnected, or the last handle of the channels is
    /// gone.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn watch(&self, default_file: PathBuf, stop: Receiver<()>) -> io::Result<()> {
        let shared = Arc::downgrade(&self.shared);
        let run = move || run(&shared, &default_file, &stop);
        threads::spawn("watch", USUAL_STACK, run).map(drop)
    }
}

fn run(shared: &Weak<Shared>, default_file: &PathBuf, stop: &Receiver<()>) {
    let mut watch = Watch::default();
    while stop.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        let Some(shared) = shared.upgrade() else { return };
        // Without it, files would grow unseen; the next look may go well.
        let look = AssertUnwindSafe(|| {
            watch.look_at_files(&shared, default_file);
            watch.look_at_folder(&shared);
        });
        log_unreadable_count();
        if panic::catch_unwind(look).is_err() {
            error!("a panic ended a look at the channels' files; the next one follows");
        }
    }
}

impl Watch {
    /// Wakes the hubs whose files are not as they know them.
    fn look_at_files(&mut self, shared: &Shared, default_file: &PathBuf) {
        let open = shared.open_ones();
        self.told.retain(|name, _| open.contains_key(name));
        for (name, Open { hub, summary }) in open {
            let meta = match name.is_default() {
                true => fs::metadata(default_file),
                // A link in its place is another file, wherever it leads.
                false => fs::symlink_metadata(shared.path(&name)),
            };
            let seen = meta.ok().map(|meta| (meta.dev(), meta.ino(), meta.len()));
            let (dev, ino) = summary.file;
            let known = Some((dev, ino, summary.figures().file_bytes));
            if seen == known {
                self.told.remove(&name);
            } else if self.told.get(&name) != Some(&seen) && hub.survey() {
                self.told.insert(name, seen);
            }
        }
    }

    /// Opens what is new in the folder, and forgets what is gone.
    pub(super) fn look_at_folder(&mut self, shared: &Arc<Shared>) {
        let changed = fs::metadata(&shared.folder).and_then(|meta| meta.modified()).ok();
        let now = changed.map(|time| (time, shared.generation.load(SeqCst)));
        if now.is_some() && now == self.listed && !shared.has_ended_ones() {
            return;
        }
        // Until the list is there: the next look makes up for one that fails.
        self.listed = None;
        let is_settled = |time: SystemTime| time.elapsed().is_ok_and(|age| age > SETTLED);
        let settled = now.filter(|(time, _)| is_settled(*time));
        let found = match names_in(&shared.folder) {
            Ok(found) => found,
            Err(error) => return self.complain(format!("{}: {error}", shared.folder.display())),
        };
        self.listed = settled;
        let there: HashSet<&Name> = found.iter().collect();
        let gone: Vec<Name> = {
            let table = shared.lock();
            let ended = table.channels.iter().filter(|(name, entry)| {
                matches!(entry.state, State::Ended) && !name.is_default() && !there.contains(name)
            });
            ended.map(|(name, _)| name.clone()).collect()
        };
        gone.iter().for_each(|name| shared.forget_ended(name));
        if found.len() > shared.most.count {
            let most = match &shared.most {
                Most { count, limit: None } => format!("--max-channels {count}"),
                Most { count, limit: Some(limit) } => {
                    format!("the {count} for which {limit} has room")
                }
            };
            self.complain(format!(
                "{} has {} channels, more than {most}; the others are not served",
                shared.folder.display(),
                found.len(),
            ));
        } else {
            self.complaint = None;
        }
        let new = shared.take_up(found);
        if new.is_empty() {
            return;
        }
        // A large file must not keep this thread from looking at the others.
        let opener = shared.clone();
        let names = new.clone();
        let open = move || opener.open_all(&names);
        if let Err(error) = threads::spawn("open", USUAL_STACK, open) {
            self.complain(format!("cannot start a thread to open channels: {error}"));
            self.listed = None;
            new.iter().for_each(|name| shared.forget(name));
        }
    }

    /// Says a thing once, for as long as it is so.
    fn complain(&mut self, words: String) {
        if self.complaint.as_ref() != Some(&words) {
            warn!("{words}");
            self.complaint = Some(words);
        }
    }
}

impl Shared {
    /// Whether the files of some channels may be gone.
    fn has_ended_ones(&self) -> bool {
        self.lock().channels.values().any(|entry| matches!(entry.state, State::Ended))
    }

    /// Forgets a channel whose file is gone, unless it is opened anew meanwhile.
    fn forget_ended(&self, name: &Name) {
        let mut table = self.lock();
        if table.channels.get(name).is_some_and(|entry| matches!(entry.state, State::Ended)) {
            table.channels.remove(name);
            drop(table);
            self.tell();
        }
    }
}
