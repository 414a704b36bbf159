//! Concealment of lost audio by repeating its pitch, and changing the length of audio by whole pitch periods. Works on
//! samples, so it serves every codec; the idea is that of ITU-T G.711 Appendix I, without its delay.

use std::f32::consts::PI;

use crate::resample::Rate;

/// Pitch looked for, in milliseconds of a period: 66 to 400 Hz.
const MIN_PERIOD_US: usize = 2_500;
const MAX_PERIOD_US: usize = 15_000;
/// Audio compared to find it.
const COMPARED_US: usize = 20_000;
/// Audio remembered.
const HISTORY_MS: u32 = 50;
/// Blending where real audio comes back.
const BLEND_MS: u32 = 5;
/// Full level lasts so long, and silence is reached so long after that.
const HOLD_MS: u32 = 20;
const FADE_MS: u32 = 80;
/// Two stretches of audio are one period apart when they correlate so well.
const SIMILAR: f32 = 0.6;
/// Mean square of audio that is too quiet for anybody to notice what is done to it: −50 dB.
const QUIET: f32 = 10_000.0;

/// One stream's concealment.
#[derive(Debug)]
pub(crate) struct Concealer {
    rate: Rate,
    history: Vec<i16>,
    /// The cycle that is repeated, and where in it the next sample is.
    cycle: Vec<f32>,
    at: usize,
    /// Samples concealed in a row.
    concealed: usize,
    /// What the first sample is off, so that no step is heard.
    offset: f32,
}

impl Concealer {
    /// Nothing heard yet.
    #[must_use]
    pub(crate) fn new(rate: Rate) -> Self {
        let mut history = Vec::with_capacity(2 * rate.samples(HISTORY_MS));
        history.resize(rate.samples(HISTORY_MS), 0);
        Self { rate, history, cycle: Vec::new(), at: 0, concealed: 0, offset: 0.0 }
    }

    /// Takes real audio. After a concealment its beginning is blended in.
    pub(crate) fn heard(&mut self, audio: &mut [i16]) {
        if self.concealed > 0 {
            let length = self.rate.samples(BLEND_MS).min(audio.len());
            for (n, sample) in audio.iter_mut().take(length).enumerate() {
                let part = (n + 1) as f32 / (length + 1) as f32;
                let made = self.sample();
                *sample = to_i16(made * (1.0 - part) + f32::from(*sample) * part);
            }
            self.concealed = 0;
        }
        self.remember(audio);
    }

    /// Takes audio that was concealed elsewhere.
    pub(crate) fn concealed_elsewhere(&mut self, audio: &[i16]) {
        self.concealed = 0;
        self.remember(audio);
    }

    /// Appends so many samples in the place of lost ones.
    pub(crate) fn conceal(&mut self, samples: usize, out: &mut Vec<i16>) {
        if self.concealed == 0 {
            self.begin();
        }
        let start = out.len();
        for _ in 0..samples {
            let sample = self.sample();
            out.push(to_i16(sample));
        }
        self.remember(&out[start..]);
    }

    /// Appends so many samples in the place of lost ones when what follows on them is known: the pitch before turns into
    /// the pitch after.
    pub(crate) fn bridge(&mut self, samples: usize, next: &[i16], out: &mut Vec<i16>) {
        if self.concealed == 0 {
            self.begin();
        }
        let start = out.len();
        let cycle = first_cycle(next, self.cycle.len());
        for n in 0..samples {
            let before = self.sample();
            // So far before its first sample, a cycle of what follows was where it is again a cycle later.
            let back = (samples - n) % cycle.len().max(1);
            let after = cycle.get((cycle.len() - back) % cycle.len().max(1)).map_or(0.0, |s| f32::from(*s));
            let part = 0.5 - 0.5 * (PI * (n as f32 + 0.5) / samples as f32).cos();
            out.push(to_i16(before * (1.0 - part) + after * part));
        }
        // What follows goes on where this ends.
        self.concealed = 0;
        self.remember(&out[start..]);
    }

    fn begin(&mut self) {
        let period = self.period();
        let blend = period / 4;
        let end = self.history.len();
        // The cycle's end flows into its beginning: it is blended with what came before the cycle.
        self.cycle.clear();
        for n in 0..period {
            let sample = f32::from(self.history[end - period + n]);
            let tail = (n + blend).checked_sub(period).map(|k| (k + 1) as f32 / blend as f32);
            self.cycle.push(match tail {
                Some(part) => sample * (1.0 - part) + f32::from(self.history[end - 2 * period + n]) * part,
                None => sample,
            });
        }
        self.at = 0;
        // In range: history is longer than two of the longest periods.
        self.offset = f32::from(self.history[end - 1]) - f32::from(self.history[end - 1 - period]);
    }

