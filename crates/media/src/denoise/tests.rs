use std::f32::consts::TAU;

use super::*;
use crate::detect;

const RATES: [Rate; 2] = [Rate::Hz8000, Rate::Hz16000];
const MODES: [Mode; 2] = [Mode::Standard, Mode::High];

fn denoised(mode: Mode, rate: Rate, input: &[i16]) -> Vec<i16> {
    let mut denoiser = Denoiser::new(mode, rate).expect("a rate it knows");
    let mut output = input.to_vec();
    for frame in output.chunks_mut(rate.samples(20)) {
        denoiser.process(frame);
    }
    output
}

/// Hiss at about −28 dB of a full-scale sine.
fn hiss(count: usize) -> Vec<i16> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut uniform = move || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / 16_777_216.0 - 0.5
    };
    (0..count).map(|_| ((0..6).map(|_| uniform()).sum::<f32>() * 1_300.0) as i16).collect()
}

/// A voice as a machine makes it: harmonics with formants, four syllables a second.
fn voice(rate: Rate, seconds: usize) -> Vec<i16> {
    let mut phase = 0.0_f32;
    let rate = rate.hz();
    (0..rate as usize * seconds)
        .map(|i| {
            let t = i as f32 / rate as f32;
            phase += (130.0 + 25.0 * (TAU * 0.9 * t).sin()) / rate as f32;
            let open = (TAU * 2.0 * t).sin().max(0.0).sqrt();
            let centre = 6.0 + 2.5 * (TAU * 0.7 * t).sin();
            let sum: f32 = (1..24)
                .map(|k| {
                    let k = k as f32;
                    (TAU * k * phase).sin() / (1.0 + (k - centre).abs() + 0.3 * k)
                })
                .sum();
            (open * sum * 5_000.0) as i16
        })
        .collect()
}

#[test]
fn hiss_goes_down_at_least_twelve_decibels() {
    for rate in RATES {
        for mode in MODES {
            let noise = hiss(rate.samples(5_000));
            let output = denoised(mode, rate, &noise);
            let settled = rate.samples(3_500);
            let attenuation = detect::total_db(&noise[settled..]) - detect::total_db(&output[settled..]);
            assert!(attenuation > 12.0, "{mode:?} at {rate:?}: {attenuation} dB");
        }
    }
}

#[test]
fn high_takes_hum_down_twelve_decibels() {
    for rate in RATES {
        let hum: Vec<i16> = (0..rate.samples(4_000))
            .map(|i| {
                let t = i as f32 / rate.hz() as f32;
                (6..=40).map(|k| (TAU * 50.0 * k as f32 * t + (k * k) as f32).sin() * 120.0).sum::<f32>()
                    as i16
            })
            .collect();
        let output = denoised(Mode::High, rate, &hum);
        let settled = rate.samples(2_000);
        let attenuation = detect::total_db(&hum[settled..]) - detect::total_db(&output[settled..]);
        assert!(attenuation > 12.0, "at {rate:?}: {attenuation} dB");
    }
}

#[test]
fn a_voice_stays_and_comes_out_by_the_delay_it_says() {
    for rate in RATES {
        for mode in MODES {
            let input = voice(rate, 4);
            let output = denoised(mode, rate, &input);
            let said = (Denoiser::new(mode, rate).expect("known").delay().as_secs_f64()
                * f64::from(rate.hz()))
            .round() as usize;
            let second = rate.samples(1_000);
            let product = |delay: usize| {
                let (a, b) = (&input[second..3 * second], &output[second + delay..]);
                a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
            };
            let found = (0..second / 16).max_by(|a, b| product(*a).total_cmp(&product(*b))).expect("some");
            assert!(found.abs_diff(said) <= 1, "{mode:?} at {rate:?}: {found} samples, says {said}");
            let change = detect::total_db(&output[second..]) - detect::total_db(&input[second..]);
            assert!(change.abs() < 3.0, "{mode:?} at {rate:?}: {change} dB");
        }
    }
}

#[test]
fn it_is_told_apart_what_it_cannot_do() {
    assert!(Denoiser::new(Mode::High, Rate::Hz48000).is_none());
    assert!(Denoiser::new(Mode::Standard, Rate::Hz24000).is_none());
    let standard = Denoiser::new(Mode::Standard, Rate::Hz8000).expect("known");
    let high = Denoiser::new(Mode::High, Rate::Hz8000).expect("known");
    assert_eq!((standard.delay().as_millis(), high.delay().as_millis()), (18, 28));
}

#[test]
fn silence_and_extremes_do_no_harm() {
    for rate in RATES {
        for mode in MODES {
            let second = rate.samples(1_000);
            let mut wild: Vec<i16> = vec![0; second];
            wild.extend((0..second).map(|i| if i / 7 % 2 == 0 { i16::MAX } else { i16::MIN }));
            wild.extend(vec![0; 2 * second]);
            let output = denoised(mode, rate, &wild);
            assert!(output[..second / 2].iter().all(|s| *s == 0), "{mode:?} at {rate:?}: silence is silent");
            let end = detect::total_db(&output[3 * second..]);
            assert!(end < -70.0, "{mode:?} at {rate:?}: {end} dB after the noise");
        }
    }
}
