//! One client of the chat, from the upgrade to the goodbye.
//!
//! The client's thread joins the hub and sends the client the beginning of the history. Then it
//! reads: text becomes lines for the hub. From then on the hub and the catch-up threads send
//! messages; this thread sends control frames only.

use std::{
    fs::File,
    io, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::{Permit, Sender},
    catch_up::{Behind, CatchUp},
    command::{ClientId, HubGone, HubHandle, Joined, NextStep, PostedOperations, Reply},
    config::Config,
    history::{BLOCK, Resume},
    http::query::NAME_BYTES,
    lines::{BESIDE_TEXT, TextFile},
    message::{self, AROUND_WORDS},
    metrics::{LeaveReason, Metrics},
    operations::{self, BadOperation, Operation, Recognised, Refusal, is_operation, recognise},
    outbox::Outbox,
    websocket::{Connection, Over, Received, Wait},
    wire::{CutFrame, ErrorAnswer, HistoryEnd, HistoryForm, HistoryFrame},
};

/// A client's messages are collected until they have this many bytes: a queue full of such posts
/// takes 16 MiB. A single message may be longer.
const POST_BYTES: usize = 64 << 10;

// The longest post of a client has the messages that were collected and one more. The name and the
// text in that one may be all control characters, which take six bytes each in JSON. The journal
// counts on it that no post is longer than a line may be.
const _: () = assert!(POST_BYTES + 6 * NAME_BYTES + AROUND_WORDS <= BESIDE_TEXT);

/// That a client types is told at most once in this time.
const TYPING_EVERY: Duration = Duration::from_secs(3);

/// What a client asked for when it connected.
#[derive(Clone, Debug, Default)]
pub struct JoinRequest {
    /// The part of the history that it asks for.
    pub resume: Resume,
    /// `since=`: only messages from this time on, in Unix milliseconds.
    pub since: Option<u64>,
    /// How the history is sent.
    pub form: HistoryForm,
    /// `as=NAME`: the name of the person who types.
    pub name: Option<String>,
    /// `events=1`: whether the client is told who is here and who types.
    pub events: Events,
}

/// Whether a client is told who is here and who types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Events {
    /// It is told.
    Told,
    /// It is not told: it may not know that there are such frames.
    #[default]
    Untold,
}

/// What the threads of all clients share.
#[derive(Clone, Debug)]
pub struct Services {
    /// The hub that it joins.
    pub hub: HubHandle,
    /// The catch-up threads, which take over when a socket is full.
    pub catch_up: CatchUp,
    /// The counters of the server.
    pub metrics: Arc<Metrics>,
    /// The limits of every connection, among others.
    pub config: Arc<Config>,
}

/// A client for as long as the hub knows it.
struct Membership {
    services: Services,
    outbox: Arc<Outbox>,
    file: Arc<File>,
    client: ClientId,
}

impl Membership {
    /// Hands the client over to a catch-up thread, after a control frame found its socket full.
    fn hand_over(&self, cut: CutFrame) {
        self.hand_over_at(cut, None, None, None);
    }

    /// Hands the client over to a catch-up thread: it lacks the rest of a frame, the rest of the
    /// history, and the messages from `next_id` on.
    fn hand_over_at(
        &self,
        cut: CutFrame,
        history: Option<HistoryFrame>,
        each: Option<HistoryEnd>,
        next_id: Option<u64>,
    ) {
        self.services.catch_up.take(Behind {
            cut,
            history: history.map(Box::new),
            each: each.map(Box::new),
            ..self.behind(next_id)
        });
    }

