//! The inbox of a channel, `messages.txt.in`: lines that other programs append, to be posted once each.
//!
//! Lines that were appended to the text file itself come beside it, too (`journal/replica.rs`). One
//! thread looks after all inboxes; while one has something to post, a thread of its own does it, so that a
//! channel that is stuck holds up no other. The inbox gets a second name that no other file ever has, and
//! the whole lines in it are posted. The key of each post is made of that name and the offset where its
//! lines begin: after a crash the same posts have the same keys.
//!
//! A program may keep the inbox open and write now and then. So the file is read on as it grows. When it
//! was quiet for a while, others get a new inbox, and the file is watched for hours before it is removed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, ErrorKind, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use crossbeam_channel::{Receiver, bounded};
use log::{debug, warn};

use super::{Settings, link::Link, refresh};
use crate::{
    command::{HubGone, HubHandle, PostedOperations},
    journal::{
        self, OPEN,
        beside::{folder_of, path_beside, sync_folder_of},
    },
    operations::Standing,
    threads::{self, NODE_STACK},
    wire::ErrorAnswer,
};

mod posts;
mod taken;

use posts::{Group, Groups, InboxPost, POST_BYTES, Tail};
use taken::{Identity, Taken, is_note};

/// How often the thread looks: what others append comes within a second.
const LOOK: Duration = Duration::from_millis(400);

/// How long after a change of the folder it is listed again with every look: some file systems count time
/// that coarsely.
const COARSE_TIME: Duration = Duration::from_secs(3);

/// The inbox of one channel, as the thread that looks after all has it.
#[derive(Debug)]
pub(super) enum Inbox {
    /// Nothing is posted now.
    Waiting(Box<Files>),
    /// A thread of its own posts what it has, since the channel may take its time.
    Posting(JoinHandle<Box<Files>>),
    /// The channel has ended.
    Over,
}

/// What is posted in one channel.
#[derive(Debug)]
pub(super) struct Files {
    settings: Arc<Settings>,
    link: Arc<Link>,
    hub: HubHandle,
    /// The files that are posted, or were and may still grow.
    all: Vec<Taken>,
    /// The time of the folder's last change, when it was listed.
    listed: Option<SystemTime>,
    /// What the log says, so that it is said once.
    complaint: Option<String>,
    is_hub_gone: bool,
}

/// What became of what was to be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All of it is stored, or means nothing.
    Done,
    /// Posts are refused now; it is to be tried again.
    Later,
    /// The channel has ended.
    HubGone,
}

/// What became of a file.
enum Work {
    /// It was posted so far.
    Posted(Outcome),
    /// It was posted to its end and is not there any more.
    Gone,
}

/// Looks into the inboxes that come through the queue, until there are none and none can come.
pub(super) fn run(new: &Receiver<Inbox>) {
    let mut inboxes = Vec::new();
    while refresh(new, &mut inboxes, Inbox::is_over) {
        thread::sleep(LOOK);
        inboxes.iter_mut().for_each(Inbox::tick);
    }
}

impl Inbox {
    pub(super) fn new(settings: Arc<Settings>, link: Arc<Link>, hub: HubHandle) -> Inbox {
        let (all, listed, complaint) = (Vec::new(), None, None);
        let files = Files { settings, link, hub, all, listed, complaint, is_hub_gone: false };
        Inbox::Waiting(Box::new(files))
    }

    fn is_over(&self) -> bool {
        match self {
            Inbox::Waiting(files) => files.is_over(),
            Inbox::Posting(_) => false,
            Inbox::Over => true,
        }
    }

    /// Has a thread post what there is to be posted, and takes back from it what it has done with.
    fn tick(&mut self) {
        *self = match std::mem::replace(self, Inbox::Over) {
            Inbox::Waiting(mut files) => match files.is_due() {
                true => post_apart(files),
                false => Inbox::Waiting(files),
            },
            Inbox::Posting(thread) if thread.is_finished() => match thread.join() {
                Ok(files) => Inbox::Waiting(files),
                Err(_) => Inbox::Over,
            },
            other => other,
        };
    }
}

/// Has a thread of its own post what a channel has.
fn post_apart(files: Box<Files>) -> Inbox {
    let (give, take) = bounded::<Box<Files>>(1);
    let post = move || {
        let mut files = take.recv().expect("they are given right after the start");
        files.tick();
        files
    };
    match threads::spawn("inbox-posts", NODE_STACK, post) {
        Ok(thread) => {
            give.send(files).expect("the thread waits for them");
            Inbox::Posting(thread)
        }
        // It is tried again with the next look.
        Err(_) => Inbox::Waiting(files),
    }
}

