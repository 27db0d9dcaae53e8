//! The settings that an operator may give: flags, each also an environment variable, and their
//! defaults.
//!
//! README.md promises the defaults. Other modules import the settings from here, so this module
//! imports nothing of the crate.

use std::{
    ffi::OsStr,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{
    Arg, Command, Parser, Subcommand, ValueEnum,
    builder::{BoolishValueParser, PathBufValueParser, TypedValueParser},
};
use ipnet::IpNet;
use log::LevelFilter;

#[cfg_attr(not(feature = "cluster"), path = "config/engine_url/absent.rs")]
mod engine_url;

pub use engine_url::*;

/// The settings of one server, checked.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "txtcord",
    version,
    about = "A chat server whose database is a text file.",
    after_help = "Every flag is also an environment variable: TXTCORD_LISTEN, TXTCORD_FILE, ...\n\
                  Chat: websocat 'ws://127.0.0.1:8000/ws?as=ann'    Watch: tail -f messages.txt",
    max_term_width = 100,
    disable_help_flag = true,
    disable_help_subcommand = true
)]
pub struct Config {
    // A value may begin with a hyphen, so that the error for `--max-clients -1` tells what that
    // flag takes, and not that `-1` is an unknown flag.
    /// Address and port to listen on
    #[arg(
        long,
        global = true,
        env = "TXTCORD_LISTEN",
        hide_env = true,
        value_name = "ADDR",
        default_value = "127.0.0.1:8000",
        allow_hyphen_values = true,
        value_parser = address
    )]
    pub listen: SocketAddr,

    /// The text file: one message a line
    #[arg(
        long,
        env = "TXTCORD_FILE",
        hide_env = true,
        value_name = "PATH",
        default_value = "messages.txt",
        allow_hyphen_values = true,
        value_parser = PathBufValueParser::new().try_map(path)
    )]
    pub file: PathBuf,

    /// The folder of the other channels, one text file each [default: channels, beside --file]
    #[arg(
        long,
        env = "TXTCORD_CHANNELS",
        hide_env = true,
        value_name = "DIR",
        allow_hyphen_values = true,
        value_parser = PathBufValueParser::new().try_map(path)
    )]
    pub channels: Option<PathBuf>,

    /// Most channels beside the default one
    #[arg(
        long,
        env = "TXTCORD_MAX_CHANNELS",
        hide_env = true,
        value_name = "N",
        default_value = "1000",
        allow_hyphen_values = true,
        value_parser = channel_count
    )]
    pub max_channels: usize,

    /// When messages reach the disk: always (before anyone sees them), 1s or never (by the system)
    #[arg(
        long,
        env = "TXTCORD_FSYNC",
        hide_env = true,
        value_name = "WHEN",
        default_value = "always",
        hide_possible_values = true,
        allow_hyphen_values = true
    )]
    pub fsync: Fsync,

    /// Keep no times and senders of messages beside the file, in messages.txt.stamps
    #[arg(
        long,
        env = "TXTCORD_NO_STAMPS",
        hide_env = true,
        value_parser = BoolishValueParser::new()
    )]
    pub no_stamps: bool,

    /// Longest message a client may send
    #[arg(
        long,
        env = "TXTCORD_MAX_MESSAGE",
        hide_env = true,
        value_name = "SIZE",
        default_value = "1MiB",
        allow_hyphen_values = true,
        value_parser = message_size
    )]
    pub max_message: usize,

    /// Most clients at a time
    #[arg(
        long,
        env = "TXTCORD_MAX_CLIENTS",
        hide_env = true,
        value_name = "N",
        default_value = "10000",
        allow_hyphen_values = true,
        value_parser = client_count
    )]
    pub max_clients: usize,

    /// Ping a client after this long without a word from it; gone after twice as long
    #[arg(
        long,
        env = "TXTCORD_PING_INTERVAL",
        hide_env = true,
        value_name = "TIME",
        default_value = "20s",
        allow_hyphen_values = true,
        value_parser = positive_time
    )]
    pub ping_interval: Duration,

    /// Close a client that takes none of what is sent to it for this long
    #[arg(
        long,
        env = "TXTCORD_STALL_TIMEOUT",
        hide_env = true,
        value_name = "TIME",
        default_value = "10s",
        allow_hyphen_values = true,
        value_parser = positive_time
    )]
    pub stall_timeout: Duration,

    /// Most messages sent on connect [default: all of them]
    #[arg(
        long,
        env = "TXTCORD_HISTORY_LIMIT",
        hide_env = true,
        value_name = "N",
        allow_hyphen_values = true,
        value_parser = message_count
    )]
    pub history_limit: Option<u64>,

    /// Origin of web pages that may connect (scheme, host, port), or * for all; repeatable
    #[arg(
        long = "allow-origin",
        env = "TXTCORD_ALLOW_ORIGIN",
        hide_env = true,
        value_name = "ORIGIN",
        value_delimiter = ',',
        allow_hyphen_values = true,
        value_parser = origin
    )]
    pub allow_origins: Vec<String>,

    /// Who may do what: a file of rules, read again on SIGHUP [default: all may read, post and
    /// create channels]
    #[arg(
        long,
        env = "TXTCORD_ACCESS",
        hide_env = true,
        value_name = "PATH",
        allow_hyphen_values = true,
        value_parser = PathBufValueParser::new().try_map(path)
    )]
    pub access: Option<PathBuf>,

    /// The time from one message to the next that a name, a pseudonym or else an address may post.
    #[arg(
        long,
        env = "TXTCORD_POST_RATE",
        hide_env = true,
        value_name = "N/s",
        allow_hyphen_values = true,
        value_parser = rate,
        help = "Most messages that a name, a pseudonym or else an address may post, such as 5/s or \
                90/m [default: no limit]"
    )]
    pub post_rate: Option<Duration>,

    /// Most of these messages at once [default: ten seconds' worth]
    #[arg(
        long,
        env = "TXTCORD_POST_BURST",
        hide_env = true,
        value_name = "N",
        requires = "post_rate",
        allow_hyphen_values = true,
        value_parser = burst
    )]
    pub post_burst: Option<NonZeroU32>,

    /// Most connections from an address (IPv6: from a /64) [default: no limit]
    #[arg(
        long,
        env = "TXTCORD_MAX_CLIENTS_PER_ADDRESS",
        hide_env = true,
        value_name = "N",
        allow_hyphen_values = true,
        value_parser = clients_per_address
    )]
    pub max_clients_per_address: Option<NonZeroUsize>,

    /// Addresses of proxies whose X-Forwarded-For is believed, such as 10.0.0.0/8; repeatable
    #[arg(
        long = "trust-proxy",
        env = "TXTCORD_TRUST_PROXY",
        hide_env = true,
        value_name = "CIDR",
        value_delimiter = ',',
        allow_hyphen_values = true,
        value_parser = network
    )]
    pub trust_proxies: Vec<IpNet>,

    /// Share one order with other servers through a Redis or Valkey, such as redis://10.0.0.5:6379
    /// [default: alone]
    #[arg(
        long,
        env = "TXTCORD_CLUSTER",
        hide_env = true,
        value_name = "URL",
        allow_hyphen_values = true,
        value_parser = SecretParser
    )]
    pub cluster: Option<EngineUrl>,

    /// For how long an engine that was just started gives out no numbers
    #[arg(
        long,
        env = "TXTCORD_CLUSTER_SETTLE",
        hide_env = true,
        value_name = "TIME",
        default_value = "3s",
        allow_hyphen_values = true,
        value_parser = time
    )]
    pub cluster_settle: Duration,

    /// How much to log: off, error, warn, info, debug or trace
    #[arg(
        long,
        env = "TXTCORD_LOG_LEVEL",
        hide_env = true,
        value_name = "LEVEL",
        default_value = "info",
        allow_hyphen_values = true,
        value_parser = level
    )]
    pub log_level: LevelFilter,

    /// Log to this file instead of standard error
    #[arg(
        long,
        env = "TXTCORD_LOG_FILE",
        hide_env = true,
        value_name = "PATH",
        allow_hyphen_values = true,
        value_parser = PathBufValueParser::new().try_map(path)
    )]
    pub log_file: Option<PathBuf>,

    /// What to do instead of serving
    #[command(subcommand)]
    pub task: Option<Task>,

    /// Print this help
    #[arg(short, long, global = true, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
}

