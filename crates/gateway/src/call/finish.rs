//! How a call ends on record.

use std::sync::Arc;

use cluster::CallError;
use model::{
    Conversation, ConversationStatus, DecisionId, DecisionRecord, Direction, EndedBy, RuleResult, Step,
    Timestamp,
};
use signaling::{EndCause, Ended, Session, StatusCode};

use super::{Call, Waiter, trace_key};
use crate::agent_link::ToAgent;
use crate::edge::Edge;
use crate::outbound::Failure;
use crate::sip_status::{self, OurReason};

impl Call {
    /// Settles the final record, answers those who wait for it, and gives the session back for its last transactions.
    /// Everything else of the call, its RTP port and its place included, is given back here.
    pub(super) async fn finish(mut self, ended: &Ended) -> Box<Session> {
        let answered = self.conversation.answered_at.is_some();
        let outcome = sip_status::outcome(self.conversation.direction, answered, ended, self.ours);
        self.conversation.status = outcome.status;
        self.conversation.ended_by = Some(outcome.ended_by);
        self.conversation.reason = outcome.reason;
        let handed_on = self.transfer.as_deref().filter(|transfer| transfer.succeeded(ended));
        if let Some(transfer) = handed_on.filter(|_| outcome.status == ConversationStatus::Completed) {
            self.conversation.status = ConversationStatus::Transferred;
            self.conversation.reason = Some(transfer.told());
            if !transfer.is_bridged() {
                self.decide_transfer(StatusCode(200), "transferred", "Nothing is to be changed.");
            }
        }
        self.conversation.ended_at = Some(Timestamp::now());
        if let Some(status) = ended.status {
            self.conversation.sip_status = Some(status.0);
        }
        self.settle_media().await;
        if self.ours == Some(OurReason::Transfer) {
            self.tell_transfer(Ok(None));
        } else {
            self.transfer_cut_short(ended);
        }
        self.tell_agent(ToAgent::Stop(outcome.ended_by.as_str().to_owned()));
        let abnormal = matches!(outcome.status, ConversationStatus::Failed | ConversationStatus::Unanswered)
            || self.ours == Some(OurReason::MediaTimeout)
            || ended.cause == EndCause::SessionExpired;
        let result = if abnormal { RuleResult::Fail } else { RuleResult::Pass };
        let decision = self.decision(ended, result);
        if abnormal {
            self.edge.records.decision(decision.clone());
        }
        // A second leg ends after the first.
        let to_the_end = abnormal || self.transfer.is_some();
        // Before the final record: who sees the call ended finds its trace.
        let key = trace_key(&self.edge, &self.session);
        self.edge.traces.ended(key, &self.conversation, decision, to_the_end, &self.edge.records);
        self.conversation.updated_at = Timestamp::now();
        self.edge.calls.remove_conversation(self.conversation.id);
        for waiter in self.waiters.drain(..) {
            let _ = waiter.send(Ok(self.conversation.clone()));
        }
        self.edge.records.conversation(self.conversation);
        self.session
    }

