//! txtcord: a chat server whose database is a text file.

#![forbid(unsafe_code)]

pub mod config;
