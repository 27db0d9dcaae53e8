//! The scripts that the engine runs, and their answers.

use std::vec;

use redis::{ErrorKind, FromRedisValue, RedisError, Script};

use super::EngineError;

pub(super) struct Scripts {
    pub(super) arrive: Script,
    pub(super) append: Script,
    pub(super) restore: Script,
    pub(super) fork: Script,
    pub(super) cleanse: Script,
    pub(super) take_up: Script,
    pub(super) put_away: Script,
    pub(super) rights: Script,
}

impl Scripts {
    pub(super) fn new() -> Scripts {
        Scripts {
            arrive: Script::new(include_str!("../scripts/arrive.lua")),
            append: Script::new(include_str!("../scripts/append.lua")),
            restore: Script::new(include_str!("../scripts/restore.lua")),
            fork: Script::new(include_str!("../scripts/fork.lua")),
            cleanse: Script::new(include_str!("../scripts/cleanse.lua")),
            take_up: Script::new(include_str!("../scripts/take_up.lua")),
            put_away: Script::new(include_str!("../scripts/put_away.lua")),
            rights: Script::new(include_str!("../scripts/rights.lua")),
        }
    }
}

/// What is left of a script's answer.
pub(super) struct Answer(vec::IntoIter<redis::Value>);

impl Answer {
    pub(super) fn of(values: Vec<redis::Value>) -> Answer {
        Answer(values.into_iter())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn next<T: FromRedisValue>(&mut self) -> Result<T, EngineError> {
        let unexpected =
            || RedisError::from((ErrorKind::UnexpectedReturnType, "a script's answer"));
        let value = redis::from_redis_value(self.0.next().ok_or_else(unexpected)?);
        Ok(value.map_err(|_| unexpected())?)
    }
}
