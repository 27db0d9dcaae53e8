//! `GET /NAME/42` and `GET /NAME?pinned=1`: messages as operations have made them.
//!
//! The log stays as it is. What operations made of a message is put together here alone, for one
//! message at a time, by the thread of the connection that asks.

use std::io;

use http::{StatusCode, header};

use super::{
    Channel, Exchange, JSON, Stop,
    chunks::Chunks,
    messages::push_line,
    query::{Form, Query},
    response_epoch,
};
use crate::{
    command::{HubGone, MessageState, Reactions, StampedLine, States, StatesOf},
    http::HttpRefusal,
    operations::edit_data,
    stamps::Stamp,
    wire::push_number,
};

mod reactions;

use reactions::{Many, push_few};

impl Exchange<'_> {
    /// The present state of one message.
    pub(super) fn message(&mut self, channel: &Channel, id: u64) -> Result<(), Stop> {
        let states = channel.states(StatesOf::Message(id))?;
        let deleted = || HttpRefusal::new(StatusCode::GONE, "the message was deleted");
        let Some(state) = states.messages.into_iter().next() else {
            let name = &channel.name;
            return Err(match states.is_deleted {
                true => deleted(),
                false => {
                    HttpRefusal::not_found(format!("there is no such message; GET /{name} has all"))
                }
            }
            .into());
        };
        let headers = vec![(header::CONTENT_TYPE, JSON.to_owned()), response_epoch(&states.epoch)];
        if matches!(state.reactions, Reactions::Few(_)) {
            let mut line = Vec::new();
            push_state(&mut line, state)?;
            return self.whole(StatusCode::OK, headers, &line);
        }
        let many = channel.many_reactions(id)?.ok_or_else(deleted)?;
        let mut body = self.begin_chunks(Form::Array, headers)?;
        if self.is_head() {
            return Ok(());
        }
        self.write_state(channel, &mut body, state, many)?;
        Ok(body.finish(self)?)
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
                if matches!(state.reactions, Reactions::Few(_)) {
                    push_state(&mut body.bytes, state)?;
                } else if let Some(many) = channel.many_reactions(state.message.stretch.first_id)? {
                    self.write_state(channel, &mut body, state, many)?;
                }
                body.flush_full(self)?;
            }
            let Some(after) = states.more_after else { return Ok(body.finish(self)?) };
            self.go_on_reading()?;
            states = channel.states(StatesOf::PinnedAfter(after))?;
        }
    }

    /// Writes a message that has many reactions.
    fn write_state(
        &mut self,
        channel: &Channel,
        body: &mut Chunks,
        state: MessageState,
        many: Many,
    ) -> Result<(), Stop> {
        push_message(&mut body.bytes, state.message, state.edit)?;
        self.write_reactions(channel, body, many)?;
        push_end(&mut body.bytes, state.is_pinned);
        Ok(())
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

/// Writes a message with what operations made of it; see [`push_message`]. Of its reactions, these are
/// the few.
fn push_state(out: &mut Vec<u8>, state: MessageState) -> io::Result<()> {
    push_message(out, state.message, state.edit)?;
    if let Reactions::Few(lines) = state.reactions {
        push_few(out, lines)?;
    }
    push_end(out, state.is_pinned);
    Ok(())
}

/// Writes a message as the log has it, with the data of the last edit, and leaves the object open.
fn push_message(
    out: &mut Vec<u8>,
    message: StampedLine,
    edit: Option<StampedLine>,
) -> io::Result<()> {
    let message = read(message)?;
    let edit = edit.map(read).transpose()?;
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
    Ok(())
}

fn push_end(out: &mut Vec<u8>, is_pinned: bool) {
    if is_pinned {
        out.extend_from_slice(br#","pinned":true"#);
    }
    out.extend_from_slice(b"}\n");
}
