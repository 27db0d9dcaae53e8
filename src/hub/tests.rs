use std::{collections::BTreeMap, io::Read, iter, thread};

use crossbeam_channel::{Receiver, bounded};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::{
    batch::{BATCH_BYTES, BATCH_COMMANDS},
    *,
};
use crate::{
    access::Permit,
    command::{
        ClientId, HubHandle, Joined, MOST_OPERATIONS, NextStep, PostedOperations, Reply, Stored,
        queue,
    },
    config::Fsync,
    history::{Resume, Snapshot, Window},
    operations::{Action, Operation, Standing},
    outbox::{ControlOutcome, Outbox},
    testing::{
        CLOSE, Dir, FaultySystem, Mishap, Peer, Seen, TEXT, frames_in, limit_file_size, pair,
        permit, permit_by,
    },
};

pub(super) const LIMIT: usize = 1000;
pub(super) const ROOMY: usize = 1 << 20;

/// A hub without a thread, fed by hand.
pub(super) struct House {
    pub(super) dir: Dir,
    /// The system under its journal.
    pub(super) system: FaultySystem,
    pub(super) hub: Hub,
    pub(super) handle: HubHandle,
    pub(super) commands: Commands,
    /// The clients that fell behind.
    pub(super) fell_behind: Receiver<Behind>,
}

/// A client of this hub, and its peer, which has what the client was sent.
pub(super) struct Guest {
    pub(super) id: ClientId,
    outbox: Arc<Outbox>,
    pub(super) peer: Peer,
}

impl House {
    pub(super) fn new(text: &str) -> House {
        let dir = Dir::new();
        dir.write(text);
        let (journal, history) = Journal::open(&dir.file(), Fsync::Never, LIMIT).expect("a file");
        let system = FaultySystem::new(&dir);
        let (handle, commands) = queue(None);
        let (catch_up, fell_behind) = CatchUp::by_hand();
        let summary = Arc::new(Summary::new("e".into(), (0, 0), Arc::default(), Arc::default()));
        let hub = Hub::new(
            journal.with_system(system.clone()).with_stamps(&history).expect("a file"),
            history,
            LIMIT,
            Arc::default(),
            catch_up,
            handle.downgrade(),
            summary,
        );
        House { dir, system, hub, handle, commands, fell_behind }
    }

    fn ask<Answer>(&mut self, command: impl FnOnce(oneshot::Sender<Answer>) -> Command) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.hub.step(iter::once(command(reply))).expect("the file is fine");
        answer.try_recv().expect("an answer")
    }

    /// A client that has joined, and is behind.
    pub(super) fn join(&mut self, send_buffer: usize) -> (Guest, Snapshot) {
        self.join_with(permit(), send_buffer)
    }

    /// The same for a client with this permit.
    fn join_with(&mut self, permit: Arc<Permit>, send_buffer: usize) -> (Guest, Snapshot) {
        self.join_on(pair(send_buffer), permit)
    }

    /// The same on this connection.
    fn join_on(
        &mut self,
        (socket, peer): (Socket, Peer),
        permit: Arc<Permit>,
    ) -> (Guest, Snapshot) {
        let outbox = Arc::new(Outbox::new(socket));
        let joined = self.ask(|reply| Command::Join {
            outbox: outbox.clone(),
            resume: Resume::default(),
            permit,
            reply,
        });
        (Guest { id: joined.client, outbox, peer }, joined.snapshot)
    }

    pub(super) fn catch_up(&mut self, guest: &Guest) -> NextStep {
        self.catch_up_from(guest, None)
    }

    /// The next step for a client that has been sent all messages before `next_id`.
    fn catch_up_from(&mut self, guest: &Guest, next_id: Option<u64>) -> NextStep {
        self.ask(|reply| Command::NextStep { client: guest.id, next_id, reply: reply.into() })
    }

    pub(super) fn live(&mut self) -> Guest {
        let (guest, _) = self.join(ROOMY);
        assert!(matches!(self.catch_up(&guest), NextStep::Live));
        guest
    }

    pub(super) fn say(&mut self, guest: &Guest, lines: &str) {
        self.handle.post(guest.id, None, lines.into(), None).expect("a hub");
        self.step();
    }

    pub(super) fn step(&mut self) {
        self.hub.step(self.commands.try_iter().map(|command| *command)).expect("the file is fine");
        self.hub.deliver(|| false);
    }

    /// Says something, and lets `turns` clients have their turn.
    fn say_to(&mut self, turns: usize, guest: &Guest, lines: &str) {
        self.handle.post(guest.id, None, lines.into(), None).expect("a hub");
        self.hub.step(self.commands.try_iter().map(|command| *command)).expect("the file is fine");
        self.serve(turns);
    }

    fn serve(&mut self, turns: usize) {
        (0..turns).for_each(|_| self.hub.deliver(|| true));
    }

    pub(super) fn tick(&mut self) {
        self.hub.tick().expect("the file is fine");
        self.hub.deliver(|| false);
    }

    /// The time and the sender of each message, as they are served.
    pub(super) fn stamps(&self) -> BTreeMap<u64, (Option<u64>, Option<String>)> {
        let mut stamps = self.hub.journal.stamps_from(1).expect("there are stamps").read();
        let mut known = |(id, _)| {
            let stamp = stamps.of(id);
            (id, (stamp.ts, stamp.from.map(str::to_owned)))
        };
        messages_of(&self.hub.history).into_iter().map(&mut known).collect()
    }

    /// The history that a server would find if it started on the file now.
    pub(super) fn reload(&self) -> History {
        let file = std::fs::File::open(self.dir.file()).expect("a file");
        History::load(Arc::new(file), self.dir.read().len() as u64, LIMIT).expect("it can be read")
    }
}

