//! Digits as tones in the audio (ITU-T Q.23, Q.24): heard, each once, and made.

use std::collections::VecDeque;
use std::f32::consts::TAU;

use crate::dtmf::Digit;
use crate::dtmf_sender::MAX_WAITING;
use crate::resample::Rate;

const ROWS: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS: [f32; 4] = [1_209.0, 1_336.0, 1_477.0, 1_633.0];
const KEYS: [[char; 4]; 4] =
    [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];
/// What is looked at and from one look to the next, in milliseconds: a digit of 40 ms fills three looks.
const WINDOW_MS: u32 = 16;
const HOP_MS: u32 = 8;
/// A frequency is looked for where it should be and so much beside it: 1.8 % must be taken, 3.5 % must not (Q.24).
const BESIDE: [f32; 3] = [0.988, 1.0, 1.012];
/// The two tones' share of all power, at the least.
const SHARE: f32 = 0.82;
/// How much stronger one tone may be than the other, in power: 8 dB either way.
const TWIST: f32 = 6.3;
/// The quietest digit, as mean power of samples: −40 dBFS.
const QUIETEST: f32 = 32_768.0 * 32_768.0 / 2.0 * 1e-4;
/// Looks in a row that make a digit, and that end it.
const HITS: u32 = 3;
const MISSES: u32 = 4;
/// Longest duration told, in milliseconds.
const MAX_DURATION_MS: u32 = 5_000;

/// Looks for digits in one stream of samples.
#[derive(Debug)]
pub struct Detector {
    rate: Rate,
    samples: Vec<f32>,
    /// Twice the cosine of each frequency's step, for where it should be and beside it.
    rows: [f32; 12],
    columns: [f32; 12],
    /// The key of the last looks, and how many there were.
    candidate: Option<char>,
    hits: u32,
    misses: u32,
    /// The digit under way, and its looks.
    digit: Option<(char, u32)>,
}

impl Detector {
    /// For samples at `rate`.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let steps = |hz: [f32; 4]| {
            std::array::from_fn(|n| {
                let hz = hz[n / BESIDE.len()] * BESIDE[n % BESIDE.len()];
                2.0 * (TAU * hz / rate.hz() as f32).cos()
            })
        };
        Self {
            rate,
            samples: Vec::with_capacity(2 * rate.samples(20)),
            rows: steps(ROWS),
            columns: steps(COLUMNS),
            candidate: None,
            hits: 0,
            misses: 0,
            digit: None,
        }
    }

    /// The rate of its samples.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes samples; returns the digit that has ended in them, if one has.
    pub fn process(&mut self, samples: &[i16]) -> Option<Digit> {
        self.samples.extend(samples.iter().map(|&s| f32::from(s)));
        let (size, hop) = (self.rate.samples(WINDOW_MS), self.rate.samples(HOP_MS));
        let mut ended = None;
        while let Some(window) = self.samples.get(..size) {
            let key = look(window, &self.rows, &self.columns);
            self.samples.drain(..hop);
            ended = self.step(key).or(ended);
        }
        ended
    }

    fn step(&mut self, key: Option<char>) -> Option<Digit> {
        if key.is_some() && key == self.candidate {
            self.hits += 1;
        } else {
            self.candidate = key;
            self.hits = u32::from(key.is_some());
        }
        let begins = self.candidate.filter(|_| self.hits >= HITS);
        match &mut self.digit {
            Some((digit, looks)) if key == Some(*digit) => {
                *looks += 1 + std::mem::take(&mut self.misses);
                None
            }
            Some(_) => {
                self.misses += 1;
                if self.misses < MISSES && begins.is_none() {
                    return None;
                }
                let ended = self.digit.take().map(|(digit, looks)| Digit {
                    digit,
                    duration_ms: ((looks + 1) * HOP_MS).min(MAX_DURATION_MS),
                });
                self.begin(begins);
                ended
            }
            None => {
                self.begin(begins);
                None
            }
        }
    }

    fn begin(&mut self, key: Option<char>) {
        self.misses = 0;
        self.digit = key.map(|key| (key, self.hits));
    }
}

