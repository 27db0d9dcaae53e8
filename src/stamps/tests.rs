use std::{collections::BTreeMap, fs::File, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::testing::{file_of, tries};

/// The time of the examples.
const TIME: &str = "2026-11-23T14:02:15.123Z";
const MS: u64 = 1_795_442_535_123;

#[test]
fn a_stamp_is_written_as_the_file_promises_and_read_back() {
    let mut new = NewStamps::default();
    new.push(1, MS, Some("ann"));
    new.push(2, MS, None);
    new.push(0, MS, None);
    new.push(1, 1_000, Some("Ann Lee ü~k3v9q2m7x4ab"));
    let text = std::str::from_utf8(new.bytes()).unwrap();
    let last = "1970-01-01T00:00:01.000Z Ann Lee ü~k3v9q2m7x4ab";
    assert_eq!(text, format!("{TIME} ann\n{TIME} -\n{TIME} -\n{last}\n"));
    assert_eq!(
        Stamp::parse(last.as_bytes()),
        Stamp { ts: Some(1_000), from: Some("Ann Lee ü~k3v9q2m7x4ab") }
    );
    new.clear();
    assert_eq!(new.bytes(), b"");
}

#[test]
fn a_line_that_is_no_stamp_says_nothing() {
    #[track_caller]
    fn check(line: impl AsRef<[u8]>, ts: Option<u64>, from: Option<&str>) {
        let line = line.as_ref();
        assert_eq!(Stamp::parse(line), Stamp { ts, from }, "{:?}", String::from_utf8_lossy(line));
    }
    check(format!("{TIME} ann"), Some(MS), Some("ann"));
    check(format!("{TIME} -"), Some(MS), None);
    check(format!("{TIME} a b  c"), Some(MS), Some("a b  c"));
    check("- ann", None, Some("ann"));
    check("- -", None, None);
    let long = "x".repeat(SENDER_BYTES);
    check(format!("{TIME} {long}"), Some(MS), Some(&long));
    check(format!("{TIME} {long}x"), None, None);
    for junk in [
        "",
        " ",
        "-",
        "- ",
        TIME,
        &format!("{TIME} "),
        &format!("{TIME}\tann"),
        &format!("{TIME} ann\r"),
        &format!("{TIME} a\u{1}n"),
        &format!(" {TIME} ann"),
        "2026-11-23T14:02:15Z ann",
        "2026-11-23T14:02:15.1234Z ann",
        "2026-11-23 14:02:15.123Z ann",
        "2026-13-23T14:02:15.123Z ann",
        "2026-02-30T14:02:15.123Z ann",
        "1969-11-23T14:02:15.123Z ann",
        "2026-11-23T14:02:15.123+ ann",
        "\0\0\0\0",
    ] {
        check(junk, None, None);
    }
    check([TIME.as_bytes(), b" \xff\xfe"].concat(), None, None);
}

#[test]
fn no_sender_can_be_taken_for_another_or_end_a_line() {
    let too_long = "x".repeat(SENDER_BYTES + 1);
    for from in ["", "-", "a\nb", "a\rb", "\u{0}", "\u{85}", &too_long] {
        let mut new = NewStamps::default();
        new.push(1, MS, Some(from));
        assert_eq!(new.bytes(), format!("{TIME} -\n").as_bytes(), "{from:?}");
    }
    for from in ["--", "a b", "é", "ann~k3v9q2m7x4ab"] {
        let mut new = NewStamps::default();
        new.push(1, MS, Some(from));
        assert_eq!(new.bytes(), format!("{TIME} {from}\n").as_bytes());
    }
}

#[test]
fn the_time_of_acceptance_never_goes_back() {
    let now = acceptance_time(0);
    assert!(now > MS && now < LAST_MS, "the clock is not before this was written: {now}");
    assert_eq!(acceptance_time(now + 1_000_000), now + 1_000_000);
    let mut new = NewStamps::default();
    new.push(1, acceptance_time(u64::MAX), None);
    assert!(new.bytes().starts_with(b"9999-12-31T23:59:59.999Z "));
}

/// One line of a stamps file, and how often it stands there.
fn some_line() -> impl Strategy<Value = (String, usize)> {
    let line = prop_oneof![
        4 => (0..2_000_000u64, prop::option::of("[a-z~]{1,40}")).prop_map(|(ms, from)| {
            let mut new = NewStamps::default();
            new.push(1, MS + ms, from.as_deref());
            String::from_utf8(new.bytes().to_vec()).unwrap()
        }),
        2 => Just("- -\n".to_owned()),
        1 => Just("junk\n".to_owned()),
        1 => Just(format!("{TIME} {}\n", "x".repeat(10_000))),
    ];
    (line, prop_oneof![4 => 1..4usize, 1 => 200..600usize])
}

fn indexed(file: &Arc<File>, bytes: &[u8]) -> Index {
    let mut index = Index::default();
    index.read_on(file, bytes.len() as u64, u64::MAX).unwrap();
    index
}

proptest! {
    #![proptest_config(tries(60))]

    #[test]
    fn each_line_has_its_own_stamp_wherever_one_begins_to_read(
        lines in prop::collection::vec(some_line(), 0..12),
        split in any::<prop::sample::Index>(),
        asked in prop::collection::vec(any::<prop::sample::Index>(), 6),
    ) {
        let lines: Vec<String> =
            lines.iter().flat_map(|(line, times)| vec![line.clone(); *times]).collect();
        let bytes = lines.concat().into_bytes();
        let file = file_of(&bytes);
        let index = indexed(&file, &bytes);
        prop_assert_eq!((index.lines(), index.end()), (lines.len() as u64, bytes.len() as u64));

        // Lines that are appended while the server runs are the same as those of a start.
        let split = lines.iter().take(split.index(lines.len() + 1)).map(String::len).sum::<usize>();
        let mut grown = indexed(&file, &bytes[..split]);
        grown.take_in(&bytes[split..]);
        prop_assert_eq!(&grown, &index);

        for from in asked {
            let from = from.index(lines.len() + 1) as u64 + 1;
            for step in [1, 7] {
                let mut reader = Stamps::InFile(StampPart::new(&file, &index, from)).read();
                for id in (from..=lines.len() as u64).step_by(step) {
                    let line = &lines[id as usize - 1];
                    prop_assert_eq!(reader.of(id), Stamp::parse(line.trim_end().as_bytes()));
                }
            }
        }
    }

    #[test]
    fn the_first_line_at_or_after_a_time_is_found_among_lines_without_one(
        steps in prop::collection::vec((0..4u64, 0..5usize, 1..400usize), 0..12),
        asked in prop::collection::vec(0..40u64, 8),
    ) {
        let mut bytes = Vec::new();
        // The time of each line, as it counts.
        let mut times = Vec::new();
        let mut now = 0;
        for (pause, unknown, known) in steps {
            bytes.extend(NOTHING.repeat(unknown));
            times.extend(vec![now; unknown]);
            now += pause;
            let mut new = NewStamps::default();
            new.push(known as u64, now, None);
            bytes.extend_from_slice(new.bytes());
            times.extend(vec![now; known]);
        }
        let file = file_of(&bytes);
        let index = indexed(&file, &bytes);
        prop_assert_eq!(index.latest(), now);
        let next_id = times.len() as u64 + 1;
        for ts in asked {
            let expected = times.iter().position(|time| *time >= ts).map_or(next_id, |at| at as u64 + 1);
            let expected = if ts == 0 { 1 } else { expected };
            prop_assert_eq!(Since::in_file(&file, &index, ts, next_id).first_id().unwrap(), expected);
        }
    }
}

#[test]
fn ten_million_stamps_take_little_memory_and_a_time_is_found_with_one_look() {
    let mut index = Index::default();
    let mut new = NewStamps::default();
    for minute in 0..1_000 {
        new.clear();
        new.push(10_000, MS + minute * 60_000, Some("ann"));
        index.take_in(new.bytes());
    }
    assert_eq!(index.lines(), 10_000_000);
    assert!(index.memory() < 2 << 20, "{} bytes", index.memory());
    // So little of the file is read that it takes no time.
    let far = index.near_time(MS + 500 * 60_000).expect("a mark");
    assert!((5_000_000 - 600..=5_000_001).contains(&far.id), "{far:?}");
}

#[test]
fn a_file_that_was_cut_says_nothing_until_the_hub_has_seen_it() {
    let mut new = NewStamps::default();
    (0..4).for_each(|at| new.push(1, MS + at, None));
    let file = file_of(new.bytes());
    let index = indexed(&file, new.bytes());
    let stamps = Stamps::InFile(StampPart::new(&file, &index, 1));
    assert_eq!(stamps.clone().read().of(2).ts, Some(MS + 1));
    file.set_len(index.end() - 1).unwrap();
    assert_eq!(stamps.read().of(2), Stamp::default());
    assert_eq!(Since::in_file(&file, &index, MS, 5).first_id().unwrap(), 5);
}

#[test]
fn all_that_was_remembered_is_told_of_the_lines_that_were_asked_for() {
    let mut recent = Recent::default();
    recent.push(2, 10, Some("ann"));
    let mut reader = Stamps::Remembered(recent).read();
    let told: BTreeMap<u64, Option<u64>> = (1..4).map(|id| (id, reader.of(id).ts)).collect();
    assert_eq!(told, BTreeMap::from([(1, None), (2, Some(10)), (3, Some(10))]));
    assert_eq!(Stamps::default().read().of(1), Stamp::default());
}

#[test]
fn lines_of_which_nothing_is_known_keep_their_places() {
    let mut new = NewStamps::default();
    new.push(1, MS, None);
    new.push_unknown(2);
    new.push(1, MS, Some("ann"));
    let text = std::str::from_utf8(new.bytes()).expect("stamps are text");
    let stamps: Vec<_> = text.lines().map(|line| Stamp::parse(line.as_bytes())).collect();
    let known = Stamp { ts: Some(MS), from: None };
    let by_ann = Stamp { ts: Some(MS), from: Some("ann") };
    assert_eq!(stamps, [known, Stamp::default(), Stamp::default(), by_ann]);
}
