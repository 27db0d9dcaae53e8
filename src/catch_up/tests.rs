use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    iter,
    net::{Ipv4Addr, TcpListener, TcpStream},
    ops::Range,
};

use crossbeam_channel::{Receiver, bounded};
use proptest::prelude::*;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::*;
use crate::{
    command::{Command, Commands, Joined, queue},
    config::Fsync,
    history::{Resume, Snapshot},
    hub::Hub,
    journal::Journal,
    message::{self, on_line},
    outbox::{ControlOutcome, Offered},
    summary::Summary,
    testing::{CLOSE, Dir, Peer, Seen, TEXT, frame_of, frames_in, pair, permit, tries},
    unsent::UNSENT,
    wire::{ErrorAnswer, Frames, HistoryForm},
};

fn form() -> impl Strategy<Value = HistoryForm> {
    prop::sample::select(vec![HistoryForm::OneFrame, HistoryForm::Each])
}

/// What may happen in a chat.
#[derive(Clone, Debug)]
enum Event {
    Join {
        send_buffer: usize,
        after: Option<u64>,
        limit: Option<u64>,
        form: HistoryForm,
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
    /// The same, but the step ends when the socket has taken the first bytes.
    Step {
        who: usize,
    },
    Leave {
        who: usize,
    },
    /// So many clients have their turn.
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
        3 => (prop::sample::select(vec![4096usize, 16_384, 300_000]), after, limit, form()).prop_map(
            |(send_buffer, after, limit, form)| Event::Join { send_buffer, after, limit, form }
        ),
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

/// How a chat ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Quiet,
    Stop,
}

/// One client, and what it must be sent.
struct Party {
    client: ClientId,
    outbox: Arc<Outbox>,
    peer: Peer,
    cursor: Option<Cursor>,
    /// The lines that its history is to hold.
    history: (u64, u64),
    form: HistoryForm,
    /// The control frames it was sent, in order.
    controls: Vec<Vec<u8>>,
    left: bool,
}

/// More than any client here is sent.
const ALL: usize = usize::MAX;

/// How long anything may take before a test gives it up.
const PATIENCE: Duration = Duration::from_secs(180);

/// A chat whose hub and cursors make their steps in the order that the test says.
struct Chat {
    dir: Dir,
    hub: Hub,
    handle: HubHandle,
    commands: Commands,
    parties: Vec<Party>,
    /// The clients that fell behind since the last look.
    fell_behind: Receiver<Behind>,
    catch_up: CatchUp,
    buffers: Buffers,
    said: usize,
    /// The events that happen while a cursor asks the hub the next time.
    meanwhile: Vec<Event>,
}

impl Chat {
    fn new(text: &str) -> Chat {
        let dir = Dir::new();
        dir.write(text);
        let (journal, history) =
            Journal::open(&dir.file(), Fsync::Never, 1 << 20).expect("a file of our own");
        let journal = journal.with_stamps(&history).expect("a file of our own");
        let (handle, commands) = queue(None);
        let (catch_up, fell_behind) = CatchUp::by_hand();
        let (up, weak) = (catch_up.clone(), handle.downgrade());
        let summary = Arc::new(Summary::new("e".into(), (0, 0), Arc::default(), Arc::default()));
        Chat {
            dir,
            hub: Hub::new(journal, history, 1 << 20, Arc::default(), up, weak, summary),
            handle,
            commands,
            parties: Vec::new(),
            fell_behind,
            catch_up,
            buffers: Buffers::new(Arc::default()),
            said: 0,
            meanwhile: Vec::new(),
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Settle { who } => self.settle(who..who + 1),
            Event::Start { who } => self.go_on(who, ALL),
            Event::Step { who } => self.go_on(who, 1),
            Event::Join { send_buffer, after, limit, form } if self.parties.len() < 4 => {
                self.join(send_buffer, after, limit, form);
            }
            Event::Serve { turns } => {
                (0..turns).for_each(|_| self.hub.deliver(|| true));
            }
            Event::Tick => self.hub.tick().expect("the file is fine"),
            event => {
                self.small(event);
                self.serve_commands();
            }
        }
        self.take_over_clients_that_fell_behind();
    }

