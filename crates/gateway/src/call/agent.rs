//! A call and the agent elsewhere that speaks on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{CallError, TransferTo};
use media::session::Agent;
use model::call::Turn;
use model::{
    AgentConfig, Conversation, OrganizationId, RuleResult, Runtime, Secret, Sound, Step, TransferMode,
    TransferTarget,
};
use signaling::StatusCode;

use super::calls_out::Counted;
use super::transfer::Transfer;
use super::{Call, END_WAIT, Waiter};
use crate::agent_link::{
    self, Action, AgentEvent, Ask, CallFacts, NotReady, Outcome, ReadyAgent, TRANSFER, ToAgent,
};
use crate::sip_status::OurReason;
use crate::transfer_target;

/// How long the target of an agent's transfer may take to answer when it does not say, in seconds.
const TRANSFER_TIMEOUT: u32 = 30;

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
            Ok(agent) if answered => self.speak(agent, now),
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

    /// The agent is ready: what it brings along is kept, and its place at the call's audio returned.
    pub(super) fn take_agent(&mut self, ready: ReadyAgent) -> Agent {
        self.link = ready.link;
        self.music = ready.music;
        self.conversation.notes.extend(ready.note);
        ready.agent
    }

    /// Another agent speaks from now on.
    fn speak(&mut self, ready: ReadyAgent, now: Instant) {
        let agent = self.take_agent(ready);
        if let Some(leg) = &self.leg {
            leg.set_agent(agent);
            self.tell_agent(ToAgent::Audio(leg.quality_log()));
        }
        self.tell_agent(ToAgent::Started);
        self.begin_dial(now);
    }

    /// A `dial` agent has nothing to say: somebody is called, and the caller hears ringback or music.
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
                self.call_out(&target, destination, timeout, dial.agent_number.clone(), now);
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
        self.replace_agent(fallback.clone());
        true
    }

    /// Another runtime is the call's agent from here on; it speaks once it is ready.
    fn replace_agent(&mut self, runtime: Runtime) {
        let config = AgentConfig { runtime, fallback: None, ..AgentConfig::clone(&self.config) };
        let (edge, facts) = (Arc::clone(&self.edge), CallFacts::of(&self.conversation));
        let mailbox = self.mailbox.clone();
        let limit = Duration::from_millis(config.answer_timeout_ms.into());
        self.config = Arc::new(config.clone());
        self.preparing = Some(Box::pin(async move {
            let ready = agent_link::prepare(&edge, &config, facts, mailbox);
            tokio::time::timeout(limit, ready)
                .await
                .unwrap_or_else(|_| Err(NotReady::failed("the fallback was not ready in time")))
        }));
    }

    /// The agent's connection broke: its fallback goes on with the caller, or the call ends.
    pub(super) fn agent_gone(&mut self, why: &str, now: Instant) {
        let answered = self.conversation.answered_at.is_some();
        if let Some(fallback) = self.config.fallback.clone().filter(|_| answered && self.ours.is_none()) {
            let step = Step { rule: "agent".into(), result: RuleResult::Fail, detail: why.to_owned() };
            let advice = format!("{} The fallback went on with the call.", sentence(why));
            self.write_decision(
                fallback.name().to_owned(),
                vec![step],
                StatusCode(200),
                "agent_gone",
                &advice,
            );
            self.note(format!("agent_gone: {why}; the fallback ({}) goes on", fallback.name()));
            self.link = None;
            return self.replace_agent(fallback);
        }
        if self.ours.is_none() {
            self.advice = Some(sentence(why));
            self.conversation.notes.push(format!("agent_gone: {why}"));
        }
        self.end(OurReason::AgentGone, now);
    }

    pub(super) fn on_agent(&mut self, event: AgentEvent, now: Instant) {
        let consults = self.transfer.as_deref().is_some_and(Transfer::consults);
        match event {
            // Who leaves while the target is on the line leaves the caller to it.
            AgentEvent::HangUp | AgentEvent::Closed { clean: true, .. } if consults => self.join(),
            AgentEvent::Closed { why, .. } if consults => {
                self.note(format!("agent_gone: {why}; the caller has been handed over"));
                self.join();
            }
            // Who has been handed on is not the agent's to end, and who is about to be waits for that.
            AgentEvent::HangUp | AgentEvent::Closed { clean: true, .. } if self.transfer.is_some() => {
                self.agent_left = Some(Ok(()));
            }
            AgentEvent::Closed { why, .. } if self.transfer.is_some() => self.agent_left = Some(Err(why)),
            AgentEvent::HangUp | AgentEvent::Closed { clean: true, .. } => self.end(OurReason::Agent, now),
            AgentEvent::Closed { why, .. } => self.agent_gone(&why, now),
            AgentEvent::Said(turn) => self.said(turn),
            AgentEvent::Ask(ask) => self.asked(ask, now),
        }
    }

    fn said(&mut self, turn: Turn) {
        if agent_link::keep_turn(&mut self.conversation.transcript, turn) {
            self.record();
        }
    }

    /// Does what the agent wants, and tells it what became of that.
    fn asked(&mut self, ask: Ask, now: Instant) {
        let action = ask.action.name();
        let result = match ask.action {
            Action::Transfer { to, mode, timeout_s } => {
                // What becomes of it is told when it is known, which may be at once.
                let idle = self.transfer.is_none();
                if idle {
                    self.asked_transfer = Some(ask.id.clone());
                }
                let asked = transfer_asked(&to, mode.as_deref(), timeout_s);
                match asked.and_then(|asked| {
                    self.transfer(&asked, Counted::NotYet, now).map_err(|error| error.to_string())
                }) {
                    Ok(_) => return,
                    Err(error) => {
                        if idle {
                            self.asked_transfer = None;
                        }
                        Err(error)
                    }
                }
            }
            Action::TransferStep(step) => match self.may_step(step) {
                Ok(()) => {
                    // Told before it is done: who hands the caller over is told nothing more.
                    self.tell_agent(ToAgent::Outcome(Outcome { id: ask.id, action, result: Ok(None) }));
                    // It may be taken: that was just asked.
                    let _ = self.transfer_step(step, now);
                    return;
                }
                Err(error) => Err(error.to_string()),
            },
            Action::Record(step) => self.record_step(step).map(|()| None).map_err(|error| error.to_string()),
            Action::SendDtmf { digits } => agent_link::digits_asked(&digits)
                .and_then(|()| self.send_digits(digits).map(|_| None).map_err(|error| error.to_string())),
        };
        self.tell_agent(ToAgent::Outcome(Outcome { id: ask.id, action, result }));
    }

    /// Has the agent's link play something to whoever hears the agent.
    pub(super) fn play(&mut self, sound: Sound) -> Result<Conversation, CallError> {
        if self.conversation.answered_at.is_none() {
            return Err(CallError::NotAnswered);
        }
        let Some(link) = &self.link else { return Err(CallError::NoBot) };
        link.tell(ToAgent::Play(sound));
        Ok(self.conversation.clone())
    }

    /// Tells the agent what became of a transfer, its own or one that the API asked for.
    pub(super) fn tell_transfer(&mut self, result: Result<Option<String>, String>) {
        let id = self.asked_transfer.take().flatten();
        self.tell_agent(ToAgent::Outcome(Outcome { id, action: TRANSFER, result }));
    }

    /// Whether who shows this secret over the API is the call's agent.
    pub(super) fn may_end(
        &self,
        organization: OrganizationId,
        secret: Option<&Secret>,
    ) -> Result<(), CallError> {
        if organization != self.conversation.organization_id {
            return Err(CallError::NotLive);
        }
        if agent_link::may_end(&self.config.runtime, secret) { Ok(()) } else { Err(CallError::Denied) }
    }

    /// The agent hangs up over the API; it shows who it is by its runtime's secret, unless the API knows already.
    pub(super) fn end_by_agent(
        &mut self,
        organization: OrganizationId,
        secret: Option<&Secret>,
        waiter: Waiter,
        now: Instant,
    ) {
        if let Err(error) = self.may_end(organization, secret) {
            let _ = waiter.send(Err(error));
            return;
        }
        self.waiters.push(waiter);
        self.waiters_until.get_or_insert(now + END_WAIT);
        self.end(OurReason::Agent, now);
    }
}

/// A transfer as an agent asks for it; the error names the field and the rule.
fn transfer_asked(to: &str, mode: Option<&str>, timeout_s: Option<u32>) -> Result<cluster::Transfer, String> {
    let to: TransferTarget = to.parse().map_err(|rule| format!("to {rule}"))?;
    let mode = match mode {
        Some(mode) => mode.parse().map_err(|rule| format!("mode {rule}"))?,
        None => TransferMode::Auto,
    };
    let seconds = timeout_s.unwrap_or(TRANSFER_TIMEOUT);
    if !model::TRANSFER_SECONDS.contains(&seconds) {
        let (least, most) = (model::TRANSFER_SECONDS.start(), model::TRANSFER_SECONDS.end());
        return Err(format!("timeout_s must be from {least} to {most}"));
    }
    Ok(cluster::Transfer { to: TransferTo::Target(to), mode, timeout: Duration::from_secs(seconds.into()) })
}

/// Advice is whole sentences.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}
