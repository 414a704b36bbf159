//! New offers inside the dialog: re-INVITE from either side (RFC 3261 14), and what answers an offer.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ask::Begun;
use super::{EndCause, Ended, Event, Reason, Refusal, Session, State, derived, label};
use crate::hop::Hop;
use crate::message::{HeaderName, Request, Response, StatusCode};
use crate::stateless;
use crate::transaction::{InviteClient, InviteOutcome, InviteServer, T1, due};

/// How often an offer of ours is made when the peer's own re-INVITE meets it each time (491).
const MAX_ATTEMPTS: u8 = 4;
/// How long a re-INVITE of ours may stay without final response once the peer has said that it works on it.
const PATIENCE: Duration = Duration::from_secs(180);

/// An offer of ours inside the dialog.
#[derive(Debug)]
pub(super) struct Modify {
    pub(super) sdp: Bytes,
    /// Of the request that is on its way.
    pub(super) cseq: Option<u32>,
    /// When it is made once more after 491.
    pub(super) retry_at: Option<Instant>,
    attempts: u8,
    /// A session refresh: the description that stands once more.
    refresh: bool,
    /// In an early dialog: by UPDATE.
    pub(super) by_update: bool,
}

impl Session {
    /// Offers a new session description: by re-INVITE, or by UPDATE before the call is answered, once the first offer
    /// has its answer and the peer takes UPDATE (RFC 3311). The outcome comes as [`Event::Modified`] with its final
    /// status. `false` when it cannot be made, or another offer is under way.
    pub fn offer(&mut self, sdp: Bytes, now: Instant) -> bool {
        let possible = match self.state {
            State::Confirmed => true,
            State::Inviting => self.settled && self.timer.update && !self.is_answering(),
            State::Accepted | State::Over => false,
        };
        if !possible || self.modify.is_some() || self.is_offered() || self.offers() {
            return false;
        }
        self.reoffer(sdp, false, now);
        true
    }

    pub(super) fn reoffer(&mut self, sdp: Bytes, refresh: bool, now: Instant) {
        let by_update = self.state == State::Inviting;
        let modify = Modify { sdp, cseq: None, retry_at: None, attempts: 0, refresh, by_update };
        self.modify = Some(Box::new(modify));
        if by_update {
            return self.offer_by_update(now);
        }
        if let Some(account) = self.calling.as_deref_mut().and_then(|c| c.account.as_mut()) {
            account.begin();
        }
        self.send_reinvite(now);
    }

    /// Whether an offer of ours awaits its answer.
    pub(super) fn offers(&self) -> bool {
        let unanswered = |cseq: u32| !(self.settled && self.is_initial(cseq));
        self.invite_clients.iter().any(|client| client.is_pending() && unanswered(client.cseq))
            || self.modify.as_ref().is_some_and(|m| m.by_update && m.cseq.is_some())
    }

    /// Whether an offer or answer exchange of the peer's is under way.
    pub(super) fn is_offered(&self) -> bool {
        let settled = self.state == State::Inviting && self.settled;
        self.answer.is_some()
            || (!settled && self.invite_servers.iter().any(|s| s.pending().is_some()))
            || self.reliable.as_ref().is_some_and(|reliable| reliable.is_describing())
            || self.is_updated()
    }

    fn send_reinvite(&mut self, now: Instant) {
        let Some(remote_tag) = self.peer_tag() else { return };
        let Some(begun) = self.begin_request("INVITE", &remote_tag) else { return };
        let Begun { builder, hop, uri, branch, cseq } = begun;
        let mut builder = self
            .add_timer(builder)
            .header(HeaderName::Contact, format_args!("<{}>", self.identity.contact))
            .header(HeaderName::Allow, stateless::ALLOW)
            .header(HeaderName::UserAgent, self.identity.user_agent);
        for (name, value) in self.authorize("INVITE", &uri, hop) {
            builder = builder.header(name, value);
        }
        let Some(modify) = &mut self.modify else { return };
        modify.cseq = Some(cseq);
        modify.retry_at = None;
        let bytes = builder.body("application/sdp", &modify.sdp);
        let client = InviteClient::send(branch, cseq, hop, bytes, now, &mut self.out);
        self.invite_clients.push(client);
    }

    /// A response to a re-INVITE of ours.
    pub(super) fn modify_response(
        &mut self,
        outcome: InviteOutcome,
        response: &Response,
        asked: Hop,
        from: Hop,
        now: Instant,
    ) {
        let cseq = response.cseq().number;
        match outcome {
            InviteOutcome::Provisional => {
                if let Some(client) = self.invite_clients.iter_mut().find(|c| c.cseq == cseq) {
                    client.give_up_at(now + PATIENCE);
                }
            }
            InviteOutcome::Success => self.modified(response, cseq, now),
            InviteOutcome::Failure => {
                let current = self.modify.as_ref().is_some_and(|m| m.cseq == Some(cseq));
                if current && self.take_challenge(response, asked, from) {
                    return self.send_reinvite(now);
                }
                self.modify_failed(cseq, response.status(), Some(response), now);
            }
            InviteOutcome::Nothing => {}
        }
    }

