//! A channel of a cluster that is put away on one node is gone on all, nothing of it is lost, and its
//! name begins anew: for nodes that were there, that were down, that were cut off or killed meanwhile.

use std::{
    fs,
    io::Write,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crate::{
    engine::{Engine, Keeps},
    nodes::{CALM, Node, Nodes, answer_of, within},
    proxy::Way,
    support::*,
};

/// `count` nodes where everybody may do everything.
#[track_caller]
fn nodes_on(engine: &Engine, count: usize) -> Nodes {
    let mut nodes = Nodes::begin(engine, 0, &["--access", "access", "--cluster-settle", "1s"]);
    (0..count).for_each(|_| nodes.one_more(engine, setup_for_all()));
    nodes.are_ready();
    nodes
}

fn setup_for_all() -> Setup {
    let setup = Setup::new();
    fs::write(setup.dir.join("access"), "* - * admin\n").expect("a file");
    setup
}

impl Node {
    /// The status and the body of a request.
    #[track_caller]
    fn answers(&self, line: &str, body: &str) -> (u16, String) {
        let request = ask_with(line, &["Connection: close"], body);
        answer_of(self.server().address(), &request, CALM).expect("an answer")
    }

    #[track_caller]
    fn does(&self, line: &str, body: &str, status: u16) {
        let (got, answer) = self.answers(line, body);
        assert_eq!(got, status, "{line}: {answer}\n{}", self.server().log());
    }

    fn path_of(&self, name: &str) -> std::path::PathBuf {
        self.setup.dir.join("channels").join(name)
    }

    /// Waits until the channel has these lines here.
    #[track_caller]
    fn has(&self, name: &str, lines: &str) {
        let read = || fs::read_to_string(self.path_of(&format!("{name}.txt"))).unwrap_or_default();
        let is_there = || read() == lines && self.answers(&format!("GET /{name}"), "").0 == 200;
        within(CALM, &format!("{name} is {lines:?}"), is_there, || {
            format!("{:?}\n{}", read(), self.log())
        });
    }

    /// Waits until there is no such channel here.
    #[track_caller]
    fn lacks(&self, name: &str) {
        let is_gone = || {
            self.answers(&format!("GET /{name}"), "").0 == 404
                && !self.path_of(&format!("{name}.txt")).exists()
        };
        within(CALM, &format!("{name} is gone"), is_gone, || self.log());
    }

    /// The texts of the channel's files that were put away, and of what was put away beside them.
    fn files_put_away(&self, name: &str) -> Vec<String> {
        let begins = format!("{name}.txt.removed-");
        let entries = fs::read_dir(self.path_of("")).expect("the folder is there");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.retain(|path| {
            let name = path.file_name().expect("a name").to_string_lossy();
            name.starts_with(&begins) && !name.ends_with(".stamps")
        });
        paths.sort();
        paths.iter().map(|path| fs::read_to_string(path).expect("it can be read")).collect()
    }

    fn epoch_of(&self, name: &str) -> String {
        self.server().join_at(&format!("/{name}/ws")).history.epoch
    }

    fn log(&self) -> String {
        self.server.as_ref().map(Server::log).unwrap_or_default()
    }

    fn append(&self, file: &str, text: &str) {
        let file = fs::OpenOptions::new().append(true).create(true).open(self.path_of(file));
        file.expect("the file").write_all(text.as_bytes()).expect("it can be written");
    }
}

impl Nodes {
    /// Makes a channel with these lines, one posted on each node in turn; it is the same on all.
    #[track_caller]
    fn make(&self, name: &str, lines: &[&str]) {
        self.all[0].does(&format!("PUT /{name}"), "", 201);
        for (number, line) in lines.iter().enumerate() {
            let node = &self.all[number % self.all.len()];
            let is_there = || node.answers(&format!("GET /{name}"), "").0 == 200;
            within(CALM, "the channel is there", is_there, || node.log());
            node.does(&format!("POST /{name}"), line, 201);
        }
        let text = lines.join("\n") + "\n";
        self.all.iter().for_each(|node| node.has(name, &text));
    }

    /// Waits until each node has looked which channels there are.
    #[track_caller]
    fn look(&self, name: &str) {
        self.all[0].does(&format!("PUT /{name}"), "", 201);
        self.all.iter().for_each(|node| node.has(name, ""));
    }
}

#[test]
fn a_channel_put_away_on_one_node_is_gone_on_all_and_its_name_begins_anew() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = nodes_on(&engine, 3);
    nodes.make("dev", &["1", "2", "3"]);
    let key = ["Idempotency-Key: once", "Connection: close"];
    let post = ask_with("POST /dev", &key, "4");
    assert_eq!(nodes.all[0].server().asked(&post).body, "{\"id\":4}\n");
    nodes.all.iter().for_each(|node| node.has("dev", "1\n2\n3\n4\n"));
    let epoch = nodes.all[0].epoch_of("dev");
    let mut clients: Vec<Client> =
        nodes.all.iter().map(|node| node.server().join_at("/dev/ws")).collect();
    nodes.all[1].does("DELETE /dev", "", 204);
    nodes.all[1].does("GET /dev", "", 404);
    clients.iter_mut().for_each(|client| drop(client.is_closed_with(1001)));
    nodes.all.iter().for_each(|node| node.lacks("dev"));
    assert_eq!(engine.keys("txtcord:{dev}*"), Vec::<String>::new());
    // No node brings it back.
    nodes.look("ops");
    for node in &nodes.all {
        node.lacks("dev");
        assert_eq!(node.files_put_away("dev"), ["1\n2\n3\n4\n"]);
        assert!(!node.server().gets("/channels").contains("dev"));
    }
    nodes.all[2].does("PUT /dev", "", 201);
    nodes.all.iter().for_each(|node| node.has("dev", ""));
    // The key is another channel's.
    assert_eq!(nodes.all[2].server().asked(&post).body, "{\"id\":1}\n");
    nodes.all.iter().for_each(|node| node.has("dev", "4\n"));
    assert_ne!(nodes.all[0].epoch_of("dev"), epoch);
    assert_eq!(nodes.all[0].epoch_of("dev"), nodes.all[1].epoch_of("dev"));
    // It can be put away again.
    nodes.all[0].does("DELETE /dev", "", 204);
    nodes.all.iter().for_each(|node| node.lacks("dev"));
    nodes.all[0].does("DELETE /dev", "", 404);
    for node in &nodes.all {
        assert_eq!(node.files_put_away("dev"), ["1\n2\n3\n4\n", "4\n"]);
    }
}

