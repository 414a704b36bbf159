//! What is told of a line against what was imposed on it, in virtual time: loss and jitter within 10 %, MOS within 0.2.

use super::*;
use crate::e_model::{self, Loss};
use crate::quality::{OneWay, Report};

/// How long a line is looked at, and how many packets that are.
const LENGTH: Duration = Duration::from_secs(40);
const PACKETS: usize = 2_000;
/// A number from 0 to 1, always the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / (1_u64 << 24) as f64
    }
}

/// What is done to one direction.
#[derive(Clone)]
struct Impairment {
    lost: Vec<bool>,
    late: Vec<Duration>,
}

impl Impairment {
    /// `percent` of the packets are lost in bursts of so many on the average, none of the first and the last; each is up
    /// to `most_ms` late.
    fn new(percent: u32, burst: usize, most_ms: f64, dice: &mut Dice) -> Self {
        let (mut lost, mut left) = (vec![false; PACKETS], PACKETS * percent as usize / 100);
        while left > 0 {
            let length = if burst == 1 { 1 } else { 1 + (dice.roll() * (2 * burst - 1) as f64) as usize };
            let length = length.min(left);
            let at = 1 + (dice.roll() * (PACKETS - length - 2) as f64) as usize;
            if (at - 1..=at + length).all(|n| !lost[n]) {
                lost[at..at + length].fill(true);
                left -= length;
            }
        }
        let late = (0..PACKETS).map(|_| Duration::from_secs_f64(dice.roll() * most_ms / 1_000.0)).collect();
        Self { lost, late }
    }

    /// Of the first packets.
    fn loss(&self, packets: usize) -> Loss {
        let first = &self.lost[..packets];
        let bursts = first.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        let lost = first.iter().filter(|lost| **lost).count();
        Loss::counted(lost as u64, packets as u64, bursts as u64)
    }

    /// The mean difference of the transit times of packets that follow on each other.
    fn jitter_ms(&self) -> f64 {
        let mut arrivals: Vec<(f64, f64)> = (0..PACKETS)
            .filter(|n| !self.lost[*n])
            .map(|n| (n as f64 * 20.0 + self.late[n].as_secs_f64() * 1_000.0, n as f64 * 20.0))
            .collect();
        arrivals.sort_by(|a, b| a.0.total_cmp(&b.0));
        let differences = arrivals.windows(2).map(|w| ((w[1].0 - w[0].0) - (w[1].1 - w[0].1)).abs());
        differences.sum::<f64>() / (arrivals.len() - 1) as f64
    }
}

fn speaker(codec: Codec, seed: u8, start: Instant) -> Session {
    let payload_type = if codec == Codec::Opus { 111 } else { 0 };
    let negotiated = Negotiated {
        codec,
        payload_type,
        receive_payload_type: payload_type,
        telephone_event: None,
        ..negotiated()
    };
    let agent = Agent::Play(Player::tones(&[(440.0, 60_000)], true));
    let mut session = Session::new(SessionConfig::new(negotiated, agent, [seed; 16]), start);
    session.start(start);
    session
}

/// Two sessions that speak to each other over a line with this way of impairment from the second to the first, whose
/// packets and reports take half of `trip` each way. Gives both sides' figures.
fn line(codec: Codec, impairment: &Impairment, trip: Duration) -> [Report; 2] {
    let start = Instant::now();
    let mut sessions = [1_u8, 2].map(|seed| speaker(codec, seed, start));
    let peer: SocketAddr = PEER.parse().unwrap();
    let (mut out, mut now) = (Outbox::default(), start);
    // What is on its way: when it comes, to whom, by which port.
    let mut way: Vec<(Instant, usize, bool, Vec<u8>)> = Vec::new();
    let mut sent = 0;
    while now < start + LENGTH {
        let arrival = way.iter().map(|(at, ..)| *at).min();
        let next = sessions.iter().filter_map(Session::poll_timeout).chain(arrival).min().unwrap();
        now = next.max(now);
        for (side, session) in sessions.iter_mut().enumerate() {
            session.handle_timeout(now, &mut out);
            let due: Vec<_> = way.extract_if(.., |(at, to, ..)| *at <= now && *to == side).collect();
            for (_, _, control, bytes) in due {
                if control {
                    session.handle_rtcp(&bytes, peer, now);
                } else {
                    session.handle_rtp(&bytes, peer, now, &mut out);
                }
            }
            for (control, _, bytes) in out.datagrams() {
                let mut at = now + trip / 2;
                if !control && side == 1 {
                    let n = sent;
                    sent += 1;
                    match impairment.lost.get(n) {
                        Some(false) => at += impairment.late[n],
                        _ => continue,
                    }
                }
                way.push((at, 1 - side, control, bytes.to_vec()));
            }
            out.clear();
        }
    }
    sessions.map(|mut session| {
        session.settle(now);
        session.quality().report()
    })
}