    /// The next sample of the repeated cycle.
    fn sample(&mut self) -> f32 {
        let per_ms = self.rate.samples(1);
        let Some(&sample) = self.cycle.get(self.at) else { return 0.0 };
        self.at = if self.at + 1 == self.cycle.len() { 0 } else { self.at + 1 };
        // The step at the beginning is spread over two milliseconds.
        let ramp = 2 * per_ms;
        let step = self.offset * (1.0 - (self.concealed as f32 / ramp as f32).min(1.0));
        let held = HOLD_MS as usize * per_ms;
        let fade = FADE_MS as usize * per_ms;
        let gain = 1.0 - (self.concealed.saturating_sub(held) as f32 / fade as f32).min(1.0);
        self.concealed = self.concealed.saturating_add(1);
        (sample + step) * gain
    }

    /// The pitch period at the end of what was heard, in samples.
    fn period(&self) -> usize {
        let us = |us: usize| us * self.rate.samples(1) / 1_000;
        let (shortest, longest, compared) = (us(MIN_PERIOD_US), us(MAX_PERIOD_US), us(COMPARED_US));
        let end = self.history.len();
        let recent = &self.history[end - compared..];
        // Every second sample first, then the neighbours of the best: half the rate is enough to find a pitch.
        let score = |lag: usize, step: usize| {
            let earlier = &self.history[end - compared - lag..end - lag];
            correlation(recent, earlier, step)
        };
        let coarse = (self.rate.samples(1) / 4).max(2);
        let mut best = (f32::MIN, longest);
        for lag in (shortest..=longest).step_by(coarse / 2) {
            let found = score(lag, coarse);
            if found > best.0 {
                best = (found, lag);
            }
        }
        let around = best.1.saturating_sub(coarse).max(shortest)..=(best.1 + coarse).min(longest);
        let mut best = (f32::MIN, best.1);
        for lag in around {
            let found = score(lag, 1);
            if found > best.0 {
                best = (found, lag);
            }
        }
        best.1
    }

    fn remember(&mut self, audio: &[i16]) {
        let keep = self.rate.samples(HISTORY_MS);
        let audio = &audio[audio.len().saturating_sub(keep)..];
        let old = keep - audio.len();
        let length = self.history.len();
        self.history.copy_within(length - old.., 0);
        self.history.truncate(old);
        self.history.extend_from_slice(audio);
    }
}

/// The first pitch period of `audio`, which is about `expected` long.
fn first_cycle(audio: &[i16], expected: usize) -> &[i16] {
    let (shortest, longest) = (expected * 4 / 5, expected * 5 / 4);
    // A quarter of a period at the least is compared.
    let longest = longest.min(audio.len().saturating_sub(expected / 4));
    let mut best = (f32::MIN, expected.min(audio.len()));
    for lag in shortest.max(1)..=longest {
        let found = correlation(&audio[..audio.len() - lag], &audio[lag..], 1);
        if found > best.0 {
            best = (found, lag);
        }
    }
    &audio[..best.1]
}

/// Takes one pitch period out of `audio`, in place, or puts one in after it. Returns whether it could be done without
/// being heard; `urgent` does it in any case. `audio` must hold at least 30 ms.
pub(crate) fn change_length(rate: Rate, audio: &mut Vec<i16>, longer: bool, urgent: bool) -> bool {
    let us = |us: usize| us * rate.samples(1) / 1_000;
    let (shortest, longest) = (us(MIN_PERIOD_US), us(MAX_PERIOD_US));
    if audio.len() < 2 * longest {
        return false;
    }
    let power = audio.iter().map(|&s| f32::from(s) * f32::from(s)).sum::<f32>() / audio.len() as f32;
    let quiet = power < QUIET;
    let mut best = (f32::MIN, longest);
    if !quiet {
        for lag in shortest..=longest {
            let found = correlation(&audio[..longest], &audio[lag..lag + longest], 2);
            if found > best.0 {
                best = (found, lag);
            }
        }
        if best.0 < SIMILAR && !urgent {
            return false;
        }
    }
    let lag = best.1;
    let weight = |n: usize| 0.5 - 0.5 * (PI * (n as f32 + 0.5) / lag as f32).cos();
    let mix = |from: i16, to: i16, part: f32| to_i16(f32::from(from) * (1.0 - part) + f32::from(to) * part);
    if longer {
        // …period, then the next one turning back into it, then the next one as it is.
        let blended: [i16; MAX_LAG] =
            std::array::from_fn(|n| if n < lag { mix(audio[lag + n], audio[n], weight(n)) } else { 0 });
        audio.splice(lag..lag, blended.into_iter().take(lag));
    } else {
        for n in 0..lag {
            audio[n] = mix(audio[n], audio[n + lag], weight(n));
        }
        audio.drain(lag..2 * lag);
    }
    true
}

/// The longest period, in samples at 48 kHz.
const MAX_LAG: usize = 720;

