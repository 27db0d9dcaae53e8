//! The chat page, tried as people use it: a real Chromium types, presses, scrolls and looks, against
//! the real server. Nothing here knows how the page is built, but for `page`, which knows where on
//! it things are. Without a Chromium every test says so and is skipped.

#[path = "../support/mod.rs"]
mod support;

mod devtools;
mod line;
mod page;

mod channels;
mod identity;
mod operations;
mod talk;

mod away;
mod scroll;

mod hostile;

mod looks;
