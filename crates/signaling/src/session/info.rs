//! Requests inside the dialog that only ask or tell: INFO (RFC 6086), MESSAGE (RFC 3428), OPTIONS (RFC 3261 11).

use std::time::Instant;

use super::{Event, Session};
use crate::hop::Hop;
use crate::message::{HeaderName, Request, StatusCode};
use crate::stateless;

/// Longest Content-Type kept, in bytes.
const MAX_CONTENT_TYPE: usize = 128;

impl Session {
    pub(super) fn info(&mut self, request: &Request, from: Hop, now: Instant) {
        self.reply(request, StatusCode(200), &[], from, now);
        let content_type = request.header(HeaderName::ContentType).unwrap_or_default();
        if content_type.len() <= MAX_CONTENT_TYPE {
            let content_type = content_type.to_owned();
            self.push(Event::Info { content_type, body: request.body().clone() });
        }
    }

    pub(super) fn options(&mut self, request: &Request, from: Hop, now: Instant) {
        self.reply(request, StatusCode(200), &stateless::CAPABILITIES, from, now);
    }
}
