//! `GET /`: the chat page.

use std::sync::LazyLock;

use data_encoding::BASE64;
use http::{StatusCode, header};
use sha2::{Digest, Sha256};

use super::{Exchange, Stop};

/// The chat for people, in one file.
const PAGE: &str = include_str!("../page.html");

impl Exchange<'_> {
    pub(super) fn page(&mut self) -> Result<(), Stop> {
        static POLICY: LazyLock<String> = LazyLock::new(policy);
        static TAG: LazyLock<String> =
            LazyLock::new(|| format!("\"{}\"", &BASE64.encode(&Sha256::digest(PAGE))[..22]));
        let mut headers = vec![
            (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
            (header::REFERRER_POLICY, "no-referrer".to_owned()),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            (header::ETAG, TAG.clone()),
        ];
        if self.has_tag(header::IF_NONE_MATCH, &TAG) {
            return self.begin(StatusCode::NOT_MODIFIED, headers, &[]);
        }
        headers.push((header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()));
        self.whole(StatusCode::OK, headers, PAGE.as_bytes())
    }
}

/// Lets the page's own script and style run and nothing else, whoever manages to inject what.
fn policy() -> String {
    let hash = |tag: &str| {
        let inner = PAGE
            .split_once(&format!("<{tag}>"))
            .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")).map(|(inner, _)| inner));
        BASE64.encode(&Sha256::digest(inner.unwrap_or_default()))
    };
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; \
         connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'",
        hash("script"),
        hash("style"),
    )
}
