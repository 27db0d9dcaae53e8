//! A node's life beside its engine: that is unavailable, comes back, is not there yet, asks for a password,
//! moves.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{
    check::holds,
    engine::{Engine, Keeps, META},
    load::Load,
    nodes::{CALM, Nodes, answer_of, within},
    support::*,
};

/// After this long without its engine a node takes no posts.
const GIVEN_UP: Duration = Duration::from_secs(3);

/// For so long a started engine gives out no numbers, unless a flag says otherwise.
const SETTLES: Duration = Duration::from_secs(3);

#[test]
fn a_node_without_its_engine_serves_and_refuses_posts_until_it_is_back() {
    let Some(mut engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 2);
    let server = nodes.all[0].server();
    let mut ann = server.join();
    let epoch = ann.history.epoch.clone();
    ann.says("1");
    engine.kill();
    nodes.all[0].is_unready();
    assert_eq!(server.has("GET /healthz", &[]).status, 200);
    let refused = || {
        let answer = nodes.all[0].posts("\"refused\"");
        let why = json(&answer.body);
        let says = why["message"].as_str().is_some_and(|text| text.contains("is unavailable"));
        answer.status == 503 && why["code"] == "unavailable" && says
    };
    within(CALM, "posts are refused", refused, || server.log());
    is_quick(GIVEN_UP, || {
        let begun = Instant::now();
        ann.say("\"refused on the socket\"");
        ann.is_told("unavailable");
        begun.elapsed()
    });
    // Everything else goes on.
    assert!(server.gets("/messages").contains("\"data\":1}"));
    let resumed = server.join_at(&format!("/ws?after=1&epoch={epoch}"));
    assert_eq!(resumed.history.resumed, Some(true));
    assert_eq!(nodes.all[0].metric("txtcord_cluster_up"), Some(0.0));
    engine.restart();
    nodes.all[0].is_ready();
    ann.says("2");
    assert_eq!(nodes.all[0].metric("txtcord_cluster_up"), Some(1.0));
    assert!(nodes.all[0].metric("txtcord_cluster_reconnects_total").is_some_and(|n| n > 0.0));
    // What was refused is not there.
    assert_eq!(nodes.agree(2)[1], b"1\n2\n");
}

#[test]
fn what_was_sent_before_the_engine_became_unavailable_stays_pending_and_comes() {
    // A node takes posts for three seconds without its engine.
    in_one_of_a_few_attempts(|| {
        let Some(mut engine) = Engine::start(Keeps::Always) else { return };
        let nodes = Nodes::with(&engine, 2, &[]);
        let mut ann = nodes.all[0].server().join();
        ann.says("1");
        engine.kill();
        ann.say("\"pending\"");
        let begun = Instant::now();
        engine.restart();
        ann.hears("\"pending\"");
        let took = begun.elapsed();
        assert!(took > SETTLES.mul_f64(0.8), "numbers were given out after {took:?}");
        assert_eq!(nodes.agree(2)[1], b"1\n\"pending\"\n");
    });
}

#[test]
fn a_node_starts_without_its_engine_and_joins_it_later() {
    let Some(mut engine) = Engine::start(Keeps::Always) else { return };
    engine.kill();
    let mut nodes = Nodes::begin(&engine, 0, &[]);
    nodes.one_more(&engine, Setup::new().file(SEED));
    let node = &nodes.all[0];
    let server = node.server();
    assert_eq!(server.join().history.said(), SEED.lines().collect::<Vec<_>>());
    assert_eq!(server.has("GET /readyz", &[]).status, 503);
    assert_eq!(server.has("GET /healthz", &[]).status, 200);
    let mut listener = server.join_at("/ws?limit=0");
    engine.restart();
    node.is_ready();
    assert_eq!(node.stores("8"), 8);
    listener.hears("8");
}

