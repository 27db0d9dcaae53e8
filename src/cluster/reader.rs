//! The reader: one thread that brings the order into this node's file.
//!
//! It compares the file with the order whenever it reaches the engine; gives back what the engine has
//! lost; then hands over piece by piece to the hub, and checks that each follows the one before. It
//! never trusts silence: a stream that became shorter tells nothing, so it asks after each wait that
//! brought nothing.

use std::{
    collections::VecDeque,
    fs::File,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use log::{info, warn};

use super::{
    Settings,
    chain::{Chain, Walk, bytes_at},
    compare::{CompareError, Numbered, Verdict, compare},
    engine::{Engine, EngineError, Entry, Order, Restored, Strange},
    link::{Link, Side},
};
use crate::{
    command::{Applying, HubGone, HubHandle},
    journal::Fatal,
    piece::{Origin, Piece, StampRun},
};

/// The shortest and the longest time between two attempts to reach the engine.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// A full disk is tried again after this long.
const DISK_TIME: Duration = Duration::from_secs(1);

/// The most bytes that the hub takes in with one write, apart from a last piece.
const WRITE_BYTES: usize = 1 << 20;

/// About how many bytes are given back to the engine as one piece.
const PIECE_BYTES: u64 = 256 << 10;

/// How many of the latest pieces are remembered with their origins, so that the engine can drop what
/// it is sent again after they were given back.
const RECENT: usize = 4096;

/// What a node knows of its own file.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) file: Arc<File>,
    pub(super) epoch: Arc<str>,
    pub(super) last: u64,
    pub(super) end: u64,
    /// The hash after the last line; `None` when it is not known.
    pub(super) chain: Option<Chain>,
}

pub(super) struct Reader {
    settings: Arc<Settings>,
    link: Arc<Link>,
    hub: HubHandle,
    ours: Ours,
    /// What the hub is writing, while the next pieces are read.
    applying: Option<Applying>,
    recent: VecDeque<Recent>,
    /// Up to which line the file must come before the node has joined, and when the engine gives out
    /// numbers; `None` when it has joined.
    joining: Option<(u64, Instant)>,
    has_warned: bool,
    has_looked_at_setup: bool,
}

/// A piece that came, without its lines.
struct Recent {
    first_id: u64,
    last_id: u64,
    origin: Option<Origin>,
    key: Option<String>,
}

/// Why a thread does not go on with its connection.
enum End {
    /// The engine is away, or is another one.
    Engine(EngineError),
    /// The file must be compared with the order anew.
    Compare,
    /// The node ends, and its hub says why if it is not told to.
    Node,
}

impl From<EngineError> for End {
    fn from(error: EngineError) -> End {
        End::Engine(error)
    }
}

impl From<HubGone> for End {
    fn from(HubGone: HubGone) -> End {
        End::Node
    }
}

impl Reader {
    pub(super) fn new(
        settings: Arc<Settings>,
        link: Arc<Link>,
        hub: HubHandle,
        ours: Ours,
    ) -> Reader {
        Reader {
            settings,
            link,
            hub,
            ours,
            applying: None,
            recent: VecDeque::new(),
            joining: None,
            has_warned: false,
            has_looked_at_setup: false,
        }
    }

    /// Runs until the node stops or its hub is gone.
    pub(super) fn run(mut self) {
        let file = self.ours.file.clone();
        let mut walk = Walk::of(&file);
        match walk.go_to(self.ours.last, self.ours.end) {
            Ok(()) => self.ours.chain = Some(walk.chain),
            // It is read again when it is compared, which then ends the node.
            Err(error) => warn!("the file cannot be read: {error}"),
        }
        let mut back_off = BACK_OFF.0;
        while !self.link.is_stopping() {
            match self.follow() {
                End::Node => return,
                End::Compare => back_off = BACK_OFF.0,
                End::Engine(why) => {
                    self.link.is_away(Side::Reader);
                    if !self.has_warned {
                        let engine = &self.settings.url;
                        warn!("the engine at {engine} is away: {why}; trying again");
                        self.has_warned = true;
                    }
                }
            }
            thread::sleep(back_off);
            back_off = (back_off * 2).min(BACK_OFF.1);
        }
    }

