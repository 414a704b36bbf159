//! G.722 against another implementation, bit for bit: libg722, which passes the ITU's digital test sequences. The
//! sequences themselves may not be passed on, so what libg722 makes of samples of our own is held by its hashes
//! (`reference/g722.py`).

use media::codec::Codec;
use sha2::{Digest as _, Sha256};

const ENCODED: &str = "0ffe7fcdeaa4413ce330ebaca268f2e7ffe28af9094899951723d70d91e9b591";
const DECODED: &str = "bcc116124aaaeac700f4685c2e33e77c6e644f85cc50786f17bf2c9bf054b99e";
const DECODED_FROM_NOISE: &str = "52fa1580d7fbc0b899a0e5057008acf8ef9a51718303631159880b73b5ee317c";

fn noise(state: &mut u32) -> u32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    *state
}

/// Noise of four levels, full-scale squares, silence and a ramp.
fn samples() -> Vec<i16> {
    let mut state = 1;
    (0..32_000_i32)
        .map(|n| {
            let noise = (noise(&mut state) >> 16) as u16 as i16;
            let square = |period: i32| if n / period % 2 == 0 { i16::MAX } else { i16::MIN };
            match n / 4_000 {
                0 => noise >> 8,
                1 => noise,
                2 => square(8),
                3 => 0,
                4 => (noise >> 4) + square(20) / 4,
                5 => noise >> 2,
                6 => (n * 37) as i16,
                _ => noise >> 1,
            }
        })
        .collect()
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decoded(stream: &[u8]) -> String {
    let (mut decoder, mut heard) = (Codec::G722.decoder(), Vec::new());
    for payload in stream.chunks(160) {
        decoder.decode(payload, &mut heard);
    }
    hash(&heard.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Vec<_>>())
}

#[test]
fn frames_are_those_of_the_reference() {
    let (mut encoder, mut coded) = (Codec::G722.encoder(), Vec::new());
    for frame in samples().chunks(320) {
        encoder.encode(frame, &mut coded);
    }
    assert_eq!(hash(&coded), ENCODED, "encoded");
    assert_eq!(decoded(&coded), DECODED, "decoded");
    let mut state = 7;
    let wild: Vec<u8> = (0..16_000).map(|_| (noise(&mut state) >> 24) as u8).collect();
    assert_eq!(decoded(&wild), DECODED_FROM_NOISE, "decoded from noise");
}
