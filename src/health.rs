//! `txtcord health`: asks a running server whether it is alive, as a container's health check does.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use crate::web::HUB_TIME;

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
        Err(error) => Err(format!("{address}: {error}")),
    }
}

fn exchange(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, HUB_TIME)?;
    // The server itself waits for its hub.
    stream.set_read_timeout(Some(HUB_TIME * 2))?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}