#[test]
fn a_post_that_nobody_answers_is_given_up_after_half_a_minute() {
    // A node takes posts for three seconds without its engine.
    in_one_of_a_few_attempts(|| {
        let Some(engine) = Engine::start(Keeps::Always) else { return };
        let nodes = Nodes::on(&engine, 1);
        nodes.all[0].stores("1");
        engine.freeze();
        let begun = Instant::now();
        let request = ask_with("POST /messages", &["Idempotency-Key: k", "Connection: close"], "2");
        let address = nodes.all[0].server().address();
        let (status, body) = answer_of(address, &request, PATIENCE).expect("an answer");
        let took = begun.elapsed();
        assert_eq!(status, 503, "{body}");
        // It was taken before it showed that the engine is unavailable, so it waits for the whole time.
        assert!(took > Duration::from_secs(25), "{took:?}: {body}");
        assert!(body.contains("Idempotency-Key"), "{body}");
        engine.thaw();
        assert_eq!(nodes.all[0].stores_with("k", "2"), 2);
        assert_eq!(nodes.agree(2)[0], b"1\n2\n");
    });
}

#[test]
fn nodes_that_are_stopped_in_order_under_load_lose_nothing() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 2);
    let load = Load::on(&nodes.addresses, "load");
    for round in 0..4 {
        load.goes_on(100);
        nodes.all[round % 2].stop();
        load.goes_on(50);
        nodes.all[round % 2].start();
    }
    let record = load.ends();
    holds(&nodes.agree(record.last()), &record);
}

/// The hub of a channel lives until its last client has gone, and the engine would go on taking posts.
#[test]
fn what_is_said_in_a_channel_after_the_close_frame_of_a_node_that_stops_is_not_stored() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 1);
    let server = nodes.all[0].server();
    assert_eq!(server.has("PUT /dev", &["Content-Length: 0"]).status, 201);
    let mut ann = server.raw();
    ann.send(server.head("/dev/ws", &[]));
    assert_eq!(ann.response().status, 101);
    ann.text();
    ann.send(frame(TEXT, "\"in time\""));
    ann.text();
    server.signal("TERM");
    while ann.frame().first != CLOSE {}
    ann.try_send(frame(TEXT, "\"late\""));
    nodes.all[0].ends();
    let file = nodes.all[0].setup.dir.join("channels/dev.txt");
    assert_eq!(fs::read_to_string(file).expect("the channel's file"), "\"in time\"\n");
    assert_eq!(engine.asks(&["HGET", "txtcord:{dev}:meta", "last"]).text(), "1");
}

#[test]
fn a_node_stops_with_posts_pending_and_each_comes_once_or_not_at_all() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let mut nodes = Nodes::on(&engine, 2);
    nodes.all[0].stores("\"first\"");
    nodes.agree(1);
    engine.freeze();
    let mut ann = nodes.all[0].server().join();
    let texts: Vec<String> = (0..20).map(|number| format!("\"pending {number}\"")).collect();
    texts.iter().for_each(|text| ann.say(text));
    let begun = Instant::now();
    nodes.all[0].stop();
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    engine.thaw();
    nodes.all[0].start();
    nodes.all[0].is_ready();
    nodes.all[1].stores("\"last\"");
    let files = nodes.agree(2);
    let lines: Vec<&str> = std::str::from_utf8(&files[0]).expect("UTF-8").lines().collect();
    for text in &texts {
        let times = lines.iter().filter(|line| **line == text).count();
        assert!(times <= 1, "{text} came {times} times");
    }
    assert_eq!((lines.first(), lines.last()), (Some(&"\"first\""), Some(&"\"last\"")));
}

