//! The frames of live messages: encoded once for all clients, or read from the file for one that is
//! behind.

use std::io;

use super::{CutFrame, digits, push_number, push_text_header};
use crate::{
    history::{LocatedMessage, Messages, Stretch},
    message::push_json_string,
    stamps::{Stamp, StampReader, Stamps},
};

const NEW_MESSAGE: &[u8] = br#"{"type":"new_message","data":"#;
const ID: &[u8] = br#","id":"#;
const TS: &[u8] = br#","ts":"#;
const FROM: &[u8] = br#","from":"#;

/// The rest of a frame is kept in memory up to this length, in bytes. To copy so little costs less
/// than the system call that would read it again, and it is little beside what else a client takes.
pub(super) const SHORT_REST: usize = 256;

/// Bytes that are read at a time for clients that are behind. It may be many, since each catch-up thread
/// has one such reader.
const READ: usize = 64 << 10;

/// Frames of live messages, encoded once for all clients.
#[derive(Debug, Default)]
pub struct Frames {
    pub(super) bytes: Vec<u8>,
    marks: Vec<FrameMark>,
    /// The sender of one message as JSON.
    sender: Vec<u8>,
}

/// Where a frame ends, and where the message in it begins and ends, as offsets in the bytes of all
/// frames.
#[derive(Clone, Copy, Debug)]
struct FrameMark {
    id: u64,
    data: usize,
    data_end: usize,
    end: usize,
    /// The offset of the message in the file.
    offset: u64,
}

impl FrameMark {
    /// The mark of the same frame when `gone` bytes before it are gone.
    fn moved_back(self, gone: usize) -> FrameMark {
        let FrameMark { data, data_end, end, .. } = self;
        FrameMark { data: data - gone, data_end: data_end - gone, end: end - gone, ..self }
    }
}

/// Appends what is known of a stamp to an object that has something in it.
pub fn push_stamp(stamp: Stamp<'_>, out: &mut Vec<u8>) {
    if let Some(ts) = stamp.ts {
        out.extend_from_slice(TS);
        push_number(ts, out);
    }
    if let Some(from) = stamp.from {
        out.extend_from_slice(FROM);
        push_json_string(from, out);
    }
}

/// How many bytes of memory are kept for the next frames: those of several batches, but not those
/// of a rare huge one.
pub(super) const FRAMES_KEPT: usize = 4 << 20;

impl Frames {
    /// Appends one `new_message` frame. `offset` is that of `data` in the file, `ts` the time of
    /// acceptance in Unix milliseconds and `from` the verified sender, where they are known.
    pub fn push(&mut self, data: &[u8], offset: u64, id: u64, ts: Option<u64>, from: Option<&str>) {
        self.sender.clear();
        if let Some(from) = from {
            self.sender.extend_from_slice(FROM);
            push_json_string(from, &mut self.sender);
        }
        let stamp = ts.map_or(0, |ts| TS.len() + digits(ts)) + self.sender.len();
        let len = NEW_MESSAGE.len() + data.len() + ID.len() + digits(id) + stamp + 1;
        push_text_header(len as u64, &mut self.bytes);
        self.bytes.extend_from_slice(NEW_MESSAGE);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(data);
        let data_end = self.bytes.len();
        self.bytes.extend_from_slice(ID);
        push_number(id, &mut self.bytes);
        if let Some(ts) = ts {
            self.bytes.extend_from_slice(TS);
            push_number(ts, &mut self.bytes);
        }
        self.bytes.extend_from_slice(&self.sender);
        self.bytes.push(b'}');
        let end = self.bytes.len();
        self.marks.push(FrameMark { id, data: start, data_end, end, offset });
    }

