//! What is heard: the received stream as one frame of 20 ms every 20 ms, whatever the network does.

use std::time::{Duration, Instant};

use crate::codec::{Codec, Decoder};
use crate::conceal::{Concealer, change_length};
#[cfg(test)]
use crate::jitter_buffer::BufferStatistics;
use crate::jitter_buffer::{Adjust, JitterBuffer, Kind, Next};
use crate::resample::Rate;
use crate::rtp::Packet;

/// A frame.
pub(super) const FRAME_MS: u32 = 20;
pub(super) const FRAME: Duration = Duration::from_millis(FRAME_MS as u64);
/// Frames heard at once after the clock was held up; older ones are skipped.
const MAX_CATCH_UP: u32 = 5;
/// Audio at hand before its length is changed: two of the longest pitch periods.
const CHANGED_MS: u32 = 30;
/// Packets fetched for one frame at most, which bounds what broken ones cost.
const MAX_FETCHES: u32 = 16;
/// Loudest comfort noise, as −dBov: background is never louder.
const LOUDEST_NOISE: u8 = 30;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Hearing {
    codec: Codec,
    decoder: Decoder,
    buffer: JitterBuffer,
    concealer: Concealer,
    /// Decoded and not heard yet.
    decoded: Vec<i16>,
    scratch: Vec<i16>,
    /// When the next frame is heard.
    pub(super) next: Option<Instant>,
    /// Amplitude of comfort noise, and the state of its generator.
    noise: f32,
    dice: u32,
}

impl Hearing {
    pub(super) fn new(codec: Codec) -> Self {
        Self {
            codec,
            decoder: codec.decoder(),
            buffer: JitterBuffer::new(codec.clock_rate()),
            concealer: Concealer::new(codec.rate()),
            decoded: Vec::with_capacity(2 * codec.rate().samples(FRAME_MS)),
            scratch: Vec::new(),
            next: None,
            noise: 0.0,
            dice: 1,
        }
    }

    pub(super) fn rate(&self) -> Rate {
        self.codec.rate()
    }

    #[cfg(test)]
    pub(super) fn statistics(&self) -> BufferStatistics {
        self.buffer.statistics()
    }

    pub(super) fn target(&self) -> Duration {
        self.buffer.target()
    }

    /// Another source, or another codec: what is known of the network stays.
    pub(super) fn restart(&mut self, codec: Codec) {
        self.buffer.restart(codec.clock_rate());
        if codec.rate() != self.codec.rate() {
            self.concealer = Concealer::new(codec.rate());
            self.decoded.clear();
        }
        self.codec = codec;
        self.decoder = codec.decoder();
        self.noise = 0.0;
    }