    fn follow(&mut self) -> End {
        let mut engine = match self.settings.connect() {
            Ok(engine) => engine,
            Err(error) => return End::Engine(error),
        };
        if !self.has_looked_at_setup {
            engine.warn_of_setup();
            self.has_looked_at_setup = true;
        }
        loop {
            match self.agree(&mut engine).and_then(|()| self.read_on(&mut engine)) {
                Err(End::Compare) if !self.link.is_stopping() => {}
                Err(end) => return end,
                Ok(()) => return End::Node,
            }
        }
    }

    /// Compares the file with the order, and sees to it that both agree.
    fn agree(&mut self, engine: &mut Engine) -> Result<(), End> {
        self.finish_applying()?;
        self.cleanse(engine)?;
        loop {
            // An empty file joins an order that has not begun; another one is given to it.
            let epoch = if self.ours.last == 0 { &*self.ours.epoch } else { "" };
            let (order, settling) = engine.arrive(self.settings.settle, epoch)?;
            self.link.ordered(order.last);
            let verdict = match compare(engine, &order, &self.ours.numbered()) {
                Ok(verdict) => verdict,
                Err(CompareError::Engine(error)) => return Err(error.into()),
                Err(CompareError::File(error)) => {
                    return self.end(Fatal::Storage(error));
                }
            };
            match verdict {
                Verdict::Beginning(chain) => {
                    self.ours.chain = chain;
                    self.take_epoch(&order.epoch)?;
                    let settled = Instant::now() + settling;
                    self.joining = Some((order.last, settled));
                    return self.join_when_due();
                }
                Verdict::Longer(chain) => {
                    if !order.epoch.is_empty() {
                        self.take_epoch(&order.epoch)?;
                    }
                    self.restore(engine, order.last, chain)?;
                }
                Verdict::Fork(lines, _) => return self.fork(engine, &order, lines),
                Verdict::Trimmed => {
                    let path = self.settings.file.clone();
                    return self.end(Fatal::Strange(trimmed(&path, self.ours.last)));
                }
                Verdict::Strange => return self.end(Fatal::Strange(strange(&self.settings))),
            }
        }
    }

    /// Says that the node has joined, if its file has come far enough.
    fn join_when_due(&mut self) -> Result<(), End> {
        if let Some((last, settled)) = self.joining
            && self.ours.last >= last
        {
            self.finish_applying()?;
            self.joining = None;
            if self.has_warned {
                info!("the engine is there again");
                self.has_warned = false;
            }
            let settling = settled.saturating_duration_since(Instant::now());
            self.link.joined(self.ours.epoch.clone(), settling);
        }
        Ok(())
    }

    /// Numbers the file under this epoch from now on, if it is another one.
    fn take_epoch(&mut self, epoch: &str) -> Result<(), End> {
        if *epoch != *self.ours.epoch {
            self.ours.epoch = epoch.into();
            self.hub.adopt(self.ours.epoch.clone())?;
        }
        Ok(())
    }

    /// The file has lines that are not in the order.
    fn fork(&mut self, engine: &mut Engine, order: &Order, lines: u64) -> Result<(), End> {
        self.link.forked();
        if order.epoch == *self.ours.epoch {
            let mut name = [0; 8];
            if getrandom::fill(&mut name).is_ok() {
                engine.fork(&order.epoch, &HEXLOWER.encode(&name))?;
            }
        }
        self.end(Fatal::Forked(forked(lines, self.ours.last)))
    }

    /// Has the hub end, and so the node.
    fn end(&mut self, fatal: Fatal) -> Result<(), End> {
        // A hub that is gone has ended already.
        let _ = self.hub.end_node(fatal);
        Err(End::Node)
    }

