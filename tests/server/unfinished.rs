//! Messages and bodies that peers begin and do not finish, and that wait for the disk.

use std::thread;

use crate::support::*;

/// What the server may have of the memory that its process may have: an eighth.
const ROOM: u64 = 40 << 20;

/// So much of a message or body comes.
const COME: usize = 900_000;

const PEERS: usize = 80;

/// A server whose process may have eight times [`ROOM`].
fn server() -> Server {
    Setup::new().after(&format!("ulimit -d {}", (8 * ROOM) >> 10)).start()
}

/// Checks that the server has not taken much more than it may for what is unfinished, and that people
/// talk meanwhile.
#[track_caller]
fn check(server: &Server) {
    let taken = server.status("VmHWM") << 10;
    assert!(taken < ROOM + ROOM / 2, "{taken} bytes");
    server.join().says("\"meanwhile\"");
}

/// Whether anything has come that was not read.
fn is_answered(peer: &Raw) -> bool {
    peer.stream.set_nonblocking(true).expect("a socket");
    let is_answered = peer.stream.peek(&mut [0]).is_ok();
    peer.stream.set_nonblocking(false).expect("a socket");
    is_answered
}

/// The peers that were turned away, and the others. There must be some of both.
#[track_caller]
fn turned_away(peers: Vec<Raw>) -> (Vec<Raw>, Vec<Raw>) {
    const FIT: usize = ROOM as usize >> 20;
    until("those that find no room are turned away", || {
        peers.iter().filter(|peer| is_answered(peer)).count() >= PEERS - FIT
    });
    let (turned_away, waiting): (Vec<_>, Vec<_>) = peers.into_iter().partition(is_answered);
    assert!(waiting.len() >= FIT / 2, "{} wait", waiting.len());
    (turned_away, waiting)
}

#[test]
fn unfinished_messages_have_a_share_of_the_memory_and_short_ones_go_on() {
    const LENGTH: usize = 1 << 20;
    let server = server();
    let mut peers: Vec<Raw> = (0..PEERS).map(|_| server.raw_join()).collect();
    let message = frame(TEXT, [b'1'; LENGTH]);
    for peer in &mut peers {
        peer.try_send(&message[..COME]);
    }
    let (turned_away, waiting) = turned_away(peers);
    for mut peer in turned_away {
        let close = peer.frame();
        let reason = String::from_utf8_lossy(&close.payload[2..]);
        assert_eq!((close.first, &close.payload[..2]), (CLOSE, &1013_u16.to_be_bytes()[..]));
        assert!(reason.contains("come back later"), "{reason}");
    }
    check(&server);
    // The others make room as they leave.
    drop(waiting);
    until("a long message is heard again", || {
        let mut peer = server.raw_join();
        peer.send(&message);
        let frames = std::iter::repeat_with(|| peer.frame());
        let mut last =
            frames.skip_while(|frame| frame.first == TEXT && frame.payload.len() < LENGTH);
        last.next().is_some_and(|frame| frame.first == TEXT)
    });
    check(&server);
}

#[test]
fn unfinished_bodies_have_a_share_of_the_memory_and_short_messages_go_on() {
    let server = server();
    let head = format!(
        "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
         Content-Length: {}\r\n\r\n",
        8 << 20
    );
    let mut peers: Vec<Raw> = (0..PEERS).map(|_| server.raw()).collect();
    for peer in &mut peers {
        peer.try_send([head.as_bytes(), &[b' '; COME]].concat());
    }
    let (turned_away, waiting) = turned_away(peers);
    for mut peer in turned_away {
        let answer = peer.response();
        assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true));
    }
    check(&server);
    drop(waiting);
}

#[test]
fn long_messages_that_wait_for_the_disk_take_little_memory() {
    const MESSAGES: usize = 120;
    let name = "long_messages_that_wait_for_the_disk_take_little_memory";
    let server = Server::start();
    let Some(_meddling) = meddle(&server, name, "fdatasync:delay_enter=60000") else { return };
    let mut ann = server.join();
    let message = frame(TEXT, format!("\"{}\"", "x".repeat(1_000_000)));
    thread::scope(|scope| {
        let mut raw = server.raw_join();
        scope.spawn(move || {
            (0..MESSAGES).for_each(|_| raw.send(&message));
            // It has said all of it; what others say comes after that, and ends this.
            while raw.text().len() > 1_000 {}
        });
        (0..MESSAGES).for_each(|_| assert!(matches!(ann.next(), Frame::Message(_))));
        ann.says("\"the end\"");
    });
    let taken = server.status("VmHWM") << 10;
    assert!(taken < 80 << 20, "{taken} bytes");
}
