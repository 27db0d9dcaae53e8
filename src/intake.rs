//! How much memory may be taken by what peers have not finished: messages and bodies that are not whole yet.
//!
//! A peer may send most of a long message and leave it at that. So what all connections together have
//! received of such messages is counted, and a connection that needs more than is left is turned away.
//! Short messages are not counted, so people go on talking meanwhile.

use std::sync::{
    LazyLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use rlimit::Resource;

use crate::control_group;

/// Up to this many bytes are not counted: as many as every connection may hold. That is twice
/// tungstenite's read buffer.
pub const UNCOUNTED: usize = 4 << 10;

/// All that is unfinished may take one part in this many of the memory that the process may have. A body
/// takes up to three times as much while it is made into messages.
const SHARE: u64 = 8;

/// However much memory there is, unfinished messages may take this much: a hundred bodies of 8 MiB, or
/// 800 messages of 1 MiB.
const MOST: u64 = 800 << 20;

/// How much memory there is, if nobody says.
const USUAL_MEMORY: u64 = 1 << 30;

/// The count of this process.
static ALL: LazyLock<Intake> = LazyLock::new(|| Intake::of(memory().unwrap_or(USUAL_MEMORY)));

/// The count of what is unfinished.
#[derive(Debug)]
pub struct Intake {
    /// How many bytes there may be.
    room: usize,
    taken: AtomicUsize,
}

impl Intake {
    fn of(memory: u64) -> Intake {
        let room = usize::try_from((memory / SHARE).min(MOST)).unwrap_or(usize::MAX);
        Intake { room, taken: AtomicUsize::new(0) }
    }
}

/// There is no room for more of an unfinished message.
#[derive(Debug, PartialEq, Eq)]
pub struct NoRoom;

/// What one connection has received of a message or body that is not whole.
#[derive(Debug)]
pub struct Unfinished {
    counted: usize,
    by: &'static Intake,
}

impl Unfinished {
    /// Nothing yet, counted with all that this process has.
    pub fn nothing() -> Unfinished {
        Unfinished { counted: 0, by: &ALL }
    }

    /// It has `bytes` bytes now, or is about to have them. Up to twice as many are counted, so that most
    /// of those who have room for much of their message have it for all of it.
    ///
    /// # Errors
    /// When there is no room for so many. What was counted before still is. If nothing else is unfinished,
    /// there is always room.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if bytes <= self.counted.max(UNCOUNTED) {
            return Ok(());
        }
        let more = bytes.next_power_of_two() - self.counted;
        let others = self.by.taken.fetch_add(more, Relaxed) - self.counted;
        if others > 0 && others + self.counted + more > self.by.room {
            self.by.taken.fetch_sub(more, Relaxed);
            return Err(NoRoom);
        }
        self.counted += more;
        Ok(())
    }

    /// Whether it is counted.
    #[cfg(test)]
    pub fn is_counted(&self) -> bool {
        self.counted > 0
    }

    /// It is whole, and the next one begins.
    pub fn finish(&mut self) {
        if self.counted > 0 {
            self.by.taken.fetch_sub(self.counted, Relaxed);
            self.counted = 0;
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.finish();
    }
}

/// How much memory this process may have, in bytes.
fn memory() -> Option<u64> {
    let limit =
        |resource: Resource| resource.get_soft().ok().filter(|&limit| limit != rlimit::INFINITY);
    let groups = [
        control_group::lowest("memory", |group| control_group::number_in(group.join("memory.max"))),
        control_group::lowest("memory", |group| {
            control_group::number_in(group.join("memory.limit_in_bytes"))
        }),
    ];
    let all = [of_machine(), limit(Resource::DATA), limit(Resource::AS)];
    all.into_iter().chain(groups).flatten().min()
}

/// How much memory the machine has, in bytes.
fn of_machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(by: &'static Intake) -> Unfinished {
        Unfinished { counted: 0, by }
    }

    #[test]
    fn what_is_unfinished_has_its_share_of_the_memory_and_no_more() {
        const STEP: usize = 16 << 10;
        let all: &'static Intake = Box::leak(Box::new(Intake::of(SHARE * 8 * STEP as u64)));
        let (mut one, mut two) = (of(all), of(all));
        assert_eq!(one.grow_to(UNCOUNTED), Ok(()));
        assert_eq!(all.taken.load(Relaxed), 0, "short messages are not counted");
        assert_eq!(one.grow_to(4 * STEP), Ok(()));
        assert_eq!(two.grow_to(2 * STEP + 1), Ok(()));
        assert_eq!(two.grow_to(4 * STEP), Ok(()), "that was counted already");
        assert_eq!(two.grow_to(4 * STEP + 1), Err(NoRoom));
        assert_eq!(of(all).grow_to(UNCOUNTED), Ok(()), "somebody else says something short");
        one.finish();
        assert_eq!(two.grow_to(8 * STEP), Ok(()));
        assert_eq!(one.grow_to(UNCOUNTED + 1), Err(NoRoom));
        drop(two);
        assert_eq!(one.grow_to(100 * STEP), Ok(()), "one alone always has room");
        drop(one);
        assert_eq!(all.taken.load(Relaxed), 0);
    }

    #[test]
    fn this_process_may_have_some_memory() {
        assert!(memory().expect("Linux tells") > 16 << 20);
    }
}
