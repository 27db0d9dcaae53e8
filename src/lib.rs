//! txtcord: a chat server whose database is a text file.
//!
//! Modules in reading order, from the door inwards; each imports only from those after it.
//! Bytes become a message, a message a command, the hub writes it to the journal and sends it to
//! every client as one buffer; who joins or falls behind reads the history. Each channel is a text
//! file with a hub of its own, and `channels` finds it by its name.

pub mod server;
pub mod connection;
pub mod health;
pub mod web;
pub mod upgrade;
pub mod client;
pub mod websocket;
pub mod channels;
pub mod hub;
pub mod fanout;
pub mod catch_up;
pub mod command;
pub mod outbox;
pub mod access;
pub mod route;
pub mod http;
pub mod journal;
pub mod wire;
pub mod history;
pub mod lines;
pub mod message;
pub mod summary;
pub mod name;
pub mod metrics;
pub mod tally;
pub mod socket;
pub mod config;
#[cfg(test)]
mod testing;
