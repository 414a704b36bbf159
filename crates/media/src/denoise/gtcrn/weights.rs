//! The weights, in the order `convert.py` writes them.

use std::array::from_fn;
use std::sync::LazyLock;

/// The weights file: 8 bytes of magic, then little-endian f32.
pub(super) const FILE: &[u8] = include_bytes!("weights.bin");
/// Numbers in it.
const NUMBERS: usize = 24_241;
const _: () = assert!(FILE.len() == 8 + 4 * NUMBERS, "weights.bin is not the file this code was written for");

/// The weights, read once for all calls.
pub(super) static WEIGHTS: LazyLock<Weights> = LazyLock::new(|| {
    let mut reader = Reader(FILE.get(8..).unwrap_or_default());
    let weights = Weights::read(&mut reader);
    debug_assert!(reader.0.is_empty(), "{} bytes of weights.bin are left over", reader.0.len());
    weights
});

/// Everything the network knows.
pub(super) struct Weights {
    /// From 192 bins to 64 bands.
    pub(super) down: Bank,
    /// 129 bands to 65.
    pub(super) narrow1: Convolution<16, 9>,
    /// 65 bands to 33, in two groups.
    pub(super) narrow2: Convolution<16, 8>,
    pub(super) encoder: [Temporal; 3],
    pub(super) dual_path: [DualPath; 2],
    pub(super) decoder: [Temporal; 3],
    /// 33 bands to 65, in two groups.
    pub(super) widen1: Convolution<16, 8>,
    /// 65 bands to 129; no slope.
    pub(super) widen2: Convolution<2, 16>,
    /// From 64 bands to 192 bins.
    pub(super) up: Bank,
}

/// A filter bank: for each bin the first of two neighbouring bands, and how much it has of each.
pub(super) type Bank = Box<[(usize, [f32; 2])]>;

/// Five taps along the bands, and the slope for what is negative.
pub(super) struct Convolution<const OUT: usize, const IN: usize> {
    pub(super) taps: [[[f32; 5]; IN]; OUT],
    pub(super) bias: [f32; OUT],
    pub(super) slope: f32,
}

/// A group temporal convolution with its temporal recurrent attention.
pub(super) struct Temporal {
    pub(super) point1: [[[f32; 3]; 8]; 16],
    pub(super) bias1: [f32; 16],
    pub(super) slope1: f32,
    /// By channel, time (oldest first) and band.
    pub(super) depth: [[[f32; 3]; 3]; 16],
    pub(super) depth_bias: [f32; 16],
    pub(super) slope2: f32,
    pub(super) point2: [[f32; 16]; 8],
    pub(super) bias2: [f32; 8],
    pub(super) attention: Gru<8, 16, 48>,
    pub(super) attention_out: Linear<16, 8>,
}

/// One of the two grouped dual-path blocks.
pub(super) struct DualPath {
    /// Group 1 up the bands, group 1 down, group 2 up, group 2 down.
    pub(super) intra: [Gru<8, 4, 12>; 4],
    pub(super) intra_out: Linear<16, 16>,
    pub(super) intra_norm: Norm,
    pub(super) inter: [Gru<8, 8, 24>; 2],
    pub(super) inter_out: Linear<16, 16>,
    pub(super) inter_norm: Norm,
}

/// A gated recurrent unit; gates are update, reset, new (`GATES` = 3 × `HIDDEN`).
pub(super) struct Gru<const IN: usize, const HIDDEN: usize, const GATES: usize> {
    pub(super) input: Linear<IN, GATES>,
    pub(super) hidden: Linear<HIDDEN, GATES>,
}

/// A matrix, input-major, and what is added.
pub(super) struct Linear<const IN: usize, const OUT: usize> {
    pub(super) matrix: [[f32; OUT]; IN],
    pub(super) bias: [f32; OUT],
}

/// Scale and shift after normalisation, by band and channel.
pub(super) struct Norm {
    pub(super) scale: [[f32; 16]; 33],
    pub(super) shift: [[f32; 16]; 33],
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> f32 {
        // The length is checked when this is compiled, so a number is never missing.
        let (first, rest) = self.0.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        self.0 = rest;
        f32::from_le_bytes(*first)
    }

    fn row<const N: usize>(&mut self) -> [f32; N] {
        from_fn(|_| self.number())
    }

    fn rows<const N: usize, const R: usize>(&mut self) -> [[f32; N]; R] {
        from_fn(|_| self.row())
    }

    fn bank(&mut self) -> Bank {
        (0..192).map(|_| (self.number() as usize, self.row())).collect()
    }
}

impl Weights {
    fn read(r: &mut Reader<'_>) -> Self {
        Self {
            down: r.bank(),
            narrow1: Convolution::read(r),
            narrow2: Convolution::read(r),
            encoder: from_fn(|_| Temporal::read(r)),
            dual_path: from_fn(|_| DualPath::read(r)),
            decoder: from_fn(|_| Temporal::read(r)),
            widen1: Convolution::read(r),
            widen2: Convolution { taps: from_fn(|_| r.rows()), bias: r.row(), slope: 1.0 },
            up: r.bank(),
        }
    }
}

impl<const OUT: usize, const IN: usize> Convolution<OUT, IN> {
    fn read(r: &mut Reader<'_>) -> Self {
        Self { taps: from_fn(|_| r.rows()), bias: r.row(), slope: r.number() }
    }
}

impl Temporal {
    fn read(r: &mut Reader<'_>) -> Self {
        Self {
            point1: from_fn(|_| r.rows()),
            bias1: r.row(),
            slope1: r.number(),
            depth: from_fn(|_| r.rows()),
            depth_bias: r.row(),
            slope2: r.number(),
            point2: r.rows(),
            bias2: r.row(),
            attention: Gru::read(r),
            attention_out: Linear::read(r),
        }
    }
}

impl DualPath {
    fn read(r: &mut Reader<'_>) -> Self {
        Self {
            intra: from_fn(|_| Gru::read(r)),
            intra_out: Linear::read(r),
            intra_norm: Norm { scale: r.rows(), shift: r.rows() },
            inter: from_fn(|_| Gru::read(r)),
            inter_out: Linear::read(r),
            inter_norm: Norm { scale: r.rows(), shift: r.rows() },
        }
    }
}

impl<const IN: usize, const HIDDEN: usize, const GATES: usize> Gru<IN, HIDDEN, GATES> {
    fn read(r: &mut Reader<'_>) -> Self {
        let (input, hidden) = (r.rows(), r.rows());
        Self {
            input: Linear { matrix: input, bias: r.row() },
            hidden: Linear { matrix: hidden, bias: r.row() },
        }
    }
}

impl<const IN: usize, const OUT: usize> Linear<IN, OUT> {
    fn read(r: &mut Reader<'_>) -> Self {
        Self { matrix: r.rows(), bias: r.row() }
    }
}
