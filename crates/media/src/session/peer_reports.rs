//! What the peer's receiver reports tell of our stream (RFC 3550 6.4.1): counted from report to report, so that another
//! peer may go on where one left off.

use super::control::Stream;
use crate::quality::Told;
use crate::rtcp::Block;

/// Longest round trip that is believed: a minute, in 65,536ths of a second. A longer one is of a report about something
/// else.
const MAX_TRIP: u32 = 60 << 16;
/// The peer rounds the time it waited, so that a very short round trip may come out below nothing; in the same units.
const ROUNDING: u32 = 64;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct PeerReports {
    /// Who reported last: its SSRC, the packets of ours it has accounted for, and what it said it had lost.
    last: Option<(u32, u64, i32)>,
    /// Accounted for in all.
    expected: u64,
    lost: i64,
    /// Sums of what was told, and how often.
    jitter: (f64, u32),
    trips: (f64, u32),
    last_trip_ms: f32,
    interval: Told,
}

impl PeerReports {
    /// A report came, when `middle` was the middle of our NTP time.
    pub(super) fn add(&mut self, reporter: u32, block: &Block, ours: &Stream, middle: u32) {
        // Cycles are the peer's own count; its last 16 bits say how far behind our last packet it is.
        let behind = u64::from(ours.last.wrapping_sub((block.highest & 0xffff) as u16));
        // One that names a packet never sent is taken to be about all of them.
        let accounted = ours.sent.checked_sub(behind).unwrap_or(ours.sent);
        let before = self.last.map_or(0, |(_, accounted, _)| accounted);
        let expected = accounted.saturating_sub(before);
        // Who is new has lost what it says since it began.
        let same = self.last.filter(|(who, ..)| *who == reporter);
        let lost = i64::from(block.lost) - same.map_or(0, |(.., lost)| i64::from(lost));
        let most = i64::try_from(expected).unwrap_or(i64::MAX);
        let lost = lost.clamp(-most, most);
        self.expected += expected;
        self.lost += lost;
        self.last = Some((reporter, accounted.max(before), block.lost));
        let jitter_ms = block.jitter as f32 * 1_000.0 / ours.clock as f32;
        self.jitter = (self.jitter.0 + f64::from(jitter_ms), self.jitter.1 + 1);
        self.interval = Told { expected, lost: u64::try_from(lost).unwrap_or(0), jitter_ms };
        if block.last_report != 0 {
            let trip = middle.wrapping_sub(block.last_report).wrapping_sub(block.delay);
            let trip = if trip > u32::MAX - ROUNDING { 0 } else { trip };
            if trip < MAX_TRIP {
                self.last_trip_ms = trip as f32 * 1_000.0 / 65_536.0;
                self.trips = (self.trips.0 + f64::from(self.last_trip_ms), self.trips.1 + 1);
            }
        }
    }

    /// In all, and by the last report; `None` while there was none.
    pub(super) fn told(&self) -> Option<(Told, Told)> {
        self.last?;
        let all = Told {
            expected: self.expected,
            lost: u64::try_from(self.lost).unwrap_or(0),
            jitter_ms: (self.jitter.0 / f64::from(self.jitter.1.max(1))) as f32,
        };
        Some((all, self.interval))
    }

    /// The mean round trip and the last one, in milliseconds; `None` while none is known.
    pub(super) fn rtt_ms(&self) -> Option<(f32, f32)> {
        let (sum, count) = self.trips;
        (count > 0).then(|| ((sum / f64::from(count)) as f32, self.last_trip_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u32 = 1 << 16;

    fn ours(sent: u64) -> Stream {
        Stream { ssrc: 1, last: 65_000_u16.wrapping_add(sent as u16), sent, clock: 8_000 }
    }

    /// The report about the first `highest` of our packets.
    fn block(highest: u16, lost: i32) -> Block {
        Block {
            ssrc: 1,
            lost,
            highest: u32::from(65_000_u16.wrapping_add(highest)),
            jitter: 80,
            ..Block::default()
        }
    }

    #[test]
    fn loss_is_of_what_the_peer_has_accounted_for_and_not_of_what_was_sent_since() {
        let mut reports = PeerReports::default();
        reports.add(7, &block(250, 25), &ours(260), 0);
        let (all, _) = reports.told().unwrap();
        assert_eq!((all.expected, all.lost, all.jitter_ms), (250, 25, 10.0));
        // Past the wrap of the sequence number; the same highest number twice is nothing new.
        reports.add(7, &block(1_000, 175), &ours(1_004), 0);
        reports.add(7, &block(1_000, 175), &ours(1_010), 0);
        let (all, last) = reports.told().unwrap();
        assert_eq!((all.expected, all.lost), (1_000, 175));
        assert_eq!((last.expected, last.lost), (0, 0));
        // Ten that were lost have come late.
        reports.add(7, &block(1_100, 165), &ours(1_100), 0);
        assert_eq!(reports.told().unwrap().0.lost, 165);
    }

    #[test]
    fn another_peer_goes_on_where_the_first_left_off() {
        let mut reports = PeerReports::default();
        reports.add(7, &block(500, 50), &ours(500), 0);
        reports.add(8, &block(1_000, 5), &ours(1_000), 0);
        let (all, last) = reports.told().unwrap();
        assert_eq!((all.expected, all.lost), (1_000, 55));
        assert_eq!((last.expected, last.lost), (500, 5));
    }

    #[test]
    fn reports_that_lie_stay_within_what_was_sent() {
        for (highest, lost) in [(40_000, i32::MAX), (0, i32::MIN), (999, 0x7f_ffff), (65_535, -1)] {
            let mut reports = PeerReports::default();
            for sent in [100, 200, 300] {
                reports.add(7, &block(highest, lost), &ours(sent), 0);
            }
            let (all, last) = reports.told().unwrap();
            assert!(all.expected <= 300 && all.lost <= all.expected, "{all:?}");
            assert!(last.lost <= last.expected, "{last:?}");
        }
    }

    #[test]
    fn a_round_trip_is_what_the_peer_did_not_wait() {
        let mut reports = PeerReports::default();
        assert_eq!(reports.rtt_ms(), None);
        let at = |delay| Block { last_report: 5 * SECOND, delay, ..block(1, 0) };
        reports.add(7, &at(SECOND), &ours(1), 6 * SECOND + SECOND / 4);
        assert_eq!(reports.rtt_ms(), Some((250.0, 250.0)));
        // Rounded below nothing, and about something else.
        reports.add(7, &at(SECOND + 3), &ours(1), 6 * SECOND);
        assert_eq!(reports.rtt_ms(), Some((125.0, 0.0)));
        reports.add(7, &at(10 * SECOND), &ours(1), 6 * SECOND);
        assert_eq!(reports.rtt_ms(), Some((125.0, 0.0)));
    }
}
