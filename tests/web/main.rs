//! The HTTP face of txtcord, tried from outside: the real binary, real sockets, a real HTTP client
//! and, where manners matter, bytes written by hand. Nothing here knows how the server is built.

#[path = "../support/mod.rs"]
mod support;
mod talk;

mod follow;
mod history;

mod download;
mod posting;

mod requests;
mod strangers;

mod operators;
