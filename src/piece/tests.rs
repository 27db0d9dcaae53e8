use super::*;

fn run(lines: u64, ts: u64, from: Option<&str>) -> StampRun {
    StampRun { lines, ts, from: from.map(str::to_owned) }
}

/// Stamps come back as they went, runs of the same stamp joined.
#[track_caller]
fn check(stamps: &[StampRun]) {
    let count = stamps.iter().map(|run| run.lines).sum();
    let senders = senders_text(stamps.iter().map(|run| (run.lines, run.from.as_deref())));
    let back = parse_stamps(count, &times_text(stamps), &senders).expect("they are of all lines");
    let each = |runs: &[StampRun]| -> Vec<(u64, Option<String>)> {
        runs.iter().flat_map(|run| (0..run.lines).map(|_| (run.ts, run.from.clone()))).collect()
    };
    assert_eq!(each(&back), each(stamps));
    assert_eq!(parse_stamps(count + 1, &format!("1*{count}"), &senders), None);
}

#[test]
fn stamps_travel_as_text() {
    check(&[run(1, 5, None)]);
    check(&[run(3, 5, Some("ann")), run(2, 5, None)]);
    check(&[run(3, 5, Some("ann")), run(2, 7, Some("ann")), run(1, 7, Some("bob~k3 x"))]);
    check(&[run(1, 5, Some("a")), run(1, 6, None), run(1, 5, Some("a"))]);
}

#[test]
fn a_piece_loses_its_first_lines_with_their_stamps() {
    let mut piece = Piece {
        first_id: 10,
        lines: b"1\n22\n333\n".to_vec(),
        origin: None,
        key: None,
        stamps: vec![run(2, 5, None), run(1, 6, Some("ann"))],
    };
    assert_eq!((piece.count(), piece.last_id()), (3, 12));
    piece.begin_at(11);
    assert_eq!(
        (&piece.lines[..], &piece.stamps[..]),
        (&b"22\n333\n"[..], &[run(1, 5, None), run(1, 6, Some("ann"))][..])
    );
    piece.begin_at(12);
    assert_eq!(
        (&piece.lines[..], &piece.stamps[..]),
        (&b"333\n"[..], &[run(1, 6, Some("ann"))][..])
    );
}
