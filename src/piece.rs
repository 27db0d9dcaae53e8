//! A piece: whole lines whose numbers are decided, as they travel between the nodes of a cluster.

use std::fmt::{self, Write as _};

use crate::lines::count_lines;

/// The lines of one batch of a node, with their numbers and stamps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The number of the first line.
    pub first_id: u64,
    /// The lines, each with its `\n`.
    pub lines: Vec<u8>,
    /// The batch that the lines came in, if that is known.
    pub origin: Option<Origin>,
    /// The Idempotency-Key, if the lines are one post that has one.
    pub key: Option<String>,
    /// The stamps of the lines, in their order.
    pub stamps: Vec<StampRun>,
}

/// A batch of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The node's name in the channel, which each opening of its file makes anew.
    pub node: String,
    /// The number of the batch, from 1.
    pub batch: u64,
}

/// The same stamp for several lines, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampRun {
    /// How many lines.
    pub lines: u64,
    /// When they were accepted, in Unix milliseconds; 0 when nobody knows.
    pub ts: u64,
    /// Their verified sender.
    pub from: Option<String>,
}

impl Piece {
    /// How many lines it has, which takes a look at all of them.
    pub fn count(&self) -> u64 {
        count_lines(&self.lines)
    }

    /// The number of its last line.
    pub fn last_id(&self) -> u64 {
        self.first_id + self.count() - 1
    }

    /// Takes the first lines away: those before `id`, which it must have.
    pub fn begin_at(&mut self, id: u64) {
        let mut gone = id - self.first_id;
        let ends = memchr::memchr_iter(b'\n', &self.lines);
        let cut = ends.take(gone as usize).last().map_or(0, |end| end + 1);
        self.lines.drain(..cut);
        self.first_id = id;
        if gone > 0 {
            // What is left is not all of the post.
            self.key = None;
        }
        while gone > 0 && !self.stamps.is_empty() {
            let run = &mut self.stamps[0];
            let taken = run.lines.min(gone);
            run.lines -= taken;
            gone -= taken;
            if run.lines == 0 {
                self.stamps.remove(0);
            }
        }
    }
}

impl Origin {
    /// Reads `NODE.BATCH`, as it stands in the engine; `None` when it is neither.
    pub fn parse(text: &str) -> Option<Origin> {
        let (node, batch) = text.rsplit_once('.')?;
        Some(Origin { node: node.to_owned(), batch: batch.parse().ok()? })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.node, self.batch)
    }
}

/// The senders of lines as they stand in the engine: how many lines and their sender, one run a
/// line. Nothing when nobody is known of any.
pub fn senders_text<'a>(runs: impl Iterator<Item = (u64, Option<&'a str>)>) -> String {
    let mut text = String::new();
    let mut is_somebody = false;
    let mut last: Option<(u64, Option<&str>)> = None;
    let mut push = |run: Option<(u64, Option<&str>)>| {
        if let Some((lines, from)) = run {
            is_somebody |= from.is_some();
            writeln!(text, "{lines} {}", from.unwrap_or_default()).expect("memory takes it");
        }
    };
    for (lines, from) in runs {
        match &mut last {
            Some((count, name)) if *name == from => *count += lines,
            _ => push(last.replace((lines, from))),
        }
    }
    push(last);
    if is_somebody { text } else { String::new() }
}

/// The times of lines as they stand in the engine: one time for all, or each with `*` and how many
/// lines have it.
pub fn times_text(stamps: &[StampRun]) -> String {
    if let [first, rest @ ..] = stamps
        && rest.iter().all(|run| run.ts == first.ts)
    {
        return first.ts.to_string();
    }
    let runs: Vec<String> = stamps.iter().map(|run| format!("{}*{}", run.ts, run.lines)).collect();
    runs.join(" ")
}

/// Reads the stamps of `count` lines from their times and senders in the engine; `None` when these
/// are of another number of lines.
pub fn parse_stamps(count: u64, times: &str, senders: &str) -> Option<Vec<StampRun>> {
    let mut times: Vec<(u64, u64)> = match times.parse() {
        Ok(ts) => vec![(ts, count)],
        Err(_) => times
            .split(' ')
            .map(|run| {
                let (ts, lines) = run.split_once('*')?;
                Some((ts.parse().ok()?, lines.parse().ok()?))
            })
            .collect::<Option<_>>()?,
    };
    let mut senders: Vec<(u64, Option<&str>)> = match senders {
        "" => vec![(count, None)],
        text => text
            .lines()
            .map(|run| {
                let (lines, name) = run.split_once(' ')?;
                Some((lines.parse().ok()?, Some(name).filter(|name| !name.is_empty())))
            })
            .collect::<Option<_>>()?,
    };
    let is_all = |lines: u64| lines == count;
    if !is_all(times.iter().map(|(_, lines)| lines).sum())
        || !is_all(senders.iter().map(|(lines, _)| lines).sum())
    {
        return None;
    }
    times.reverse();
    senders.reverse();
    let mut stamps = Vec::new();
    while let (Some((ts, of_time)), Some((of_sender, name))) =
        (times.last_mut(), senders.last_mut())
    {
        let lines = (*of_time).min(*of_sender);
        *of_time -= lines;
        *of_sender -= lines;
        if lines > 0 {
            stamps.push(StampRun { lines, ts: *ts, from: name.map(str::to_owned) });
        }
        if *of_time == 0 {
            times.pop();
        }
        if of_sender == &0 {
            senders.pop();
        }
    }
    Some(stamps)
}

#[cfg(test)]
mod tests;
