//! The inbox of a channel, `messages.txt.in`: lines that other programs append, to be posted once each.
//!
//! Lines that were appended to the text file itself come beside it, too (`journal/replica.rs`). One
//! thread looks after all inboxes. It gives the file another name, so that new lines go to a new file,
//! and makes posts of what it holds. The key of each is made of that name and the offset where its lines
//! begin: after a crash the same posts have the same keys.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use crossbeam_channel::Receiver;
use log::{debug, warn};

use super::{Settings, link::Link, refresh};
use crate::{
    command::{HubGone, HubHandle, PostedOperations},
    journal::{
        self,
        beside::{folder_of, path_beside},
    },
    message,
    operations::{Operation, Recognised, Standing, is_operation, recognise},
    wire::ErrorAnswer,
};

/// How often the thread looks: what others append comes within a second.
const LOOK: Duration = Duration::from_millis(400);

/// How long after a change of the folder it is listed again with every look: some file systems count time
/// that coarsely.
const COARSE_TIME: Duration = Duration::from_secs(3);

/// About how many bytes one post has.
const POST_BYTES: usize = 128 << 10;

/// The inbox of one channel.
#[derive(Debug)]
pub(super) struct Inbox {
    settings: Arc<Settings>,
    link: Arc<Link>,
    hub: HubHandle,
    /// The time of the folder's last change, when it was listed and nothing was left in it.
    listed: Option<SystemTime>,
    /// What the log says, so that it is said once.
    complaint: Option<String>,
    is_hub_gone: bool,
}

/// What is posted as one.
enum InboxPost {
    Messages(Vec<u8>),
    Operation(Vec<u8>, Operation),
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
        Inbox { settings, link, hub, listed: None, complaint: None, is_hub_gone: false }
    }

    fn is_over(&self) -> bool {
        self.is_hub_gone || self.link.is_stopping()
    }

    fn tick(&mut self) {
        if self.link.epoch().is_none() || self.link.is_given_up() {
            return;
        }
        match self.look() {
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

    /// Posts the lines that wait in the inbox.
    fn look(&mut self) -> io::Result<Outcome> {
        let file = &self.settings.file;
        let changed = fs::metadata(folder_of(file))?.modified()?;
        if self.listed != Some(changed) {
            // What a crash left comes first, to keep the order.
            for taken in taken_files(file)? {
                let outcome = self.post(&taken)?;
                if outcome != Outcome::Done {
                    return Ok(outcome);
                }
            }
            // A change right after a look may leave the folder with the same time.
            let is_long_ago = changed.elapsed().is_ok_and(|age| age > COARSE_TIME);
            self.listed = is_long_ago.then_some(changed);
        }
        let inbox = path_beside(file, "in");
        match fs::metadata(&inbox) {
            Ok(meta) if meta.len() == 0 => return Ok(Outcome::Done),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Outcome::Done),
            Err(error) => return Err(error),
        }
        let taken = journal::hand_in(file, &inbox)?;
        // A program that has just opened it writes its lines meanwhile.
        thread::sleep(LOOK);
        self.post(&taken)
    }

    /// Posts what a file holds, and removes it when that is done.
    fn post(&self, taken: &Path) -> io::Result<Outcome> {
        let name = taken.extension().unwrap_or_default().to_string_lossy().into_owned();
        let mut posts = Posts::of(BufReader::with_capacity(POST_BYTES, File::open(taken)?));
        for post in &mut posts {
            let (offset, post) = post?;
            let outcome = self.post_one(taken, format!("{name}-{offset}"), post);
            if outcome != Outcome::Done {
                return Ok(outcome);
            }
        }
        // Not before: while posts are refused, the same file is looked at again and again.
        if posts.skipped > 0 {
            warn!(
                "{}: {} lines hold neither a message nor an operation; skipped",
                taken.display(),
                posts.skipped
            );
        }
        fs::remove_file(taken)?;
        Ok(Outcome::Done)
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

/// The files that were taken and not posted to their end.
fn taken_files(file: &Path) -> io::Result<Vec<PathBuf>> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".in-";
    let mut found = Vec::new();
    for entry in fs::read_dir(folder_of(file))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&name) {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The posts that a file's lines make, one after the other, each with the offset where it begins: a file
/// may be longer than the memory.
struct Posts<R> {
    file: R,
    offset: usize,
    /// An operation that comes after the messages that were given last.
    next: Option<(usize, InboxPost)>,
    /// How many lines cannot be posted.
    skipped: usize,
}

impl<R: BufRead> Posts<R> {
    fn of(file: R) -> Posts<R> {
        Posts { file, offset: 0, next: None, skipped: 0 }
    }
}

impl<R: BufRead> Iterator for Posts<R> {
    type Item = io::Result<(usize, InboxPost)>;

    fn next(&mut self) -> Option<io::Result<(usize, InboxPost)>> {
        if let Some(post) = self.next.take() {
            return Some(Ok(post));
        }
        let (mut begun, mut messages, mut text) = (0, Vec::new(), Vec::new());
        while messages.len() < POST_BYTES {
            let at = self.offset;
            text.clear();
            match self.file.read_until(b'\n', &mut text) {
                Ok(0) => break,
                Ok(count) => self.offset += count,
                Err(error) => return Some(Err(error)),
            }
            match post_of(&text) {
                Ok(Some(InboxPost::Messages(line))) => {
                    begun = if messages.is_empty() { at } else { begun };
                    messages.extend(line);
                }
                Ok(Some(operation)) => {
                    self.next = Some((at, operation));
                    break;
                }
                Ok(None) => {}
                Err(NoPost) => self.skipped += 1,
            }
        }
        match messages.is_empty() {
            true => self.next.take().map(Ok),
            false => Some(Ok((begun, InboxPost::Messages(messages)))),
        }
    }
}

/// A line that holds neither a message nor an operation.
struct NoPost;

/// What a line says; `None` when it is blank.
fn post_of(text: &[u8]) -> Result<Option<InboxPost>, NoPost> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let Some(message) = message::on_line(text) else {
        return if text.trim_ascii().is_empty() { Ok(None) } else { Err(NoPost) };
    };
    let line = [message, b"\n"].concat();
    if !is_operation(message) {
        return Ok(Some(InboxPost::Messages(line)));
    }
    match recognise(message) {
        Ok(Recognised::Operation(operation)) => Ok(Some(InboxPost::Operation(line, operation))),
        Ok(Recognised::Typing) | Err(_) => Err(NoPost),
    }
}

#[cfg(test)]
mod tests;
