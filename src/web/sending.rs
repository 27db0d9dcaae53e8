//! How an answer is sent, and what it costs to wait for a peer that does not take it.
//!
//! A body is read from the file again from where it stands, so only a small buffer of it is held while the
//! peer is waited for. A message that is longer is held as a whole, and so are the numbers of the
//! lines of many reactions; there is a limit to what all peers together may hold of these.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use http::{Method, StatusCode, Version, header};

use super::{Exchange, Headers, PeerGone, Stop};
use crate::{history::BLOCK, http::response::response_head, outbox::More, wire::HistoryFrame};

/// What is held of a body while its peer takes nothing. With a buffer of the same size for reading
/// messages, ten thousand such peers hold 160 MB.
pub(super) const BODY_BUFFER: usize = 8 << 10;

/// What all peers together may hold of messages that are longer than that, and of the numbers of
/// lines, in bytes. A peer that would hold more is let go; it can come back and go on where it was.
const HELD: usize = 64 << 20;

/// A share of [`HELD`], for as long as a peer is waited for.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: usize,
}

/// How much is held. It is the memory of the process, so one number for all connections.
static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);

impl Held {
    /// For a message that is on its way in memory, once as it was read and once as it is sent.
    fn take(message: usize) -> Option<Held> {
        let mut held = Held::default();
        // The share is given back at once when it is too much.
        held.grow(2 * message).then_some(held)
    }

    /// Makes the share larger; false when all together are too much then.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let before = HELD_BYTES.fetch_add(bytes, Ordering::Relaxed);
        let is_single = before == self.bytes;
        self.bytes += bytes;
        // A single one may always be held, however long.
        is_single || before + bytes <= HELD
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A body, or a part of one, that can be read from the file again from where it stands.
pub(super) trait Source {
    /// Appends what comes next to `out`, up to `most` bytes; nothing at the end.
    fn peek(&self, out: &mut Vec<u8>, most: usize) -> io::Result<()>;

    /// Passes the next `count` bytes.
    fn advance(&mut self, count: usize);
}

impl Source for HistoryFrame {
    fn peek(&self, out: &mut Vec<u8>, most: usize) -> io::Result<()> {
        HistoryFrame::peek(self, out, most)
    }

    fn advance(&mut self, count: usize) {
        HistoryFrame::advance(self, count);
    }
}

impl Exchange<'_> {
    /// A response with all of its body.
    pub(super) fn whole(
        &mut self,
        status: StatusCode,
        mut headers: Headers,
        body: &[u8],
    ) -> Result<(), Stop> {
        headers.push((header::CONTENT_LENGTH, body.len().to_string()));
        match *self.request.method() {
            Method::HEAD => self.begin(status, headers, &[]),
            _ => self.begin(status, headers, body),
        }
    }

    /// The head of a response, and what of its body is there.
    pub(super) fn begin(
        &mut self,
        status: StatusCode,
        mut headers: Headers,
        body: &[u8],
    ) -> Result<(), Stop> {
        headers.push((header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()));
        headers.push((header::VARY, "Origin, Accept".to_owned()));
        if let Some(origin) = self.caller.as_ref().and_then(|caller| caller.page.as_ref()) {
            headers.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
            let exposed = "ETag, Location, Retry-After, Txtcord-Epoch";
            headers.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.to_owned()));
        }
        if self.is_last {
            headers.push((header::CONNECTION, "close".to_owned()));
        } else if self.request.version() == Version::HTTP_10 {
            headers.push((header::CONNECTION, "keep-alive".to_owned()));
        }
        let mut bytes = response_head(status, &headers);
        bytes.extend_from_slice(body);
        Ok(self.send(&bytes)?)
    }

    pub(super) fn is_head(&self) -> bool {
        self.request.method() == Method::HEAD
    }

    /// Sends all of a source: in blocks as long as the peer takes them at once, and a buffer at a time when
    /// it has to be waited for.
    pub(super) fn send_all(&mut self, mut source: impl Source) -> Result<(), Stop> {
        let mut block = Vec::new();
        loop {
            block.clear();
            source.peek(&mut block, BLOCK)?;
            if block.is_empty() {
                return Ok(());
            }
            self.go_on_reading()?;
            let sent = self.web.outbox.send_now(&block).map_err(|_| Stop::PeerGone)?;
            source.advance(sent);
            if sent < block.len() {
                block = Vec::new();
                source.peek(&mut block, BODY_BUFFER)?;
                self.send(&block)?;
                source.advance(block.len());
            }
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), PeerGone> {
        self.send_and(bytes, More::No)
    }

    pub(super) fn send_and(&mut self, bytes: &[u8], more: More) -> Result<(), PeerGone> {
        self.began = true;
        let mut rest = bytes;
        let mut _held = None;
        if bytes.len() > 2 * BODY_BUFFER {
            let sent = self.web.outbox.send_now(bytes).map_err(|_| PeerGone)?;
            rest = &bytes[sent..];
            if !rest.is_empty() {
                _held = Some(Held::take(bytes.len()).ok_or(PeerGone)?);
            }
        }
        let stall_timeout = self.web.config.stall_timeout;
        self.web.outbox.send_patiently(rest, more, stall_timeout).map_err(|_| PeerGone)
    }
}
