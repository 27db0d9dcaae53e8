//! txtcord: a chat server whose database is a text file.
//!
//! # The walk of one message
//!
//! A client's thread reads bytes, and tungstenite makes a text of them (`websocket`). `message`
//! checks that the text is one JSON value and makes it one line. `client` sends the line to the hub
//! as a `Post`, through the bounded queue of `command`. The hub takes all commands that wait as one
//! batch and *proposes* the posts to the journal, which appends them to the text file with one
//! write (`hub::commit`). The file decides where each line stands, since other programs append to
//! it, too (`hub::placing`). The journal then writes the stamps of the lines (`hub::stamping`). The
//! hub *applies* the lines: `history` gives each line its id, `wire` makes of each message one frame
//! for all clients. The journal syncs as `--fsync` says, and only then are the frames sent. `fanout`
//! goes round the live clients, the speakers first, and `outbox` sends each client all that it lacks
//! without waiting. A client whose socket is full falls behind, and `catch_up` sends it what it lacks
//! from the file. When it lacks nothing any more, the hub makes it live again.
//!
//! Each channel of the chat has a text file and a hub of its own, and shares nothing with another but
//! counters. `channels` finds a channel by its name, and opens, watches and ends them.
//!
//! On a node of a cluster a post goes to `cluster::sequencer` first, which has the engine number its
//! lines. `cluster::reader` brings all lines that were numbered to the hub, which writes and applies
//! them as they are (`hub::replica`).
//!
//! # Words
//!
//! | word | means |
//! |---|---|
//! | message | what a person or a program said: one JSON value, kept as its bytes |
//! | line, hole | a line of the text file; one that holds no message |
//! | operation, target | a message that changes an earlier one; the message that it changes |
//! | erase | to overwrite the line of a message with bytes that say nothing |
//! | foreign | written to the text file by another program, not by this server |
//! | id | the number of a message's line, from 1 |
//! | epoch | the name of a file's numbering; it changes when the file is another |
//! | stamp | the time and the sender of a line, as `messages.txt.stamps` has them |
//! | journal, history | the writing of the text file; the reading of it |
//! | committed end | the length of the file up to which all lines are decided and may be read |
//! | landmark | committed bytes that must still be there when another program has made the file longer |
//! | lock file | `messages.txt.lock`: it holds the lock and the record |
//! | record, note | the epoch and how far the numbering has come; how far the stamps have come |
//! | hub | the thread that owns the journal, the history and the list of clients |
//! | channel | a text file and its hub; `messages` is the default one |
//! | command | what the hub is asked |
//! | batch | what is taken from a queue at once: commands by the hub, posts by a sequencer |
//! | post, speaker | one or more messages; the client or the request that they come from |
//! | repeat | a post with the `Idempotency-Key` of an earlier one, which is answered and not stored again |
//! | frame | a WebSocket frame |
//! | cut frame | the rest of a frame of which a full socket took only a part |
//! | connection, client | a TCP connection; one that is a WebSocket and has joined the hub |
//! | outbox | the sending side of a client |
//! | live, behind | a client that is sent messages as they come; one that lacks some |
//! | catch-up | what sends clients that are behind the messages that they lack |
//! | cursor, step | how far a client that is behind has come; what is sent to it at a time |
//! | at hand | in memory, so that neither the file nor the hub is needed |
//! | round, turn | one pass of the hub over the live clients; one client's part of it |
//! | window, stretch | the part of the history that is asked for; a part that is read in one go |
//! | caller, resource | who sent a request; what its path names |
//! | sender | who said a message, as far as that is verified: a name or a pseudonym |
//! | right, permit | what a caller may do with a channel; those of a client in its channel |
//! | dismiss | to send a client a close frame because it may not read the channel any more |
//! | follower | a request that streams messages as they come |
//! | cluster, node | servers that share one order; one of them |
//! | engine, order | the Redis or Valkey of a cluster; the lines as it has numbered them |
//! | copy | one channel's file on a node, as a replica of the order |
//! | piece | the lines of one batch of a node, as they travel to all nodes |
//! | mirror | what brings one channel's order into its file |
//! | fork | lines of a node's file that are not those of the order |
//! | peer | the program at the other end of a connection |
//! | queue | a crossbeam channel; *channel* alone is always one of the chat |
//!
//! # Threads
//!
//! | thread | runs | ends when |
//! |---|---|---|
//! | `main` | waits for the start, then for the end | the process ends |
//! | `start` | the start | the server accepts connections |
//! | `accept` | takes connections from the listener | the listener is shut down |
//! | `client-N` | a connection: its requests, then reads its WebSocket; then the next connection | enough threads wait, or none comes for 2 s while another thread waits; the server stops |
//! | `hub-NAME` | batches of commands of the channel NAME | the last handle is dropped, the channel is put away, or the file fails |
//! | `open` | opens the channels that are new in the folder | they are open |
//! | `watch` | looks at the files of all channels, about once a second | the server ends |
//! | `catch-up-N` | sends to its share of the clients that are behind | the last handle is dropped, and the last such client is gone |
//! | `sequencer` | has the engine of a cluster give numbers to the posts of a channel | its hub ends |
//! | `reader` | brings the orders of all channels of a cluster into their files | all their hubs have ended |
//! | `inbox` | looks for what other programs appended on a node of a cluster | all hubs have ended |
//! | `inbox-posts` | posts what they appended in one channel | it is stored, or refused for now |
//! | `roster` | makes the channels of a cluster that are missing here | the server stops |
//! | `log` | writes the lines of the log | the process ends |
//! | `signals` | waits for signals: to stop, or to read the access file again | the process ends |
//!
//! # What always holds
//!
//! 1. The hub alone has the journal, the history and the list of clients; there is no lock around
//!    them.
//! 2. Waits point one way: a client's thread may wait for a catch-up thread and for the hub, and both of
//!    these for the disk alone. So a disk that hangs holds up one channel, but for a catch-up thread that
//!    reads its file. On a node of a cluster, a sequencer and a thread that posts what an inbox has may wait
//!    for their hub. The reader waits a moment for the hub of any channel that writes. Only where a channel
//!    is made, is put away or begins a new epoch, the roster and the reader wait for its hub, so that what
//!    they bring to other channels waits, too. No hub waits for them.
//! 3. The file comes first: every message that a client has been shown is in the file, and is read
//!    back from nowhere else.
//! 4. One thread at a time writes to a socket, and every byte that leaves is part of a whole frame.
//! 5. Letting go means to drop a handle or to shut a socket down; each ending causes the next.
//! 6. The committed end never goes back, and nothing before it is cut off. One thing before it is ever
//!    changed: the line of a message that was deleted, and of its edits, is overwritten by as many
//!    bytes that say nothing, after the operation that deleted it is on disk. So no offset and no id
//!    changes, and a reader that began before sees the line as it was.
//! 7. A stamp is never shown for another line than its own.
//! 8. Whatever clients do costs a bounded number of threads and a bounded amount of memory.
//!
//! Modules stand in reading order, from the door inwards; each imports only from those below it.

pub mod server;
pub mod connection;
pub mod health;
pub mod web;
pub mod upgrade;
pub mod client;
pub mod websocket;
pub mod channels;
pub mod hub;
pub mod fanout;
pub mod catch_up;
#[cfg_attr(not(feature = "cluster"), path = "cluster/absent.rs")]
pub mod cluster;
pub mod command;
pub mod outbox;
pub mod access;
pub mod route;
pub mod http;
pub mod journal;
pub mod wire;
pub mod history;
pub mod operations;
pub mod stamps;
pub mod piece;
pub mod lines;
pub mod message;
pub mod summary;
pub mod followers;
pub mod name;
pub mod metrics;
pub mod tally;
pub mod socket;
pub mod unsent;
pub mod intake;
pub mod control_group;
pub mod logging;
pub mod threads;
pub mod config;
#[cfg(test)]
mod testing;
