//! The name of a channel: what is one, and what is none.
//!
//! A name becomes a path and the name of a file, so it is made of few characters, and whatever
//! else somebody asks for never reaches the file system. A [`Name`] has been checked.

use std::{fmt, sync::Arc};

/// The name of the default channel, whose file `--file` names.
pub const DEFAULT: &str = "messages";

/// What the server answers at its root by itself, or keeps for itself; no channel has such a name.
pub const RESERVED: [&str; 7] = ["ws", "channels", "me", "metrics", "healthz", "readyz", "app"];

/// The longest name, in bytes: that of a part of a DNS name, and with every ending that a file
/// beside gets far below what file systems take.
const LONGEST: usize = 63;

// The sentence of `NotAName::Malformed` says it.
const _: () = assert!(LONGEST == 63);

/// The name of a channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is not the name of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAName {
    /// The server keeps it for itself.
    Reserved,
    /// It would be one in lower case.
    Capital,
    /// Anything else.
    Malformed,
}

impl fmt::Display for NotAName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            NotAName::Reserved => {
                "the server keeps this name for itself; choose another one for a channel"
            }
            NotAName::Capital => "names of channels are written in lower case",
            NotAName::Malformed => {
                "a channel's name is 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or digit"
            }
        })
    }
}

impl Name {
    /// The name that a text is.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Name, NotAName> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let mut bytes = text.bytes();
        let is_well_formed = text.len() <= LONGEST
            && bytes.next().is_some_and(is_plain)
            && bytes.all(|byte| is_plain(byte) || byte == b'_' || byte == b'-');
        if is_well_formed {
            return match RESERVED.contains(&text) {
                true => Err(NotAName::Reserved),
                false => Ok(Name(text.into())),
            };
        }
        let lower = text.to_ascii_lowercase();
        match lower != text && Name::parse(&lower).is_ok() {
            true => Err(NotAName::Capital),
            false => Err(NotAName::Malformed),
        }
    }

    /// Whether it is the default channel's.
    pub fn is_default(&self) -> bool {
        &*self.0 == DEFAULT
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Name {
    fn default() -> Name {
        Name(DEFAULT.into())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests;
