//! Faults under load: nodes and engines are killed, frozen, cut off and replaced, and tails of what an
//! engine appended are lost. Each promise has a control that breaks it and is found.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use crate::{
    check::{Record, holds, lost},
    engine::{Engine, Keeps, META, STREAM},
    load::Load,
    nodes::{CALM, Node, Nodes, SETTLES, answer_of, within},
    proxy::{Proxy, Way},
    support::*,
};

/// Longer than anything waits for an answer of the engine.
const BEYOND_TIMEOUTS: Duration = Duration::from_millis(4_500);

/// Ends the load and checks that everything holds, with no fork.
#[track_caller]
fn ends_well(nodes: &Nodes, load: Load) -> Record {
    let record = load.ends();
    let files = nodes.agree(record.last());
    holds(&files, &record);
    assert!(nodes.set_aside().is_empty(), "{:?}", nodes.set_aside());
    assert!(nodes.all.iter().all(|node| node.is_alive()), "a node ended");
    record
}

#[test]
fn nodes_and_the_engine_are_killed_and_nothing_is_lost_or_doubled() {
    let Some(mut engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 3);
    let load = Load::on(&nodes.addresses, "load");
    let mut dice = Dice::new();
    for round in 0..3 {
        load.goes_on(100 + dice.below(100));
        let node = dice.below(3) as usize;
        nodes.all[node].kill();
        load.goes_on(dice.below(100));
        if round > 0 {
            // With a node down, and with all of them up.
            engine.kill();
            engine.restart();
        }
        nodes.all[node].start();
    }
    load.goes_on(200);
    ends_well(&nodes, load);
}

#[test]
fn all_nodes_and_the_engine_are_killed_at_once() {
    let Some(mut engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 2);
    let load = Load::on(&nodes.addresses, "load");
    load.goes_on(300);
    engine.kill();
    nodes.all.iter_mut().for_each(|node| node.kill());
    engine.restart();
    nodes.all.iter_mut().for_each(|node| node.start());
    load.goes_on(100);
    ends_well(&nodes, load);
}

#[test]
fn the_nodes_give_back_what_an_engine_lost_with_its_tail() {
    with_more_and_more_time(SETTLES, |settle| {
        let Some(mut engine) = Engine::start(Keeps::EverySecond) else { return };
        let nodes = Nodes::patient(&engine, 3, settle);
        let load = Load::on(&nodes.addresses, "load");
        let mut dice = Dice::new();
        load.goes_on(300);
        for _ in 0..2 {
            load.goes_on(200);
            engine.kill();
            // At most a third, so that the beginning stays.
            engine.cut(1 + dice.below(engine.appended() / 3));
            engine.restart();
            load.goes_on(100);
        }
        ends_well(&nodes, load);
        assert!(nodes.sum("txtcord_cluster_restored_lines_total") > 0.0, "no line was given back");
    });
}

/// A power cut takes the stamps that were not on the disk yet, and the engine's tail.
#[test]
fn what_a_power_cut_took_from_the_engine_is_given_back_and_not_posted_again() {
    let Some(mut engine) = Engine::start(Keeps::EverySecond) else { return };
    let mut nodes = Nodes::on(&engine, 2);
    let say = |nodes: &Nodes, numbers: std::ops::RangeInclusive<u64>| {
        for number in numbers {
            assert_eq!(nodes.all[0].stores(&format!("\"line {number}\"")), number);
        }
    };
    say(&nodes, 1..=5);
    let noted = nodes.all[0].noted(5);
    let appended = engine.appended();
    say(&nodes, 6..=10);
    nodes.agree(10);
    nodes.all[0].loses_power(noted);
    engine.kill();
    engine.cut(engine.appended() - appended);
    nodes.all[1].proxy.becomes(Way::Cut);
    engine.restart();
    nodes.all[0].start();
    // Only now does the other node give back what it has.
    nodes.all[1].proxy.becomes(Way::Open);
    nodes.are_ready();
    let stored = nodes.all[0].stores_in_the_end("\"line 11\"");
    assert_eq!(stored, 11, "{}", nodes.all[0].server().log());
    let expected: String = (1..=11).map(|number| format!("\"line {number}\"\n")).collect();
    assert_eq!(String::from_utf8_lossy(&nodes.agree(11)[0]), expected);
    assert!(nodes.set_aside().is_empty(), "{:?}", nodes.set_aside());
}

