//! What goes over a WebSocket: every envelope and every frame, spelled here and nowhere else.
//!
//! A live message is encoded once for all clients. A history is one frame that is read from the
//! file while it is sent. When a socket takes only a part of a frame, the message in it is not kept
//! in memory: a [`CutFrame`] or [`HistoryFrame`] knows from which byte on it must be read again.

use std::sync::Arc;

use tungstenite::protocol::frame::{
    CloseFrame, Frame, FrameHeader,
    coding::{Data, OpCode},
};

use crate::message::push_json_string;

mod live;
mod history_frame;
mod history_end;
mod cut_frame;
mod error_answer;
mod close_reason;

pub use close_reason::CloseReason;
pub use cut_frame::CutFrame;
pub use error_answer::ErrorAnswer;
pub use history_end::{HistoryEnd, HistoryForm};
pub use history_frame::{HISTORY, HistoryFrame, make_array};
pub use live::{Frames, LiveFrames, push_stamp};

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
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The frame that tells who is here: `count` connections, with these senders among them.
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

/// A close frame, with its code and a sentence for people.
pub fn close_frame(reason: CloseReason) -> Vec<u8> {
    let (code, sentence) = (reason.code(), reason.sentence());
    formatted(Frame::close(Some(CloseFrame { code, reason: sentence.into() })))
}

fn formatted(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    frame.format(&mut bytes).expect("writing a frame to memory cannot fail");
    bytes
}

#[cfg(test)]
mod tests;
