//! What operators ask: is it alive, is it ready, what has it done; and whether they are still
//! answered when everybody else is not.

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, BufReader, Write},
    time::{Duration, Instant},
};

use tungstenite::Message;

use crate::{support::*, talk::*};

// ---------------------------------------------------------------------------------------------
// Metrics

/// One sample of an exposition: its name and labels as they are written, and its value.
type Samples = HashMap<String, f64>;

/// Reads the text format of Prometheus, strictly: HELP and TYPE once before the samples of a
/// family, families in one piece, no sample twice.
#[track_caller]
fn samples(text: &str) -> Samples {
    assert!(text.ends_with('\n') && !text.contains('\r'), "lines end with a line feed");
    let (mut samples, mut families) = (Samples::new(), HashSet::new());
    let (mut family, mut kind) = (String::new(), "");
    let is_name = |name: &str| {
        !name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
    };
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("a name and words");
            assert!(is_name(name) && name.starts_with("txtcord_") && !words.is_empty(), "{line}");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            family = name.into();
            let kind_line = lines.next().unwrap_or_default();
            kind = kind_line.strip_prefix(&format!("# TYPE {name} ")).expect("TYPE after HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind_line}");
            // The conventions for names.
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a sample has a value");
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        let labels = labels.strip_suffix('}').expect("labels end");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (label, text) = label.split_once("=\"").expect("a label has a text");
            assert!(is_name(label) && text.ends_with('"'), "{line}");
        }
        let suffix = name.strip_prefix(&family).expect("a sample of its family");
        match kind {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            _ => assert_eq!(suffix, "", "{line}"),
        }
        let value: f64 = value.parse().expect("a number");
        assert!(value >= 0.0, "{line}");
        assert!(samples.insert(sample.into(), value).is_none(), "{sample} comes twice");
    }
    samples
}

#[track_caller]
fn scraped(server: &Server) -> Samples {
    let answer = server.asks("GET /metrics", &[]);
    let kind = answer.header("Content-Type").expect("a kind");
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{answer:?}");
    samples(&answer.body)
}

/// Waits until a number of `/metrics` is this, which is counted a moment after it happened; gives all.
#[track_caller]
fn scraped_when(server: &Server, name: &str, value: f64) -> Samples {
    let name = format!("txtcord_{name}");
    let mut samples = Samples::new();
    until(&format!("{name} is {value}"), || {
        samples = scraped(server);
        samples.get(&name) == Some(&value)
    });
    samples
}

#[track_caller]
fn check(samples: &Samples, expected: &[(&str, f64)]) {
    for (name, value) in expected {
        let name = format!("txtcord_{name}");
        assert_eq!(samples.get(&name), Some(value), "{name} of {samples:#?}");
    }
}

fn left(reason: &str) -> String {
    format!("txtcord_disconnects_total{{reason=\"{reason}\"}}")
}

