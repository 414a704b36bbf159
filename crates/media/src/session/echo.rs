//! The echo: payloads go back as they come, bit for bit and at once, until the network is seen to lose or reorder
//! packets. From then on what goes back is what is heard: in order, complete and concealed.

use std::time::Instant;

use super::hearing::Hearing;
use super::reception::Step;
use super::{Agent, Outbox, Session};
use crate::jitter_buffer::Kind;
use crate::rtp::Packet;

/// Payloads kept for concealment to begin with: 60 ms at 20 ms each.
const KEPT: usize = 3;

/// How packets go back.
#[derive(Debug, Default)]
pub(super) struct Echo {
    /// The network was seen to lose or reorder, or payloads are never to go back as they come.
    impaired: bool,
    /// What is added to sequence numbers and timestamps on the way back.
    sequence_offset: u16,
    timestamp_offset: u32,
    /// The last payloads, the oldest first at `oldest`, and the timestamp of the last one.
    kept: [Vec<u8>; KEPT],
    oldest: usize,
    timestamp: u32,
}

impl Echo {
    /// An echo of what is heard from the first packet on, or of payloads as they come.
    pub(super) fn new(of_heard: bool) -> Self {
        Self { impaired: of_heard, ..Self::default() }
    }

    /// Whether payloads go back as they come.
    pub(super) fn is_transparent(&self) -> bool {
        !self.impaired
    }

    /// Forgets the payloads: another codec's follow.
    pub(super) fn forget(&mut self) {
        self.kept.iter_mut().for_each(Vec::clear);
    }

    /// A source begins: its packets follow on what was sent last.
    pub(super) fn join(&mut self, packet: &Packet<'_>, sequence: u16, timestamp: u32) {
        self.sequence_offset = sequence.wrapping_add(1).wrapping_sub(packet.sequence);
        self.timestamp_offset = timestamp.wrapping_add(160).wrapping_sub(packet.timestamp);
        self.forget();
    }

    /// A packet of ours was sent in between.
    pub(super) fn shift(&mut self) {
        self.sequence_offset = self.sequence_offset.wrapping_add(1);
    }

    fn keep(&mut self, packet: &Packet<'_>) {
        // In range: `oldest` is below KEPT.
        let slot = &mut self.kept[self.oldest];
        slot.clear();
        slot.extend_from_slice(packet.payload);
        self.oldest = (self.oldest + 1) % KEPT;
        self.timestamp = packet.timestamp;
    }
}

impl Session {
    /// Sends a packet back, when the agent is an echo.
    pub(super) fn echo(
        &mut self,
        packet: &Packet<'_>,
        kind: Option<Kind>,
        step: Step,
        now: Instant,
        out: &mut Outbox,
    ) {
        let echoes = self.started && matches!(self.agent, Agent::Echo) && self.negotiated.direction.sends();
        if !echoes {
            return;
        }
        let Some(to) = self.latch.locked() else { return };
        if self.echo.is_transparent() {
            match step {
                Step::Duplicate => return,
                Step::Gap | Step::Old => self.impaired(now),
                Step::NewSource | Step::Next => {}
            }
        }
        let transparent = self.echo.is_transparent();
        if !transparent && kind.is_some() {
            return;
        }
        // Events go back at once in either case: what is heard holds none.
        let mut back = Packet {
            sequence: packet.sequence.wrapping_add(self.echo.sequence_offset),
            timestamp: packet.timestamp.wrapping_add(self.echo.timestamp_offset),
            ssrc: self.ssrc,
            ..*packet
        };
        if !transparent {
            back.sequence = self.sequence.wrapping_add(1);
        } else {
            self.timestamp = back.timestamp;
        }
        self.sequence = back.sequence;
        if kind == Some(Kind::Audio) {
            self.echo.keep(packet);
        }
        let sent = out.push(to, &back.header(), packet.payload, self.srtp.as_deref_mut());
        self.statistics.sent += u64::from(sent);
        self.control.sent(packet.payload.len());
    }

    /// The first packet that does not follow: hearing takes over behind the last one that did.
    fn impaired(&mut self, now: Instant) {
        self.echo.impaired = true;
        let mut hearing = Hearing::new(self.negotiated.codec);
        let kept = (0..KEPT).map(|n| &self.echo.kept[(self.echo.oldest + n) % KEPT]);
        let kept = kept.filter(|payload| !payload.is_empty()).map(Vec::as_slice);
        // What was sent last had this number on the way in.
        let last = self.sequence.wrapping_sub(self.echo.sequence_offset);
        hearing.take_over(kept, last, self.echo.timestamp, now);
        self.hearing = Some(hearing);
        self.timestamp = self.echo.timestamp.wrapping_add(self.echo.timestamp_offset);
    }
}
