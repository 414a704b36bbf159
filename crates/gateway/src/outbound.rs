//! Calls out: from a trunk's `outbound_config` to an INVITE on the way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use media::session::Agent;
use model::{AgentConfig, Conversation, MediaEncryption, OutboundConfig, PrivateTargets, Trunk};
use signaling::{Hop, Invite, Transport, digest};

use crate::advertise::uri_host;
use crate::agent_link;
use crate::edge::Edge;
use crate::transport::tcp;

/// Longest a name may take to resolve.
const RESOLVE: Duration = Duration::from_secs(5);

/// Why an outbound call failed before anything was sent.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) rule: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    pub(crate) advice: &'static str,
}

impl Failure {
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
    pub(crate) agent: Agent,
    pub(crate) hop: Hop,
    pub(crate) carrier: OutboundConfig,
}

/// Finds the way to the carrier and makes the agent ready: nobody is called by an agent that is not there.
pub(crate) async fn prepare(
    edge: &Arc<Edge>,
    trunk: Option<&Trunk>,
    config: &AgentConfig,
) -> Result<Ready, Failure> {
    let Some(carrier) = trunk.and_then(|t| t.outbound_config.clone()) else {
        return Err(Failure {
            rule: "outbound_config",
            reason: "no_outbound_config",
            detail: "the number's trunk has no outbound_config, or is gone".to_owned(),
            advice: "Set the trunk's outbound_config with PUT /core/trunks/{id}.",
        });
    };
    if carrier.media_encryption != MediaEncryption::Disable {
        return Err(Failure {
            rule: "media_encryption",
            reason: "encryption_not_available",
            detail: format!(
                "{} is not carried by this release, and a call is never sent in clear instead",
                carrier.media_encryption
            ),
            advice: "Set the trunk's outbound_config.media_encryption to SIP_MEDIA_ENCRYPT_DISABLE.",
        });
    }
    let limit = Duration::from_millis(config.answer_timeout_ms.into());
    let agent = agent_link::prepare(config, &edge.audio_files, &edge.settings.media.audio_dir);
    let agent = match tokio::time::timeout(limit, agent).await {
        Ok(Ok(agent)) => agent,
        Ok(Err(not_ready)) => return Err(agent_failure(not_ready.to_string())),
        Err(_) => {
            return Err(agent_failure(format!(
                "the agent was not ready within {} ms",
                config.answer_timeout_ms
            )));
        }
    };
    Ok(Ready { agent, hop: reach(edge, &carrier).await?, carrier })
}

/// Finds the way to the carrier.
pub(crate) async fn reach(edge: &Arc<Edge>, carrier: &OutboundConfig) -> Result<Hop, Failure> {
    let transport = match carrier.transport {
        model::Transport::Udp => Transport::Udp,
        model::Transport::Tcp => Transport::Tcp,
        model::Transport::Tls => {
            return Err(Failure {
                rule: "transport",
                reason: "tls_not_available",
                detail: "SIP_TRANSPORT_TLS is not carried by this release, and a call is never sent in clear instead".to_owned(),
                advice: "Set the trunk's outbound_config.transport to SIP_TRANSPORT_UDP or SIP_TRANSPORT_TCP.",
            });
        }
    };
    let remote = resolve(carrier, transport, &edge.settings.private_targets).await?;
    let flow = match transport {
        Transport::Udp => edge
            .transports
            .udp_flow(remote)
            .ok_or_else(|| unreachable(format!("no UDP listener of this node can reach {remote}")))?,
        Transport::Tcp | Transport::Tls => tcp::connect(edge, remote, &edge.stop)
            .await
            .map_err(|error| unreachable(format!("no connection to {remote}: {error}")))?,
    };
    Ok(Hop { transport, remote, flow })
}

fn agent_failure(detail: String) -> Failure {
    Failure {
        rule: "agent",
        reason: "agent_not_ready",
        detail,
        advice: "Check the agent's runtime configuration.",
    }
}

fn unreachable(detail: String) -> Failure {
    Failure {
        rule: "carrier_address",
        reason: "carrier_unreachable",
        detail,
        advice: "Check the trunk's address, port and transport, and this node's sip.udp and sip.tcp listeners.",
    }
}

/// The carrier's address: a literal, or the first A/AAAA of its name.
async fn resolve(
    carrier: &OutboundConfig,
    transport: Transport,
    targets: &PrivateTargets,
) -> Result<SocketAddr, Failure> {
    let address = &carrier.address;
    let port = address.port.unwrap_or(transport.default_port());
    let found = match address.ip() {
        Some(ip) => Some(SocketAddr::new(ip.to_canonical(), port)),
        None => {
            let looked_up =
                tokio::time::timeout(RESOLVE, tokio::net::lookup_host((address.host.as_str(), port))).await;
            let addresses = match looked_up {
                Ok(Ok(addresses)) => addresses,
                Ok(Err(error)) => {
                    return Err(unreachable(format!("{} does not resolve: {error}", address.host)));
                }
                Err(_) => return Err(unreachable(format!("{} does not resolve within 5 s", address.host))),
            };
            let mut addresses = addresses.collect::<Vec<_>>();
            // The first that may be reached; when none may, the first, to say why not.
            addresses.sort_by_key(|address| targets.check(address.ip()).is_err());
            addresses.into_iter().next()
        }
    };
    let found = found.ok_or_else(|| unreachable(format!("{} has no address", address.host)))?;
    targets.check(found.ip()).map_err(|refused| Failure {
        rule: "private_targets",
        reason: "target_refused",
        detail: format!("{found} {refused}"),
        advice: "Give the trunk an address of the carrier's, or have the operator allow this one in net.private_targets.",
    })?;
    Ok(found)
}

/// The carrier itself as a Request-URI.
pub(crate) fn carrier_uri(carrier: &OutboundConfig, hop: Hop) -> String {
    format!("sip:{}{}", carrier.address, transport_parameter(hop))
}

fn transport_parameter(hop: Hop) -> &'static str {
    if hop.transport == Transport::Tcp { ";transport=tcp" } else { "" }
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
