//! Lines that other programs append on a node: `echo >> messages.txt`, and `>> messages.txt.in`.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    check::faults,
    engine::{Engine, Keeps},
    load::Load,
    nodes::{CALM, Nodes, within},
    support::*,
};

/// What has not come after so long is lost.
const LOST: Duration = Duration::from_secs(15);

/// A program that has opened the inbox may take so long to write before the node may have read it.
const WRITES_WITHIN: Duration = Duration::from_millis(300);

/// Another program's `echo TEXT >> PATH`; says how long it had the file open.
fn echo(path: &PathBuf, text: &str) -> Duration {
    let line = format!("{text}\n");
    let begun = Instant::now();
    let file = fs::OpenOptions::new().append(true).create(true).open(path);
    file.expect("the file").write_all(line.as_bytes()).expect("it can be written");
    begun.elapsed()
}

#[test]
fn lines_appended_on_any_node_are_on_all() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 2);
    let mut listeners: Vec<Client> = nodes.all.iter().map(|node| node.server().join()).collect();
    let mut id = 0;
    for name in ["messages.txt", "messages.txt.in"] {
        for node in &nodes.all {
            id += 1;
            let text = format!("{{\"from\":\"cron\", \"id\":{id}}}");
            echo(&node.setup.dir.join(name), &text);
            for listener in &mut listeners {
                assert_eq!(listener.hears(&text).id, id, "{name}");
            }
        }
    }
    nodes.agree(id);
}

/// Somebody may bring years of another chat. Here nothing of it is a message, so that it takes no time.
#[test]
fn an_inbox_of_any_length_takes_little_memory() {
    const MIB: u64 = 256;
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 1);
    let node = &nodes.all[0];
    node.stores("1");
    let before = node.server().status("VmHWM");
    let lines = format!("no message{}\n", " ".repeat(1 << 20)).repeat(MIB as usize);
    let inbox = node.setup.dir.join("messages.txt.in");
    fs::write(node.setup.dir.join("other"), lines).expect("it is written");
    fs::rename(node.setup.dir.join("other"), &inbox).expect("it is renamed");
    let says = format!("{MIB} lines hold neither a message nor an operation");
    within(CALM, &says, || node.server().log().contains(&says), || node.server().log());
    let took = node.server().status("VmHWM") - before;
    assert!(took < MIB * 1024 / 4, "{took} KiB");
    assert_eq!(node.stores("2"), 2);
}

/// A message that every other node and the next start would pass over.
#[test]
fn a_line_that_is_too_long_for_a_message_is_a_hole_on_the_node_that_posts_it_too() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 2);
    let long = format!("\"{}\"", "x".repeat(17 << 20));
    echo(&nodes.all[0].setup.dir.join("messages.txt.in"), &long);
    nodes.agree(1);
    nodes.all[0].stores("2");
    nodes.agree(2);
    for node in &nodes.all {
        let client = node.server().join();
        assert_eq!(client.history.messages(), [(2, "2")], "{}", node.server().log());
    }
}

#[test]
fn lines_appended_while_the_engine_is_unavailable_or_the_node_is_stopped_come_later() {
    let Some(mut engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 2);
    nodes.all[0].stores("1");
    nodes.agree(1);
    engine.kill();
    nodes.all[0].is_unready();
    echo(&nodes.all[0].setup.dir.file(), "\"to the file\"");
    echo(&nodes.all[0].setup.dir.join("messages.txt.in"), "\"to the inbox\"");
    nodes.all[1].stop();
    echo(&nodes.all[1].setup.dir.file(), "\"stopped\"");
    engine.restart();
    nodes.all[1].start();
    let mut lines: Vec<String> = {
        let files = nodes.agree(4);
        String::from_utf8_lossy(&files[0]).lines().map(str::to_owned).collect()
    };
    assert_eq!(lines.remove(0), "1");
    lines.sort();
    assert_eq!(lines, ["\"stopped\"", "\"to the file\"", "\"to the inbox\""]);
}

#[test]
fn a_line_appended_after_a_power_cut_is_posted() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 2);
    nodes.all[0].stores("1");
    let noted = nodes.all[0].noted(1);
    nodes.all[0].stores("2");
    nodes.agree(2);
    nodes.all[0].loses_power(noted);
    echo(&nodes.all[0].setup.dir.file(), "\"appended\"");
    assert_eq!(nodes.all[1].stores("3"), 3);
    nodes.all[0].start();
    assert_eq!(nodes.agree(4)[1], b"1\n2\n3\n\"appended\"\n");
}

