//! WAV files for the `play` agent: PCM of 8 to 32 bits or float, any rate, mixed to mono and brought to 8 kHz.

use std::path::Path;

use crate::player::RATE;

/// Longest file, in seconds.
pub const MAX_SECONDS: u32 = 600;

/// Why a file cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum WavError {
    /// Not readable, or not a WAV file of a kind we know.
    #[error("{0}")]
    Unreadable(String),
    /// Too long.
    #[error("it is longer than {MAX_SECONDS} s")]
    TooLong,
    /// Nothing in it.
    #[error("it holds no audio")]
    Empty,
}

/// Reads a file to 8 kHz mono.
pub fn read(path: &Path) -> Result<Vec<i16>, WavError> {
    let mut reader = hound::WavReader::open(path).map_err(|e| match e {
        hound::Error::IoError(e) => WavError::Unreadable(e.to_string()),
        hound::Error::Unsupported => {
            WavError::Unreadable("its encoding is not PCM; convert it to 16-bit PCM".to_owned())
        }
        e => WavError::Unreadable(format!("it is not a valid WAV file: {e}")),
    })?;
    let spec = reader.spec();
    if spec.channels == 0 || spec.sample_rate < 1_000 || spec.sample_rate > 192_000 {
        return Err(WavError::Unreadable(format!(
            "{} channels at {} Hz are not supported",
            spec.channels, spec.sample_rate
        )));
    }
    if reader.duration() / spec.sample_rate > MAX_SECONDS {
        return Err(WavError::TooLong);
    }
    let scale = 1.0 / (1_i64 << (spec.bits_per_sample.clamp(1, 32) - 1)) as f32;
    let broken = |e: hound::Error| WavError::Unreadable(format!("it is cut short or damaged: {e}"));
    let samples: Vec<f32> = match spec.sample_format {
        hound::SampleFormat::Int => reader
            .samples::<i32>()
            .map(|s| s.map(|s| s as f32 * scale))
            .collect::<Result<_, _>>()
            .map_err(broken)?,
        hound::SampleFormat::Float => reader.samples::<f32>().collect::<Result<_, _>>().map_err(broken)?,
    };
    let channels = usize::from(spec.channels);
    let mono: Vec<f32> =
        samples.chunks(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect();
    let mono = resample(&mono, spec.sample_rate);
    if mono.is_empty() {
        return Err(WavError::Empty);
    }
    Ok(mono.into_iter().map(|s| (s.clamp(-1.0, 1.0) * 32_767.0) as i16).collect())
}

/// Windowed-sinc resampling to 8 kHz: done once a file, so quality is worth more than speed.
fn resample(input: &[f32], rate: u32) -> Vec<f32> {
    if rate == RATE {
        return input.to_vec();
    }
    /// Zero crossings on each side of the kernel.
    const CROSSINGS: f64 = 16.0;
    let ratio = f64::from(rate) / f64::from(RATE);
    // Above the lower of both Nyquist frequencies nothing may pass; 0.94 leaves room for the transition.
    let cutoff = 0.94 * (1.0 / ratio).min(1.0);
    let reach = CROSSINGS / cutoff;
    let length = (input.len() as f64 / ratio) as usize;
    (0..length)
        .map(|n| {
            let centre = n as f64 * ratio;
            let first = (centre - reach).ceil().max(0.0) as usize;
            let last = ((centre + reach).floor() as usize).min(input.len().saturating_sub(1));
            let mut sum = 0.0;
            for (k, sample) in input.iter().enumerate().take(last + 1).skip(first) {
                let x = k as f64 - centre;
                let sinc = if x == 0.0 {
                    1.0
                } else {
                    (std::f64::consts::PI * x * cutoff).sin() / (std::f64::consts::PI * x * cutoff)
                };
                let window = 0.5 + 0.5 * (std::f64::consts::PI * x / reach).cos();
                sum += f64::from(*sample) * sinc * window * cutoff;
            }
            sum as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::level_db;

    fn file(rate: u32, hz: f32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(file.path(), spec).unwrap();
        for n in 0..rate {
            let sample = (10_000.0 * (std::f32::consts::TAU * hz * n as f32 / rate as f32).sin()) as i16;
            writer.write_sample(sample).unwrap();
            writer.write_sample(sample).unwrap();
        }
        writer.finalize().unwrap();
        file
    }

    #[test]
    fn other_rates_keep_the_tone_and_alias_nothing() {
        for rate in [8_000, 16_000, 44_100, 48_000] {
            let samples = read(file(rate, 1_000.0).path()).unwrap();
            assert!((7_990..=8_000).contains(&samples.len()), "{rate}");
            assert!((level_db(&samples, RATE, 1_000.0) + 10.3).abs() < 0.5, "{rate}");
        }
        let alias = read(file(48_000, 5_000.0).path()).unwrap();
        assert!(level_db(&alias, RATE, 3_000.0) < -60.0);
    }

    #[test]
    fn what_cannot_be_played_says_why() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"not a wav").unwrap();
        assert!(matches!(read(file.path()), Err(WavError::Unreadable(_))));
        assert!(read(Path::new("/nonexistent.wav")).is_err());
    }
}
