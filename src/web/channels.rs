//! `GET /channels`: which channels there are, and how far each has come; `PUT` and `DELETE` of one.
//!
//! A follower of the list is told at most four times a second of each channel, however much is said
//! there, and always of the last state: it looks at all of them and says what has changed since it
//! looked last.

use std::{
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use http::{StatusCode, header};

use super::{
    Exchange, JSON, Stop,
    chunks::Chunks,
    query::{Form, Query},
};
use crate::{
    access::Right,
    channels::{Listed, Made},
    http::HttpRefusal,
    name::Name,
    wire::push_number,
};

/// The time from one look of a follower to the next: four a second.
const PAUSE: Duration = Duration::from_millis(250);

/// What is new about a channel in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// How far it is.
    Further,
    /// It is there at all.
    Added,
}

/// What a follower of the list has been told.
#[derive(Default)]
struct Told {
    /// Which channels there were and which rules; see [`crate::channels::Channels::generation`] and
    /// [`crate::access::Access::generation`].
    generation: Option<(u64, u64)>,
    /// By name.
    list: Vec<Listed>,
}

impl Exchange<'_> {
    pub(super) fn channels(&mut self) -> Result<(), Stop> {
        let query = Query::parse(self.request.uri().query().unwrap_or_default())?;
        let form = self.form()?;
        let is_followed = query.follow || form == Form::Events;
        if is_followed && form == Form::Array {
            return Err(HttpRefusal::bad("follow=1 goes with NDJSON or events").into());
        }
        let headers = vec![
            (header::CONTENT_TYPE, form.content_type().to_owned()),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
        ];
        if is_followed {
            let woken = self.web.channels.notifier().follow();
            let mut body = self.begin_chunks(form, headers)?;
            if !self.is_head() {
                self.follow_list(&mut body, &woken)?;
                body.finish(self)?;
            }
            return Ok(());
        }
        let mut body = Vec::new();
        let list = self.readable_list();
        if form == Form::Array {
            body.extend_from_slice(br#"{"channels":["#);
        }
        for (at, listed) in list.iter().enumerate() {
            if form == Form::Array && at > 0 {
                body.push(b',');
            }
            self.push_listed(&mut body, listed, Change::Further);
            body.push(b'\n');
            if form == Form::Array {
                body.pop();
            }
        }
        if form == Form::Array {
            body.extend_from_slice(b"]}");
        }
        self.whole(StatusCode::OK, headers, &body)
    }

    /// The channels that the caller may read.
    fn readable_list(&self) -> Vec<Listed> {
        let mut list = self.web.channels.list();
        list.retain(|listed| self.caller().may(Right::Read, &listed.name));
        list
    }

    /// Says what there is, and then what changes, until the peer leaves or the server stops.
    fn follow_list(&mut self, body: &mut Chunks, woken: &Receiver<()>) -> Result<(), Stop> {
        let mut told = Told::default();
        let mut next = Ok(());
        loop {
            match next {
                Ok(()) => {
                    let looked = Instant::now();
                    self.web.channels.notifier().look();
                    if self.push_changes(body, &mut told) {
                        body.flush(self)?;
                        // What comes meanwhile is told at once with what comes later.
                        thread::sleep(PAUSE.saturating_sub(looked.elapsed()));
                    }
                }
                Err(RecvTimeoutError::Timeout) if self.peer_left() => return Err(Stop::PeerGone),
                Err(RecvTimeoutError::Timeout) => body.show_life(self)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            next = woken.recv_timeout(self.idle());
        }
    }

    /// Appends what has changed since it was told last; false when that is nothing.
    fn push_changes(&self, body: &mut Chunks, told: &mut Told) -> bool {
        let filled = body.bytes.len();
        let mut push = |listed: &Listed, change| {
            body.push(|out| {
                self.push_listed(out, listed, change);
                out.push(b'\n');
            });
        };
        // Looked at before the list: what comes in between is found by the next look.
        let generation =
            Some((self.web.channels.generation(), self.caller().access().generation()));
        if generation == told.generation {
            // As a rule the channels are the same, and some of them have more messages.
            for listed in &mut told.list {
                if listed.look_again() {
                    push(listed, Change::Further);
                }
            }
            return body.bytes.len() > filled;
        }
        let now = self.readable_list();
        let find =
            |list: &[Listed], name: &Name| list.binary_search_by(|it| it.name.cmp(name)).ok();
        for listed in &now {
            match find(&told.list, &listed.name).map(|at| &told.list[at]) {
                Some(old) if !listed.differs_from(old) => {}
                None if told.generation.is_some() => push(listed, Change::Added),
                _ => push(listed, Change::Further),
            }
        }
        for Listed { name, .. } in &told.list {
            if find(&now, name).is_none() {
                let line = format!("{{\"channel\":\"{name}\",\"removed\":true}}\n");
                body.push(|out| out.extend_from_slice(line.as_bytes()));
            }
        }
        *told = Told { generation, list: now };
        body.bytes.len() > filled
    }

    /// One channel as JSON.
    fn push_listed(&self, out: &mut Vec<u8>, listed: &Listed, change: Change) {
        let Listed { name, figures, epoch, .. } = listed;
        out.extend_from_slice(format!("{{\"channel\":\"{name}\",\"last_id\":").as_bytes());
        push_number(figures.last_id, out);
        out.extend_from_slice(br#","messages":"#);
        push_number(figures.messages, out);
        out.extend_from_slice(format!(",\"epoch\":\"{epoch}\"").as_bytes());
        if let Some(ts) = figures.ts {
            out.extend_from_slice(br#","ts":"#);
            push_number(ts, out);
        }
        let rights = self.caller().rights(name);
        out.extend_from_slice(format!(",\"may\":{}", rights.json()).as_bytes());
        if change == Change::Added {
            out.extend_from_slice(br#","new":true"#);
        }
        out.push(b'}');
    }

    /// `PUT /NAME`: makes the channel.
    pub(super) fn make(&mut self, name: &Name) -> Result<(), Stop> {
        self.caller().check_making(name)?;
        let refused = |none: crate::channels::NoChannel| none.refusal(name);
        let made = self.web.channels.make(name).map_err(refused)?;
        let found = self.web.channels.find(name).map_err(refused)?;
        let listed = Listed::new(name.clone(), found.summary);
        let mut body = Vec::new();
        self.push_listed(&mut body, &listed, Change::Further);
        body.push(b'\n');
        let mut headers = vec![(header::CONTENT_TYPE, JSON.to_owned())];
        if made == Made::Now {
            headers.push((header::LOCATION, format!("/{name}")));
        }
        let status = if made == Made::Now { StatusCode::CREATED } else { StatusCode::OK };
        self.whole(status, headers, &body)
    }

    /// `DELETE /NAME`: puts the channel away.
    pub(super) fn put_away(&mut self, name: &Name) -> Result<(), Stop> {
        self.check(Right::Admin, name)?;
        self.web.channels.put_away(name).map_err(|none| none.refusal(name))?;
        self.begin(StatusCode::NO_CONTENT, Vec::new(), &[])
    }
}
