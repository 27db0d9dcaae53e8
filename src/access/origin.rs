//! Which web pages may ask: a browser asks on behalf of any page that it shows.
//!
//! A page is let in only when it is this server's own under a name that DNS cannot rebind, a page of
//! this machine, or a listed one.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{http::HttpRefusal, route::Resource};

/// The origin of the web page that asks for a resource, if a page asks and says so. `allowed` are the
/// origins that the operator listed.
///
/// # Errors
/// 403 when it is a page that may not ask, or a name that is not this server's.
pub fn page<'a>(
    headers: &'a HeaderMap,
    resource: &Resource,
    allowed: &[String],
) -> Result<Option<&'a str>, HttpRefusal> {
    // A browser tells which page opens a WebSocket. It does not tell which page asks its own server
    // by HTTP; there, the name by which the server was asked must do.
    if !matches!(resource, Resource::WebSocket(_)) {
        check_host_name(headers, allowed)?;
    }
    check_origin(headers, allowed)
}

/// Lets in no page at all, a page of this very server under a name that DNS cannot rebind, a page
/// of this machine, and a listed one. Returns the page's origin.
fn check_origin<'a>(
    headers: &'a HeaderMap,
    allowed: &[String],
) -> Result<Option<&'a str>, HttpRefusal> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if origins.next().is_none() && may_connect(text, host, allowed) {
        return Ok(Some(text));
    }
    let shown = shown(origin);
    Err(HttpRefusal::new(
        StatusCode::FORBIDDEN,
        format!("pages of {shown} may not connect; the server's --allow-origin {shown} allows it"),
    ))
}

/// Takes a name that DNS cannot rebind, and that of a listed origin.
fn check_host_name(headers: &HeaderMap, allowed: &[String]) -> Result<(), HttpRefusal> {
    // Without a Host it is HTTP/1.0, and no browser.
    let Some(host) = headers.get(header::HOST) else { return Ok(()) };
    let text = host.to_str().unwrap_or_default();
    let is_listed = |listed: &String| listed == "*" || is_at(listed, text);
    if is_local_or_literal(host_name(text)) || allowed.iter().any(is_listed) {
        return Ok(());
    }
    if host.is_empty() {
        let sentence = "the request names no host; send one that is this server's, such as \
                        Host: localhost, its IP address or a name that its --allow-origin lists";
        return Err(HttpRefusal::new(StatusCode::FORBIDDEN, sentence));
    }
    let shown = shown(host);
    Err(HttpRefusal::new(
        StatusCode::FORBIDDEN,
        format!(
            "this server is not {shown}; its --allow-origin https://{shown} (or http://, as the page is \
             reached) allows the name"
        ),
    ))
}

fn may_connect(origin: &str, host: &str, allowed: &[String]) -> bool {
    let is_listed = |listed: &String| {
        listed == "*" || without_default_port(listed) == without_default_port(origin)
    };
    if allowed.iter().any(is_listed) {
        return true;
    }
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    if !matches!(scheme, "http" | "https") {
        return false;
    }
    let name = host_name(authority);
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
        || (is_at(origin, host) && is_local_or_literal(name))
}

/// Whether the pages of an origin are those of a host. What has no scheme is an authority itself.
fn is_at(origin: &str, host: &str) -> bool {
    let Some((scheme, _)) = origin.split_once("://") else {
        return origin.eq_ignore_ascii_case(host);
    };
    let page = format!("{scheme}://{host}");
    without_default_port(origin).eq_ignore_ascii_case(without_default_port(&page))
}

/// An origin without the port that its scheme has anyway: by RFC 9110 section 4.2.3 it is the same one.
fn without_default_port(origin: &str) -> &str {
    let port = match origin.split_once("://") {
        Some(("http", _)) => ":80",
        Some(("https", _)) => ":443",
        _ => return origin,
    };
    origin.strip_suffix(port).unwrap_or(origin)
}

/// A host without its port.
fn host_name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => authority,
    }
}

/// Whether no DNS server decides what the name means.
fn is_local_or_literal(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    name == "localhost" || name.ends_with(".localhost") || literal.parse::<IpAddr>().is_ok()
}

/// What a peer made up, fit for a sentence: escaped and cut.
fn shown(value: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    text.chars().flat_map(char::escape_default).take(100).collect()
}

#[cfg(test)]
mod tests;
