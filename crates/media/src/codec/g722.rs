//! G.722 at 64 kbit/s (ITU-T G.722): two bands of 8 kHz by quadrature mirror filters, each an adaptive differential
//! quantizer; 6 bits for the lower band and 2 for the higher. Names in capitals are the Recommendation's blocks.

/// Filter of both directions, one phase; the other is the same backwards (G.722 table 11).
const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3_876, -805, 362, -156, 53, -11];

/// Decision levels of the lower band (QUANTL).
const DECISIONS: [i32; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1_023, 1_121,
    1_219, 1_339, 1_458, 1_612, 1_765, 1_980, 2_195, 2_557, 2_919,
];
/// What 6 bits of the lower band stand for, for what is heard (INVQBL).
const LEVELS_64: [i32; 64] = [
    -136, -136, -136, -136, -24_808, -21_904, -19_008, -16_704, -14_984, -13_512, -12_280, -11_192, -10_232,
    -9_360, -8_576, -7_856, -7_192, -6_576, -6_000, -5_456, -4_944, -4_464, -4_008, -3_576, -3_168, -2_776,
    -2_400, -2_032, -1_688, -1_360, -1_040, -728, 24_808, 21_904, 19_008, 16_704, 14_984, 13_512, 12_280,
    11_192, 10_232, 9_360, 8_576, 7_856, 7_192, 6_576, 6_000, 5_456, 4_944, 4_464, 4_008, 3_576, 3_168,
    2_776, 2_400, 2_032, 1_688, 1_360, 1_040, 728, 432, 136, -432, -136,
];
/// What its upper 4 bits stand for, for what is predicted from (INVQAL), and how they move the scale (LOGSCL).
const LEVELS_16: [i32; 16] = [
    0, -20_456, -12_896, -8_968, -6_288, -4_240, -2_584, -1_200, 20_456, 12_896, 8_968, 6_288, 4_240, 2_584,
    1_200, 0,
];
const STEPS_16: [i32; 16] =
    [-60, 3_042, 1_198, 538, 334, 172, 58, -30, 3_042, 1_198, 538, 334, 172, 58, -30, -60];
/// The same of the higher band's 2 bits (INVQAH, LOGSCH).
const LEVELS_4: [i32; 4] = [-7_408, -1_616, 7_408, 1_616];
const STEPS_4: [i32; 4] = [798, -214, 798, -214];
/// The higher band's one decision level (QUANTH).
const DECISION_HIGH: i32 = 564;
/// Powers of two in 32 steps (SCALEL, SCALEH).
const INVERSE_LOG: [i32; 32] = [
    2_048, 2_093, 2_139, 2_186, 2_233, 2_282, 2_332, 2_383, 2_435, 2_489, 2_543, 2_599, 2_656, 2_714, 2_774,
    2_834, 2_896, 2_960, 3_025, 3_091, 3_158, 3_228, 3_298, 3_371, 3_444, 3_520, 3_597, 3_676, 3_756, 3_838,
    3_922, 4_008,
];
/// Largest logarithmic scales.
const LARGEST_LOW: i32 = 18_432;
const LARGEST_HIGH: i32 = 22_528;

fn saturate(value: i32) -> i32 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}

/// One band's scale and predictor: the same in encoder and decoder, which is what keeps them together.
#[derive(Debug)]
struct Band {
    /// The quantizer's scale, linear and logarithmic.
    scale: i32,
    log_scale: i32,
    /// What is predicted: by poles, by zeros and in all.
    zeros_part: i32,
    predicted: i32,
    /// The last reconstructed samples, and those of the zeros' part, the newest first.
    reconstructed: [i32; 2],
    partial: [i32; 2],
    poles: [i32; 2],
    /// The last quantized differences, the newest first.
    differences: [i32; 6],
    zeros: [i32; 6],
}

impl Band {
    fn new(scale: i32) -> Self {
        Self {
            scale,
            log_scale: 0,
            zeros_part: 0,
            predicted: 0,
            reconstructed: [0; 2],
            partial: [0; 2],
            poles: [0; 2],
            differences: [0; 6],
            zeros: [0; 6],
        }
    }

    fn of_low() -> Self {
        Self::new(32)
    }

    fn of_high() -> Self {
        Self::new(8)
    }

    /// A quantized level at the present scale.
    fn scaled(&self, level: i32) -> i32 {
        (self.scale * level) >> 15
    }

    /// LOGSCL and SCALEL, or LOGSCH and SCALEH: `base` is what the logarithm's whole part is counted from.
    fn rescale(&mut self, step: i32, largest: i32, base: i32) {
        self.log_scale = (((self.log_scale * 127) >> 7) + step).clamp(0, largest);
        // In range: five bits.
        let mantissa = INVERSE_LOG[(self.log_scale >> 6 & 31) as usize];
        let shift = base - (self.log_scale >> 11);
        self.scale = if shift < 0 { mantissa << -shift } else { mantissa >> shift } << 2;
    }

