//! `GET /messages?follow=1` and server-sent events: the stream of what is said.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Channel, Exchange, Stop, chunks::Chunks, query::Query};
use crate::{access::Right, history::Window};

impl Exchange<'_> {
    /// Streams the messages after `after`, until the peer leaves or the server stops. Those up to
    /// `last_id`, which a limit may have left out, come at once.
    pub(super) fn follow(
        &mut self,
        channel: &Channel,
        body: &mut Chunks,
        query: &Query,
        mut after: u64,
        last_id: u64,
        woken: &Receiver<()>,
    ) -> Result<(), Stop> {
        let rest = query.rest();
        // From here on the hub wakes it when the rules change; they may have changed before.
        if !self.caller().may(Right::Read, &channel.name) {
            return Ok(());
        }
        let mut next = if after < last_id { Ok(()) } else { woken.recv_timeout(self.idle()) };
        loop {
            if !self.caller().may(Right::Read, &channel.name) {
                return Ok(());
            }
            match next {
                Ok(()) => {
                    let window = Window { after: Some(after), ..Window::default() };
                    let Ok(view) = channel.hub.look(window, None) else { return Ok(()) };
                    after = view.stretch.last_id;
                    self.write_stretch(body, &rest, view.stretch, view.stamps)?;
                }
                Err(RecvTimeoutError::Timeout) if self.peer_left() => return Err(Stop::PeerGone),
                Err(RecvTimeoutError::Timeout) => body.show_life(self)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            next = woken.recv_timeout(self.idle());
        }
    }

    /// After this long without a message, a stream looks whether anybody is there.
    pub(super) fn idle(&self) -> Duration {
        self.web.config.ping_interval
    }

    /// Whether the peer of a stream is gone. What it sent that nobody has read, such as its next request,
    /// does not hide that.
    pub(super) fn peer_left(&self) -> bool {
        // Hang-ups and errors are always told.
        let mut socket = [PollFd::new(self.web.outbox.socket(), PollFlags::RDHUP)];
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A signal may interrupt the call; the next look will tell.
        poll(&mut socket, Some(&AT_ONCE)).is_ok_and(|ended| ended > 0)
    }
}
