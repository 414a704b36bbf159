//! What is in the audio besides speech: digits as tones, both ways, and the beep of a voicemail box. It is looked for
//! before noise cancellation, which takes tones for noise.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::MediaEvent;
use crate::dtmf::Source;
use crate::resample::Rate;
use crate::{beep, dtmf_tones};

/// Our own digits come back as echo for so long.
const ECHO: Duration = Duration::from_millis(400);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Inband {
    /// Digits come and go as tones.
    tones: bool,
    for_digits: Option<dtmf_tones::Detector>,
    /// Digits to send.
    pub(super) digits: dtmf_tones::Generator,
    /// When the last of ours was sent.
    digits_sent: Option<Instant>,
    /// How long after the answer a beep is listened for, and until when that is.
    patience: Option<Duration>,
    beep_until: Option<Instant>,
    for_beep: Option<beep::Detector>,
}

impl Inband {
    pub(super) fn new(tones: bool, beep: Option<Duration>) -> Self {
        Self { tones, patience: beep, ..Self::default() }
    }

    /// Digits are sent as tones, where nothing better was agreed on.
    pub(super) fn has_tones(&self) -> bool {
        self.tones
    }

    /// The call is answered.
    pub(super) fn start(&mut self, now: Instant) {
        self.beep_until = self.patience.take().map(|patience| now + patience);
    }

    /// Whether received audio is looked at.
    pub(super) fn listens(&self) -> bool {
        self.tones || self.beep_until.is_some()
    }

    /// Puts what is to be sent as tones in the place of a frame.
    pub(super) fn fill(&mut self, rate: Rate, frame: &mut [i16], now: Instant) {
        if self.digits.fill(rate, frame) {
            self.digits_sent = Some(now);
        }
    }

