use std::{collections::BTreeSet, fs::File};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    live::{FRAMES_KEPT, SHORT_REST},
    *,
};
use crate::{
    lines::TextFile,
    testing::{CLOSE, PING, TEXT, file_of, frame_of, frames_in, tries},
};

proptest! {
    #![proptest_config(tries(60))]

    #[test]
    fn an_error_answer_is_json_whatever_it_says(words: String) {
        let (frames, rest) = frames_in(&ErrorAnswer::NotJson.frame(&words));
        prop_assert_eq!((frames.len(), rest), (1, 0));
        let json: Value = serde_json::from_slice(&frames[0].payload).expect("it is JSON");
        prop_assert_eq!(json, json!({"type": "error", "code": "not_json", "message": words}));
    }
}

/// Frames of messages of these sizes, with these gaps between their ids. Also the end of each frame
/// with its id, and the file of the messages, with some bytes before each.
fn framed(batch: &[(usize, u64)]) -> (Frames, Vec<(usize, u64)>, Vec<u8>) {
    let mut frames = Frames::default();
    let mut ends = Vec::new();
    let mut file = Vec::new();
    let mut id = 0;
    for (&(size, gap), letter) in batch.iter().zip(b'a'..) {
        id += gap;
        file.extend_from_slice(b"\n ");
        let data = vec![letter; size];
        frames.push(&data, file.len() as u64, id, Some(7), None);
        file.extend(data);
        ends.push((frames.bytes().len(), id));
    }
    (frames, ends, file)
}

/// The bytes of a cut frame, read in pieces of at most `most` bytes.
fn rest_of(cut: &CutFrame, file: &Arc<File>, most: usize) -> Vec<u8> {
    let mut cut = cut.clone();
    let mut rest = Vec::new();
    while !cut.is_empty() {
        let before = rest.len();
        cut.peek(&TextFile::from(file), &mut rest, most).expect("the file can be read");
        assert!((1..=most).contains(&(rest.len() - before)), "pieces of up to {most} bytes");
        cut.advance(rest.len() - before);
    }
    rest
}

proptest! {
    #![proptest_config(tries(60))]

    #[test]
    fn a_frame_that_is_cut_anywhere_leaves_its_rest_and_the_id_that_follows(
        batch in prop::collection::vec((0..900usize, 1..4u64), 1..5),
        piece in 1..700usize,
    ) {
        let (frames, ends, file) = framed(&batch);
        let file = file_of(&file);
        let last_id = ends[ends.len() - 1].1;
        prop_assert_eq!((frames.len(), frames.next_id()), (ends.len(), last_id + 1));
        let bytes = frames.bytes();
        for sent in 0..bytes.len() {
            let (cut, next_id) = frames.cut(sent);
            let rest = rest_of(&cut, &file, piece);
            // With the rest, the peer has all messages before the next id, and nothing else.
            let whole = ends.iter().rev().find(|(_, id)| *id < next_id).map_or(0, |(end, _)| *end);
            prop_assert!(whole > sent && rest == bytes[sent..whole], "cut at {}", sent);
            let is_between = sent == 0 || ends.iter().any(|(end, _)| *end == sent);
            prop_assert_eq!(cut.is_begun(), !is_between);
            // No frame but the cut one is in the rest.
            let cut = ends.iter().filter(|(end, _)| (sent + 1..whole).contains(end)).count();
            prop_assert_eq!(cut, 0, "cut at {}", sent);
            prop_assert!(next_id <= last_id + 1);
        }
    }

    #[test]
    fn messages_are_found_by_their_ids(
        batch in prop::collection::vec((0..300usize, 1..4u64), 1..5),
    ) {
        let (frames, ends, _) = framed(&batch);
        for id in 0..=frames.next_id() {
            let before = ends.iter().filter(|(_, other)| *other < id).count();
            prop_assert_eq!(frames.count_from(id), (ends.len() - before) as u64);
            prop_assert_eq!(frames.start_of(id), if before == 0 { 0 } else { ends[before - 1].0 });
        }
    }
}

