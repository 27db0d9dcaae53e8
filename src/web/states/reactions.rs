//! The reactions to a message. There may be many, since anybody can make any number of pseudonyms, each
//! with a reaction.
//!
//! Of many, the hub is asked for the lines of some after another, and only the numbers of these lines are
//! held. Then the senders are read and written one by one, as far as the peer takes them. A reaction that
//! is made or taken back meanwhile may be there or not; every other one is there once.

use std::io;

use super::{
    super::{Channel, Exchange, Stop, chunks::Chunks, sending::Held},
    Line, read,
};
use crate::{
    command::{HubGone, StampedLine},
    history::Stretch,
    http::HttpRefusal,
    message::push_json_string,
    operations::{Action, Operation, Recognised, recognise},
    stamps::{StampReader, Stamps},
};

/// To read over so many stamps costs less than to ask the hub for one that is nearer to the next.
const READ_OVER: u64 = 1024;

/// What is held for a line: its number, and as much again while the list of them grows.
const HELD_A_LINE: usize = 2 * size_of::<u64>();

/// The lines of many reactions.
pub(super) struct Many {
    /// The lines for each key, in the order of the file.
    keys: Vec<Vec<u64>>,
    /// A share for them.
    _held: Held,
}

impl Channel {
    /// The reactions to a message; `None` when it was deleted.
    pub(super) fn many_reactions(&self, target: u64) -> Result<Option<Many>, Stop> {
        let mut keys: Vec<Vec<u64>> = Vec::new();
        let mut held = Held::default();
        let mut last = None;
        loop {
            let next = self.hub.reactions(target, last).map_err(|HubGone| self.gone())?;
            let Some(next) = next else { return Ok(None) };
            if next.is_empty() {
                break;
            }
            if !held.grow(next.len() * HELD_A_LINE) {
                let sentence = "too many ask for messages with very many reactions; ask again soon";
                return Err(HttpRefusal::unavailable(sentence).into());
            }
            for (reaction, line) in next {
                match keys.last_mut() {
                    Some(lines) if last.is_some_and(|last| reaction.has_key_of(&last)) => {
                        lines.push(line);
                    }
                    _ => keys.push(vec![line]),
                }
                last = Some(reaction);
            }
        }
        keys.iter_mut().for_each(|lines| lines.sort_unstable());
        keys.sort_unstable_by_key(|lines| lines[0]);
        Ok(Some(Many { keys, _held: held }))
    }

    /// The lines from one on, but no line after `last_id`, and no more than the hub names at a time.
    fn stretch(&self, first_id: u64, last_id: u64) -> Result<(Stretch, Stamps), Stop> {
        self.hub.history(first_id, last_id).map_err(|HubGone| self.gone().into())
    }
}

impl Exchange<'_> {
    /// Writes the senders of many reactions by their keys. Keys and senders are in the order of the file.
    pub(super) fn write_reactions(
        &mut self,
        channel: &Channel,
        body: &mut Chunks,
        many: Many,
    ) -> Result<(), Stop> {
        let mut writer = Writer::default();
        for lines in many.keys {
            let mut senders = Senders { channel, near: None };
            let mut is_begun = false;
            for id in lines {
                let Some(sender) = senders.of(id)? else { continue };
                if !is_begun {
                    let (stretch, stamps) = channel.stretch(id, id)?;
                    let line = read(StampedLine { stretch, stamps })?;
                    let Some(key) = key_of(&line) else { continue };
                    writer.push_key(&key, &mut body.bytes);
                    is_begun = true;
                }
                writer.push_sender(sender, &mut body.bytes);
                body.flush_full(self)?;
            }
        }
        writer.finish(&mut body.bytes);
        Ok(())
    }
}

/// Looks up senders, in the order of their lines.
struct Senders<'a> {
    channel: &'a Channel,
    near: Option<Near>,
}

/// The stamps of some lines.
struct Near {
    stamps: StampReader,
    /// The line whose stamp was read last.
    read: u64,
    /// The last of the lines.
    last: u64,
}

impl Senders<'_> {
    fn of(&mut self, id: u64) -> Result<Option<&str>, Stop> {
        let is_near = |near: &mut Near| id <= near.last && id - near.read <= READ_OVER;
        let mut near = match self.near.take_if(is_near) {
            Some(near) => near,
            None => {
                let (stretch, stamps) = self.channel.stretch(id, u64::MAX)?;
                Near { stamps: stamps.read(), read: id, last: stretch.last_id }
            }
        };
        near.read = id;
        Ok(self.near.insert(near).stamps.of(id).from)
    }
}

/// Writes a few reactions by their keys. Keys and senders are in the order of the file.
pub(super) fn push_few(out: &mut Vec<u8>, lines: Vec<StampedLine>) -> io::Result<()> {
    let mut keys: Vec<(Box<str>, Vec<String>)> = Vec::new();
    for line in lines {
        let line = read(line)?;
        let (Some(key), Some(sender)) = (key_of(&line), line.from) else { continue };
        match keys.iter_mut().find(|(known, _)| *known == key) {
            Some((_, senders)) => senders.push(sender),
            None => keys.push((key, vec![sender])),
        }
    }
    let mut writer = Writer::default();
    for (key, senders) in &keys {
        writer.push_key(key, out);
        senders.iter().for_each(|sender| writer.push_sender(sender, out));
    }
    writer.finish(out);
    Ok(())
}

/// The key of the reaction on a line.
fn key_of(line: &Line) -> Option<Box<str>> {
    match recognise(&line.data) {
        Ok(Recognised::Operation(Operation { action: Action::React(key), .. })) => Some(key),
        _ => None,
    }
}

/// Writes the senders of reactions, key by key.
#[derive(Default)]
struct Writer {
    has_keys: bool,
    has_senders: bool,
}

impl Writer {
    fn push_key(&mut self, key: &str, out: &mut Vec<u8>) {
        let before: &[u8] = if self.has_keys { b"]," } else { br#","reactions":{"# };
        out.extend_from_slice(before);
        push_json_string(key, out);
        out.extend_from_slice(b":[");
        *self = Writer { has_keys: true, has_senders: false };
    }

    fn push_sender(&mut self, sender: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.has_senders { b"," } else { b"" });
        push_json_string(sender, out);
        self.has_senders = true;
    }

    fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.has_keys { b"]}" } else { b"" });
    }
}
