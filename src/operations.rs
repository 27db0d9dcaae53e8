//! Operations: messages that change what an earlier message is: edit, delete, react, pin.
//!
//! An operation is a message like any other, whose first key is `$op`: it has a line, an id and a
//! place in the order. Here it is recognised and checked ([`recognise()`]), decided ([`decide()`]), and
//! kept in an index ([`Operations`]). What is decided depends on the lines before the operation
//! alone, so a start that reads the lines again comes to the same index.

mod decide;
mod index;
mod recognise;

pub use decide::{Asker, Forbidden, MOST_KEYS, Person, Refusal, Standing, Target, decide};
pub use index::{Applied, Operations, Reaction};
pub use recognise::{BadOperation, Recognised, edit_data, is_operation, recognise};

/// A change to an earlier message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The id of the message that it changes.
    pub target: u64,
    /// What it does.
    pub action: Action,
}

/// What an operation does to its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Gives it other data, which stand in the operation's own line; see [`edit_data`].
    Edit,
    /// Erases it, and its edits with it.
    Delete,
    /// Adds a reaction of the one who asks, under this key.
    React(Box<str>),
    /// Takes that reaction back.
    Unreact(Box<str>),
    /// Pins it.
    Pin,
    /// Takes the pin off.
    Unpin,
}

/// An operation as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedOperation {
    /// The id of its line.
    pub id: u64,
    /// The operation; `None` when the line names one that the server does not know, and so means
    /// nothing.
    pub operation: Option<Operation>,
}

impl LoggedOperation {
    /// The operation on a line of the log; `None` when the line holds a plain message.
    pub fn of(id: u64, message: &[u8]) -> Option<LoggedOperation> {
        if !is_operation(message) {
            return None;
        }
        let operation = match recognise(message) {
            Ok(Recognised::Operation(operation)) => Some(operation),
            Ok(Recognised::Typing) | Err(_) => None,
        };
        Some(LoggedOperation { id, operation })
    }
}
