//! Who answers an INVITE: agent URI, then number, then nobody. Pure: a directory, what the request asks for and its
//! transport source in, a verdict with every rule tried out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use media::denoise::Mode;
use model::directory::VersionEntry;
use model::inbound_routing::Input;
use model::{
    AgentId, DecisionRecord, Direction, E164, InboundAuth, MediaEncryption, OrganizationId, PhoneNumber,
    RuleResult, Step, Timestamp, Trunk, TrunkId,
};
use signaling::digest::Staleness;
use signaling::{Hop, Request, Uri};

use crate::directory::Directory;
use crate::inbound_auth::Authenticated;
use crate::inbound_routing::{self, Chosen, Pending};
use crate::settings::{Settings, UnknownSources};

/// Where an accepted INVITE goes.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) organization_id: OrganizationId,
    /// `None` for a call to an agent URI.
    pub(crate) trunk: Option<Arc<Trunk>>,
    /// The dialled number; `None` for a call to an agent URI.
    pub(crate) number: Option<E164>,
    pub(crate) answer: Answer,
}

impl Route {
    /// What is done about SRTP: as the trunk says. A call to an agent URI is on no trunk, and both are welcome.
    pub(crate) fn media_encryption(&self) -> MediaEncryption {
        match &self.trunk {
            Some(trunk) => trunk.inbound_media_encryption(),
            None => MediaEncryption::Allow,
        }
    }
}

/// Who answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Known.
    Agent(Box<Chosen>),
    /// The organization's webhook is to say.
    Webhook(Box<Pending>),
}

/// An INVITE as routing sees it.
pub(crate) struct Asked {
    /// Host of the Request-URI, in lower case, without brackets.
    pub(crate) host: String,
    /// User of the Request-URI.
    pub(crate) dialled: String,
    /// User of the To header.
    pub(crate) to: String,
    /// User of the From header.
    pub(crate) from: String,
    /// Transport source: only it counts for admission; no header does.
    pub(crate) source: SocketAddr,
    pub(crate) at: Timestamp,
    /// A simulation sees the things of its own organization alone.
    pub(crate) only: Option<OrganizationId>,
}

impl Asked {
    pub(crate) fn by(invite: &Request, source: SocketAddr) -> Self {
        let uri = invite.parsed_uri();
        let user =
            |uri: Option<Uri<'_>>| uri.and_then(|u| u.user_unescaped()).unwrap_or_default().into_owned();
        Self {
            host: uri
                .as_ref()
                .map(|u| u.host.trim_matches(['[', ']']).to_ascii_lowercase())
                .unwrap_or_default(),
            dialled: user(uri),
            to: user(invite.to().map(|to| to.uri)),
            from: user(invite.from().map(|from| from.uri)),
            source,
            at: Timestamp::now(),
            only: None,
        }
    }

    /// A call to an agent over AudioSocket, which tells nothing of the caller but where it comes from.
    pub(crate) fn over_audiosocket(agent: AgentId, source: SocketAddr) -> Self {
        Self {
            host: String::new(),
            dialled: agent.to_string(),
            to: String::new(),
            from: String::new(),
            source,
            at: Timestamp::now(),
            only: None,
        }
    }
}

/// Why an INVITE is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    /// One sentence on what to change.
    pub(crate) advice: &'static str,
    /// Nothing is sent at all.
    pub(crate) silent: bool,
    /// The 401's challenge.
    pub(crate) challenge: Option<Challenge>,
}

/// What a 401 says of the nonce that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Nothing.
    Fresh,
    /// It is not taken any more.
    Stale,
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
    pub(crate) fn record(&self, refused: &Refused, node: &str, hop: Hop, call_id: &str) -> DecisionRecord {
        DecisionRecord {
            id: model::DecisionId::new(),
            at: Timestamp::now(),
            node: node.to_owned(),
            organization_id: self.organization_id,
            trunk_id: self.trunk.as_ref().map(|t| t.id),
            conversation_id: None,
            direction: Direction::Inbound,
            source: format!("{}/{}", hop.remote, hop.transport.as_via()),
            from: self.from.clone(),
            to: self.to.clone(),
            from_number: self.from_number.as_ref().map(E164::to_string),
            to_number: self.to_number.as_ref().map(E164::to_string),
            steps: self.steps.clone(),
            status: if refused.silent { 0 } else { refused.status },
            reason: refused.reason.to_owned(),
            advice: refused.advice.to_owned(),
            sip_call_id: Some(call_id.to_owned()),
            messages: Vec::new(),
        }
    }
}

