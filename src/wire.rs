//! What goes over the wire: every envelope and every frame, spelled here and nowhere else.
//!
//! A live message is encoded once for all clients. A history is one frame that is read from the
//! file while it is sent. When a socket takes only a part of a frame, the message in it is not kept
//! in memory: a [`CutFrame`] or [`HistoryFrame`] knows from which byte on it must be read again.

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use tungstenite::protocol::frame::{
    CloseFrame, Frame, FrameHeader,
    coding::{CloseCode, Data, OpCode},
};

use crate::{
    history::{LocatedMessage, MessageText, Messages, Snapshot, Stretch},
    message::{self, push_json_string},
    stamps::{Stamp, StampReader, Stamps},
};

mod cut_frame;
mod error_answer;
mod history_end;

pub use cut_frame::CutFrame;
pub use error_answer::ErrorAnswer;
pub use history_end::{HistoryEnd, HistoryForm};

const NEW_MESSAGE: &[u8] = br#"{"type":"new_message","data":"#;
const ID: &[u8] = br#","id":"#;
const TS: &[u8] = br#","ts":"#;
const FROM: &[u8] = br#","from":"#;
const HISTORY: &[u8] = br#"{"type":"message_history","data":["#;
const SKIPPED: &[u8] = br#","skipped":["#;

/// Frames of live messages, encoded once for all clients.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
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

/// How many bytes of memory are kept for the next frames: those of several batches, but not those
/// of a rare huge one.
const FRAMES_KEPT: usize = 4 << 20;

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

    /// Erases the message `id`, if it is among them. The line on which it stands begins at `offset`
    /// in the file and is erased there, too.
    pub fn erase(&mut self, id: u64, offset: u64) {
        let Ok(at) = self.marks.binary_search_by_key(&id, |mark| mark.id) else { return };
        let mark = &mut self.marks[at];
        message::erase(&mut self.bytes[mark.data..mark.data_end]);
        // The rest of a cut frame is read from the file, where the line begins with what stands here.
        mark.offset = offset;
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
        for mark in &mut self.marks {
            mark.data -= bytes;
            mark.data_end -= bytes;
            mark.end -= bytes;
        }
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
        Ok(LiveFrames { messages: stretch.messages()?, stamps: stamps.read() })
    }

    /// Replaces `frames` by the next ones: as many whole frames as it takes for `least` bytes,
    /// fewer near the end of the stretch, none at its end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn fill(&mut self, frames: &mut Frames, least: usize) -> io::Result<()> {
        frames.clear();
        while frames.bytes().len() < least
            && let Some(LocatedMessage { id, offset, data }) = self.messages.next()?
        {
            let Stamp { ts, from } = self.stamps.of(id);
            frames.push(data, offset, id, ts, from);
        }
        Ok(())
    }
}

/// The rest of a frame is kept in memory up to this length, in bytes. To copy so little costs less
/// than the system call that would read it again, and it is little beside what else a client takes.
const SHORT_REST: usize = 256;

/// A `message_history` frame that is read from the file as it is sent. The length in its header is
/// known from the stretch and its holes; its array is the text of the file with a `,` in the place
/// of each `\n`.
#[derive(Clone, Debug)]
pub struct HistoryFrame {
    stretch: Stretch,
    epoch: Arc<str>,
    resumed: Option<bool>,
    /// The part that comes next.
    part: Part,
    /// How many bytes of that part have been sent; the array counts for itself.
    sent_of_part: usize,
    array: MessageText,
    /// Holes from this id on must still be named as skipped.
    skipped_from: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Header,
    Begin,
    Array,
    Ids,
    /// `,"skipped":[`, or the `,` before the next id, and the id.
    Skipped,
    SkippedEnd,
    Closing,
    Done,
}

