//! How a channel's file stands to the order of its engine.

use std::{fs::File, io};

use super::{
    Trouble,
    chain::{Chain, Place, Walk, bytes_at},
    engine::{Engine, Entry, Keys, Order},
};
use crate::{lines::each_line, message};

/// How many entries are looked at at a time.
const ENTRIES: usize = 32;

/// The part of a channel's file that has numbers.
#[derive(Debug)]
pub struct Numbered<'a> {
    /// Where the engine has the order.
    pub keys: &'a Keys,
    /// The file.
    pub file: &'a File,
    /// The epoch of its numbering.
    pub epoch: &'a str,
    /// The number of the last line.
    pub last: u64,
    /// The offset after it.
    pub end: u64,
    /// Where hashing the file begins: a place whose hash is known, no later than the last line that the
    /// order has, too. Hashing a long file from its beginning takes longer than an engine waits for those
    /// who have what it lost; and where lines were erased, the hash does not follow from the file.
    pub checkpoint: Place,
}

/// How a file stands to the order.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The file is the beginning of the order, or all of it. The hash after its last line, if it is
    /// known.
    Beginning(Option<Chain>),
    /// The order is the beginning of the file: the engine has lost lines, or never had them. The hash
    /// after the order's last line.
    Longer(Chain),
    /// The file has other lines than the order, after the first so many, which end at this offset.
    Fork(u64, u64),
    /// The engine keeps no more what the file lacks.
    Trimmed,
    /// The file and the order have no line in common, as far as can be seen: most likely the engine is
    /// another chat's.
    Unrelated,
}

/// Compares a file with the order.
///
/// # Errors
/// When the engine gives no answer or the file cannot be read.
pub fn compare(
    engine: &mut Engine,
    order: &Order,
    ours: &Numbered<'_>,
) -> Result<Verdict, Trouble> {
    if order.last <= ours.last {
        let chain = ours.chain_after(order.last)?;
        let is_same = chain == order.chain || has_only_erased(engine, ours, order.last)?;
        return match (is_same, order.last == ours.last) {
            (true, true) => Ok(Verdict::Beginning(Some(order.chain.clone()))),
            (true, false) => Ok(Verdict::Longer(order.chain.clone())),
            (false, _) => fork(engine, order, ours),
        };
    }
    let is_ours = order.epoch == ours.epoch || ours.last == 0;
    let next = engine.range(ours.keys, ours.last + 1, 1)?.into_iter().next().and_then(Result::ok);
    let Some(Entry { mut piece, chain }) =
        next.filter(|entry| entry.piece.first_id <= ours.last + 1)
    else {
        return Ok(if is_ours { Verdict::Trimmed } else { Verdict::Unrelated });
    };
    let before = ours.chain_after(ours.last)?;
    piece.begin_at(ours.last + 1);
    if before.after(&piece.lines) == chain {
        return Ok(Verdict::Beginning(Some(before)));
    }
    match has_only_erased(engine, ours, ours.last)? {
        true => Ok(Verdict::Beginning(None)),
        false => fork(engine, order, ours),
    }
}

impl Numbered<'_> {
    fn chain_after(&self, id: u64) -> io::Result<Chain> {
        let mut walk = Walk::from(self.file, self.checkpoint.clone());
        walk.go_to(id, self.end)?;
        Ok(walk.at.chain)
    }
}

/// Whether the lines that the engine keeps, up to `until`, are those of the file, apart from some
/// that were erased. The hash of a file says nothing any more when a line in it was erased.
fn has_only_erased(engine: &mut Engine, ours: &Numbered<'_>, until: u64) -> Result<bool, Trouble> {
    let mut walk = Walk::of(ours.file);
    let mut erased = 0;
    let mut next = 1;
    while next <= until {
        let entries = engine.range(ours.keys, next, ENTRIES)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            let Ok(Entry { piece, .. }) = entry else { return Ok(false) };
            next = piece.last_id() + 1;
            walk.go_to(piece.first_id - 1, ours.end)?;
            for (line, id) in each_line(&piece.lines).zip(piece.first_id..) {
                if id > until {
                    return Ok(erased > 0);
                }
                let Some(own) = bytes_at(ours.file, walk.at.offset, line.len(), ours.end)? else {
                    return Ok(false);
                };
                if own != line {
                    if !is_erased(&own) && !is_erased(line) {
                        return Ok(false);
                    }
                    erased += 1;
                }
                walk.at.lines += 1;
                walk.at.offset += line.len() as u64;
            }
        }
    }
    Ok(erased > 0)
}

/// Whether a line, with its `\n`, is what stands in the place of one that was deleted.
fn is_erased(line: &[u8]) -> bool {
    let Some((b'\n', text)) = line.split_last() else { return false };
    let mut erased = text.to_vec();
    message::erase(&mut erased);
    erased == text
}

/// Where a file and the order part.
fn fork(engine: &mut Engine, order: &Order, ours: &Numbered<'_>) -> Result<Verdict, Trouble> {
    let mut walk = Walk::of(ours.file);
    let (mut lines, mut offset) = (0, 0);
    let mut next = 1;
    'pieces: while next <= order.last.min(ours.last) {
        let entries = engine.range(ours.keys, next, ENTRIES)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            let Ok(Entry { piece, chain }) = entry else { break 'pieces };
            next = piece.last_id() + 1;
            if piece.last_id() <= ours.last {
                walk.go_to(piece.last_id(), ours.end)?;
                if walk.at.chain == chain {
                    (lines, offset) = (walk.at.lines, walk.at.offset);
                    continue;
                }
            }
            if piece.first_id == lines + 1 {
                for line in each_line(&piece.lines) {
                    let own = bytes_at(ours.file, offset, line.len(), ours.end)?;
                    if own.as_deref() != Some(line) {
                        break;
                    }
                    lines += 1;
                    offset += line.len() as u64;
                }
            }
            // With no line in common yet, a later entry's hash may still be the file's.
            if piece.first_id == 1 || lines > 0 {
                break 'pieces;
            }
        }
    }
    Ok(if lines == 0 && order.epoch != ours.epoch {
        Verdict::Unrelated
    } else {
        Verdict::Fork(lines, offset)
    })
}