#[test]
fn passwords_are_neither_in_a_log_nor_among_the_processes() {
    const SECRET: &str = "correcthorsebattery";
    let acl = ["--user", "chat", "on", ">correcthorsebattery", "~txtcord:*", "&*", "+@all"];
    let Some(mut engine) = Engine::with(Keeps::Always, &acl) else { return };
    let address = engine.address();
    let with = |password: &str| format!("redis://chat:{password}@{address}/0");
    let setup = Setup::new().flags(&["--log-level", "trace"]);
    let server = setup.clone().variable("TXTCORD_CLUSTER", with(SECRET)).start();
    let ready = || server.has("GET /readyz", &[]).status == 200;
    within(CALM, "the node is ready", ready, || server.log());
    assert_eq!(server.asked(post("1")).status, 201);
    engine.kill();
    let unready = || server.has("GET /readyz", &[]).status == 503;
    within(CALM, "the node misses its engine", unready, || server.log());
    engine.restart();
    within(CALM, "the node is ready again", ready, || server.log());
    assert_eq!(server.asked(post("2")).status, 201);
    let command = fs::read(format!("/proc/{}/cmdline", server.pid())).expect("the server runs");
    assert!(!String::from_utf8_lossy(&command).contains(SECRET));
    assert!(!server.log().contains(SECRET), "{}", server.log());
    assert!(!server.gets("/metrics").contains(SECRET));
    drop(server.stop());
    // By the flag it is among the processes, but in no log.
    let setup = Setup::new().flags(&["--log-level", "trace", "--cluster", &with(SECRET)]);
    let server = setup.start();
    within(
        CALM,
        "the node is ready",
        || server.has("GET /readyz", &[]).status == 200,
        || server.log(),
    );
    assert!(!server.log().contains(SECRET), "{}", server.log());
    // Nor is a wrong one, which is no reason to take posts.
    let wrong = "wronghorsebattery";
    let setup = Setup::new().variable("TXTCORD_CLUSTER", with(wrong));
    let log = match setup.try_start() {
        Ok(server) => {
            let says = |word: &str| server.log().to_lowercase().contains(word);
            let told = || says("password") || says("wrongpass");
            within(CALM, "the log names the password", told, || server.log());
            assert_eq!(server.has("GET /readyz", &[]).status, 503);
            server.log()
        }
        Err(ended) => {
            assert!(!ended.status.success());
            assert!(ended.log.to_lowercase().contains("pass"), "{}", ended.log);
            ended.log
        }
    };
    assert!(!log.contains(wrong), "{log}");
}

/// A node does not take this for its engine, and says this word.
#[track_caller]
fn is_no_engine(engine: &Engine, word: &str) {
    match Setup::new().flags(&["--cluster", &engine.url()]).try_start() {
        Ok(server) => {
            let told = || server.log().contains(word);
            within(CALM, "the log names the reason", told, || server.log());
            assert_eq!(server.has("GET /readyz", &[]).status, 503);
        }
        Err(ended) => assert!(ended.log.contains(word), "{}", ended.log),
    }
}

#[test]
fn a_replica_is_no_engine() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let Some(replica) = Engine::start(Keeps::Always) else { return };
    replica.follows(&engine);
    is_no_engine(&replica, "replica");
}

#[test]
fn redis_cluster_is_no_engine() {
    let Some(engine) = Engine::with(Keeps::Always, &["--cluster-enabled", "yes"]) else { return };
    is_no_engine(&engine, "Redis Cluster");
}

#[test]
fn an_engine_that_hangs_holds_up_nobody_who_reads() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 1);
    let node = &nodes.all[0];
    node.stores("1");
    engine.freeze();
    let mut ann = node.server().join();
    // Before the node gives the engine up, and afterwards.
    for time in [GIVEN_UP, SETTLES] {
        let end = Instant::now() + time;
        let mut times = Vec::new();
        while Instant::now() < end {
            ann.try_say("\"pending\"");
            let begun = Instant::now();
            assert!(node.server().gets("/messages?limit=1").contains("\"data\":1}"));
            assert_eq!(node.server().join().history.first_id, 1);
            times.push(begun.elapsed());
            std::thread::sleep(Duration::from_millis(50));
        }
        // A busy machine makes some of them slow, an engine that holds them up makes all of them slow.
        let is_quick = times.iter().any(|took| *took < Duration::from_secs(2));
        assert!(is_quick, "readers waited for {times:?}");
    }
    engine.thaw();
    node.is_ready();
    let log = node.server().log();
    assert!(log.contains("not answered in time") && !log.contains("os error 11"), "{log}");
}