#[test]
fn what_happens_is_counted_and_nothing_else() {
    let server = Server::on(format!("{SEED}\nnonsense\n"));
    let samples = scraped(&server);
    let names = ["clients", "clients_behind", "joins_total", "messages_total", "deliveries_total"];
    check(&samples, &names.map(|name| (name, 0.0)));
    check(&samples, &[("file_messages", 7.0), ("file_bytes", 281.0), ("writable", 1.0)]);
    check(&samples, &[("refused_messages_total", 0.0), ("http_requests_total", 1.0)]);
    check(&samples, &[("fsync_seconds_count", 0.0), ("fsync_seconds_sum", 0.0)]);
    let build = concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    check(&samples, &[(build, 1.0)]);

    let (mut ann, mut bob) = (server.join(), server.join());
    // Live from here on, so that what follows is delivered as it is said.
    until("nobody is behind", || server.metric("txtcord_clients_behind") == 0.0);
    for text in ["1", "2", "3"] {
        ann.says(text);
        bob.hears(text);
    }
    server.post(JSON, "4").created();
    server.post(NDJSON, "5\n6\n7\n").created();
    server.post(JSON, "{").has(400);
    for text in ["4", "5", "6", "7"] {
        ann.hears(text);
        bob.hears(text);
    }
    ann.say("{");
    ann.is_told("not_json");
    let before = scraped_when(&server, "deliveries_total", 14.0);
    check(&before, &[("clients", 2.0), ("joins_total", 2.0), ("clients_behind", 0.0)]);
    check(&before, &[("messages_total", 7.0)]);
    check(&before, &[("file_messages", 14.0), ("file_bytes", 281.0 + 7.0 * 2.0)]);
    // One for each batch: three times ann, and two posts.
    check(&before, &[("fsync_seconds_count", 5.0)]);
    assert!(before["txtcord_fsync_seconds_sum"] > 0.0);
    check(&before, &[("refused_messages_total", 0.0)]);

    // Another program's line is a message too.
    server.dir.append("8\nnonsense\n");
    ann.hears("8");
    bob.hears("8");
    bob.leave();
    until("bob has left", || server.metric("txtcord_clients") == 1.0);
    ann.says("9");
    let after = scraped_when(&server, "deliveries_total", 17.0);
    check(&after, &[("messages_total", 9.0), ("joins_total", 2.0)]);
    check(&after, &[("file_messages", 16.0)]);
    assert_eq!(after[&left("closed")], 1.0);
    // A scrape counts itself; an upgrade is no HTTP request.
    let one = scraped(&server)["txtcord_http_requests_total"];
    server.join();
    server.get("/nothing").has(404);
    assert_eq!(scraped(&server)["txtcord_http_requests_total"], one + 2.0);
}

#[test]
fn the_times_of_syncs_are_a_histogram() {
    let server = Server::start();
    for number in 0..20 {
        server.stores(&number.to_string());
    }
    let text = server.get("/metrics").text();
    let samples = samples(&text);
    let (mut last_bound, mut last_count, mut bounds) = (f64::NEG_INFINITY, 0.0, 0);
    for line in text.lines().filter(|line| line.starts_with("txtcord_fsync_seconds_bucket")) {
        let bound = line.split('"').nth(1).expect("le");
        let bound: f64 = bound.replace("+Inf", "inf").parse().expect("a bound");
        let count: f64 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("it");
        assert!(bound > last_bound && count >= last_count, "{text}");
        (last_bound, last_count, bounds) = (bound, count, bounds + 1);
    }
    assert!(bounds > 5 && last_bound == f64::INFINITY, "{text}");
    let count = samples["txtcord_fsync_seconds_count"];
    assert_eq!((last_count, count), (20.0, 20.0));
    // No more time can have gone by than the buckets allow, nor less.
    let sum = samples["txtcord_fsync_seconds_sum"];
    assert!(sum > 0.0 && sum < 20.0 * PATIENCE.as_secs_f64(), "{sum}");
    let never = Server::with(&["--fsync", "never"]);
    never.stores("1");
    assert_eq!(never.metric("txtcord_fsync_seconds_count"), 0.0);
}

/// Waits until this many have left for this reason, and checks that nobody left for another.
#[track_caller]
fn has_lost(server: &Server, reason: &str) {
    let is_over = || server.metric("txtcord_clients") == 0.0;
    until("the client is gone", is_over);
    until("it is counted", || scraped(server).get(&left(reason)) == Some(&1.0));
    let samples = scraped(server);
    let lost = samples.iter().filter(|(name, value)| name.contains("reason=") && **value != 0.0);
    let lost: Vec<_> = lost.map(|(name, value)| (name.clone(), *value)).collect();
    assert_eq!(lost, [(left(reason), 1.0)]);
}

#[test]
fn who_leaves_is_counted_once_and_by_the_reason() {
    type End = fn(&Server);
    let ends: [(&str, End); 5] = [
        ("closed", |server| server.join().leave()),
        ("gone", |server| server.raw_join().reset()),
        ("protocol", |server| {
            let mut raw = server.raw_join();
            raw.send([0xff, 0x80, 0, 0, 0, 0]);
            raw.is_closed_with(1002);
        }),
        ("invalid_text", |server| {
            let mut raw = server.raw_join();
            raw.send(frame(TEXT, b"\"\xff\""));
            raw.is_closed_with(1007);
        }),
        ("too_big", |server| {
            let mut client = server.join();
            client.send(Message::text("x".repeat(2000)));
            client.is_closed_with(1009);
        }),
    ];
    each_of(&ends, |(reason, end)| {
        let server = Server::with(&["--max-message", "1KiB"]);
        end(&server);
        has_lost(&server, reason);
    });
}

