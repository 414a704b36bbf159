//! The audio of an agent outside the session: what the caller says in frames of 20 ms, and a playout queue the other
//! way, both bounded. Shared between the session and whoever carries the audio on; two links connected crosswise are a
//! bridge. What a session's audio is plugged into is a [`Port`].

use std::collections::VecDeque;
use std::fmt;

use parking_lot::Mutex;

use crate::playout::{Limits, Mark, Playout, PlayoutStatistics, Progress, TooManyMarks};

/// What a session's audio is plugged into: a link, or a place in a conference.
pub trait Port: fmt::Debug + Send + Sync {
    /// The sample rate of both directions, in hertz: 8,000, 16,000 or 24,000.
    fn rate(&self) -> u32;
    /// The audio that is sent now; silence where there is none.
    fn take(&self, frame: &mut [i16]);
    /// The peer said this.
    fn hear(&self, samples: &[i16]);
}

/// Frames a second, each way.
const FRAMES_PER_SECOND: u32 = 50;
/// Frames of the caller kept for an agent that does not fetch them; beyond it the oldest are dropped: half a second.
const MAX_HEARD_FRAMES: usize = 25;

/// What was counted of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkStatistics {
    /// Of the agent's audio.
    pub playout: PlayoutStatistics,
    /// Frames of the caller that the agent fetched too late.
    pub heard_overruns: u64,
}

/// See the module's text.
pub struct Link {
    rate: u32,
    heard: Mutex<Heard>,
    playout: Mutex<Playout>,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Heard {
    samples: VecDeque<i16>,
    overruns: u64,
}

impl Link {
    /// A link whose agent speaks and hears at `rate` hertz (8,000, 16,000 or 24,000). `wake` is called from the
    /// session's thread when a frame of the caller is there or a mark is over; it must not block.
    #[must_use]
    pub fn new(rate: u32, limits: Limits, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            rate,
            heard: Mutex::default(),
            playout: Mutex::new(Playout::new(rate, limits)),
            wake: Box::new(wake),
        }
    }

    /// The sample rate of both directions, in hertz.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Samples in a frame of 20 ms.
    #[must_use]
    pub fn frame(&self) -> usize {
        (self.rate / FRAMES_PER_SECOND) as usize
    }

    /// The agent's side: appends the next 20 ms of the caller. `false` when they are not there yet.
    pub fn listen(&self, into: &mut Vec<i16>) -> bool {
        let frame = self.frame();
        let mut heard = self.heard.lock();
        let complete = heard.samples.len() >= frame;
        if complete {
            into.extend(heard.samples.drain(..frame));
        }
        complete
    }

    /// The agent's side: says this after everything before it. Returns how many samples the limit dropped.
    pub fn say(&self, samples: &[i16]) -> usize {
        self.playout.lock().push(samples)
    }

    /// The agent's side: a mark behind everything said so far.
    pub fn mark(&self, name: String) -> Result<(), TooManyMarks> {
        self.set_mark(|playout| playout.mark(name))
    }

    /// A mark of ours behind everything said so far.
    pub fn mark_ours(&self) -> Result<(), TooManyMarks> {
        self.set_mark(Playout::mark_ours)
    }

    fn set_mark(
        &self,
        set: impl FnOnce(&mut Playout) -> Result<(), TooManyMarks>,
    ) -> Result<(), TooManyMarks> {
        let over = {
            let mut playout = self.playout.lock();
            set(&mut playout)?;
            playout.has_mark()
        };
        if over {
            (self.wake)();
        }
        Ok(())
    }

    /// The agent's side: says nothing of what waits. The marks are over, in order.
    pub fn clear(&self) {
        let over = {
            let mut playout = self.playout.lock();
            playout.clear();
            playout.has_mark()
        };
        if over {
            (self.wake)();
        }
    }

    /// The agent's side: the next mark that is over.
    pub fn next_mark(&self) -> Option<Mark> {
        self.playout.lock().next_mark()
    }

    /// Where playout stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.playout.lock().progress()
    }

    /// What was counted so far.
    #[must_use]
    pub fn statistics(&self) -> LinkStatistics {
        LinkStatistics {
            playout: self.playout.lock().statistics(),
            heard_overruns: self.heard.lock().overruns,
        }
    }
}

impl Port for Link {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn hear(&self, samples: &[i16]) {
        let frame = self.frame();
        let complete = {
            let mut heard = self.heard.lock();
            heard.samples.extend(samples);
            while heard.samples.len() > MAX_HEARD_FRAMES * frame {
                heard.samples.drain(..frame);
                heard.overruns += 1;
            }
            heard.samples.len() >= frame
        };
        if complete {
            (self.wake)();
        }
    }

    fn take(&self, frame: &mut [i16]) {
        let over = {
            let mut playout = self.playout.lock();
            playout.take(frame);
            playout.has_mark()
        };
        if over {
            (self.wake)();
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("rate", &self.rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::playout::Overrun;

    #[test]
    fn frames_are_whole_and_a_slow_agent_loses_the_oldest() {
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&woken);
        let limits = Limits { queued_ms: 1_000, overrun: Overrun::RefuseNew, marks: 8 };
        let link = Link::new(16_000, limits, move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let mut frame = Vec::new();
        link.hear(&[1; 319]);
        assert!(!link.listen(&mut frame));
        assert_eq!(woken.load(Ordering::Relaxed), 0);
        link.hear(&[2; 1]);
        assert!(link.listen(&mut frame));
        assert_eq!((frame.len(), frame[318], frame[319]), (320, 1, 2));
        for n in 0..30 {
            link.hear(&[n; 320]);
        }
        assert_eq!(link.statistics().heard_overruns, 5);
        frame.clear();
        assert!(link.listen(&mut frame));
        assert_eq!(frame, [5; 320]);
        let before = woken.load(Ordering::Relaxed);
        link.mark("now".to_owned()).unwrap();
        assert_eq!(woken.load(Ordering::Relaxed), before + 1);
    }
}
