//! How a call sounds: loss, jitter, round trip and MOS by the E-model (ITU-T G.107), a second at a time and in all.
//! Shared between the session, which writes it once a second, and whoever asks.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::codec::Codec;

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
    /// Interarrival jitter (RFC 3550 6.4.1), in milliseconds.
    pub jitter_ms: f32,
    /// Mean opinion score, 1 to 4.5.
    pub mos: f32,
}

/// One second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Second {
    /// What came from the peer.
    pub received: Figures,
    /// What the peer says of what we sent; `None` while it has reported nothing.
    pub sent: Option<Figures>,
    /// Round trip, in milliseconds; `None` while nothing is known.
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

/// The log of one call.
#[derive(Debug, Default)]
pub struct QualityLog(Mutex<Log>);

#[derive(Debug, Default)]
struct Log {
    seconds: VecDeque<Second>,
    dropped: u64,
    jitter: Mean,
    peer_jitter: Mean,
    rtt: Mean,
    report: Report,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: f32) {
        self.sum += f64::from(value);
        self.count += 1;
    }

    fn get(self) -> Option<f32> {
        (self.count > 0).then(|| (self.sum / f64::from(self.count)) as f32)
    }
}

/// What a session knows when a second is over.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// The codec.
    pub codec: Codec,
    /// Packets received and expected since the beginning.
    pub received: u64,
    /// See `received`.
    pub expected: u64,
    /// Jitter now; `None` when nothing came in this second.
    pub jitter_ms: Option<f32>,
    /// The peer's last report: lost and received packets of ours since the beginning, and jitter.
    pub peer: Option<(u64, u64, f32)>,
    /// The part that the peer lost between its last two reports, in percent.
    pub peer_loss_percent: f32,
    /// A round trip measured in this second.
    pub rtt_ms: Option<f32>,
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
        let before = log.report.received;
        if let Some(jitter) = sample.jitter_ms {
            log.jitter.add(jitter);
        }
        if let Some((.., jitter)) = sample.peer {
            log.peer_jitter.add(jitter);
        }
        if let Some(rtt) = sample.rtt_ms {
            log.rtt.add(rtt);
        }
        let rtt = log.rtt.get();
        let delay = rtt.unwrap_or(0.0) / 2.0 + sample.buffer_ms + 20.0;
        let figures = |packets: u64, expected: u64, loss: f32, jitter: f32| Figures {
            packets,
            expected,
            loss_percent: loss,
            jitter_ms: jitter,
            mos: mos(sample.codec, loss, delay),
        };
        let percent = |packets: u64, expected: u64| {
            100.0 * expected.saturating_sub(packets) as f32 / (expected as f32).max(1.0)
        };
        let packets = sample.received.saturating_sub(before.packets);
        let expected = sample.expected.saturating_sub(before.expected);
        let jitter = sample.jitter_ms.unwrap_or(0.0);
        let second = Second {
            received: figures(packets, expected, percent(packets, expected), jitter),
            sent: sample
                .peer
                .map(|(_, received, jitter)| figures(received, received, sample.peer_loss_percent, jitter)),
            rtt_ms: sample.rtt_ms.or(rtt),
        };
        if log.seconds.len() >= MAX_SECONDS {
            log.seconds.pop_front();
            log.dropped += 1;
        }
        log.seconds.push_back(second);
        log.report.received = figures(
            sample.received,
            sample.expected,
            percent(sample.received, sample.expected),
            log.jitter.get().unwrap_or(0.0),
        );
        log.report.sent = sample.peer.map(|(lost, received, _)| {
            let total = lost + received;
            figures(received, total, percent(received, total), log.peer_jitter.get().unwrap_or(0.0))
        });
        log.report.rtt_ms = rtt;
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

/// Mean opinion score by the E-model: equipment and loss impairment of the codec with its concealment (G.113
/// Appendix I; random loss), and the one-way delay in milliseconds.
#[must_use]
pub fn mos(codec: Codec, loss_percent: f32, delay_ms: f32) -> f32 {
    // Equipment impairment, and robustness against loss.
    let (equipment, robustness) = match codec {
        Codec::Pcmu | Codec::Pcma | Codec::G722 => (0.0, 25.1),
        Codec::Opus => (0.0, 30.0),
    };
    let loss = equipment + (95.0 - equipment) * loss_percent / (loss_percent + robustness);
    let delay = 0.024 * delay_ms + if delay_ms > 177.3 { 0.11 * (delay_ms - 177.3) } else { 0.0 };
    let r = (93.2 - loss - delay).clamp(0.0, 100.0);
    if r <= 6.5 { 1.0 } else { 1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_the_e_model() {
        let near = |value: f32, wanted: f32| assert!((value - wanted).abs() < 0.02, "{value} {wanted}");
        near(mos(Codec::Pcmu, 0.0, 0.0), 4.41);
        near(mos(Codec::Pcmu, 10.0, 0.0), 3.42);
        near(mos(Codec::Pcmu, 0.0, 300.0), 3.71);
        near(mos(Codec::Pcmu, 100.0, 0.0), 1.18);
        near(mos(Codec::Pcmu, 100.0, 400.0), 1.0);
    }

    #[test]
    fn a_second_counts_what_is_new_and_the_call_counts_all() {
        let log = QualityLog::default();
        let sample = Sample {
            codec: Codec::Pcmu,
            received: 50,
            expected: 50,
            jitter_ms: Some(2.0),
            peer: None,
            peer_loss_percent: 0.0,
            rtt_ms: None,
            buffer_ms: 0.0,
            sent: 50,
            one_way: None,
        };
        log.add(&sample);
        let peer = Some((10, 90, 4.0));
        log.add(&Sample {
            received: 95,
            expected: 100,
            jitter_ms: Some(4.0),
            peer,
            rtt_ms: Some(40.0),
            ..sample
        });
        let report = log.report();
        assert_eq!(report.seconds[1].received.loss_percent, 10.0);
        assert_eq!((report.received.loss_percent, report.received.jitter_ms), (5.0, 3.0));
        let sent = report.sent.unwrap();
        assert_eq!((sent.loss_percent, sent.jitter_ms, report.rtt_ms), (10.0, 4.0, Some(40.0)));
        assert_eq!(report.mos(), Some(sent.mos));
    }
}