    /// The client as one that lacks messages alone.
    fn behind(&self, next_id: Option<u64>) -> Behind {
        Behind {
            client: self.client,
            outbox: self.outbox.clone(),
            hub: self.services.hub.clone(),
            // No message was cut, so nothing of the frame is read from the file. The history comes
            // with its own view of the file.
            file: TextFile::from(&self.file),
            cut: CutFrame::default(),
            history: None,
            each: None,
            next_id,
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.services.hub.leave(self.client);
    }
}

/// Serves one client to its end. `response` accepts the upgrade; `received` are the bytes that came
/// after the request; `permit` is what the client may do.
///
/// # Errors
/// When the client cannot join or be sent its first bytes. The connection must be dropped then.
pub fn serve(
    services: Services,
    outbox: Arc<Outbox>,
    response: Vec<u8>,
    received: Vec<u8>,
    request: JoinRequest,
    permit: Arc<Permit>,
) -> io::Result<()> {
    let connection = Connection::new(outbox.clone(), received, &services.config)?;
    let JoinRequest { mut resume, since, form, name, events } = request;
    if let Some(ts) = since {
        let since = services.hub.since(ts).map_err(|HubGone| hub_is_gone())?;
        resume.since = Some(since.first_id()?);
    }
    let entry = Entry { resume, form, events, permit: permit.clone() };
    let membership = join(services, outbox, response, entry)?;
    chat(connection, &membership, Speech::new(&permit, name));
    Ok(())
}

/// How a client joins.
struct Entry {
    resume: Resume,
    form: HistoryForm,
    events: Events,
    permit: Arc<Permit>,
}

/// Joins the hub, and sends as much of the response and the history as the socket takes at once.
fn join(
    services: Services,
    outbox: Arc<Outbox>,
    response: Vec<u8>,
    entry: Entry,
) -> io::Result<Membership> {
    let Entry { resume, form, events, permit } = entry;
    let Joined { client, snapshot } =
        services.hub.join(outbox.clone(), resume, permit).map_err(|HubGone| hub_is_gone())?;
    let file = snapshot.stretch.file().file().clone();
    let next_id = snapshot.stretch.last_id + 1;
    let membership = Membership { services, outbox, file, client };
    if events == Events::Told {
        membership.services.hub.listen(client).map_err(|HubGone| hub_is_gone())?;
    }
    if form == HistoryForm::Each {
        let end = HistoryEnd::of(&snapshot);
        let next_id = Some(end.first_id);
        let sent = membership.outbox.send_now(&response)?;
        membership.hand_over_at(CutFrame::of(&response, sent), None, Some(end), next_id);
        return Ok(membership);
    }
    let mut history = HistoryFrame::new(snapshot)?;
    let head = response.len();
    // The response and a short history go out in one packet, as a rule.
    let mut bytes = response;
    history.peek(&mut bytes, BLOCK)?;
    let sent = membership.outbox.send_now(&bytes)?;
    history.advance(sent.saturating_sub(head));
    if sent < head {
        let cut = CutFrame::of(&bytes[..head], sent);
        membership.hand_over_at(cut, Some(history), None, Some(next_id));
    } else if !history.is_done() {
        membership.hand_over_at(CutFrame::default(), Some(history), None, Some(next_id));
    } else {
        // This thread does not wait for an answer. If it did, a hundred clients that join at once, with
        // a history of 1,000 messages, would have it after 1.4 times the time.
        let (catch_up, behind) =
            (membership.services.catch_up.clone(), membership.behind(Some(next_id)));
        let unless_live = Reply::new(move |next| {
            if !matches!(next, Ok(NextStep::Live)) {
                catch_up.take(behind);
            }
        });
        membership.services.hub.next_step_later(client, Some(next_id), unless_live);
    }
    Ok(membership)
}

fn hub_is_gone() -> io::Error {
    io::Error::other("the hub is gone")
}

/// What a client says: whether it may, and as whom.
struct Speech<'a> {
    permit: &'a Permit,
    sender: Option<Sender>,
    /// The name of a person who types, for `as=NAME`.
    name: Option<String>,
    /// What it said since its last post.
    draft: Draft,
    /// What the rules said when they had this generation.
    verdict: Result<(), Unsaid>,
    generation: u64,
    /// When it was last told to others that the client types.
    typed_at: Option<Instant>,
}

/// What is to be done with what a client sent.
enum Said {
    /// It is a message in the draft, or needs nothing more to be done. More may be read into the draft.
    Taken,
    /// That it types is told to the others.
    Typing,
    /// It sent no message.
    Nothing,
}

/// What a text is that begins like an operation. It may turn out to be no JSON at all.
fn recognised(text: &str) -> Option<Result<Recognised, BadOperation>> {
    let text = message::trim(text.as_bytes());
    is_operation(text).then(|| recognise(text))
}

/// Why a client's message is not said.
#[derive(Clone, Debug)]
enum Unsaid {
    /// It is answered with this error.
    Refused(Vec<u8>),
    /// The client may not even read.
    NotAReader,
}

impl Speech<'_> {
    fn new(permit: &Permit, name: Option<String>) -> Speech<'_> {
        let (sender, generation) = (permit.sender(), permit.access().generation());
        let verdict = Speech::verdict_on(permit);
        let draft = Draft::default();
        Speech { permit, sender, name, draft, verdict, generation, typed_at: None }
    }

    fn verdict_on(permit: &Permit) -> Result<(), Unsaid> {
        if !permit.may_read() {
            return Err(Unsaid::NotAReader);
        }
        permit.check_post().map_err(|forbidden| {
            Unsaid::Refused(ErrorAnswer::Forbidden.frame(&forbidden.to_string()))
        })
    }

    /// Takes in what was received: a message that may be said becomes a part of the draft.
    fn hear(&mut self, received: &Received) -> Result<Said, Unsaid> {
        let text = match received {
            Received::Text(text) => text,
            Received::Binary(_) => {
                let refusal = ErrorAnswer::BinaryUnsupported;
                return Err(Unsaid::Refused(refusal.frame(refusal.sentence())));
            }
            _ => return Ok(Said::Nothing),
        };
        self.check_right()?;
        let operation = match recognised(text) {
            None => None,
            Some(Ok(Recognised::Typing)) => return self.type_on(),
            Some(Ok(Recognised::Operation(operation))) => Some(Ok(operation)),
            Some(Err(why)) => Some(Err(why)),
        };
        self.permit.count_post().map_err(|too_fast| {
            let answer = ErrorAnswer::RateLimited { tenths: too_fast.tenths() };
            Unsaid::Refused(answer.frame(&too_fast.to_string()))
        })?;
        self.draft.push(self.name.as_deref(), text, operation).map_err(Unsaid::Refused)?;
        Ok(Said::Taken)
    }

    /// Says that the client types, if that was not said a moment ago.
    fn type_on(&mut self) -> Result<Said, Unsaid> {
        if self.sender.is_none() {
            let nobody = ErrorAnswer::Refused(Refusal::Forbidden(operations::Forbidden::Nobody));
            return Err(Unsaid::Refused(nobody.frame(nobody.sentence())));
        }
        let now = Instant::now();
        if self.typed_at.is_some_and(|typed_at| now < typed_at + TYPING_EVERY) {
            return Ok(Said::Taken);
        }
        self.typed_at = Some(now);
        Ok(Said::Typing)
    }

    /// Checks that the client may speak at all.
    fn check_right(&mut self) -> Result<(), Unsaid> {
        let generation = self.permit.access().generation();
        if generation != self.generation {
            self.generation = generation;
            self.verdict = Speech::verdict_on(self.permit);
        }
        self.verdict.clone()
    }
}

