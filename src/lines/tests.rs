use proptest::prelude::*;

use super::*;
use crate::testing::{file_of, tries};

/// A line that owns its text.
#[derive(Debug, PartialEq)]
enum Owned {
    Whole(Vec<u8>),
    TooLong(u64),
    Unfinished(u64),
}

/// The lines that a simple split finds, each with the offset after it.
fn split(stretch: &[u8], offset: u64, limit: usize) -> Vec<(Owned, u64)> {
    let mut lines = Vec::new();
    let mut offset = offset;
    for piece in stretch.split_inclusive(|&byte| byte == b'\n') {
        offset += piece.len() as u64;
        let line = match piece.strip_suffix(b"\n") {
            None => Owned::Unfinished(piece.len() as u64),
            Some(text) if text.len() > limit => Owned::TooLong(piece.len() as u64),
            Some(text) => Owned::Whole(text.to_vec()),
        };
        lines.push((line, offset));
    }
    lines
}

fn read_all(lines: &mut Lines) -> Vec<(Owned, u64)> {
    let mut all = Vec::new();
    while let Some(line) = lines.next().expect("the file can be read") {
        let line = match line {
            Line::Whole(text) => Owned::Whole(text.to_vec()),
            Line::TooLong(len) => Owned::TooLong(len),
            Line::Unfinished(len) => Owned::Unfinished(len),
        };
        all.push((line, lines.offset()));
    }
    all
}

/// Bytes with line ends at all distances.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => (0..12usize).prop_map(|len| vec![b'a'; len]),
        1 => (0..90usize).prop_map(|len| vec![b'b'; len]),
        3 => Just(b"\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(tries(1500))]

    #[test]
    fn a_reader_finds_the_lines_between_line_ends_for_any_block_limit_and_offsets(
        content in content(),
        block in 1..70usize,
        limit in 0..60usize,
        (a, b) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        skipped in 0..4usize,
    ) {
        let (a, b) = (a.index(content.len() + 1), b.index(content.len() + 1));
        let (from, to) = (a.min(b), a.max(b));
        let file = file_of(&content);
        let expected = split(&content[from..to], from as u64, limit);
        let mut lines = Lines::new(&file, from as u64, to as u64, block, limit);
        prop_assert_eq!(lines.offset(), from as u64);
        let skipped = skipped.min(expected.len());
        lines.skip(skipped as u64).expect("the file can be read");
        prop_assert_eq!(read_all(&mut lines), &expected[skipped..]);
        prop_assert_eq!(lines.offset(), to as u64);
        prop_assert_eq!(read_all(&mut lines), vec![]);
    }
}

#[test]
fn a_line_above_the_limit_takes_no_more_memory_than_one_at_the_limit() {
    let mut content = vec![b'x'; 1 << 20];
    content.extend_from_slice(b"\nshort\n");
    let file = file_of(&content);
    let mut lines = Lines::new(&file, 0, content.len() as u64, 4096, 10_000);
    assert_eq!(lines.next().unwrap(), Some(Line::TooLong((1 << 20) + 1)));
    assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"short")));
    assert!(lines.buffer.len() <= 2 * 10_000, "{} bytes", lines.buffer.len());
}

#[test]
fn a_reader_of_few_bytes_takes_little_memory() {
    let file = file_of(b"1\n2\n");
    let lines = Lines::new(&file, 2, 4, 128 << 10, 1 << 20);
    assert_eq!(lines.buffer.len(), 2);
}

#[test]
fn a_file_that_ends_too_early_is_an_error() {
    let file = file_of(b"1\n2");
    let mut lines = Lines::new(&file, 0, 10, 4, 100);
    assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"1")));
    assert_eq!(lines.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn an_escaped_message_of_the_longest_allowed_fits_on_a_line() {
    let max_message = 4 << 20;
    let mut line = Vec::new();
    crate::message::push_line_as("ann", &"\u{1}".repeat(max_message), &mut line);
    assert!(line.len() <= line_limit(max_message) && line.len() > LINE_LIMIT);
    assert_eq!(line_limit(1), LINE_LIMIT);
}