#[test]
fn both_sides_are_told_what_was_imposed() {
    let mut dice = Dice(1);
    let near = |value: f64, wanted: f64, least: f64| (value - wanted).abs() <= (wanted * 0.1).max(least);
    for (codec, percent, burst, most_ms, trip) in [
        (Codec::Pcmu, 0, 1, 0.0, 0_u64),
        (Codec::Pcmu, 1, 1, 15.0, 150),
        (Codec::Pcma, 3, 1, 60.0, 0),
        (Codec::Pcmu, 10, 1, 180.0, 400),
        (Codec::Pcmu, 20, 1, 0.0, 150),
        (Codec::Pcmu, 10, 4, 15.0, 0),
        (Codec::G722, 10, 1, 60.0, 150),
        (Codec::Opus, 3, 3, 180.0, 150),
        (Codec::Opus, 20, 1, 15.0, 400),
    ] {
        let case = format!("{codec:?} {percent} % in {burst}, {most_ms} ms, {trip} ms");
        let impairment = Impairment::new(percent, burst, most_ms, &mut dice);
        let (loss, jitter_ms) = (impairment.loss(PACKETS), impairment.jitter_ms());
        let [hearer, sayer] = line(codec, &impairment, Duration::from_millis(trip));
        let delay = 20.0 + trip as f64 / 2.0;
        let received = hearer.received;
        // The last packets are still on their way.
        assert!(received.expected.abs_diff(PACKETS as u64) < 20, "{case}: {received:?}");
        assert!(near(received.loss_percent.into(), loss.percent, 0.0), "{case}: {received:?} {loss:?}");
        assert!(near(received.jitter_ms.into(), jitter_ms, 0.01), "{case}: {received:?} {jitter_ms}");
        // The first reports come after some seconds: until then no round trip is known.
        let wanted = e_model::mos(codec, loss, delay);
        assert!((f64::from(received.mos) - wanted).abs() < 0.2, "{case}: {received:?} {wanted}");
        let sent = sayer.sent.unwrap();
        // The peer has reported so far: of the rest nothing is told. What is late is lost in its eyes.
        assert!((1_500..=PACKETS as u64).contains(&sent.expected), "{case}: {sent:?}");
        let loss = impairment.loss(usize::try_from(sent.expected).unwrap());
        assert!(near(sent.loss_percent.into(), loss.percent, 0.5), "{case}: {sent:?} {loss:?}");
        assert!(near(sent.jitter_ms.into(), jitter_ms, 0.5), "{case}: {sent:?} {jitter_ms}");
        let wanted = e_model::mos(codec, Loss::random(loss.percent), delay);
        assert!((f64::from(sent.mos) - wanted).abs() < 0.2, "{case}: {sent:?} {wanted}");
        for side in [&hearer, &sayer] {
            assert!(near(side.rtt_ms.unwrap().into(), trip as f64, 1.0), "{case}: {:?}", side.rtt_ms);
            assert!((39..=41).contains(&side.seconds.len()) && side.one_way.is_none(), "{case}");
        }
    }
}

#[test]
fn a_call_of_half_a_second_has_figures_and_a_part_of_one_counts_once() {
    let start = Instant::now();
    let mut session = session(Agent::Silent, start);
    let mut out = Outbox::default();
    let mut hear = |session: &mut Session, numbers: std::ops::Range<u16>| {
        for n in numbers.filter(|n| n % 5 != 2) {
            let at = start + Duration::from_millis(20) * u32::from(n);
            session.handle_timeout(at, &mut out);
            session.handle_rtp(&packet(n, 9, 0, &[7; 160]), PEER.parse().unwrap(), at, &mut out);
        }
    };
    hear(&mut session, 0..25);
    assert_eq!(session.quality().report(), Report::default());
    session.settle(start + Duration::from_millis(500));
    let report = session.quality().report();
    assert_eq!((report.received.packets, report.received.expected), (20, 25));
    assert_eq!(report.received.loss_percent, 20.0);
    assert_eq!(report.seconds.len(), 1);
    assert_eq!(report.seconds[0].length, Duration::from_millis(500));
    // Nothing is written after the end.
    hear(&mut session, 25..100);
    session.settle(start + Duration::from_secs(2));
    assert_eq!(session.quality().report(), report);
    // The part after the last whole second.
    let mut session = super::session(Agent::Silent, start);
    hear(&mut session, 0..120);
    session.settle(start + Duration::from_millis(2_400));
    let seconds = session.quality().report().seconds;
    assert_eq!(seconds.iter().map(|s| s.received.expected).sum::<u64>(), 120);
    assert_eq!(seconds.len(), 3);
    assert!(seconds[2].length < Duration::from_millis(420), "{:?}", seconds[2].length);
}

#[test]
fn one_who_hears_nobody_is_told_so_by_the_second_and_at_the_end() {
    let start = Instant::now();
    let mut out = Outbox::default();
    let mut nobody = session(Agent::Echo, start);
    for second in 0..8 {
        nobody.handle_timeout(start + Duration::from_secs(second), &mut out);
    }
    assert_eq!(nobody.quality().report().one_way, Some(OneWay::NothingReceived));
    nobody.settle(start + Duration::from_millis(7_100));
    assert_eq!(nobody.quality().report().one_way, Some(OneWay::NothingReceived));
    // A call that ends at once proves nothing.
    let mut short = session(Agent::Echo, start);
    short.settle(start + Duration::from_millis(500));
    assert_eq!(short.quality().report().one_way, None);
}
