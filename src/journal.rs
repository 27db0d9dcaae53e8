//! The text file as a journal: locked, repaired, appended to, synced and watched.
//!
//! The hub owns it. The file is open in append mode, once, for life, so each write lands whole at
//! the end, also between the writes of others: the file is an interface, and whoever appends a line
//! to it says something. What a failed write left is cut off again; what a failed sync left is not
//! known, so that ends the server (Rebello et al., "Can Applications Recover from fsync Failures?",
//! USENIX ATC 2020).

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use log::{error, info, warn};

use crate::{
    config::Fsync,
    history::{BOM, History},
    lines::{line_limit, read_at},
    message,
};

/// What is written again at the start, so that pages which a failed sync left readable but not on
/// disk get there: no less than one batch of the hub.
const REWRITE: u64 = 1 << 20;

/// How often a full disk is tried again, at the most.
const RETRY: Duration = Duration::from_secs(1);

/// How long after the last try a disk still counts as full.
const FULL_AGE: Duration = Duration::from_secs(10);

/// How often a disk that stays full is logged.
const FULL_LOG: Duration = Duration::from_secs(30);

/// How much of the file's end is remembered to know the file again.
const TAIL: u64 = 4096;

/// Why the file cannot be served.
#[derive(Debug)]
pub enum OpenError {
    /// It is no file of ours to use: a directory, a device, without permission.
    Unusable(PathBuf, io::Error),
    /// Another server has it.
    InUse(PathBuf),
    /// Reading, writing or syncing it failed.
    Failed(PathBuf, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Unusable(path, why) => {
                write!(out, "{}: {why}; name a text file with --file", path.display())
            }
            OpenError::InUse(path) => write!(
                out,
                "{} is in use by another server (it holds {}); stop that one or choose another \
                 --file",
                path.display(),
                beside(path, "lock").display()
            ),
            OpenError::Failed(path, why) => write!(out, "{}: {why}", path.display()),
        }
    }
}

/// What the server cannot go on after.
#[derive(Debug)]
pub enum Fatal {
    /// A write or sync failed in a way that leaves unknown what is on disk.
    Storage(io::Error),
    /// The file is not the one that was opened, or not all of it; in words.
    Changed(String),
}

impl fmt::Display for Fatal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::Storage(why) => write!(
                out,
                "storage failed: {why}; what was shown is stored, what else is there shows the next \
                 start"
            ),
            Fatal::Changed(what) => write!(out, "{what}"),
        }
    }
}

/// Why lines were not appended.
#[derive(Debug)]
pub enum AppendError {
    /// There is no room; nothing of the lines is in the file, and it can be tried again.
    Full,
    /// Not to be gone on after.
    Fatal(Fatal),
}

/// The text file, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Arc<File>,
    /// Holds the lock as long as it is open, and what names the file's numbering.
    side: File,
    fsync: Fsync,
    identity: (u64, u64),
    epoch: Arc<str>,
    remembered: String,
    full: Option<Full>,
    /// When the oldest write that is not synced was made.
    unsynced_since: Option<Instant>,
}

/// A disk that had no room.
#[derive(Debug)]
struct Full {
    retry_at: Instant,
    log_at: Instant,
}

