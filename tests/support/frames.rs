//! WebSocket frames by hand: masked ones as a client sends them, and the heads of a server's.
//!
//! The benchmark's load generator includes this file too; it needs nothing but std.

/// First bytes of frames: FIN and the opcode.
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;
/// The first and the later frames of a fragmented message.
pub const TEXT_BEGINS: u8 = 0x01;
pub const GOES_ON: u8 = 0x00;
pub const ENDS: u8 = 0x80;

/// Any key but zero, so that no server can take the short way round unmasking.
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame as a client sends it.
pub fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut frame = frame_header(first, payload.len() as u64);
    frame[1] |= 0x80;
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The header of an unmasked frame.
pub fn frame_header(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..126 => header.push(length as u8),
        126..=0xffff => {
            header.push(126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(127);
            header.extend(length.to_be_bytes());
        }
    }
    header
}

/// The head of a frame from a server.
pub struct FrameHead {
    /// FIN, the reserved bits and the opcode.
    pub first: u8,
    /// Bytes of the head itself.
    pub size: usize,
    /// Bytes of the payload behind it.
    pub length: usize,
}

impl FrameHead {
    /// Bytes of the longest head that a server's frame can have.
    pub const LONGEST: usize = 10;

    /// None while the head is not there as a whole.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<FrameHead> {
        let (&first, rest) = bytes.split_first()?;
        let (size, length) = match *rest.first()? {
            126 => (4, u16::from_be_bytes(rest.get(1..3)?.try_into().ok()?) as usize),
            127 => {
                (FrameHead::LONGEST, u64::from_be_bytes(rest.get(1..9)?.try_into().ok()?) as usize)
            }
            short @ 0..126 => (2, short as usize),
            128.. => panic!("the server masks a frame"),
        };
        Some(FrameHead { first, size, length })
    }

    /// Text, binary or a continuation; anything else is a control frame.
    pub fn carries_data(&self) -> bool {
        self.first & 0x0f < CLOSE & 0x0f
    }

    /// Whether its message ends with it.
    pub fn is_last(&self) -> bool {
        self.first & ENDS != 0
    }
}
