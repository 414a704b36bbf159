//! INVITE server transaction (RFC 3261 17.2.1, RFC 6026 8.5).

use std::time::Instant;

use bytes::Bytes;

use super::{Outbox, Retransmission, T1_64, T2, T4, TRYING, due, earliest};
use crate::hop::{Hop, Transmit};
use crate::message::{Request, ResponseBuilder, StatusCode};
use crate::stateless;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Proceeding,
    /// A non-2xx final response awaits its ACK.
    Completed,
    /// The ACK came; its repetitions are absorbed until timer I.
    Confirmed,
    /// A 2xx was sent; repetitions of the INVITE are absorbed until timer L.
    Accepted,
    Terminated,
}

#[derive(Debug)]
pub(crate) struct InviteServer {
    branch: Box<str>,
    pub(crate) cseq: u32,
    pub(crate) hop: Hop,
    state: State,
    /// Kept until the final response is sent.
    request: Option<Box<Request>>,
    /// The last response, repeated when the INVITE is.
    last: Option<Bytes>,
    /// 100 Trying.
    trying: Option<Instant>,
    /// Timer G.
    retransmission: Option<Retransmission>,
    /// Timer H, I or L.
    timeout: Option<Instant>,
}

impl InviteServer {
    pub(crate) fn new(request: Request, from: Hop, now: Instant) -> Self {
        let branch = request.top_via().and_then(|v| v.branch()).unwrap_or_default().into();
        Self {
            branch,
            cseq: request.cseq().number,
            hop: stateless::response_hop(&request, from),
            state: State::Proceeding,
            request: Some(Box::new(request)),
            last: None,
            trying: Some(now + TRYING),
            retransmission: None,
            timeout: None,
        }
    }

    pub(crate) fn matches(&self, branch: &str) -> bool {
        *self.branch == *branch
    }

    /// The request, while no final response has been sent.
    pub(crate) fn pending(&self) -> Option<&Request> {
        self.request.as_deref()
    }

    /// The INVITE came again.
    pub(crate) fn repeat(&self, out: &mut Outbox) {
        if matches!(self.state, State::Proceeding | State::Completed)
            && let Some(last) = &self.last
        {
            out.push_back(Transmit { hop: self.hop, bytes: last.clone() });
        }
    }

    pub(crate) fn provisional(&mut self, bytes: Bytes, out: &mut Outbox) {
        self.trying = None;
        self.last = Some(bytes.clone());
        out.push_back(Transmit { hop: self.hop, bytes });
    }

    /// A final response; the session repeats a 2xx itself (RFC 3261 13.3.1.4).
    pub(crate) fn finish(&mut self, status: StatusCode, bytes: Bytes, now: Instant, out: &mut Outbox) {
        self.request = None;
        self.trying = None;
        self.timeout = Some(now + T1_64);
        out.push_back(Transmit { hop: self.hop, bytes: bytes.clone() });
        if status.is_success() {
            self.state = State::Accepted;
            self.last = None;
        } else {
            self.state = State::Completed;
            self.last = Some(bytes);
            self.retransmission = (!self.hop.transport.is_reliable()).then(|| Retransmission::start(now, T2));
        }
    }

    /// An ACK of this branch, or of a 2xx: the session decides which.
    pub(crate) fn acknowledge(&mut self, now: Instant) {
        if self.state == State::Completed {
            self.state = State::Confirmed;
            self.last = None;
            self.retransmission = None;
            // Timer I: zero over a reliable transport.
            self.timeout = Some(if self.hop.transport.is_reliable() { now } else { now + T4 });
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        if due(self.trying, now) {
            self.trying = None;
            if let Some(request) = self.request.as_deref() {
                let source = self.hop.remote;
                let bytes = ResponseBuilder::new(request, StatusCode(100), None, None, source).build();
                self.provisional(bytes, out);
            }
        }
        if due(self.timeout, now) {
            self.end();
        } else if self.retransmission.as_mut().is_some_and(|r| r.fire(now))
            && let Some(last) = &self.last
        {
            out.push_back(Transmit { hop: self.hop, bytes: last.clone() });
        }
    }

    pub(crate) fn end(&mut self) {
        self.state = State::Terminated;
        self.request = None;
        self.last = None;
        self.trying = None;
        self.retransmission = None;
        self.timeout = None;
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        earliest([self.trying, self.timeout, self.retransmission.map(|r| r.at)])
    }
}
