//! The upgrade of a connection to a WebSocket: a request becomes the response that accepts it, and
//! what the client asks for.

use http::{Request, StatusCode, header};
use tungstenite::{Error, error::ProtocolError, handshake::server};

use crate::{
    client::{Events, JoinRequest},
    http::{
        HttpRefusal, body,
        query::{parameters, speaker},
    },
    wire::HistoryForm,
};

/// The response that accepts an upgrade, and what the client asks for.
///
/// # Errors
/// When the request is no proper upgrade, or has a malformed query.
pub fn upgrade(request: &Request<()>) -> Result<(Vec<u8>, JoinRequest), HttpRefusal> {
    check_key(request)?;
    check_no_body(request)?;
    let response = server::create_response(request).map_err(|error| not_an_upgrade(&error))?;
    let join = join_request(request.uri().query().unwrap_or_default())?;
    let mut bytes = Vec::with_capacity(256);
    server::write_response(&mut bytes, &response)
        .map_err(|_| HttpRefusal::bad("malformed request"))?;
    Ok((bytes, join))
}

/// RFC 6455 section 11.3.1: one key at most. tungstenite would answer the first and hide the second.
fn check_key(request: &Request<()>) -> Result<(), HttpRefusal> {
    match request.headers().get_all(header::SEC_WEBSOCKET_KEY).iter().count() {
        0 | 1 => Ok(()),
        _ => Err(HttpRefusal::bad("Sec-WebSocket-Key must be given once")),
    }
}

/// RFC 9110 section 7.8: the protocol changes after the whole request, so the bytes of a body are no
/// frames. A proxy that took them for a body would have passed on frames that it never saw.
fn check_no_body(request: &Request<()>) -> Result<(), HttpRefusal> {
    let status = match body::length(request) {
        Ok(0) => return Ok(()),
        Ok(_) => StatusCode::BAD_REQUEST,
        Err(refusal) => refusal.status,
    };
    let sentence =
        "a request that begins a WebSocket has no body; send messages as frames after it";
    Err(HttpRefusal::new(status, sentence))
}

fn not_an_upgrade(error: &Error) -> HttpRefusal {
    match error {
        Error::Protocol(
            ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey,
        ) => HttpRefusal::bad("Sec-WebSocket-Key must be 16 bytes in base64"),
        _ => {
            let sentence = "this is a WebSocket, version 13: connect with a WebSocket client, such \
                            as websocat; a proxy in between must pass Upgrade and Connection on";
            HttpRefusal::new(StatusCode::UPGRADE_REQUIRED, sentence)
                .with(header::UPGRADE, "websocket")
                .with(header::SEC_WEBSOCKET_VERSION, "13")
        }
    }
}

/// The query parameters of `/ws`. Unknown ones are ignored.
fn join_request(query: &str) -> Result<JoinRequest, HttpRefusal> {
    let mut join = JoinRequest { name: speaker(query)?, ..JoinRequest::default() };
    for parameter in parameters(query) {
        match &*parameter.name {
            "after" => join.resume.after = Some(parameter.number()?),
            "limit" => join.resume.limit = Some(parameter.number()?),
            "since" => join.since = Some(parameter.time()?),
            "history" => join.form = history_form(&parameter.text()?)?,
            "events" => join.events = events(parameter.flag()?),
            "epoch" => join.resume.epoch = Some(parameter.text()?),
            _ => {}
        }
    }
    Ok(join)
}

fn events(is_asked: bool) -> Events {
    if is_asked { Events::Told } else { Events::Untold }
}

fn history_form(text: &str) -> Result<HistoryForm, HttpRefusal> {
    match text {
        "each" => Ok(HistoryForm::Each),
        _ => Err(HttpRefusal::bad("history= is each; without it the history is one frame")),
    }
}

#[cfg(test)]
mod tests;
