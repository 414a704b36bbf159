//! RTP ports: even ports of the configured range, least recently used first, so that a closed call's port rests
//! before it is used again (late packets of the old call must not reach the new one).

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ahash::AHashSet;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};

/// Free ports below which none waits to be given back.
const SCARCE: u32 = 256;
/// How many ports held by somebody else are passed over before a call is refused.
const MAX_PASSED_OVER: usize = 64;

pub(crate) struct RtpPorts {
    address: Option<IpAddr>,
    free: Mutex<VecDeque<Free>>,
    /// Ports that calls receive at.
    open: Mutex<AHashSet<u16>>,
    total: u32,
}

/// A port at rest.
#[derive(Clone, Copy)]
struct Free {
    port: u16,
    /// The peer of the call that had it last: what still comes from there is of that call.
    last_peer: Option<SocketAddr>,
}

/// A bound RTP socket; its port goes back to the pool when it is dropped.
pub(crate) struct RtpSocket {
    socket: UdpSocket,
    port: u16,
    last_peer: Option<SocketAddr>,
    /// RTCP: the next port, once it is needed.
    control: Option<UdpSocket>,
    pool: Arc<RtpPorts>,
}

impl RtpPorts {
    /// `random` fills with unpredictable bytes. The ports come in an order of its making: nobody outside knows the next
    /// call's, and nodes that share a machine and a range are rarely in each other's way.
    pub(crate) fn new(
        address: Option<IpAddr>,
        range: RangeInclusive<u16>,
        random: fn(&mut [u8]),
    ) -> Arc<Self> {
        let even = range.filter(|port| port % 2 == 0);
        let mut free: Vec<Free> = even.map(|port| Free { port, last_peer: None }).collect();
        for last in (1..free.len()).rev() {
            let mut bytes = [0; 8];
            random(&mut bytes);
            // Of 2^64 values the remainder is even enough, and at most `last`, so it fits.
            let other = usize::try_from(u64::from_ne_bytes(bytes) % (last as u64 + 1)).unwrap_or(last);
            free.swap(last, other);
        }
        let free = VecDeque::from(free);
        let total = u32::try_from(free.len()).unwrap_or(u32::MAX);
        Arc::new(Self { address, free: Mutex::new(free), open: Mutex::default(), total })
    }

    /// Binds the port that has rested longest, in the family of `near`. A port held by somebody else is passed over.
    pub(crate) fn open(self: &Arc<Self>, near: IpAddr) -> Option<RtpSocket> {
        let address = match (self.address, near.is_ipv4()) {
            (Some(address), v4) if address.is_ipv4() == v4 => address,
            (_, true) => Ipv4Addr::UNSPECIFIED.into(),
            (_, false) => Ipv6Addr::UNSPECIFIED.into(),
        };
        for _ in 0..MAX_PASSED_OVER {
            let free = self.free.lock().pop_front()?;
            let Free { port, last_peer } = free;
            match bind(SocketAddr::new(address, port)) {
                Ok(socket) => {
                    self.open.lock().insert(port);
                    return Some(RtpSocket {
                        socket,
                        port,
                        last_peer,
                        control: None,
                        pool: Arc::clone(self),
                    });
                }
                Err(_) => self.free.lock().push_back(free),
            }
        }
        None
    }

    /// Whether a call of ours receives RTP or RTCP at a port.
    pub(crate) fn is_open(&self, port: u16) -> bool {
        self.open.lock().contains(&(port & !1))
    }

    /// Whether a port that a call no longer needs is wanted back at once.
    pub(crate) fn is_scarce(&self) -> bool {
        self.free() <= (self.total / 8).min(SCARCE)
    }

    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    pub(crate) fn free(&self) -> u32 {
        u32::try_from(self.free.lock().len()).unwrap_or(u32::MAX)
    }
}

/// A socket that never blocks, without a system call of its own for that.
fn bind(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let kind = Type::DGRAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

impl RtpSocket {
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where the port goes back to.
    pub(crate) fn pool(&self) -> &Arc<RtpPorts> {
        &self.pool
    }

    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// The RTCP socket, once it is open.
    pub(crate) fn control(&self) -> Option<&UdpSocket> {
        self.control.as_ref()
    }

    /// Binds the RTCP port beside the RTP port (RFC 3550 11); `None` when somebody else holds it.
    pub(crate) fn open_control(&mut self) -> Option<&UdpSocket> {
        let address = self.socket.local_addr().ok()?.ip();
        let socket = bind(SocketAddr::new(address, self.port.checked_add(1)?)).ok()?;
        Some(self.control.insert(socket))
    }

    /// The peer of the call that had the port before.
    pub(crate) fn last_peer(&self) -> Option<SocketAddr> {
        self.last_peer
    }

    /// Remembers this call's peer for the next one.
    pub(crate) fn set_last_peer(&mut self, peer: SocketAddr) {
        self.last_peer = Some(peer);
    }
}

impl Drop for RtpSocket {
    fn drop(&mut self) {
        self.pool.open.lock().remove(&self.port);
        self.pool.free.lock().push_back(Free { port: self.port, last_peer: self.last_peer });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A range of four even ports nobody holds: found by asking the system for one.
    fn pool() -> Arc<RtpPorts> {
        let probe = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        let first = probe.local_addr().unwrap().port().clamp(1_024, 65_000) & !1;
        drop(probe);
        RtpPorts::new(Some(LOOPBACK), first..=first + 7, crate::edge::fill)
    }

    #[test]
    fn every_port_comes_once_in_no_order_of_its_own() {
        let order = || {
            let pool = RtpPorts::new(None, 20_000..=20_199, crate::edge::fill);
            let ports: Vec<u16> = pool.free.lock().iter().map(|free| free.port).collect();
            ports
        };
        let (one, mut other) = (order(), order());
        assert_ne!(one, other);
        other.sort_unstable();
        assert_eq!(other, (20_000..20_200).step_by(2).collect::<Vec<u16>>());
    }

    #[test]
    fn the_port_that_rested_longest_comes_first() {
        let pool = pool();
        let first = pool.open(LOOPBACK).unwrap();
        let port = first.port();
        drop(first);
        let second = pool.open(LOOPBACK).unwrap();
        assert_ne!(second.port(), port);
        assert_eq!(port % 2, 0);
        assert!(pool.is_open(second.port()) && pool.is_open(second.port() + 1) && !pool.is_open(port));
    }

    #[test]
    fn a_range_of_one_port_refuses_no_call_and_tells_who_had_it_last() {
        let port = pool().open(LOOPBACK).unwrap().port();
        let pool = RtpPorts::new(Some(LOOPBACK), port..=port, crate::edge::fill);
        let peer = SocketAddr::new(LOOPBACK, 4_000);
        let mut first = pool.open(LOOPBACK).unwrap();
        assert_eq!(first.last_peer(), None);
        first.set_last_peer(peer);
        drop(first);
        assert_eq!(pool.open(LOOPBACK).unwrap().last_peer(), Some(peer));
    }

    #[test]
    fn a_port_held_by_somebody_else_is_passed_over_and_an_empty_pool_says_so() {
        let pool = pool();
        let next = pool.free.lock().front().unwrap().port;
        let somebody = UdpSocket::bind((LOOPBACK, next));
        let mut open = Vec::new();
        while let Some(socket) = pool.open(LOOPBACK) {
            assert!(somebody.is_err() || socket.port() != next);
            open.push(socket);
        }
        assert!(open.len() <= 4);
        drop(open);
        assert_eq!(pool.free(), pool.total());
    }
}
