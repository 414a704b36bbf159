//! Non-INVITE server transaction (RFC 3261 17.2.2).

use std::time::Instant;

use bytes::Bytes;

use super::{Outbox, ServerKey, TIMER_J};
use crate::hop::{Hop, Transmit};
use crate::message::{Method, Request};

#[derive(Debug)]
enum State {
    /// No answer yet: repetitions are absorbed.
    Trying(Box<Request>),
    /// The final response, repeated until timer J.
    Completed(Bytes, Instant),
}

#[derive(Debug)]
pub(crate) struct Server {
    key: ServerKey,
    method: Method,
    pub(crate) hop: Hop,
    state: State,
}

impl Server {
    /// A request that is answered later.
    pub(crate) fn begin(request: Request, hop: Hop) -> Self {
        Self {
            key: ServerKey::of(&request),
            method: request.method(),
            hop,
            state: State::Trying(Box::new(request)),
        }
    }

    /// A request that has been answered with `response`.
    pub(crate) fn answered(request: &Request, hop: Hop, response: &Bytes, now: Instant) -> Self {
        let state = Self::completed(response, hop, now);
        Self { key: ServerKey::of(request), method: request.method(), hop, state }
    }

    fn completed(response: &Bytes, hop: Hop, now: Instant) -> State {
        let until = if hop.transport.is_reliable() { now } else { now + TIMER_J };
        // A copy without the builder's spare room: it is kept for half a minute after every call.
        State::Completed(Bytes::copy_from_slice(response), until)
    }

    pub(crate) fn matches(&self, request: &Request) -> bool {
        self.method == request.method() && self.key.matches(request)
    }

    /// The request, while it has no answer and is one of `methods`.
    pub(crate) fn waits(&self, methods: &[Method]) -> Option<&Request> {
        self.pending().filter(|_| methods.contains(&self.method))
    }

    /// The request, while it has no answer.
    pub(crate) fn pending(&self) -> Option<&Request> {
        match &self.state {
            State::Trying(request) => Some(request),
            State::Completed(..) => None,
        }
    }

    pub(crate) fn finish(&mut self, response: Bytes, now: Instant, out: &mut Outbox) {
        self.state = Self::completed(&response, self.hop, now);
        out.push(Transmit { hop: self.hop, bytes: response });
    }

    /// The final response, once there is one.
    pub(crate) fn response(&self) -> Option<Transmit> {
        match &self.state {
            State::Trying(_) => None,
            State::Completed(response, _) => Some(Transmit { hop: self.hop, bytes: response.clone() }),
        }
    }

    /// The request came again.
    pub(crate) fn repeat(&self, out: &mut Outbox) {
        if let Some(response) = self.response() {
            out.push(response);
        }
    }

    /// Timer J.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Trying(_) => None,
            State::Completed(_, until) => Some(*until),
        }
    }
}
