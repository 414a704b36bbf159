//! A call and the agent elsewhere that speaks on it.

use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use cluster::CallError;
use model::call::Turn;
use model::{OrganizationId, Secret, TransferMode, TransferTarget};

use super::{Call, END_WAIT, Waiter};
use crate::agent_link::{Action, AgentEvent, Ask, NotReady, Outcome, ReadyAgent, TRANSFER, ToAgent};
use crate::sip_status::OurReason;

/// Turns of a transcript that are kept, and the longest, in bytes.
const MAX_TURNS: usize = 2_000;
const MAX_TURN: usize = 8_192;
/// How long the target of an agent's transfer may take to answer.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(30);

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
            // Who has been handed on is not the agent's to end, and who is about to be waits for that.
            AgentEvent::HangUp | AgentEvent::Closed { .. } if self.transfer.is_some() => {
                self.agent_done = true
            }
            AgentEvent::HangUp | AgentEvent::Closed { clean: true, .. } => self.end(OurReason::Agent, now),
            AgentEvent::Closed { clean: false, why } => {
                if self.ours.is_none() {
                    self.advice = Some(sentence(&why));
                    self.conversation.notes.push(format!("agent_gone: {why}"));
                }
                self.end(OurReason::AgentGone, now);
            }
            AgentEvent::Said(turn) => self.said(turn),
            AgentEvent::Ask(ask) => self.asked(ask, now),
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
    fn asked(&mut self, ask: Ask, now: Instant) {
        let action = ask.action.name();
        let failed = match ask.action {
            Action::Transfer { to } => match to.parse::<TransferTarget>() {
                Ok(to) => {
                    let asked = cluster::Transfer { to, mode: TransferMode::Auto, timeout: TRANSFER_TIMEOUT };
                    match self.transfer(&asked, now) {
                        Ok(_) => {
                            // What becomes of it is told when it is known.
                            self.asked_transfer.get_or_insert(ask.id);
                            return;
                        }
                        Err(error) => error.to_string(),
                    }
                }
                Err(rule) => format!("to {rule}"),
            },
            Action::SendDtmf { .. } => "sending digits is not available in this release".to_owned(),
        };
        self.tell_agent(ToAgent::Outcome(Outcome { id: ask.id, action, result: Err(failed) }));
    }

    /// Tells the agent what became of a transfer, its own or one that the API asked for.
    pub(super) fn tell_transfer(&mut self, result: Result<Option<String>, String>) {
        let id = self.asked_transfer.take().flatten();
        self.tell_agent(ToAgent::Outcome(Outcome { id, action: TRANSFER, result }));
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
