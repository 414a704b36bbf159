//! Handing the call to somebody else: by REFER, followed to its end (RFC 3515), or by a second leg that is bridged to
//! the first. Until the target has answered the agent goes on with the caller.

use std::time::{Duration, Instant};

use cluster::{CallError, TransferTo};
use media::session::Agent;
use model::{
    Conversation, DecisionId, DecisionRecord, Direction, E164, RuleResult, Step, Timestamp, TransferMode,
};
use signaling::{EndCause, Ended, Referral, StatusCode};

use super::Call;
use super::attended::Partner;
use super::second_leg::{self, Audio, Plan, SecondEvent, SecondLeg};
use crate::agent_link::ToAgent;
use crate::bridge;
use crate::calls::Mailbox;
use crate::listener;
use crate::sip_status::OurReason;
use crate::transfer_target::{self, Denied, Destination};

/// How long a peer that took a REFER and reports nothing may take to hang up.
const UNFOLLOWED: Duration = Duration::from_secs(5);

/// A transfer under way.
pub(super) struct Transfer {
    pub(super) destination: Destination,
    /// Whom to, as it is told.
    pub(super) to: String,
    pub(super) mode: TransferMode,
    pub(super) timeout: Duration,
    pub(super) stage: Stage,
    pub(super) until: Option<Instant>,
    pub(super) steps: Vec<Step>,
    pub(super) second: Option<Other>,
    /// The other call of an attended transfer, until it is joined.
    pub(super) consulted: Option<Mailbox>,
}

/// Who is to have the call. Dropping it hangs up.
pub(super) enum Other {
    /// Somebody called for it.
    Leg(SecondLeg),
    /// The other side of another call.
    Partner(Partner),
}

#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// The other call is asked whom it is with.
    Asking,
    /// Our REFER is out.
    Referring {
        /// And the peer has taken it.
        accepted: bool,
    },
    /// The peer has said that the target answered, or says nothing at all.
    Referred,
    /// The second leg rings.
    Dialling,
    /// Both legs are joined.
    Bridged,
    /// The peer's REFER: the second leg rings and is to be the call.
    Following,
}

impl Transfer {
    pub(super) fn new(
        to: String,
        destination: Destination,
        mode: TransferMode,
        timeout: Duration,
        now: Instant,
    ) -> Self {
        Self {
            to,
            destination,
            mode,
            timeout,
            stage: Stage::Referring { accepted: false },
            until: Some(now + timeout),
            steps: Vec::new(),
            second: None,
            consulted: None,
        }
    }

    pub(super) fn step(&mut self, rule: &'static str, result: RuleResult, detail: String) {
        self.steps.push(Step { rule: rule.into(), result, detail });
    }

    /// Whether the end of the call is the transfer's success.
    pub(super) fn succeeded(&self, ended: &Ended) -> bool {
        match self.stage {
            Stage::Referred | Stage::Bridged => true,
            // Carriers hang up as soon as they have taken the REFER, before they report anything.
            Stage::Referring { accepted } => accepted && ended.cause == EndCause::ByeFromPeer,
            Stage::Asking | Stage::Dialling | Stage::Following => false,
        }
    }

    /// In words, for the record.
    pub(super) fn told(&self) -> String {
        let how = if self.is_bridged() { "bridged" } else { "referred" };
        format!("transferred to {} ({how})", self.to)
    }

    /// Whether a second leg of ours carries it.
    pub(super) fn is_bridged(&self) -> bool {
        matches!(self.stage, Stage::Bridged)
    }

