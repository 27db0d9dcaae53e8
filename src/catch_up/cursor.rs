//! How far one client that is behind has come, and its next step.
//!
//! A step sends what the socket takes at once, in this order: the rest of a cut frame, the rest of
//! the history frame, control frames that wait, and the messages that the hub names: first those of
//! a history that is sent message by message, with its end, then those that came after it. What the
//! socket did not take of a frame is kept as a cut frame, and begins the next step. Where the hub must
//! be asked, the step pauses until the answer is there; nothing is sent meanwhile, since the hub may
//! make the client live and send to it.

use std::{io, sync::Arc, time::Instant};

use super::{Behind, pace::Pace, shared_frames::SharedFrames, shared_text::SharedText};
use crate::{
    command::{HubGone, NextStep, Reply},
    history::BLOCK,
    lines::{TextFile, log_unreadable, path_of},
    metrics::Metrics,
    outbox::{Last, Outbox},
    unsent::Unsent,
    wire::{CloseReason, CutFrame, close_frame},
};

/// How many bytes a step tries to send first, to find out whether the socket takes anything: a
/// whole block would be read in vain for a socket that takes nothing.
const FIRST_SEND: usize = 4 << 10;

/// About how many bytes a client is sent in one step, before the next client has its step. It is so
/// little that a thousand clients that join at once all see progress, and so much that the wait for
/// events between two steps does not count.
const STEP_BYTES: usize = 2 * BLOCK;

// The first send is a small part of a block, and a step sends at least a whole block.
const _: () = assert!(FIRST_SEND < BLOCK && BLOCK <= STEP_BYTES);

/// One client's way from behind to live.
pub(super) struct Cursor {
    behind: Behind,
    /// When the client last took something.
    pub(super) last_progress: Instant,
    pace: Pace,
    /// The step that goes on when the hub has answered; `None` when the hub is not being asked.
    paused: Option<Step>,
    /// Whether a question to the hub got no answer.
    hub_gave_no_answer: bool,
}

/// What a hub answers.
pub(super) type Answer = Result<NextStep, HubGone>;

/// What a step of a cursor sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The socket is full, and took nothing.
    None,
    /// Something, and there is more to send.
    Some,
    /// All that is known: the hub must be asked for more with [`Cursor::ask`], and the next step is due
    /// with its answer.
    Asks,
    /// All there was: the client is live or closed.
    Done,
}

/// The memory of a thread, shared by all its clients.
#[derive(Debug)]
pub(super) struct Buffers {
    /// About how many bytes a client is sent in one step.
    pub(super) step_bytes: usize,
    block: Vec<u8>,
    frames: SharedFrames,
    text: SharedText,
    metrics: Arc<Metrics>,
}

impl Buffers {
    pub(super) fn new(metrics: Arc<Metrics>) -> Buffers {
        Buffers {
            step_bytes: STEP_BYTES,
            block: Vec::new(),
            frames: SharedFrames::default(),
            text: SharedText::default(),
            metrics,
        }
    }

    /// Forgets what was read before a line of its file was erased. As long as a view of the file from
    /// before is held, the erased bytes stay in memory.
    fn forget_erased(&mut self) {
        if !self.frames.is_latest() {
            self.frames = SharedFrames::default();
        }
        if !self.text.is_latest() {
            self.text = SharedText::default();
        }
    }

    /// Gives the memory back, and the files.
    pub(super) fn shrink(&mut self) {
        self.block = Vec::new();
        self.frames = SharedFrames::default();
        self.text = SharedText::default();
    }
}

/// One step of a cursor.
#[derive(Default)]
struct Step {
    /// How many bytes the socket took so far.
    sent: usize,
}

impl Step {
    /// How many bytes to try to send next.
    fn room(&self) -> usize {
        if self.sent == 0 { FIRST_SEND } else { BLOCK }
    }

    fn send(&mut self, outbox: &Outbox, bytes: &[u8]) -> io::Result<usize> {
        let sent = outbox.send_now(bytes)?;
        self.sent += sent;
        Ok(sent)
    }

    fn progress(&self) -> Progress {
        if self.sent == 0 { Progress::None } else { Progress::Some }
    }
}

impl Cursor {
    pub(super) fn new(behind: Behind) -> Cursor {
        let now = Instant::now();
        let joins = behind.history.is_some() || behind.each.is_some();
        let pace = if joins { Pace::of_empty(now) } else { Pace::of_full(now) };
        Cursor { behind, last_progress: now, pace, paused: None, hub_gave_no_answer: false }
    }

    /// Has the rest sent by another outbox.
    #[cfg(test)]
    pub(super) fn send_to(&mut self, outbox: Arc<Outbox>) {
        self.behind.outbox = outbox;
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.behind.outbox
    }

    /// Whether it waits for the answer of the hub, and not for the socket.
    pub(super) fn asks(&self) -> bool {
        self.paused.is_some()
    }

