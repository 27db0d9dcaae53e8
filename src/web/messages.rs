//! `GET /messages`: the history as lines, as one array or as events; and those of other channels at
//! `/NAME`.

use crossbeam_channel::{Receiver, bounded};
use http::{StatusCode, header};

use super::{
    Channel, Exchange, PeerGone, Stop,
    chunks::Chunks,
    query::{Form, Query},
    response_epoch,
};
use crate::{
    command::View,
    history::{LocatedMessage, Snapshot, Stretch},
    http::{HttpRefusal, query::number},
    name::Name,
    stamps::{Stamp, Stamps},
    wire::{HISTORY, HistoryFrame, push_number, push_stamp},
};

impl Exchange<'_> {
    pub(super) fn messages(&mut self, channel: &Channel) -> Result<(), Stop> {
        let mut query = Query::parse(self.request.uri().query().unwrap_or_default())?;
        let form = self.form()?;
        if query.pinned {
            return self.pinned(channel, form, &query);
        }
        if form == Form::Events {
            query.follow = true;
            if let Some(id) = self.request.headers().get("last-event-id") {
                let id = id.to_str().ok().filter(|id| !id.is_empty());
                query.window.after =
                    id.map(|id| number("Last-Event-ID", id.as_bytes())).transpose()?;
            }
        }
        if query.follow && (form == Form::Array || query.window.before.is_some()) {
            let sentence = "follow=1 goes with NDJSON or events, and without before=";
            return Err(HttpRefusal::bad(sentence).into());
        }
        if let Some(ts) = query.since {
            query.window.since = Some(channel.since(ts)?);
        }
        let (wake, woken) = bounded(1);
        let mut view = channel.look(query.window(), query.follow.then_some(wake))?;
        let is_other = query.epoch.as_ref().is_some_and(|epoch| **epoch != *view.epoch)
            || query.window.after.is_some_and(|after| query.follow && after > view.last_id);
        if query.window.after.is_some() && is_other {
            // The ids are another file's: start over, as the socket does.
            query.window.after = None;
            let (wake, woken_instead) = bounded(1);
            view = channel.look(query.window(), query.follow.then_some(wake))?;
            return self.stream(channel, form, &query, view, &woken_instead);
        }
        self.stream(channel, form, &query, view, &woken)
    }

    fn stream(
        &mut self,
        channel: &Channel,
        form: Form,
        query: &Query,
        view: View,
        woken: &Receiver<()>,
    ) -> Result<(), Stop> {
        let mut headers = vec![
            (header::CONTENT_TYPE, form.content_type().to_owned()),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            response_epoch(&view.epoch),
        ];
        if form == Form::Array && query.text.is_none() {
            let View { stretch, epoch, .. } = view;
            let frame = HistoryFrame::new(Snapshot { stretch, epoch, resumed: None })?;
            headers.push((header::CONTENT_LENGTH, frame.payload_len().to_string()));
            self.begin(StatusCode::OK, headers, &[])?;
            return if self.is_head() { Ok(()) } else { self.send_all(frame.without_header()) };
        }
        let mut body = self.begin_chunks(form, headers)?;
        if self.is_head() {
            return Ok(());
        }
        if form == Form::Array {
            self.found_array(&mut body, query, &view)?;
            return Ok(body.finish(self)?);
        }
        let (after, last_id) = (view.stretch.last_id, view.last_id);
        self.write_stretch(&mut body, query, view.stretch, view.stamps)?;
        if query.follow {
            self.follow(channel, &mut body, query, after, last_id, woken)?;
        }
        Ok(body.finish(self)?)
    }

    /// What `q` found as one object: with `ids`, since its messages are not neighbours.
    fn found_array(&mut self, body: &mut Chunks, query: &Query, view: &View) -> Result<(), Stop> {
        body.bytes.extend_from_slice(HISTORY);
        let mut comma: &[u8] = b"";
        for_found(query, &view.stretch, |_, data| {
            body.bytes.extend_from_slice(comma);
            body.bytes.extend_from_slice(data);
            comma = b",";
            body.flush_full(self)
        })?;
        body.bytes.extend_from_slice(br#"],"ids":["#);
        comma = b"";
        for_found(query, &view.stretch, |id, _| {
            body.bytes.extend_from_slice(comma);
            push_number(id, &mut body.bytes);
            comma = b",";
            body.flush_full(self)
        })?;
        body.bytes.extend_from_slice(br#"],"first_id":"#);
        push_number(view.stretch.first_id, &mut body.bytes);
        body.bytes.extend_from_slice(br#","last_id":"#);
        push_number(view.stretch.last_id, &mut body.bytes);
        body.bytes.extend_from_slice(br#","epoch":""#);
        body.bytes.extend_from_slice(view.epoch.as_bytes());
        body.bytes.extend_from_slice(b"\"}");
        Ok(())
    }

    pub(super) fn write_stretch(
        &mut self,
        body: &mut Chunks,
        query: &Query,
        stretch: Stretch,
        stamps: Stamps,
    ) -> Result<(), Stop> {
        let mut stamps = stamps.read();
        for_found(query, &stretch, |id, data| {
            if body.form == Form::Events {
                body.bytes.extend_from_slice(b"id: ");
                push_number(id, &mut body.bytes);
                body.bytes.push(b'\n');
            }
            body.push(|out| push_line(out, None, id, stamps.of(id), data));
            body.flush_full(self)
        })?;
        Ok(body.flush(self)?)
    }
}

/// Calls `each` with the messages that a query wants, in order.
pub(super) fn for_found(
    query: &Query,
    stretch: &Stretch,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), PeerGone>,
) -> Result<(), Stop> {
    let finder = query.finder();
    let limit = query.window.limit.filter(|_| finder.is_some());
    let is_found = |data: &[u8]| finder.as_ref().is_none_or(|text| text.find(data).is_some());
    let mut skipped = 0;
    if let (Some(limit), None) = (limit, query.window.after) {
        // The last ones are wanted: how many there are decides where they begin. The file is read
        // twice rather than held.
        let mut messages = stretch.clone().messages()?;
        let mut count = 0_u64;
        while let Some(LocatedMessage { data, .. }) = messages.next()? {
            count += u64::from(is_found(data));
        }
        skipped = count.saturating_sub(limit);
    }
    let mut left = limit.unwrap_or(u64::MAX);
    let mut messages = stretch.clone().messages()?;
    while left > 0
        && let Some(LocatedMessage { id, data, .. }) = messages.next()?
    {
        if !is_found(data) {
            continue;
        }
        if skipped > 0 {
            skipped -= 1;
            continue;
        }
        left -= 1;
        each(id, data)?;
    }
    Ok(())
}

/// One message as NDJSON, with the name of its channel where a reader has several.
pub(super) fn push_line(
    out: &mut Vec<u8>,
    channel: Option<&Name>,
    id: u64,
    stamp: Stamp<'_>,
    data: &[u8],
) {
    match channel {
        Some(name) => {
            out.extend_from_slice(br#"{"channel":""#);
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(br#"","id":"#);
        }
        None => out.extend_from_slice(br#"{"id":"#),
    }
    push_number(id, out);
    push_stamp(stamp, out);
    out.extend_from_slice(br#","data":"#);
    out.extend_from_slice(data);
    out.extend_from_slice(b"}\n");
}