impl Guest {
    /// The ids and texts of the messages that the client heard since the last time.
    pub(super) fn hears(&mut self) -> Vec<(u64, String)> {
        self.frames().iter().map(|frame| heard(frame).0).collect()
    }

    fn frames(&mut self) -> Vec<Seen> {
        let frames = self.peer.frames();
        self.peer.bytes.clear();
        frames
    }
}

/// The id and text of a message, and its time.
fn heard(frame: &Seen) -> ((u64, String), u64) {
    assert_eq!(frame.first, TEXT);
    let text = std::str::from_utf8(&frame.payload).expect("UTF-8");
    let rest = text.strip_prefix(r#"{"type":"new_message","data":"#).expect(text);
    let (data, rest) = rest.rsplit_once(r#","id":"#).expect(text);
    let (id, ts) = rest.split_once(r#","ts":"#).expect(text);
    let ts = ts.strip_suffix('}').expect(text);
    let ts = ts.split_once(r#","from":"#).map_or(ts, |(ts, _)| ts);
    ((id.parse().expect(text), data.to_owned()), ts.parse().expect(text))
}

pub(super) fn messages_of(history: &History) -> Vec<(u64, String)> {
    let mut messages = history.window(&Window::default()).messages().expect("a file");
    let mut all = Vec::new();
    while let Some(message) = messages.next().expect("a file") {
        all.push((message.id, String::from_utf8(message.data.to_vec()).expect("UTF-8")));
    }
    all
}

pub(super) fn texts(messages: &[(u64, &str)]) -> Vec<(u64, String)> {
    messages.iter().map(|&(id, text)| (id, text.to_owned())).collect()
}

#[test]
fn all_clients_hear_a_message_once_it_is_in_the_file_and_the_speaker_too() {
    let mut house = House::new("1\n");
    let (mut ann, mut bob) = (house.live(), house.live());
    house.say(&ann, "\"a\"\n\"b\"\n");
    house.say(&bob, "{}\n");
    let expected = texts(&[(2, "\"a\""), (3, "\"b\""), (4, "{}")]);
    assert_eq!((ann.hears(), bob.hears()), (expected.clone(), expected));
    assert_eq!(house.dir.read(), b"1\n\"a\"\n\"b\"\n{}\n");
}

#[test]
fn posts_that_wait_are_one_batch_in_the_order_of_the_queue() {
    let mut house = House::new("");
    let (mut ann, bob) = (house.live(), house.live());
    for (guest, line) in [(&ann, "1\n"), (&bob, "2\n"), (&ann, "3\n")] {
        house.handle.post(guest.id, None, line.into(), None).unwrap();
    }
    house.step();
    assert_eq!(ann.hears(), texts(&[(1, "1"), (2, "2"), (3, "3")]));
}

#[test]
fn a_speaker_hears_its_message_before_the_other_clients_do() {
    let mut house = House::new("");
    let (mut ann, mut bob, mut eve) = (house.live(), house.live(), house.live());
    house.say_to(0, &bob, "1\n");
    assert_eq!((ann.hears().len(), bob.hears().len(), eve.hears().len()), (0, 1, 0));
    house.serve(1);
    assert_eq!((ann.hears().len(), bob.hears().len(), eve.hears().len()), (1, 0, 0));
    house.serve(2);
    assert_eq!((ann.hears().len(), bob.hears().len(), eve.hears().len()), (0, 0, 1));
}

#[test]
fn a_message_that_comes_during_a_round_joins_it() {
    let mut house = House::new("");
    let (mut ann, mut bob, mut eve) = (house.live(), house.live(), house.live());
    house.say_to(2, &ann, "1\n");
    assert_eq!((bob.hears(), eve.hears()), (texts(&[(1, "1")]), vec![]));
    house.say_to(1, &ann, "2\n");
    assert_eq!((bob.hears(), eve.hears()), (vec![], texts(&[(1, "1"), (2, "2")])));
    house.serve(2);
    assert_eq!((bob.hears(), eve.hears()), (texts(&[(2, "2")]), vec![]));
    assert_eq!(ann.hears(), texts(&[(1, "1"), (2, "2")]));
}

#[test]
fn a_client_that_joins_or_leaves_during_a_round_takes_no_other_clients_turn() {
    for (served, leaver) in (0..5).flat_map(|served| (0..5).map(move |leaver| (served, leaver))) {
        let mut house = House::new("");
        let mut guests: Vec<_> = (0..5).map(|_| house.live()).collect();
        // This lets the round begin with any client.
        house.say_to(served, &guests[0], "1\n");
        house.say_to(served, &guests[0], "2\n");
        house.handle.leave(guests.remove(leaver).id);
        house.hub.step(house.commands.try_iter().map(|command| *command)).unwrap();
        let mut late = house.live();
        house.step();
        for (at, guest) in guests.iter_mut().enumerate() {
            let expected = texts(&[(1, "1"), (2, "2")]);
            assert_eq!(guest.hears(), expected, "{at} of those left, {served} {leaver}");
        }
        house.say(&guests[0], "3\n");
        assert_eq!(late.hears(), texts(&[(3, "3")]), "{served} {leaver}");
    }
}

#[test]
fn a_client_that_lacks_much_is_served_before_more_is_taken_in() {
    const ROUND: usize = 256 << 10;
    let line = format!("\"{}\"\n", "x".repeat(LIMIT - 10));
    for (bytes, is_ended) in [(ROUND * 3 / 4, false), (ROUND, true)] {
        let mut house = House::new("");
        let (ann, mut bob) = (house.live(), house.live());
        let count = bytes / line.len();
        for _ in 0..count {
            house.say_to(0, &ann, &line);
        }
        // Ann has her turn, and Bob only if he lacks too much.
        house.serve(1);
        assert_eq!(bob.hears().len(), if is_ended { count } else { 0 });
        // Frames that all clients have are forgotten.
        house.step();
        house.say_to(1, &bob, "1\n");
        assert!(house.hub.fanout.bytes() < 100);
    }
}

#[test]
fn frames_that_all_clients_have_are_forgotten_while_the_round_goes_on() {
    const COUNT: u64 = 1000;
    let line = format!("\"{}\"\n", "x".repeat(LIMIT - 10));
    let mut house = House::new("");
    let mut guests = [house.live(), house.live(), house.live()];
    let mut heard = [0; 3];
    for said in 0..COUNT {
        // One turn is always missing until all clients have all messages.
        house.say_to(1, &guests[0], &line);
        assert!(house.hub.fanout.bytes() < 80 << 10, "after {said}");
        // A client joins and leaves, at any place of the round.
        if said % 7 == 0 {
            let passing = house.live();
            house.handle.leave(passing.id);
        }
        for (guest, heard) in guests.iter_mut().zip(&mut heard) {
            for (id, _) in guest.hears() {
                *heard += 1;
                assert_eq!(id, *heard);
            }
        }
    }
    house.step();
    for (guest, heard) in guests.iter_mut().zip(heard) {
        assert_eq!(guest.hears().len() as u64 + heard, COUNT);
    }
}

#[test]
fn a_batch_has_a_limit_and_further_commands_wait_for_the_next() {
    let mut house = House::new("");
    let ann = house.live();
    let post = |lines: &str| {
        let by = Speaker::Client(ann.id);
        Command::Post(Post::new(by, None, lines.into(), None))
    };
    let mut commands = (0..BATCH_COMMANDS + 5).map(|_| post("1\n"));
    house.hub.step(commands.by_ref()).unwrap();
    assert_eq!(commands.count(), 5);
    let line = format!("\"{}\"\n", "x".repeat(BATCH_BYTES / 2));
    let mut commands = (0..5).map(|_| post(&line));
    house.hub.step(commands.by_ref()).unwrap();
    assert_eq!(commands.count(), 3);
    // Short messages and operations cost more than their bytes.
    let many = "1\n".repeat(BATCH_BYTES / 32);
    let mut commands = (0..5).map(|_| post(&many));
    house.hub.step(commands.by_ref()).unwrap();
    assert_eq!(commands.count(), 3);
    let pins = || {
        let pin = Operation { target: 1, action: Action::Pin };
        let list = (0..MOST_OPERATIONS).map(|line| (line, pin.clone())).collect();
        let operations = PostedOperations::of(Standing::Admin, list);
        let lines = "{\"$op\":\"pin\",\"id\":1}\n".repeat(MOST_OPERATIONS);
        Command::Post(Post::new(Speaker::Client(ann.id), None, lines.into(), operations))
    };
    let mut commands = (0..5).map(|_| pins());
    house.hub.step(commands.by_ref()).unwrap();
    assert_eq!(commands.count(), 4);
}

#[test]
fn a_client_that_joins_has_every_message_in_the_history_or_live_and_none_twice() {
    let mut house = House::new("");
    let ann = house.live();
    // Bob joins in one batch with message 1.
    house.handle.post(ann.id, None, b"1\n".to_vec(), None).unwrap();
    let (mut bob, snapshot) = house.join_in_one_batch();
    assert_eq!(snapshot.stretch.last_id, 1);
    // More is said while the history is on its way to him.
    house.say(&ann, "2\n");
    house.say(&ann, "3\n");
    assert_eq!(bob.hears(), []);
    let NextStep::Stretch(stretch, stamps) = house.catch_up(&bob) else {
        panic!("message 2 is missing")
    };
    assert_eq!((stretch.first_id, stretch.last_id), (2, 3));
    assert!(stamps.read().of(2).ts.is_some());
    assert!(matches!(house.catch_up_from(&bob, Some(4)), NextStep::Live));
    house.say(&ann, "4\n");
    assert_eq!(bob.hears(), texts(&[(4, "4")]));
}

impl House {
    /// Asks what comes next for a client that was sent its history; returns what is told of whether it is
    /// live.
    fn caught_up(&self, guest: &Guest, next_id: u64) -> Receiver<bool> {
        let (tells, told) = bounded(1);
        let reply = Reply::new(move |next| {
            tells.send(matches!(next, Ok(NextStep::Live))).expect("heard");
        });
        self.handle.next_step_later(guest.id, Some(next_id), reply);
        told
    }
}

#[test]
fn a_client_that_was_sent_its_history_is_live_unless_it_lacks_what_came_meanwhile() {
    let mut house = House::new("");
    let ann = house.live();
    let (mut bob, _) = house.join(ROOMY);
    let is_live = house.caught_up(&bob, 1);
    // The batch has her message first, and he has it all the same.
    house.say(&ann, "1\n");
    assert_eq!(bob.hears(), texts(&[(1, "1")]));
    assert!(is_live.try_recv() == Ok(true) && !bob.outbox.is_behind());

    let (eve, _) = house.join(ROOMY);
    // The frames of the first are forgotten when the second is said.
    house.say(&ann, "2\n");
    house.say(&ann, "3\n");
    let is_live = house.caught_up(&eve, 2);
    house.step();
    assert!(is_live.try_recv() == Ok(false) && eve.outbox.is_behind(), "message 2 is missing");

    let (zoe, _) = house.join(ROOMY);
    assert_eq!(zoe.outbox.control(b"12"), ControlOutcome::Done, "it waits");
    let is_live = house.caught_up(&zoe, 4);
    house.step();
    assert!(is_live.try_recv() == Ok(false) && zoe.outbox.is_behind(), "a control frame waits");
    assert_eq!(house.hub.figures().clients_behind, 2);
}

impl House {
    fn join_in_one_batch(&mut self) -> (Guest, Snapshot) {
        let (socket, peer) = pair(ROOMY);
        let outbox = Arc::new(Outbox::new(socket));
        let (reply, answer) = oneshot::channel();
        let join = Command::Join {
            outbox: outbox.clone(),
            resume: Resume::default(),
            permit: permit(),
            reply,
        };
        self.hub
            .step(iter::once(join).chain(self.commands.try_iter().map(|command| *command)))
            .expect("the file is fine");
        let Joined { client, snapshot } = answer.try_recv().expect("an answer");
        (Guest { id: client, outbox, peer }, snapshot)
    }
}

#[test]
fn a_client_that_falls_behind_is_handed_over_once_with_its_cut_frame() {
    let mut house = House::new("");
    let ann = house.live();
    let (bob, _) = house.join(4096);
    assert!(matches!(house.catch_up(&bob), NextStep::Live));
    let long = format!("\"{}\"\n", "x".repeat(100_000));
    house.say(&ann, &format!("1\n{long}3\n"));
    house.say(&ann, "4\n");
    let fell_behind: Vec<_> = house.fell_behind.try_iter().collect();
    assert_eq!(fell_behind.iter().map(|behind| behind.client).collect::<Vec<_>>(), [bob.id]);
    assert!(fell_behind[0].cut.is_begun(), "message 2 is cut");
    assert_eq!((fell_behind[0].next_id, fell_behind[0].history.is_none()), (Some(3), true));
    assert!(bob.outbox.is_behind());
    assert_eq!((house.hub.figures().clients, house.hub.figures().clients_behind), (2, 1));
    let NextStep::Stretch(stretch, _) = house.catch_up_from(&bob, Some(3)) else {
        panic!("it lacks 3")
    };
    assert_eq!((stretch.first_id, stretch.last_id), (3, 4));
    // A control frame waits to be sent.
    assert_eq!(bob.outbox.control(b"12"), ControlOutcome::Done);
    assert!(matches!(house.catch_up_from(&bob, Some(5)), NextStep::ControlFrames));
    bob.outbox.take_waiting(&mut Vec::new());
    assert!(matches!(house.catch_up_from(&bob, Some(5)), NextStep::Live));
    assert_eq!(house.hub.figures().clients_behind, 0);
}

#[test]
fn a_client_whose_own_thread_found_the_socket_full_lacks_the_messages_since_then() {
    let mut house = House::new("");
    let ann = house.live();
    let (mut bob, _) = house.join(4096);
    assert!(matches!(house.catch_up(&bob), NextStep::Live));
    house.say(&ann, "1\n");
    assert!(matches!(bob.outbox.control(&[b'x'; 100_000]), ControlOutcome::SocketFull(_)));
    house.say(&ann, "2\n");
    house.say(&ann, "3\n");
    assert_eq!(house.fell_behind.try_iter().count(), 0, "its own thread hands it over");
    let NextStep::Stretch(stretch, _) = house.catch_up(&bob) else {
        panic!("message 2 is missing")
    };
    assert_eq!((stretch.first_id, stretch.last_id), (2, 3));
    bob.peer.read(usize::MAX);
    bob.peer.bytes.clear();
    assert!(matches!(house.catch_up_from(&bob, Some(4)), NextStep::Live));
    house.say(&ann, "4\n");
    assert_eq!(bob.hears(), texts(&[(4, "4")]));
}

#[test]
fn the_hub_ends_when_the_last_handle_is_dropped() {
    let mut house = House::new("");
    let ann = house.live();
    let (bob, _) = house.join(4096);
    assert!(matches!(house.catch_up(&bob), NextStep::Live));
    house.say(&ann, &format!("\"{}\"\n", "x".repeat(100_000)));
    let House { hub, handle, commands, fell_behind, .. } = house;
    // A client that is behind has a handle to ask with.
    let behind = fell_behind.try_recv().expect("bob is behind");
    drop(handle);
    thread::scope(|scope| {
        let hub = scope.spawn(|| hub.run(&commands, Role::Default));
        behind.hub.leave(bob.id);
        assert!(!hub.is_finished());
        drop(behind);
        assert!(hub.join().expect("no panic").is_ok());
    });
}

#[test]
fn a_client_that_left_hears_nothing_and_the_other_clients_go_on() {
    let mut house = House::new("");
    let (mut ann, mut bob, mut eve) = (house.live(), house.live(), house.live());
    house.handle.leave(bob.id);
    house.step();
    house.say(&eve, "1\n");
    assert_eq!((ann.hears().len(), bob.hears().len(), eve.hears().len()), (1, 0, 1));
    assert_eq!(house.hub.figures().clients, 2);
    // A client that the hub does not know gets no answer, and its thread ends.
    let (reply, answer) = oneshot::channel();
    let ask = Command::NextStep { client: bob.id, next_id: None, reply: reply.into() };
    house.hub.step(iter::once(ask)).unwrap();
    assert!(answer.recv().is_err());
}

#[test]
fn a_foreign_message_is_heard_in_its_place() {
    #[track_caller]
    fn check(foreign: &[&str], said: &str, expected: &[(u64, &str)]) {
        let mut house = House::new("");
        let mut ann = house.live();
        for bytes in foreign {
            house.dir.append(bytes);
            house.tick();
        }
        house.say(&ann, said);
        assert_eq!(ann.hears(), texts(expected), "{foreign:?}");
        assert_eq!(messages_of(&house.reload()), texts(expected), "{foreign:?}");
    }
    check(&["{\"cron\":1}\n"], "1\n", &[(1, "{\"cron\":1}"), (2, "1")]);
    check(&["junk\n", "\n", "[]\r\n"], "1\n", &[(3, "[]"), (4, "1")]);
    // A line comes in two parts.
    check(&["{\"cron\"", ":1}\n"], "1\n", &[(1, "{\"cron\":1}"), (2, "1")]);
    // A line has no end.
    check(&["{\"cron\":1}"], "1\n", &[(1, "{\"cron\":1}"), (2, "1")]);
    check(&["{\"cron\""], "1\n2\n", &[(2, "1"), (3, "2")]);
    // A byte order mark is left out at the very start of the file, and only there.
    check(&["\u{feff}{}\n\u{feff}{}\n"], "1\n", &[(1, "{}"), (3, "1")]);
    check(&["\u{feff}"], "1\n", &[(2, "1")]);
    // A line is too long for a message.
    let long = format!("\"{}\"\n", "x".repeat(LIMIT));
    check(&[&long], "1\n", &[(2, "1")]);
}

#[test]
fn many_foreign_lines_are_sent_in_parts_and_their_frames_forgotten() {
    let mut house = House::new("");
    let mut ann = house.live();
    let line = format!("\"{}\"\n", "x".repeat(LIMIT - 10));
    house.dir.append(line.repeat(4 * BATCH_BYTES / line.len()));
    house.hub.tick().unwrap();
    assert!(house.hub.fanout.bytes() < BATCH_BYTES + 2 * LIMIT);
    ann.peer.read(line.len());
    assert!(!ann.peer.bytes.is_empty(), "the first part has been sent");
}

#[test]
fn a_batch_that_finds_no_room_is_refused_to_its_speakers_alone() {
    let mut house = House::new("");
    let (mut ann, mut bob, mut eve) = (house.live(), house.live(), house.live());
    let filled = limit_file_size() - 8;
    let file = std::fs::OpenOptions::new().write(true).open(house.dir.file()).unwrap();
    file.set_len(filled - 2).unwrap();
    house.hub.history.push_hole(filled - 2);
    house.dir.append("7\n");
    house.handle.post(ann.id, None, b"\"one\"\n\"two\"\n".to_vec(), None).unwrap();
    house.handle.post(bob.id, None, b"\"three\"\n".to_vec(), None).unwrap();
    house.step();
    let refusals = |guest: &mut Guest| {
        let mut frames = guest.frames();
        // The foreign message is heard all the same.
        let news = frames.iter().position(|frame| frame.payload.starts_with(b"{\"type\":\"new"));
        assert_eq!(heard(&frames.remove(news.expect("message 2"))).0, (2, "7".to_owned()));
        let is_refusal = |frame: &Seen| {
            let json: Value = serde_json::from_slice(&frame.payload).expect("JSON");
            json["type"] == "error" && json["code"] == "storage_full"
        };
        assert!(frames.iter().all(is_refusal));
        frames.len()
    };
    assert_eq!((refusals(&mut ann), refusals(&mut bob), refusals(&mut eve)), (2, 1, 0));
    assert_eq!(file.metadata().unwrap().len(), filled);
    assert_eq!(house.hub.history.end(), filled);
    // The server goes on, and a client that joins gets the history.
    assert_eq!(house.join(ROOMY).1.stretch.last_id, 2);
}

#[test]
fn a_post_of_many_lines_is_refused_line_by_line_with_few_sends() {
    const LINES: usize = 1000;
    let mut house = House::new("");
    // Such a socket gives the peer what was sent at a time.
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).expect("a socket pair");
    ours.set_send_buffer_size(ROOMY).expect("a send buffer");
    theirs.set_nonblocking(true).expect("a non-blocking socket");
    let (ann, _) = house.join_on((ours, Peer { socket: theirs, bytes: Vec::new() }), permit());
    assert!(matches!(house.catch_up(&ann), NextStep::Live));
    house.system.plan(Mishap { takes: Some(0), ..Mishap::default() });
    house.say(&ann, &"1\n".repeat(LINES));
    let mut sends = Vec::new();
    let mut block = [0; 64 << 10];
    while let Ok(count @ 1..) = (&ann.peer.socket).read(&mut block) {
        sends.push(block[..count].to_vec());
    }
    let sentence = ErrorAnswer::StorageFull.sentence();
    let expected = ErrorAnswer::StorageFull.frame(sentence).repeat(LINES);
    assert!(sends.concat() == expected, "each line has its answer");
    assert!(sends.len() <= LINES / 10, "{} sends", sends.len());
}

#[test]
fn a_channel_whose_hub_panics_tells_its_clients_and_the_log_calls_it_a_bug() {
    let mut house = House::new("");
    let mut ann = house.live();
    // No piece at all is no next piece.
    let _applying = house.handle.apply_pieces(Vec::new()).expect("a hub");
    let House { dir: _dir, hub, commands, handle: _handle, .. } = house;
    let fatal = hub.run(&commands, Role::Channel).expect_err("it ends");
    let words = fatal.to_string();
    assert!(words.contains("which is a bug") && !words.contains("storage"), "{words}");
    assert_eq!(ann.frames().last().expect("a frame").first, CLOSE);
}

#[test]
fn no_message_is_shown_after_the_file_was_removed_or_cut() {
    let mut house = House::new("1\n");
    let mut ann = house.live();
    std::fs::remove_file(house.dir.file()).unwrap();
    house.handle.post(ann.id, None, b"2\n".to_vec(), None).unwrap();
    let failed = house.hub.step(house.commands.try_iter().map(|command| *command));
    assert!(matches!(failed, Err(Fatal::Changed(_))));
    assert_eq!(ann.hears(), []);
    assert_eq!(house.dir.beside("saved-"), [b"1\n"]);

    let mut house = House::new("1\n2\n");
    house.dir.write("1\n");
    assert!(matches!(house.hub.tick(), Err(Fatal::Changed(_))));
}

#[test]
fn all_clients_are_told_when_the_file_fails_and_the_hub_ends() {
    let mut house = House::new("1\n");
    let mut ann = house.live();
    std::fs::remove_file(house.dir.file()).unwrap();
    house.handle.post(ann.id, None, b"2\n".to_vec(), None).unwrap();
    assert!(house.hub.run(&house.commands, Role::Default).is_err());
    let frames = ann.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].first, &frames[0].payload[..2]), (CLOSE, &1011_u16.to_be_bytes()[..]));
}

