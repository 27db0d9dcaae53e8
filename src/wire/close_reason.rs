//! Why the server closes a WebSocket, as the peer is told.

use tungstenite::protocol::frame::coding::CloseCode;

/// Why the server closes a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The server stops.
    Stopping,
    /// The channel was put away.
    PutAway,
    /// The numbering is another one than the clients know.
    Renumbered,
    /// The file of the channel was replaced.
    FileChanged,
    /// The file of the default channel failed, and the server ends.
    ServerCannotStore,
    /// The file of another channel failed.
    ChannelCannotStore,
    /// The client may not read the channel any more.
    NotAReader,
    /// The client took nothing for too long.
    Stalled,
    /// The client has not answered a ping.
    Silent,
    /// A message is longer than the server takes.
    TooLong,
    /// A long message did not come in time.
    Unfinished,
    /// There is no room for more of an unfinished message.
    NoRoom,
    /// A text is not UTF-8.
    NotUtf8,
    /// The peer broke the protocol.
    Protocol,
    /// Something else failed.
    Unexpected,
}

impl CloseReason {
    /// The close code, RFC 6455 section 7.4.
    pub fn code(self) -> CloseCode {
        match self {
            CloseReason::PutAway => CloseCode::Away,
            CloseReason::Stopping | CloseReason::Renumbered | CloseReason::FileChanged => {
                CloseCode::Restart
            }
            CloseReason::ServerCannotStore
            | CloseReason::ChannelCannotStore
            | CloseReason::Unexpected => CloseCode::Error,
            CloseReason::NotAReader => CloseCode::Policy,
            CloseReason::Stalled
            | CloseReason::Silent
            | CloseReason::Unfinished
            | CloseReason::NoRoom => CloseCode::Again,
            CloseReason::TooLong => CloseCode::Size,
            CloseReason::NotUtf8 => CloseCode::Invalid,
            CloseReason::Protocol => CloseCode::Protocol,
        }
    }

    /// The sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            CloseReason::Stopping => "the server is stopping; come back",
            CloseReason::PutAway => "the channel was put away",
            CloseReason::Renumbered => "the messages have other numbers now; come back",
            CloseReason::FileChanged => "the channel's file is another one now; come back",
            CloseReason::ServerCannotStore => "the server cannot store messages any more",
            CloseReason::ChannelCannotStore => "the channel cannot store messages now",
            CloseReason::NotAReader => {
                "this needs the right read in the channel, which was taken back"
            }
            CloseReason::Stalled => "nothing was taken for too long; come back with after=",
            CloseReason::Silent => "no answer to a ping; come back with after=",
            CloseReason::Unfinished => "the message did not come in time",
            CloseReason::NoRoom => {
                "many long messages are on their way to the server; come back later"
            }
            CloseReason::TooLong => "the message is longer than this server takes",
            CloseReason::NotUtf8 => "text must be UTF-8",
            CloseReason::Protocol => "not the WebSocket protocol",
            CloseReason::Unexpected => "unexpected",
        }
    }
}
