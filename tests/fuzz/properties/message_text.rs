//! What a client types becomes one line of the file, verbatim, or is refused.

use serde_json::{Value, json};
use txtcord::message::{on_line, push_line, push_line_as};
use txtcord::wire::ErrorAnswer;

use super::json::{is_erased, is_json, trimmed};

/// A line of the file that is there already, and stays as it is.
const BEFORE: &[u8] = b"{\"before\":1}\n";

/// Checks a text as what a client sends, as a line of the file, and as what somebody types whose
/// name stands on the first line.
pub fn check(bytes: &[u8]) {
    read_from_the_file(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    sent(text);
    let (name, typed) = text.split_once('\n').unwrap_or(("ann", text));
    typed_by(name, typed);
}

/// A line is a message exactly when it is JSON and not erased; what is served of it is all but the
/// white space.
fn read_from_the_file(line: &[u8]) {
    let is_message = is_json(line) && !is_erased(line);
    assert_eq!(on_line(line), is_message.then(|| trimmed(line)));
}

/// A text is taken exactly when it is JSON, and then stored as it is.
fn sent(text: &str) {
    let mut lines = BEFORE.to_vec();
    match push_line(text, &mut lines) {
        Ok(()) => assert!(is_json(text.as_bytes()), "taken, but no JSON"),
        Err(error) => {
            assert!(!is_json(text.as_bytes()), "refused, but JSON: {error}");
            assert_eq!(lines, BEFORE);
            return is_an_answer(&ErrorAnswer::NotJson.frame(&error.to_string()));
        }
    }
    let line = only_line(&lines);
    assert_eq!(line, verbatim(text));
    // Each parser gets the same value; serde_json's own limits (depth, huge exponents) apart.
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        assert_eq!(serde_json::from_slice::<Value>(line).ok(), Some(value));
    }
}

/// With a name, every text is taken: an object as it is, all else as what was said.
fn typed_by(name: &str, text: &str) {
    let mut lines = BEFORE.to_vec();
    push_line_as(name, text, &mut lines);
    let line = only_line(&lines);
    if is_json(text.as_bytes()) && trimmed(text.as_bytes()).starts_with(b"{") {
        return assert_eq!(line, verbatim(text));
    }
    // The end of the line that was typed is the terminal's, not the person's.
    let said = text.strip_suffix("\r\n").or(text.strip_suffix('\n')).unwrap_or(text);
    let said =
        if said.len() == text.len() { text.strip_suffix('\r').unwrap_or(text) } else { said };
    let value: Value = serde_json::from_slice(line).expect("it is JSON");
    assert_eq!(value, json!({ "user": name, "content": said }));
}

/// The text as it must be stored.
fn verbatim(text: &str) -> Vec<u8> {
    let line = trimmed(text.as_bytes()).iter();
    line.map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect()
}

/// The one line that was added, which is what a reader of the file makes a message of.
fn only_line(lines: &[u8]) -> &[u8] {
    let line = lines.strip_prefix(BEFORE).expect("what was there stays");
    let line = line.strip_suffix(b"\n").expect("a line has an end");
    assert!(!line.iter().any(|byte| matches!(byte, b'\r' | b'\n')), "more than one line");
    assert_eq!(on_line(line), Some(line));
    assert!(is_json(line));
    line
}

/// An error answer is a frame that holds JSON, whatever was refused.
fn is_an_answer(frame: &[u8]) {
    let start = frame.iter().position(|byte| *byte == b'{').expect("an object");
    let answer: Value = serde_json::from_slice(&frame[start..]).expect("it is JSON");
    assert_eq!(answer["type"], "error");
    assert_eq!(answer["code"], "not_json");
    assert!(answer["message"].is_string());
}