#[test]
fn a_message_that_one_client_was_shown_is_sent_to_all_before_the_server_ends() {
    let mut house = House::new("");
    let (mut ann, mut bob) = (house.live(), house.live());
    house.say_to(0, &ann, "1\n");
    // A message that was not synced when the file failed is shown to no client.
    house.hub.fanout.push(b"2", 0, 2, 0, None);
    std::fs::remove_file(house.dir.file()).unwrap();
    house.handle.post(ann.id, None, b"2\n".to_vec(), None).unwrap();
    assert!(matches!(house.hub.run(&house.commands, Role::Default), Err(Fatal::Changed(_))));
    for guest in [&mut ann, &mut bob] {
        let frames = guest.frames();
        assert_eq!(frames.len(), 2);
        assert_eq!(heard(&frames[0]).0, (1, "1".to_owned()));
        assert_eq!(
            (frames[1].first, &frames[1].payload[..2]),
            (CLOSE, &1011_u16.to_be_bytes()[..])
        );
    }

    let mut house = House::new("");
    let (ann, mut bob) = (house.live(), house.live());
    house.say_to(0, &ann, "1\n");
    assert!(house.handle.stop(Instant::now()));
    house.hub.step(house.commands.try_iter().map(|command| *command)).unwrap();
    let frames = bob.frames();
    assert_eq!(frames.len(), 2);
    assert_eq!(heard(&frames[0]).0, (1, "1".to_owned()));
    assert_eq!((frames[1].first, &frames[1].payload[..2]), (CLOSE, &1012_u16.to_be_bytes()[..]));
}

