//! The data plane: SIP listeners, RTP ports, admission and one task per call, driven by the [`Directory`] snapshot.
//! It knows no database and no HTTP; `cluster` brings commands, [`Record`]s leave by a queue.

mod admission;
mod advertise;
mod agent_link;
mod audiosocket;
mod bridge;
mod call;
mod calls;
mod commands;
mod counters;
mod departed;
mod directory;
mod edge;
mod hep;
mod inbound;
mod inbound_auth;
mod inbound_routing;
mod lane;
mod listener;
mod load;
mod media_shard;
mod outbound;
mod probe;
mod record;
mod recording;
mod registration;
mod relay;
mod resolve;
mod rtp_ports;
mod settings;
mod simulate;
mod sip_status;
mod strangers;
mod targets;
mod traces;
mod transfer_target;
mod transport;
mod webhook;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster::{CallInbox, Cluster};
use model::directory::DirectoryChange;
use signaling::Transport;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use counters::Count;
pub use directory::{Directory, DirectoryHandle};
pub use record::{Record, Waiting};
pub use settings::{
    Advertise, Advertised, AudioSocketSettings, LargeRequests, MediaSettings, RateLimit, Settings,
    TlsSettings, UnknownSources,
};
pub use transport::tls::{Described, check as check_tls};
pub use webhook::Webhooks;

use crate::calls::CallInput;
use crate::counters::Counters;
use crate::edge::Edge;
use crate::transport::{Transports, connections, stream, tls, udp};

/// How often the end of the last call is looked for while draining.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// How long BYEs may take when everything ends.
const LAST_BYES: Duration = Duration::from_secs(2);

/// Why a gateway did not start: one line for a person.
#[derive(Debug, thiserror::Error)]
#[error("{key} = {value}: {problem}")]
pub struct StartError {
    /// The setting.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
}

/// How a gateway is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayStatus {
    /// Calls that have not ended.
    pub active_calls: u32,
    /// RTP ports that no call holds.
    pub rtp_ports_free: u32,
    /// RTP ports in all.
    pub rtp_ports_total: u32,
    /// Open TCP and TLS connections.
    pub connections: u32,
    /// Records lost because the queue to the node was full.
    pub records_lost: u64,
    /// Counters: name, labels, value. Label sets are closed.
    pub counters: Vec<Count>,
    /// Whether new calls are refused because the node is leaving.
    pub draining: bool,
}

/// A running gateway.
pub struct Gateway {
    edge: Arc<Edge>,
    audiosocket_local: Vec<SocketAddr>,
}

