//! Names to socket addresses in the order they are tried (RFC 3263 4): NAPTR to SRV, SRV by priority and weight to
//! hosts, hosts to A and AAAA. A numeric host is itself, and a port that is written skips SRV.

mod records;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use signaling::Transport;

use records::{Kept, Naptr, Srv};

/// Longest a name may take to resolve, all its queries together.
const RESOLVE: Duration = Duration::from_secs(5);
/// Longest a name may take while an earlier answer is kept (RFC 8767 5).
const RESOLVE_WITH_KEPT: Duration = Duration::from_millis(800);
/// Longest the NAPTR records of a name may take: few domains have any.
const NAPTR: Duration = Duration::from_secs(1);
/// Time and tries of a query at a name server.
const QUERY: Duration = Duration::from_secs(2);
const TRIES: usize = 2;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;
/// Hosts of one service that are resolved.
const MAX_HOSTS: usize = 8;

/// The node's resolver. Answers are kept beyond their time, for when no name server answers.
pub(crate) struct Names {
    resolver: ArcSwap<TokioResolver>,
    services: Kept<Naptr>,
    hosts: Kept<Srv>,
    addresses: Kept<IpAddr>,
}

/// A resolver as the system's files say, and whether they could be read.
fn by_system() -> Option<TokioResolver> {
    let mut builder = TokioResolver::builder_tokio()
        .inspect_err(|error| tracing::warn!(%error, "the system's resolver configuration cannot be read"))
        .unwrap_or_else(|_| {
            TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
        });
    bound(builder.options_mut());
    builder.build().inspect_err(|error| tracing::warn!(%error, "there is no name resolution")).ok()
}

fn bound(options: &mut ResolverOpts) {
    options.timeout = QUERY;
    options.attempts = TRIES;
    options.preserve_intermediates = false;
}

impl Names {
    /// What `/etc/resolv.conf` and `/etc/hosts` say; `None` when there can be no resolver at all.
    pub(crate) fn of_system() -> Option<Self> {
        by_system().map(Self::new)
    }

    fn new(resolver: TokioResolver) -> Self {
        Self {
            resolver: ArcSwap::from_pointee(resolver),
            services: Kept::default(),
            hosts: Kept::default(),
            addresses: Kept::default(),
        }
    }

    /// Reads the system's files anew.
    pub(crate) fn reload(&self) {
        if let Some(resolver) = by_system() {
            self.resolver.store(Arc::new(resolver));
        }
    }

    /// Where a service is reached. Never empty.
    pub(crate) async fn resolve(
        &self,
        host: &str,
        port: Option<u16>,
        transport: Transport,
    ) -> Result<Vec<SocketAddr>, String> {
        let host = host.trim_matches(['[', ']']);
        let port_of = |port: Option<u16>| port.unwrap_or(transport.default_port());
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip.to_canonical(), port_of(port))]);
        }
        let work = async {
            if port.is_some() {
                return self.at(host, port_of(port)).await;
            }
            let (service, direct) =
                tokio::join!(self.of_naptr(host, transport), self.srv(service_name(host, transport)));
            let found = match service {
                found if !found.is_empty() => found,
                _ => direct.unwrap_or_default(),
            };
            if found.is_empty() { self.at(host, port_of(None)).await } else { self.of_hosts(found).await }
        };
        let found = tokio::time::timeout(RESOLVE, work).await;
        let mut found = found.map_err(|_| format!("{host} does not resolve within 5 s"))??;
        let mut seen = Vec::new();
        found.retain(|address| {
            !seen.contains(address) && {
                seen.push(*address);
                true
            }
        });
        found.truncate(MAX_ADDRESSES);
        if found.is_empty() { Err(format!("{host} has no address")) } else { Ok(found) }
    }

    /// What the NAPTR records name for the transport (RFC 3263 4.1), already ordered. Their failure is no reason to
    /// fail: few domains have any, and some servers do not know the type.
    async fn of_naptr(&self, host: &str, transport: Transport) -> Vec<Srv> {
        let asked = self.services.ask(host, self.query(host, RecordType::NAPTR, records::naptr));
        let Ok(Ok(services)) = tokio::time::timeout(NAPTR, asked).await else { return Vec::new() };
        for service in records::of_transport(services, transport) {
            if let Ok(found) = self.srv(service).await
                && !found.is_empty()
            {
                return found;
            }
        }
        Vec::new()
    }

    /// The hosts of a service, ordered (RFC 2782).
    async fn srv(&self, service: String) -> Result<Vec<Srv>, String> {
        let found = self.hosts.ask(&service, self.query(&service, RecordType::SRV, records::srv)).await?;
        Ok(records::order(found, |below| {
            // The order is nobody's secret: without randomness it is the same each time.
            getrandom::u32().map_or(0, |random| random % below.max(1))
        }))
    }

    async fn of_hosts(&self, hosts: Vec<Srv>) -> Result<Vec<SocketAddr>, String> {
        let (mut found, mut problem) = (Vec::new(), None);
        for Srv { host, port, .. } in hosts.into_iter().take(MAX_HOSTS) {
            // The one target "." says that the service is not offered (RFC 2782).
            if host.is_empty() || host == "." {
                continue;
            }
            match self.at(&host, port).await {
                Ok(addresses) => found.extend(addresses),
                Err(error) => problem = Some(error),
            }
        }
        match problem {
            Some(problem) if found.is_empty() => Err(problem),
            _ => Ok(found),
        }
    }

    async fn at(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let resolver = self.resolver.load_full();
        let query = async {
            let looked_up = resolver.lookup_ip(host).await;
            none_is_empty(looked_up.map(|found| found.iter().map(|ip| ip.to_canonical()).collect()))
        };
        let addresses = self.addresses.ask(host, query).await?;
        Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    async fn query<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, String> {
        let mut name = Name::from_ascii(name).map_err(|error| format!("{name}: {error}"))?;
        // Services have no search list: theirs is the domain that is written.
        name.set_fqdn(true);
        let resolver = self.resolver.load_full();
        let looked_up = resolver.lookup(name, kind).await;
        none_is_empty(looked_up.map(|found| found.answers().iter().filter_map(|r| read(&r.data)).collect()))
    }
}

fn none_is_empty<T>(answer: Result<Vec<T>, NetError>) -> Result<Vec<T>, String> {
    match answer {
        Ok(found) => Ok(found),
        Err(error) if error.is_no_records_found() => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// The name SRV records are under without NAPTR (RFC 3263 4.1).
fn service_name(host: &str, transport: Transport) -> String {
    let prefix = match transport {
        Transport::Udp => "_sip._udp",
        Transport::Tcp => "_sip._tcp",
        Transport::Tls => "_sips._tcp",
    };
    format!("{prefix}.{host}")
}
