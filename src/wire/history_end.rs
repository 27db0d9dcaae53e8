//! How a history is sent: as one frame, or message by message with a frame that ends it.

use std::sync::Arc;

use super::text_frame;
use crate::history::Snapshot;

/// How a client is sent the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HistoryForm {
    /// All of it in one frame.
    #[default]
    OneFrame,
    /// Each message in a frame of its own (`history=each`).
    Each,
}

/// What a client is told after the last message of its history, where each message was a frame of
/// its own (`history=each`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEnd {
    /// The id where the history began.
    pub first_id: u64,
    /// The id of its last line.
    pub last_id: u64,
    epoch: Arc<str>,
    resumed: Option<bool>,
}

impl HistoryEnd {
    /// The end of the history that a snapshot names.
    pub fn of(snapshot: &Snapshot) -> HistoryEnd {
        let Snapshot { stretch, epoch, resumed } = snapshot;
        let (first_id, last_id) = (stretch.first_id, stretch.last_id);
        HistoryEnd { first_id, last_id, epoch: epoch.clone(), resumed: *resumed }
    }

    /// The whole frame.
    pub fn frame(&self) -> Vec<u8> {
        let HistoryEnd { first_id, last_id, epoch, resumed } = self;
        let resumed = resumed.map_or(String::new(), |resumed| format!(",\"resumed\":{resumed}"));
        let json = format!(
            r#"{{"type":"history_end","first_id":{first_id},"last_id":{last_id},"epoch":"{epoch}"{resumed}}}"#
        );
        text_frame(json.as_bytes())
    }
}
