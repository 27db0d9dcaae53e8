//! What must hold for any bytes whatever, shared by the fuzz targets and by `tests/properties.rs`.
//!
//! Each `check` takes one input of its fuzz target and panics when something does not hold. What is
//! expected comes from the documents, and from models too simple to be wrong, never from the code
//! under test.

#![forbid(unsafe_code)]

pub mod request_head;

pub mod message_text;

pub mod recovery;

pub mod json;
