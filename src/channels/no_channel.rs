//! Why there is no channel of a name, and what is answered then.

use std::io;

use http::StatusCode;

use super::Most;
use crate::{
    http::HttpRefusal,
    journal::{is_full, is_short},
    name::Name,
};

/// Why there is no channel of a name.
#[derive(Debug)]
pub enum NoChannel {
    /// Nobody has made one.
    Missing,
    /// Its file cannot be served now; why, for a person.
    Unavailable(String),
    /// There are so many others that there may be no more.
    TooMany(Most),
    /// Its file cannot be made.
    NoFile(io::Error),
    /// Its file cannot be put away, and all is as it was.
    NotPutAway(io::Error),
    /// It is on all nodes of a cluster, whose engine is unavailable.
    NoEngine,
    /// The server is about to end.
    Stopping,
}

impl NoChannel {
    /// The answer to somebody who asked for it.
    pub fn refusal(self, name: &Name) -> HttpRefusal {
        match self {
            // It is always there, so somebody may not read it.
            NoChannel::Missing if name.is_default() => HttpRefusal::not_found(format!(
                "the channel {name} needs a token that may read it, which the server's operator gives \
                 out: send Authorization: Bearer TOKEN, or ?token=TOKEN"
            )),
            // The same words for a channel that one may not read.
            NoChannel::Missing => HttpRefusal::not_found(format!(
                "there is no channel {name}, or it needs a token; PUT /{name} makes one, /channels lists \
                 those there are, and the default channel's chat is at /ws"
            )),
            NoChannel::Unavailable(why) => {
                HttpRefusal::unavailable(format!("the channel {name} cannot be served now: {why}"))
            }
            NoChannel::TooMany(Most { count, limit }) => HttpRefusal::new(
                StatusCode::INSUFFICIENT_STORAGE,
                match limit {
                    None => format!(
                        "there are {count} channels already; the server's --max-channels allows more"
                    ),
                    Some(limit) => format!(
                        "the server's machine can carry {count} channels; {limit} allows no more"
                    ),
                },
            ),
            NoChannel::NoFile(why) if is_full(&why) => HttpRefusal::new(
                StatusCode::INSUFFICIENT_STORAGE,
                format!("the disk is full, so that the channel {name} cannot be made now"),
            ),
            NoChannel::NoFile(why) if is_short(&why) => HttpRefusal::unavailable(
                "the server is short of open files or memory; come back later",
            ),
            NoChannel::NoFile(why) => HttpRefusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the folder of channels cannot be written: {}", why.kind()),
            ),
            NoChannel::NotPutAway(why) => HttpRefusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the channel {name} cannot be put away: {}", why.kind()),
            ),
            NoChannel::NoEngine => HttpRefusal::unavailable(format!(
                "the channel {name} is on all nodes of a cluster, whose engine is unavailable; it may have \
                 been put away, so look again later"
            )),
            NoChannel::Stopping => stopping(),
        }
    }
}

/// What is said when the server is about to end.
pub fn stopping() -> HttpRefusal {
    HttpRefusal::unavailable("the server is stopping; come back soon")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_read_the_default_channel_is_not_told_to_make_it() {
        let refusal = NoChannel::Missing.refusal(&Name::default());
        assert_eq!(refusal.status, StatusCode::NOT_FOUND);
        assert!(
            refusal.sentence.contains("needs a token that may read it"),
            "{}",
            refusal.sentence
        );
        assert!(!refusal.sentence.contains("PUT"), "{}", refusal.sentence);
    }
}
