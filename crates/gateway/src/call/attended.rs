//! Attended transfer: whom the agent has consulted on a call of its own gets the caller, by REFER with Replaces
//! (RFC 5589 7) where the carrier does it, else by joining the audio of both calls.

use std::sync::Arc;
use std::time::Instant;

use cluster::CallError;
use media::link::Link;
use media::session::Agent;
use model::{Conversation, ConversationId, OrganizationId, RuleResult, TransferMode, TrunkId};
use signaling::{Replaces, StatusCode, Uri};

use super::Call;
use super::transfer::{Other, Stage, Transfer};
use crate::agent_link::ToAgent;
use crate::bridge;
use crate::calls::{CallInput, Mailbox};
use crate::sip_status::OurReason;
use crate::transfer_target::Destination;

/// How long the other call may hold on to its dialog once it was replaced.
const REPLACED: std::time::Duration = std::time::Duration::from_secs(5);
/// How long it may take to say whom it is with.
const ASKED: std::time::Duration = std::time::Duration::from_secs(2);

/// What a call is told by the one it is to be joined with.
pub(crate) enum PartnerInput {
    /// Whom are you with?
    Ask { organization: OrganizationId, asker: Mailbox },
    /// The answer to that.
    With(Result<Box<Consulted>, &'static str>),
    /// Your other side hears by this link from now on.
    Join { link: Arc<Link>, partner: Partner },
    /// The caller has taken the place of your dialog.
    Replaced,
    /// The caller, or whom the caller was joined with, has pressed a digit.
    Digit(char),
    /// The other one is gone.
    Gone,
}

/// Whom a call is with.
pub(crate) struct Consulted {
    /// The URI to send them to, with the dialog to replace.
    refer_to: String,
    /// In words.
    name: String,
    trunk: Option<TrunkId>,
    partner: Mailbox,
}

/// Another call, which ends with this one.
pub(crate) struct Partner(Mailbox);

impl Partner {
    fn tell(&self, what: PartnerInput) {
        // A call that does not keep up runs into its media timeout.
        let _ = self.0.try_send(CallInput::Partner(what));
    }

    pub(super) fn press(&self, digit: char) {
        self.tell(PartnerInput::Digit(digit));
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.tell(PartnerInput::Gone);
    }
}

impl Transfer {
    /// The caller is where the other call was.
    pub(super) fn replaced(&self) {
        if let Some(other) = &self.consulted {
            let _ = other.try_send(CallInput::Partner(PartnerInput::Replaced));
        }
    }
}

impl Call {
    /// Begins to hand the caller to the other side of another call.
    pub(super) fn attend(
        &mut self,
        other: ConversationId,
        asked: &cluster::Transfer,
        now: Instant,
    ) -> Result<Conversation, CallError> {
        let mailbox = self.edge.calls.conversation(other).filter(|_| other != self.conversation.id);
        let mailbox = mailbox.ok_or(CallError::OtherNotLive)?;
        let destination =
            Destination { user: String::new(), trunk: None, uri: String::new(), replaces: None };
        let mut transfer = Transfer::new(asked.to.to_string(), destination, asked.mode, asked.timeout, now);
        transfer.stage = Stage::Asking;
        transfer.until = Some(now + ASKED);
        let ask = PartnerInput::Ask {
            organization: self.conversation.organization_id,
            asker: self.mailbox.clone(),
        };
        mailbox.try_send(CallInput::Partner(ask)).map_err(|_| CallError::Busy)?;
        self.transfer = Some(Box::new(transfer));
        Ok(self.conversation.clone())
    }

    pub(super) fn on_partner(&mut self, input: PartnerInput, now: Instant) {
        match input {
            PartnerInput::Ask { organization, asker } => {
                let with = self.is_with(organization);
                let _ = asker.try_send(CallInput::Partner(PartnerInput::With(with)));
            }
            PartnerInput::With(with) => self.on_consulted(with, now),
            PartnerInput::Join { link, partner } => self.join_with(link, partner, now),
            PartnerInput::Replaced => {
                self.deadline = Some((now + REPLACED, OurReason::Transfer));
                self.tell_agent(ToAgent::Stop("transferred".to_owned()));
                self.link = None;
            }
            PartnerInput::Digit(digit) => self.press(digit),
            PartnerInput::Gone => {
                if self.transfer.as_ref().is_some_and(|transfer| transfer.is_bridged()) {
                    self.end(OurReason::Transfer, now);
                }
            }
        }
    }

