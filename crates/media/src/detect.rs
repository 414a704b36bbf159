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

fn decibels(ratio: f64) -> f64 {
    (20.0 * ratio.max(1e-6).log10()).max(-120.0)
}
