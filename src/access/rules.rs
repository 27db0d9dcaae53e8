//! The access file: who may do what, one rule a line.
//!
//! ```text
//! # who   sha-256 of the token    channels      may
//! ann     2c26b46b…               *             admin
//! ci      fcde2b2e…               ops,dev-*     post
//! *       -                       messages      read,post
//! ```
//!
//! What no line grants is denied.

use std::{
    collections::HashMap,
    fmt, fs,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::HEXLOWER_PERMISSIVE;

use super::{identity::Identity, token::TokenHash};
use crate::name::Name;

/// The longest name, in bytes.
const NAME_BYTES: usize = 64;

/// The bits of a file's mode that let others than its owner write to it.
const OTHERS_MAY_WRITE: u32 = 0o022;

/// What a caller may do with a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Read it and follow it.
    Read,
    /// Say something there.
    Post,
    /// Make it, put it away, and do what its other users may not do.
    Admin,
}

impl Right {
    const ALL: [Right; 3] = [Right::Read, Right::Post, Right::Admin];

    /// The word for it, on the wire and in the access file.
    pub fn word(self) -> &'static str {
        match self {
            Right::Read => "read",
            Right::Post => "post",
            Right::Admin => "admin",
        }
    }
}

/// Some of the rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    bits: u8,
}

impl Rights {
    /// What everybody may do where there is no access file.
    pub const WITHOUT_RULES: Rights =
        Rights { bits: Rights::bit(Right::Read) | Rights::bit(Right::Post) };

    const fn bit(right: Right) -> u8 {
        1 << right as u8
    }

    /// Whether a right is among them.
    pub fn has(self, right: Right) -> bool {
        self.bits & Rights::bit(right) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// The rights as a JSON array of their words.
    pub fn json(self) -> String {
        let words = Right::ALL.into_iter().filter(|&right| self.has(right));
        let words: Vec<_> = words.map(|right| format!("\"{}\"", right.word())).collect();
        format!("[{}]", words.join(","))
    }

    /// The rights that a word of the access file means.
    fn of_word(word: &str) -> Option<Rights> {
        let right = Right::ALL.into_iter().find(|right| right.word() == word)?;
        let implied = if right == Right::Admin { Rights::WITHOUT_RULES.bits } else { 0 };
        Some(Rights { bits: Rights::bit(right) | implied })
    }

    fn and(self, other: Rights) -> Rights {
        Rights { bits: self.bits | other.bits }
    }
}

/// Why an access file cannot be used.
#[derive(Debug)]
pub struct RulesError {
    path: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Unreadable(io::Error),
    OthersMayWrite,
    /// The number of the line, from 1, and what is wrong with it.
    Line(usize, String),
}

impl fmt::Display for RulesError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.why {
            Why::Unreadable(why) => write!(out, "{path}: {why}"),
            Why::OthersMayWrite => write!(
                out,
                "{path}: others than its owner can write to it, so they could give themselves any \
                 right; chmod go-w {path}"
            ),
            Why::Line(number, why) => write!(out, "{path}:{number}: {why}"),
        }
    }
}

/// The rules of one access file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rules {
    names: HashMap<TokenHash, Arc<str>>,
    grants: HashMap<Arc<str>, Vec<Grant>>,
    /// What everybody without a token may do.
    to_strangers: Vec<Grant>,
}

/// The rights of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    channels: Vec<Pattern>,
    rights: Rights,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Channel(Name),
    /// All channels whose names begin so.
    Prefix(String),
}

impl Pattern {
    fn matches(&self, channel: &Name) -> bool {
        match self {
            Pattern::Channel(name) => name == channel,
            Pattern::Prefix(prefix) => channel.as_str().starts_with(prefix),
        }
    }
}

impl Rules {
    /// Reads an access file.
    ///
    /// # Errors
    /// When it cannot be read, others than its owner may write to it, or a line makes no sense.
    pub fn read(path: &Path) -> Result<Rules, RulesError> {
        let wrong = |why| RulesError { path: path.to_owned(), why };
        let unreadable = |error| wrong(Why::Unreadable(error));
        // A FIFO that nobody writes to holds up nobody.
        let file = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let mut file = file.map_err(unreadable)?;
        // Of the file that was opened, so that it cannot be another one.
        let meta = file.metadata().map_err(unreadable)?;
        if !meta.is_file() {
            return Err(unreadable(io::Error::other("is not a regular file")));
        }
        if meta.mode() & OTHERS_MAY_WRITE != 0 {
            return Err(wrong(Why::OthersMayWrite));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unreadable)?;
        let in_line = |(number, why)| wrong(Why::Line(number, why));
        let text = str::from_utf8(&bytes).map_err(|why| {
            let before = &bytes[..why.valid_up_to()];
            let number = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
            in_line((number, "this is not UTF-8".to_owned()))
        })?;
        Rules::parse(text).map_err(in_line)
    }

