//! What people do to files and engines: lines are edited, entries added by hand, keys deleted, streams
//! trimmed, disks filled, and nodes started with the wrong engine.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use crate::{
    engine::{Engine, Keeps, META, STREAM},
    nodes::{CALM, Node, Nodes, answer_of, within},
    support::*,
};

/// Two nodes that have stored `"1"` to `"10"`.
fn two_nodes(engine: &Engine) -> Nodes {
    let nodes = Nodes::on(engine, 2);
    (1..=10).for_each(|number| assert_eq!(nodes.all[0].stores(&format!("\"{number}\"")), number));
    nodes.agree(10);
    nodes
}

#[test]
fn a_line_that_was_edited_is_set_aside_with_all_that_follow_it() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = two_nodes(&engine);
    let epoch = engine.meta("epoch");
    nodes.all[1].stop();
    let edited = String::from_utf8(nodes.all[1].file()).expect("UTF-8").replace("\"8\"", "\"X\"");
    nodes.all[1].setup.dir.write(&edited);
    let ended = nodes.all[1].starts_and_ends();
    ended.with(75, &["forked"]);
    nodes.rejoin();
    let files = nodes.agree(10);
    let expected: String = (1..=10).map(|number| format!("\"{number}\"\n")).collect();
    assert_eq!(String::from_utf8_lossy(&files[0]), expected);
    assert_eq!(nodes.all[1].set_aside(), ["\"X\"\n\"9\"\n\"10\"\n"]);
    assert!(nodes.all[0].set_aside().is_empty());
    assert_ne!(engine.meta("epoch"), epoch);
    assert_eq!(nodes.all[1].stores_in_the_end("\"11\""), 11);
}

/// An entry that somebody adds by hand gets into no file.
#[track_caller]
fn gets_into_no_file(id: &str, more: &[&str]) {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = two_nodes(&engine);
    let entry = ["XADD", STREAM, id, "d", "{\"stray\":1}\n"];
    engine.asks(&[&entry, more].concat());
    // Either it is put right, or the nodes say that they cannot go on.
    let mut stored = false;
    let post = ask_with("POST /messages", &["Connection: close"], "\"after\"");
    let mut copes = |node: &Node| {
        // It may end while it is asked.
        let answer = answer_of(node.server().address(), &post, PATIENCE);
        stored |= answer.is_some_and(|(status, _)| status == 201);
        let says = |level| node.server().log().contains(level);
        stored || !node.is_alive() || says("WARN") || says("ERROR")
    };
    let all_cope = || nodes.all.iter().all(&mut copes);
    within(CALM, "the nodes do something about it", all_cope, || nodes.all[0].server().log());
    for node in &nodes.all {
        let lines = node.lines();
        assert!(!lines.iter().any(|line| line.contains("stray")), "{lines:?}");
        let expected: Vec<String> = (1..=10).map(|number| format!("\"{number}\"")).collect();
        assert_eq!(lines[..10], expected);
    }
    if !stored {
        // An operator takes the stream away; the nodes have the lines.
        engine.asks(&["DEL", STREAM, META]);
        for node in &mut nodes.all {
            if !node.is_alive() {
                node.ends();
                node.start();
            }
        }
        nodes.all[0].stores_in_the_end("\"at last\"");
        nodes.agree(11);
    }
}

#[test]
fn an_entry_with_an_id_of_the_engines_own_gets_into_no_file() {
    gets_into_no_file("*", &[]);
}

#[test]
fn an_entry_that_lacks_what_entries_have_gets_into_no_file() {
    gets_into_no_file("0-11", &[]);
}

#[test]
fn an_entry_with_a_wrong_hash_gets_into_no_file() {
    gets_into_no_file("0-11", &["h", "0123456789abcdef", "b", "nobody.1", "t", "1732370535123"]);
}

/// The stream forgets no id that it once had, so that it takes no lower one.
#[test]
fn an_entry_that_was_added_by_hand_and_deleted_holds_up_no_posts() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = two_nodes(&engine);
    let both = "local id = redis.call('XADD', KEYS[1], '*', 'd', 'stray') \
                redis.call('XDEL', KEYS[1], id)";
    engine.asks(&["EVAL", both, "1", STREAM]);
    assert_eq!(nodes.all[0].stores_in_the_end("\"11\""), 11);
    assert_eq!(nodes.all[1].stores_in_the_end("\"12\""), 12);
    nodes.agree(12);
}

