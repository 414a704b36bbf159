//! Short-time spectra with half overlap: the root of a periodic Hann window before and after, so that spectra left
//! alone add up to the input, half a window later.

use std::f32::consts::PI;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

/// One stream's analysis and synthesis.
pub(super) struct Stft {
    window: Box<[f32]>,
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    /// The last `size` input samples.
    input: Vec<f32>,
    /// What is still to be added to: the second half of the last window.
    tail: Vec<f32>,
    work: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
}

impl Stft {
    /// Windows of `size` samples, an even number.
    pub(super) fn new(size: usize) -> Self {
        let mut planner = RealFftPlanner::new();
        let (forward, inverse) = (planner.plan_fft_forward(size), planner.plan_fft_inverse(size));
        let scratch = forward.get_scratch_len().max(inverse.get_scratch_len());
        Self {
            window: (0..size).map(|i| (PI * i as f32 / size as f32).sin()).collect(),
            spectrum: forward.make_output_vec(),
            work: forward.make_input_vec(),
            forward,
            inverse,
            input: vec![0.0; size],
            tail: vec![0.0; size / 2],
            scratch: vec![Complex::default(); scratch],
        }
    }

    /// Samples from one window to the next.
    pub(super) fn hop(&self) -> usize {
        self.tail.len()
    }

    /// Takes the next `hop` samples, lets `edit` at the spectrum, and puts the finished samples in their place.
    pub(super) fn process(&mut self, samples: &mut [f32], edit: impl FnOnce(&mut [Complex<f32>])) {
        let hop = self.hop();
        debug_assert_eq!(samples.len(), hop);
        self.input.copy_within(hop.., 0);
        for (to, from) in self.input.iter_mut().skip(hop).zip(samples.iter()) {
            *to = *from;
        }
        for ((work, input), window) in self.work.iter_mut().zip(&self.input).zip(&self.window) {
            *work = input * window;
        }
        // The lengths are the planner's own, and both ends of the spectrum are made real: neither transform can fail.
        let _ = self.forward.process_with_scratch(&mut self.work, &mut self.spectrum, &mut self.scratch);
        edit(&mut self.spectrum);
        if let [first, .., last] = self.spectrum.as_mut_slice() {
            (first.im, last.im) = (0.0, 0.0);
        }
        let _ = self.inverse.process_with_scratch(&mut self.spectrum, &mut self.work, &mut self.scratch);
        let scale = 1.0 / self.window.len() as f32;
        for (work, window) in self.work.iter_mut().zip(&self.window) {
            *work *= window * scale;
        }
        let (finished, tail) = self.work.split_at(hop);
        for ((to, tail), finished) in samples.iter_mut().zip(&self.tail).zip(finished) {
            *to = tail + finished;
        }
        self.tail.copy_from_slice(tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spectra_left_alone_add_up_to_the_input() {
        let input: Vec<f32> = (0..2048).map(|i| ((i * i) as f32 * 0.001).sin()).collect();
        let mut stft = Stft::new(256);
        let mut output = Vec::new();
        for hop in input.chunks_exact(128) {
            let mut hop = hop.to_vec();
            stft.process(&mut hop, |_| ());
            output.extend(hop);
        }
        for (i, (a, b)) in output.iter().skip(128).zip(&input).enumerate() {
            assert!((a - b).abs() < 1e-5, "{i}: {a} {b}");
        }
    }
}
