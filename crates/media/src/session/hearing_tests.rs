use super::*;
use crate::detect::{level_db, total_db};

const MS: f64 = 1.0;

/// A source at 20 ms a packet, a network, and the clock of the hearer, in virtual time.
struct Line {
    hearing: Hearing,
    start: Instant,
    heard: Vec<i16>,
    /// Arrivals in milliseconds: when, sequence number, timestamp, payload.
    packets: Vec<(f64, u16, u32, Vec<u8>)>,
}

/// A number from 0 to 1 for every `n`, always the same.
fn dice(n: u64) -> f64 {
    let mixed = (n ^ 0x9e37_79b9).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 40) as f64 / (1_u64 << 24) as f64
}

fn tone(n: u64, hz: f64) -> Vec<u8> {
    let mut payload = Vec::new();
    let samples: Vec<i16> = (0..160)
        .map(|k| (9_000.0 * (std::f64::consts::TAU * hz * (n * 160 + k) as f64 / 8_000.0).sin()) as i16)
        .collect();
    Codec::Pcmu.encoder().encode(&samples, &mut payload);
    payload
}

impl Line {
    fn new() -> Self {
        let start = Instant::now();
        let mut hearing = Hearing::new(Codec::Pcmu);
        hearing.next = Some(start);
        Self { hearing, start, heard: Vec::new(), packets: Vec::new() }
    }

    fn at(&self, ms: f64) -> Instant {
        self.start + Duration::from_micros((ms * 1_000.0) as u64)
    }

    /// A tone of `packets` packets from a clock that is `ppm` fast; `network` tells each one's delay or loses it.
    fn sends(&mut self, packets: u64, ppm: f64, network: impl Fn(u64) -> Option<f64>) {
        for n in 0..packets {
            let sent = 100.0 + n as f64 * 20.0 * MS * (1.0 - ppm / 1e6);
            if let Some(delay) = network(n) {
                let (sequence, timestamp) = (65_000_u64 + n, 0xffff_0000_u64 + n * 160);
                self.packets.push((sent + delay, sequence as u16, timestamp as u32, tone(n, 440.0)));
            }
        }
    }

    /// Runs until `ms`; hears one frame every 20 ms.
    fn runs_until(&mut self, ms: f64) {
        self.packets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut packets = std::mem::take(&mut self.packets).into_iter().peekable();
        let mut ticks = 0_u32;
        let begun = self.hearing.next.unwrap().duration_since(self.start).as_secs_f64() * 1_000.0;
        loop {
            let tick = self.hearing.next.unwrap().duration_since(self.start).as_secs_f64() * 1_000.0;
            match packets.peek() {
                Some((arrival, ..)) if *arrival <= tick => {
                    let (arrival, sequence, timestamp, payload) = packets.next().unwrap();
                    let packet = Packet {
                        marker: false,
                        payload_type: 0,
                        sequence,
                        timestamp,
                        ssrc: 1,
                        payload: &payload,
                    };
                    let now = self.at(arrival);
                    self.hearing.insert(&packet, Kind::Audio, now);
                }
                _ if tick > ms => break,
                _ => {
                    let now = self.hearing.next.unwrap();
                    let before = self.heard.len();
                    assert!(self.hearing.frame(now, &mut self.heard));
                    assert_eq!(self.heard.len() - before, 160);
                    ticks += 1;
                }
            }
        }
        let expected = (ms - begun) / 20.0;
        assert!((f64::from(ticks) - expected).abs() < 3.0, "{ticks} frames in {ms} ms");
    }

    /// Milliseconds of silence before the first sound.
    fn delay(&self) -> f64 {
        self.heard.iter().position(|s| s.abs() > 100).unwrap() as f64 / 8.0 - 100.0
    }

    fn purity(&self, from_ms: usize) -> f64 {
        let heard = &self.heard[from_ms * 8..];
        // In stretches of 100 ms, so that a step in phase counts once.
        let worst = heard.chunks_exact(800).map(|c| total_db(c) - level_db(c, 8_000, 440.0));
        worst.sum::<f64>() / (heard.len() / 800) as f64
    }
}

#[test]
fn a_clean_line_is_bit_exact_and_hardly_late() {
    let mut line = Line::new();
    line.sends(500, 0.0, |n| Some(30.0 + dice(n) * 3.0));
    line.runs_until(9_000.0);
    let mut sent = Vec::new();
    for n in 0..430 {
        Codec::Pcmu.decoder().decode(&tone(n, 440.0), &mut sent);
    }
    let begin = line.heard.iter().position(|s| *s != 0).unwrap() - sent.iter().position(|s| *s != 0).unwrap();
    assert_eq!(line.heard[begin..begin + sent.len()], sent);
    assert!(line.delay() < 30.0 + 25.0, "{}", line.delay());
    assert_eq!(line.hearing.statistics(), BufferStatistics::default());
}

#[test]
fn lost_packets_are_concealed_and_the_rest_is_exact() {
    let mut line = Line::new();
    let lost = |n: u64| n > 20 && dice(n) < 0.1;
    line.sends(1_000, 0.0, |n| (!lost(n)).then_some(30.0));
    line.runs_until(20_000.0);
    let statistics = line.hearing.statistics();
    let expected = (0..990).filter(|n| lost(*n)).count() as f64;
    assert!((statistics.lost as f64 - expected).abs() <= 4.0, "{statistics:?} {expected}");
    assert_eq!((statistics.late, statistics.resets), (0, 0));
    // A steady tone is easy: what is concealed goes on with it.
    assert!(line.purity(200) < 0.2, "{}", line.purity(200));
}

