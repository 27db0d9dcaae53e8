//! What a connection's socket is asked for, whatever it speaks: reads, and a proper end.

use std::{
    io::{self, Read},
    net::Shutdown,
    time::{Duration, Instant},
};

use socket2::Socket;

/// How long, and how much, is still read after a close of ours: a socket closed with unread bytes
/// resets the connection, and the reset would eat the close frame on its way.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 << 10;

/// A read that a signal does not end.
pub fn read(mut socket: &Socket, space: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(space) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A read timeout shows as either, depending on the system.
pub fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// How a peer took the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lingered {
    /// It ended its side, so it has read what was sent.
    PeerEnded,
    /// It did not in time.
    TimedOut,
}

/// Ends the sending direction and reads on for a while.
pub fn linger(socket: &Socket) -> Lingered {
    let deadline = Instant::now() + LINGER;
    if socket.shutdown(Shutdown::Write).is_err() {
        return Lingered::PeerEnded;
    }
    let mut unread = [0; 1024];
    for _ in 0..LINGER_BYTES / unread.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            return Lingered::TimedOut;
        }
        match read(socket, &mut unread) {
            Ok(0) => return Lingered::PeerEnded,
            Ok(_) => {}
            Err(error) if would_block(&error) => return Lingered::TimedOut,
            Err(_) => return Lingered::PeerEnded,
        }
    }
    Lingered::TimedOut
}