/// It may take longer than the engine settles to give a long file back. A node that lacks lines waits
/// for all of them, not only for the first ones.
#[test]
fn no_numbers_are_given_out_while_lines_are_given_back() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    // The engine has settled before any line was given back.
    engine.asks(&["HSET", META, "run", &engine.info("run_id"), "settled", "1"]);
    let mut nodes = Nodes::begin(&engine, 0, &["--cluster-settle", "1h"]);
    nodes.one_more(&engine, Setup::new().file("1\n2\n"));
    let is_given_back = || engine.meta("last") == "2";
    within(CALM, "they are given back", is_given_back, || nodes.all[0].server().log());
    let now: u64 = engine.asks(&["TIME"]).many()[0].text().parse().expect("Unix seconds");
    let settled: u64 = engine.meta("settled").parse().expect("Unix milliseconds");
    assert!(settled > (now + 60) * 1000, "{settled} is not long after {now}000");
}

/// An engine has room for what it keeps, and not for all that was ever said.
#[test]
fn an_engine_that_is_given_a_long_file_keeps_only_its_end() {
    const LINES: usize = 10;
    let Some(engine) = Engine::start(Keeps::Nothing) else { return };
    let mut nodes = Nodes::begin(&engine, 0, &["--cluster-settle", "0s"]);
    // About 100 MiB.
    let line = format!("\"{}\"\n", "x".repeat(10 << 20));
    nodes.one_more(&engine, Setup::new().file(line.repeat(LINES)));
    let is_given_back = || engine.meta("last") == LINES.to_string();
    within(CALM, "it is given back", is_given_back, || nodes.all[0].server().log());
    let kept = engine.asks(&["XLEN", STREAM]).number();
    assert!((6..9).contains(&kept), "{kept} lines of 10 MiB are kept");
    nodes.all[0].is_ready();
    assert_eq!(nodes.all[0].stores("\"after\""), LINES as u64 + 1);
}

/// A file of gigabytes takes many seconds.
#[test]
fn a_long_file_that_is_given_back_holds_up_no_other_channel() {
    const LINES: usize = 60;
    // A busy machine may do all of it before it lets a post in.
    in_one_of_a_few_attempts(|| {
        let Some(engine) = Engine::start(Keeps::Nothing) else { return };
        let mut nodes = Nodes::begin(&engine, 0, &["--cluster-settle", "0s"]);
        let line = format!("\"{}\"\n", "x".repeat(1 << 20));
        let setup = Setup::new().file(line.repeat(LINES));
        fs::create_dir(setup.dir.join("channels")).expect("a folder");
        fs::write(setup.dir.join("channels/dev.txt"), "1\n2\n").expect("a file");
        nodes.one_more(&engine, setup);
        let post = ask_with("POST /dev", &["Connection: close"], "3");
        assert_eq!(nodes.all[0].server().asked(&post).status, 201);
        let given_back: usize = engine.meta("last").parse().unwrap_or(0);
        assert!(given_back < LINES, "all was given back before");
        nodes.all[0].is_ready();
        assert_eq!(engine.meta("last"), LINES.to_string());
    });
}

/// A long file takes longer to hash than an engine settles. The first line stands here for all that must
/// not be read again: with another first line, no hash of the whole file is right.
#[test]
fn what_an_engine_lost_is_given_back_without_a_look_at_the_beginning_of_the_file() {
    with_more_and_more_time(SETTLES, |settle| {
        let Some(mut engine) = Engine::start(Keeps::Always) else { return };
        let nodes = Nodes::patient(&engine, 2, settle);
        let say = |numbers: std::ops::RangeInclusive<u64>| {
            for number in numbers {
                let text = format!("\"line {number}\"");
                assert_eq!(nodes.all[0].stores_in_the_end(&text), number);
            }
        };
        say(1..=5);
        let appended = engine.appended();
        say(6..=10);
        nodes.agree(10);
        for node in &nodes.all {
            let file = File::options().write(true).open(node.setup.dir.file()).expect("a file");
            file.write_all_at(b"\"LINE 1\"", 0).expect("it is written");
        }
        engine.kill();
        engine.cut(engine.appended() - appended);
        engine.restart();
        assert_eq!(nodes.all[1].stores_in_the_end("\"line 11\""), 11);
        nodes.agree(11);
        assert_eq!(engine.meta("last"), "11");
        assert!(nodes.set_aside().is_empty(), "{:?}", nodes.set_aside());
        assert_eq!(nodes.sum("txtcord_cluster_restored_lines_total"), 5.0);
    });
}

