//! `GET /NAME/42` and `GET /NAME?pinned=1`: messages as operations have made them.
//!
//! The log stays as it is. What operations made of a message is put together here alone, for one
//! message at a time, by the thread of the connection that asks.

use std::io;

use http::{StatusCode, header};

use super::{
    Channel, Exchange, JSON, Stop,
    messages::{Form, Query, push_line},
    response_epoch,
};
use crate::{
    command::{HubGone, MessageState, StampedLine, States, StatesOf},
    http::HttpRefusal,
    message::push_json_string,
    operations::{Action, Operation, Recognised, edit_data, recognise},
    stamps::Stamp,
    wire::push_number,
};

impl Exchange<'_> {
    /// The present state of one message.
    pub(super) fn message(&mut self, channel: &Channel, id: u64) -> Result<(), Stop> {
        let states = channel.states(StatesOf::Message(id))?;
        let Some(state) = states.messages.into_iter().next() else {
            let name = &channel.name;
            return Err(match states.is_deleted {
                true => HttpRefusal::new(StatusCode::GONE, "the message was deleted"),
                false => {
                    HttpRefusal::not_found(format!("there is no such message; GET /{name} has all"))
                }
            }
            .into());
        };
        let mut line = Vec::new();
        push_state(&mut line, state)?;
        let headers = vec![(header::CONTENT_TYPE, JSON.to_owned()), response_epoch(&states.epoch)];
        self.whole(StatusCode::OK, headers, &line)
    }

    /// The present state of all messages that are pinned, one a line.
    ///
    /// The hub is asked for a few of them after another, each time the peer has taken those before. So
    /// a list costs no more than a message however long it is, and each line is as its message was
    /// when its turn came: what is pinned or unpinned meanwhile counts if its turn is still to come.
    /// A caller that may not read any more gets no further line, and neither does anybody when the
    /// channel ends; the connection is ended then.
    pub(super) fn pinned(
        &mut self,
        channel: &Channel,
        form: Form,
        query: &Query,
    ) -> Result<(), Stop> {
        if form != Form::Lines {
            let sentence = "the messages that are pinned are application/x-ndjson";
            return Err(HttpRefusal::new(StatusCode::NOT_ACCEPTABLE, sentence).into());
        }
        if query.asks_for_a_part() {
            return Err(HttpRefusal::bad("pinned=1 goes with no other parameter").into());
        }
        let mut states = channel.states(StatesOf::PinnedAfter(0))?;
        let headers = vec![
            (header::CONTENT_TYPE, form.content_type().to_owned()),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            response_epoch(&states.epoch),
        ];
        let mut body = self.begin_chunks(form, headers)?;
        if self.is_head() {
            return Ok(());
        }
        loop {
            for state in states.messages {
                push_state(&mut body.bytes, state)?;
                body.flush_full(self)?;
            }
            let Some(after) = states.more_after else { return Ok(body.finish(self)?) };
            self.go_on_reading()?;
            states = channel.states(StatesOf::PinnedAfter(after))?;
        }
    }
}

impl Channel {
    fn states(&self, of: StatesOf) -> Result<States, Stop> {
        self.hub.states(of).map_err(|HubGone| self.gone().into())
    }
}

/// One line of a channel, as it was read.
struct Line {
    id: u64,
    ts: Option<u64>,
    from: Option<String>,
    data: Vec<u8>,
}

fn read(line: StampedLine) -> io::Result<Line> {
    let StampedLine { stretch, stamps } = line;
    let mut messages = stretch.messages()?;
    let found =
        messages.next()?.ok_or_else(|| io::Error::other("a line that was there is gone"))?;
    let mut stamps = stamps.read();
    let Stamp { ts, from } = stamps.of(found.id);
    Ok(Line { id: found.id, ts, from: from.map(str::to_owned), data: found.data.to_vec() })
}

/// Writes a message as the log has it, with the data of the last edit, and what else operations made
/// of it.
fn push_state(out: &mut Vec<u8>, state: MessageState) -> io::Result<()> {
    let message = read(state.message)?;
    let edit = state.edit.map(read).transpose()?;
    let data = edit.as_ref().and_then(|edit| edit_data(&edit.data)).unwrap_or(&message.data);
    let stamp = Stamp { ts: message.ts, from: message.from.as_deref() };
    push_line(out, None, message.id, stamp, data);
    out.truncate(out.len() - b"}\n".len());
    if let Some(edit) = &edit {
        out.extend_from_slice(br#","edited":"#);
        match edit.ts {
            Some(ts) => push_number(ts, out),
            None => out.extend_from_slice(b"true"),
        }
    }
    push_reactions(out, state.reactions)?;
    if state.is_pinned {
        out.extend_from_slice(br#","pinned":true"#);
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

/// Writes the senders of reactions by their keys. Keys and senders are in the order of the file.
fn push_reactions(out: &mut Vec<u8>, lines: Vec<StampedLine>) -> io::Result<()> {
    let mut keys: Vec<(Box<str>, Vec<String>)> = Vec::new();
    for line in lines {
        let line = read(line)?;
        let Ok(Recognised::Operation(Operation { action: Action::React(key), .. })) =
            recognise(&line.data)
        else {
            continue;
        };
        let Some(sender) = line.from else { continue };
        match keys.iter_mut().find(|(known, _)| *known == key) {
            Some((_, senders)) => senders.push(sender),
            None => keys.push((key, vec![sender])),
        }
    }
    let mut begin: &[u8] = br#","reactions":{"#;
    for (key, senders) in &keys {
        out.extend_from_slice(begin);
        begin = b",";
        push_json_string(key, out);
        let mut begin: &[u8] = b":[";
        for sender in senders {
            out.extend_from_slice(begin);
            begin = b",";
            push_json_string(sender, out);
        }
        out.push(b']');
    }
    if !keys.is_empty() {
        out.push(b'}');
    }
    Ok(())
}
