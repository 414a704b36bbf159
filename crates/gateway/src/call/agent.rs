//! A call and the agent elsewhere that speaks on it.

use std::time::Instant;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use cluster::CallError;
use model::call::Turn;
use model::{OrganizationId, Secret};

use super::{Call, END_WAIT, Waiter};
use crate::agent_link::{AgentEvent, Ask, NotReady, Outcome, ReadyAgent, ToAgent};
use crate::sip_status::OurReason;

/// Turns of a transcript that are kept, and the longest, in bytes.
const MAX_TURNS: usize = 2_000;
const MAX_TURN: usize = 8_192;

impl Call {
    /// Tells the agent something, when it is one that listens.
    pub(super) fn tell_agent(&self, what: ToAgent) {
        if let Some(link) = &self.link {
            link.tell(what);
        }
    }

    pub(super) fn on_prepared(&mut self, ready: Result<ReadyAgent, NotReady>, now: Instant) {
        self.preparing = None;
        match ready {
            Ok(agent) => self.answer(agent, now),
            Err(not_ready) => {
                self.advice = Some(sentence(&not_ready.why));
                self.refusal = not_ready.status;
                let reason = match not_ready.status {
                    Some(_) => OurReason::AgentRefused,
                    None => OurReason::AgentNotReady,
                };
                self.end(reason, now);
            }
        }
    }

    pub(super) fn on_agent(&mut self, event: AgentEvent, now: Instant) {
        match event {
            AgentEvent::HangUp | AgentEvent::Closed { clean: true, .. } => self.end(OurReason::Agent, now),
            AgentEvent::Closed { clean: false, why } => {
                if self.ours.is_none() {
                    self.advice = Some(sentence(&why));
                    self.conversation.notes.push(format!("agent_gone: {why}"));
                }
                self.end(OurReason::AgentGone, now);
            }
            AgentEvent::Said(turn) => self.said(turn),
            AgentEvent::Ask(ask) => self.asked(ask),
        }
    }

    /// Keeps a turn of the transcript in the order of its beginning.
    fn said(&mut self, mut turn: Turn) {
        let turns = &mut self.conversation.transcript;
        if turns.len() >= MAX_TURNS {
            return;
        }
        let cut = (0..=MAX_TURN.min(turn.text.len())).rev().find(|&at| turn.text.is_char_boundary(at));
        turn.text.truncate(cut.unwrap_or(0));
        let at = turns.partition_point(|other| other.at <= turn.at);
        turns.insert(at, turn);
        self.record();
    }

    /// Does what the agent wants, and tells it what became of that.
    fn asked(&mut self, ask: Ask) {
        let action = ask.action.name();
        let result = Err(format!("{action} is not available in this release"));
        self.tell_agent(ToAgent::Outcome(Outcome { id: ask.id, action, result }));
    }

    /// The agent hangs up over the API; it shows who it is by its runtime's secret, unless the API knows already.
    pub(super) fn end_by_agent(
        &mut self,
        organization: OrganizationId,
        secret: Option<&Secret>,
        waiter: Waiter,
        now: Instant,
    ) {
        if organization != self.conversation.organization_id {
            let _ = waiter.send(Err(CallError::NotLive));
            return;
        }
        let own = self.config.runtime.secrets().into_iter().find(|(name, _)| *name == "secret");
        let allowed = secret.is_none_or(|given| {
            own.is_some_and(|(_, own)| {
                verify_slices_are_equal(own.expose().as_bytes(), given.expose().as_bytes()).is_ok()
            })
        });
        if !allowed {
            let _ = waiter.send(Err(CallError::Denied));
            return;
        }
        self.waiters.push(waiter);
        self.waiters_until.get_or_insert(now + END_WAIT);
        self.end(OurReason::Agent, now);
    }
}

/// Advice is whole sentences.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}
