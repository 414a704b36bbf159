//! `tandem doctor`: what would keep a node from starting or its callers from being heard, and what to change.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs as _, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use model::PrivateTargets;
use model::directory::DirectoryChange;
use serde_json::{Value, json};
use store::{KeyRing, Store};

use crate::settings::Settings;
use crate::{Failure, answer, lock};

/// Free space below which nothing should be started, and below which somebody should look.
const LITTLE_DISK: u64 = 100 << 20;
const SCARCE_DISK: u64 = 1 << 30;
/// Descriptors a call needs (RTP and RTCP), and those everything else needs.
const FILES_A_CALL: u64 = 2;
const OTHER_FILES: u64 = 2_048;
/// How far ahead of the clock a file may have been written.
const CLOCK_SLACK: Duration = Duration::from_secs(60);
/// 2026-01-01: an earlier clock was never set.
const CLOCK_FLOOR: Duration = Duration::from_secs(1_767_225_600);
/// Days before its end in which a certificate should be renewed.
const DAYS_TO_RENEW: i64 = 14;
const MICROSECONDS_A_DAY: i64 = 86_400_000_000;
/// How long a name may take to resolve.
const RESOLVE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Warning,
    Fault,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// What one look found.
struct Finding {
    what: String,
    state: State,
    detail: String,
    advice: Option<String>,
}

/// Everything that was found.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, what: &str, detail: impl Into<String>) {
        self.0.push(Finding { what: what.to_owned(), state: State::Ok, detail: detail.into(), advice: None });
    }

    fn warning(&mut self, what: &str, detail: impl Into<String>, advice: impl Into<String>) {
        self.bad(what, State::Warning, detail.into(), advice.into());
    }

    fn fault(&mut self, what: &str, detail: impl Into<String>, advice: impl Into<String>) {
        self.bad(what, State::Fault, detail.into(), advice.into());
    }

    fn bad(&mut self, what: &str, state: State, detail: String, advice: String) {
        self.0.push(Finding { what: what.to_owned(), state, detail, advice: Some(advice) });
    }

    fn sound(&self) -> bool {
        self.0.iter().all(|finding| finding.state != State::Fault)
    }

    fn to_json(&self) -> Value {
        let finding = |f: &Finding| json!({"check": f.what, "state": f.state.as_str(), "detail": f.detail, "advice": f.advice});
        json!({"ok": self.sound(), "checks": self.0.iter().map(finding).collect::<Vec<_>>()})
    }
}

