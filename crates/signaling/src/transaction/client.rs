//! Non-INVITE client transaction (RFC 3261 17.1.2).

use std::time::Instant;

use bytes::Bytes;

use super::{Outbox, Retransmission, T2, TIMER_E, TIMER_F, TIMER_K, due, earliest};
use crate::hop::{Hop, Transmit};
use crate::message::{Method, StatusCode};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

/// What a client transaction comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientOutcome {
    /// The first final response; handed over once.
    Final,
    /// A provisional or repeated response.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) branch: Box<str>,
    pub(crate) method: Method,
    pub(crate) hop: Hop,
    request: Bytes,
    state: State,
    /// Timer E.
    retransmission: Option<Retransmission>,
    /// Timer F, then K.
    timeout: Option<Instant>,
}

impl Client {
    pub(crate) fn send(
        branch: Box<str>,
        method: Method,
        hop: Hop,
        request: Bytes,
        now: Instant,
        out: &mut Outbox,
    ) -> Self {
        out.push(Transmit { hop, bytes: request.clone() });
        let retransmission = (!hop.transport.is_reliable()).then(|| Retransmission::start(TIMER_E, T2, now));
        Self {
            branch,
            method,
            hop,
            request,
            state: State::Trying,
            retransmission,
            timeout: Some(now + TIMER_F),
        }
    }

    /// Whether a final response is still to come.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.state, State::Trying | State::Proceeding)
    }

    pub(crate) fn response(&mut self, status: StatusCode, now: Instant) -> ClientOutcome {
        match self.state {
            State::Trying | State::Proceeding if status.is_provisional() => {
                self.state = State::Proceeding;
                if let Some(retransmission) = &mut self.retransmission {
                    retransmission.slow_down();
                }
                ClientOutcome::Nothing
            }
            State::Trying | State::Proceeding => {
                self.state = State::Completed;
                self.retransmission = None;
                self.request = Bytes::new();
                self.timeout = Some(if self.hop.transport.is_reliable() { now } else { now + TIMER_K });
                ClientOutcome::Final
            }
            State::Completed | State::Terminated => ClientOutcome::Nothing,
        }
    }

    /// `true` when the wait is over without a final response.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) -> bool {
        if due(self.timeout, now) {
            let unanswered = self.is_pending();
            self.end();
            return unanswered;
        }
        if self.retransmission.as_mut().is_some_and(|r| r.fire(now)) {
            out.push(Transmit { hop: self.hop, bytes: self.request.clone() });
        }
        false
    }

    /// Gives up, as after a transport error.
    pub(crate) fn end(&mut self) {
        self.state = State::Terminated;
        self.retransmission = None;
        self.timeout = None;
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        earliest([self.timeout, self.retransmission.map(|r| r.at())])
    }
}
