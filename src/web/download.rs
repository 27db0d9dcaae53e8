//! `GET /messages.txt` and `/NAME.txt`: the text file, whole or from where a copy broke off.

use std::{io, num::NonZeroUsize};

use http::{Method, StatusCode, header};
use http_range_header::{RangeUnsatisfiableError, parse_range_header_with_max_ranges};

use super::{Channel, Exchange, Stop, sending::Source};
use crate::{history::Window, http::response::TEXT, lines::TextFile};

impl Exchange<'_> {
    /// Sends the file as far as it is committed, so that a copy ends in a whole line.
    pub(super) fn file(&mut self, channel: &Channel) -> Result<(), Stop> {
        let view = channel.look(Window { after: Some(u64::MAX), ..Window::default() }, None)?;
        let mut tag = format!("\"{}-{}", view.epoch, view.end);
        if view.deleted > 0 {
            // The file has the same length, but other bytes stand in it.
            tag = format!("{tag}-{}", view.deleted);
        }
        tag.push('"');
        let mut headers = vec![
            (header::ETAG, tag.clone()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            (header::CONTENT_TYPE, TEXT.to_owned()),
        ];
        self.check_match(&tag)?;
        if self.has_tag(&tag) {
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
        self.send_all(FilePart { file: view.stretch.file().clone(), start, end })
    }
}

/// The bytes of the text file from one offset up to another.
struct FilePart {
    file: TextFile,
    start: u64,
    end: u64,
}

impl Source for FilePart {
    fn peek(&self, out: &mut Vec<u8>, most: usize) -> io::Result<()> {
        let from = out.len();
        out.resize(from + (most as u64).min(self.end - self.start) as usize, 0);
        self.file.read_exact_at(&mut out[from..], self.start)
    }

    fn advance(&mut self, count: usize) {
        self.start += count as u64;
    }
}

/// What of a file is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Bytes {
    /// From one offset up to another.
    Of(u64, u64),
    /// Bytes that the file does not have.
    None,
}

/// One range of RFC 9110 section 14.1.2; several, or what makes no sense, count as none given.
fn byte_range(text: &str, len: u64) -> Option<Bytes> {
    let ranges = parse_range_header_with_max_ranges(text, NonZeroUsize::MIN);
    match ranges.and_then(|ranges| ranges.validate(len)) {
        Ok(ranges) => ranges.first().map(|range| Bytes::Of(*range.start(), range.end() + 1)),
        Err(RangeUnsatisfiableError::Unsatisfiable) => Some(Bytes::None),
        Err(_) => None,
    }
}
