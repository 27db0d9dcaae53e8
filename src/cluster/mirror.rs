//! One channel's file as a mirror of its order.
//!
//! The reader compares it with the order whenever it reaches the engine; gives back what the engine
//! has lost; then hands over piece by piece to the hub, and checks that each follows the one before.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use log::warn;

use super::{
    Settings, Trouble,
    chain::{Chain, Place},
    compare::{Mismatch, Verdict, compare},
    engine::{ENTRIES, Engine, EngineError, Entries, Entry, Keys, Malformed, Order},
    link::{Link, Side},
    own_file::OwnFile,
};
use crate::{
    command::{Applied, Applying, Arrival, HubGone, HubHandle},
    journal::Fatal,
};

mod recent;
mod restoring;

use recent::RecentPieces;

/// How long a channel is left alone after a failure of its own.
const LATER: Duration = Duration::from_millis(250);

/// A full disk is tried again after this long, as often as the hub of a server alone tries it.
const DISK_TIME: Duration = Duration::from_secs(1);

/// How long all channels wait for one hub that writes. A disk takes a few milliseconds; a hub whose disk
/// takes longer is asked again with each pass, and the others go on.
const HUB_TIME: Duration = Duration::from_millis(100);

/// The most bytes that the hub takes in with one write, apart from a last piece: as many as a batch of a
/// server alone.
const WRITE_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Mirror {
    settings: Arc<Settings>,
    link: Arc<Link>,
    hub: HubHandle,
    own: OwnFile,
    phase: Phase,
    /// What the hub is writing, while the next pieces are read.
    applying: Option<Applying>,
    /// Whether the hub takes longer than all channels wait for it.
    is_hub_late: bool,
    /// What the hub is given when it is done.
    next: Vec<Arrival>,
    /// What the disk had no room for, and when it is tried again.
    put_off: Option<(Vec<Arrival>, Instant)>,
    recent: RecentPieces,
    /// Whether the order went on since this was last looked at.
    has_moved: bool,
}

/// What a mirror does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// It compares the file with the order.
    Comparing,
    /// It does nothing before this time, after a failure of this channel's own, and compares then.
    Waiting(Instant),
    /// It gives back what the engine has lost.
    Restoring {
        /// The first line that it gave back.
        first: u64,
        /// How far the engine has the lines again.
        at: Place,
    },
    /// It reads the order, of which the file is the beginning.
    Reading {
        /// A line that the order has; when the file has it, too, entries are read as they come.
        order_last: u64,
        /// When the engine gives out numbers; `None` when the copy has joined.
        joining: Option<Instant>,
    },
    /// Nothing more: the channel ends.
    Over,
}

/// Why a mirror does not go on as it did.
enum End {
    /// The engine is unavailable, or is another one.
    Engine(EngineError),
    /// The file must be compared with the order anew.
    Compare,
    /// The channel ends: its hub was told why, or has ended by itself.
    Over,
}

impl From<EngineError> for End {
    fn from(error: EngineError) -> End {
        End::Engine(error)
    }
}

impl From<HubGone> for End {
    fn from(HubGone: HubGone) -> End {
        End::Over
    }
}

impl Mirror {
    pub(super) fn new(
        settings: Arc<Settings>,
        link: Arc<Link>,
        hub: HubHandle,
        own: OwnFile,
    ) -> Mirror {
        let recent = RecentPieces::from(own.last_place());
        Mirror {
            settings,
            link,
            hub,
            own,
            phase: Phase::Comparing,
            applying: None,
            is_hub_late: false,
            next: Vec::new(),
            put_off: None,
            recent,
            has_moved: false,
        }
    }

