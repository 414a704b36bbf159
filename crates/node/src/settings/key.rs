//! Every setting there is: its name in `tandem.toml` and for `--set`, its variable, its default.

/// One setting.
#[derive(Debug)]
pub(crate) struct Key {
    /// `section.key` of `tandem.toml`.
    pub(crate) name: &'static str,
    /// The variable of the environment.
    pub(crate) variable: &'static str,
    /// The default, as it would be written.
    pub(crate) default: &'static str,
    /// What it does.
    pub(crate) help: &'static str,
    /// Whether what it does is in this release; otherwise only its default is taken.
    pub(crate) available: bool,
}

/// Variables of the environment that are no settings: the client commands read them.
pub(crate) const OTHER_VARIABLES: &[&str] = &["TANDEM_URL", "TANDEM_API_KEY"];

macro_rules! keys {
    ($($available:ident $name:literal $variable:literal $default:literal $help:literal;)+) => {
        /// All of them.
        pub(crate) const KEYS: &[Key] = &[$(Key {
            name: $name,
            variable: $variable,
            default: $default,
            help: $help,
            available: keys!(@ $available),
        }),+];
    };
    (@ now) => { true };
    (@ later) => { false };
}

keys! {
    now "data_dir" "TANDEM_DATA_DIR" "./tandem-data" "SQLite file, secret key, audio files";
    now "http.listen" "TANDEM_HTTP__LISTEN" "127.0.0.1:8080" "API, documentation page, metrics";
    now "http.metrics_listen" "TANDEM_HTTP__METRICS_LISTEN" "none" "a second listener, for /metrics";
    now "http.rate_limit" "TANDEM_HTTP__RATE_LIMIT" "1000/s" "requests a credential may make; 0 = off";
    now "sip.udp" "TANDEM_SIP__UDP" "0.0.0.0:5060" "UDP listeners; port 0 picks a free one; none = no listener";
    now "sip.tcp" "TANDEM_SIP__TCP" "0.0.0.0:5060" "TCP listeners";
    now "sip.tls" "TANDEM_SIP__TLS" "none" "TLS listeners";
    now "sip.tls_cert" "TANDEM_SIP__TLS_CERT" "none" "certificate chain, PEM; read again when it changes";
    now "sip.tls_key" "TANDEM_SIP__TLS_KEY" "none" "private key, PEM";
    now "sip.tls_ca" "TANDEM_SIP__TLS_CA" "none" "roots for carriers' certificates, PEM";
    now "sip.tls_client_ca" "TANDEM_SIP__TLS_CLIENT_CA" "none" "TLS peers must present a certificate of it";
    now "sip.domain" "TANDEM_SIP__DOMAIN" "the advertised address" "host part of agent URIs";
    now "sip.advertise" "TANDEM_SIP__ADVERTISE" "detected" "what Via, Contact and SDP carry behind NAT: a host with an optional port, or such a one for a transport (udp=, tcp=, tls=), or a list";
    now "sip.unknown_sources" "TANDEM_SIP__UNKNOWN_SOURCES" "reject" "what a source gets that nothing admits";
    now "sip.require_allow_list" "TANDEM_SIP__REQUIRE_ALLOW_LIST" "false" "may no trunk be made that takes calls from any address";
    now "sip.domains" "TANDEM_SIP__DOMAINS" "any" "Request-URI hosts that are ours; others get 404";
    now "sip.large_requests" "TANDEM_SIP__LARGE_REQUESTS" "udp" "how requests over 1,300 bytes are sent";
    now "sip.hep" "TANDEM_SIP__HEP" "none" "HOST:PORT of a Homer collector (HEP3 over UDP) that gets every SIP message";
    now "sip.refusals" "TANDEM_SIP__REFUSALS" "200/10s" "refusals a source gets that no trunk lists, then silence for 60 s; 0 = no limit";
    now "sip.session_expires" "TANDEM_SIP__SESSION_EXPIRES" "1800" "seconds after which a call that nobody refreshes is ended (RFC 4028); 0 asks for none";
    now "sip.min_se" "TANDEM_SIP__MIN_SE" "90" "shortest session interval taken, in seconds; below 90 only to try timers out";
    now "node.name" "TANDEM_NODE__NAME" "the host name" "name of this node";
    now "node.drain_timeout" "TANDEM_NODE__DRAIN_TIMEOUT" "300s" "how long live calls go on after SIGTERM";
    now "media.timeout_s" "TANDEM_MEDIA__TIMEOUT_S" "15" "silence after which a call is ended";
    now "media.initial_timeout_s" "TANDEM_MEDIA__INITIAL_TIMEOUT_S" "30" "the same before the first packet";
    now "media.address" "TANDEM_MEDIA__ADDRESS" "any" "where RTP is received";
    now "media.advertise" "TANDEM_MEDIA__ADVERTISE" "detected" "the address in SDP";
    now "media.ports" "TANDEM_MEDIA__PORTS" "20000-29999" "RTP ports";
    now "media.noise_cancellation" "TANDEM_MEDIA__NOISE_CANCELLATION" "standard" "the denoiser that enable_noise_cancellation means";
    now "retention.recordings_days" "TANDEM_RETENTION__RECORDINGS_DAYS" "0" "days after which recordings are dropped; 0 = never";
    now "retention.quality_days" "TANDEM_RETENTION__QUALITY_DAYS" "0" "days after which the figures of quality are dropped; 0 = never";
    now "audiosocket.listen" "TANDEM_AUDIOSOCKET__LISTEN" "none" "TCP listeners for Asterisk's AudioSocket: the call's UUID is the agent's";
    now "audiosocket.allowed_addresses" "TANDEM_AUDIOSOCKET__ALLOWED_ADDRESSES" "127.0.0.0/8,::1" "who may connect there: addresses and CIDR prefixes";
    now "store.url" "TANDEM_STORE__URL" "sqlite:<data_dir>/tandem.db" "the database";
    later "bus.url" "TANDEM_BUS__URL" "none" "bus of several nodes";
    now "secrets.key_file" "TANDEM_SECRETS__KEY_FILE" "<data_dir>/secret.key" "keys of the secrets at rest: the first seals, all open";
    now "net.private_targets" "TANDEM_NET__PRIVATE_TARGETS" "allow" "may tenants point carriers and agents at private addresses";
    now "limits.max_calls" "TANDEM_LIMITS__MAX_CALLS" "2000" "live calls; beyond it 503 with Retry-After";
}

