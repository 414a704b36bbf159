//! Where messages come from and go to. Sockets are the caller's; this crate only names them.

use std::net::SocketAddr;

use bytes::Bytes;

/// Transport protocol of a hop (RFC 3261 18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP: unreliable, so transactions retransmit.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl Transport {
    /// Whether the transport retransmits by itself.
    #[must_use]
    pub fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// The token of a Via header.
    #[must_use]
    pub fn as_via(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// The port when a URI names none (RFC 3261 19.1.2).
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
        }
    }
}

/// One end of an exchange: the peer, and the flow that reaches it. The flow is the caller's own number (a listener,
/// a connection).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Transport protocol.
    pub transport: Transport,
    /// The peer's transport address.
    pub remote: SocketAddr,
    /// The caller's listener or connection.
    pub flow: u64,
}

/// Bytes to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub hop: Hop,
    /// One whole message.
    pub bytes: Bytes,
}
