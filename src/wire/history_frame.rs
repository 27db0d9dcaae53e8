//! A history as one frame, which is sent part by part and never held as a whole.

use std::{io, sync::Arc};

use super::{digits, push_number, push_text_header};
use crate::history::{MessageText, NextText, Snapshot, Stretch};

/// The beginning of a history that is one object, up to its first message.
pub const HISTORY: &[u8] = br#"{"type":"message_history","data":["#;
const SKIPPED: &[u8] = br#","skipped":["#;

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

/// Makes of lines of messages the inside of an array: a `,` stands for each `\n`.
pub fn make_array(lines: &mut [u8]) {
    // The compiler makes this loop work on many bytes at a time.
    for byte in lines {
        *byte = if *byte == b'\n' { b',' } else { *byte };
    }
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
                    make_array(&mut out[from..]);
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

    /// The bytes of the file that come next, which are sent after [`make_array`]; `None` when something
    /// else comes next. Whoever has them need not [`HistoryFrame::peek`].
    pub fn next_text(&mut self) -> Option<NextText<'_>> {
        if self.part == Part::Array { self.array.next_text() } else { None }
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
