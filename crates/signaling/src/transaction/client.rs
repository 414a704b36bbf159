//! Non-INVITE client transaction (RFC 3261 17.1.2).

use std::time::Instant;

use bytes::Bytes;

use super::{Outbox, Retransmission, T1_64, T2, T4, due, earliest};
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
    /// Timer F: no final response.
    TimedOut,
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
        branch: String,
        method: Method,
        hop: Hop,
        request: Bytes,
        now: Instant,
        out: &mut Outbox,
    ) -> Self {
        out.push_back(Transmit { hop, bytes: request.clone() });
        let retransmission = (!hop.transport.is_reliable()).then(|| Retransmission::start(now, T2));
        Self {
            branch: branch.into(),
            method,
            hop,
            request,
            state: State::Trying,
            retransmission,
            timeout: Some(now + T1_64),
        }
    }

    pub(crate) fn response(&mut self, status: StatusCode, now: Instant) -> ClientOutcome {
        match self.state {
            State::Trying | State::Proceeding if status.is_provisional() => {
                self.state = State::Proceeding;
                ClientOutcome::Nothing
            }
            State::Trying | State::Proceeding => {
                self.state = State::Completed;
                self.retransmission = None;
                self.request = Bytes::new();
                // Timer K: zero over a reliable transport.
                self.timeout = Some(if self.hop.transport.is_reliable() { now } else { now + T4 });
                ClientOutcome::Final
            }
            State::Completed | State::Terminated => ClientOutcome::Nothing,
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) -> ClientOutcome {
        if due(self.timeout, now) {
            let timed_out = self.state != State::Completed;
            self.end();
            return if timed_out { ClientOutcome::TimedOut } else { ClientOutcome::Nothing };
        }
        if self.retransmission.as_mut().is_some_and(|r| r.fire(now)) {
            if self.state == State::Proceeding {
                // In Proceeding the interval is T2 (17.1.2.2).
                if let Some(retransmission) = &mut self.retransmission {
                    retransmission.at = now + T2;
                }
            }
            out.push_back(Transmit { hop: self.hop, bytes: self.request.clone() });
        }
        ClientOutcome::Nothing
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
        earliest([self.timeout, self.retransmission.map(|r| r.at)])
    }
}