#[test]
fn who_says_nothing_for_too_long_is_counted_as_silent() {
    let server = Server::with(&["--ping-interval", "100ms"]);
    let mut silent = server.raw_join();
    // It reads, and answers no ping.
    silent.is_gone();
    has_lost(&server, "silent");
}

#[test]
fn who_takes_nothing_for_too_long_is_counted_as_stalled() {
    let file = padded_lines(2000, 16 << 10);
    let server = Setup::new().file(file).flags(&["--stall-timeout", "300ms"]).start();
    let deaf = server.deaf_join();
    until("it has joined", || {
        // It may have been closed already, so both figures are of one moment.
        let samples = scraped(&server);
        assert_eq!(samples["txtcord_clients_behind"], samples["txtcord_clients"]);
        samples["txtcord_joins_total"] == 1.0
    });
    has_lost(&server, "stalled");
    drop(deaf);
}

#[test]
fn what_a_slow_client_gets_later_is_delivered_too() {
    const COUNT: usize = 600;
    let server = Server::with(&[&NO_STALL[..], &["--fsync", "never"]].concat());
    let mut slow = Client::on(server.connect_narrow(), "/ws").expect("it joins");
    let half = padded_lines(COUNT / 2, 16 << 10);
    for _ in 0..2 {
        server.post(NDJSON, &half).created();
    }
    // The answer to a post does not wait until everybody has had a turn.
    until("it is behind", || server.metric("txtcord_clients_behind") == 1.0);
    assert!(server.metric("txtcord_deliveries_total") < COUNT as f64);
    for _ in 0..COUNT {
        slow.hears_one();
    }
    until("it is live", || server.metric("txtcord_clients_behind") == 0.0);
    scraped_when(&server, "deliveries_total", COUNT as f64);
    assert_eq!(server.metric("txtcord_messages_total"), COUNT as f64);
}

// ---------------------------------------------------------------------------------------------
// Health

#[test]
fn a_server_that_is_well_is_alive_and_ready() {
    // A hub that does not answer for two seconds counts as not well.
    in_one_of_a_few_attempts(|| {
        let server = Server::start();
        for path in ["/healthz", "/readyz"] {
            let reply = server.get(path);
            assert_eq!(reply.has(200).text(), "ok\n");
            assert_eq!(reply.header("Cache-Control"), Some("no-store"));
        }
    });
}

#[test]
fn a_server_whose_disk_is_full_is_alive_but_not_ready_until_there_is_room() {
    // A hub that does not answer for two seconds counts as not well.
    in_one_of_a_few_attempts(|| {
        let server = Setup::new().after("ulimit -f 16").start();
        let mut fits = 0;
        while server.post(JSON, padded(fits, 999)).status == 201 {
            fits += 1;
            assert!(fits < 20, "the disk is never full");
        }
        let reply = server.get("/readyz");
        reply.refuses(503, &["stored"]);
        assert!(reply.header("Retry-After").is_some());
        server.get("/healthz").has(200);
        assert_eq!(server.metric("txtcord_writable"), 0.0);
        server.post(NDJSON, padded_lines(3, 999)).has(503);
        server.join().try_say(&padded(9, 999));
        until("all are counted", || server.metric("txtcord_refused_messages_total") == 5.0);
        // A short message fits, and shows that there is room.
        until("there is room", || server.post(JSON, "1").status == 201);
        server.get("/readyz").has(200);
        assert_eq!(server.metric("txtcord_writable"), 1.0);
    });
}

#[test]
fn what_another_program_appends_is_taken_in_however_much_is_asked() {
    let server = Server::on(SEED);
    server.dir.append("8\n");
    // Each question comes long before the server would find nothing to do.
    until("it is taken in", || server.metric("txtcord_file_messages") == 8.0);
}

#[test]
fn the_disk_has_it_within_a_second_however_much_is_asked() {
    let server = Server::with(&["--fsync", "1s"]);
    server.stores("1");
    until("it is synced", || server.metric("txtcord_fsync_seconds_count") == 1.0);
}