/// The settings as `--help` lists them.
pub(crate) fn help() -> String {
    let mut text =
        "Settings, from --set KEY=VALUE over TANDEM_<SECTION>__<KEY> over tandem.toml over the default:\n"
            .to_owned();
    for key in KEYS.iter().filter(|key| key.available) {
        text.push_str(&format!("  {:<26} {} [{}]\n", key.name, key.help, key.default));
    }
    text
}

/// The setting of this name.
pub(crate) fn named(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The closest of `names` to a mistyped one, when it is close.
pub(crate) fn closest(typed: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    const NEAR: usize = 3;
    let typed: Vec<char> = typed.chars().take(64).collect();
    let scored = names.map(|name| (distance(&typed, name), name));
    scored.min().filter(|(steps, _)| *steps <= NEAR).map(|(_, name)| name)
}

/// Levenshtein distance.
fn distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (line, c) in b.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, &other) in a.iter().enumerate() {
            let replaced = diagonal + usize::from(other != c);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_follow_from_the_name() {
        for key in KEYS {
            let variable = format!("TANDEM_{}", key.name.replace('.', "__").to_uppercase());
            assert_eq!(key.variable, variable);
        }
    }

    #[test]
    fn a_slip_is_recognised() {
        let names = || KEYS.iter().map(|k| k.name);
        assert_eq!(closest("sip.upd", names()), Some("sip.udp"));
        assert_eq!(closest("http.listn", names()), Some("http.listen"));
        assert_eq!(closest("completely.else", names()), None);
    }
}