/// The texts of the files beside the file whose names begin so; any of them may be removed just now.
fn beside(nodes: &Nodes, node: usize, begin: &str) -> Vec<String> {
    let folder = fs::read_dir(nodes.all[node].setup.dir.join("")).expect("the folder");
    let entries = folder.map(|entry| entry.expect("an entry"));
    let found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(begin));
    found.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect()
}

#[test]
fn a_program_that_keeps_the_inbox_open_loses_nothing() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 1);
    let path = nodes.all[0].setup.dir.join("messages.txt.in");
    let mut inbox =
        fs::OpenOptions::new().append(true).create(true).open(&path).expect("the inbox");
    let mut append = |text: &str| inbox.write_all(text.as_bytes()).expect("it can be written");
    append("1\n");
    nodes.agree(1);
    append("2\n");
    nodes.agree(2);
    // A line that is written in two goes waits for its end, also over a kill.
    append("3\n{\"half\":");
    nodes.agree(3);
    append("\"and ");
    nodes.all[0].kill();
    nodes.all[0].start();
    nodes.all[0].is_ready();
    append("half\"}\n");
    nodes.agree(4);
    // Others get a new inbox when nobody writes to this one.
    let node = &nodes.all[0];
    within(CALM, "the inbox is gone", || !path.exists(), || node.server().log());
    append("5\n");
    nodes.agree(5);
    echo(&path, "6");
    let six = nodes.agree(6).remove(0);
    assert_eq!(String::from_utf8_lossy(&six), "1\n2\n3\n{\"half\":\"and half\"}\n5\n6\n");
    // What was posted is known after a kill.
    nodes.all[0].kill();
    nodes.all[0].start();
    nodes.all[0].is_ready();
    append("7\n");
    assert_eq!(nodes.agree(7)[0], [&six[..], b"7\n"].concat());
}

#[test]
fn an_inbox_to_which_nobody_has_written_for_hours_is_posted_to_its_end_and_removed() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 1);
    let path = nodes.all[0].setup.dir.join("messages.txt.in");
    fs::write(&path, "1\n2").expect("it is written");
    nodes.agree(1);
    let inbox = fs::OpenOptions::new().append(true).open(&path).expect("the inbox");
    inbox.set_modified(UNIX_EPOCH).expect("a time that can be set");
    assert_eq!(nodes.agree(2)[0], b"1\n2\n");
    let is_gone = || beside(&nodes, 0, "messages.txt.in").is_empty();
    within(CALM, "nothing of it is left", is_gone, || nodes.all[0].server().log());
    // The next one is another one, whatever it says.
    echo(&path, "1");
    assert_eq!(nodes.agree(3)[0], b"1\n2\n1\n");
}

/// The engine gives out no numbers in one channel for as long as this test says so.
#[test]
fn a_channel_that_takes_no_posts_holds_up_no_other_ones_inbox() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 1);
    let node = &nodes.all[0];
    assert_eq!(node.server().has("PUT /dev", &["Content-Length: 0"]).status, 201);
    node.server().asked(ask_with("POST /dev", &[], "1"));
    let settle = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis();
        let soon = (now + 900).to_string();
        engine.asks(&["HSET", "txtcord:{dev}:meta", "settled", &soon]);
    };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = EndsWithMe(&over);
        settle();
        scope.spawn(|| {
            while !over.load(Relaxed) {
                settle();
                thread::sleep(Duration::from_millis(50));
            }
        });
        echo(&node.setup.dir.join("channels/dev.txt.in"), "2");
        let is_stuck = || {
            let names = fs::read_dir(node.setup.dir.join("channels")).expect("the folder");
            let mut names = names.map(|entry| entry.expect("an entry").file_name());
            names.any(|name| name.to_string_lossy().starts_with("dev.txt.in-"))
        };
        within(CALM, "dev is stuck", is_stuck, || node.server().log());
        echo(&node.setup.dir.join("messages.txt.in"), "\"other\"");
        within(
            LOST,
            "the other line is posted",
            || node.lines() == ["\"other\""],
            || node.server().log(),
        );
    });
    let dev = || fs::read(node.setup.dir.join("channels/dev.txt"));
    within(
        CALM,
        "dev goes on",
        || dev().is_ok_and(|text| text == b"1\n2\n"),
        || node.server().log(),
    );
}

