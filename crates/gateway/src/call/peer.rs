//! Whether a message of a call may come from where it does: who has seen the call's tags must not be able to end it or
//! to change it from elsewhere.

use std::net::IpAddr;

use model::Direction;
use signaling::{Hop, Message, Session};

use super::Call;

/// Prefix lengths within which a peer's proxies are one: those of a carrier stand side by side.
const NEAR_V4: u8 = 24;
const NEAR_V6: u8 = 64;

/// Whether two addresses are of one network.
fn is_near(one: IpAddr, other: IpAddr) -> bool {
    let length = if one.is_ipv4() { NEAR_V4 } else { NEAR_V6 };
    ipnet::IpNet::new(one, length).is_ok_and(|net| net.contains(&other))
}

/// Whether a message of a dialog over `hop` may come from there, as far as the dialog tells: from near the hop, and from
/// what the peer named. A response is the one to a request of ours, whose branch nobody can guess.
pub(super) fn believes(session: &Session, hop: Hop, (message, from): &(Message, Hop)) -> bool {
    let (source, peer) = (from.remote.ip().to_canonical(), hop.remote.ip().to_canonical());
    matches!(message, Message::Response(_)) || is_near(peer, source) || session.names(source)
}

impl Call {
    /// Whether a message of the call may come from there: of a call by a trunk with a list from its addresses alone.
    pub(super) fn believes(&self, message: &(Message, Hop)) -> bool {
        let source = message.1.remote.ip().to_canonical();
        if source == self.hop.remote.ip().to_canonical() {
            return true;
        }
        let directory = self.edge.directory.load();
        let trunk = self.conversation.trunk_id.and_then(|id| directory.trunk(id));
        let config = trunk.and_then(|trunk| trunk.inbound_config.as_ref());
        match config.and_then(|config| config.allowed_addresses.as_ref()) {
            Some(list) if list.iter().any(|range| range.contains(source)) => true,
            Some(_) if self.conversation.direction == Direction::Inbound => false,
            _ => believes(&self.session, self.hop, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_of_one_network() {
        let near = |one: &str, other: &str| is_near(one.parse().unwrap(), other.parse().unwrap());
        assert!(near("198.51.100.10", "198.51.100.200"));
        assert!(!near("198.51.100.10", "198.51.101.10"));
        assert!(near("2001:db8::1", "2001:db8::ffff:1") && !near("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!near("198.51.100.10", "2001:db8::1"));
    }
}
