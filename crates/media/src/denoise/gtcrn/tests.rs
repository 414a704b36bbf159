//! Against the authors' model in ONNX Runtime: `convert.py` says how `golden.bin` was made.

use sha2::{Digest, Sha256};

use super::*;
use crate::denoise::stft::Stft;

const GOLDEN: &[u8] = include_bytes!("golden.bin");
const README: &str = include_str!("README.md");

#[test]
fn the_files_are_the_ones_the_readme_names() {
    for file in [weights::FILE, GOLDEN] {
        let digest: String = Sha256::digest(file).iter().map(|b| format!("{b:02x}")).collect();
        assert!(README.contains(&digest), "{digest}");
    }
    assert_eq!(weights::FILE.first_chunk(), Some(b"GTCRNf32"));
    let attention = &WEIGHTS.decoder[2].attention_out;
    assert!(attention.matrix.iter().flatten().all(|w| w.is_finite() && w.abs() < 20.0));
    assert!(WEIGHTS.up.iter().chain(&WEIGHTS.down).all(|(band, _)| *band <= 62));
}

#[test]
fn it_computes_what_onnx_runtime_computes() {
    let (count, rest) = GOLDEN.split_first_chunk::<4>().expect("a length");
    let count = u32::from_le_bytes(*count) as usize;
    let (input, output) = rest.split_at(2 * count);
    let input = input.as_chunks::<2>().0.iter().map(|b| f32::from(i16::from_le_bytes(*b)) / 32_768.0);
    let expected: Vec<f32> = output.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let mut network = Network::new();
    let mut stft = Stft::new(512);
    let mut actual = Vec::new();
    let input: Vec<f32> = input.collect();
    for hop in input.chunks_exact(256) {
        let mut hop = hop.to_vec();
        stft.process(&mut hop, |spectrum| {
            let mask = network.mask(spectrum.first_chunk().expect("257 bins"));
            for (bin, mask) in spectrum.iter_mut().zip(&mask) {
                *bin *= mask;
            }
        });
        actual.extend(hop);
    }
    assert_eq!(actual.len(), expected.len());
    let worst = actual.iter().zip(&expected).map(|(a, e)| (a - e).abs()).fold(0.0, f32::max);
    let loudest = expected.iter().fold(0.0_f32, |m, e| m.max(e.abs()));
    assert!(loudest > 0.1, "the reference is not silent: {loudest}");
    assert!(worst < 2e-5, "worst difference {worst} of {loudest}");
}
