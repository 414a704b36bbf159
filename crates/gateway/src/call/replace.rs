//! An INVITE that takes the place of this call's dialog (RFC 3891): the end of an attended transfer.

use std::time::Instant;

use bytes::Bytes;
use media::offer_answer::{LocalMedia, OfferAnswer};
use model::{RuleResult, Step};
use signaling::{HeaderName, Hop, Refusal, Replaces, Request, Session, StatusCode};

use super::Call;
use super::offer::local_media;
use super::second_leg::{self, Taken};

/// Why an INVITE replaces nothing: status, short code, advice, detail.
type Refused = (u16, &'static str, &'static str, &'static str);

impl Call {
    /// The INVITE names a dialog with our tag; whether it is this call's, and may be replaced from there, is seen here.
    pub(super) fn on_replace(&mut self, (invite, hop): (Request, Hop), now: Instant) {
        let named = invite.header(HeaderName::Replaces).and_then(Replaces::parse);
        let key = self.edge.calls.initial_key(&invite);
        let offer = invite.sdp();
        let received = Bytes::from(invite.raw().concat());
        let caller = invite.from().map_or_else(String::new, |from| from.uri.text.chars().take(128).collect());
        let mut session = Box::new(Session::accept(invite, hop, self.edge.identity(hop), now));
        let local = self.edge.calls.local_key(session.call_id(), session.local_tag());
        self.edge.traces.join(local, super::trace_key(&self.edge, &self.session));
        self.edge.traces.add(local, false, hop, self.edge.local(hop), received);
        let keys: Vec<_> = key.into_iter().chain([local]).collect();
        if let Err((status, reason, advice, detail)) = self.may_replace(named.as_ref(), hop) {
            session.refuse(Refusal::new(StatusCode(status)), now);
            second_leg::leave(&self.edge, session, keys);
            let step = Step { rule: "replaces".into(), result: RuleResult::Fail, detail: detail.to_owned() };
            return self.write_decision(caller, vec![step], StatusCode(status), reason, advice);
        }
        let directory = self.edge.directory.load();
        let trunk = self.conversation.trunk_id.and_then(|id| directory.trunk(id));
        let policy = trunk.map(|trunk| trunk.inbound_media_encryption()).unwrap_or_default();
        let local = local_media(&self.edge, hop, hop.remote.ip(), None, policy);
        let mut offer_answer = OfferAnswer::new(LocalMedia { port: self.rtp_port, ..local });
        let answered = match &offer {
            Some(offer) => offer_answer.answer(offer).map(|(answer, negotiated)| (answer, Some(negotiated))),
            None => Ok((offer_answer.offer_in_response(), None)),
        };
        let (description, negotiated) = match answered {
            Ok(answered) => answered,
            Err(error) => {
                let (host, _) = self.edge.reachable_at(hop);
                let (refusal, _, _) = crate::sip_status::offer_refusal(&error, &host);
                session.refuse(refusal, now);
                return second_leg::leave(&self.edge, session, keys);
            }
        };
        let offered = negotiated.is_none();
        // Until the answer to our own offer comes, audio stays where it was.
        let Some(negotiated) = negotiated.or_else(|| self.offer_answer.negotiated().cloned()) else {
            session.refuse(Refusal::new(StatusCode(491)), now);
            return second_leg::leave(&self.edge, session, keys);
        };
        session.answer(Bytes::from(description), now);
        let step = Step {
            rule: "replaces".into(),
            result: RuleResult::Pass,
            detail: "the INVITE takes the place of the call".to_owned(),
        };
        self.write_decision(caller, vec![step], StatusCode(200), "replaced", "Nothing is to be changed.");
        let trunk = self.conversation.trunk_id;
        self.change_dialog(Taken { session, hop, trunk, offer_answer, negotiated, keys });
        self.offered = offered;
    }

    fn may_replace(&self, replaces: Option<&Replaces>, hop: Hop) -> Result<(), Refused> {
        let unknown = |detail| {
            let advice = "The caller names a dialog that is not there, or is not the carrier's: ask the caller's side.";
            Err((481, "replaces_unknown", advice, detail))
        };
        let Some(replaces) = replaces.filter(|r| {
            self.session.remote_tag() == Some(&*r.from_tag)
                && self.session.call_id() == r.call_id
                && self.session.local_tag() == r.to_tag
        }) else {
            return unknown("the tags are those of no dialog");
        };
        let directory = self.edge.directory.load();
        let Some(trunk) = self.conversation.trunk_id.and_then(|id| directory.trunk(id)) else {
            return unknown("the dialog is on no trunk");
        };
        let config = trunk.inbound_config.as_ref();
        let (source, peer) = (hop.remote.ip().to_canonical(), self.hop.remote.ip().to_canonical());
        let listed = config.is_some_and(|c| c.allowed_addresses.is_some() && c.auth.is_none());
        if source != peer && !(listed && trunk.admits(source)) {
            return unknown("the source is not one of the dialog's trunk");
        }
        if !config.is_some_and(|config| config.allow_transfers) {
            let advice =
                "Set the trunk's inbound_config.allow_transfers if its carrier is to transfer calls.";
            return Err((603, "transfer_not_allowed", advice, "the trunk does not allow transfers"));
        }
        if self.conversation.answered_at.is_none() || self.transfer.is_some() {
            return unknown("the dialog is not established, or is being transferred");
        }
        if replaces.early_only {
            let advice = "The call was answered before it could be picked up.";
            return Err((486, "replaces_answered", advice, "early-only, and the dialog is confirmed"));
        }
        Ok(())
    }
}