#[test]
fn a_channel_takes_of_a_node_what_is_counted_for_it_and_gives_all_of_it_back() {
    const CHANNELS: u64 = 8;
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = nodes_on(&engine, 1);
    let node = &nodes.all[0];
    let each = |line: &str, body: &str, status| {
        (0..CHANNELS).for_each(|number| node.does(&format!("{line} /dev{number}"), body, status));
    };
    // The default channel's sequencer has its connection.
    node.stores("1");
    let serves_nobody = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", node.server().pid())).expect("it runs");
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm"));
        let of_clients = |name: &String| name.starts_with("client");
        // One of them waits for the next client.
        tasks.flatten().flat_map(name).filter(of_clients).count() == 1
    };
    within(CALM, "the threads of clients are gone", serves_nobody, || node.log());
    let before = node.server().size();
    each("PUT", "", 201);
    each("POST", "1", 201);
    let takes = || {
        let now = node.server().size();
        // Three files, a connection while it is used, and what the inbox looks at meanwhile.
        let files = 3 * CHANNELS..=4 * CHANNELS + 1;
        serves_nobody()
            && now.threads == before.threads + 2 * CHANNELS
            && files.contains(&(now.descriptors - before.descriptors))
    };
    within(CALM, "each takes what is counted", takes, || {
        format!("{before:?}, {:?}", node.server().size())
    });
    each("DELETE", "", 204);
    node.server().shrinks_to(before);
}

#[test]
fn a_node_that_was_down_puts_its_own_file_away_and_loses_nothing() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = nodes_on(&engine, 3);
    nodes.make("dev", &["1", "2"]);
    nodes.make("ops", &["1"]);
    nodes.all[1].kill();
    nodes.all[2].stop();
    // What other programs appended meanwhile is put away, too, and is posted nowhere.
    nodes.all[1].append("dev.txt", "\"file\"\n");
    nodes.all[1].append("dev.txt.in", "\"inbox\"\n");
    nodes.all[0].does("DELETE /dev", "", 204);
    nodes.all[0].does("DELETE /ops", "", 204);
    nodes.all[0].does("PUT /dev", "", 201);
    nodes.all[0].does("POST /dev", "\"new\"", 201);
    for node in [1, 2] {
        nodes.all[node].start();
        nodes.all[node].is_ready();
    }
    for node in &nodes.all {
        node.has("dev", "\"new\"\n");
        node.lacks("ops");
        assert_eq!(node.files_put_away("ops"), ["1\n"]);
        assert_eq!(node.epoch_of("dev"), nodes.all[0].epoch_of("dev"));
    }
    assert_eq!(nodes.all[2].files_put_away("dev"), ["1\n2\n"]);
    let put_away = nodes.all[1].files_put_away("dev").concat();
    for text in ["1\n2\n", "\"file\"\n", "\"inbox\"\n"] {
        assert!(put_away.contains(text), "{text} is not in {put_away}");
    }
    // After one more start, too.
    nodes.all[1].kill();
    nodes.all[1].start();
    nodes.all[1].is_ready();
    nodes.all[1].does("POST /dev", "2", 201);
    nodes.all.iter().for_each(|node| node.has("dev", "\"new\"\n2\n"));
}