/// What becomes of lines that the engine lost with its tail, when a node that lacks them too comes first
/// and takes a post, and those that have them come a second later.
struct LateReturn {
    record: Record,
    files: Vec<Vec<u8>>,
    set_aside: Vec<String>,
    forks: usize,
    /// The id that the node which came first gave to its post.
    given: u64,
    same_epoch: bool,
}

#[track_caller]
fn late_return(engine: &mut Engine, settle: Duration) -> LateReturn {
    const EACH: u64 = 20;
    let mut nodes = Nodes::patient(engine, 3, settle);
    let mut record = Record::default();
    let say = |nodes: &Nodes, from: u64| {
        (from..from + EACH).for_each(|number| {
            assert_eq!(nodes.all[1].stores(&format!("\"line {number}\"")), number);
        });
        (from..from + EACH).map(|number| (number, format!("\"line {number}\"")))
    };
    record.acknowledged.extend(say(&nodes, 1));
    nodes.agree(EACH);
    let epoch = engine.meta("epoch");
    nodes.all[0].proxy.becomes(Way::Cut);
    let appended = engine.appended();
    record.acknowledged.extend(say(&nodes, EACH + 1));
    nodes.all[2].has_lines(2 * EACH as usize);
    nodes.all[1..].iter().for_each(|node| node.proxy.becomes(Way::Cut));
    engine.kill();
    engine.cut(engine.appended() - appended);
    engine.restart();
    let given = thread::scope(|scope| {
        let (first, others) = nodes.all.split_first().expect("three nodes");
        first.proxy.becomes(Way::Open);
        let post = scope.spawn(|| first.stores_in_the_end("\"taken first\""));
        if settle.is_zero() {
            within(CALM, "the post is taken", || post.is_finished(), || first.server().log());
        } else {
            // Within the time that the engine settles.
            thread::sleep(Duration::from_secs(1));
        }
        others.iter().for_each(|node| node.proxy.becomes(Way::Open));
        post.join().expect("a post")
    });
    let forks = nodes.rejoin();
    let files = nodes.agree(EACH + 1);
    let same_epoch = engine.meta("epoch") == epoch;
    LateReturn { record, files, set_aside: nodes.set_aside(), forks, given, same_epoch }
}

#[test]
fn an_engine_settles_until_those_that_have_its_lost_tail_are_back() {
    with_more_and_more_time(SETTLES, |settle| {
        let Some(mut engine) = Engine::start(Keeps::Always) else { return };
        let end = late_return(&mut engine, settle);
        assert_eq!((end.forks, end.given, end.same_epoch), (0, 41, true));
        holds(&end.files, &end.record);
        assert!(end.set_aside.is_empty(), "{:?}", end.set_aside);
    });
}

#[test]
fn without_settling_numbers_are_given_again_and_the_fork_is_found() {
    let Some(mut engine) = Engine::start(Keeps::Always) else { return };
    let end = late_return(&mut engine, Duration::ZERO);
    assert_eq!(end.given, 21, "the number was free");
    assert!(end.forks >= 2, "{} forks were found", end.forks);
    assert!(!end.same_epoch, "numbers are given again under a new epoch alone");
    assert!(end.files.iter().all(|file| *file == end.files[0]));
    // The checker sees it, and nothing is lost that is not set aside.
    assert_eq!(lost(&end.files[0], &end.record).len(), 20);
    for (id, text) in &end.record.acknowledged {
        let is_there = String::from_utf8_lossy(&end.files[0]).lines().any(|line| line == text);
        assert!(is_there || end.set_aside.contains(text), "{id}: {text} is nowhere");
    }
}