    /// Lets an event happen that can happen at any time, whatever the hub is about to do.
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
                    let sender = self.said.is_multiple_of(2).then(|| "Ann \"é\"~k3v9".into());
                    self.handle.post(client, sender, lines, None).expect("there is a hub");
                }
            }
            Event::Foreign { bytes } => self.dir.append(bytes),
            Event::Control { who, size } => {
                let said = self.said;
                let Some(party) = self.parties.get_mut(who) else { return };
                // A long answer would be dropped if too many wait.
                let size = if party.outbox.is_behind() { 0 } else { size };
                let words = format!("{said}-{}{}", party.controls.len(), "z".repeat(size));
                let frame = ErrorAnswer::NotJson.frame(&words);
                party.controls.push(frame.clone());
                if let ControlOutcome::SocketFull(cut) = party.outbox.control(&frame) {
                    let (client, outbox) = (party.client, party.outbox.clone());
                    self.hand_over(Behind { cut, ..self.behind(client, outbox) });
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

    fn join(
        &mut self,
        send_buffer: usize,
        after: Option<u64>,
        limit: Option<u64>,
        form: HistoryForm,
    ) {
        let resume = Resume { after, limit, ..Resume::default() };
        let (behind, snapshot, peer) = self.newcomer(send_buffer, resume);
        let (client, outbox) = (behind.client, behind.outbox.clone());
        let history = (snapshot.stretch.first_id, snapshot.stretch.last_id);
        let mut behind = Behind { cut: CutFrame::of(b"HTTP/1.1 101 \r\n\r\n", 0), ..behind };
        match form {
            HistoryForm::OneFrame => {
                let frame = HistoryFrame::new(snapshot).expect("the file can be read");
                behind.history = Some(Box::new(frame));
                behind.next_id = Some(history.1 + 1);
            }
            HistoryForm::Each => {
                behind.each = Some(Box::new(HistoryEnd::of(&snapshot)));
                behind.next_id = Some(history.0);
            }
        }
        let (cursor, controls, left) = (Some(Cursor::new(behind)), Vec::new(), false);
        self.parties.push(Party { client, outbox, peer, cursor, history, form, controls, left });
    }

    /// A client that has joined and was sent nothing.
    fn newcomer(&mut self, send_buffer: usize, resume: Resume) -> (Behind, Snapshot, Peer) {
        let (socket, peer) = pair(send_buffer);
        let outbox = Arc::new(Outbox::new(socket));
        let (reply, answer) = oneshot::channel();
        let join = Command::Join { outbox: outbox.clone(), resume, permit: permit(), reply };
        self.hub.step(iter::once(join)).expect("the file is fine");
        let Joined { client, snapshot } = answer.recv().expect("an answer");
        (self.behind(client, outbox), snapshot, peer)
    }

    fn behind(&self, client: ClientId, outbox: Arc<Outbox>) -> Behind {
        let file = std::fs::File::open(self.dir.file()).expect("a file of our own");
        Behind {
            client,
            outbox,
            hub: self.handle.clone(),
            file: TextFile::new(Arc::new(file)),
            cut: CutFrame::default(),
            history: None,
            each: None,
            next_id: None,
        }
    }

    fn hand_over(&self, behind: Behind) {
        self.catch_up.take(behind);
    }

    fn go_on(&mut self, who: usize, turn: usize) {
        let Some(party) = self.parties.get_mut(who) else { return };
        let Some(mut cursor) = party.cursor.take() else { return };
        self.buffers.step_bytes = turn;
        let mut answer = None;
        loop {
            match cursor.step(answer.take(), &mut self.buffers) {
                Ok(Progress::Asks) => answer = Some(self.answer(&cursor)),
                Ok(Progress::Done) => return,
                Ok(Progress::Some | Progress::None) => {
                    self.parties[who].cursor = Some(cursor);
                    return;
                }
                Err(_) => return cursor.outbox().abort(),
            }
        }
    }

    fn answer(&mut self, cursor: &Cursor) -> Answer {
        let (tells, told) = bounded(1);
        cursor.ask(move |answer| tells.send(answer).expect("it is heard"));
        for event in std::mem::take(&mut self.meanwhile) {
            self.small(event);
        }
        self.serve_commands();
        told.try_recv().expect("the hub has answered")
    }

    /// The hub does what it was told and asked.
    fn serve_commands(&mut self) {
        let waiting = self.commands.try_iter().map(|command| *command);
        self.hub.step(waiting).expect("the file is fine");
    }

    /// Takes over clients that fell behind, as the threads of a server do.
    fn take_over_clients_that_fell_behind(&mut self) {
        for behind in self.fell_behind.try_iter() {
            let party = self.parties.iter_mut().find(|party| party.client == behind.client);
            let party = party.expect("a client of ours");
            assert!(party.cursor.is_none(), "two threads at a time would write to one socket");
            party.cursor = Some(Cursor::new(behind));
        }
    }

    /// These clients read until there is nothing more to come.
    fn settle(&mut self, who: Range<usize>) {
        let who = who.start..who.end.min(self.parties.len());
        for _ in 0..10_000 {
            for who in who.clone() {
                self.parties[who].peer.read(usize::MAX);
                self.go_on(who, ALL);
            }
            self.take_over_clients_that_fell_behind();
            let mut parties = self.parties.iter_mut().take(who.end).skip(who.start);
            if parties.all(|party| party.cursor.is_none()) {
                return;
            }
        }
        panic!("a client never caught up");
    }

    /// The messages of the file as it is now, by their line numbers.
    fn messages(&self) -> BTreeMap<u64, Vec<u8>> {
        let file = self.dir.read();
        let lines = file.split_inclusive(|&byte| byte == b'\n');
        let text = |line: &[u8]| Some(on_line(line.strip_suffix(b"\n")?)?.to_vec());
        (1..).zip(lines).filter_map(|(id, line)| Some((id, text(line)?))).collect()
    }
}

/// Checks all bytes that a client was sent; returns what it was told of each message beside the
/// message itself.
fn check(party: &Party, messages: &BTreeMap<u64, Vec<u8>>, end: End) -> HashMap<u64, String> {
    let bytes = party.peer.bytes.strip_prefix(b"HTTP/1.1 101 \r\n\r\n").expect("the handshake");
    let (mut frames, rest) = frames_in(bytes);
    assert_eq!(rest, 0, "all that leaves is part of a whole frame");

    let (first_id, last_id) = party.history;
    let ids = (&first_id.into(), &last_id.into());
    if party.form == HistoryForm::OneFrame {
        let history: Value = serde_json::from_slice(&frames.remove(0).payload).expect("JSON");
        assert_eq!((&history["first_id"], &history["last_id"]), ids);
        let held = messages.range(first_id..=last_id.max(first_id));
        let held = held.filter(|(id, _)| **id <= last_id);
        let held = held.map(|(_, text)| serde_json::from_slice(text).expect("JSON"));
        assert_eq!(history["data"], Value::Array(held.collect()));
    }

    if end == End::Stop && !party.left {
        let close = frames.pop().expect("a close frame");
        assert_eq!((close.first, &close.payload[..2]), (CLOSE, &1012_u16.to_be_bytes()[..]));
        assert!(party.outbox.is_closed());
    }
    let (answers, mut live): (Vec<Seen>, Vec<Seen>) =
        frames.into_iter().partition(|frame| frame.payload.starts_with(b"{\"type\":\"error\""));
    let answers: Vec<_> = answers.iter().map(|frame| frame_of(TEXT, &frame.payload)).collect();
    let mut told = HashMap::new();
    let mut first_live = last_id + 1;
    if party.form == HistoryForm::Each {
        first_live = first_id;
        let is_end = |frame: &Seen| frame.payload.starts_with(b"{\"type\":\"history_end\"");
        if let Some(at) = live.iter().position(is_end) {
            let history: Value = serde_json::from_slice(&live.remove(at).payload).expect("JSON");
            assert_eq!((&history["first_id"], &history["last_id"]), ids);
            let held = messages.range(first_id..).filter(|(id, _)| **id <= last_id).count();
            assert_eq!(at, held, "the end comes after the last message of the history");
        } else {
            assert!(end == End::Stop || party.left, "the history has an end");
        }
    }
    let mut expected = messages.range(first_live..);
    for frame in &live {
        let (id, data) = expected.next().expect("a message of the file");
        let head = [br#"{"type":"new_message","data":"#, &data[..]].concat();
        let tail = frame.payload.strip_prefix(&head[..]).expect("each message once, in order");
        let tail = std::str::from_utf8(tail).expect("ASCII");
        let stamp = tail.strip_prefix(&format!(r#","id":{id}"#)).expect(tail);
        told.insert(*id, stamp.strip_suffix('}').expect(tail).to_owned());
    }
    if end == End::Quiet && !party.left {
        assert_eq!(expected.next(), None, "no client misses a message");
        assert!(answers == party.controls, "every answer, in order");
        assert!(!party.outbox.is_behind(), "all clients are live in the end");
    } else {
        assert!(party.controls.starts_with(&answers));
    }
    told
}

/// The time that a client was told of a message, if it was.
fn time_in(stamp: &str) -> Option<u64> {
    let ts = stamp.strip_prefix(r#","ts":"#)?;
    let (ts, from) = ts.split_once(',').unwrap_or((ts, ""));
    assert!(from.is_empty() || from == r#""from":"Ann \"é\"~k3v9""#, "{stamp}");
    Some(ts.parse().expect(stamp))
}

proptest! {
    #![proptest_config(tries(96))]

    /// A client that reads, however slowly, gets each message exactly once and in order, from its
    /// history frame on, and every byte is part of a whole frame.
    #[test]
    fn a_slow_client_misses_nothing_and_hears_nothing_twice(
        first in prop_oneof![
            2 => prop::collection::vec(0..20_000usize, 0..8),
            // A history of several blocks.
            1 => prop::collection::vec(60_000..120_000usize, 3..6),
        ],
        events in prop::collection::vec((event(), prop::collection::vec(event(), 0..3)), 10..60),
        end in prop_oneof![3 => Just(End::Quiet), 1 => Just(End::Stop)],
        form in form(),
    ) {
        let lines = first.iter().map(|size| format!("\"{}\"\n", "y".repeat(*size)));
        let mut chat = Chat::new(&lines.collect::<Vec<_>>().join("\n"));
        chat.happens(Event::Join { send_buffer: 4096, after: None, limit: None, form });
        for (event, meanwhile) in events {
            chat.meanwhile = meanwhile;
            chat.happens(event);
        }
        chat.meanwhile.clear();
        // A foreign line without an end gets one, and is heard.
        chat.happens(Event::Foreign { bytes: "\n" });
        chat.happens(Event::Tick);
        chat.hub.deliver(|| false);
        chat.take_over_clients_that_fell_behind();
        if end == End::Stop {
            assert!(chat.handle.stop(Instant::now()));
            chat.serve_commands();
            chat.take_over_clients_that_fell_behind();
        }
        chat.settle(0..4);
        chat.parties.iter_mut().for_each(|party| party.peer.read(usize::MAX));

        let messages = chat.messages();
        let mut told = BTreeMap::new();
        for party in &chat.parties {
            for (id, stamp) in check(party, &messages, end) {
                let first = told.entry(id).or_insert_with(|| stamp.clone());
                prop_assert_eq!(&*first, &stamp, "all are told the same");
            }
        }
        let times: Vec<_> = told.values().filter_map(|stamp| time_in(stamp)).collect();
        prop_assert!(times.is_sorted(), "time never goes back");
    }
}

/// A client whose socket is full: it has taken a part of frame 1, or all of it and no byte of the
/// next frame.
fn full(chat: &mut Chat, first: usize) -> (Cursor, Peer) {
    let (socket, peer) = pair(4096);
    let outbox = Arc::new(Outbox::new(socket));
    assert!(outbox.go_live());
    let mut frames = Frames::default();
    frames.push(&vec![b'1'; first], 0, 1, None, None);
    if first < 1000 {
        assert_eq!(outbox.offer(&frames, 0, &[]), Offered::Sent);
        while outbox.send_now(&[0; 1000]).expect("the peer is there") > 0 {}
    }
    let Offered::SocketFull { cut, next_id } = outbox.offer(&frames, 0, &[]) else {
        panic!("it fits")
    };
    let behind = chat.behind(ClientId(1), outbox);
    (Cursor::new(Behind { cut, next_id: Some(next_id), ..behind }), peer)
}

#[test]
fn a_client_that_stalls_within_a_frame_is_closed_without_a_close_frame() {
    let mut chat = Chat::new("");
    let (cursor, mut peer) = full(&mut chat, 100_000);
    peer.read(usize::MAX);
    let before = peer.bytes.len();
    cursor.give_up();
    peer.read(usize::MAX);
    assert_eq!(peer.bytes.len(), before, "a close frame within a frame is none");
    assert!(cursor.outbox().is_closed() && cursor.outbox().has_stalled());
}

#[test]
fn a_client_that_stalls_between_frames_is_told_to_come_back() {
    let mut chat = Chat::new("");
    let (cursor, mut peer) = full(&mut chat, 100);
    peer.read(usize::MAX);
    let before = peer.bytes.len();
    cursor.give_up();
    peer.read(usize::MAX);
    let (frames, rest) = frames_in(&peer.bytes[before..]);
    assert_eq!((frames.len(), rest), (1, 0));
    assert_eq!((frames[0].first, &frames[0].payload[..2]), (CLOSE, &1013_u16.to_be_bytes()[..]));
    assert!(cursor.outbox().is_closed());
}

#[test]
fn a_client_that_leaves_while_it_catches_up_is_forgotten() {
    let mut chat = Chat::new("1\n");
    chat.join(4096, None, None, HistoryForm::OneFrame);
    let party = &mut chat.parties[0];
    let (_, nobody) = pair(4096);
    party.peer = nobody;
    chat.go_on(0, ALL);
    assert!(chat.parties[0].cursor.is_none() && chat.parties[0].outbox.is_closed());
}

#[test]
fn a_history_with_many_holes_is_sent_in_few_sends() {
    let mut chat = Chat::new(&"\"hi\"\njunk\n".repeat(30_000));
    chat.join(300_000, None, None, HistoryForm::OneFrame);
    // Each send is a record of its own here.
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).expect("a socket pair");
    theirs.set_nonblocking(true).expect("a non-blocking socket");
    let cursor = chat.parties[0].cursor.as_mut().expect("it joins");
    cursor.send_to(Arc::new(Outbox::new(ours)));
    chat.go_on(0, ALL);
    let mut record = vec![0; 256 << 10];
    let mut next = || (&theirs).read(&mut record).ok().filter(|&bytes| bytes > 0);
    let records = iter::from_fn(&mut next).collect::<Vec<_>>();
    assert!(records.iter().sum::<usize>() > 128 << 10, "{records:?}");
    assert!(records.len() <= 5, "{records:?}");
}

#[test]
fn a_cursor_is_small() {
    assert!(size_of::<Cursor>() <= 216, "{} bytes", size_of::<Cursor>());
}

const STALL_TIMEOUT: Duration = Duration::from_secs(600);

/// What a catch-up thread has, without the thread.
fn thread_by_hand() -> Thread {
    let unsent = Arc::new(Unsent::of_this_machine());
    let made = Thread::new(STALL_TIMEOUT, Arc::default(), unsent, &Arc::default());
    made.expect("a descriptor").1
}

impl Thread {
    /// The numbers of the events that are there.
    fn ready(&self) -> Vec<u64> {
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        self.wait(&mut events, Duration::ZERO).expect("a descriptor");
        events.iter().map(|event| event.data.u64()).collect()
    }
}

/// A client that lacks the messages of a chat from the first on, but no history.
fn lacking_all(chat: &mut Chat) -> (Behind, Peer) {
    let (behind, _, peer) = chat.newcomer(300_000, Resume::default());
    (Behind { next_id: Some(1), ..behind }, peer)
}

#[test]
fn a_hub_that_does_not_answer_holds_up_no_client_of_another() {
    /// Serves the hub until a client that was behind is live, and has one message.
    fn is_served(chat: &mut Chat, outbox: &Outbox, peer: &mut Peer) {
        let deadline = Instant::now() + PATIENCE;
        while outbox.is_behind() {
            assert!(Instant::now() < deadline, "it is held up");
            chat.serve_commands();
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(peer.frames().len(), 1);
    }
    for queue_is_full in [false, true] {
        let (mut silent, mut chat) = (Chat::new("1\n"), Chat::new("2\n"));
        let unsent = Arc::new(Unsent::of_this_machine());
        let catch_up = CatchUp::start(STALL_TIMEOUT, &Arc::default(), &unsent).expect("threads");
        let (ann, mut at_ann) = lacking_all(&mut silent);
        let (bob, mut at_bob) = lacking_all(&mut chat);
        assert_eq!(ann.client, bob.client, "one thread serves both");
        let (to_ann, to_bob) = (ann.outbox.clone(), bob.outbox.clone());
        while queue_is_full && silent.handle.survey() {}
        catch_up.take(ann);
        catch_up.take(bob);
        is_served(&mut chat, &to_bob, &mut at_bob);
        assert!(to_ann.is_behind() && at_ann.frames().is_empty());
        is_served(&mut silent, &to_ann, &mut at_ann);
    }
}

#[test]
fn a_client_that_waits_for_its_hub_is_not_closed_for_it_and_keeps_no_thread_awake() {
    let (mut chat, mut thread) = (Chat::new("1\n"), thread_by_hand());
    let (behind, mut peer) = lacking_all(&mut chat);
    let outbox = behind.outbox.clone();
    thread.begin(behind);
    let [number] = thread.ready()[..] else { panic!("its socket takes something") };
    let now = Instant::now();
    thread.step_client(number, None, now);
    assert!(thread.ready().is_empty(), "its socket takes more, but there is nothing to be sent");
    thread.step_idle_clients(now + 2 * STALL_TIMEOUT);
    assert!(!outbox.is_closed(), "it is not the client that is slow");
    // The message, and that it is live.
    for _ in 0..2 {
        assert_eq!(thread.clients.len(), 1);
        chat.serve_commands();
        assert_eq!(thread.ready(), [INBOX_EVENT]);
        thread.clear_wake();
        thread.take_answers();
    }
    assert!(thread.clients.is_empty() && thread.ready().is_empty() && !outbox.is_behind());
    assert_eq!(peer.frames().len(), 1);
}

#[test]
fn a_client_that_cannot_be_waited_for_is_closed_and_the_log_counts_the_next_one() {
    let (mut chat, mut thread) = (Chat::new("1\n"), thread_by_hand());
    let (behind, _peer) = lacking_all(&mut chat);
    let outbox = behind.outbox.clone();
    thread.begin(behind);
    // Epoll takes no socket twice.
    thread.watch(INBOX_EVENT + 1);
    assert!(outbox.is_closed() && thread.clients.is_empty());
    assert!(!thread.lock_tallies().unwatched.add(), "one was logged");
}

#[test]
fn a_client_whose_socket_fills_after_its_hub_has_answered_waits_for_the_socket() {
    let text = format!("\"{}\"\n", "x".repeat(600_000));
    let (mut chat, mut thread) = (Chat::new(&text), thread_by_hand());
    let (behind, mut peer) = lacking_all(&mut chat);
    let outbox = behind.outbox.clone();
    thread.begin(behind);
    let [number] = thread.ready()[..] else { panic!("its socket takes something") };
    thread.step_client(number, None, Instant::now());
    let deadline = Instant::now() + PATIENCE;
    while outbox.is_behind() {
        assert!(Instant::now() < deadline, "nobody waits for the socket");
        chat.serve_commands();
        thread.take_answers();
        peer.read(usize::MAX);
        for number in thread.ready() {
            match number {
                INBOX_EVENT => thread.clear_wake(),
                number => thread.step_client(number, None, Instant::now()),
            }
        }
    }
    assert_eq!(peer.frames().len(), 1);
}

#[test]
fn a_client_is_forgotten_when_its_hub_ends_or_does_not_know_it_when_it_is_asked() {
    for ends in [false, true] {
        let (mut chat, mut thread) = (Chat::new("1\n"), thread_by_hand());
        let (behind, _peer) = lacking_all(&mut chat);
        chat.handle.leave(behind.client);
        chat.serve_commands();
        thread.begin(behind);
        thread.step_client(INBOX_EVENT + 1, None, Instant::now());
        // Once more after the first time, since a close frame may have come.
        for left in [1, 0] {
            match ends {
                true => chat.commands = queue(None).1,
                false => chat.serve_commands(),
            }
            thread.take_answers();
            assert_eq!(thread.clients.len(), left);
        }
    }
}

#[test]
fn a_client_that_is_live_and_behind_again_before_the_answer_is_there_goes_on() {
    let (mut chat, mut thread) = (Chat::new("1\n"), thread_by_hand());
    let (behind, _, mut peer) = chat.newcomer(300_000, Resume::default());
    let (client, outbox) = (behind.client, behind.outbox.clone());
    thread.begin(behind);
    thread.step_client(INBOX_EVENT + 1, None, Instant::now());
    chat.serve_commands();
    assert!(!outbox.is_behind());
    // Its own thread finds the socket full.
    while outbox.send_now(&[0; 1000]).expect("the peer is there") > 0 {}
    let frame = ErrorAnswer::NotJson.frame("nonsense");
    let ControlOutcome::SocketFull(cut) = outbox.control(&frame) else { panic!("it is full") };
    thread.begin(Behind { cut, ..chat.behind(client, outbox) });
    thread.take_answers();
    assert_eq!(thread.clients.len(), 1);
    peer.read(usize::MAX);
    assert!(thread.ready().contains(&(INBOX_EVENT + 2)), "its socket is waited for");
}

#[test]
fn what_two_clients_asked_for_at_once_is_read_once() {
    let (mut chat, mut thread) = (Chat::new("1\n"), thread_by_hand());
    let mut peers = Vec::new();
    for _ in 0..2 {
        let (behind, peer) = lacking_all(&mut chat);
        thread.begin(behind);
        peers.push(peer);
    }
    for number in thread.ready() {
        thread.step_client(number, None, Instant::now());
    }
    chat.serve_commands();
    let answers: Vec<_> = thread.answers.try_iter().collect();
    for (number, answer) in answers {
        thread.step_client(number, Some(answer), Instant::now());
        chat.dir.write("");
    }
    for mut peer in peers {
        assert_eq!(peer.frames().len(), 1);
    }
}

/// How much the kernel may hold for a client that was sent a long frame, as it took a MiB of it within so
/// many milliseconds.
fn room_after(millis: u64) -> u64 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback");
    let mut peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a peer");
    let socket = Socket::from(listener.accept().expect("the peer").0);
    socket.set_tcp_notsent_lowat(UNSENT as u32).expect("a socket of TCP");
    let outbox = Arc::new(Outbox::new(socket));
    let chat = Chat::new("");
    // It is more than all steps below may send, since nobody answers what is asked after it.
    let cut = CutFrame::of(&vec![0; 8 << 20], 0);
    let mut thread = thread_by_hand();
    thread.begin(Behind { cut, ..chat.behind(ClientId(1), outbox.clone()) });
    let now = Instant::now() + Duration::from_millis(millis);
    let mut part = vec![0; 64 << 10];
    for _ in 0..16 {
        thread.step_client(INBOX_EVENT + 1, None, now);
        // The kernel takes more than this at a time.
        peer.read_exact(&mut part).expect("the frame");
    }
    outbox.socket().tcp_notsent_lowat().expect("a socket of TCP").into()
}

#[test]
fn the_kernel_may_hold_more_for_a_client_that_takes_much_in_a_short_time() {
    assert!(room_after(0) > UNSENT, "it took a MiB at once");
    assert_eq!(room_after(60_000), UNSENT, "it took as much in a minute");
}
