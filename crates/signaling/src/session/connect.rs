//! The UAC half: placing a call (RFC 3261 13.2).

use std::time::Instant;

use bytes::Bytes;

use super::authenticate::Account;
use super::cancel::Cancel;
use super::{EndCause, Ended, Event, Identity, Invite, Reason, Session, State, branch, tag};
use crate::dialog::Dialog;
use crate::hop::Hop;
use crate::message::{HeaderName, RequestBuilder, Response};
use crate::stateless;
use crate::transaction::{InviteClient, InviteOutcome};

/// Early dialogs of a forked INVITE that are told apart; requests inside another one get 481.
const MAX_EARLY: usize = 16;
/// Longest reason phrase and Warning kept, in characters.
const MAX_PHRASE: usize = 128;

/// What only the side that began the call has.
#[derive(Debug)]
pub(super) struct Calling {
    /// What is needed to send the INVITE once more, until its final response.
    invite: Option<Invite>,
    pub(super) account: Option<Account>,
    /// Our From value, with our tag.
    local: Box<str>,
    /// The target of a dialog whose peer names no Contact.
    target: Box<str>,
    /// Sequence number of the INVITE in its last form.
    pub(super) cseq: u32,
    pub(super) cancel: Cancel,
    pub(super) rang: bool,
    /// Whether any response to the INVITE has come, and whether a provisional one.
    heard: bool,
    pub(super) trying: bool,
    /// The dialogs that provisional responses made (RFC 3261 12.1.2).
    pub(super) early: Vec<Dialog>,
}

impl Calling {
    /// Whether we hung up before an answer.
    pub(super) fn gives_up(&self) -> bool {
        !matches!(self.cancel, Cancel::No)
    }

    /// Gives back what is of no use once the last request of ours has its answer.
    pub(super) fn forget(&mut self) {
        self.invite = None;
        self.account = None;
        self.early = Vec::new();
    }
}

impl Session {
    /// Places a call over `hop`.
    #[must_use]
    pub fn connect(mut invite: Invite, hop: Hop, identity: Identity, now: Instant) -> Self {
        let local_tag = tag(&identity);
        let call_id = super::call_id(&identity);
        let calling = Calling {
            account: invite.credentials.take().map(|credentials| Account::new(credentials, hop)),
            local: format!("{};tag={local_tag}", invite.from).into(),
            target: invite.request_uri.as_str().into(),
            invite: Some(invite),
            cseq: 0,
            cancel: Cancel::No,
            rang: false,
            heard: false,
            trying: false,
            early: Vec::new(),
        };
        let mut session = Self::new(identity, call_id, local_tag);
        session.calling = Some(Box::new(calling));
        session.send_invite(hop, now);
        session
    }

    /// Sends the INVITE under the next sequence number; `false` when there is none any more.
    fn send_invite(&mut self, hop: Hop, now: Instant) -> bool {
        let Some(calling) = self.calling.as_deref_mut() else { return false };
        // Beyond what early dialogs of the last attempt have used.
        let used = calling.early.iter().map(|d| d.local_cseq).max().unwrap_or_default();
        calling.cseq = calling.cseq.max(used) + 1;
        calling.early.clear();
        self.settled = false;
        let (cseq, target) = (calling.cseq, calling.target.clone());
        self.made += 1;
        let branch = branch(&self.identity, self.made);
        let authorization = self.authorize("INVITE", &target, hop);
        let Some(calling) = self.calling.as_deref() else { return false };
        let Some(invite) = &calling.invite else { return false };
        let sent_by =
            format_args!("SIP/2.0/{} {};branch={branch};rport", hop.transport.as_via(), self.identity.via)
                .to_string();
        let mut builder = RequestBuilder::new("INVITE", &invite.request_uri)
            .header(HeaderName::Via, sent_by)
            .header(HeaderName::MaxForwards, 70);
        for route in &invite.route {
            builder = builder.header(HeaderName::Route, route);
        }
        builder = builder
            .header(HeaderName::From, &calling.local)
            .header(HeaderName::To, &invite.to)
            .header(HeaderName::CallId, &self.call_id)
            .header(HeaderName::CSeq, format_args!("{cseq} INVITE"))
            .header(HeaderName::Contact, format_args!("<{}>", self.identity.contact))
            .header(HeaderName::Allow, stateless::ALLOW)
            .header(HeaderName::UserAgent, self.identity.user_agent);
        builder = self.add_timer(builder);
        for (name, value) in authorization {
            builder = builder.header(name, value);
        }
        for (name, value) in &invite.headers {
            builder = builder.header_named(name, value);
        }
        let bytes: Bytes = builder.body("application/sdp", &invite.offer);
        self.local_sdp = Some(invite.offer.clone());
        let client = InviteClient::send(branch, cseq, hop, bytes, now, &mut self.out);
        self.invite_clients.push(client);
        true
    }

