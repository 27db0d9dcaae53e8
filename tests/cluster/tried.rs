//! The script that starts an engine and three nodes on one machine for trying out.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    engine::is_here,
    nodes::{CALM, answer_of, within},
    support::*,
};

/// The script; it is asked to end with its handle, and ends what it started.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        shell(&format!("kill -TERM {} 2> /dev/null || true", self.0.id()));
        let _ = self.0.wait();
    }
}

/// Ports that follow each other and are free a moment before they are used.
fn free_ports(count: u16) -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut dice = Dice::new();
    loop {
        let port = 20_000 + dice.below(10_000) as u16;
        if (port..port + count).all(is_free) {
            return port;
        }
    }
}

#[test]
fn the_script_for_trying_out_starts_three_nodes_and_leaves_nothing() {
    if !is_here() {
        return;
    }
    let setup = Setup::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".config/cluster/try.sh");
    let port = free_ports(4);
    let mut command = Command::new(script);
    without_settings(&mut command);
    let child = command
        .arg(setup.dir.path())
        .env("TXTCORD", setup.command().get_program())
        .env("PORT", (port + 1).to_string())
        .env("ENGINE_PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut script = Script(child.expect("the script runs"));
    let mut lines = BufReader::new(script.0.stdout.take().expect("stdout is piped")).lines();
    let pids = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let pids = line.strip_prefix("processes: ")?;
        Some(pids.split(' ').map(str::to_owned).collect::<Vec<_>>())
    });
    let pids = pids.expect("it names its processes");
    assert_eq!(pids.len(), 4);
    let asks = |node: u16, request: &[u8]| {
        let address = SocketAddr::from(([127, 0, 0, 1], port + 1 + node));
        answer_of(address, request, PATIENCE)
    };
    let ready = ask("GET /readyz", &["Connection: close"]);
    for node in 0..3 {
        let is_ready = || asks(node, &ready).is_some_and(|(status, _)| status == 200);
        within(CALM, "a node is ready", is_ready, String::new);
    }
    let post = ask_with("POST /messages", &["Connection: close"], "\"said on the first\"");
    assert_eq!(asks(0, &post), Some((201, "{\"id\":1}\n".to_owned())));
    let read = ask("GET /messages", &["Connection: close"]);
    let is_there =
        || asks(2, &read).is_some_and(|(_, body)| body.contains("\"said on the first\""));
    within(CALM, "it is on the third", is_there, String::new);
    // Ctrl-C does the same, unless the tests themselves run where it is ignored.
    shell(&format!("kill -TERM {}", script.0.id()));
    let ended = || script.0.try_wait().is_ok_and(|status| status.is_some());
    within(CALM, "the script ends", ended, String::new);
    for pid in pids {
        let is_gone = || !Path::new("/proc").join(&pid).exists();
        until(&format!("process {pid} is gone"), is_gone);
    }
}
