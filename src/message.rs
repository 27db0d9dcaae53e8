//! A message: any JSON value, kept as the bytes its sender wrote, on one line.
//!
//! Here text becomes a line of the file. Nothing is ever parsed into a value: a message is validated
//! and carried, so that key order, duplicate keys, number spelling and escapes survive.

use serde::de::IgnoredAny;

/// Why a text is no message: serde_json's own words, with line and column.
#[derive(Debug)]
pub struct NotJson(serde_json::Error);

impl std::fmt::Display for NotJson {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(out)
    }
}

/// Appends `text` to `lines` as one line of the file: verbatim, trimmed, with its `\n`.
///
/// # Errors
/// When `text` is not one JSON value; `lines` is as before then.
pub fn push_line(text: &str, lines: &mut Vec<u8>) -> Result<(), NotJson> {
    check(text)?;
    push_on_one_line(trim(text.as_bytes()), lines);
    Ok(())
}

/// Appends what somebody called `name` typed: a JSON object as it is, anything else as the
/// `content` of an object.
pub fn push_line_as(name: &str, text: &str, lines: &mut Vec<u8>) {
    let typed = trim(text.as_bytes());
    if typed.first() == Some(&b'{') && check(text).is_ok() {
        return push_on_one_line(typed, lines);
    }
    push_words(name, text, lines);
}

/// Bytes of a line of words beside the name and the words themselves.
pub(crate) const AROUND_WORDS: usize = "{\"user\":\"\",\"content\":\"\"}\n".len();

/// Appends somebody's words as the `content` of an object, without the end of the line they typed.
pub fn push_words(name: &str, text: &str, lines: &mut Vec<u8>) {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    lines.extend_from_slice(br#"{"user":"#);
    push_json_string(name, lines);
    lines.extend_from_slice(br#","content":"#);
    push_json_string(text, lines);
    lines.extend_from_slice(b"}\n");
}

/// The message on a line of the file (without its `\n`), or `None` where the line is a hole:
/// blank, not UTF-8 or not JSON.
pub fn on_line(line: &[u8]) -> Option<&[u8]> {
    let text = std::str::from_utf8(line).ok()?;
    check(text).ok()?;
    Some(trim(line))
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

/// `IgnoredAny` walks without recursion, so depth costs no stack.
fn check(text: &str) -> Result<(), NotJson> {
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(NotJson)
}

/// In valid JSON a raw CR or LF can only stand between tokens, where a space means the same.
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