    /// A response to an INVITE or re-INVITE of ours, whoever sent it: the branch tells that it is one.
    pub(super) fn invite_response(&mut self, response: &Response, branch: &str, from: Hop, now: Instant) {
        let cseq = response.cseq().number;
        let Some(client) = self.invite_clients.iter_mut().find(|c| *c.branch == *branch && c.cseq == cseq)
        else {
            return;
        };
        let asked = client.hop;
        let outcome = client.response(response, now, &mut self.out);
        let initial = self.is_initial(cseq);
        if let Some(calling) = self.calling.as_deref_mut().filter(|_| initial) {
            calling.heard = true;
            calling.trying |= response.status().is_provisional();
        }
        match (outcome, initial) {
            (InviteOutcome::Nothing, _) => {}
            (InviteOutcome::Provisional, true) => self.provisional_response(response, from, asked, now),
            (InviteOutcome::Success, true) => self.success(response, cseq, from, asked, now),
            (InviteOutcome::Failure, true) => self.failure(response, from, asked, now),
            (outcome, false) => self.modify_response(outcome, response, asked, from, now),
        }
    }

    fn provisional_response(&mut self, response: &Response, from: Hop, asked: Hop, now: Instant) {
        let status = response.status();
        let Some(calling) = self.calling.as_deref_mut() else { return };
        calling.rang |= (180..190).contains(&status.0);
        let tag = response.to_tag().unwrap_or_default();
        let new = !calling.early.iter().any(|d| *d.remote_tag == *tag);
        if status.0 > 100 && !tag.is_empty() && new && calling.early.len() < MAX_EARLY {
            let hop = reached(asked, from);
            let dialog = Dialog::from_response(response, &calling.local, calling.cseq, &calling.target, hop);
            calling.early.push(dialog);
        }
        let gives_up = calling.gives_up();
        let new = self.acknowledge_provisional(response, now);
        if gives_up {
            self.send_cancel(now);
        } else if status.0 > 100 && new {
            self.push(Event::Progress { status, sdp: response.sdp() });
        }
    }

    fn success(&mut self, response: &Response, cseq: u32, from: Hop, asked: Hop, now: Instant) {
        let Some(calling) = self.calling.as_deref_mut() else { return };
        let hop = reached(asked, from);
        let mut dialog = Dialog::from_response(response, &calling.local, cseq, &calling.target, hop);
        if let Some(early) = calling.early.iter().find(|d| d.remote_tag == dialog.remote_tag) {
            dialog.remote_cseq = early.remote_cseq;
            dialog.local_cseq = early.local_cseq;
        }
        let ack = self.ack_of_success(&dialog, cseq);
        let tag = response.to_tag().unwrap_or_default();
        if let Some(client) = self.invite_clients.iter_mut().find(|c| c.cseq == cseq) {
            client.acknowledge(tag, ack, &mut self.out);
        }
        if self.state != State::Inviting {
            // Another branch of a forked INVITE answered too: one call is enough.
            return self.send_bye_of_fork(&dialog, now);
        }
        self.dialog = Some(Box::new(dialog));
        let Some(calling) = self.calling.as_deref_mut() else { return };
        calling.early = Vec::new();
        calling.invite = None;
        self.timer_answered(response, now);
        let Some(calling) = self.calling.as_deref_mut() else { return };
        match std::mem::replace(&mut calling.cancel, Cancel::No) {
            Cancel::No => {
                self.state = State::Confirmed;
                self.push(Event::Answered { status: response.status(), sdp: response.sdp() });
            }
            // The 2xx crossed our CANCEL, or came before we could send one.
            Cancel::Wanted(reason) | Cancel::Sent(reason) => {
                self.send_bye(reason, now);
                let status = Some(response.status());
                self.end_with(Ended { status, ..Ended::new(EndCause::CancelledByUs) }, now);
            }
        }
    }

