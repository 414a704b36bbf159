//! Handing the call to somebody else: by REFER (`refer.rs`), or by a second leg that is bridged to the first. Until the
//! target has answered the agent goes on with the caller; in a warm transfer or a conference (`consult.rs`) it then
//! speaks with the target.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{CallError, TransferTo};
use media::conference;
use media::link::Port;
use media::session::Agent;
use model::{
    Conversation, DecisionId, DecisionRecord, Direction, E164, RuleResult, Runtime, Step, Timestamp,
    TransferMode, TransferTarget,
};
use signaling::{EndCause, Ended, StatusCode};

use super::Call;
use super::attended::Partner;
use super::calls_out::Counted;
use super::second_leg::{self, Audio, Plan, SecondEvent, SecondLeg};
use crate::agent_link::ToAgent;
use crate::bridge;
use crate::calls::Mailbox;
use crate::listener;
use crate::sip_status::OurReason;
use crate::transfer_target::{self, Denied, Destination};

/// A transfer under way.
pub(super) struct Transfer {
    pub(super) destination: Destination,
    /// Whom to, as it is told.
    pub(super) to: String,
    pub(super) mode: TransferMode,
    pub(super) timeout: Duration,
    pub(super) stage: Stage,
    pub(super) until: Option<Instant>,
    steps: Vec<Step>,
    pub(super) second: Option<Other>,
    /// The other call of an attended transfer, until it is joined.
    pub(super) consulted: Option<Mailbox>,
    /// Where the caller's audio is plugged in once the target has answered.
    pub(super) near: Option<Arc<dyn Port>>,
}

