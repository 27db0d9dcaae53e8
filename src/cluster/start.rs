//! What is looked at before a copy is served: whether its file is of this order.

use std::io;

use log::warn;

use super::{
    OpenCopy, Settings, Trouble,
    chain::{Chain, Place, Walk, bytes_at},
    compare::{Numbered, Verdict, compare},
    engine::{Engine, EngineError, IfNone, Keys},
    mirror::{forked, trimmed, unrelated},
};
use crate::{
    history::History,
    journal::{self, Fatal, Journal, OpenError, SetAside},
    lines::each_line,
};

/// What was done to a file before it is served.
#[derive(Debug)]
enum Prepared {
    /// Nothing. The hash after its last line, if that is known.
    AsItWas(Option<Chain>),
    /// Lines were set aside: the file must be opened again.
    Cut,
    /// Nothing, as its channel was put away.
    PutAway,
}

/// Opens a channel's file with `open`, and sets aside what is not of the engine's order; `has_stamps` says
/// whether its stamps are kept.
///
/// # Errors
/// When it cannot be opened, or cannot join the order.
pub fn open_as_copy(
    settings: Settings,
    has_stamps: bool,
    open: impl Fn() -> Result<(Journal, History), OpenError>,
) -> Result<(Journal, History, OpenCopy), CopyError> {
    let path = &settings.file;
    loop {
        let stamped = has_stamps.then(|| journal::stamped_lines(path)).flatten();
        let noted = journal::noted_epoch(path);
        let failed = |why| CopyError::Open(OpenError::Failed(path.clone(), why));
        journal::mend_copy(path).map_err(failed)?;
        let (mut journal, history) = open().map_err(CopyError::Open)?;
        // An empty file may be another one than a server had.
        let noted = noted.filter(|_| history.last_id() > 0);
        let noted = noted.unwrap_or_else(|| journal.epoch().to_string());
        match prepare(&settings, &mut journal, &history, &noted, stamped) {
            Ok(Prepared::AsItWas(chain)) => {
                let copy = OpenCopy::new(settings.clone(), &journal, &history, chain);
                return Ok((journal, history, copy.map_err(failed)?));
            }
            Ok(Prepared::Cut) => {}
            Ok(Prepared::PutAway) => return Err(CopyError::PutAway(Box::new((journal, history)))),
            Err(fatal) => return Err(CopyError::Order(fatal)),
        }
    }
}

/// Why a copy cannot be served.
#[derive(Debug)]
pub enum CopyError {
    /// It cannot be opened.
    Open(OpenError),
    /// It cannot join the order.
    Order(Fatal),
    /// Its channel was put away on another node.
    PutAway(Box<(Journal, History)>),
}

/// Looks whether a file that was just opened is of the engine's order, and sets lines aside that are
/// not: those that forked, and those that another program appended while no server ran. The file had
/// the epoch `noted` and `stamped` lines with stamps when a server had it last. An unavailable
/// engine is no reason not to serve.
///
/// # Errors
/// When the file cannot join the order, and this start must end.
fn prepare(
    settings: &Settings,
    journal: &mut Journal,
    history: &History,
    noted: &str,
    stamped: Option<u64>,
) -> Result<Prepared, Fatal> {
    match look(settings, journal, history, noted, stamped) {
        Ok(prepared) => Ok(prepared),
        Err(Trouble::Engine(EngineError::PutAway)) => Ok(Prepared::PutAway),
        Err(Trouble::Engine(why)) => {
            warn!(
                "the engine at {} is unavailable: {why}; serving what the file has",
                settings.url
            );
            Ok(Prepared::AsItWas(None))
        }
        Err(Trouble::Fatal(fatal)) => Err(fatal),
    }
}

fn look(
    settings: &Settings,
    journal: &mut Journal,
    history: &History,
    noted: &str,
    stamped: Option<u64>,
) -> Result<Prepared, Trouble> {
    let mut engine = settings.connect()?;
    let epoch = journal.epoch().clone();
    let keys = &settings.keys;
    let if_none = if history.last_id() == 0 { IfNone::Begins } else { IfNone::Waits };
    let (order, _) = engine.arrive(keys, settings.settle, noted, if_none)?;
    let ours = Numbered {
        keys,
        file: journal.file(),
        epoch: &epoch,
        last: history.last_id(),
        end: history.end(),
        checkpoint: Place::default(),
    };
    let verdict = compare(&mut engine, &order, &ours)?;
    if let Some(stamped) = stamped.filter(|&stamped| stamped < history.last_id())
        && !matches!(verdict, Verdict::Beginning(_))
    {
        // A crash may have come between a line and its stamp: the order has that line.
        let numbered = as_ordered(&mut engine, keys, journal, history, stamped)?;
        if numbered < history.last_id() {
            let offset = offset_after(journal, history, numbered)?;
            let lines = history.last_id() - numbered;
            journal.set_aside(SetAside::ForPosting, numbered + 1, offset)?;
            let path = settings.file.display();
            warn!("{path}: {lines} lines were appended while no server ran; they are posted");
            return Ok(Prepared::Cut);
        }
    }
    let end = |fatal| Err(Trouble::Fatal(fatal));
    match verdict {
        Verdict::Beginning(chain) => Ok(Prepared::AsItWas(chain)),
        Verdict::Longer(_) => Ok(Prepared::AsItWas(None)),
        Verdict::Trimmed => end(Fatal::CannotJoin(trimmed(settings, history.last_id()))),
        Verdict::Unrelated => end(Fatal::CannotJoin(unrelated(settings))),
        Verdict::Fork(lines, _) if order.epoch == noted => {
            engine.begin_epoch(keys, noted)?;
            end(Fatal::Forked(forked(lines, history.last_id())))
        }
        Verdict::Fork(lines, offset) => {
            let path = journal.set_aside(SetAside::Forked, lines + 1, offset)?;
            let count = history.last_id() - lines;
            let file = settings.file.display();
            warn!(
                "{file}: {count} lines have forked from the order; they are in {}",
                path.display()
            );
            Ok(Prepared::Cut)
        }
    }
}

/// How far the lines after `stamped` are those of the order.
fn as_ordered(
    engine: &mut Engine,
    keys: &Keys,
    journal: &Journal,
    history: &History,
    stamped: u64,
) -> Result<u64, Trouble> {
    let mut numbered = stamped;
    let mut offset = offset_after(journal, history, stamped)?;
    loop {
        let next = engine.range(keys, numbered + 1, 1)?.into_iter().next().and_then(Result::ok);
        let Some(mut entry) = next else { return Ok(numbered) };
        if entry.piece.first_id > numbered + 1 {
            return Ok(numbered);
        }
        entry.piece.begin_at(numbered + 1);
        for line in each_line(&entry.piece.lines) {
            let own = bytes_at(journal.file(), offset, line.len(), history.end())?;
            if own.as_deref() != Some(line) {
                return Ok(numbered);
            }
            numbered += 1;
            offset += line.len() as u64;
        }
    }
}

/// The offset after a line.
fn offset_after(journal: &Journal, history: &History, id: u64) -> io::Result<u64> {
    let mut walk = Walk::of(journal.file());
    walk.go_to(id, history.end())?;
    Ok(walk.at.offset)
}
