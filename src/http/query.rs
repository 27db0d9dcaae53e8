//! The query of a request: names and values, percent-decoded.
//!
//! A value is bytes until somebody asks for a text or a number. What is not UTF-8 is refused, since
//! a replacement character in its place would be words that nobody sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

    /// The value as a time, in Unix milliseconds. It is written as so long ago (`10m`), in RFC
    /// 3339, or in Unix seconds.
    ///
    /// # Errors
    /// When it is none.
    pub fn time(self) -> Result<u64, HttpRefusal> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = std::str::from_utf8(&self.value).unwrap_or_default();
        time(text, now).ok_or_else(|| {
            let name = &self.name;
            HttpRefusal::bad(format!(
                "{name}= needs a time, such as {name}=10m for ten minutes ago, \
                 {name}=2026-11-23T14:02:15Z, or Unix seconds"
            ))
        })
    }

    /// The value as yes or no; a name without a value is a yes.
    ///
    /// # Errors
    /// When it is neither.
    pub fn flag(self) -> Result<bool, HttpRefusal> {
        match &*self.value {
            b"" | b"1" | b"true" => Ok(true),
            b"0" | b"false" => Ok(false),
            _ => Err(HttpRefusal::bad(format!("{}= is 1 or 0", self.name))),
        }
    }

    /// The value as a whole number.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(self) -> Result<u64, HttpRefusal> {
        number(&self.name, &self.value)
    }
}

/// The last second of the year 9999, in Unix seconds. What is later was most likely meant as
/// milliseconds.
const LAST_SECOND: u64 = 253_402_300_799;

/// A time in Unix milliseconds, when it is `now` since the Unix epoch.
fn time(text: &str, now: Duration) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds: u64 = text.parse().ok()?;
        return (seconds <= LAST_SECOND).then_some(seconds * 1000);
    }
    let at = match humantime::parse_duration(text) {
        Ok(ago) => now.saturating_sub(ago),
        Err(_) => rfc3339(text)?,
    };
    u64::try_from(at.as_millis()).ok()
}

/// Years that are added to a year before 1970, which humantime does not read, and their seconds. The
/// calendar is the same after so many.
const MORE_YEARS: u64 = 2000;
const MORE_SECONDS: u64 = MORE_YEARS / 400 * 146_097 * 24 * 60 * 60;

/// A time in RFC 3339, with any offset, since the Unix epoch. What is before it counts as the epoch:
/// no message is older.
fn rfc3339(text: &str) -> Option<Duration> {
    let (local, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, "+00:00"),
        None => text.split_at_checked(text.len().checked_sub("+01:00".len())?)?,
    };
    let (time, too_much) = local_time(local)?;
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = offset.split_once(':')?;
    let offset_by = digits(hours, 2, 24)? * 3600 + digits(minutes, 2, 60)? * 60;
    let offset_by = Duration::from_secs(offset_by);
    let time = match sign {
        // A plus sign in a query means a space.
        "+" | " " => time.saturating_sub(offset_by),
        "-" => time.checked_add(offset_by)?,
        _ => return None,
    };
    Some(time.saturating_sub(too_much))
}

/// A date and a time of RFC 3339 since the Unix epoch, and how much is to be taken from it.
fn local_time(text: &str) -> Option<(Duration, Duration)> {
    // humantime takes a point without digits, and wants a large T.
    if text.ends_with('.') {
        return None;
    }
    let text = text.replacen('t', "T", 1);
    let (year, rest) = text.split_at_checked(4)?;
    let year = digits(year, 4, 10_000)?;
    let (more_years, too_much) = if year < 1970 { (MORE_YEARS, MORE_SECONDS) } else { (0, 0) };
    let time = humantime::parse_rfc3339(&format!("{:04}{rest}Z", year + more_years)).ok()?;
    let time = time.duration_since(UNIX_EPOCH).ok()?;
    Some((time, Duration::from_secs(too_much)))
}

/// A number of so many digits that is less than `below`.
fn digits(text: &str, count: usize, below: u64) -> Option<u64> {
    let is_number = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && *number < below)
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
