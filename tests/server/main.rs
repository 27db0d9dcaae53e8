//! The promises of txtcord, tried from outside: the real binary, real sockets, a real file, each
//! test in a directory of its own. Nothing here knows how the server is built.

#[path = "../support/mod.rs"]
mod support;

mod contract;
mod resume;

mod frames;
mod handshake;
mod slow;
mod unfinished;

mod file;
mod foreign;
mod storage;

mod crash;
mod life;
