//! Who answers an INVITE: agent URI, then number, then nobody. Pure: a directory, a request and its transport source
//! in, a verdict with every rule tried out.

use std::net::SocketAddr;
use std::sync::Arc;

use model::directory::VersionEntry;
use model::{
    AgentId, DecisionRecord, Direction, E164, MediaEncryption, OrganizationId, RuleResult, Step, Timestamp,
    Trunk,
};
use signaling::{Request, Uri};

use crate::directory::Directory;
use crate::settings::{Settings, UnknownSources};

/// Where an accepted INVITE goes.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) organization_id: OrganizationId,
    /// `None` for a call to an agent URI.
    pub(crate) trunk: Option<Arc<Trunk>>,
    /// The dialled number; `None` for a call to an agent URI.
    pub(crate) number: Option<E164>,
    pub(crate) version: Arc<VersionEntry>,
}

/// Why an INVITE is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    pub(crate) advice: &'static str,
    /// Nothing is sent at all.
    pub(crate) silent: bool,
}

/// A verdict with its reasons.
pub(crate) struct Verdict {
    pub(crate) outcome: Result<Route, Refused>,
    pub(crate) steps: Vec<Step>,
    pub(crate) trunk: Option<Arc<Trunk>>,
    pub(crate) organization_id: Option<OrganizationId>,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) from_number: Option<E164>,
    pub(crate) to_number: Option<E164>,
}

impl Verdict {
    /// The decision record of a refusal.
    pub(crate) fn record(
        &self,
        refused: Refused,
        node: &str,
        source: SocketAddr,
        transport: &str,
        call_id: &str,
    ) -> DecisionRecord {
        DecisionRecord {
            id: model::DecisionId::new(),
            at: Timestamp::now(),
            node: node.to_owned(),
            organization_id: self.organization_id,
            trunk_id: self.trunk.as_ref().map(|t| t.id),
            conversation_id: None,
            direction: Direction::Inbound,
            source: format!("{source}/{transport}"),
            from: self.from.clone(),
            to: self.to.clone(),
            from_number: self.from_number.as_ref().map(E164::to_string),
            to_number: self.to_number.as_ref().map(E164::to_string),
            steps: self.steps.clone(),
            status: if refused.silent { 0 } else { refused.status },
            reason: refused.reason.to_owned(),
            advice: refused.advice.to_owned(),
            sip_call_id: Some(call_id.to_owned()),
        }
    }
}

/// Decides. Only `source`, the transport address, counts for admission; no header does.
pub(crate) fn decide(
    directory: &Directory,
    settings: &Settings,
    invite: &Request,
    source: SocketAddr,
) -> Verdict {
    let mut deciding =
        Deciding { directory, settings, source, steps: Vec::new(), trunk: None, organization_id: None };
    let uri = invite.parsed_uri();
    let user = |uri: Option<Uri<'_>>| uri.and_then(|u| u.user_unescaped()).unwrap_or_default().into_owned();
    let dialled = user(uri);
    let to_user = user(invite.to().map(|to| to.uri));
    let from_user = user(invite.from().map(|from| from.uri));
    let to_number = E164::normalise(&dialled);
    let host = uri.as_ref().map(|u| u.host.trim_matches(['[', ']']).to_ascii_lowercase()).unwrap_or_default();
    let outcome = deciding.decide(&host, &dialled, &to_user);
    Verdict {
        outcome,
        steps: deciding.steps,
        trunk: deciding.trunk,
        organization_id: deciding.organization_id,
        from_number: E164::normalise(&from_user),
        to_number: to_number.or_else(|| E164::normalise(&to_user)),
        from: bounded(from_user),
        to: bounded(dialled),
    }
}

/// Keeps a received name at a length a record can hold.
fn bounded(mut text: String) -> String {
    const LONGEST: usize = 256;
    if text.len() > LONGEST {
        let cut = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(cut);
    }
    text
}

struct Deciding<'a> {
    directory: &'a Directory,
    settings: &'a Settings,
    source: SocketAddr,
    steps: Vec<Step>,
    trunk: Option<Arc<Trunk>>,
    organization_id: Option<OrganizationId>,
}

