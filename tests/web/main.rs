//! The HTTP face of txtcord, tried from outside: the real binary, real sockets, a real HTTP client
//! and, where manners matter, bytes written by hand. Nothing here knows how the server is built.

#[path = "../server/support.rs"]
#[allow(dead_code, reason = "the tests of the socket use the rest of it")]
mod support;
mod talk;

mod follow;
mod history;

mod download;
mod posting;

mod requests;
mod strangers;

mod operators;
