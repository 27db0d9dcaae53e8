//! HTTP/1.1 as far as this server needs it: the head of a request, its query, its body, and
//! responses.
//!
//! Nothing here knows what the server is for, but that a question about messages may be too long by itself
//! (`head.rs`). Whatever a peer sends becomes a request or an [`HttpRefusal`], within a deadline and within
//! limits, so that a stranger holds little memory and a thread for a short time only.

pub mod head;
pub mod query;
pub mod body;
pub mod response;

pub use head::Head;
pub use response::HttpRefusal;

/// Why a head or a body was not read.
#[derive(Debug)]
pub enum ReadError {
    /// What came, or did not come in time, deserves this answer.
    Refused(HttpRefusal),
    /// The peer left or never said anything, or the socket failed.
    PeerGone,
}