    /// Sends what the socket takes at once, up to about `step_bytes`. If the hub is being asked, this is
    /// due with its answer and not before.
    ///
    /// # Errors
    /// When the peer is gone or the file cannot be read. The connection must be dropped then.
    pub(super) fn step(
        &mut self,
        answer: Option<Answer>,
        buffers: &mut Buffers,
    ) -> io::Result<Progress> {
        debug_assert_eq!(self.asks(), answer.is_some(), "the hub may have made the client live");
        let mut step = self.paused.take().unwrap_or_default();
        if self.outbox().is_closed() {
            return Ok(Progress::Done);
        }
        buffers.forget_erased();
        let before = step.sent;
        let progress = self.go_on(answer, &mut step, buffers);
        self.pace.took(step.sent - before);
        if let Ok(Progress::Asks) = progress {
            self.paused = Some(step);
        }
        progress
    }

    /// Lets the kernel hold more for the client, if the last step shows that it is fast.
    pub(super) fn make_room(&mut self, now: Instant, unsent: &Unsent) {
        if self.pace.is_now_fast(now) {
            let (socket, most) = (self.outbox().socket(), unsent.of_fast_client() as u32);
            // If it fails, the client falls behind more often.
            if socket.tcp_notsent_lowat().is_ok_and(|before| before < most) {
                let _ = socket.set_tcp_notsent_lowat(most);
            }
        }
    }

    fn go_on(
        &mut self,
        answer: Option<Answer>,
        step: &mut Step,
        buffers: &mut Buffers,
    ) -> io::Result<Progress> {
        match answer {
            None | Some(Ok(NextStep::ControlFrames)) => {}
            Some(Ok(NextStep::Live)) => return Ok(Progress::Done),
            Some(Ok(NextStep::Stretch(stretch, stamps))) => {
                self.behind.next_id = Some(stretch.first_id);
                // Nothing of an earlier stretch is left to be sent, so it need not be kept.
                self.behind.file = stretch.file().clone();
                // Other clients may have asked for the same meanwhile.
                if !self.is_at_hand(buffers) {
                    let file = &self.behind.file;
                    let taken = buffers.frames.take(stretch, stamps);
                    taken.inspect_err(|error| unreadable(file, error))?;
                }
            }
            // A close frame from the hub may wait: it is sent below.
            Some(Err(HubGone)) if !self.hub_gave_no_answer => self.hub_gave_no_answer = true,
            Some(Err(HubGone)) => return Ok(Progress::Done),
        }
        while step.sent < buffers.step_bytes {
            if !self.finish_frame(step, buffers)? {
                return Ok(step.progress());
            }
            match self.send_waiting(step, buffers)? {
                Some(Last::Close) => return Ok(Progress::Done),
                Some(Last::No) => {}
                None => return Ok(step.progress()),
            }
            if self.end_history() {
                continue;
            }
            if self.is_at_hand(buffers) {
                if !self.send_messages(step, buffers)? {
                    return Ok(step.progress());
                }
                continue;
            }
            return Ok(Progress::Asks);
        }
        Ok(Progress::Some)
    }

    /// After the last message of a history that is sent message by message, makes its end the next
    /// frame; false when there is none to be sent now.
    fn end_history(&mut self) -> bool {
        let Behind { each, next_id, cut, .. } = &mut self.behind;
        let Some(end) = each.take_if(|end| next_id.is_none_or(|id| id > end.last_id)) else {
            return false;
        };
        *cut = CutFrame::of(&end.frame(), 0);
        true
    }

    /// Asks the hub what comes next, and waits for nothing. `take` gets the answer for the next step.
    pub(super) fn ask(&self, take: impl FnOnce(Answer) + Send + 'static) {
        let Behind { client, hub, each, next_id, .. } = &self.behind;
        match (each, next_id) {
            (Some(end), Some(next_id)) => {
                let reply = Reply::new(|answer: Result<_, HubGone>| {
                    take(answer.map(|(stretch, stamps)| NextStep::Stretch(stretch, stamps)));
                });
                hub.history_later(*next_id, end.last_id, reply);
            }
            _ => hub.next_step_later(*client, *next_id, Reply::new(take)),
        }
    }

