//! Non-INVITE server transaction (RFC 3261 17.2.2). We answer at once, so it begins Completed: it repeats its final
//! response until timer J.

use std::time::Instant;

use bytes::Bytes;

use super::{Outbox, T1_64};
use crate::hop::{Hop, Transmit};
use crate::message::Method;

#[derive(Debug)]
pub(crate) struct Server {
    branch: Box<str>,
    method: Method,
    hop: Hop,
    response: Bytes,
    /// Timer J; passed at once over a reliable transport.
    until: Instant,
}

impl Server {
    pub(crate) fn complete(
        branch: &str,
        method: Method,
        hop: Hop,
        response: Bytes,
        now: Instant,
        out: &mut Outbox,
    ) -> Self {
        out.push_back(Transmit { hop, bytes: response.clone() });
        let until = if hop.transport.is_reliable() { now } else { now + T1_64 };
        Self { branch: branch.into(), method, hop, response, until }
    }

    pub(crate) fn matches(&self, branch: &str, method: Method) -> bool {
        self.method == method && *self.branch == *branch
    }

    /// The request came again.
    pub(crate) fn repeat(&self, out: &mut Outbox) {
        out.push_back(Transmit { hop: self.hop, bytes: self.response.clone() });
    }

    pub(crate) fn timeout(&self) -> Instant {
        self.until
    }
}