    /// The caller has pressed a digit: who is bridged to the caller hears it.
    pub(super) fn press(&self, digit: char) {
        match self.second.as_ref().filter(|_| self.is_bridged()) {
            Some(Other::Leg(leg)) => leg.press(digit),
            Some(Other::Partner(partner)) => partner.press(digit),
            None => {}
        }
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

/// Whether a target that gave this answer has been asked: it is not called twice.
fn was_asked(status: StatusCode) -> bool {
    matches!(status.0, 404 | 408 | 480 | 486 | 487 | 600 | 603 | 604)
}

impl Call {
    /// Begins a transfer that the API or the agent asks for.
    pub(super) fn transfer(
        &mut self,
        asked: &cluster::Transfer,
        now: Instant,
    ) -> Result<Conversation, CallError> {
        if self.conversation.answered_at.is_none() || self.session.is_over() {
            return Err(CallError::NotAnswered);
        }
        if self.transfer.is_some() {
            return Err(CallError::Transferring);
        }
        let to = match &asked.to {
            TransferTo::Target(target) => target,
            TransferTo::Call(other) => return self.attend(*other, asked, now),
        };
        let directory = self.edge.directory.load();
        let trunk = self.conversation.trunk_id.and_then(|id| directory.trunk(id));
        let organization = self.conversation.organization_id;
        let destination = transfer_target::asked(&directory, organization, trunk, self.hop, to)
            .map_err(|Denied(_)| CallError::TargetRefused)?;
        if asked.mode == TransferMode::Bridge && destination.trunk.is_none() {
            return Err(CallError::NoWayOut);
        }
        let transfer = Transfer::new(to.to_string(), destination, asked.mode, asked.timeout, now);
        self.transfer = Some(Box::new(transfer));
        if asked.mode == TransferMode::Bridge {
            self.bridge(now);
        } else {
            self.send_refer(now);
        }
        Ok(self.conversation.clone())
    }

    /// Calls somebody and bridges the caller to them.
    pub(super) fn call_out(
        &mut self,
        to: String,
        destination: Destination,
        timeout: Duration,
        caller_id: Option<E164>,
        now: Instant,
    ) {
        if self.transfer.is_some() {
            return;
        }
        if caller_id.is_some() {
            self.dial_as = caller_id;
        }
        let transfer = Transfer::new(to, destination, TransferMode::Bridge, timeout, now);
        self.transfer = Some(Box::new(transfer));
        self.bridge(now);
    }

    pub(super) fn send_refer(&mut self, now: Instant) {
        let Some(transfer) = &self.transfer else { return };
        let uri = transfer.destination.uri.clone();
        if !self.session.refer(&uri, now) {
            self.on_referral(Referral::Refused(StatusCode(491)), now);
        }
    }

    /// How our REFER fares.
    pub(super) fn on_referral(&mut self, referral: Referral, now: Instant) {
        let Some(transfer) = self.transfer.as_deref_mut() else { return };
        let Stage::Referring { accepted } = &mut transfer.stage else { return };
        match referral {
            Referral::Accepted { followed: true } | Referral::Progress(_) => *accepted = true,
            Referral::Accepted { followed: false } => {
                transfer.step("refer", RuleResult::Pass, "taken, without reports".to_owned());
                transfer.stage = Stage::Referred;
                transfer.until = Some(now + UNFOLLOWED);
                transfer.replaced();
            }
            Referral::Done(Some(status)) if status.is_success() => {
                transfer.step("refer", RuleResult::Pass, format!("the target answered {status}"));
                transfer.stage = Stage::Referred;
                transfer.until = None;
                transfer.replaced();
                self.end(OurReason::Transfer, now);
            }
            Referral::Refused(status) => {
                let detail = format!("the other side answered {status}");
                transfer.step("refer", RuleResult::Fail, detail);
                self.refer_failed(status, false, now);
            }
            Referral::Done(status) => {
                let status = status.unwrap_or(StatusCode(480));
                transfer.step("refer", RuleResult::Fail, format!("the target answered {status}"));
                self.refer_failed(status, was_asked(status), now);
            }
        }
    }

    /// A second call is the other way, unless the target has been asked already.
    fn refer_failed(&mut self, status: StatusCode, asked: bool, now: Instant) {
        if self.may_join() {
            return self.join_partner(now);
        }
        let bridges = self
            .transfer
            .as_ref()
            .is_some_and(|t| t.mode == TransferMode::Auto && t.destination.trunk.is_some());
        if bridges && !asked {
            self.bridge(now);
        } else {
            self.transfer_failed(status, now);
        }
    }

    /// Calls the target on a second leg.
    fn bridge(&mut self, now: Instant) {
        let [first, second] = bridge::pair();
        self.bridge = Some(first);
        if let Some(leg) = self.dial(Audio::Bridge(second), now)
            && let Some(transfer) = self.transfer.as_deref_mut()
        {
            transfer.stage = Stage::Dialling;
            transfer.second = Some(Other::Leg(leg));
            transfer.until = Some(now + transfer.timeout);
        }
    }

    /// Places the second leg; where it cannot be, the transfer has failed.
    pub(super) fn dial(&mut self, audio: Audio, now: Instant) -> Option<SecondLeg> {
        let transfer = self.transfer.as_deref_mut()?;
        let destination = transfer.destination.clone();
        let Some((trunk, carrier)) = destination.trunk.clone() else {
            self.transfer_failed(StatusCode(480), now);
            return None;
        };
        let place = listener::place(&self.edge, Some(&trunk)).map_err(|(_, step, _)| step.detail);
        let permit = match place {
            Ok(permit) => permit,
            Err(detail) => {
                transfer.step("second_leg", RuleResult::Fail, detail);
                self.transfer_failed(StatusCode(503), now);
                return None;
            }
        };
        let mut conversation = self.conversation.clone();
        if let Some(number) = self.dial_as.take() {
            conversation.agent_number = Some(number);
        }
        let call = self.mailbox.clone();
        let trace = super::trace_key(&self.edge, &self.session);
        let plan = Plan { destination, carrier, conversation, audio, call, trace, _permit: permit };
        Some(second_leg::place(&self.edge, plan))
    }

    /// What happened on the second leg.
    pub(super) fn on_second(&mut self, event: SecondEvent, now: Instant) {
        let Some(transfer) = self.transfer.as_deref_mut() else {
            return second_leg::discard(&self.edge, event);
        };
        let following = matches!(transfer.stage, Stage::Following);
        match event {
            SecondEvent::Progress(status) => {
                if following && status.0 >= 180 {
                    self.session.notify_refer(status, now);
                }
            }
            SecondEvent::Bridged => self.join(),
            SecondEvent::Digit(digit) => self.press(digit),
            SecondEvent::Taken(taken) if following => self.take_over(*taken, now),
            taken @ SecondEvent::Taken(_) => second_leg::discard(&self.edge, taken),
            SecondEvent::NotPlaced(failure) => {
                transfer.step(failure.rule, RuleResult::Fail, failure.detail);
                self.transfer_failed(StatusCode(503), now);
            }
            SecondEvent::Ended(_) if transfer.is_bridged() => self.end(OurReason::Transfer, now),
            SecondEvent::Ended(ended) => {
                let status = ended.status.filter(|s| s.0 >= 300).unwrap_or(StatusCode(480));
                let phrase = ended.phrase.unwrap_or_default();
                let detail = match ended.cause {
                    EndCause::CancelledByUs => "the target did not answer in time".to_owned(),
                    _ => format!("the target answered {status} {phrase}").trim_end().to_owned(),
                };
                transfer.step("second_leg", RuleResult::Fail, detail);
                self.transfer_failed(status, now);
            }
        }
    }

    /// The target has answered: from now on caller and target hear each other, and the agent nobody.
    fn join(&mut self) {
        let Some(transfer) = self.transfer.as_deref_mut() else { return };
        if !matches!(transfer.stage, Stage::Dialling) {
            return;
        }
        let detail = format!("{} answered and is bridged", transfer.to);
        self.joined(detail);
    }

    /// The agent has handed the caller on.
    pub(super) fn joined(&mut self, detail: String) {
        let Some(transfer) = self.transfer.as_deref_mut() else { return };
        transfer.stage = Stage::Bridged;
        transfer.until = None;
        transfer.step("second_leg", RuleResult::Pass, detail.clone());
        if let (Some(leg), Some(link)) = (&self.leg, self.bridge.take()) {
            leg.set_agent(Agent::Linked(link));
        }
        self.tell_transfer(Ok(Some(detail.clone())));
        // Nobody hears the agent any more.
        self.tell_agent(ToAgent::Stop("transferred".to_owned()));
        self.link = None;
        self.note(format!("transfer: {detail}"));
        self.decide_transfer(StatusCode(200), "transferred", "Nothing is to be changed.");
    }

    /// Who is bridged to the caller has pressed a digit.
    pub(super) fn press(&self, digit: char) {
        let bridged = self.transfer.as_ref().is_some_and(|transfer| transfer.is_bridged());
        if let Some(leg) = self.leg.as_ref().filter(|_| bridged) {
            leg.send_digits(digit.to_string());
        }
    }

    /// The call goes on with the agent, as if nothing had been.
    pub(super) fn transfer_failed(&mut self, status: StatusCode, now: Instant) {
        let Some(transfer) = self.transfer.as_deref_mut() else { return };
        let told = transfer.steps.last().map_or_else(|| status.to_string(), |step| step.detail.clone());
        let note = format!("transfer to {} failed: {told}", transfer.to);
        if matches!(transfer.stage, Stage::Following) {
            self.session.notify_refer(status, now);
        }
        self.decide_transfer(
            status,
            "transfer_failed",
            "The caller stayed with the agent: see the steps for what the carrier and the target answered.",
        );
        self.transfer = None;
        self.bridge = None;
        self.tell_transfer(Err(told.clone()));
        self.note(note);
        if self.after_dial(told, now) {
            return;
        }
        if self.agent_done {
            self.end(OurReason::Agent, now);
        }
    }

    /// Looks at the clock.
    pub(super) fn time_transfer(&mut self, now: Instant) {
        let Some(transfer) = self.transfer.as_deref_mut() else { return };
        if transfer.until.take_if(|at| *at <= now).is_none() {
            return;
        }
        match transfer.stage {
            Stage::Referring { accepted } => {
                let detail = if accepted {
                    "the other side took the REFER and did not say in time that the target answered"
                } else {
                    "the other side did not answer the REFER in time"
                };
                transfer.step("refer", RuleResult::Fail, detail.to_owned());
                // One that was taken may still ring: another call would ring beside it.
                self.refer_failed(StatusCode(408), accepted, now);
            }
            Stage::Referred => self.end(OurReason::Transfer, now),
            Stage::Asking => {
                transfer.step("consultation", RuleResult::Fail, "the other call said nothing".to_owned());
                self.transfer_failed(StatusCode(480), now);
            }
            Stage::Dialling | Stage::Following => {
                let detail = "the target did not answer in time".to_owned();
                transfer.step("second_leg", RuleResult::Fail, detail);
                self.transfer_failed(StatusCode(480), now);
            }
            Stage::Bridged => {}
        }
    }

    pub(super) fn note(&mut self, text: String) {
        /// Notes of transfers that a conversation keeps.
        const MOST: usize = 16;
        if self.conversation.notes.len() < MOST {
            self.conversation.notes.push(text);
        }
        self.record();
    }

    pub(super) fn decide_transfer(&mut self, status: StatusCode, reason: &str, advice: &str) {
        let Some(transfer) = &self.transfer else { return };
        let (to, steps) = (transfer.destination.uri.clone(), transfer.steps.clone());
        self.write_decision(to, steps, status, reason, advice);
    }

    pub(super) fn write_decision(
        &self,
        to: String,
        steps: Vec<Step>,
        status: StatusCode,
        reason: &str,
        advice: &str,
    ) {
        let conversation = &self.conversation;
        let number = conversation.agent_number.as_ref().map(ToString::to_string);
        self.edge.records.decision(DecisionRecord {
            id: DecisionId::new(),
            at: Timestamp::now(),
            node: self.edge.settings.node_name.clone(),
            organization_id: Some(conversation.organization_id),
            trunk_id: conversation.trunk_id,
            conversation_id: Some(conversation.id),
            direction: Direction::Outbound,
            source: format!("{}/{}", self.hop.remote, self.hop.transport.as_via()),
            from: number.clone().unwrap_or_default(),
            to,
            from_number: number,
            to_number: None,
            steps,
            status: status.0,
            reason: reason.to_owned(),
            advice: advice.to_owned(),
            sip_call_id: conversation.sip_call_id.clone(),
            messages: Vec::new(),
        });
    }
}
