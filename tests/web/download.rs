//! `GET /messages.txt`: the file itself, whole or from where a copy broke off.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{support::*, talk::*};

impl Reply {
    /// What a part of the file says of itself.
    #[track_caller]
    fn is_part(&self, file: &[u8], range: std::ops::Range<usize>) {
        self.has(206);
        let said = format!("bytes {}-{}/{}", range.start, range.end - 1, file.len());
        assert_eq!(self.header("Content-Range"), Some(&*said));
        assert_eq!(self.header("Content-Length"), Some(&*range.len().to_string()));
        assert!(self.body == file[range], "other bytes than {said}");
    }

    #[track_caller]
    fn is_all(&self, file: &[u8]) {
        self.has(200);
        assert_eq!(self.header("Content-Range"), None);
        assert_eq!(self.header("Content-Length"), Some(&*file.len().to_string()));
        assert!(self.body == file, "not the file");
    }

    fn tag(&self) -> String {
        self.header("ETag").expect("a file has a tag").into()
    }
}

#[test]
fn the_file_comes_as_it_is_up_to_its_last_whole_line() {
    let file = b"\xef\xbb\xbf{\"a\":1}\r\n\nnonsense\n\xff\n[5]\n";
    let server = Server::on(file);
    let mut ann = server.join();
    let reply = server.get("/messages.txt");
    reply.is_all(file);
    assert_eq!(reply.header("Accept-Ranges"), Some("bytes"));
    assert_eq!(reply.header("Content-Type"), Some("text/plain; charset=utf-8"));
    // Somebody is in the middle of a line.
    server.dir.append("{\"half\":");
    server.get("/messages.txt").is_all(file);
    server.dir.append("true}\n");
    ann.hears("{\"half\":true}");
    server.get("/messages.txt").is_all(&server.dir.read());
    let empty = Server::start();
    empty.get("/messages.txt").is_all(b"");
    empty.get_with("/messages.txt", &[("Range", "bytes=0-")]).has(416);
}

#[test]
fn a_range_gives_these_bytes_and_no_others() {
    let file = padded_lines(5, 40);
    let (file, len) = (file.as_bytes(), file.len());
    let server = Server::on(file);
    let part = |range: &str| server.get_with("/messages.txt", &[("Range", range)]);
    part("bytes=0-0").is_part(file, 0..1);
    part("bytes=7-21").is_part(file, 7..22);
    part("bytes=7-").is_part(file, 7..len);
    part("bytes=199-").is_part(file, 199..len);
    part("bytes=0-9999").is_part(file, 0..len);
    part("bytes=0-99999999999999999999999").is_part(file, 0..len);
    part("bytes=-1").is_part(file, len - 1..len);
    part("bytes=-9999").is_part(file, 0..len);
    for beyond in ["bytes=200-", "bytes=200-300", "bytes=99999999999999999999-", "bytes=-0"] {
        let reply = part(beyond);
        reply.refuses(416, &[]);
        assert_eq!(reply.header("Content-Range"), Some("bytes */200"), "{beyond}");
    }
    for nonsense in [
        "bytes=5-2",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=--1",
        "bytes=1--2",
        "bytes=+1-2",
        "bytes=0-1,5-6",
        "lines=0-1",
        "0-1",
    ] {
        part(nonsense).is_all(file);
    }
}

#[test]
fn who_wants_a_certain_file_gets_no_other() {
    let server = Server::on(SEED);
    let tag = server.get("/messages.txt").tag();
    let only = |tags: &[&str]| {
        let fields: Vec<_> = tags.iter().map(|tag| ("If-Match", *tag)).collect();
        server.get_with("/messages.txt", &fields)
    };
    for tags in [&[&*tag][..], &["*"], &[&format!("\"x\", {tag}")], &["\"x\"", &tag]] {
        only(tags).is_all(SEED.as_bytes());
    }
    // RFC 9110 section 13.1.1: a weak tag is not enough.
    for tags in [&["\"x\""][..], &[&format!("W/{tag}")], &[""], &["\"x\"", "\"y\""]] {
        let reply = only(tags);
        reply.refuses(412, &["changed"]);
        assert_eq!(reply.tag(), tag, "{tags:?}");
    }
    // It comes before all other conditions.
    let both = [("If-Match", "\"x\""), ("If-None-Match", &*tag), ("Range", "bytes=0-1")];
    server.get_with("/messages.txt", &both).refuses(412, &[]);
    let both = [("If-Match", &*tag), ("If-None-Match", &*tag)];
    server.get_with("/messages.txt", &both).has(304);
}

