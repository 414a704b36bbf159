//! What a gateway is told at start.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use model::PrivateTargets;

/// Settings of the SIP and RTP edge; the comments name the keys of `tandem.toml`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `node.name`.
    pub node_name: String,
    /// `sip.udp`; port 0 picks a free one.
    pub udp: Vec<SocketAddr>,
    /// `sip.tcp`; port 0 picks a free one.
    pub tcp: Vec<SocketAddr>,
    /// `sip.domain`: host part of agent URIs; the advertised address when not set.
    pub domain: Option<String>,
    /// `sip.domains`: Request-URI hosts that are ours; empty means any.
    pub domains: Vec<String>,
    /// `sip.advertise`: what Via and Contact carry; detected when not set.
    pub advertise: Option<Advertise>,
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
    /// `limits.max_calls`: live calls; beyond it 503 with Retry-After.
    pub max_calls: u32,
    /// `node.drain_timeout`.
    pub drain_timeout: Duration,
    /// `net.private_targets`: which private addresses tenants may name.
    pub private_targets: PrivateTargets,
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
            domain: None,
            domains: Vec::new(),
            advertise: None,
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
                audio_dir: PathBuf::from("audio"),
                recordings_dir: PathBuf::from("recordings"),
            },
            max_calls: 2_000,
            drain_timeout: Duration::from_secs(300),
            private_targets: PrivateTargets::Allow,
        }
    }
}