    /// The frames, whole and one after the other.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How much memory the frames take, in bytes.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.marks.len() * size_of::<FrameMark>()
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The id after the last message; 0 when there is none.
    pub fn next_id(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.id + 1)
    }

    /// How many messages there are whose id is `id` or higher.
    pub fn count_from(&self, id: u64) -> u64 {
        (self.marks.len() - self.marks.partition_point(|mark| mark.id < id)) as u64
    }

    /// Where in `bytes` the first message begins whose id is `id` or higher.
    pub fn start_of(&self, id: u64) -> usize {
        match self.marks.partition_point(|mark| mark.id < id) {
            0 => 0,
            before => self.marks[before - 1].end,
        }
    }

    /// The id of the message whose frame holds the byte at `offset`; `None` at the end.
    pub fn id_at(&self, offset: usize) -> Option<u64> {
        let before = self.marks.partition_point(|mark| mark.end <= offset);
        self.marks.get(before).map(|mark| mark.id)
    }

    /// Where the frame ends that holds the last of `most` bytes from `start` on, or the last frame.
    pub fn end_within(&self, start: usize, most: usize) -> usize {
        let end = start.saturating_add(most);
        let before = self.marks.partition_point(|mark| mark.end < end);
        self.marks.get(before).map_or(self.bytes.len(), |mark| mark.end)
    }

    /// Takes out the frames of these messages, as far as they are among them; `ids` are in order.
    /// Returns how many of the first `count` frames that were.
    pub fn remove(&mut self, ids: &[u64], count: usize) -> usize {
        let is_one = |mark: &FrameMark| ids.binary_search(&mark.id).is_ok();
        let Some(first) = self.marks.iter().position(is_one) else { return 0 };
        let removed = self.marks[..count].iter().filter(|mark| is_one(mark)).count();
        // Where the next frame stands, and how many bytes were taken out before it.
        let (mut begin, mut gone) = (self.start_of(self.marks[first].id), 0);
        let mut left = first;
        for at in first..self.marks.len() {
            let mark = self.marks[at];
            if is_one(&mark) {
                gone += mark.end - begin;
            } else {
                self.bytes.copy_within(begin..mark.end, begin - gone);
                self.marks[left] = mark.moved_back(gone);
                left += 1;
            }
            begin = mark.end;
        }
        self.truncate(left);
        removed
    }

    /// Forgets all but the first `len` frames.
    pub fn truncate(&mut self, len: usize) {
        self.marks.truncate(len);
        self.bytes.truncate(self.marks.last().map_or(0, |mark| mark.end));
    }

    /// Forgets the frames before the message `id`, if they have at least `least` bytes; returns how
    /// many frames that were.
    pub fn forget_before(&mut self, id: u64, least: usize) -> usize {
        let count = self.marks.partition_point(|mark| mark.id < id);
        let bytes = if count == 0 { 0 } else { self.marks[count - 1].end };
        if bytes < least {
            return 0;
        }
        self.bytes.drain(..bytes);
        self.marks.drain(..count);
        self.marks.iter_mut().for_each(|mark| *mark = mark.moved_back(bytes));
        count
    }

    /// Forgets all frames, but keeps `FRAMES_KEPT` bytes of their memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(FRAMES_KEPT);
        self.marks.clear();
    }

    /// What a client lacks when its socket took `sent` bytes, fewer than all: the rest of the first
    /// frame that it did not take whole, and the id of the first message after that frame.
    pub fn cut(&self, sent: usize) -> (CutFrame, u64) {
        let whole = self.marks.partition_point(|mark| mark.end <= sent);
        let start = if whole == 0 { 0 } else { self.marks[whole - 1].end };
        let mark = &self.marks[whole];
        // The line after the cut message may be a hole, which has no frame.
        let next_id = mark.id + 1;
        if mark.end - sent <= SHORT_REST {
            return (CutFrame::of(&self.bytes[start..mark.end], sent - start), next_id);
        }
        let data = sent.clamp(mark.data, mark.data_end);
        let cut = CutFrame {
            is_begun: sent > start,
            before: self.bytes[sent.min(data)..data].into(),
            offset: mark.offset + (data - mark.data) as u64,
            len: (mark.data_end - data) as u64,
            after: self.bytes[sent.max(mark.data_end)..mark.end].into(),
        };
        (cut, next_id)
    }
}

/// The messages of a stretch as live frames, for a client that is behind.
#[derive(Debug)]
pub struct LiveFrames {
    messages: Messages,
    stamps: StampReader,
}

impl LiveFrames {
    /// Prepares the frames of a stretch, with the stamps of its messages.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(stretch: Stretch, stamps: Stamps) -> io::Result<LiveFrames> {
        Ok(LiveFrames { messages: stretch.messages_by(READ)?, stamps: stamps.read() })
    }

    /// Appends the next frames to `frames`: as many whole frames as it takes for `least` bytes, fewer
    /// near the end of the stretch. Returns whether there may be more.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn extend(&mut self, frames: &mut Frames, least: usize) -> io::Result<bool> {
        let enough = frames.bytes().len() + least;
        while frames.bytes().len() < enough {
            let Some(LocatedMessage { id, offset, data }) = self.messages.next()? else {
                return Ok(false);
            };
            let Stamp { ts, from } = self.stamps.of(id);
            frames.push(data, offset, id, ts, from);
        }
        Ok(true)
    }
}