#[test]
fn a_copy_that_is_still_good_is_not_sent_again() {
    let server = Server::on(SEED);
    let tag = server.get("/messages.txt").tag();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "a strong tag: {tag}");
    let unless =
        |server: &Server, tags: &str| server.get_with("/messages.txt", &[("If-None-Match", tags)]);
    for tags in [&*tag, &format!("W/{tag}"), "*", &format!("\"x\", {tag}")] {
        let reply = unless(&server, tags);
        assert_eq!((reply.has(304).body.len(), reply.tag()), (0, tag.clone()), "{tags}");
    }
    unless(&server, "\"x\"").is_all(SEED.as_bytes());
    // Several lines of a field are one list.
    let lines = [("If-None-Match", "\"x\""), ("If-None-Match", &*tag)];
    server.get_with("/messages.txt", &lines).has(304);
    // A restart changes nothing about it.
    let server = server.restart();
    unless(&server, &tag).has(304);
    server.stores("8");
    let reply = unless(&server, &tag);
    reply.is_all(&server.dir.read());
    assert_ne!(reply.tag(), tag);
    // A part belongs to the copy that it is a part of.
    let part = |tag: &str| {
        let headers = [("Range", "bytes=10-19"), ("If-Range", tag)];
        server.get_with("/messages.txt", &headers)
    };
    let file = server.dir.read();
    part(&reply.tag()).is_part(&file, 10..20);
    part(&tag).is_all(&file);
    part(&format!("W/{}", reply.tag())).is_all(&file);
    part("Tue, 24 Nov 2026 00:00:00 GMT").is_all(&file);
}

#[test]
fn head_tells_the_length_of_the_file_and_sends_none_of_it() {
    let server = Server::on(SEED);
    let mut raw = server.raw();
    raw.send(ask("HEAD /messages.txt", &[]));
    let head = raw.head_alone();
    assert_eq!((head.status, head.header("Content-Length")), (200, Some("271")));
    assert_eq!(head.header("Accept-Ranges"), Some("bytes"));
    assert_eq!(head.header("ETag"), Some(&*server.get("/messages.txt").tag()));
    assert_eq!(raw.asks(ask("GET /messages.txt", &[])).body, SEED);
}

#[test]
fn a_range_is_a_thing_of_get_alone() {
    // RFC 9110 section 14.2.
    let server = Server::on(SEED);
    let mut raw = server.raw();
    raw.send(ask("HEAD /messages.txt", &["Range: bytes=0-9"]));
    let head = raw.head_alone();
    assert_eq!((head.status, head.header("Content-Length")), (200, Some("271")));
}

#[test]
fn a_backup_that_is_resumed_again_and_again_equals_the_file_while_others_talk() {
    let server = Setup::new().file(padded_lines(200, 500)).flags(&["--fsync", "never"]).start();
    let mut ann = server.join();
    ann.says(&padded(0, 700));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 1;
            while !done.load(Ordering::Relaxed) {
                ann.says(&padded(number, 700));
                number += 1;
            }
        });
        let _done = EndsWithMe(&done);
        let mut copy = Vec::new();
        for round in 0..40 {
            let range = format!("bytes={}-", copy.len());
            let reply = server.get_with("/messages.txt", &[("Range", &range)]);
            if reply.status == 416 {
                continue;
            }
            assert_eq!(reply.has(206).body.last(), Some(&b'\n'), "a copy ends in a whole line");
            // The connection breaks somewhere, but for now and then.
            let taken = if round % 4 == 0 { reply.body.len() } else { reply.body.len() * 2 / 3 };
            copy.extend(&reply.body[..taken]);
        }
        assert!(copy.len() > 100_000 && server.dir.read().starts_with(&copy), "not a copy");
    });
    let rest = server.get("/messages.txt");
    rest.is_all(&server.dir.read());
}
