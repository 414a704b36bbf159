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
