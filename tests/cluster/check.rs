//! What must hold at the end: what the load was shown and told, against the files of all nodes.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::cut;

/// What the load was told and shown.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Ids with the bytes that were acknowledged under them.
    pub acknowledged: Vec<(u64, String)>,
    /// Ids with the bytes that somebody was shown.
    pub shown: BTreeMap<u64, String>,
    /// Texts that may stand in a file once at most: sent once, or each time with the same key.
    pub once: BTreeSet<String>,
    /// The numberings that anybody was told of.
    pub epochs: BTreeSet<String>,
    /// What was wrong already while it ran.
    pub complaints: Vec<String>,
}

impl Record {
    pub fn is_shown(&mut self, id: u64, text: &str) {
        if let Some(known) = self.shown.get(&id)
            && known != text
        {
            self.complaints.push(format!("two meanings of {id}: {} and {}", cut(known), cut(text)));
        }
        self.shown.insert(id, text.to_owned());
    }

    pub fn takes(&mut self, other: Record) {
        self.acknowledged.extend(other.acknowledged);
        for (id, text) in other.shown {
            self.is_shown(id, &text);
        }
        self.once.extend(other.once);
        self.epochs.extend(other.epochs);
        self.complaints.extend(other.complaints);
    }

    /// The highest id that was acknowledged.
    pub fn last(&self) -> u64 {
        self.acknowledged.iter().map(|(id, _)| *id).max().unwrap_or(0)
    }
}

/// Everything that does not hold, one sentence each.
pub fn faults(files: &[Vec<u8>], record: &Record) -> Vec<String> {
    let mut faults = record.complaints.clone();
    if record.epochs.len() > 1 {
        faults.push(format!("more than one epoch: {:?}", record.epochs));
    }
    let Some((first, others)) = files.split_first() else { return faults };
    for (number, other) in (1..).zip(others) {
        if first != other {
            let pairs = first.split(|&byte| byte == b'\n').zip(other.split(|&byte| byte == b'\n'));
            let same = pairs.take_while(|(one, two)| one == two).count();
            faults.push(format!("the files of nodes 0 and {number} differ at line {}", same + 1));
        }
    }
    for (number, file) in files.iter().enumerate() {
        faults
            .extend(lost(file, record).into_iter().map(|fault| format!("node {number}: {fault}")));
    }
    faults
}

/// What one file lacks, or has twice.
pub fn lost(file: &[u8], record: &Record) -> Vec<String> {
    let mut faults = Vec::new();
    let text = String::from_utf8_lossy(file);
    if !text.is_empty() && !text.ends_with('\n') {
        faults.push("the last line has no end".to_owned());
    }
    let lines: Vec<&str> = text.lines().collect();
    let at = |id: u64| usize::try_from(id).ok().and_then(|id| lines.get(id.checked_sub(1)?));
    let mut complain = |what: &str, id: u64, text: &str| match at(id) {
        Some(line) if *line == text => (),
        Some(line) => faults.push(format!("{what} {id} is {} and not {}", cut(line), cut(text))),
        None => faults.push(format!("{what} {id} is not there: {}", cut(text))),
    };
    record.acknowledged.iter().for_each(|(id, text)| complain("acknowledged", *id, text));
    record.shown.iter().for_each(|(id, text)| complain("shown", *id, text));
    let mut seen = BTreeMap::new();
    for (id, line) in (1..).zip(&lines) {
        let first: u64 = *seen.entry(line).or_insert(id);
        if first != id && record.once.contains(*line) {
            faults.push(format!("{} is there twice, at {first} and {id}", cut(line)));
        }
    }
    faults
}

/// Fails with everything that does not hold; the seed and what happened are said by the caller.
#[track_caller]
pub fn holds(files: &[Vec<u8>], record: &Record) {
    let faults = faults(files, record);
    assert!(
        faults.is_empty(),
        "{} faults, of {} acknowledged:\n{}",
        faults.len(),
        record.acknowledged.len(),
        faults.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
    );
}
