//! Calls out: from a trunk's `outbound_config` to an INVITE on the way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use media::session::Agent;
use model::{AgentConfig, Conversation, MediaEncryption, OutboundConfig, Trunk};
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
    let remote = resolve(&carrier, transport).await?;
    let flow = match transport {
        Transport::Udp => edge
            .transports
            .udp_flow(remote)
            .ok_or_else(|| unreachable(format!("no UDP listener of this node can reach {remote}")))?,
        Transport::Tcp | Transport::Tls => tcp::connect(edge, remote, &edge.stop)
            .await
            .map_err(|error| unreachable(format!("no connection to {remote}: {error}")))?,
    };
    Ok(Ready { agent, hop: Hop { transport, remote, flow }, carrier })
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
async fn resolve(carrier: &OutboundConfig, transport: Transport) -> Result<SocketAddr, Failure> {
    let address = &carrier.address;
    let port = address.port.unwrap_or(transport.default_port());
    let found = match address.ip() {
        Some(ip) => Some(SocketAddr::new(ip.to_canonical(), port)),
        None => {
            let looked_up =
                tokio::time::timeout(RESOLVE, tokio::net::lookup_host((address.host.as_str(), port))).await;
            let mut addresses = match looked_up {
                Ok(Ok(addresses)) => addresses,
                Ok(Err(error)) => {
                    return Err(unreachable(format!("{} does not resolve: {error}", address.host)));
                }
                Err(_) => return Err(unreachable(format!("{} does not resolve within 5 s", address.host))),
            };
            addresses.next()
        }
    };
    let found = found.ok_or_else(|| unreachable(format!("{} has no address", address.host)))?;
    if never_a_carrier(found.ip()) {
        return Err(unreachable(format!(
            "{found} is a link-local, unspecified, multicast or broadcast address, which no carrier has"
        )));
    }
    Ok(found)
}

/// Addresses that are refused always, whatever `net.private_targets` says.
fn never_a_carrier(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local(),
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
    let parameter = if hop.transport == Transport::Tcp { ";transport=tcp" } else { "" };
    let (host, _) = edge.reachable_at(hop);
    let caller = match &conversation.agent_number {
        Some(number) => format!("<sip:{number}@{}>", uri_host(&host)),
        None => format!("<sip:{}>", uri_host(&host)),
    };
    Invite {
        request_uri: format!("sip:{callee}@{}{parameter}", carrier.address),
        from: caller.clone(),
        to: format!("<sip:{callee}@{}>", carrier.address),
        headers: vec![("P-Asserted-Identity".to_owned(), caller)],
        route: Vec::new(),
        credentials: Some(digest::Credentials::new(
            carrier.auth_username.clone(),
            carrier.auth_password.expose().to_owned(),
        )),
        offer,
    }
}
