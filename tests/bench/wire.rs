//! What a load generator says and looks for: one handshake request, messages whose frames are made in
//! advance, and the marker in a message that arrives.
//!
//! No JSON is parsed here. Every message carries a marker, `#` + 4 hex digits of its sender + 8 hex
//! digits of its number + `#`, and finding that is enough to check who got what in which order.

use std::io::{self, Write};

use crate::frames::{MASK, TEXT, frame};

/// The request that a client opens with. The key is the one of RFC 6455: nobody checks the answer.
pub fn handshake(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// Fills messages up to the size wanted; it must not contain a `#`.
const FILLER: &str = "the quick brown fox jumps over the lazy dog and then some more of it ";

const SENDER_DIGITS: usize = 4;
const NUMBER_DIGITS: usize = 8;
const MARKER_DIGITS: usize = SENDER_DIGITS + NUMBER_DIGITS;

/// Who said it and which of their messages it is, as the hex digits that stand in the message:
/// comparing two markers is comparing twelve bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Marker([u8; MARKER_DIGITS]);

impl Marker {
    /// Finds the marker of a live message. `place` remembers where the last one stood: it is the
    /// same place in nearly every message of a run.
    #[inline]
    pub fn find(payload: &[u8], place: &mut usize) -> Option<Marker> {
        if let Some(marker) = Marker::at(payload, *place) {
            return Some(marker);
        }
        *place = memchr::memchr(b'#', payload)?;
        Marker::at(payload, *place)
    }

    #[inline]
    fn at(payload: &[u8], place: usize) -> Option<Marker> {
        match payload.get(place..place + MARKER_DIGITS + 2)? {
            [b'#', digits @ .., b'#'] => Some(Marker(digits.try_into().ok()?)),
            _ => None,
        }
    }

    /// The digits of the sender alone, to see at a glance whether a message is one's own.
    #[inline]
    pub fn sender_digits(&self) -> [u8; SENDER_DIGITS] {
        [self.0[0], self.0[1], self.0[2], self.0[3]]
    }

    pub fn sender(&self) -> usize {
        unhex(&self.0[..SENDER_DIGITS])
    }

    pub fn number(&self) -> usize {
        unhex(&self.0[SENDER_DIGITS..])
    }
}

fn unhex(digits: &[u8]) -> usize {
    digits.iter().fold(0, |value, &digit| push_hex(value, digit))
}

#[inline]
fn push_hex(value: usize, digit: u8) -> usize {
    // '0'..'9' are 0x30.., 'a'..'f' are 0x61..: the low half, and nine more for a letter.
    (value << 4) | ((digit & 15) + 9 * (digit >> 6)) as usize
}

/// Writes a line of a preloaded history, spaced as the original program did. The markers count from
/// 0 and name a sender that nobody else is.
pub fn write_stored_line(number: usize, out: &mut impl Write) -> io::Result<()> {
    const TEXT: &str = "the quick brown fox jumps over the lazy dog";
    let user = number % 1000;
    writeln!(out, r##"{{"user": "user{user:04}", "content": "#ffff{number:08x}# {TEXT}"}}"##)
}

/// One sender's message as a masked frame, but for the digits of its number.
pub struct Template {
    pub sender_digits: [u8; SENDER_DIGITS],
    frame: Vec<u8>,
    digits_at: usize,
    /// Where in the mask the first digit falls.
    mask_at: usize,
}

impl Template {
    /// A JSON message of `size` bytes in all.
    pub fn new(sender: usize, size: usize) -> Template {
        let digits = format!("{sender:04x}");
        let mut text = format!("{{\"user\":\"user{sender:04}\",\"content\":\"#{digits}00000000# ");
        let number_at = text.find('#').expect("it was just put there") + 1 + SENDER_DIGITS;
        let room = size.saturating_sub(text.len() + 2);
        text.extend(FILLER.chars().cycle().take(room));
        text.push_str("\"}");
        let frame = frame(TEXT, text.as_bytes());
        Template {
            sender_digits: digits.as_bytes().try_into().expect("senders are few"),
            digits_at: frame.len() - text.len() + number_at,
            mask_at: number_at,
            frame,
        }
    }

    /// Appends the frame of message `number`.
    #[inline]
    pub fn append(&self, number: usize, out: &mut Vec<u8>) {
        let start = out.len() + self.digits_at;
        out.extend_from_slice(&self.frame);
        for (i, byte) in out[start..start + NUMBER_DIGITS].iter_mut().enumerate() {
            let nibble = (number >> (4 * (NUMBER_DIGITS - 1 - i))) & 15;
            *byte = b"0123456789abcdef"[nibble] ^ MASK[(self.mask_at + i) % 4];
        }
    }
}

/// Reads a history as it streams by and checks that its markers count from 0 upward.
#[derive(Default)]
pub struct HistoryCheck {
    pub seen: usize,
    /// How many of them did not follow the one before.
    pub misplaced: usize,
    expected: usize,
    inside: bool,
    digits: usize,
    value: usize,
}

impl HistoryCheck {
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr::memchr(b'#', bytes) {
            self.take_digits(&bytes[..end]);
            bytes = &bytes[end + 1..];
            if self.inside {
                // The number is what the last eight digits say; the sender's are cut off.
                let number = self.value & 0xffff_ffff;
                let in_place = self.digits == MARKER_DIGITS && number == self.expected;
                self.misplaced += usize::from(!in_place);
                self.expected = number + 1;
                self.seen += 1;
            }
            self.inside = !self.inside;
            (self.digits, self.value) = (0, 0);
        }
        self.take_digits(bytes);
    }

    /// A marker may be cut in two by the end of what was read, so its digits add up over calls.
    fn take_digits(&mut self, digits: &[u8]) {
        if self.inside {
            self.digits += digits.len();
            self.value = digits.iter().fold(self.value, |value, &digit| push_hex(value, digit));
        }
    }
}
