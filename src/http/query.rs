//! The query of a request: names and values, percent-decoded.
//!
//! A value is bytes until somebody asks for a text or a number. What is not UTF-8 is refused, since
//! a replacement character in its place would be words that nobody sent.

use percent_encoding::percent_decode_str;

use super::HttpRefusal;

/// The longest name that `as=` gives, in bytes.
pub const NAME_BYTES: usize = 256;

/// One `name=value` of a query.
#[derive(Debug)]
pub struct Parameter {
    /// The name; where it is not UTF-8, it is none that anybody knows.
    pub name: String,
    value: Vec<u8>,
}

impl Parameter {
    /// The value as text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(self) -> Result<String, HttpRefusal> {
        let Parameter { name, value } = self;
        String::from_utf8(value).map_err(|_| {
            HttpRefusal::bad(format!("{name}= is not UTF-8; write é as %C3%A9, for example"))
        })
    }

    /// The value, whatever bytes it has.
    pub fn bytes(self) -> Vec<u8> {
        self.value
    }

    /// The value as a whole number.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(self) -> Result<u64, HttpRefusal> {
        number(&self.name, &self.value)
    }
}

/// The parameters of a query, in order.
pub fn parameters(query: &str) -> impl Iterator<Item = Parameter> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = String::from_utf8_lossy(&decoded(name)).into_owned();
        Parameter { name, value: decoded(value) }
    })
}

fn decoded(text: &str) -> Vec<u8> {
    percent_decode_str(&text.replace('+', " ")).collect()
}

/// The name that `as=` gives in a query, if it does.
///
/// # Errors
/// When it is no name.
pub fn speaker(query: &str) -> Result<Option<String>, HttpRefusal> {
    let Some(given) = parameters(query).filter(|parameter| parameter.name == "as").last() else {
        return Ok(None);
    };
    let name = given.text()?;
    if !(1..=NAME_BYTES).contains(&name.len()) {
        return Err(HttpRefusal::bad(format!("as= needs a name of 1 to {NAME_BYTES} bytes")));
    }
    Ok(Some(name))
}

/// A whole number that a request gives under a name. One too large for any file counts as the
/// largest there is.
///
/// # Errors
/// When it is no number.
pub fn number(name: &str, digits: &[u8]) -> Result<u64, HttpRefusal> {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HttpRefusal::bad(format!("{name}= needs a whole number, such as {name}=42")));
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
