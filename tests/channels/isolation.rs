//! One channel's trouble is no other channel's: disks that fail, files that are replaced, and what
//! goes on beside.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{house::*, support::*};

#[test]
fn two_busy_channels_keep_their_order_while_others_fail_beside_them() {
    let name = "two_busy_channels_keep_their_order_while_others_fail_beside_them";
    let files = [("a.txt", ""), ("b.txt", ""), ("sick.txt", "1\n"), ("moved.txt", "1\n")];
    let server = with_files(&files).start();
    let (mut sick, mut moved) = (server.join_at("/sick/ws"), server.join_at("/moved/ws"));
    let mut listeners = ["a", "b"].map(|name| server.join_at(&format!("/{name}/ws")));
    let is_over = AtomicBool::new(false);
    let path = server.file_of("sick");
    let path = path.to_str().expect("a UTF-8 path").to_owned();
    thread::scope(|scope| {
        let _ends = EndsWithMe(&is_over);
        let mut speakers = Vec::new();
        for channel in ["a", "b"] {
            for who in 0..3 {
                let (server, is_over) = (&server, &is_over);
                speakers.push(scope.spawn(move || {
                    let mut client = server.join_at(&format!("/{channel}/ws?limit=0"));
                    let mut ids = Vec::new();
                    while !is_over.load(Ordering::Relaxed) || ids.len() < 10 {
                        let text = format!("{{\"{channel}\":[{who},{}]}}", ids.len());
                        ids.push(client.says_among_others(&text).id);
                    }
                    (channel, who, ids)
                }));
            }
        }
        listeners.iter_mut().for_each(|listener| (0..50).for_each(|_| drop(listener.hears_one())));
        let meddling = meddle_with(&server, name, "write,pwrite64:error=EIO", &path);
        if let Some(meddling) = meddling {
            sick.say("2");
            sick.is_closed_with(1011);
            server.has("GET /channels", &[]);
            // It is opened anew, as far as the disk lets it.
            drop(meddling);
            let answer = server.has("GET /sick", &[]);
            assert!(answer.status == 200 && answer.body.lines().count() == 1, "{answer:?}");
        }
        fs::write(server.dir.join("aside"), "\"other\"\n").expect("a file");
        fs::rename(server.dir.join("aside"), server.file_of("moved")).expect("it is moved");
        moved.is_closed_with(1012);
        assert_eq!(server.gets("/moved.txt"), "\"other\"\n");
        listeners.iter_mut().for_each(|listener| (0..50).for_each(|_| drop(listener.hears_one())));
        is_over.store(true, Ordering::Relaxed);
        for speaker in speakers {
            let (channel, who, ids) = speaker.join().expect("a speaker hears all it says");
            assert!(ids.is_sorted(), "{channel} {who}: {ids:?}");
        }
    });
    // Each channel has its own messages alone, dense, each speaker's in order.
    for channel in ["a", "b"] {
        let text = server.gets(&format!("/{channel}.txt"));
        let mut next = [0; 3];
        for line in text.lines() {
            let value = json(line);
            let who = value[channel][0].as_u64().expect("this channel's") as usize;
            assert_eq!(value[channel][1].as_u64(), Some(next[who]), "{line}");
            next[who] += 1;
        }
        let history = server.join_at(&format!("/{channel}/ws")).history;
        assert_eq!(history.last_id, text.lines().count() as u64);
    }
    assert_eq!(server.gets("/healthz"), "ok\n");
}

/// Lets each write to a channel's file hang for a while, as long as what it returns is held; `None` where
/// that is not possible. `test` is the name of the test.
fn hang_writes_of(server: &Server, channel: &str, hang: Duration, test: &str) -> Option<Meddling> {
    let path = server.file_of(channel);
    let hold = format!("write:delay_enter={}", hang.as_micros());
    meddle_with(server, test, &hold, path.to_str().expect("a UTF-8 path"))
}

#[test]
fn a_disk_that_hangs_in_one_channel_delays_no_other() {
    // All else must be done while the disk hangs.
    with_more_and_more_time([8, 40, 200].map(Duration::from_secs), |hang| {
        let name = "a_disk_that_hangs_in_one_channel_delays_no_other";
        let server = with_files(&[("slow.txt", ""), ("dev.txt", "")]).start();
        let mut slow = server.join_at("/slow/ws");
        let mut dev = server.join_at("/dev/ws");
        let Some(_meddling) = hang_writes_of(&server, "slow", hang, name) else { return };
        let begun = std::time::Instant::now();
        slow.say("1");
        for number in 0..20 {
            dev.says(&number.to_string());
            server.stores("messages", "1");
            server.channels();
        }
        assert!(begun.elapsed() < hang, "after {:?}", begun.elapsed());
        slow.hears("1");
    });
}

