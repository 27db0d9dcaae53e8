use std::thread;

use super::*;
use crate::{
    lines::TextFile,
    testing::{CLOSE, PING, Peer, TEXT, file_of, frame_of, frames_in, pair},
    wire::{ErrorAnswer, ping_frame},
};

const SMALL: usize = 4096;
const BYE: CloseReason = CloseReason::Stopping;

/// A client that is live.
fn live() -> (Outbox, Peer) {
    let (socket, peer) = pair(SMALL);
    let outbox = Outbox::new(socket);
    assert!(outbox.go_live());
    (outbox, peer)
}

/// Frames of messages of these sizes, with ids from `first_id`.
fn batch(first_id: u64, sizes: &[usize]) -> Frames {
    let mut frames = Frames::default();
    for (id, size) in (first_id..).zip(sizes) {
        frames.push(&vec![b'1'; *size], 0, id, None, None);
    }
    frames
}

/// A client whose socket was found full in the middle of message 1, and the rest of that frame.
fn behind() -> (Outbox, Peer, CutFrame) {
    let (outbox, peer) = live();
    let frames = batch(1, &[100_000, 10]);
    let Offered::SocketFull { cut, next_id: 2 } = outbox.offer(&frames, 0, &[]) else {
        panic!("it takes message 1 whole")
    };
    assert!(outbox.is_behind());
    (outbox, peer, cut)
}

/// The rest of a frame whose message is nothing but ones.
fn rest_of(cut: &CutFrame) -> Vec<u8> {
    let mut rest = Vec::new();
    cut.peek(&TextFile::from(&file_of(&[b'1'; 100_000])), &mut rest, 1 << 20).unwrap();
    rest
}

fn waiting(outbox: &Outbox) -> (Vec<u8>, Last) {
    let mut out = Vec::new();
    let last = outbox.take_waiting(&mut out);
    (out, last)
}

#[test]
fn a_live_client_is_sent_whole_batches() {
    let (outbox, mut peer) = live();
    let frames = batch(1, &[3, 200, 1000]);
    assert_eq!(outbox.offer(&frames, 0, &[]), Offered::Sent);
    peer.read(usize::MAX);
    assert_eq!(peer.bytes, frames.bytes());
    assert!(!outbox.is_behind());
}

#[test]
fn the_rest_of_a_cut_frame_completes_it() {
    let (_outbox, mut peer, cut) = behind();
    assert!(cut.is_begun());
    peer.read(usize::MAX);
    let got = [&peer.bytes[..], &rest_of(&cut)].concat();
    assert!(batch(1, &[100_000]).bytes() == got);
}

#[test]
fn a_client_that_is_behind_is_offered_nothing_until_it_is_live_again() {
    let (outbox, mut peer, _) = behind();
    let later = batch(3, &[10]);
    assert_eq!(outbox.offer(&later, 0, &[]), Offered::NotLive);
    peer.read(usize::MAX);
    peer.bytes.clear();
    assert!(outbox.go_live());
    assert_eq!(outbox.offer(&later, 0, &[]), Offered::Sent);
    peer.read(usize::MAX);
    assert_eq!(peer.bytes, later.bytes());
}

#[test]
fn a_socket_that_is_full_between_two_frames_leaves_the_second_one_whole() {
    let (outbox, mut peer) = live();
    while outbox.send_now(&[0; 512]).unwrap() > 0 {}
    let frames = batch(7, &[10]);
    let Offered::SocketFull { cut, next_id } = outbox.offer(&frames, 0, &[]) else {
        panic!("it is full")
    };
    assert!(!cut.is_begun());
    assert_eq!((&rest_of(&cut)[..], next_id), (frames.bytes(), 8));
    assert_eq!(waiting(&outbox), (vec![], Last::No));
    peer.read(usize::MAX);
    assert!(outbox.go_live());
}

#[test]
fn control_frames_go_to_a_live_client_at_once_and_wait_for_one_that_is_behind() {
    let (outbox, mut peer) = live();
    assert_eq!(outbox.control(&ping_frame()), ControlOutcome::Done);
    assert_eq!(peer.frames().len(), 1);

    let (outbox, _, _) = behind();
    let answers = ["a", "b", "c"].map(|words| ErrorAnswer::NotJson.frame(words));
    for answer in &answers {
        assert_eq!(outbox.control(answer), ControlOutcome::Done);
    }
    assert!(!outbox.go_live(), "answers wait");
    assert_eq!(waiting(&outbox), (answers.concat(), Last::No));
    assert!(outbox.go_live());
}

