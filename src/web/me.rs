//! `GET /me`: who asks, and what it may do.

use http::{StatusCode, header};

use super::{Exchange, JSON, Stop};
use crate::{channels::Listed, message::push_json_string};

impl Exchange<'_> {
    pub(super) fn me(&mut self) -> Result<(), Stop> {
        let mut body = b"{".to_vec();
        if let Some(sender) = self.caller().sender() {
            body.extend_from_slice(br#""from":"#);
            push_json_string(&sender, &mut body);
            body.push(b',');
        }
        body.extend_from_slice(br#""may":{"#);
        let mut comma = "";
        for Listed { name, .. } in self.web.channels.list() {
            let rights = self.caller().rights(&name);
            if !rights.is_empty() {
                body.extend_from_slice(format!("{comma}\"{name}\":{}", rights.json()).as_bytes());
                comma = ",";
            }
        }
        body.extend_from_slice(b"}}\n");
        let headers = vec![
            (header::CONTENT_TYPE, JSON.to_owned()),
            (header::CACHE_CONTROL, "no-store".to_owned()),
        ];
        self.whole(StatusCode::OK, headers, &body)
    }
}
