//! The posts that the lines of a file make.

use std::io::{self, BufRead};

use crate::{
    message,
    operations::{Operation, Recognised, is_operation, recognise},
};

/// About how many bytes one post has.
pub(super) const POST_BYTES: usize = 128 << 10;

/// What is posted as one.
#[derive(Debug)]
pub(super) enum InboxPost {
    Messages(Vec<u8>),
    Operation(Vec<u8>, Operation),
}

/// Lines of a file that follow each other, and what of them is posted as one.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Where the first line begins that is posted; it makes the key of the post.
    pub(super) begin: u64,
    /// Where the lines end.
    pub(super) end: u64,
    /// What they say; `None` when they say nothing.
    pub(super) post: Option<InboxPost>,
    /// The lines that hold neither a message nor an operation.
    pub(super) unposted: Vec<u8>,
    /// How many these are.
    pub(super) unposted_lines: u64,
}

/// What becomes of a last line without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Its writer may still end it.
    Waits,
    /// It counts as whole.
    Ends,
}

/// The groups of a file, one after the other: a file may be longer than the memory.
pub(super) struct Groups<R> {
    file: R,
    at: u64,
    tail: Tail,
    /// A line that was read, and is of the next group.
    next: Vec<u8>,
}

impl<R: BufRead> Groups<R> {
    /// Of a file from the offset `at` on, where it is to be read next.
    pub(super) fn of(file: R, at: u64, tail: Tail) -> Groups<R> {
        Groups { file, at, tail, next: Vec::new() }
    }

    /// The next group; one that ends at `end` has ended there before. `None` when no whole line is left.
    pub(super) fn next(&mut self, end: Option<u64>) -> io::Result<Option<Group>> {
        let mut group = Group { begin: self.at, end: self.at, ..Group::default() };
        let mut messages = Vec::new();
        while messages.len() + group.unposted.len() < POST_BYTES && Some(group.end) != end {
            let Some(text) = self.line()? else { break };
            match post_of(&text) {
                Ok(Some(InboxPost::Messages(line))) => {
                    if messages.is_empty() {
                        group.begin = group.end;
                    }
                    messages.extend(line);
                }
                // One that means nothing takes no other line with it, so it is a post of its own.
                Ok(Some(_)) if !messages.is_empty() => {
                    self.next = text;
                    break;
                }
                Ok(Some(operation)) => {
                    group.begin = group.end;
                    group.end += text.len() as u64;
                    group.post = Some(operation);
                    break;
                }
                Ok(None) => {}
                Err(NoPost) => {
                    group.unposted.extend_from_slice(&text);
                    group.unposted_lines += 1;
                }
            }
            group.end += text.len() as u64;
        }
        if !messages.is_empty() {
            group.post = Some(InboxPost::Messages(messages));
        }
        let is_some = group.end > self.at;
        self.at = group.end;
        Ok(is_some.then_some(group))
    }

    /// The next line that counts as whole.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut text = std::mem::take(&mut self.next);
        if text.is_empty() {
            self.file.read_until(b'\n', &mut text)?;
        }
        let is_whole = text.ends_with(b"\n") || self.tail == Tail::Ends && !text.is_empty();
        Ok(is_whole.then_some(text))
    }
}

/// A line that holds neither a message nor an operation.
struct NoPost;

/// What a line says; `None` when it is blank.
fn post_of(text: &[u8]) -> Result<Option<InboxPost>, NoPost> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let Some(message) = message::on_line(text) else {
        return if text.trim_ascii().is_empty() { Ok(None) } else { Err(NoPost) };
    };
    let line = [message, b"\n"].concat();
    if !is_operation(message) {
        return Ok(Some(InboxPost::Messages(line)));
    }
    match recognise(message) {
        Ok(Recognised::Operation(operation)) => Ok(Some(InboxPost::Operation(line, operation))),
        Ok(Recognised::Typing) | Err(_) => Err(NoPost),
    }
}

#[cfg(test)]
mod tests;
