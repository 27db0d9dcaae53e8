//! An echo on the server's own connection code, for the Autobahn suite.
//!
//! Request head, upgrade, reading, control frames, close codes and goodbye are the library's; only
//! what becomes of a message differs from a chat: it goes back as it came. One thread a client, and
//! that thread alone sends, so whatever finds the socket full is caught up on the spot.
//!
//! Prints the address it listens on, on a free port of the loopback, and serves until it is killed.

use std::{
    error::Error,
    fs::File,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread,
    time::Duration,
};

use clap::Parser as _;
use socket2::{Domain, Protocol, Socket, Type};
use tungstenite::{
    Bytes,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};
use txtcord::{
    config::Config,
    http::{Head, HttpRefusal, ReadError, head::read_head},
    lines::TextFile,
    outbox::{Last, More, Outbox, SEND_SLICE},
    socket::linger,
    upgrade::upgrade,
    websocket::{Connection, Received, Wait},
    wire::CutFrame,
};

/// The suite sends messages of up to 16 MiB.
const MAX_MESSAGE: usize = 64 << 20;

/// As the server's default; the suite reads what it asked for.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// As the server's, so that the connection code is seen to do with it.
const STACK: usize = 128 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    listener.set_tcp_nodelay(true)?;
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    listener.listen(128)?;
    let address = listener.local_addr()?.as_socket().ok_or("the listener has no address")?;
    println!("{address}");
    io::stdout().flush()?;
    loop {
        let (socket, _) = listener.accept()?;
        let serve = move || {
            if let Err(error) = converse(Outbox::new(socket)) {
                eprintln!("a client is dropped: {error}");
            }
        };
        thread::Builder::new().stack_size(STACK).spawn(serve)?;
    }
}

/// One connection: the request, then its echo.
fn converse(outbox: Outbox) -> io::Result<()> {
    let (response, received) = match shake_hands(&outbox) {
        Ok(upgrade) => upgrade,
        Err(ReadError::PeerGone) => return Ok(()),
        Err(ReadError::Refused(refused)) => return refuse(&outbox, &refused),
    };
    outbox.socket().set_write_timeout(Some(SEND_SLICE))?;
    send(&outbox, &response)?;
    // Nothing waits yet, so it is live.
    outbox.go_live();
    let outbox = Arc::new(outbox);
    let mut config = Config::parse_from(["echo"]);
    config.max_message = MAX_MESSAGE;
    echo(Connection::new(outbox.clone(), received, &config)?, &outbox)
}

/// The answer that accepts the upgrade, and what was received behind the request.
fn shake_hands(outbox: &Outbox) -> Result<(Vec<u8>, Vec<u8>), ReadError> {
    let Head { request, received } = read_head(outbox.socket(), Vec::new())?;
    let (response, _join) = upgrade(&request).map_err(ReadError::Refused)?;
    Ok((response, received))
}

fn refuse(outbox: &Outbox, refused: &HttpRefusal) -> io::Result<()> {
    outbox.send_now(&refused.response(&tungstenite::http::Method::GET))?;
    linger(outbox.socket());
    Ok(())
}

/// Reads and sends back until the connection is over.
fn echo(mut connection: Connection, outbox: &Outbox) -> io::Result<()> {
    loop {
        let frame = match connection.read(Wait::ForPeer) {
            Received::Text(text) => frame(text.into(), Data::Text),
            Received::Binary(bytes) => frame(bytes, Data::Binary),
            Received::Nothing => continue,
            Received::SocketFull(cut) => {
                catch_up(outbox, &cut)?;
                continue;
            }
            Received::Over(over) => {
                // An error means that the peer is gone, and with it the need to say goodbye.
                connection.finish(&over, |cut| drop(catch_up(outbox, &cut)));
                return Ok(());
            }
        };
        send(outbox, &frame)?;
    }
}

fn frame(data: Bytes, kind: Data) -> Vec<u8> {
    let frame = Frame::message(data, OpCode::Data(kind), true);
    let mut bytes = Vec::with_capacity(frame.len());
    frame.format(&mut bytes).expect("writing a frame to memory cannot fail");
    bytes
}

/// Sends what a full socket left of a control frame, on the thread that reads, which sends nothing else
/// meanwhile.
fn catch_up(outbox: &Outbox, cut: &CutFrame) -> io::Result<()> {
    let mut waiting = Vec::new();
    // A control frame holds nothing of a file.
    cut.peek(&TextFile::from(&Arc::new(File::open("/dev/null")?)), &mut waiting, MAX_MESSAGE)?;
    loop {
        let last = outbox.take_waiting(&mut waiting);
        send(outbox, &waiting)?;
        waiting.clear();
        if last == Last::Close {
            outbox.closed();
            return Ok(());
        }
        if outbox.go_live() {
            return Ok(());
        }
    }
}

fn send(outbox: &Outbox, bytes: &[u8]) -> io::Result<()> {
    outbox.send_patiently(bytes, More::No, STALL_TIMEOUT)
}
