//! Resampling between the rates of calls and agents: 8, 16, 24 and 48 kHz, in blocks of 10 ms.

use audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};

/// Blocks a second.
const BLOCKS: usize = 100;
/// Most samples in a block: 10 ms at 48 kHz.
const MAX_BLOCK: usize = 480;

/// The rates that audio has here, in hertz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rate {
    /// 8 kHz: telephone bandwidth.
    Hz8000,
    /// 16 kHz: wideband.
    Hz16000,
    /// 24 kHz: what speech models speak.
    Hz24000,
    /// 48 kHz: Opus' clock.
    Hz48000,
}

impl Rate {
    /// The rate in hertz.
    #[must_use]
    pub const fn hz(self) -> u32 {
        match self {
            Self::Hz8000 => 8_000,
            Self::Hz16000 => 16_000,
            Self::Hz24000 => 24_000,
            Self::Hz48000 => 48_000,
        }
    }

    /// The rate of so many hertz; `None` for any other than the four.
    #[must_use]
    pub const fn from_hz(hz: u32) -> Option<Self> {
        match hz {
            8_000 => Some(Self::Hz8000),
            16_000 => Some(Self::Hz16000),
            24_000 => Some(Self::Hz24000),
            48_000 => Some(Self::Hz48000),
            _ => None,
        }
    }

    /// Samples of so many milliseconds.
    #[must_use]
    pub const fn samples(self, ms: u32) -> usize {
        (self.hz() / 1_000 * ms) as usize
    }
}

/// Brings one stream of samples from one rate to another. Between equal rates it copies. It allocates nothing once
/// `out` has its capacity, and adds [`Resampler::delay_us`] of delay.
pub struct Resampler {
    /// `None` between equal rates.
    fft: Option<Box<Fft<f32>>>,
    from: Rate,
    to: Rate,
    /// What is left of the last call: less than a block. Apart, as most sessions convert nothing and are moved about.
    pending: Box<[f32; MAX_BLOCK]>,
    waiting: usize,
    converted: Box<[f32; MAX_BLOCK]>,
}

impl std::fmt::Debug for Resampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resampler({} → {} Hz)", self.from.hz(), self.to.hz())
    }
}

impl Resampler {
    /// A resampler whose past is silence.
    #[must_use]
    pub fn new(from: Rate, to: Rate) -> Self {
        let hz = |rate: Rate| rate.hz() as usize;
        let fft = if from == to {
            None
        } else {
            // A block of 10 ms is a whole number of samples at every rate, which is all it can object to.
            Fft::new_custom(
                hz(from),
                hz(to),
                hz(from) / BLOCKS,
                1,
                1,
                // Narrow enough to keep 3.4 kHz with 80 taps, and images below −60 dB.
                rubato::WindowFunction::Blackman,
                FixedSync::Both,
            )
            .ok()
            .map(Box::new)
        };
        let block = || Box::new([0.0; MAX_BLOCK]);
        Self { fft, from, to, pending: block(), waiting: 0, converted: block() }
    }

    /// The rate of what comes in.
    #[must_use]
    pub fn from(&self) -> Rate {
        self.from
    }

    /// The rate of what goes out.
    #[must_use]
    pub fn to(&self) -> Rate {
        self.to
    }

    /// Delay in microseconds: half a block, or none between equal rates.
    #[must_use]
    pub fn delay_us(&self) -> u32 {
        if self.fft.is_some() { 5_000 } else { 0 }
    }

    /// Appends to `out` what comes of `input`: whole blocks of 10 ms. What is left of `input` waits for the next call.
    pub fn process(&mut self, input: &[i16], out: &mut Vec<i16>) {
        if self.fft.is_none() {
            out.extend_from_slice(input);
            return;
        }
        self.blocks(input, |&sample| f32::from(sample), |block| out.extend(block.iter().map(|s| to_i16(*s))));
    }

    /// The same for samples in floating point, of any scale.
    pub fn process_f32(&mut self, input: &[f32], out: &mut Vec<f32>) {
        if self.fft.is_none() {
            out.extend_from_slice(input);
            return;
        }
        self.blocks(input, |&sample| sample, |block| out.extend_from_slice(block));
    }

    fn blocks<T>(&mut self, mut input: &[T], sample: impl Fn(&T) -> f32, mut emit: impl FnMut(&[f32])) {
        let block = self.from.samples(10);
        let made = self.to.samples(10);
        while !input.is_empty() {
            let (now, later) = input.split_at(input.len().min(block - self.waiting));
            for (slot, value) in self.pending[self.waiting..].iter_mut().zip(now) {
                *slot = sample(value);
            }
            self.waiting += now.len();
            input = later;
            if self.waiting < block {
                return;
            }
            self.waiting = 0;
            let converted = self.convert(block, made);
            // The sizes are those the resampler was made for, so it converts; silence keeps time if it ever did not.
            if converted.is_none() {
                self.converted.fill(0.0);
            }
            emit(&self.converted[..made]);
        }
    }

