//! The body of a request: its length, and its bytes within a deadline.
//!
//! Only `Content-Length` announces a body here. Transfer codings are refused, and so is whatever is
//! ambiguous: a body that another reader takes for the next request would be a request that nobody
//! checked.

use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode, Version, header};
use socket2::Socket;

use super::{HttpRefusal, ReadError};
use crate::{
    intake::{NoRoom, Unfinished},
    socket::{limit_reads, read, would_block},
};

/// From the end of a head to the end of its body.
pub const BODY_TIME: Duration = Duration::from_secs(30);

/// Space for the first bytes of a body.
const BODY_BLOCK: usize = 4096;

/// How long the body is, by RFC 9112 section 6.3 without the transfer codings.
///
/// # Errors
/// When that is not said, or not in one way.
pub fn length(request: &Request<()>) -> Result<u64, HttpRefusal> {
    let unknown = || {
        let sentence = "send the body with a Content-Length";
        HttpRefusal::new(StatusCode::LENGTH_REQUIRED, sentence)
    };
    let headers = request.headers();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(unknown());
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return if request.method() == Method::POST { Err(unknown()) } else { Ok(0) };
    };
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(length) if lengths.next().is_none() => Ok(length),
        _ => Err(HttpRefusal::bad(
            "malformed Content-Length; give the length of the body once, in bytes, such as 42",
        )),
    }
}

/// How long the body is, when that is at most `limit` bytes.
///
/// # Errors
/// When it is longer, or [`length`] is not known.
pub fn length_within(request: &Request<()>, limit: usize) -> Result<usize, HttpRefusal> {
    match usize::try_from(length(request)?) {
        Ok(length) if length <= limit => Ok(length),
        _ => {
            let sentence = match limit {
                0 => "this takes no body".to_owned(),
                _ => format!("the body is longer than {limit} bytes"),
            };
            Err(HttpRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, sentence))
        }
    }
}

/// Whether the client may wait for `100 Continue` before it sends the body.
///
/// # Errors
/// When it expects anything else.
pub fn expects_continue(request: &Request<()>) -> Result<bool, HttpRefusal> {
    match request.headers().get(header::EXPECT) {
        None => Ok(false),
        Some(expected) if expected.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Ok(request.version() != Version::HTTP_10)
        }
        Some(_) => {
            let sentence = "only 100-continue can be expected";
            Err(HttpRefusal::new(StatusCode::EXPECTATION_FAILED, sentence))
        }
    }
}

/// Reads a body of `length` bytes, which begins with what was `received` already. What came after
/// it is left in `received`.
///
/// # Errors
/// When it is not there by the deadline, when there is no room for so much that is `unfinished`, or the
/// peer leaves.
pub fn read_body(
    socket: &Socket,
    received: &mut Vec<u8>,
    length: usize,
    deadline: Instant,
    unfinished: &mut Unfinished,
) -> Result<Vec<u8>, ReadError> {
    let mut filled = received.len();
    while filled < length {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || limit_reads(socket, left).is_err() {
            return Err(ReadError::Refused(HttpRefusal::late()));
        }
        // It grows as the body comes: a stranger who announces much takes no more than it sends.
        let space = (filled * 2).clamp(BODY_BLOCK, length.max(BODY_BLOCK));
        if let Err(NoRoom) = unfinished.grow_to(space) {
            let sentence = "many long messages are on their way to the server; come back later";
            return Err(ReadError::Refused(HttpRefusal::unavailable(sentence)));
        }
        received.resize(space, 0);
        match read(socket, &mut received[filled..]) {
            Ok(0) => return Err(ReadError::PeerGone),
            Ok(count) => filled += count,
            Err(error) if would_block(&error) => {
                return Err(ReadError::Refused(HttpRefusal::late()));
            }
            Err(_) => return Err(ReadError::PeerGone),
        }
    }
    received.truncate(filled);
    let next = received.split_off(length);
    Ok(std::mem::replace(received, next))
}

#[cfg(test)]
mod tests;
