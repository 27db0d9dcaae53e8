//! A body whose length is not known when it begins: it is sent in chunks, as it is made.

use http::{HeaderName, StatusCode, Version, header};

use super::{Exchange, Headers, PeerGone, Stop, query::Form, sending::BODY_BUFFER};
use crate::outbox::More;

/// Says whether a proxy may hold back what it passes on.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

impl Exchange<'_> {
    /// A response whose length is not known beforehand, RFC 9112 section 7.1; for HTTP/1.0, its end
    /// is the connection's.
    pub(super) fn begin_chunks(
        &mut self,
        form: Form,
        mut headers: Headers,
    ) -> Result<Chunks, Stop> {
        // nginx, as it comes, would wait until it has a whole buffer.
        headers.push((ACCEL_BUFFERING, "no".to_owned()));
        let is_chunked = self.request.version() != Version::HTTP_10;
        if is_chunked {
            headers.push((header::TRANSFER_ENCODING, "chunked".to_owned()));
        } else {
            self.is_last = true;
        }
        self.begin(StatusCode::OK, headers, &[])?;
        Ok(Chunks { bytes: Vec::new(), form, is_chunked, is_held_back: false })
    }
}

/// A body on its way, a block at a time.
pub(super) struct Chunks {
    pub(super) bytes: Vec<u8>,
    pub(super) form: Form,
    is_chunked: bool,
    /// Whether the kernel was told that more follows.
    is_held_back: bool,
}

impl Chunks {
    /// Appends what `push_line` makes, a line of JSON, as the form has it.
    pub(super) fn push(&mut self, push_line: impl FnOnce(&mut Vec<u8>)) {
        if self.form != Form::Events {
            return push_line(&mut self.bytes);
        }
        self.bytes.extend_from_slice(b"data: ");
        let start = self.bytes.len();
        push_line(&mut self.bytes);
        // White space between tokens, which would end a line of the event.
        let carriage_returns = self.bytes[start..].iter_mut().filter(|byte| **byte == b'\r');
        carriage_returns.for_each(|byte| *byte = b' ');
        self.bytes.push(b'\n');
    }

    /// Sends a comment, which tells proxies in between that a stream of events is alive.
    pub(super) fn show_life(&mut self, exchange: &mut Exchange<'_>) -> Result<(), PeerGone> {
        if self.form == Form::Events {
            self.bytes.extend_from_slice(b":\n\n");
            self.flush(exchange)?;
        }
        Ok(())
    }

    pub(super) fn flush_full(&mut self, exchange: &mut Exchange<'_>) -> Result<(), PeerGone> {
        if self.bytes.len() < BODY_BUFFER {
            return Ok(());
        }
        exchange.go_on_reading()?;
        self.send(exchange, More::Follows)
    }

    pub(super) fn flush(&mut self, exchange: &mut Exchange<'_>) -> Result<(), PeerGone> {
        if !self.bytes.is_empty() {
            return self.send(exchange, More::No);
        }
        if std::mem::take(&mut self.is_held_back) {
            // The kernel may still wait for more; this makes it send. It cannot fail on a connection,
            // and what is held back goes out by itself in a moment.
            let _ = exchange.web.outbox.socket().set_tcp_nodelay(true);
        }
        Ok(())
    }

    fn send(&mut self, exchange: &mut Exchange<'_>, more: More) -> Result<(), PeerGone> {
        if self.is_chunked {
            let head = format!("{:x}\r\n", self.bytes.len());
            self.bytes.splice(..0, head.into_bytes());
            self.bytes.extend_from_slice(b"\r\n");
        }
        exchange.send_and(&self.bytes, more)?;
        self.is_held_back = more == More::Follows;
        self.bytes.clear();
        // A follower would keep room for its longest message for the life of its stream.
        self.bytes.shrink_to(2 * BODY_BUFFER);
        Ok(())
    }

    pub(super) fn finish(mut self, exchange: &mut Exchange<'_>) -> Result<(), PeerGone> {
        self.flush(exchange)?;
        match self.is_chunked {
            true => exchange.send(b"0\r\n\r\n"),
            false => Ok(()),
        }
    }
}