#[test]
fn a_server_that_stops_refuses_posts_and_tells_their_speakers() {
    let mut house = House::new("");
    let (mut ann, mut bob) = (house.live(), house.live());
    // A post that came before the stop is taken, and one that came after it is not.
    house.handle.post(ann.id, None, b"1\n".to_vec(), None).unwrap();
    assert!(house.handle.stop(Instant::now()));
    house.handle.post(ann.id, None, b"\"late\"\n".to_vec(), None).unwrap();
    house.step();
    let come_back = 1012_u16.to_be_bytes();
    for guest in [&mut ann, &mut bob] {
        let frames = guest.frames();
        assert_eq!(frames.iter().map(|frame| frame.first).collect::<Vec<_>>(), [TEXT, CLOSE]);
        assert_eq!(heard(&frames[0]).0, (1, "1".to_owned()));
        assert_eq!(frames[1].payload[..2], come_back);
    }
    house.step();
    house.say(&bob, "2\n");
    assert_eq!(house.dir.read(), b"1\n");
    // A client that joins now gets the history and a close frame.
    let (eve, snapshot) = house.join(ROOMY);
    assert_eq!(snapshot.stretch.last_id, 1);
    let mut waiting = Vec::new();
    eve.outbox.take_waiting(&mut waiting);
    assert_eq!(frames_in(&waiting).0[0].payload[..2], come_back);
    // A request that posts now is answered.
    let (reply, answer) = oneshot::channel();
    let by = Speaker::Request { key: None, reply };
    house.hub.step(iter::once(Command::Post(Post::new(by, None, b"3\n".to_vec(), None)))).unwrap();
    assert_eq!(answer.recv(), Ok(Err(ErrorAnswer::ShuttingDown)));
}

