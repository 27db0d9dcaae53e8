//! How a hub ends: with the server, alone when its file fails, or because its channel is put away.
//!
//! In each case all clients have been sent what any client was shown, and a close frame.

use std::io;

use log::{error, info, warn};

use super::Hub;
use crate::{journal::Fatal, name::Name, wire::CloseReason};

/// What the end of a hub's file means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end of the server.
    Default,
    /// The end of this channel alone; the next request opens it anew.
    Channel,
}

impl Role {
    /// The role of the hub of a channel.
    pub fn of(name: &Name) -> Role {
        if name.is_default() { Role::Default } else { Role::Channel }
    }

    /// What the clients are told when the file fails.
    fn close_reason(self, fatal: &Fatal) -> CloseReason {
        match (self, fatal) {
            (_, Fatal::Forked(_)) => CloseReason::Renumbered,
            (Role::Default, _) => CloseReason::ServerCannotStore,
            (Role::Channel, Fatal::Storage(_) | Fatal::CannotJoin(_) | Fatal::Panicked) => {
                CloseReason::ChannelCannotStore
            }
            (Role::Channel, Fatal::Changed(_)) => CloseReason::FileChanged,
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
        self.fanout.close_all(role.close_reason(fatal));
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
        self.fanout.close_all(CloseReason::Stopping);
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
            self.fanout.close_all(CloseReason::PutAway);
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
        self.look_after_lock()?;
        self.noted = None;
        self.note_numbering();
        Ok(())
    }
}
