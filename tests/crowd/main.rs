//! Crowds: whatever thousands of clients do, the server lives, stays small and serves the others. The
//! tests see it from outside: through the real binary, real sockets, its log and what the system tells.
//!
//! A crowd is as large as the machine has room for, and a test says so when it had to be smaller.
//! `TXTCORD_CROWD` raises the number of slow readers (to 10000) and of connects to a machine that
//! cannot carry them (to 40000), `TXTCORD_CROWD_HISTORY` the messages that a thousand clients join to
//! (to 1000000, in a release build). With `TXTCORD_CROWD_WIDE` set, the clients that do not read have
//! receive buffers of the usual size; ten thousand of them use up the kernel's memory for sockets.

#[path = "../support/mod.rs"]
mod support;
// Where the load generator looks for them.
use support as frames;
#[path = "../bench/wire.rs"]
#[allow(dead_code, reason = "the benchmarks use the rest of it")]
mod wire;

mod crowd;
mod machine;
mod record;

mod deaf;
mod http;
mod joins;
mod limits;
mod slow;