impl HistoryFrame {
    /// Prepares the frame of a snapshot.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(snapshot: Snapshot) -> io::Result<HistoryFrame> {
        let Snapshot { stretch, epoch, resumed } = snapshot;
        let array = stretch.clone().text()?;
        let skipped_from = stretch.first_id;
        Ok(HistoryFrame {
            stretch,
            epoch,
            resumed,
            part: Part::Header,
            sent_of_part: 0,
            array,
            skipped_from,
        })
    }

    /// Leaves the frame's header out, for an HTTP response whose body is the payload.
    pub fn without_header(mut self) -> HistoryFrame {
        self.part = Part::Begin;
        self
    }

    /// Whether all of it has been sent.
    pub fn is_done(&self) -> bool {
        self.part == Part::Done
    }

    /// The length of the payload in bytes. It must be asked for before any part has been sent.
    pub fn payload_len(&self) -> u64 {
        let skipped: u64 =
            self.stretch.holes_from(self.skipped_from).map(|id| digits(id) as u64 + 1).sum();
        // Each id has a comma before it, but the first: there the closing bracket counts instead.
        let skipped = if skipped == 0 { 0 } else { SKIPPED.len() as u64 + skipped };
        let rest = HISTORY.len() + self.ids().len() + self.closing().len();
        rest as u64 + self.array.left() + skipped
    }

    /// Appends the next bytes to `out`: `most` of them, or all that are left.
    ///
    /// # Errors
    /// When the file cannot be read: the frame cannot be finished then.
    pub fn peek(&self, out: &mut Vec<u8>, most: usize) -> io::Result<()> {
        let mut ahead = self.clone();
        let end = out.len() + most;
        while out.len() < end && !ahead.is_done() {
            let room = end - out.len();
            match ahead.part_bytes() {
                None => {
                    let from = out.len();
                    ahead.array.read(out, room)?;
                    // The compiler makes this loop work on many bytes at a time.
                    for byte in &mut out[from..] {
                        *byte = if *byte == b'\n' { b',' } else { *byte };
                    }
                    ahead.leave_array_at_its_end();
                }
                Some(bytes) => {
                    let rest = &bytes[ahead.sent_of_part..];
                    let count = room.min(rest.len());
                    out.extend_from_slice(&rest[..count]);
                    ahead.advance_part(bytes.len(), count);
                }
            }
        }
        Ok(())
    }

    /// Leaves out the next `count` bytes, which have been sent.
    pub fn advance(&mut self, count: usize) {
        let mut left = count;
        while left > 0 && !self.is_done() {
            left -= match self.part_bytes() {
                None => self.advance_array(left),
                Some(bytes) => self.advance_part(bytes.len(), left),
            };
        }
    }

    /// The bytes of the part that comes next; `None` for the array, which is read from the file.
    fn part_bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.part {
            Part::Header => push_text_header(self.payload_len(), &mut bytes),
            Part::Begin => bytes.extend_from_slice(HISTORY),
            Part::Array => return None,
            Part::Ids => bytes = self.ids(),
            Part::Skipped => {
                let is_first = self.skipped_from == self.stretch.first_id;
                bytes.extend_from_slice(if is_first { SKIPPED } else { b"," });
                push_number(self.next_hole()?, &mut bytes);
            }
            Part::SkippedEnd => bytes.push(b']'),
            Part::Closing | Part::Done => bytes = self.closing(),
        }
        Some(bytes)
    }

    fn next_hole(&self) -> Option<u64> {
        self.stretch.holes_from(self.skipped_from).next()
    }

    fn ids(&self) -> Vec<u8> {
        let mut bytes = br#"],"first_id":"#.to_vec();
        push_number(self.stretch.first_id, &mut bytes);
        bytes.extend_from_slice(br#","last_id":"#);
        push_number(self.stretch.last_id, &mut bytes);
        bytes
    }

    fn closing(&self) -> Vec<u8> {
        let resumed = match self.resumed {
            None => "",
            Some(true) => r#","resumed":true"#,
            Some(false) => r#","resumed":false"#,
        };
        format!(r#","epoch":"{}"{resumed}}}"#, self.epoch).into_bytes()
    }

    /// Leaves out `most` bytes of the current part, which has `len`, or those that are left of it;
    /// returns how many that were.
    fn advance_part(&mut self, len: usize, most: usize) -> usize {
        let count = most.min(len - self.sent_of_part);
        self.sent_of_part += count;
        if self.sent_of_part == len {
            self.sent_of_part = 0;
            self.part = self.next_part();
        }
        count
    }

    fn advance_array(&mut self, most: usize) -> usize {
        let before = self.array.left();
        self.array.skip(most as u64);
        self.leave_array_at_its_end();
        (before - self.array.left()) as usize
    }

    fn leave_array_at_its_end(&mut self) {
        if self.array.left() == 0 {
            self.part = self.next_part();
        }
    }

    fn next_part(&mut self) -> Part {
        match self.part {
            Part::Header => Part::Begin,
            Part::Begin if self.array.left() > 0 => Part::Array,
            Part::Begin | Part::Array => Part::Ids,
            Part::Ids if self.next_hole().is_some() => Part::Skipped,
            Part::Skipped => {
                self.skipped_from = self.next_hole().map_or(u64::MAX, |id| id + 1);
                if self.next_hole().is_some() { Part::Skipped } else { Part::SkippedEnd }
            }
            Part::Ids | Part::SkippedEnd => Part::Closing,
            Part::Closing | Part::Done => Part::Done,
        }
    }
}

/// Appends the header of an unmasked text frame with a payload of `len` bytes: RFC 6455, section
/// 5.2.
pub fn push_text_header(len: u64, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    header.format(len, out).expect("writing a header to memory cannot fail");
}

/// How many decimal digits a number has.
pub fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Appends a number in decimal digits.
pub fn push_number(number: u64, out: &mut Vec<u8>) {
    write!(out, "{number}").expect("writing a number to memory cannot fail");
}

/// The frame that tells who is here: so many connections, with these senders among them.
pub fn presence_frame(count: usize, names: &[Arc<str>]) -> Vec<u8> {
    let mut json = format!(r#"{{"type":"presence","count":{count},"names":["#).into_bytes();
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        push_json_string(name, &mut json);
    }
    json.extend_from_slice(b"]}");
    text_frame(&json)
}

/// The frame that tells that somebody types.
pub fn typing_frame(from: &str) -> Vec<u8> {
    let mut json = br#"{"type":"typing","from":"#.to_vec();
    push_json_string(from, &mut json);
    json.push(b'}');
    text_frame(&json)
}

fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    push_text_header(payload.len() as u64, &mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// The part that is left of the first of some frames which a socket did not take whole, when it took
/// `sent` bytes; `None` when it took only whole frames. The frames must be unmasked.
pub fn rest_of_begun(frames: &[u8], sent: usize) -> Option<CutFrame> {
    let mut end = 0;
    while end < sent {
        let start = end;
        let [_, short, long @ ..] = &frames[start..] else { unreachable!("frames are whole") };
        let (head, len) = match short {
            126 => (4, u64::from(u16::from_be_bytes(*long.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*long.first_chunk()?)),
            len => (2, u64::from(*len)),
        };
        end = start + head + len as usize;
        if sent < end {
            return Some(CutFrame::of(&frames[start..end], sent - start));
        }
    }
    None
}

/// A ping without payload.
pub fn ping_frame() -> Vec<u8> {
    formatted(Frame::ping(Vec::new()))
}

/// A close frame with a code and a short reason for a person.
pub fn close_frame(code: CloseCode, reason: &'static str) -> Vec<u8> {
    formatted(Frame::close(Some(CloseFrame { code, reason: reason.into() })))
}

fn formatted(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    frame.format(&mut bytes).expect("writing a frame to memory cannot fail");
    bytes
}

#[cfg(test)]
mod tests;
