//! Why an engine, or its part for one channel, cannot be used.

use std::fmt;

use redis::RedisError;

/// The first word of a script's error that says that a channel was put away.
const PUT_AWAY_ERROR: &str = "AWAY";

/// Why an engine cannot be used, or not now.
#[derive(Debug)]
pub enum EngineError {
    /// It cannot be reached, or gave no answer, or an error.
    Redis(RedisError),
    /// It is none that can be used; why, for a person.
    Unfit(String),
    /// The user of the URL lacks a right; which one, for a person.
    Forbidden(String),
    /// It has lines of this channel and lost its record of them.
    NoRecord,
    /// A key of this channel holds something else.
    OtherKey,
    /// The channel of the file was put away.
    PutAway,
}

/// What gives a user all rights that a node needs. The README says the same.
const ALL_RIGHTS: &str = "ACL SETUSER NAME ~txtcord:* +@all";

impl EngineError {
    /// Whether each attempt fails so until somebody changes something.
    pub fn is_lasting(&self) -> bool {
        matches!(self, EngineError::Unfit(_) | EngineError::Forbidden(_))
    }

    /// Whether the engine answered that it does not do what it was asked.
    pub fn is_refusal(&self) -> bool {
        matches!(self, EngineError::Redis(error) if !error.is_io_error())
    }
}

impl From<RedisError> for EngineError {
    fn from(error: RedisError) -> EngineError {
        match error.code() {
            Some(PUT_AWAY_ERROR) => EngineError::PutAway,
            Some("WRONGTYPE") => EngineError::OtherKey,
            Some("NOPERM") => {
                EngineError::Forbidden(error.detail().unwrap_or("a right is missing").to_owned())
            }
            _ => EngineError::Redis(error),
        }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The system calls that a resource that is temporarily unavailable.
            EngineError::Redis(error) if error.is_timeout() => {
                out.write_str("it has not answered in time")
            }
            EngineError::Redis(error) => error.fmt(out),
            EngineError::Unfit(why) => out.write_str(why),
            EngineError::Forbidden(what) => {
                write!(out, "{what}; give the user of the URL its rights: {ALL_RIGHTS}")
            }
            EngineError::NoRecord => out.write_str(
                "it has lost its record of the order; a node that has lines will give it back",
            ),
            EngineError::OtherKey => out.write_str("a key of the channel holds something else"),
            EngineError::PutAway => out.write_str("the channel was put away"),
        }
    }
}