/// Judges an INVITE's credentials for a trunk that asks for them.
pub(crate) type Authenticate<'a> = dyn Fn(&Trunk, &InboundAuth) -> Authenticated + 'a;

/// Decides.
pub(crate) fn decide(
    directory: &Directory,
    settings: &Settings,
    asked: Asked,
    authenticate: &Authenticate<'_>,
) -> Verdict {
    decide_by(directory, settings, asked, authenticate, |deciding| deciding.decide())
}

/// Refuses for a reason that lies in the request. Whose call it would have been is still told, when it would have come
/// from where that one's calls come from.
pub(crate) fn decide_against(
    directory: &Directory,
    settings: &Settings,
    asked: Asked,
    because: Refused,
    detail: String,
) -> Verdict {
    let nobody = |_: &Trunk, _: &InboundAuth| Authenticated::Absent;
    decide_by(directory, settings, asked, &nobody, |deciding| {
        deciding.name_owner();
        deciding.step(because.reason, RuleResult::Fail, detail);
        // Who reaches somebody of ours is no stranger there.
        let stranger = deciding.organization_id.is_none();
        let silent = stranger && deciding.stranger(because.status, because.reason, because.advice).silent;
        Err(Refused { silent, ..because })
    })
}

/// Decides for a call that names an agent and comes by no SIP.
pub(crate) fn decide_agent(
    directory: &Directory,
    settings: &Settings,
    asked: Asked,
    agent: AgentId,
) -> Verdict {
    let nobody = |_: &Trunk, _: &InboundAuth| Authenticated::Absent;
    decide_by(directory, settings, asked, &nobody, |deciding| deciding.agent_uri(agent))
}