impl Deciding<'_> {
    fn step(&mut self, rule: &'static str, result: RuleResult, detail: String) {
        self.steps.push(Step { rule: rule.into(), result, detail });
    }

    fn decide(&mut self, host: &str, dialled: &str, to_user: &str) -> Result<Route, Refused> {
        if !self.settings.domains.is_empty()
            && !self.settings.domains.iter().any(|d| d.eq_ignore_ascii_case(host))
        {
            self.step("domain", RuleResult::Fail, format!("host {host:?} is not in sip.domains"));
            return Err(self.stranger(
                404,
                "domain_not_ours",
                "Dial one of the hosts in sip.domains, or add this host there.",
            ));
        }
        if let Ok(agent) = dialled.parse::<AgentId>() {
            return self.agent_uri(agent);
        }
        self.step("agent_uri", RuleResult::Skip, "the dialled user is not an agent's UUID".to_owned());
        self.number(dialled, to_user)
    }

    fn agent_uri(&mut self, id: AgentId) -> Result<Route, Refused> {
        let deployed = self.directory.agent(id).filter(|agent| agent.sip_deployed).cloned();
        let Some(agent) = deployed else {
            self.step("agent_uri", RuleResult::Fail, "no deployed agent has this UUID".to_owned());
            return Err(self.stranger(
                404,
                "agent_not_deployed",
                "Check the agent's id, and deploy it with POST /core/agents/{id}/deploy-as-sip.",
            ));
        };
        self.organization_id = Some(agent.organization_id);
        let organization = self.directory.organization(agent.organization_id);
        if let Some(ranges) = organization.and_then(|o| o.sip_endpoint_allowed_addresses.as_ref()) {
            let source = self.source.ip().to_canonical();
            if !ranges.iter().any(|r| r.contains(source)) {
                self.step(
                    "sip_endpoint_allowed_addresses",
                    RuleResult::Fail,
                    format!("source {source} is in none of {} ranges", ranges.len()),
                );
                return Err(self.stranger(
                    403,
                    "src_not_allowed",
                    "Add the caller's address to the organization's sip_endpoint_allowed_addresses.",
                ));
            }
            self.step("sip_endpoint_allowed_addresses", RuleResult::Pass, format!("source {source}"));
        }
        self.step("agent_uri", RuleResult::Pass, format!("agent {id}"));
        let latest = agent.latest_published;
        self.version(latest.and_then(|v| self.directory.version(v)).cloned(), None)
    }

    fn number(&mut self, dialled: &str, to_user: &str) -> Result<Route, Refused> {
        let on_file = |user: &str| E164::normalise(user).and_then(|n| self.directory.number(&n)).cloned();
        let Some(number) = on_file(dialled).or_else(|| on_file(to_user)) else {
            self.step(
                "number",
                RuleResult::Fail,
                "neither the Request-URI's nor the To header's user is a number on file".to_owned(),
            );
            return Err(self.stranger(
                404,
                "number_not_on_file",
                "Add the number with POST /core/phone-numbers, and check the form the carrier sends it in.",
            ));
        };
        let Some(trunk) = self.directory.trunk(number.trunk_id).cloned() else {
            self.step("trunk", RuleResult::Fail, format!("the trunk of {} is gone", number.phone_number));
            return Err(self.stranger(
                404,
                "trunk_missing",
                "Create the number again on a trunk that exists.",
            ));
        };
        self.organization_id = Some(number.organization_id);
        self.step("number", RuleResult::Pass, number.phone_number.to_string());
        self.trunk = Some(Arc::clone(&trunk));
        let source = self.source.ip().to_canonical();
        if !trunk.admits(source) {
            self.step(
                "allowed_addresses",
                RuleResult::Fail,
                format!("source {source} is outside the list of trunk {}", trunk.id),
            );
            return Err(self.stranger(
                403,
                "src_not_allowed",
                "Add the carrier's address to the trunk's inbound_config.allowed_addresses.",
            ));
        }
        self.step("allowed_addresses", RuleResult::Pass, format!("source {source}"));
        let encryption = trunk.inbound_config.as_ref().map(|c| c.media_encryption).unwrap_or_default();
        if encryption != MediaEncryption::Disable {
            self.step(
                "media_encryption",
                RuleResult::Fail,
                format!("{encryption} is not carried by this release"),
            );
            return Err(refused(
                488,
                "encryption_not_available",
                "This release carries no SRTP and never downgrades: set the trunk's inbound_config.media_encryption to SIP_MEDIA_ENCRYPT_DISABLE.",
            ));
        }
        let slot = number.inbound_agent_version_id.and_then(|v| self.directory.version(v)).cloned();
        if slot.is_none() {
            self.step(
                "inbound_slot",
                RuleResult::Fail,
                "no agent version is published to the number".to_owned(),
            );
            return Err(refused(
                480,
                "no_agent",
                "Publish an agent version to the number: POST /core/agents/{id}/versions/{version}/publish with phone_numbers.",
            ));
        }
        self.version(slot, Some(number.phone_number.clone()))
    }

    fn version(
        &mut self,
        version: Option<Arc<VersionEntry>>,
        number: Option<E164>,
    ) -> Result<Route, Refused> {
        let agent = version.as_ref().and_then(|v| self.directory.agent(v.agent_id));
        let (Some(version), Some(agent)) = (version, agent) else {
            self.step("agent_version", RuleResult::Fail, "the agent has no published version".to_owned());
            return Err(self.stranger(404, "no_published_version", "Publish a version of the agent."));
        };
        let organization_id = agent.organization_id;
        if !agent.active {
            self.step("agent_active", RuleResult::Fail, format!("agent {} is inactive", version.agent_id));
            return Err(refused(480, "agent_inactive", "Set the agent's active to true."));
        }
        self.step(
            "agent_version",
            RuleResult::Pass,
            format!("version {} of agent {}", version.id, version.agent_id),
        );
        Ok(Route { organization_id, trunk: self.trunk.clone(), number, version })
    }

    /// A refusal that a stranger may also get as silence.
    fn stranger(&self, status: u16, reason: &'static str, advice: &'static str) -> Refused {
        let silent =
            self.settings.unknown_sources == UnknownSources::Drop && !self.directory.lists(self.source.ip());
        Refused { silent, ..refused(status, reason, advice) }
    }
}

fn refused(status: u16, reason: &'static str, advice: &'static str) -> Refused {
    Refused { status, reason, advice, silent: false }
}
