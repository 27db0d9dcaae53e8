//! `GET /dev,ops?follow=1`, `GET /*?follow=1`: several channels on one stream, each line with its
//! channel's name.
//!
//! Each channel is read from its own place on; a stream of events names all these places in the id of
//! each event, so that a browser that comes back misses nothing. A channel that ends is left out until
//! it is there again.

use crossbeam_channel::{Receiver, Sender, bounded, select};
use http::{StatusCode, header};

use super::{
    Exchange, NotAReader, Stop,
    chunks::Chunks,
    messages::{for_found, push_line},
    query::{Form, Query},
};
use crate::{
    access::Right,
    channels::{NoChannel, Open},
    command::View,
    history::Window,
    http::{HttpRefusal, query::number},
    lines::log_unreadable,
    name::Name,
    route::Names,
    wire::push_number,
};

/// The most channels on one stream.
const MOST: usize = 64;

/// One of the channels on a stream.
struct Feed {
    name: Name,
    /// Where it is read from; `None` while it is not open.
    open: Option<Open>,
    /// The numbering that `after` belongs to.
    epoch: String,
    /// The last message that was read.
    after: u64,
}

impl Feed {
    /// Goes on with the channel as it is `there` now, if it is another opening or has another epoch.
    fn attach(&mut self, there: Option<Open>, wake: Option<&Sender<()>>) {
        let is_as_before = matches!((&self.open, &there), (Some(old), Some(new)) if old.is(new));
        let epoch = there.as_ref().map(|open| open.summary.epoch());
        let has_epoch = epoch.as_deref() == Some(&self.epoch);
        if is_as_before && has_epoch {
            return;
        }
        self.open = there;
        let (Some(open), Some(epoch)) = (&self.open, epoch) else { return };
        if !is_as_before && !has_epoch {
            self.after = 0;
        }
        // A file that took the epoch of a cluster has the same lines as before, but its hub has let go of
        // all who follow it.
        self.epoch = epoch.to_string();
        let nothing = Window { after: Some(u64::MAX), ..Window::default() };
        if open.hub.look(nothing, wake.cloned()).is_err() {
            self.open = None;
        }
    }
}

/// A stream of several channels.
struct Stream<'a> {
    query: &'a Query,
    feeds: Vec<Feed>,
    /// Given to hubs, to be told when there is more.
    wake: Option<Sender<()>>,
}