/// Correlation of two stretches, −1 to 1, by every `step`th sample.
fn correlation(a: &[i16], b: &[i16], step: usize) -> f32 {
    let (mut product, mut left, mut right) = (0.0_f32, 1.0_f32, 1.0_f32);
    for (&a, &b) in a.iter().step_by(step).zip(b.iter().step_by(step)) {
        let (a, b) = (f32::from(a), f32::from(b));
        product += a * b;
        left += a * a;
        right += b * b;
    }
    product / (left * right).sqrt()
}

fn to_i16(sample: f32) -> i16 {
    // `as` saturates.
    sample.round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{level_db, total_db};

    fn voiced(rate: u32, samples: usize) -> Vec<i16> {
        // 130 Hz and its harmonics, like a vowel.
        (0..samples)
            .map(|n| {
                let t = n as f32 / rate as f32;
                (1..12).map(|k| 3_000.0 / k as f32 * (2.0 * PI * 130.0 * k as f32 * t).sin()).sum::<f32>()
                    as i16
            })
            .collect()
    }

    #[test]
    fn a_gap_whose_other_side_is_known_is_bridged_better() {
        let rate = Rate::Hz8000;
        // The pitch moves, so that what is before the gap is out of step with what is behind it.
        let mut phase = 0.0;
        let real: Vec<i16> = (0..rate.samples(400))
            .map(|n| {
                phase += (130.0 + 60.0 * n as f32 / 3_200.0) / 8_000.0;
                (1..12).map(|k| 3_000.0 / k as f32 * (2.0 * PI * k as f32 * phase).sin()).sum::<f32>() as i16
            })
            .collect();
        let (from, to) = (rate.samples(200), rate.samples(220));
        let error = |made: &[i16]| {
            let differences = made.iter().zip(&real[from..to]).map(|(a, b)| f32::from(*a) - f32::from(*b));
            differences.map(|d| d * d).sum::<f32>()
        };
        let heard = |concealer: &mut Concealer| concealer.heard(&mut real[..from].to_vec());
        let (mut one_side, mut both_sides) = (Concealer::new(rate), Concealer::new(rate));
        let (mut extended, mut bridged) = (Vec::new(), Vec::new());
        heard(&mut one_side);
        one_side.conceal(to - from, &mut extended);
        heard(&mut both_sides);
        both_sides.bridge(to - from, &real[to..to + 160], &mut bridged);
        assert!(error(&bridged) < 0.5 * error(&extended), "{} {}", error(&bridged), error(&extended));
        // It joins what follows without a step, which is then left as it is.
        let mut next = real[to..to + 160].to_vec();
        both_sides.heard(&mut next);
        assert_eq!(next, real[to..to + 160]);
        let step = (i32::from(bridged[bridged.len() - 1]) - i32::from(real[to])).abs();
        assert!(step < 4_000, "{step}");
        // Nothing that follows, or too little, is no harm.
        for next in [&[][..], &real[..3]] {
            both_sides.bridge(160, next, &mut bridged);
        }
    }

    #[test]
    fn a_lost_frame_of_a_vowel_is_nearly_right_and_a_long_gap_fades() {
        for rate in [Rate::Hz8000, Rate::Hz16000] {
            let real = voiced(rate.hz(), rate.samples(400));
            let mut concealer = Concealer::new(rate);
            let frame = rate.samples(20);
            concealer.heard(&mut real[..10 * frame].to_vec());
            let mut made = Vec::new();
            concealer.conceal(frame, &mut made);
            let error: Vec<i16> = made.iter().zip(&real[10 * frame..]).map(|(a, b)| a - b).collect();
            let snr = total_db(&made) - total_db(&error);
            assert!(snr > 10.0, "{rate:?}: {snr:.1} dB");
            for _ in 0..5 {
                made.clear();
                concealer.conceal(frame, &mut made);
            }
            assert_eq!(total_db(&made), -120.0);
        }
    }

    #[test]
    fn nothing_heard_conceals_as_silence() {
        let mut out = Vec::new();
        Concealer::new(Rate::Hz8000).conceal(320, &mut out);
        assert_eq!(out, [0; 320]);
    }

    #[test]
    fn length_changes_by_a_period_and_the_tone_stays() {
        let rate = Rate::Hz8000;
        for longer in [true, false] {
            let mut audio = voiced(8_000, 480);
            assert!(change_length(rate, &mut audio, longer, false));
            let changed = audio.len() as i64 - 480;
            // 130 Hz: 61.5 samples, or two of them.
            assert!([61, 62, 123].contains(&changed.abs()) && (changed > 0) == longer, "{changed}");
            let level = level_db(&audio, 8_000, 130.0) - level_db(&voiced(8_000, 480), 8_000, 130.0);
            assert!(level.abs() < 1.5, "{level:.1}");
        }
        let mut noise: Vec<i16> =
            (0..480_i32).map(|n| ((n * 7_919 + n * n * 31) % 9_973 - 4_986) as i16).collect();
        assert!(!change_length(rate, &mut noise, true, false));
        assert!(change_length(rate, &mut noise, true, true));
    }
}