/// What a client said since its last post.
#[derive(Default)]
struct Draft {
    lines: Vec<u8>,
    count: usize,
    operations: Vec<(usize, Operation)>,
}

impl Draft {
    /// Takes in a text, and the operation that it is; `name` is that of a person who types, for
    /// `as=NAME`.
    ///
    /// # Errors
    /// When it is no message. The frame is the answer.
    fn push(
        &mut self,
        name: Option<&str>,
        text: &str,
        operation: Option<Result<Operation, BadOperation>>,
    ) -> Result<(), Vec<u8>> {
        let start = self.lines.len();
        match name {
            Some(name) => message::push_line_as(name, text, &mut self.lines),
            None => message::push_line(text, &mut self.lines).map_err(|why| {
                let what_to_do = "connect with ?as=NAME to send plain text";
                ErrorAnswer::NotJson.frame(&format!("{why}; {what_to_do}"))
            })?,
        }
        match operation {
            None => {}
            Some(Ok(operation)) => self.operations.push((self.count, operation)),
            Some(Err(why)) if is_operation(&self.lines[start..]) => {
                self.lines.truncate(start);
                return Err(ErrorAnswer::BadOperation.frame(&why.to_string()));
            }
            // It is no JSON, so the person's words stand on the line.
            Some(Err(_)) => {}
        }
        self.count += 1;
        Ok(())
    }

    /// The lines, and the operations among them. The draft is empty afterwards.
    fn take(&mut self, permit: &Permit) -> (Vec<u8>, Option<Box<PostedOperations>>) {
        let Draft { lines, operations, .. } = mem::take(self);
        let operations = match operations.is_empty() {
            true => None,
            false => PostedOperations::of(permit.standing(), operations),
        };
        (lines, operations)
    }
}

/// Reads until the connection is over. All messages that one read of the socket brought go to the
/// hub as one post, unless they are very many or something among them is refused.
fn chat(mut connection: Connection, membership: &Membership, mut speech: Speech<'_>) {
    let hub = &membership.services.hub;
    // Whether anything was posted since the hub was waited for.
    let mut has_posted = false;
    loop {
        let wait = if speech.draft.lines.is_empty() { Wait::ForPeer } else { Wait::Not };
        let mut received = connection.read(wait);
        let answer = match speech.hear(&received) {
            Ok(Said::Taken) if speech.draft.lines.len() < POST_BYTES => continue,
            Ok(Said::Taken | Said::Nothing) => None,
            Ok(Said::Typing) => match hub.typing(membership.client) {
                Ok(()) => continue,
                Err(HubGone) => return,
            },
            Err(Unsaid::Refused(answer)) => Some(answer),
            // The hub sends it a close frame, too, and does not wait for it to speak.
            Err(Unsaid::NotAReader) => {
                received = Received::Over(Over::NotAReader);
                None
            }
        };
        if !speech.draft.lines.is_empty() {
            let (lines, operations) = speech.draft.take(speech.permit);
            let sender = speech.sender.clone();
            if hub.post(membership.client, sender, lines, operations).is_err() {
                return;
            }
            has_posted = true;
        }
        if let Some(answer) = answer {
            // A client that reads as fast as it is sent something has its answers in the order of what
            // it said. A program that sends much at a time knows then what was refused.
            if mem::take(&mut has_posted) {
                hub.wait_for_posts();
            }
            connection.send(&answer);
        }
        match received {
            Received::Text(_) | Received::Binary(_) | Received::Nothing => {}
            Received::SocketFull(cut) => membership.hand_over(cut),
            Received::Over(over) => return end(connection, membership, &over),
        }
    }
}

/// Counts the client as one that left, and ends the connection.
fn end(connection: Connection, membership: &Membership, over: &Over) {
    let stalled = connection.outbox().has_stalled();
    let reason = if stalled { LeaveReason::Stalled } else { over.reason() };
    membership.services.metrics.left(reason);
    connection.finish(over, |cut| membership.hand_over(cut));
}
