//! Noise cancellation on what a caller says: one seam, two denoisers.

mod gtcrn;
mod high;
mod polyphase;
mod standard;
mod stft;

use std::time::Duration;

use crate::resample::Rate;
use high::High;
use standard::Standard;

/// A frame.
const FRAME_MS: u32 = 20;

/// Which denoiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// RNNoise (`nnnoiseless`): cheap, good at hiss, blind to hum.
    Standard,
    /// GTCRN: dearer, good at everything steady, and the only one that makes speech easier to understand.
    High,
}

impl Mode {
    /// The value as it stands in settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::High => "high",
        }
    }

    /// The mode of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Standard, Self::High].into_iter().find(|mode| mode.as_str() == name)
    }
}

/// Noise cancellation of one stream. It is told 20 ms at a time and answers with as many samples, [`Denoiser::delay`]
/// later.
pub struct Denoiser {
    frame: usize,
    kind: Kind,
}

enum Kind {
    Standard(Box<Standard>),
    High(Box<High>),
}

impl Denoiser {
    /// A denoiser for audio of 8 or 16 kHz, which is what codecs decode to; `None` for any other rate.
    #[must_use]
    pub fn new(mode: Mode, rate: Rate) -> Option<Self> {
        if !matches!(rate, Rate::Hz8000 | Rate::Hz16000) {
            return None;
        }
        let frame = rate.samples(FRAME_MS);
        let kind = match mode {
            Mode::Standard => Kind::Standard(Box::new(Standard::new(frame))),
            Mode::High => Kind::High(Box::new(High::new(frame))),
        };
        Some(Self { frame, kind })
    }

    /// Replaces 20 ms by what is left of them without noise (of a length of several, one after the other; what is
    /// left over of a frame stays as it is).
    pub fn process(&mut self, samples: &mut [i16]) {
        for frame in samples.chunks_exact_mut(self.frame) {
            match &mut self.kind {
                Kind::Standard(standard) => standard.process(frame),
                Kind::High(high) => high.process(frame),
            }
        }
    }

    /// How much later the audio comes out.
    #[must_use]
    pub fn delay(&self) -> Duration {
        let samples = match &self.kind {
            Kind::Standard(standard) => standard.delay(),
            Kind::High(high) => high.delay(),
        };
        // A frame is 20 ms.
        Duration::from_secs_f64(samples as f64 / (self.frame * 50) as f64)
    }
}

impl std::fmt::Debug for Denoiser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = match self.kind {
            Kind::Standard(_) => Mode::Standard,
            Kind::High(_) => Mode::High,
        };
        f.debug_struct("Denoiser").field("mode", &mode).field("frame", &self.frame).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