/// Something is done to the engine while nodes are idle; then posts go on where they were.
#[track_caller]
fn goes_on_after(commands: &[&[&str]]) {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = two_nodes(&engine);
    assert_eq!(nodes.all[0].server().has("PUT /dev", &["Content-Length: 0"]).status, 201);
    let is_there = |nodes: &Nodes| nodes.all[1].server().gets("/channels").contains("\"dev\"");
    within(CALM, "the channel is there", || is_there(&nodes), || nodes.all[1].server().log());
    let epoch = nodes.all[0].server().join().history.epoch;
    for command in commands {
        engine.asks(command);
    }
    assert_eq!(nodes.all[1].stores_in_the_end("\"11\""), 11, "{commands:?}");
    assert_eq!(nodes.all[0].stores_in_the_end("\"12\""), 12, "{commands:?}");
    nodes.agree(12);
    assert_eq!(nodes.all[1].server().join().history.epoch, epoch);
    assert!(is_there(&nodes), "the channel is gone");
    // What begins with nothing can join again, as the engine has all of it or says what to do.
    if engine.asks(&["XLEN", STREAM]).number() > 0 && commands[0][0] == "FLUSHALL" {
        nodes.one_more(&engine, Setup::new());
        nodes.all[2].is_ready();
        nodes.agree(12);
    }
}

#[test]
fn an_engine_whose_stream_is_deleted_goes_on() {
    goes_on_after(&[&["DEL", STREAM]]);
}

#[test]
fn an_engine_whose_record_of_the_stream_is_deleted_goes_on() {
    goes_on_after(&[&["DEL", META]]);
}

#[test]
fn an_engine_whose_stream_and_record_are_deleted_goes_on() {
    goes_on_after(&[&["DEL", STREAM, META]]);
}

#[test]
fn an_engine_that_is_flushed_is_given_everything_again() {
    goes_on_after(&[&["FLUSHALL"]]);
}

#[test]
fn who_follows_several_channels_is_told_what_is_said_after_a_node_took_another_epoch() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    // Nothing is told because it is time for a sign of life.
    let flags = ["--cluster-settle", "1s", "--ping-interval", "1h"];
    let nodes = Nodes::with(&engine, 1, &flags);
    let node = &nodes.all[0];
    assert_eq!(node.stores("1"), 1);
    let mut lines = node.server().listens("/*?follow=1", &[]);
    lines.says("messages", 1, "1");
    let mut list = node.server().listens("/channels?follow=1", &[]);
    let other = "0123456789abcdef";
    assert_ne!(list.json()["epoch"], other);
    engine.asks(&["HSET", META, "epoch", other]);
    node.proxy.drops_all();
    while list.json()["epoch"] != other {}
    assert_eq!(node.stores_in_the_end("2"), 2);
    lines.says("messages", 2, "2");
}

/// Makes the channel dev; returns a request that says something there.
fn makes_dev(server: &Server) -> Vec<u8> {
    assert_eq!(server.has("PUT /dev", &["Content-Length: 0"]).status, 201);
    ask_with("POST /dev", &["Connection: close"], "1")
}

#[test]
fn a_channel_whose_key_holds_something_else_holds_up_no_other() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 1);
    let node = &nodes.all[0];
    let server = node.server();
    let post = makes_dev(server);
    assert_eq!(server.asked(&post).status, 201);
    engine.asks(&["SET", "txtcord:{dev}", "something else"]);
    let says_so = || server.log().contains("dev.txt: the engine cannot be used");
    within(CALM, "the log says so", says_so, || server.log());
    // The node comes back to its other channel in a moment.
    assert_eq!(node.stores_in_the_end("1"), 1);
    (2..=20).for_each(|id| assert_eq!(node.stores(&id.to_string()), id));
    engine.asks(&["DEL", "txtcord:{dev}"]);
    let is_stored = || server.asked(&post).status == 201;
    within(CALM, "the channel goes on", is_stored, || server.log());
}

#[test]
fn a_key_that_holds_something_else_is_no_lost_connection() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = two_nodes(&engine);
    let node = &nodes.all[0];
    let lost = || node.metric("txtcord_cluster_reconnects_total").expect("a number");
    let before = lost();
    engine.asks(&["DEL", STREAM]);
    engine.asks(&["SET", STREAM, "something else"]);
    node.is_unready();
    let tried = || {
        let calls = engine.asks(&["INFO", "commandstats"]).text();
        let line = calls.lines().find(|line| line.starts_with("cmdstat_xrange:"));
        let count = line.and_then(|line| line.split_once("failed_calls=")?.1.parse::<u64>().ok());
        count.unwrap_or(0)
    };
    within(CALM, "it is tried again", || tried() >= 30, || node.server().log());
    assert!(lost() - before < 5.0, "{} connections were lost", lost() - before);
    engine.asks(&["DEL", STREAM]);
    node.is_ready();
}