#[test]
fn an_engine_that_freezes_beyond_all_timeouts_doubles_nothing() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 3);
    let load = Load::on(&nodes.addresses, "load");
    for _ in 0..2 {
        load.goes_on(200);
        engine.freeze();
        thread::sleep(BEYOND_TIMEOUTS);
        engine.thaw();
    }
    load.goes_on(200);
    ends_well(&nodes, load);
}

/// A post that the engine took, and whose answer was lost with the connection, is sent again; `between`
/// is done to the engine before. The lines of the file at the end.
#[track_caller]
fn answer_lost(engine: &Engine, between: impl FnOnce(&Engine)) -> Vec<String> {
    let nodes = Nodes::on(engine, 1);
    let node = &nodes.all[0];
    node.stores("1");
    let calls = || {
        let calls = engine.asks(&["INFO", "commandstats"]).text();
        let all = calls.lines().filter(|line| line.starts_with("cmdstat_eval"));
        let count =
            |line: &str| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok();
        all.filter_map(count).sum::<u64>()
    };
    node.proxy.becomes(Way::Deaf);
    let mut ann = node.server().join();
    ann.say("2");
    within(CALM, "the engine takes it", || engine.meta("last") == "2", || node.server().log());
    // An answer that is still on its way is lost with the connection.
    node.proxy.becomes(Way::Cut);
    between(engine);
    let before = calls();
    // The reader is held, so that the line does not come back before it is sent again.
    node.proxy.becomes(Way::DeafTo(b"XREAD"));
    // It asks how things are, and sends what it has not seen.
    within(CALM, "it is sent again", || calls() >= before + 2, || node.server().log());
    node.proxy.becomes(Way::Open);
    node.proxy.drops_all();
    node.is_ready();
    node.stores("\"end\"");
    node.lines()
}

#[test]
fn a_post_whose_answer_was_lost_is_not_doubled_when_it_is_sent_again() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    assert_eq!(answer_lost(&engine, |_| ()), ["1", "2", "\"end\""]);
}

#[test]
fn a_disk_that_hangs_in_one_channel_holds_up_no_other_on_its_node() {
    const HANGS: Duration = Duration::from_secs(10);
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 2);
    let [node, other] = &nodes.all[..] else { panic!("two nodes") };
    assert_eq!(node.server().has("PUT /dev", &["Content-Length: 0"]).status, 201);
    let dev = |node: &Node| node.setup.dir.join("channels/dev.txt");
    let has = |node: &Node, text: &[u8]| fs::read(dev(node)).is_ok_and(|file| file == text);
    within(CALM, "dev is on both", || has(other, b""), || other.server().log());
    let injection = format!("fdatasync:delay_enter={}", HANGS.as_micros());
    let path = dev(node);
    let name = "a_disk_that_hangs_in_one_channel_holds_up_no_other_on_its_node";
    let path = path.to_str().expect("UTF-8");
    let Some(meddling) = meddle_with(node.server(), name, &injection, path) else { return };
    let post = |text: &str| ask_with("POST /dev", &["Connection: close"], text);
    let (address, first) = (node.server().address(), post("1"));
    let first = thread::spawn(move || answer_of(address, &first, CALM));
    within(CALM, "the line is written", || has(node, b"1\n"), || node.server().log());
    assert_eq!(other.server().asked(post("2")).status, 201);
    let begun = Instant::now();
    assert_eq!(node.stores("\"other\""), 1);
    assert!(begun.elapsed() < HANGS / 2, "it took {:?}", begun.elapsed());
    let answer = first.join().expect("no panic");
    assert_eq!(answer, Some((201, "{\"id\":1}\n".to_owned())));
    drop(meddling);
    within(CALM, "dev goes on", || has(node, b"1\n2\n"), || node.server().log());
}