impl Exchange<'_> {
    pub(super) fn several(&mut self, names: &Names) -> Result<(), Stop> {
        let mut query = Query::parse(self.request.uri().query().unwrap_or_default())?;
        let form = self.form()?;
        if form == Form::Array {
            let sentence = "several channels are application/x-ndjson or text/event-stream";
            return Err(HttpRefusal::new(StatusCode::NOT_ACCEPTABLE, sentence).into());
        }
        query.follow |= form == Form::Events;
        if query.follow && query.window.before.is_some() {
            return Err(HttpRefusal::bad("follow=1 goes without before=").into());
        }
        if query.epoch.is_some() {
            return Err(HttpRefusal::bad("epoch= goes with one channel alone").into());
        }
        let (wake, woken) = bounded(1);
        let comings = self.web.channels.comings().follow();
        let found = self.found(names)?;
        let places = self.places(form)?;
        let mut stream =
            Stream { query: &query, feeds: Vec::new(), wake: query.follow.then_some(wake) };
        // Before the answer begins: what is said from then on is not missed.
        let mut views = Vec::new();
        for (name, open) in found {
            let place = places.iter().find(|(of, _)| *of == name).map(|(_, after)| *after);
            views.push((stream.take_up(name, open, place), place));
        }
        let headers = vec![
            (header::CONTENT_TYPE, form.content_type().to_owned()),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
        ];
        let mut body = self.begin_chunks(form, headers)?;
        if self.is_head() {
            return Ok(());
        }
        let rest = query.rest();
        for (at, (view, place)) in views.into_iter().enumerate() {
            // One that comes back has what goes before its place.
            let query = if place.is_some() { &rest } else { &query };
            if let Some(view) = view {
                stream.write(self, &mut body, at, view, query)?;
            }
        }
        if query.follow {
            self.follow_several(&mut body, &mut stream, names, &woken, &comings)?;
        }
        Ok(body.finish(self)?)
    }

    /// Writes what comes, until the peer leaves or the server stops.
    fn follow_several(
        &mut self,
        body: &mut Chunks,
        stream: &mut Stream<'_>,
        names: &Names,
        woken: &Receiver<()>,
        comings: &Receiver<()>,
    ) -> Result<(), Stop> {
        loop {
            select! {
                recv(woken) -> _ => {}
                recv(comings) -> coming => {
                    if coming.is_err() {
                        return Ok(());
                    }
                    self.web.channels.comings().look();
                    stream.attach(self, body, names)?;
                }
                default(self.idle()) => {
                    if self.peer_left() {
                        return Err(Stop::PeerGone);
                    }
                    body.show_life(self)?;
                }
            }
            // The rules may have changed.
            let count = stream.feeds.len();
            stream.feeds.retain(|feed| self.caller().may(Right::Read, &feed.name));
            if *names != Names::All && stream.feeds.len() < count {
                return Ok(());
            }
            stream.go_on(self, body)?;
        }
    }

    /// The channels that are asked for; each must be there.
    fn found(&self, names: &Names) -> Result<Vec<(Name, Open)>, Stop> {
        let channels = self.web.channels;
        let found: Vec<_> = match names {
            Names::All => {
                let is_readable = |name: &Name| self.caller().may(Right::Read, name);
                channels.open().into_iter().filter(|(name, _)| is_readable(name)).collect()
            }
            Names::These(names) if names.len() > MOST => Vec::new(),
            Names::These(names) => {
                let find = |name: &Name| {
                    if !self.caller().may(Right::Read, name) {
                        return Err(NoChannel::Missing.refusal(name));
                    }
                    let open = channels.find(name).map_err(|none| none.refusal(name))?;
                    Ok::<_, HttpRefusal>((name.clone(), open))
                };
                names.iter().map(find).collect::<Result<_, _>>()?
            }
        };
        let asked = match names {
            Names::All => found.len(),
            Names::These(names) => names.len(),
        };
        if asked > MOST {
            let sentence = format!(
                "these are {asked} channels; ask for {MOST} at the most, or follow /channels"
            );
            return Err(HttpRefusal::bad(sentence).into());
        }
        Ok(found)
    }

    /// Where a reader of events that comes back stood in each channel.
    fn places(&self, form: Form) -> Result<Vec<(Name, u64)>, HttpRefusal> {
        let given = self.request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
        let Some(given) = given.filter(|id| form == Form::Events && !id.is_empty()) else {
            return Ok(Vec::new());
        };
        let place = |text: &str| {
            let (name, after) = text.split_once(':')?;
            Some((Name::parse(name).ok()?, number("id", after.as_bytes()).ok()?))
        };
        given.split(',').map(place).collect::<Option<_>>().ok_or_else(|| {
            HttpRefusal::bad("Last-Event-ID of several channels is such as dev:42,ops:7")
        })
    }
}