/// The key whose two tones are nearly all there is.
fn look(window: &[f32], rows: &[f32; 12], columns: &[f32; 12]) -> Option<char> {
    let total: f32 = window.iter().map(|s| s * s).sum();
    let count = window.len() as f32;
    if total < QUIETEST * count {
        return None;
    }
    let ((row, low), (column, high)) = (strongest(window, rows), strongest(window, columns));
    // A tone of amplitude a has a·n/2 at its frequency, and a²·n/2 of the sum of squares.
    let share = 2.0 / count * (low + high) / total;
    let even = low <= high * TWIST && high <= low * TWIST;
    let key = KEYS.get(row)?.get(column)?;
    (share >= SHARE && even).then_some(*key)
}

/// Goertzel at twelve frequencies at once: the strongest of the four that each stand three times, and its squared
/// magnitude.
fn strongest(window: &[f32], steps: &[f32; 12]) -> (usize, f32) {
    let (mut last, mut before) = ([0.0_f32; 12], [0.0_f32; 12]);
    for sample in window {
        for ((last, before), step) in last.iter_mut().zip(&mut before).zip(steps) {
            let next = sample + step * *last - *before;
            *before = *last;
            *last = next;
        }
    }
    let powers = last
        .iter()
        .zip(&before)
        .zip(steps)
        .map(|((last, before), step)| last * last + before * before - step * last * before);
    let strongest = powers.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    strongest.map_or((0, 0.0), |(at, power)| (at / BESIDE.len(), power))
}

/// How long a digit sounds, the silence after it, and what `w` and `,` wait, in milliseconds.
const TONE_MS: u32 = 250;
const GAP_MS: u32 = 100;
const SHORT_PAUSE_MS: u32 = 500;
const LONG_PAUSE_MS: u32 = 2_000;
/// Amplitude of the lower and the higher tone: −10 and −8 dBFS, the higher 2 dB stronger as lines lose it.
const AMPLITUDES: (f32, f32) = (10_362.0, 13_045.0);
/// The tones come and go over so many milliseconds, without a click.
const RAMP_MS: u32 = 4;

/// Makes digits and pauses in the place of what is said.
#[derive(Debug, Default)]
pub struct Generator {
    waiting: VecDeque<u8>,
    current: Option<Current>,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    /// In hertz; `None` for a pause.
    tones: Option<(f32, f32)>,
    /// In milliseconds, the silence after it included.
    length_ms: u32,
    /// Samples so far.
    at: usize,
}

impl Generator {
    /// Adds digits and pauses. `false` when they do not all find room; then none is added.
    pub fn push(&mut self, text: &str) -> bool {
        if self.waiting.len() + text.len() > MAX_WAITING {
            return false;
        }
        self.waiting.extend(text.bytes());
        true
    }

    /// Puts what is due in the place of these samples; `false` and nothing when nothing waits.
    pub fn fill(&mut self, rate: Rate, samples: &mut [i16]) -> bool {
        if self.current.is_none() && self.waiting.is_empty() {
            return false;
        }
        for sample in samples.iter_mut() {
            *sample = self.next(rate);
        }
        true
    }

    fn next(&mut self, rate: Rate) -> i16 {
        let Some(current) = self.current.or_else(|| self.waiting.pop_front().map(Current::of)) else {
            return 0;
        };
        let at = current.at;
        let over = at + 1 >= rate.samples(current.length_ms);
        self.current = (!over).then_some(Current { at: at + 1, ..current });
        let Some((low, high)) = current.tones else { return 0 };
        let left = rate.samples(TONE_MS).saturating_sub(at);
        let ramp = rate.samples(RAMP_MS) as f32;
        let envelope = (at.min(left) as f32 / ramp).min(1.0);
        let tone = |hz: f32| (TAU * hz * at as f32 / rate.hz() as f32).sin();
        (envelope * (AMPLITUDES.0 * tone(low) + AMPLITUDES.1 * tone(high))).round() as i16
    }
}

