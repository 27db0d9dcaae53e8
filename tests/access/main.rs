//! Who is who and who may do what, tried from outside: the real binary, real sockets, a real access
//! file. Nothing here knows how the server is built.

#[path = "../support/mod.rs"]
mod support;
mod house;

mod identity;
mod rights;

mod again;
mod limits;
mod secrets;
