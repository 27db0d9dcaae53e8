//! The inbox of a channel, `messages.txt.in`: lines that other programs append, to be posted once each.
//!
//! Lines that were appended to the text file itself come beside it, too (`journal/replica.rs`). One
//! thread looks after all inboxes. It gives the file another name, so that new lines go to a new file,
//! and posts what it holds in parts, each with a key that is made of that name and the part's place:
//! after a crash the same parts have the same keys.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use crossbeam_channel::Receiver;
use log::{debug, warn};

use super::{Settings, gather, link::Link};
use crate::{
    command::{HubGone, HubHandle, PostedOperations},
    journal::{self, folder_of, path_beside},
    message,
    operations::{Operation, Recognised, Standing, is_operation, recognise},
    wire::ErrorAnswer,
};

/// How often the thread looks: what others append comes within a second.
const LOOK: Duration = Duration::from_millis(400);

/// How long after a change of the folder it is listed again with every look: some file systems count time
/// that coarsely.
const SETTLED: Duration = Duration::from_secs(3);

/// About how many bytes are posted at a time.
const PART_BYTES: usize = 128 << 10;

/// The inbox of one channel.
#[derive(Debug)]
pub(super) struct Inbox {
    settings: Arc<Settings>,
    link: Arc<Link>,
    hub: HubHandle,
    /// The time of the folder's last change, when a look left nothing in it.
    seen: Option<SystemTime>,
    /// What the log says, so that it is said once.
    complaint: Option<String>,
    is_hub_gone: bool,
}

/// What is posted as one.
enum Part {
    Messages(Vec<u8>),
    Operation(Vec<u8>, Operation),
}

/// Looks into the inboxes that come through the queue, until there are none and none can come.
pub(super) fn run(new: &Receiver<Inbox>) {
    let mut inboxes = Vec::new();
    while gather(new, &mut inboxes, Inbox::is_over) {
        thread::sleep(LOOK);
        inboxes.iter_mut().for_each(Inbox::tick);
    }
}

impl Inbox {
    pub(super) fn new(settings: Arc<Settings>, link: Arc<Link>, hub: HubHandle) -> Inbox {
        Inbox { settings, link, hub, seen: None, complaint: None, is_hub_gone: false }
    }

    fn is_over(&self) -> bool {
        self.is_hub_gone || self.link.is_stopping()
    }

    fn tick(&mut self) {
        if self.link.epoch().is_none() || self.link.is_given_up() {
            return;
        }
        match self.look() {
            Ok(Ok(())) => self.complaint = None,
            Ok(Err(HubGone)) => self.is_hub_gone = true,
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
    fn look(&mut self) -> io::Result<Result<(), HubGone>> {
        let Inbox { settings, link, hub, .. } = self;
        let file = &settings.file;
        let changed = fs::metadata(folder_of(file))?.modified()?;
        if self.seen != Some(changed) {
            // What a crash left comes first, to keep the order.
            for taken in taken(file)? {
                match post(&taken, link, hub)? {
                    Ok(true) => {}
                    Ok(false) => return Ok(Ok(())),
                    Err(gone) => return Ok(Err(gone)),
                }
            }
            // A change right behind a look may leave the folder with the same time.
            self.seen = Some(changed).filter(|time| time.elapsed().is_ok_and(|age| age > SETTLED));
        }
        let inbox = path_beside(file, "in");
        match fs::metadata(&inbox) {
            Ok(meta) if meta.len() == 0 => return Ok(Ok(())),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ok(())),
            Err(error) => return Err(error),
        }
        let taken = journal::hand_in(file, &inbox)?;
        // A program that has just opened it writes its lines meanwhile.
        thread::sleep(LOOK);
        Ok(post(&taken, link, hub)?.map(drop))
    }
}

/// The files that were taken and not posted to their end.
fn taken(file: &Path) -> io::Result<Vec<PathBuf>> {
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

/// Posts what a file holds, and removes it; false when the engine is unavailable, to be tried again.
fn post(taken: &Path, link: &Link, hub: &HubHandle) -> io::Result<Result<bool, HubGone>> {
    let name = taken.extension().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = fs::read(taken)?;
    let (parts, skipped) = parts(&bytes);
    for (offset, part) in parts {
        let (lines, operations) = match part {
            Part::Messages(lines) => (lines, None),
            Part::Operation(line, operation) => {
                (line, PostedOperations::of(Standing::Admin, vec![(0, operation)]))
            }
        };
        let key = Some(format!("{name}-{offset}"));
        loop {
            match hub.store(key.clone(), None, lines.clone(), operations.clone()) {
                Err(gone) => return Ok(Err(gone)),
                Ok(Ok(_)) => break,
                Ok(Err(why @ (ErrorAnswer::Refused(_) | ErrorAnswer::BadOperation))) => {
                    warn!("{}: an operation means nothing: {}", taken.display(), why.sentence());
                    break;
                }
                Ok(Err(ErrorAnswer::Unanswered)) if !link.is_stopping() => {}
                Ok(Err(why)) => {
                    debug!("{}: {}", taken.display(), why.sentence());
                    return Ok(Ok(false));
                }
            }
        }
    }
    // Not before: while posts are refused, the same file is looked at again and again.
    if skipped > 0 {
        warn!(
            "{}: {skipped} lines hold neither a message nor an operation; skipped",
            taken.display()
        );
    }
    fs::remove_file(taken)?;
    Ok(Ok(true))
}

/// The lines of a file in parts, each with the offset where it begins; and how many lines cannot be
/// posted.
fn parts(bytes: &[u8]) -> (Vec<(usize, Part)>, usize) {
    let mut parts: Vec<(usize, Part)> = Vec::new();
    let mut skipped = 0;
    let mut offset = 0;
    for text in bytes.split_inclusive(|&byte| byte == b'\n') {
        let at = offset;
        offset += text.len();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let Some(message) = message::on_line(text) else {
            skipped += usize::from(!text.trim_ascii().is_empty());
            continue;
        };
        let line = [message, b"\n"].concat();
        if is_operation(message) {
            match recognise(message) {
                Ok(Recognised::Operation(operation)) => {
                    parts.push((at, Part::Operation(line, operation)));
                }
                Ok(Recognised::Typing) | Err(_) => skipped += 1,
            }
            continue;
        }
        match parts.last_mut() {
            Some((_, Part::Messages(lines))) if lines.len() < PART_BYTES => lines.extend(line),
            _ => parts.push((at, Part::Messages(line))),
        }
    }
    (parts, skipped)
}

#[cfg(test)]
mod tests;