#[test]
fn a_connection_on_which_nothing_is_asked_does_not_hold_up_the_stop() {
    // It has five seconds for those who are in the middle of something.
    is_quick(Duration::from_millis(4_500), || {
        let server = Server::on(SEED);
        let mut idle = server.raw();
        assert_eq!(idle.asks(ask("GET /healthz", &[])).status, 200);
        let begun = Instant::now();
        server.signal("TERM");
        server.ends().with(0, &[]);
        begun.elapsed()
    });
}

#[test]
fn a_server_that_stops_is_alive_but_not_ready() {
    // The server gives its clients five seconds at a stop.
    in_one_of_a_few_attempts(|| {
        let server = Setup::new().file(padded_lines(2000, 16 << 10)).start();
        let mut raws: Vec<_> = (0..2).map(|_| server.raw()).collect();
        raws.iter_mut().for_each(|raw| assert_eq!(raw.asks(ask("GET /readyz", &[])).status, 200));
        // A reader in the middle of something long, which the stop waits for.
        let mut slow = server.raw_narrow();
        slow.send(ask("GET /messages.txt", &[]));
        until("it is served", || slow.stream.peek(&mut [0]).is_ok_and(|count| count > 0));
        server.signal("TERM");
        until("the server stops", || server.log().contains("stopping"));
        let ready = raws[0].asks(ask("GET /readyz", &[]));
        ready.refuses(503, &["stopping"]);
        assert_eq!(raws[1].asks(ask("GET /healthz", &[])).status, 200);
        drop((slow, raws));
        server.ends().with(0, &[]);
    });
}

/// Runs the program to its end; gives its exit code, its output and its errors.
#[track_caller]
fn program(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let setup = Setup::bare().flags(arguments);
    let setup = variables.iter().fold(setup, |setup, (name, value)| setup.variable(name, *value));
    let Ended { status, out, log } = setup.ends();
    (status.code().expect("an exit code"), out, log)
}

#[test]
fn the_health_command_says_whether_the_server_is_alive() {
    // A hub that does not answer for two seconds counts as not well.
    in_one_of_a_few_attempts(|| {
        let server = Server::start();
        let address = server.address().to_string();
        let well = (0, "ok\n".into(), String::new());
        assert_eq!(program(&["health", "--listen", &address], &[]), well);
        assert_eq!(program(&["--listen", &address, "health"], &[]), well);
        assert_eq!(program(&["health"], &[("TXTCORD_LISTEN", &address)]), well);
        // As a container sets it: the address that means all addresses.
        let all = format!("0.0.0.0:{}", server.address().port());
        assert_eq!(program(&["health"], &[("TXTCORD_LISTEN", &all)]), well);
        // One that stands still answers nobody.
        server.freezes();
        let (code, out, words) = program(&["health", "--listen", &address], &[]);
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(words.starts_with(&format!("txtcord: {address}: no answer within ")), "{words}");
        server.signal("CONT");
        assert_eq!(program(&["health", "--listen", &address], &[]), well);
        server.stop();
        let (code, out, words) = program(&["health", "--listen", &address], &[]);
        assert_eq!((code, out.as_str(), words.lines().count()), (1, "", 1), "{words}");
        assert!(words.contains(&address) && words.contains("refused"), "{words}");
        assert_eq!(program(&["health", "--listen", "nowhere"], &[]).0, 2);
    });
}

#[test]
fn the_health_command_says_it_with_its_exit_code_where_nothing_can_be_printed() {
    // A hub that does not answer for two seconds counts as not well.
    in_one_of_a_few_attempts(|| {
        let server = Server::start();
        let address = server.address().to_string();
        let ask = Setup::bare().flags(&["health", "--listen", &address]);
        let nowhere = ask.clone().after("exec > /dev/full").ends();
        assert_eq!(nowhere.with(0, &[]).log, "");
        server.stop();
        ask.after("exec 2> /dev/full").ends().with(1, &[]);
    });
}

