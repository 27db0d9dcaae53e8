//! What the log was told of an engine that is unavailable, so that it is told once.

use super::engine::EngineError;

/// What the log was told, if it was.
#[derive(Debug, Default)]
pub struct Complaint(Option<String>);

impl Complaint {
    /// Whether the log is to be told of this: it was told nothing yet, or this is something that only a
    /// person can change, and something else was said. How a connection fails differs from attempt to
    /// attempt, and is said once.
    pub fn is_news(&mut self, why: &EngineError) -> bool {
        let words = why.to_string();
        let is_news = self.0.as_ref().is_none_or(|said| why.is_lasting() && *said != words);
        if is_news {
            self.0 = Some(words);
        }
        is_news
    }

    /// Whether the log was told.
    pub fn was_made(&self) -> bool {
        self.0.is_some()
    }

    /// The engine is available again. Whether the log was told that it was not.
    pub fn ends(&mut self) -> bool {
        self.0.take().is_some()
    }
}
