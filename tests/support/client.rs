//! A client of the chat that keeps to the rules: it says things, and hears what others say.

use std::{
    io::{self, ErrorKind},
    net::TcpStream,
};

use tungstenite::{
    Error, Message, WebSocket, error::ProtocolError, protocol::CloseFrame,
    protocol::WebSocketConfig, protocol::frame::coding::CloseCode,
};

use super::{
    envelopes::{Answer, Heard, History},
    patience::{PATIENCE, is_timeout},
    text::is_said,
};

/// A well-behaved client.
pub struct Client {
    socket: WebSocket<TcpStream>,
    /// The frame that greeted it.
    pub history: History,
}

/// What a server sends after the history.
#[derive(Debug)]
pub enum Frame {
    Message(Heard),
    Answer(Answer),
    Ping,
    Pong(Vec<u8>),
    Close(u16, String),
    /// The connection ended; what the socket said.
    End(String),
}

impl Client {
    /// Shakes hands on a connection and reads the history.
    pub fn on(stream: TcpStream, path: &str) -> Result<Client, Error> {
        let url = format!("ws://{}{path}", stream.peer_addr()?);
        // Histories of any size.
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) = tungstenite::client::client_with_config(url, stream, Some(config))
            .map_err(|error| match error {
                tungstenite::HandshakeError::Failure(error) => error,
                tungstenite::HandshakeError::Interrupted(_) => {
                    Error::Io(io::Error::new(ErrorKind::TimedOut, "no answer to the handshake"))
                }
            })?;
        let mut client = Client { socket, history: History::default() };
        match client.socket.read()? {
            Message::Text(text) => client.history = History::parse(&text),
            other => panic!("the first frame is no history: {other:?}"),
        }
        Ok(client)
    }

    #[track_caller]
    pub fn say(&mut self, text: &str) {
        assert!(self.try_say(text), "the connection is gone");
    }

    /// False when the connection is gone.
    pub fn try_say(&mut self, text: &str) -> bool {
        self.send(Message::text(text))
    }

    /// Sends any frame; false when the connection is gone.
    pub fn send(&mut self, message: Message) -> bool {
        self.socket.send(message).is_ok()
    }

    /// The next frame is this message.
    #[track_caller]
    pub fn hears(&mut self, data: &str) -> Heard {
        let heard = self.hears_one();
        is_said(&heard.data, data);
        heard
    }

    /// The next frame is a message.
    #[track_caller]
    pub fn hears_one(&mut self) -> Heard {
        match self.next() {
            Frame::Message(heard) => heard,
            other => panic!("no message but {other:?}"),
        }
    }

    /// Says a thing and hears it back, with nothing in between.
    #[track_caller]
    pub fn says(&mut self, text: &str) -> Heard {
        self.say(text);
        self.hears(text)
    }

    /// Says a thing among others who talk, and hears until it comes back.
    #[track_caller]
    pub fn says_among_others(&mut self, text: &str) -> Heard {
        self.say(text);
        loop {
            let heard = self.hears_one();
            if heard.data == text {
                return heard;
            }
        }
    }

    /// The next frame is an answer with this code.
    #[track_caller]
    pub fn is_told(&mut self, code: &str) -> Answer {
        match self.next() {
            Frame::Answer(answer) if answer.code == code => answer,
            other => panic!("not {code} but {other:?}"),
        }
    }

    /// The connection is closed with this code, whatever comes before; gives the reason.
    #[track_caller]
    pub fn is_closed_with(&mut self, code: u16) -> String {
        loop {
            match self.next() {
                Frame::Close(got, reason) => {
                    assert_eq!(got, code, "close code; reason: {reason}");
                    return reason;
                }
                Frame::End(end) => panic!("no close frame but {end}"),
                _ => (),
            }
        }
    }

    /// The next frame but for pings and pongs.
    pub fn next(&mut self) -> Frame {
        loop {
            match self.next_of_all() {
                Frame::Ping | Frame::Pong(_) => (),
                frame => return frame,
            }
        }
    }

    /// The next frame of any kind; no frame within the deadline is a failure.
    pub fn next_of_all(&mut self) -> Frame {
        match self.socket.read() {
            Ok(Message::Text(text)) => match Heard::parse(&text) {
                Some(heard) => Frame::Message(heard),
                None => Frame::Answer(Answer::parse(&text)),
            },
            Ok(Message::Ping(_)) => Frame::Ping,
            Ok(Message::Pong(payload)) => Frame::Pong(payload.to_vec()),
            Ok(Message::Close(Some(CloseFrame { code, reason }))) => {
                // The answer to it waits in here and must go out.
                let _ = self.socket.flush();
                Frame::Close(code.into(), reason.to_string())
            }
            Ok(other) => panic!("the server sent {other:?}"),
            Err(Error::Io(error)) if is_timeout(&error) => {
                panic!("nothing came within {PATIENCE:?}")
            }
            // A read with a timeout ends so when the test's process is stopped, and goes on afterwards.
            Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => self.next_of_all(),
            Err(Error::Io(error)) => Frame::End(error.to_string()),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => Frame::End("closed".into()),
            Err(Error::Protocol(
                error @ (ProtocolError::ResetWithoutClosingHandshake
                | ProtocolError::SendAfterClosing),
            )) => Frame::End(error.to_string()),
            Err(error) => panic!("the server broke the protocol: {error}"),
        }
    }

    /// Says goodbye and waits until the server has answered it.
    #[track_caller]
    pub fn leave(mut self) {
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.socket.close(Some(goodbye)).expect("the connection is there");
        self.is_closed_with(1000);
    }
}
