//! The jitter buffer of one stream: packets come in whenever the network brings them, and leave in order by the clock.
//!
//! A packet's *delay* is its arrival measured against its timestamp, relative to the fastest packet of the last
//! seconds (so clock drift is followed). The buffer's *target* is the delay that nearly every packet keeps. What is
//! played lags behind the fastest packet by *lag*; the reader is told to lengthen or shorten the audio when lag and
//! target part.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Time between two ticks of the reader, in microseconds.
const TICK: i64 = 20_000;
/// Most packets kept: 1.2 s at 20 ms.
const MAX_PACKETS: usize = 60;
/// Longest payload kept, in bytes; a longer one is no telephone audio.
const MAX_PAYLOAD: usize = 1_500;
/// Payload buffers kept for the next packets.
const MAX_SPARE: usize = 8;
/// Lag before anything is known of the network, in microseconds.
const FIRST_TARGET: i64 = 20_000;
/// Least and greatest target, in microseconds.
const MIN_TARGET: i64 = 10_000;
const MAX_TARGET: i64 = 400_000;
/// What is added to the delay that nearly every packet keeps: the clock's own lateness.
const MARGIN: i64 = 5_000;
/// Width of a bar of the histogram of delays, in microseconds, and their number.
const BAR: i64 = 5_000;
const BARS: usize = 80;
/// The part of the packets that may come later than the target.
const LATE_PART: f32 = 0.03;
/// How fast old delays are forgotten: each packet takes this part of what was known (about five seconds).
const FORGET: f32 = 1.0 / 256.0;
/// How long the fastest packet is remembered: one to two of these, in microseconds.
const BASE_WINDOW: i64 = 5_000_000;
/// Lag over the target that is left alone, and how much longer than that it must last.
const SLACK: i64 = 25_000;
const PATIENCE: u32 = 50;
/// Lag over the target that is taken down at once.
const EXCESS: i64 = 100_000;
/// Lag under the target that is made up for.
const SHORTAGE: i64 = 15_000;
/// A timestamp this far from the clock is another time line, in microseconds.
const JUMP: i64 = 1_500_000;
/// Packets in a row that come too late before their time line is believed.
const MAX_LATE: u32 = 4;

/// What a packet holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Audio.
    Audio,
    /// Comfort noise (RFC 3389).
    Noise,
}

/// What is to be played next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// This packet, now forgotten.
    Packet {
        /// What it holds.
        kind: Kind,
        /// Its payload.
        payload: &'a [u8],
    },
    /// A packet that is lost or too late, of so many clock units. The one after it, when that is there.
    Lost {
        /// Clock units to conceal.
        units: u32,
        /// The payload after it, for codecs that correct errors.
        next: Option<&'a [u8]>,
    },
    /// Nothing was sent for this time (DTX), or nothing is there any more: silence.
    Silence {
        /// Clock units.
        units: u32,
    },
    /// The packet may still come: conceal so many clock units, and ask again for it.
    Wait {
        /// Clock units.
        units: u32,
    },
}

/// What lag and target ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjust {
    /// Nothing.
    Keep,
    /// Take some audio out.
    Shorten,
    /// Put some in.
    Lengthen,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BufferStatistics {
    /// Packets that came after their time.
    pub late: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Packets that found the buffer full.
    pub overflow: u64,
    /// Times the reader was told to conceal a lost packet.
    pub lost: u64,
    /// Times the time line was begun anew.
    pub resets: u64,
}

#[derive(Debug)]
struct Entry {
    sequence: i64,
    /// Position on the media time line, in clock units.
    at: i64,
    units: u32,
    kind: Kind,
    payload: Vec<u8>,
}