#[test]
fn the_header_says_the_length_in_as_few_bytes_as_it_takes() {
    #[track_caller]
    fn check(payload: usize, ts: Option<u64>) {
        let around = match ts {
            None => format!(r#"{{"type":"new_message","data":,"id":{}}}"#, 42).len(),
            Some(ts) => format!(r#"{{"type":"new_message","data":,"id":42,"ts":{ts}}}"#).len(),
        };
        let data = "1".repeat(payload - around);
        let mut frames = Frames::default();
        frames.push(data.as_bytes(), 0, 42, ts, None);
        let stamp = ts.map_or(String::new(), |ts| format!(r#","ts":{ts}"#));
        let json = format!(r#"{{"type":"new_message","data":{data},"id":42{stamp}}}"#);
        assert_eq!(json.len(), payload);
        assert!(frames.bytes() == frame_of(TEXT, json.as_bytes()), "payload of {payload}");
    }
    for payload in [45, 125, 126, 127, 65_535, 65_536, 65_537] {
        check(payload, None);
        check(payload.max(90), Some(1_732_370_535_123));
        check(payload.max(60), Some(0));
    }
}

#[test]
fn a_verified_sender_stands_after_the_time_as_a_json_string() {
    let mut frames = Frames::default();
    frames.push(b"1", 0, 7, Some(8), Some("ann"));
    frames.push(b"2", 2, 8, Some(8), None);
    frames.push(b"3", 4, 9, Some(8), Some("a\"n\\n ~\u{e9}"));
    let texts = [
        r#"{"type":"new_message","data":1,"id":7,"ts":8,"from":"ann"}"#,
        r#"{"type":"new_message","data":2,"id":8,"ts":8}"#,
        "{\"type\":\"new_message\",\"data\":3,\"id\":9,\"ts\":8,\"from\":\"a\\\"n\\\\n ~\u{e9}\"}",
    ];
    let expected: Vec<_> = texts.iter().flat_map(|text| frame_of(TEXT, text.as_bytes())).collect();
    assert_eq!(frames.bytes(), expected);
}

#[test]
fn numbers_have_as_many_digits_as_are_written() {
    let powers = (0..20).map(|power| 10_u64.pow(power));
    for number in powers.flat_map(|n| [n - 1, n, n + 1]).chain([0, u64::MAX]) {
        let mut written = Vec::new();
        push_number(number, &mut written);
        assert_eq!(written, number.to_string().as_bytes());
        assert_eq!(digits(number), written.len(), "{number}");
    }
}

#[test]
fn frames_that_are_forgotten_give_back_the_memory_of_a_huge_batch() {
    let mut frames = Frames::default();
    frames.push(&vec![b'1'; FRAMES_KEPT * 2], 0, 9, None, None);
    frames.clear();
    assert!(frames.is_empty());
    assert_eq!((frames.bytes(), frames.len(), frames.next_id()), (&b""[..], 0, 0));
    assert!(frames.bytes.capacity() <= FRAMES_KEPT);
}

#[test]
fn control_frames_are_as_the_rfc_has_them() {
    assert_eq!(ping_frame(), frame_of(PING, b""));
    let close = close_frame(CloseReason::PutAway);
    assert_eq!(close, frame_of(CLOSE, b"\x03\xe9the channel was put away"));
}

#[test]
fn error_answers_have_the_codes_of_the_wire_contract() {
    let all = [
        (ErrorAnswer::NotJson, "not_json"),
        (ErrorAnswer::BinaryUnsupported, "binary_unsupported"),
        (ErrorAnswer::StorageFull, "storage_full"),
        (ErrorAnswer::ShuttingDown, "shutting_down"),
    ];
    for (refusal, code) in all {
        let json = format!(r#"{{"type":"error","code":"{code}","message":"\"why\" \\"}}"#);
        assert_eq!(refusal.frame(r#""why" \"#), frame_of(TEXT, json.as_bytes()));
    }
}

#[test]
fn ten_thousand_clients_in_the_middle_of_long_messages_hold_none_of_them() {
    let mut frames = Frames::default();
    frames.push(&[b'1'; 100_000], 0, 1, Some(7), None);
    for sent in [0, 1, 20, 50_000, 99_000] {
        let (cut, _) = frames.cut(sent);
        assert!(cut.before.len() + cut.after.len() <= 2 * SHORT_REST, "cut at {sent}");
    }
}

proptest! {
    #![proptest_config(tries(300))]

    #[test]
    fn frames_that_are_removed_leave_the_others_as_they_would_be_without_them(
        lens in prop::collection::vec(0..20_usize, 0..12),
        removed in prop::collection::vec(1..14_u64, 0..12),
        published in 0..12_usize,
        sent in 0..400_usize,
    ) {
        let removed: Vec<u64> = removed.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let published = published.min(lens.len());
        let (mut frames, mut expected) = (Frames::default(), Frames::default());
        let mut expected_published = 0;
        for (at, len) in lens.iter().enumerate() {
            let (id, data) = (at as u64 + 1, "7".repeat(len + 1));
            frames.push(data.as_bytes(), 100 * id, id, None, None);
            if !removed.contains(&id) {
                expected.push(data.as_bytes(), 100 * id, id, None, None);
                expected_published += usize::from(at < published);
            }
        }
        let gone = frames.remove(&removed, published);
        prop_assert_eq!(published - gone, expected_published);
        prop_assert_eq!(frames.bytes(), expected.bytes());
        prop_assert_eq!(frames.len(), expected.len());
        for id in 0..15 {
            prop_assert_eq!(frames.start_of(id), expected.start_of(id));
        }
        if let Some(sent) = expected.bytes().len().checked_sub(1).map(|last| sent.min(last)) {
            prop_assert_eq!(frames.cut(sent), expected.cut(sent));
        }
    }
}