    /// Whether the channel ends.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over || self.link.is_stopping()
    }

    /// The keys of its order.
    pub(super) fn keys(&self) -> &Keys {
        &self.settings.keys
    }

    /// Whether the copy has joined the order, or will not now for a reason of this channel's own.
    pub(super) fn has_recovered(&self) -> bool {
        match self.phase {
            Phase::Comparing | Phase::Restoring { .. } => false,
            Phase::Reading { joining, .. } => joining.is_none(),
            Phase::Waiting(_) | Phase::Over => true,
        }
    }

    /// After which line entries are read as they come; `None` while something else is to be done first.
    pub(super) fn reads_after(&self) -> Option<u64> {
        (self.is_reading() && !self.lacks_lines() && !self.is_held_up()).then_some(self.own.last)
    }

    /// Whether lines that were read are not in the file, since its disk is slow or full.
    fn is_held_up(&self) -> bool {
        self.is_hub_late || self.put_off.is_some()
    }

    /// Whether the file is to be given lines that the order is known to have.
    fn lacks_lines(&self) -> bool {
        matches!(self.phase, Phase::Reading { order_last, .. } if order_last > self.own.last)
    }

    /// Notes that the engine is unavailable.
    pub(super) fn lose_engine(&mut self) {
        self.link.lose_connection(Side::Reader);
        if self.phase != Phase::Over {
            self.phase = Phase::Comparing;
        }
    }

    /// Does a part of what is to be done before entries are read as they come: compares, gives back what the
    /// engine lacks, reads what the file lacks, waits for room on the disk. Returns whether more of that can be done at once.
    ///
    /// # Errors
    /// When the engine is unavailable.
    pub(super) fn prepare(&mut self, engine: &mut Engine) -> Result<bool, EngineError> {
        let result = self.try_prepare(engine);
        self.conclude(result)?;
        let is_due = matches!(self.phase, Phase::Comparing | Phase::Restoring { .. });
        let is_due = is_due || self.lacks_lines();
        Ok(is_due && !self.is_held_up())
    }

    /// Takes in entries that follow.
    ///
    /// # Errors
    /// When the engine is unavailable.
    pub(super) fn take(
        &mut self,
        entries: Entries,
        engine: &mut Engine,
    ) -> Result<(), EngineError> {
        let result = self.try_take(entries, engine);
        self.conclude(result)
    }

    /// Whether it reads the order, of which the file is the beginning.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self.phase, Phase::Reading { .. })
    }

    /// Notes how far the order has come, and looks behind a silence: a stream that became shorter tells
    /// nothing.
    ///
    /// # Errors
    /// When the engine is unavailable.
    pub(super) fn look(&mut self, order: &Order, engine: &mut Engine) -> Result<(), EngineError> {
        self.link.set_ordered(order.last);
        let was_silent = !std::mem::take(&mut self.has_moved);
        if !was_silent || self.reads_after().is_none() {
            return Ok(());
        }
        let result = self.try_look(order, engine);
        self.conclude(result)
    }

    /// Does what a failure asks for; one of the engine as a whole is left to the reader.
    fn conclude(&mut self, result: Result<(), End>) -> Result<(), EngineError> {
        match result {
            Ok(()) => {}
            Err(End::Engine(EngineError::PutAway)) => match self.hub.put_away() {
                Ok(Ok(())) | Err(HubGone) => self.phase = Phase::Over,
                Ok(Err(why)) => self.wait_after(&format!("it cannot be put away: {why}")),
            },
            Err(End::Engine(why @ (EngineError::NoRecord | EngineError::OtherKey))) => {
                self.link.set_unavailable(Side::Reader);
                self.wait_after(&format!("the engine cannot be used: {why}"));
            }
            Err(End::Engine(error)) => return Err(error),
            Err(End::Compare) => self.phase = Phase::Comparing,
            Err(End::Over) => self.phase = Phase::Over,
        }
        Ok(())
    }

    /// Leaves the channel alone for a while after a failure of its own, which is said once.
    fn wait_after(&mut self, why: &str) {
        if !matches!(self.phase, Phase::Waiting(_)) {
            warn!("{}: {why}; trying again", self.settings.file.display());
        }
        self.phase = Phase::Waiting(Instant::now() + LATER);
    }

    fn try_prepare(&mut self, engine: &mut Engine) -> Result<(), End> {
        if let Some((pieces, _)) = self.put_off.take_if(|(_, due)| *due <= Instant::now()) {
            self.applying = Some(self.hub.apply_pieces(pieces)?);
            self.finish_applying()?;
        } else if self.is_hub_late {
            self.finish_applying()?;
        }
        if self.is_held_up() {
            return Ok(());
        }
        match self.phase {
            Phase::Waiting(due) if Instant::now() < due => Ok(()),
            Phase::Comparing | Phase::Waiting(_) => self.agree(engine),
            Phase::Restoring { first, ref at } => self.restore(engine, first, at.clone()),
            Phase::Reading { .. } if self.lacks_lines() => {
                let entries = engine.range(self.keys(), self.own.last + 1, ENTRIES)?;
                if entries.is_empty() {
                    return Err(End::Compare);
                }
                self.try_take(entries, engine)
            }
            Phase::Reading { .. } => self.join_when_due(),
            Phase::Over => Ok(()),
        }
    }

    /// Compares the file with the order, and sees to it that both agree.
    fn agree(&mut self, engine: &mut Engine) -> Result<(), End> {
        self.finish_applying()?;
        if self.is_held_up() {
            return Ok(());
        }
        let (settings, own) = (&self.settings, &self.own);
        let (order, settling) =
            engine.arrive(&settings.keys, settings.settle, &own.epoch, own.if_none())?;
        settings.cleanse(engine)?;
        self.link.set_ordered(order.last);
        let checkpoint = self.recent.checkpoint(order.last);
        let verdict = match compare(engine, &settings.keys, &order, own, checkpoint) {
            Ok(verdict) => verdict,
            Err(Trouble::Engine(error)) => return Err(error.into()),
            Err(Trouble::Fatal(fatal)) => return Err(self.end(fatal)),
        };
        match verdict {
            Verdict::Beginning(chain) => {
                self.learn_chain(chain);
                self.take_epoch(&order.epoch)?;
                let joining = Some(Instant::now() + settling);
                self.phase = Phase::Reading { order_last: order.last, joining };
                self.join_when_due()
            }
            Verdict::Longer(chain) => {
                if !order.epoch.is_empty() {
                    self.take_epoch(&order.epoch)?;
                }
                self.begin_restoring(order.last, chain)
            }
            Verdict::Changed => Err(End::Compare),
            Verdict::Mismatch(mismatch) => {
                if let Mismatch::Fork { .. } = mismatch {
                    self.link.count_fork();
                }
                let fatal =
                    mismatch.declare(engine, &self.settings, &self.own.epoch, self.own.last)?;
                Err(self.end(fatal))
            }
        }
    }

    /// Learns the hash after the last line, or that nobody knows it.
    fn learn_chain(&mut self, chain: Option<Chain>) {
        self.own.chain = chain;
        if let Some(place) = self.own.last_place() {
            self.recent.begin_at(place);
        }
    }

    /// Says that the copy has joined, if its file has come far enough.
    fn join_when_due(&mut self) -> Result<(), End> {
        let Phase::Reading { order_last, joining: Some(settled) } = self.phase else {
            return Ok(());
        };
        if self.lacks_lines() {
            return Ok(());
        }
        self.finish_applying()?;
        if !self.is_held_up() {
            self.phase = Phase::Reading { order_last, joining: None };
            let settling = settled.saturating_duration_since(Instant::now());
            self.link.set_joined(self.own.epoch.clone(), settling);
        }
        Ok(())
    }

    /// Numbers the file under this epoch from now on, if it is another one.
    fn take_epoch(&mut self, epoch: &str) -> Result<(), End> {
        if *epoch != *self.own.epoch {
            self.own.epoch = epoch.into();
            self.hub.adopt(self.own.epoch.clone())?;
        }
        Ok(())
    }

    /// Has the hub end; with that of the default channel the node ends.
    fn end(&self, fatal: Fatal) -> End {
        // A hub that is gone has ended already.
        let _ = self.hub.end_copy(fatal);
        End::Over
    }

    /// Has the hub end, since the file cannot be read.
    fn end_unreadable(&self, why: io::Error) -> End {
        self.end(Fatal::Storage(why))
    }

    fn try_take(&mut self, entries: Entries, engine: &mut Engine) -> Result<(), End> {
        // Only here no hash tells this order from one that was put away, of a channel with the same name.
        if self.own.last == 0 && engine.order(self.keys())?.epoch != *self.own.epoch {
            return Err(End::Compare);
        }
        self.has_moved = true;
        self.link.set_available(Side::Reader);
        let mut pieces = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let accepted = match entry {
                Ok(entry) => self.accept(entry),
                Err(Malformed) => Err(End::Compare),
            };
            let arrival = match accepted {
                Ok(arrival) => arrival,
                Err(end) => {
                    self.apply(pieces)?;
                    return Err(end);
                }
            };
            bytes += arrival.piece.lines.len();
            pieces.push(arrival);
            if bytes >= WRITE_BYTES {
                self.apply(std::mem::take(&mut pieces))?;
                bytes = 0;
            }
        }
        self.apply(pieces)?;
        self.join_when_due()
    }

    /// Takes an entry as what comes next in the file, after a check that it follows what was read.
    fn accept(&mut self, Entry { mut piece, chain }: Entry) -> Result<Arrival, End> {
        let next = self.own.last + 1;
        if piece.first_id > next || piece.last_id() < next {
            return Err(End::Compare);
        }
        let sent = piece.origin.as_ref().filter(|origin| origin.node == self.link.node_name());
        let sent = sent.and_then(|origin| self.link.under_way().take(origin.batch));
        let is_checked = sent.as_ref().is_some_and(|sent| *sent.lines == piece.lines);
        piece.begin_at(next);
        let after = self.own.chain.as_ref().map(|before| match &sent {
            Some(sent) if is_checked && sent.before == *before => sent.after.clone(),
            _ => before.after(&piece.lines),
        });
        if after.is_some_and(|after| after != chain) {
            // Either the stream has an entry that is no node's, or the file is a fork.
            sent.into_iter().for_each(|sent| self.link.under_way().put(sent));
            return Err(End::Compare);
        }
        self.own.last = piece.last_id();
        self.own.end += piece.lines.len() as u64;
        self.own.chain = Some(chain.clone());
        let end = Place { lines: self.own.last, offset: self.own.end, chain };
        self.recent.push(&piece, end);
        let speakers = sent.map(|sent| sent.speakers).unwrap_or_default();
        Ok(Arrival { piece, speakers, is_checked })
    }

    /// Hands pieces over to the hub, when it is done with those before.
    fn apply(&mut self, pieces: Vec<Arrival>) -> Result<(), End> {
        if pieces.is_empty() {
            return Ok(());
        }
        self.finish_applying()?;
        match &mut self.put_off {
            Some((before, _)) => before.extend(pieces),
            None if self.is_hub_late => self.next.extend(pieces),
            None => self.applying = Some(self.hub.apply_pieces(pieces)?),
        }
        Ok(())
    }

    /// Waits until the lines that were read are in the file, or the disk had no room for them; but not
    /// longer than all channels may wait for this one.
    fn finish_applying(&mut self) -> Result<(), End> {
        while let Some(applying) = self.applying.take() {
            let wait = if self.is_hub_late { Duration::ZERO } else { HUB_TIME };
            let applied = applying.wait(wait)?;
            self.is_hub_late = matches!(applied, Applied::NotYet);
            match applied {
                Applied::NotYet => {
                    self.applying = Some(applying);
                    return Ok(());
                }
                Applied::NoRoom(mut pieces) => {
                    pieces.append(&mut self.next);
                    self.put_off = Some((pieces, Instant::now() + DISK_TIME));
                }
                Applied::Stored if self.next.is_empty() => {}
                Applied::Stored => {
                    let next = std::mem::take(&mut self.next);
                    self.applying = Some(self.hub.apply_pieces(next)?);
                }
            }
        }
        Ok(())
    }

    fn try_look(&mut self, order: &Order, engine: &mut Engine) -> Result<(), End> {
        self.finish_applying()?;
        let is_as_ours = order.epoch == *self.own.epoch
            && order.last == self.own.last
            && self.own.chain.as_ref().is_none_or(|chain| *chain == order.chain);
        // What came just now is read the next time.
        let is_new = order.epoch == *self.own.epoch && order.last > self.own.last;
        let next = self.own.last + 1;
        if is_as_ours || is_new && !engine.range(self.keys(), next, 1)?.is_empty() {
            self.link.set_available(Side::Reader);
            return Ok(());
        }
        Err(End::Compare)
    }
}
