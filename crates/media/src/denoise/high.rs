//! GTCRN with a floor: what it would remove stays, 16 dB down, which costs little of the silence and saves the speech
//! from its mistakes.

use std::collections::VecDeque;

use realfft::num_complex::Complex;

use super::gtcrn::{BINS, Network};
use super::stft::Stft;

/// How much of the input is always there: −16 dB.
const FLOOR: f32 = 0.158_489_32;
/// Scale of 16-bit samples.
const FULL: f32 = 32_768.0;

pub(super) struct High {
    stft: Stft,
    network: Network,
    /// Turns a spectrum of the caller's rate into one of 16 kHz.
    scale: f32,
    /// Samples that wait for a whole hop.
    input: Vec<f32>,
    /// Samples that wait for a frame.
    output: VecDeque<f32>,
    waiting: usize,
}

impl High {
    /// For frames of 20 ms of so many samples. 8 kHz audio is not resampled: its spectrum of 256 points is the lower
    /// half of that of 512 points at 16 kHz, and the upper half is silence.
    pub(super) fn new(frame: usize) -> Self {
        let hop = frame * 4 / 5;
        // Frames of 5 parts are cut from hops of 4: at most 3 parts are still in `input` when a frame is due.
        let waiting = frame * 3 / 5;
        Self {
            stft: Stft::new(2 * hop),
            network: Network::new(),
            scale: (BINS - 1) as f32 / hop as f32,
            input: Vec::with_capacity(hop),
            output: std::iter::repeat_n(0.0, waiting).collect(),
            waiting,
        }
    }

    pub(super) fn process(&mut self, frame: &mut [i16]) {
        let hop = self.stft.hop();
        for &sample in frame.iter() {
            self.input.push(f32::from(sample) / FULL);
            if self.input.len() == hop {
                let (network, scale) = (&mut self.network, self.scale);
                self.stft.process(&mut self.input, |spectrum| {
                    let mut seen = [Complex::default(); BINS];
                    for (to, from) in seen.iter_mut().zip(spectrum.iter()) {
                        *to = from * scale;
                    }
                    for (bin, mask) in spectrum.iter_mut().zip(network.mask(&seen)) {
                        *bin *= mask * (1.0 - FLOOR) + FLOOR;
                    }
                });
                self.output.extend(self.input.drain(..));
            }
        }
        for sample in frame {
            // There is always one: `waiting` covers what is still in `input`. `as` saturates.
            *sample = (self.output.pop_front().unwrap_or_default() * FULL).round() as i16;
        }
    }

    /// In samples: half a window, and what waits for a whole hop.
    pub(super) fn delay(&self) -> usize {
        self.stft.hop() + self.waiting
    }
}
