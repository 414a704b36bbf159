//! Settings: flags over environment over `tandem.toml` over defaults. Anything unknown or wrong ends the start with
//! one line that names the key, the value and the rule.

mod key;
mod source;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use gateway::{Advertise, Advertised, LargeRequests, RateLimit, TlsSettings, UnknownSources};
use model::PrivateTargets;

pub(crate) use key::help;
pub(crate) use source::Flags;
use source::{SettingError, Sources};

use crate::retention::Retention;

/// Why the settings cannot be used: one line.
#[derive(Debug)]
pub(crate) struct BadSetting(pub(crate) String);

/// What a node is told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) http_listen: SocketAddr,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) rate_limit: Option<std::num::NonZeroU32>,
    pub(crate) store_url: String,
    pub(crate) key_files: Vec<PathBuf>,
    pub(crate) gateway: gateway::Settings,
    pub(crate) retention: Retention,
    /// `sip.require_allow_list`.
    pub(crate) require_allow_list: bool,
    /// What was given, and where.
    pub(crate) sources: Sources,
}

/// Reads every source.
pub(crate) fn load(flags: &Flags) -> Result<Settings, BadSetting> {
    Values(Sources::read(flags, std::env::vars_os())?).settings()
}

/// The defaults but for `key=value` pairs: nothing from outside counts.
pub(crate) fn of(pairs: &[String]) -> Result<Settings, BadSetting> {
    Values(Sources::of(pairs)?).settings()
}

impl From<SettingError> for BadSetting {
    fn from(error: SettingError) -> Self {
        Self(error.to_string())
    }
}

struct Values(Sources);