impl Config {
    /// The folder of the channels beside the default one.
    pub fn channels_folder(&self) -> PathBuf {
        self.channels.clone().unwrap_or_else(|| self.file.with_file_name("channels"))
    }
}

/// A task that the program does instead of serving.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Task {
    /// Ask the server at --listen whether it is alive
    Health,
    /// Print a new token for NAME, and the line for the --access file
    Token {
        /// The name of the person or program that gets the token
        name: String,
    },
}

/// When messages reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fsync {
    /// Before any client is shown them: a power cut loses no message that was seen.
    Always,
    /// Within a second after they were shown.
    #[value(name = "1s")]
    EverySecond,
    /// When the operating system writes them: `kill -9` loses none, a power cut may.
    Never,
}

/// The longest message that `--max-message` may allow, in bytes. Some frames of that length must
/// fit in memory.
const MAX_MESSAGE: u64 = 64 << 20;

/// The most channels that `--max-channels` may allow. Each has a thread and three open files, as
/// long as the server runs.
const MAX_CHANNELS: usize = 100_000;

/// The most clients that `--max-clients` may allow. Each has a thread, and Linux has no more
/// numbers for threads than this (PID_MAX_LIMIT).
const MAX_CLIENTS: usize = 4 << 20;

/// The highest `--post-rate`, in messages a second: more than a caller can send.
const MAX_POST_RATE: u32 = 1_000_000;

fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || "invalid address; try 127.0.0.1:8000".to_string();
    text.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)
}

fn message_size(text: &str) -> Result<usize, String> {
    match bytesize::ByteSize::from_str(text) {
        Ok(size) if (1..=MAX_MESSAGE).contains(&size.as_u64()) => Ok(size.as_u64() as usize),
        Ok(_) => Err(format!("must be from 1B to {}MiB", MAX_MESSAGE >> 20)),
        Err(_) => Err("invalid size; try 1MiB or 64KiB".into()),
    }
}

fn client_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=MAX_CLIENTS).contains(&count) => Ok(count),
        _ => Err(format!("must be a whole number from 1 to {MAX_CLIENTS}")),
    }
}

fn channel_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count <= MAX_CHANNELS => Ok(count),
        _ => Err(format!("must be a whole number from 0 to {MAX_CHANNELS}")),
    }
}

fn message_count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("must be a whole number from 0 to {}", u64::MAX))
}

/// The time from one message to the next.
fn rate(text: &str) -> Result<Duration, String> {
    let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
    let unit = match unit {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        _ => Duration::ZERO,
    };
    match count.parse() {
        Ok(count) if (1..=MAX_POST_RATE).contains(&count) && !unit.is_zero() => Ok(unit / count),
        _ => Err(format!(
            "must be a number of messages a second or a minute, such as 5/s or 90/m, and at most \
             {MAX_POST_RATE}"
        )),
    }
}

fn burst(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("must be a whole number from 1 to {}", u32::MAX))
}

fn clients_per_address(text: &str) -> Result<NonZeroUsize, String> {
    client_count(text).map(|count| NonZeroUsize::new(count).expect("a count of clients is not 0"))
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from).ok();
    text.parse().ok().or_else(address).ok_or_else(|| {
        "must be an address or a network, such as 127.0.0.1 or 10.0.0.0/8".to_owned()
    })
}

/// Reads the address of an engine. It may hold a password, which an error does not repeat.
#[derive(Clone)]
struct SecretParser;

impl TypedValueParser for SecretParser {
    type Value = EngineUrl;

    fn parse_ref(
        &self,
        command: &Command,
        flag: Option<&Arg>,
        value: &OsStr,
    ) -> Result<EngineUrl, clap::Error> {
        let text = value.to_string_lossy();
        EngineUrl::from_str(&text).or_else(|why| {
            let rest = text.rsplit_once('@').map(|(_, rest)| format!("...@{rest}"));
            let shown = rest.unwrap_or_else(|| text.into_owned());
            let refuse = move |_: &str| Err(why.clone());
            refuse.parse_ref(command, flag, OsStr::new(&shown))
        })
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    text.parse().map_err(|_| "must be off, error, warn, info, debug or trace".into())
}

/// Refuses a path that begins with a hyphen: it is most likely a flag, and the value before it is
/// missing.
fn path(path: PathBuf) -> Result<PathBuf, String> {
    match path.as_os_str().as_encoded_bytes().starts_with(b"-") {
        true => Err(format!(
            "must be a path; one that begins with a hyphen is written ./{}",
            path.display()
        )),
        false => Ok(path),
    }
}

fn origin(text: &str) -> Result<String, String> {
    match matches!(text, "*" | "null") || text.contains("://") && !text.starts_with('-') {
        true => Ok(text.into()),
        false => Err("must be an origin such as https://chat.example, null, or * for all".into()),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "invalid time; try 3s or 0s".into())
}

fn positive_time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() => Ok(time),
        Ok(_) => Err("must be longer than 0s".into()),
        Err(_) => Err("invalid time; try 20s or 1m".into()),
    }
}

#[cfg(test)]
mod tests;