impl Current {
    fn of(symbol: u8) -> Self {
        let pause = |length_ms| Self { tones: None, length_ms, at: 0 };
        let place = KEYS.iter().enumerate().find_map(|(row, keys)| {
            let column = keys.iter().position(|key| *key == char::from(symbol))?;
            Some((*ROWS.get(row)?, *COLUMNS.get(column)?))
        });
        match (symbol, place) {
            (_, Some(tones)) => Self { tones: Some(tones), length_ms: TONE_MS + GAP_MS, at: 0 },
            (b',', None) => pause(LONG_PAUSE_MS),
            _ => pause(SHORT_PAUSE_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "0123456789*#ABCD";

    fn heard(rate: Rate, samples: &[i16]) -> String {
        let mut detector = Detector::new(rate);
        let frames = samples.chunks(rate.samples(20));
        frames.filter_map(|frame| detector.process(frame)).map(|digit| digit.digit).collect()
    }

    /// Digits of so many milliseconds and gaps, at amplitudes of their tones, off their frequencies.
    fn dialled(rate: Rate, ms: (u32, u32), amplitudes: (f32, f32), off: f32) -> Vec<i16> {
        let mut samples = vec![0; rate.samples(33)];
        for digit in ALL.bytes() {
            let (low, high) = Current::of(digit).tones.unwrap();
            samples.extend((0..rate.samples(ms.0)).map(|n| {
                let tone = |hz: f32| (TAU * hz * off * n as f32 / rate.hz() as f32).sin();
                (amplitudes.0 * tone(low) + amplitudes.1 * tone(high)) as i16
            }));
            samples.extend(vec![0; rate.samples(ms.1)]);
        }
        samples.extend(vec![0; rate.samples(100)]);
        samples
    }

    #[test]
    fn what_is_made_is_heard_once_each() {
        for rate in [Rate::Hz8000, Rate::Hz16000] {
            let mut generator = Generator::default();
            assert!(generator.push("1w99,A*#5"));
            let (mut samples, mut frame) = (Vec::new(), vec![0; rate.samples(20)]);
            while generator.fill(rate, &mut frame) {
                samples.extend_from_slice(&frame);
            }
            samples.resize(samples.len() + rate.samples(100), 0);
            assert_eq!(heard(rate, &samples), "199A*#5");
            assert!(samples.len() > rate.samples(2_500 + 7 * 350), "pauses");
        }
        assert!(!Generator::default().push(&"1".repeat(MAX_WAITING + 1)));
    }

    #[test]
    fn short_and_uneven_and_quiet_digits_are_heard() {
        for rate in [Rate::Hz8000, Rate::Hz16000] {
            for (ms, amplitudes, off) in [
                ((40, 40), (8_000.0, 8_000.0), 1.0),
                ((45, 50), (4_000.0, 8_000.0), 1.0),
                ((60, 60), (8_000.0, 4_000.0), 0.985),
                ((60, 60), (8_000.0, 8_000.0), 1.015),
                ((100, 60), (400.0, 400.0), 1.0),
            ] {
                assert_eq!(
                    heard(rate, &dialled(rate, ms, amplitudes, off)),
                    ALL,
                    "{ms:?} {amplitudes:?} {off}"
                );
            }
        }
    }

    #[test]
    fn other_tones_are_no_digits() {
        let rate = Rate::Hz8000;
        for (ms, amplitudes, off) in [
            ((60, 60), (8_000.0, 8_000.0), 1.035),
            ((60, 60), (8_000.0, 8_000.0), 0.965),
            ((60, 60), (8_000.0, 0.0), 1.0),
            ((60, 60), (1_000.0, 8_000.0), 1.0),
            ((60, 60), (100.0, 100.0), 1.0),
            ((20, 60), (8_000.0, 8_000.0), 1.0),
        ] {
            assert_eq!(heard(rate, &dialled(rate, ms, amplitudes, off)), "", "{ms:?} {amplitudes:?} {off}");
        }
    }

    #[test]
    fn a_digit_with_a_dropout_is_one_digit() {
        let rate = Rate::Hz8000;
        let mut samples = dialled(rate, (200, 100), (8_000.0, 8_000.0), 1.0);
        for digit in 0..16 {
            let at = rate.samples(33 + 300 * digit + 100);
            samples[at..at + rate.samples(10)].fill(0);
        }
        assert_eq!(heard(rate, &samples), ALL);
    }
}
