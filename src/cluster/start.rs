//! What is looked at before a copy is served: whether its file is of this order.

use log::{debug, warn};

use super::{
    OpenCopy, Settings, Threads, Trouble,
    chain::{Chain, Place},
    compare::{Mismatch, Verdict, common_after, compare},
    engine::{Engine, EngineError},
    own_file::OwnFile,
};
use crate::{
    history::History,
    journal::{self, Fatal, Journal, OpenError, SetAside},
};

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

/// Opens a channel's file with `open`, and sets aside what is not of the engine's order; `has_stamps`
/// says whether its stamps are kept. An engine that is unavailable is no reason not to serve. The default
/// channel is opened before there are any threads.
///
/// # Errors
/// When it cannot be opened, or cannot join the order.
pub fn open_as_copy(
    settings: Settings,
    threads: Option<&Threads>,
    has_stamps: bool,
    open: impl Fn() -> Result<(Journal, History), OpenError>,
) -> Result<(Journal, History, OpenCopy), CopyError> {
    let path = &settings.file;
    let connect = || threads.map_or_else(|| settings.connect(), |all| all.connect(&settings));
    loop {
        // Before the file is opened, since that notes it down anew.
        let stamped = has_stamps.then(|| journal::stamped_lines(path)).flatten();
        let noted = journal::noted_epoch(path);
        let failed = |why| CopyError::Open(OpenError::Failed(path.clone(), why));
        journal::mend_copy(path).map_err(failed)?;
        let (mut journal, history) = open().map_err(CopyError::Open)?;
        let mut own = OwnFile::of(&journal, &history);
        // An empty file may be another one than a server had.
        let noted = noted.filter(|_| own.last > 0);
        let last_served =
            LastServed { epoch: noted.unwrap_or_else(|| own.epoch.to_string()), stamped };
        let agreed = connect()
            .map_err(Trouble::from)
            .and_then(|engine| agree(engine, &settings, &mut journal, &own, &last_served));
        match agreed {
            Ok(Agreed::AsItIs(chain)) => own.chain = chain,
            Ok(Agreed::Again) => continue,
            Err(Trouble::Engine(EngineError::PutAway)) => {
                return Err(CopyError::PutAway(Box::new((journal, history))));
            }
            Err(Trouble::Engine(why)) => {
                // The reader warns of it, once for all channels.
                debug!("{}: the engine is unavailable: {why}", path.display());
            }
            Err(Trouble::Fatal(fatal)) => return Err(CopyError::Order(fatal)),
        }
        let copy = OpenCopy::new(settings.clone(), own).map_err(failed)?;
        return Ok((journal, history, copy));
    }
}

/// What is noted beside a file of the time when a server had it last.
struct LastServed {
    /// The epoch of its numbering.
    epoch: String,
    /// How many lines had stamps, if that is known. After a power cut it is not: the lines that have none
    /// then are as the order gave them, and go back to an engine that lost them.
    stamped: Option<u64>,
}

/// What was done to a file, so that it agrees with the order.
enum Agreed {
    /// Nothing. The hash after its last line, if that is known.
    AsItIs(Option<Chain>),
    /// The file must be opened and compared again: lines were set aside, or the order became another one.
    Again,
}

/// Compares a file that was just opened with the order, and sets aside lines that are not in the order:
/// those that another program appended while no server ran, and those that forked.
fn agree(
    mut engine: Engine,
    settings: &Settings,
    journal: &mut Journal,
    own: &OwnFile,
    last_served: &LastServed,
) -> Result<Agreed, Trouble> {
    let (keys, epoch) = (&settings.keys, &last_served.epoch);
    let (order, _) = engine.arrive(keys, settings.settle, epoch, own.if_none())?;
    let verdict = compare(&mut engine, keys, &order, own, Place::default())?;
    if !matches!(verdict, Verdict::Beginning(_))
        && let Some(stamped) = last_served.stamped
        && set_appended_aside(&mut engine, settings, journal, own, stamped)?
    {
        return Ok(Agreed::Again);
    }
    match verdict {
        Verdict::Beginning(chain) => Ok(Agreed::AsItIs(chain)),
        Verdict::Longer(_) => Ok(Agreed::AsItIs(None)),
        Verdict::Changed => Ok(Agreed::Again),
        // The last run ended because of this fork, and a new epoch began.
        Verdict::Mismatch(Mismatch::Fork { lines, offset }) if order.epoch != *epoch => {
            let aside = journal.set_aside(SetAside::Forked, lines + 1, offset)?;
            let (file, aside) = (settings.file.display(), aside.display());
            let count = own.last - lines;
            warn!("{file}: {count} lines have forked from the order; they are in {aside}");
            Ok(Agreed::Again)
        }
        Verdict::Mismatch(mismatch) => {
            Err(Trouble::Fatal(mismatch.declare(&mut engine, settings, epoch, own.last)?))
        }
    }
}

/// Moves lines to the inbox that another program appended while no server ran: those after the first
/// `stamped` ones, which are not in the order. Returns whether there were any.
fn set_appended_aside(
    engine: &mut Engine,
    settings: &Settings,
    journal: &mut Journal,
    own: &OwnFile,
    stamped: u64,
) -> Result<bool, Trouble> {
    if stamped >= own.last {
        return Ok(false);
    }
    // A crash may have come between a line and its stamp: the order has that line.
    let (lines, offset) = common_after(engine, &settings.keys, own, stamped)?;
    let count = own.last - lines;
    if count > 0 {
        journal.set_aside(SetAside::ForPosting, lines + 1, offset)?;
        let path = settings.file.display();
        warn!("{path}: {count} lines were appended while no server ran; they are posted");
    }
    Ok(count > 0)
}