    pub(super) fn decision(&mut self, ended: &Ended, result: RuleResult) -> DecisionRecord {
        let status = ended.status.or(self.conversation.sip_status.map(StatusCode)).map_or(0, |s| s.0);
        let conversation = &self.conversation;
        let reason = conversation.reason.clone().unwrap_or_else(|| "ended".to_owned());
        let detail = match &ended.phrase {
            Some(phrase) => format!("{status} {phrase}"),
            None => status.to_string(),
        };
        let mut steps = std::mem::take(&mut self.steps);
        steps.push(Step { rule: "outcome".into(), result, detail });
        let advice = self.advice.take().unwrap_or_else(|| match (conversation.direction, ended.cause) {
            _ if result == RuleResult::Pass => "Nothing: the call ended as calls do.".to_owned(),
            (Direction::Inbound, EndCause::NoAck) => {
                "No ACK came for our 200: check Contact and NAT (sip.advertise).".to_owned()
            }
            (Direction::Inbound, EndCause::NoPrack) => {
                "No PRACK came for our ringing, which the caller wanted to acknowledge: check Contact and NAT (sip.advertise).".to_owned()
            }
            (_, EndCause::SessionExpired) => {
                "Nobody refreshed the session in time, or the other side had lost the call: check that re-INVITE and UPDATE reach both sides.".to_owned()
            }
            (Direction::Inbound, _) => "See the rules tried.".to_owned(),
            (Direction::Outbound, _) => sip_status::outbound_advice(ended).to_owned(),
        });
        let (from_number, to_number) = match conversation.direction {
            Direction::Inbound => {
                (conversation.user_id.clone(), conversation.agent_number.as_ref().map(ToString::to_string))
            }
            Direction::Outbound => (
                conversation.agent_number.as_ref().map(ToString::to_string).unwrap_or_default(),
                Some(conversation.user_id.clone()),
            ),
        };
        DecisionRecord {
            id: DecisionId::new(),
            at: Timestamp::now(),
            node: self.edge.settings.node_name.clone(),
            organization_id: Some(conversation.organization_id),
            trunk_id: conversation.trunk_id,
            conversation_id: self.began.then_some(conversation.id),
            direction: conversation.direction,
            source: format!("{}/{}", self.hop.remote, self.hop.transport.as_via()),
            from: std::mem::take(&mut self.from),
            to: std::mem::take(&mut self.to),
            from_number: Some(from_number).filter(|n| n.starts_with('+')),
            to_number,
            steps,
            status,
            reason,
            advice,
            sip_call_id: conversation.sip_call_id.clone(),
            messages: Vec::new(),
        }
    }
}

/// An outbound call that failed before anything was sent.
pub(super) fn not_begun(
    edge: &Arc<Edge>,
    conversation: &mut Conversation,
    mut steps: Vec<Step>,
    failure: &Failure,
) {
    steps.push(failure.step());
    close(conversation, ConversationStatus::Failed, EndedBy::System, Some(failure.reason));
    edge.records.decision(DecisionRecord {
        id: DecisionId::new(),
        at: Timestamp::now(),
        node: edge.settings.node_name.clone(),
        organization_id: Some(conversation.organization_id),
        trunk_id: conversation.trunk_id,
        conversation_id: Some(conversation.id),
        direction: Direction::Outbound,
        source: String::new(),
        from: conversation.agent_number.as_ref().map(ToString::to_string).unwrap_or_default(),
        to: conversation.user_id.clone(),
        from_number: conversation.agent_number.as_ref().map(ToString::to_string),
        to_number: Some(conversation.user_id.clone()),
        steps,
        status: 0,
        reason: failure.reason.to_owned(),
        advice: failure.advice.to_owned(),
        sip_call_id: None,
        messages: Vec::new(),
    });
    edge.records.conversation(conversation.clone());
    edge.calls.remove_conversation(conversation.id);
}

/// An outbound call that was given up before anything was sent.
pub(super) fn given_up(edge: &Arc<Edge>, conversation: &mut Conversation, waiter: Option<Waiter>) {
    let ended_by = if waiter.is_some() { EndedBy::Api } else { EndedBy::System };
    close(conversation, ConversationStatus::Cancelled, ended_by, None);
    edge.records.conversation(conversation.clone());
    edge.calls.remove_conversation(conversation.id);
    if let Some(waiter) = waiter {
        let _: Result<(), Result<Conversation, CallError>> = waiter.send(Ok(conversation.clone()));
    }
}

fn close(conversation: &mut Conversation, status: ConversationStatus, by: EndedBy, reason: Option<&str>) {
    let now = Timestamp::now();
    conversation.status = status;
    conversation.ended_by = Some(by);
    conversation.reason = reason.map(str::to_owned);
    conversation.ended_at = Some(now);
    conversation.updated_at = now;
}
