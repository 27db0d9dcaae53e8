//! What the engine's keys are called.

use crate::name::Name;

/// The keys of one channel. They share a hash slot.
#[derive(Clone, Debug)]
pub struct Keys {
    pub(super) name: String,
    pub(super) stream: String,
    pub(super) meta: String,
}

impl Keys {
    /// The keys of a channel.
    pub fn of(name: &Name) -> Keys {
        let stream = format!("txtcord:{{{name}}}");
        Keys { name: name.to_string(), meta: format!("{stream}:meta"), stream }
    }

    /// The channel under this epoch, as a member of the set of what was put away.
    pub(super) fn under(&self, epoch: &str) -> String {
        format!("{} {epoch}", self.name)
    }

    /// The name of the channel.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the stream.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The highest batch of the node that has this name in the channel.
    pub(super) fn batches_of(&self, node: &str) -> String {
        format!("{}:by:{node}", self.stream)
    }

    /// The ids of the post that has an Idempotency-Key.
    pub(super) fn ids_of(&self, key: &str) -> String {
        format!("{}:key:{key}", self.stream)
    }
}