#[test]
fn a_control_frame_waits_for_the_end_of_a_cut_frame() {
    let (outbox, mut peer, cut) = behind();
    assert_eq!(outbox.control(&ping_frame()), ControlOutcome::Done);
    peer.read(usize::MAX);
    peer.bytes.extend(rest_of(&cut));
    peer.bytes.extend(waiting(&outbox).0);
    let (frames, behind) = frames_in(&peer.bytes);
    let firsts: Vec<_> = frames.iter().map(|frame| frame.first).collect();
    assert_eq!((firsts, behind), (vec![TEXT, PING], 0));
}

#[test]
fn a_client_falls_behind_when_a_control_frame_does_not_fit_its_socket() {
    let (outbox, mut peer) = live();
    let answer = ErrorAnswer::NotJson.frame(&"x".repeat(50_000));
    let ControlOutcome::SocketFull(cut) = outbox.control(&answer) else { panic!("it fits") };
    assert!(outbox.is_behind());
    assert_eq!(outbox.offer(&batch(1, &[1]), 0, &[]), Offered::NotLive);
    peer.read(usize::MAX);
    peer.bytes.extend(rest_of(&cut));
    assert!(peer.bytes == answer);
}

#[test]
fn only_so_many_answers_wait_for_a_client_but_a_close_frame_always_does() {
    let (outbox, _peer, _) = behind();
    let answer = ErrorAnswer::NotJson.frame(&"x".repeat(1000));
    for _ in 0..100 {
        assert_eq!(outbox.control(&answer), ControlOutcome::Done);
    }
    // The shortest frames fill the room that is left.
    for _ in 0..answer.len() {
        assert_eq!(outbox.control(&ping_frame()), ControlOutcome::Done);
    }
    assert_eq!(outbox.close(BYE), ControlOutcome::Done);
    let (waiting, last) = waiting(&outbox);
    let (frames, behind) = frames_in(&waiting);
    assert_eq!((behind, last), (0, Last::Close));
    let texts = frames.iter().filter(|frame| frame.first == TEXT).count();
    assert_eq!(texts, CONTROL_LIMIT / answer.len());
    let close = close_frame(BYE).len();
    let held = waiting.len() - close;
    assert!((CONTROL_LIMIT - 1..=CONTROL_LIMIT).contains(&held), "{held}");
    assert_eq!(frames.last().map(|frame| frame.first), Some(CLOSE));
}

#[test]
fn nothing_follows_a_close_frame() {
    #[track_caller]
    fn check(outbox: &Outbox, peer: &mut Peer, cut: &CutFrame) {
        assert_eq!(outbox.offer(&batch(1, &[1]), 0, &[]), Offered::NotLive);
        assert_eq!(outbox.control(&ping_frame()), ControlOutcome::Done);
        assert_eq!(outbox.close(BYE), ControlOutcome::Done);
        peer.read(usize::MAX);
        peer.bytes.extend(rest_of(cut));
        peer.bytes.extend(waiting(outbox).0);
        let (frames, rest) = frames_in(&peer.bytes);
        let closes = frames.iter().filter(|frame| frame.first == CLOSE).count();
        assert_eq!((closes, frames.last().unwrap().first, rest), (1, CLOSE, 0));
    }
    let (outbox, mut peer) = live();
    assert_eq!(outbox.close(BYE), ControlOutcome::Done);
    assert!(outbox.is_closed());
    check(&outbox, &mut peer, &CutFrame::default());

    let (outbox, mut peer, cut) = behind();
    assert_eq!(outbox.close(BYE), ControlOutcome::Done);
    assert!(outbox.is_behind() && !outbox.is_closed());
    assert!(!outbox.go_live(), "a close frame waits");
    check(&outbox, &mut peer, &cut);
    assert!(!outbox.go_live(), "the close frame is on its way");

    let (outbox, mut peer) = live();
    let long = frame_of(CLOSE, &vec![b'x'; 50_000]);
    let ControlOutcome::SocketFull(cut) = outbox.close_with(&long) else { panic!("it fits") };
    assert!(outbox.is_behind() && !outbox.go_live());
    check(&outbox, &mut peer, &cut);
}

