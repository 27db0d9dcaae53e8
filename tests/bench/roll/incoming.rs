//! What a client sends: its request, then frames, of which the texts become lines.

use std::io;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::Socket;

use super::websocket;
use crate::frames::{PONG, TEXT};

/// One client's bytes on their way in.
#[derive(Default)]
pub struct Incoming {
    /// The piece of a request or a frame that has not come in as a whole.
    partial: Vec<u8>,
    is_upgraded: bool,
}

/// What one read brought.
pub struct Brought {
    /// The answer to the request, if that came in.
    pub response: Option<Vec<u8>>,
    /// Whether it filled the buffer, so that more may wait.
    pub is_full: bool,
}

impl Incoming {
    /// Reads once and appends the texts to `lines`; `None` when nothing has come. What is longer than
    /// `buffer` is not taken.
    pub fn read(
        &mut self,
        socket: &Socket,
        flags: RecvFlags,
        buffer: &mut [u8],
        lines: &mut Vec<u8>,
    ) -> io::Result<Option<Brought>> {
        let kept = self.partial.len();
        let count = match recv(socket, &mut buffer[kept..], flags) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, _)) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        buffer[..kept].copy_from_slice(&self.partial);
        self.partial.clear();
        let is_full = kept + count == buffer.len();
        let bytes = &mut buffer[..kept + count];
        let mut at = 0;
        let mut response = None;
        if !self.is_upgraded {
            let Some((answer, size)) = websocket::response(bytes) else {
                return self.keep(bytes, is_full).map(|()| None);
            };
            self.is_upgraded = true;
            (response, at) = (Some(answer), size);
        }
        while let Some(frame) = websocket::unmask_frame(&mut bytes[at..]) {
            match frame.first {
                TEXT => {
                    lines.extend_from_slice(&bytes[at..][frame.payload.clone()]);
                    lines.push(b'\n');
                }
                PONG => {}
                // The load generator sends nothing else; whatever else comes is the end.
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
            at += frame.payload.end;
        }
        let is_stuck = is_full && at == 0;
        self.keep(&bytes[at..], is_stuck)?;
        Ok(Some(Brought { response, is_full }))
    }

    /// Keeps what is not whole; what does not fit into the buffer would never be.
    fn keep(&mut self, bytes: &[u8], is_stuck: bool) -> io::Result<()> {
        if is_stuck {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}
