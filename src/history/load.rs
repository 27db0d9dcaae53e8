//! Reads a whole text file into an index, on all processors.
//!
//! The file is divided into parts of equal length. A thread that is free takes the next part, and
//! validates the lines that start in it; the last of them may end in a later part. No line is kept.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::index::Index;
use crate::{
    lines::{Line, Lines},
    message,
    operations::LoggedOperation,
};

/// The length of a part, in bytes: so short that all threads end at about the same time, and so
/// long that taking the next one costs nothing beside it.
pub(super) const PART: u64 = 1 << 20;

/// How many bytes a thread reads with one call: enough that the calls cost little.
const READ: usize = 128 << 10;

/// The lines from `start`, where line 1 begins, up to `end`: one index for each part, in the order
/// of the file.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn load_parts(
    file: &Arc<File>,
    start: u64,
    end: u64,
    line_limit: usize,
) -> io::Result<Vec<Index>> {
    let count = (end - start).div_ceil(PART);
    let workers = thread::available_parallelism().map_or(1, |n| n.get() as u64).min(count);
    let next = AtomicU64::new(0);
    let parts = Mutex::new(Vec::with_capacity(count as usize));
    let work = || -> io::Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let from = start + number * PART;
            let index = load_part(file, start, from, (from + PART).min(end), end, line_limit)?;
            parts.lock().expect("no worker panics while it holds this").push((number, index));
        }
    };
    if workers < 2 {
        work()?;
    } else {
        thread::scope(|scope| {
            let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
            let mine = work();
            let done = others.into_iter().map(|other| other.join().expect("a worker panicked"));
            done.fold(mine, |all, one| all.and(one))
        })?;
    }
    let mut parts = parts.into_inner().expect("no worker panics while it holds this");
    parts.sort_unstable_by_key(|(number, _)| *number);
    Ok(parts.into_iter().map(|(_, index)| index).collect())
}

/// The lines that start in `from..to`, where `from` need not be the start of a line.
pub(super) fn load_part(
    file: &Arc<File>,
    start: u64,
    from: u64,
    to: u64,
    end: u64,
    line_limit: usize,
) -> io::Result<Index> {
    // A line starts at `from` only if a `\n` stands right before it. It is looked for within the
    // part alone, or each part of one long line would walk to its end.
    let mut first = from;
    if from > start {
        let mut before = Lines::new(file, from - 1, to, READ, 0);
        before.next()?;
        first = before.offset();
    }
    let mut lines = Lines::new(file, first, end, READ, line_limit);
    let mut index = Index::new(first);
    while lines.offset() < to {
        match lines.next()? {
            Some(Line::Whole(text)) => {
                let len = text.len() as u64 + 1;
                match message::on_line(text) {
                    Some(message) => {
                        index.push_line(len);
                        index.log.extend(LoggedOperation::of(index.lines, message));
                    }
                    None => {
                        index.push_hole(len);
                        index.erased.extend(message::is_erased(text).then_some(index.lines));
                    }
                }
            }
            Some(Line::TooLong(len)) => index.push_hole(len),
            Some(Line::Unfinished(_)) | None => break,
        }
    }
    Ok(index)
}