#[test]
fn a_node_that_was_cut_off_brings_nothing_old_into_the_new_channel() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = nodes_on(&engine, 2);
    nodes.make("dev", &["1", "2", "3"]);
    nodes.make("ops", &["1"]);
    nodes.all[1].proxy.becomes(Way::Cut);
    nodes.all[1].is_unready();
    nodes.all[0].does("DELETE /dev", "", 204);
    nodes.all[0].does("DELETE /ops", "", 204);
    nodes.all[0].does("PUT /dev", "", 201);
    // It cannot know yet, and goes on showing what it has.
    nodes.all[1].has("dev", "1\n2\n3\n");
    nodes.all[1].does("DELETE /dev", "", 503);
    let mut client = nodes.all[1].server().join_at("/dev/ws");
    nodes.all[1].proxy.becomes(Way::Open);
    client.is_closed_with(1001);
    nodes.all[1].has("dev", "");
    nodes.all[1].lacks("ops");
    nodes.all[1].does("POST /dev", "\"new\"", 201);
    nodes.all.iter().for_each(|node| node.has("dev", "\"new\"\n"));
    for node in &nodes.all {
        assert_eq!(
            (node.files_put_away("dev"), node.files_put_away("ops")),
            (vec!["1\n2\n3\n".into()], vec!["1\n".into()])
        );
    }
}

#[test]
fn a_node_that_is_killed_while_it_puts_a_channel_away_has_done_so_after_its_next_start() {
    let Some(mut engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = nodes_on(&engine, 2);
    nodes.make("dev", &["1", "2"]);
    // The engine knows the script.
    nodes.make("first", &["1"]);
    nodes.all[0].does("DELETE /first", "", 204);
    // It does what it is asked, and its answers do not come back.
    nodes.all[0].proxy.becomes(Way::DeafTo(b"channels:away"));
    let delete = ask_with("DELETE /dev", &["Connection: close"], "");
    let address = nodes.all[0].server().address();
    let delete = thread::spawn(move || answer_of(address, &delete, CALM));
    nodes.all[1].lacks("dev");
    nodes.all[0].kill();
    let answer = delete.join().expect("no panic");
    assert_ne!(answer.map(|(status, _)| status), Some(204), "nobody was told that it is done");
    nodes.all[0].proxy.becomes(Way::Open);
    engine.kill();
    engine.restart();
    nodes.all[0].start();
    nodes.are_ready();
    nodes.look("ops");
    for node in &nodes.all {
        node.lacks("dev");
        assert_eq!(node.files_put_away("dev"), ["1\n2\n"]);
    }
}

#[test]
fn without_its_engine_no_channel_is_put_away() {
    let Some(mut engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = nodes_on(&engine, 2);
    nodes.make("dev", &["1", "2"]);
    engine.kill();
    let (status, body) = nodes.all[0].answers("DELETE /dev", "");
    assert!(status == 503 && body.contains("engine is unavailable"), "{status}: {body}");
    let says = "channel dev could not be put away";
    within(CALM, says, || nodes.all[0].log().contains(says), || nodes.all[0].log());
    // A node that starts meanwhile does not know better.
    nodes.all[1].kill();
    nodes.all[1].start();
    engine.restart();
    nodes.are_ready();
    for node in &nodes.all {
        node.has("dev", "1\n2\n");
        assert_eq!(node.files_put_away("dev"), Vec::<String>::new());
    }
}

#[test]
fn what_is_posted_while_a_channel_is_put_away_is_in_a_file_or_refused() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = nodes_on(&engine, 3);
    nodes.make("dev", &["0"]);
    let stored = Mutex::new(Vec::new());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = EndsWithMe(&over);
        for (number, node) in nodes.all.iter().enumerate() {
            for speaker in 0..2 {
                let (stored, over) = (&stored, &over);
                scope.spawn(move || {
                    for count in 0.. {
                        if over.load(Relaxed) {
                            return;
                        }
                        let text = format!("\"{number} {speaker} {count}\"");
                        let begun = std::time::Instant::now();
                        let (status, body) = node.answers("POST /dev", &text);
                        // After thirty seconds the server would give up the answer.
                        let took = begun.elapsed();
                        assert!(took < Duration::from_secs(25), "{status} {body} after {took:?}");
                        match status {
                            201 => stored.lock().expect("no panic").push((number, text)),
                            503 => {}
                            404 => return,
                            _ => panic!("{status}: {body}"),
                        }
                    }
                });
            }
        }
        within(
            CALM,
            "all talk",
            || stored.lock().expect("no panic").len() > 100,
            || nodes.all[0].log(),
        );
        nodes.all[0].does("DELETE /dev", "", 204);
        nodes.all.iter().for_each(|node| node.lacks("dev"));
    });
    let put_away: Vec<String> =
        nodes.all.iter().map(|node| node.files_put_away("dev").concat()).collect();
    let stored = stored.into_inner().expect("no panic");
    for (node, text) in &stored {
        assert!(put_away[*node].contains(&format!("{text}\n")), "{text} is not on node {node}");
    }
    // The files are the same, as far as they have come.
    for text in &put_away {
        assert!(put_away.iter().all(|other| other.starts_with(text) || text.starts_with(other)));
    }
}

