//! A request's head, from the first byte to the answer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::request_head::check(bytes));
