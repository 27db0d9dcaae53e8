//! Where one client that is behind stands, and its next step.

use std::{io, sync::Arc, time::Instant};

use log::error;

use super::{Behind, stalled_close};
use crate::{
    command::NextStep,
    history::BLOCK,
    metrics::Metrics,
    outbox::{Last, Outbox},
    wire::{CutFrame, Frames, LiveFrames},
};

/// What is sent at first, to find out whether the socket takes anything: reading a whole block for a
/// socket that takes nothing would be wasted.
const FIRST_SEND: usize = 4 << 10;

/// What a client is sent before others get their turn: so little that a thousand who join at once all
/// see progress, and so much that the wait for events in between does not count.
const STEP_BYTES: usize = 2 * BLOCK;

// A try is a small part of a block, and a turn gets a client a whole one.
const _: () = assert!(FIRST_SEND < BLOCK && BLOCK <= STEP_BYTES);

/// One client's way from behind to live.
pub(super) struct Cursor {
    behind: Behind,
    /// When it last took something.
    pub(super) last_progress: Instant,
    /// Whether a question to the hub found it gone.
    hub_is_gone: bool,
}

/// What a step of a cursor sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The socket is full, and took nothing.
    None,
    /// Something; there is more.
    Some,
    /// All there is: the client is live, or closed.
    Done,
}

/// The memory of a thread, shared by all its clients.
#[derive(Debug)]
pub(super) struct Buffers {
    /// What a client is sent, in bytes, before others get their turn.
    pub(super) step_bytes: usize,
    block: Vec<u8>,
    frames: Frames,
    metrics: Arc<Metrics>,
}

impl Buffers {
    pub(super) fn new(metrics: Arc<Metrics>) -> Buffers {
        Buffers { step_bytes: STEP_BYTES, block: Vec::new(), frames: Frames::default(), metrics }
    }

    /// Gives the memory back while nobody is behind.
    pub(super) fn shrink(&mut self) {
        self.block = Vec::new();
        self.frames = Frames::default();
    }
}

/// How much of a step is done.
struct Step {
    sent: usize,
}

impl Step {
    /// How many bytes to try next.
    fn room(&self) -> usize {
        if self.sent == 0 { FIRST_SEND } else { BLOCK }
    }

    fn send(&mut self, outbox: &Outbox, bytes: &[u8]) -> io::Result<usize> {
        let sent = outbox.send_now(bytes)?;
        self.sent += sent;
        Ok(sent)
    }

    fn end(&self) -> Progress {
        if self.sent == 0 { Progress::None } else { Progress::Some }
    }
}

impl Cursor {
    pub(super) fn new(behind: Behind) -> Cursor {
        Cursor { behind, last_progress: Instant::now(), hub_is_gone: false }
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.behind.outbox
    }

    /// Sends as long as the socket takes it at once, up to about a turn's worth.
    ///
    /// # Errors
    /// When the peer is gone or the file cannot be read; the connection is to be dropped then.
    pub(super) fn step(&mut self, buffers: &mut Buffers) -> io::Result<Progress> {
        if self.outbox().is_closed() {
            return Ok(Progress::Done);
        }
        let mut step = Step { sent: 0 };
        let mut unsent = None;
        while step.sent < buffers.step_bytes {
            if !self.finish_frame(&mut step, buffers)? {
                return Ok(step.end());
            }
            match self.send_waiting(&mut step, buffers)? {
                Some(Last::Close) => return Ok(Progress::Done),
                Some(Last::No) => {}
                None => return Ok(step.end()),
            }
            match &mut unsent {
                None => match self.behind.hub.next_step(self.behind.client, self.behind.next_id) {
                    Ok(NextStep::Live) => return Ok(Progress::Done),
                    Ok(NextStep::ControlFrames) => {}
                    Ok(NextStep::Stretch(stretch, times)) => {
                        let after = stretch.last_id + 1;
                        let frames = LiveFrames::new(stretch, times).inspect_err(unreadable)?;
                        unsent = Some((frames, after));
                    }
                    // Its goodbye waits to be sent, if there is one.
                    Err(_) if !self.hub_is_gone => self.hub_is_gone = true,
                    Err(_) => return Ok(Progress::Done),
                },
                Some((frames, after)) => {
                    frames.fill(&mut buffers.frames, step.room()).inspect_err(unreadable)?;
                    if buffers.frames.is_empty() {
                        // Holes may stand at its end.
                        self.behind.next_id = Some(*after);
                        unsent = None;
                        continue;
                    }
                    if !self.send_frames(&mut step, buffers)? {
                        return Ok(step.end());
                    }
                }
            }
        }
        Ok(Progress::Some)
    }

    /// Sends what is left of the frame that was begun; false when the socket is full.
    fn finish_frame(&mut self, step: &mut Step, buffers: &mut Buffers) -> io::Result<bool> {
        let Behind { outbox, file, cut, history, .. } = &mut self.behind;
        let block = &mut buffers.block;
        while !cut.is_empty() {
            block.clear();
            cut.peek(file, block, step.room()).inspect_err(unreadable)?;
            let sent = step.send(outbox, block)?;
            cut.advance(sent);
            if sent < block.len() {
                return Ok(false);
            }
        }
        while let Some(frame) = history {
            block.clear();
            frame.peek(block, step.room()).inspect_err(unreadable)?;
            let sent = step.send(outbox, block)?;
            frame.advance(sent);
            if frame.is_done() {
                *history = None;
            }
            if sent < block.len() || step.sent >= buffers.step_bytes {
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

    /// Sends live messages; false when the socket is full.
    fn send_frames(&mut self, step: &mut Step, buffers: &mut Buffers) -> io::Result<bool> {
        let frames = &buffers.frames;
        let sent = step.send(&self.behind.outbox, frames.bytes())?;
        let is_all = sent == frames.bytes().len();
        let next_id = if is_all {
            frames.next_id()
        } else {
            let (cut, next_id) = frames.cut(sent);
            self.behind.cut = cut;
            next_id
        };
        self.behind.next_id = Some(next_id);
        buffers.metrics.delivered(frames.len() as u64 - frames.count_from(next_id));
        Ok(is_all)
    }

    /// Closes a client that takes nothing, with a word if it can still be said between frames.
    pub(super) fn give_up(&self) {
        let Behind { outbox, cut, history, .. } = &self.behind;
        if history.is_none() && !cut.is_begun() {
            // The socket is full, so this is a hope and no more.
            let _ = outbox.send_now(&stalled_close());
        }
        outbox.abort_stalled();
    }
}

fn unreadable(error: &io::Error) {
    error!("reading the history failed: {error}");
}
