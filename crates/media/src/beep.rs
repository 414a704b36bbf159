//! The beep of a voicemail box, heard: one steady pure tone, with nothing before and behind it. Speech is never that
//! pure for that long, music goes on, and the tones of a network come in pairs or in rows.

use std::f32::consts::TAU;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use crate::resample::Rate;

/// From one look to the next, and what is looked at, in milliseconds.
const HOP_MS: u32 = 10;
const WINDOW_MS: u32 = 32;
/// Where beeps are, and where their power is compared with all there is, in hertz.
const TONES: (f32, f32) = (380.0, 2_200.0);
const BAND: (f32, f32) = (200.0, 3_500.0);
/// Bins of a windowed tone on each side of its middle.
const LOBE: usize = 2;
/// A tone's share of the power, at the least.
const PURITY: f32 = 0.9;
/// How far a tone may move, in parts of its frequency, and at the least in hertz.
const DRIFT: f32 = 0.008;
const DRIFT_HZ: f32 = 8.0;
/// Its shortest and longest, in looks.
const SHORTEST: u32 = 10;
const LONGEST: u32 = 200;
/// Looks that a tone's edges spoil.
const EDGE: u32 = 4;
/// Looks of quiet behind a beep, and before it.
const QUIET_AFTER: u32 = 20;
const QUIET_BEFORE: u32 = 4;
/// Quiet is so much below the beep, in power: 8 dB.
const QUIET: f32 = 6.3;
/// The quietest beep, as mean power of samples: −45 dBFS.
const QUIETEST: f32 = 32_768.0 * 32_768.0 / 2.0 * 3.2e-5;
/// Looks that are remembered for what was before a tone.
const HISTORY: usize = (QUIET_BEFORE + EDGE) as usize;

/// A beep that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beep {
    /// Its pitch.
    pub hz: u32,
    /// How long it was, within some hundredths of a second.
    pub duration_ms: u32,
}

/// What one look sees.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    /// Power in the band, as mean power of samples.
    power: f32,
    /// The one tone there is.
    tone: Option<f32>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Listening,
    Tone(Run),
    /// A tone is over: looks since, and when it was too loud behind it.
    After(Run, u32),
}

/// A tone that goes on.
#[derive(Debug, Clone, Copy)]
struct Run {
    lowest: f32,
    highest: f32,
    loudest: f32,
    looks: u32,
    /// The loudest before it, and whether that was another tone.
    before: f32,
    alone: bool,
}

/// Looks for beeps in one stream of samples.
pub struct Detector {
    rate: Rate,
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    /// Samples that are not looked at yet, and those of the last look.
    samples: Vec<f32>,
    work: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    state: State,
    /// Powers of the last looks without a tone, the newest last.
    before: [f32; HISTORY],
}

impl Detector {
    /// For samples at `rate`.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let size = rate.samples(WINDOW_MS);
        let fft = RealFftPlanner::new().plan_fft_forward(size);
        Self {
            rate,
            window: (0..size).map(|i| 0.5 - 0.5 * (TAU * i as f32 / size as f32).cos()).collect(),
            samples: Vec::with_capacity(2 * size),
            work: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            fft,
            state: State::Listening,
            before: [0.0; HISTORY],
        }
    }

    /// The rate of its samples.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes samples; returns the beep that has ended a fifth of a second before them, if one has.
    pub fn process(&mut self, samples: &[i16]) -> Option<Beep> {
        self.samples.extend(samples.iter().map(|&s| f32::from(s)));
        let (size, hop) = (self.window.len(), self.rate.samples(HOP_MS));
        let mut found = None;
        while self.samples.len() >= size {
            for ((work, sample), window) in self.work.iter_mut().zip(&self.samples).zip(&self.window) {
                *work = sample * window;
            }
            self.samples.drain(..hop);
            // The lengths are the transform's own, so it cannot fail.
            let _ = self.fft.process_with_scratch(&mut self.work, &mut self.spectrum, &mut self.scratch);
            let look = self.look();
            found = self.step(look).or(found);
        }
        found
    }

    fn look(&self) -> Look {
        let bin = self.rate.hz() as f32 / self.window.len() as f32;
        let index = |hz: f32| (hz / bin).round() as usize;
        let power = |at: usize| self.spectrum.get(at).map_or(0.0, Complex::norm_sqr);
        // Of a Hann window: its mean square is 3/8; a real signal has half its power in these bins.
        let scale = 2.0 / (self.window.len() as f32 * self.window.len() as f32 * 0.375);
        let total: f32 = (index(BAND.0)..=index(BAND.1)).map(power).sum();
        let peak = (index(TONES.0)..=index(TONES.1)).max_by(|a, b| power(*a).total_cmp(&power(*b)));
        let mut look = Look { power: total * scale, tone: None };
        let Some(peak) = peak.filter(|_| look.power >= QUIETEST) else { return look };
        let lobe: f32 = (peak.saturating_sub(LOBE)..=peak + LOBE).map(power).sum();
        if lobe >= PURITY * total {
            let [left, middle, right] = [peak - 1, peak, peak + 1].map(|at| power(at).max(1e-9).ln());
            let bend = left - 2.0 * middle + right;
            let offset = if bend < 0.0 { 0.5 * (left - right) / bend } else { 0.0 };
            let hz = (peak as f32 + offset.clamp(-0.5, 0.5)) * bin;
            look.tone = Some(hz).filter(|hz| (TONES.0..=TONES.1).contains(hz));
        }
        look
    }

    fn step(&mut self, look: Look) -> Option<Beep> {
        let mut found = None;
        self.state = match (self.state, look.tone) {
            (State::Listening, None) => State::Listening,
            (State::Listening, Some(hz)) => State::Tone(self.begin(hz, look.power)),
            (State::Tone(run), Some(hz)) => match run.with(hz, look.power) {
                Some(run) => State::Tone(run),
                // Right behind another one, unless that was this one coming into the window.
                None => State::Tone(Run {
                    alone: run.alone && run.looks < EDGE,
                    before: run.before,
                    ..self.begin(hz, look.power)
                }),
            },
            (State::Tone(run), None) if run.is_beep() => State::After(run, 0),
            (State::Tone(_), None) => State::Listening,
            // What rings on, or what a jitter buffer repeats of it, is of the same tone.
            (State::After(run, looks), tone) => {
                let rings = looks < EDGE;
                let quiet = look.power * QUIET <= run.loudest;
                if looks >= QUIET_AFTER {
                    found = Some(run.beep());
                    State::Listening
                } else if rings || quiet {
                    State::After(run, looks + 1)
                } else {
                    tone.map_or(State::Listening, |hz| {
                        State::Tone(Run { alone: false, ..self.begin(hz, look.power) })
                    })
                }
            }
        };
        self.before.rotate_left(1);
        if let Some(last) = self.before.last_mut() {
            *last = look.power;
        }
        found
    }

    fn begin(&self, hz: f32, power: f32) -> Run {
        // What the tone's own beginning spoils is left out.
        let before = self.before.iter().take(QUIET_BEFORE as usize).copied().fold(0.0, f32::max);
        Run { lowest: hz, highest: hz, loudest: power, looks: 1, before, alone: true }
    }
}

