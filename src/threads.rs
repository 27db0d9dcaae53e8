//! How threads are started: each has a name, and a stack of one of these sizes.
//!
//! The part of a stack that is never used takes no memory, but address space.

use std::{
    io,
    thread::{Builder, JoinHandle, Scope, ScopedJoinHandle},
};

/// The stack of a thread of which there is one, in bytes: what std gives it.
pub const USUAL_STACK: usize = 2 << 20;

/// The stack of a client's thread, in bytes.
pub const CLIENT_STACK: usize = 128 << 10;

/// The stack of a hub's thread, in bytes.
pub const HUB_STACK: usize = 128 << 10;

/// The stack of a catch-up thread, in bytes. It can be small, since blocks are on the heap.
pub const CATCH_UP_STACK: usize = 64 << 10;

/// The stack of a thread that talks to the engine of a cluster, in bytes.
pub const NODE_STACK: usize = 256 << 10;

// The start counts a hub's thread as one more client's (`server/capacity.rs`).
const _: () = assert!(HUB_STACK <= CLIENT_STACK);

/// Starts a thread. Of a long name, Linux shows the first 15 bytes.
///
/// # Errors
/// When the system has no thread, or no room for its stack.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    stack: usize,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.into()).stack_size(stack).spawn(run)
}

/// The same for a thread that ends with a scope.
///
/// # Errors
/// When the system has no thread, or no room for its stack.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: impl Into<String>,
    stack: usize,
    run: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.into()).stack_size(stack).spawn_scoped(scope, run)
}