impl Gateway {
    /// Binds every listener and starts to serve. The directory is complete before the first packet is read.
    pub async fn start(
        settings: Settings,
        directory: Vec<DirectoryChange>,
        cluster: Cluster,
        inbox: CallInbox,
        records: mpsc::Sender<Record>,
    ) -> Result<Self, StartError> {
        let counters = Arc::new(Counters::new());
        let mut udp_listeners = Vec::new();
        for &address in &settings.udp {
            udp_listeners
                .push(udp::Listener::bind(address).map_err(|e| cannot_bind("sip.udp", address, &e))?);
        }
        let mut tcp_listeners = Vec::new();
        for &address in &settings.tcp {
            // With one address for both, port 0 means the same port for both: a phone may try either.
            let wanted = match udp_listeners.first() {
                Some(udp) if address.port() == 0 && settings.udp.first() == Some(&address) => udp.local(),
                _ => address,
            };
            let bound = stream::bind(wanted).or_else(|_| stream::bind(address));
            tcp_listeners.push(bound.map_err(|e| cannot_bind("sip.tcp", address, &e))?);
        }
        let mut tls_listeners = Vec::new();
        for &address in &settings.tls {
            let bound = stream::bind(address);
            tls_listeners.push(bound.map_err(|e| cannot_bind("sip.tls", address, &e))?);
        }
        let mut audiosocket_listeners = Vec::new();
        for &address in &settings.audiosocket.listen {
            let bound = stream::bind(address);
            audiosocket_listeners.push(bound.map_err(|e| cannot_bind("audiosocket.listen", address, &e))?);
        }
        let tls = tls::Tls::load(settings.tls_files.clone())?;
        let names = resolve::Names::of_system().ok_or_else(|| StartError {
            key: "sip.domain",
            value: "names".to_owned(),
            problem: "no name can be resolved on this machine: check /etc/resolv.conf".to_owned(),
        })?;
        let local = |listeners: &[tokio::net::TcpListener]| {
            listeners.iter().filter_map(|l| l.local_addr().ok()).collect::<Vec<_>>()
        };
        let (tcp_local, tls_local) = (local(&tcp_listeners), local(&tls_listeners));
        let audiosocket_local = local(&audiosocket_listeners);
        let shards = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let shards = media_shard::MediaShards::start(shards, &counters).map_err(|error| StartError {
            key: "media.ports",
            value: format!("{}-{}", settings.media.ports.start(), settings.media.ports.end()),
            problem: format!("the media threads do not start: {error}"),
        })?;
        let stop = CancellationToken::new();
        let now = Instant::now();
        let node = settings.node_name.clone();
        let hep = settings.hep.clone().map(|to| hep::Hep::start(to, node, &counters, stop.clone()));
        let edge = Arc::new(Edge {
            directory: DirectoryHandle::new(directory),
            cluster,
            records: record::Records::new(records),
            transports: Transports {
                udp: udp_listeners,
                streams: connections::Connections::new(),
                tcp_local,
                tls_local,
                counters: Arc::clone(&counters),
            },
            counters,
            calls: calls::Calls::new(),
            departed: departed::DepartedCalls::default(),
            traces: traces::Traces::new(),
            hep,
            rtp_ports: rtp_ports::RtpPorts::new(
                settings.media.address,
                settings.media.ports.clone(),
                edge::fill,
            ),
            shards,
            recordings: recording::Recordings::start(settings.media.recordings_dir.clone()).map_err(
                |error| StartError {
                    key: "data_dir",
                    value: settings.media.recordings_dir.display().to_string(),
                    problem: format!("the recorder's thread does not start: {error}"),
                },
            )?,
            audio_files: agent_link::AudioFiles::default(),
            in_dialog: strangers::InDialog::new(now),
            refusals: admission::SourceLimit::new(settings.refusals, admission::MUTE, now),
            stranger_refusals: admission::Budget::new(
                settings.refusals.map_or(u32::MAX, |_| strangers::REFUSALS_PER_SECOND),
                now,
            ),
            stranger_records: admission::Budget::new(strangers::RECORDS_PER_SECOND, now),
            listed_records: admission::Budget::new(record::REFUSALS_PER_SECOND, now),
            handshakes: admission::SourceLimit::new(Some(stream::HANDSHAKES), stream::HANDSHAKES.window, now),
            stranger_handshakes: admission::Budget::new(stream::HANDSHAKES_PER_SECOND, now),
            refusal_log: record::RefusalLog::default(),
            inbound_digest: inbound_auth::InboundDigest::new(
                settings.domain.as_deref().unwrap_or("tandem"),
                now,
            ),
            call_limit: admission::CallLimit::new(settings.max_calls),
            lingering: admission::CallLimit::new(strangers::LINGERING),
            load: load::Load::new(settings.udp.len(), now),
            trunk_limits: Arc::default(),
            webhooks: webhook::Webhooks::new(settings.private_targets.clone()),
            refused: record::RecentRefusals::default(),
            routes: advertise::Routes::new(),
            tls,
            names,
            lanes: lane::Lanes::default(),
            registrations: registration::Registrations::default(),
            key: edge::random(),
            draining: AtomicBool::new(false),
            stop: stop.clone(),
            settings,
        });
        for index in 0..edge.transports.udp.len() {
            tokio::spawn(udp::serve(Arc::clone(&edge), index, stop.clone()));
        }
        for (transport, listeners) in [(Transport::Tcp, tcp_listeners), (Transport::Tls, tls_listeners)] {
            for listener in listeners {
                tokio::spawn(stream::serve(Arc::clone(&edge), listener, transport, stop.clone()));
            }
        }
        for listener in audiosocket_listeners {
            tokio::spawn(audiosocket::server::serve(Arc::clone(&edge), listener));
        }
        tokio::spawn(watch_certificates(Arc::clone(&edge)));
        tokio::spawn(load::watch(Arc::clone(&edge)));
        tokio::spawn(departed::serve(Arc::clone(&edge)));
        tokio::spawn(registration::serve(Arc::clone(&edge)));
        tokio::spawn(commands::serve(Arc::clone(&edge), inbox));
        edge.cluster.set_sip_presence(edge.presence());
        Ok(Self { edge, audiosocket_local })
    }

