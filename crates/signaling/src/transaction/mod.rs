//! The four transaction machines (RFC 3261 17, RFC 6026). Each is fed messages of its own branch and told the time;
//! it puts what is to be sent into the outbox of its session.

mod client;
mod invite_client;
mod invite_server;
mod server;
mod timer;

use std::collections::VecDeque;

use crate::hop::Transmit;
use crate::message::Request;

pub(crate) use client::{Client, ClientOutcome};
pub(crate) use invite_client::{InviteClient, InviteOutcome};
pub(crate) use invite_server::InviteServer;
pub(crate) use server::Server;
pub use timer::*;
pub(crate) use timer::{Retransmission, due, earliest};

/// Messages of one session that wait to be sent. A caller that drains after every input never has more than a few;
/// for one that does not, what comes on top is lost as on a network.
const MAX_OUTBOX: usize = 64;

/// What a session has to send.
#[derive(Debug, Default)]
pub(crate) struct Outbox(VecDeque<Transmit>);

impl Outbox {
    pub(crate) fn push(&mut self, transmit: Transmit) {
        if self.0.len() < MAX_OUTBOX {
            self.0.push_back(transmit);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Transmit> {
        self.0.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }
}

/// What a server transaction is known by (RFC 3261 17.2.3): branch and sent-by of the topmost Via. The sequence
/// number tells requests of an RFC 2543 peer apart, whose branch is missing or always the same.
#[derive(Debug)]
pub(crate) struct ServerKey {
    branch: Box<str>,
    host: Box<str>,
    port: Option<u16>,
    cseq: u32,
}

impl ServerKey {
    pub(crate) fn of(request: &Request) -> Self {
        let via = request.top_via();
        Self {
            branch: via.and_then(|v| v.branch()).unwrap_or_default().into(),
            host: via.map_or("", |v| v.host).into(),
            port: via.and_then(|v| v.port),
            cseq: request.cseq().number,
        }
    }

    /// Whether a request belongs to the transaction; its method is for the caller to compare.
    pub(crate) fn matches(&self, request: &Request) -> bool {
        if self.cseq != request.cseq().number {
            return false;
        }
        let Some(via) = request.top_via() else { return false };
        *self.branch == *via.branch().unwrap_or_default()
            && self.host.eq_ignore_ascii_case(via.host)
            && self.port == via.port
    }

    pub(crate) fn cseq(&self) -> u32 {
        self.cseq
    }
}