    /// Sends the rest of a cut frame and of the history frame; false when the socket is full or the
    /// step is over.
    fn finish_frame(&mut self, step: &mut Step, buffers: &mut Buffers) -> io::Result<bool> {
        let Behind { outbox, file, cut, history, .. } = &mut self.behind;
        let block = &mut buffers.block;
        while !cut.is_empty() {
            block.clear();
            cut.peek(file, block, step.room()).inspect_err(|error| unreadable(file, error))?;
            let sent = step.send(outbox, block)?;
            cut.advance(sent);
            if sent < block.len() {
                return Ok(false);
            }
        }
        while let Some(frame) = history {
            let text = match frame.next_text() {
                // Between holes there may be a few bytes each, which are sent together below.
                Some(text) if text.range.end - text.range.start < FIRST_SEND as u64 => None,
                // It is not known yet whether the socket takes anything.
                Some(text) if step.sent == 0 && !buffers.text.has(&text) => None,
                Some(text) => {
                    let got = buffers.text.get(&text);
                    got.inspect_err(|error| unreadable(file, error))?
                }
                None => None,
            };
            let bytes = match text {
                Some(text) => text,
                None => {
                    block.clear();
                    let peeked = frame.peek(block, step.room());
                    peeked.inspect_err(|error| unreadable(file, error))?;
                    &block[..]
                }
            };
            let sent = step.send(outbox, bytes)?;
            let is_all = sent == bytes.len();
            frame.advance(sent);
            if frame.is_done() {
                *history = None;
            }
            if !is_all || step.sent >= buffers.step_bytes {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends the control frames that wait; `None` when the socket is full.
    fn send_waiting(&mut self, step: &mut Step, buffers: &mut Buffers) -> io::Result<Option<Last>> {
        let Behind { outbox, cut, .. } = &mut self.behind;
        buffers.block.clear();
        let last = outbox.take_waiting(&mut buffers.block);
        let sent = if buffers.block.is_empty() { 0 } else { step.send(outbox, &buffers.block)? };
        if sent < buffers.block.len() {
            *cut = CutFrame::of(&buffers.block, sent);
            return Ok(None);
        }
        if last == Last::Close {
            outbox.closed();
        }
        Ok(Some(last))
    }

    /// Whether the next messages can be sent without asking the hub.
    fn is_at_hand(&self, buffers: &Buffers) -> bool {
        let Behind { file, next_id, .. } = &self.behind;
        next_id.is_some_and(|next_id| buffers.frames.has(file, next_id))
    }

    /// Sends messages that are at hand; false when the socket is full.
    fn send_messages(&mut self, step: &mut Step, buffers: &mut Buffers) -> io::Result<bool> {
        let Behind { outbox, file, cut, each, next_id, .. } = &mut self.behind;
        let id = next_id.expect("it is at hand");
        let end_id = each.as_ref().map_or(u64::MAX, |end| end.last_id + 1);
        let (least, most) = (step.room(), buffers.step_bytes.saturating_sub(step.sent).max(1));
        let slice = buffers.frames.slice(id, end_id, least, most);
        let slice = slice.inspect_err(|error| unreadable(file, error))?;
        let sent = step.send(outbox, slice.bytes())?;
        let is_all = sent == slice.bytes().len();
        let after = if is_all {
            // The slice may be empty: a stretch may end with holes, which no frame tells of.
            slice.next_id()
        } else {
            let (rest, after, of_file) = slice.cut(sent);
            (*cut, *file) = (rest, of_file);
            after
        };
        *next_id = Some(after);
        // A history is not what was said and delivered meanwhile.
        if each.is_none() {
            buffers.metrics.delivered(slice.count_before(after));
        }
        Ok(is_all)
    }

    /// Closes a client that takes nothing. It is sent a close frame if no other frame is begun.
    pub(super) fn give_up(&self) {
        let Behind { outbox, cut, history, .. } = &self.behind;
        if history.is_none() && !cut.is_begun() {
            // The socket is most likely full; then the client hears nothing.
            let _ = outbox.send_now(&close_frame(CloseReason::Stalled));
        }
        outbox.abort_stalled();
    }
}

fn unreadable(file: &TextFile, error: &io::Error) {
    log_unreadable(path_of(file.file()), error);
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::{
        command::{ClientId, queue},
        history::{History, Resume},
        stamps::Stamps,
        testing::{Dir, pair},
        wire::HistoryFrame,
    };

    #[test]
    fn a_step_forgets_what_any_client_had_read_before_a_line_was_erased() {
        let dir = Dir::new();
        dir.write(format!("\"{}\"\n", "x".repeat(1000)).repeat(1000));
        let file = Arc::new(File::open(dir.file()).expect("a file of our own"));
        let end = dir.read().len() as u64;
        let mut history = History::load(file, end, 1 << 20).expect("a file of our own");
        let snapshot = history.snapshot(&Resume::default(), &"e".into());
        let (socket, _peer) = pair(300_000);
        let mut cursor = Cursor::new(Behind {
            client: ClientId(1),
            outbox: Arc::new(Outbox::new(socket)),
            hub: queue(None).0,
            file: history.file().clone(),
            cut: CutFrame::default(),
            history: Some(Box::new(HistoryFrame::new(snapshot).expect("a file of our own"))),
            each: None,
            next_id: None,
        });
        let mut buffers = Buffers::new(Arc::default());
        // The text is what this client was sent, the frames what another one lacks.
        assert_eq!(cursor.step(None, &mut buffers).expect("the peer is there"), Progress::Some);
        buffers.frames.take(history.stretch(1), Stamps::default()).expect("a file of our own");

        history.erase(&[1]).expect("a file of our own");
        assert!(!buffers.text.is_latest() && !buffers.frames.is_latest(), "both are of before");
        cursor.step(None, &mut buffers).expect("the peer is there");
        assert!(buffers.text.is_latest(), "blocks of text are kept");
        assert!(buffers.frames.is_latest(), "frames are kept");
    }
}