impl Files {
    fn is_over(&self) -> bool {
        self.is_hub_gone || self.link.is_stopping()
    }

    /// Whether there is something to be done, or it cannot be seen.
    fn is_due(&mut self) -> bool {
        let is_joined = self.link.epoch().is_some() && !self.link.is_given_up();
        is_joined && self.look().unwrap_or(true)
    }

    /// Does what is to be done, and says so once if it fails.
    fn tick(&mut self) {
        match self.look().and_then(|_| self.work()) {
            Ok(Outcome::Done | Outcome::Later) => self.complaint = None,
            Ok(Outcome::HubGone) => self.is_hub_gone = true,
            Err(error) => {
                let words =
                    format!("{}.in cannot be posted: {error}", self.settings.file.display());
                if self.complaint.as_ref() != Some(&words) {
                    warn!("{words}");
                    self.complaint = Some(words);
                }
            }
        }
    }

    /// Looks what there is to be posted; whether there is something to be done.
    fn look(&mut self) -> io::Result<bool> {
        let file = &self.settings.file;
        let changed = fs::metadata(folder_of(file))?.modified()?;
        if self.listed != Some(changed) {
            self.list()?;
            // A change right after a look may leave the folder with the same time.
            let is_long_ago = changed.elapsed().is_ok_and(|age| age > COARSE_TIME);
            self.listed = is_long_ago.then_some(changed);
        }
        let inbox = self.inbox()?;
        Ok(self.is_new(inbox) || self.all.iter().any(|taken| taken.is_due(inbox)))
    }

