//! The lock file while the server runs: it is put back when another program took it away.

use std::{
    fs::{self, TryLockError},
    io, mem,
};

use log::warn;

use super::{Fatal, Journal, beside::path_beside, identity, recovery::take_lock};

impl Journal {
    /// Looks whether the lock file is still in its place, and puts it there if not: another server could
    /// use the text file, and the next start would not know the epoch. Returns whether it was put
    /// there; the numbering is to be noted then.
    ///
    /// # Errors
    /// When another server holds the lock.
    pub fn survey_lock(&mut self) -> Result<bool, Fatal> {
        let lock_path = path_beside(&self.path, "lock");
        // The start followed a link, too.
        let what = match fs::metadata(&lock_path) {
            Ok(found) if self.epoch.is_kept_in(&found) => return Ok(false),
            Ok(_) => "replaced",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "removed",
            // The text file cannot be looked at either, and its own survey tells of that.
            Err(_) => return Ok(false),
        };
        if !self.is_in_its_place() {
            // Its own survey tells what became of the text file.
            return Ok(false);
        }
        let shown = lock_path.display();
        match take_lock(&lock_path) {
            Ok(lock_file) => {
                match self.epoch.move_to(lock_file, &lock_path) {
                    Ok(()) => warn!("{shown} was {what}; the server wrote it again"),
                    Err(error) => warn!(
                        "{shown} was {what}; the server holds the lock again, but the epoch \
                         may not outlive a crash now: {error}"
                    ),
                }
                self.has_warned_of_lock = false;
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Err(Fatal::Changed(format!(
                "{shown} was {what} while the server ran, and another server uses the file \
                 now"
            ))),
            Err(TryLockError::Error(error)) => {
                if !mem::replace(&mut self.has_warned_of_lock, true) {
                    warn!(
                        "{shown} was {what}, and cannot be written again: {error}. Until \
                         then, nothing keeps another server from using the file."
                    );
                }
                Ok(false)
            }
        }
    }

    /// Whether the text file is still under its path.
    fn is_in_its_place(&self) -> bool {
        self.system.look_at(&self.path).is_ok_and(|found| identity(&found) == self.identity)
    }
}