#[test]
fn jitter_and_reordering_are_absorbed() {
    let mut line = Line::new();
    line.sends(3_000, 0.0, |n| Some(20.0 + dice(n) * 60.0));
    line.runs_until(20_000.0);
    let early = line.hearing.statistics();
    line.runs_until(60_000.0);
    let mut line = Line::new();
    line.sends(3_000, 0.0, |n| Some(20.0 + dice(n) * 60.0));
    line.runs_until(59_000.0);
    let late = line.hearing.statistics();
    let target = line.hearing.target().as_millis();
    assert!((55..=80).contains(&target), "{target} ms");
    assert!(early.late <= 40, "{early:?}");
    assert!((late.late - early.late) as f64 / 2_000.0 < 0.04, "{early:?} {late:?}");
}

#[test]
fn a_quiet_network_gets_its_low_delay_back() {
    let mut line = Line::new();
    line.sends(3_000, 0.0, |n| Some(if n < 500 { 20.0 + dice(n) * 100.0 } else { 20.0 }));
    line.runs_until(59_000.0);
    assert!(line.hearing.target().as_millis() <= 15);
    let statistics = line.hearing.statistics();
    // The end of what was sent is heard soon after its end.
    let last = line.heard.iter().rposition(|s| s.abs() > 1_000).unwrap() as f64 / 8.0;
    assert!(last < 59_000.0 + 100.0 + 60.0, "{last} {statistics:?}");
}

#[test]
fn clocks_that_drift_are_followed_without_loss() {
    for ppm in [200.0, -200.0] {
        let mut line = Line::new();
        line.sends(15_000, ppm, |n| Some(30.0 + dice(n) * 4.0));
        line.runs_until(298_000.0);
        let statistics = line.hearing.statistics();
        assert!(statistics.lost + statistics.late <= 3 && statistics.resets == 0, "{ppm}: {statistics:?}");
        assert!(line.purity(1_000) < 0.1, "{ppm}: {}", line.purity(1_000));
        // Five minutes at 200 ppm are 60 ms; the delay did not grow by them.
        let ahead = line.hearing.buffer.target();
        assert!(ahead.as_millis() <= 20, "{ppm}: {ahead:?}");
    }
}

#[test]
fn pauses_are_silence_whether_their_time_is_counted_or_not() {
    for counted in [true, false] {
        let mut line = Line::new();
        for burst in 0..5_u64 {
            for n in 0..50 {
                let number = burst * 50 + n;
                let sent = 100.0 + burst as f64 * 3_000.0 + n as f64 * 20.0;
                let time = if counted { burst * 150 + n } else { number };
                line.packets.push((sent + 30.0, number as u16, (time * 160) as u32, tone(number, 440.0)));
            }
        }
        line.runs_until(15_000.0);
        let statistics = line.hearing.statistics();
        assert_eq!(statistics.late, 0, "{counted}: {statistics:?}");
        for burst in 0..5 {
            let begin = 100 + burst * 3_000;
            let talk = &line.heard[(begin + 150) * 8..(begin + 950) * 8];
            assert!(level_db(talk, 8_000, 440.0) > -12.5, "{counted} {burst}");
            let pause = &line.heard[(begin + 1_500) * 8..(begin + 2_900) * 8];
            assert_eq!(total_db(pause), -120.0, "{counted} {burst}");
        }
    }
}

#[test]
fn a_stall_is_survived_and_a_step_in_delay_is_followed() {
    let mut line = Line::new();
    // Nothing for 400 ms, then everything at once; later the path gets 150 ms longer for good.
    line.sends(1_500, 0.0, |n| {
        let stalled = if (200..220).contains(&n) { (220 - n) as f64 * 20.0 } else { 0.0 };
        Some(30.0 + stalled + if n > 700 { 150.0 } else { 0.0 })
    });
    line.runs_until(29_000.0);
    let statistics = line.hearing.statistics();
    assert!(statistics.late < 20 && statistics.resets <= 3, "{statistics:?}");
    assert!(level_db(&line.heard[8 * 20_000..], 8_000, 440.0) > -12.0);
}

#[test]
fn comfort_noise_is_as_loud_as_asked() {
    let mut line = Line::new();
    line.sends(20, 0.0, |_| Some(30.0));
    line.runs_until(510.0);
    let packet = Packet {
        marker: false,
        payload_type: 13,
        sequence: 65_020,
        timestamp: 0xffff_0000_u32.wrapping_add(20 * 160),
        ssrc: 1,
        payload: &[50],
    };
    let now = line.at(530.0);
    line.hearing.insert(&packet, Kind::Noise, now);
    line.runs_until(1_500.0);
    // 0 dBov is a full-scale square wave, 3 dB above the sine that `total_db` compares with.
    let level = total_db(&line.heard[8 * 700..]);
    assert!((level + 47.0).abs() < 2.0, "{level}");
    assert_eq!(line.hearing.statistics().lost, 0);
}
