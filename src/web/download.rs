//! `GET /messages.txt` and `/NAME.txt`: the text file, whole or from where a copy broke off.

use std::fs::File;

use http::{Method, StatusCode, header};

use super::{Channel, Exchange, Stop};
use crate::{
    history::{BLOCK, Window},
    http::response::TEXT,
    lines::read_at,
};

impl Exchange<'_> {
    /// The file itself, as far as it is committed, so that a copy ends in a whole line.
    pub(super) fn file(&mut self, channel: &Channel) -> Result<(), Stop> {
        let view = channel.look(Window { after: Some(u64::MAX), ..Window::default() }, None)?;
        let tag = format!("\"{}-{}\"", view.epoch, view.end);
        let mut headers = vec![
            (header::ETAG, tag.clone()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            (header::CONTENT_TYPE, TEXT.to_owned()),
        ];
        if self.has_tag(header::IF_NONE_MATCH, &tag) {
            return self.begin(StatusCode::NOT_MODIFIED, headers, &[]);
        }
        let text = |name| self.request.headers().get(name).and_then(|value| value.to_str().ok());
        let is_same = text(header::IF_RANGE).is_none_or(|given| given == tag);
        let is_get = self.request.method() == Method::GET;
        let asked = text(header::RANGE).filter(|_| is_get && is_same);
        let (status, start, end) = match asked.and_then(|text| byte_range(text, view.end)) {
            None => (StatusCode::OK, 0, view.end),
            Some(Bytes::Of(start, end)) => {
                let range = format!("bytes {start}-{}/{}", end - 1, view.end);
                headers.push((header::CONTENT_RANGE, range));
                (StatusCode::PARTIAL_CONTENT, start, end)
            }
            Some(Bytes::None) => {
                headers.push((header::CONTENT_RANGE, format!("bytes */{}", view.end)));
                let sentence = b"the file is not that long\n";
                return self.whole(StatusCode::RANGE_NOT_SATISFIABLE, headers, sentence);
            }
        };
        headers.push((header::CONTENT_LENGTH, (end - start).to_string()));
        self.begin(status, headers, &[])?;
        if self.request.method() == Method::HEAD {
            return Ok(());
        }
        self.copy(view.range.file(), start, end)
    }

    fn copy(&mut self, file: &File, mut from: u64, end: u64) -> Result<(), Stop> {
        let mut block = vec![0; BLOCK.min((end - from) as usize)];
        while from < end {
            let want = block.len().min((end - from) as usize);
            let got = read_at(file, &mut block[..want], from)?;
            self.send(&block[..got])?;
            from += got as u64;
        }
        Ok(())
    }
}

/// What of a file is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Bytes {
    /// From one offset up to another.
    Of(u64, u64),
    /// Nothing that is there.
    None,
}

/// One range of RFC 9110 section 14.1.2; several, or what makes no sense, count as none given.
fn byte_range(text: &str, len: u64) -> Option<Bytes> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (start, end) = match (first, last) {
        ("", last) => (len.saturating_sub(number(last)?), len),
        (first, "") => (number(first)?, len),
        (first, last) => (number(first)?, number(last)?.saturating_add(1)),
    };
    if !first.is_empty() && !last.is_empty() && start >= end {
        return None;
    }
    Some(if start < end.min(len) { Bytes::Of(start, end.min(len)) } else { Bytes::None })
}
