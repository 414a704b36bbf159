//! Noise cancellation on WAV files, for `bench/noise` and for ears:
//! `cargo run --release -p media --example denoise -- in.wav out.wav [in.wav out.wav ...] --mode high`.
//! Prints the delay of the audio in samples and the CPU time a frame of 20 ms takes.

#![allow(clippy::print_stdout, reason = "a command line program")]

use std::error::Error;
use std::time::{Duration, Instant};

use media::denoise::{Denoiser, Mode};
use media::resample::Rate;

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    let mut mode = Some(Mode::Standard);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--mode" => mode = parse_mode(&arguments.next().unwrap_or_default())?,
            _ => files.push(argument),
        }
    }
    let pairs = files.as_chunks::<2>().0;
    if pairs.is_empty() || files.len() % 2 != 0 {
        return Err(
            "give pairs of files: in.wav out.wav [in.wav out.wav ...] [--mode off|standard|high]".into()
        );
    }
    let (mut busy, mut frames, mut delay) = (Duration::ZERO, 0_usize, 0.0);
    for [from, to] in pairs {
        let mut reader = hound::WavReader::open(from)?;
        let spec = reader.spec();
        if spec.channels != 1 || spec.bits_per_sample != 16 {
            return Err(format!("{from}: must be mono with 16 bits a sample").into());
        }
        let mut samples = reader.samples::<i16>().collect::<Result<Vec<_>, _>>()?;
        if let Some(mode) = mode {
            let mut denoiser = Rate::from_hz(spec.sample_rate)
                .and_then(|rate| Denoiser::new(mode, rate))
                .ok_or_else(|| format!("{from}: {} Hz, and must be 8000 or 16000", spec.sample_rate))?;
            delay = denoiser.delay().as_secs_f64() * f64::from(spec.sample_rate);
            let frame = spec.sample_rate as usize / 50;
            samples.resize(samples.len().next_multiple_of(frame), 0);
            let start = Instant::now();
            for frame in samples.chunks_exact_mut(frame) {
                denoiser.process(frame);
            }
            busy += start.elapsed();
            frames += samples.len() / frame;
        }
        let mut writer = hound::WavWriter::create(to, spec)?;
        for sample in samples {
            writer.write_sample(sample)?;
        }
        writer.finalize()?;
    }
    let each = busy.as_secs_f64() * 1e6 / frames.max(1) as f64;
    println!("{{\"delay_samples\": {delay:.1}, \"frames\": {frames}, \"us_per_frame\": {each:.1}}}");
    Ok(())
}

fn parse_mode(name: &str) -> Result<Option<Mode>, String> {
    match Mode::from_name(name) {
        None if name != "off" => Err(format!("--mode is {name}, and must be off, standard or high")),
        mode => Ok(mode),
    }
}
