//! `txtcord health`: asks a running server whether it is alive, as a container's health check does.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::web::STATUS_TIME;

/// How long a connection is waited for. The system makes it, whatever the server does.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// How long the answer is waited for: the server has its time to find out how it is, and the machine may
/// be busy.
const ANSWER_TIME: Duration = STATUS_TIME.saturating_add(Duration::from_secs(2));

/// The most of an answer that is read, in bytes. The server's own answer is one line.
const ANSWER_BYTES: u64 = 64 << 10;

/// Asks the server that listens there.
///
/// # Errors
/// When it is not alive, in words.
pub fn ask(address: SocketAddr) -> Result<(), String> {
    match exchange(address) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => Ok(()),
        Ok(answer) => Err(format!("{address}: {}", answer.lines().last().unwrap_or("no answer"))),
        // So a socket says that its time is over.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(format!("{address}: no answer within {} seconds", ANSWER_TIME.as_secs()))
        }
        Err(error) => Err(format!("{address}: {error}")),
    }
}

fn exchange(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIME)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}
