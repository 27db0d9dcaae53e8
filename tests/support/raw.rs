//! A socket without manners: every byte on it is the test's own.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use socket2::SockRef;

use super::{
    envelopes::Heard,
    frames::{CLOSE, FrameHead, TEXT},
    patience::{PATIENCE, is_timeout},
    text::{cut, is_said},
};

/// A TCP connection whose every byte is the test's own.
pub struct Raw {
    pub stream: TcpStream,
    /// Read from the socket and not yet asked for.
    unread: Vec<u8>,
}

/// One frame as it came over the wire.
#[derive(Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// FIN, the reserved bits and the opcode.
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Raw {
    /// On a connection on which nothing has been read.
    pub fn on(stream: TcpStream) -> Raw {
        Raw { stream, unread: Vec::new() }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the connection is there");
    }

    /// For bytes that the server may no longer take; false when it did not.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// The next frame; a frame that breaks the protocol is a failure.
    #[track_caller]
    pub fn frame(&mut self) -> RawFrame {
        match self.try_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => panic!("the connection ended where a frame was expected"),
            Err(error) => panic!("no frame: {error}"),
        }
    }

    /// None at the end of the connection.
    pub fn try_frame(&mut self) -> io::Result<Option<RawFrame>> {
        loop {
            if let Some(head) = FrameHead::read(&self.unread)
                && self.unread.len() - head.size >= head.length
            {
                let first = head.first;
                assert_eq!(first & 0x70, 0, "reserved bits of {first:#x}");
                let payload = self.takes(head.size + head.length).split_off(head.size);
                return Ok(Some(RawFrame { first, payload }));
            }
            if self.read()? == 0 {
                assert!(self.unread.is_empty(), "the connection ended within a frame");
                return Ok(None);
            }
        }
    }

    /// A whole text frame begins; its length is for those who want to read it bit by bit.
    #[track_caller]
    pub fn text_begins(&mut self) -> usize {
        let head = loop {
            match FrameHead::read(&self.unread) {
                Some(head) => break head,
                None => self.more("a frame"),
            }
        };
        assert_eq!(head.first, TEXT, "a whole text frame");
        self.takes(head.size);
        head.length
    }

    /// The next bytes.
    #[track_caller]
    pub fn takes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            self.more("the rest of what has begun");
        }
        self.unread.drain(..count).collect()
    }

    /// The next bytes up to these, with them.
    #[track_caller]
    pub fn takes_up_to(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|bytes| bytes == end) {
                return self.takes(at + end.len());
            }
            self.more("an HTTP answer");
        }
    }

    /// The next frame is a whole text.
    #[track_caller]
    pub fn text(&mut self) -> String {
        let frame = self.frame();
        assert_eq!(frame.first, TEXT, "a whole text frame");
        String::from_utf8(frame.payload).expect("UTF-8")
    }

    /// The next frame is this message.
    #[track_caller]
    pub fn hears(&mut self, data: &str) -> Heard {
        let text = self.text();
        let heard = Heard::parse(&text).unwrap_or_else(|| panic!("no message: {}", cut(&text)));
        is_said(&heard.data, data);
        heard
    }

    /// Puts back what a test has read from the socket by itself.
    pub fn having_read(mut self, mut bytes: Vec<u8>) -> Raw {
        bytes.append(&mut self.unread);
        Raw { unread: bytes, ..self }
    }

    /// A close frame with this code comes, whatever comes before, and then the orderly end of the
    /// connection: no reset, which could have eaten the close frame. Gives the reason.
    #[track_caller]
    pub fn is_closed_with(&mut self, code: u16) -> String {
        let frame = loop {
            let frame = self.frame();
            if frame.first == CLOSE {
                break frame;
            }
        };
        let (got, reason) = frame.payload.split_at_checked(2).expect("a close frame has a code");
        let reason = String::from_utf8(reason.to_vec()).expect("a reason is UTF-8");
        assert_eq!(u16::from_be_bytes([got[0], got[1]]), code, "close code; reason: {reason}");
        match self.try_frame() {
            Ok(None) => reason,
            Ok(Some(frame)) => panic!("after the close frame came {frame:?}"),
            Err(error) => panic!("after the close frame: {error}"),
        }
    }

    /// The connection ends, in whatever way; what came until then is dropped.
    #[track_caller]
    pub fn is_gone(&mut self) {
        let mut bytes = [0; 64 << 10];
        loop {
            match read_once(&self.stream, &mut bytes) {
                Ok(0) => return,
                Ok(_) => (),
                Err(error) if is_timeout(&error) => panic!("the connection stays"),
                Err(_) => return,
            }
        }
    }

    /// Not a byte comes for a while.
    #[track_caller]
    pub fn is_quiet(&mut self) {
        assert!(self.unread.is_empty(), "something came already");
        // Nothing says that nothing comes; a server that had something to say would say it at once.
        self.stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        match read_once(&self.stream, &mut [0]) {
            Err(error) if is_timeout(&error) => (),
            other => panic!("not quiet: {other:?}"),
        }
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    }

    /// The server ends the connection in order, with nothing more before.
    #[track_caller]
    pub fn is_over(&mut self) {
        match self.try_frame() {
            Ok(None) => (),
            Ok(Some(_)) => panic!("there is more where the end was expected"),
            Err(error) => panic!("no orderly end: {error}"),
        }
    }

    /// Ends the connection as a peer that crashed does: with a reset.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a linger time");
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub fn sends_no_more(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is there");
    }

    #[track_caller]
    fn more(&mut self, what: &str) {
        match self.read() {
            Ok(0) => panic!("the connection ended before {what}"),
            Ok(_) => (),
            Err(error) => panic!("no {what}: {error}"),
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 64 << 10];
        let count = read_once(&self.stream, &mut bytes)?;
        self.unread.extend(&bytes[..count]);
        Ok(count)
    }
}

/// Reads what there is. A read with a timeout is interrupted when the test's process is stopped and
/// goes on, and is tried again.
fn read_once(mut stream: &TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            read => return read,
        }
    }
}
