//! Several nodes are one chat: one order, one numbering, one file on each, whatever is done at which.

use std::{fs, thread, time::Duration};

use crate::{
    check::holds,
    engine::{Engine, Keeps, META},
    load::Load,
    nodes::{CALM, Nodes, answer_of, within},
    proxy::Way,
    support::*,
};

/// Two people with keys.
pub const ANN: &str = "as=ann&key=the+key+of+ann";
const BOB: &str = "as=bob&key=the+key+of+bob";

impl Server {
    /// The status and body of a request with a JSON body.
    #[track_caller]
    fn does(&self, line: &str, query: &str, body: &str) -> Response {
        let kind = "Content-Type: application/json";
        self.asked(ask_with(&format!("{line}?{query}"), &[kind], body))
    }

    #[track_caller]
    pub fn did(&self, line: &str, query: &str, body: &str) -> u64 {
        let answer = self.does(line, query, body);
        assert!(matches!(answer.status, 200 | 201), "{line}: {answer:?}\n{}", self.log());
        json(&answer.body)["id"].as_u64().expect("an id")
    }
}

#[test]
fn three_nodes_give_out_one_order_and_have_one_file() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 3);
    let load = Load::on(&nodes.addresses, "load");
    load.goes_on(2_000);
    let record = load.ends();
    let files = nodes.agree(record.last());
    holds(&files, &record);
    assert_eq!(
        engine.meta("last"),
        files[0].split(|&b| b == b'\n').count().saturating_sub(1).to_string()
    );
    let stamps = |node: usize| fs::read(nodes.all[node].setup.dir.join("messages.txt.stamps"));
    let stamps = |node| stamps(node).expect("there are stamps");
    within(
        CALM,
        "the stamps are the same",
        || stamps(0) == stamps(1) && stamps(0) == stamps(2),
        || String::from_utf8_lossy(&stamps(1)).into_owned(),
    );
}

#[test]
fn what_is_said_on_one_node_is_heard_on_all_with_one_id_and_time() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 3);
    let mut clients: Vec<Client> = nodes.all.iter().map(|node| node.server().join()).collect();
    for (number, speaker) in [0, 1, 2, 0].into_iter().enumerate() {
        let text = format!("{{\"n\":{number}, \"x\":1.10}}");
        clients[speaker].say(&text);
        let heard: Vec<Heard> = clients.iter_mut().map(|client| client.hears(&text)).collect();
        assert_eq!(heard[0].id, number as u64 + 1);
        assert_eq!((&heard[0], &heard[0]), (&heard[1], &heard[2]));
    }
}

#[test]
fn a_client_resumes_on_another_node_and_gets_exactly_what_it_lacks() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 3);
    let mut ann = nodes.all[0].server().join();
    let epoch = ann.history.epoch.clone();
    (1..=3).for_each(|number| drop(ann.says(&number.to_string())));
    ann.leave();
    let mut bob = nodes.all[1].server().join();
    (4..=8).for_each(|number| drop(bob.says_among_others(&number.to_string())));
    nodes.agree(8);
    for node in &nodes.all {
        let ann = node.server().join_at(&format!("/ws?after=3&epoch={epoch}"));
        assert_eq!((ann.history.resumed, ann.history.first_id), (Some(true), 4));
        assert_eq!(ann.history.said(), ["4", "5", "6", "7", "8"]);
        assert_eq!(ann.history.epoch, epoch);
        let stale = node.server().join_at("/ws?after=3&epoch=another");
        assert_eq!((stale.history.resumed, stale.history.first_id), (Some(false), 1));
    }
}

#[test]
fn a_client_resumes_on_a_node_that_has_not_heard_yet_what_the_client_has() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 2);
    let [node, late] = &nodes.all[..] else { panic!("two nodes") };
    node.stores("1");
    nodes.agree(1);
    let epoch = node.server().join().history.epoch;
    late.proxy.becomes(Way::Frozen);
    node.stores("2");
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            late.proxy.becomes(Way::Open);
        });
        let client = late.server().join_at(&format!("/ws?after=2&epoch={epoch}"));
        assert_eq!((client.history.resumed, client.history.said()), (Some(true), vec![]));
    });
    // What nobody ever said is not waited for long.
    let client = late.server().join_at(&format!("/ws?after=9&epoch={epoch}"));
    assert_eq!((client.history.resumed, client.history.said().len()), (Some(false), 2));
}

