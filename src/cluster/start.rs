//! What is looked at before a node serves anybody: whether its file is of this order.

use std::io;

use log::warn;

use super::{
    Settings,
    chain::Walk,
    compare::{CompareError, Numbered, Verdict, compare},
    engine::{Engine, EngineError},
    reader::{forked, strange, trimmed},
};
use crate::{
    history::History,
    journal::{Fatal, Journal, SetAside},
    lines::read_at,
};

/// What was done to a file before it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// Nothing.
    AsItWas,
    /// Lines were set aside: the file must be opened again.
    Cut,
}

/// Looks whether a file that was just opened is of the engine's order, and sets lines aside that are
/// not: those that forked, and those that another program appended while no server ran. Of these
/// lines, `stamped` had stamps when it was opened. An engine that is away is no reason not to serve.
///
/// # Errors
/// When the file cannot join the order, and this start must end.
pub fn prepare(
    settings: &Settings,
    journal: &mut Journal,
    history: &History,
    stamped: Option<u64>,
) -> Result<Prepared, Fatal> {
    match look(settings, journal, history, stamped) {
        Ok(prepared) => Ok(prepared),
        Err(Trouble::Engine(why)) => {
            warn!("the engine at {} is away: {why}; serving what the file has", settings.url);
            Ok(Prepared::AsItWas)
        }
        Err(Trouble::File(why)) => Err(Fatal::Storage(why)),
        Err(Trouble::Fatal(fatal)) => Err(fatal),
    }
}

enum Trouble {
    Engine(EngineError),
    File(io::Error),
    Fatal(Fatal),
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Trouble {
        Trouble::Engine(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::File(error)
    }
}

impl From<CompareError> for Trouble {
    fn from(error: CompareError) -> Trouble {
        match error {
            CompareError::Engine(error) => Trouble::Engine(error),
            CompareError::File(error) => Trouble::File(error),
        }
    }
}

fn look(
    settings: &Settings,
    journal: &mut Journal,
    history: &History,
    stamped: Option<u64>,
) -> Result<Prepared, Trouble> {
    let mut engine = Engine::connect(&settings.url, settings.keys.clone())?;
    let epoch = journal.epoch().clone();
    let is_empty = history.last_id() == 0;
    let (order, _) = engine.arrive(settings.settle, if is_empty { &epoch } else { "" })?;
    if let Some(stamped) = stamped.filter(|&stamped| stamped < history.last_id()) {
        // A crash may have come between a line and its stamp: the order has that line.
        let numbered = as_ordered(&mut engine, journal, history, stamped)?;
        if numbered < history.last_id() {
            let offset = offset_after(journal, history, numbered)?;
            let lines = history.last_id() - numbered;
            journal.set_aside(SetAside::ForPosting, numbered + 1, offset)?;
            warn!("{lines} lines were appended while no server ran; they are posted");
            return Ok(Prepared::Cut);
        }
    }
    let ours = Numbered {
        file: journal.file(),
        epoch: &epoch,
        last: history.last_id(),
        end: history.end(),
        chain: None,
    };
    let end = |fatal| Err(Trouble::Fatal(fatal));
    match compare(&mut engine, &order, &ours)? {
        Verdict::Beginning(_) | Verdict::Longer(_) => Ok(Prepared::AsItWas),
        Verdict::Trimmed => end(Fatal::Strange(trimmed(&settings.file, history.last_id()))),
        Verdict::Strange => end(Fatal::Strange(strange(settings))),
        Verdict::Fork(lines, _) if order.epoch == *epoch => {
            let mut name = [0; 8];
            getrandom::fill(&mut name).map_err(io::Error::other)?;
            engine.fork(&epoch, &data_encoding::HEXLOWER.encode(&name))?;
            end(Fatal::Forked(forked(lines, history.last_id())))
        }
        Verdict::Fork(lines, offset) => {
            let path = journal.set_aside(SetAside::Forked, lines + 1, offset)?;
            let count = history.last_id() - lines;
            warn!("{count} lines have forked from the order; they are in {}", path.display());
            Ok(Prepared::Cut)
        }
    }
}

/// How far the lines after `stamped` are those of the order.
fn as_ordered(
    engine: &mut Engine,
    journal: &Journal,
    history: &History,
    stamped: u64,
) -> Result<u64, Trouble> {
    let mut numbered = stamped;
    let mut offset = offset_after(journal, history, stamped)?;
    loop {
        let next = engine.range(numbered + 1, 1)?.into_iter().next().and_then(Result::ok);
        let Some(mut entry) = next else { return Ok(numbered) };
        if entry.piece.first_id > numbered + 1 {
            return Ok(numbered);
        }
        entry.piece.begin_at(numbered + 1);
        for line in entry.piece.lines.split_inclusive(|&byte| byte == b'\n') {
            let mut own = vec![0; line.len()];
            let got = read_at(journal.file(), &mut own, offset)?;
            if got < own.len() || own != line || numbered == history.last_id() {
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
    Ok(walk.offset)
}
