//! RNNoise by `nnnoiseless`, which works at 48 kHz in 10 ms frames. Two things are done around it:
//!
//! - A floor: what it would remove stays, 18 dB down. Without it, it damages some clean voices (PESQ 4.1 over twenty),
//!   and what it leaves of a noisy one is hard to follow.
//! - It does not hear what is below the telephone band. Told of that, it takes a loud steady hiss for speech and lets all of it
//!   through, for seconds. What is below follows the gain that it gives to what is above.

use std::collections::VecDeque;
use std::f32::consts::PI;

use nnnoiseless::DenoiseState;

use super::polyphase::{self, Down, Past, Up, dot};

/// Of the denoiser: 10 ms at 48 kHz.
const BLOCK: usize = DenoiseState::FRAME_SIZE;
/// How much of the input is always there: −18 dB.
const FLOOR: f32 = 0.125_892_54;
/// Where what it hears begins, in hertz.
const LOWEST: f32 = 160.0;
/// Half the length of the filter that cuts off what is below, in samples of 8 kHz: 5 ms.
const REACH: usize = 40;
/// What a block's gain weighs against the one before it, for what is below.
const FOLLOW: f32 = 0.5;

pub(super) struct Standard {
    /// Samples of 10 ms at the caller's rate.
    block: usize,
    /// Cuts off what is below; linear in phase, so that the two parts add up to the whole.
    highpass: Vec<f32>,
    reach: usize,
    past: Past,
    up: Up,
    down: Down,
    state: Box<DenoiseState<'static>>,
    input: Vec<f32>,
    upper: Vec<f32>,
    high: Vec<f32>,
    output: Vec<f32>,
    /// The input, and of it what the denoiser was given, until what it makes of that comes out.
    waiting: VecDeque<(f32, f32)>,
    gain: f32,
}

impl Standard {
    /// For frames of 20 ms of so many samples.
    pub(super) fn new(frame: usize) -> Self {
        let block = frame / 2;
        let factor = BLOCK / block;
        let reach = REACH * frame / 160;
        let highpass = highpass(reach, LOWEST / (frame * 50) as f32);
        Self {
            block,
            reach,
            past: Past::new(highpass.len() - 1),
            highpass,
            up: Up::new(factor),
            down: Down::new(factor),
            state: DenoiseState::new(),
            input: Vec::with_capacity(block),
            upper: Vec::with_capacity(block),
            high: Vec::with_capacity(BLOCK),
            output: vec![0.0; block],
            waiting: std::iter::repeat_n((0.0, 0.0), block + 2 * polyphase::DELAY).collect(),
            gain: 0.0,
        }
    }

    pub(super) fn process(&mut self, frame: &mut [i16]) {
        for samples in frame.chunks_exact_mut(self.block) {
            self.input.clear();
            self.input.extend(samples.iter().map(|&s| f32::from(s)));
            self.upper.clear();
            for window in self.past.take(&self.input).windows(self.highpass.len()) {
                let upper = dot(&self.highpass, window);
                self.upper.push(upper);
                // In range: the window is longer than twice the filter's reach.
                self.waiting.push_back((window[window.len() - 1 - self.reach], upper));
            }
            self.high.clear();
            self.up.process(&self.upper, &mut self.high);
            let mut denoised = [0.0; BLOCK];
            self.state.process_frame(&mut denoised, &self.high);
            self.down.process(&denoised, &mut self.output);
            self.mix(samples);
        }
    }

    /// Puts together what the denoiser left, what is below of it, and the floor.
    fn mix(&mut self, samples: &mut [i16]) {
        let (mut before, mut after) = (1.0, 0.0);
        for ((_, upper), wet) in self.waiting.iter().zip(&self.output) {
            before += upper * upper;
            after += wet * wet;
        }
        let last = self.gain;
        self.gain = last + FOLLOW * (f32::min((after / before).sqrt(), 1.0) - last);
        let step = (self.gain - last) / self.block as f32;
        let mut gain = last;
        let waited = self.waiting.drain(..self.block);
        for ((to, wet), (dry, upper)) in samples.iter_mut().zip(&self.output).zip(waited) {
            gain += step;
            let clean = wet + gain * (dry - upper);
            // `as` saturates.
            *to = (clean * (1.0 - FLOOR) + dry * FLOOR).round() as i16;
        }
    }

    /// In samples: the denoiser's half window, the two changes of rate, and the filter before them.
    pub(super) fn delay(&self) -> usize {
        self.block + 2 * polyphase::DELAY + self.reach
    }
}

/// A windowed filter of `2 · reach + 1` taps that cuts off what is below a frequency, given in parts of the rate;
/// zeros before it make whole vectors of it.
fn highpass(reach: usize, lowest: f32) -> Vec<f32> {
    let lowpass: Vec<f32> = (0..=2 * reach)
        .map(|i| {
            let x = i as f32 - reach as f32;
            let hamming = 0.54 + 0.46 * (PI * x / (reach + 1) as f32).cos();
            let sinc = if x == 0.0 { 1.0 } else { (2.0 * PI * lowest * x).sin() / (2.0 * PI * lowest * x) };
            hamming * sinc
        })
        .collect();
    let sum: f32 = lowpass.iter().sum();
    let mut taps = vec![0.0; lowpass.len().next_multiple_of(8) - lowpass.len()];
    taps.extend(lowpass.iter().map(|tap| -tap / sum));
    let middle = taps.len() - 1 - reach;
    taps[middle] += 1.0;
    taps
}
