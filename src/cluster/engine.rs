//! The engine: a connection to Redis or Valkey, and what its scripts answer.
//!
//! Each call waits for seconds at the most. After any error the connection is of no use: it may have
//! an answer on its way that nobody waits for.

use std::{collections::HashMap, iter, time::Duration};

use data_encoding::HEXLOWER;
use log::warn;
use redis::{Connection, cmd};

use super::chain::Chain;
use crate::{
    config::EngineUrl,
    name::Name,
    piece::{Origin, Piece, StampRun, senders_text, times_text},
};

mod connecting;
mod entry;
mod error;
mod keys;
mod scripts;

pub use entry::{Entries, Entry, Malformed};
pub use error::EngineError;
pub use keys::Keys;

use connecting::{address, open};
use entry::{RawEntries, entry};
use scripts::{Answer, Scripts};

/// How long a script may take.
const SCRIPT_TIME: Duration = Duration::from_secs(3);

/// How long reading what is new may take.
const READ_TIME: Duration = Duration::from_secs(4);

/// How long the engine waits for something new. It is short, since after each wait that brought nothing
/// the reader asks how far the order has come.
pub const BLOCK_TIME: Duration = Duration::from_millis(250);

// The engine answers well before it counts as unavailable.
const _: () = assert!(BLOCK_TIME.as_millis() * 2 <= READ_TIME.as_millis());

/// How many entries of one channel are read at a time: 4 MiB under full load.
pub const ENTRIES: usize = 16;

/// How many entries are read at a time where several channels are busy, as long as each may have one.
const ENTRIES_OF_ALL: usize = 64;

/// How many random bytes make the name of an epoch.
const EPOCH_BYTES: usize = 8;

/// The hash of all channels but the default one, each with its first epoch.
const CHANNELS: &str = "txtcord:channels";

/// The set of what was put away: the name of a channel and one of its epochs. So a node knows a file
/// that was put away elsewhere from one of a channel that was made later under the same name.
const PUT_AWAY: &str = "txtcord:channels:away";

/// Says what the user may not do.
fn may_not_run(commands: &str) -> String {
    format!("it does not let the user run {commands} with keys that begin with txtcord:")
}

/// A connection to the engine.
pub struct Engine {
    connection: Connection,
    /// Which run of the engine this is.
    run: String,
    scripts: Scripts,
    /// Commands that the user may not run, and that only making and putting away channels takes.
    forbidden: String,
}

/// How far the order has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The epoch; empty for an engine that has none.
    pub epoch: String,
    /// The number of the last line.
    pub last: u64,
    /// The hash after it.
    pub chain: Chain,
}

impl Order {
    /// Whether the order, as it is seen later, may be this one with more lines.
    pub fn goes_on_as(&self, later: &Order) -> bool {
        let is_longer = later.last > self.last;
        later.epoch == self.epoch
            && (is_longer || later.last == self.last && later.chain == self.chain)
    }
}

/// What is done about an engine that has no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfNone {
    /// It begins one under the epoch of the file.
    Begins,
    /// It leaves that to a node that has lines.
    Waits,
}

/// What is asked of the engine: to give numbers to a batch.
#[derive(Debug)]
pub struct Append<'a> {
    /// The epoch under which the numbers are to be given.
    pub epoch: &'a str,
    /// The name of the node in the channel.
    pub node: &'a str,
    /// The number of the batch.
    pub batch: u64,
    /// The Idempotency-Key of the one post that it is.
    pub key: Option<&'a str>,
    /// The senders of the lines; see [`senders_text`].
    pub senders: &'a str,
    /// The lines, each with its `\n`.
    pub lines: &'a [u8],
    /// How many these are.
    pub count: u64,
    /// The hash that the lines follow, as far as this node knows. If it is right, the engine need not hash
    /// each line, which is most of what a line costs it.
    pub before: &'a Chain,
    /// The hash after the lines, if they follow that one.
    pub after: &'a Chain,
    /// The last line that this node's file has.
    pub last: u64,
    /// The engine need not keep the lines before this one.
    pub first_to_keep: u64,
}

/// What became of a batch.
#[derive(Debug)]
pub enum Appended {
    /// It has its numbers; the hash after its last line.
    Ordered(Chain),
    /// It was sent again, and had its numbers before.
    Resent,
    /// It repeats a post that has its Idempotency-Key: the numbers of that one's first and last line.
    Repeat(u64, u64),
    /// The engine has lost lines that this node has; a node will give them back.
    Short,
    /// The engine has just been started, and gives out no numbers for so long.
    Settling(Duration),
    /// The numbering is another one, or the engine was started anew.
    Changed,
}

