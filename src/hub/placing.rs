//! Which lines our write has made in a file to which other programs append, too.
//!
//! [`place`] is a pure function, so that its cases can be read and tried one by one. It looks at
//! our write alone: the whole lines before and after it are foreign.

use crate::lines::each_line;

/// One line that our write made or ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placed<'a> {
    /// A line that another program had begun, and that our `\n` ends.
    Foreign,
    /// An empty line: no line was begun that our `\n` could end.
    Blank,
    /// A message of ours, with its `\n`.
    Ours(&'a [u8]),
}

/// Our first message stands on the same line as the beginning that another program wrote.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Glued;

/// The lines that our write made. `written` is what we appended: messages, each with its `\n`, and
/// perhaps one more `\n` before them. `begun` is the number of bytes between the last whole line
/// and our write.
///
/// | a foreign line was begun | we wrote | our write made |
/// |---|---|---|
/// | no | messages | our messages |
/// | no longer: it was ended meanwhile | `\n`, messages | a blank line, our messages |
/// | yes | `\n`, messages | the foreign line, our messages |
/// | yes | messages | the foreign line with our first message on it: [`Glued`] |
///
/// We write the `\n` when a look at the file found that a foreign line was begun. The last case is
/// rare: that line was begun between our look and our write. None of our messages may stay there
/// then, or our first message would have to follow the others. They have not been shown yet, so the
/// hub takes them all back and writes them again with a `\n` before them, which keeps them from
/// being glued to any line.
pub(super) fn place(begun: u64, written: &[u8]) -> Result<impl Iterator<Item = Placed<'_>>, Glued> {
    let (end, messages) = match (begun, written.strip_prefix(b"\n")) {
        (0, None) => (None, written),
        (0, Some(messages)) => (Some(Placed::Blank), messages),
        (_, Some(messages)) => (Some(Placed::Foreign), messages),
        (_, None) => return Err(Glued),
    };
    let ours = each_line(messages).map(Placed::Ours);
    Ok(end.into_iter().chain(ours))
}

#[cfg(test)]
mod tests;
