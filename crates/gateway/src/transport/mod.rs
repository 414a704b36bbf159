//! Transports: the sockets SIP messages come in by and leave by. A [`Hop`]'s flow names a UDP listener, or a
//! connection.

pub(crate) mod connections;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod udp;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use signaling::{Hop, Transport};

use crate::calls::Mailbox;
use crate::counters::{Counter, Counters};

/// Flows below this are indices of UDP listeners, from here on connections.
pub(crate) const FIRST_CONNECTION: u64 = 1 << 32;

/// Every way out.
pub(crate) struct Transports {
    pub(crate) udp: Vec<udp::Listener>,
    pub(crate) streams: connections::Connections,
    /// Addresses of the TCP and of the TLS listeners.
    pub(crate) tcp_local: Vec<SocketAddr>,
    pub(crate) tls_local: Vec<SocketAddr>,
    pub(crate) counters: Arc<Counters>,
}

/// A message could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unsent;

impl Transports {
    /// Sends without waiting: a full socket loses the message, which SIP's retransmission is for.
    pub(crate) fn send(&self, hop: Hop, bytes: Bytes) -> Result<(), Unsent> {
        let sent = match hop.transport {
            Transport::Udp => {
                self.listener(hop).ok_or(Unsent).and_then(|listener| listener.send(&bytes, hop.remote))
            }
            Transport::Tcp | Transport::Tls => self.streams.send(hop.flow, bytes),
        };
        if sent.is_err() {
            self.counters.count(Counter::DroppedSend);
        }
        sent
    }

    /// Keeps the connection of a hop open as long as a call runs over it; when it is lost, `told` learns of it.
    pub(crate) fn hold(&self, hop: Hop, told: Option<Mailbox>) -> Option<connections::InUse> {
        hop.transport.is_reliable().then(|| self.streams.hold(hop.flow, told)).flatten()
    }

    fn listener(&self, hop: Hop) -> Option<&udp::Listener> {
        usize::try_from(hop.flow).ok().and_then(|index| self.udp.get(index))
    }

    /// The UDP listener that can reach `peer`: one of its family, a dual-stack one otherwise.
    pub(crate) fn udp_flow(&self, peer: SocketAddr) -> Option<u64> {
        let reaches = |listener: &udp::Listener| {
            let local = listener.local().ip();
            // A listener bound to loopback reaches nothing else.
            !local.is_loopback() || peer.ip().to_canonical().is_loopback()
        };
        let same = self.udp.iter().position(|l| l.local().is_ipv4() == peer.is_ipv4() && reaches(l));
        let dual = || self.udp.iter().position(|l| l.local().is_ipv6() && l.local().ip().is_unspecified());
        same.or_else(dual).and_then(|index| u64::try_from(index).ok())
    }

    /// The local address a flow uses, for Via and Contact.
    pub(crate) fn local(&self, hop: Hop) -> Option<SocketAddr> {
        match hop.transport {
            Transport::Udp => self.listener(hop).map(udp::Listener::local),
            Transport::Tcp => near(&self.tcp_local, hop.remote),
            Transport::Tls => near(&self.tls_local, hop.remote),
        }
    }
}

/// The listener that a peer would reach: one of its family when there is one.
fn near(listeners: &[SocketAddr], peer: SocketAddr) -> Option<SocketAddr> {
    let of_family = |local: &&SocketAddr| local.is_ipv4() == peer.is_ipv4();
    listeners.iter().find(of_family).or_else(|| listeners.first()).copied()
}
