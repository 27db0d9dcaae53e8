//! Many machines as one, tried from outside: real nodes on a real engine, with proxies between that cut,
//! freeze and swallow. What anybody was acknowledged or shown is compared with every node's file.
//!
//! Where there is no `redis-server` these tests say SKIPPED. `TXTCORD_ENGINE=valkey-server` tries another
//! one, a name or a path. `TXTCORD_CHAOS=3600` makes the random faults last that many seconds,
//! `TXTCORD_CHAOS_SEED` repeats a run.

// A server for one machine alone has nothing to be tried here.
#![cfg(feature = "cluster")]

#[path = "../support/mod.rs"]
mod support;
mod resp;
mod engine;
mod proxy;
mod nodes;
mod load;
mod check;

mod harness;

mod together;
mod put_away;
mod life;

mod faults;
mod foreign;
mod meddled;
mod erased;

#[cfg(feature = "cluster-tls")]
mod tls;

mod long;
mod tried;