#[test]
fn the_hub_ends_when_the_last_handle_is_gone_and_notes_how_far_the_numbering_came() {
    let mut house = House::new("");
    let ann = house.live();
    let House { dir, hub, handle, commands, .. } = house;
    handle.post(ann.id, None, b"1\n2\n".to_vec(), None).unwrap();
    drop(handle);
    hub.run(&commands, Role::Default).expect("a clean end");
    let record = dir.beside("lock").concat();
    assert!(String::from_utf8(record).unwrap().contains(" lines 2 bytes 4 "));
}

#[test]
fn time_never_goes_back_within_a_run() {
    let mut house = House::new("");
    let mut ann = house.live();
    house.say(&ann, "1\n");
    // The clock is set back by a few centuries.
    house.hub.last_ts += 10_000_000_000_000;
    let then = house.hub.last_ts;
    house.say(&ann, "2\n");
    house.dir.append("3\n");
    house.tick();
    let times: Vec<_> = ann.frames().iter().map(|frame| heard(frame).1).collect();
    assert!(times[0] < then);
    assert_eq!(times[1..], [then, then]);
}

#[test]
fn a_request_gets_the_ids_of_its_lines_in_the_file() {
    let mut house = House::new("1\n");
    let ann = house.live();
    house.dir.append("foreign\n");
    let (reply, answer) = oneshot::channel();
    house.handle.post(ann.id, None, b"3\n4\n".to_vec(), None).unwrap();
    let by = Speaker::Request { key: None, reply };
    let lines = b"5\n6\n".to_vec();
    let post = Command::Post(Post::new(by, None, lines, None));
    house.hub.step(house.commands.try_iter().map(|command| *command).chain([post])).unwrap();
    assert_eq!(answer.try_recv(), Ok(Ok(Stored { first_id: 5, last_id: 6 })));
    assert_eq!(house.dir.read(), b"1\nforeign\n3\n4\n5\n6\n");
}

