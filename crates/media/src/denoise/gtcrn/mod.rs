//! GTCRN, one spectrum at a time: 257 bins of 16 kHz audio in, a complex mask for them out. See `README.md` here for
//! where it comes from.

mod convolution;
mod kernels;
mod recurrent;
mod weights;

#[cfg(test)]
mod tests;

use convolution::TemporalState;
use realfft::num_complex::Complex;
use recurrent::{Bands, DualPathState};
use weights::WEIGHTS;

/// Bins of a spectrum: 512 points at 16 kHz.
pub(super) const BINS: usize = 257;
/// Bins that are bands of their own; the 192 above share 64 bands.
const SINGLE: usize = 65;
/// Frames between the taps in time, block by block towards the middle.
const DILATIONS: [usize; 3] = [1, 2, 5];

/// The network's memory of one stream.
pub(super) struct Network {
    encoder: [TemporalState; 3],
    dual_path: [DualPathState; 2],
    decoder: [TemporalState; 3],
}

impl Network {
    pub(super) fn new() -> Self {
        let [a, b, c] = DILATIONS;
        Self {
            encoder: [a, b, c].map(TemporalState::new),
            dual_path: [DualPathState::new(), DualPathState::new()],
            decoder: [c, b, a].map(TemporalState::new),
        }
    }

    /// The mask for the next spectrum (hop 256, periodic Hann's root as window).
    pub(super) fn mask(&mut self, spectrum: &[Complex<f32>; BINS]) -> [Complex<f32>; BINS] {
        let weights = &*WEIGHTS;
        let mut wide = [[0.0; 72]; 16];
        convolution::narrow1(&weights.narrow1, &features(&weights.down, spectrum), &mut wide);
        let mut x = [[0.0; 40]; 16];
        convolution::narrow2(&weights.narrow2, &wide, &mut x);
        // What the encoder made on its way is added on the decoder's, last first.
        let mut kept = [[[0.0; 40]; 16]; 4];
        kept[0] = x;
        for (i, (state, weights)) in self.encoder.iter_mut().zip(&weights.encoder).enumerate() {
            state.process(weights, &mut x);
            kept[i + 1] = x;
        }
        let mut bands: Bands = std::array::from_fn(|band| std::array::from_fn(|c| x[c][band + 1]));
        for (state, weights) in self.dual_path.iter_mut().zip(&weights.dual_path) {
            state.process(weights, &mut bands);
        }
        for (c, row) in x.iter_mut().enumerate() {
            for (to, band) in row.iter_mut().skip(1).zip(&bands) {
                *to = band[c];
            }
        }
        for ((state, weights), kept) in
            self.decoder.iter_mut().zip(&weights.decoder).zip(kept.iter().skip(1).rev())
        {
            add(&mut x, kept);
            state.process(weights, &mut x);
        }
        add(&mut x, &kept[0]);
        convolution::widen1(&weights.widen1, &x, &mut wide);
        let [real, imaginary] = convolution::widen2(&weights.widen2, &wide).map(kernels::tanh);
        let mut mask = [Complex::default(); BINS];
        for (to, (re, im)) in mask.iter_mut().zip(real.iter().zip(&imaginary)).take(SINGLE) {
            *to = Complex::new(*re, *im);
        }
        for (to, (band, [a, b])) in mask.iter_mut().skip(SINGLE).zip(&weights.up) {
            // The file's bands are 0 to 62, and 129 = SINGLE + 64 stand here.
            let at = SINGLE + band;
            *to = Complex::new(a * real[at] + b * real[at + 1], a * imaginary[at] + b * imaginary[at + 1]);
        }
        mask
    }
}

fn add(x: &mut [convolution::Row; 16], kept: &[convolution::Row; 16]) {
    for (x, kept) in x.iter_mut().flatten().zip(kept.iter().flatten()) {
        *x += kept;
    }
}

/// Magnitude, real and imaginary part in 129 bands, a zero at either end.
fn features(down: &weights::Bank, spectrum: &[Complex<f32>; BINS]) -> [[f32; 131]; 3] {
    let mut features = [[0.0; 131]; 3];
    for (i, bin) in spectrum.iter().enumerate() {
        let values = [(bin.norm_sqr() + 1e-12).sqrt(), bin.re, bin.im];
        for (row, value) in features.iter_mut().zip(values) {
            match i.checked_sub(SINGLE).and_then(|above| down.get(above)) {
                None => row[1 + i] = value,
                Some((band, [a, b])) => {
                    let at = 1 + SINGLE + band;
                    row[at] += a * value;
                    row[at + 1] += b * value;
                }
            }
        }
    }
    features
}