/// See the module's text.
#[derive(Debug)]
pub struct JitterBuffer {
    clock: i64,
    entries: VecDeque<Entry>,
    spare: Vec<Vec<u8>>,
    /// What `Next` borrows.
    out: Vec<u8>,
    /// The first packet's arrival: where the clocks are compared from.
    epoch: Option<Instant>,
    /// Last sequence number and timestamp as on the wire, and extended.
    wire: (u16, u32),
    extended: (i64, i64),
    /// Position that is played next, and the last sequence number played.
    play: i64,
    played: Option<i64>,
    /// Units of the last packet.
    units: u32,
    /// Fastest packets of this window and the one before, in microseconds from the epoch's line.
    fastest: (i64, i64),
    window_ends: i64,
    bars: [f32; BARS],
    weight: f32,
    target: i64,
    over: u32,
    late_in_row: u32,
    /// A time line began, and its first packet is not played yet.
    joining: bool,
    /// Sequence numbers without audio, and whether one of them or comfort noise was the last: then nothing is missing.
    passed: VecDeque<i64>,
    after_event: bool,
    /// Clock units without a packet.
    dry: i64,
    statistics: BufferStatistics,
}

impl JitterBuffer {
    /// An empty buffer for timestamps of `clock_rate` hertz.
    #[must_use]
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock: i64::from(clock_rate.max(1)),
            entries: VecDeque::new(),
            spare: Vec::new(),
            out: Vec::new(),
            epoch: None,
            wire: (0, 0),
            extended: (0, 0),
            play: 0,
            played: None,
            units: clock_rate / 50,
            fastest: (0, 0),
            window_ends: 0,
            bars: [0.0; BARS],
            weight: 0.0,
            target: FIRST_TARGET,
            over: 0,
            late_in_row: 0,
            joining: false,
            passed: VecDeque::new(),
            after_event: false,
            dry: 0,
            statistics: BufferStatistics::default(),
        }
    }

    /// A new stream begins: packets and time line are forgotten, what is known of the network stays.
    pub fn restart(&mut self, clock_rate: u32) {
        self.clock = i64::from(clock_rate.max(1));
        self.units = clock_rate / 50;
        self.epoch = None;
        self.played = None;
        self.late_in_row = 0;
        while let Some(entry) = self.entries.pop_front() {
            self.recycle(entry.payload);
        }
    }

    /// Whether a stream has begun.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.epoch.is_some()
    }

    /// A packet of the stream that holds no audio, a telephone-event, is not missing.
    pub fn pass(&mut self, sequence: u16) {
        if self.epoch.is_none() || self.passed.len() >= MAX_PACKETS {
            return;
        }
        let step = i64::from(sequence.wrapping_sub(self.wire.0).cast_signed());
        self.passed.push_back(self.extended.0 + step);
    }

    /// Begins at a packet that has not come, the one that follows on what was taken elsewhere.
    pub fn expect(&mut self, sequence: u16, timestamp: u32, now: Instant) {
        self.begin(sequence, timestamp, now);
    }

    /// Whether the packet that is played next is there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.entries.front().is_some_and(|front| front.at <= self.play)
    }

    /// When the first packet of a stream that began now is to be played.
    #[must_use]
    pub fn first_due(&self, now: Instant) -> Instant {
        now + micros(self.target.min(MAX_TARGET))
    }

    /// The lag that is aimed at.
    #[must_use]
    pub fn target(&self) -> Duration {
        micros(self.target)
    }

    /// What was counted so far.
    #[must_use]
    pub fn statistics(&self) -> BufferStatistics {
        self.statistics
    }

    /// Takes a packet of `units` clock units.
    pub fn insert(
        &mut self,
        sequence: u16,
        timestamp: u32,
        units: u32,
        kind: Kind,
        payload: &[u8],
        now: Instant,
    ) {
        if payload.len() > MAX_PAYLOAD {
            self.statistics.overflow += 1;
            return;
        }
        let Some(epoch) = self.epoch else {
            self.begin(sequence, timestamp, now);
            self.keep(0, 0, units, kind, payload);
            return;
        };
        let sequence_step = i64::from(sequence.wrapping_sub(self.wire.0).cast_signed());
        let step = i64::from(timestamp.wrapping_sub(self.wire.1).cast_signed());
        let (number, at) = (self.extended.0 + sequence_step, self.extended.1 + step);
        let delay = since(epoch, now) - self.micros_of(at);
        let base = self.base();
        // The time line was left: a source that began anew, or paused without counting the time.
        let jumped = (delay - base).abs() > JUMP;
        let late = at < self.play && at + i64::from(units) <= self.play;
        let resumed = late && self.entries.is_empty() && self.dry > self.clock / 10 && sequence_step > 0;
        if late {
            self.late_in_row += 1;
        }
        if jumped || resumed || self.late_in_row >= MAX_LATE {
            self.statistics.resets += 1;
            self.rebase(number, sequence, timestamp, now);
            self.keep(number, self.extended.1, units, kind, payload);
            return;
        }
        if sequence_step > 0 {
            self.wire = (sequence, timestamp);
            self.extended = (number, at);
        }
        self.learn(since(epoch, now), delay);
        if late {
            self.statistics.late += 1;
            return;
        }
        self.late_in_row = 0;
        self.keep(number, at, units, kind, payload);
    }

    /// Begins a time line whose origin is this packet.
    fn begin(&mut self, sequence: u16, timestamp: u32, now: Instant) {
        self.epoch = Some(now);
        self.passed.clear();
        self.after_event = false;
        self.wire = (sequence, timestamp);
        self.extended = (0, 0);
        (self.play, self.played) = (0, None);
        self.fastest = (0, i64::MAX);
        self.window_ends = BASE_WINDOW;
        self.over = 0;
        self.dry = 0;
        self.late_in_row = 0;
        self.joining = true;
    }

    /// Joins another time line to what is played: this packet is next, a target from now.
    fn rebase(&mut self, number: i64, sequence: u16, timestamp: u32, now: Instant) {
        while let Some(entry) = self.entries.pop_front() {
            self.recycle(entry.payload);
        }
        self.epoch = Some(now);
        self.wire = (sequence, timestamp);
        self.fastest = (0, i64::MAX);
        self.window_ends = BASE_WINDOW;
        self.extended = (number, 0);
        // Lag is zero here and now, so the reader waits until it is the target.
        self.play = 0;
        self.played = Some(number - 1);
        self.late_in_row = 0;
        self.over = 0;
        self.joining = true;
    }

    fn keep(&mut self, sequence: i64, at: i64, units: u32, kind: Kind, payload: &[u8]) {
        let place = self.entries.iter().rposition(|e| e.sequence <= sequence);
        if place.and_then(|p| self.entries.get(p)).is_some_and(|e| e.sequence == sequence)
            || self.played.is_some_and(|played| played >= sequence)
        {
            self.statistics.duplicates += 1;
            return;
        }
        if self.entries.len() >= MAX_PACKETS {
            self.statistics.overflow += 1;
            // The newest is worth more than the oldest: what is kept is never late.
            if let Some(entry) = self.entries.pop_front() {
                self.play = self.play.max(entry.at + i64::from(entry.units));
                self.recycle(entry.payload);
            }
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(payload);
        if kind == Kind::Audio {
            self.units = units;
        }
        let place = self.entries.iter().rposition(|e| e.sequence < sequence).map_or(0, |p| p + 1);
        self.entries.insert(place, Entry { sequence, at, units, kind, payload: bytes });
    }

    /// Takes a packet's delay into account.
    fn learn(&mut self, now: i64, delay: i64) {
        if now >= self.window_ends {
            self.fastest = (delay, self.fastest.0);
            self.window_ends = now + BASE_WINDOW;
        }
        self.fastest.0 = self.fastest.0.min(delay);
        let over = (delay - self.base()).max(0);
        let bar = usize::try_from(over / BAR).unwrap_or(0).min(BARS - 1);
        for value in &mut self.bars {
            *value *= 1.0 - FORGET;
        }
        self.bars[bar] += FORGET;
        self.weight += (1.0 - self.weight) * FORGET;
        let mut late = 0.0;
        let mut nearly_all = 0;
        for (index, value) in self.bars.iter().enumerate().rev() {
            late += value;
            if late > LATE_PART * self.weight {
                nearly_all = index;
                break;
            }
        }
        let nearly_all = i64::try_from(nearly_all).unwrap_or(0);
        // The first bar is no jitter at all; of the others the upper edge counts.
        let wanted = if nearly_all == 0 { 0 } else { (nearly_all + 1) * BAR };
        self.target = (wanted + MARGIN).clamp(MIN_TARGET, MAX_TARGET);
    }

    fn base(&self) -> i64 {
        self.fastest.0.min(self.fastest.1)
    }

    fn micros_of(&self, units: i64) -> i64 {
        units * 1_000_000 / self.clock
    }

    /// How far the next packet's use lags behind its fastest arrival. With `ahead` units decoded and not played it is
    /// used when less than a tick's worth of them is left.
    fn lag(&self, now: Instant, ahead: u32) -> i64 {
        let Some(epoch) = self.epoch else { return 0 };
        let used = self.micros_of(i64::from(ahead)) / TICK * TICK;
        since(epoch, now) + used - self.micros_of(self.play) - self.base()
    }

    /// What lag and target ask for at this tick.
    pub fn adjust(&mut self, now: Instant, ahead: u32) -> Adjust {
        if self.joining || self.epoch.is_none() || self.dry > 0 {
            return Adjust::Keep;
        }
        let over = self.lag(now, ahead) - self.target;
        if over < -SHORTAGE {
            self.over = 0;
            return Adjust::Lengthen;
        }
        self.over = if over > SLACK { self.over.saturating_add(1) } else { 0 };
        if over > EXCESS || self.over > PATIENCE { Adjust::Shorten } else { Adjust::Keep }
    }

    /// What is to be played next at this tick, when `ahead` units are decoded and not played.
    pub fn take(&mut self, now: Instant, ahead: u32) -> Next<'_> {
        let lag = self.lag(now, ahead);
        let due = lag >= self.target;
        let units = self.units.max(1);
        while let (Some(played), Some(&passed)) = (self.played, self.passed.front())
            && passed <= played + 1
        {
            self.passed.pop_front();
            if passed == played + 1 {
                self.played = Some(passed);
                self.after_event = true;
            }
        }
        let Some(front) = self.entries.front() else {
            self.dry += i64::from(units);
            if self.epoch.is_none() {
                return Next::Silence { units };
            }
            // Beyond the target it is lost, or the source pauses; then lag must not grow.
            if !due {
                return Next::Wait { units };
            }
            self.play += i64::from(units);
            if self.after_event || self.dry > self.clock / 10 {
                return Next::Silence { units };
            }
            self.statistics.lost += 1;
            return Next::Lost { units, next: None };
        };
        let gap = front.at - self.play;
        if gap > 0 {
            let nothing_lost = self.played.is_some_and(|played| front.sequence == played + 1);
            // Too far behind anyway: the gap is left out.
            let skip = lag - self.target > EXCESS;
            if !skip {
                let part = u32::try_from(gap).unwrap_or(units).min(units);
                if nothing_lost {
                    // The source paused and counted the time: what it did not send is silence.
                    self.play += i64::from(part);
                    self.dry += i64::from(part);
                    return Next::Silence { units: part };
                }
                if !due {
                    return Next::Wait { units };
                }
                self.play += i64::from(part);
                self.dry += i64::from(part);
                if self.dry > self.clock / 5 {
                    return Next::Silence { units: part };
                }
                self.statistics.lost += 1;
                let adjacent = gap <= i64::from(units);
                let next = self.entries.front().filter(|e| adjacent && e.kind == Kind::Audio);
                return Next::Lost { units: part, next: next.map(|e| e.payload.as_slice()) };
            }
        }
        // Before its time: the stream just began.
        if self.joining && !due {
            return Next::Wait { units };
        }
        self.joining = false;
        let Some(entry) = self.entries.pop_front() else { return Next::Silence { units } };
        self.play = entry.at + i64::from(entry.units);
        self.played = Some(entry.sequence);
        self.dry = 0;
        self.after_event = entry.kind == Kind::Noise;
        let old = std::mem::replace(&mut self.out, entry.payload);
        self.recycle(old);
        Next::Packet { kind: entry.kind, payload: &self.out }
    }

    fn recycle(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(bytes);
        }
    }
}

fn micros(value: i64) -> Duration {
    Duration::from_micros(u64::try_from(value).unwrap_or(0))
}

/// Microseconds from `epoch` to `now`, negative when it is before.
fn since(epoch: Instant, now: Instant) -> i64 {
    let ahead = i64::try_from(now.saturating_duration_since(epoch).as_micros()).unwrap_or(i64::MAX);
    let behind = i64::try_from(epoch.saturating_duration_since(now).as_micros()).unwrap_or(i64::MAX);
    ahead - behind
}
