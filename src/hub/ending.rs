//! How a hub ends: with the server, alone when its file fails, or because its channel is put away.
//!
//! In each case all clients have been sent what any client was shown, and a close frame.

use std::io;

use log::{error, info, warn};
use tungstenite::protocol::frame::coding::CloseCode;

use super::Hub;
use crate::journal::Fatal;

/// The close frame for all clients when the server stops.
pub(super) const STOPPING: (CloseCode, &str) =
    (CloseCode::Restart, "the server is stopping; come back");

/// The close frame for all clients when the numbering is another one than they know.
pub(super) const FORKED: (CloseCode, &str) =
    (CloseCode::Restart, "the messages have other numbers now; come back");

/// The close frame for the clients of a channel that is put away.
const PUT_AWAY: (CloseCode, &str) = (CloseCode::Away, "the channel was put away");

/// What the end of a hub's file means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end of the server.
    Default,
    /// The end of this channel alone; the next request opens it anew.
    Channel,
}

impl Role {
    /// The close frame for the clients when the file fails.
    fn goodbye(self, fatal: &Fatal) -> (CloseCode, &'static str) {
        match (self, fatal) {
            (_, Fatal::Forked(_)) => FORKED,
            (Role::Default, _) => (CloseCode::Error, "the server cannot store messages any more"),
            (Role::Channel, Fatal::Storage(_) | Fatal::CannotJoin(_) | Fatal::Panicked) => {
                (CloseCode::Error, "the channel cannot store messages now")
            }
            (Role::Channel, Fatal::Changed(_)) => {
                (CloseCode::Restart, "the channel's file is another one now; come back")
            }
        }
    }
}

impl Hub {
    /// Ends after the file failed: a message that one client was shown is sent to all, and no other
    /// message; then all clients are sent a close frame.
    pub(super) fn fail(&mut self, fatal: &Fatal, role: Role) {
        error!("{}: {fatal}", self.journal.path().display());
        if let Fatal::Changed(_) = fatal {
            self.give_up_numbering();
        }
        // A message that one client was shown is sent to all.
        self.fanout.retract();
        self.deliver(|| false);
        self.summary.end();
        let (code, reason) = role.goodbye(fatal);
        self.fanout.close_all(code, reason);
        self.hand_over_clients();
    }

    /// Sees to it that no other file gets the epoch of this one.
    fn give_up_numbering(&mut self) {
        let given_up = match self.journal.note_numbering(&self.history) {
            Ok(()) => Ok(()),
            // The file was cut, so that nobody can say any more how far it came.
            Err(_) => self.journal.forget_epoch(),
        };
        if let Err(error) = given_up {
            let path = self.journal.path().display();
            warn!("{path}: that the numbering ended could not be noted beside it: {error}");
        }
    }

    /// Refuses posts from now on, and sends all clients a close frame.
    pub(super) fn stop(&mut self) -> Result<(), Fatal> {
        self.stopping = true;
        self.refuse_posts_to_come();
        self.followers.end();
        self.sync_and_note()?;
        self.summary.note_stored();
        self.deliver(|| false);
        self.fanout.close_all(STOPPING.0, STOPPING.1);
        self.hand_over_clients();
        Ok(())
    }

    /// Gives the file another name, and sends all clients a close frame. When the file cannot get
    /// another name, the channel goes on.
    pub(super) fn put_away(&mut self, reply: oneshot::Sender<io::Result<()>>) -> Result<(), Fatal> {
        // Foreign lines are in the file that is put away, so clients are sent these, too.
        self.commit(Vec::new())?;
        self.sync_and_note()?;
        let away = match &self.replica {
            None => self.journal.put_away(),
            Some(_) => self.journal.put_away_copy(),
        };
        if let Ok(path) = &away {
            info!("{} was put away as {}", self.journal.path().display(), path.display());
            self.is_put_away = true;
            self.summary.end();
            self.followers.end();
            self.deliver(|| false);
            self.fanout.close_all(PUT_AWAY.0, PUT_AWAY.1);
            self.hand_over_clients();
        }
        // A caller that has stopped waiting needs no answer.
        let _ = reply.send(away.map(drop));
        Ok(())
    }

    /// Syncs all that was written, and notes how far the numbering and the stamps have come.
    pub(super) fn sync_and_note(&mut self) -> Result<(), Fatal> {
        self.journal.sync()?;
        self.journal.end_stamps()?;
        self.noted = None;
        self.note_numbering();
        Ok(())
    }
}