#[test]
fn what_nodes_tell_of_times_and_senders_is_the_same() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 2);
    nodes.all[0].server().did("POST /messages", ANN, "1");
    nodes.all[1].server().did("POST /messages", BOB, "2");
    nodes.all[1].stores("3");
    nodes.agree(3);
    // One that was not there, too.
    nodes.one_more(&engine, Setup::new());
    nodes.agree(3);
    let told: Vec<String> = nodes.all.iter().map(|node| node.server().gets("/messages")).collect();
    assert!(told[0].contains("\"from\":\"ann~"), "{}", told[0]);
    assert!(told[0].contains("\"from\":\"bob~"), "{}", told[0]);
    assert_eq!((&told[0], &told[0]), (&told[1], &told[2]));
    // And after a start.
    nodes.all[1].kill();
    nodes.all[1].start();
    assert_eq!(nodes.all[1].server().gets("/messages"), told[0]);
}

#[test]
fn operations_work_from_any_node_and_deleting_erases_in_every_file() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 3);
    let server = |node: usize| nodes.all[node].server();
    assert_eq!(server(0).did("POST /messages", ANN, r#"{"secret":"first"}"#), 1);
    assert_eq!(server(1).did("POST /messages", BOB, r#"{"stays":true}"#), 2);
    nodes.agree(2);
    assert_eq!(server(1).did("PATCH /messages/1", ANN, r#"{"secret":"second"}"#), 3);
    nodes.agree(3);
    assert_eq!(server(2).did("PUT /messages/1/reactions/x", BOB, ""), 4);
    nodes.agree(4);
    for node in 0..3 {
        let state = json(&server(node).gets("/messages/1"));
        assert_eq!(state["data"]["secret"], "second", "{state}");
        assert!(state["reactions"]["x"][0].as_str().is_some_and(|who| who.starts_with("bob~")));
        let answer = server(node).does("DELETE /messages/1", BOB, "");
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    server(2).did("DELETE /messages/1", ANN, "");
    nodes.agree(5);
    for node in 0..3 {
        let is_erased = || !String::from_utf8_lossy(&nodes.all[node].file()).contains("secret");
        within(CALM, "it is erased", is_erased, || server(node).log());
        assert_eq!(server(node).has("GET /messages/1", &[]).status, 410);
        let answer = server(node).does("PATCH /messages/1", ANN, "1");
        assert_eq!(answer.status, 410, "{answer:?}");
    }
    let files = nodes.agree(5);
    assert_eq!(files[0].split(|&byte| byte == b'\n').count(), 6, "no line is gone");
}

#[test]
fn what_was_deleted_while_a_node_was_down_is_erased_there_too() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 2);
    nodes.all[0].server().did("POST /messages", ANN, r#"{"secret":"first"}"#);
    nodes.agree(1);
    nodes.all[1].kill();
    nodes.all[0].server().did("DELETE /messages/1", ANN, "");
    nodes.all[1].start();
    nodes.all[1].is_ready();
    // A node that begins with nothing gets no more than the others have.
    nodes.one_more(&engine, Setup::new());
    nodes.all[0].stores("\"after\"");
    let files = nodes.agree(3);
    assert!(!String::from_utf8_lossy(&files[0]).contains("secret"));
}

/// The edit is ordered after the deletion, since its node does not know of that yet.
#[test]
fn an_edit_on_one_node_while_another_deletes_the_message_is_erased_with_it() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 3);
    nodes.all[0].server().did("POST /messages", ANN, r#"{"secret":"first"}"#);
    nodes.agree(1);
    nodes.all[1].proxy.becomes(Way::DeafTo(b"XREAD"));
    nodes.all[0].server().did("DELETE /messages/1", ANN, "");
    let lines = ["Content-Type: application/json", "Connection: close"];
    let edit = ask_with(&format!("PATCH /messages/1?{ANN}"), &lines, r#"{"secret":"second"}"#);
    let address = nodes.all[1].server().address();
    let edit = thread::spawn(move || answer_of(address, &edit, CALM));
    let log = || nodes.all[1].server().log();
    within(CALM, "the edit is ordered", || engine.meta("last") == "3", log);
    nodes.all[1].proxy.becomes(Way::Open);
    nodes.all[1].proxy.drops_all();
    edit.join().expect("no panic").expect("an answer");
    let files = nodes.agree(3);
    assert!(!String::from_utf8_lossy(&files[0]).contains("secret"), "it is still there");
    // Neither a start nor a node that reads the whole order brings it back.
    nodes.all[1].kill();
    nodes.all[1].start();
    nodes.one_more(&engine, Setup::new());
    assert_eq!(nodes.all[2].stores("\"after\""), 4);
    assert_eq!(nodes.agree(4)[3], [&files[0][..], b"\"after\"\n"].concat());
}

#[test]
fn a_key_is_good_on_every_node_and_over_kills() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 2);
    let post = |nodes: &Nodes, node: usize, key: &str, body: &str| {
        let headers = [key, "Content-Type: application/x-ndjson"];
        let answer = nodes.all[node].server().asked(ask_with("POST /messages", &headers, body));
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body
    };
    let (one, many) = ("Idempotency-Key: one", "Idempotency-Key: many");
    let first = post(&nodes, 0, one, "1");
    let three = post(&nodes, 1, many, "2\n3\n4");
    assert_eq!(three, "{\"id\":2,\"last_id\":4}\n");
    for round in 0..2 {
        for node in 0..2 {
            assert_eq!(post(&nodes, node, one, "1"), first, "round {round}");
            assert_eq!(post(&nodes, node, many, "2\n3\n4"), three, "round {round}");
        }
        for node in &mut nodes.all {
            node.kill();
            node.start();
            node.is_ready();
        }
    }
    // At the same time on both.
    let answers: Vec<String> = thread::scope(|scope| {
        let nodes = &nodes;
        let both =
            [0, 1].map(|node| scope.spawn(move || post(nodes, node, "Idempotency-Key: both", "5")));
        both.map(|post| post.join().expect("a post")).into()
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(nodes.agree(5)[0], b"1\n2\n3\n4\n5\n");
}

/// If it were decided again, it would be refused: the message is deleted.
#[test]
fn a_deletion_that_is_repeated_on_another_node_gets_the_same_answer() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 2);
    nodes.all[0].server().did("POST /messages", ANN, "1");
    let delete = ask_with(&format!("DELETE /messages/1?{ANN}"), &["Idempotency-Key: a key"], "");
    for node in [0, 1, 0, 1] {
        let answer = nodes.all[node].server().asked(delete.clone());
        assert_eq!((answer.status, &*answer.body), (200, "{\"id\":2}\n"), "node {node}");
        nodes.agree(2);
    }
}

#[test]
fn long_messages_and_long_posts_are_whole_on_every_node() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 2);
    let mut listener = nodes.all[1].server().join();
    // Longer than what one entry of the stream holds as a rule.
    let long = padded(1, 900_000);
    assert_eq!(nodes.all[0].stores(&long), 1);
    assert_eq!(listener.hears_one().data, long);
    let many = padded_lines(3_000, 1_000);
    let kind = ["Content-Type: application/x-ndjson"];
    let answer = nodes.all[1].server().asked(ask_with("POST /messages", &kind, &many));
    assert_eq!((answer.status, &*answer.body), (201, "{\"id\":2,\"last_id\":3001}\n"));
    let files = nodes.agree(3_001);
    assert!(files[0] == (long + "\n" + &many).into_bytes(), "other bytes");
}

#[test]
fn a_channel_made_on_one_node_is_there_on_all() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 3);
    nodes.all[2].kill();
    assert_eq!(nodes.all[0].server().has("PUT /dev", &["Content-Length: 0"]).status, 201);
    nodes.all[2].start();
    nodes.all[2].is_ready();
    for (number, node) in nodes.all.iter().enumerate() {
        let server = node.server();
        let is_there = || server.gets("/channels").contains("\"dev\"");
        within(CALM, "the channel is there", is_there, || server.log());
        let post = ask_with("POST /dev", &[], &number.to_string());
        let answer = server.asked(post);
        assert_eq!(answer.status, 201, "{answer:?}\n{}", server.log());
        assert_eq!(answer.body, format!("{{\"id\":{}}}\n", number + 1));
        // The default channel has its own numbers.
        assert_eq!(node.stores("1"), number as u64 + 1);
    }
    let file = |node: usize| fs::read(nodes.all[node].setup.dir.join("channels/dev.txt"));
    for node in 0..3 {
        let is_same = || file(node).is_ok_and(|file| file == b"0\n1\n2\n");
        within(CALM, "the channel's files are the same", is_same, || {
            format!("{:?}\n{}", file(node), nodes.all[node].server().log())
        });
    }
    let epoch = |node: usize| nodes.all[node].server().join_at("/dev/ws").history.epoch;
    assert_eq!(epoch(0), epoch(1));
    assert_ne!(epoch(0), nodes.all[0].server().join().history.epoch);
    // Sent on one, heard on another.
    let mut listener = nodes.all[2].server().join_at("/dev/ws");
    nodes.all[0].server().asked(ask_with("POST /dev", &[], "\"heard\""));
    listener.hears("\"heard\"");
}