fn decide_by(
    directory: &Directory,
    settings: &Settings,
    asked: Asked,
    authenticate: &Authenticate<'_>,
    rule: impl FnOnce(&mut Deciding<'_>) -> Result<Route, Refused>,
) -> Verdict {
    let from_number = E164::normalise(&asked.from);
    let to_number = E164::normalise(&asked.dialled).or_else(|| E164::normalise(&asked.to));
    let caller = from_number.as_ref().map_or_else(|| bounded(asked.from.clone()), E164::to_string);
    let mut deciding = Deciding {
        directory,
        settings,
        asked: &asked,
        authenticate,
        caller,
        steps: Vec::new(),
        trunk: None,
        organization_id: None,
    };
    let outcome = rule(&mut deciding);
    let Deciding { steps, trunk, organization_id, .. } = deciding;
    Verdict {
        outcome,
        steps,
        trunk,
        organization_id,
        from_number,
        to_number,
        from: bounded(asked.from),
        to: bounded(asked.dialled),
    }
}

/// Keeps a received name at a length a record can hold.
pub(crate) fn bounded(mut text: String) -> String {
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
    asked: &'a Asked,
    authenticate: &'a Authenticate<'a>,
    /// The caller as E.164, or as received.
    caller: String,
    steps: Vec<Step>,
    trunk: Option<Arc<Trunk>>,
    organization_id: Option<OrganizationId>,
}

impl Deciding<'_> {
    fn step(&mut self, rule: &'static str, result: RuleResult, detail: String) {
        self.steps.push(Step { rule: rule.into(), result, detail });
    }

    /// Whether the one who asks may see what belongs to an organization.
    fn sees(&self, organization: OrganizationId) -> bool {
        self.asked.only.is_none_or(|only| only == organization)
    }

    fn source(&self) -> IpAddr {
        self.asked.source.ip().to_canonical()
    }

    fn decide(&mut self) -> Result<Route, Refused> {
        let Asked { host, dialled, to, .. } = self.asked;
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
        self.number(dialled, to)
    }

    /// Finds whose agent or number is dialled, without a rule.
    fn name_owner(&mut self) {
        let Asked { dialled, to, .. } = self.asked;
        if let Ok(agent) = dialled.parse::<AgentId>() {
            let deployed = self.directory.agent(agent).filter(|agent| agent.sip_deployed);
            self.organization_id = deployed.map(|agent| agent.organization_id);
            return;
        }
        let Some(number) = self.on_file(dialled, to) else { return };
        let trunk = self.directory.trunk(number.trunk_id).filter(|trunk| trunk.admits(self.source()));
        if let Some(trunk) = trunk.cloned() {
            self.organization_id = Some(number.organization_id);
            self.trunk = Some(trunk);
        }
    }

    /// The number that the Request-URI names, else the To header.
    fn on_file(&self, dialled: &str, to: &str) -> Option<Arc<PhoneNumber>> {
        let named = |user: &str| E164::normalise(user).and_then(|n| self.directory.number(&n)).cloned();
        named(dialled).or_else(|| named(to))
    }

    fn agent_uri(&mut self, id: AgentId) -> Result<Route, Refused> {
        let deployed =
            self.directory.agent(id).filter(|agent| agent.sip_deployed && self.sees(agent.organization_id));
        let deployed = deployed.cloned();
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
            let source = self.source();
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
        let version = latest.and_then(|v| self.directory.version(v)).cloned();
        let chosen = self.answered_by(version.map(Chosen::plain))?;
        Ok(self.route(None, Answer::Agent(Box::new(chosen))))
    }

    fn route(&self, number: Option<E164>, answer: Answer) -> Route {
        // Both are set before anything is chosen; a route without its organization cannot come to be.
        let organization_id = self.organization_id.unwrap_or_default();
        Route { organization_id, trunk: self.trunk.clone(), number, answer }
    }

    fn number(&mut self, dialled: &str, to_user: &str) -> Result<Route, Refused> {
        let number = self.on_file(dialled, to_user);
        let Some(number) = number.filter(|number| self.sees(number.organization_id)) else {
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
        let source = self.source();
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
        if let Some(auth) = trunk.inbound_config.as_ref().and_then(|config| config.auth.as_ref()) {
            self.inbound_auth(&trunk, auth)?;
        }
        if let Some(mode) = noise_cancellation(self.settings, &trunk) {
            let detail = format!("media.noise_cancellation {}: on the caller's audio", mode.as_str());
            self.step("enable_noise_cancellation", RuleResult::Pass, detail);
        }
        let slot = number.inbound_agent_version_id.and_then(|v| self.directory.version(v)).cloned();
        let answer = self.number_answer(&number, slot, trunk.id)?;
        Ok(self.route(Some(number.phone_number.clone()), answer))
    }

    /// The trunk's digest challenge, after its list of addresses.
    fn inbound_auth(&mut self, trunk: &Trunk, auth: &InboundAuth) -> Result<(), Refused> {
        let authenticated = (self.authenticate)(trunk, auth);
        let (result, detail) = match authenticated {
            Authenticated::Yes => (RuleResult::Pass, "the credentials are the trunk's".to_owned()),
            Authenticated::Assumed => (
                RuleResult::Skip,
                "a real INVITE would be challenged; right credentials are assumed".to_owned(),
            ),
            Authenticated::Absent => (RuleResult::Fail, "no credentials for our realm came".to_owned()),
            Authenticated::Stale(why) => {
                let why = match why {
                    Staleness::Foreign => "was not given to this source for this trunk by this node",
                    Staleness::Expired => "is older than a minute",
                    Staleness::Replayed => "came with a nonce-count that was used before",
                };
                (RuleResult::Fail, format!("the nonce {why}"))
            }
            Authenticated::Wrong(what) => (RuleResult::Fail, what.to_owned()),
            Authenticated::Muted => {
                (RuleResult::Fail, "10 wrong credentials came from this source within a minute".to_owned())
            }
        };
        self.step("inbound_auth", result, detail);
        let unauthorized = |reason, challenge, advice| {
            Err(Refused { challenge: Some(challenge), ..refused(401, reason, advice) })
        };
        match authenticated {
            Authenticated::Yes | Authenticated::Assumed => Ok(()),
            Authenticated::Absent => unauthorized(
                model::decision::CHALLENGED,
                Challenge::Fresh,
                "Nothing, when the INVITE came again with credentials; else give the carrier the trunk's inbound_config.auth_username and auth_password.",
            ),
            Authenticated::Stale(_) => unauthorized(
                model::decision::NONCE_STALE,
                Challenge::Stale,
                "Nothing, when the INVITE came again with the new nonce; else have the carrier answer the challenge it gets.",
            ),
            Authenticated::Wrong(_) => unauthorized(
                "credentials_wrong",
                Challenge::Fresh,
                "Check that the carrier sends the trunk's inbound_config.auth_username and auth_password; the carrier gets no answer for a minute after 10 wrong ones.",
            ),
            Authenticated::Muted => Err(Refused {
                silent: true,
                ..refused(
                    401,
                    "credentials_guessed",
                    "Correct the carrier's credentials: after 10 wrong ones within a minute its INVITEs go unanswered for a minute.",
                )
            }),
        }
    }

    /// The organization's routing, when it is enabled; else the number's slot.
    fn number_answer(
        &mut self,
        number: &PhoneNumber,
        slot: Option<Arc<VersionEntry>>,
        trunk_id: TrunkId,
    ) -> Result<Answer, Refused> {
        let organization = self.directory.organization(number.organization_id).cloned();
        let Some(routing) =
            organization.as_ref().and_then(|o| o.inbound_routing.as_ref()).filter(|r| r.enabled)
        else {
            let chosen = inbound_routing::slot(slot, &mut self.steps)?;
            return self.answered_by(Some(chosen)).map(|chosen| Answer::Agent(Box::new(chosen)));
        };
        let input = Input {
            caller_number: self.caller.clone(),
            called_number: number.phone_number.to_string(),
            trunk_id,
            organization_id: number.organization_id,
            timestamp: self.asked.at,
        };
        match inbound_routing::by_rules(routing, &input) {
            None => Ok(Answer::Webhook(Box::new(Pending { routing: routing.clone(), input, slot }))),
            Some((output, step)) => {
                self.steps.push(step);
                inbound_routing::choose(self.directory, routing, Ok(output), slot, &mut self.steps)
                    .map(|chosen| Answer::Agent(Box::new(chosen)))
            }
        }
    }

    fn answered_by(&mut self, chosen: Option<Chosen>) -> Result<Chosen, Refused> {
        let Some(chosen) = chosen else {
            self.step("agent_version", RuleResult::Fail, "the agent has no published version".to_owned());
            return Err(self.stranger(404, "no_published_version", "Publish a version of the agent."));
        };
        inbound_routing::ready(self.directory, chosen, &mut self.steps)
    }

    /// A refusal that a stranger may also get as silence.
    fn stranger(&self, status: u16, reason: &'static str, advice: &'static str) -> Refused {
        let silent = self.settings.unknown_sources == UnknownSources::Drop
            && !self.directory.lists(self.asked.source.ip());
        Refused { silent, ..refused(status, reason, advice) }
    }
}

/// The denoiser of what a caller says on a trunk.
pub(crate) fn noise_cancellation(settings: &Settings, trunk: &Trunk) -> Option<Mode> {
    let asked = trunk.inbound_config.as_ref().is_some_and(|config| config.enable_noise_cancellation);
    asked.then_some(settings.media.noise_cancellation)
}

pub(crate) const fn refused(status: u16, reason: &'static str, advice: &'static str) -> Refused {
    Refused { status, reason, advice, silent: false, challenge: None }
}
