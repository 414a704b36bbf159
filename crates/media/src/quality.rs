//! How a call sounds: loss, jitter, round trip and MOS by the E-model, a second at a time and in all. Shared between the
//! session, which writes it once a second, and whoever asks.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use crate::codec::Codec;
use crate::e_model::{self, Loss};

/// Seconds kept one by one: an hour. Of a longer call the last one.
const MAX_SECONDS: usize = 3_600;

/// One direction of one second, or of the call.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// Packets that came.
    pub packets: u64,
    /// Packets that should have come.
    pub expected: u64,
    /// Lost ones, in percent of those expected.
    pub loss_percent: f32,
    /// Interarrival jitter in milliseconds: the mean difference of two packets' transit times (RFC 3550 6.4.1).
    pub jitter_ms: f32,
    /// Mean opinion score, 1 to 4.5.
    pub mos: f32,
}

/// One second, or the part of one that the call ended in.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Second {
    /// How long it was.
    pub length: Duration,
    /// What came from the peer.
    pub received: Figures,
    /// What the peer's last report says of the packets since the one before; `None` while it has reported nothing.
    pub sent: Option<Figures>,
    /// The last round trip, in milliseconds; `None` while nothing is known.
    pub rtt_ms: Option<f32>,
}

/// Why one side hears nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OneWay {
    /// Nothing came.
    NothingReceived,
    /// Packets came from an address that is not believed, and no other.
    NotBelieved,
    /// The peer reports, and never about our stream.
    NothingHeardByPeer,
}

/// The call so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// The last seconds, the oldest first.
    pub seconds: Vec<Second>,
    /// The place of the first of them in the call, in seconds.
    pub first_second: u64,
    /// What came from the peer, in all.
    pub received: Figures,
    /// The peer's word about what we sent.
    pub sent: Option<Figures>,
    /// Mean round trip, in milliseconds.
    pub rtt_ms: Option<f32>,
    /// Packets sent.
    pub packets_sent: u64,
    /// Whether one side hears nothing, and which.
    pub one_way: Option<OneWay>,
}

impl Report {
    /// The worse direction's score; `None` before there was anything to score.
    #[must_use]
    pub fn mos(&self) -> Option<f32> {
        let received = (self.received.expected > 0).then_some(self.received.mos);
        let sent = self.sent.map(|sent| sent.mos);
        [received, sent].into_iter().flatten().reduce(f32::min)
    }
}

/// What a session has received since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reception {
    /// Packets that should have come.
    pub expected: u64,
    /// Those that did not.
    pub lost: u64,
    /// Bursts they were lost in.
    pub bursts: u64,
    /// Differences of transit times, in microseconds, and their number.
    pub difference_us: u64,
    /// See `difference_us`.
    pub differences: u64,
}

impl Reception {
    /// What has come since then.
    fn since(self, before: Self) -> Self {
        Self {
            expected: self.expected.saturating_sub(before.expected),
            // What was missing then may have come late.
            lost: self.lost.saturating_sub(before.lost),
            bursts: self.bursts.saturating_sub(before.bursts),
            difference_us: self.difference_us.saturating_sub(before.difference_us),
            differences: self.differences.saturating_sub(before.differences),
        }
    }

    fn figures(self, codec: Codec, delay_ms: f64) -> Figures {
        let loss = Loss::counted(self.lost, self.expected, self.bursts);
        Figures {
            packets: self.expected.saturating_sub(self.lost),
            expected: self.expected,
            loss_percent: loss.percent as f32,
            jitter_ms: (self.difference_us as f64 / (self.differences as f64).max(1.0) / 1_000.0) as f32,
            mos: e_model::mos(codec, loss, delay_ms) as f32,
        }
    }
}

/// What the peer's reports say of our stream.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Told {
    /// Packets of ours that it should have had.
    pub expected: u64,
    /// Those that it did not have.
    pub lost: u64,
    /// Its jitter: the mean of what it reported, in milliseconds.
    pub jitter_ms: f32,
}

impl Told {
    fn figures(self, codec: Codec, delay_ms: f64) -> Figures {
        // A report does not tell how losses fall.
        let percent = 100.0 * self.lost as f64 / (self.expected as f64).max(1.0);
        Figures {
            packets: self.expected.saturating_sub(self.lost),
            expected: self.expected,
            loss_percent: percent as f32,
            jitter_ms: self.jitter_ms,
            mos: e_model::mos(codec, Loss::random(percent), delay_ms) as f32,
        }
    }
}

/// The log of one call.
#[derive(Debug, Default)]
pub struct QualityLog(Mutex<Log>);

