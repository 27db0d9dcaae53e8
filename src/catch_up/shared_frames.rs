//! The frames that several clients of a thread lack, made once for all of them.
//!
//! Clients fall behind together, as a rule, when much is said, and then they lack the same messages. The
//! first one that needs a message has it read from the file; the others find its frame here. 100 clients
//! that are sent 128 messages of 10 KB at a time get 1.3 times as many with that, and a delivery takes 0.7
//! times the CPU.

use std::{io, ops::Range};

use crate::{
    history::Stretch,
    lines::TextFile,
    stamps::Stamps,
    wire::{CutFrame, Frames, LiveFrames},
};

/// When the frames take more memory than this, the older half of them is forgotten. A client that lacks
/// older ones has them read anew.
const KEPT: usize = 512 << 10;

/// Frames of messages that follow each other, and the messages that come after them, as far as the hub has
/// named them.
#[derive(Debug, Default)]
pub(super) struct SharedFrames {
    frames: Frames,
    /// `None` before the first are read.
    read: Option<Read>,
}

/// What of a file is in the frames.
#[derive(Debug)]
struct Read {
    /// The file as it was when they were read.
    file: TextFile,
    /// All messages from this id on, and before `next_id`, are in the frames.
    first_id: u64,
    next_id: u64,
    /// The messages after those, and the id after the last of them.
    rest: Option<(LiveFrames, u64)>,
}

/// Whole frames that follow each other, borrowed to be sent to one client.
pub(super) struct FrameSlice<'a> {
    frames: &'a Frames,
    range: Range<usize>,
    read: &'a Read,
}

impl SharedFrames {
    /// Whether no line of the file was erased since the frames were read.
    pub(super) fn is_latest(&self) -> bool {
        self.read.as_ref().is_none_or(|read| read.file.is_latest())
    }

    /// Whether the message `id` of a file, or what follows it if it is a hole, is at hand. Once a line
    /// was erased after the frames were read, none of them is: a message that was deleted must not be
    /// sent from here.
    pub(super) fn has(&self, file: &TextFile, id: u64) -> bool {
        self.read.as_ref().is_some_and(|read| {
            let is_known = (read.first_id..read.next_id).contains(&id);
            read.file.sees_the_same(file)
                && read.file.is_latest()
                && (is_known || id == read.next_id && read.rest.is_some())
        })
    }

    /// Takes in messages that the hub has named.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn take(&mut self, stretch: Stretch, stamps: Stamps) -> io::Result<()> {
        debug_assert!(
            !stretch.is_empty(),
            "the hub names something, or the client would ask for ever"
        );
        let (first_id, end_id) = (stretch.first_id, stretch.last_id + 1);
        let file = stretch.file().clone();
        let rest = Some((LiveFrames::new(stretch, stamps)?, end_id));
        match &mut self.read {
            Some(read) if read.next_id == first_id && read.file.sees_the_same(&file) => {
                read.rest = rest;
            }
            _ => {
                self.frames.clear();
                self.read = Some(Read { file, first_id, next_id: first_id, rest });
            }
        }
        Ok(())
    }

    /// The frames of messages from `id` on and before `end_id`, which must be at hand: as many whole
    /// frames as it takes for `most` bytes, or fewer. If fewer than `least` bytes are in memory from `id`
    /// on, more are read from the file first.
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// When the message is not at hand.
    pub(super) fn slice(
        &mut self,
        id: u64,
        end_id: u64,
        least: usize,
        most: usize,
    ) -> io::Result<FrameSlice<'_>> {
        let had = self.frames.bytes().len() - self.frames.start_of(id);
        if had < least
            && let Err(error) = self.read_on(id, least - had)
        {
            // Nobody knows which frames are there.
            *self = SharedFrames::default();
            return Err(error);
        }
        let SharedFrames { frames, read } = self;
        let read = read.as_ref().expect("it is at hand");
        let start = frames.start_of(id);
        let end = frames.end_within(start, most).min(frames.start_of(end_id));
        Ok(FrameSlice { frames, range: start..end.max(start), read })
    }

    /// Reads on for about `least` bytes of frames, and forgets old ones, but none from `id` on.
    fn read_on(&mut self, id: u64, least: usize) -> io::Result<()> {
        let SharedFrames { frames, read } = self;
        let read = read.as_mut().expect("it is at hand");
        let Some((rest, end_id)) = &mut read.rest else { return Ok(()) };
        if frames.memory() > KEPT {
            let half = frames.bytes().len() / 2;
            read.first_id = frames.id_at(half).unwrap_or(id).min(id);
            frames.forget_before(read.first_id, 0);
        }
        let goes_on = rest.extend(frames, least)?;
        read.next_id = if goes_on { frames.next_id() } else { *end_id };
        read.rest.take_if(|_| !goes_on);
        Ok(())
    }
}

