//! What a speaker is told whose message was refused.

use super::text_frame;
use crate::{message::push_json_string, operations::Refusal};

/// Why a message was refused, as its speaker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorAnswer {
    /// The text is not JSON.
    NotJson,
    /// The message came as a binary frame.
    BinaryUnsupported,
    /// The disk is full, or a quota or limit is reached.
    StorageFull,
    /// Messages cannot be erased: the system has no room or no permission for what that takes.
    CannotErase,
    /// The server is about to end.
    ShuttingDown,
    /// The engine that gives out the numbers is unavailable.
    Unavailable,
    /// The engine that gives out the numbers has not answered for too long.
    Unanswered,
    /// The right to post is missing.
    Forbidden,
    /// An object whose first key is `$op` is no operation.
    BadOperation,
    /// An operation was not accepted.
    Refused(Refusal),
    /// The messages come faster than the server allows.
    RateLimited {
        /// When to go on, in tenths of a second.
        tenths: u64,
    },
}

impl ErrorAnswer {
    /// The code for programs, which is part of the wire contract.
    pub fn code(self) -> &'static str {
        match self {
            ErrorAnswer::NotJson => "not_json",
            ErrorAnswer::BinaryUnsupported => "binary_unsupported",
            ErrorAnswer::StorageFull | ErrorAnswer::CannotErase => "storage_full",
            ErrorAnswer::ShuttingDown => "shutting_down",
            ErrorAnswer::Unavailable | ErrorAnswer::Unanswered => "unavailable",
            ErrorAnswer::Forbidden | ErrorAnswer::Refused(Refusal::Forbidden(_)) => "forbidden",
            ErrorAnswer::BadOperation => "bad_operation",
            ErrorAnswer::Refused(Refusal::NoSuchMessage | Refusal::Deleted) => "no_such_message",
            ErrorAnswer::Refused(Refusal::TooMany) => "too_many",
            ErrorAnswer::RateLimited { .. } => "rate_limited",
        }
    }

    /// The sentence for people, where there is no more exact one.
    pub fn sentence(self) -> &'static str {
        match self {
            ErrorAnswer::NotJson => "the text is not JSON",
            ErrorAnswer::BinaryUnsupported => "send messages as text frames",
            ErrorAnswer::StorageFull => "the server cannot store messages now; try again later",
            ErrorAnswer::CannotErase => "the server cannot delete messages now; try again later",
            ErrorAnswer::ShuttingDown => "the server is stopping; connect again and send once more",
            ErrorAnswer::Unavailable => {
                "the engine that gives out the numbers is unavailable; try again later"
            }
            ErrorAnswer::Unanswered => {
                "nobody has answered; it may have been stored; repeat with the same Idempotency-Key"
            }
            ErrorAnswer::Forbidden => "this needs a right that is missing",
            ErrorAnswer::BadOperation => "the operation is not one that the server knows",
            ErrorAnswer::Refused(refusal) => refusal.sentence(),
            ErrorAnswer::RateLimited { .. } => "too many messages; go on more slowly",
        }
    }

    /// The answer as JSON, with a sentence for people.
    pub fn json(self, message: &str) -> Vec<u8> {
        let mut json =
            format!(r#"{{"type":"error","code":"{}","message":"#, self.code()).into_bytes();
        push_json_string(message, &mut json);
        if let ErrorAnswer::RateLimited { tenths } = self {
            let seconds = format!(",\"retry_after\":{}.{}", tenths / 10, tenths % 10);
            json.extend_from_slice(seconds.as_bytes());
        }
        json.push(b'}');
        json
    }

    /// The answer as one text frame, with a sentence for people.
    pub fn frame(self, message: &str) -> Vec<u8> {
        text_frame(&self.json(message))
    }
}