    /// Where configuration changes go.
    #[must_use]
    pub fn directory(&self) -> DirectoryHandle {
        self.edge.directory.clone()
    }

    /// Addresses of the UDP listeners, with the ports they got.
    #[must_use]
    pub fn local_udp(&self) -> Vec<SocketAddr> {
        self.edge.transports.udp.iter().map(udp::Listener::local).collect()
    }

    /// Addresses of the TCP listeners, with the ports they got.
    #[must_use]
    pub fn local_tcp(&self) -> Vec<SocketAddr> {
        self.edge.transports.tcp_local.clone()
    }

    /// Addresses of the TLS listeners, with the ports they got.
    #[must_use]
    pub fn local_tls(&self) -> Vec<SocketAddr> {
        self.edge.transports.tls_local.clone()
    }

    /// Addresses of the AudioSocket listeners, with the ports they got.
    #[must_use]
    pub fn local_audiosocket(&self) -> Vec<SocketAddr> {
        self.audiosocket_local.clone()
    }

    /// How it is doing now.
    #[must_use]
    pub fn status(&self) -> GatewayStatus {
        let edge = &self.edge;
        GatewayStatus {
            active_calls: edge.call_limit.live(),
            rtp_ports_free: edge.rtp_ports.free(),
            rtp_ports_total: edge.rtp_ports.total(),
            connections: u32::try_from(edge.transports.streams.len()).unwrap_or(u32::MAX),
            records_lost: edge.records.lost(),
            counters: edge.counters.read(),
            draining: edge.is_draining(),
        }
    }

    /// Forgets the detected local addresses, and reads certificates and name servers anew: the machine's may have
    /// changed.
    pub fn reload(&self) {
        self.edge.routes.forget();
        self.edge.names.reload();
        self.edge.tls.reload(true);
        self.edge.cluster.set_sip_presence(self.edge.presence());
    }

    /// Takes no new calls, and returns when none is live or `node.drain_timeout` has passed.
    pub async fn drain(&self) {
        self.edge.draining.store(true, Ordering::Relaxed);
        self.edge.registrations.end();
        let _ = tokio::time::timeout(self.edge.settings.drain_timeout, self.idle()).await;
    }

    /// Ends every live call with BYE and closes.
    pub async fn stop(&self) {
        self.edge.draining.store(true, Ordering::Relaxed);
        self.edge.cluster.set_sip_presence(None);
        for call in self.edge.calls.all() {
            // A call whose queue is full is told when it has caught up; the limit below bounds the wait.
            let _ = tokio::time::timeout(LAST_BYES, call.send(CallInput::Drain)).await;
        }
        self.edge.registrations.end();
        let _ = tokio::time::timeout(LAST_BYES, self.idle()).await;
        let _ = tokio::time::timeout(LAST_BYES, self.edge.registrations.ended()).await;
        self.edge.stop.cancel();
        self.edge.shards.stop();
    }

    async fn idle(&self) {
        while self.edge.call_limit.live() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }
}

/// Takes new certificates as their files change.
async fn watch_certificates(edge: Arc<Edge>) {
    loop {
        tokio::select! {
            () = edge.stop.cancelled() => return,
            () = tokio::time::sleep(tls::LOOK) => {}
        }
        edge.tls.reload(false);
    }
}

fn cannot_bind(key: &'static str, address: SocketAddr, error: &std::io::Error) -> StartError {
    let problem = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "the port is in use; stop what holds it, or choose another port (0 picks a free one)".to_owned()
        }
        std::io::ErrorKind::AddrNotAvailable => "the address is not one of this machine's".to_owned(),
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE".to_owned(),
        _ => format!("the address cannot be bound: {error}"),
    };
    StartError { key, value: address.to_string(), problem }
}