    /// Gives back to the engine the lines after line `last`; `chain` is the hash after it.
    fn restore(&mut self, engine: &mut Engine, last: u64, mut chain: Chain) -> Result<(), End> {
        let file = self.ours.file.clone();
        let mut walk = Walk::of(&file);
        if let Err(error) = walk.go_to(last, self.ours.end) {
            return self.end(Fatal::Storage(error));
        }
        let mut offset = walk.offset;
        let mut next = last + 1;
        let begun = next;
        while next <= self.ours.last {
            let piece = match self.piece(next, offset) {
                Ok(piece) => piece,
                Err(Ok(HubGone)) => return Err(End::Node),
                Err(Err(error)) => return self.end(Fatal::Storage(error)),
            };
            let after = chain.after(&piece.lines);
            match engine.restore(&self.ours.epoch, &piece, &chain, &after)? {
                Restored::Done => {}
                // It is compared anew what is to be done.
                Restored::Moved | Restored::Fork | Restored::Changed => return Ok(()),
            }
            chain = after;
            offset += piece.lines.len() as u64;
            next = piece.last_id() + 1;
            self.link.restored(piece.count());
        }
        info!("gave {} lines back to the engine, from line {begun} on", next - begun);
        Ok(())
    }

    /// The piece that begins with line `first_id` at `offset`: as it came, if that is remembered.
    fn piece(&self, first_id: u64, offset: u64) -> Result<Piece, Result<HubGone, std::io::Error>> {
        let at = self.recent.partition_point(|piece| piece.first_id < first_id);
        let next = self.recent.get(at);
        let recent = next.filter(|piece| piece.first_id == first_id);
        let most = match (recent, next) {
            (Some(recent), _) => recent.last_id - first_id + 1,
            // What came as a piece goes back as one.
            (None, Some(next)) => next.first_id - first_id,
            (None, None) => self.ours.last - first_id + 1,
        };
        let lines = self.lines(offset, most, recent.is_some()).map_err(Err)?;
        let mut piece = Piece { first_id, lines, origin: None, key: None, stamps: Vec::new() };
        if let Some(recent) = recent {
            piece.origin = recent.origin.clone();
            piece.key = recent.key.clone();
        }
        let mut id = first_id;
        while id <= piece.last_id() {
            let (stretch, stamps) = self.hub.history(id, piece.last_id()).map_err(Ok)?;
            let mut stamps = stamps.read();
            while id <= stretch.last_id.min(piece.last_id()) {
                let stamp = stamps.of(id);
                let (ts, from) = (stamp.ts.unwrap_or(0), stamp.from);
                match piece.stamps.last_mut() {
                    Some(run) if run.ts == ts && run.from.as_deref() == from => run.lines += 1,
                    _ => {
                        piece.stamps.push(StampRun { lines: 1, ts, from: from.map(str::to_owned) })
                    }
                }
                id += 1;
            }
        }
        Ok(piece)
    }

    /// At most so many whole lines from an offset on, in about [`PIECE_BYTES`] unless all are wanted.
    fn lines(&self, offset: u64, most: u64, all: bool) -> std::io::Result<Vec<u8>> {
        let mut len = PIECE_BYTES;
        loop {
            let part = len.min(self.ours.end - offset) as usize;
            let lines = bytes_at(&self.ours.file, offset, part, self.ours.end)?;
            let mut lines = lines.expect("it ends there at the latest");
            let mut ends = memchr::memchr_iter(b'\n', &lines);
            let whole = ends.by_ref().take(most as usize).enumerate().last();
            let is_enough = whole.is_some_and(|(at, _)| !all || at as u64 + 1 == most);
            if is_enough || offset + len >= self.ours.end {
                let end = whole.map_or(0, |(_, end)| end + 1);
                lines.truncate(end);
                return Ok(lines);
            }
            len *= 2;
        }
    }

    /// Brings what the order has into the file, until something is to be compared.
    fn read_on(&mut self, engine: &mut Engine) -> Result<(), End> {
        while !self.link.is_stopping() {
            let entries = engine.read(self.ours.last)?;
            if entries.is_empty() {
                self.finish_applying()?;
                self.look_behind_silence(engine)?;
                continue;
            }
            self.link.is_there(Side::Reader);
            let mut pieces = Vec::new();
            let mut bytes = 0;
            for entry in entries {
                match entry {
                    Ok(entry) => match self.check(entry) {
                        Ok(piece) => {
                            bytes += piece.lines.len();
                            pieces.push(piece);
                        }
                        Err(end) => {
                            self.apply(&mut pieces)?;
                            return Err(end);
                        }
                    },
                    Err(Strange) => {
                        self.apply(&mut pieces)?;
                        return Err(End::Compare);
                    }
                }
                if bytes >= WRITE_BYTES {
                    self.apply(&mut pieces)?;
                    bytes = 0;
                }
            }
            self.apply(&mut pieces)?;
            self.join_when_due()?;
        }
        Err(End::Node)
    }

