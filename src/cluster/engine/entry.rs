//! The entries of a stream: a piece each, and the hash after it.

use std::collections::HashMap;

use crate::{
    cluster::chain::Chain,
    lines::count_lines,
    piece::{Origin, Piece, parse_stamps},
};

/// An entry of the stream.
#[derive(Debug)]
pub struct Entry {
    /// What it holds.
    pub piece: Piece,
    /// The hash after it.
    pub chain: Chain,
}

/// An entry that is not made as nodes make theirs: somebody added it by hand.
#[derive(Debug)]
pub struct Malformed;

/// Entries of a stream, oldest first.
pub type Entries = Vec<Result<Entry, Malformed>>;

/// Entries as they come: their ids, their fields and values.
pub(super) type RawEntries = Vec<(String, HashMap<String, Vec<u8>>)>;

/// Reads an entry.
pub(super) fn entry(
    (id, mut fields): (String, HashMap<String, Vec<u8>>),
) -> Result<Entry, Malformed> {
    let mut read = move || {
        let last: u64 = id.strip_prefix("0-")?.parse().ok()?;
        let lines = fields.remove("d").filter(|lines| lines.ends_with(b"\n"))?;
        let mut text = |name| String::from_utf8(fields.remove(name).unwrap_or_default()).ok();
        let chain = text("h").filter(|chain| !chain.is_empty())?;
        let count = count_lines(&lines);
        let first_id = (last + 1).checked_sub(count)?;
        let stamps = parse_stamps(count, &text("t")?, &text("f")?)?;
        let origin = Origin::parse(&text("b")?);
        let key = text("k").filter(|key| !key.is_empty());
        let piece = Piece { first_id, lines, origin, key, stamps };
        Some(Entry { piece, chain: Chain::told(chain) })
    };
    read().ok_or(Malformed)
}
