use std::{
    collections::{BTreeMap, HashMap},
    iter,
    ops::Range,
    sync::Mutex,
};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    config::Fsync,
    history::Resume,
    hub::{Command, Hub, Joined, queue},
    journal::Journal,
    message::{self, Frames, Refusal, on_line},
    testing::{CLOSE, Dir, Peer, Seen, TEXT, frame_of, frames_in, pair, tries},
};

/// What may happen in a chat.
#[derive(Clone, Debug)]
enum Event {
    Join {
        send_buffer: usize,
        after: Option<u64>,
        limit: Option<u64>,
    },
    Post {
        sizes: Vec<usize>,
    },
    Foreign {
        bytes: &'static str,
    },
    /// An error answer to one client; a long one only when it is live.
    Control {
        who: usize,
        size: usize,
    },
    /// One client reads a little.
    Read {
        who: usize,
        bytes: usize,
    },
    /// One client reads until it is live.
    Settle {
        who: usize,
    },
    /// One client that is behind is sent what its socket takes.
    Start {
        who: usize,
    },
    /// The same, but stopping after one send and one look at what comes next.
    Step {
        who: usize,
    },
    Leave {
        who: usize,
    },
    /// The hub serves so many in turn.
    Serve {
        turns: usize,
    },
    Tick,
}

fn event() -> impl Strategy<Value = Event> {
    let who = 0..4usize;
    let size = prop_oneof![6 => 0..300usize, 3 => 0..9_000usize, 1 => 0..70_000usize];
    let read = prop_oneof![3 => 1..3_000usize, 2 => 1..30_000usize, 1 => Just(1 << 20)];
    let after = prop::option::weighted(0.4, 0..12u64);
    let limit = prop::option::weighted(0.3, 0..9u64);
    prop_oneof![
        3 => (prop::sample::select(vec![4096usize, 16_384, 300_000]), after, limit)
            .prop_map(|(send_buffer, after, limit)| Event::Join { send_buffer, after, limit }),
        8 => prop::collection::vec(size, 1..6).prop_map(|sizes| Event::Post { sizes }),
        2 => prop::sample::select(vec!["{\"cron\":1}\n", "junk\n", "\n", "{\"cr", "on\":2}\n", " 7 \r\n"])
            .prop_map(|bytes| Event::Foreign { bytes }),
        3 => (who.clone(), prop_oneof![Just(0), 0..9_000usize])
            .prop_map(|(who, size)| Event::Control { who, size }),
        8 => (who.clone(), read).prop_map(|(who, bytes)| Event::Read { who, bytes }),
        5 => who.clone().prop_map(|who| Event::Settle { who }),
        6 => who.clone().prop_map(|who| Event::Start { who }),
        10 => who.clone().prop_map(|who| Event::Step { who }),
        1 => who.prop_map(|who| Event::Leave { who }),
        8 => (1..6usize).prop_map(|turns| Event::Serve { turns }),
        1 => Just(Event::Tick),
    ]
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Quiet,
    Stop,
}

/// One client, and what it is owed.
struct Party {
    client: ClientId,
    reach: Reach,
    peer: Peer,
    catch_up: Option<CatchUp>,
    /// The lines that its history frame is to hold.
    history: (u64, u64),
    /// The control frames it was sent, in order.
    controls: Vec<Vec<u8>>,
    left: bool,
}

/// Takes one step of a catch-up on a thread of its own, since it waits for the hub.
type Job = (CatchUp, fn(CatchUp) -> Start);

/// A chat whose hub and catch-ups are driven by hand, each step in the order that the test says.
struct Chat {
    dir: Dir,
    hub: Hub,
    handle: HubHandle,
    commands: Receiver<Command>,
    parties: Vec<Party>,
    /// Whose socket was found full since the last look.
    full: Arc<Mutex<Vec<ClientId>>>,
    jobs: Sender<Job>,
    done: Receiver<Start>,
    said: usize,
    /// What happens while the hub is asked the next time.
    meanwhile: Vec<Event>,
}

impl Chat {
    fn new(text: &str) -> Chat {
        let dir = Dir::new();
        dir.write(text);
        let (journal, history) =
            Journal::open(&dir.file(), Fsync::Never, 1 << 20).expect("a file of our own");
        let (handle, commands) = queue();
        let (jobs, todo) = bounded::<Job>(0);
        let (finished, done) = bounded(0);
        thread::spawn(move || {
            todo.iter().try_for_each(|(catch_up, step)| finished.send(step(catch_up)))
        });
        Chat {
            dir,
            hub: Hub::new(journal, history, 1 << 20),
            handle,
            commands,
            parties: Vec::new(),
            full: Arc::default(),
            jobs,
            done,
            said: 0,
            meanwhile: Vec::new(),
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Settle { who } => self.settle(who..who + 1),
            Event::Start { who } => self.catch_up(who, CatchUp::start),
            Event::Step { who } => self.catch_up(who, step),
            Event::Join { send_buffer, after, limit } if self.parties.len() < 4 => {
                self.join(send_buffer, after, limit);
            }
            Event::Serve { turns } => {
                (0..turns).for_each(|_| self.hub.deliver(|| true));
            }
            Event::Tick => self.hub.tick().expect("the file is fine"),
            event => {
                self.small(event);
                self.hub.turn(self.commands.try_iter()).expect("the file is fine");
            }
        }
        self.note_who_is_full();
    }

