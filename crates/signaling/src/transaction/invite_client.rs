//! INVITE client transaction (RFC 3261 17.1.1, RFC 6026 8.4).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Outbox, Retransmission, T1_64, TIMER_D, due, earliest};
use crate::hop::{Hop, Transmit};
use crate::message::StatusCode;

/// Timer A doubles without a cap; timer B ends it first.
const NO_CAP: Duration = T1_64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Calling,
    Proceeding,
    /// A non-2xx final response came and was acknowledged; repetitions are acknowledged until timer D.
    Completed,
    /// A 2xx came; further ones are handed to the session until timer M.
    Accepted,
    Terminated,
}

/// What a response means to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InviteOutcome {
    /// A provisional response.
    Provisional,
    /// A 2xx: the first, or another one (of a fork, or repeated).
    Success,
    /// The first non-2xx final response; its ACK is on the way.
    Failure,
    /// Nothing new.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct InviteClient {
    pub(crate) branch: Box<str>,
    pub(crate) cseq: u32,
    pub(crate) hop: Hop,
    request: Bytes,
    state: State,
    ack: Option<Bytes>,
    /// Timer A.
    retransmission: Option<Retransmission>,
    /// Timer B, D or M.
    timeout: Option<Instant>,
}

impl InviteClient {
    pub(crate) fn send(
        branch: String,
        cseq: u32,
        hop: Hop,
        request: Bytes,
        now: Instant,
        out: &mut Outbox,
    ) -> Self {
        out.push_back(Transmit { hop, bytes: request.clone() });
        let retransmission = (!hop.transport.is_reliable()).then(|| Retransmission::start(now, NO_CAP));
        Self {
            branch: branch.into(),
            cseq,
            hop,
            request,
            state: State::Calling,
            ack: None,
            retransmission,
            timeout: Some(now + T1_64),
        }
    }

    /// Whether a provisional response came and no final one: only then may a CANCEL be sent (RFC 3261 9.1).
    pub(crate) fn is_proceeding(&self) -> bool {
        self.state == State::Proceeding
    }

    /// Whether a final response is still to come.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.state, State::Calling | State::Proceeding)
    }

    /// Bounds the wait for a final response after a CANCEL (RFC 3261 9.1).
    pub(crate) fn give_up_at(&mut self, at: Instant) {
        if self.is_pending() {
            self.timeout = Some(at);
        }
    }

    /// A response; `ack` builds the ACK of a non-2xx (RFC 3261 17.1.1.3).
    pub(crate) fn response(
        &mut self,
        status: StatusCode,
        ack: impl FnOnce() -> Bytes,
        now: Instant,
        out: &mut Outbox,
    ) -> InviteOutcome {
        match self.state {
            State::Calling | State::Proceeding if status.is_provisional() => {
                if self.state == State::Calling {
                    self.state = State::Proceeding;
                    self.retransmission = None;
                    // Timer B runs in Calling only; from here the session bounds the ringing.
                    self.timeout = None;
                }
                InviteOutcome::Provisional
            }
            State::Calling | State::Proceeding if status.is_success() => {
                self.state = State::Accepted;
                self.settle(now + T1_64);
                InviteOutcome::Success
            }
            State::Calling | State::Proceeding => {
                self.state = State::Completed;
                self.settle(if self.hop.transport.is_reliable() { now } else { now + TIMER_D });
                let ack = ack();
                out.push_back(Transmit { hop: self.hop, bytes: ack.clone() });
                self.ack = Some(ack);
                InviteOutcome::Failure
            }
            State::Accepted if status.is_success() => InviteOutcome::Success,
            State::Completed if status.0 >= 300 => {
                if let Some(ack) = &self.ack {
                    out.push_back(Transmit { hop: self.hop, bytes: ack.clone() });
                }
                InviteOutcome::Nothing
            }
            _ => InviteOutcome::Nothing,
        }
    }

    fn settle(&mut self, until: Instant) {
        self.retransmission = None;
        self.request = Bytes::new();
        self.timeout = Some(until);
    }

    /// `true` when timer B fired: there was no final response.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) -> bool {
        if due(self.timeout, now) {
            let unanswered = self.is_pending();
            self.end();
            return unanswered;
        }
        if self.retransmission.as_mut().is_some_and(|r| r.fire(now)) {
            out.push_back(Transmit { hop: self.hop, bytes: self.request.clone() });
        }
        false
    }

    pub(crate) fn end(&mut self) {
        self.state = State::Terminated;
        self.retransmission = None;
        self.timeout = None;
        self.ack = None;
        self.request = Bytes::new();
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        earliest([self.timeout, self.retransmission.map(|r| r.at)])
    }
}
