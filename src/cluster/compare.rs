//! How a channel's file stands to the order of its engine.

use std::{io, vec};

use super::{
    Settings, Trouble,
    chain::{Chain, Place, Walk},
    engine::{Engine, EngineError, Entry, Keys, Malformed, Order},
    own_file::OwnFile,
};
use crate::journal::Fatal;

/// How many entries are looked at at a time.
const ENTRIES: usize = 32;

/// How a file stands to the order.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The file is the beginning of the order, or all of it. The hash after its last line, if it is
    /// known.
    Beginning(Option<Chain>),
    /// The order is the beginning of the file: the engine has lost lines, or never had them. The hash
    /// after the order's last line.
    Longer(Chain),
    /// The order became another one meanwhile, and is to be compared anew: its channel was put away, or
    /// its engine was emptied.
    Changed,
    /// Neither is the beginning of the other, as far as can be seen.
    Mismatch(Mismatch),
}

/// Why a file cannot join the order as it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The file has other lines than the order.
    Fork {
        /// How many lines they have in common.
        lines: u64,
        /// The offset after these in the file.
        offset: u64,
    },
    /// The engine keeps no more what the file lacks.
    Trimmed,
    /// The file and the order have no line in common: most likely the engine is another chat's.
    Unrelated,
}

impl Mismatch {
    /// What ends a copy whose file has this epoch and `last` lines; the sentence is for an operator. After
    /// a fork the engine begins a new epoch, if it still has the file's: lines that were shown under that one
    /// are not in the order.
    ///
    /// # Errors
    /// When the engine gives no answer.
    pub fn declare(
        &self,
        engine: &mut Engine,
        settings: &Settings,
        epoch: &str,
        last: u64,
    ) -> Result<Fatal, EngineError> {
        Ok(match self {
            Mismatch::Fork { lines, .. } => {
                engine.begin_epoch(&settings.keys, epoch)?;
                Fatal::Forked(format!(
                    "the file has forked from the order: lines {} to {last} differ; the next start \
                     sets them aside and joins again",
                    lines + 1
                ))
            }
            Mismatch::Trimmed => {
                let file = settings.file.file_name().unwrap_or_default().display();
                let channel = settings.keys.name();
                Fatal::CannotJoin(format!(
                    "the engine keeps no more what follows line {last}; get it from another node, \
                     and start again: curl -C - -o {file} http://PEER/{channel}.txt"
                ))
            }
            Mismatch::Unrelated => Fatal::CannotJoin(format!(
                "the file and the order at {} have no line in common; is it the right engine? \
                 Nothing was changed",
                settings.url
            )),
        })
    }
}

/// Compares a file with the order.
///
/// The file is hashed from `checkpoint`, a place whose hash is known, no later than the last line that both
/// have. Hashing a long file from its beginning takes longer than an engine waits for those who have what it
/// lost; and where lines were erased, the hash does not follow from the file.
///
/// # Errors
/// When the engine gives no answer or the file cannot be read.
pub fn compare(
    engine: &mut Engine,
    keys: &Keys,
    order: &Order,
    own: &OwnFile,
    checkpoint: Place,
) -> Result<Verdict, Trouble> {
    let mut comparison = Comparison { engine, keys, order, own, checkpoint };
    let verdict = comparison.verdict()?;
    // The entries are read after the order: those of an engine that was emptied in between are not there,
    // or not yet again, and yet nothing has forked.
    let is_sure = !matches!(verdict, Verdict::Mismatch(_))
        || order.goes_on_as(&comparison.engine.order(keys)?) && comparison.verdict()? == verdict;
    Ok(if is_sure { verdict } else { Verdict::Changed })
}

/// How many lines the file and the order have in common, if the first `lines` are, and the offset after
/// these in the file.
///
/// # Errors
/// When the engine gives no answer or the file cannot be read.
pub fn common_after(
    engine: &mut Engine,
    keys: &Keys,
    own: &OwnFile,
    mut lines: u64,
) -> Result<(u64, u64), Trouble> {
    let mut offset = own.place_after(lines, Place::default())?.offset;
    while let Some(Entry { mut piece, .. }) = engine.entry_with(keys, lines + 1)? {
        piece.begin_at(lines + 1);
        let same = own.common_with(&piece.lines, offset)?;
        lines += same.lines;
        offset += same.bytes;
        if same.lines < piece.count() {
            break;
        }
    }
    Ok((lines, offset))
}

struct Comparison<'a> {
    engine: &'a mut Engine,
    keys: &'a Keys,
    order: &'a Order,
    own: &'a OwnFile,
    checkpoint: Place,
}