    fn failure(&mut self, response: &Response, from: Hop, asked: Hop, now: Instant) {
        let gives_up = self.calling.as_ref().is_some_and(|c| c.gives_up());
        let too_short = response.status().0 == 422 && !gives_up;
        if too_short && self.raise_interval(response) && self.send_invite(asked, now) {
            return;
        }
        let Some(calling) = self.calling.as_deref_mut() else { return };
        let cause = match response.status().0 {
            _ if gives_up => EndCause::CancelledByUs,
            401 | 407 => {
                let account = calling.account.as_mut();
                let answers = account.is_some_and(|a| a.take(response, asked, from, false));
                if answers && self.send_invite(asked, now) {
                    return;
                }
                EndCause::Challenged
            }
            _ => EndCause::RefusedByPeer,
        };
        self.end_with(told(cause, response), now);
    }

    /// Whether nothing at all has come to an INVITE of ours.
    #[must_use]
    pub fn is_unheard(&self) -> bool {
        self.state == State::Inviting && self.calling.as_ref().is_some_and(|calling| !calling.heard)
    }

    /// Gives an INVITE up that nothing at all has answered, for the sake of another target (RFC 3263 4.3): ends as
    /// [`EndCause::NoResponse`]. It is not sent again, a late provisional response is cancelled and a late 2xx ended, so
    /// that no phone rings for it. `false` when the peer has answered something, or the call has ended.
    pub fn abandon(&mut self, now: Instant) -> bool {
        if self.state != State::Inviting {
            return false;
        }
        let Some(calling) = self.calling.as_deref_mut().filter(|c| !c.heard && !c.gives_up()) else {
            return false;
        };
        calling.cancel = Cancel::Wanted(None);
        for client in &mut self.invite_clients {
            client.stop_repeating();
        }
        self.end_with(Ended::new(EndCause::NoResponse), now);
        true
    }

    /// Timer B, or a CANCEL that nothing came of.
    pub(super) fn no_final_response(&mut self, now: Instant) {
        let cancelled = self.calling.as_ref().is_some_and(|c| c.gives_up());
        let cause = if cancelled { EndCause::CancelledByUs } else { EndCause::NoResponse };
        self.end_with(Ended::new(cause), now);
    }
}

/// Where the peer of a dialog is reached when its Contact is of no use: where its response came from.
fn reached(asked: Hop, from: Hop) -> Hop {
    if asked.transport == from.transport { from } else { asked }
}

/// What a final response tells of a call's end.
pub(super) fn told(cause: EndCause, response: &Response) -> Ended {
    let phrase = short(response.reason());
    Ended {
        status: Some(response.status()),
        phrase: (!phrase.is_empty()).then_some(phrase),
        reason: response.header(HeaderName::Reason).and_then(Reason::parse),
        retry_after: response
            .header(HeaderName::RetryAfter)
            .and_then(|v| v.split([';', '(', ' ', '\t']).next()?.parse().ok()),
        warning: response.header(HeaderName::Warning).map(short),
        ..Ended::new(cause)
    }
}

/// A peer's words for records and logs.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_PHRASE).collect()
}