#[test]
fn the_health_command_finds_a_server_that_listens_everywhere_where_ipv6_is_off() {
    let name = "the_health_command_finds_a_server_that_listens_everywhere_where_ipv6_is_off";
    let off = "ip link set lo up && cd /proc/sys/net/ipv6/conf && echo 1 > all/disable_ipv6 && \
               echo 1 > lo/disable_ipv6 && cd -";
    let may = std::process::Command::new("unshare").args(["-n", "sh", "-c", off]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return skipped(name, "unshare cannot make a network without IPv6");
    }
    // A hub that does not answer for two seconds counts as not well.
    in_one_of_a_few_attempts(|| {
        let alone = format!("exec unshare -n sh -c '{off} && exec \"$0\" \"$@\"' \"$0\" \"$@\"");
        let server = Setup::bare().flags(&["--listen", "[::]:8000"]).after(&alone).start();
        let beside = format!("exec nsenter -n -t {} \"$0\" \"$@\"", server.pid());
        let ended = Setup::bare().flags(&["health", "--listen", "[::]:8000"]).after(&beside).ends();
        assert_eq!(ended.with(0, &[]).out, "ok\n");
        assert!(server.log().contains("http://127.0.0.1:8000/"), "{}", server.log());
    });
}

#[test]
fn the_health_command_is_not_taken_in_by_somebody_else() {
    // The command gives somebody a few seconds.
    in_one_of_a_few_attempts(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let other = std::thread::spawn(move || {
            for answer in ["HTTP/1.1 500 No\r\n\r\nnot well\n", "HTTP/1.1 2000\r\n\r\n", ""] {
                let (mut stream, _) = listener.accept().expect("the command asks");
                let head = BufReader::new(stream.try_clone().expect("a socket")).lines();
                let mut lines = head.map_while(Result::ok);
                assert!(lines.any(|line| line.is_empty()), "the head has an end");
                stream.write_all(answer.as_bytes()).expect("it listens");
            }
        });
        for word in ["not well", "", "no answer"] {
            let (code, out, words) = program(&["health", "--listen", &address], &[]);
            assert_eq!((code, out.as_str()), (1, ""));
            assert!(words.contains(word), "{words}");
        }
        other.join().expect("three were asked");
    });
}

// ---------------------------------------------------------------------------------------------
// Seats

#[test]
fn when_every_seat_is_taken_only_operators_are_answered_and_the_others_are_told_why() {
    // A connection on which nothing is asked for ten seconds ends.
    in_one_of_a_few_attempts(|| {
        let server = Setup::new().file(SEED).flags(&["--max-clients", "2"]).start();
        let (mut ann, mut bob) = (server.join(), server.raw());
        // The second seat is held by a connection that is no client of the chat.
        assert_eq!(bob.asks(ask("GET /messages?limit=1", &[])).status, 200);
        for path in ["/healthz", "/readyz"] {
            server.get(path).has(200);
        }
        let paths =
            ["/", "/messages", "/messages?follow=1", "/messages/1", "/messages.txt", "/metrics"];
        for line in paths.map(|path| format!("GET {path}")).iter().chain(&[
            "HEAD /messages".to_owned(),
            "OPTIONS /messages".to_owned(),
            "GET /nothing".to_owned(),
        ]) {
            let mut raw = server.raw();
            raw.send(ask(line, &[]));
            let answer = raw.head_alone();
            assert_eq!(answer.status, 503, "{line}");
            assert!(answer.header("Retry-After").is_some(), "{line}: {answer:?}");
            if !line.starts_with("HEAD") {
                let length = answer.header("Content-Length").expect("a length");
                let sentence = raw.takes(length.parse().expect("digits"));
                assert!(sentence.starts_with(b"too many clients"), "{line}");
            }
            raw.is_over();
        }
        server.asked(post("8")).refuses(503, &["too many clients"]);
        let answer = server.asked(server.head("/ws", &[]));
        answer.refuses(503, &["too many clients"]);
        assert!(answer.header("Retry-After").is_some());
        // Those who have a seat keep it and notice nothing.
        assert_eq!(bob.asks(post("8")).body, "{\"id\":8}\n");
        ann.hears("8");
        drop(bob);
        until("there is a seat", || server.try_join().is_ok());
    });
}