    /// Takes a quantized difference: the predictor adapts, and predicts the next sample.
    fn adapt(&mut self, difference: i32) {
        // RECONS, PARREC.
        let reconstructed = saturate(self.predicted + difference);
        let partial = saturate(self.zeros_part + difference);
        let same = |other: i32| (partial < 0) == (other < 0);
        // UPPOL2.
        let [first, second] = self.poles;
        let turned = saturate(first << 2);
        let turned = if same(self.partial[0]) { saturate(-turned) } else { turned };
        let second =
            (turned >> 7) + if same(self.partial[1]) { 128 } else { -128 } + ((second * 32_512) >> 15);
        let second = second.clamp(-12_288, 12_288);
        // UPPOL1.
        let first = saturate(if same(self.partial[0]) { 192 } else { -192 } + ((first * 32_640) >> 15));
        let limit = saturate(15_360 - second);
        self.poles = [first.clamp(-limit, limit), second];
        // UPZERO.
        let step = if difference == 0 { 0 } else { 128 };
        for (zero, past) in self.zeros.iter_mut().zip(&self.differences) {
            let step = if (*past < 0) == (difference < 0) { step } else { -step };
            *zero = saturate(step + ((*zero * 32_640) >> 15));
        }
        // DELAYA.
        self.differences.rotate_right(1);
        self.differences[0] = difference;
        self.reconstructed = [reconstructed, self.reconstructed[0]];
        self.partial = [partial, self.partial[0]];
        // FILTEP, FILTEZ, PREDIC.
        let weighed = |coefficients: &[i32], samples: &[i32]| -> i32 {
            let pairs = coefficients.iter().zip(samples);
            saturate(pairs.map(|(c, sample)| (c * saturate(sample << 1)) >> 15).sum())
        };
        self.zeros_part = weighed(&self.zeros, &self.differences);
        self.predicted = saturate(weighed(&self.poles, &self.reconstructed) + self.zeros_part);
    }

    /// The lower band's 6 bits are known.
    fn take_low(&mut self, bits: usize) {
        // In range: four bits.
        let index = bits >> 2 & 15;
        let difference = self.scaled(LEVELS_16[index]);
        self.rescale(STEPS_16[index], LARGEST_LOW, 8);
        self.adapt(difference);
    }

    /// The higher band's 2 bits are known.
    fn take_high(&mut self, bits: usize) {
        // In range: two bits.
        let difference = self.scaled(LEVELS_4[bits & 3]);
        self.rescale(STEPS_4[bits & 3], LARGEST_HIGH, 10);
        self.adapt(difference);
    }
}

/// How far a difference is from zero, so that both signs have as many steps.
fn magnitude(difference: i32) -> i32 {
    if difference < 0 { -(difference + 1) } else { difference }
}

/// One stream's encoder.
#[derive(Debug)]
pub struct Encoder {
    low: Band,
    high: Band,
    /// The last 24 samples, the newest last.
    past: [i32; 24],
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { low: Band::of_low(), high: Band::of_high(), past: [0; 24] }
    }

    /// Appends a byte for each two samples.
    pub(super) fn encode(&mut self, samples: &[i16], out: &mut Vec<u8>) {
        for pair in samples.as_chunks::<2>().0 {
            self.past.rotate_left(2);
            [self.past[22], self.past[23]] = pair.map(i32::from);
            let (mut odd, mut even) = (0, 0);
            for (n, pair) in self.past.as_chunks::<2>().0.iter().enumerate() {
                // In range: there are twelve pairs.
                odd += pair[0] * QMF[n];
                even += pair[1] * QMF[11 - n];
            }
            let low = self.encode_low((even + odd) >> 14);
            let high = self.encode_high((even - odd) >> 14);
            out.push(high << 6 | low);
        }
    }

    fn encode_low(&mut self, sample: i32) -> u8 {
        let difference = saturate(sample - self.low.predicted);
        let size = magnitude(difference);
        let reached = |level: &&i32| size >= (**level * self.low.scale) >> 12;
        let step = DECISIONS.iter().take_while(reached).count() as u8;
        let bits = match (difference < 0, step) {
            (true, 0 | 1) => 63 - step,
            (true, _) => 33 - step,
            (false, _) => 61 - step,
        };
        self.low.take_low(bits.into());
        bits
    }

    fn encode_high(&mut self, sample: i32) -> u8 {
        let difference = saturate(sample - self.high.predicted);
        let large = magnitude(difference) >= (DECISION_HIGH * self.high.scale) >> 12;
        let bits = match (difference < 0, large) {
            (true, false) => 1,
            (true, true) => 0,
            (false, false) => 3,
            (false, true) => 2,
        };
        self.high.take_high(bits.into());
        bits
    }
}

/// One stream's decoder.
#[derive(Debug)]
pub struct Decoder {
    low: Band,
    high: Band,
    /// Sums and differences of the last twelve pairs, the newest last.
    past: [i32; 24],
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { low: Band::of_low(), high: Band::of_high(), past: [0; 24] }
    }

    /// Appends two samples for each byte.
    pub(super) fn decode(&mut self, payload: &[u8], out: &mut Vec<i16>) {
        for byte in payload {
            let (low, high) = (usize::from(byte & 63), usize::from(byte >> 6));
            // In range: six bits and two. LIMIT: what both bands can say is half of what a sample can.
            let limit = |sample: i32| sample.clamp(-16_384, 16_383);
            let heard_low = limit(self.low.predicted + self.low.scaled(LEVELS_64[low]));
            let heard_high = limit(self.high.predicted + self.high.scaled(LEVELS_4[high]));
            self.low.take_low(low);
            self.high.take_high(high);
            self.past.rotate_left(2);
            [self.past[22], self.past[23]] = [heard_low + heard_high, heard_low - heard_high];
            let (mut first, mut second) = (0, 0);
            for (n, pair) in self.past.as_chunks::<2>().0.iter().enumerate() {
                second += pair[0] * QMF[n];
                first += pair[1] * QMF[11 - n];
            }
            // `saturate` leaves what fits.
            out.extend([first, second].map(|sum| saturate(sum >> 11) as i16));
        }
    }
}
