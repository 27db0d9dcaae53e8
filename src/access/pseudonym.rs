//! Pseudonyms: a name and 12 letters that follow from a key, so that nobody can use a pseudonym
//! without its key.
//!
//! The idea is the tripcode of imageboards and of hack.chat. The letters have 60 bits: a person who
//! wants another key with the same letters must try some 10^18 keys.

use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

use super::identity::Sender;
use crate::http::HttpRefusal;

/// The shortest and the longest key, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 8..=256;

/// The longest name of a pseudonym, in bytes.
const NAME_BYTES: usize = 64;

/// How many letters follow the name.
const LETTERS: usize = 12;

/// What is hashed before the key, so that a hash that is known from elsewhere is of no use here.
const CONTEXT: &[u8] = b"txtcord pseudonym\0";

/// A pseudonym, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pseudonym {
    /// The name, `~`, and the letters.
    pub sender: Sender,
}

impl Pseudonym {
    /// Who it is, whatever name is before it: `~` and the letters.
    pub fn person(&self) -> &str {
        &self.sender[self.sender.len() - LETTERS - 1..]
    }
}

/// The pseudonym of a name and a key.
///
/// # Errors
/// 400 when the key or the name is none that a pseudonym can have.
pub fn of(name: &str, key: &[u8]) -> Result<Pseudonym, HttpRefusal> {
    if !KEY_BYTES.contains(&key.len()) {
        let (least, most) = (KEY_BYTES.start(), KEY_BYTES.end());
        return Err(HttpRefusal::bad(format!("a key has {least} to {most} bytes")));
    }
    if !(1..=NAME_BYTES).contains(&name.len()) {
        let sentence = format!("with a key, as= needs a name of 1 to {NAME_BYTES} bytes");
        return Err(HttpRefusal::bad(sentence));
    }
    if let Some(wrong) = name.chars().find(|&char| !may_be_in_name(char)) {
        let what = match wrong {
            '~' => "~, which stands between a name and its letters".to_owned(),
            other => format!("the character {}", other.escape_unicode()),
        };
        return Err(HttpRefusal::bad(format!("with a key, a name cannot have {what}")));
    }
    let hash = Sha256::new().chain_update(CONTEXT).chain_update(key).finalize();
    let letters = BASE32_NOPAD.encode(&hash).to_ascii_lowercase();
    let sender: Arc<str> = format!("{name}~{}", &letters[..LETTERS]).into();
    Ok(Pseudonym { sender })
}

/// Whether a name may have a character: none that ends a line, is not seen, or turns text around.
fn may_be_in_name(char: char) -> bool {
    !(char == '~'
        || char.is_control()
        || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

#[cfg(test)]
mod tests;
