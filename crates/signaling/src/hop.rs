//! Where messages come from and go to. Sockets are the caller's; this crate only names them.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::message::{HeaderName, Message, NameAddr};

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

impl Hop {
    /// The flow of a request whose way only the caller can find: its next hop ([`Way::of`]) is a host name, or wants
    /// another transport or connection than the dialog has. `remote` is the address it names, or for a name the
    /// address the dialog's messages come from.
    pub const BY_URI: u64 = u64::MAX;
}

/// Where a message goes by its own words: a request to its first Route, or without one to its Request-URI
/// (RFC 3261 8.1.2); a response to its first Via (RFC 3261 18.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Way {
    /// Host: a name, or an address without brackets.
    pub host: Box<str>,
    /// Port, when one is written.
    pub port: Option<u16>,
}

impl Way {
    /// Reads it of one whole message.
    #[must_use]
    pub fn of(message: &Bytes) -> Option<Self> {
        let at = |host: &str, port| Self { host: host.trim_matches(['[', ']']).into(), port };
        match Message::parse(message.clone()).ok()? {
            Message::Request(request) => {
                let route = request.list(HeaderName::Route).next().and_then(NameAddr::parse);
                let uri = match &route {
                    Some(route) => route.uri,
                    None => request.parsed_uri()?,
                };
                uri.is_sip().then(|| at(uri.host, uri.port))
            }
            Message::Response(response) => {
                let via = response.top_via()?;
                Some(at(via.received().unwrap_or(via.host), via.port))
            }
        }
    }
}

/// Bytes to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub hop: Hop,
    /// One whole message.
    pub bytes: Bytes,
}