/// Looks at everything; status 1 when something is at fault.
pub(crate) async fn run(settings: Settings, as_json: bool) -> Result<ExitCode, Failure> {
    let mut findings = Findings::default();
    let node = lock::holder(&settings);
    match node {
        Some(process) => findings.ok("node", format!("runs on this database (process {process})")),
        None => findings.ok("node", "none runs on this database"),
    }
    data_directory(&settings, &mut findings);
    disk(&settings, &mut findings);
    clock(&settings, &mut findings);
    store(&settings, &mut findings).await;
    listeners(&settings, node.is_some(), &mut findings);
    rtp_ports(&settings, node.is_some(), &mut findings);
    advertised(&settings, &mut findings).await;
    certificate(&settings, &mut findings);
    open_files(&settings, &mut findings);
    if as_json {
        answer(findings.to_json())?;
    } else {
        for finding in &findings.0 {
            answer(format!("{:<8} {:<20} {}", finding.state.as_str(), finding.what, finding.detail))?;
            if let Some(advice) = &finding.advice {
                answer(format!("{:<29} → {advice}", ""))?;
            }
        }
    }
    Ok(if findings.sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The directory itself, or the nearest one above it that is there.
fn nearest(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn data_directory(settings: &Settings, findings: &mut Findings) {
    let directory = &settings.data_dir;
    let there = nearest(directory);
    match tempfile::tempfile_in(&there) {
        Ok(_) if directory.is_dir() => {
            findings.ok("data_dir", format!("{} can be written", directory.display()))
        }
        Ok(_) => findings.ok("data_dir", format!("{} is made at the first start", directory.display())),
        Err(error) => findings.fault(
            "data_dir",
            format!("{} cannot be written: {error}", there.display()),
            "give the user of the node write access, or set data_dir to another place",
        ),
    }
}

fn disk(settings: &Settings, findings: &mut Findings) {
    let there = nearest(&settings.data_dir);
    match rustix::fs::statvfs(&there) {
        Ok(volume) => {
            let free = volume.f_bavail.saturating_mul(volume.f_frsize);
            let detail = format!("{} MiB free for {}", free >> 20, there.display());
            let advice =
                "make room, or set data_dir to a larger volume: calls cannot be recorded on a full disk";
            if free < LITTLE_DISK {
                findings.fault("disk", detail, advice);
            } else if free < SCARCE_DISK {
                findings.warning("disk", detail, advice);
            } else {
                findings.ok("disk", detail);
            }
        }
        Err(error) => {
            findings.warning("disk", format!("free space is not known: {error}"), "look at data_dir's volume")
        }
    }
}

fn clock(settings: &Settings, findings: &mut Findings) {
    let now = SystemTime::now();
    let shown = model::Timestamp::now().to_string();
    let advice = "run an NTP client: the times of calls, tokens' ends and certificates depend on the clock";
    if now < SystemTime::UNIX_EPOCH + CLOCK_FLOOR {
        return findings.fault("clock", format!("says {shown}"), advice);
    }
    let written = std::fs::metadata(lock::database(settings)).and_then(|m| m.modified()).ok();
    match written.and_then(|at| at.duration_since(now).ok()) {
        Some(ahead) if ahead > CLOCK_SLACK => {
            let detail = format!("says {shown}, {} s before the database was last written", ahead.as_secs());
            findings.fault("clock", detail, advice);
        }
        _ => findings.ok("clock", format!("says {shown}")),
    }
}

async fn store(settings: &Settings, findings: &mut Findings) {
    let database = lock::database(settings);
    let made = database.exists();
    for path in &settings.key_files {
        match std::fs::metadata(path) {
            Ok(file) if file.permissions().mode() & 0o077 != 0 => findings.fault(
                "secrets.key_file",
                format!("{} may be read by others", path.display()),
                format!("chmod 600 {}", path.display()),
            ),
            Ok(_) => findings.ok("secrets.key_file", format!("{} is its owner's alone", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound && !made => {
                findings.ok("secrets.key_file", format!("{} is made at the first start", path.display()));
            }
            Err(error) => findings.fault(
                "secrets.key_file",
                format!("{}: {error}", path.display()),
                "put the key back from its backup: what is sealed in the database opens with it alone",
            ),
        }
    }
    if !made {
        return findings.ok("store", format!("{} is made at the first start", database.display()));
    }
    let keys = match KeyRing::from_files(&settings.key_files) {
        Ok(keys) => keys,
        Err(problem) => return findings.fault("store", problem, "put the key back from its backup"),
    };
    match look_into(settings, keys).await {
        Ok((organizations, 0)) => {
            findings.ok("store", format!("{}: {organizations} organizations", database.display()));
            if organizations > 1 && settings.gateway.private_targets == PrivateTargets::Allow {
                findings.warning(
                    "net.private_targets",
                    format!("is allow, and {organizations} organizations share this node"),
                    "set it to deny, or to a list of the prefixes they may reach: each can have this node connect to its own network",
                );
            }
        }
        Ok((_, sealed)) => findings.fault(
            "store",
            format!("{}: {sealed} trunks have passwords that do not open", database.display()),
            "put the key they were sealed with first or further on in secrets.key_file",
        ),
        Err(error) => findings.fault(
            "store",
            format!("{}: {error}", database.display()),
            "restore the database and its key from one backup, or start the release that wrote it",
        ),
    }
}

/// How many organizations there are, and how many trunks whose password does not open.
async fn look_into(settings: &Settings, keys: KeyRing) -> Result<(usize, usize), store::StoreError> {
    let store = Store::open(&settings.store_url, keys).await?;
    let organizations = store.organizations().await?.len();
    let mut sealed = 0;
    // The data plane's view has passwords open, and lacks the config of those that do not open.
    for change in store.directory().await?.1 {
        if let DirectoryChange::Trunk(id, Some(trunk)) = change
            && trunk.outbound_config.is_none()
            && store.trunk(trunk.organization_id, id).await?.outbound_config.is_some()
        {
            sealed += 1;
        }
    }
    store.close().await;
    Ok((organizations, sealed))
}

fn listeners(settings: &Settings, running: bool, findings: &mut Findings) {
    let tcp = |address: SocketAddr| TcpListener::bind(address).map(|_| ());
    let udp = |address: SocketAddr| UdpSocket::bind(address).map(|_| ());
    let mut look = |key: &str, address: SocketAddr, bound: std::io::Result<()>| match bound {
        Ok(()) if running && address.port() != 0 => findings.warning(
            key,
            format!("{address} is free although a node runs"),
            "the running node has other settings than these",
        ),
        Ok(()) => findings.ok(key, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && running => {
            findings.ok(key, format!("{address} is in use, by the running node"));
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => findings.fault(
            key,
            format!("{address} is in use by another program"),
            "stop what holds it (ss -lntup shows it), or set another port",
        ),
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            findings.fault(
                key,
                format!("{address} is not an address of this machine"),
                "set one of this machine's, or 0.0.0.0",
            );
        }
        Err(error) => findings.fault(
            key,
            format!("{address}: {error}"),
            "choose a port above 1023, or allow the user to bind it",
        ),
    };
    look("http.listen", settings.http_listen, tcp(settings.http_listen));
    if let Some(address) = settings.metrics_listen {
        look("http.metrics_listen", address, tcp(address));
    }
    for &address in &settings.gateway.udp {
        look("sip.udp", address, udp(address));
    }
    for &address in &settings.gateway.tcp {
        look("sip.tcp", address, tcp(address));
    }
    for &address in &settings.gateway.tls {
        look("sip.tls", address, tcp(address));
    }
    let gateway = &settings.gateway;
    if gateway.udp.is_empty() && gateway.tcp.is_empty() && gateway.tls.is_empty() {
        findings.fault("sip.udp", "there is no SIP listener", "set sip.udp, sip.tcp or sip.tls");
    }
}

fn rtp_ports(settings: &Settings, running: bool, findings: &mut Findings) {
    let media = &settings.gateway.media;
    let address = media.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let even = media.ports.clone().filter(|port| port % 2 == 0);
    let (total, free) = even.fold((0_u32, 0_u32), |(total, free), port| {
        (total + 1, free + u32::from(UdpSocket::bind((address, port)).is_ok()))
    });
    let detail =
        format!("{free} of {total} RTP ports of {}-{} are free", media.ports.start(), media.ports.end());
    let calls = settings.gateway.max_calls;
    if free == 0 && !running {
        findings.fault("media.ports", detail, "set media.ports to a range that nothing else uses");
    } else if total < calls {
        findings.warning(
            "media.ports",
            detail,
            format!("limits.max_calls = {calls} calls need as many; widen the range"),
        );
    } else {
        findings.ok("media.ports", detail);
    }
}

async fn advertised(settings: &Settings, findings: &mut Findings) {
    let key = "sip.advertise";
    if let Some(advertise) = settings.gateway.advertise.any() {
        let host = advertise.host.clone();
        let resolved = tokio::task::spawn_blocking(move || {
            (host.as_str(), 5_060).to_socket_addrs().map(|mut a| a.next())
        });
        match tokio::time::timeout(RESOLVE, resolved).await {
            Ok(Ok(Ok(Some(address)))) => findings.ok(key, format!("{} is {}", advertise.host, address.ip())),
            _ => findings.warning(
                key,
                format!("{} does not resolve here", advertise.host),
                "check the name: peers send to it",
            ),
        }
        return;
    }
    let bound = settings
        .gateway
        .udp
        .iter()
        .chain(&settings.gateway.tcp)
        .map(SocketAddr::ip)
        .find(|ip| !ip.is_unspecified());
    let Some(address) = bound.or_else(default_route) else {
        return findings.warning(
            key,
            "no address is detected: there is no default route",
            "set sip.advertise to what peers reach",
        );
    };
    match address.to_canonical() {
        IpAddr::V4(v4) if v4.is_loopback() => {
            findings.warning(key, format!("{v4} is detected: only this machine reaches it"), "bind sip.udp to 0.0.0.0, or set sip.advertise");
        }
        IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => findings.warning(
            key,
            format!("{v4} is detected, a private address"),
            "for carriers outside this network set sip.advertise to the public address and forward the SIP and RTP ports",
        ),
        other => findings.ok(key, format!("{other} is detected")),
    }
}

/// The address of the default route. Nothing is sent: a connected UDP socket tells.
fn default_route() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // RFC 5737 documentation address: never reached, only routed.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_unspecified())
}

/// Whether the TLS files can be used, how long the certificate is good for, and whether it is for the name peers use.
fn certificate(settings: &Settings, findings: &mut Findings) {
    let described = match gateway::check_tls(&settings.gateway.tls_files) {
        Ok(Some(described)) => described,
        Ok(None) => return,
        Err(error) => {
            return findings.fault(
                error.key,
                format!("{}: {}", error.value, error.problem),
                "give sip.tls_cert and sip.tls_key a certificate chain and its key in PEM",
            );
        }
    };
    let key = "sip.tls_cert";
    let (subject, ends) = (&described.subject, described.not_after);
    let left = ends.0.saturating_sub(model::Timestamp::now().0) / MICROSECONDS_A_DAY;
    if left < 0 {
        findings.fault(
            key,
            format!("{subject} ended {ends}"),
            "renew it: no peer that checks it will connect",
        );
    } else if left < DAYS_TO_RENEW {
        findings.warning(
            key,
            format!("{subject} ends {ends}, in {left} days"),
            "renew it; a running node takes the new file by itself",
        );
    } else {
        findings.ok(key, format!("{subject} is good until {ends}"));
    }
    let seen = settings.gateway.advertise.tls.as_ref().or(settings.gateway.advertise.any());
    let Some(host) = settings.gateway.domain.as_deref().or(seen.map(|a| a.host.as_str())) else { return };
    if !described.names.iter().any(|name| is_for(name, host)) {
        findings.warning(
            key,
            format!("it is for {}, not for {host}", described.names.join(", ")),
            "take a certificate whose subject alternative names hold the name peers connect to",
        );
    }
}

/// Whether a certificate's name is for a host: the same, or a wildcard for its first label (RFC 6125 6.4.3).
fn is_for(name: &str, host: &str) -> bool {
    let under = |wild: &str| host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(wild));
    name.eq_ignore_ascii_case(host) || name.strip_prefix("*.").is_some_and(under)
}

fn open_files(settings: &Settings, findings: &mut Findings) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let needed = u64::from(settings.gateway.max_calls) * FILES_A_CALL + OTHER_FILES;
    match limit.maximum {
        Some(most) if most < needed => findings.warning(
            "open files",
            format!("at most {most}; limits.max_calls = {} need {needed}", settings.gateway.max_calls),
            "raise the hard limit (ulimit -Hn, LimitNOFILE=), or lower limits.max_calls",
        ),
        Some(most) => findings.ok("open files", format!("at most {most}; {needed} are needed")),
        None => findings.ok("open files", "no limit"),
    }
}