    fn modified(&mut self, response: &Response, cseq: u32, now: Instant) {
        // A dialog does not fork again: a 2xx with another tag is none of ours.
        let Some(mut dialog) = self.dialog.take_if(|d| d.is_with(response.to_tag())) else { return };
        dialog.refresh(response);
        let ack = self.ack_of_success(&dialog, cseq);
        self.dialog = Some(dialog);
        let tag = response.to_tag().unwrap_or_default();
        if let Some(client) = self.invite_clients.iter_mut().find(|c| c.cseq == cseq) {
            client.acknowledge(tag, ack, &mut self.out);
        }
        if let Some(modify) = self.modify.take_if(|m| !m.by_update && m.cseq == Some(cseq)) {
            self.timer_answered(response, now);
            self.local_sdp = Some(modify.sdp);
            self.push(Event::Modified { status: response.status(), sdp: response.sdp() });
        }
    }

    /// A re-INVITE of ours was refused or got no answer: the call goes on as it was, but where the peer no longer
    /// knows of it (RFC 3261 12.2.1.2, 14.1).
    pub(super) fn modify_failed(
        &mut self,
        cseq: u32,
        status: StatusCode,
        response: Option<&Response>,
        now: Instant,
    ) {
        let Some(modify) = self.modify.as_mut().filter(|m| m.cseq == Some(cseq)) else { return };
        if status.0 == 491 && modify.attempts + 1 < MAX_ATTEMPTS {
            modify.cseq = None;
            modify.attempts += 1;
            let wait = self.glare_wait();
            if let Some(modify) = &mut self.modify {
                modify.retry_at = Some(now + wait);
            }
            return;
        }
        if status.0 == 422 && response.is_some_and(|r| self.raise_interval(r)) {
            if let Some(modify) = &mut self.modify {
                (modify.cseq, modify.retry_at) = (None, Some(now));
            }
            return;
        }
        let refresh = self.modify.take().is_some_and(|m| m.refresh);
        if refresh {
            return self.refresh_failed(status, response, now);
        }
        if matches!(status.0, 408 | 481) && self.state == State::Confirmed {
            let reason = Reason { protocol: "SIP".to_owned(), cause: status.0, text: None };
            self.send_bye(Some(reason), now);
            return self.end_with(Ended::with_status(EndCause::ByeFromUs, status), now);
        }
        self.push(Event::Modified { status, sdp: None });
    }

    /// The wait after glare: longer for the side that chose the Call-ID, so that the two do not meet again
    /// (RFC 3261 14.1).
    fn glare_wait(&mut self) -> Duration {
        self.made += 1;
        let random = u64::from_be_bytes(derived(&self.identity, label::DELAY, self.made));
        if self.calling.is_some() {
            Duration::from_millis(2_100 + random % 191 * 10)
        } else {
            Duration::from_millis(random % 201 * 10)
        }
    }

    pub(super) fn retry_modify(&mut self, now: Instant) {
        if !self.modify.as_ref().is_some_and(|m| due(m.retry_at, now)) {
            return;
        }
        if self.is_offered() {
            // The peer's offer is still under way.
            if let Some(modify) = &mut self.modify {
                modify.retry_at = Some(now + T1);
            }
            return;
        }
        if self.modify.as_ref().is_some_and(|m| m.by_update) {
            self.offer_by_update(now);
        } else {
            self.send_reinvite(now);
        }
    }

    /// A re-INVITE of the peer. Its target has been refreshed. One INVITE is under way at a time, even where a reliable
    /// response has settled the first one's offer (RFC 3261 14.2).
    pub(super) fn reinvite(&mut self, request: Request, from: Hop, now: Instant) {
        if self.offers() || self.invite_clients.iter().any(|client| client.is_pending()) {
            return self.reply(&request, StatusCode(491), &[], from, now);
        }
        if self.is_offered() || self.invite_servers.iter().any(|server| server.pending().is_some()) {
            return self.busy(&request, from, now);
        }
        let sdp = request.sdp();
        self.invite_servers.push(InviteServer::new(request, from, now));
        self.push(Event::Offer { sdp });
    }

    /// 500 with Retry-After between 0 and 10 s: another request of the peer's is in the way (RFC 3261 14.2).
    pub(super) fn busy(&mut self, request: &Request, from: Hop, now: Instant) {
        let wait = self.retry_after();
        self.reply(request, StatusCode(500), &[("Retry-After", &wait)], from, now);
    }

    pub(super) fn retry_after(&mut self) -> String {
        self.made += 1;
        let [random, ..] = derived(&self.identity, label::DELAY, self.made);
        (random % 11).to_string()
    }

    /// Answers the offer of [`Event::Offer`]. `false` when none waits.
    pub fn answer_offer(&mut self, sdp: Bytes, now: Instant) -> bool {
        if self.is_over() {
            return false;
        }
        self.answer_update(&sdp, now) || (self.state == State::Confirmed && self.send_answer(&sdp, now))
    }

    /// Refuses the offer of [`Event::Offer`]; the session goes on as it was. `false` when none waits.
    pub fn refuse_offer(&mut self, refusal: Refusal, now: Instant) -> bool {
        if self.is_over() {
            return false;
        }
        self.refuse_update(&refusal, now)
            || (self.state == State::Confirmed && self.refuse_pending(&refusal, now))
    }
}
