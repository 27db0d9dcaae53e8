//! Where an engine is, and how it is reached: by its address, or by asking Sentinels.

use std::time::{Duration, Instant};

use redis::{Connection, ConnectionAddr, cmd};

use super::{EngineError, SCRIPT_TIME};
use crate::config::{EnginePlace, EngineUrl};

/// How long connecting may take.
const CONNECT_TIME: Duration = Duration::from_secs(1);

/// Opens a connection.
pub(super) fn open(url: &EngineUrl, address: &ConnectionAddr) -> Result<Connection, EngineError> {
    let client = redis::Client::open(url.connection(address)?)?;
    let connection = client.get_connection_with_timeout(CONNECT_TIME)?;
    connection.set_write_timeout(Some(SCRIPT_TIME))?;
    connection.set_read_timeout(Some(SCRIPT_TIME))?;
    Ok(connection)
}

/// Where the engine is now.
pub(super) fn address(url: &EngineUrl) -> Result<ConnectionAddr, EngineError> {
    let (sentinels, name) = match url.place() {
        EnginePlace::At(address) => return Ok(address.clone()),
        EnginePlace::Sentinels(sentinels, name) => (sentinels, name),
    };
    let mut last = EngineError::Unfit(format!("no Sentinel knows a primary {name}"));
    let deadline = Instant::now() + SCRIPT_TIME;
    for (host, port) in sentinels {
        if Instant::now() > deadline {
            break;
        }
        match ask_sentinel(host, *port, name) {
            Ok(Some((host, port))) => return Ok(ConnectionAddr::Tcp(host, port)),
            Ok(None) => {}
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Where a Sentinel says that a primary is.
fn ask_sentinel(host: &str, port: u16, name: &str) -> redis::RedisResult<Option<(String, u16)>> {
    let client = redis::Client::open(ConnectionAddr::Tcp(host.to_owned(), port))?;
    let mut connection = client.get_connection_with_timeout(CONNECT_TIME)?;
    connection.set_read_timeout(Some(CONNECT_TIME))?;
    cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name).query(&mut connection)
}
