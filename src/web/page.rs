//! `GET /` and the files under `/app/`: the chat page.

use std::{collections::HashMap, sync::LazyLock};

use data_encoding::BASE64;
use http::{StatusCode, header};
use sha2::{Digest, Sha256};

use super::{Exchange, Stop};
use crate::route::{PAGE, PageFile};

/// Lets the server's own script and style run and nothing else, whatever anybody manages to inject.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'";

/// The entity tag of a file, which changes with every byte of it.
fn tag_of(file: &'static PageFile) -> &'static str {
    static TAGS: LazyLock<HashMap<&str, String>> = LazyLock::new(|| {
        let digest = |text| BASE64.encode(&Sha256::digest(text));
        PAGE.iter().map(|file| (file.path, format!("\"{}\"", &digest(file.text)[..22]))).collect()
    });
    &TAGS[file.path]
}

impl Exchange<'_> {
    pub(super) fn page(&mut self, file: &'static PageFile) -> Result<(), Stop> {
        let tag = tag_of(file);
        let mut headers = vec![
            (header::CONTENT_SECURITY_POLICY, POLICY.to_owned()),
            (header::REFERRER_POLICY, "no-referrer".to_owned()),
            // A browser asks each time, and is mostly told that nothing has changed.
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            (header::ETAG, tag.to_owned()),
        ];
        if self.has_tag(tag) {
            return self.begin(StatusCode::NOT_MODIFIED, headers, &[]);
        }
        headers.push((header::CONTENT_TYPE, file.kind.to_owned()));
        self.whole(StatusCode::OK, headers, file.text.as_bytes())
    }
}