    /// Which file is the inbox now; `None` when there is none or it is empty.
    fn inbox(&self) -> io::Result<Option<Identity>> {
        match fs::metadata(path_beside(&self.settings.file, "in")) {
            Ok(meta) => Ok((meta.len() > 0).then(|| Identity::of(&meta))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_new(&self, inbox: Option<Identity>) -> bool {
        let is_known = |inbox| self.all.iter().any(|taken| taken.identity == inbox);
        inbox.is_some_and(|inbox| !is_known(inbox))
    }

    /// Finds the files that are to be posted, the oldest first.
    fn list(&mut self) -> io::Result<()> {
        let paths = taken_files(&self.settings.file)?;
        self.all.retain(|taken| paths.contains(&taken.path));
        for path in paths {
            if self.all.iter().any(|taken| taken.path == path) {
                continue;
            }
            let taken = Taken::open(path)?;
            match self.all.iter().any(|other| other.identity == taken.identity) {
                // A crash left the inbox a second name; see `close`.
                true => fs::remove_file(&taken.path)?,
                false => self.all.push(taken),
            }
        }
        self.all.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(())
    }

    /// Posts the lines that wait, and removes files that nobody writes to any more.
    fn work(&mut self) -> io::Result<Outcome> {
        if self.is_new(self.inbox()?) {
            self.all.push(Taken::open(journal::take_inbox(&self.settings.file)?)?);
        }
        let mut files = std::mem::take(&mut self.all);
        let mut outcome = Ok(Outcome::Done);
        files.retain_mut(|taken| {
            // The order is kept: what comes later waits.
            if !matches!(outcome, Ok(Outcome::Done)) {
                return true;
            }
            let done = self.work_at(taken);
            self.warn_of_unposted(taken);
            let is_left = !matches!(done, Ok(Work::Gone));
            outcome = done.map(|work| match work {
                Work::Posted(outcome) => outcome,
                Work::Gone => Outcome::Done,
            });
            is_left
        });
        self.all = files;
        outcome
    }

    /// Does what is due about one file.
    fn work_at(&self, taken: &mut Taken) -> io::Result<Work> {
        let file = match File::open(&taken.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Work::Gone),
            file => file?,
        };
        let (meta, inbox) = (file.metadata()?, self.inbox()?);
        if meta.len() < taken.at {
            // Somebody has begun it anew, so that its offsets mean other lines.
            let path = journal::hand_in_open(&self.settings.file, &taken.path)?;
            taken.remove_note()?;
            *taken = Taken::open(path)?;
        }
        let is_over = taken.is_to_be_removed(&meta, inbox);
        let outcome = self.post(taken, &file, if is_over { Tail::Ends } else { Tail::Waits })?;
        if outcome != Outcome::Done {
            return Ok(Work::Posted(outcome));
        }
        taken.is_done(meta.len());
        if is_over && file.metadata()?.len() == taken.at {
            taken.remove()?;
            return Ok(Work::Gone);
        }
        if taken.is_to_be_closed(&meta, inbox) {
            self.close(taken)?;
        }
        Ok(Work::Posted(Outcome::Done))
    }

    /// Takes the name of the inbox from a file, which keeps its other one, so that what others open from here
    /// on is a new file.
    fn close(&self, taken: &Taken) -> io::Result<()> {
        let file = &self.settings.file;
        let path = journal::hand_in_open(file, &path_beside(file, "in"))?;
        // It may have become another file a moment ago, which is found as one more then.
        if Identity::of(&fs::metadata(&path)?) == taken.identity {
            fs::remove_file(&path)?;
        }
        Ok(())
    }

    /// Posts what a file holds that was not posted.
    fn post(&self, taken: &mut Taken, file: &File, tail: Tail) -> io::Result<Outcome> {
        let mut reader = BufReader::with_capacity(POST_BYTES, file);
        reader.seek(SeekFrom::Start(taken.at))?;
        let mut groups = Groups::of(reader, taken.at, tail);
        while let Some(Group { begin, end, post, unposted, unposted_lines }) =
            groups.next(taken.sent)?
        {
            // What was sent is sent again as it was, and what else is in it was kept.
            if taken.sent != Some(end) {
                if unposted_lines > 0 {
                    self.keep(taken, &unposted)?;
                    taken.unposted += unposted_lines;
                }
                taken.note_sent(end, file)?;
            }
            if let Some(post) = post {
                let key = format!("{}-{begin}", taken.name());
                let outcome = self.post_one(&taken.path, key, post);
                if outcome != Outcome::Done {
                    return Ok(outcome);
                }
            }
            taken.is_posted(end);
        }
        Ok(Outcome::Done)
    }

    /// Where lines are kept that cannot be posted.
    fn kept(&self, taken: &Taken) -> PathBuf {
        let name = taken.name();
        let name = name.trim_start_matches("in-").trim_end_matches(OPEN);
        path_beside(&self.settings.file, &format!("torn-{name}"))
    }

    /// Keeps lines that cannot be posted in a file beside, which is on disk afterwards.
    fn keep(&self, taken: &Taken, lines: &[u8]) -> io::Result<()> {
        let path = self.kept(taken);
        let mut kept = OpenOptions::new().append(true).create(true).open(&path)?;
        kept.write_all(lines)?;
        kept.sync_data()?;
        sync_folder_of(&path)
    }

    fn warn_of_unposted(&self, taken: &mut Taken) {
        let count = std::mem::take(&mut taken.unposted);
        if count > 0 {
            warn!(
                "{}: {count} lines hold neither a message nor an operation; they are in {}",
                taken.path.display(),
                self.kept(taken).display()
            );
        }
    }

    /// Posts what one post of a file holds, until there is an answer.
    fn post_one(&self, taken: &Path, key: String, post: InboxPost) -> Outcome {
        let (lines, operations) = match post {
            InboxPost::Messages(lines) => (lines, None),
            InboxPost::Operation(line, operation) => {
                (line, PostedOperations::of(Standing::Admin, vec![(0, operation)]))
            }
        };
        loop {
            let key = Some(key.clone());
            match self.hub.store(key, None, lines.clone(), operations.clone()) {
                Err(HubGone) => return Outcome::HubGone,
                Ok(Ok(_)) => return Outcome::Done,
                Ok(Err(why @ (ErrorAnswer::Refused(_) | ErrorAnswer::BadOperation))) => {
                    warn!("{}: an operation means nothing: {}", taken.display(), why.sentence());
                    return Outcome::Done;
                }
                Ok(Err(ErrorAnswer::Unanswered)) if !self.link.is_stopping() => {}
                Ok(Err(why)) => {
                    debug!("{}: {}", taken.display(), why.sentence());
                    return Outcome::Later;
                }
            }
        }
    }
}

/// The files that are posted, the oldest first.
fn taken_files(file: &Path) -> io::Result<Vec<PathBuf>> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".in-";
    let mut found = Vec::new();
    for entry in fs::read_dir(folder_of(file))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(&name) && !is_note(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
