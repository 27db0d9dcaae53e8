//! `GET /` and the files under `/app/`: the chat page.

use std::sync::LazyLock;

use data_encoding::BASE64;
use http::{StatusCode, header};
use sha2::{Digest, Sha256};

use super::{Exchange, Stop};
use crate::route::PageFile;

/// Lets the server's own script and style run and nothing else, whatever anybody manages to inject.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'";

/// One file of the page.
struct File {
    kind: &'static str,
    text: &'static str,
    /// The entity tag, which changes with every byte of the text.
    tag: String,
}

impl File {
    fn new(kind: &'static str, text: &'static str) -> File {
        File { kind, text, tag: format!("\"{}\"", &BASE64.encode(&Sha256::digest(text))[..22]) }
    }

    fn of(file: PageFile) -> &'static File {
        static DOCUMENT: LazyLock<File> = LazyLock::new(|| {
            File::new("text/html; charset=utf-8", include_str!("../page/index.html"))
        });
        static STYLE: LazyLock<File> = LazyLock::new(|| {
            File::new("text/css; charset=utf-8", include_str!("../page/style.css"))
        });
        static SCRIPT: LazyLock<File> = LazyLock::new(|| {
            File::new("text/javascript; charset=utf-8", include_str!("../page/chat.js"))
        });
        match file {
            PageFile::Document => &DOCUMENT,
            PageFile::Style => &STYLE,
            PageFile::Script => &SCRIPT,
        }
    }
}

impl Exchange<'_> {
    pub(super) fn page(&mut self, file: PageFile) -> Result<(), Stop> {
        let File { kind, text, tag } = File::of(file);
        let mut headers = vec![
            (header::CONTENT_SECURITY_POLICY, POLICY.to_owned()),
            (header::REFERRER_POLICY, "no-referrer".to_owned()),
            // A browser asks each time, and is mostly told that nothing has changed.
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            (header::ETAG, tag.clone()),
        ];
        if self.has_tag(header::IF_NONE_MATCH, tag) {
            return self.begin(StatusCode::NOT_MODIFIED, headers, &[]);
        }
        headers.push((header::CONTENT_TYPE, (*kind).to_owned()));
        self.whole(StatusCode::OK, headers, text.as_bytes())
    }
}
