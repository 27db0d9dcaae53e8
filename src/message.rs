//! A message: any JSON value, kept as the bytes its sender wrote, on one line.
//!
//! Here text becomes a line of the file. A message is validated, but never parsed into a value and
//! written again, so that key order, duplicate keys, the spelling of numbers and escapes survive.

use serde::de::IgnoredAny;

/// Why a text is no message, in serde_json's words, with line and column.
#[derive(Debug)]
pub struct NotJson(serde_json::Error);

impl std::fmt::Display for NotJson {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(out)
    }
}

/// Appends `text` to `lines` as one line of the file, with its `\n`. Only the white space around it
/// is left out, and line ends within it become spaces.
///
/// # Errors
/// When `text` is not one JSON value; `lines` is as before then.
pub fn push_line(text: &str, lines: &mut Vec<u8>) -> Result<(), NotJson> {
    check(text)?;
    push_on_one_line(trim(text.as_bytes()), lines);
    Ok(())
}

/// Appends a text that a person called `name` typed, as one line: a JSON object as it is, any other
/// text as the `content` of an object.
pub fn push_line_as(name: &str, text: &str, lines: &mut Vec<u8>) {
    let typed = trim(text.as_bytes());
    if typed.first() == Some(&b'{') && check(text).is_ok() {
        return push_on_one_line(typed, lines);
    }
    push_words(name, text, lines);
}

/// How many bytes [`push_words`] adds to the name and the text, apart from escapes.
pub(crate) const AROUND_WORDS: usize = "{\"user\":\"\",\"content\":\"\"}\n".len();

/// Appends a text as the `content` of an object with the `user` `name`, as one line. A line end at
/// the end of the text is left out: the person typed it to send the text.
pub fn push_words(name: &str, text: &str, lines: &mut Vec<u8>) {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    lines.extend_from_slice(br#"{"user":"#);
    push_json_string(name, lines);
    lines.extend_from_slice(br#","content":"#);
    push_json_string(text, lines);
    lines.extend_from_slice(b"}\n");
}

/// The message on a line of the file, which is given without its `\n`; `None` if the line is a
/// hole: blank, not UTF-8, not one JSON value, or erased.
pub fn on_line(line: &[u8]) -> Option<&[u8]> {
    (!is_erased(line) && is_json(line)).then(|| trim(line))
}

/// Whether a line is one JSON value: it holds a message, or is erased.
pub fn is_json(line: &[u8]) -> bool {
    std::str::from_utf8(line).is_ok_and(|text| check(text).is_ok())
}

/// What an erased line begins with; spaces follow, at least one.
const NULL: &[u8] = b"null";

/// Whether a line says that its message was erased: it is `null`, and at least one space after it.
pub fn is_erased(line: &[u8]) -> bool {
    line.strip_prefix(NULL)
        .is_some_and(|rest| !rest.is_empty() && rest.iter().all(|&byte| byte == b' '))
}

/// What stands on a line of so many bytes, without its `\n`, when it is erased: JSON that says nothing.
///
/// | bytes | are |
/// |---|---|
/// | 5 or more | `null` and spaces, which no longer hold a message |
/// | 4 | `null` |
/// | 3 | `[]` and a space |
/// | 2 | `""` |
/// | 1 | `0` |
///
/// The short ones cannot be told from messages by themselves: there, the operation that erased them
/// tells.
pub fn erased(len: usize) -> Vec<u8> {
    let nothing: &[u8] = match len {
        0 => b"",
        1 => b"0",
        2 => br#""""#,
        3 => b"[]",
        _ => NULL,
    };
    let mut line = vec![b' '; len];
    line[..nothing.len()].copy_from_slice(nothing);
    line
}

/// JSON's own white space, which is less than Unicode's.
const SPACE: [u8; 4] = *b" \t\r\n";

/// The text without JSON's white space at both ends.
pub fn trim(text: &[u8]) -> &[u8] {
    let text = &text[leading_space(text)..];
    let end = text.iter().rposition(|byte| !SPACE.contains(byte)).map_or(0, |last| last + 1);
    &text[..end]
}

/// How many bytes of JSON's white space the text begins with.
pub fn leading_space(text: &[u8]) -> usize {
    text.iter().position(|byte| !SPACE.contains(byte)).unwrap_or(text.len())
}

/// Checks that a text is one JSON value. `IgnoredAny` is read without recursion, so deep values
/// take no stack.
fn check(text: &str) -> Result<(), NotJson> {
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(NotJson)
}

/// Appends JSON as one line. In valid JSON, a raw CR or LF can only stand between tokens, where a
/// space means the same.
fn push_on_one_line(json: &[u8], lines: &mut Vec<u8>) {
    let start = lines.len();
    lines.extend_from_slice(json);
    if memchr::memchr2(b'\r', b'\n', json).is_some() {
        for byte in &mut lines[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
    }
    lines.push(b'\n');
}

/// Appends `text` as a JSON string, quoted and escaped.
pub fn push_json_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing a string to memory cannot fail");
}

#[cfg(test)]
mod tests;
