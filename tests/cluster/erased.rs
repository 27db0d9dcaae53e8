//! What was deleted is overwritten in the files and not in the stream, so that their hashes differ from
//! then on; and yet that is no fork.

use std::{fs::File, os::unix::fs::FileExt};

use crate::{
    engine::{Engine, Keeps, STREAM},
    nodes::Nodes,
    support::*,
    together::ANN,
};

/// Says so many messages, `{"said":1}` and so on.
fn say(nodes: &Nodes, count: u64) {
    for number in 1..=count {
        let said = format!("{{\"said\":{number}}}");
        assert_eq!(nodes.all[0].server().did("POST /messages", ANN, &said), number);
    }
    nodes.agree(count);
}

/// Nodes that have stored `{"said":1}` to `{"said":10}`, of which the third was deleted.
fn nodes_with_a_hole(engine: &Engine, count: usize) -> Nodes {
    let nodes = Nodes::on(engine, count);
    say(&nodes, 10);
    nodes.all[0].server().did("DELETE /messages/3", ANN, "");
    let files = nodes.agree(11);
    assert!(!String::from_utf8_lossy(&files[0]).contains("said\":3"));
    nodes
}

#[test]
fn a_file_from_which_was_deleted_what_the_engine_keeps_no_more_joins_again() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = nodes_with_a_hole(&engine, 2);
    engine.asks(&["XTRIM", STREAM, "MAXLEN", "3"]);
    let epoch = engine.meta("epoch");
    nodes.all[1].stop();
    nodes.all[1].start();
    nodes.all[1].is_ready();
    // With more to come, too; and as a copy of another node's file.
    nodes.all[1].stop();
    let copy = String::from_utf8(nodes.all[0].file()).expect("UTF-8");
    assert_eq!(nodes.all[0].stores("\"after\""), 12);
    nodes.all[1].start();
    nodes.all[1].is_ready();
    nodes.one_more(&engine, Setup::new().file(&copy));
    nodes.all[2].is_ready();
    nodes.agree(12);
    assert_eq!(nodes.all[2].stores("\"end\""), 13);
    nodes.agree(13);
    assert!(nodes.set_aside().is_empty(), "{:?}", nodes.set_aside());
    assert_eq!(engine.meta("epoch"), epoch);
}

#[test]
fn an_engine_that_lost_what_was_deleted_is_given_the_rest_again() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = nodes_with_a_hole(&engine, 3);
    let epoch = engine.meta("epoch");
    engine.asks(&["FLUSHALL"]);
    nodes.all.iter().for_each(|node| assert_eq!(node.stores_with("a key", "\"after\""), 12));
    nodes.agree(12);
    assert_eq!((nodes.set_aside(), engine.meta("epoch")), (Vec::new(), epoch));
    assert!(nodes.all.iter().all(|node| node.is_alive()), "a node ended");
}

#[test]
fn a_node_that_did_not_hear_of_the_deleting_joins_an_engine_that_was_given_it_back() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 2);
    say(&nodes, 4);
    nodes.all[1].stop();
    nodes.all[0].server().did("DELETE /messages/3", ANN, "");
    engine.asks(&["FLUSHALL"]);
    assert_eq!(nodes.all[0].stores_in_the_end("\"after\""), 6);
    nodes.all[1].start();
    nodes.all[1].is_ready();
    let files = nodes.agree(6);
    assert!(!String::from_utf8_lossy(&files[1]).contains("said\":3"));
    assert!(nodes.set_aside().is_empty(), "{:?}", nodes.set_aside());
}

#[test]
fn of_a_file_that_has_forked_what_stands_after_a_deleted_message_is_not_set_aside() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = nodes_with_a_hole(&engine, 2);
    nodes.all[1].stop();
    let at = nodes.all[1].lines()[..7].iter().map(|line| line.len() as u64 + 1).sum::<u64>();
    let file = File::options().write(true).open(nodes.all[1].setup.dir.file()).expect("a file");
    file.write_all_at(b"{\"SAID\":8}", at).expect("it is written");
    let ended = nodes.all[1].starts_and_ends();
    ended.with(75, &["lines 8 to 11 differ"]);
    nodes.rejoin();
    nodes.agree(11);
    assert_eq!(nodes.all[1].set_aside().concat().lines().next(), Some("{\"SAID\":8}"));
}
