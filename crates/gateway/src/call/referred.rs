//! Transfers that the peer asks for: its REFER is followed, and another dialog takes the place of the call's.

use std::time::{Duration, Instant};

use model::{RuleResult, Step, TransferMode};
use signaling::{Refusal, StatusCode};

use super::Call;
use super::offer::believed;
use super::second_leg::{self, Audio, Taken};
use super::transfer::{Other, Stage, Transfer};
use crate::transfer_target;

/// How long the target of a REFER of the peer's may ring.
const REFERRED_RING: Duration = Duration::from_secs(60);

impl Call {
    /// A REFER of the peer: followed where its trunk allows transfers, to the organization's own numbers and gateways.
    pub(super) fn on_refer(&mut self, target: &str, now: Instant) {
        let directory = self.edge.directory.load();
        let trunk = self.conversation.trunk_id.and_then(|id| directory.trunk(id));
        let allowed =
            trunk.is_some_and(|t| t.inbound_config.as_ref().is_some_and(|config| config.allow_transfers));
        let mut shown: String = target.chars().filter(|c| !c.is_control()).take(128).collect();
        if shown.is_empty() {
            shown.push('-');
        }
        let refused = |status, reason, advice, detail: &str| (status, reason, advice, detail.to_owned());
        let verdict = if !allowed {
            Err(refused(
                603,
                "transfer_not_allowed",
                "Set the trunk's inbound_config.allow_transfers if its carrier is to transfer calls.",
                "the trunk does not allow transfers",
            ))
        } else if self.transfer.is_some() {
            Err(refused(491, "transfer_pending", "Wait for the first transfer.", "a transfer is under way"))
        } else {
            let ours = self.own_hosts();
            let organization = self.conversation.organization_id;
            transfer_target::referred(&directory, organization, trunk, &ours, target).map_err(|denied| {
                refused(
                    403,
                    "transfer_target_refused",
                    "Calls are transferred to the organization's own numbers, on trunks with outbound_config, and to users at its trunks' addresses.",
                    denied.0,
                )
            })
        };
        let step = |result, detail| Step { rule: "refer_to".into(), result, detail };
        match verdict {
            Err((status, reason, advice, detail)) => {
                self.session.refuse_refer(&Refusal::new(StatusCode(status)), now);
                let steps = vec![step(RuleResult::Fail, detail)];
                self.write_decision(shown, steps, StatusCode(status), reason, advice);
            }
            Ok(destination) => {
                let to = destination.uri.clone();
                let mut transfer = Transfer::new(to, destination, TransferMode::Bridge, REFERRED_RING, now);
                transfer.stage = Stage::Referred;
                transfer.step("refer_to", RuleResult::Pass, shown);
                self.transfer = Some(Box::new(transfer));
                self.session.accept_refer(now);
                if let Some(leg) = self.dial(Audio::TakeOver(self.rtp_port), now)
                    && let Some(transfer) = self.transfer.as_deref_mut()
                {
                    transfer.stage = Stage::Following;
                    transfer.second = Some(Other::Leg(leg));
                } else {
                    self.session.notify_refer(StatusCode(503), now);
                }
            }
        }
    }

    /// Hosts of Request-URIs that are ours.
    fn own_hosts(&self) -> Vec<String> {
        let settings = &self.edge.settings;
        let (host, _) = self.edge.reachable_at(self.hop);
        settings.domains.iter().chain(&settings.domain).cloned().chain([host]).collect()
    }

    /// The second leg is the call from now on: the agent's audio moves there, and the first leg ends.
    pub(super) fn take_over(&mut self, taken: Taken, now: Instant) {
        self.session.notify_refer(StatusCode(200), now);
        super::flush(&self.edge, &mut self.session);
        let Some(mut transfer) = self.transfer.take() else { return };
        let detail = format!("{} answered and has taken the call", transfer.to);
        transfer.step("second_leg", RuleResult::Pass, detail.clone());
        self.transfer = Some(transfer);
        self.decide_transfer(StatusCode(200), "referred", "Nothing is to be changed.");
        self.transfer = None;
        self.note(format!("transfer by the other side: {detail}"));
        self.change_dialog(taken);
    }

    /// Another dialog takes the place of the call's, which is left to its end.
    pub(super) fn change_dialog(&mut self, taken: Taken) {
        let Taken { session, hop, trunk, offer_answer, negotiated, keys } = taken;
        for &key in &keys {
            self.edge.calls.add_dialog(key, self.mailbox.clone());
        }
        let earlier = std::mem::replace(&mut self.session, session);
        let key = super::trace_key(&self.edge, &earlier);
        self.edge.traces.carry_on(key, super::trace_key(&self.edge, &self.session));
        self.more_keys.extend(keys);
        second_leg::leave(&self.edge, earlier, vec![key]);
        self.hop = hop;
        self.offer_answer = offer_answer;
        self.offered = false;
        if let Some(leg) = &self.leg {
            leg.believe(believed(&self.edge, trunk, hop, None));
        }
        self.open_leg(negotiated, Instant::now());
        self.record();
    }
}
