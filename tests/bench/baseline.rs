//! The baseline: the contract of the chat as one would write it without thinking of speed.
//!
//! A reader and a writer thread per client with an unbounded queue between, one hub thread that
//! handles one message at a time, one send per message and client, the history in memory. It stands
//! beside the server in every table so that the ratios mean something on any machine. It is
//! deliberately simple: improving it would only move the yardstick.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tungstenite::protocol::Role;
use tungstenite::{Message, Utf8Bytes, WebSocket};

enum Command {
    Join(usize, Sender<Message>),
    Leave(usize),
    Post(String),
}

/// Serves until the process is ended.
pub fn serve(port: u16, path: &str) -> io::Result<()> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let history = text.lines().map(String::from).collect();
    let file = File::options().create(true).append(true).open(path)?;
    let (hub, commands) = unbounded();
    thread::spawn(move || run_hub(commands, history, file));

    let listener = TcpListener::bind(("127.0.0.1", port))?;
    for (id, stream) in listener.incoming().enumerate() {
        let (Ok(stream), hub) = (stream, hub.clone()) else { continue };
        thread::spawn(move || serve_client(stream, id, hub));
    }
    Ok(())
}

fn run_hub(commands: Receiver<Command>, mut history: Vec<String>, mut file: File) {
    let mut clients: Vec<(usize, Sender<Message>)> = Vec::new();
    for command in commands {
        match command {
            Command::Join(id, queue) => {
                let data = history.join(",");
                let frame = format!("{{\"type\":\"message_history\",\"data\":[{data}]}}");
                queue.send(Message::text(frame)).ok();
                clients.push((id, queue));
            }
            Command::Leave(id) => clients.retain(|client| client.0 != id),
            Command::Post(line) => {
                writeln!(file, "{line}").expect("the bench's own directory takes a line");
                let frame = format!("{{\"type\":\"new_message\",\"data\":{line}}}");
                let frame = Utf8Bytes::from(frame);
                history.push(line);
                for (_, queue) in &clients {
                    queue.send(Message::Text(frame.clone())).ok();
                }
            }
        }
    }
}

fn serve_client(stream: TcpStream, id: usize, hub: Sender<Command>) {
    stream.set_nodelay(true).ok();
    let Ok(mut reader) = tungstenite::accept(stream) else { return };
    let Ok(stream) = reader.get_ref().try_clone() else { return };
    let mut writer = WebSocket::from_raw_socket(stream, Role::Server, None);
    let (queue, messages) = unbounded::<Message>();
    thread::spawn(move || {
        for message in messages {
            if writer.send(message).is_err() {
                return;
            }
        }
    });
    hub.send(Command::Join(id, queue)).ok();
    while let Ok(message) = reader.read() {
        if let Message::Text(text) = message {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) else { break };
            hub.send(Command::Post(value.to_string())).ok();
        }
    }
    hub.send(Command::Leave(id)).ok();
}
