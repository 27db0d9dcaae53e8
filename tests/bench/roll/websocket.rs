//! The server's half of WebSocket, as little of it as the load generator's clients need.

use std::ops::Range;

use tungstenite::handshake::derive_accept_key;

/// Header lines that a request may have.
const HEADERS: usize = 16;

/// The answer to an upgrade request and how long the request was; `None` while it is incomplete or
/// when it is none.
pub fn response(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(size)) = request.parse(bytes) else { return None };
    let mut headers = request.headers.iter();
    let key = headers.find(|it| it.name.eq_ignore_ascii_case("Sec-WebSocket-Key"))?;
    let accept = derive_accept_key(key.value);
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Some((response.into_bytes(), size))
}

/// A frame of a client; it ends where its payload does.
pub struct Frame {
    /// FIN and opcode.
    pub first: u8,
    pub payload: Range<usize>,
}

/// Unmasks the first frame in place; `None` while it is incomplete.
pub fn unmask_frame(bytes: &mut [u8]) -> Option<Frame> {
    const MASK: usize = 4;
    let (head, length) = match bytes.get(1)? & 127 {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        short => (2, short as usize),
    };
    let payload = head + MASK..head + MASK + length;
    let mask = bytes.get(head..payload.start)?.try_into().ok()?;
    unmask(bytes.get_mut(payload.clone())?, mask);
    Some(Frame { first: bytes[0], payload })
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// The head of an unmasked text frame.
pub fn push_text_head(length: usize, out: &mut Vec<u8>) {
    const LAST_TEXT: u8 = 0x81;
    match length {
        0..126 => out.extend_from_slice(&[LAST_TEXT, length as u8]),
        126..65_536 => {
            out.extend_from_slice(&[LAST_TEXT, 126]);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[LAST_TEXT, 127]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}