impl Values {
    fn get<T>(
        &self,
        key: &str,
        default: T,
        rule: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, BadSetting> {
        match self.0.0.get(key) {
            None => Ok(default),
            Some(given) => read(&given.value)
                .ok_or_else(|| SettingError::new(key, &given.value, rule).from(given.origin.clone()).into()),
        }
    }

    fn session_timer(
        &self,
        defaults: signaling::SessionTimer,
    ) -> Result<signaling::SessionTimer, BadSetting> {
        let seconds = |t: &str| t.strip_suffix('s').unwrap_or(t).trim().parse::<u32>().ok();
        let min =
            self.get("sip.min_se", defaults.min, "must be a number of seconds from 2 to 86400", |t| {
                seconds(t).filter(|n| (2..=86_400).contains(n))
            })?;
        let rule = "must be 0, or a number of seconds from sip.min_se to 86400";
        let interval = self.get("sip.session_expires", defaults.interval.max(min), rule, |t| {
            seconds(t).filter(|n| *n == 0 || (min..=86_400).contains(n))
        })?;
        Ok(signaling::SessionTimer { interval, min })
    }

    /// The PEM files of TLS: a certificate with its key, and both where there is a TLS listener.
    fn tls_files(&self) -> Result<TlsSettings, BadSetting> {
        let file = |key: &str| self.get(key, None, "must be a file's path", |t| path(t).map(Some));
        let files = TlsSettings {
            cert: file("sip.tls_cert")?,
            key: file("sip.tls_key")?,
            ca: file("sip.tls_ca")?,
            client_ca: file("sip.tls_client_ca")?,
        };
        let rules = [
            ("sip.tls", "sip.tls_cert", files.cert.is_none()),
            ("sip.tls_client_ca", "sip.tls_cert", files.cert.is_none()),
            ("sip.tls_cert", "sip.tls_key", files.key.is_none()),
            ("sip.tls_key", "sip.tls_cert", files.cert.is_none()),
        ];
        for (key, other, missing) in rules {
            let given = self.0.0.get(key).filter(|given| missing && given.value != "none");
            if let Some(given) = given {
                let rule = format!("needs {other}, too");
                return Err(SettingError::new(key, &given.value, rule).from(given.origin.clone()).into());
            }
        }
        Ok(files)
    }

    fn settings(&self) -> Result<Settings, BadSetting> {
        let defaults = gateway::Settings::default();
        let data_dir =
            self.get("data_dir", PathBuf::from("./tandem-data"), "must be a directory's path", path)?;
        let addresses =
            "must be address:port, for example 0.0.0.0:5060, or a list of such; port 0 picks a free one";
        let seconds = "must be a time in seconds, for example 30 or 30s";
        let rate = "must be COUNT/TIME, for example 200/10s, or 0 for no limit";
        let targets = "must be allow, deny, or a list of CIDR prefixes";
        let private_targets =
            self.get("net.private_targets", PrivateTargets::Allow, targets, |t| match t {
                "allow" => Some(PrivateTargets::Allow),
                "deny" => Some(PrivateTargets::Deny),
                list => list
                    .split(',')
                    .map(|p| p.trim().parse().ok())
                    .collect::<Option<Vec<model::AddressRange>>>()
                    .map(PrivateTargets::List),
            })?;
        let media = gateway::MediaSettings {
            address: self
                .get("media.address", None, "must be an IP address", |t| t.parse().ok().map(Some))?,
            advertise: self
                .get("media.advertise", None, "must be an IP address", |t| t.parse().ok().map(Some))?,
            ports: self.get(
                "media.ports",
                defaults.media.ports,
                "must be FIRST-LAST with at least one even port, for example 20000-29999",
                ports,
            )?,
            timeout: self.get("media.timeout_s", defaults.media.timeout, seconds, duration)?,
            initial_timeout: self.get(
                "media.initial_timeout_s",
                defaults.media.initial_timeout,
                seconds,
                duration,
            )?,
            noise_cancellation: self.get(
                "media.noise_cancellation",
                defaults.media.noise_cancellation,
                "must be standard or high",
                media::denoise::Mode::from_name,
            )?,
            audio_dir: data_dir.join("audio"),
            recordings_dir: data_dir.join("recordings"),
        };
        let gateway = gateway::Settings {
            node_name: self.get(
                "node.name",
                host_name(),
                "must be 1 to 64 characters without white space",
                name,
            )?,
            udp: self.get("sip.udp", defaults.udp, addresses, socket_addresses)?,
            tcp: self.get("sip.tcp", defaults.tcp, addresses, socket_addresses)?,
            tls: self.get("sip.tls", defaults.tls, addresses, socket_addresses)?,
            tls_files: self.tls_files()?,
            large_requests: self.get("sip.large_requests", LargeRequests::Udp, "must be udp or tcp", |t| {
                match t {
                    "udp" => Some(LargeRequests::Udp),
                    "tcp" => Some(LargeRequests::Tcp),
                    _ => None,
                }
            })?,
            domain: self.get("sip.domain", None, "must be a host name", |t| host(t).map(Some))?,
            domains: self.get("sip.domains", Vec::new(), "must be a list of host names", |t| {
                t.split(',').map(str::trim).filter(|d| !d.is_empty()).map(host).collect()
            })?,
            advertise: self.get(
                "sip.advertise",
                Advertised::default(),
                "must be a host or address with an optional port, or a list of such with udp=, tcp= or tls= before them",
                advertised,
            )?,
            unknown_sources: self.get(
                "sip.unknown_sources",
                UnknownSources::Reject,
                "must be reject or drop",
                |t| match t {
                    "reject" => Some(UnknownSources::Reject),
                    "drop" => Some(UnknownSources::Drop),
                    _ => None,
                },
            )?,
            hep: self.get(
                "sip.hep",
                None,
                "must be HOST:PORT of a Homer collector, for example 203.0.113.9:9060",
                |t| {
                    t.parse()
                        .ok()
                        .filter(|a: &model::CarrierAddress| a.port.is_some())
                        .map(|a| Some(a.to_string()))
                },
            )?,
            refusals: self.get("sip.refusals", defaults.refusals, rate, rate_limit)?,
            session_timer: self.session_timer(defaults.session_timer)?,
            media,
            audiosocket: gateway::AudioSocketSettings {
                listen: self.get(
                    "audiosocket.listen",
                    Vec::new(),
                    "must be address:port, for example 127.0.0.1:9092, or a list of such; port 0 picks a free one",
                    socket_addresses,
                )?,
                allowed: self.get(
                    "audiosocket.allowed_addresses",
                    loopback(),
                    "must be a list of addresses or CIDR prefixes",
                    |t| t.split(',').map(|range| range.trim().parse().ok()).collect(),
                )?,
            },
            max_calls: self.get(
                "limits.max_calls",
                defaults.max_calls,
                "must be a whole number from 1",
                |t| t.parse().ok().filter(|n| *n > 0),
            )?,
            drain_timeout: self.get("node.drain_timeout", defaults.drain_timeout, seconds, duration)?,
            private_targets,
        };
        let store = format!("sqlite:{}", data_dir.join("tandem.db").display());
        let whole_days = "must be a number of days from 1 to 36500, or 0 for ever";
        let only_sqlite = "must be sqlite:<path>; PostgreSQL is not available in this release";
        let per_second = |t: &str| match t.strip_suffix("/s").unwrap_or(t) {
            "0" => Some(None),
            n => n.parse().ok().map(Some),
        };
        Ok(Settings {
            http_listen: self.get(
                "http.listen",
                SocketAddr::from(([127, 0, 0, 1], 8080)),
                "must be address:port",
                |t| t.parse().ok(),
            )?,
            metrics_listen: self
                .get("http.metrics_listen", None, "must be address:port", |t| t.parse().ok().map(Some))?,
            rate_limit: self.get(
                "http.rate_limit",
                std::num::NonZeroU32::new(1_000),
                "must be COUNT/s, or 0 for no limit",
                per_second,
            )?,
            store_url: self
                .get("store.url", store, only_sqlite, |t| t.starts_with("sqlite:").then(|| t.to_owned()))?,
            key_files: self.get(
                "secrets.key_file",
                vec![data_dir.join("secret.key")],
                "must be a path, or a list of paths",
                |t| Some(t.split(',').map(|p| PathBuf::from(p.trim())).collect()),
            )?,
            require_allow_list: self
                .get("sip.require_allow_list", false, "must be true or false", |t| t.parse().ok())?,
            retention: Retention {
                recordings: self.get("retention.recordings_days", None, whole_days, days)?,
                quality: self.get("retention.quality_days", None, whole_days, days)?,
            },
            data_dir,
            gateway,
            sources: self.0.clone(),
        })
    }
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "tandem".to_owned() } else { name }
}

