//! What the integration tests talk with: a [`Server`] in a directory of its own, a [`Client`] that
//! says and hears, and a [`Raw`] socket for those who do not keep to the rules.
//!
//! Each test binary includes this by its path, `#[path = "../support/mod.rs"] mod support;`, and
//! says `use crate::support::*`. Every wait here ends at a deadline, and every process ends with its
//! handle.

#![allow(dead_code, reason = "each test binary uses a part of it")]

mod setup;

mod server;

mod output;

mod settings;

mod dir;

mod client;

mod envelopes;

mod raw;

mod frames;

mod http;

mod stream;

mod meddling;

mod system;

mod patience;

mod threads;

mod text;

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub use self::{
    client::*, dir::*, envelopes::*, frames::*, http::*, meddling::*, patience::*, raw::*,
    server::*, settings::*, setup::*, stream::*, system::*, text::*, threads::*,
};
