//! Channels of txtcord, tried from outside: the real binary, real sockets, real files in the folder
//! of channels. Nothing here knows how the server is built.

#[path = "../support/mod.rs"]
mod support;
mod house;

mod list;
mod paths;

mod folder;
mod several;

mod crash;
mod isolation;
