//! Whose RTP is taken: the rules against RTP bleed and injection.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::rtp::Packet;

/// Packets in order before another source is believed.
const PROBATION: u8 = 4;
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

/// Where we send, and the only source that is taken.
#[derive(Debug)]
pub(super) struct Latch {
    /// The address and port in the peer's SDP.
    signalled: SocketAddr,
    signalling_source: IpAddr,
    /// `None` until the first packet.
    locked: Option<SocketAddr>,
    learning_until: Instant,
    candidate: Option<Candidate>,
}

impl Latch {
    pub(super) fn new(signalled: SocketAddr, signalling_source: IpAddr, now: Instant) -> Self {
        Self {
            signalled,
            signalling_source: signalling_source.to_canonical(),
            locked: None,
            learning_until: now + PORT_CHANGE,
            candidate: None,
        }
    }

    /// A new offer or answer: only another address unlocks.
    pub(super) fn signalled(&mut self, remote: SocketAddr, now: Instant) {
        if self.signalled != remote {
            self.signalled = remote;
            self.locked = None;
            self.candidate = None;
            self.learning_until = now + PORT_CHANGE;
        }
    }

    /// The source that is taken; `None` before its first packet.
    pub(super) fn locked(&self) -> Option<SocketAddr> {
        self.locked
    }

    /// Where RTP goes.
    pub(super) fn destination(&self) -> SocketAddr {
        self.locked.unwrap_or(self.signalled)
    }

    /// The rules of who is believed: the signalled address at once; another port of it after four packets in order
    /// within the first five seconds; the signalling's source after as many. Once locked, only a new offer unlocks.
    pub(super) fn believes(&mut self, from: SocketAddr, packet: &Packet<'_>, now: Instant) -> bool {
        if let Some(locked) = self.locked {
            if locked == from {
                return true;
            }
            // The signalled address spoke first; another port of it may still take over while learning.
            if locked != self.signalled || now >= self.learning_until {
                return false;
            }
        } else if from == self.signalled {
            self.locked = Some(from);
            self.candidate = None;
            return true;
        }
        let same_address = from.ip() == self.signalled.ip();
        let may_learn = if same_address {
            now < self.learning_until
        } else {
            from.ip() == self.signalling_source && self.locked.is_none()
        };
        if !may_learn {
            return false;
        }
        let next = packet.sequence.wrapping_add(1);
        let seen = match self.candidate {
            Some(c) if c.from == from && c.ssrc == packet.ssrc && c.next == packet.sequence => {
                c.seen.saturating_add(1)
            }
            _ => 1,
        };
        self.candidate = Some(Candidate { from, ssrc: packet.ssrc, next, seen });
        if seen < PROBATION {
            return false;
        }
        self.locked = Some(from);
        self.candidate = None;
        true
    }
}
