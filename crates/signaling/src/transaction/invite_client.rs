//! INVITE client transaction (RFC 3261 17.1.1, RFC 6026 8.4).

use std::time::Instant;

use bytes::Bytes;

use super::{Outbox, Retransmission, TIMER_A, TIMER_B, TIMER_D, TIMER_M, due, earliest};
use crate::dialog::clean;
use crate::hop::{Hop, Transmit};
use crate::message::{HeaderName, Malformed, Message, Request, RequestBuilder, Response};

/// Branches of a forked INVITE that are acknowledged; what answers beyond them is left to its own timers.
const MAX_FORKS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Calling,
    Proceeding,
    /// A non-2xx final response came and was acknowledged; repetitions are acknowledged until timer D.
    Completed,
    /// A 2xx came; further ones are taken until timer M.
    Accepted,
    Terminated,
}

/// What a response means to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InviteOutcome {
    /// A provisional response.
    Provisional,
    /// A 2xx of a To tag not seen before: the first, or one of another fork. It wants
    /// [`InviteClient::acknowledge`].
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
    /// What was acknowledged, by To tag, repeated when the final response is. One for a non-2xx.
    acks: Vec<(Box<str>, Transmit)>,
    /// Timer A.
    retransmission: Option<Retransmission>,
    /// Timer B, D or M, or the end of patience after a CANCEL.
    timeout: Option<Instant>,
}

impl InviteClient {
    pub(crate) fn send(
        branch: Box<str>,
        cseq: u32,
        hop: Hop,
        request: Bytes,
        now: Instant,
        out: &mut Outbox,
    ) -> Self {
        out.push(Transmit { hop, bytes: request.clone() });
        // Timer A has no cap of its own; timer B ends it first.
        let retransmission =
            (!hop.transport.is_reliable()).then(|| Retransmission::start(TIMER_A, TIMER_B, now));
        Self {
            branch,
            cseq,
            hop,
            request,
            state: State::Calling,
            acks: Vec::new(),
            retransmission,
            timeout: Some(now + TIMER_B),
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

    /// Sends the request no more; its responses are still awaited.
    pub(crate) fn stop_repeating(&mut self) {
        self.retransmission = None;
    }

    /// Bounds the wait for a final response (RFC 3261 9.1).
    pub(crate) fn give_up_at(&mut self, at: Instant) {
        if self.is_pending() {
            self.timeout = Some(self.timeout.map_or(at, |timeout| timeout.min(at)));
        }
    }

    /// Begins the CANCEL, or the ACK of a non-2xx: Request-URI, Via, Route, From, Call-ID and sequence number are the
    /// INVITE's (RFC 3261 9.1, 17.1.1.3). `None` once the INVITE is forgotten, after a final response.
    pub(crate) fn follow_up(&self, method: &str, to: Option<&str>) -> Option<RequestBuilder> {
        let invite: Request = match Message::parse(self.request.clone()) {
            Ok(Message::Request(request)) => request,
            Err(Malformed { request: Some(request), .. }) => *request,
            Ok(Message::Response(_)) | Err(_) => return None,
        };
        let own = |name| invite.header(name).unwrap_or_default();
        let mut builder = RequestBuilder::new(method, invite.uri())
            .header(HeaderName::Via, own(HeaderName::Via))
            .header(HeaderName::MaxForwards, 70);
        for route in invite.headers(HeaderName::Route) {
            builder = builder.header(HeaderName::Route, route);
        }
        let builder = builder
            .header(HeaderName::From, own(HeaderName::From))
            .header(HeaderName::To, to.unwrap_or(own(HeaderName::To)))
            .header(HeaderName::CallId, own(HeaderName::CallId))
            .header(HeaderName::CSeq, format_args!("{} {method}", self.cseq));
        Some(builder)
    }

    /// A response of this branch.
    pub(crate) fn response(&mut self, response: &Response, now: Instant, out: &mut Outbox) -> InviteOutcome {
        let status = response.status();
        match self.state {
            State::Calling | State::Proceeding if status.is_provisional() => {
                if self.state == State::Calling {
                    self.state = State::Proceeding;
                    self.retransmission = None;
                    // Timer B runs in Calling only; from here the caller bounds the ringing.
                    self.timeout = None;
                }
                InviteOutcome::Provisional
            }
            State::Calling | State::Proceeding if status.is_success() => {
                self.state = State::Accepted;
                self.settle(now + TIMER_M);
                InviteOutcome::Success
            }
            State::Calling | State::Proceeding => {
                let to = response.header(HeaderName::To).map(clean);
                if let Some(builder) = self.follow_up("ACK", to.as_deref()) {
                    // The copy has no spare room: it is kept for half a minute.
                    let ack = Transmit { hop: self.hop, bytes: Bytes::copy_from_slice(&builder.build()) };
                    out.push(ack.clone());
                    self.acks = vec![("".into(), ack)];
                }
                self.state = State::Completed;
                self.settle(if self.hop.transport.is_reliable() { now } else { now + TIMER_D });
                InviteOutcome::Failure
            }
            State::Accepted if status.is_success() => {
                let tag = response.to_tag().unwrap_or_default();
                match self.acks.iter().find(|(known, _)| **known == *tag) {
                    Some((_, ack)) => {
                        out.push(ack.clone());
                        InviteOutcome::Nothing
                    }
                    None if self.acks.len() < MAX_FORKS => InviteOutcome::Success,
                    None => InviteOutcome::Nothing,
                }
            }
            State::Completed if status.0 >= 300 => {
                if let Some((_, ack)) = self.acks.first() {
                    out.push(ack.clone());
                }
                InviteOutcome::Nothing
            }
            _ => InviteOutcome::Nothing,
        }
    }

    /// Sends the ACK of a 2xx, now and whenever the 2xx comes again (RFC 3261 13.2.2.4).
    pub(crate) fn acknowledge(&mut self, tag: &str, ack: Transmit, out: &mut Outbox) {
        let kept = Transmit { hop: ack.hop, bytes: Bytes::copy_from_slice(&ack.bytes) };
        self.acks.push((tag.into(), kept));
        out.push(ack);
    }

    fn settle(&mut self, until: Instant) {
        self.retransmission = None;
        self.request = Bytes::new();
        self.timeout = Some(until);
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
        self.acks = Vec::new();
        self.request = Bytes::new();
    }

    pub(crate) fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        earliest([self.timeout, self.retransmission.map(|r| r.at())])
    }
}
