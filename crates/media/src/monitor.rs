//! Who listens in: both sides of a call, frame by frame, for a recording or a listener. The session puts frames in
//! and never waits; whoever takes them out too late loses the oldest.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::resample::{Rate, Resampler};

/// Most audio kept: five seconds.
const MAX_SECONDS: usize = 5;

/// A bounded queue of stereo samples: the caller left, the agent right.
pub struct Monitor {
    rate: Rate,
    paused: AtomicBool,
    closed: AtomicBool,
    broken: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    samples: VecDeque<[i16; 2]>,
    lost: u64,
    taken: u64,
    resamplers: Option<(Resampler, Resampler)>,
    scratch: (Vec<i16>, Vec<i16>),
}

impl Monitor {
    /// A queue of samples at `rate`.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            paused: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            queue: Mutex::default(),
        }
    }

    /// The rate of the samples.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// While paused, time passes and nothing of the audio is kept: once this returns, no frame in between is.
    pub fn pause(&self, paused: bool) {
        let _between_frames = self.queue.lock();
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Nothing will come any more, or nobody takes it out.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether it is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The session's side: one frame of both sides, at `rate`.
    pub fn push(&self, rate: Rate, caller: &[i16], agent: &[i16]) {
        if self.is_closed() {
            return;
        }
        let queue = &mut *self.queue.lock();
        if self.is_paused() {
            return;
        }
        let Queue { samples, lost, resamplers, scratch, .. } = queue;
        let (left, right) = if rate == self.rate {
            (caller, agent)
        } else {
            if resamplers.as_ref().is_none_or(|(left, _)| left.from() != rate) {
                *resamplers = Some((Resampler::new(rate, self.rate), Resampler::new(rate, self.rate)));
            }
            scratch.0.clear();
            scratch.1.clear();
            if let Some((left, right)) = resamplers {
                left.process(caller, &mut scratch.0);
                right.process(agent, &mut scratch.1);
            }
            (&*scratch.0, &*scratch.1)
        };
        samples.extend(left.iter().zip(right).map(|(&l, &r)| [l, r]));
        let limit = MAX_SECONDS * self.rate.hz() as usize;
        let excess = samples.len().saturating_sub(limit);
        samples.drain(..excess);
        *lost += excess as u64;
    }

    /// The reader's side: appends everything that is there, interleaved. Returns how many samples a channel.
    pub fn take(&self, into: &mut Vec<i16>) -> usize {
        let mut queue = self.queue.lock();
        let count = queue.samples.len();
        queue.taken += count as u64;
        into.extend(queue.samples.drain(..).flatten());
        count
    }

    /// Whoever takes the audio out could not keep it.
    pub fn give_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.close();
    }

    /// Whether [`Monitor::give_up`] was called.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// How much audio there was, in milliseconds.
    #[must_use]
    pub fn recorded_ms(&self) -> u64 {
        let queue = self.queue.lock();
        (queue.taken + queue.samples.len() as u64) * 1_000 / u64::from(self.rate.hz())
    }

    /// Samples a channel that were lost because they were taken out too late.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.queue.lock().lost
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("rate", &self.rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_at_another_rate_and_a_late_reader_loses_the_oldest() {
        let monitor = Monitor::new(Rate::Hz16000);
        let mut out = Vec::new();
        monitor.push(Rate::Hz16000, &[1; 320], &[2; 320]);
        assert_eq!(monitor.take(&mut out), 320);
        assert_eq!(&out[..4], [1, 2, 1, 2]);
        for _ in 0..300 {
            monitor.push(Rate::Hz8000, &[1; 160], &[2; 160]);
        }
        out.clear();
        assert_eq!((monitor.take(&mut out), monitor.lost()), (80_000, 16_000));
        monitor.pause(true);
        monitor.push(Rate::Hz8000, &[1; 160], &[2; 160]);
        assert_eq!(monitor.take(&mut out), 0);
    }
}
