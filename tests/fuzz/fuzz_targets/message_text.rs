//! What a client types, on its way to a line of the file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::message_text::check(bytes));
