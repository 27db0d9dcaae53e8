//! What these tests talk with beside `support`: an access file, and requests of somebody.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::*;

/// SHA-256 of `foo`, `bar` and `baz`, which are tokens here.
pub const FOO: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
pub const BAR: &str = "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9";
pub const BAZ: &str = "baa5a0964d3320fbc0c6a922140453c8513ea24ab8fd0577034804a967248096";

/// `printf 'txtcord pseudonym\0correct horse' | sha256sum | xxd -r -p | base32`, the first twelve.
pub const HORSE: &str = "~ra5k4rs4tily";

/// A server with these rules.
pub fn with_rules(rules: &str) -> Setup {
    let setup = Setup::new();
    write_rules(&setup, rules);
    let file = setup.dir.join("access");
    setup.flags(&["--access", file.to_str().expect("a UTF-8 path")])
}

pub fn write_rules(setup: &Setup, rules: &str) {
    let (file, aside) = (setup.dir.join("access"), setup.dir.join("aside"));
    fs::write(&aside, rules).expect("a file");
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).expect("it is ours");
    fs::rename(aside, file).expect("it can be moved");
}

impl Server {
    /// The answer to `PUT /dev`, `POST /dev` and so on, with `?` and this query.
    pub fn does(&self, line: &str, query: &str, body: &str) -> Response {
        let kind = "Content-Type: application/json";
        let mut raw = self.raw();
        let line = if query.is_empty() { line.to_owned() } else { format!("{line}?{query}") };
        raw.send(ask_with(&line, &[kind], body));
        raw.whole()
    }

    /// What `/me` says to somebody with this query and these header fields.
    #[track_caller]
    pub fn me(&self, query: &str, headers: &[&str]) -> Value {
        let answer = self.has(&format!("GET /me?{query}"), headers);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        json(&answer.body)
    }

    /// The status that an upgrade at this path is answered with.
    pub fn upgrade(&self, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut raw = self.raw();
        raw.send(self.head(path, headers));
        raw.head_alone().status
    }
}

/// A connection from another address of this machine.
pub fn connect_from(address: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((address, 0)).into()).expect("an address of this machine");
    socket.connect(&to.into()).expect("a connection");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    stream
}
