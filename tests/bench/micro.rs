//! `cargo bench --bench micro`: the functions that every message or every joiner goes through, alone.
//!
//! What they cost in company, with sockets, a disk and threads, is what the `chat` benchmark tells.

use std::env;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::process;
use std::sync::{Arc, LazyLock};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use txtcord::history::{BLOCK, History, Resume};
use txtcord::lines::line_limit;
use txtcord::message;
use txtcord::wire::{Frames, HistoryFrame};

/// The longest message that a server takes by default.
const MAX_MESSAGE: usize = 1 << 20;
/// Messages in the history that is loaded and sent: some nine megabytes, in the page cache.
const STORED: u64 = 100_000;

fn main() {
    divan::main();
}

/// A line of chat with this many characters of text.
fn line_of_chat(text: usize) -> String {
    let words = "the quick brown fox \\\"jumps\\\" over the lazy d\\u00f6g ";
    let text: String = words.chars().cycle().take(text).collect();
    // A cut may have left half an escape at the end.
    let text = text.trim_end_matches(|c| !matches!(c, ' ')).trim_end();
    format!(r#"{{"user":"user0001","content":"{text}"}}"#)
}

/// Validating a message and making it one line, which each reader does for each message.
#[divan::bench(args = [70, 1000, 100_000], sample_size = 100)]
fn validate(bencher: Bencher, text: usize) {
    let text = line_of_chat(text);
    let mut lines = Vec::new();
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| {
        lines.clear();
        message::push_line(black_box(&text), &mut lines)
    });
}

/// Encoding a batch of live messages once for everybody, which the hub does.
#[divan::bench(args = [1, 16, 128, 1024], sample_size = 100)]
fn encode_batch(bencher: Bencher, messages: u64) {
    let data = line_of_chat(70);
    let mut frames = Frames::default();
    bencher.counter(ItemsCount::new(messages)).bench_local(|| {
        frames.clear();
        for id in 0..messages {
            let ts = Some(1_732_370_535_123);
            frames.push(black_box(data.as_bytes()), id, 1_000_000 + id, ts, None);
        }
        frames.bytes().len()
    });
}

/// Reading and validating a whole file, which happens at the start.
#[divan::bench(sample_size = 1, sample_count = 20)]
fn load_history(bencher: Bencher) {
    let stored = &*STORED_HISTORY;
    bencher.counter(BytesCount::new(stored.history.end())).bench_local(|| stored.load().last_id());
}

/// Taking the snapshot for a joiner, which the hub does and which therefore must cost nothing.
#[divan::bench]
fn take_snapshot(bencher: Bencher) {
    let stored = &*STORED_HISTORY;
    let epoch = Arc::from("9f2c1a7b55d0e813");
    let resume = Resume::default();
    bencher.bench_local(|| stored.history.snapshot(black_box(&resume), &epoch));
}

/// Making the history frame of a snapshot, which the joiner's own thread does.
#[divan::bench(sample_size = 1, sample_count = 50)]
fn stream_snapshot(bencher: Bencher) {
    let stored = &*STORED_HISTORY;
    let epoch = Arc::from("9f2c1a7b55d0e813");
    bencher.counter(BytesCount::new(stored.history.end())).bench_local(|| {
        let snapshot = stored.history.snapshot(&Resume::default(), &epoch);
        let mut frame = HistoryFrame::new(snapshot).expect("the file is there");
        let (mut block, mut bytes) = (Vec::new(), 0);
        while !frame.is_done() {
            frame.peek(&mut block, BLOCK).expect("the file can be read");
            frame.advance(block.len());
            bytes += black_box(&block).len();
            block.clear();
        }
        bytes
    });
}

struct Stored {
    file: Arc<File>,
    history: History,
}

static STORED_HISTORY: LazyLock<Stored> = LazyLock::new(|| {
    let path = env::temp_dir().join(format!("txtcord-micro-{}", process::id()));
    let open = File::options().create(true).read(true).append(true).open(&path);
    let file = Arc::new(open.expect("there is a directory for temporary files"));
    // The name is not needed any more, and so the file is gone with the process.
    fs::remove_file(&path).ok();
    let mut lines = BufWriter::new(&*file);
    for _ in 0..STORED {
        writeln!(lines, "{}", line_of_chat(70)).expect("there is room for ten megabytes");
    }
    lines.flush().expect("there is room for ten megabytes");
    drop(lines);
    let history = load(&file);
    Stored { file, history }
});

impl Stored {
    fn load(&self) -> History {
        load(&self.file)
    }
}

fn load(file: &Arc<File>) -> History {
    let end = file.metadata().expect("the file is open").len();
    History::load(file.clone(), end, line_limit(MAX_MESSAGE)).expect("the file can be read")
}