    fn convert(&mut self, block: usize, made: usize) -> Option<()> {
        let source = InterleavedSlice::new(&self.pending[..block], 1, block).ok()?;
        let mut target = InterleavedSlice::new_mut(&mut self.converted[..made], 1, made).ok()?;
        self.fft.as_mut()?.process_into_buffer(&source, &mut target, None).ok()?;
        Some(())
    }

    /// Forgets the past.
    pub fn reset(&mut self) {
        self.waiting = 0;
        if let Some(fft) = &mut self.fft {
            fft.reset();
        }
    }
}

fn to_i16(sample: f32) -> i16 {
    // `as` saturates.
    sample.round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::level_db;

    const RATES: [Rate; 4] = [Rate::Hz8000, Rate::Hz16000, Rate::Hz24000, Rate::Hz48000];

    fn tone(rate: Rate, hz: f32, samples: usize) -> Vec<i16> {
        (0..samples)
            .map(|n| {
                (10_000.0 * (std::f64::consts::TAU * f64::from(hz) * n as f64 / f64::from(rate.hz())).sin())
                    as i16
            })
            .collect()
    }

    /// One second through a resampler in frames of `frame` samples, without the first 100 ms.
    fn through(from: Rate, to: Rate, hz: f32, frame: usize) -> Vec<i16> {
        let mut resampler = Resampler::new(from, to);
        let mut out = Vec::new();
        for chunk in tone(from, hz, from.hz() as usize).chunks(frame) {
            resampler.process(chunk, &mut out);
        }
        assert_eq!(out.len(), to.hz() as usize, "{from:?} {to:?}");
        out.split_off(to.samples(100))
    }

    #[test]
    fn every_pair_of_rates_keeps_speech() {
        for (from, to) in RATES.into_iter().flat_map(|f| RATES.map(|t| (f, t))) {
            for hz in [300.0, 1_000.0, 3_000.0, 3_400.0] {
                let level = level_db(&through(from, to, hz, from.samples(20)), to.hz(), hz) + 10.31;
                assert!(level.abs() < 0.5, "{from:?} → {to:?} at {hz} Hz: {level:.2} dB");
            }
        }
        let wide = level_db(&through(Rate::Hz24000, Rate::Hz16000, 6_800.0, 480), 16_000, 6_800.0) + 10.31;
        assert!(wide.abs() < 0.5, "{wide:.2}");
    }

    #[test]
    fn what_does_not_fit_leaves_no_alias_and_no_image() {
        for from in [Rate::Hz16000, Rate::Hz24000, Rate::Hz48000] {
            for hz in [4_400.0, 5_000.0, 6_000.0, 7_000.0] {
                let alias =
                    level_db(&through(from, Rate::Hz8000, hz, from.samples(20)), 8_000, 8_000.0 - hz) + 10.31;
                assert!(alias < -50.0, "{from:?} at {hz} Hz: {alias:.1} dB");
            }
        }
        for (to, hz) in [(Rate::Hz16000, 1_000.0), (Rate::Hz24000, 3_000.0), (Rate::Hz48000, 3_400.0)] {
            let image = level_db(&through(Rate::Hz8000, to, hz, 160), to.hz(), 8_000.0 - hz) + 10.31;
            assert!(image < -50.0, "{to:?} at {hz} Hz: {image:.1} dB");
        }
    }

    #[test]
    fn frame_sizes_do_not_matter_and_equal_rates_are_exact() {
        let whole = through(Rate::Hz24000, Rate::Hz8000, 440.0, 24_000);
        for frame in [1, 7, 239, 240, 480, 481] {
            assert_eq!(through(Rate::Hz24000, Rate::Hz8000, 440.0, frame), whole);
        }
        let mut out = Vec::new();
        Resampler::new(Rate::Hz8000, Rate::Hz8000).process(&[1, -2, i16::MIN], &mut out);
        assert_eq!(out, [1, -2, i16::MIN]);
    }

    #[test]
    fn the_delay_is_as_stated_and_a_reset_forgets() {
        let mut resampler = Resampler::new(Rate::Hz8000, Rate::Hz16000);
        let mut click = vec![0; 800];
        click[400] = 20_000;
        let mut out = Vec::new();
        resampler.process(&click, &mut out);
        let peak = out.iter().enumerate().max_by_key(|(_, s)| **s).map_or(0, |(n, _)| n);
        assert_eq!(peak, 400 * 2 + 16 * resampler.delay_us() as usize / 1_000);
        resampler.process(&click[..47], &mut out);
        resampler.reset();
        out.clear();
        resampler.process(&[0; 160], &mut out);
        assert_eq!(out, [0; 320]);
    }

    #[test]
    fn full_scale_is_clipped_and_not_wrapped() {
        let mut resampler = Resampler::new(Rate::Hz8000, Rate::Hz48000);
        let square: Vec<i16> =
            (0..8_000).map(|n| if n / 20 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        let mut out = Vec::new();
        resampler.process(&square, &mut out);
        // The middle of a plateau, half a block late, keeps its sign.
        assert!(out[60 + 240 + 2_400] > 30_000 && out[180 + 240 + 2_400] < -30_000);
    }
}