#[test]
fn posts_with_the_same_key_are_stored_once_and_answered_alike() {
    let mut house = House::new("");
    let mut ask = |keys: &[&str]| {
        let (posts, answers): (Vec<_>, Vec<_>) = keys
            .iter()
            .map(|key| {
                let (reply, answer) = oneshot::channel();
                let by = Speaker::Request { key: Some((*key).to_owned()), reply };
                (Command::Post(Post::new(by, None, b"1\n".to_vec(), None)), answer)
            })
            .unzip();
        house.hub.step(posts.into_iter()).unwrap();
        let id =
            |answer: oneshot::Receiver<Result<Stored, _>>| answer.recv().unwrap().unwrap().first_id;
        answers.into_iter().map(id).collect::<Vec<_>>()
    };
    assert_eq!(ask(&["a", "b", "a"]), [1, 2, 1]);
    assert_eq!(ask(&["b", "c"]), [2, 3]);
    let mut many: Vec<String> = (0..keys::KEYS).map(|key| key.to_string()).collect();
    many.push("c".to_owned());
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for keys in many.chunks(BATCH_COMMANDS) {
        ask(keys);
    }
    // The oldest key has been forgotten.
    assert_eq!(ask(&["a"]), [3 + many.len() as u64 + 1]);
}

#[test]
fn a_client_that_catches_up_becomes_live_even_when_every_batch_brings_more() {
    let mut house = House::new("1\n");
    let mut ann = house.live();
    let (mut bob, _) = house.join(ROOMY);
    for turn in 0..3 {
        let (reply, answer) = oneshot::channel();
        let ask = Command::NextStep { client: bob.id, next_id: None, reply: reply.into() };
        let post = Post::new(Speaker::Client(ann.id), None, b"\"more\"\n".to_vec(), None);
        house.hub.step([ask, Command::Post(post)].into_iter()).expect("the file is fine");
        match answer.try_recv() {
            Ok(NextStep::Live) => break,
            other => assert!(turn < 2, "still behind after {turn} turns: {other:?}"),
        }
    }
    assert_eq!(bob.hears(), [(2, "\"more\"".to_owned())]);
    house.say(&ann, "\"again\"\n");
    assert_eq!(bob.hears(), [(3, "\"again\"".to_owned())]);
    assert_eq!(ann.hears().len(), 2);
}

