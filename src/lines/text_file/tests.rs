use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    thread,
};

use super::*;
use crate::{message, testing::Dir};

/// A text file in which lines are erased.
struct House {
    /// The directory is removed with it.
    _dir: Dir,
    file: TextFile,
}

impl House {
    fn new(text: &[u8]) -> House {
        let dir = Dir::new();
        fs::write(dir.file(), text).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(dir.file()).unwrap();
        // Other tests keep lines, too, so each house has a count of its own.
        let count = Box::leak(Box::new(AtomicUsize::new(0)));
        House { _dir: dir, file: TextFile { count, ..TextFile::new(Arc::new(file)) } }
    }

    fn kept(&self) -> usize {
        self.file.count.load(Ordering::Relaxed)
    }

    fn erase(&mut self, range: Range<u64>) {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.file.read_exact_at(&mut bytes, range.start).unwrap();
        self.file.erase(range.start, bytes.clone().into());
        self.file.file().write_all_at(&message::erased(bytes.len()), range.start).unwrap();
    }
}

fn read(file: &TextFile, range: Range<u64>) -> String {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_reader_sees_the_file_as_it_was_when_it_began() {
    let text = "[1,2,3]\n{\"a\":1}\n\"four\"\n";
    let mut house = House::new(text.as_bytes());
    let first = house.file.clone();
    house.erase(8..15);
    let second = house.file.clone();
    house.erase(16..22);
    let third = house.file.clone();
    let expected = [text, "[1,2,3]\nnull   \n\"four\"\n", "[1,2,3]\nnull   \nnull  \n"];
    for (reader, expected) in [first, second, third].iter().zip(expected) {
        for from in 0..text.len() {
            for to in from + 1..=text.len() {
                assert_eq!(read(reader, from as u64..to as u64), expected[from..to]);
            }
        }
    }
    assert_eq!(read(&house.file, 0..23), expected[2]);
}

#[test]
fn what_was_erased_is_forgotten_with_the_last_reader_that_began_before() {
    let mut house = House::new(b"\"12345\"\n".repeat(10_000).as_slice());
    house.erase(0..7);
    assert_eq!(house.kept(), 0, "nobody reads");
    let early = house.file.clone();
    house.erase(8..15);
    let late = house.file.clone();
    // So many that dropping them one within the other would take the whole stack.
    (2..10_000).for_each(|line| house.erase(line * 8..line * 8 + 7));
    assert_eq!(read(&early, 8..15), "\"12345\"");
    assert_eq!(house.kept(), 9_999 * (7 + STATE));
    drop(early);
    assert_eq!((read(&late, 8..15), read(&late, 16..23)), ("null   ".into(), "\"12345\"".into()));
    drop(late);
    assert_eq!(house.kept(), 0);
}

#[test]
fn readers_are_given_up_when_too_much_would_be_kept_for_them() {
    let line = format!("\"{}\"\n", "x".repeat(1 << 20));
    let count = KEPT / line.len() + 3;
    let mut house = House::new(line.repeat(count).as_bytes());
    let slow = house.file.clone();
    let len = line.len() as u64;
    for at in 0..count as u64 {
        house.erase(at * len..(at + 1) * len - 1);
        assert!(house.kept() <= KEPT);
    }
    let error = slow.read_at(&mut [0; 10], 0).expect_err("it cannot go on");
    assert!(is_too_much_erased(&error), "{error}");
    let next = house.file.clone();
    house.erase(0..10);
    assert_eq!(read(&next, 0..4), "null");
    drop((slow, next));
    assert_eq!(house.kept(), 0);
}

#[test]
fn a_read_that_meets_the_overwriting_sees_none_of_it() {
    let line = format!("\"{}\"\n", "x".repeat(9_999));
    let count = 400;
    let mut house = House::new(line.repeat(count).as_bytes());
    let whole = line.repeat(count);
    let readers: Vec<_> = (0..4).map(|_| house.file.clone()).collect();
    thread::scope(|scope| {
        for reader in &readers {
            scope.spawn(|| {
                for _ in 0..3 {
                    assert!(read(reader, 0..whole.len() as u64) == whole);
                }
            });
        }
        let len = line.len() as u64;
        (0..count as u64).for_each(|at| house.erase(at * len..(at + 1) * len - 1));
    });
}
