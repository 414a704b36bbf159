//! What a `play` agent says: tones or samples at 8 kHz, once or over and over.

use std::f32::consts::TAU;
use std::sync::Arc;

/// Sample rate of everything played.
pub const RATE: u32 = 8_000;
/// Level of tones: −10 dB below full scale.
const AMPLITUDE: f32 = 10_362.0;
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
        Self { script: Script::Tones(tones), repeat, item: 0, at: 0 }
    }

    /// 8 kHz samples.
    #[must_use]
    pub fn samples(samples: Arc<[i16]>, repeat: bool) -> Self {
        Self { script: Script::Samples(samples), repeat, item: 0, at: 0 }
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
                Some((if hz > 0.0 { AMPLITUDE * ramp * (phase * TAU).sin() } else { 0.0 }) as i16)
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
    fn what_repeats_never_ends_and_what_is_empty_plays_nothing() {
        let mut frame = [0; 160];
        let mut player = Player::samples(Arc::from([1, 2, 3].as_slice()), true);
        assert!((0..100).all(|_| player.fill(&mut frame)));
        assert!(!Player::samples(Arc::from([].as_slice()), true).fill(&mut frame));
        assert!(!Player::tones(&[], true).fill(&mut frame));
    }
}
