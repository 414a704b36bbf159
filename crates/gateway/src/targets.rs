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
use crate::transport::tcp;

/// Longest a name may take to resolve.
const RESOLVE: Duration = Duration::from_secs(5);
/// Longest a connection to a target may take while there is another one.
const CONNECT_WITH_OTHERS: Duration = Duration::from_millis(750);
/// Targets a call tries, at most.
const MAX_TARGETS: usize = 16;

/// The targets that are left.
pub(crate) struct Targets {
    transport: Transport,
    /// Addresses that have not been resolved.
    addresses: VecDeque<CarrierAddress>,
    found: VecDeque<SocketAddr>,
    left: usize,
}

impl Targets {
    pub(crate) fn of(carrier: &OutboundConfig) -> Result<Self, Failure> {
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
        let addresses = std::iter::once(&carrier.address).chain(&carrier.fallback_addresses).cloned();
        Ok(Self { transport, addresses: addresses.collect(), found: VecDeque::new(), left: MAX_TARGETS })
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
            self.found = resolve(&address, self.transport).await?.into();
        }
        let Some(remote) = self.found.pop_front() else {
            return Err(unreachable("the carrier's name has no address".to_owned()));
        };
        check(&edge.settings.private_targets, remote)?;
        let limit = self.has_more().then_some(CONNECT_WITH_OTHERS);
        let flow = match self.transport {
            Transport::Udp => edge
                .transports
                .udp_flow(remote)
                .ok_or_else(|| unreachable(format!("no UDP listener of this node can reach {remote}")))?,
            Transport::Tcp | Transport::Tls => tcp::connect(edge, remote, limit, &edge.stop)
                .await
                .map_err(|error| unreachable(format!("no connection to {remote}: {error}")))?,
        };
        Ok(Hop { transport: self.transport, remote, flow })
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

/// Whether the node's operator lets tenants reach an address.
fn check(targets: &PrivateTargets, found: SocketAddr) -> Result<(), Failure> {
    targets.check(found.ip()).map_err(|refused| Failure {
        rule: "private_targets",
        reason: "target_refused",
        detail: format!("{found} {refused}"),
        advice: "Give the trunk an address of the carrier's, or have the operator allow this one in net.private_targets.",
    })
}

/// A literal, or the A and AAAA records of a name.
async fn resolve(address: &CarrierAddress, transport: Transport) -> Result<Vec<SocketAddr>, Failure> {
    let port = address.port.unwrap_or(transport.default_port());
    if let Some(ip) = address.ip() {
        return Ok(vec![SocketAddr::new(ip.to_canonical(), port)]);
    }
    let looked_up = tokio::net::lookup_host((address.host.as_str(), port));
    match tokio::time::timeout(RESOLVE, looked_up).await {
        Ok(Ok(addresses)) => {
            let mut found = Vec::new();
            for address in addresses {
                if !found.contains(&address) {
                    found.push(address);
                }
            }
            Ok(found)
        }
        Ok(Err(error)) => Err(unreachable(format!("{} does not resolve: {error}", address.host))),
        Err(_) => Err(unreachable(format!("{} does not resolve within 5 s", address.host))),
    }
}