impl Run {
    /// With one more look; `None` when that is another tone.
    fn with(self, hz: f32, power: f32) -> Option<Self> {
        let (lowest, highest) = (self.lowest.min(hz), self.highest.max(hz));
        let looks = self.looks + 1;
        if highest - lowest > (DRIFT * hz).max(DRIFT_HZ) || looks > LONGEST {
            return None;
        }
        Some(Self { lowest, highest, loudest: self.loudest.max(power), looks, ..self })
    }

    fn is_beep(&self) -> bool {
        self.alone && self.looks >= SHORTEST && self.before * QUIET <= self.loudest
    }

    fn beep(&self) -> Beep {
        Beep { hz: (0.5 * (self.lowest + self.highest)).round() as u32, duration_ms: self.looks * HOP_MS }
    }
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detector").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tones and silences: hertz at once, milliseconds.
    fn heard(rate: Rate, parts: &[(&[f32], u32)]) -> Vec<Beep> {
        let mut samples = Vec::new();
        for (tones, ms) in parts {
            samples.extend((0..rate.samples(*ms)).map(|n| {
                let t = n as f32 / rate.hz() as f32;
                tones.iter().map(|hz| 4_000.0 * (TAU * hz * t).sin()).sum::<f32>() as i16
            }));
        }
        let mut detector = Detector::new(rate);
        samples.chunks(rate.samples(20)).filter_map(|frame| detector.process(frame)).collect()
    }

    #[test]
    fn beeps_of_all_pitches_are_heard_once() {
        for rate in [Rate::Hz8000, Rate::Hz16000] {
            for hz in [400.0, 425.0, 700.0, 1_000.0, 1_413.0, 2_100.0] {
                for ms in [150, 400, 1_500] {
                    let beeps = heard(rate, &[(&[], 500), (&[hz], ms), (&[], 400)]);
                    let [beep] = beeps[..] else { panic!("{hz} Hz, {ms} ms: {beeps:?}") };
                    assert!(beep.hz.abs_diff(hz as u32) < 4, "{beep:?}");
                    assert!(beep.duration_ms.abs_diff(ms) <= 40, "{ms}: {beep:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_like_a_beep_and_none_is_not_heard() {
        let voice: Vec<f32> = (1..9).map(|harmonic| 180.0 * harmonic as f32).collect();
        let quiet: (&[f32], u32) = (&[], 500);
        for (what, parts) in [
            ("a pair", vec![quiet, (&[697.0, 1_209.0], 300), quiet]),
            ("a row", vec![quiet, (&[950.0], 330), (&[1_400.0], 330), (&[1_800.0], 330), quiet]),
            ("a long one", vec![quiet, (&[2_100.0], 3_000), quiet]),
            ("a click", vec![quiet, (&[1_000.0], 60), quiet]),
            ("a high one", vec![quiet, (&[3_000.0], 400), quiet]),
            ("something right before it", vec![quiet, (&voice, 400), (&[1_000.0], 400), quiet]),
            ("something right behind it", vec![quiet, (&[1_000.0], 400), (&voice, 400), quiet]),
            ("a voice", vec![quiet, (&voice, 400), quiet]),
        ] {
            assert_eq!(heard(Rate::Hz8000, &parts), [], "{what}");
        }
    }
}