fn name(text: &str) -> Option<String> {
    let ok = (1..=64).contains(&text.chars().count())
        && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    ok.then(|| text.to_owned())
}

fn host(text: &str) -> Option<String> {
    text.parse::<model::CarrierAddress>().ok().filter(|a| a.port.is_none()).map(|a| a.host)
}

fn advertised(text: &str) -> Option<Advertised> {
    let mut advertised = Advertised::default();
    for entry in text.split(',').map(str::trim) {
        let (place, address) = match entry.split_once('=') {
            None => (&mut advertised.all, entry),
            Some(("udp", address)) => (&mut advertised.udp, address),
            Some(("tcp", address)) => (&mut advertised.tcp, address),
            Some(("tls", address)) => (&mut advertised.tls, address),
            Some(_) => return None,
        };
        let address = address.parse::<model::CarrierAddress>().ok()?;
        if place.replace(Advertise { host: address.host, port: address.port }).is_some() {
            return None;
        }
    }
    Some(advertised)
}

fn socket_addresses(text: &str) -> Option<Vec<SocketAddr>> {
    text.split(',').map(str::trim).filter(|t| !t.is_empty() && *t != "none").map(|t| t.parse().ok()).collect()
}

/// Who may connect without a password when nobody is named.
fn loopback() -> Vec<model::AddressRange> {
    ["127.0.0.0/8", "::1"].iter().filter_map(|range| range.parse().ok()).collect()
}

