//! The recurrent parts: attention's unit, and the dual path along the bands and along time.

use super::kernels::{linear, sigmoid, tanh};
use super::weights::{DualPath, Gru, Linear, Norm};

/// 33 bands by 16 channels.
pub(super) type Bands = [[f32; 16]; 33];

/// One step of a unit.
#[inline(always)]
pub(super) fn step<const IN: usize, const HIDDEN: usize, const GATES: usize>(
    weights: &Gru<IN, HIDDEN, GATES>,
    x: &[f32; IN],
    state: &mut [f32; HIDDEN],
) {
    const { assert!(GATES == 3 * HIDDEN, "a unit has three gates") };
    let input = linear(&weights.input, x);
    let hidden = linear(&weights.hidden, state);
    // The indices are below GATES by the assertion above.
    let update = sigmoid::<HIDDEN>(std::array::from_fn(|i| input[i] + hidden[i]));
    let reset = sigmoid::<HIDDEN>(std::array::from_fn(|i| input[HIDDEN + i] + hidden[HIDDEN + i]));
    let new =
        tanh::<HIDDEN>(std::array::from_fn(|i| input[2 * HIDDEN + i] + reset[i] * hidden[2 * HIDDEN + i]));
    for i in 0..HIDDEN {
        state[i] = new[i] + update[i] * (state[i] - new[i]);
    }
}

/// What a dual-path block remembers: the units along time, one a band.
pub(super) struct DualPathState {
    inter: [[[f32; 8]; 2]; 33],
}

impl DualPathState {
    pub(super) fn new() -> Self {
        Self { inter: [[[0.0; 8]; 2]; 33] }
    }

    /// One frame, in place.
    pub(super) fn process(&mut self, weights: &DualPath, x: &mut Bands) {
        let y = along_bands(&weights.intra, x);
        normalised(&y, &weights.intra_out, &weights.intra_norm, x);
        let mut y = [[0.0; 16]; 33];
        for ((y, x), state) in y.iter_mut().zip(x.iter()).zip(&mut self.inter) {
            let halves = x.as_chunks::<8>().0;
            for (((unit, half), state), y) in
                weights.inter.iter().zip(halves).zip(state.iter_mut()).zip(y.as_chunks_mut::<8>().0)
            {
                step(unit, half, state);
                *y = *state;
            }
        }
        normalised(&y, &weights.inter_out, &weights.inter_norm, x);
    }
}

/// Four units of four run along the bands side by side, two upward and two downward.
fn along_bands(units: &[Gru<8, 4, 12>; 4], x: &Bands) -> Bands {
    /// Per step: the gates' input, by gate, unit and place in it.
    type Gates = [[f32; 16]; 3];
    let mut gates: [Gates; 33] = [[[0.0; 16]; 3]; 33];
    for (u, unit) in units.iter().enumerate() {
        for (band, x) in x.iter().enumerate() {
            let sums = linear(&unit.input, &x.as_chunks::<8>().0[u / 2]);
            let step = &mut gates[if u % 2 == 0 { band } else { 32 - band }];
            for (gate, sums) in step.iter_mut().zip(sums.as_chunks::<4>().0) {
                gate[4 * u..4 * u + 4].copy_from_slice(sums);
            }
        }
    }
    let mut out = [[0.0; 16]; 33];
    let mut state = [0.0_f32; 16];
    for (step, [update, reset, new]) in gates.iter().enumerate() {
        let mut hidden: Gates = [[0.0; 16]; 3];
        for (u, unit) in units.iter().enumerate() {
            let sums = linear(&unit.hidden, &state.as_chunks::<4>().0[u]);
            for (gate, sums) in hidden.iter_mut().zip(sums.as_chunks::<4>().0) {
                gate[4 * u..4 * u + 4].copy_from_slice(sums);
            }
        }
        let update = sigmoid::<16>(std::array::from_fn(|i| update[i] + hidden[0][i]));
        let reset = sigmoid::<16>(std::array::from_fn(|i| reset[i] + hidden[1][i]));
        let new = tanh::<16>(std::array::from_fn(|i| new[i] + reset[i] * hidden[2][i]));
        for i in 0..16 {
            state[i] = new[i] + update[i] * (state[i] - new[i]);
        }
        let (up, down) = (step, 32 - step);
        for u in 0..4 {
            let places = 4 * u..4 * u + 4;
            out[if u % 2 == 0 { up } else { down }][places.clone()].copy_from_slice(&state[places]);
        }
    }
    out
}

/// Adds to `x` the layer after a unit, normalised over all bands and channels.
fn normalised(y: &Bands, out: &Linear<16, 16>, norm: &Norm, x: &mut Bands) {
    let mut sums = [0.0; 16];
    let mut y: Bands = std::array::from_fn(|band| linear(out, &y[band]));
    for row in &y {
        for (sum, v) in sums.iter_mut().zip(row) {
            *sum += v;
        }
    }
    let mean = sums.iter().sum::<f32>() / 528.0;
    let mut squares = [0.0; 16];
    for row in &mut y {
        for (square, v) in squares.iter_mut().zip(row) {
            *v -= mean;
            *square += *v * *v;
        }
    }
    let inverse = 1.0 / (squares.iter().sum::<f32>() / 528.0 + 1e-8).sqrt();
    for (((x, y), scale), shift) in x.iter_mut().zip(&y).zip(&norm.scale).zip(&norm.shift) {
        for i in 0..16 {
            x[i] += y[i] * inverse * scale[i] + shift[i];
        }
    }
}
