//! A text file in any state, opened.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::recovery::check(bytes));