    /// What can happen at any time, whatever the hub is about to do.
    fn small(&mut self, event: Event) {
        match event {
            Event::Post { sizes } => {
                let mut lines = Vec::new();
                for size in sizes {
                    self.said += 1;
                    let text = format!(r#"{{"n":{},"c":"{}"}}"#, self.said, "x".repeat(size));
                    message::push_line(&text, &mut lines).expect("it is JSON");
                }
                let client = self.parties.first().map(|party| party.client);
                if let Some(client) = client {
                    self.handle.post(client, lines).expect("there is a hub");
                }
            }
            Event::Foreign { bytes } => self.dir.append(bytes),
            Event::Control { who, size } => {
                let said = self.said;
                let Some(party) = self.parties.get_mut(who) else { return };
                // So that no answer is dropped because too many wait.
                let size = if party.reach.outbox.is_behind() { 0 } else { size };
                let words = format!("{said}-{}{}", party.controls.len(), "z".repeat(size));
                let frame = Refusal::NotJson.frame(&words);
                party.controls.push(frame.clone());
                if party.reach.outbox.control(&frame) == crate::outbox::Control::Full {
                    self.full.lock().unwrap().push(party.client);
                }
            }
            Event::Read { who, bytes } => {
                if let Some(party) = self.parties.get_mut(who) {
                    party.peer.read(bytes);
                }
            }
            Event::Leave { who } => {
                // The first one goes on talking.
                if who > 0
                    && let Some(party) = self.parties.get_mut(who)
                {
                    party.left = true;
                    self.handle.leave(party.client);
                }
            }
            Event::Join { .. }
            | Event::Settle { .. }
            | Event::Start { .. }
            | Event::Step { .. }
            | Event::Serve { .. }
            | Event::Tick => {}
        }
    }

    fn join(&mut self, send_buffer: usize, after: Option<u64>, limit: Option<u64>) {
        let (socket, peer) = pair(send_buffer);
        let outbox = Arc::new(Outbox::new(socket));
        let (reply, answer) = bounded(1);
        let full = self.full.clone();
        let join = Command::Join {
            outbox: outbox.clone(),
            start_catch_up: Box::new(move |client| {
                full.lock().unwrap().push(client);
                Ok(())
            }),
            resume: Resume { after, epoch: None, limit },
            reply,
        };
        self.hub.turn(iter::once(join)).expect("the file is fine");
        let Joined { client, snapshot } = answer.recv().expect("an answer");
        let reach = Reach {
            outbox,
            hub: self.handle.clone(),
            metrics: Arc::default(),
            stall_timeout: Duration::ZERO,
            number: 0,
        };
        let history = (snapshot.range.first_id, snapshot.range.last_id);
        let head = b"HTTP/1.1 101 \r\n\r\n".to_vec();
        let catch_up = CatchUp::joining(reach.clone(), client, head, snapshot);
        let catch_up = Some(catch_up.expect("the file can be read"));
        let controls = Vec::new();
        self.parties.push(Party { client, reach, peer, catch_up, history, controls, left: false });
    }

    fn catch_up(&mut self, who: usize, step: fn(CatchUp) -> Start) {
        let Some(party) = self.parties.get_mut(who) else { return };
        let Some(catch_up) = party.catch_up.take() else { return };
        self.jobs.send((catch_up, step)).expect("the helper is there");
        loop {
            select! {
                recv(self.commands) -> command => {
                    let command = command.expect("handles are left");
                    for event in std::mem::take(&mut self.meanwhile) {
                        self.small(event);
                    }
                    let waiting = iter::once(command).chain(self.commands.try_iter());
                    self.hub.turn(waiting).expect("the file is fine");
                }
                recv(self.done) -> start => {
                    if let Start::Full(catch_up) = start.expect("the helper is there") {
                        self.parties[who].catch_up = Some(catch_up);
                    }
                    return;
                }
            }
        }
    }

    /// As a server would, with a thread.
    fn note_who_is_full(&mut self) {
        let full = std::mem::take(&mut *self.full.lock().unwrap());
        for client in full {
            let party = self.parties.iter_mut().find(|party| party.client == client);
            let party = party.expect("a client of ours");
            assert!(party.catch_up.is_none(), "two at a time would write to one socket");
            party.catch_up = Some(CatchUp::new(party.reach.clone(), client));
        }
    }

    /// These clients read until there is nothing more to come.
    fn settle(&mut self, who: Range<usize>) {
        let who = who.start..who.end.min(self.parties.len());
        for _ in 0..10_000 {
            for who in who.clone() {
                self.parties[who].peer.read(usize::MAX);
                self.catch_up(who, CatchUp::start);
            }
            self.note_who_is_full();
            let mut parties = self.parties.iter_mut().take(who.end).skip(who.start);
            if parties.all(|party| party.catch_up.is_none()) {
                return;
            }
        }
        panic!("somebody never caught up");
    }

    /// The messages of the file as it is now, by their line numbers.
    fn messages(&self) -> BTreeMap<u64, Vec<u8>> {
        let file = self.dir.read();
        let lines = file.split_inclusive(|&byte| byte == b'\n');
        let text = |line: &[u8]| Some(on_line(line.strip_suffix(b"\n")?)?.to_vec());
        (1..).zip(lines).filter_map(|(id, line)| Some((id, text(line)?))).collect()
    }
}

/// One send and one refill, so that everything can happen in between.
fn step(mut catch_up: CatchUp) -> Start {
    let sent = catch_up.reach.outbox.send_now(&catch_up.buffer[catch_up.sent..]);
    catch_up.sent += sent.expect("the peer is there");
    if catch_up.sent == catch_up.buffer.len() && catch_up.refill() == Refilled::Ended {
        return Start::Done;
    }
    Start::Full(catch_up)
}

/// What must have become of one party's stream, byte by byte; returns the times it was told.
fn check(party: &Party, messages: &BTreeMap<u64, Vec<u8>>, end: End) -> HashMap<u64, u64> {
    let bytes = party.peer.bytes.strip_prefix(b"HTTP/1.1 101 \r\n\r\n").expect("the handshake");
    let (mut frames, rest) = frames_in(bytes);
    assert_eq!(rest, 0, "all that leaves is part of a whole frame");

    let history: Value = serde_json::from_slice(&frames.remove(0).payload).expect("JSON");
    let (first_id, last_id) = party.history;
    assert_eq!((&history["first_id"], &history["last_id"]), (&first_id.into(), &last_id.into()));
    let held = messages.range(first_id..=last_id.max(first_id)).filter(|(id, _)| **id <= last_id);
    let held = held.map(|(_, text)| serde_json::from_slice(text).expect("JSON"));
    assert_eq!(history["data"], Value::Array(held.collect()));

    if end == End::Stop && !party.left {
        let close = frames.pop().expect("a close frame");
        assert_eq!((close.first, &close.payload[..2]), (CLOSE, &1012_u16.to_be_bytes()[..]));
        assert!(party.reach.outbox.is_closed());
    }
    let (answers, live): (Vec<Seen>, Vec<Seen>) =
        frames.into_iter().partition(|frame| frame.payload.starts_with(b"{\"type\":\"error\""));
    let answers: Vec<_> = answers.iter().map(|frame| frame_of(TEXT, &frame.payload)).collect();
    let mut times = HashMap::new();
    let mut expected = messages.range(last_id + 1..);
    for frame in &live {
        let (id, data) = expected.next().expect("a message of the file");
        let head = [br#"{"type":"new_message","data":"#, &data[..]].concat();
        let tail = frame.payload.strip_prefix(&head[..]).expect("each message once, in order");
        let tail = std::str::from_utf8(tail).expect("ASCII");
        let ts = tail.strip_prefix(&format!(r#","id":{id},"ts":"#)).expect(tail);
        times.insert(*id, ts.strip_suffix('}').expect(tail).parse().expect(tail));
    }
    if end == End::Quiet && !party.left {
        assert_eq!(expected.next(), None, "nobody misses anything");
        assert!(answers == party.controls, "every answer, in order");
        assert!(!party.reach.outbox.is_behind(), "everybody is live in the end");
    } else {
        assert!(party.controls.starts_with(&answers));
    }
    times
}

proptest! {
    #![proptest_config(tries(96))]

    /// Whoever reads, however slowly, has each message exactly once and in order, from its history
    /// frame on, and every byte is part of a whole frame.
    #[test]
    fn a_slow_client_misses_nothing_and_hears_nothing_twice(
        first in prop_oneof![
            2 => prop::collection::vec(0..20_000usize, 0..8),
            // A history of several blocks.
            1 => prop::collection::vec(60_000..120_000usize, 3..6),
        ],
        events in prop::collection::vec((event(), prop::collection::vec(event(), 0..3)), 10..60),
        end in prop_oneof![3 => Just(End::Quiet), 1 => Just(End::Stop)],
    ) {
        let lines = first.iter().map(|size| format!("\"{}\"\n", "y".repeat(*size)));
        let mut chat = Chat::new(&lines.collect::<Vec<_>>().join("\n"));
        chat.happens(Event::Join { send_buffer: 4096, after: None, limit: None });
        for (event, meanwhile) in events {
            chat.meanwhile = meanwhile;
            chat.happens(event);
        }
        chat.meanwhile.clear();
        // Whatever others left without an end gets one, and is heard.
        chat.happens(Event::Foreign { bytes: "\n" });
        chat.happens(Event::Tick);
        chat.hub.deliver(|| false);
        chat.note_who_is_full();
        if end == End::Stop {
            chat.handle.stop();
            chat.hub.turn(chat.commands.try_iter()).expect("the file is fine");
            chat.note_who_is_full();
        }
        chat.settle(0..4);
        chat.parties.iter_mut().for_each(|party| party.peer.read(usize::MAX));

        let messages = chat.messages();
        let mut times = HashMap::new();
        for party in &chat.parties {
            for (id, ts) in check(party, &messages, end) {
                prop_assert_eq!(*times.entry(id).or_insert(ts), ts, "one time for everybody");
            }
        }
        let mut by_id: Vec<_> = times.into_iter().collect();
        by_id.sort_unstable();
        prop_assert!(by_id.is_sorted_by_key(|(_, ts)| *ts), "time never goes back");
    }
}

/// A client in the middle of a frame whose thread finds that it takes nothing.
fn stalled() -> (CatchUp, Peer) {
    let (socket, peer) = pair(4096);
    let outbox = Arc::new(Outbox::new(socket));
    assert!(outbox.go_live());
    let mut frames = Frames::default();
    frames.push(&[b'1'; 100_000], 1, None);
    outbox.offer(&frames, 0);
    let reach = Reach {
        outbox,
        hub: queue().0,
        metrics: Arc::default(),
        stall_timeout: Duration::ZERO,
        number: 0,
    };
    (CatchUp::new(reach, Chat::new("").some_client()), peer)
}

impl Chat {
    fn some_client(&mut self) -> ClientId {
        self.join(4096, None, None);
        self.parties[0].client
    }
}

#[test]
fn a_client_that_stalls_within_a_frame_is_closed_without_a_word() {
    // With the rest of a frame that was cut before.
    let (mut catch_up, mut peer) = stalled();
    assert_eq!(catch_up.refill(), Refilled::More);
    peer.read(usize::MAX);
    let before = peer.bytes.len();
    catch_up.give_up(0);
    peer.read(usize::MAX);
    assert_eq!(peer.bytes.len(), before, "a close frame within a frame is none");

    // With a frame that was begun before the thread took over.
    let (mut catch_up, mut peer) = stalled();
    catch_up.reach.outbox.take_waiting(&mut Vec::new());
    peer.read(usize::MAX);
    catch_up.buffer = frame_of(TEXT, &[b'2'; 100_000]);
    let Start::Full(catch_up) = catch_up.start() else { panic!("it does not fit") };
    peer.read(usize::MAX);
    let before = peer.bytes.len();
    catch_up.give_up(0);
    peer.read(usize::MAX);
    assert_eq!(peer.bytes.len(), before, "a close frame within a frame is none");
}

#[test]
fn a_client_that_stalls_between_frames_is_told_to_come_back() {
    let (mut catch_up, mut peer) = stalled();
    catch_up.reach.outbox.take_waiting(&mut Vec::new());
    peer.read(usize::MAX);
    let before = peer.bytes.len();
    let mut frames = Frames::default();
    frames.push(b"2", 2, None);
    catch_up.buffer = frames.bytes().to_vec();
    let dir = Dir::new();
    dir.write("1\n");
    let (_journal, history) = Journal::open(&dir.file(), Fsync::Never, 1 << 20).unwrap();
    let live = LiveFrames::new(history.round(1), Default::default()).unwrap();
    catch_up.source = Source::Live(Box::new(live));
    catch_up.give_up(0);
    peer.read(usize::MAX);
    let (frames, rest) = frames_in(&peer.bytes[before..]);
    assert_eq!((frames.len(), rest), (1, 0));
    assert_eq!((frames[0].first, &frames[0].payload[..2]), (CLOSE, &1013_u16.to_be_bytes()[..]));
    assert!(catch_up.reach.outbox.is_closed());
}

#[test]
fn a_client_that_is_gone_while_it_catches_up_is_let_go() {
    let mut chat = Chat::new("1\n");
    chat.join(4096, None, None);
    let party = &mut chat.parties[0];
    let (_, nobody) = pair(4096);
    party.peer = nobody;
    let catch_up = party.catch_up.take().expect("it has just joined");
    assert!(matches!(catch_up.start(), Start::Done));
    assert!(chat.parties[0].reach.outbox.is_closed());
}
