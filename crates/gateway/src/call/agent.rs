//! A call and the agent elsewhere that speaks on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use cluster::{CallError, TransferTo};
use model::call::Turn;
use model::{AgentConfig, OrganizationId, Runtime, Secret, TransferMode, TransferTarget};

use super::{Call, END_WAIT, Waiter};
use crate::agent_link::{
    self, Action, AgentEvent, Ask, CallFacts, NotReady, Outcome, ReadyAgent, TRANSFER, ToAgent,
};
use crate::sip_status::OurReason;
use crate::transfer_target;

/// Turns of a transcript that are kept, and the longest, in bytes.
const MAX_TURNS: usize = 2_000;
const MAX_TURN: usize = 8_192;
/// Most digits and pauses an agent may send at once.
const MAX_DIGITS: usize = 64;
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
        let answered = self.conversation.answered_at.is_some();
        match ready {
            Ok(agent) if answered => self.speak(agent),
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

    /// Another agent speaks from now on.
    fn speak(&mut self, ready: ReadyAgent) {
        if let Some(leg) = &self.leg {
            leg.set_agent(ready.agent);
        }
        self.link = ready.link;
        self.tell_agent(ToAgent::Started);
    }

    /// A `dial` agent has nothing to say: somebody is called, and the caller hears ringback.
    pub(super) fn begin_dial(&mut self, now: Instant) {
        let config = Arc::clone(&self.config);
        let Runtime::Dial(dial) = &config.runtime else { return };
        // A config is checked when it is written.
        let Ok(target) = dial.to.parse::<TransferTarget>() else { return };
        let found = {
            let directory = self.edge.directory.load();
            let organization = self.conversation.organization_id;
            let trunk = match (dial.trunk_id, &dial.agent_number) {
                (Some(id), _) => directory.trunk(id),
                (None, Some(number)) => {
                    let own = directory.number(number).filter(|n| n.organization_id == organization);
                    own.and_then(|number| directory.trunk(number.trunk_id))
                }
                (None, None) => self.conversation.trunk_id.and_then(|id| directory.trunk(id)),
            };
            let trunk = trunk.filter(|trunk| trunk.organization_id == organization);
            transfer_target::asked(&directory, organization, trunk, self.hop, &target)
        };
        match found {
            Ok(destination) if destination.trunk.is_some() => {
                let timeout = Duration::from_secs(dial.timeout_s.into());
                self.call_out(target.to_string(), destination, timeout, dial.agent_number.clone(), now);
            }
            Ok(_) => {
                self.after_dial("no trunk with an outbound_config leads there".to_owned(), now);
            }
            Err(denied) => {
                self.after_dial(denied.0.to_owned(), now);
            }
        }
    }

    /// Nobody answered: the fallback speaks, or the call ends. `false` when no `dial` agent is at work.
    pub(super) fn after_dial(&mut self, why: String, now: Instant) -> bool {
        let config = Arc::clone(&self.config);
        let Runtime::Dial(dial) = &config.runtime else { return false };
        let Some(fallback) = dial.fallback.as_deref() else {
            self.advice = Some(format!("{} was called and did not take the call: {why}.", dial.to));
            self.end(OurReason::AgentNotReady, now);
            return true;
        };
        let config = AgentConfig { runtime: fallback.clone(), ..AgentConfig::clone(&config) };
        let (edge, facts) = (Arc::clone(&self.edge), CallFacts::of(&self.conversation));
        let mailbox = self.mailbox.clone();
        let limit = Duration::from_millis(config.answer_timeout_ms.into());
        // From here on this agent is the call's.
        self.config = Arc::new(config.clone());
        self.preparing = Some(Box::pin(async move {
            let ready = agent_link::prepare(&edge, &config, facts, mailbox);
            tokio::time::timeout(limit, ready)
                .await
                .unwrap_or_else(|_| Err(NotReady::failed("the fallback was not ready in time")))
        }));
        true
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
        let result = match ask.action {
            Action::Transfer { to } => match to.parse::<TransferTarget>() {
                Ok(to) => {
                    let to = TransferTo::Target(to);
                    let asked = cluster::Transfer { to, mode: TransferMode::Auto, timeout: TRANSFER_TIMEOUT };
                    match self.transfer(&asked, now) {
                        Ok(_) => {
                            // What becomes of it is told when it is known.
                            self.asked_transfer.get_or_insert(ask.id);
                            return;
                        }
                        Err(error) => Err(error.to_string()),
                    }
                }
                Err(rule) => Err(format!("to {rule}")),
            },
            Action::SendDtmf { digits } => {
                let known = |c: char| "0123456789*#ABCDw,".contains(c);
                if (1..=MAX_DIGITS).contains(&digits.len()) && digits.chars().all(known) {
                    self.send_digits(digits).map(|_| None).map_err(|error| error.to_string())
                } else {
                    Err(format!("digits must be 1 to {MAX_DIGITS} of 0-9 * # A-D and the pauses w and ,"))
                }
            }
        };
        self.tell_agent(ToAgent::Outcome(Outcome { id: ask.id, action, result }));
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
