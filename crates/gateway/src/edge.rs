//! What every part of a running gateway shares.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use cluster::{Cluster, SipPresence};
use signaling::{Hop, Identity, Message, Request, Transport};
use tokio_util::sync::CancellationToken;

use crate::admission::{Budget, CallLimit, SourceLimit, TrunkLimits};
use crate::advertise::{self, Routes};
use crate::agent_link::AudioFiles;
use crate::calls::Calls;
use crate::counters::{Counter, Counters};
use crate::departed::DepartedCalls;
use crate::directory::DirectoryHandle;
use crate::hep::Hep;
use crate::inbound_auth::InboundDigest;
use crate::lane::Lanes;
use crate::load::Load;
use crate::media_shard::MediaShards;
use crate::record::{RecentRefusals, Records, RefusalLog};
use crate::recording::Recordings;
use crate::registration::Registrations;
use crate::resolve::Names;
use crate::rtp_ports::RtpPorts;
use crate::settings::{Settings, UnknownSources};
use crate::strangers::InDialog;
use crate::traces::Traces;
use crate::transport::tls::Tls;
use crate::transport::{Transports, Unsent};
use crate::webhook::Webhooks;

/// What we call ourselves (RFC 3261 20.41).
pub(crate) const USER_AGENT: &str = concat!("Tandem/", env!("CARGO_PKG_VERSION"));

pub(crate) struct Edge {
    pub(crate) settings: Settings,
    pub(crate) directory: DirectoryHandle,
    pub(crate) cluster: Cluster,
    pub(crate) counters: Arc<Counters>,
    pub(crate) records: Records,
    pub(crate) transports: Transports,
    pub(crate) calls: Calls,
    pub(crate) departed: DepartedCalls,
    pub(crate) traces: Traces,
    /// Export of every message, when there is a collector.
    pub(crate) hep: Option<Hep>,
    pub(crate) rtp_ports: Arc<RtpPorts>,
    pub(crate) shards: MediaShards,
    pub(crate) audio_files: AudioFiles,
    pub(crate) recordings: Recordings,
    /// Strangers who are in a dialog.
    pub(crate) in_dialog: InDialog,
    pub(crate) refusals: SourceLimit,
    /// Refusals to all strangers together.
    pub(crate) stranger_refusals: Budget,
    /// Decision records of strangers' INVITEs, and of the others'.
    pub(crate) stranger_records: Budget,
    pub(crate) listed_records: Budget,
    /// TLS handshakes with a source that no trunk lists, and with all of them together.
    pub(crate) handshakes: SourceLimit,
    pub(crate) stranger_handshakes: Budget,
    pub(crate) refusal_log: RefusalLog,
    pub(crate) inbound_digest: InboundDigest,
    pub(crate) call_limit: Arc<CallLimit>,
    pub(crate) load: Load,
    /// Calls of strangers that are over and still absorb what is repeated.
    pub(crate) lingering: Arc<CallLimit>,
    pub(crate) trunk_limits: Arc<TrunkLimits>,
    /// Calls out to routing webhooks.
    pub(crate) webhooks: Webhooks,
    /// INVITEs that were refused a moment ago.
    pub(crate) refused: RecentRefusals,
    pub(crate) routes: Routes,
    pub(crate) tls: Tls,
    pub(crate) names: Names,
    pub(crate) lanes: Lanes,
    pub(crate) registrations: Registrations,
    /// Keys the to-tags of stateless refusals.
    pub(crate) key: [u8; 16],
    pub(crate) draining: AtomicBool,
    /// Cancelled when everything is to end.
    pub(crate) stop: CancellationToken,
}

impl Edge {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Our address on a hop, as the other end sees it but for NAT.
    pub(crate) fn local(&self, hop: Hop) -> SocketAddr {
        match self.transports.local(hop) {
            Some(local) if !local.ip().is_unspecified() => {
                SocketAddr::new(local.ip().to_canonical(), local.port())
            }
            local => {
                let port = local.map_or(hop.transport.default_port(), |local| local.port());
                SocketAddr::new(self.routes.local_address(hop.remote.ip()), port)
            }
        }
    }

    /// Sends a message, and exports it.
    pub(crate) fn send(&self, hop: Hop, bytes: Bytes) -> Result<(), Unsent> {
        if let Some(hep) = &self.hep {
            hep.export(true, hop, self.local(hop), &bytes);
        }
        self.transports.send(hop, bytes)
    }

    /// Exports a message that was received.
    pub(crate) fn export_received(&self, message: &Message, hop: Hop) {
        if let Some(hep) = &self.hep {
            hep.export(false, hop, self.local(hop), &message.raw().concat());
        }
    }

    /// Whether a source may be answered when no call of ours is concerned, else what to count. A stranger gets nothing
    /// with `sip.unknown_sources = "drop"`, and nothing more once it, or all of them together, were refused too often.
    pub(crate) fn answers(&self, source: IpAddr, now: Instant) -> Result<(), Counter> {
        if self.directory.load().lists(source) {
            Ok(())
        } else if self.settings.unknown_sources == UnknownSources::Drop {
            Err(Counter::DroppedUnknownSource)
        } else if !self.refusals.take(source, now) {
            Err(Counter::DroppedMuted)
        } else if !self.stranger_refusals.take(now) {
            Err(Counter::DroppedBusy)
        } else {
            Ok(())
        }
    }

