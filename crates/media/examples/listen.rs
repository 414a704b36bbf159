//! What is heard in WAV files besides speech, for `bench/tones`: the beeps of voicemail boxes and digits as tones.
//! `cargo run --release -p media --example listen -- in.wav [in.wav ...]` prints a line of JSON for each file.

#![allow(clippy::print_stdout, reason = "a command line program")]

use std::error::Error;
use std::time::{Duration, Instant};

use media::resample::Rate;
use media::{beep, dtmf_tones};

fn main() -> Result<(), Box<dyn Error>> {
    let (mut busy, mut frames) = ([Duration::ZERO; 2], 0_usize);
    for path in std::env::args().skip(1) {
        let mut reader = hound::WavReader::open(&path)?;
        let spec = reader.spec();
        let rate =
            Rate::from_hz(spec.sample_rate).filter(|_| spec.channels == 1 && spec.bits_per_sample == 16);
        let rate =
            rate.ok_or_else(|| format!("{path}: must be mono with 16 bits a sample, at 8 or 16 kHz"))?;
        let mut samples = reader.samples::<i16>().collect::<Result<Vec<_>, _>>()?;
        let frame = rate.samples(20);
        samples.resize(samples.len().next_multiple_of(frame), 0);
        let (mut beeps, mut digits) = (Vec::new(), String::new());
        let (mut for_beeps, mut for_digits) = (beep::Detector::new(rate), dtmf_tones::Detector::new(rate));
        for (n, frame) in samples.chunks_exact(frame).enumerate() {
            let begun = Instant::now();
            let beep = for_beeps.process(frame);
            let between = Instant::now();
            let digit = for_digits.process(frame);
            busy[0] += between - begun;
            busy[1] += between.elapsed();
            beeps.extend(beep.map(|b| {
                format!("{{\"hz\": {}, \"ms\": {}, \"at_ms\": {}}}", b.hz, b.duration_ms, 20 * (n + 1))
            }));
            digits.extend(digit.map(|d| d.digit));
        }
        frames += samples.len() / frame;
        println!("{{\"file\": {path:?}, \"beeps\": [{}], \"digits\": {digits:?}}}", beeps.join(", "));
    }
    let [beep, digit] = busy.map(|busy| busy.as_secs_f64() * 1e6 / frames.max(1) as f64);
    println!(
        "{{\"frames\": {frames}, \"beep_us_per_frame\": {beep:.2}, \"digit_us_per_frame\": {digit:.2}}}"
    );
    Ok(())
}
