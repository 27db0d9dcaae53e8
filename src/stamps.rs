//! Stamps: when each line of the text file was accepted, and who said it.
//!
//! Line N of the stamps file describes line N of the text file: a time in UTC, a space, and the
//! sender, `-` where one of them is not known. Any other line says that neither is known. The
//! journal writes stamps (`journal/stamps.rs`); here is what one looks like, and how it is found
//! again: through an index of a line every few KiB, so that no stamp is kept in memory. The hub owns
//! the index. Other threads get [`Stamps`] of a part of it, with which they read the file
//! themselves.

use std::{
    io::Write as _,
    str,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

mod index;
mod recent;
mod reader;

pub use index::Index;
pub use reader::{Since, StampPart, StampReader, Stamps};
pub use recent::Recent;

/// The longest sender, in bytes: a name of 64 bytes, `~` and what proves it, and room to spare.
const SENDER_BYTES: usize = 128;

/// The length of a time as it stands in the file: `2026-11-23T14:02:15.123Z`.
const TIME_BYTES: usize = 24;

/// The longest line that can be a stamp, in bytes.
const LINE_BYTES: usize = TIME_BYTES + 1 + SENDER_BYTES;

/// What stands in the place of a time or a sender that is not known.
const UNKNOWN: &[u8] = b"-";

/// The line of which nothing is known, with its `\n`.
pub(crate) const NOTHING: &[u8] = b"- -\n";

/// Whether a sender fits in a line of the stamps file: it has 1 to 128 bytes and no control
/// character, and is not `-`, which stands for nobody.
fn is_sender(name: &str) -> bool {
    (1..=SENDER_BYTES).contains(&name.len())
        && name.as_bytes() != UNKNOWN
        && !name.contains(char::is_control)
}

/// When a line was accepted, and who said it, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp<'a> {
    /// The time of acceptance, in Unix milliseconds.
    pub ts: Option<u64>,
    /// The verified sender.
    pub from: Option<&'a str>,
}

impl<'a> Stamp<'a> {
    /// What a line of the stamps file says, given without its `\n`. A line that is no stamp says
    /// nothing.
    pub fn parse(line: &'a [u8]) -> Stamp<'a> {
        Stamp::parse_known(line).unwrap_or_default()
    }

    fn parse_known(line: &'a [u8]) -> Option<Stamp<'a>> {
        let space = memchr::memchr(b' ', line)?;
        let (time, sender) = (&line[..space], &line[space + 1..]);
        let sender = if is_erased(sender) { UNKNOWN } else { sender };
        let ts = if time == UNKNOWN { None } else { Some(parse_time(time.try_into().ok()?)?) };
        let from = match sender {
            UNKNOWN => None,
            sender => Some(str::from_utf8(sender).ok().filter(|name| is_sender(name))?),
        };
        Some(Stamp { ts, from })
    }
}

/// Whether a sender was erased: spaces follow the `-`, so that the line keeps its length.
fn is_erased(sender: &[u8]) -> bool {
    sender.strip_prefix(UNKNOWN).is_some_and(|rest| rest.iter().all(|&byte| byte == b' '))
}

/// Overwrites the sender on a line of the stamps file, given without its `\n`; false when the line names
/// none.
pub(crate) fn erase_sender(line: &mut [u8]) -> bool {
    match memchr::memchr(b' ', line) {
        Some(space) if Stamp::parse(line).from.is_some() => {
            let sender = &mut line[space + 1..];
            sender.fill(b' ');
            sender[..UNKNOWN.len()].copy_from_slice(UNKNOWN);
            true
        }
        _ => false,
    }
}

/// The time in Unix milliseconds; `None` when it is not written exactly as the server writes it.
fn parse_time(time: &[u8; TIME_BYTES]) -> Option<u64> {
    if !is_shaped_like_time(time) {
        return None;
    }
    let time = humantime::parse_rfc3339(str::from_utf8(time).ok()?).ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn is_shaped_like_time(time: &[u8; TIME_BYTES]) -> bool {
    time[10] == b'T' && time[19] == b'.' && time[23] == b'Z'
}

/// The last millisecond of the year 9999, which is the last that has four digits.
const LAST_MS: u64 = 253_402_300_799_999;

/// The time of acceptance for what is accepted now, in Unix milliseconds: that of the clock, but
/// never before `last`, which was given before.
pub fn acceptance_time(last: u64) -> u64 {
    last.max(now()).min(LAST_MS)
}

/// The time of the clock, in Unix milliseconds.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    u64::try_from(now).unwrap_or(LAST_MS)
}

/// Stamps that are about to be written, each with its `\n`.
#[derive(Debug, Default)]
pub struct NewStamps {
    bytes: Vec<u8>,
    /// The time on the last line, in Unix milliseconds, and where that line begins. All lines of a
    /// batch have the same time, so it is spelled once and copied.
    last: Option<(u64, usize)>,
}

impl NewStamps {
    /// Appends the same stamp for `lines` lines: accepted at `ts`, in Unix milliseconds. A sender
    /// that does not fit in a line is left out.
    ///
    /// # Panics
    /// When the year has more than four digits.
    pub fn push(&mut self, lines: u64, ts: u64, from: Option<&str>) {
        if lines == 0 {
            return;
        }
        let start = self.bytes.len();
        match self.last {
            Some((last_ts, at)) if last_ts == ts => {
                self.bytes.extend_from_within(at..at + TIME_BYTES + 1);
            }
            _ => {
                let time = UNIX_EPOCH + Duration::from_millis(ts);
                write!(self.bytes, "{} ", humantime::format_rfc3339_millis(time))
                    .expect("the year has four digits, and memory takes everything");
                self.last = Some((ts, start));
            }
        }
        let from = from.filter(|name| is_sender(name));
        self.bytes.extend_from_slice(from.map_or(UNKNOWN, str::as_bytes));
        self.bytes.push(b'\n');
        let one = start..self.bytes.len();
        (1..lines).for_each(|_| self.bytes.extend_from_within(one.clone()));
    }

    /// Says of `lines` lines that nothing is known of them.
    pub fn push_unknown(&mut self, lines: u64) {
        (0..lines).for_each(|_| self.bytes.extend_from_slice(NOTHING));
    }

    /// The lines as they are to stand in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets all lines, but keeps their memory for those of the next batch.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.last = None;
    }
}

/// How many bytes of memory are kept for the next stamps: those of a usual batch.
const KEPT: usize = 64 << 10;

#[cfg(test)]
mod tests;