    /// Checks that an entry follows the lines that were read, and takes its hash.
    fn check(&mut self, Entry { mut piece, chain }: Entry) -> Result<Piece, End> {
        let next = self.ours.last + 1;
        if piece.first_id > next || piece.last_id() < next {
            return Err(End::Compare);
        }
        piece.begin_at(next);
        let after = self.ours.chain.as_ref().map(|before| before.after(&piece.lines));
        if after.is_some_and(|after| after != chain) {
            // Either the stream has an entry that is no node's, or the file is a fork.
            return Err(End::Compare);
        }
        self.ours.chain = Some(chain);
        self.ours.last = piece.last_id();
        self.ours.end += piece.lines.len() as u64;
        Ok(piece)
    }

    /// Hands pieces over to the hub, when it is done with those before.
    fn apply(&mut self, pieces: &mut Vec<Piece>) -> Result<(), End> {
        if pieces.is_empty() {
            return Ok(());
        }
        self.finish_applying()?;
        for piece in pieces.iter() {
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(Recent {
                first_id: piece.first_id,
                last_id: piece.last_id(),
                origin: piece.origin.clone(),
                key: piece.key.clone(),
            });
        }
        self.applying = Some(self.hub.apply_pieces(std::mem::take(pieces))?);
        Ok(())
    }

    /// Waits until all lines that were read are in the file, however long the disk is full.
    fn finish_applying(&mut self) -> Result<(), End> {
        while let Some(applying) = self.applying.take() {
            let Some(pieces) = applying.wait()? else { break };
            thread::sleep(DISK_TIME);
            if self.link.is_stopping() {
                return Err(End::Node);
            }
            self.applying = Some(self.hub.apply_pieces(pieces)?);
        }
        Ok(())
    }

    /// Asks how far the order has come, when nothing new is read.
    fn look_behind_silence(&mut self, engine: &mut Engine) -> Result<(), End> {
        let order = engine.order()?;
        self.link.ordered(order.last);
        let is_as_known = order.epoch == *self.ours.epoch
            && order.last == self.ours.last
            && self.ours.chain.as_ref().is_none_or(|chain| *chain == order.chain);
        // What came just now is read the next time.
        let is_new = order.epoch == *self.ours.epoch && order.last > self.ours.last;
        if is_as_known || is_new && !engine.range(self.ours.last + 1, 1)?.is_empty() {
            self.link.is_there(Side::Reader);
            return Ok(());
        }
        Err(End::Compare)
    }

    /// Takes out of the stream what is not in the order.
    fn cleanse(&mut self, engine: &mut Engine) -> Result<(), End> {
        let strange = engine.cleanse()?;
        if strange > 0 {
            warn!("{strange} entries were in the stream that no node had added; taken out");
        }
        Ok(())
    }
}

impl Ours {
    fn numbered(&self) -> Numbered<'_> {
        Numbered {
            file: &self.file,
            epoch: &self.epoch,
            last: self.last,
            end: self.end,
            chain: self.chain.as_ref(),
        }
    }
}

/// What an operator does whose file is too far behind.
pub(super) fn trimmed(path: &std::path::Path, last: u64) -> String {
    let name = path.file_name().unwrap_or_default().display();
    format!(
        "the engine keeps no more what follows line {last}; get it from another node, and start \
         again: curl -C - -o {name} http://PEER/messages.txt"
    )
}

/// What is said when the engine is most likely another chat's.
pub(super) fn strange(settings: &Settings) -> String {
    format!(
        "the file and the order at {} have no line in common; is it the right engine? Nothing was \
         changed",
        settings.url
    )
}

/// What is said of a fork.
pub(super) fn forked(lines: u64, last: u64) -> String {
    format!(
        "the file has forked from the order: lines {} to {last} differ; the next start sets them \
         aside and joins again",
        lines + 1
    )
}