    /// Goes on from packets that were taken elsewhere, the last one of this sequence number and timestamp.
    pub(super) fn take_over<'a>(
        &mut self,
        payloads: impl Iterator<Item = &'a [u8]>,
        sequence: u16,
        timestamp: u32,
        now: Instant,
    ) {
        let mut units = 0;
        for payload in payloads {
            units = self.codec.duration(payload).unwrap_or(0);
            self.scratch.clear();
            self.decoder.decode(payload, &mut self.scratch);
            self.concealer.heard(&mut self.scratch);
        }
        self.buffer.expect(sequence.wrapping_add(1), timestamp.wrapping_add(units), now);
        self.next = Some(self.buffer.first_due(now));
    }

    /// A packet without audio.
    pub(super) fn pass(&mut self, sequence: u16) {
        self.buffer.pass(sequence);
    }

    pub(super) fn insert(&mut self, packet: &Packet<'_>, kind: Kind, now: Instant) {
        let units = match kind {
            Kind::Audio => self.codec.duration(packet.payload),
            Kind::Noise => Some(self.codec.clock_rate() / 50),
        };
        // Longer than any packet that is allowed: not of this codec.
        let Some(units) = units.filter(|u| *u <= self.codec.clock_rate() / 8) else { return };
        let begins = !self.buffer.is_started();
        self.buffer.insert(packet.sequence, packet.timestamp, units, kind, packet.payload, now);
        // The beat follows the packets, so that none waits for it.
        if let (true, Some(next)) = (begins, &mut self.next) {
            let due = self.buffer.first_due(now);
            while *next < due {
                *next += FRAME;
            }
            let early = next.duration_since(due);
            *next -= Duration::from_micros(u64::try_from(early.as_micros() % FRAME.as_micros()).unwrap_or(0));
        }
    }

    /// The frames that are due, each appended to `out` by itself; `false` when none is.
    pub(super) fn frame(&mut self, now: Instant, out: &mut Vec<i16>) -> bool {
        let Some(mut at) = self.next.filter(|at| *at <= now) else { return false };
        let late = u32::try_from(now.duration_since(at).as_millis() / FRAME.as_millis()).unwrap_or(u32::MAX);
        if late > MAX_CATCH_UP {
            at += FRAME * (late - MAX_CATCH_UP);
        }
        self.next = Some(at + FRAME);
        self.fill(at, out);
        true
    }

    fn fill(&mut self, at: Instant, out: &mut Vec<i16>) {
        let frame = self.rate().samples(FRAME_MS);
        let adjust = self.buffer.adjust(at, self.ahead());
        if adjust != Adjust::Keep {
            let enough = self.rate().samples(CHANGED_MS);
            let mut fetched = 0;
            while self.decoded.len() < enough && self.buffer.is_ready() && fetched < MAX_FETCHES {
                self.fetch(at);
                fetched += 1;
            }
            if self.decoded.len() >= enough {
                change_length(self.rate(), &mut self.decoded, adjust == Adjust::Lengthen, false);
            }
        }
        let mut fetched = 0;
        while self.decoded.len() < frame && fetched < MAX_FETCHES {
            self.fetch(at);
            fetched += 1;
        }
        let have = self.decoded.len().min(frame);
        out.extend(self.decoded.drain(..have));
        out.resize(out.len() + frame - have, 0);
    }

    /// What is decoded and not heard, in clock units.
    fn ahead(&self) -> u32 {
        self.units(self.decoded.len())
    }

    fn units(&self, samples: usize) -> u32 {
        u32::try_from(samples as u64 * u64::from(self.codec.clock_rate()) / u64::from(self.rate().hz()))
            .unwrap_or(u32::MAX)
    }

    fn samples(codec: Codec, units: u32) -> usize {
        usize::try_from(u64::from(units) * u64::from(codec.rate().hz()) / u64::from(codec.clock_rate()))
            .unwrap_or(0)
    }

    fn fetch(&mut self, at: Instant) {
        let ahead = self.ahead();
        let start = self.decoded.len();
        match self.buffer.take(at, ahead) {
            Next::Packet { kind: Kind::Audio, payload } => {
                self.decoder.decode(payload, &mut self.decoded);
                self.concealer.heard(&mut self.decoded[start..]);
            }
            Next::Packet { kind: Kind::Noise, payload } => {
                // RFC 3389 3: the level is −dBov.
                let level = payload.first().map_or(127, |level| level & 127).max(LOUDEST_NOISE);
                self.noise = 32_768.0 * 10_f32.powf(-f32::from(level) / 20.0) * 1.73;
                self.silence(self.rate().samples(FRAME_MS));
            }
            Next::Silence { units } => self.silence(Self::samples(self.codec, units)),
            Next::Lost { units, next } => {
                let samples = Self::samples(self.codec, units);
                self.scratch.clear();
                // Without a memory of what was lost, what follows is known already.
                if let (Some(next), Codec::Pcmu | Codec::Pcma) = (next, self.codec) {
                    self.decoder.decode(next, &mut self.scratch);
                }
                if self.decoder.conceal(samples, next, &mut self.decoded) {
                    self.concealer.concealed_elsewhere(&self.decoded[start..]);
                } else if !self.scratch.is_empty() {
                    self.concealer.bridge(samples, &self.scratch, &mut self.decoded);
                } else {
                    self.concealer.conceal(samples, &mut self.decoded);
                }
            }
            Next::Wait { units } => {
                let samples = Self::samples(self.codec, units);
                self.concealer.conceal(samples, &mut self.decoded);
            }
        }
    }

    /// Silence, or the noise that the peer asked for.
    fn silence(&mut self, samples: usize) {
        let start = self.decoded.len();
        for _ in 0..samples {
            self.dice = self.dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let uniform = (self.dice >> 8) as f32 / (1 << 23) as f32 - 1.0;
            self.decoded.push((uniform * self.noise) as i16);
        }
        self.concealer.heard(&mut self.decoded[start..]);
    }
}

#[cfg(test)]
#[path = "hearing_tests.rs"]
mod tests;