/// What is given back to an engine that has lost it: a piece.
#[derive(Debug)]
pub struct Restore<'a> {
    /// The epoch of its numbers.
    pub epoch: &'a str,
    /// The piece.
    pub piece: &'a Piece,
    /// The hash before its lines.
    pub before: &'a Chain,
    /// The hash after them.
    pub after: &'a Chain,
    /// For so long the engine gives out no numbers afterwards, since more may follow.
    pub settle: Duration,
    /// The engine need not keep the lines before this one.
    pub first_to_keep: u64,
}

/// What became of a piece that was given back.
#[derive(Debug, PartialEq, Eq)]
pub enum Restored {
    /// The engine has it again.
    Done,
    /// Another node gave it back, or the order went on.
    Moved,
    /// The engine has other lines before it.
    Fork,
    /// The numbering is another one, or the engine was started anew.
    Changed,
}

impl Engine {
    /// Connects, and looks whether this is an engine to be used.
    ///
    /// # Errors
    /// When it cannot be reached, is a replica or part of Redis Cluster, or forbids what all channels need.
    pub fn connect(url: &EngineUrl) -> Result<Engine, EngineError> {
        let mut connection = open(url, &address(url)?)?;
        let info: String = cmd("INFO").query(&mut connection)?;
        let of = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        // Valkey calls it by another name.
        if of("redis_mode") == "cluster" || of("server_mode") == "cluster" {
            return Err(EngineError::Unfit(
                "it is part of Redis Cluster; one order needs one engine".into(),
            ));
        }
        if of("role") != "master" {
            return Err(EngineError::Unfit(
                "it is a replica, which takes no lines; name the primary, or ask Sentinel".into(),
            ));
        }
        let scripts = Scripts::new();
        let (forbidden, of_channels): (String, String) =
            scripts.rights.arg(CHANNELS).invoke(&mut connection)?;
        if !forbidden.is_empty() {
            return Err(EngineError::Forbidden(may_not_run(&forbidden)));
        }
        let run = of("run_id");
        Ok(Engine { connection, run, scripts, forbidden: of_channels })
    }

    /// Warns when the engine is set up so that it may forget, or forbids what some channels need.
    pub fn warn_of_setup(&mut self) {
        if !self.forbidden.is_empty() {
            let why = EngineError::Forbidden(may_not_run(&self.forbidden));
            warn!("the engine may keep channels from being made and put away on all nodes: {why}");
        }
        let mut setting = |name: &str| -> Option<String> {
            // An engine may forbid to ask, which says nothing.
            let found: Vec<String> =
                cmd("CONFIG").arg("GET").arg(name).query(&mut self.connection).ok()?;
            found.into_iter().nth(1)
        };
        if let Some(policy) = setting("maxmemory-policy").filter(|policy| policy != "noeviction") {
            warn!("the engine's maxmemory-policy is {policy}: it may forget lines; set noeviction");
        }
        if setting("appendonly").is_some_and(|value| value != "yes") {
            warn!("the engine's appendonly is off: a kill makes it lose lines; set appendonly yes");
        }
    }

    /// Notes in the engine which run of it this is. Returns how far the order of a channel has come, and
    /// how long it takes until numbers are given out. `own_epoch` is that of the file, or empty where that
    /// is not known.
    ///
    /// # Errors
    /// When there is no answer, or the channel was put away.
    pub fn arrive(
        &mut self,
        keys: &Keys,
        settle: Duration,
        own_epoch: &str,
        if_none: IfNone,
    ) -> Result<(Order, Duration), EngineError> {
        self.limit_wait(SCRIPT_TIME)?;
        let first_epoch = if if_none == IfNone::Begins { own_epoch } else { "" };
        let (epoch, last, chain, settling): (String, u64, String, u64) = self
            .scripts
            .arrive
            .key(&keys.stream)
            .key(&keys.meta)
            .key(PUT_AWAY)
            .arg(&self.run)
            .arg(settle.as_millis() as u64)
            .arg(first_epoch)
            .arg(keys.under(own_epoch))
            .invoke(&mut self.connection)?;
        if epoch.is_empty() && !first_epoch.is_empty() {
            return Err(EngineError::NoRecord);
        }
        let order = Order { epoch, last, chain: Chain::told(chain) };
        Ok((order, Duration::from_millis(settling)))
    }

