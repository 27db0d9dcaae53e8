//! A connection to the engine for the tests themselves: commands as words, answers as they come. It is
//! not the crate that the server uses, so that a fault of the one is not hidden by the other.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// What an engine answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Status(String),
    Error(String),
    Integer(i64),
    Bytes(Vec<u8>),
    Nil,
    Many(Vec<Reply>),
}

impl Reply {
    /// Bytes or a status as text; empty for nil.
    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Reply::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Reply::Status(text) => text.clone(),
            Reply::Nil => String::new(),
            other => panic!("no text but {other:?}"),
        }
    }

    #[track_caller]
    pub fn number(&self) -> i64 {
        match self {
            Reply::Integer(number) => *number,
            other => panic!("no number but {other:?}"),
        }
    }

    #[track_caller]
    pub fn many(self) -> Vec<Reply> {
        match self {
            Reply::Many(replies) => replies,
            other => panic!("no array but {other:?}"),
        }
    }
}

/// A connection to an engine.
pub struct Resp {
    stream: BufReader<TcpStream>,
}

impl Resp {
    pub fn connect(address: SocketAddr) -> io::Result<Resp> {
        // An engine that is frozen still accepts, so the deadlines are those of reads.
        const DEADLINE: Duration = Duration::from_secs(60);
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Resp { stream: BufReader::new(stream) })
    }

    /// Sends a command and reads its answer.
    pub fn ask(&mut self, words: &[&str]) -> io::Result<Reply> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
        }
        self.stream.get_mut().write_all(&bytes)?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidData)?;
        let number = || rest.parse::<i64>().map_err(io::Error::other);
        Ok(match kind {
            "+" => Reply::Status(rest.into()),
            "-" => Reply::Error(rest.into()),
            ":" => Reply::Integer(number()?),
            "$" if number()? < 0 => Reply::Nil,
            "$" => {
                let mut bytes = vec![0; number()? as usize + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Reply::Bytes(bytes)
            }
            "*" if number()? < 0 => Reply::Nil,
            "*" => Reply::Many((0..number()?).map(|_| self.reply()).collect::<Result<_, _>>()?),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, line.to_owned())),
        })
    }
}
