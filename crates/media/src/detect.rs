//! Proof of audio: how much of a tone is in a stretch of samples (Goertzel).

use std::f64::consts::{SQRT_2, TAU};

/// Level of `hz` in dB relative to a full-scale sine; −120 when there is nothing.
#[must_use]
pub fn level_db(samples: &[i16], rate: u32, hz: f32) -> f64 {
    if samples.is_empty() {
        return -120.0;
    }
    let step = TAU * f64::from(hz) / f64::from(rate);
    let coefficient = 2.0 * step.cos();
    let (mut last, mut before) = (0.0, 0.0);
    for &sample in samples {
        let next = f64::from(sample) + coefficient * last - before;
        before = last;
        last = next;
    }
    let power = last * last + before * before - coefficient * last * before;
    let amplitude = 2.0 * power.max(0.0).sqrt() / samples.len() as f64;
    decibels(amplitude / 32_768.0)
}

/// Level of everything in dB relative to a full-scale sine.
#[must_use]
pub fn total_db(samples: &[i16]) -> f64 {
    if samples.is_empty() {
        return -120.0;
    }
    let square: f64 = samples.iter().map(|&s| f64::from(s) * f64::from(s)).sum();
    decibels((square / samples.len() as f64).sqrt() * SQRT_2 / 32_768.0)
}

/// Whether a tone is there, loud enough and nearly alone: above −30 dB and at most 3 dB below the whole.
#[must_use]
pub fn hears(samples: &[i16], rate: u32, hz: f32) -> bool {
    let tone = level_db(samples, rate, hz);
    tone > -30.0 && total_db(samples) - tone < 3.0
}

/// What a listener makes of a tone on a line that drops out here and there: its level in the middlemost tenth of a
/// second, and whether it is heard in most of them. A line on which a machine has no time to speak is full of holes, and
/// each one shifts the tone's phase, which over all cancels itself.
#[must_use]
pub fn listens(samples: &[i16], rate: u32, hz: f32) -> (f64, bool) {
    let stretch = usize::try_from(rate / 10).unwrap_or(0).max(1);
    let stretches = samples.chunks_exact(stretch);
    let mut levels: Vec<f64> = stretches.clone().map(|samples| level_db(samples, rate, hz)).collect();
    levels.sort_by(f64::total_cmp);
    let heard = stretches.filter(|samples| hears(samples, rate, hz)).count();
    let level = levels.get(levels.len() / 2).copied().unwrap_or(-120.0);
    (level, heard > 0 && heard * 3 >= levels.len() * 2)
}

fn decibels(ratio: f64) -> f64 {
    (20.0 * ratio.max(1e-6).log10()).max(-120.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, phase: f64, samples: u32) -> impl Iterator<Item = i16> {
        (0..samples).map(move |n| (10_000.0 * (TAU * hz * f64::from(n) / 8_000.0 + phase).sin()) as i16)
    }

    /// A tone with a hole and a shift is heard all the same; another one, half of one, and silence are not.
    #[test]
    fn a_tone_with_holes_is_listened_to() {
        let broken: Vec<i16> =
            tone(440.0, 0.0, 4_000).chain((0..800).map(|_| 0)).chain(tone(440.0, 3.0, 4_000)).collect();
        assert!(!hears(&broken, 8_000, 440.0));
        let (level, heard) = listens(&broken, 8_000, 440.0);
        assert!(heard && (level + 10.3).abs() < 0.5, "{level}");
        assert!(!listens(&broken, 8_000, 620.0).1);
        let half: Vec<i16> = tone(440.0, 0.0, 4_000).chain((0..4_000).map(|_| 0)).collect();
        assert!(!listens(&half, 8_000, 440.0).1);
        assert!(!listens(&[], 8_000, 440.0).1 && !listens(&[0; 8_000], 8_000, 440.0).1);
    }
}
