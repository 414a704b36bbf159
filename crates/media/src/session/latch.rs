//! Whose RTP is taken: the rules against RTP bleed and injection.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::rtp::Packet;

/// Packets in order before another source is believed.
const PROBATION: u8 = 4;
/// Sources on probation at once, so that one that only tries does not disturb the true one.
const CANDIDATES: usize = 4;
/// How long another port of the signalled address may take over.
pub(super) const PORT_CHANGE: Duration = Duration::from_secs(5);

/// A source on probation.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    from: SocketAddr,
    ssrc: u32,
    next: u16,
    seen: u8,
}

/// Who besides the signalled address may send.
#[derive(Debug, Clone, Default)]
pub struct Believed {
    /// Where the signalling comes from (NAT); `None` when nobody knows.
    pub signalling_source: Option<IpAddr>,
    /// Nobody there has shown yet that it is not forged.
    pub may_be_forged: bool,
    /// Prefixes that may send media.
    pub media_addresses: Vec<IpNet>,
    /// The peer of the call that had this port before: whatever still comes from there belongs to that call.
    pub stale: Option<SocketAddr>,
}

impl Believed {
    /// Whether somebody is known to be at an address who may be sent to.
    fn proves(&self, ip: IpAddr) -> bool {
        let Self { signalling_source, may_be_forged, .. } = self;
        let signalling = signalling_source.filter(|_| !may_be_forged).map(|source| source.to_canonical());
        signalling == Some(ip) || self.media_addresses.iter().any(|net| net.contains(&ip))
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.signalling_source.is_some_and(|source| source.to_canonical() == ip)
            || self.media_addresses.iter().any(|net| net.contains(&ip))
    }
}

/// Where we send, and the only source that is taken.
#[derive(Debug)]
pub(super) struct Latch {
    /// The address and port in the peer's SDP.
    signalled: SocketAddr,
    believed: Believed,
    /// `None` until the first packet that is taken.
    locked: Option<SocketAddr>,
    /// A learned source that a new description unlocked: still where we send, and taken back at once when it speaks.
    before: Option<SocketAddr>,
    learning_until: Instant,
    candidates: [Option<Candidate>; CANDIDATES],
    /// The place of the next new one.
    next_candidate: usize,
    /// A test takes the guard off to prove that it guards.
    #[cfg(test)]
    pub(super) open_to_all: bool,
}

impl Latch {
    pub(super) fn new(signalled: SocketAddr, believed: Believed, now: Instant) -> Self {
        Self {
            signalled,
            believed,
            locked: None,
            before: None,
            learning_until: now + PORT_CHANGE,
            candidates: [None; CANDIDATES],
            next_candidate: 0,
            #[cfg(test)]
            open_to_all: false,
        }
    }

    /// A new offer or answer. Another address unlocks at once; the same one only what was learned, since the peer may
    /// say by it that its NAT sends from elsewhere now.
    pub(super) fn signalled(&mut self, remote: SocketAddr, now: Instant) {
        if self.signalled != remote {
            (self.signalled, self.locked, self.before) = (remote, None, None);
        } else if self.locked.is_some_and(|locked| locked != remote) {
            self.before = self.locked.take();
        } else {
            return;
        }
        self.candidates = [None; CANDIDATES];
        self.learning_until = now + PORT_CHANGE;
    }

    /// Another dialog carries the call: whom it makes believable.
    pub(super) fn believe(&mut self, believed: Believed) {
        self.believed = Believed { stale: self.believed.stale, ..believed };
    }

    /// Whether nobody has been heard yet from where we send, which is not where the signalling comes from for certain
    /// either: it may be somebody who never asked for it.
    pub(super) fn is_unproven(&self) -> bool {
        self.locked.is_none() && self.before.is_none() && !self.believed.proves(self.signalled.ip())
    }

    /// The source that is taken; `None` before its first packet.
    pub(super) fn locked(&self) -> Option<SocketAddr> {
        self.locked
    }

    /// Where RTP goes.
    pub(super) fn destination(&self) -> SocketAddr {
        self.locked.or(self.before).unwrap_or(self.signalled)
    }

    /// The rules of who is believed: the signalled address and port at once; after four packets in order another port
    /// of that address, within the first five seconds, and the signalling's source and the trunk's media addresses, as
    /// long as nobody else is. Once locked, only a new offer unlocks.
    pub(super) fn believes(&mut self, from: SocketAddr, packet: &Packet<'_>, now: Instant) -> bool {
        #[cfg(test)]
        if self.open_to_all {
            self.locked = Some(from);
            return true;
        }
        if let Some(locked) = self.locked {
            return locked == from;
        }
        if from == self.signalled || self.before == Some(from) {
            return self.lock(from);
        }
        let may_learn = if self.believed.stale == Some(from) {
            false
        } else if from.ip() == self.signalled.ip() {
            now < self.learning_until
        } else {
            self.believed.contains(from.ip())
        };
        if !may_learn {
            return false;
        }
        if self.on_probation(from, packet) < PROBATION {
            return false;
        }
        self.lock(from)
    }

    fn lock(&mut self, from: SocketAddr) -> bool {
        (self.locked, self.before) = (Some(from), None);
        self.candidates = [None; CANDIDATES];
        true
    }

    /// How many packets in order a source has sent with this one.
    fn on_probation(&mut self, from: SocketAddr, packet: &Packet<'_>) -> u8 {
        let next = packet.sequence.wrapping_add(1);
        let known = self.candidates.iter_mut().flatten().find(|candidate| candidate.from == from);
        match known {
            Some(known) => {
                let in_order = known.ssrc == packet.ssrc && known.next == packet.sequence;
                known.seen = if in_order { known.seen.saturating_add(1) } else { 1 };
                (known.ssrc, known.next) = (packet.ssrc, next);
                known.seen
            }
            None => {
                let place = self.next_candidate % CANDIDATES;
                self.next_candidate = place + 1;
                self.candidates[place] = Some(Candidate { from, ssrc: packet.ssrc, next, seen: 1 });
                1
            }
        }
    }
}
