//! Which address the other side should reach us at: what Via, Contact and SDP carry.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use ahash::AHashMap;
use parking_lot::Mutex;

/// Remembered routes; forgotten all at once when full.
const MAX_ROUTES: usize = 4_096;

/// Finds the local address of the route to a peer, and remembers it.
pub(crate) struct Routes(Mutex<AHashMap<IpAddr, IpAddr>>);

impl Routes {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(AHashMap::new()))
    }

    /// The local address packets to `peer` leave from. Nothing is sent: a connected UDP socket tells.
    pub(crate) fn local_address(&self, peer: IpAddr) -> IpAddr {
        let peer = peer.to_canonical();
        if let Some(&known) = self.0.lock().get(&peer) {
            return known;
        }
        let found = ask(peer).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut routes = self.0.lock();
        if routes.len() >= MAX_ROUTES {
            routes.clear();
        }
        routes.insert(peer, found);
        found
    }

    /// Forgets what was found, for when the machine's addresses change.
    pub(crate) fn forget(&self) {
        self.0.lock().clear();
    }
}

/// Whether an address is one of this machine's: only such a one can be bound. Loopback always is, and is asked about
/// for each call whose peer is there.
pub(crate) fn is_ours(address: IpAddr) -> bool {
    address.is_loopback() || !address.is_unspecified() && UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

fn ask(peer: IpAddr) -> Option<IpAddr> {
    let any: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(SocketAddr::new(peer, 9)).ok()?;
    let local = socket.local_addr().ok()?.ip();
    (!local.is_unspecified()).then_some(local)
}

/// The address of the default route, for when nobody in particular asks.
pub(crate) fn default_address() -> IpAddr {
    // RFC 5737 documentation address: never reached, only routed.
    ask(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// A host as it stands in a URI: an IPv6 literal gets brackets.
pub(crate) fn uri_host(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_addresses_are_known() {
        let ours = |text: &str| is_ours(text.parse().unwrap());
        assert!(ours("127.0.0.1") && ours("127.9.9.9"));
        // RFC 5737: nobody's.
        assert!(!ours("192.0.2.77") && !ours("0.0.0.0"));
    }

    #[test]
    fn loopback_peers_see_loopback() {
        assert!(Routes::new().local_address("127.0.0.9".parse().unwrap()).is_loopback());
        assert_eq!(uri_host("::1"), "[::1]");
        assert_eq!(uri_host("pbx.example"), "pbx.example");
    }
}