#[test]
fn a_channel_put_away_while_other_nodes_make_it_does_not_come_back() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = nodes_on(&engine, 3);
    let names: Vec<String> = (0..30).map(|number| format!("dev{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let node = &nodes.all[number % 3];
        node.does(&format!("PUT /{name}"), "", 201);
        let is_known = || engine.asks(&["HEXISTS", "txtcord:channels", name]).number() == 1;
        within(CALM, "the others are told of it", is_known, || node.log());
        node.does(&format!("DELETE /{name}"), "", 204);
    }
    nodes.look("ops");
    // Whoever still had one has looked and told the others by then.
    nodes.look("last");
    for name in &names {
        nodes.all.iter().for_each(|node| node.lacks(name));
        assert_eq!(engine.keys(&format!("txtcord:{{{name}}}*")), Vec::<String>::new());
    }
    assert_eq!(engine.asks(&["HLEN", "txtcord:channels"]).number(), 2);
}

/// An empty file goes with any order, so that the epoch alone tells which one it belongs to.
#[test]
fn a_channel_that_is_made_again_at_once_is_not_taken_for_the_empty_one_that_was_put_away() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = nodes_on(&engine, 1);
    let node = &nodes.all[0];
    node.does("PUT /dev", "", 201);
    nodes.make("ops", &["1"]);
    let has_order = || engine.asks(&["HEXISTS", "txtcord:{dev}:meta", "epoch"]).number() == 1;
    within(CALM, "the channel is there", has_order, || node.log());
    let epoch = node.epoch_of("ops");
    // In one moment dev is put away elsewhere, made again, and said something in: what is in ops.
    let script = "local dev, ops = 'txtcord:{dev}', 'txtcord:{ops}'
        local old = redis.call('HGET', dev .. ':meta', 'epoch')
        redis.call('SADD', 'txtcord:channels:away', 'dev ' .. old)
        redis.call('DEL', dev, dev .. ':meta')
        redis.call('RENAME', ops, dev)
        redis.call('RENAME', ops .. ':meta', dev .. ':meta')
        redis.call('HSET', 'txtcord:channels', 'dev', redis.call('HGET', dev .. ':meta', 'epoch'))";
    engine.asks(&["EVAL", script, "0"]);
    within(CALM, "it is put away", || !node.files_put_away("dev").is_empty(), || node.log());
    assert_eq!(node.files_put_away("dev"), [""], "it was another channel");
    node.has("dev", "1\n");
    assert_eq!(node.epoch_of("dev"), epoch);
}

/// A name that could not be made here is remembered only while the cluster has it.
#[test]
fn a_channel_that_a_node_could_not_make_is_another_one_when_its_name_comes_again() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = nodes_on(&engine, 1);
    let setup = setup_for_all();
    fs::create_dir_all(setup.dir.join("channels/dev.txt")).expect("a folder in its place");
    nodes.one_more(&engine, setup);
    let said = || nodes.all[1].log().matches("channel dev cannot be made here").count();
    for times in 1..=2 {
        nodes.all[0].does("PUT /dev", "", 201);
        within(CALM, "it is said", || said() >= times, || nodes.all[1].log());
        assert_eq!(said(), times);
        nodes.all[0].does("DELETE /dev", "", 204);
        // The other node has looked when it has made what came later.
        nodes.all[0].does(&format!("PUT /later-{times}"), "", 201);
        nodes.all[1].has(&format!("later-{times}"), "");
    }
}
