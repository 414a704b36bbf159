//! Changing the rate by a whole factor with little delay: a windowed sinc, cut into phases. A transform in 10 ms
//! blocks, which the rest of the media path uses, takes 5 ms each way; this takes 1.5.

use std::f64::consts::PI;

/// Taps of each phase: 12 samples of the lower rate to either side.
const TAPS: usize = 24;
/// Of the Kaiser window: side lobes 60 dB down.
const BETA: f64 = 5.65;

/// Delay of either direction, in samples of the lower rate.
pub(super) const DELAY: usize = TAPS / 2;

/// The filter at `factor` times the lower rate: its sum is `factor`.
fn prototype(factor: usize) -> Vec<f64> {
    let length = TAPS * factor;
    let taps: Vec<f64> = (0..=length)
        .map(|i| {
            let x = i as f64 - length as f64 / 2.0;
            // Cut off at half the lower rate: images and aliases are down 60 dB from 1.16 of it.
            let t = x / factor as f64;
            let sinc = if t == 0.0 { 1.0 } else { (PI * t).sin() / (PI * t) };
            let edge = 2.0 * x / length as f64;
            sinc * bessel(BETA * (1.0 - edge * edge).max(0.0).sqrt()) / bessel(BETA)
        })
        // The last, which mirrors the first, is not kept: it would start a phase of its own, and both are nearly zero.
        .take(length)
        .collect();
    let sum: f64 = taps.iter().sum();
    taps.iter().map(|t| t * factor as f64 / sum).collect()
}

/// The modified Bessel function of order 0.
fn bessel(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..30 {
        term *= (x / (2.0 * f64::from(k))).powi(2);
        sum += term;
    }
    sum
}

/// Raises the rate.
pub(super) struct Up {
    /// Per phase, the taps in the order of the samples they meet.
    phases: Vec<[f32; TAPS]>,
    past: Past,
}

/// Lowers the rate.
pub(super) struct Down {
    factor: usize,
    taps: Vec<f32>,
    past: Past,
}

/// The samples before the present ones, followed by these.
pub(super) struct Past {
    kept: usize,
    samples: Vec<f32>,
}

impl Past {
    pub(super) fn new(kept: usize) -> Self {
        Self { kept, samples: vec![0.0; kept] }
    }

    pub(super) fn take(&mut self, new: &[f32]) -> &[f32] {
        let end = self.samples.len();
        self.samples.copy_within(end - self.kept.., 0);
        self.samples.truncate(self.kept);
        self.samples.extend_from_slice(new);
        &self.samples
    }
}

impl Up {
    pub(super) fn new(factor: usize) -> Self {
        let prototype = prototype(factor);
        let phases = (0..factor)
            .map(|phase| {
                std::array::from_fn(|i| {
                    prototype.get((TAPS - 1 - i) * factor + phase).map_or(0.0, |t| *t as f32)
                })
            })
            .collect();
        Self { phases, past: Past::new(TAPS - 1) }
    }

    /// Appends `factor` samples for each.
    pub(super) fn process(&mut self, input: &[f32], output: &mut Vec<f32>) {
        for window in self.past.take(input).array_windows::<TAPS>() {
            output.extend(self.phases.iter().map(|phase| dot(phase, window)));
        }
    }
}

impl Down {
    pub(super) fn new(factor: usize) -> Self {
        // The filter is symmetric but for the tap that is not kept.
        let taps = prototype(factor).iter().rev().map(|t| (*t / factor as f64) as f32).collect();
        Self { factor, taps, past: Past::new(TAPS * factor - 1) }
    }

    /// Fills `output` from `factor` times as many samples. The sample at a window's end is the newest.
    pub(super) fn process(&mut self, input: &[f32], output: &mut [f32]) {
        let samples = self.past.take(input);
        let windows = samples.windows(self.taps.len()).step_by(self.factor);
        for (to, window) in output.iter_mut().zip(windows) {
            *to = dot(&self.taps, window);
        }
    }
}

/// The inner product, in eight lanes.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a tone after one conversion, in dB, and how much else there is.
    fn gain(factor: usize, hz: f64, up: bool) -> f64 {
        let low = 8_000.0;
        let high = low * factor as f64;
        let from = if up { low } else { high };
        let input: Vec<f32> = (0..(from as usize / 4) / 960 * 960)
            .map(|i| (2.0 * PI * hz * i as f64 / from).sin() as f32)
            .collect();
        let mut output = Vec::new();
        if up {
            Up::new(factor).process(&input, &mut output);
        } else {
            output.resize(input.len() / factor, 0.0);
            Down::new(factor).process(&input, &mut output);
        }
        let settled = &output[output.len() / 4..];
        let power = settled.iter().map(|s| s * s).sum::<f32>() / settled.len() as f32;
        10.0 * f64::from(2.0 * power).log10()
    }

    #[test]
    fn speech_passes_and_what_would_alias_does_not() {
        for factor in [3, 6] {
            for hz in [100.0, 1_000.0, 3_000.0, 3_400.0] {
                assert!(gain(factor, hz, true).abs() < 0.2, "up {factor} {hz}: {}", gain(factor, hz, true));
                assert!(
                    gain(factor, hz, false).abs() < 0.2,
                    "down {factor} {hz}: {}",
                    gain(factor, hz, false)
                );
            }
            for hz in [4_700.0, 5_000.0, 7_000.0] {
                assert!(gain(factor, hz, false) < -50.0, "down {factor} {hz}: {}", gain(factor, hz, false));
            }
        }
    }

    #[test]
    fn there_and_back_is_the_input_later() {
        let input: Vec<f32> =
            (0..800).map(|i| (i as f32 * 0.7).sin() * 0.4 + (i as f32 * 0.11).sin() * 0.5).collect();
        let (mut up, mut down) = (Up::new(6), Down::new(6));
        let mut output = Vec::new();
        for part in input.chunks_exact(80) {
            let mut high = Vec::new();
            up.process(part, &mut high);
            let mut low = [0.0; 80];
            down.process(&high, &mut low);
            output.extend(low);
        }
        let delay = 2 * DELAY;
        let worst =
            input.iter().zip(&output[delay..]).skip(60).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 0.01, "{worst}");
    }
}
