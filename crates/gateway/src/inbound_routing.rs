//! An organization's own say in who answers its numbers: its rules or its webhook, then the agent they name.

use std::sync::Arc;
use std::time::Duration;

use model::directory::VersionEntry;
use model::inbound_routing::{InboundRouting, Input, Output, Workflow, first_match};
use model::{AgentId, RuleResult, Step};
use serde_json::{Map, Value};

use crate::directory::Directory;
use crate::inbound::{Refused, refused};
use crate::webhook::Webhooks;

/// Who answers, and what the routing says for the call.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) version: Arc<VersionEntry>,
    pub(crate) initial_context: Option<Map<String, Value>>,
    pub(crate) custom_metadata: Option<Map<String, Value>>,
}

impl Chosen {
    pub(crate) fn plain(version: Arc<VersionEntry>) -> Self {
        Self { version, initial_context: None, custom_metadata: None }
    }
}

/// A call whose answer the webhook is to give.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) routing: InboundRouting,
    pub(crate) input: Input,
    pub(crate) slot: Option<Arc<VersionEntry>>,
}

const RULE: &str = "inbound_routing";

fn step(result: RuleResult, detail: String) -> Step {
    Step { rule: RULE.into(), result, detail }
}

/// What the rules say; `None` when it is not rules that decide.
pub(crate) fn by_rules(routing: &InboundRouting, input: &Input) -> Option<(Output, Step)> {
    let Workflow::Rules { rules } = &routing.workflow else { return None };
    Some(match first_match(rules, input) {
        Some((at, output)) => {
            (output.clone(), step(RuleResult::Pass, format!("rule {at} of {} matches", rules.len())))
        }
        None => (Output::default(), step(RuleResult::Skip, format!("none of {} rules matches", rules.len()))),
    })
}

/// Asks the webhook. The error says what went wrong, in words.
pub(crate) async fn by_webhook(webhooks: &Webhooks, pending: &Pending) -> Result<Output, String> {
    let Workflow::Webhook { url } = &pending.routing.workflow else {
        return Err("the routing names no webhook".to_owned());
    };
    let Some(secret) = &pending.routing.webhook_secret else {
        return Err("the webhook's secret is not there, and it is never asked unsigned".to_owned());
    };
    let body = serde_json::to_vec(&pending.input).map_err(|e| e.to_string())?;
    let limit = Duration::from_millis(pending.routing.timeout_ms.into());
    let answer = webhooks.post(url, secret, body, limit).await?;
    Output::from_webhook(&answer)
}

/// From an output, or the reason there is none, to the agent that answers.
pub(crate) fn choose(
    directory: &Directory,
    routing: &InboundRouting,
    output: Result<Output, String>,
    slot_version: Option<Arc<VersionEntry>>,
    steps: &mut Vec<Step>,
) -> Result<Chosen, Refused> {
    let named = output.and_then(|output| {
        if output.reject {
            return Ok(Err(()));
        }
        let Some(agent) = output.agent_id else { return Ok(Ok((None, output))) };
        version_of(directory, routing, agent, output.version).map(|version| Ok((Some(version), output)))
    });
    let chosen = match named {
        Ok(Err(())) => {
            steps.push(step(RuleResult::Fail, "the routing rejects the call".to_owned()));
            return Err(refused(
                603,
                "routing_rejected",
                "The organization's inbound routing rejects this call: change its rules or its webhook.",
            ));
        }
        Ok(Ok((version, output))) => {
            let version = match version {
                Some(version) => version,
                None => slot(slot_version, steps)?.version,
            };
            Chosen {
                version,
                initial_context: output.initial_context,
                custom_metadata: output.custom_metadata,
            }
        }
        Err(problem) => {
            steps.push(step(RuleResult::Fail, problem));
            let fallback = routing.fallback_agent_id.map(|agent| version_of(directory, routing, agent, None));
            match fallback {
                Some(Ok(version)) => {
                    let detail = format!("falls back to agent {}", version.agent_id);
                    steps.push(Step { rule: "fallback_agent".into(), result: RuleResult::Pass, detail });
                    Chosen::plain(version)
                }
                Some(Err(problem)) => {
                    steps.push(Step {
                        rule: "fallback_agent".into(),
                        result: RuleResult::Fail,
                        detail: problem,
                    });
                    return Err(failed());
                }
                None => return Err(failed()),
            }
        }
    };
    ready(directory, chosen, steps)
}

fn failed() -> Refused {
    refused(
        480,
        "routing_failed",
        "The organization's inbound routing gave no agent: see the step before, and set a fallback_agent_id.",
    )
}

/// The version of an agent of the routing's own organization.
fn version_of(
    directory: &Directory,
    routing: &InboundRouting,
    agent: AgentId,
    number: Option<i64>,
) -> Result<Arc<VersionEntry>, String> {
    let entry = directory.agent(agent).filter(|entry| entry.organization_id == routing.organization_id);
    let entry = entry.ok_or_else(|| format!("agent {agent} is not one of the organization"))?;
    let version = match number {
        Some(number) => directory.numbered_version(agent, number),
        None => entry.latest_published.and_then(|id| directory.version(id)),
    };
    version.cloned().ok_or_else(|| match number {
        Some(number) => format!("agent {agent} has no version {number}"),
        None => format!("agent {agent} has no published version"),
    })
}

/// The number's own slot.
pub(crate) fn slot(version: Option<Arc<VersionEntry>>, steps: &mut Vec<Step>) -> Result<Chosen, Refused> {
    let Some(version) = version else {
        let detail = "no agent version is published to the number".to_owned();
        steps.push(Step { rule: "inbound_slot".into(), result: RuleResult::Fail, detail });
        return Err(refused(
            480,
            "no_agent",
            "Publish an agent version to the number: POST /core/agents/{id}/versions/{version}/publish with phone_numbers.",
        ));
    };
    Ok(Chosen::plain(version))
}

/// Whether the agent chosen takes calls.
pub(crate) fn ready(directory: &Directory, chosen: Chosen, steps: &mut Vec<Step>) -> Result<Chosen, Refused> {
    let (version, agent_id) = (chosen.version.id, chosen.version.agent_id);
    if !directory.agent(agent_id).is_some_and(|agent| agent.active) {
        let detail = format!("agent {agent_id} is inactive");
        steps.push(Step { rule: "agent_active".into(), result: RuleResult::Fail, detail });
        return Err(refused(480, "agent_inactive", "Set the agent's active to true."));
    }
    let detail = format!("version {version} of agent {agent_id}");
    steps.push(Step { rule: "agent_version".into(), result: RuleResult::Pass, detail });
    Ok(chosen)
}
