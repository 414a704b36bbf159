//! Opus as we decode it against another implementation: FFmpeg's own decoder, which shares no code with libopus
//! (`reference/opus.py`). The IETF's test vectors (RFC 8251) come from one address alone and are 50 megabytes; libopus
//! passes them before each release. What is to be shown here is our way of calling it: rate, channels, packet lengths.

use std::path::PathBuf;

use media::codec::Codec;
use media::resample::Rate;

/// Every mode, band and packet length of a stream that a peer may send: the milliseconds of a packet, and how like the
/// other decoder's ours must be, in decibels. At 8 kHz within the codec both resample, each in its own way.
const STREAMS: [(&str, u32, f64); 8] = [
    ("silk-narrow-20", 20, 20.0),
    ("silk-wide-60", 60, 45.0),
    ("silk-wide-10", 10, 45.0),
    ("hybrid-superwide-20", 20, 45.0),
    ("hybrid-full-10", 10, 45.0),
    ("celt-full-20", 20, 45.0),
    ("celt-full-2.5", 2, 45.0),
    ("stereo-20", 20, 45.0),
];
/// Where the two begin differs by the resamplers of both, in samples.
const MAX_LAG: isize = 64;

fn read(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference/opus").join(name);
    std::fs::read(path).expect("a file of the reference")
}

fn packets(name: &str) -> Vec<Vec<u8>> {
    let bytes = read(&format!("{name}.packets"));
    let (mut rest, mut packets) = (&bytes[..], Vec::new());
    while let Some((head, tail)) = rest.split_first_chunk::<2>() {
        let (packet, after) = tail.split_at(usize::from(u16::from_le_bytes(*head)));
        packets.push(packet.to_vec());
        rest = after;
    }
    packets
}

fn reference(name: &str) -> Vec<f64> {
    let bytes = read(&format!("{name}.s16"));
    bytes.as_chunks::<2>().0.iter().map(|pair| f64::from(i16::from_le_bytes(*pair))).collect()
}

/// Signal to difference, in decibels, with `ours` so many samples later.
fn likeness(ours: &[f64], theirs: &[f64], lag: isize) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for (n, &their) in theirs.iter().enumerate() {
        let Some(&our) = n.checked_add_signed(lag).and_then(|at| ours.get(at)) else { continue };
        signal += their * their;
        noise += (their - our) * (their - our);
    }
    10.0 * (signal / noise.max(1e-9)).log10()
}

#[test]
fn every_mode_sounds_as_another_decoder_has_it() {
    for (name, ms, least) in STREAMS {
        let (mut decoder, mut heard) = (Codec::Opus.decoder(), Vec::new());
        let packets = packets(name);
        for packet in &packets {
            let before = heard.len();
            decoder.decode(packet, &mut heard);
            let samples = heard.len() - before;
            let units = u32::try_from(samples * 3).unwrap();
            assert_eq!(Codec::Opus.duration(packet), Some(units), "{name}");
            assert_eq!(units / 48, ms, "{name}");
        }
        let ours: Vec<f64> = heard.iter().map(|&sample| f64::from(sample)).collect();
        let theirs = reference(name);
        assert!(ours.len().abs_diff(theirs.len()) < Rate::Hz16000.samples(1), "{name}");
        let best = (-MAX_LAG..=MAX_LAG).map(|lag| (likeness(&ours, &theirs, lag), lag));
        let (decibels, lag) = best.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        println!("{name}: {decibels:.1} dB at {lag}");
        assert!(decibels > least, "{name}: {decibels:.1} dB at {lag}");
    }
}
