//! Whose line stands where, after lines of ours were appended to a file that others append to, too.
//!
//! Pure, so that its cases can be read and tried one by one. It is asked about the place where our
//! write begins: whole lines that others appended before it or behind it are theirs.

/// One line of the file, from the place on where our write begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placed<'a> {
    /// A line that others had begun, and that our `\n` ends.
    Foreign,
    /// Our `\n` alone, which ends nothing.
    Blank,
    /// A message of ours, with its `\n`.
    Ours(&'a [u8]),
}

/// Our first message stands in one line with what others had begun.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Glued;

/// The lines that stand where `written` was appended: whole lines of messages, or such lines behind
/// a `\n` that protects them. `begun` is how many bytes stand between them and the last whole line.
///
/// | others had begun a line | we wrote | what stands there |
/// |---|---|---|
/// | no | messages | our messages |
/// | no, they ended it themselves meanwhile | `\n`, messages | a blank line, our messages |
/// | yes | `\n`, messages | their line, our messages |
/// | yes | messages | their line with our first message in it: [`Glued`] |
///
/// We write the `\n` when a look at the file found a line that others had begun. The last case is
/// rare: they began it between our look and our write. None of our messages may stay there then, or
/// the first would come behind the others. Nobody was told of them yet, so they are taken back, and
/// written again behind a `\n`, which makes them safe from being glued to anything.
pub(super) fn place(begun: u64, written: &[u8]) -> Result<impl Iterator<Item = Placed<'_>>, Glued> {
    let (end, messages) = match (begun, written.strip_prefix(b"\n")) {
        (0, None) => (None, written),
        (0, Some(messages)) => (Some(Placed::Blank), messages),
        (_, Some(messages)) => (Some(Placed::Foreign), messages),
        (_, None) => return Err(Glued),
    };
    let ours = messages.split_inclusive(|&byte| byte == b'\n').map(Placed::Ours);
    Ok(end.into_iter().chain(ours))
}

#[cfg(test)]
mod tests;
