//! Times and senders that last, tried from outside: the real binary, real sockets, real files.
//! Nothing here knows how the server is built.

#[path = "../support/mod.rs"]
mod support;
mod house;

mod lasting;
mod since;
mod each;

mod trouble;
mod crash;