#[test]
fn a_repeated_post_is_answered_even_if_the_answer_of_the_engine_is_lost() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 1);
    assert_eq!(nodes.all[0].stores_with("a key", "1"), 1);
    // A start forgets the key, and the engine knows it.
    nodes.all[0].stop();
    engine.keys("txtcord:{messages}:by:*").iter().for_each(|key| drop(engine.asks(&["DEL", key])));
    nodes.all[0].start();
    nodes.all[0].is_ready();
    let node = &nodes.all[0];
    node.stores("2");
    let by = engine.keys("txtcord:{messages}:by:*").pop().expect("the node has sent a batch");
    node.proxy.becomes(Way::Deaf);
    let repeat = ask_with("POST /messages", &["Idempotency-Key: a key", "Connection: close"], "1");
    let address = node.server().address();
    let answer = thread::spawn(move || answer_of(address, &repeat, CALM));
    let is_seen = || engine.asks(&["GET", &by]).text() == "2";
    within(CALM, "the engine sees the repeat", is_seen, || node.server().log());
    node.proxy.becomes(Way::Cut);
    node.proxy.becomes(Way::Open);
    let answer = answer.join().expect("no panic");
    assert_eq!(answer, Some((201, "{\"id\":1}\n".to_owned())), "{}", node.server().log());
    assert_eq!(node.stores("3"), 3);
    assert_eq!(node.lines(), ["1", "2", "3"]);
}

#[test]
fn without_the_engines_memory_of_what_a_node_sent_it_is_doubled() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let lines = answer_lost(&engine, |engine| {
        let keys = engine.keys("txtcord:{messages}:by:*");
        assert_eq!(keys.len(), 1, "{keys:?}");
        engine.asks(&["DEL", &keys[0]]);
    });
    assert_eq!(lines, ["1", "2", "2", "\"end\""]);
}

#[test]
fn a_replica_that_lacks_a_tail_is_promoted_and_gets_it_from_the_nodes() {
    with_more_and_more_time(SETTLES, |settle| {
        let Some(mut primary) = Engine::start(Keeps::Always) else { return };
        let Some(replica) = Engine::start(Keeps::Always) else { return };
        let way = Proxy::to(primary.address());
        replica.follows_at(way.address());
        let nodes = Nodes::patient(&primary, 3, settle);
        let load = Load::on(&nodes.addresses, "load");
        load.goes_on(300);
        // What it lacks it has not even received.
        way.becomes(Way::Frozen);
        load.goes_on(300);
        way.becomes(Way::Cut);
        primary.kill();
        replica.is_promoted();
        nodes.lead_to(&replica);
        load.goes_on(300);
        ends_well(&nodes, load);
        assert!(nodes.sum("txtcord_cluster_restored_lines_total") > 0.0, "no line was given back");
        assert_eq!(nodes.sum("txtcord_cluster_forks_total"), 0.0);
    });
}

#[test]
fn an_engine_that_has_nothing_gets_everything_from_the_nodes() {
    with_more_and_more_time(SETTLES, |settle| {
        let Some(mut engine) = Engine::start(Keeps::Always) else { return };
        let Some(empty) = Engine::start(Keeps::Always) else { return };
        let nodes = Nodes::patient(&engine, 3, settle);
        let epoch = engine.meta("epoch");
        let load = Load::on(&nodes.addresses, "load");
        load.goes_on(500);
        engine.kill();
        nodes.lead_to(&empty);
        load.goes_on(100);
        let mut record = load.ends();
        let files = nodes.agree(record.last());
        // It has no keys of posts either, so one that was repeated over the change may come twice.
        record.once.retain(|text| !text.contains("posts"));
        holds(&files, &record);
        assert_eq!(empty.meta("epoch"), epoch);
    });
}

#[test]
fn a_node_that_is_cut_off_goes_on_serving_and_comes_back() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 3);
    let load = Load::on(&nodes.addresses, "load");
    for way in [Way::Cut, Way::Frozen] {
        load.goes_on(200);
        nodes.all[0].proxy.becomes(way);
        nodes.all[0].is_unready();
        load.goes_on(100);
        assert!(!nodes.all[0].server().gets("/messages?limit=1").is_empty());
        nodes.all[0].proxy.becomes(Way::Open);
        nodes.all[0].is_ready();
    }
    load.goes_on(100);
    ends_well(&nodes, load);
}

/// A primary with node 0 and a promoted replica with the others, which know nothing of each other.
struct Split {
    primary: Engine,
    promoted: Engine,
    nodes: Nodes,
    /// What was acknowledged before.
    before: u64,
}