fn ports(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first >= 1 && first <= last && (first % 2 == 0 || first < last)).then_some(first..=last)
}

fn duration(text: &str) -> Option<Duration> {
    let seconds: u64 = text.strip_suffix('s').unwrap_or(text).trim().parse().ok()?;
    (1..=86_400).contains(&seconds).then(|| Duration::from_secs(seconds))
}

fn days(text: &str) -> Option<Option<Duration>> {
    let days: u64 = text.trim().parse().ok().filter(|days| *days <= 36_500)?;
    Some((days > 0).then(|| Duration::from_secs(days * 86_400)))
}

fn rate_limit(text: &str) -> Option<Option<RateLimit>> {
    if text == "0" {
        return Some(None);
    }
    let (count, window) = text.split_once('/')?;
    let window = if window == "s" { Duration::from_secs(1) } else { duration(window)? };
    count.parse().ok().filter(|c| *c > 0).map(|count| Some(RateLimit { count, window }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(flags: &[&str]) -> Result<Settings, String> {
        of(&flags.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>()).map_err(|e| e.0)
    }

    #[test]
    fn values_are_read_and_wrong_ones_name_key_value_and_rule() {
        let settings = set(&[
            "sip.udp=127.0.0.1:0,[::1]:0",
            "media.ports=30000-30003",
            "sip.refusals=5/2s",
            "data_dir=/x",
        ])
        .unwrap();
        assert_eq!(settings.gateway.udp.len(), 2);
        assert_eq!(settings.store_url, "sqlite:/x/tandem.db");
        for bad in [
            "sip.udp=5060",
            "media.ports=9-1",
            "limits.max_calls=0",
            "sip.unknown_sources=ignore",
            "sip.refusals=many",
            "sip.min_se=1",
            "sip.session_expires=60",
            "audiosocket.listen=9092",
            "audiosocket.allowed_addresses=pbx.example",
            "store.url=postgres://x",
        ] {
            let (key, value) = bad.split_once('=').unwrap();
            let line = set(&[bad]).unwrap_err();
            assert!(line.starts_with(&format!("{key} = {value} ")) && line.contains(": must"), "{line}");
        }
        assert!(set(&["http.metrics_listen=none", "sip.domains=any", "media.address=any"]).is_ok());
        assert!(set(&["sip.typo=1"]).unwrap_err().contains("no such setting"));
        assert!(set(&["bus.url=nats://x"]).unwrap_err().contains("not available"));
    }

    #[test]
    fn a_tls_listener_needs_a_certificate_and_a_certificate_its_key() {
        for (given, needed) in [
            (vec!["sip.tls=0.0.0.0:5061"], "sip.tls_cert"),
            (vec!["sip.tls_cert=/c.pem"], "sip.tls_key"),
            (vec!["sip.tls_key=/k.pem"], "sip.tls_cert"),
            (vec!["sip.tls_client_ca=/ca.pem"], "sip.tls_cert"),
        ] {
            let line = set(&given).unwrap_err();
            assert!(line.contains(&format!("needs {needed}")), "{line}");
        }
        assert!(set(&["sip.tls=0.0.0.0:5061", "sip.tls_cert=/c.pem", "sip.tls_key=/k.pem"]).is_ok());
    }

    #[test]
    fn each_transport_may_be_seen_elsewhere() {
        let seen = set(&["sip.advertise=sip.example:5080, tls=tls.example"]).unwrap().gateway.advertise;
        assert_eq!(seen.all.unwrap().port, Some(5080));
        assert_eq!(seen.tls.unwrap().host, "tls.example");
        for bad in ["sctp=a.example", "a.example,b.example", "udp=a b", ""] {
            assert!(set(&[&format!("sip.advertise={bad}")]).is_err(), "{bad}");
        }
    }
}