/// The engine takes connections and answers nothing, which each channel would wait for.
#[test]
fn a_node_with_many_channels_starts_soon_though_its_engine_hangs() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let setup = Setup::new().flags(&["--cluster", &engine.url()]);
    fs::create_dir(setup.dir.join("channels")).expect("a folder");
    for number in 0..120 {
        let path = setup.dir.join(&format!("channels/c{number}.txt"));
        fs::write(path, "1\n").expect("a file");
    }
    engine.freeze();
    is_quick(Duration::from_secs(15), || {
        let begun = Instant::now();
        let server = setup.start();
        assert!(server.gets("/c119").contains("\"data\":1}"));
        let log = server.log();
        assert!(log.matches("is unavailable").count() < 2, "{log}");
        begun.elapsed()
    });
}

#[test]
fn an_engine_whose_memory_is_full_takes_posts_again_when_it_has_room() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 2);
    let node = &nodes.all[0];
    let server = node.server();
    node.stores("1");
    engine.asks(&["CONFIG", "SET", "maxmemory", "1"]);
    let mut ann = server.join();
    ann.say("\"pending\"");
    let says = |what: &str| within(CALM, what, || server.log().contains(what), || server.log());
    says("the engine takes no posts");
    node.is_unready();
    let refused = || node.posts("\"refused\"").status == 503;
    within(CALM, "posts are refused", refused, || server.log());
    engine.asks(&["CONFIG", "SET", "maxmemory", "0"]);
    says("the engine takes posts again");
    node.is_ready();
    assert_eq!(node.stores("\"after\""), 3);
    nodes.agree(3);
    assert_eq!(node.lines(), ["1", "\"pending\"", "\"after\""]);
}

/// An engine whose user `chat` has these rights, and a node of that user.
fn node_of_a_user(rights: &[&str]) -> Option<(Engine, Server)> {
    let engine = Engine::start(Keeps::Always)?;
    engine.asks(&[&["ACL", "SETUSER", "chat", "on", ">secret"], rights].concat());
    let url = format!("redis://chat:secret@{}/0", engine.address());
    let server = Setup::new().flags(&["--cluster", &url, "--cluster-settle", "0s"]).start();
    Some((engine, server))
}

/// Waits until the engine was connected to some more times.
#[track_caller]
fn is_tried_again(engine: &Engine, server: &Server) {
    let connections =
        || engine.info("total_connections_received").parse::<u64>().expect("a number");
    let before = connections();
    // Each question is a connection, too.
    let mut asked = 0;
    let is_tried = || {
        asked += 1;
        connections() >= before + asked + 10
    };
    within(CALM, "it is tried again", is_tried, || server.log());
}

/// A node whose user has these rights says this once, with what to do, and is not ready until its user has
/// all rights.
#[track_caller]
fn is_not_ready_with(rights: &[&str], says: &str) {
    let Some((engine, server)) = node_of_a_user(rights) else { return };
    within(CALM, says, || server.log().contains(says), || server.log());
    let readiness = || server.has("GET /readyz", &[]).status;
    assert_eq!(readiness(), 503, "{rights:?}");
    let refused = || server.asked(post("1")).status == 503;
    within(CALM, "posts are refused", refused, || server.log());
    is_tried_again(&engine, &server);
    let log = server.log();
    assert_eq!(log.matches(says).count(), 1, "{log}");
    let help = "give the user of the URL its rights: ACL SETUSER NAME ~txtcord:* +@all";
    assert_eq!(log.matches(help).count(), 1, "{log}");
    assert!(!log.contains("available again"), "{log}");
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
    engine.asks(&["ACL", "SETUSER", "chat", "~txtcord:*", "+@all"]);
    within(CALM, "it is ready", || readiness() == 200, || server.log());
    assert_eq!(server.asked(post("2")).status, 201);
}

