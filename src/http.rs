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

pub use head::{Head, HeadError};
pub use response::HttpRefusal;
