use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::SystemTime,
};

use clap::Parser;
use crossbeam_channel::RecvTimeoutError;

use super::{watch::Watch, *};
use crate::{
    command::{self, ClientId, Command, Commands, Joined, NextStep, Reply},
    history::{Resume, Window},
    outbox::Outbox,
    testing::{CLOSE, Dir, Peer, pair, permit},
};

/// How long anything may take before a test gives it up.
const PATIENCE: Duration = Duration::from_secs(180);

/// The channels of a folder, without a server.
struct House {
    dir: Dir,
    channels: Channels,
    ended: Receiver<Infallible>,
}

impl House {
    fn new() -> House {
        House::with_at_most(10)
    }

    fn with_at_most(most: usize) -> House {
        let dir = Dir::new();
        let file = dir.file().to_str().expect("a UTF-8 path").to_owned();
        let config = Config::parse_from(["txtcord", "--file", &file, "--fsync", "never"]);
        let (catch_up, _) = CatchUp::by_hand();
        let most = Most { count: most, limit: None };
        let (channels, ended) = Channels::new(&config, most, Arc::default(), catch_up, None);
        House { dir, channels, ended }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("channels").join(format!("{name}.txt"))
    }

    fn names(&self) -> Vec<String> {
        self.channels.list().iter().map(|listed| listed.name.to_string()).collect()
    }

    /// What lies in the folder, but for lock files and stamps.
    fn lies_in_folder(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.dir.path().join("channels")) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().expect("UTF-8")).collect();
        names.retain(|name| !name.ends_with(".lock") && !name.ends_with(".stamps"));
        names.sort();
        names
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

#[track_caller]
fn said(open: &Open) -> Vec<String> {
    let view = open.hub.look(Window::default(), None).expect("a hub");
    let mut messages = view.stretch.messages().expect("a file");
    let mut all = Vec::new();
    while let Some(message) = messages.next().expect("a file") {
        all.push(String::from_utf8(message.data.to_vec()).expect("UTF-8"));
    }
    all
}

