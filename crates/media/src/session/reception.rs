//! What is counted of the stream that is taken (RFC 3550 A.1, A.3, A.8).

use std::time::Instant;

use crate::rtcp::Block;
use crate::rtp::Packet;

/// How a packet follows on the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The first one of a source.
    NewSource,
    /// The next one.
    Next,
    /// Some before it are missing.
    Gap,
    /// It comes after ones that were sent later.
    Old,
    /// It was here already.
    Duplicate,
}

/// A source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) ssrc: u32,
    first: u16,
    pub(super) highest: u16,
    cycles: u32,
    received: u64,
    /// Interarrival jitter in clock units, times 16, and the last packet's transit.
    jitter: i64,
    transit: Option<(i64, u32)>,
    /// At the report before.
    expected_before: i64,
    received_before: u64,
}

/// Every source there was.
#[derive(Debug, Default)]
pub(super) struct Reception {
    pub(super) source: Option<Source>,
    /// Of the sources before this one.
    past_expected: i64,
    past_received: u64,
    epoch: Option<Instant>,
}

impl Reception {
    /// Counts a packet. Only those of `audio` tell about jitter: a telephone-event keeps its first timestamp.
    pub(super) fn count(&mut self, packet: &Packet<'_>, audio: bool, clock: u32, now: Instant) -> Step {
        let epoch = *self.epoch.get_or_insert(now);
        let step = match &mut self.source {
            Some(source) if source.ssrc == packet.ssrc => {
                source.received += 1;
                let ahead = packet.sequence.wrapping_sub(source.highest);
                if ahead != 0 && ahead < 0x8000 {
                    if packet.sequence < source.highest {
                        source.cycles += 1;
                    }
                    source.highest = packet.sequence;
                }
                match ahead {
                    0 => Step::Duplicate,
                    1 => Step::Next,
                    2..0x8000 => Step::Gap,
                    _ => Step::Old,
                }
            }
            slot => {
                if let Some(source) = slot.take() {
                    self.past_expected += source.expected();
                    self.past_received += source.received;
                }
                *slot = Some(Source {
                    ssrc: packet.ssrc,
                    first: packet.sequence,
                    highest: packet.sequence,
                    cycles: 0,
                    received: 1,
                    jitter: 0,
                    transit: None,
                    expected_before: 0,
                    received_before: 0,
                });
                Step::NewSource
            }
        };
        if let (Some(source), true) = (&mut self.source, audio && step != Step::Duplicate) {
            let micros = i64::try_from(now.saturating_duration_since(epoch).as_micros()).unwrap_or(0);
            let arrival = micros * i64::from(clock) / 1_000_000;
            // The timestamp's wrap cancels in the difference.
            if let Some((before, timestamp)) = source.transit {
                let sent = i64::from(packet.timestamp.wrapping_sub(timestamp).cast_signed());
                let difference = (arrival - before - sent).abs();
                // A pause without counted time is no jitter.
                if difference < i64::from(clock) {
                    source.jitter += difference - ((source.jitter + 8) >> 4);
                }
            }
            source.transit = Some((arrival, packet.timestamp));
        }
        step
    }

    /// Whoever sends next is another source, whatever its SSRC.
    pub(super) fn forget_source(&mut self) {
        if let Some(source) = self.source.take() {
            self.past_expected += source.expected();
            self.past_received += source.received;
        }
    }

    /// Packets that should have come.
    pub(super) fn expected(&self) -> i64 {
        self.past_expected + self.source.as_ref().map_or(0, Source::expected)
    }

    /// Packets that came.
    pub(super) fn received(&self) -> u64 {
        self.past_received + self.source.map_or(0, |source| source.received)
    }

    /// Interarrival jitter in clock units.
    pub(super) fn jitter(&self) -> u32 {
        self.source.map_or(0, |source| u32::try_from(source.jitter >> 4).unwrap_or(0))
    }

    /// The block of the next report.
    pub(super) fn block(&mut self) -> Option<Block> {
        let jitter = self.jitter();
        let source = self.source.as_mut()?;
        let expected = source.expected() - source.expected_before;
        let received = i64::try_from(source.received - source.received_before).unwrap_or(i64::MAX);
        source.expected_before = source.expected();
        source.received_before = source.received;
        let lost = (expected - received).max(0);
        let fraction = if expected > 0 { (lost << 8) / expected } else { 0 };
        Some(Block {
            ssrc: source.ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            lost: i32::try_from(source.expected() - i64::try_from(source.received).unwrap_or(i64::MAX))
                .unwrap_or(i32::MAX),
            highest: source.cycles << 16 | u32::from(source.highest),
            jitter,
            ..Block::default()
        })
    }
}

impl Source {
    fn expected(&self) -> i64 {
        (i64::from(self.cycles) << 16 | i64::from(self.highest)) - i64::from(self.first) + 1
    }
}