impl Journal {
    /// Takes the lock, creates or repairs the file, reads and validates all of it.
    ///
    /// Afterwards every line that is there is whole and, unless `fsync` is `never`, on disk.
    ///
    /// # Errors
    /// When another server has the file, or it is unusable; nothing in it was changed then.
    pub fn open(
        path: &Path,
        fsync: Fsync,
        max_message: usize,
    ) -> Result<(Journal, History), OpenError> {
        let unusable = |why| OpenError::Unusable(path.to_owned(), why);
        let failed = |why| OpenError::Failed(path.to_owned(), why);
        // The lock stands beside the file itself, so that two names of one file meet there.
        let path = &match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(unusable(error)),
        };
        refuse_what_is_no_file(path).map_err(unusable)?;
        let mut side = lock(path)?;
        let file = Arc::new(open_or_create(path).map_err(unusable)?);
        let end = recover(path, &file, line_limit(max_message)).map_err(failed)?;
        let history = History::load(file.clone(), end, line_limit(max_message)).map_err(failed)?;
        if let Some((holes, first_id)) = history.holes() {
            warn!("line {first_id} holds no message; skipped, as {holes} in all");
        }
        let epoch = epoch_of(&mut side, &file, &history).map_err(failed)?;
        let identity = identity(&file.metadata().map_err(failed)?);
        let mut journal = Journal {
            path: path.to_owned(),
            file,
            side,
            fsync,
            identity,
            epoch,
            remembered: String::new(),
            full: None,
            unsynced_since: None,
        };
        journal.remember(&history).map_err(failed)?;
        // The name must outlive what clients are told under it.
        journal.side.sync_data().map_err(failed)?;
        Ok((journal, history))
    }

    /// Names this file's numbering; the same after a restart, another for another file.
    pub fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    /// Where the file is, or was.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For those who read the history.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The size of the file now, which must still be the one that was opened and no shorter than
    /// `committed`.
    ///
    /// # Errors
    /// When it was removed, replaced or cut. What only the open descriptor still holds has been
    /// saved beside it then.
    pub fn survey(&mut self, committed: u64) -> Result<u64, Fatal> {
        // One look at the path tells of the file as well, as long as it is the same.
        let what = match fs::metadata(&self.path) {
            Ok(there) if identity(&there) != self.identity => "the file was replaced by another",
            Ok(there) if there.len() >= committed => return Ok(there.len()),
            Ok(there) => {
                return Err(Fatal::Changed(format!(
                    "the file was cut from {committed} to {} bytes while the server ran",
                    there.len()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => "the file was removed",
            Err(error) => return Err(Fatal::Storage(error)),
        };
        Err(Fatal::Changed(format!("{what} while the server ran; {}", self.salvage())))
    }

    /// Copies what the open descriptor holds to a file beside where it was; says how that went.
    fn salvage(&self) -> String {
        let copy = || -> io::Result<PathBuf> {
            let (path, mut saved) = create_beside(&self.path, "saved")?;
            let mut file = &*self.file;
            file.seek(SeekFrom::Start(0))?;
            io::copy(&mut file, &mut saved)?;
            saved.sync_all()?;
            Ok(path)
        };
        match copy() {
            Ok(path) => format!("all that it held is in {}", path.display()),
            Err(error) => format!("what it held could not be saved: {error}"),
        }
    }

    /// Whether an append found no room, lately enough to be taken for granted: a server that nobody
    /// sends anything to any more, because it says so, could not find out that there is room again.
    pub fn is_full(&self) -> bool {
        self.full.as_ref().is_some_and(|full| Instant::now() < full.retry_at + FULL_AGE)
    }

    /// Appends whole lines with one write; returns the offset where they begin.
    ///
    /// # Errors
    /// After [`AppendError::Full`] nothing of them is in the file.
    pub fn append(&mut self, lines: &[u8]) -> Result<u64, AppendError> {
        if let Some(full) = &self.full
            && Instant::now() < full.retry_at
        {
            return Err(AppendError::Full);
        }
        let written = loop {
            match (&*self.file).write(lines) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        match written {
            Ok(count) if count == lines.len() => {
                let end = self.position()?;
                if self.full.take().is_some() {
                    info!("{}: messages can be stored again", self.path.display());
                }
                Ok(end - count as u64)
            }
            Ok(count) => {
                self.cut_back(count as u64)?;
                Err(self.found_full(&io::Error::from_raw_os_error(libc::ENOSPC)))
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Err(self.found_full(&error)),
                _ => Err(AppendError::Fatal(Fatal::Storage(error))),
            },
        }
    }

    /// Where the last write ended: the end of the file then, whoever wrote before us.
    fn position(&self) -> Result<u64, AppendError> {
        (&*self.file).stream_position().map_err(|error| AppendError::Fatal(Fatal::Storage(error)))
    }

    /// Takes the `count` bytes of a short write off again, unless somebody wrote behind them.
    fn cut_back(&self, count: u64) -> Result<(), AppendError> {
        let end = self.position()?;
        let cut = || -> io::Result<()> {
            if self.file.metadata()?.len() == end {
                self.file.set_len(end - count)?;
            }
            Ok(())
        };
        cut().map_err(|error| AppendError::Fatal(Fatal::Storage(error)))
    }

    fn found_full(&mut self, why: &io::Error) -> AppendError {
        let now = Instant::now();
        let log_at = self.full.as_ref().map_or(now, |full| full.log_at);
        if now >= log_at {
            error!(
                "{}: {why}; messages are refused, everything else goes on, and it is tried again",
                self.path.display()
            );
        }
        let log_at = if now >= log_at { now + FULL_LOG } else { log_at };
        self.full = Some(Full { retry_at: now + RETRY, log_at });
        AppendError::Full
    }

    /// Brings what was written, by us or others, to disk as far as the policy asks for it now; how
    /// long that took, if it was done.
    ///
    /// # Errors
    /// When it fails; what is on disk is unknown then, and must not be tried again.
    pub fn commit(&mut self) -> Result<Option<Duration>, Fatal> {
        match self.fsync {
            Fsync::Always => self.sync().map(Some),
            Fsync::EverySecond => {
                self.unsynced_since.get_or_insert_with(Instant::now);
                self.sync_when_due()
            }
            Fsync::Never => Ok(None),
        }
    }

    /// With `--fsync 1s`: brings what was written some time ago to disk.
    ///
    /// # Errors
    /// As with [`Journal::commit`].
    pub fn sync_when_due(&mut self) -> Result<Option<Duration>, Fatal> {
        match self.unsynced_since {
            Some(since) if since.elapsed() >= SYNC_EVERY => self.sync().map(Some),
            _ => Ok(None),
        }
    }

    /// Brings everything to disk; how long that took.
    ///
    /// # Errors
    /// As with [`Journal::commit`].
    pub fn sync(&mut self) -> Result<Duration, Fatal> {
        self.unsynced_since = None;
        let begun = Instant::now();
        self.file.sync_data().map_err(Fatal::Storage)?;
        Ok(begun.elapsed())
    }

    /// Notes beside the file how far the numbering has come, so that the next start knows whether
    /// it is the same.
    pub fn remember(&mut self, history: &History) -> io::Result<()> {
        let line = Record::of(&self.epoch, &self.file, history)?.to_string();
        if line != self.remembered {
            self.side.write_all_at(line.as_bytes(), 0)?;
            self.side.set_len(line.len() as u64)?;
            self.remembered = line;
        }
        Ok(())
    }
}

/// With `--fsync 1s`: a little less, so that the next look at the clock still keeps the promise.
const SYNC_EVERY: Duration = Duration::from_millis(500);

fn identity(meta: &fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// A new file beside the text file, named for what it holds and the time in Unix milliseconds.
fn create_beside(path: &Path, what: &str) -> io::Result<(PathBuf, File)> {
    let mut ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    loop {
        let saved = beside(path, &format!("{what}-{ms}"));
        match OpenOptions::new().write(true).create_new(true).open(&saved) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => ms += 1,
            Err(error) => return Err(error),
            Ok(file) => return Ok((saved, file)),
        }
    }
}

/// Opening a FIFO would wait for ever, and a device is no store.
fn refuse_what_is_no_file(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(()),
        Ok(meta) if meta.is_dir() => Err(io::Error::other("is a directory, not a text file")),
        Ok(_) => Err(io::Error::other("is not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The lock is on a side file which is never deleted: whoever unlinks a lock file lets two in.
fn lock(path: &Path) -> Result<File, OpenError> {
    let side_path = beside(path, "lock");
    let unusable = |why| OpenError::Unusable(side_path.clone(), why);
    refuse_what_is_no_file(&side_path).map_err(unusable)?;
    let side = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&side_path)
        .map_err(unusable)?;
    match side.try_lock() {
        Ok(()) => Ok(side),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

fn open_or_create(path: &Path) -> io::Result<File> {
    let open = |create| OpenOptions::new().read(true).append(true).create_new(create).open(path);
    match open(false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let file = open(true)?;
    file.sync_all()?;
    // A file is only there for good when its directory says so.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()?;
    Ok(file)
}

/// Makes the file end in a whole line that is on disk; returns its length.
fn recover(path: &Path, file: &File, line_limit: usize) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let whole = end_of_whole_lines(file, size)?;
    let end = if whole == size { size } else { mend_tail(path, file, whole, size, line_limit)? };
    // Another descriptor, since one in append mode cannot write in place.
    let again = OpenOptions::new().write(true).open(path)?;
    let from = end.saturating_sub(REWRITE);
    let mut block = vec![0; (end - from) as usize];
    file.read_exact_at(&mut block, from)?;
    match again.write_all_at(&block, from) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
            warn!("{}: {error}; could not write the last block again", path.display());
        }
        result => result?,
    }
    file.sync_data()?;
    Ok(end)
}

/// The offset behind the last `\n` before `size`.
fn end_of_whole_lines(file: &File, size: u64) -> io::Result<u64> {
    let mut block = vec![0; (64 << 10).min(size as usize)];
    let mut end = size;
    while end > 0 {
        let from = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - from) as usize];
        file.read_exact_at(part, from)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

/// A tail without `\n` is a message that an editor left so, and gets its `\n`; or it is torn, and
/// is moved to a file beside. A proper prefix of a JSON object never parses, so what a crash left
/// of one is never taken for a message.
fn mend_tail(
    path: &Path,
    file: &File,
    whole: u64,
    size: u64,
    line_limit: usize,
) -> io::Result<u64> {
    let len = size - whole;
    if len <= line_limit as u64 {
        let mut tail = vec![0; len as usize];
        file.read_exact_at(&mut tail, whole)?;
        let text = if whole == 0 { tail.strip_prefix(BOM).unwrap_or(&tail) } else { &tail };
        if message::on_line(text).is_some() {
            (&*file).write_all(b"\n")?;
            info!("{}: the last line had no end; added it", path.display());
            return Ok(size + 1);
        }
    }
    match save_tail(path, file, whole, size) {
        Ok(saved) => {
            file.set_len(whole)?;
            warn!(
                "{}: the last {len} bytes were no whole line; moved to {}",
                path.display(),
                saved.display()
            );
        }
        // Left where it is; it gets its end when the next line is written.
        Err(error) => warn!(
            "{}: the last {len} bytes are no whole line and could not be saved: {error}",
            path.display()
        ),
    }
    Ok(whole)
}

fn save_tail(path: &Path, file: &File, whole: u64, size: u64) -> io::Result<PathBuf> {
    let (saved, mut copy) = create_beside(path, "torn")?;
    let mut from = whole;
    let mut block = vec![0; (64 << 10).min((size - whole) as usize)];
    while from < size {
        let want = block.len().min((size - from) as usize);
        let got = read_at(file, &mut block[..want], from)?;
        copy.write_all(&block[..got])?;
        from += got as u64;
    }
    copy.sync_all()?;
    Ok(saved)
}

/// What the side file says of the text file, as one line of text: under which name its numbering
/// went, how far, and what stood at the end.
struct Record {
    epoch: String,
    lines: u64,
    bytes: u64,
    tail: u64,
}

impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { epoch, lines, bytes, tail } = self;
        writeln!(out, "epoch {epoch} lines {lines} bytes {bytes} tail {tail:016x}")
    }
}

impl Record {
    fn of(epoch: &str, file: &File, history: &History) -> io::Result<Record> {
        let bytes = history.end();
        let tail = tail_hash(file, bytes)?;
        Ok(Record { epoch: epoch.to_owned(), lines: history.last_id(), bytes, tail })
    }

    fn parse(text: &str) -> Option<Record> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let ["epoch", epoch, "lines", lines, "bytes", bytes, "tail", tail] = words[..] else {
            return None;
        };
        // It goes onto the wire as it is.
        if !epoch.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        Some(Record {
            epoch: epoch.to_owned(),
            lines: lines.parse().ok()?,
            bytes: bytes.parse().ok()?,
            tail: u64::from_str_radix(tail, 16).ok()?,
        })
    }

    /// Whether the file begins with everything that was numbered under this name.
    fn names(&self, file: &File, history: &History) -> io::Result<bool> {
        Ok(self.bytes <= history.end()
            && tail_hash(file, self.bytes)? == self.tail
            && history.lines_before(self.bytes)? == self.lines)
    }
}

fn epoch_of(side: &mut File, file: &File, history: &History) -> io::Result<Arc<str>> {
    let mut text = String::new();
    // What is no text is no record.
    let _ = Read::by_ref(side).take(1024).read_to_string(&mut text);
    if let Some(record) = Record::parse(&text)
        && record.names(file, history)?
    {
        return Ok(record.epoch.into());
    }
    // std's random keys are the operating system's randomness; a crate for one number is too much.
    Ok(format!("{:016x}", RandomState::new().build_hasher().finish()).into())
}

/// FNV-1a of the last bytes before `end`: it tells files apart, it keeps no secret.
fn tail_hash(file: &File, end: u64) -> io::Result<u64> {
    let from = end.saturating_sub(TAIL);
    let mut tail = vec![0; (end - from) as usize];
    file.read_exact_at(&mut tail, from)?;
    Ok(tail.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}

#[cfg(test)]
mod tests;