#[test]
fn a_thread_that_waits_for_the_close_frame_is_told_when_it_is_sent_or_cannot_be() {
    let long = Duration::from_secs(60);
    let (outbox, _peer, _) = behind();
    let _ = outbox.close(BYE);
    assert!(!outbox.wait_closed(Duration::ZERO));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| outbox.wait_closed(long));
        outbox.closed();
        assert!(waits.join().unwrap());
    });

    let (outbox, _peer, _) = behind();
    let _ = outbox.close(BYE);
    outbox.abort();
    assert!(outbox.wait_closed(Duration::ZERO) && outbox.is_closed());
    // Without a close frame there is nothing to wait for.
    assert!(live().0.wait_closed(Duration::ZERO));
}

#[test]
fn an_aborted_client_takes_nothing_and_its_reader_wakes_up() {
    let (outbox, mut peer, _) = behind();
    outbox.abort();
    peer.read(usize::MAX);
    let before = peer.bytes.len();
    assert_eq!(outbox.offer(&batch(3, &[1]), 0, &[]), Offered::NotLive);
    assert_eq!(outbox.control(&ping_frame()), ControlOutcome::Done);
    assert!(outbox.go_live(), "the catch-up thread lets go of it then");
    assert_eq!(outbox.offer(&batch(3, &[1]), 0, &[]), Offered::NotLive);
    peer.read(usize::MAX);
    assert_eq!(peer.bytes.len(), before);
    assert_eq!(crate::socket::read(outbox.socket(), &mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_client_that_is_gone_is_closed() {
    let (outbox, peer) = live();
    drop(peer);
    assert_eq!(outbox.offer(&batch(1, &[1]), 0, &[]), Offered::NotLive);
    assert!(outbox.is_closed());
    let (outbox, peer) = live();
    drop(peer);
    assert_eq!(outbox.control(&ping_frame()), ControlOutcome::Done);
    assert!(outbox.is_closed());
}

#[test]
fn a_patient_send_ends_when_the_peer_takes_nothing_or_is_gone() {
    let (outbox, mut peer) = live();
    outbox.socket().set_write_timeout(Some(Duration::from_millis(1))).unwrap();
    assert!(outbox.send_patiently(&[7; 100], More::No, Duration::ZERO).is_ok());
    let result = outbox.send_patiently(&[7; 100_000], More::No, Duration::ZERO);
    assert_eq!(result.expect_err("it is full").kind(), io::ErrorKind::TimedOut);
    peer.read(usize::MAX);
    assert!(peer.bytes.len() < 100 + 100_000, "it took everything");
    drop(peer);
    let result = outbox.send_patiently(&[7; 10], More::No, Duration::MAX);
    assert_eq!(result.expect_err("it is gone").kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_patient_send_goes_on_while_the_peer_takes_some_bytes_of_a_long_frame() {
    // A busy machine may hold up the peer for longer than a short time.
    let mut times = [2, 10, 50].map(Duration::from_secs).into_iter();
    assert!(times.any(goes_on_while_the_peer_takes_some_bytes), "given up");
}

fn goes_on_while_the_peer_takes_some_bytes(stall_timeout: Duration) -> bool {
    let (outbox, mut peer) = live();
    outbox.socket().set_write_timeout(Some(Duration::from_millis(5))).unwrap();
    let frame = vec![7; 300_000];
    let begun = Instant::now();
    let is_sent = thread::scope(|scope| {
        let sending =
            scope.spawn(|| outbox.send_patiently(&frame, More::No, stall_timeout).is_ok());
        while !sending.is_finished() {
            peer.read(5_000);
            // The peer must be slow, and there is no event to wait for.
            thread::sleep(stall_timeout / 26);
        }
        sending.join().unwrap()
    });
    let took = begun.elapsed();
    assert!(!is_sent || took > 2 * stall_timeout, "too fast to be slow: {took:?}");
    is_sent
}
