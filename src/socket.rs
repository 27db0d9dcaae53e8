//! What connections of HTTP and of WebSocket both need of a socket: to read, and to end properly.

use std::{
    io::{self, Read},
    net::Shutdown,
    time::{Duration, Instant},
};

use socket2::Socket;

/// How long the server reads on after it has ended its side of a connection, and how many bytes. If
/// a socket is closed with unread bytes, the kernel resets the connection, and the peer may lose
/// the last bytes that were sent to it (RFC 9112, section 9.6). Both are enough for a peer that had
/// sent something when it was told of the end.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 << 10;

/// Reads into `space`, even if signals come; returns how many bytes, 0 at the end of the
/// connection.
///
/// # Errors
/// When the read timeout is over (see [`would_block`]) or the connection is gone.
pub fn read(mut socket: &Socket, space: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(space) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Has reads wait for so long at the most.
///
/// # Errors
/// When the connection is gone.
pub fn limit_reads(socket: &Socket, time: Duration) -> io::Result<()> {
    // The kernel counts in microseconds, and takes 0 of them for ever.
    socket.set_read_timeout(Some(time.max(Duration::from_micros(1))))
}

/// Whether a read ended because of its timeout. Which of the two errors it gives depends on the
/// system.
pub fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lingered {
    /// The peer ended its side, too, so it has read what was sent; or it is gone.
    PeerEnded,
    /// The peer did not end its side in time.
    TimedOut,
}

/// Ends the server's side of a connection, and reads on until the peer ends its side, or has sent
/// too much, or 2 s are over.
pub fn linger(socket: &Socket) -> Lingered {
    let deadline = Instant::now() + LINGER;
    if socket.shutdown(Shutdown::Write).is_err() {
        return Lingered::PeerEnded;
    }
    let mut unread = [0; 1024];
    for _ in 0..LINGER_BYTES / unread.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || limit_reads(socket, left).is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pair;

    #[test]
    fn the_shortest_time_is_not_for_ever() {
        let (socket, _peer) = pair(1 << 20);
        limit_reads(&socket, Duration::from_nanos(1)).expect("a connection");
        assert!(socket.read_timeout().expect("a connection").is_some());
    }
}
