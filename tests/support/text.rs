//! Texts to be said and stored, and texts for the message of a failure.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seven lines that the original program left behind: a copy, since using the
/// chat changes the repository's own file.
pub const SEED: &str = include_str!("seed.txt");

/// The start of a long text, for a failure's message.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((at, _)) => format!("{}... ({} bytes)", &text[..at], text.len()),
        None => text.into(),
    }
}

/// What was heard is what was said.
#[track_caller]
pub fn is_said(heard: &str, said: &str) {
    assert!(heard == said, "heard {}\nnot   {}", cut(heard), cut(said));
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// A JSON object of `length` bytes that starts with a number.
pub fn padded(number: usize, length: usize) -> String {
    let start = format!(r#"{{"n":{number},"pad":""#);
    let pad = length.saturating_sub(start.len() + 2);
    format!(r#"{start}{}"}}"#, "x".repeat(pad))
}

/// Lines of about `length` bytes each, `count` of them, with their `\n`.
pub fn padded_lines(count: usize, length: usize) -> String {
    (1..=count).map(|number| padded(number, length - 1) + "\n").collect()
}

/// A small source of chance (xorshift); its seed is printed, so that a failure can be had again.
pub struct Dice(u64);

impl Dice {
    pub fn new() -> Dice {
        Dice::of(now_ms() | 1)
    }

    /// The same again, from the seed that was printed; it must not be 0.
    pub fn of(seed: u64) -> Dice {
        println!("dice: {seed}");
        Dice(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