    /// A received frame.
    pub(super) fn hear(
        &mut self,
        rate: Rate,
        frame: &[i16],
        now: Instant,
        events: &mut VecDeque<MediaEvent>,
    ) {
        if self.tones {
            if self.for_digits.as_ref().is_none_or(|detector| detector.rate() != rate) {
                self.for_digits = Some(dtmf_tones::Detector::new(rate));
            }
            let digit = self.for_digits.as_mut().and_then(|detector| detector.process(frame));
            let echo = self.digits_sent.is_some_and(|at| now.duration_since(at) < ECHO);
            if let Some(digit) = digit.filter(|_| !echo) {
                let (digit, duration_ms) = (digit.digit, digit.duration_ms);
                events.push_back(MediaEvent::Digit { digit, duration_ms, source: Source::Tone });
            }
        }
        if self.beep_until.is_some_and(|until| until <= now) {
            self.beep_until = None;
            self.for_beep = None;
        }
        if self.beep_until.is_some() {
            if self.for_beep.as_ref().is_none_or(|detector| detector.rate() != rate) {
                self.for_beep = Some(beep::Detector::new(rate));
            }
            if let Some(beep) = self.for_beep.as_mut().and_then(|detector| detector.process(frame)) {
                events.push_back(MediaEvent::Beep(beep));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{negotiated, packet};
    use super::super::{Agent, Outbox, Session, SessionConfig};
    use super::*;
    use crate::codec::Codec;
    use crate::denoise::Mode;

    const FRAME: Duration = Duration::from_millis(20);

    fn session(dtmf_tones: bool, beep: Option<Duration>, events: bool, now: Instant) -> Session {
        let mut negotiated = negotiated();
        negotiated.telephone_event = negotiated.telephone_event.filter(|_| events);
        let link = crate::link::Link::new(
            8_000,
            crate::playout::Limits {
                queued_ms: 1_000,
                overrun: crate::playout::Overrun::RefuseNew,
                marks: 1,
            },
            || (),
        );
        let agent = Agent::Linked(std::sync::Arc::new(link));
        let config = SessionConfig {
            noise_cancellation: Some(Mode::Standard),
            dtmf_tones,
            beep,
            ..SessionConfig::new(negotiated, agent, [3; 16])
        };
        let mut session = Session::new(config, now);
        session.start(now);
        session
    }

    /// Says the samples to the session, from the packet on that is `first` since `start`; the audio that it sent
    /// meanwhile, and what happened.
    fn say(
        session: &mut Session,
        start: Instant,
        first: usize,
        samples: &[i16],
    ) -> (Vec<i16>, Vec<MediaEvent>) {
        let (mut back, mut events) = (Vec::new(), Vec::new());
        let mut encoder = Codec::Pcmu.encoder();
        for (n, frame) in (first..).zip(samples.chunks_exact(160)) {
            let now = start + FRAME * n as u32;
            let (mut payload, mut out) = (Vec::new(), Outbox::default());
            encoder.encode(frame, &mut payload);
            let packet = packet(n as u16, 9, 0, &payload);
            session.handle_rtp(&packet, "198.51.100.10:4000".parse().unwrap(), now, &mut out);
            session.handle_timeout(now, &mut out);
            for (_, packet) in out.iter().filter(|(_, packet)| packet[1] & 0x7f == 0) {
                Codec::Pcmu.decoder().decode(&packet[12..], &mut back);
            }
            events.extend(std::iter::from_fn(|| session.poll_event()));
        }
        (back, events)
    }

    fn digits(text: &str) -> Vec<i16> {
        let (mut generator, mut frame) = (dtmf_tones::Generator::default(), [0; 160]);
        assert!(generator.push(text));
        let mut samples = vec![0; 1_600];
        while generator.fill(Rate::Hz8000, &mut frame) {
            samples.extend(frame);
        }
        samples.resize(samples.len() + 4_000, 0);
        samples
    }

    fn pressed(events: &[MediaEvent]) -> String {
        let digit = |event: &MediaEvent| match event {
            MediaEvent::Digit { digit, source: Source::Tone, .. } => Some(*digit),
            _ => None,
        };
        events.iter().filter_map(digit).collect()
    }

    #[test]
    fn digits_are_heard_through_noise_cancellation_where_they_are_asked_for() {
        let now = Instant::now();
        let (_, events) = say(&mut session(true, None, true, now), now, 0, &digits("159#"));
        assert_eq!(pressed(&events), "159#");
        let (_, events) = say(&mut session(false, None, true, now), now, 0, &digits("159#"));
        assert_eq!(pressed(&events), "");
    }

    #[test]
    fn digits_are_sent_as_tones_and_their_echo_is_none() {
        let now = Instant::now();
        let mut session = session(true, None, false, now);
        session.send_digits("37", now);
        let silence = vec![0; 8_000];
        let (sent, _) = say(&mut session, now, 0, &silence);
        let mut detector = dtmf_tones::Detector::new(Rate::Hz8000);
        let heard: String = sent.chunks(160).filter_map(|f| detector.process(f)).map(|d| d.digit).collect();
        assert_eq!(heard, "37");
        session.send_digits("5", now);
        let (_, events) = say(&mut session, now, 50, &digits("5"));
        assert_eq!(pressed(&events), "");
    }

    #[test]
    fn a_beep_is_told_until_its_time_is_over() {
        let now = Instant::now();
        let mut samples = vec![0; 4_000];
        let tone = |n: usize| (6_000.0 * (std::f32::consts::TAU * 0.125 * n as f32).sin()) as i16;
        samples.extend((0..3_200).map(tone));
        samples.resize(12_000, 0);
        for (patience, beeps) in
            [(Some(Duration::from_secs(9)), 1), (Some(Duration::from_millis(600)), 0), (None, 0)]
        {
            let (_, events) = say(&mut session(false, patience, true, now), now, 0, &samples);
            let told = events.iter().filter(|event| matches!(event, MediaEvent::Beep(b) if b.hz == 1_000));
            assert_eq!(told.count(), beeps, "{patience:?}");
        }
    }
}
