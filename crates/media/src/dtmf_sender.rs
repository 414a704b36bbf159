//! Telephone-events sent (RFC 4733 2.5): each digit for a quarter of a second, its end three times, then a pause.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Digits and pauses that may wait.
pub const MAX_WAITING: usize = 128;
/// Time between two packets of an event.
const STEP: Duration = Duration::from_millis(20);
const STEP_MS: u32 = 20;
/// Packets of a digit: 240 ms, and the end makes it 250 for most receivers.
const PACKETS: u32 = 12;
/// How often the end is sent.
const ENDS: u32 = 3;
/// Silence after a digit, and what `w` and `,` wait.
const GAP: Duration = Duration::from_millis(100);
const SHORT_PAUSE: Duration = Duration::from_millis(500);
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// Loudness told, in −dBm0.
const VOLUME: u8 = 10;

/// Whether a text is digits and pauses only: `0`–`9`, `A`–`D`, `*`, `#`, `w`, `,`.
#[must_use]
pub fn is_valid(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_WAITING
        && text.bytes().all(|b| b == b'w' || b == b',' || code(b).is_some())
}

fn code(digit: u8) -> Option<u8> {
    let at = b"0123456789*#ABCD".iter().position(|d| *d == digit)?;
    u8::try_from(at).ok()
}

/// A packet to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The payload.
    pub payload: [u8; 4],
    /// The first packet of its event: it has the marker, and sets the timestamp that the others keep.
    pub first: bool,
}

/// What waits and what is being sent.
#[derive(Debug, Default)]
pub struct Sender {
    waiting: VecDeque<u8>,
    next: Option<Instant>,
    /// The digit under way and its packets so far.
    current: Option<(u8, u32)>,
}

impl Sender {
    /// Adds digits and pauses. `false` when they do not all find room; then none is added.
    pub fn push(&mut self, text: &str, now: Instant) -> bool {
        if self.waiting.len() + text.len() > MAX_WAITING {
            return false;
        }
        self.waiting.extend(text.bytes());
        self.next.get_or_insert(now);
        true
    }

    /// When [`Sender::step`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Whether an event is under way: no audio is sent meanwhile.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.current.is_some()
    }

    /// The packet that is due, in the units of `clock` hertz.
    pub fn step(&mut self, now: Instant, clock: u32) -> Option<Event> {
        let at = self.next.filter(|at| *at <= now)?;
        if self.current.is_none() {
            let pause = match self.waiting.pop_front() {
                None => {
                    self.next = None;
                    return None;
                }
                Some(b'w') => SHORT_PAUSE,
                Some(b',') => LONG_PAUSE,
                Some(digit) => {
                    self.current = code(digit).map(|code| (code, 0));
                    Duration::ZERO
                }
            };
            if self.current.is_none() {
                self.next = Some(at + pause);
                return None;
            }
        }
        let (code, sent) = self.current.as_mut()?;
        *sent += 1;
        let over = *sent > PACKETS;
        // The duration of the end packets is the same: they are one packet sent thrice.
        let duration = clock / 1_000 * STEP_MS * (*sent).min(PACKETS);
        let [high, low] = u16::try_from(duration).unwrap_or(u16::MAX).to_be_bytes();
        let event = Event {
            payload: [*code, if over { 0x80 | VOLUME } else { VOLUME }, high, low],
            first: *sent == 1,
        };
        let done = *sent == PACKETS + ENDS;
        if done {
            self.current = None;
        }
        self.next = Some(at.max(now - STEP.min(now.duration_since(at))) + if done { GAP } else { STEP });
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtmf::Receiver;

    #[test]
    fn what_is_sent_is_received_once_each_even_with_losses() {
        for lost in [0, 3, 5] {
            let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
            let start = Instant::now();
            assert!(sender.push("1w9,A*#", start));
            let (mut heard, mut timestamp, mut packets) = (String::new(), 0, 0);
            let mut at = start;
            while let Some(next) = sender.poll_timeout() {
                at = next;
                if let Some(digit) = receiver.handle_timeout(at) {
                    heard.push(digit.digit);
                }
                if let Some(event) = sender.step(at, 8_000) {
                    packets += 1;
                    timestamp += if event.first { 4_000 } else { 0 };
                    if lost == 0 || packets % lost != 0 {
                        heard.extend(receiver.packet(&event.payload, timestamp, at).map(|d| d.digit));
                    }
                }
            }
            heard.extend(receiver.handle_timeout(at + Duration::from_secs(1)).map(|d| d.digit));
            assert_eq!(heard, "19A*#", "every {lost}th lost");
            assert!(at.duration_since(start) > Duration::from_millis(2_500 + 5 * 300));
        }
    }

    #[test]
    fn only_digits_and_pauses_and_no_more_than_fit() {
        for bad in ["", "12E", "a", " 1", &"1".repeat(MAX_WAITING + 1)] {
            assert!(!is_valid(bad), "{bad}");
        }
        assert!(is_valid("0123456789*#ABCDw,"));
        let mut sender = Sender::default();
        assert!(sender.push(&"1".repeat(100), Instant::now()));
        assert!(!sender.push(&"1".repeat(100), Instant::now()));
    }
}
