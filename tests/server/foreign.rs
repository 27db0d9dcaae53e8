//! The file as an interface: other programs append to it while the server runs, and may do worse.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::support::*;

#[test]
fn an_echo_into_the_file_is_a_message_to_everyone() {
    let server = Server::on(SEED);
    let (mut ann, mut bob) = (server.join(), server.join());
    let begun = Instant::now();
    let file = server.dir.file();
    let file = file.display();
    shell(&format!(r#"echo '{{"user":"cron","content":"backup done"}}' >> '{file}'"#));
    let heard = ann.hears(r#"{"user":"cron","content":"backup done"}"#);
    assert!(begun.elapsed() < PROMPT, "after {:?}", begun.elapsed());
    assert_eq!(heard.id, 8);
    assert!(now_ms().abs_diff(heard.ts) < 600_000);
    assert_eq!(bob.hears_one(), heard);
    assert_eq!(ann.says("9").id, 9);
    assert_eq!(bob.hears("9").id, 9);
    let history = server.join().history;
    assert_eq!(history.messages()[7], (8, r#"{"user":"cron","content":"backup done"}"#));
}

#[test]
fn foreign_lines_come_in_the_order_in_which_they_stand() {
    let server = Server::start();
    let mut ann = server.join();
    let lines: String = (1..=2000).map(|number| format!("{number}\n")).collect();
    server.dir.append(&lines);
    for number in 1..=2000 {
        assert_eq!(ann.hears(&number.to_string()).id, number);
    }
    // A foreign line that stands before ours is shown before ours.
    for number in (2001..2041).step_by(2) {
        server.dir.append(format!("{number}\n"));
        ann.say(&(number + 1).to_string());
        assert_eq!(ann.hears(&number.to_string()).id, number);
        assert_eq!(ann.hears(&(number + 1).to_string()).id, number + 1);
    }
}

#[test]
fn foreign_lines_that_are_no_messages_are_holes() {
    let server = Server::start();
    let mut ann = server.join();
    assert_eq!(ann.says("1").id, 1);
    server.dir.append("nope\n\n\u{feff}4\n");
    assert_eq!(ann.says("5").id, 5);
    server.dir.append(b"\"\xff\"\n7\r\n");
    // The carriage return is no part of the message.
    let heard = ann.hears_one();
    assert_eq!((heard.id, heard.data.trim()), (7, "7"));
    server.dir.append("junk\n");
    assert_eq!(ann.says("9").id, 9);
    let file = server.dir.read();
    let check = |history: History| {
        assert_eq!(history.messages(), [(1, "1"), (5, "5"), (7, "7"), (9, "9")]);
        assert_eq!(history.skipped, [2, 3, 4, 6, 8]);
    };
    check(server.join().history);
    drop(ann);
    let server = server.restart();
    check(server.join().history);
    assert_eq!(server.dir.read(), file, "holes are left as they are");
    assert!(!server.log().contains("junk"), "the log says no messages' text");
}

#[test]
fn a_foreign_line_without_an_end_is_never_glued_to_ours() {
    let server = Server::start();
    let mut ann = server.join();
    // A message whose line end is missing.
    server.dir.append(r#"{"a":1}"#);
    ann.say("2");
    assert_eq!(ann.hears(r#"{"a":1}"#).id, 1);
    assert_eq!(ann.hears("2").id, 2);
    assert_eq!(server.dir.read(), b"{\"a\":1}\n2\n");
    // Half a message: a hole.
    server.dir.append(r#"{"b":"#);
    assert_eq!(ann.says("4").id, 4);
    assert_eq!(server.dir.read(), b"{\"a\":1}\n2\n{\"b\":\n4\n");
    // Not even that: white space.
    server.dir.append("  ");
    assert_eq!(ann.says("6").id, 6);
    assert_eq!(server.dir.read(), b"{\"a\":1}\n2\n{\"b\":\n4\n  \n6\n");
    assert!(server.dir.torn().is_empty(), "nothing was torn");
}

#[test]
fn a_foreign_line_may_take_its_time() {
    let server = Server::start();
    let mut ann = server.join();
    server.dir.append(r#"{"slowly":"#);
    // Longer than the server takes to look at the file when idle, which no event announces.
    thread::sleep(Duration::from_millis(1200));
    server.dir.append("\"typed\"}\n");
    assert_eq!(ann.hears(r#"{"slowly":"typed"}"#).id, 1);
    assert_eq!(server.dir.read(), b"{\"slowly\":\"typed\"}\n");
}

#[test]
fn a_huge_foreign_line_is_a_hole_and_costs_no_memory() {
    let server = Server::start();
    let mut ann = server.join();
    ann.says("1");
    server.dir.append([vec![b'x'; 100 << 20], b"\n3\n".to_vec()].concat());
    assert_eq!(ann.hears("3").id, 3);
    assert_eq!(server.join().history.messages(), [(1, "1"), (3, "3")]);
    let peak = server.status("VmHWM") >> 10;
    assert!(peak < 80, "{peak} MiB for one line");
}

/// What was heard or stored, by id.
type Messages = BTreeMap<u64, String>;

/// Says things among others, and hears each of them.
fn talks(mut client: Client, who: usize, count: usize) {
    for number in 0..count {
        client.says_among_others(&format!(r#"{{"ours":{who},"n":{number}}}"#));
    }
}

/// Of what was heard, all of one author's is there and in order.
#[track_caller]
fn is_complete(heard: &Messages, author: &str, who: usize, count: usize) {
    let start = format!(r#"{{"{author}":{who},"n":"#);
    let own = heard.values().filter_map(|data| data.strip_prefix(&start));
    assert!(own.eq((0..count).map(|number| format!("{number}}}"))), "{author} {who}");
}

/// What a listener heard.
fn listens(mut client: Client, until: impl Fn(&str) -> bool) -> Messages {
    let mut all = Messages::new();
    let mut last = 0;
    loop {
        let heard = client.hears_one();
        assert!(heard.id > last, "{} after {last}", heard.id);
        last = heard.id;
        let ends = until(&heard.data);
        all.insert(heard.id, heard.data);
        if ends {
            return all;
        }
    }
}

/// Others append to the file as fast as clients post; in the end what was heard is what stands.
#[track_caller]
fn check_race(fsync: &str) {
    const EACH: usize = 300;
    let server = Server::with(&["--fsync", fsync]);
    let listener = server.join();
    let speakers: Vec<Client> = (0..3).map(|_| server.join()).collect();
    let dir = &server.dir;
    let heard = thread::scope(|scope| {
        let listener = scope.spawn(|| listens(listener, |data| data == "\"the end\""));
        let foreign = each_apart(scope, 0..3, |_, who| {
            for number in 0..EACH {
                let line = format!(r#"{{"foreign":{who},"n":{number}}}"#);
                // Now and then a line that is no message, or two lines at once.
                match number % 10 {
                    3 => dir.append("no message\n"),
                    6 => dir.append("\n\n"),
                    _ => (),
                }
                dir.append(line + "\n");
            }
        });
        let ours = each_apart(scope, speakers, |who, client| talks(client, who, EACH));
        foreign.into_iter().chain(ours).for_each(|thread| thread.join().expect("all is said"));
        dir.append("\"the end\"\n");
        listener.join().expect("a listener hears all")
    });
    let stored: Messages =
        (1..).zip(server.lines()).filter(|(_, line)| line.starts_with(['{', '"'])).collect();
    assert!(heard == stored, "what was heard is not what stands");
    assert_eq!(heard.len(), 6 * EACH + 1, "messages heard");
    for author in ["foreign", "ours"] {
        for who in 0..3 {
            is_complete(&heard, author, who, EACH);
        }
    }
    // The same to those who come later.
    let history = server.join().history;
    assert!(history.by_id() == stored, "what is served is not what stands");
    let server = server.restart();
    assert_eq!(server.join().history.frame, history.frame, "after a restart");
}

#[test]
fn foreign_lines_and_ours_race_and_nothing_is_lost_doubled_or_moved() {
    check_race("never");
    check_race("always");
}

#[test]
fn half_written_foreign_lines_never_swallow_a_message() {
    const COUNT: usize = 300;
    const HALVES: usize = 3000;
    let server = Server::with(&["--fsync", "never"]);
    let listener = server.join();
    let speakers: Vec<Client> = (0..2).map(|_| server.join()).collect();
    let heard = thread::scope(|scope| {
        let dir = &server.dir;
        let listener = scope.spawn(|| listens(listener, |data| data == "\"the end\""));
        let foreign = scope.spawn(move || {
            // A program that writes its lines in two halves; ours may come in between.
            for _ in 0..HALVES {
                dir.append(r#"{"half":"#);
                dir.append("1}\n");
            }
        });
        let ours = each_apart(scope, speakers, |who, client| talks(client, who, COUNT));
        ours.into_iter().for_each(|thread| thread.join().expect("each is heard by its sender"));
        foreign.join().expect("it writes");
        dir.append("\"the end\"\n");
        listener.join().expect("a listener hears all")
    });
    // Whatever became of the halves: each message that was heard stands whole in its own line.
    let lines = server.lines();
    for (id, data) in &heard {
        assert_eq!(&lines[*id as usize - 1], data, "line {id}");
    }
    for who in 0..2 {
        is_complete(&heard, "ours", who, COUNT);
    }
    let history = server.join().history;
    assert!(history.by_id() == heard, "what is served is not what was heard");
}

#[test]
fn who_slips_in_right_before_our_write_moves_it_and_costs_nothing() {
    const ROUNDS: u64 = 9;
    let name = "who_slips_in_right_before_our_write_moves_it_and_costs_nothing";
    let server = Server::with(&["--fsync", "never"]);
    let (mut ann, bob) = (server.join(), server.join());
    let hold = "write,writev,pwrite64:delay_enter=100000";
    let Some(_meddling) = meddle(&server, name, hold) else {
        return;
    };
    for round in 0..ROUNDS {
        let ours = format!(r#"{{"ours":{round}}}"#);
        ann.say(&ours);
        for part in 0..4 {
            // Our write is held up for a tenth of a second, and nothing says when it begins.
            thread::sleep(Duration::from_millis(15));
            match (round % 3, part) {
                (0, _) => server.dir.append("\"foreign\"\n"),
                (1, _) => server.dir.append("no message\n\n"),
                (_, 0) => server.dir.append("{\"half\":"),
                _ => (),
            }
        }
        while ann.hears_one().data != ours {}
        // A half line that came too late for this round must not swallow the next one's.
        server.dir.append("\n");
    }
    server.dir.append("\n\"the end\"\n");
    let heard = listens(bob, |data| data == "\"the end\"");
    let lines = server.lines();
    for (id, data) in &heard {
        assert_eq!(&lines[*id as usize - 1], data, "line {id}");
    }
    let count = |text: &str| heard.values().filter(|data| data.contains(text)).count() as u64;
    assert_eq!((count("ours"), count("foreign")), (ROUNDS, 4 * ROUNDS / 3));
    let history = server.join().history;
    assert!(history.by_id() == heard, "what is served is not what was heard");
}

#[test]
fn a_post_of_several_messages_keeps_its_order_behind_a_half_line_that_slips_in() {
    // The half line must come before our write is over.
    with_more_and_more_time(
        [3, 15, 75].map(Duration::from_secs),
        keeps_its_order_behind_a_half_line,
    );
}

/// While our write is held up for so long.
#[track_caller]
fn keeps_its_order_behind_a_half_line(hold: Duration) {
    let name = "a_post_of_several_messages_keeps_its_order_behind_a_half_line_that_slips_in";
    let server = Server::start();
    let mut ann = server.join();
    let hold = format!("write,writev,pwrite64:delay_enter={}:when=1", hold.as_micros());
    let Some(_meddling) = meddle(&server, name, &hold) else {
        return;
    };
    let body = "1\n2\n3\n";
    let length = body.len().to_string();
    let headers = [("Content-Type", "application/x-ndjson"), ("Content-Length", &*length)];
    let head = String::from_utf8(server.head("/messages", &headers)).expect("a head is UTF-8");
    let request = head.replacen("GET", "POST", 1) + body;
    let response = thread::scope(|scope| {
        let response = scope.spawn(|| server.asked(&request));
        // Our write is held up for seconds, and nothing says when it begins.
        thread::sleep(Duration::from_millis(100));
        server.dir.append("{\"half\":");
        response.join().expect("an answer")
    });
    assert_eq!((response.status, response.body.trim()), (201, r#"{"id":2,"last_id":4}"#));
    for (id, text) in (2..).zip(["1", "2", "3"]) {
        assert_eq!(ann.hears(text).id, id);
        assert_eq!(server.lines()[id as usize - 1], text);
    }
    assert!(server.lines()[0].starts_with("{\"half\":"), "nothing of others is lost");
}

/// The file changes underneath a server: it ends with 75 and shows nothing more.
#[track_caller]
fn check_changed(change: impl Fn(&Path), then_someone_speaks: impl Fn(&mut Client), saved: Saved) {
    let server = Server::on(SEED);
    let (mut ann, mut bob) = (server.join(), server.join());
    ann.says(r#"{"the":"last"}"#);
    bob.hears(r#"{"the":"last"}"#);
    let before = server.dir.read();
    let dir = server.dir.clone();
    change(&dir.file());
    let begun = Instant::now();
    then_someone_speaks(&mut ann);
    // Nothing is published any more; the connection just ends.
    match bob.next() {
        Frame::Close(code, reason) => {
            assert!([1011, 1012].contains(&code), "{code}");
            assert!(!reason.is_empty(), "a close has a reason");
        }
        Frame::End(_) => (),
        other => panic!("{other:?} after the file has changed"),
    }
    drop((ann, bob));
    server.ends().with(75, &["messages.txt"]);
    assert!(begun.elapsed() < PROMPT, "after {:?}", begun.elapsed());
    let copy = dir.beside().into_iter().find(|(_, bytes)| *bytes == before);
    match saved {
        Saved::Beside => assert!(copy.is_some(), "no copy among {:?}", dir.beside().keys()),
        Saved::Nothing => (),
    }
}

/// Whether what only the server still had must be beside the file afterwards.
#[derive(Clone, Copy)]
enum Saved {
    Beside,
    Nothing,
}

#[test]
fn a_server_whose_file_is_removed_saves_it_and_ends() {
    let removed = |file: &Path| fs::remove_file(file).expect("the file is there");
    check_changed(removed, |_| (), Saved::Beside);
    check_changed(removed, |ann| ann.say("9"), Saved::Beside);
}

#[test]
fn a_server_whose_file_is_replaced_saves_it_and_ends() {
    // By a longer one, as an editor does that writes a copy and renames it.
    let replaced = |file: &Path| {
        let copy = file.with_file_name("new.txt");
        fs::write(&copy, SEED.repeat(2)).expect("a file");
        fs::rename(copy, file).expect("a rename");
    };
    check_changed(replaced, |_| (), Saved::Beside);
    check_changed(replaced, |ann| ann.say("9"), Saved::Beside);
}

#[test]
fn a_server_whose_file_is_shortened_ends() {
    let emptied = |file: &Path| {
        fs::OpenOptions::new().write(true).open(file).expect("the file").set_len(0).expect("cut")
    };
    check_changed(emptied, |_| (), Saved::Nothing);
    check_changed(emptied, |ann| ann.say("9"), Saved::Nothing);
    let shortened = |file: &Path| {
        fs::OpenOptions::new().write(true).open(file).expect("the file").set_len(250).expect("cut")
    };
    check_changed(shortened, |_| (), Saved::Nothing);
    check_changed(shortened, |ann| ann.say("9"), Saved::Nothing);
    // `sort -o`, `sed` and the like: written anew in place, and shorter.
    let rewritten = |file: &Path| {
        let mut file = fs::File::create(file).expect("the file");
        file.write_all(b"1\n2\n").expect("the file can be written");
    };
    check_changed(rewritten, |_| (), Saved::Nothing);
}

#[test]
fn a_server_whose_file_is_overwritten_by_a_longer_text_ends() {
    // `cp` and `cat >` write into the same file.
    let overwritten = |file: &Path| fs::write(file, SEED.repeat(2)).expect("the file");
    check_changed(overwritten, |_| (), Saved::Nothing);
    check_changed(overwritten, |ann| ann.say("9"), Saved::Nothing);
}

#[test]
fn after_a_change_the_next_start_serves_what_is_there() {
    let server = Server::on(SEED);
    let epoch = server.join().history.epoch;
    let setup = server.setup().clone();
    fs::remove_file(setup.dir.file()).expect("the file is there");
    setup.dir.write("1\n");
    server.ends().with(75, &[]);
    let server = setup.start();
    let history = server.join().history;
    assert_eq!(history.said(), ["1"]);
    assert_ne!(history.epoch, epoch);
}
