//! A message: any JSON value, kept as the bytes its sender wrote, on one line.
//!
//! Here text becomes a line of the file, and a line becomes what clients are sent. Nothing is ever
//! parsed into a value: a message is validated and carried, so that key order, duplicate keys,
//! number spelling and escapes survive.

use std::io::Write as _;

use serde::de::IgnoredAny;
use tungstenite::protocol::frame::{
    CloseFrame, Frame, FrameHeader,
    coding::{CloseCode, Data, OpCode},
};

/// What begins a live message on the wire.
const NEW_MESSAGE: &[u8] = br#"{"type":"new_message","data":"#;

/// Why a text is no message: serde_json's own words, with line and column.
#[derive(Debug)]
pub struct NotJson(serde_json::Error);

impl std::fmt::Display for NotJson {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(out)
    }
}

/// Appends `text` to `lines` as one line of the file: verbatim, trimmed, with its `\n`.
///
/// # Errors
/// When `text` is not one JSON value; `lines` is as before then.
pub fn push_line(text: &str, lines: &mut Vec<u8>) -> Result<(), NotJson> {
    check(text)?;
    push_on_one_line(trim(text.as_bytes()), lines);
    Ok(())
}

/// Appends what somebody called `name` typed: a JSON object as it is, anything else as the
/// `content` of an object.
pub fn push_line_as(name: &str, text: &str, lines: &mut Vec<u8>) {
    let typed = trim(text.as_bytes());
    if typed.first() == Some(&b'{') && check(text).is_ok() {
        return push_on_one_line(typed, lines);
    }
    push_words(name, text, lines);
}

/// Appends somebody's words as the `content` of an object, without the end of the line they typed.
pub fn push_words(name: &str, text: &str, lines: &mut Vec<u8>) {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    lines.extend_from_slice(br#"{"user":"#);
    push_json_string(name, lines);
    lines.extend_from_slice(br#","content":"#);
    push_json_string(text, lines);
    lines.extend_from_slice(b"}\n");
}

/// The message on a line of the file (without its `\n`), or `None` where the line is a hole:
/// blank, not UTF-8 or not JSON.
pub fn on_line(line: &[u8]) -> Option<&[u8]> {
    let text = std::str::from_utf8(line).ok()?;
    check(text).ok()?;
    Some(trim(line))
}

/// JSON's own white space off both ends; Unicode's would be too much.
pub fn trim(mut text: &[u8]) -> &[u8] {
    const SPACE: [u8; 4] = *b" \t\r\n";
    while let [first, rest @ ..] = text
        && SPACE.contains(first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && SPACE.contains(last)
    {
        text = rest;
    }
    text
}

/// `IgnoredAny` walks without recursion, so depth costs no stack.
fn check(text: &str) -> Result<(), NotJson> {
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(NotJson)
}

/// In valid JSON a raw CR or LF can only stand between tokens, where a space means the same.
fn push_on_one_line(json: &[u8], lines: &mut Vec<u8>) {
    let start = lines.len();
    lines.extend_from_slice(json);
    if memchr::memchr2(b'\r', b'\n', json).is_some() {
        for byte in &mut lines[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
    }
    lines.push(b'\n');
}

fn push_json_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing a string to memory cannot fail");
}

/// Live messages encoded once for everybody, with where each frame ends.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    marks: Vec<FrameMark>,
}

#[derive(Clone, Copy, Debug)]
struct FrameMark {
    end: usize,
    id: u64,
}

impl Frames {
    /// Appends one `new_message` frame.
    pub fn push(&mut self, data: &[u8], id: u64, ts: Option<u64>) {
        let stamp = ts.map_or(0, |ts| br#","ts":"#.len() + digits(ts));
        let len = NEW_MESSAGE.len() + data.len() + br#","id":"#.len() + digits(id) + stamp + 1;
        push_text_header(len as u64, &mut self.bytes);
        self.bytes.extend_from_slice(NEW_MESSAGE);
        self.bytes.extend_from_slice(data);
        self.bytes.extend_from_slice(br#","id":"#);
        push_number(id, &mut self.bytes);
        if let Some(ts) = ts {
            self.bytes.extend_from_slice(br#","ts":"#);
            push_number(ts, &mut self.bytes);
        }
        self.bytes.push(b'}');
        self.marks.push(FrameMark { end: self.bytes.len(), id });
    }

    /// Whole frames, back to back.
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

    /// The id behind the last message; 0 when there is none.
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

    /// Forgets all but the first `len` frames.
    pub fn truncate(&mut self, len: usize) {
        self.marks.truncate(len);
        self.bytes.truncate(self.marks.last().map_or(0, |mark| mark.end));
    }

    /// Forgets the frames, keeps the memory but for what a rare huge batch took.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(FRAMES_KEPT);
        self.marks.clear();
    }

    /// Where a send that took `sent` bytes, fewer than all, leaves a client: the rest of the frame
    /// that was cut (maybe empty), and the id of the first message it has nothing of.
    pub fn cut(&self, sent: usize) -> (&[u8], u64) {
        let begun = self.marks.partition_point(|mark| mark.end <= sent);
        let start = if begun == 0 { 0 } else { self.marks[begun - 1].end };
        if sent == start {
            return (&[], self.marks[begun].id);
        }
        let end = self.marks[begun].end;
        // The next id is what follows the cut message, whether or not this batch has it.
        (&self.bytes[sent..end], self.marks[begun].id + 1)
    }
}

/// Memory that the hub keeps for the frames of its next batch.
const FRAMES_KEPT: usize = 4 << 20;

/// The header of an unmasked text frame, RFC 6455 section 5.2.
pub fn push_text_header(len: u64, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    header.format(len, out).expect("writing a header to memory cannot fail");
}

/// How many decimal digits a number has.
pub fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Decimal digits.
pub fn push_number(number: u64, out: &mut Vec<u8>) {
    write!(out, "{number}").expect("writing a number to memory cannot fail");
}

/// What a client is told when its input was not taken; the names are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The text is not JSON.
    NotJson,
    /// Messages are text.
    BinaryUnsupported,
    /// The disk is full, or a quota or limit is reached.
    StorageFull,
    /// The server is about to end.
    ShuttingDown,
}

impl Refusal {
    /// The code on the wire.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::NotJson => "not_json",
            Refusal::BinaryUnsupported => "binary_unsupported",
            Refusal::StorageFull => "storage_full",
            Refusal::ShuttingDown => "shutting_down",
        }
    }

    /// What a person is told, where the case has no words of its own.
    pub fn sentence(self) -> &'static str {
        match self {
            Refusal::NotJson => "the text is not JSON",
            Refusal::BinaryUnsupported => "send messages as text frames",
            Refusal::StorageFull => "the server cannot store messages now; try again later",
            Refusal::ShuttingDown => "the server is stopping; connect again and send once more",
        }
    }

    /// The answer as JSON.
    pub fn json(self, message: &str) -> Vec<u8> {
        let mut json =
            format!(r#"{{"type":"error","code":"{}","message":"#, self.code()).into_bytes();
        push_json_string(message, &mut json);
        json.push(b'}');
        json
    }

    /// The answer as one text frame.
    pub fn frame(self, message: &str) -> Vec<u8> {
        let json = self.json(message);
        let mut frame = Vec::with_capacity(json.len() + 10);
        push_text_header(json.len() as u64, &mut frame);
        frame.extend_from_slice(&json);
        frame
    }
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