/// Something is done to what the engine keeps of a channel beside its lines. The other one goes on at once,
/// and that one in the end.
#[track_caller]
fn a_record_is_broken_by(command: &[&str]) {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 1);
    let node = &nodes.all[0];
    let post = makes_dev(node.server());
    assert_eq!(node.server().asked(&post).status, 201);
    engine.asks(command);
    // The node looks at it once a second.
    let begun = Instant::now();
    for id in 1.. {
        assert_eq!(node.stores_in_the_end(&id.to_string()), id, "{command:?}");
        if begun.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    node.is_ready();
    let is_stored = || node.server().asked(&post).status == 201;
    within(CALM, "the channel goes on", is_stored, || node.server().log());
}

#[test]
fn a_broken_record_of_a_channel_holds_up_no_other() {
    let meta = "txtcord:{dev}:meta";
    a_record_is_broken_by(&["HDEL", meta, "last"]);
    a_record_is_broken_by(&["HSET", meta, "last", "x"]);
    a_record_is_broken_by(&["HDEL", meta, "chain"]);
    a_record_is_broken_by(&["HDEL", meta, "settled"]);
    a_record_is_broken_by(&["HSET", meta, "settled", "x"]);
}

#[test]
fn a_channel_whose_last_line_lost_its_end_holds_up_no_other() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 1);
    let node = &nodes.all[0];
    let server = node.server();
    let post = makes_dev(server);
    (0..2).for_each(|_| assert_eq!(server.asked(&post).status, 201));
    let file = File::options().write(true).open(node.setup.dir.join("channels/dev.txt"));
    file.expect("a file").write_all_at(b"x", 3).expect("it is written");
    // What the node gives back to the engine is not what it was.
    engine.asks(&["DEL", "txtcord:{dev}", "txtcord:{dev}:meta"]);
    let says_so = || server.log().contains("dev.txt: the ends of its lines were overwritten");
    within(CALM, "the log says so", says_so, || server.log());
    let is_stored = || server.asked(&post).status == 201;
    within(CALM, "the channel goes on", is_stored, || server.log());
    assert!(!server.log().contains("the engine at"), "{}", server.log());
    assert_eq!(node.stores("1"), 1);
}

#[test]
fn a_silent_channel_is_looked_after_while_another_is_busy() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 1);
    let node = &nodes.all[0];
    assert_eq!(node.server().has("PUT /dev", &["Content-Length: 0"]).status, 201);
    let post = ask_with("POST /dev", &["Connection: close"], "1");
    assert_eq!(node.server().asked(&post).status, 201);
    engine.asks(&["DEL", "txtcord:{dev}", "txtcord:{dev}:meta"]);
    // The reader never waits long enough to hear nothing.
    let is_given_back = || {
        node.stores("1");
        engine.asks(&["HGET", "txtcord:{dev}:meta", "last"]).text() == "1"
    };
    within(CALM, "the line is given back", is_given_back, || node.server().log());
}

#[test]
fn a_node_that_lacks_what_the_stream_has_no_more_says_the_command_that_helps() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = two_nodes(&engine);
    nodes.all[1].stop();
    for number in 11..=20 {
        nodes.all[0].stores(&format!("\"{number}\""));
    }
    engine.asks(&["XTRIM", STREAM, "MAXLEN", "2"]);
    let before = nodes.all[1].file();
    let ended = nodes.all[1].starts_and_ends();
    ended.with(66, &["curl -C - -o "]);
    assert_eq!(nodes.all[1].file(), before, "nothing is touched");
    let line = ended.log.lines().find(|line| line.contains("curl -C - -o ")).expect("it was said");
    let command = &line[line.find("curl").expect("it was said")..];
    let (output, url) = command.split_once("http://").expect("a URL");
    let path = &url[url.find('/').expect("a path")..];
    let path = path.split_whitespace().next().expect("a path");
    let peer = nodes.all[0].server().address();
    let folder = nodes.all[1].setup.dir.path().display().to_string();
    // As it was said, with the name of a peer.
    let path = path.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    shell(&format!("cd '{folder}' && {} -s http://{peer}{path}", output.trim_end()));
    nodes.all[1].start();
    nodes.all[1].is_ready();
    nodes.agree(20);
    assert_eq!(nodes.all[1].stores("\"21\""), 21);
    // One without any file, too.
    let ended = starts_and_ends(&Setup::new().flags(&["--cluster", &engine.url()]));
    ended.with(66, &["curl -C - -o "]);
}

