//! Where a carrier is reached: its targets in the order they are tried (RFC 3263 4), those of `address` before those
//! of each of `fallback_addresses`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{CarrierAddress, OutboundConfig, PrivateTargets, Step};
use signaling::{Hop, Transport};

use crate::edge::Edge;
use crate::outbound::Failure;
use crate::transport::connections::Peer;
use crate::transport::stream;

/// Longest a connection to a target may take while there is another one; a TLS handshake gets
/// twice as long.
const CONNECT_WITH_OTHERS: Duration = Duration::from_millis(750);
/// Targets a call tries, at most.
const MAX_TARGETS: usize = 16;

/// The targets that are left.
pub(crate) struct Targets {
    transport: Transport,
    /// Addresses that have not been resolved.
    addresses: VecDeque<CarrierAddress>,
    found: VecDeque<SocketAddr>,
    /// The host they were found for: who must show a certificate for it.
    host: String,
    left: usize,
    /// What was tried.
    pub(crate) tried: Vec<SocketAddr>,
}

impl Targets {
    pub(crate) fn of(carrier: &OutboundConfig) -> Self {
        let addresses = std::iter::once(&carrier.address).chain(&carrier.fallback_addresses).cloned();
        Self {
            transport: match carrier.transport {
                model::Transport::Udp => Transport::Udp,
                model::Transport::Tcp => Transport::Tcp,
                model::Transport::Tls => Transport::Tls,
            },
            addresses: addresses.collect(),
            found: VecDeque::new(),
            host: String::new(),
            left: MAX_TARGETS,
            tried: Vec::new(),
        }
    }

    /// Whether there may be another one.
    pub(crate) fn has_more(&self) -> bool {
        self.left > 0 && !(self.addresses.is_empty() && self.found.is_empty())
    }

    /// The way to the next one that can be reached. Those that cannot go to `steps`, but for the last, which is the
    /// failure.
    pub(crate) async fn next(&mut self, edge: &Arc<Edge>, steps: &mut Vec<Step>) -> Result<Hop, Failure> {
        let mut failure: Option<Failure> = None;
        while self.has_more() {
            if let Some(earlier) = failure.take() {
                steps.push(earlier.step());
            }
            match self.try_next(edge).await {
                Ok(hop) => return Ok(hop),
                Err(problem) => failure = Some(problem),
            }
        }
        Err(failure.unwrap_or_else(|| unreachable("the carrier has no further address".to_owned())))
    }

    async fn try_next(&mut self, edge: &Arc<Edge>) -> Result<Hop, Failure> {
        self.left = self.left.saturating_sub(1);
        if self.found.is_empty()
            && let Some(address) = self.addresses.pop_front()
        {
            let CarrierAddress { host, port } = address;
            let found = edge.names.resolve(&host, port, self.transport).await;
            self.found = found.map_err(unreachable)?.into();
            self.host = host;
        }
        let Some(remote) = self.found.pop_front() else {
            return Err(unreachable("the carrier's name has no address".to_owned()));
        };
        self.tried.push(remote);
        check(&edge.settings.private_targets, remote)?;
        let limit = self.has_more().then_some(CONNECT_WITH_OTHERS);
        reach(edge, self.transport, remote, &self.host, limit).await
    }
}

/// The way to an address: by the UDP listener that reaches it, or by a connection.
pub(crate) async fn reach(
    edge: &Arc<Edge>,
    transport: Transport,
    remote: SocketAddr,
    host: &str,
    limit: Option<Duration>,
) -> Result<Hop, Failure> {
    let name = match transport {
        Transport::Udp => {
            let flow = edge.transports.udp_flow(remote);
            let none = || unreachable(format!("no UDP listener of this node can reach {remote}"));
            return Ok(Hop { transport, remote, flow: flow.ok_or_else(none)? });
        }
        Transport::Tcp => None,
        Transport::Tls => Some(host.into()),
    };
    let connected = stream::connect(edge, Peer { transport, remote, name }, limit).await;
    let via = transport.as_via();
    let flow = connected.map_err(|error| Failure {
        rule: if transport == Transport::Tls { "carrier_tls" } else { "carrier_address" },
        ..unreachable(format!("no {via} connection to {remote}: {error}"))
    })?;
    Ok(Hop { transport, remote, flow })
}

fn unreachable(detail: String) -> Failure {
    Failure {
        rule: "carrier_address",
        reason: "carrier_unreachable",
        detail,
        advice: "Check the trunk's address, port and transport, the carrier's certificate for TLS, and this node's listeners.",
    }
}

/// Whether the node's operator lets tenants reach an address.
fn check(targets: &PrivateTargets, found: SocketAddr) -> Result<(), Failure> {
    targets.check(found.ip()).map_err(|refused| Failure {
        rule: "private_targets",
        reason: "target_refused",
        detail: format!("{found} {refused}"),
        advice: "Give the trunk an address of the carrier's, or have the operator allow this one in net.private_targets.",
    })
}