#[test]
fn a_disk_that_hangs_in_one_channel_holds_up_no_client_that_is_behind_in_another() {
    // All else must be done while the disk hangs.
    with_more_and_more_time([8, 40, 200].map(Duration::from_secs), |hang| {
        let name = "a_disk_that_hangs_in_one_channel_holds_up_no_client_that_is_behind_in_another";
        // More than the sockets in between can swallow.
        let text = padded_lines(8_000, 1000);
        let server = with_files(&[("slow.txt", &text), ("dev.txt", &text)]).start();
        let mut slow = server.join_at("/slow/ws?limit=0");
        // As many clients as there are threads that serve those who are behind.
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let begin = |_| {
            let mut behind = server.raw_narrow();
            behind.send(server.head("/slow/ws", &[]));
            assert_eq!(behind.response().status, 101);
            behind
        };
        let mut behind: Vec<_> = (0..threads).map(begin).collect();
        let Some(_meddling) = hang_writes_of(&server, "slow", hang, name) else { return };
        let begun = std::time::Instant::now();
        slow.say("1");
        // Whoever has its history is live as soon as the hub says so, and not before.
        for behind in &mut behind {
            assert_eq!(History::parse(&behind.text()).last_id, 8_000);
        }
        for _ in 0..threads {
            let mut dev = Client::on(server.connect_narrow(), "/dev/ws").expect("it joins");
            dev.says("1");
        }
        assert!(begun.elapsed() < hang, "after {:?}", begun.elapsed());
        slow.hears("1");
        for behind in &mut behind {
            assert_eq!(behind.hears("1").id, 8_001);
        }
    });
}

#[test]
fn the_default_channel_ends_the_server_and_says_goodbye_to_all() {
    // The server gives its clients a second when its file fails.
    in_one_of_a_few_attempts(|| {
        let server = with_files(&[("dev.txt", "")]).start();
        let (mut ann, mut dev) = (server.join(), server.join_at("/dev/ws"));
        dev.says("1");
        fs::remove_file(server.dir.file()).expect("a file");
        ann.is_closed_with(1011);
        dev.is_closed_with(1012);
        server.ends().with(75, &["removed"]);
    });
}

#[test]
fn a_stop_says_come_back_in_every_channel() {
    // The server gives its clients five seconds at a stop.
    in_one_of_a_few_attempts(|| {
        let server = with_files(&[("dev.txt", ""), ("ops.txt", "")]).start();
        let mut clients = ["/ws", "/dev/ws", "/ops/ws"].map(|path| server.join_at(path));
        clients.iter_mut().for_each(|client| drop(client.says("1")));
        server.signal("TERM");
        clients.iter_mut().for_each(|client| drop(client.is_closed_with(1012)));
        drop(clients);
        server.ends().with(0, &[]);
    });
}

#[test]
fn a_channel_where_nobody_is_costs_no_processor_time() {
    let files: Vec<String> = (0..50).map(|number| format!("c{number}.txt")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|file| (&**file, "1\n")).collect();
    let server = with_files(&files).start();
    assert_eq!(server.stores("c0", "2"), 2);
    server.join_at("/c1/ws").says("2");
    let tasks = format!("/proc/{}/task", server.pid());
    // How often the hubs of these channels gave up the processor: each wait that ends is one.
    let wakes = || {
        let mut all = 0;
        for task in fs::read_dir(&tasks).expect("the server runs") {
            let task = task.expect("a thread").path();
            let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
            if name.starts_with("hub-c") {
                let status = fs::read_to_string(task.join("status")).unwrap_or_default();
                let line = status.lines().find(|line| line.starts_with("voluntary_ctxt"));
                let count = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
                all += count.unwrap_or(0_u64);
            }
        }
        all
    };
    // Those where somebody was have noted how far they are, after which they sleep, too.
    until("they sleep", || {
        let before = wakes();
        // Time itself is what is tested: a hub that looks at its file would wake within it.
        thread::sleep(Duration::from_millis(1100));
        wakes() == before
    });
}
