//! The convolutions of encoder and decoder.

use super::kernels::{add_rows, add_taps, linear, prelu, sigmoid};
use super::recurrent;
use super::weights::{Convolution, Temporal};

/// 33 bands: a zero to the left, and zeros to the right up to whole vectors.
pub(super) type Row = [f32; 40];
/// 65 bands, in the same way.
pub(super) type WideRow = [f32; 72];
/// Lanes computed for 33 bands; what is past the 33rd is dropped.
const LANES: usize = 36;
/// Lanes computed for 65 bands.
const WIDE_LANES: usize = 68;

/// Writes the bands of `lanes` into a row and leaves its margins zero.
#[inline(always)]
fn store<const BANDS: usize, const N: usize, const M: usize>(row: &mut [f32; M], lanes: &[f32; N]) {
    for (to, from) in row.iter_mut().skip(1).zip(lanes.iter().take(BANDS)) {
        *to = *from;
    }
}

/// A row's even and its odd bands.
#[inline(always)]
fn split<const M: usize, const HALF: usize>(bands: &[f32; M], count: usize) -> ([f32; HALF], [f32; HALF]) {
    let (mut even, mut odd) = ([0.0; HALF], [0.0; HALF]);
    for (to, from) in even.iter_mut().skip(1).zip(bands.iter().take(count).step_by(2)) {
        *to = *from;
    }
    for (to, from) in odd.iter_mut().skip(1).zip(bands.iter().take(count).skip(1).step_by(2)) {
        *to = *from;
    }
    (even, odd)
}

/// Every second of the five-tap sums of the inputs given.
#[inline(always)]
fn halved<const N: usize, const M: usize>(
    bias: f32,
    taps: &[[f32; 5]],
    inputs: &[([f32; M], [f32; M])],
) -> [f32; N] {
    const { assert!(N + 2 < M, "the rows are too short") };
    let mut sum = [bias; N];
    for (&[a, b, c, d, e], (even, odd)) in taps.iter().zip(inputs) {
        add_taps::<N, M, 3, 0>(&mut sum, [a, c, e], even);
        add_taps::<N, M, 2, 0>(&mut sum, [b, d], odd);
    }
    sum
}

/// 3 × 129 bands, each with its two neighbours as inputs of their own, to 16 × 65.
pub(super) fn narrow1(weights: &Convolution<16, 9>, features: &[[f32; 131]; 3], out: &mut [WideRow; 16]) {
    let inputs: [([f32; 72], [f32; 72]); 9] = std::array::from_fn(|i| {
        // Feature i / 3 seen from band −1, 0, +1; its rows have one zero at either end.
        let mut seen = [0.0; 129];
        for (to, from) in seen.iter_mut().zip(features[i / 3].iter().skip(i % 3)) {
            *to = *from;
        }
        split(&seen, 129)
    });
    for ((row, taps), &bias) in out.iter_mut().zip(&weights.taps).zip(&weights.bias) {
        let mut lanes: [f32; WIDE_LANES] = halved(bias, taps, &inputs);
        prelu(&mut lanes, weights.slope);
        store::<65, _, _>(row, &lanes);
    }
}

/// 16 × 65 bands to 16 × 33, in two groups.
pub(super) fn narrow2(weights: &Convolution<16, 8>, rows: &[WideRow; 16], out: &mut [Row; 16]) {
    let inputs: [([f32; 40], [f32; 40]); 16] = std::array::from_fn(|i| {
        let mut bands = [0.0; 65];
        for (to, from) in bands.iter_mut().zip(rows[i].iter().skip(1)) {
            *to = *from;
        }
        split(&bands, 65)
    });
    let (first, second) = inputs.split_at(8);
    for (o, (row, taps)) in out.iter_mut().zip(&weights.taps).enumerate() {
        let group = if o < 8 { first } else { second };
        let mut lanes: [f32; LANES] = halved(weights.bias[o], taps, group);
        prelu(&mut lanes, weights.slope);
        store::<33, _, _>(row, &lanes);
    }
}

/// Twice as many bands, less one: the even ones and the odd ones.
#[inline(always)]
fn doubled<const N: usize, const M: usize>(
    bias: f32,
    taps: &[[f32; 5]],
    rows: &[[f32; M]],
) -> ([f32; N], [f32; N]) {
    const { assert!(N + 2 < M, "the rows are too short") };
    let (mut even, mut odd) = ([bias; N], [bias; N]);
    for (&[a, b, c, d, e], row) in taps.iter().zip(rows) {
        add_taps::<N, M, 3, 0>(&mut even, [e, c, a], row);
        add_taps::<N, M, 2, 1>(&mut odd, [d, b], row);
    }
    (even, odd)
}

