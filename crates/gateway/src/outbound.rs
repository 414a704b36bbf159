//! Calls out: from a trunk's `outbound_config` to an INVITE on the way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{AgentConfig, Conversation, OutboundConfig, RuleResult, Step, Trunk};
use signaling::{Hop, Invite, Transport, digest};

use crate::advertise::uri_host;
use crate::agent_link::{self, CallFacts, ReadyAgent};
use crate::calls::Mailbox;
use crate::edge::Edge;
use crate::targets::Targets;

/// Why an outbound call failed before anything was sent.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) rule: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    pub(crate) advice: &'static str,
}

impl Failure {
    /// The rule that failed.
    pub(crate) fn step(&self) -> Step {
        Step { rule: self.rule.into(), result: RuleResult::Fail, detail: self.detail.clone() }
    }

    pub(crate) fn no_rtp_port() -> Self {
        Self {
            rule: "rtp_port",
            reason: "no_rtp_port",
            detail: "no RTP port is free".to_owned(),
            advice: "Widen media.ports, or spread the calls over more nodes.",
        }
    }
}

/// What an outbound call needs before its INVITE.
pub(crate) struct Ready {
    pub(crate) agent: ReadyAgent,
    pub(crate) targets: Targets,
    pub(crate) carrier: OutboundConfig,
}

/// Looks at the trunk and makes the agent ready: nobody is called by an agent that is not there.
pub(crate) async fn prepare(
    edge: &Arc<Edge>,
    trunk: Option<&Trunk>,
    config: &AgentConfig,
    facts: CallFacts,
    call: Mailbox,
) -> Result<Ready, Failure> {
    let Some(carrier) = trunk.and_then(|t| t.outbound_config.clone()) else {
        return Err(Failure {
            rule: "outbound_config",
            reason: "no_outbound_config",
            detail: "the number's trunk has no outbound_config, or is gone".to_owned(),
            advice: "Set the trunk's outbound_config with PUT /core/trunks/{id}.",
        });
    };
    let targets = Targets::of(&carrier);
    let limit = Duration::from_millis(config.answer_timeout_ms.into());
    let agent = agent_link::prepare(edge, config, facts, call);
    let agent = match tokio::time::timeout(limit, agent).await {
        Ok(Ok(agent)) => agent,
        Ok(Err(not_ready)) => {
            let refused = not_ready.status.map(|_| "agent_refused");
            let failure = agent_failure(not_ready.why);
            return Err(Failure { reason: refused.unwrap_or(failure.reason), ..failure });
        }
        Err(_) => {
            return Err(agent_failure(format!(
                "the agent was not ready within {} ms",
                config.answer_timeout_ms
            )));
        }
    };
    Ok(Ready { agent, targets, carrier })
}

fn agent_failure(detail: String) -> Failure {
    Failure {
        rule: "agent",
        reason: "agent_not_ready",
        detail,
        advice: "Check the agent's runtime configuration.",
    }
}

/// The carrier itself as a Request-URI.
pub(crate) fn carrier_uri(carrier: &OutboundConfig, hop: Hop) -> String {
    format!("sip:{}{}", carrier.address, transport_parameter(hop))
}

fn transport_parameter(hop: Hop) -> &'static str {
    match hop.transport {
        Transport::Udp => "",
        Transport::Tcp => ";transport=tcp",
        Transport::Tls => ";transport=tls",
    }
}

/// The INVITE: callee in Request-URI and To, caller ID in From and P-Asserted-Identity (RFC 3325), both E.164 with `+`.
pub(crate) fn invite(
    edge: &Edge,
    carrier: &OutboundConfig,
    conversation: &Conversation,
    hop: Hop,
    offer: Bytes,
) -> Invite {
    let callee = &conversation.user_id;
    let parameter = transport_parameter(hop);
    let (host, _) = edge.reachable_at(hop);
    let caller = match &conversation.agent_number {
        Some(number) => format!("<sip:{number}@{}>", uri_host(&host)),
        None => format!("<sip:{}>", uri_host(&host)),
    };
    Invite {
        request_uri: format!("sip:{callee}@{}{parameter}", carrier.address),
        from: caller.clone(),
        to: format!("<sip:{callee}@{}>", carrier.address),
        headers: std::iter::once(("P-Asserted-Identity".to_owned(), caller))
            .chain(carrier.headers.iter().cloned())
            .collect(),
        route: Vec::new(),
        credentials: Some(digest::Credentials::new(
            carrier.auth_username.clone(),
            carrier.auth_password.expose().to_owned(),
        )),
        offer,
    }
}