impl FrameSlice<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.frames.bytes()[self.range.clone()]
    }

    /// The id of the first message after these.
    pub(super) fn next_id(&self) -> u64 {
        self.frames.id_at(self.range.end).unwrap_or(self.read.next_id)
    }

    /// What a client lacks when its socket took `sent` bytes, fewer than all; see [`Frames::cut`]. The
    /// file is that of which the frame was cut.
    pub(super) fn cut(&self, sent: usize) -> (CutFrame, u64, TextFile) {
        let (cut, next_id) = self.frames.cut(self.range.start + sent);
        (cut, next_id, self.read.file.clone())
    }

    /// How many messages there are before `id`.
    pub(super) fn count_before(&self, id: u64) -> u64 {
        let first_id = self.frames.id_at(self.range.start).unwrap_or(id);
        self.frames.count_from(first_id) - self.frames.count_from(id.min(self.next_id()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        history::{History, Window},
        testing::Dir,
    };

    const ALL: usize = usize::MAX / 2;

    /// A history of so many messages, and its file.
    fn history(messages: usize, bytes: usize) -> (Dir, History) {
        let dir = Dir::new();
        dir.write(format!("\"{}\"\n", "x".repeat(bytes)).repeat(messages));
        let file = Arc::new(std::fs::File::open(dir.file()).expect("a file of our own"));
        let end = file.metadata().expect("a file of our own").len();
        let history = History::load(file, end, 1 << 20).expect("a file of our own");
        (dir, history)
    }

    fn taken(history: &History) -> SharedFrames {
        let mut shared = SharedFrames::default();
        let stretch = history.window(&Window::default());
        shared.take(stretch, Stamps::default()).expect("a file of our own");
        shared
    }

    #[test]
    fn what_one_client_lacked_is_not_read_again_for_another() {
        let (dir, history) = history(20, 100);
        let mut shared = taken(&history);
        let first = shared.slice(3, u64::MAX, ALL, ALL).expect("a file of our own");
        assert_eq!((first.count_before(u64::MAX), first.next_id()), (18, 21));
        let bytes = first.bytes().to_vec();
        dir.write("");
        let other = shared.slice(3, u64::MAX, ALL, ALL).expect("nothing is read");
        assert!(other.bytes() == bytes);
        let end = shared.slice(3, 5, ALL, ALL).expect("nothing is read");
        assert_eq!((end.count_before(u64::MAX), end.next_id()), (2, 5), "those of a history");
        let slice = shared.slice(7, u64::MAX, 1, 1).expect("nothing is read");
        assert_eq!((slice.count_before(u64::MAX), slice.next_id()), (1, 8), "one whole frame");
    }

    #[test]
    fn a_message_that_was_deleted_is_not_sent_to_those_who_come_later() {
        let (_dir, mut history) = history(3, 100);
        let mut shared = taken(&history);
        let before = history.file().clone();
        shared.slice(1, u64::MAX, ALL, ALL).expect("a file of our own");
        assert!(shared.has(&before, 2) && shared.has(&before, 3) && shared.is_latest());
        history.erase(&[2]).expect("a file of our own");
        assert!(!shared.is_latest(), "it is to be forgotten, so that nothing more is kept for it");
        assert!(!shared.has(&before, 2) && !shared.has(history.file(), 2));
        shared.take(history.stretch(1), Stamps::default()).expect("a file of our own");
        let slice = shared.slice(1, u64::MAX, ALL, ALL).expect("a file of our own");
        assert_eq!(slice.count_before(u64::MAX), 2, "it is a hole");
    }

    #[test]
    fn after_a_file_could_not_be_read_nothing_is_at_hand() {
        let (dir, history) = history(3, 100);
        let mut shared = taken(&history);
        dir.write("");
        assert!(shared.slice(1, u64::MAX, ALL, ALL).is_err());
        assert!((1..=4).all(|id| !shared.has(history.file(), id)));
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        const STEP: usize = 64 << 10;
        let (_dir, history) = history(400, 16 << 10);
        let mut shared = taken(&history);
        let mut id = 1;
        while id <= 400 {
            let slice = shared.slice(id, u64::MAX, STEP, STEP).expect("a file of our own");
            assert!(!slice.bytes().is_empty(), "at {id}");
            id = slice.next_id();
            assert!(shared.frames.bytes().len() <= KEPT + 2 * STEP, "at {id}");
        }
        assert!(shared.has(history.file(), 400) && !shared.has(history.file(), 1));
    }
}
