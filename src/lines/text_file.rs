//! The text file as one reader sees it, while lines are erased under it.
//!
//! Lines are erased in place, and a reader may be in the middle of one: it has told its peer a length,
//! or has sent the first half of a message. So a reader sees the file as it was when the reader
//! began, to the byte. Before the hub overwrites a line, it publishes what the line held, in a chain of
//! states of the file. A reader holds the state that was the last one when it began, and after each
//! read it puts back what was erased since. Readers that begin later hold a later state and see the
//! line erased.
//!
//! States lead to later ones alone, so what was erased is forgotten with the last reader that began
//! before, and a reader costs nothing while no line is erased.

use std::{
    error::Error,
    fmt,
    fs::File,
    io,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering, fence},
    },
};

use super::read_at;

/// The most bytes of erased lines that are kept for readers of all files together. To keep more, the
/// readers that began before are given up: they can come back and begin again. This is far more
/// than people delete while a slow reader takes one history.
const KEPT: usize = 16 << 20;

/// What a state takes apart from the line, in bytes, with the counts that go with an `Arc`.
const STATE: usize = size_of::<State>() + 2 * size_of::<usize>();

/// How many bytes of erased lines are kept, with their states. It is the memory of the process, so
/// there is one number for all files.
static KEPT_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A text file, as it was when this reader began.
#[derive(Clone, Debug)]
pub struct TextFile {
    file: Arc<File>,
    /// The last state when the reader began; `None` for a file of which nothing is erased.
    seen: Option<Arc<State>>,
    /// Where what is kept is counted.
    count: &'static AtomicUsize,
}

/// A state of the file. A thread that holds one keeps all that was erased since, and nothing else does.
#[derive(Debug, Default)]
struct State {
    next: OnceLock<Next>,
}

#[derive(Debug)]
enum Next {
    /// A line was erased, and this is the state after that.
    Line(Kept, Arc<State>),
    /// Too much would have been kept: readers that began before cannot go on.
    TooMuch,
}

/// What an erased line held, for readers that began before.
#[derive(Debug)]
struct Kept {
    /// The offset at which the line begins.
    start: u64,
    bytes: Box<[u8]>,
    count: &'static AtomicUsize,
}

impl Kept {
    /// Keeps a line, if not too much is kept already.
    fn new(start: u64, bytes: Box<[u8]>, count: &'static AtomicUsize) -> Option<Kept> {
        // Its share is given back at once when it is too much.
        let kept = Kept { start, bytes, count };
        let before = count.fetch_add(kept.share(), Ordering::Relaxed);
        // A single line may always be kept, however long.
        (before == 0 || before + kept.share() <= KEPT).then_some(kept)
    }

    fn share(&self) -> usize {
        self.bytes.len() + STATE
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.count.fetch_sub(self.share(), Ordering::Relaxed);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // A long chain would be dropped one within the other, which takes stack.
        let mut next = self.next.take();
        while let Some(Next::Line(_, state)) = next {
            next = Arc::into_inner(state).and_then(|mut state| state.next.take());
        }
    }
}

impl From<&Arc<File>> for TextFile {
    /// A file of which nothing is erased, or whose reader does not mind.
    fn from(file: &Arc<File>) -> TextFile {
        TextFile { file: file.clone(), seen: None, count: &KEPT_BYTES }
    }
}

impl From<&TextFile> for TextFile {
    fn from(file: &TextFile) -> TextFile {
        file.clone()
    }
}

impl TextFile {
    /// A file of which lines will be erased. Clones see it as it is when they are made.
    pub fn new(file: Arc<File>) -> TextFile {
        TextFile { file, seen: Some(Arc::default()), count: &KEPT_BYTES }
    }

    /// The file itself.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Whether both are the same file as it was at the same time.
    pub fn sees_the_same(&self, other: &TextFile) -> bool {
        match (&self.seen, &other.seen) {
            (Some(seen), Some(other)) => Arc::ptr_eq(seen, other),
            _ => false,
        }
    }

    /// Whether no line was erased since this reader began.
    pub fn is_latest(&self) -> bool {
        self.seen.as_ref().is_none_or(|seen| seen.next.get().is_none())
    }

    /// Publishes that a line is about to be overwritten, which began at `start` and had these
    /// `bytes`. This reader sees it overwritten from now on; all its clones of before do not.
    ///
    /// # Panics
    /// When the file was not made by [`TextFile::new`].
    pub fn erase(&mut self, start: u64, bytes: Box<[u8]>) {
        let seen = self.seen.as_mut().expect("lines of this file are erased");
        if Arc::strong_count(seen) == 1 {
            // There is no other reader, and the clones that are still to be made see it erased.
            return;
        }
        let after = Arc::new(State::default());
        let next = match Kept::new(start, bytes, self.count) {
            Some(kept) => Next::Line(kept, after.clone()),
            None => Next::TooMuch,
        };
        seen.next.set(next).expect("the hub alone erases, and holds the last state");
        *seen = after;
        // A reader of a byte that is written next finds the line.
        fence(Ordering::SeqCst);
    }

    /// Reads bytes at `offset` into `space`, as they were when the reader began; returns how many,
    /// at least one.
    ///
    /// # Errors
    /// When the file cannot be read or ends at `offset`, or when too much was erased since the reader
    /// began.
    pub fn read_at(&self, space: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = read_at(&self.file, space, offset)?;
        let Some(seen) = &self.seen else { return Ok(count) };
        fence(Ordering::SeqCst);
        let mut state = seen;
        while let Some(next) = state.next.get() {
            match next {
                Next::Line(kept, after) => {
                    put_back(&mut space[..count], offset, kept.start, &kept.bytes);
                    state = after;
                }
                Next::TooMuch => return Err(too_much_erased()),
            }
        }
        Ok(count)
    }

    /// Reads exactly these bytes at `offset`; see [`TextFile::read_at`].
    ///
    /// # Errors
    /// As with [`TextFile::read_at`].
    pub fn read_exact_at(&self, space: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < space.len() {
            done += self.read_at(&mut space[done..], offset + done as u64)?;
        }
        Ok(())
    }
}

/// Why a reader that began long ago cannot go on: see [`KEPT`].
#[derive(Debug)]
struct TooMuchErased;

impl fmt::Display for TooMuchErased {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("so much was deleted meanwhile that this reader must begin again")
    }
}

impl Error for TooMuchErased {}

pub(crate) fn too_much_erased() -> io::Error {
    io::Error::other(TooMuchErased)
}

/// Whether reading failed since too much was erased. A reader that begins again can read it all.
pub fn is_too_much_erased(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|why| why.is::<TooMuchErased>())
}

/// Puts the bytes that a line had from `start` on back into bytes that were read at `offset`.
fn put_back(space: &mut [u8], offset: u64, start: u64, line: &[u8]) {
    let common = common(offset..offset + space.len() as u64, start..start + line.len() as u64);
    if common.is_empty() {
        return;
    }
    let within = |start: u64| (common.start - start) as usize..(common.end - start) as usize;
    space[within(offset)].copy_from_slice(&line[within(start)]);
}

fn common(a: Range<u64>, b: Range<u64>) -> Range<u64> {
    a.start.max(b.start)..a.end.min(b.end)
}

#[cfg(test)]
mod tests;