impl Stream<'_> {
    /// Takes a channel in; returns what is asked of its history. `place` is the last message that the
    /// reader has, if it comes back.
    fn take_up(&mut self, name: Name, open: Open, place: Option<u64>) -> Option<View> {
        let window = match place {
            Some(after) => Window { after: Some(after), ..Window::default() },
            None => Window { since: self.since(&name, &open), ..self.query.window() },
        };
        // Where it cannot be looked at, it ended just now; it is taken up when it is there again.
        let Ok(mut view) = open.hub.look(window, self.wake.clone()) else {
            self.feeds.push(Feed { name, open: None, epoch: String::new(), after: 0 });
            return None;
        };
        if self.query.follow && window.after.is_some_and(|after| after > view.last_id) {
            // The ids are another file's: start over, as with one channel.
            let whole = Window { after: None, ..window };
            view = open.hub.look(whole, None).unwrap_or(view);
        }
        let (epoch, after) = (view.epoch.to_string(), view.stretch.first_id - 1);
        self.feeds.push(Feed { name, open: Some(open), epoch, after });
        Some(view)
    }

    /// The id where the messages since the time that the query names begin in a channel.
    fn since(&self, name: &Name, open: &Open) -> Option<u64> {
        let since = open.hub.since(self.query.since?).ok()?;
        // All of them are better than none where the stamps cannot be read.
        let first_id = since.first_id();
        first_id.inspect_err(|why| log_unreadable(format_args!("channel {name}"), why)).ok()
    }

    /// Reads on in the channels that have more.
    fn go_on(&mut self, exchange: &mut Exchange<'_>, body: &mut Chunks) -> Result<(), Stop> {
        let rest = self.query.rest();
        for at in 0..self.feeds.len() {
            let Feed { open: Some(open), after, .. } = &self.feeds[at] else { continue };
            if open.summary.figures().last_id <= *after {
                continue;
            }
            let window = Window { after: Some(*after), ..Window::default() };
            match open.hub.look(window, None) {
                Ok(view) => self.write(exchange, body, at, view, &rest)?,
                Err(_) => self.feeds[at].open = None,
            }
        }
        Ok(())
    }

    /// Takes up channels that are there again, and those that are new where all are asked for.
    fn attach(
        &mut self,
        exchange: &mut Exchange<'_>,
        body: &mut Chunks,
        names: &Names,
    ) -> Result<(), Stop> {
        if *names == Names::All {
            self.forget_those_put_away(exchange);
        }
        let mut open = exchange.web.channels.open();
        open.retain(|name, _| exchange.caller().may(Right::Read, name));
        for feed in &mut self.feeds {
            feed.attach(open.remove(&feed.name), self.wake.as_ref());
        }
        if *names == Names::All {
            for (name, new) in open.into_iter().take(MOST.saturating_sub(self.feeds.len())) {
                // All of it is new.
                if let Some(view) = self.take_up(name, new, Some(0)) {
                    self.write(exchange, body, self.feeds.len() - 1, view, &self.query.rest())?;
                }
            }
        }
        Ok(())
    }

    /// Forgets the channels that are no more; the place of one that ended is kept, since it may be opened
    /// anew.
    fn forget_those_put_away(&mut self, exchange: &Exchange<'_>) {
        let known = exchange.web.channels.list();
        let is_known = |name: &Name| known.binary_search_by(|it| it.name.cmp(name)).is_ok();
        self.feeds.retain(|feed| is_known(&feed.name));
    }

    /// Writes what a query finds in a part of one channel.
    fn write(
        &mut self,
        exchange: &mut Exchange<'_>,
        body: &mut Chunks,
        at: usize,
        view: View,
        query: &Query,
    ) -> Result<(), Stop> {
        let last_id = view.stretch.last_id;
        let mut stamps = view.stamps.read();
        let feeds = &mut self.feeds;
        if let Err(NotAReader) = exchange.begin_reading(&feeds[at].name) {
            // The loop that follows the channels leaves it out, or ends the stream.
            return if self.query.follow { Ok(()) } else { Err(Stop::PeerGone) };
        }
        for_found(query, &view.stretch, |id, data| {
            feeds[at].after = id;
            if body.form == Form::Events {
                push_places(feeds, &mut body.bytes);
            }
            let name = &feeds[at].name;
            body.push(|out| push_line(out, Some(name), id, stamps.of(id), data));
            body.flush_full(exchange)
        })?;
        feeds[at].after = last_id;
        Ok(body.flush(exchange)?)
    }
}

/// The id of an event: how far each channel has been read.
fn push_places(feeds: &[Feed], out: &mut Vec<u8>) {
    let mut before: &[u8] = b"id: ";
    for feed in feeds {
        out.extend_from_slice(before);
        out.extend_from_slice(feed.name.as_str().as_bytes());
        out.push(b':');
        push_number(feed.after, out);
        before = b",";
    }
    out.push(b'\n');
}