/// Joins a client that may read and post by an access file, then takes the right to read back.
fn join_and_lose_the_right_to_read(house: &mut House, rules: &Dir, send_buffer: usize) -> Guest {
    rules.write("* - messages read,post\n");
    let permit = permit_by(&["--access", rules.file().to_str().expect("UTF-8")]);
    let guest = house.join_with(permit.clone(), send_buffer).0;
    rules.write("* - messages post\n");
    permit.access().read_again().expect("it makes sense");
    guest
}

#[test]
fn a_client_that_lost_the_right_to_read_is_found_at_the_next_tick_even_if_the_hub_was_not_told() {
    let (mut house, rules) = (House::new("1\n"), Dir::new());
    let mut guest = join_and_lose_the_right_to_read(&mut house, &rules, ROOMY);
    assert!(matches!(house.catch_up(&guest), NextStep::Live));
    assert_eq!(guest.frames(), []);
    house.tick();
    let frames = guest.frames();
    assert_eq!((frames.len(), frames[0].first), (1, CLOSE));
    assert_eq!(frames[0].payload[..2], 1008_u16.to_be_bytes());
    house.tick();
    assert_eq!(guest.frames(), [], "it is told once");
}

#[test]
fn a_client_that_cannot_be_sent_the_close_frame_is_cut_off() {
    let (mut house, rules) = (House::new("1\n"), Dir::new());
    let guest = join_and_lose_the_right_to_read(&mut house, &rules, ROOMY);
    let begun = Instant::now();
    house.hub.fanout.dismiss_those_who_may_not_read(begun);
    house.hub.fanout.end_dismissed(begun + Duration::from_millis(499));
    assert!(!guest.outbox.is_closed(), "it is behind, and may end its frame");
    house.hub.fanout.end_dismissed(begun + Duration::from_millis(500));
    assert!(guest.outbox.is_closed());
}

#[test]
fn a_client_whose_right_to_read_was_taken_back_before_it_joined_is_closed_at_once() {
    let mut house = House::new("1\n");
    let rules = Dir::new();
    rules.write("* - messages read\n");
    let permit = permit_by(&["--access", rules.file().to_str().expect("UTF-8")]);
    rules.write("* - messages post\n");
    permit.access().read_again().expect("it makes sense");
    // The hub looked who may read before the client came.
    house.handle.check_rights();
    house.step();
    let guest = house.join_with(permit, ROOMY).0;
    assert!(matches!(house.catch_up(&guest), NextStep::ControlFrames));
    let mut waiting = Vec::new();
    guest.outbox.take_waiting(&mut waiting);
    assert_eq!(frames_in(&waiting).0[0].payload[..2], 1008_u16.to_be_bytes());
}
