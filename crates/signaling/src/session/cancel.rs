//! CANCEL, from either side (RFC 3261 9).

use std::time::Instant;

use super::ask::{Asked, Purpose};
use super::{EndCause, Ended, Reason, Refusal, Session, State};
use crate::hop::Hop;
use crate::message::{HeaderName, Method, Request, StatusCode};
use crate::transaction::{Client, T1_64};

/// Whether we have given up on a call that we began.
#[derive(Debug)]
pub(super) enum Cancel {
    No,
    /// CANCEL as soon as it may be sent; BYE if a 2xx comes first.
    Wanted(Option<Reason>),
    Sent(Option<Reason>),
}

impl Session {
    /// CANCEL when it may be sent; until then the wish is remembered.
    pub(super) fn give_up(&mut self, reason: Option<Reason>, now: Instant) {
        let Some(calling) = self.calling.as_deref_mut() else { return };
        if matches!(calling.cancel, Cancel::No) {
            calling.cancel = Cancel::Wanted(reason);
            self.send_cancel(now);
        }
    }

    /// Sends the CANCEL that is wanted, once a provisional response has come (RFC 3261 9.1).
    pub(super) fn send_cancel(&mut self, now: Instant) {
        let Some(calling) = self.calling.as_deref_mut() else { return };
        let Cancel::Wanted(reason) = &mut calling.cancel else { return };
        let cseq = calling.cseq;
        let Some(invite) = self.invite_clients.iter_mut().find(|c| c.cseq == cseq && c.is_proceeding())
        else {
            return;
        };
        let Some(mut builder) = invite.follow_up("CANCEL", None) else { return };
        let reason = reason.take();
        if let Some(reason) = &reason {
            builder = builder.header(HeaderName::Reason, reason);
        }
        calling.cancel = Cancel::Sent(reason);
        invite.give_up_at(now + T1_64);
        let (branch, hop) = (invite.branch.clone(), invite.hop);
        let client = Client::send(branch, Method::Cancel, hop, builder.build(), now, &mut self.out);
        self.clients.push(Asked::once(client, Purpose::Cancel, cseq));
    }

    /// A CANCEL of the peer: 200 to itself, 487 to the INVITE it meets (RFC 3261 9.2).
    pub(super) fn cancel(&mut self, cancel: &Request, from: Hop, now: Instant) {
        let Some(server) = self.invite_servers.iter().find(|s| s.matches(cancel)) else {
            return self.reply_without_state(cancel, StatusCode(481), &[], from);
        };
        // After a final response it has no effect.
        let pending = server.pending().is_some();
        self.reply(cancel, StatusCode(200), &[], from, now);
        if !pending {
            return;
        }
        self.refuse_pending(&Refusal::new(StatusCode(487)), now);
        if self.state == State::Inviting {
            let reason = cancel.header(HeaderName::Reason).and_then(Reason::parse);
            let status = Some(StatusCode(487));
            self.end_with(Ended { status, reason, ..Ended::new(EndCause::CancelledByPeer) }, now);
        }
    }
}
