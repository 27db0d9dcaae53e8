//! What an operation looks like, exactly.
//!
//! A plain message is told apart by its first bytes, without memory and without a parser. Everything
//! whose first key is `$op`, however it is spelled, is held to the rules: an object that looks like an
//! operation and is none is never stored.

use std::{fmt, str};

use serde::{
    Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Action, Operation};
use crate::message::leading_space;

/// The key that makes an object an operation, when it is the first one.
const MARK: &[u8] = b"$op";

/// Stands for all whole numbers that are the id of no message: 0, and numbers from here on. No file has
/// so many lines, and from 2^53 on many readers of JSON cannot tell two numbers apart (RFC 8259, section 6).
const NO_ID: u64 = (1 << 53) - 1;

/// The longest key of a reaction, in bytes.
const KEY_BYTES: usize = 64;

/// The most bytes of something that a client wrote that are shown in a sentence.
const SHOWN: usize = 40;

/// Whether a message, which must be valid JSON without white space before it, is an object whose
/// first key is `$op`.
pub fn is_operation(message: &[u8]) -> bool {
    let Some(rest) = message.strip_prefix(b"{") else { return false };
    let rest = &rest[leading_space(rest)..];
    let Some(mut rest) = rest.strip_prefix(b"\"") else { return false };
    for &letter in MARK {
        match rest {
            [first, after @ ..] if *first == letter => rest = after,
            [b'\\', b'u', a, b, c, d, after @ ..] if is_hex_of([*a, *b, *c, *d], letter) => {
                rest = after;
            }
            _ => return false,
        }
    }
    rest.first() == Some(&b'"')
}

/// Whether four hexadecimal digits stand for a letter.
fn is_hex_of(digits: [u8; 4], letter: u8) -> bool {
    let digits = str::from_utf8(&digits).ok();
    digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) == Some(u16::from(letter))
}

/// Why an object whose first key is `$op` is no operation, as a sentence that names what is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct BadOperation(String);

impl fmt::Display for BadOperation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// What an object whose first key is `$op` says.
#[derive(Debug, PartialEq, Eq)]
pub enum Recognised {
    /// Something that is stored.
    Operation(Operation),
    /// That the client is typing, which is told and never stored.
    Typing,
}

/// Reads a text for which [`is_operation`] holds.
///
/// # Errors
/// When it is not exactly one of the operations, or no JSON.
pub fn recognise(message: &[u8]) -> Result<Recognised, BadOperation> {
    let fields = fields(message).map_err(BadOperation)?;
    read(&fields).map_err(BadOperation)
}

/// The data of an edit, as its sender wrote them; `None` when the message is no edit.
pub fn edit_data(message: &[u8]) -> Option<&[u8]> {
    fields(message).ok()?.data.map(|data| data.get().as_bytes())
}

/// The values of the keys that operations have.
#[derive(Default)]
struct Fields<'a> {
    op: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    key: Option<&'a RawValue>,
}

fn fields(message: &[u8]) -> Result<Fields<'_>, String> {
    let mut parser = serde_json::Deserializer::from_slice(message);
    let fields = parser.deserialize_map(FieldsVisitor);
    // Nothing may follow the object.
    let fields = fields.and_then(|fields| parser.end().map(|()| fields));
    fields.unwrap_or_else(|error| Err(error.to_string()))
}

fn read(fields: &Fields<'_>) -> Result<Recognised, String> {
    let op = string("$op", fields.op.expect("the first key is $op"))?;
    let wanted: &[&str] = match &*op {
        "typing" => &[],
        "delete" | "pin" | "unpin" => &["id"],
        "edit" => &["id", "data"],
        "react" | "unreact" => &["id", "key"],
        _ => return Err(format!("there is no operation {}", shown(&op))),
    };
    let given = [("id", fields.id), ("data", fields.data), ("key", fields.key)];
    for (name, value) in given {
        match (wanted.contains(&name), value) {
            (true, None) => return Err(format!("{op} needs the key {name}")),
            (false, Some(_)) => return Err(format!("{op} has no key {name}")),
            _ => {}
        }
    }
    let Some(id) = fields.id else { return Ok(Recognised::Typing) };
    let target = number(id)?;
    let action = match &*op {
        "edit" => Action::Edit,
        "delete" => Action::Delete,
        "pin" => Action::Pin,
        "unpin" => Action::Unpin,
        "react" => Action::React(reaction_key(fields)?),
        _ => Action::Unreact(reaction_key(fields)?),
    };
    Ok(Recognised::Operation(Operation { target, action }))
}

fn number(value: &RawValue) -> Result<u64, String> {
    let text = value.get();
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("id is a whole number such as 42, not {}", shown(text)));
    }
    let id = text.parse().ok().filter(|id| (1..NO_ID).contains(id));
    Ok(id.unwrap_or(NO_ID))
}

fn string(name: &str, value: &RawValue) -> Result<String, String> {
    if !value.get().starts_with('"') {
        return Err(format!("{name} is a string, not {}", shown(value.get())));
    }
    serde_json::from_str(value.get()).map_err(|error| format!("{name}: {error}"))
}

fn reaction_key(fields: &Fields<'_>) -> Result<Box<str>, String> {
    let key = string("key", fields.key.expect("it was checked that the key is there"))?;
    check_reaction_key(&key)?;
    Ok(key.into())
}

/// Checks the key of a reaction.
///
/// # Errors
/// When it is not 1 to 64 bytes without control characters.
fn check_reaction_key(key: &str) -> Result<(), String> {
    if !(1..=KEY_BYTES).contains(&key.len()) {
        return Err(format!("key has {} bytes; it needs 1 to {KEY_BYTES}", key.len()));
    }
    if key.contains(char::is_control) {
        return Err("key has a control character".to_owned());
    }
    Ok(())
}

/// Something that a client wrote, fit for a sentence.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().flat_map(char::escape_debug).take(SHOWN).collect();
    if text.len() > SHOWN {
        shown.push_str("...");
    }
    shown
}

/// Reads the values of an object, and notes the first thing that is wrong with its keys.
struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Result<Fields<'de>, String>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an operation")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        let mut wrong = None;
        while let Some(key) = map.next_key::<String>()? {
            let field = match &*key {
                "$op" => &mut fields.op,
                "id" => &mut fields.id,
                "data" => &mut fields.data,
                "key" => &mut fields.key,
                _ => {
                    wrong.get_or_insert(format!("no operation has the key {}", shown(&key)));
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let value = map.next_value()?;
            if field.replace(value).is_some() {
                wrong.get_or_insert(format!("the key {key} stands there twice"));
            }
        }
        Ok(wrong.map_or(Ok(fields), Err))
    }
}

#[cfg(test)]
mod tests;
