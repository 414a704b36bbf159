//! INVITE server transaction (RFC 3261 17.2.1, RFC 6026 8.5).

use std::time::Instant;

use bytes::Bytes;

use super::{
    Outbox, Retransmission, ServerKey, T2, TIMER_G, TIMER_H, TIMER_I, TIMER_L, TRYING, due, earliest,
};
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
    key: ServerKey,
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
        Self {
            key: ServerKey::of(&request),
            hop: stateless::response_hop(&request, from),
            state: State::Proceeding,
            request: Some(Box::new(request)),
            last: None,
            trying: Some(now + TRYING),
            retransmission: None,
            timeout: None,
        }
    }

    /// A re-INVITE that is refused as it comes.
    pub(crate) fn refused(request: &Request, hop: Hop, bytes: Bytes, now: Instant, out: &mut Outbox) -> Self {
        let mut server = Self {
            key: ServerKey::of(request),
            hop,
            state: State::Proceeding,
            request: None,
            last: None,
            trying: None,
            retransmission: None,
            timeout: None,
        };
        server.complete(bytes, now, out);
        server
    }

    /// Whether an INVITE, CANCEL or ACK of a non-2xx belongs to the transaction.
    pub(crate) fn matches(&self, request: &Request) -> bool {
        self.key.matches(request)
    }

    pub(crate) fn cseq(&self) -> u32 {
        self.key.cseq()
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
            out.push(Transmit { hop: self.hop, bytes: last.clone() });
        }
    }

    pub(crate) fn provisional(&mut self, bytes: Bytes, out: &mut Outbox) {
        self.trying = None;
        self.last = Some(bytes.clone());
        out.push(Transmit { hop: self.hop, bytes });
    }

    /// A final response; the session repeats a 2xx itself (RFC 3261 13.3.1.4).
    pub(crate) fn finish(&mut self, status: StatusCode, bytes: Bytes, now: Instant, out: &mut Outbox) {
        self.request = None;
        self.trying = None;
        if status.is_success() {
            self.state = State::Accepted;
            self.last = None;
            self.timeout = Some(now + TIMER_L);
            out.push(Transmit { hop: self.hop, bytes });
        } else {
            self.complete(bytes, now, out);
        }
    }

    fn complete(&mut self, bytes: Bytes, now: Instant, out: &mut Outbox) {
        self.state = State::Completed;
        // The copy has no spare room: it is kept for half a minute when no ACK comes.
        self.last = Some(Bytes::copy_from_slice(&bytes));
        self.retransmission =
            (!self.hop.transport.is_reliable()).then(|| Retransmission::start(TIMER_G, T2, now));
        self.timeout = Some(now + TIMER_H);
        out.push(Transmit { hop: self.hop, bytes });
    }

    /// An ACK of this branch: it stops the repetition of a non-2xx.
    pub(crate) fn acknowledge(&mut self, now: Instant) {
        if self.state == State::Completed {
            self.state = State::Confirmed;
            self.last = None;
            self.retransmission = None;
            self.timeout = Some(if self.hop.transport.is_reliable() { now } else { now + TIMER_I });
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        if due(self.trying, now) {
            self.trying = None;
            if let Some(request) = self.request.as_deref() {
                let bytes =
                    ResponseBuilder::new(request, StatusCode(100), None, None, self.hop.remote).build();
                self.provisional(bytes, out);
            }
        }
        if due(self.timeout, now) {
            self.end();
        } else if self.retransmission.as_mut().is_some_and(|r| r.fire(now))
            && let Some(last) = &self.last
        {
            out.push(Transmit { hop: self.hop, bytes: last.clone() });
        }
    }

    /// Gives up, as after a transport error.
    pub(crate) fn end(&mut self) {
        self.state = State::Terminated;
        self.request = None;
        self.last = None;
        self.trying = None;
        self.retransmission = None;
        self.timeout = None;
    }

    /// Whether nothing is to be sent any more, whatever comes.
    pub(crate) fn only_absorbs(&self) -> bool {
        matches!(self.state, State::Accepted | State::Confirmed | State::Terminated)
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        earliest([self.trying, self.timeout, self.retransmission.map(|r| r.at())])
    }
}
