//! `GET /healthz`, `/readyz` and `/metrics`: what operators ask.

use std::time::Duration;

use http::{StatusCode, header};

use super::{Exchange, Stop, stopping};
use crate::{
    cluster::Link,
    command::HubGone,
    http::{HttpRefusal, response::TEXT},
    metrics::Status,
    name::Name,
};

/// How long an answer of the hub is waited for before the server counts as not well.
const HUB_TIME: Duration = Duration::from_secs(2);

/// How long an answer about the hub may take: it may first wait for room in a full queue.
pub const STATUS_TIME: Duration = HUB_TIME.saturating_mul(2);

impl Exchange<'_> {
    /// Whether the process and its hub answer. Nothing else counts, since a server that is not
    /// alive is restarted.
    pub(super) fn health(&mut self) -> Result<(), Stop> {
        match self.status() {
            Ok(None) => Err(no_answer().into()),
            // A server that stops is well.
            Ok(Some(_)) | Err(HubGone) => self.well(),
        }
    }

    /// Whether messages can be stored, and will be in a moment.
    pub(super) fn readiness(&mut self) -> Result<(), Stop> {
        if self.web.channels.are_stopping() {
            return Err(stopping().into());
        }
        match self.status() {
            Ok(Some(status)) if status.is_writable => self.well(),
            Ok(Some(_)) => Err(HttpRefusal::unavailable("messages cannot be stored now").into()),
            Ok(None) => Err(no_answer().into()),
            Err(HubGone) => Err(stopping().into()),
        }
    }

    fn well(&mut self) -> Result<(), Stop> {
        let headers = vec![
            (header::CONTENT_TYPE, TEXT.to_owned()),
            (header::CACHE_CONTROL, "no-store".to_owned()),
        ];
        self.whole(StatusCode::OK, headers, b"ok\n")
    }

    pub(super) fn metrics(&mut self) -> Result<(), Stop> {
        let status = self.status().map_err(|HubGone| stopping())?;
        let status = status.ok_or_else(no_answer)?;
        let levels = self.web.channels.levels();
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        let headers = vec![(header::CONTENT_TYPE, kind.to_owned())];
        let mut page = self.web.metrics.render(&levels, &status);
        page.extend(self.web.channels.link().map(Link::render));
        self.whole(StatusCode::OK, headers, page.as_bytes())
    }

    /// How the default channel is. When it ends, the server ends.
    fn status(&self) -> Result<Option<Status>, HubGone> {
        let default = self.web.channels.find(&Name::default()).map_err(|_| HubGone)?;
        default.hub.status(HUB_TIME)
    }
}

fn no_answer() -> HttpRefusal {
    HttpRefusal::unavailable("the hub does not answer")
}
