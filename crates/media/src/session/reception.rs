//! What is counted of the stream that is taken: for the peer as RFC 3550 wants it (A.1, A.3, A.8), and for ourselves
//! which packets are lost, whatever comes late or twice.

use std::time::Instant;

use super::arrivals::Arrivals;
use crate::quality::Reception as Totals;
use crate::rtcp::Block;
use crate::rtp::Packet;

/// A sequence number so far ahead, or so far behind, is of a sender that began anew (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3_000;
const MAX_MISORDER: u16 = 100;

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
    /// A number far from the others, and the one that would prove that the sender began anew.
    restart: Option<u16>,
    arrivals: Arrivals,
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
    past: Totals,
    /// Differences of transit times, in microseconds, and their number.
    differences: (u64, u64),
    epoch: Option<Instant>,
}

impl Reception {
    /// Counts a packet. Only those of `audio` tell about jitter: a telephone-event keeps its first timestamp.
    pub(super) fn count(&mut self, packet: &Packet<'_>, audio: bool, clock: u32, now: Instant) -> Step {
        let epoch = *self.epoch.get_or_insert(now);
        let step = match &mut self.source {
            Some(source) if source.ssrc == packet.ssrc => source.count(packet.sequence),
            _ => Step::NewSource,
        };
        if step == Step::NewSource {
            self.forget_source();
            self.source = Some(Source::new(packet));
        }
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
                    self.differences.0 += difference.unsigned_abs() * 1_000_000 / u64::from(clock);
                    self.differences.1 += 1;
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
            self.past = source.totals(self.past);
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

    /// What tells of quality, since the beginning.
    pub(super) fn totals(&self) -> Totals {
        let totals = self.source.as_ref().map_or(self.past, |source| source.totals(self.past));
        let (difference_us, differences) = self.differences;
        Totals { difference_us, differences, ..totals }
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
    fn new(packet: &Packet<'_>) -> Self {
        Self {
            ssrc: packet.ssrc,
            first: packet.sequence,
            highest: packet.sequence,
            cycles: 0,
            received: 1,
            restart: None,
            arrivals: Arrivals::default(),
            jitter: 0,
            transit: None,
            expected_before: 0,
            received_before: 0,
        }
    }

    fn count(&mut self, sequence: u16) -> Step {
        let ahead = sequence.wrapping_sub(self.highest);
        if (MAX_DROPOUT..=u16::MAX - MAX_MISORDER).contains(&ahead) {
            // Two of them in order are a new beginning; one alone is a stray, and counts for nothing.
            let proven = self.restart == Some(sequence);
            self.restart = Some(sequence.wrapping_add(1));
            return if proven { Step::NewSource } else { Step::Gap };
        }
        self.restart = None;
        self.received += 1;
        if (1..MAX_DROPOUT).contains(&ahead) {
            if sequence < self.highest {
                self.cycles += 1;
            }
            self.highest = sequence;
            self.arrivals.ahead(ahead);
        } else {
            self.arrivals.behind(ahead.wrapping_neg());
        }
        match ahead {
            0 => Step::Duplicate,
            1 => Step::Next,
            2..MAX_DROPOUT => Step::Gap,
            _ => Step::Old,
        }
    }

    fn expected(&self) -> i64 {
        (i64::from(self.cycles) << 16 | i64::from(self.highest)) - i64::from(self.first) + 1
    }

    /// Those of the sources before this one and its own.
    fn totals(&self, past: Totals) -> Totals {
        let (lost, bursts) = self.arrivals.lost();
        Totals {
            expected: past.expected + u64::try_from(self.expected()).unwrap_or(0),
            lost: past.lost + lost,
            bursts: past.bursts + bursts,
            ..past
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn count(reception: &mut Reception, sequences: &[u16]) -> Vec<Step> {
        let now = Instant::now();
        let packet = |&sequence: &u16| Packet {
            marker: false,
            payload_type: 0,
            sequence,
            timestamp: u32::from(sequence) * 160,
            ssrc: 9,
            payload: &[],
        };
        sequences.iter().map(|sequence| reception.count(&packet(sequence), true, 8_000, now)).collect()
    }

    #[test]
    fn what_comes_late_is_not_lost_and_what_comes_twice_makes_up_for_nothing() {
        let mut reception = Reception::default();
        count(&mut reception, &[65_533, 65_534, 2, 65_535, 3, 3, 3, 1]);
        let totals = reception.totals();
        assert_eq!((totals.expected, totals.lost, totals.bursts), (7, 1, 1));
        // The peer is told what RFC 3550 says: duplicates count.
        assert_eq!((reception.expected(), reception.received()), (7, 8));
    }

    #[test]
    fn a_stray_number_counts_for_nothing_and_a_new_beginning_loses_nothing() {
        let mut reception = Reception::default();
        assert_eq!(count(&mut reception, &[1, 2, 30_000, 3])[2..], [Step::Gap, Step::Next]);
        assert_eq!((reception.totals().expected, reception.totals().lost), (3, 0));
        assert_eq!(count(&mut reception, &[40_000, 40_001, 40_002])[1..], [Step::NewSource, Step::Next]);
        assert_eq!((reception.totals().expected, reception.totals().lost), (5, 0));
    }

    /// Each packet's own difference counts the same; the figure of RFC 3550 A.8 follows the last ones.
    #[test]
    fn jitter_is_the_mean_difference_of_transit_times() {
        let mut reception = Reception::default();
        let start = Instant::now();
        for n in 0..100_u16 {
            let late = if n % 2 == 1 { 8 } else { 0 };
            let packet = Packet {
                marker: false,
                payload_type: 0,
                sequence: n,
                timestamp: u32::from(n) * 160,
                ssrc: 9,
                payload: &[],
            };
            let now = start + Duration::from_millis(u64::from(n) * 20 + late);
            reception.count(&packet, true, 8_000, now);
        }
        let totals = reception.totals();
        assert_eq!((totals.difference_us, totals.differences), (99 * 8_000, 99));
        assert_eq!(reception.jitter(), 63);
    }
}
