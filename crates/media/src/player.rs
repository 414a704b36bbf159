//! What is played to a caller: tones or samples at 8 kHz, once or over and over.

use std::f32::consts::TAU;
use std::sync::Arc;

use crate::resample::{Rate, Resampler};

/// Sample rate of everything played.
pub const RATE: u32 = 8_000;
/// Level of tones: −10 dB below full scale.
const AMPLITUDE: f32 = 10_362.0;
/// Level of the music: −23 dB below full scale, as background.
const QUIET: f32 = 2_320.0;
/// The music of who waits and has been given no other: notes in hertz and milliseconds.
const MUSIC: [(f32, u32); 24] = [
    (261.6, 400),
    (329.6, 400),
    (392.0, 400),
    (493.9, 800),
    (392.0, 400),
    (329.6, 400),
    (220.0, 400),
    (261.6, 400),
    (329.6, 400),
    (440.0, 800),
    (329.6, 400),
    (261.6, 400),
    (174.6, 400),
    (220.0, 400),
    (261.6, 400),
    (349.2, 800),
    (261.6, 400),
    (220.0, 400),
    (196.0, 400),
    (246.9, 400),
    (293.7, 400),
    (392.0, 1_200),
    (293.7, 800),
    (0.0, 800),
];
/// Samples rendered at once: 20 ms.
const FRAME: usize = 160;
/// Ramp at both ends of a tone against clicks, in samples: 5 ms.
const RAMP: usize = 40;

#[derive(Debug, Clone)]
enum Script {
    Tones(Vec<(f32, usize)>),
    Samples(Arc<[i16]>),
}

/// A position in what is played.
#[derive(Debug, Clone)]
pub struct Player {
    script: Script,
    repeat: bool,
    /// Of tones.
    amplitude: f32,
    /// Index of the tone; unused for samples.
    item: usize,
    /// Samples played of the item.
    at: usize,
}

impl Player {
    /// Tones as (hertz, milliseconds); 0 Hz is silence.
    #[must_use]
    pub fn tones(tones: &[(f32, u32)], repeat: bool) -> Self {
        let samples =
            |ms: u32| usize::try_from(u64::from(ms) * u64::from(RATE) / 1_000).unwrap_or(usize::MAX);
        let tones = tones.iter().map(|&(hz, ms)| (hz, samples(ms))).filter(|(_, n)| *n > 0).collect();
        Self { script: Script::Tones(tones), repeat, amplitude: AMPLITUDE, item: 0, at: 0 }
    }

    /// Quiet music without end.
    #[must_use]
    pub fn music() -> Self {
        Self { amplitude: QUIET, ..Self::tones(&MUSIC, true) }
    }

    /// 8 kHz samples.
    #[must_use]
    pub fn samples(samples: Arc<[i16]>, repeat: bool) -> Self {
        Self { script: Script::Samples(samples), repeat, amplitude: AMPLITUDE, item: 0, at: 0 }
    }

    /// Fills a frame, the end padded with silence. `false` when nothing was left to play.
    pub fn fill(&mut self, frame: &mut [i16]) -> bool {
        for (filled, slot) in frame.iter_mut().enumerate() {
            match self.sample() {
                Some(sample) => *slot = sample,
                None if filled == 0 => return false,
                None => *slot = 0,
            }
        }
        true
    }

    /// Everything that is left, at `hz` hertz; `None` when that is more than `most` samples, or there is no such rate.
    #[must_use]
    pub fn render(&mut self, hz: u32, most: usize) -> Option<Vec<i16>> {
        let mut resampler = Resampler::new(Rate::Hz8000, Rate::from_hz(hz)?);
        let (mut samples, mut frame) = (Vec::new(), [0; FRAME]);
        while self.fill(&mut frame) {
            resampler.process(&frame, &mut samples);
            if samples.len() > most {
                return None;
            }
        }
        // What the resampler still holds.
        if hz != RATE {
            resampler.process(&[0; FRAME], &mut samples);
        }
        Some(samples)
    }

    fn sample(&mut self) -> Option<i16> {
        match &self.script {
            Script::Samples(samples) => {
                if self.at >= samples.len() && self.repeat {
                    self.at = 0;
                }
                let sample = *samples.get(self.at)?;
                self.at += 1;
                Some(sample)
            }
            Script::Tones(tones) => {
                if self.item >= tones.len() && self.repeat {
                    self.item = 0;
                }
                let &(hz, length) = tones.get(self.item)?;
                let at = self.at;
                self.at += 1;
                if self.at >= length {
                    self.at = 0;
                    self.item += 1;
                }
                let ramp = (at + 1).min(length - at).min(RAMP) as f32 / RAMP as f32;
                // The phase is taken modulo one second, where every whole frequency starts over, so that it stays
                // exact however long the tone is.
                let second = (at % RATE as usize) as f32 / RATE as f32;
                let whole = (at / RATE as usize) as f32;
                let phase = (second * hz + (whole * hz.fract()).fract()).fract();
                Some((if hz > 0.0 { self.amplitude * ramp * (phase * TAU).sin() } else { 0.0 }) as i16)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::level_db;

    #[test]
    fn a_tone_has_its_frequency_and_level_and_then_ends() {
        let mut player = Player::tones(&[(440.0, 1_000)], false);
        let mut samples = Vec::new();
        let mut frame = [0; 160];
        while player.fill(&mut frame) {
            samples.extend_from_slice(&frame);
        }
        assert_eq!(samples.len(), 8_000);
        assert!((level_db(&samples, RATE, 440.0) + 10.0).abs() < 0.5);
        assert!(level_db(&samples, RATE, 880.0) < -60.0);
    }

    #[test]
    fn the_music_is_quiet_and_goes_on() {
        let mut player = Player::music();
        let mut frame = [0; 8_000];
        for second in 0..30 {
            assert!(player.fill(&mut frame));
            let loudest = frame.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0);
            assert!((2_000..=2_320).contains(&loudest), "{second}: {loudest}");
        }
    }

    #[test]
    fn what_is_rendered_is_bounded_and_has_its_rate() {
        let samples = Player::tones(&[(440.0, 1_000)], false).render(16_000, 17_000).unwrap();
        assert_eq!(samples.len(), 16_320);
        assert!((level_db(&samples[1_600..14_400], 16_000, 440.0) + 10.0).abs() < 0.5);
        assert!(Player::tones(&[(440.0, 1_000)], false).render(8_000, 7_999).is_none());
        assert!(Player::music().render(8_000, 100_000).is_none());
    }

    #[test]
    fn what_repeats_never_ends_and_what_is_empty_plays_nothing() {
        let mut frame = [0; 160];
        let mut player = Player::samples(Arc::from([1, 2, 3].as_slice()), true);
        assert!((0..100).all(|_| player.fill(&mut frame)));
        assert!(!Player::samples(Arc::from([].as_slice()), true).fill(&mut frame));
        assert!(!Player::tones(&[], true).fill(&mut frame));
    }
}
