//! Operations by their own paths: `PATCH` and `DELETE /NAME/42`, reactions and pins.
//!
//! Each makes the line that a client would send on a WebSocket, and posts it.

use http::{Method, StatusCode, header};

use super::{
    Channel, Exchange, JSON, Stop,
    posting::{Kind, push_said},
};
use crate::{
    command::Stored,
    http::HttpRefusal,
    message::{self, push_json_string},
    name::Name,
    wire::{ErrorAnswer, push_number},
};

impl Exchange<'_> {
    /// `PATCH /NAME/42`: the body is the new data.
    pub(super) fn edit(&mut self, name: Name, id: u64) -> Result<(), Stop> {
        let channel = self.postable(name)?;
        let kind = self.kind()?;
        let speaker = self.speaker()?;
        let text = self.text_of_body(&channel, kind, self.web.config.max_message)?;
        if kind == Kind::Many {
            let sentence = "the new data are application/json or text/plain";
            return Err(HttpRefusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence).into());
        }
        let mut data = Vec::with_capacity(text.len() + 1);
        if let Err(why) = push_said(kind, &speaker, &text, &mut data) {
            return self.answer_refusal(StatusCode::BAD_REQUEST, ErrorAnswer::NotJson, &why);
        }
        let mut line = begun("edit", id);
        line.extend_from_slice(br#","data":"#);
        line.extend_from_slice(message::trim(&data));
        self.operate(&channel, line)
    }

    /// `DELETE /NAME/42`.
    pub(super) fn delete(&mut self, name: Name, id: u64) -> Result<(), Stop> {
        let channel = self.postable(name)?;
        self.operate(&channel, begun("delete", id))
    }

    /// `PUT` and `DELETE /NAME/42/pin`.
    pub(super) fn pin(&mut self, name: Name, id: u64) -> Result<(), Stop> {
        let channel = self.postable(name)?;
        let op = if self.request.method() == Method::PUT { "pin" } else { "unpin" };
        self.operate(&channel, begun(op, id))
    }

    /// `PUT` and `DELETE /NAME/42/reactions/KEY`.
    pub(super) fn react(&mut self, name: Name, id: u64, key: &str) -> Result<(), Stop> {
        let channel = self.postable(name)?;
        let op = if self.request.method() == Method::PUT { "react" } else { "unreact" };
        let mut line = begun(op, id);
        line.extend_from_slice(br#","key":"#);
        push_json_string(key, &mut line);
        self.operate(&channel, line)
    }

    /// Posts an operation, given without its end, and answers with the id of its line.
    fn operate(&mut self, channel: &Channel, mut line: Vec<u8>) -> Result<(), Stop> {
        line.extend_from_slice(b"}\n");
        let key = self.key()?;
        let Some(Stored { first_id, .. }) = self.store(channel, key, line)? else { return Ok(()) };
        let headers = vec![(header::CONTENT_TYPE, JSON.to_owned())];
        self.whole(StatusCode::OK, headers, format!("{{\"id\":{first_id}}}\n").as_bytes())
    }
}

/// The beginning of an operation's line.
fn begun(op: &str, id: u64) -> Vec<u8> {
    let mut line = format!(r#"{{"$op":"{op}","id":"#).into_bytes();
    push_number(id, &mut line);
    line
}
