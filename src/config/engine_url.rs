//! Where the engine of a cluster is: `--cluster`, which may hold a password that is never shown.

use std::{fmt, str::FromStr};

use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, io::tcp::TcpSettings,
};

/// The port of Sentinel where none is given.
const SENTINEL_PORT: u16 = 26379;

/// What is said of a URL that is none.
const KINDS: &str = "must be redis://HOST:PORT/DB, redis+unix:///PATH or \
                     redis+sentinel://HOST:PORT,HOST:PORT/NAME";

/// The address of an engine, with the user and the password that it asks for.
#[derive(Clone)]
pub struct EngineUrl {
    place: EnginePlace,
    settings: RedisConnectionInfo,
}

/// Where an engine is found.
#[derive(Clone, Debug)]
pub enum EnginePlace {
    /// At this address.
    At(ConnectionAddr),
    /// Where one of these Sentinels says that the primary of this name is.
    Sentinels(Vec<(String, u16)>, String),
}

impl EngineUrl {
    /// Where the engine is found.
    pub fn place(&self) -> &EnginePlace {
        &self.place
    }

    /// How to connect to an engine at an address.
    ///
    /// # Errors
    /// When the address is none that this build can reach.
    pub fn connection(&self, address: &ConnectionAddr) -> redis::RedisResult<ConnectionInfo> {
        // A batch must not wait for the acknowledgement of the one before it.
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = address.clone().into_connection_info()?;
        Ok(info.set_redis_settings(self.settings.clone()).set_tcp_settings(tcp))
    }
}

impl FromStr for EngineUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<EngineUrl, String> {
        let (scheme, rest) = text.split_once("://").ok_or(KINDS)?;
        match scheme {
            "rediss" if !cfg!(feature = "cluster-tls") => {
                Err("rediss:// (TLS) needs a txtcord that is built with the cargo feature \
                     cluster-tls; or lead it through stunnel or a private network"
                    .into())
            }
            "redis" | "rediss" | "redis+unix" | "unix" | "valkey" => {
                // The library's own words could repeat a password.
                let info = text.into_connection_info().map_err(|_| KINDS)?;
                let settings = info.redis_settings().clone();
                Ok(EngineUrl { place: EnginePlace::At(info.addr().clone()), settings })
            }
            "redis+sentinel" => {
                let (user, rest) = match rest.rsplit_once('@') {
                    Some((user, rest)) => (format!("{user}@"), rest),
                    None => (String::new(), rest),
                };
                let (hosts, name) = rest.split_once('/').unwrap_or((rest, ""));
                let (name, db) = name.split_once('/').unwrap_or((name, "0"));
                if name.is_empty() || hosts.is_empty() {
                    return Err(KINDS.into());
                }
                let sentinels = hosts.split(',').map(sentinel).collect::<Option<Vec<_>>>();
                let info = format!("redis://{user}localhost/{db}");
                let info = info.as_str().into_connection_info().map_err(|_| KINDS)?;
                Ok(EngineUrl {
                    place: EnginePlace::Sentinels(sentinels.ok_or(KINDS)?, name.to_owned()),
                    settings: info.redis_settings().clone(),
                })
            }
            _ => Err(KINDS.into()),
        }
    }
}

fn sentinel(text: &str) -> Option<(String, u16)> {
    match text.rsplit_once(':') {
        Some((host, port)) => Some((host.to_owned(), port.parse().ok()?)),
        None => Some((text.to_owned(), SENTINEL_PORT)).filter(|_| !text.is_empty()),
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            EnginePlace::At(address) => address.fmt(out),
            EnginePlace::Sentinels(sentinels, name) => {
                write!(out, "{name} of Sentinel at")?;
                sentinels.iter().try_for_each(|(host, port)| write!(out, " {host}:{port}"))
            }
        }
    }
}

impl fmt::Debug for EngineUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "EngineUrl({self})")
    }
}