/// A live client.
fn join(open: &Open) -> Peer {
    let (socket, peer) = pair(1 << 20);
    let outbox = Arc::new(Outbox::new(socket));
    let Joined { client, .. } = open.hub.join(outbox, Resume::default(), permit()).expect("a hub");
    let (reply, answer) = oneshot::channel();
    open.hub.next_step_later(client, None, reply.into());
    assert!(matches!(answer.recv(), Ok(NextStep::Live)));
    peer
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[track_caller]
fn is_refused(answer: Result<Open, NoChannel>, status: u16, words: &str) {
    let refusal = answer.expect_err("there is none").refusal(&name("dev"));
    assert_eq!(refusal.status, status, "{}", refusal.sentence);
    assert!(refusal.sentence.contains(words), "{}", refusal.sentence);
}

#[test]
fn a_channel_is_there_from_when_it_is_made_until_it_is_put_away() {
    let house = House::new();
    let dev = name("dev");
    is_refused(house.channels.find(&dev), 404, "PUT /dev");
    assert_eq!(house.channels.make(&dev).expect("it is made"), Made::Now);
    assert_eq!(house.channels.make(&dev).expect("it is there"), Made::Before);
    let open = house.channels.find(&dev).expect("it is there");
    let mut peer = join(&open);
    open.hub.store(None, None, b"1\n".to_vec(), None).expect("a hub").expect("room");
    assert_eq!(open.summary.figures().last_id, 1);
    assert_eq!(house.names(), ["dev"]);

    house.channels.put_away(&dev).expect("it is put away");
    is_refused(house.channels.find(&dev), 404, "PUT /dev");
    assert!(house.names().is_empty());
    let left = house.lies_in_folder();
    assert_eq!(left.len(), 1, "{left:?}");
    let ms = left[0].strip_prefix("dev.txt.removed-").expect("it is named for what it is");
    assert!(ms.parse::<u64>().expect("a time") > 1_700_000_000_000);
    assert_eq!(fs::read(house.file("dev").with_file_name(&left[0])).expect("it is there"), b"1\n");
    let frames = peer.frames();
    let last = frames.last().expect("a goodbye");
    assert_eq!((last.first, &last.payload[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
    // Those who still have its hub are told that it is gone.
    open.hub.look(Window::default(), None).expect_err("it is gone");
    let (tells, told) = bounded(1);
    let reply = Reply::new(move |next: Result<_, _>| tells.send(next.is_err()).expect("heard"));
    open.hub.next_step_later(ClientId(1), None, reply);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(true), "it is gone");

    // The name is free, and what comes there has nothing to do with what was.
    assert_eq!(house.channels.make(&dev).expect("it is made"), Made::Now);
    let again = house.channels.find(&dev).expect("it is there");
    assert_ne!(again.summary.epoch(), open.summary.epoch());
    assert!(said(&again).is_empty());
}

#[test]
fn what_is_put_away_while_all_talk_is_in_the_file_to_the_last_answer() {
    let house = House::new();
    let dev = name("dev");
    house.channels.make(&dev).expect("it is made");
    let open = house.channels.find(&dev).expect("it is there");
    let stored: u64 = thread::scope(|scope| {
        let talk = || {
            let post = || open.hub.store(None, None, b"1\n".to_vec(), None);
            (0..).take_while(move |_| matches!(post(), Ok(Ok(_))))
        };
        let talkers: Vec<_> = (0..4).map(|_| scope.spawn(move || talk().count() as u64)).collect();
        until("they talk", || open.summary.figures().last_id > 200);
        house.channels.put_away(&dev).expect("it is put away");
        talkers.into_iter().map(|talker| talker.join().expect("no panic")).sum()
    });
    let left = house.lies_in_folder();
    let text = fs::read(house.file("dev").with_file_name(&left[0])).expect("it is there");
    assert_eq!(text.len() as u64, 2 * stored);
}

#[test]
fn files_in_the_folder_are_channels_and_what_is_no_file_says_why_not() {
    let house = House::new();
    let folder = house.file("x").parent().expect("a folder").to_owned();
    fs::create_dir(&folder).expect("a folder");
    fs::write(house.dir.path().join("secret.txt"), "\"secret\"\n").expect("a file");
    for file in ["dev.txt", "messages.txt", "ws.txt", "Ops.txt", "a b.txt", "notes", ".txt"] {
        fs::write(folder.join(file), "1\n").expect("a file");
    }
    fs::create_dir(folder.join("dir.txt")).expect("a folder");
    symlink("../secret.txt", folder.join("link.txt")).expect("a link");
    symlink("dev.txt", folder.join("inner.txt")).expect("a link");
    symlink("nowhere", folder.join("dangling.txt")).expect("a link");
    house.channels.open_folder();
    assert_eq!(house.names(), ["dev"]);
    assert_eq!(said(&house.channels.find(&name("dev")).expect("it is there")), ["1"]);
    is_refused(house.channels.find(&name("dir")), 503, "is a directory");
    for link in ["link", "inner", "dangling"] {
        is_refused(house.channels.find(&name(link)), 503, "is a symbolic link");
        let made = house.channels.make(&name(link)).expect_err("it is not made");
        assert_eq!(made.refusal(&name(link)).status, 503);
    }
    assert_eq!(
        fs::read(house.dir.path().join("secret.txt")).expect("it is there"),
        b"\"secret\"\n"
    );
    assert!(!folder.join("nowhere").exists());
}

/// Files in the folder, noted down as channels that are being opened.
fn taken_up(house: &House, names: &[&str]) -> Vec<Name> {
    fs::create_dir(house.file("x").parent().expect("a folder")).expect("a folder");
    names.iter().for_each(|text| fs::write(house.file(text), "1\n").expect("a file"));
    house.channels.shared.take_up(names.iter().map(|text| name(text)).collect())
}

#[test]
fn channels_are_opened_where_no_threads_can_be_started_to_help() {
    let house = House::new();
    let names = taken_up(&house, &["a", "b", "c"]);
    // No memory has room for such a stack.
    house.channels.shared.open_all_with(&names, 1 << 60);
    assert_eq!(house.channels.open().into_keys().collect::<Vec<_>>(), names);
}

#[test]
fn there_are_no_more_channels_than_allowed() {
    let house = House::with_at_most(2);
    for text in ["a", "b"] {
        house.channels.make(&name(text)).expect("it is made");
    }
    let refusal = house.channels.make(&name("c")).expect_err("too many").refusal(&name("c"));
    assert_eq!(refusal.status, 507);
    assert!(refusal.sentence.contains("--max-channels"), "{}", refusal.sentence);
    assert_eq!(house.channels.make(&name("a")).expect("it is there"), Made::Before);
    house.channels.put_away(&name("a")).expect("it is put away");
    house.channels.make(&name("c")).expect("there is room again");
    assert_eq!(house.names(), ["b", "c"]);
    // Files beyond are left alone.
    fs::write(house.file("d"), "").expect("a file");
    house.channels.open_folder();
    assert_eq!(house.names(), ["b", "c"]);
}

#[test]
fn many_who_make_and_put_away_the_same_channel_never_see_two_of_it() {
    let house = House::new();
    let dev = name("dev");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    // Another may put it away at any time.
                    if house.channels.make(&dev).is_ok()
                        && let Ok(open) = house.channels.find(&dev)
                    {
                        let _ = open.hub.store(None, None, b"1\n".to_vec(), None);
                    }
                    let _ = house.channels.put_away(&dev);
                }
            });
        }
    });
    let channels = house.channels.open();
    assert!(channels.len() <= 1);
    let text = |file: &String| fs::read(house.file("dev").with_file_name(file)).expect("a file");
    for file in house.lies_in_folder() {
        assert!(text(&file).len() <= 4 * 25 * 2, "{file}");
    }
}

