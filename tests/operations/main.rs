//! Edit, delete, react, pin, and who is here and who types, tried from outside: the real binary, real
//! sockets, a real file. Nothing here knows how the server is built.

#[path = "../support/mod.rs"]
mod support;
mod house;

mod doors;
mod erasing;
mod events;
mod model;
mod pinned;
mod reactions;
mod refusals;
