//! Doing things on several threads at once.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, Scope, ScopedJoinHandle},
};

/// Ends a load when it goes, be it by a failure: who makes the load looks at the flag.
pub struct EndsWithMe<'a>(pub &'a AtomicBool);

impl Drop for EndsWithMe<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does the same with each item, on a few threads at once.
pub fn each_of<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    // Starting a server is mostly waiting, so more threads than cores pay.
    const THREADS: usize = 4;
    thread::scope(|scope| {
        for start in 0..THREADS.min(items.len()) {
            let work = &work;
            scope.spawn(move || items.iter().skip(start).step_by(THREADS).for_each(work));
        }
    });
}

/// Starts a thread for each item, which is given the item and its number.
pub fn each_apart<'scope, I: Send + 'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    items: impl IntoIterator<Item = I>,
    work: impl Fn(usize, I) -> T + Clone + Send + 'scope,
) -> Vec<ScopedJoinHandle<'scope, T>> {
    let start = |(number, item)| {
        let work = work.clone();
        scope.spawn(move || work(number, item))
    };
    items.into_iter().enumerate().map(start).collect()
}
