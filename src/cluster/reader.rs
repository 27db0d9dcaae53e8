//! The reader: one thread that brings the orders of all channels into this node's files.
//!
//! One connection and one XREAD serve all channels, so that a channel in which nothing is said costs
//! neither. A mirror whose file lacks more is given some entries at a time between these reads. The reader
//! never trusts silence: a stream that became shorter tells nothing, so it asks how far the orders have
//! come after each wait that brought nothing, and once a second in any case.

use std::{
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use log::{info, warn};

use super::{
    back_off::BackOff,
    complaint::Complaint,
    engine::{BLOCK_TIME, Engine, EngineError, Keys},
    mirror::Mirror,
    refresh,
};
use crate::config::EngineUrl;

/// How often it is asked how far the orders have come, while some are busy.
const LOOK: Duration = Duration::from_secs(1);

/// How long nothing is read while no mirror can take anything: all disks are slow or full.
const PAUSE: Duration = Duration::from_millis(100);

/// What came of waiting for all orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Something,
    Nothing,
}

pub(super) struct Reader {
    url: EngineUrl,
    new: Receiver<Mirror>,
    mirrors: Vec<Mirror>,
    next_look: Instant,
    back_off: BackOff,
    complaint: Complaint,
    has_looked_at_setup: bool,
}

impl Reader {
    /// A reader of an engine's orders, whose mirrors come through the queue.
    pub(super) fn new(url: EngineUrl, new: Receiver<Mirror>) -> Reader {
        Reader {
            url,
            new,
            mirrors: Vec::new(),
            next_look: Instant::now(),
            back_off: BackOff::new(),
            complaint: Complaint::default(),
            has_looked_at_setup: false,
        }
    }

    /// Runs until there are no channels and none can come.
    pub(super) fn run(mut self) {
        while self.refresh() {
            let Err(why) = self.read_orders() else { continue };
            self.mirrors.iter_mut().for_each(Mirror::lose_engine);
            if self.complaint.is_news(&why) {
                warn!(
                    "the engine at {} is unavailable: {why}; serving what the files have, and trying \
                     again",
                    self.url
                );
            }
            self.back_off.wait();
        }
    }

    fn refresh(&mut self) -> bool {
        refresh(&self.new, &mut self.mirrors, Mirror::is_over)
    }

    /// Reads the orders over one connection, until there are no channels.
    fn read_orders(&mut self) -> Result<(), EngineError> {
        let mut engine = Engine::connect(&self.url)?;
        if !self.has_looked_at_setup {
            engine.warn_of_setup();
            self.has_looked_at_setup = true;
        }
        while !self.mirrors.is_empty() {
            let mut has_more = false;
            for mirror in self.mirrors.iter_mut().filter(|mirror| mirror.reads_after().is_none()) {
                has_more |= mirror.prepare(&mut engine)?;
            }
            let heard = self.read(&mut engine, has_more)?;
            self.back_off.reset();
            if self.mirrors.iter().all(Mirror::has_recovered) && self.complaint.ends() {
                info!("the engine is available again");
            }
            if heard == Heard::Nothing || self.next_look <= Instant::now() {
                self.look_at_orders(&mut engine)?;
            }
            if !self.refresh() {
                break;
            }
        }
        Ok(())
    }

    /// Reads what the orders have that is new, and waits for it unless there is something else to do.
    fn read(&mut self, engine: &mut Engine, has_more: bool) -> Result<Heard, EngineError> {
        let channels: Vec<(&Keys, u64)> = self
            .mirrors
            .iter()
            .filter_map(|mirror| Some((mirror.keys(), mirror.reads_after()?)))
            .collect();
        if channels.is_empty() {
            if !has_more {
                thread::sleep(PAUSE);
            }
            return Ok(Heard::Something);
        }
        let found = engine.read(&channels, (!has_more).then_some(BLOCK_TIME))?;
        let heard = if found.is_empty() && !has_more { Heard::Nothing } else { Heard::Something };
        for (stream, entries) in found {
            let mut mirrors = self.mirrors.iter_mut();
            if let Some(mirror) = mirrors.find(|mirror| mirror.keys().stream() == stream) {
                mirror.take(entries, engine)?;
            }
        }
        Ok(heard)
    }

    fn look_at_orders(&mut self, engine: &mut Engine) -> Result<(), EngineError> {
        self.next_look = Instant::now() + LOOK;
        let mut reading: Vec<&mut Mirror> =
            self.mirrors.iter_mut().filter(|mirror| mirror.is_reading()).collect();
        if reading.is_empty() {
            return Ok(());
        }
        let orders = engine.orders(reading.iter().map(|mirror| mirror.keys()))?;
        for (mirror, order) in reading.iter_mut().zip(&orders) {
            mirror.look(order, engine)?;
        }
        Ok(())
    }
}
