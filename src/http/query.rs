//! The query of a request.

use super::HttpRefusal;

/// The longest name that `as=` gives, in bytes.
pub const NAME_BYTES: usize = 256;

/// The name that `as=` gives in a query, if it does.
///
/// # Errors
/// When it is no name.
pub fn speaker(query: &str) -> Result<Option<String>, HttpRefusal> {
    let names = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "as");
    match names.last() {
        None => Ok(None),
        Some((_, name)) if (1..=NAME_BYTES).contains(&name.len()) => Ok(Some(name.into_owned())),
        Some(_) => Err(HttpRefusal::bad(format!("as= needs a name of 1 to {NAME_BYTES} bytes"))),
    }
}

/// A whole number in a query; one too large for any file counts as the largest there is.
///
/// # Errors
/// When it is no number.
pub fn number(name: &str, text: &str) -> Result<u64, HttpRefusal> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HttpRefusal::bad(format!("{name}= needs a whole number, such as {name}=42")));
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}
