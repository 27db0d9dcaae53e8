//! What these tests stand on, tried by itself: the engine, the proxy, and the checker, which must find
//! each fault that is planted.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use crate::{
    check::{Record, faults, holds},
    engine::{Engine, Keeps},
    load::Load,
    nodes::Nodes,
    proxy::{Proxy, Way},
    support::*,
};

#[test]
fn an_engine_keeps_what_it_appended_and_loses_what_is_cut() {
    let Some(mut engine) = Engine::start(Keeps::Always) else { return };
    for number in 0..10 {
        engine.asks(&["RPUSH", "list", &number.to_string()]);
    }
    engine.kill();
    engine.restart();
    assert_eq!(engine.asks(&["LLEN", "list"]).number(), 10);
    engine.kill();
    engine.cut(1);
    engine.restart();
    assert_eq!(engine.asks(&["LLEN", "list"]).number(), 9);
    engine.stop();
    engine.restart();
    assert_eq!(engine.asks(&["LLEN", "list"]).number(), 9);
    engine.freeze();
    let mut connection = engine.connect();
    let answer = thread::spawn(move || connection.ask(&["PING"]).map(|reply| reply.text()));
    engine.thaw();
    assert_eq!(answer.join().expect("no panic").expect("an answer"), "PONG");
}

#[test]
fn a_replica_is_promoted_with_what_it_has() {
    let Some(mut engine) = Engine::start(Keeps::Always) else { return };
    let Some(replica) = Engine::start(Keeps::Always) else { return };
    engine.asks(&["SET", "key", "1"]);
    replica.follows(&engine);
    engine.asks(&["SET", "key", "2"]);
    until("the replica follows", || replica.asks(&["GET", "key"]).text() == "2");
    replica.freeze();
    engine.asks(&["SET", "key", "3"]);
    engine.kill();
    replica.thaw();
    replica.is_promoted();
    assert_eq!(replica.info("role"), "master");
}

/// A peer that answers each byte with the next one.
fn peer() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let peer = listener.try_clone().expect("a descriptor");
    thread::spawn(move || {
        for stream in peer.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() {
                    if stream.write_all(&[byte[0] + 1]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    listener
}

struct Talk(TcpStream);

impl Talk {
    fn with(proxy: &Proxy) -> Talk {
        let stream = TcpStream::connect(proxy.address()).expect("the proxy accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        Talk(stream)
    }

    fn says(&mut self, byte: u8) {
        self.0.write_all(&[byte]).expect("the connection is there");
    }

    fn hears(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(1) => Some(byte[0]),
            Err(error) if is_timeout(&error) => panic!("nothing came"),
            _ => None,
        }
    }
}

#[test]
fn a_proxy_forwards_freezes_swallows_cuts_and_leads_elsewhere() {
    let (one, other) = (peer(), peer());
    let proxy = Proxy::to(one.local_addr().expect("an address"));
    let mut talk = Talk::with(&proxy);
    talk.says(1);
    assert_eq!(talk.hears(), Some(2));
    proxy.becomes(Way::Frozen);
    talk.says(3);
    Raw::on(talk.0.try_clone().expect("a descriptor")).is_quiet();
    proxy.becomes(Way::Open);
    assert_eq!(talk.hears(), Some(4));
    proxy.becomes(Way::DeafTo(b"z"));
    talk.says(5);
    assert_eq!(talk.hears(), Some(6));
    talk.says(b'Z');
    until("it is swallowed", || proxy.swallowed() == 1);
    Raw::on(talk.0.try_clone().expect("a descriptor")).is_quiet();
    proxy.becomes(Way::Open);
    talk.says(6);
    assert_eq!(talk.hears(), Some(7), "what was swallowed is lost");
    proxy.becomes(Way::Cut);
    assert_eq!(talk.hears(), None);
    assert_eq!(Talk::with(&proxy).hears(), None);
    proxy.leads_to(other.local_addr().expect("an address"));
    proxy.becomes(Way::Open);
    let mut talk = Talk::with(&proxy);
    talk.says(8);
    assert_eq!(talk.hears(), Some(9));
    proxy.drops_all();
    assert_eq!(talk.hears(), None);
}

/// What the checker says of these files when 1 to 3 were acknowledged as "a" to "c".
#[track_caller]
fn check(files: &[&str], says: &[&str]) {
    let texts = ["a", "b", "c"].map(String::from);
    let mut record =
        Record { acknowledged: (1..).zip(texts.clone()).collect(), ..Record::default() };
    record.once.extend(texts);
    record.is_shown(4, "d");
    let files: Vec<Vec<u8>> = files.iter().map(|file| file.as_bytes().to_vec()).collect();
    let found = faults(&files, &record);
    assert_eq!(found.len(), says.len(), "{found:?}");
    for (found, says) in found.iter().zip(says) {
        assert!(found.contains(says), "{found}");
    }
}

#[test]
fn the_checker_finds_each_planted_fault() {
    check(&["a\nb\nc\nd\n", "a\nb\nc\nd\n"], &[]);
    check(&["a\nb\nc\nd\nmore\nmore\n"], &[]);
    check(&["a\nB\nc\nd\n"], &["acknowledged 2 is B and not b"]);
    check(&["a\nb\nc\n"], &["shown 4 is not there"]);
    check(&["a\nb\nc\nd\nb\n"], &["b is there twice, at 2 and 5"]);
    check(&["a\nc\nb\nd\n"], &["acknowledged 2", "acknowledged 3"]);
    check(&["a\nb\nc\nd\n", "a\nb\nc\nd\ne\n"], &["nodes 0 and 1 differ at line 5"]);
    check(&["a\nb\nc\nd\nto"], &["no end"]);
    let mut record = Record::default();
    record.is_shown(1, "a");
    record.is_shown(1, "b");
    record.epochs.extend(["one", "two"].map(String::from));
    let found = faults(&[b"b\n".to_vec()], &record);
    assert!(found[0].contains("two meanings of 1") && found[1].contains("epoch"), "{found:?}");
    assert_eq!(found.len(), 2);
}

#[test]
fn the_load_survives_kills_of_a_server_and_finds_what_was_changed_behind_it() {
    let mut nodes = Nodes::without_an_engine();
    let load = Load::on(&nodes.addresses, "load");
    for _ in 0..3 {
        load.goes_on(300);
        nodes.all[0].kill();
        nodes.all[0].start();
    }
    load.goes_on(300);
    let mut record = load.ends();
    let files = nodes.agree(record.last());
    // One server keeps keys in memory alone, so a post that it was killed in may come twice.
    record.once.retain(|text| !text.contains("posts"));
    holds(&files, &record);
    assert!(record.acknowledged.len() >= 1200, "{}", record.acknowledged.len());
    let mut lines = nodes.all[0].lines();
    let (id, _) = record.acknowledged[500];
    lines[id as usize - 1].push(' ');
    let found = faults(&[(lines.join("\n") + "\n").into_bytes()], &record);
    // It was acknowledged, and shown.
    assert_eq!(found.len(), 2, "{found:?}");
}