    /// The channels of the cluster, as far as the engine knows them, each with its first epoch.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn channels(&mut self) -> Result<HashMap<String, String>, EngineError> {
        self.limit_wait(SCRIPT_TIME)?;
        Ok(cmd("HGETALL").arg(CHANNELS).query(&mut self.connection)?)
    }

    /// Tells all nodes of a channel that a node has under this epoch, unless it was put away.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn take_up(&mut self, name: &Name, epoch: &str) -> Result<(), EngineError> {
        self.limit_wait(SCRIPT_TIME)?;
        let invocation = &mut self.scripts.take_up.key(CHANNELS);
        let invocation = invocation.key(PUT_AWAY).arg(name.to_string()).arg(epoch);
        Ok(invocation.invoke(&mut self.connection)?)
    }

    /// Puts the channel away, of which this node's file has this epoch. The engine has nothing of it
    /// afterwards, and each node is told so when it [arrives](Engine::arrive).
    ///
    /// # Errors
    /// When there is no answer; it may have been put away then.
    pub fn put_away(&mut self, keys: &Keys, epoch: &str) -> Result<(), EngineError> {
        self.limit_wait(SCRIPT_TIME)?;
        let invocation = &mut self.scripts.put_away.key(&keys.stream);
        let invocation = invocation.key(&keys.meta).key(CHANNELS).key(PUT_AWAY);
        let invocation = invocation.arg(&keys.name).arg(epoch);
        Ok(invocation.invoke(&mut self.connection)?)
    }

    /// How far the orders of these channels have come.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn orders<'a>(
        &mut self,
        channels: impl Iterator<Item = &'a Keys>,
    ) -> Result<Vec<Order>, EngineError> {
        self.limit_wait(SCRIPT_TIME)?;
        let mut pipe = redis::pipe();
        for keys in channels {
            pipe.cmd("HMGET").arg(&keys.meta).arg(&["epoch", "last", "chain"]);
        }
        let found: Vec<[Option<String>; 3]> = pipe.query(&mut self.connection)?;
        let order = |[epoch, last, chain]: [Option<String>; 3]| Order {
            epoch: epoch.unwrap_or_default(),
            // What is no number, somebody broke: it is found out when the file is compared.
            last: last.and_then(|last| last.parse().ok()).unwrap_or(0),
            chain: Chain::told(chain.unwrap_or_default()),
        };
        Ok(found.into_iter().map(order).collect())
    }

    /// How far the order of one channel has come.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn order(&mut self, keys: &Keys) -> Result<Order, EngineError> {
        Ok(self.orders(iter::once(keys))?.remove(0))
    }

    /// Has numbers given to a batch.
    ///
    /// # Errors
    /// When there is no answer; the batch may have its numbers then.
    pub fn append(&mut self, keys: &Keys, append: &Append<'_>) -> Result<Appended, EngineError> {
        self.limit_wait(SCRIPT_TIME)?;
        let key = append.key.unwrap_or_default();
        let answer: Vec<redis::Value> = self
            .scripts
            .append
            .key(&keys.stream)
            .key(&keys.meta)
            .key(keys.batches_of(append.node))
            .key(keys.ids_of(key))
            .arg(append.epoch)
            .arg(&self.run)
            .arg(append.node)
            .arg(append.batch)
            .arg(append.last)
            .arg(append.first_to_keep)
            .arg(key)
            .arg(append.senders)
            .arg(append.lines)
            .arg(append.count)
            .arg(append.before.as_str())
            .arg(append.after.as_str())
            .invoke(&mut self.connection)?;
        let mut answer = Answer::of(answer);
        Ok(match &*answer.next::<String>()? {
            "ok" => Appended::Ordered(Chain::told(answer.next()?)),
            "known" if answer.is_empty() => Appended::Resent,
            "known" => Appended::Repeat(answer.next()?, answer.next()?),
            "short" => Appended::Short,
            "settling" => Appended::Settling(Duration::from_millis(answer.next()?)),
            _ => Appended::Changed,
        })
    }

    /// Gives a piece back.
    ///
    /// # Errors
    /// When there is no answer, and the engine may have the piece then; or when the channel was put
    /// away.
    pub fn restore(&mut self, keys: &Keys, restore: &Restore<'_>) -> Result<Restored, EngineError> {
        self.limit_wait(SCRIPT_TIME)?;
        let &Restore { epoch, piece, before, after, settle, first_to_keep } = restore;
        let (node, batch) =
            piece.origin.as_ref().map_or(("", 0), |origin| (&*origin.node, origin.batch));
        let origin = piece.origin.as_ref().map(Origin::to_string).unwrap_or_default();
        let key = piece.key.as_deref().unwrap_or_default();
        let runs = piece.stamps.iter().map(|run: &StampRun| (run.lines, run.from.as_deref()));
        let answer: Vec<redis::Value> = self
            .scripts
            .restore
            .key(&keys.stream)
            .key(&keys.meta)
            .key(keys.batches_of(node))
            .key(keys.ids_of(key))
            .key(PUT_AWAY)
            .arg(epoch)
            .arg(&self.run)
            .arg(piece.first_id)
            .arg(before.as_str())
            .arg(&piece.lines)
            .arg(times_text(&piece.stamps))
            .arg(senders_text(runs))
            .arg(origin)
            .arg(key)
            .arg(batch)
            .arg(piece.last_id())
            .arg(after.as_str())
            .arg(keys.under(epoch))
            .arg(settle.as_millis() as u64)
            .arg(first_to_keep)
            .invoke(&mut self.connection)?;
        Ok(match &*Answer::of(answer).next::<String>()? {
            "ok" => Restored::Done,
            "moved" => Restored::Moved,
            "fork" => Restored::Fork,
            _ => Restored::Changed,
        })
    }

    /// Has a new epoch begin, if the engine still has the old one.
    ///
    /// # Errors
    /// When there is no answer, or the system has no random bytes for its name.
    pub fn begin_epoch(&mut self, keys: &Keys, old: &str) -> Result<(), EngineError> {
        let mut name = [0; EPOCH_BYTES];
        getrandom::fill(&mut name).map_err(|why| EngineError::Unfit(why.to_string()))?;
        self.limit_wait(SCRIPT_TIME)?;
        let mut invocation = self.scripts.fork.key(&keys.stream);
        invocation.key(&keys.meta).arg(old).arg(HEXLOWER.encode(&name));
        Ok(invocation.invoke(&mut self.connection)?)
    }

    /// Takes stray entries out of the stream, which are not in the order; how many there were.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn cleanse(&mut self, keys: &Keys) -> Result<u64, EngineError> {
        self.limit_wait(SCRIPT_TIME)?;
        let invocation = &mut self.scripts.cleanse.key(&keys.stream);
        Ok(invocation.key(&keys.meta).invoke(&mut self.connection)?)
    }

    /// Reads entries of several channels, of each after a line. If there are none, waits for so long.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn read(
        &mut self,
        channels: &[(&Keys, u64)],
        wait: Option<Duration>,
    ) -> Result<Vec<(String, Entries)>, EngineError> {
        self.limit_wait(READ_TIME)?;
        let mut command = cmd("XREAD");
        command.arg("COUNT").arg((ENTRIES_OF_ALL / channels.len()).clamp(1, ENTRIES));
        if let Some(wait) = wait {
            debug_assert!(wait <= BLOCK_TIME, "the engine must not be taken for one that hangs");
            command.arg("BLOCK").arg(wait.as_millis() as u64);
        }
        command.arg("STREAMS");
        for (keys, _) in channels {
            command.arg(&keys.stream);
        }
        for (_, after) in channels {
            command.arg(format!("0-{after}"));
        }
        let answer: Option<Vec<(String, RawEntries)>> = command.query(&mut self.connection)?;
        let read = |(stream, entries): (String, RawEntries)| {
            (stream, entries.into_iter().map(entry).collect())
        };
        Ok(answer.into_iter().flatten().map(read).collect())
    }

    /// At most `most` entries that end with the line `from` or later.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn range(&mut self, keys: &Keys, from: u64, most: usize) -> Result<Entries, EngineError> {
        self.limit_wait(SCRIPT_TIME)?;
        let entries: RawEntries = cmd("XRANGE")
            .arg(&keys.stream)
            .arg(format!("0-{from}"))
            .arg("+")
            .arg("COUNT")
            .arg(most)
            .query(&mut self.connection)?;
        Ok(entries.into_iter().map(entry).collect())
    }

    /// The entry that has line `id`; `None` where the engine keeps none, or a malformed one is in its place.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn entry_with(&mut self, keys: &Keys, id: u64) -> Result<Option<Entry>, EngineError> {
        let first = self.range(keys, id, 1)?.into_iter().next().and_then(Result::ok);
        Ok(first.filter(|entry| entry.piece.first_id <= id))
    }

    /// Limits how long the next answer is waited for.
    fn limit_wait(&mut self, time: Duration) -> Result<(), EngineError> {
        Ok(self.connection.set_read_timeout(Some(time))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_is_shorter_or_another_one_does_not_go_on_as_it_was() {
        let order = |epoch: &str, last, chain: &str| Order {
            epoch: epoch.into(),
            last,
            chain: Chain::told(chain.into()),
        };
        let before = order("epoch", 5, "hash");
        assert!(before.goes_on_as(&before) && before.goes_on_as(&order("epoch", 6, "longer")));
        // Its engine was emptied, was given a part of it back, or has another numbering.
        for after in [
            order("", 0, ""),
            order("epoch", 4, "shorter"),
            order("epoch", 5, "other"),
            order("other", 6, "longer"),
        ] {
            assert!(!before.goes_on_as(&after), "{after:?}");
        }
    }
}
