//! How a hub ends: with the server, alone when its file fails, or because its channel is put away.
//!
//! Whichever it is, everybody has been told afterwards, and was shown what anybody was shown.

use std::io;

use crossbeam_channel::Sender;
use log::{error, info, warn};
use tungstenite::protocol::frame::coding::CloseCode;

use super::Hub;
use crate::journal::Fatal;

/// What everybody is told when the server stops.
pub(super) const STOPPING: (CloseCode, &str) =
    (CloseCode::Restart, "the server is stopping; come back");

/// What the clients of a channel are told that is put away.
const AWAY: (CloseCode, &str) = (CloseCode::Away, "the channel was put away");

/// What the end of a hub's file means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end of the server.
    Default,
    /// The end of this channel alone; the next request opens it anew.
    Channel,
}

impl Role {
    /// What clients are told when the file fails.
    fn goodbye(self, fatal: &Fatal) -> (CloseCode, &'static str) {
        match (self, fatal) {
            (Role::Default, _) => (CloseCode::Error, "the server cannot store messages any more"),
            (Role::Channel, Fatal::Storage(_)) => {
                (CloseCode::Error, "the channel cannot store messages now")
            }
            (Role::Channel, Fatal::Changed(_)) => {
                (CloseCode::Restart, "the channel's file is another one now; come back")
            }
        }
    }
}

impl Hub {
    /// The file failed: whoever is there is told, and nothing that was not shown to anybody is shown.
    pub(super) fn fail(&mut self, fatal: &Fatal, role: Role) {
        error!("{}: {fatal}", self.journal.path().display());
        if let Fatal::Changed(_) = fatal {
            self.give_up_numbering();
        }
        // What one client was shown, all are shown.
        self.fanout.retract();
        self.deliver(|| false);
        self.summary.end();
        let (code, reason) = role.goodbye(fatal);
        self.fanout.close_all(code, reason);
        self.hand_over_fallen();
    }

    /// Sees to it that no other file goes on under the name of this one's numbering.
    fn give_up_numbering(&mut self) {
        let given_up = match self.journal.remember(&self.history) {
            Ok(()) => Ok(()),
            // The file was cut, so that how far it came cannot be said any more.
            Err(_) => self.journal.forget_epoch(),
        };
        if let Err(error) = given_up {
            warn!("that the numbering ended could not be noted beside the file: {error}");
        }
    }

    /// Takes nothing more, and says so to everybody.
    pub(super) fn stop(&mut self) -> Result<(), Fatal> {
        self.stopping = true;
        self.followers.end();
        self.end()?;
        self.deliver(|| false);
        self.fanout.close_all(STOPPING.0, STOPPING.1);
        self.hand_over_fallen();
        Ok(())
    }

    /// Gives the file another name, and says goodbye to everybody. When that cannot be done, all is as
    /// it was.
    pub(super) fn put_away(&mut self, reply: &Sender<io::Result<()>>) -> Result<(), Fatal> {
        // What others appended is in the file that is put away; it is shown, too.
        self.commit(Vec::new())?;
        self.end()?;
        let away = self.journal.put_away();
        if let Ok(path) = &away {
            info!("{} was put away as {}", self.journal.path().display(), path.display());
            self.is_away = true;
            self.summary.end();
            self.followers.end();
            self.deliver(|| false);
            self.fanout.close_all(AWAY.0, AWAY.1);
            self.hand_over_fallen();
        }
        // A caller that has stopped waiting needs no answer.
        let _ = reply.send(away.map(drop));
        Ok(())
    }

    /// Nothing is on its way to the disk afterwards.
    pub(super) fn end(&mut self) -> Result<(), Fatal> {
        self.journal.sync()?;
        self.remember();
        Ok(())
    }
}
