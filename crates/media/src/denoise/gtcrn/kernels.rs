//! The inner loops: fixed lengths, no branches, no reductions over one lane, so that the compiler makes vector code of
//! them for any processor.

use super::weights::Linear;

/// Adds neighbours along a row: `sum[i] += Σ taps[k] · row[i + FROM + k]`. `N + K + FROM − 1` is at most `M`.
#[inline(always)]
pub(super) fn add_taps<const N: usize, const M: usize, const K: usize, const FROM: usize>(
    sum: &mut [f32; N],
    taps: [f32; K],
    row: &[f32; M],
) {
    const { assert!(N + K + FROM <= M + 1, "the taps reach past the row") };
    for (i, sum) in sum.iter_mut().enumerate() {
        let mut s = *sum;
        for k in 0..K {
            // Within the row by the assertion above.
            s += taps[k] * row[i + FROM + k];
        }
        *sum = s;
    }
}

/// Adds four rows, weighted, each from its second element on.
#[inline(always)]
pub(super) fn add_rows<const N: usize, const M: usize>(
    sum: &mut [f32; N],
    weights: &[f32; 4],
    rows: &[[f32; M]; 4],
) {
    const { assert!(N < M, "the row is too short") };
    let [a, b, c, d] = rows;
    for (i, sum) in sum.iter_mut().enumerate() {
        // Within the rows by the assertion above.
        *sum +=
            weights[0] * a[i + 1] + weights[1] * b[i + 1] + (weights[2] * c[i + 1] + weights[3] * d[i + 1]);
    }
}

/// `bias + matrix · x`.
#[inline(always)]
pub(super) fn linear<const IN: usize, const OUT: usize>(
    weights: &Linear<IN, OUT>,
    x: &[f32; IN],
) -> [f32; OUT] {
    let mut sum = weights.bias;
    for (row, &x) in weights.matrix.iter().zip(x) {
        for (sum, &weight) in sum.iter_mut().zip(row) {
            *sum += weight * x;
        }
    }
    sum
}

/// Leaves what is positive and scales what is not.
#[inline(always)]
pub(super) fn prelu(values: &mut [f32], slope: f32) {
    for v in values {
        *v = v.max(0.0) + slope * v.min(0.0);
    }
}

/// The logistic function of each.
#[inline(always)]
pub(super) fn sigmoid<const N: usize>(values: [f32; N]) -> [f32; N] {
    values.map(|v| 1.0 / (1.0 + exp(-v)))
}

/// The hyperbolic tangent of each.
#[inline(always)]
pub(super) fn tanh<const N: usize>(values: [f32; N]) -> [f32; N] {
    values.map(|v| 2.0 / (1.0 + exp(-2.0 * v)) - 1.0)
}

/// e to the `x`, to within 2 units in the last place, without a call or a branch.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it rounds to a whole number, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// The logarithm of 2 in two parts, the first exact when multiplied by a small whole number.
    const LN2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    let x = x.clamp(-87.0, 87.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN2.0 - n * LN2.1;
    // Taylor's terms, the last two adjusted to the interval ±ln 2 / 2 (Cephes).
    let p = ((((1.987_569_1e-4 * r + 1.398_199_9e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r
        + 0.166_666_65)
        * r
        + 0.5;
    let mantissa = p * r * r + r + 1.0;
    let exponent = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    mantissa * exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_exact_to_the_last_places() {
        for i in -8_600..8_600 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!(((f64::from(exp(x)) - exact) / exact).abs() < 2.5e-7, "exp({x}) = {}", exp(x));
        }
        assert!(exp(-1e9) >= 0.0 && exp(1e9).is_finite());
        let [a, b, c] = tanh([0.5, -200.0, 200.0]);
        assert!((a - 0.5_f32.tanh()).abs() < 2e-7 && b == -1.0 && c == 1.0);
    }
}