#[derive(Debug, Default)]
struct Log {
    seconds: VecDeque<Second>,
    dropped: u64,
    before: Reception,
    /// Our delay in the buffer, and the time it is the mean of.
    buffer: Mean,
    report: Report,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: f64, weight: f64) {
        self.sum += value * weight;
        self.weight += weight;
    }

    fn get(self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }
}

/// What a session knows when a second is over.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// How long the second was.
    pub length: Duration,
    /// The codec.
    pub codec: Codec,
    /// Length of a packet, in milliseconds.
    pub packet_ms: u32,
    /// What was received since the beginning.
    pub received: Reception,
    /// What the peer told: in all, and in its last report.
    pub told: Option<(Told, Told)>,
    /// Round trip, in milliseconds: the mean of all, and the last one.
    pub rtt_ms: Option<(f32, f32)>,
    /// Our own delay in the buffer, in milliseconds.
    pub buffer_ms: f32,
    /// Packets sent since the beginning.
    pub sent: u64,
    /// Whether one side hears nothing.
    pub one_way: Option<OneWay>,
}

impl QualityLog {
    /// A second is over.
    pub fn add(&self, sample: &Sample) {
        let log = &mut *self.0.lock();
        let codec = sample.codec;
        log.buffer.add(sample.buffer_ms.into(), sample.length.as_secs_f64());
        // From mouth to ear: a packet is filled, travels, and waits in the buffer. What the peer's buffer adds is not known.
        let way = |rtt: Option<f32>| f64::from(sample.packet_ms) + f64::from(rtt.unwrap_or(0.0)) / 2.0;
        let (mean, last) = (sample.rtt_ms.map(|(mean, _)| mean), sample.rtt_ms.map(|(_, last)| last));
        let second = Second {
            length: sample.length,
            received: sample
                .received
                .since(log.before)
                .figures(codec, way(last) + f64::from(sample.buffer_ms)),
            sent: sample.told.map(|(_, told)| told.figures(codec, way(last))),
            rtt_ms: last,
        };
        log.before = sample.received;
        if log.seconds.len() >= MAX_SECONDS {
            log.seconds.pop_front();
            log.dropped += 1;
        }
        log.seconds.push_back(second);
        log.report.received = sample.received.figures(codec, way(mean) + log.buffer.get());
        log.report.sent = sample.told.map(|(told, _)| told.figures(codec, way(mean)));
        log.report.rtt_ms = mean;
        log.report.packets_sent = sample.sent;
        log.report.one_way = sample.one_way;
    }

    /// The last second; `None` before the first is over.
    #[must_use]
    pub fn latest(&self) -> Option<Second> {
        self.0.lock().seconds.back().copied()
    }

    /// The call so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let log = self.0.lock();
        Report {
            seconds: log.seconds.iter().copied().collect(),
            first_second: log.dropped,
            ..log.report.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_counts_what_is_new_and_the_call_counts_all() {
        let log = QualityLog::default();
        let received = |expected, lost, difference_us| Reception {
            expected,
            lost,
            bursts: lost,
            difference_us,
            differences: expected,
        };
        let sample = Sample {
            length: Duration::from_secs(1),
            codec: Codec::Pcmu,
            packet_ms: 20,
            received: received(50, 0, 100_000),
            told: None,
            rtt_ms: None,
            buffer_ms: 0.0,
            sent: 50,
            one_way: None,
        };
        log.add(&sample);
        let told = |expected, lost| Told { expected, lost, jitter_ms: 4.0 };
        log.add(&Sample {
            length: Duration::from_millis(500),
            received: received(100, 5, 400_000),
            told: Some((told(100, 10), told(40, 8))),
            rtt_ms: Some((40.0, 60.0)),
            ..sample
        });
        let report = log.report();
        let [first, second] = report.seconds[..] else { panic!("{report:?}") };
        assert_eq!((first.received.loss_percent, first.received.jitter_ms, first.sent), (0.0, 2.0, None));
        assert_eq!((second.received.packets, second.received.expected), (45, 50));
        assert_eq!((second.received.loss_percent, second.received.jitter_ms), (10.0, 6.0));
        assert_eq!((second.sent.unwrap().loss_percent, second.rtt_ms), (20.0, Some(60.0)));
        assert_eq!(second.length, Duration::from_millis(500));
        assert_eq!((report.received.loss_percent, report.received.jitter_ms), (5.0, 4.0));
        let sent = report.sent.unwrap();
        assert_eq!((sent.loss_percent, sent.jitter_ms, report.rtt_ms), (10.0, 4.0, Some(40.0)));
        assert_eq!(report.mos(), Some(sent.mos));
    }
}