    /// Whom this call is with, for one of the same organization that would be joined with it.
    fn is_with(&self, organization: OrganizationId) -> Result<Box<Consulted>, &'static str> {
        if organization != self.conversation.organization_id {
            return Err("the other call is not live");
        }
        if self.conversation.answered_at.is_none() || self.session.is_over() || self.leg.is_none() {
            return Err("the other call is not answered");
        }
        if self.transfer.is_some() {
            return Err("the other call is being transferred itself");
        }
        let target = self.session.remote_target().and_then(Uri::parse);
        let (target, to_tag) =
            target.zip(self.session.remote_tag()).ok_or("the other call is not answered")?;
        let replaces = Replaces {
            call_id: self.session.call_id().to_owned(),
            to_tag: to_tag.to_owned(),
            from_tag: self.session.local_tag().to_owned(),
            early_only: false,
        };
        // Of a URI that the other side chose, what has a place in ours.
        let bare = target.text.split(['?', '<', '>', '"', ' ']).next().unwrap_or_default();
        Ok(Box::new(Consulted {
            refer_to: format!("{bare}?Replaces={}", escaped(&replaces.to_string())),
            name: format!("conversation {} with {}", self.conversation.id, self.conversation.user_id),
            trunk: self.conversation.trunk_id,
            partner: self.mailbox.clone(),
        }))
    }

    fn on_consulted(&mut self, with: Result<Box<Consulted>, &'static str>, now: Instant) {
        let Some(transfer) = self.transfer.as_deref_mut().filter(|t| matches!(t.stage, Stage::Asking)) else {
            return;
        };
        let consulted = match with {
            Ok(consulted) => consulted,
            Err(why) => {
                transfer.step("consultation", RuleResult::Fail, why.to_owned());
                return self.transfer_failed(StatusCode(480), now);
            }
        };
        transfer.step("consultation", RuleResult::Pass, consulted.name.clone());
        transfer.to = consulted.name;
        transfer.destination.uri = consulted.refer_to;
        transfer.stage = Stage::Referring { accepted: false };
        transfer.until = Some(now + transfer.timeout);
        // Not joined yet, it must outlive a transfer that fails.
        transfer.consulted = Some(consulted.partner);
        // Another trunk's carrier knows nothing of that dialog.
        let refers = match transfer.mode {
            TransferMode::Refer => true,
            TransferMode::Auto => {
                self.conversation.trunk_id.is_some() && consulted.trunk == self.conversation.trunk_id
            }
            TransferMode::Bridge | TransferMode::Warm | TransferMode::Conference => false,
        };
        if refers { self.send_refer(now) } else { self.join_partner(now) }
    }

    /// Whether the audio of both calls may be joined, when the carrier does not do it.
    pub(super) fn may_join(&self) -> bool {
        self.transfer.as_ref().is_some_and(|t| t.consulted.is_some() && t.mode == TransferMode::Auto)
    }

    /// Joins the caller with the other call's other side.
    pub(super) fn join_partner(&mut self, now: Instant) {
        let Some(transfer) = self.transfer.as_deref_mut() else { return };
        let (Some(other), Some(leg)) = (transfer.consulted.take(), &self.leg) else {
            return self.transfer_failed(StatusCode(480), now);
        };
        let [first, second] = bridge::pair();
        let join = PartnerInput::Join { link: second, partner: Partner(self.mailbox.clone()) };
        if other.try_send(CallInput::Partner(join)).is_err() {
            transfer.step("consultation", RuleResult::Fail, "the other call is gone".to_owned());
            return self.transfer_failed(StatusCode(480), now);
        }
        transfer.second = Some(Other::Partner(Partner(other)));
        leg.set_agent(Agent::Linked(first));
        let detail = format!("joined with {}", transfer.to);
        self.joined(detail);
    }

    /// The caller of another call is joined with this one's other side.
    fn join_with(&mut self, link: Arc<Link>, partner: Partner, now: Instant) {
        let busy = self.transfer.is_some() || self.session.is_over();
        // Refused, the partner learns of it as it is dropped.
        let Some(leg) = self.leg.as_ref().filter(|_| !busy) else { return };
        leg.set_agent(Agent::Linked(link));
        let destination =
            Destination { user: String::new(), trunk: None, uri: String::new(), replaces: None };
        let mut transfer = Transfer::new(
            "the caller of another conversation".to_owned(),
            destination,
            TransferMode::Bridge,
            ASKED,
            now,
        );
        transfer.second = Some(Other::Partner(partner));
        self.transfer = Some(Box::new(transfer));
        self.joined("joined with the caller of another conversation".to_owned());
    }
}

/// Percent-encoded for the header part of a URI (RFC 3261 25.1).
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaces_is_escaped_in_a_uri() {
        assert_eq!(escaped("a@b;to-tag=1;from-tag=x"), "a%40b%3Bto-tag%3D1%3Bfrom-tag%3Dx");
        assert_eq!(escaped("é\r\n<>"), "%C3%A9%0D%0A%3C%3E");
    }
}
