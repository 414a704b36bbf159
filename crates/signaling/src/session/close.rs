//! The end of a call: BYE (RFC 3261 15), and what is left behind.

use std::time::Instant;

use super::ask::{Ask, Asked, Purpose};
use super::{EndCause, Ended, Event, Reason, Refusal, Session, State};
use crate::dialog::Dialog;
use crate::hop::Hop;
use crate::message::{HeaderName, Method, Request, StatusCode};
use crate::transaction::{Client, T1_64};

impl Session {
    /// Hangs up: CANCEL before an answer, BYE after it. A UAS that has not answered refuses, with the reason's status
    /// when it names a final one, else with 480; one whose answer awaits its ACK says BYE after it (RFC 3261 15).
    /// `false` when the call is over already.
    pub fn hang_up(&mut self, reason: Option<Reason>, now: Instant) -> bool {
        match (self.state, self.calling.is_some()) {
            (State::Over, _) => return false,
            (State::Inviting, true) => self.give_up(reason, now),
            (State::Inviting, false) => return self.refuse(refusal(reason), now),
            (State::Accepted, _) => {
                self.farewell.get_or_insert_with(|| Box::new(reason));
            }
            (State::Confirmed, _) => {
                self.send_bye(reason, now);
                self.end_with(Ended::with_status(EndCause::ByeFromUs, StatusCode(200)), now);
            }
        }
        true
    }

    pub(super) fn send_bye(&mut self, reason: Option<Reason>, now: Instant) {
        let Some(remote_tag) = self.peer_tag() else { return };
        let headers = reason.map(|reason| (HeaderName::Reason, reason.to_string())).into_iter().collect();
        let ask = Ask { purpose: Purpose::Bye, method: Method::Bye, remote_tag, headers, body: None };
        self.ask(Box::new(ask), now);
    }

    pub(super) fn send_bye_of_fork(&mut self, dialog: &Dialog, now: Instant) {
        let (cseq, branch) = (dialog.local_cseq + 1, self.branch());
        let (mut builder, hop, uri) = dialog.request("BYE", cseq, &self.identity.via, &branch);
        for (name, value) in self.authorize("BYE", &uri, hop) {
            builder = builder.header(name, value);
        }
        let bytes = builder.header(HeaderName::UserAgent, self.identity.user_agent).build();
        let client = Client::send(branch, Method::Bye, hop, bytes, now, &mut self.out);
        self.clients.push(Asked::once(client, Purpose::ByeOfFork, cseq));
    }

    /// A BYE of the peer. Before the answer it refuses the INVITE (RFC 3261 15.1.2).
    pub(super) fn bye(&mut self, request: &Request, from: Hop, now: Instant) {
        self.reply(request, StatusCode(200), &[], from, now);
        let (cause, status) = match self.state {
            State::Inviting => (EndCause::CancelledByPeer, 487),
            _ => (EndCause::ByeFromPeer, 200),
        };
        let reason = request.header(HeaderName::Reason).and_then(Reason::parse);
        self.end_with(Ended { reason, ..Ended::with_status(cause, StatusCode(status)) }, now);
    }

    /// Ends the call, once. Requests of the peer that still wait get 487 (RFC 3261 15.1.2).
    pub(super) fn end_with(&mut self, mut ended: Ended, now: Instant) {
        if self.state == State::Over {
            return;
        }
        let terminated = Refusal::new(StatusCode(487));
        self.refuse_pending(&terminated, now);
        self.refuse_update(&terminated, now);
        self.refuse_refer(&terminated, now);
        self.state = State::Over;
        ended.rang = self.calling.as_ref().is_some_and(|c| c.rang);
        ended.trying = self.calling.as_ref().is_some_and(|c| c.trying);
        self.answer = None;
        self.ringing = None;
        self.farewell = None;
        self.modify = None;
        self.reliable = None;
        self.referred = None;
        self.local_sdp = None;
        self.timer.stop();
        for client in &mut self.invite_clients {
            client.give_up_at(now + T1_64);
        }
        // Never refused for room: the caller must learn of the end.
        self.events.push_back(Event::Ended(ended));
    }

    /// Gives back what only a live call needs: a session may linger for half a minute.
    pub(super) fn shrink(&mut self) {
        if self.state != State::Over {
            return;
        }
        let waits = self.clients.iter().any(|asked| asked.client.is_pending())
            || self.invite_clients.iter().any(|client| client.is_pending());
        if !waits {
            self.dialog = None;
            if let Some(calling) = self.calling.as_deref_mut() {
                calling.forget();
            }
        }
        self.servers.shrink_to_fit();
        self.clients.shrink_to_fit();
        self.invite_servers.shrink_to_fit();
        self.invite_clients.shrink_to_fit();
    }
}

/// The refusal that a reason for hanging up stands for.
fn refusal(reason: Option<Reason>) -> Refusal {
    let Some(reason) = reason else { return Refusal::new(StatusCode(480)) };
    let is_status = reason.protocol.eq_ignore_ascii_case("SIP") && (300..700).contains(&reason.cause);
    if is_status {
        return Refusal { reason: reason.text, ..Refusal::new(StatusCode(reason.cause)) };
    }
    let headers = vec![("Reason".to_owned(), reason.to_string())];
    Refusal { headers, ..Refusal::new(StatusCode(480)) }
}
