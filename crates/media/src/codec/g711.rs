//! ITU-T G.711, on 16-bit samples (the 14-bit µ-law and 13-bit A-law values in the upper bits).

/// µ-law decoding.
#[must_use]
pub fn decode_ulaw(byte: u8) -> i16 {
    // In range: the table has an entry for every byte.
    ULAW[usize::from(byte)]
}

/// A-law decoding.
#[must_use]
pub fn decode_alaw(byte: u8) -> i16 {
    ALAW[usize::from(byte)]
}

static ULAW: [i16; 256] = table(true);
static ALAW: [i16; 256] = table(false);

const fn table(ulaw: bool) -> [i16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = if ulaw { expand_ulaw(byte as u8) } else { expand_alaw(byte as u8) };
        byte += 1;
    }
    table
}

const ULAW_BIAS: i16 = 0x84;

const fn expand_ulaw(byte: u8) -> i16 {
    let byte = !byte;
    let exponent = (byte >> 4) & 7;
    let mantissa = (byte & 15) as i16;
    let magnitude = (((mantissa << 3) + ULAW_BIAS) << exponent) - ULAW_BIAS;
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

const fn expand_alaw(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let exponent = (byte >> 4) & 7;
    let mantissa = (byte & 15) as i16;
    let magnitude =
        if exponent == 0 { (mantissa << 4) + 8 } else { ((mantissa << 4) + 0x108) << (exponent - 1) };
    if byte & 0x80 == 0 { -magnitude } else { magnitude }
}

/// µ-law encoding.
#[must_use]
pub fn encode_ulaw(sample: i16) -> u8 {
    const CLIP: i32 = 32_635;
    let (sign, magnitude) = if sample < 0 { (0x80, -i32::from(sample)) } else { (0, i32::from(sample)) };
    let magnitude = magnitude.min(CLIP) + i32::from(ULAW_BIAS);
    // The bias makes the leading one stand at bit 7 to 14.
    let exponent = 24 - (magnitude as u32).leading_zeros();
    let mantissa = (magnitude >> (exponent + 3)) & 15;
    !(sign | (exponent as u8) << 4 | mantissa as u8)
}

/// A-law encoding.
#[must_use]
pub fn encode_alaw(sample: i16) -> u8 {
    // Negative values are one's complemented, so that both halves have 4,096 steps.
    let (sign, magnitude) = if sample < 0 { (0, !sample) } else { (0x80, sample) };
    let magnitude = (magnitude as u16) >> 4;
    let code = if magnitude < 32 {
        // The two lowest segments have one step size and are numbered through.
        magnitude
    } else {
        let exponent = 12 - (magnitude.leading_zeros() as u16);
        (exponent << 4) | ((magnitude >> (exponent - 1)) & 15)
    };
    (sign | code as u8) ^ 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The decision rule of G.711: the nearest decision interval, found by search over the decoder's values.
    fn nearest(sample: i16, decode: fn(u8) -> i16) -> i32 {
        (0..=255u8).map(|b| (i32::from(decode(b)) - i32::from(sample)).abs()).min().unwrap()
    }

    #[test]
    fn decoders_have_the_values_of_the_standard() {
        assert_eq!(
            (decode_ulaw(0x00), decode_ulaw(0x80), decode_ulaw(0xff), decode_ulaw(0x7f)),
            (-32_124, 32_124, 0, 0)
        );
        assert_eq!((decode_ulaw(0x8f), decode_ulaw(0xf0)), (16_764, 120));
        assert_eq!(
            (decode_alaw(0xd5), decode_alaw(0x55), decode_alaw(0xaa), decode_alaw(0x2a)),
            (8, -8, 32_256, -32_256)
        );
    }

    #[test]
    fn every_code_survives_a_round_trip() {
        for byte in 0..=255u8 {
            assert_eq!(decode_ulaw(encode_ulaw(decode_ulaw(byte))), decode_ulaw(byte), "u {byte}");
            assert_eq!(encode_alaw(decode_alaw(byte)), byte, "a {byte}");
        }
    }

    #[test]
    fn every_sample_gets_a_nearest_code_within_one_step() {
        for sample in i16::MIN..=i16::MAX {
            let step = |decoded: i16| (i32::from(decoded).abs() / 16).max(16);
            let ulaw = decode_ulaw(encode_ulaw(sample));
            let error = (i32::from(ulaw) - i32::from(sample)).abs();
            assert!(error <= nearest(sample, decode_ulaw) + step(ulaw), "u {sample} {ulaw}");
            let alaw = decode_alaw(encode_alaw(sample));
            let error = (i32::from(alaw) - i32::from(sample)).abs();
            assert!(error <= nearest(sample, decode_alaw) + step(alaw), "a {sample} {alaw}");
        }
    }
}