#[test]
fn a_right_that_the_user_lacks_is_named_before_anything_is_done_by_half() {
    let lacks = |command: &str, says: &str| {
        is_not_ready_with(&["~txtcord:*", "+@all", &format!("-{command}")], says);
    };
    lacks("set", "does not let the user run SET with keys");
    lacks("xtrim", "does not let the user run XTRIM with keys");
    lacks("xread", "does not let the user run XREAD with keys");
    lacks("evalsha", "the 'evalsha' command");
    lacks("script|load", "the 'script|load' command");
    lacks("info", "the 'info' command");
    is_not_ready_with(&["~chat:*", "+@all"], "let the user run SISMEMBER, EXISTS, DEL, GET");
    is_not_ready_with(&["~txtcord:*", "+@read", "+@scripting", "+info", "+time"], "SET, HSET");
}

#[test]
fn another_right_that_the_user_lacks_is_named_when_the_first_one_is_given() {
    let rights = ["~txtcord:*", "+@all", "-evalsha", "-set"];
    let Some((engine, server)) = node_of_a_user(&rights) else { return };
    let says = |words: &str| within(CALM, words, || server.log().contains(words), || server.log());
    says("the 'evalsha' command");
    engine.asks(&["ACL", "SETUSER", "chat", "+evalsha"]);
    says("run SET with keys");
}

#[test]
fn a_right_that_only_channels_take_is_missed_by_them_alone() {
    for command in ["hgetall", "keys"] {
        let rights = ["~txtcord:*", "+@all", &format!("-{command}")];
        let Some((engine, server)) = node_of_a_user(&rights) else { return };
        let says = format!("run {} with keys", command.to_uppercase());
        within(CALM, &says, || server.log().contains(&says), || server.log());
        let is_ready = || server.has("GET /readyz", &[]).status == 200;
        within(CALM, "it is ready", is_ready, || server.log());
        assert_eq!(server.asked(post("1")).status, 201);
        let looks = || {
            let calls = engine.asks(&["INFO", "commandstats"]).text();
            calls
                .lines()
                .filter_map(|line| {
                    let line = line.strip_prefix("cmdstat_")?;
                    let count = |name: &str| {
                        line.split_once(name)?.1.split(',').next()?.parse::<u64>().ok()
                    };
                    line.starts_with("hgetall:")
                        .then(|| count("rejected_calls=").max(count("calls=")))?
                })
                .max()
        };
        within(CALM, "it looks again", || looks() >= Some(5), || server.log());
        assert_eq!(server.log().matches(&says).count(), 1, "{}", server.log());
    }
}

#[test]
fn a_clock_of_the_engine_that_was_set_back_holds_up_no_posts() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 1);
    let node = &nodes.all[0];
    node.stores("1");
    // It settles until a time that is an hour away now.
    let now: u64 = engine.asks(&["TIME"]).many()[0].text().parse().expect("Unix seconds");
    engine.asks(&["HSET", META, "settled", &((now + 3600) * 1000).to_string()]);
    assert_eq!(node.stores_in_the_end("2"), 2);
}

#[test]
fn an_engine_that_may_forget_is_warned_about() {
    let flags = ["--maxmemory-policy", "allkeys-lru"];
    let Some(engine) = Engine::with(Keeps::Nothing, &flags) else { return };
    let nodes = Nodes::on(&engine, 1);
    let log = nodes.all[0].server().log();
    assert!(log.contains("maxmemory-policy"), "{log}");
    assert!(log.contains("appendonly"), "{log}");
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 1);
    let log = nodes.all[0].server().log();
    assert!(!log.contains("maxmemory-policy") && !log.contains("appendonly"), "{log}");
}