#[test]
fn a_channel_that_a_node_cannot_make_is_tried_there_now_and_then() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 1);
    let setup = Setup::new();
    fs::create_dir_all(setup.dir.join("channels/dev.txt.lock"))
        .expect("a folder in the place of a file");
    nodes.one_more(&engine, setup);
    let server = nodes.all[1].server();
    assert_eq!(nodes.all[0].server().has("PUT /dev", &["Content-Length: 0"]).status, 201);
    let says = "the cluster's channel dev cannot be made here";
    within(CALM, says, || server.log().contains(says), || server.log());
    let looks = || {
        let calls = engine.asks(&["INFO", "commandstats"]).text();
        let line = calls.lines().find(|line| line.starts_with("cmdstat_hgetall:calls="))?;
        line.split(['=', ',']).nth(1)?.parse::<usize>().ok()
    };
    let before = looks().unwrap_or_default();
    // Two nodes look.
    within(CALM, "it looks again", || looks() >= Some(before + 20), || server.log());
    let attempts = server.log().matches("channel dev cannot be").count();
    assert!(attempts < 5, "{}", server.log());
}

#[test]
fn a_node_that_may_have_no_more_channels_says_which_flag_allows_them() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 1);
    nodes.one_more(&engine, Setup::new().flags(&["--max-channels", "1"]));
    for name in ["dev", "ops"] {
        let answer = nodes.all[0].server().has(&format!("PUT /{name}"), &["Content-Length: 0"]);
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let server = nodes.all[1].server();
    let says = || {
        let log = server.log();
        let line = log.lines().find(|line| line.contains("cannot be made here"));
        line.map(str::to_owned)
    };
    within(CALM, "it says that it has no room", || says().is_some(), || server.log());
    let line = says().expect("it was there");
    assert!(line.contains("--max-channels allows more"), "{line}");
}