    /// Whether the refusal of an INVITE is written down: once for its retransmissions, and not too many a second.
    pub(crate) fn may_write_down(&self, request: &Request, hop: Hop, now: Instant) -> bool {
        let branch = request.top_via().and_then(|via| via.branch()).unwrap_or_default();
        if !self.refused.is_new(request.call_id(), branch, hop.remote) {
            return false;
        }
        let listed = self.directory.load().lists(hop.remote.ip());
        let budget = if listed { &self.listed_records } else { &self.stranger_records };
        let written = budget.take(now);
        if !written {
            self.counters.count(Counter::DecisionsSkipped);
        }
        written
    }

    /// Our side of a new session over `hop`.
    pub(crate) fn identity(&self, hop: Hop) -> Identity {
        let (host, port) = self.reachable_at(hop);
        let host = advertise::uri_host(&host);
        let parameter = match hop.transport {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
            Transport::Tls => ";transport=tls",
        };
        Identity {
            contact: format!("sip:{host}:{port}{parameter}"),
            via: format!("{host}:{port}"),
            user_agent: USER_AGENT,
            session_timer: self.settings.session_timer,
            seed: random(),
        }
    }

    /// Host (an IPv6 literal without brackets) and port the other end of `hop` reaches us at.
    pub(crate) fn reachable_at(&self, hop: Hop) -> (String, u16) {
        let local = self.transports.local(hop);
        let port = local.map_or(hop.transport.default_port(), |l| l.port());
        match self.settings.advertise.of(hop.transport) {
            Some(advertise) => (advertise.host, advertise.port.unwrap_or(port)),
            None => {
                let ip = match local.map(|l| l.ip().to_canonical()) {
                    Some(ip) if !ip.is_unspecified() => ip,
                    _ => self.routes.local_address(hop.remote.ip()),
                };
                (ip.to_string(), port)
            }
        }
    }

    /// The address our SDP names towards `peer`.
    pub(crate) fn media_address(&self, peer: IpAddr) -> IpAddr {
        let media = &self.settings.media;
        let same_family = |ip: &IpAddr| ip.is_ipv4() == peer.to_canonical().is_ipv4();
        media
            .advertise
            .or_else(|| media.address.filter(|ip| !ip.is_unspecified()).filter(same_family))
            .or_else(|| self.settings.advertise.any().and_then(|a| a.host.parse().ok()).filter(same_family))
            .unwrap_or_else(|| self.routes.local_address(peer))
    }

    /// How agents' URIs are built, by the first transport there is; `None` without a listener.
    pub(crate) fn presence(&self) -> Option<SipPresence> {
        let udp = self.transports.udp.first().map(crate::transport::udp::Listener::local);
        let listeners = [
            (Transport::Udp, udp),
            (Transport::Tcp, self.transports.tcp_local.first().copied()),
            (Transport::Tls, self.transports.tls_local.first().copied()),
        ];
        let mut listeners = listeners.into_iter().filter_map(|(transport, local)| Some((transport, local?)));
        let (transport, listener): (_, SocketAddr) = listeners.next()?;
        let advertised = self.settings.advertise.of(transport);
        let host = match (&self.settings.domain, &advertised) {
            (Some(domain), _) => domain.clone(),
            (None, Some(advertise)) => advertise.host.clone(),
            (None, None) if listener.ip().is_unspecified() => advertise::default_address().to_string(),
            (None, None) => listener.ip().to_canonical().to_string(),
        };
        let port = advertised.and_then(|a| a.port).unwrap_or(listener.port());
        Some(SipPresence {
            host: advertise::uri_host(&host),
            port: (port != transport.default_port()).then_some(port),
            transport: (transport == Transport::Tcp).then_some("tcp"),
            sips: transport == Transport::Tls,
        })
    }
}

/// Unpredictable bytes for tags, branches and SSRCs.
pub(crate) fn random() -> [u8; 16] {
    let mut bytes = [0u8; 16];
    fill(&mut bytes);
    bytes
}

/// Bytes asked of the system at once: a call takes about a hundred, and a system call for each few would cost more than
/// the rest of them.
const POOL: usize = 512;

/// Bytes of the system's generator that nobody has had yet.
struct Pool {
    bytes: [u8; POOL],
    left: usize,
}

thread_local! {
    static POOLED: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL], left: 0 }) };
}

/// Fills with unpredictable bytes, each given out once.
pub(crate) fn fill(bytes: &mut [u8]) {
    // The system's generator fails only before the machine has booted; a process cannot run safely without it.
    #[allow(clippy::expect_used)]
    let system = |bytes: &mut [u8]| getrandom::fill(bytes).expect("the system's random generator works");
    POOLED.with_borrow_mut(|pool| {
        if bytes.len() > pool.left {
            if bytes.len() > POOL / 4 {
                system(bytes);
                return;
            }
            system(&mut pool.bytes);
            pool.left = POOL;
        }
        pool.left -= bytes.len();
        // In range: `left` is at most POOL, and was at least as many as are taken.
        let taken = &mut pool.bytes[pool.left..pool.left + bytes.len()];
        bytes.copy_from_slice(taken);
        taken.fill(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_are_given_out_twice() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1_000 {
            assert!(seen.insert(random()));
        }
        let mut long = [0; POOL];
        fill(&mut long);
        assert!(long.chunks(16).all(|part| part != [0; 16]));
    }
}