/// 16 × 33 bands to 16 × 65, in two groups, added to what is in `out`.
pub(super) fn widen1(weights: &Convolution<16, 8>, rows: &[Row; 16], out: &mut [WideRow; 16]) {
    let (first, second) = rows.split_at(8);
    for (o, (row, taps)) in out.iter_mut().zip(&weights.taps).enumerate() {
        let group = if o < 8 { first } else { second };
        let (mut even, mut odd): ([f32; LANES], [f32; LANES]) = doubled(weights.bias[o], taps, group);
        prelu(&mut even, weights.slope);
        prelu(&mut odd, weights.slope);
        for (pair, (even, odd)) in row[1..66].chunks_mut(2).zip(even.iter().zip(&odd)) {
            for (to, from) in pair.iter_mut().zip([even, odd]) {
                *to += from;
            }
        }
    }
}

/// 16 × 65 bands to 2 × 129, before their activation.
pub(super) fn widen2(weights: &Convolution<2, 16>, rows: &[WideRow; 16]) -> [[f32; 129]; 2] {
    std::array::from_fn(|o| {
        let (even, odd): ([f32; WIDE_LANES], [f32; WIDE_LANES]) =
            doubled(weights.bias[o], &weights.taps[o], rows);
        let mut bands = [0.0; 129];
        for (pair, (even, odd)) in bands.chunks_mut(2).zip(even.iter().zip(&odd)) {
            for (to, from) in pair.iter_mut().zip([even, odd]) {
                *to = *from;
            }
        }
        bands
    })
}

/// A group temporal convolution: what it remembers of the frames before.
pub(super) struct TemporalState {
    dilation: usize,
    /// The last 2 · dilation frames; the oldest is at `next`, where the present one goes.
    frames: Box<[[Row; 16]]>,
    next: usize,
    attention: [f32; 16],
}

impl TemporalState {
    pub(super) fn new(dilation: usize) -> Self {
        Self {
            dilation,
            frames: vec![[[0.0; 40]; 16]; 2 * dilation].into_boxed_slice(),
            next: 0,
            attention: [0.0; 16],
        }
    }

    /// One frame, in place.
    pub(super) fn process(&mut self, weights: &Temporal, x: &mut [Row; 16]) {
        let mut present = [[0.0; 40]; 16];
        for (o, row) in present.iter_mut().enumerate() {
            let mut lanes = [weights.bias1[o]; LANES];
            for (&taps, row) in weights.point1[o].iter().zip(x.iter()) {
                add_taps::<LANES, 40, 3, 0>(&mut lanes, taps, row);
            }
            prelu(&mut lanes, weights.slope1);
            store::<33, _, _>(row, &lanes);
        }
        // Both are below 2 · dilation, the number of frames.
        let (oldest, middle) =
            (&self.frames[self.next], &self.frames[(self.next + self.dilation) % (2 * self.dilation)]);
        let mut deep = [[0.0; 40]; 16];
        for (c, row) in deep.iter_mut().enumerate() {
            let mut lanes = [weights.depth_bias[c]; LANES];
            let [old, mid, new] = weights.depth[c];
            add_taps::<LANES, 40, 3, 0>(&mut lanes, old, &oldest[c]);
            add_taps::<LANES, 40, 3, 0>(&mut lanes, mid, &middle[c]);
            add_taps::<LANES, 40, 3, 0>(&mut lanes, new, &present[c]);
            prelu(&mut lanes, weights.slope2);
            store::<33, _, _>(row, &lanes);
        }
        self.frames[self.next] = present;
        self.next = (self.next + 1) % (2 * self.dilation);

        let mut heard = [[0.0; 40]; 8];
        let mut energy = [0.0; 8];
        for (o, row) in heard.iter_mut().enumerate() {
            let mut lanes = [weights.bias2[o]; LANES];
            let (quads, _) = weights.point2[o].as_chunks::<4>();
            for (quad, rows) in quads.iter().zip(deep.as_chunks::<4>().0) {
                add_rows(&mut lanes, quad, rows);
            }
            store::<33, _, _>(row, &lanes);
            energy[o] = mean_square(row);
        }
        recurrent::step(&weights.attention, &energy, &mut self.attention);
        let gains = sigmoid(linear(&weights.attention_out, &self.attention));
        // The second half passes by; the two are dealt out like cards.
        let mut out = [[0.0; 40]; 16];
        for (c, pair) in out.chunks_exact_mut(2).enumerate() {
            if let [even, odd] = pair {
                *even = heard[c].map(|v| v * gains[c]);
                *odd = x[8 + c];
            }
        }
        *x = out;
    }
}

/// The mean of the squares of the 33 bands; the margins are zero.
#[inline(always)]
fn mean_square(row: &Row) -> f32 {
    let mut sums = [0.0; 8];
    for chunk in row.as_chunks::<8>().0 {
        for (sum, v) in sums.iter_mut().zip(chunk) {
            *sum += v * v;
        }
    }
    sums.iter().sum::<f32>() / 33.0
}
