//! `GET /channels`: which channels there are, and how far each is; `PUT` and `DELETE` of one.
//!
//! A follower of the list is told at most four times a second of each channel, however much is said
//! there, and always of the last state: it looks at all of them and says what has changed since it
//! looked last.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use http::{StatusCode, header};

use super::{
    Exchange, JSON, Stop,
    messages::{Chunks, Form, Query},
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

/// What a follower has been told.
type Told = BTreeMap<Name, Listed>;

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
            let woken = self.web.channels.news().follow();
            let mut body = self.begin_chunks(form, headers)?;
            if !self.is_head() {
                self.follow_list(&mut body, &woken)?;
                body.finish(self)?;
            }
            return Ok(());
        }
        let mut body = Vec::new();
        let list = self.web.channels.list();
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

    /// Says what there is, and then what changes, until the peer leaves or the server stops.
    fn follow_list(&mut self, body: &mut Chunks, woken: &Receiver<()>) -> Result<(), Stop> {
        let mut told: Option<Told> = None;
        let mut next = Ok(());
        loop {
            match next {
                Ok(()) => {
                    let looked = Instant::now();
                    self.web.channels.news().look();
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
    fn push_changes(&self, body: &mut Chunks, told: &mut Option<Told>) -> bool {
        let now: Told =
            self.web.channels.list().into_iter().map(|it| (it.name.clone(), it)).collect();
        let is_first = told.is_none();
        let before = told.take().unwrap_or_default();
        let filled = body.bytes.len();
        for (name, listed) in &now {
            let change = match before.get(name) {
                Some(old) if old.epoch == listed.epoch && old.is_as_far_as(listed) => continue,
                None if !is_first => Change::Added,
                _ => Change::Further,
            };
            body.push(|out| {
                self.push_listed(out, listed, change);
                out.push(b'\n');
            });
        }
        for name in before.keys().filter(|name| !now.contains_key(name)) {
            let line = format!("{{\"channel\":\"{name}\",\"removed\":true}}\n");
            body.push(|out| out.extend_from_slice(line.as_bytes()));
        }
        *told = Some(now);
        body.bytes.len() > filled
    }

    /// One channel as JSON.
    fn push_listed(&self, out: &mut Vec<u8>, listed: &Listed, change: Change) {
        let Listed { name, epoch, figures } = listed;
        out.extend_from_slice(format!("{{\"channel\":\"{name}\",\"last_id\":").as_bytes());
        push_number(figures.last_id, out);
        out.extend_from_slice(br#","messages":"#);
        push_number(figures.messages, out);
        out.extend_from_slice(format!(",\"epoch\":\"{epoch}\"").as_bytes());
        if let Some(ts) = figures.ts {
            out.extend_from_slice(br#","ts":"#);
            push_number(ts, out);
        }
        let rights = self.caller.as_ref().map_or(&[][..], |caller| caller.rights(name));
        let words: Vec<_> = rights.iter().map(|right| format!("\"{}\"", right.word())).collect();
        out.extend_from_slice(format!(",\"may\":[{}]", words.join(",")).as_bytes());
        if change == Change::Added {
            out.extend_from_slice(br#","new":true"#);
        }
        out.push(b'}');
    }

    /// `PUT /NAME`: makes the channel.
    pub(super) fn make(&mut self, name: &Name) -> Result<(), Stop> {
        self.check(Right::Post, name)?;
        let refused = |none: crate::channels::NoChannel| none.refusal(name);
        let made = self.web.channels.make(name).map_err(refused)?;
        let found = self.web.channels.find(name).map_err(refused)?;
        let epoch = found.summary.epoch.clone();
        let listed = Listed { name: name.clone(), epoch, figures: found.summary.figures() };
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
