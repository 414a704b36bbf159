//! Telephone-events (RFC 4733), received: each digit once, whatever becomes of marker bits and end packets.

use std::time::{Duration, Instant};

/// An event without packets for this long has ended, its end packets lost.
const SILENCE: Duration = Duration::from_millis(200);
/// How late a packet of an event may come that another one has followed already.
const LATE: Duration = Duration::from_secs(1);
/// Longest duration reported, in milliseconds.
const MAX_DURATION_MS: u32 = 5_000;
const DIGITS: &[u8; 16] = b"0123456789*#ABCD";

/// How a digit came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// As a telephone-event (RFC 4733).
    Event,
    /// In a SIP INFO.
    Info,
    /// As a tone in the audio.
    Tone,
}

/// A digit that was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digit {
    /// `0`–`9`, `*`, `#`, `A`–`D`.
    pub digit: char,
    /// How long, in milliseconds.
    pub duration_ms: u32,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    digit: char,
    timestamp: u32,
    duration: u16,
    last_packet: Instant,
}

impl Current {
    fn continues_in(&self, digit: char, timestamp: u32) -> bool {
        let next = self.timestamp.wrapping_add(u16::MAX.into());
        self.digit == digit && self.duration == u16::MAX && timestamp == next
    }
}

/// Collects events of one stream.
#[derive(Debug, Default)]
pub struct Receiver {
    current: Option<Current>,
    /// Clock units a millisecond, 8 at least.
    per_ms: u32,
    /// Timestamp of the event reported last, whose end packets come three times.
    reported: Option<u32>,
}

impl Receiver {
    /// Durations come in units of so many hertz; 8,000 unless told.
    pub fn set_clock(&mut self, hz: u32) {
        self.per_ms = hz / 1_000;
    }

    /// Takes an event packet's payload and RTP timestamp; returns digits that are complete.
    pub fn packet(&mut self, payload: &[u8], timestamp: u32, now: Instant) -> Option<Digit> {
        let [event, flags, high, low, ..] = *payload else { return None };
        let digit = char::from(*DIGITS.get(usize::from(event))?);
        if self.is_over(timestamp) {
            return None;
        }
        let duration = u16::from_be_bytes([high, low]);
        let ended = flags & 0x80 != 0;
        let mut complete = None;
        match &mut self.current {
            Some(current) if current.timestamp == timestamp => {
                current.duration = current.duration.max(duration);
                current.last_packet = now;
            }
            // A key that is held longer than a duration can say goes on in the next segment (RFC 4733 2.5.1.3).
            Some(current) if current.continues_in(digit, timestamp) => {
                current.timestamp = timestamp;
                current.last_packet = now;
            }
            other => {
                // Another event began: the one before has ended, its end packets lost.
                complete = other.take();
                *other = Some(Current { digit, timestamp, duration, last_packet: now });
            }
        }
        if let Some(complete) = complete {
            // This packet's own end, if it is one, comes again twice.
            return Some(self.report(complete));
        }
        if ended { self.current.take().map(|current| self.report(current)) } else { None }
    }

    /// Whether a packet is of an event that was reported: of the last one, or of one before it that comes late.
    fn is_over(&self, timestamp: u32) -> bool {
        let late = u32::try_from(LATE.as_millis()).unwrap_or(u32::MAX).saturating_mul(self.per_ms.max(8));
        self.reported.is_some_and(|reported| reported.wrapping_sub(timestamp) < late)
    }

    /// When the current event is taken for ended.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.current.map(|current| current.last_packet + SILENCE)
    }

    /// Ends an event whose packets have stopped.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Digit> {
        let over = self.poll_timeout().is_some_and(|at| at <= now);
        if over { self.current.take().map(|current| self.report(current)) } else { None }
    }

    fn report(&mut self, event: Current) -> Digit {
        self.reported = Some(event.timestamp);
        let duration_ms = u32::from(event.duration) / self.per_ms.max(8);
        Digit { digit: event.digit, duration_ms: duration_ms.min(MAX_DURATION_MS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event: u8, end: bool, duration: u16) -> [u8; 4] {
        let [high, low] = duration.to_be_bytes();
        [event, if end { 0x8a } else { 10 }, high, low]
    }

    #[test]
    fn a_digit_comes_once_with_its_end_packets_three_times() {
        let (mut receiver, now) = (Receiver::default(), Instant::now());
        assert_eq!(receiver.packet(&event(5, false, 160), 1_000, now), None);
        let digit = Some(Digit { digit: '5', duration_ms: 100 });
        assert_eq!(receiver.packet(&event(5, true, 800), 1_000, now), digit);
        for _ in 0..2 {
            assert_eq!(receiver.packet(&event(5, true, 800), 1_000, now), None);
        }
        assert_eq!(receiver.packet(&event(5, true, 800), 9_000, now), digit);
    }

    #[test]
    fn a_copy_that_comes_after_the_next_digit_is_no_digit() {
        let (mut receiver, now) = (Receiver::default(), Instant::now());
        let five = Some(Digit { digit: '5', duration_ms: 100 });
        assert_eq!(receiver.packet(&event(5, true, 800), 4_000_000_000, now), five);
        assert!(receiver.packet(&event(6, true, 400), 4_000_001_600, now).is_some());
        assert_eq!(receiver.packet(&event(5, true, 800), 4_000_000_000, now), None);
        // Another stream counts from elsewhere.
        assert_eq!(receiver.packet(&event(5, true, 800), 3_000_000_000, now), five);
    }

    #[test]
    fn a_key_that_is_held_for_long_is_one_digit() {
        let (mut receiver, now) = (Receiver::default(), Instant::now());
        let first = u32::MAX - 100;
        assert_eq!(receiver.packet(&event(1, false, 60_000), first, now), None);
        assert_eq!(receiver.packet(&event(1, false, u16::MAX), first, now), None);
        let second = first.wrapping_add(65_535);
        assert_eq!(receiver.packet(&event(1, false, 400), second, now), None);
        let whole = Some(Digit { digit: '1', duration_ms: MAX_DURATION_MS });
        assert_eq!(receiver.packet(&event(1, true, 800), second, now), whole);
        assert_eq!(receiver.packet(&event(1, true, 800), second, now), None);
    }

    #[test]
    fn lost_end_packets_end_by_silence_or_by_the_next_digit() {
        let (mut receiver, now) = (Receiver::default(), Instant::now());
        receiver.packet(&event(11, false, 400), 1, now);
        assert_eq!(
            receiver.packet(&event(10, false, 80), 2, now),
            Some(Digit { digit: '#', duration_ms: 50 })
        );
        assert_eq!(receiver.handle_timeout(now), None);
        assert_eq!(receiver.handle_timeout(now + SILENCE), Some(Digit { digit: '*', duration_ms: 10 }));
        assert_eq!(receiver.poll_timeout(), None);
        assert_eq!(receiver.packet(&event(16, true, 80), 3, now), None);
        assert_eq!(receiver.packet(&[1, 2], 3, now), None);
    }
}
