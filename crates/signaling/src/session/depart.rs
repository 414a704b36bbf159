//! What is left of a call that is over: the answers its repetitions get (RFC 3261 17.2.2, RFC 6026 8.5). Thousands of
//! them stand about for half a minute each, so they are small.

use std::time::Instant;

use super::{Session, State};
use crate::hop::{Hop, Transmit};
use crate::message::{Method, Request, ResponseBuilder, StatusCode};
use crate::stateless;
use crate::transaction::{InviteServer, Server};

/// When an INVITE under the Call-ID of a call that is over may come again, in seconds (RFC 3261 14.2 has 0 to 10).
const RETRY_AFTER: &str = "5";

/// A session of which nothing more is to come but repetitions.
#[derive(Debug)]
pub struct Departed {
    local_tag: Box<str>,
    invites: Box<[InviteServer]>,
    servers: Box<[Server]>,
    until: Instant,
}

impl Session {
    /// Lets go of all but the answers to repetitions. A session that still has something to do is given back.
    pub fn depart(mut self: Box<Self>) -> Result<Departed, Box<Self>> {
        let absorbs = self.state == State::Over
            && self.out.is_empty()
            && self.events.is_empty()
            && self.referring.is_none()
            && self.invite_clients.is_empty()
            && self.clients.iter().all(|asked| !asked.client.is_pending())
            && self.invite_servers.iter().all(InviteServer::only_absorbs)
            && self.servers.iter().all(|server| server.pending().is_none());
        if !absorbs {
            return Err(self);
        }
        let ends = self.invite_servers.iter().map(InviteServer::timeout);
        let until = ends.chain(self.servers.iter().map(Server::timeout)).flatten().max();
        let Some(until) = until else { return Err(self) };
        Ok(Departed {
            local_tag: std::mem::take(&mut self.local_tag),
            invites: std::mem::take(&mut self.invite_servers).into(),
            servers: std::mem::take(&mut self.servers).into(),
            until,
        })
    }
}

impl Departed {
    /// When the last transaction has timed out.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.until
    }

    /// The answer to a request of the call.
    #[must_use]
    pub fn answer(&self, request: &Request, from: Hop) -> Option<Transmit> {
        let method = request.method();
        let invite = || self.invites.iter().find(|server| server.matches(request));
        let (status, headers): (u16, &[(&str, &str)]) = match method {
            Method::Ack => return None,
            Method::Invite if invite().is_some() => return None,
            Method::Cancel if invite().is_some() => (200, &[]),
            _ => {
                if let Some(server) = self.servers.iter().find(|server| server.matches(request)) {
                    return server.response();
                }
                let cseq = request.cseq().number;
                match method {
                    Method::Invite if request.to_tag().is_some() => (481, &[]),
                    // The INVITE by another path (RFC 3261 8.2.2.2), or another INVITE.
                    Method::Invite if self.invites.iter().any(|server| server.cseq() == cseq) => (482, &[]),
                    Method::Invite => (500, &[("Retry-After", RETRY_AFTER)]),
                    _ => (481, &[]),
                }
            }
        };
        let status = StatusCode(status);
        let mut builder = ResponseBuilder::new(request, status, None, Some(&self.local_tag), from.remote);
        for (name, value) in headers {
            builder = builder.header_named(name, value);
        }
        Some(Transmit { hop: stateless::response_hop(request, from), bytes: builder.build() })
    }
}