fn split(flags: &[&str]) -> Option<Split> {
    let primary = Engine::start(Keeps::Always)?;
    let promoted = Engine::start(Keeps::Always)?;
    let way = Proxy::to(primary.address());
    promoted.follows_at(way.address());
    for pair in flags.chunks(2) {
        primary.asks(&["CONFIG", "SET", pair[0], pair[1]]);
    }
    let nodes = Nodes::on(&primary, 3);
    let before = 10;
    for number in 1..=before {
        nodes.all[0].stores(&number.to_string());
    }
    nodes.agree(before);
    until("the replica follows", || promoted.meta("last") == before.to_string());
    way.becomes(Way::Cut);
    promoted.is_promoted();
    nodes.all[1..].iter().for_each(|node| node.leads_to(&promoted));
    Some(Split { primary, promoted, nodes, before })
}

impl Split {
    /// The cut-off primary gives up, and its node comes to the others.
    #[track_caller]
    fn heals(&mut self) -> usize {
        self.primary.kill();
        self.nodes.all[0].leads_to(&self.promoted);
        self.nodes.rejoin()
    }
}

#[test]
fn after_a_split_the_lines_of_the_side_that_was_cut_off_are_set_aside() {
    let Some(mut split) = split(&[]) else { return };
    let cut_off: Vec<String> = (0..5).map(|number| format!("\"cut off {number}\"")).collect();
    let stays: Vec<String> = (0..7).map(|number| format!("\"stays {number}\"")).collect();
    for text in &cut_off {
        split.nodes.all[0].stores_in_the_end(text);
    }
    for text in &stays {
        split.nodes.all[1].stores_in_the_end(text);
    }
    assert!(split.heals() >= 1, "no fork was found");
    let files = split.nodes.agree(split.before + 7);
    let text = String::from_utf8_lossy(&files[0]).into_owned();
    let lines: Vec<&str> = text.lines().skip(split.before as usize).collect();
    assert_eq!(lines, stays);
    assert_eq!(split.nodes.all[0].set_aside().concat(), cut_off.join("\n") + "\n");
    // It goes on.
    let id = split.nodes.all[0].stores_in_the_end("\"after\"");
    assert_eq!(id, split.before + 8);
    split.nodes.agree(id);
}

#[test]
fn with_a_replica_demanded_the_side_that_is_cut_off_takes_no_posts() {
    let flags = ["min-replicas-to-write", "1", "min-replicas-max-lag", "1"];
    let Some(mut split) = split(&flags) else { return };
    until("the primary misses its replica", || split.primary.info("min_slaves_good_slaves") == "0");
    let refused = split.nodes.all[0].posts("\"cut off\"");
    assert_eq!(refused.status, 503, "{refused:?}");
    split.nodes.all[0].is_unready();
    let id = split.nodes.all[1].stores_in_the_end("\"stays\"");
    assert_eq!(split.heals(), 0);
    split.nodes.all[0].stores_in_the_end("\"after\"");
    let files = split.nodes.agree(id + 1);
    let text = String::from_utf8_lossy(&files[0]).into_owned();
    // What was refused may have been stored when it was refused after a while; once, then.
    let new: Vec<&str> =
        text.lines().skip(split.before as usize).filter(|line| *line != "\"cut off\"").collect();
    assert_eq!(new, ["\"stays\"", "\"after\""]);
    assert!(split.nodes.set_aside().is_empty());
}

#[test]
fn clients_are_told_to_come_back_when_numbers_are_given_again() {
    let Some(mut split) = split(&[]) else { return };
    let mut ann = split.nodes.all[0].server().join();
    let epoch = ann.history.epoch.clone();
    split.nodes.all[0].stores_in_the_end("\"cut off\"");
    split.nodes.all[1].stores_in_the_end("\"stays\"");
    split.primary.kill();
    split.nodes.all[0].leads_to(&split.promoted);
    ann.is_closed_with(1012);
    split.nodes.rejoin();
    for node in &split.nodes.all {
        // The other nodes hear of it a moment after the one whose lines were set aside.
        until("the node has the new numbering", || node.server().join().history.epoch != epoch);
        let back = node.server().join_at(&format!("/ws?after=11&epoch={epoch}"));
        assert_eq!(back.history.resumed, Some(false));
        assert_eq!(back.history.said().last(), Some(&"\"stays\""));
    }
    assert_eq!(split.promoted.asks(&["HGET", META, "last"]).text(), "11");
}