/// Who is to have the call. Dropping it hangs up.
pub(super) enum Other {
    /// Somebody called for it.
    Leg(SecondLeg),
    /// The other side of another call.
    Partner(Partner),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is asked whether the organization may place one more call.
    Admitting,
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
    /// The agent speaks with the target, the caller hears music.
    Briefing,
    /// Caller, target and agent hear each other.
    Conference,
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
            destination,
            to,
            mode,
            timeout,
            stage: Stage::Referring { accepted: false },
            until: Some(now + timeout),
            steps: Vec::new(),
            second: None,
            consulted: None,
            near: None,
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
            Stage::Admitting
            | Stage::Asking
            | Stage::Dialling
            | Stage::Briefing
            | Stage::Conference
            | Stage::Following => false,
        }
    }

    /// In words, for the record.
    pub(super) fn told(&self) -> String {
        let how = if self.is_bridged() { "bridged" } else { "referred" };
        format!("transferred to {} ({how})", self.to)
    }

    /// Whether a second leg of ours carries it.
    pub(super) fn is_bridged(&self) -> bool {
        self.stage == Stage::Bridged
    }

    /// Whether the target has answered and the agent is there, too.
    pub(super) fn consults(&self) -> bool {
        matches!(self.stage, Stage::Briefing | Stage::Conference)
    }

    /// The caller has pressed a digit: who is bridged to the caller hears it.
    pub(super) fn press(&self, digit: char) {
        match self.second.as_ref().filter(|_| self.is_bridged()) {
            Some(Other::Leg(leg)) => leg.press(digit),
            Some(Other::Partner(partner)) => partner.press(digit),
            None => {}
        }
    }

    /// Plugs the target's audio in elsewhere.
    pub(super) fn plug(&self, port: Arc<dyn Port>) {
        if let Some(Other::Leg(leg)) = &self.second {
            leg.plug(port);
        }
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

impl Call {
    /// Begins a transfer that the API or the agent asks for.
    pub(super) fn transfer(
        &mut self,
        asked: &cluster::Transfer,
        counted: Counted,
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
        let refers = matches!(asked.mode, TransferMode::Auto | TransferMode::Refer);
        if !refers && destination.trunk.is_none() {
            return Err(CallError::NoWayOut);
        }
        if asked.mode.keeps_agent() && self.link.is_none() {
            return Err(CallError::NoBot);
        }
        let transfer = Transfer::new(to.to_string(), destination, asked.mode, asked.timeout, now);
        self.transfer = Some(Box::new(transfer));
        match to.number().filter(|_| counted == Counted::NotYet) {
            Some(number) => self.admit(number),
            None => self.set_out(now),
        }
        Ok(self.conversation.clone())
    }

    /// Calls somebody and bridges the caller to them.
    pub(super) fn call_out(
        &mut self,
        to: &TransferTarget,
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
        let transfer = Transfer::new(to.to_string(), destination, TransferMode::Bridge, timeout, now);
        self.transfer = Some(Box::new(transfer));
        match to.number() {
            Some(number) => self.admit(number),
            None => self.set_out(now),
        }
    }

    /// Calls the target on a second leg.
    pub(super) fn bridge(&mut self, now: Instant) {
        let Some(transfer) = self.transfer.as_deref_mut() else { return };
        let audio = self.link.as_ref().map(|link| Arc::clone(&link.audio));
        let (near, far): (Option<Arc<dyn Port>>, Arc<dyn Port>) = match (transfer.mode, audio) {
            (TransferMode::Warm, Some(audio)) => (None, audio),
            (TransferMode::Conference, Some(audio)) => {
                let (caller, guest) = conference::places(audio);
                (Some(caller), guest)
            }
            _ => {
                let [first, second] = bridge::pair();
                (Some(first), second)
            }
        };
        transfer.near = near;
        if transfer.mode == TransferMode::Warm {
            self.play_music();
        }
        if let Some(leg) = self.dial(Audio::Own(far), now)
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
        let place = listener::place(&self.edge, Some(&trunk), None).map_err(|(_, step, _)| step.detail);
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
        self.second_legs += 1;
        let (call, number) = (self.mailbox.clone(), self.second_legs);
        let trace = super::trace_key(&self.edge, &self.session);
        let plan = Plan { destination, carrier, conversation, audio, call, number, trace, _permit: permit };
        Some(second_leg::place(&self.edge, plan))
    }

    /// What happened on the second leg of this number. One that was given up may still have something to tell.
    pub(super) fn on_second(&mut self, number: u32, event: SecondEvent, now: Instant) {
        let current = number == self.second_legs;
        let Some(transfer) = self.transfer.as_deref_mut().filter(|_| current) else {
            return second_leg::discard(&self.edge, event);
        };
        let following = transfer.stage == Stage::Following;
        match event {
            SecondEvent::Progress(status) => {
                if following && status.0 >= 180 {
                    self.session.notify_refer(status, now);
                }
            }
            SecondEvent::Answered => self.target_answered(),
            SecondEvent::Digit { digit, duration_ms } => match transfer.stage {
                Stage::Bridged => self.press(digit),
                Stage::Briefing | Stage::Conference => self.tell_agent(ToAgent::Digit { digit, duration_ms }),
                _ => {}
            },
            SecondEvent::Taken(taken) if following => self.take_over(*taken, now),
            taken @ SecondEvent::Taken(_) => second_leg::discard(&self.edge, taken),
            SecondEvent::NotPlaced(failure) => {
                transfer.step(failure.rule, RuleResult::Fail, failure.detail);
                self.transfer_failed(StatusCode(503), now);
            }
            SecondEvent::Ended(_) if transfer.is_bridged() => self.end(OurReason::Transfer, now),
            SecondEvent::Ended(_) if transfer.consults() => self.target_left(now),
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

    /// The target has answered: from now on it and the caller hear each other, and the agent nobody.
    pub(super) fn join(&mut self) {
        let Some(transfer) = self.transfer.as_deref_mut() else { return };
        if transfer.mode.keeps_agent() {
            let [first, second] = bridge::pair();
            transfer.plug(second);
            transfer.near = Some(first);
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
        if let (Some(leg), Some(near)) = (&self.leg, transfer.near.take()) {
            leg.set_agent(Agent::Linked(near));
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
        if transfer.stage == Stage::Following {
            self.session.notify_refer(status, now);
        }
        self.decide_transfer(
            status,
            "transfer_failed",
            "The caller stayed with the agent: see the steps for what the carrier and the target answered.",
        );
        self.note(note);
        self.tell_transfer(Err(told.clone()));
        if matches!(self.config.runtime, Runtime::Dial(_)) {
            self.transfer = None;
            self.after_dial(told, now);
        } else {
            self.back_to_agent(now);
        }
    }

    /// The call ends in the middle of a transfer: who asked for it is told, and the record says so.
    pub(super) fn transfer_cut_short(&mut self, ended: &Ended) {
        let Some(transfer) = self.transfer.as_deref().filter(|t| !t.succeeded(ended)) else { return };
        let told = match (ended.cause, self.conversation.direction) {
            (EndCause::ByeFromPeer, Direction::Inbound) => "the caller hung up",
            (EndCause::ByeFromPeer, Direction::Outbound) => "the other side hung up",
            _ => "the call ended",
        };
        self.conversation.notes.push(format!("transfer to {} failed: {told}", transfer.to));
        self.tell_transfer(Err(told.to_owned()));
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
            Stage::Admitting => {
                let detail = "whether the organization may place this call was not answered in time";
                transfer.step("calls_out", RuleResult::Fail, detail.to_owned());
                self.transfer_failed(StatusCode(480), now);
            }
            Stage::Dialling | Stage::Following => {
                let detail = "the target did not answer in time".to_owned();
                transfer.step("second_leg", RuleResult::Fail, detail);
                self.transfer_failed(StatusCode(480), now);
            }
            Stage::Briefing | Stage::Conference | Stage::Bridged => {}
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
