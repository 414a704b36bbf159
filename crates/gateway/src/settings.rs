//! What a gateway is told at start.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use model::{AddressRange, PrivateTargets};

/// Settings of the SIP and RTP edge; the comments name the keys of `tandem.toml`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `node.name`.
    pub node_name: String,
    /// `sip.udp`; port 0 picks a free one.
    pub udp: Vec<SocketAddr>,
    /// `sip.tcp`; port 0 picks a free one.
    pub tcp: Vec<SocketAddr>,
    /// `sip.tls`; port 0 picks a free one.
    pub tls: Vec<SocketAddr>,
    /// `sip.tls_cert` and its like.
    pub tls_files: TlsSettings,
    /// `sip.large_requests`.
    pub large_requests: LargeRequests,
    /// `sip.domain`: host part of agent URIs; the advertised address when not set.
    pub domain: Option<String>,
    /// `sip.domains`: Request-URI hosts that are ours; empty means any.
    pub domains: Vec<String>,
    /// `sip.advertise`: what Via and Contact carry; detected when not set.
    pub advertise: Advertised,
    /// `sip.unknown_sources`.
    pub unknown_sources: UnknownSources,
    /// `sip.refusals`: how many refusals a source that no trunk lists gets; `None` is no limit.
    pub refusals: Option<RateLimit>,
    /// `sip.session_expires` and `sip.min_se`: session timers (RFC 4028).
    pub session_timer: signaling::SessionTimer,
    /// `sip.hep`: `host:port` of a Homer collector.
    pub hep: Option<String>,
    /// RTP.
    pub media: MediaSettings,
    /// Calls of an Asterisk.
    pub audiosocket: AudioSocketSettings,
    /// `limits.max_calls`: live calls; beyond it 503 with Retry-After.
    pub max_calls: u32,
    /// `node.drain_timeout`.
    pub drain_timeout: Duration,
    /// `net.private_targets`: which private addresses tenants may name.
    pub private_targets: PrivateTargets,
}

/// PEM files of TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsSettings {
    /// `sip.tls_cert`: our certificate chain, for peers of the listeners and for carriers that ask for one.
    pub cert: Option<PathBuf>,
    /// `sip.tls_key`: its private key.
    pub key: Option<PathBuf>,
    /// `sip.tls_ca`: roots for carriers' certificates, besides the system's.
    pub ca: Option<PathBuf>,
    /// `sip.tls_client_ca`: peers of the listeners must present a certificate of it.
    pub client_ca: Option<PathBuf>,
}

/// How a request over 1,300 bytes is sent on a UDP trunk (RFC 3261 18.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LargeRequests {
    /// By UDP, in fragments.
    #[default]
    Udp,
    /// By TCP when the carrier takes it, else by UDP.
    Tcp,
}

/// What the outside sees of the listeners: for all of a transport, or for those without an entry of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advertised {
    /// For every transport. Its port is that of UDP and TCP.
    pub all: Option<Advertise>,
    /// For UDP.
    pub udp: Option<Advertise>,
    /// For TCP.
    pub tcp: Option<Advertise>,
    /// For TLS.
    pub tls: Option<Advertise>,
}

impl Advertised {
    /// Host and, where it differs from the listener's, port of a transport.
    pub(crate) fn of(&self, transport: signaling::Transport) -> Option<Advertise> {
        use signaling::Transport;
        let own = match transport {
            Transport::Udp => &self.udp,
            Transport::Tcp => &self.tcp,
            Transport::Tls => &self.tls,
        };
        own.clone().or_else(|| {
            let all = self.all.clone()?;
            Some(if transport == Transport::Tls { Advertise { port: None, ..all } } else { all })
        })
    }

    /// The first that is given, for what knows no transport.
    #[must_use]
    pub fn any(&self) -> Option<&Advertise> {
        [&self.all, &self.udp, &self.tcp, &self.tls].into_iter().flatten().next()
    }
}

/// A host, and a port when the outside sees another one than the listener's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    /// Domain or address literal, an IPv6 literal without brackets.
    pub host: String,
    /// Port seen from outside.
    pub port: Option<u16>,
}

/// What a source gets that nothing admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownSources {
    /// A refusal: 403 or 404.
    #[default]
    Reject,
    /// Nothing at all.
    Drop,
}

/// So many in such a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Events.
    pub count: u32,
    /// Window.
    pub window: Duration,
}

/// AudioSocket as server.
#[derive(Debug, Clone, Default)]
pub struct AudioSocketSettings {
    /// `audiosocket.listen`; port 0 picks a free one.
    pub listen: Vec<SocketAddr>,
    /// `audiosocket.allowed_addresses`: who may connect.
    pub allowed: Vec<AddressRange>,
}

/// RTP settings.
#[derive(Debug, Clone)]
pub struct MediaSettings {
    /// `media.address`: where RTP sockets bind; any when not set.
    pub address: Option<IpAddr>,
    /// `media.advertise`: the address in SDP; detected when not set.
    pub advertise: Option<IpAddr>,
    /// `media.ports`: even ports of it carry RTP.
    pub ports: RangeInclusive<u16>,
    /// `media.timeout_s`: silence after which a call is ended.
    pub timeout: Duration,
    /// `media.initial_timeout_s`: the same before the first packet.
    pub initial_timeout: Duration,
    /// `media.noise_cancellation`: what a trunk's `enable_noise_cancellation` means.
    pub noise_cancellation: media::denoise::Mode,
    /// Where a `play` runtime's files are.
    pub audio_dir: PathBuf,
    /// Where recordings go.
    pub recordings_dir: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        let any = SocketAddr::from(([0, 0, 0, 0], 5060));
        Self {
            node_name: "tandem".to_owned(),
            udp: vec![any],
            tcp: vec![any],
            tls: Vec::new(),
            tls_files: TlsSettings::default(),
            large_requests: LargeRequests::Udp,
            domain: None,
            domains: Vec::new(),
            advertise: Advertised::default(),
            unknown_sources: UnknownSources::Reject,
            refusals: Some(RateLimit { count: 200, window: Duration::from_secs(10) }),
            session_timer: signaling::SessionTimer::default(),
            hep: None,
            media: MediaSettings {
                address: None,
                advertise: None,
                ports: 20_000..=29_999,
                timeout: Duration::from_secs(15),
                initial_timeout: Duration::from_secs(30),
                noise_cancellation: media::denoise::Mode::Standard,
                audio_dir: PathBuf::from("audio"),
                recordings_dir: PathBuf::from("recordings"),
            },
            audiosocket: AudioSocketSettings::default(),
            max_calls: 2_000,
            drain_timeout: Duration::from_secs(300),
            private_targets: PrivateTargets::Allow,
        }
    }
}