impl Comparison<'_> {
    fn verdict(&mut self) -> Result<Verdict, Trouble> {
        match self.order.last <= self.own.last {
            true => self.of_longer_file(),
            false => self.of_longer_order(),
        }
    }

    /// Where the file has no fewer lines than the order.
    fn of_longer_file(&mut self) -> Result<Verdict, Trouble> {
        let Order { last, chain, .. } = self.order;
        if self.chain_after(*last)? != *chain {
            let common = self.common()?;
            if !common.is_all_but_erased(*last) {
                return Ok(self.fork(&common));
            }
        }
        Ok(match *last == self.own.last {
            true => Verdict::Beginning(Some(chain.clone())),
            false => Verdict::Longer(chain.clone()),
        })
    }

    /// Where the order has more lines than the file.
    fn of_longer_order(&mut self) -> Result<Verdict, Trouble> {
        let OwnFile { epoch, last, .. } = self.own;
        let next = last + 1;
        let Some(Entry { mut piece, chain }) = self.engine.entry_with(self.keys, next)? else {
            let is_ours = self.order.epoch == **epoch || *last == 0;
            let mismatch = if is_ours { Mismatch::Trimmed } else { Mismatch::Unrelated };
            return Ok(Verdict::Mismatch(mismatch));
        };
        piece.begin_at(next);
        let before = self.chain_after(*last)?;
        if before.after(&piece.lines) == chain {
            return Ok(Verdict::Beginning(Some(before)));
        }
        let common = self.common()?;
        Ok(match common.is_all_but_erased(*last) {
            true => Verdict::Beginning(None),
            false => self.fork(&common),
        })
    }

    fn chain_after(&self, id: u64) -> io::Result<Chain> {
        Ok(self.own.place_after(id, self.checkpoint.clone())?.chain)
    }

    /// How far the file and the order are the same, as far as the engine keeps what it takes to see it. Where
    /// a line was erased in one of them, its hash says nothing from there on, and the bytes are compared.
    fn common(&mut self) -> Result<Common, Trouble> {
        let own = self.own;
        let mut walk = Walk::of(&own.file);
        let until = self.order.last.min(own.last);
        let mut common = Common { lines: 0, offset: 0, has_erased: own.has_erased(until)? };
        let mut entries = KeptEntries::until(until, self.engine, self.keys);
        while let Some(Ok(Entry { piece, chain })) = entries.next()? {
            if piece.last_id() <= own.last {
                walk.go_to(piece.last_id(), own.end)?;
                if walk.at.chain == chain {
                    (common.lines, common.offset) = (walk.at.lines, walk.at.offset);
                    continue;
                }
            }
            let before = piece.first_id - 1;
            let offset = match before == common.lines {
                true => common.offset,
                // The engine keeps no more what is before, and the hash tells nothing of it.
                false if common.lines == 0 && common.has_erased => {
                    own.place_after(before, Place::default())?.offset
                }
                // A later entry's hash may still be the file's.
                false if common.lines == 0 => continue,
                false => break,
            };
            let same = own.common_with(&piece.lines, offset)?;
            common.has_erased |= same.has_erased;
            if same.lines > 0 {
                (common.lines, common.offset) = (before + same.lines, offset + same.bytes);
            }
            if same.lines < piece.count() {
                break;
            }
        }
        Ok(common)
    }

    /// Where the file and the order part.
    fn fork(&self, &Common { lines, offset, .. }: &Common) -> Verdict {
        Verdict::Mismatch(match lines == 0 && self.order.epoch != *self.own.epoch {
            true => Mismatch::Unrelated,
            false => Mismatch::Fork { lines, offset },
        })
    }
}

/// How far a file and its order are the same.
struct Common {
    /// How many lines they have in common.
    lines: u64,
    /// The offset after these in the file.
    offset: u64,
    /// Whether a line was erased in one of them.
    has_erased: bool,
}

impl Common {
    /// Whether the first so many lines differ in nothing but that some were erased in one of both.
    fn is_all_but_erased(&self, lines: u64) -> bool {
        self.lines == lines && self.has_erased
    }
}

/// The entries that the engine keeps, from the first one to that with a certain line.
struct KeptEntries<'a> {
    until: u64,
    engine: &'a mut Engine,
    keys: &'a Keys,
    /// The line after the last entry.
    next: u64,
    /// Entries that were read ahead.
    read: vec::IntoIter<Result<Entry, Malformed>>,
}

impl KeptEntries<'_> {
    fn until<'a>(until: u64, engine: &'a mut Engine, keys: &'a Keys) -> KeptEntries<'a> {
        KeptEntries { until, engine, keys, next: 1, read: Vec::new().into_iter() }
    }

    /// The next entry; after a malformed one there is none that could be told from it.
    fn next(&mut self) -> Result<Option<Result<Entry, Malformed>>, EngineError> {
        if self.next > self.until {
            return Ok(None);
        }
        if self.read.as_slice().is_empty() {
            self.read = self.engine.range(self.keys, self.next, ENTRIES)?.into_iter();
        }
        let entry = self.read.next();
        match &entry {
            Some(Ok(entry)) => self.next = entry.piece.last_id() + 1,
            Some(Err(Malformed)) | None => self.next = self.until + 1,
        }
        Ok(entry)
    }
}