#[test]
fn channels_in_which_nothing_is_said_share_their_node_s_connections() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 2);
    let clients = || engine.info("connected_clients").parse::<u32>().expect("a number");
    // Each node has one connection to read, one for the list of channels, one to post; this test has one.
    let share = || {
        within(
            CALM,
            "all share connections",
            || clients() <= 7,
            || engine.asks(&["CLIENT", "LIST"]).text(),
        )
    };
    share();
    let names: Vec<String> = (0..40).map(|number| format!("quiet-{number}")).collect();
    for name in &names {
        let put = nodes.all[0].server().has(&format!("PUT /{name}"), &["Content-Length: 0"]);
        assert_eq!(put.status, 201, "{put:?}");
    }
    let last = nodes.all[1].server();
    let are_there = || last.gets("/channels").matches("quiet-").count() == names.len();
    within(CALM, "all channels are there", are_there, || last.log());
    // While they are opened, each is looked at over a connection of its own.
    within(
        CALM,
        "all share connections",
        || clients() <= 7,
        || engine.asks(&["CLIENT", "LIST"]).text(),
    );
    // Each of them works all the same.
    for (name, node) in names.iter().zip(nodes.all.iter().cycle()) {
        let answer = node.server().asked(ask_with(&format!("POST /{name}"), &[], "1"));
        assert_eq!(answer.body, "{\"id\":1}\n", "{answer:?}");
    }
    for name in &names {
        for node in &nodes.all {
            let file = node.setup.dir.join(&format!("channels/{name}.txt"));
            let is_there = || fs::read(&file).is_ok_and(|text| text == b"1\n");
            within(CALM, "the line is on both nodes", is_there, || node.server().log());
        }
    }
    // A connection for posting is let go when nothing was posted for a while.
    share();
}

#[test]
fn an_empty_engine_is_given_the_file_of_the_first_node() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    // With lines that hold no message.
    let text = format!("{SEED}\nnot json\n\"end\"\n");
    let mut nodes = Nodes::begin(&engine, 0, &[]);
    nodes.one_more(&engine, Setup::new().file(&text));
    nodes.all[0].is_ready();
    let epoch = nodes.all[0].server().join().history.epoch;
    nodes.one_more(&engine, Setup::new());
    nodes.all[1].is_ready();
    let files = nodes.agree(10);
    assert_eq!(String::from_utf8_lossy(&files[1]), text);
    let history = nodes.all[1].server().join().history;
    assert_eq!((&history.epoch, history.skipped), (&epoch, vec![8, 9]));
    assert_eq!(nodes.all[1].stores("11"), 11);
    assert_eq!(engine.asks(&["HGET", META, "epoch"]).text(), epoch);
}

#[test]
fn a_node_without_a_file_gets_everything_while_others_talk() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 2);
    let kind = ["Content-Type: application/x-ndjson"];
    for _ in 0..4 {
        let many = ask_with("POST /messages", &kind, &padded_lines(20_000, 100));
        assert_eq!(nodes.all[0].server().asked(many).status, 201);
    }
    let load = Load::on(&nodes.addresses, "load");
    load.goes_on(100);
    nodes.one_more(&engine, Setup::new());
    nodes.all[2].is_ready();
    load.goes_on(100);
    let record = load.ends();
    holds(&nodes.agree(record.last()), &record);
}
