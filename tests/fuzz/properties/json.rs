//! RFC 8259 as a recogniser: what is JSON, said a second time and without any library.

/// Whether a text is one JSON value, maybe between white space.
pub fn is_json(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok() && value(text).is_some_and(|rest| skip_space(rest).is_empty())
}

/// JSON's white space, which is less than Unicode's.
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A text without white space at its ends.
pub fn trimmed(text: &[u8]) -> &[u8] {
    let text = skip_space(text);
    let behind = text.iter().rposition(|byte| !is_space(*byte)).map_or(0, |last| last + 1);
    &text[..behind]
}

/// What follows the white space that a text begins with.
pub fn skip_space(text: &[u8]) -> &[u8] {
    let space = text.iter().take_while(|byte| is_space(**byte)).count();
    &text[space..]
}

/// What follows the value that a text begins with. What is open is kept in a list, so that no depth
/// is too deep.
fn value(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    let mut open = Vec::new();
    'value: loop {
        rest = skip_space(rest);
        rest = match rest.first()? {
            b'{' => match skip_space(&rest[1..]) {
                [b'}', behind @ ..] => behind,
                inner => {
                    open.push(b'}');
                    rest = key(inner)?;
                    continue;
                }
            },
            b'[' => match skip_space(&rest[1..]) {
                [b']', behind @ ..] => behind,
                inner => {
                    open.push(b']');
                    rest = inner;
                    continue;
                }
            },
            b'"' => string(rest)?,
            b't' => rest.strip_prefix(b"true")?,
            b'f' => rest.strip_prefix(b"false")?,
            b'n' => rest.strip_prefix(b"null")?,
            _ => number(rest)?,
        };
        while let Some(&close) = open.last() {
            rest = skip_space(rest);
            match rest.first()? {
                b',' if close == b'}' => {
                    rest = key(skip_space(&rest[1..]))?;
                    continue 'value;
                }
                b',' => {
                    rest = &rest[1..];
                    continue 'value;
                }
                byte if *byte == close => {
                    open.pop();
                    rest = &rest[1..];
                }
                _ => return None,
            }
        }
        return Some(rest);
    }
}

fn key(text: &[u8]) -> Option<&[u8]> {
    skip_space(string(text)?).strip_prefix(b":")
}

fn string(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', b'u', a, b, c, d, behind @ ..] => {
                if ![a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                behind
            }
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', behind @ ..] => behind,
            [b'\\' | 0..0x20, ..] | [] => return None,
            [_, behind @ ..] => behind,
        }
    }
}

fn number(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    rest = match rest {
        [b'0', behind @ ..] => behind,
        _ => digits(rest)?,
    };
    if let [b'.', behind @ ..] = rest {
        rest = digits(behind)?;
    }
    if let [b'e' | b'E', behind @ ..] = rest {
        rest = digits(match behind {
            [b'+' | b'-', digits @ ..] => digits,
            digits => digits,
        })?;
    }
    Some(rest)
}

/// What follows at least one digit.
fn digits(text: &[u8]) -> Option<&[u8]> {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (count > 0).then_some(&text[count..])
}

/// Whether a line, given without its end, says that its message was erased: it is `null` and one or
/// more spaces.
pub fn is_erased(line: &[u8]) -> bool {
    let spaces = line.strip_prefix(b"null").unwrap_or_default();
    !spaces.is_empty() && spaces.iter().all(|byte| *byte == b' ')
}