#[test]
fn a_channel_in_use_by_another_server_is_answered_so() {
    let house = House::new();
    let dev = name("dev");
    house.channels.make(&dev).expect("it is made");
    let config = &house.channels.shared.config;
    let (catch_up, _) = CatchUp::by_hand();
    let most = Most { count: 10, limit: None };
    let (second, _ended) = Channels::new(config, most, Arc::default(), catch_up, None);
    second.open_folder();
    is_refused(second.find(&dev), 503, "in use by another server");
    house.channels.find(&dev).expect("the first one serves it");
}

#[test]
fn all_hubs_end_when_the_server_stops_and_none_begins() {
    let house = House::new();
    for text in ["a", "b", "c"] {
        house.channels.make(&name(text)).expect("it is made");
    }
    assert_eq!(house.ended.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
    house.channels.stop(Instant::now() + PATIENCE);
    assert_eq!(house.ended.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    is_refused(house.channels.find(&name("a")).map(|_| panic!("it is open")), 503, "stopping");
    assert!(matches!(house.channels.make(&name("d")), Err(NoChannel::Stopping)));
    assert!(!house.file("d").exists());
}

#[test]
fn a_channel_that_was_being_opened_when_the_server_stops_is_in_no_trouble() {
    let house = House::new();
    house.channels.make(&name("a")).expect("it is made");
    house.channels.stop(Instant::now() + PATIENCE);
    assert_eq!(house.ended.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    let shared = &house.channels.shared;
    shared.lock().channels.insert(name("a"), Entry::opening());
    shared.open(&name("a"));
    let table = shared.lock();
    assert_eq!(table.channels[&name("a")].why, "the server is stopping");
}

#[test]
fn a_hub_that_hangs_keeps_no_busy_one_from_being_stopped() {
    let house = House::new();
    let shared = &house.channels.shared;
    let add = |text| {
        let (hub, commands) = command::queue(None);
        let summary = Arc::new(Summary::new(
            "e".into(),
            (0, 0),
            shared.notifier.clone(),
            shared.comings.clone(),
        ));
        let open = Open { hub: hub.clone(), summary };
        let entry = Entry { state: State::Open(open), ..Entry::opening() };
        shared.lock().channels.insert(name(text), entry);
        (hub, commands)
    };
    let (hangs, never_read) = add("a");
    let (busy, commands) = add("b");
    let (_idle, idle_commands) = add("c");
    // The queues of two are full.
    while hangs.survey() || busy.survey() {}
    let is_stopped = |commands: &Commands| {
        let deadline = Some(Instant::now() + PATIENCE);
        let next = || commands.wait(deadline).expect("it is told to stop");
        while !matches!(*next(), Command::Stop) {}
    };
    thread::scope(|scope| {
        scope.spawn(|| house.channels.stop(Instant::now() + 2 * PATIENCE));
        // The idle one is told after both were found busy.
        is_stopped(&idle_commands);
        is_stopped(&commands);
        drop(never_read);
    });
}

#[test]
fn a_folder_that_cannot_be_made_is_an_answer() {
    let house = House::new();
    // A file is where the folder should be.
    fs::write(house.file("x").parent().expect("a folder"), "").expect("a file");
    let refusal = house.channels.make(&name("dev")).expect_err("no").refusal(&name("dev"));
    assert_eq!(refusal.status, 500, "{}", refusal.sentence);
    assert!(refusal.sentence.contains("cannot be written"), "{}", refusal.sentence);
    is_refused(house.channels.find(&name("dev")), 404, "PUT");
}

#[test]
fn the_watch_takes_in_what_is_appended_put_there_and_taken_away() {
    let house = House::new();
    house.channels.make(&name("dev")).expect("it is made");
    let (_watching, stop) = bounded(0);
    house.channels.watch(house.dir.file(), stop).expect("a thread");
    let append = |file: &Path, text: &str| {
        let mut before = fs::read(file).unwrap_or_default();
        before.extend_from_slice(text.as_bytes());
        fs::write(file, before).expect("it can be written");
    };
    append(&house.file("dev"), "1\n2\n");
    append(&house.file("ops"), "3\n");
    until("both are seen", || {
        let far = |listed: &Listed| listed.figures.last_id;
        house.channels.list().iter().map(far).collect::<Vec<_>>() == [2, 1]
    });
    fs::remove_file(house.file("dev")).expect("a file");
    until("it is gone", || house.names() == ["ops"]);
}

#[test]
fn a_folder_that_cannot_be_looked_into_for_a_while_loses_no_channel() {
    let house = House::new();
    let dev = name("dev");
    house.channels.make(&dev).expect("it is made");
    let open = house.channels.find(&dev).expect("it is there");
    open.hub.store(None, None, b"1\n".to_vec(), None).expect("a hub").expect("room");
    let folder = house.file("x").parent().expect("a folder").to_owned();
    let aside = folder.with_file_name("aside");
    fs::rename(&folder, &aside).expect("it is moved");
    // The system does not say whether there is a file.
    symlink(&folder, &folder).expect("a link");
    assert!(open.hub.survey());
    until("its hub has ended", || house.channels.open().is_empty());
    Watch::default().look_at_folder(&house.channels.shared);
    fs::remove_file(&folder).expect("a link");
    fs::rename(&aside, &folder).expect("it is moved back");
    assert_eq!(said(&house.channels.find(&dev).expect("it is opened anew")), ["1"]);
}

#[test]
fn a_link_that_takes_the_place_of_a_file_is_refused_though_it_leads_to_it() {
    let house = House::new();
    let dev = name("dev");
    house.channels.make(&dev).expect("it is made");
    let (_watching, stop) = bounded(0);
    house.channels.watch(house.dir.file(), stop).expect("a thread");
    let elsewhere = house.dir.path().join("elsewhere");
    fs::rename(house.file("dev"), &elsewhere).expect("it is moved");
    symlink(&elsewhere, house.file("dev")).expect("a link");
    until("it is noticed", || house.channels.open().is_empty());
    until("it is seen in the folder", || {
        matches!(house.channels.find(&dev), Err(NoChannel::Unavailable(_)))
    });
    is_refused(house.channels.find(&dev), 503, "is a symbolic link");
}

#[test]
fn channels_are_back_with_a_folder_that_is_moved_away_and_back() {
    let house = House::new();
    let dev = name("dev");
    house.channels.make(&dev).expect("it is made");
    let open = house.channels.find(&dev).expect("it is there");
    let folder = house.file("x").parent().expect("a folder").to_owned();
    // The folder looks as if nothing has happened in it for a long time.
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    File::open(&folder).and_then(|file| file.set_modified(long_ago)).expect("it is ours");
    let mut watch = Watch::default();
    watch.look_at_folder(&house.channels.shared);
    let aside = folder.with_file_name("aside");
    fs::rename(&folder, &aside).expect("it is moved");
    assert!(open.hub.survey());
    until("it is forgotten", || house.names().is_empty());
    fs::rename(&aside, &folder).expect("it is moved back");
    until("it is back", || {
        watch.look_at_folder(&house.channels.shared);
        house.channels.find(&dev).is_ok()
    });
}
