//! Packet indices (RFC 3711 3.3.1) and replay windows (3.3.2) of the streams under one master key.

use super::{MAX_LIFETIME, Refused};

/// Packets a window looks back: as many as a 128-bit word holds, twice what RFC 3711 3.3.2 asks for.
const WINDOW: u64 = 128;
/// Streams remembered under one key. A peer begins a new one now and then, a hostile one with every packet: beyond
/// this the one that was silent longest is forgotten.
const MAX_STREAMS: usize = 64;

/// The highest index taken, and which of those below it were.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    highest: Option<u64>,
    /// Bit n stands for `highest - n`.
    taken: u128,
}

impl Window {
    pub(super) fn check(&self, index: u64) -> Result<(), Refused> {
        let Some(highest) = self.highest else { return Ok(()) };
        if index > highest {
            return Ok(());
        }
        let back = highest - index;
        if back >= WINDOW || self.taken >> back & 1 == 1 { Err(Refused::Replayed) } else { Ok(()) }
    }

    fn take(&mut self, index: u64) {
        match self.highest {
            Some(highest) if index <= highest => {
                let back = highest - index;
                if back < WINDOW {
                    self.taken |= 1 << back;
                }
            }
            Some(highest) => {
                let ahead = index - highest;
                self.taken = if ahead < WINDOW { self.taken << ahead | 1 } else { 1 };
                self.highest = Some(index);
            }
            None => {
                self.taken = 1;
                self.highest = Some(index);
            }
        }
    }
}

/// One SSRC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    ssrc: u32,
    /// The 48-bit indices: rollover counter and sequence number.
    rtp: Window,
    /// The 31-bit SRTCP indices.
    pub(super) rtcp: Window,
    last_used: u64,
}

impl Stream {
    /// Whether RTP of it was taken.
    pub(super) fn heard(&self) -> bool {
        self.rtp.highest.is_some()
    }

    /// The index a sequence number most likely stands for; `None` before the first.
    pub(super) fn estimate(&self, sequence: u16) -> Option<u64> {
        let Some(highest) = self.rtp.highest else { return Some(sequence.into()) };
        let (counter, last) = (highest >> 16, highest & 0xffff);
        let sequence = u64::from(sequence);
        let counter = if last < 0x8000 {
            if sequence > last + 0x8000 { counter.checked_sub(1)? } else { counter }
        } else if last - 0x8000 > sequence {
            counter + 1
        } else {
            counter
        };
        Some(counter << 16 | sequence)
    }
}

/// The streams under one key, found by a slot number between two calls.
#[derive(Debug, Default)]
pub(super) struct Streams {
    known: Vec<Stream>,
    clock: u64,
}

impl Streams {
    pub(super) fn find(&self, ssrc: u32) -> Option<usize> {
        self.known.iter().position(|stream| stream.ssrc == ssrc)
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Stream> {
        self.known.get(slot)
    }

    /// Whether an index may be used.
    pub(super) fn check(&self, slot: Option<usize>, index: u64) -> Result<(), Refused> {
        if index >= MAX_LIFETIME {
            return Err(Refused::Expired);
        }
        slot.and_then(|slot| self.get(slot)).map_or(Ok(()), |stream| stream.rtp.check(index))
    }

    pub(super) fn take(&mut self, slot: Option<usize>, ssrc: u32, index: u64) {
        self.stream(slot, ssrc).rtp.take(index);
    }

    pub(super) fn take_rtcp(&mut self, slot: Option<usize>, ssrc: u32, index: u64) {
        self.stream(slot, ssrc).rtcp.take(index);
    }

    fn stream(&mut self, slot: Option<usize>, ssrc: u32) -> &mut Stream {
        self.clock += 1;
        let slot = match slot {
            Some(slot) => slot,
            None => {
                let new = Stream { ssrc, rtp: Window::default(), rtcp: Window::default(), last_used: 0 };
                let oldest = || (0..self.known.len()).min_by_key(|&slot| self.known[slot].last_used);
                match oldest().filter(|_| self.known.len() >= MAX_STREAMS) {
                    Some(oldest) => {
                        self.known[oldest] = new;
                        oldest
                    }
                    None => {
                        self.known.push(new);
                        self.known.len() - 1
                    }
                }
            }
        };
        // In range: a slot comes from `find` on this very table, or from just above.
        let stream = &mut self.known[slot];
        stream.last_used = self.clock;
        stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(highest: u64) -> Stream {
        Stream {
            ssrc: 1,
            rtp: Window { highest: Some(highest), taken: 1 },
            rtcp: Window::default(),
            last_used: 0,
        }
    }

    #[test]
    fn the_counter_follows_the_sequence_over_the_wrap_and_back() {
        assert_eq!(at(65_530).estimate(3), Some(0x1_0003));
        assert_eq!(at(0x1_0003).estimate(65_530), Some(65_530));
        assert_eq!(at(0x1_0003).estimate(4), Some(0x1_0004));
        assert_eq!(at(0x5_9000).estimate(0x0fff), Some(0x6_0fff));
        assert_eq!(at(0x5_9000).estimate(0x1001), Some(0x5_1001));
        // Older than the stream itself: no counter below zero.
        assert_eq!(at(3).estimate(65_530), None);
    }

    #[test]
    fn the_window_looks_back_128_packets() {
        let mut window = Window::default();
        window.take(1_000);
        assert_eq!(window.check(1_000), Err(Refused::Replayed));
        assert_eq!(window.check(1_000 - 127), Ok(()));
        assert_eq!(window.check(1_000 - 128), Err(Refused::Replayed));
        window.take(1_000 - 127);
        assert_eq!(window.check(1_000 - 127), Err(Refused::Replayed));
        window.take(1_001);
        assert_eq!(window.check(1_000), Err(Refused::Replayed));
        assert_eq!(window.check(999), Ok(()));
        window.take(9_000);
        assert_eq!(window.check(8_999), Ok(()));
        assert_eq!(window.check(1_001), Err(Refused::Replayed));
    }

    #[test]
    fn memory_does_not_grow_with_the_streams() {
        let mut streams = Streams::default();
        for ssrc in 0..10_000 {
            streams.take(streams.find(ssrc), ssrc, 1);
            // This one speaks all the time, and is never forgotten.
            streams.take(streams.find(7), 7, u64::from(ssrc) + 2);
        }
        assert_eq!(streams.known.len(), MAX_STREAMS);
        let slot = streams.find(7);
        assert_eq!(streams.check(slot, 10_001), Err(Refused::Replayed));
    }
}