    /// The rules that a text gives; else the number of the line that is wrong, and why it is.
    fn parse(text: &str) -> Result<Rules, (usize, String)> {
        let mut rules = Rules::default();
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default();
            let fields: Vec<_> = line.split_whitespace().collect();
            if !fields.is_empty() {
                rules.add(&fields).map_err(|why| (number, why))?;
            }
        }
        Ok(rules)
    }

    fn add(&mut self, fields: &[&str]) -> Result<(), String> {
        let &[who, token, channels, may] = fields else {
            return Err(format!(
                "a rule has four columns: who, the SHA-256 of the token, channels, and what is \
                 allowed; this one has {}",
                fields.len()
            ));
        };
        let channels = channels.split(',').map(pattern).collect::<Result<_, _>>()?;
        let mut rights = Rights::default();
        for word in may.split(',') {
            let Some(more) = Rights::of_word(word) else {
                return Err(format!("\"{word}\" is no right; there are read, post and admin"));
            };
            rights = rights.and(more);
        }
        let grant = Grant { channels, rights };
        if who == "*" {
            if token != "-" {
                return Err("* is everybody without a token, so its second column is -".to_owned());
            }
            self.to_strangers.push(grant);
            return Ok(());
        }
        check_name(who)?;
        let token = token_hash(token)?;
        let name: Arc<str> = who.into();
        if let Some(other) = self.names.insert(token, name.clone())
            && other != name
        {
            return Err(format!("{who} has the same token as {other}"));
        }
        self.grants.entry(name).or_default().push(grant);
        Ok(())
    }

    /// How many rules there are.
    pub fn count(&self) -> usize {
        self.to_strangers.len() + self.grants.values().map(Vec::len).sum::<usize>()
    }

    /// Whose token it is.
    pub fn name_of(&self, token: &TokenHash) -> Option<Arc<str>> {
        self.names.get(token).cloned()
    }

    /// What an identity may do with a channel.
    pub fn rights(&self, identity: &Identity, channel: &Name) -> Rights {
        let grants = match identity {
            Identity::Nobody | Identity::Pseudonym(_) => Some(&self.to_strangers),
            // A token that the operator has taken back gives nothing.
            Identity::Named { name, token } => {
                self.names.get(token).filter(|owner| *owner == name).and(self.grants.get(name))
            }
        };
        let granted = grants
            .into_iter()
            .flatten()
            .filter(|grant| grant.channels.iter().any(|pattern| pattern.matches(channel)));
        granted.fold(Rights::default(), |rights, grant| rights.and(grant.rights))
    }
}

/// Checks that a text can be the name of a token's owner.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(is_plain) && name != "-" {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no name; a name is 1 to {NAME_BYTES} letters, digits, _, - and ., and - alone stands \
         for nobody"
    ))
}

fn token_hash(text: &str) -> Result<TokenHash, String> {
    if text == "-" {
        return Err("a name needs a token; txtcord token NAME makes one".to_owned());
    }
    let hash = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    hash.and_then(|hash| hash.try_into().ok()).ok_or_else(|| {
        "the second column is no SHA-256 of a token: 64 hexadecimal digits; txtcord token NAME makes \
         a token and prints the line"
            .to_owned()
    })
}

fn pattern(text: &str) -> Result<Pattern, String> {
    if let Some(prefix) = text.strip_suffix('*') {
        let is_beginning = prefix.is_empty() || Name::parse(&format!("{prefix}x")).is_ok();
        return match is_beginning {
            true => Ok(Pattern::Prefix(prefix.to_owned())),
            false => Err(format!("no channel's name begins with \"{prefix}\"")),
        };
    }
    Name::parse(text)
        .map(Pattern::Channel)
        .map_err(|why| format!("\"{text}\" is no channel: {why}"))
}

#[cfg(test)]
mod tests;
