//! What was said: all of it as the history is sent, and the latest as frames, encoded once for all.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use super::websocket::push_text_head;

/// What stands around a live message, its id and its time on the wire.
const MESSAGE_HEAD: &[u8] = br#"{"type":"new_message","data":"#;
const BEFORE_ID: &[u8] = br#","id":"#;
const BEFORE_TS: &[u8] = br#","ts":"#;
const MESSAGE_TAIL: &[u8] = b"}";

/// Frames are forgotten in steps, since what remains must be moved each time.
const FORGET: usize = 64 << 10;
/// Bytes of frames that are made at once for a client that is far behind.
const BLOCK: usize = 64 << 10;

/// A message, counted from 0, and a byte of its frame: what a client has not been sent yet.
#[derive(Clone, Copy, Default)]
pub struct Position {
    id: usize,
    offset: usize,
}

impl Position {
    /// Before the whole message.
    pub fn at(id: usize) -> Position {
        Position { id, offset: 0 }
    }
}

/// All messages, separated by commas.
pub struct History {
    text: Vec<u8>,
    /// Where each message ends.
    ends: Vec<usize>,
}

impl History {
    /// Out of the lines of a file.
    pub fn read(mut text: Vec<u8>) -> History {
        if text.last() == Some(&b'\n') {
            text.pop();
        }
        let mut ends = Vec::with_capacity(text.len() / 64);
        for at in memchr::memchr_iter(b'\n', &text) {
            ends.push(at);
        }
        ends.iter().for_each(|&at| text[at] = b',');
        if !text.is_empty() {
            ends.push(text.len());
        }
        History { text, ends }
    }

    /// What stands between the brackets of a `message_history`.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn push(&mut self, message: &[u8]) {
        if !self.text.is_empty() {
            self.text.push(b',');
        }
        self.text.extend_from_slice(message);
        self.ends.push(self.text.len());
    }

    /// A block of frames from `position` on, and what follows it. No time is kept, so they have that
    /// of now.
    pub fn frames_from(&self, position: Position) -> (Vec<u8>, Position) {
        let mut block = Vec::with_capacity(BLOCK);
        let mut id = position.id;
        let ts = unix_ms();
        while id < self.ends.len() && block.len() < BLOCK {
            let start = if id == 0 { 0 } else { self.ends[id - 1] + 1 };
            push_frame(&self.text[start..self.ends[id]], id, ts, &mut block);
            id += 1;
        }
        block.drain(..position.offset);
        (block, Position::at(id))
    }
}

/// The latest messages as frames, back to back; older ones are forgotten from the front.
pub struct Frames {
    bytes: Vec<u8>,
    first_id: usize,
    /// Where each frame ends, and the next one begins; counted from the first frame there ever was.
    ends: VecDeque<usize>,
    /// The same of the bytes that were forgotten.
    forgotten: usize,
}

impl Frames {
    /// None yet; the first will be this message's.
    pub fn from(first_id: usize) -> Frames {
        Frames { bytes: Vec::new(), first_id, ends: VecDeque::new(), forgotten: 0 }
    }

    pub fn push(&mut self, message: &[u8], ts: u64) {
        push_frame(message, self.next_id(), ts, &mut self.bytes);
        self.ends.push_back(self.forgotten + self.bytes.len());
    }

    /// The message that will be pushed next.
    pub fn next_id(&self) -> usize {
        self.first_id + self.ends.len()
    }

    /// Everything from `position` on; `None` when some of it was forgotten.
    pub fn bytes_from(&self, position: Position) -> Option<&[u8]> {
        let start = match position.id.checked_sub(self.first_id)? {
            0 => 0,
            before => self.ends[before - 1] - self.forgotten,
        };
        Some(&self.bytes[start + position.offset..])
    }

    /// What a client lacks that was sent `count` bytes from `position` on, and not all.
    pub fn position_after(&self, position: Position, count: usize) -> Position {
        let rest = self.bytes_from(position).map_or(0, <[u8]>::len) - count;
        let at = self.forgotten + self.bytes.len() - rest;
        let whole = self.ends.partition_point(|&end| end <= at);
        let start = if whole == 0 { self.forgotten } else { self.ends[whole - 1] };
        Position { id: self.first_id + whole, offset: at - start }
    }

    /// Forgets frames before message `id`, once there is enough to forget.
    pub fn forget_before(&mut self, id: usize) {
        let count = id - self.first_id;
        if count == self.ends.len() {
            self.forgotten += self.bytes.len();
            self.bytes.clear();
            self.ends.clear();
            self.first_id = id;
        } else if count > 0 && self.ends[count - 1] - self.forgotten >= FORGET {
            let end = self.ends[count - 1];
            self.bytes.drain(..end - self.forgotten);
            self.ends.drain(..count);
            (self.forgotten, self.first_id) = (end, id);
        }
    }
}

/// The frame that the server sends: ids there count from 1.
fn push_frame(message: &[u8], id: usize, ts: u64, out: &mut Vec<u8>) {
    let (mut id_digits, mut ts_digits) = (itoa::Buffer::new(), itoa::Buffer::new());
    let (id, ts) = (id_digits.format(id + 1).as_bytes(), ts_digits.format(ts).as_bytes());
    let parts = [MESSAGE_HEAD, message, BEFORE_ID, id, BEFORE_TS, ts, MESSAGE_TAIL];
    push_text_head(parts.iter().map(|part| part.len()).sum(), out);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// The time of now, in Unix milliseconds.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