#[test]
fn lines_that_cannot_be_posted_are_kept_beside_the_file() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 1);
    let node = &nodes.all[0];
    echo(&node.setup.dir.join("messages.txt.in"), "no message\n\"one\"");
    echo(&node.setup.dir.file(), "another\n\"two\"");
    nodes.agree(2);
    let kept = || {
        let mut kept = beside(&nodes, 0, "messages.txt.torn-");
        kept.sort();
        kept
    };
    let is_kept = || kept() == ["another\n", "no message\n"];
    within(CALM, "both are kept", is_kept, || format!("{:?}", kept()));
    let says = "1 lines hold neither a message nor an operation; they are in ";
    let is_said = || node.server().log().matches(says).count() == 2;
    within(CALM, "both are told of", is_said, || node.server().log());
}

/// Lines are appended on every node while everybody talks and nodes are killed; each comes once, but for
/// `may_be_lost` of them at the most.
#[track_caller]
fn check(name: &str, may_be_lost: usize) {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 3);
    let load = Load::on(&nodes.addresses, "load");
    let over = AtomicBool::new(false);
    let appended = AtomicU64::new(0);
    let (is_inbox, too_slow) = (name.ends_with(".in"), AtomicUsize::new(0));
    let paths: Vec<PathBuf> = nodes.all.iter().map(|node| node.setup.dir.join(name)).collect();
    let texts: Vec<String> = thread::scope(|scope| {
        let _ends = EndsWithMe(&over);
        let (over, appended, too_slow) = (&over, &appended, &too_slow);
        let writers = each_apart(scope, &paths, move |node, path| {
            let mut texts = Vec::new();
            while !over.load(Relaxed) {
                let text = format!("{{\"echo\":[{node},{}]}}", texts.len());
                let took = echo(path, &text);
                too_slow.fetch_add(usize::from(is_inbox && took > WRITES_WITHIN), Relaxed);
                texts.push(text);
                appended.fetch_add(1, Relaxed);
                thread::sleep(Duration::from_millis(15));
            }
            texts
        });
        for round in 0..4 {
            load.goes_on(100);
            nodes.all[round % 3].kill();
            load.goes_on(50);
            nodes.all[round % 3].start();
        }
        load.goes_on(100);
        over.store(true, Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect()
    });
    let may_be_lost = may_be_lost + too_slow.load(Relaxed);
    let mut record = load.ends();
    let begun = Instant::now();
    let all_are_there = || {
        let lines = nodes.all[0].lines();
        let missing = texts.iter().filter(|text| !lines.contains(text)).count();
        missing == 0 || missing <= may_be_lost && begun.elapsed() > LOST
    };
    within(CALM, "each appended line is there", all_are_there, || {
        let lines = nodes.all[0].lines();
        let missing: Vec<_> = texts.iter().filter(|text| !lines.contains(text)).collect();
        format!("{} of {} are missing: {missing:?}", missing.len(), texts.len())
    });
    let files = nodes.agree(record.last());
    let lines: Vec<String> =
        String::from_utf8_lossy(&files[0]).lines().map(str::to_owned).collect();
    record.once.extend(texts.iter().filter(|text| lines.contains(text)).cloned());
    let faults = faults(&files, &record);
    assert!(faults.is_empty(), "{faults:?}");
    assert!(texts.len() > 50, "{} lines were appended", texts.len());
    // They come in order.
    for node in 0..3 {
        let begins = format!("{{\"echo\":[{node},");
        let own: Vec<&String> = lines.iter().filter(|line| line.starts_with(&begins)).collect();
        let is_own = |text: &&String| text.starts_with(&begins) && lines.contains(text);
        let sent: Vec<&String> = texts.iter().filter(is_own).collect();
        assert!(own == sent, "node {node}: another order");
    }
    for path in paths.iter().filter(|path| path.ends_with("messages.txt.in")) {
        let is_empty = || fs::read(path).is_ok_and(|bytes| bytes.is_empty()) || !path.exists();
        within(CALM, "what was posted is gone", is_empty, || path.display().to_string());
    }
}

#[test]
fn lines_appended_to_the_file_under_load_and_kills_come_once() {
    // At each of four starts, an instant remains between the last look at the file and its cut.
    check("messages.txt", 4);
}

#[test]
fn lines_appended_for_posting_under_load_and_kills_come_once() {
    check("messages.txt.in", 0);
}