#[test]
fn the_metrics_of_a_node_have_their_names() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    let nodes = Nodes::on(&engine, 1);
    nodes.all[0].stores("1");
    let metrics = nodes.all[0].server().gets("/metrics");
    for name in [
        "up",
        "lag_lines",
        "append_seconds",
        "reconnects_total",
        "restored_lines_total",
        "forks_total",
        "pending_posts",
    ] {
        let name = format!("txtcord_cluster_{name}");
        let is_it = |line: &str| line.starts_with(&name);
        assert!(metrics.lines().any(is_it), "{name} is not in\n{metrics}");
        assert!(metrics.contains(&format!("# TYPE {name} ")), "{name} has no type");
    }
    assert_eq!(nodes.all[0].metric("txtcord_cluster_lag_lines"), Some(0.0));
    // Without the flag there is none of them.
    assert!(!Server::start().gets("/metrics").contains("txtcord_cluster"));
}

/// How many channels a server says that its machine can carry.
#[track_caller]
fn carries(setup: &Setup) -> u64 {
    let log = setup.start().log();
    let count = log.split_once("this machine can carry ").and_then(|(_, rest)| {
        rest.split_once(" channels").and_then(|(count, _)| count.rsplit(' ').next()?.parse().ok())
    });
    count.unwrap_or_else(|| panic!("no count of channels in\n{log}"))
}

#[test]
fn a_node_carries_fewer_channels_than_a_server_that_is_alone() {
    let Some(engine) = Engine::start(Keeps::Always) else { return };
    // Descriptors are short: some are for other things, two of them for each processor, and a
    // twentieth of the rest is for channels.
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let left = 512 - 20 - 2 * processors;
    let setup = || Setup::new().after("ulimit -n 512").flags(&["--max-clients", "1000"]);
    assert_eq!(carries(&setup()), left / 20 / 3);
    assert_eq!(carries(&setup().flags(&["--cluster", &engine.url()])), (left - 3) / 20 / 4);
}

#[test]
fn the_engine_may_be_on_a_unix_socket() {
    let Some(engine) = Engine::with(Keeps::Always, &["--unixsocket", "socket"]) else { return };
    let url = format!("redis+unix://{}", engine.folder().join("socket").display());
    let server = Setup::new().flags(&["--cluster", &url]).start();
    within(
        CALM,
        "the node is ready",
        || server.has("GET /readyz", &[]).status == 200,
        || server.log(),
    );
    assert_eq!(server.asked(post("1")).status, 201);
}

#[test]
fn a_node_asks_sentinel_where_its_engine_is() {
    // A Sentinel that is held up again and again promotes no replica.
    in_one_of_a_few_attempts(|| {
        let Some(mut engine) = Engine::start(Keeps::Always) else { return };
        let Some(replica) = Engine::start(Keeps::Always) else { return };
        replica.follows(&engine);
        let sentinel = Engine::sentinel(&engine);
        let knows = || {
            let replicas = sentinel.asks(&["SENTINEL", "REPLICAS", "chat"]).many();
            !replicas.is_empty()
        };
        within(CALM, "sentinel knows the replica", knows, || sentinel.log());
        let url = format!("redis+sentinel://{}/chat", sentinel.address());
        let server = Setup::new().flags(&["--cluster", &url]).start();
        let ready = || server.has("GET /readyz", &[]).status == 200;
        within(CALM, "the node is ready", ready, || server.log());
        assert_eq!(server.asked(post("1")).status, 201);
        engine.kill();
        let promoted = || replica.info("role") == "master";
        within(CALM, "sentinel promotes the replica", promoted, || sentinel.log());
        let stored =
            || server.asked(ask_with("POST /messages", &["Idempotency-Key: 2"], "2")).status == 201;
        within(CALM, "posts are stored again", stored, || server.log());
        assert_eq!(server.lines(), ["1", "2"]);
    });
}

#[test]
fn a_url_that_makes_no_sense_is_refused_at_the_start() {
    for (url, word) in [
        ("nonsense", "redis://"),
        ("http://127.0.0.1:6379", "redis://"),
        ("redis+sentinel://127.0.0.1:26379", "NAME"),
    ] {
        let ended = Setup::new().flags(&["--cluster", url]).ends();
        assert_eq!(ended.status.code(), Some(2), "{url}: {}", ended.log);
        assert!(ended.log.contains(word), "{url}: {}", ended.log);
    }
}