#[test]
fn a_channel_that_lacks_what_its_stream_has_no_more_says_the_command_for_its_own_file() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = two_nodes(&engine);
    let says = |nodes: &Nodes, text: &str| {
        let post = ask_with("POST /dev", &["Connection: close"], text);
        nodes.all[0].server().asked(&post).status == 201
    };
    let put = nodes.all[0].server().has("PUT /dev", &["Content-Length: 0"]);
    assert_eq!(put.status, 201);
    within(CALM, "it is stored", || says(&nodes, "1"), || nodes.all[0].server().log());
    nodes.all[1].stop();
    (2..=9).for_each(|number| assert!(says(&nodes, &number.to_string()), "{number}"));
    engine.asks(&["XTRIM", "txtcord:{dev}", "MAXLEN", "2"]);
    nodes.all[1].start();
    let command = "curl -C - -o dev.txt http://PEER/dev.txt";
    let server = nodes.all[1].server();
    let is_said = || {
        // A request opens the channel.
        let _ = server.has("GET /dev", &["Connection: close"]);
        server.log().contains(command)
    };
    within(CALM, "the command is said", is_said, || server.log());
    assert_eq!(nodes.all[1].stores_in_the_end("\"11\""), 11, "the default channel goes on");
}

/// Starts a server that ends by itself, before or after it listens.
#[track_caller]
fn starts_and_ends(setup: &Setup) -> Ended {
    match setup.try_start() {
        Ok(server) => server.ends(),
        Err(ended) => ended,
    }
}

#[test]
fn a_node_with_the_wrong_engine_touches_nothing() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = two_nodes(&engine);
    let state = || (engine.meta("epoch"), engine.meta("last"), engine.meta("chain"));
    let before = state();
    // A file that was another engine's.
    let Some(other) = Engine::start(Keeps::Always) else { return };
    let mut others = Nodes::begin(&other, 0, &[]);
    others.one_more(&other, Setup::new().file("\"mine 1\"\n\"mine 2\"\n"));
    others.all[0].is_ready();
    others.all[0].stores("\"mine 3\"");
    others.all[0].stop();
    let file = others.all[0].file();
    others.all[0].leads_to(&engine);
    let ended = others.all[0].starts_and_ends();
    ended.with(66, &[]);
    assert_eq!(others.all[0].file(), file);
    assert!(others.all[0].set_aside().is_empty());
    assert_eq!(state(), before);
    assert_eq!(nodes.all[0].stores("\"11\""), 11);
    // And a file that was nobody's yet.
    let setup = Setup::new().file(SEED).flags(&["--cluster", &engine.url()]);
    let ended = starts_and_ends(&setup);
    ended.with(66, &[]);
    assert_eq!(setup.dir.read(), SEED.as_bytes());
}

#[test]
fn a_node_whose_disk_is_full_refuses_posts_and_gets_the_rest_when_there_is_room() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 1);
    // Blocks of 512 or 1024 bytes; the hard limit stays.
    nodes.one_more(&engine, Setup::new().after("ulimit -S -f 64"));
    nodes.all[1].is_ready();
    assert_eq!(nodes.all[1].stores_with("a key", "\"before\""), 1);
    for number in 0..100 {
        nodes.all[0].stores(&padded(number, 999));
    }
    let full = &nodes.all[1];
    full.is_unready();
    let lags = || full.metric("txtcord_cluster_lag_lines").is_some_and(|lines| lines >= 10.0);
    within(CALM, "its lag is told", lags, || full.server().gets("/metrics"));
    let refused = || {
        let answer = full.posts("\"refused\"");
        answer.status == 503 && json(&answer.body)["code"] == "storage_full"
    };
    within(CALM, "posts are refused", refused, || full.server().log());
    assert_eq!(full.stores_with("a key", "\"before\""), 1, "what was stored is not refused");
    assert_eq!(nodes.all[0].stores("\"elsewhere\""), 102, "others go on");
    assert!(full.server().gets("/messages?limit=1").contains("pad"));
    shell(&format!("prlimit --pid {} --fsize=unlimited", full.server().pid()));
    full.has_lines(102);
    let stored = full.stores_in_the_end("\"again\"");
    assert_eq!(stored, 103);
    nodes.agree(103);
}

#[test]
fn a_torn_tail_is_never_completed() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 2);
    nodes.all[0].stores("1");
    nodes.all[0].stores("1234567");
    let whole = nodes.agree(2)[0].clone();
    for bytes in 1..=whole.len() {
        if bytes > 9 && bytes < whole.len() {
            continue;
        }
        nodes.all[1].kill();
        // What is left of the number would be a number, too.
        nodes.all[1].setup.dir.write(&whole[..whole.len() - bytes]);
        nodes.all[1].start();
        nodes.all[1].is_ready();
        assert_eq!(nodes.agree(2)[1], whole, "without the last {bytes} bytes");
    }
}
