//! What a linked agent has said and the caller has not heard yet: audio pushed in any size and faster than real time,
//! taken a frame at a time by the session's clock.

use std::collections::VecDeque;

/// Frames of audio that begin a talkspurt; less waits one frame for company, so that an agent that speaks in real
/// time does not run dry at once.
const FIRST_FRAMES: usize = 2;
/// Speech that goes on within so many frames of running dry was interrupted by its sender.
const INTERRUPTED_FRAMES: u32 = 10;
/// Ramps against clicks where audio breaks off or goes on, in parts of a second: 10 ms.
const RAMP_PER_SECOND: u32 = 100;

/// What becomes of audio beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overrun {
    /// The new audio is dropped: what was said first is heard.
    RefuseNew,
    /// The oldest is dropped: what is heard is never late (a bridge).
    DropOld,
}

/// Bounds of a playout queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most audio kept, in milliseconds. 16-bit samples: at 24 kHz a second is 48,000 bytes.
    pub queued_ms: u32,
    /// What happens beyond.
    pub overrun: Overrun,
    /// Most marks kept, those included that fired and were not fetched.
    pub marks: usize,
}

/// A mark that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Its name.
    pub name: String,
    /// Whether its audio was cleared instead of heard.
    pub cleared: bool,
    /// It is not the agent's: it stands behind something that was played for it.
    pub ours: bool,
}

/// No place for one more mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many marks wait")]
pub struct TooManyMarks;

/// Where playout stands, in samples at the link's rate since its beginning. What is cleared counts as never pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Sent as RTP.
    pub played: u64,
    /// Waiting.
    pub queued: u64,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlayoutStatistics {
    /// Samples pushed beyond the limit, and lost.
    pub overrun_samples: u64,
    /// Times the queue ran dry in the middle of speech.
    pub underruns: u64,
    /// Samples thrown away by a clear.
    pub cleared_samples: u64,
}

/// The queue. Positions and sizes are in samples of one rate.
#[derive(Debug)]
pub struct Playout {
    limits: Limits,
    limit: usize,
    /// Memory kept while idle, in samples.
    idle: usize,
    queue: VecDeque<i16>,
    played: u64,
    /// Position at which each fires, its name, and whether it is ours.
    marks: VecDeque<(u64, String, bool)>,
    over: VecDeque<Mark>,
    /// Audio is flowing: the last frame was full.
    talking: bool,
    /// The beginning of a talkspurt has waited its frame.
    waited: bool,
    /// Frames since the queue ran dry; `None` when it was cleared or never ran.
    dry_frames: Option<u32>,
    /// The last samples taken, for the ramp.
    last: Box<[i16]>,
    statistics: PlayoutStatistics,
}

impl Playout {
    /// An empty queue of samples at `rate` hertz.
    #[must_use]
    pub fn new(rate: u32, limits: Limits) -> Self {
        let samples =
            |ms: u32| usize::try_from(u64::from(ms) * u64::from(rate) / 1_000).unwrap_or(usize::MAX);
        let ramp = usize::try_from(rate / RAMP_PER_SECOND).unwrap_or(1).max(1);
        Self {
            limits,
            limit: samples(limits.queued_ms),
            idle: samples(200),
            queue: VecDeque::new(),
            played: 0,
            marks: VecDeque::new(),
            over: VecDeque::new(),
            talking: false,
            waited: false,
            dry_frames: None,
            last: vec![0; ramp].into(),
            statistics: PlayoutStatistics::default(),
        }
    }

    /// Adds audio. Returns how many samples were dropped for the limit.
    pub fn push(&mut self, samples: &[i16]) -> usize {
        let excess = (self.queue.len() + samples.len()).saturating_sub(self.limit);
        self.statistics.overrun_samples += excess as u64;
        match self.limits.overrun {
            Overrun::RefuseNew => {
                let kept = samples.len().saturating_sub(excess);
                self.queue.extend(samples.iter().take(kept));
            }
            Overrun::DropOld => {
                let old = excess.min(self.queue.len());
                self.queue.drain(..old);
                self.played += old as u64;
                self.queue.extend(samples.iter().skip(excess - old));
                self.fire();
            }
        }
        excess
    }

    /// Sets a mark behind everything pushed so far. With nothing queued it fires at once.
    pub fn mark(&mut self, name: String) -> Result<(), TooManyMarks> {
        self.set_mark(name, false)
    }

    /// Sets a mark of ours behind everything pushed so far.
    pub fn mark_ours(&mut self) -> Result<(), TooManyMarks> {
        self.set_mark(String::new(), true)
    }

    fn set_mark(&mut self, name: String, ours: bool) -> Result<(), TooManyMarks> {
        if self.marks.len() + self.over.len() >= self.limits.marks {
            return Err(TooManyMarks);
        }
        self.marks.push_back((self.played + self.queue.len() as u64, name, ours));
        self.fire();
        Ok(())
    }

    /// Throws away what waits; its marks are over, in order.
    pub fn clear(&mut self) {
        self.statistics.cleared_samples += self.queue.len() as u64;
        self.queue.clear();
        self.queue.shrink_to(self.idle);
        self.over.extend(self.marks.drain(..).map(|(_, name, ours)| Mark { name, cleared: true, ours }));
        self.talking = false;
        self.waited = false;
        self.dry_frames = None;
    }

    /// The next mark that is over.
    pub fn next_mark(&mut self) -> Option<Mark> {
        self.over.pop_front()
    }

    /// Takes the frame that is sent now; silence where there is no audio.
    pub fn take(&mut self, frame: &mut [i16]) {
        let begins = !self.talking;
        if begins && !self.waited && !self.queue.is_empty() && self.queue.len() < FIRST_FRAMES * frame.len() {
            self.waited = true;
            self.silence(frame);
            return;
        }
        if self.queue.is_empty() {
            self.silence(frame);
            return;
        }
        self.waited = false;
        let have = self.queue.len().min(frame.len());
        let (audio, rest) = frame.split_at_mut(have);
        for (slot, sample) in audio.iter_mut().zip(self.queue.drain(..have)) {
            *slot = sample;
        }
        if begins && self.dry_frames.take().is_some_and(|frames| frames <= INTERRUPTED_FRAMES) {
            self.statistics.underruns += 1;
            let ramp = self.last.len();
            for (n, sample) in audio.iter_mut().take(ramp).enumerate() {
                *sample = scaled(*sample, n + 1, ramp);
            }
        }
        self.remember(audio);
        self.played += have as u64;
        self.talking = true;
        if !rest.is_empty() {
            self.silence(rest);
        }
        if self.queue.is_empty() && self.queue.capacity() > self.idle * 8 {
            self.queue.shrink_to(self.idle);
        }
        self.fire();
    }

    /// Silence; at the end of audio its last samples backwards, fading, so that no step is heard.
    fn silence(&mut self, frame: &mut [i16]) {
        frame.fill(0);
        if std::mem::take(&mut self.talking) {
            let ramp = self.last.len();
            for (n, (slot, sample)) in frame.iter_mut().zip(self.last.iter().rev()).enumerate() {
                *slot = scaled(*sample, ramp - n, ramp + 1);
            }
            self.dry_frames = Some(0);
        } else if let Some(frames) = &mut self.dry_frames {
            *frames = frames.saturating_add(1);
        }
    }

    fn remember(&mut self, audio: &[i16]) {
        let ramp = self.last.len();
        if let Some(end) = audio.len().checked_sub(ramp) {
            // In range: `end` is `audio.len() - ramp`.
            self.last.copy_from_slice(&audio[end..]);
        } else {
            self.last.rotate_left(audio.len());
            for (slot, sample) in self.last.iter_mut().skip(ramp - audio.len()).zip(audio) {
                *slot = *sample;
            }
        }
    }

    fn fire(&mut self) {
        while self.marks.front().is_some_and(|(at, ..)| *at <= self.played) {
            let Some((_, name, ours)) = self.marks.pop_front() else { return };
            self.over.push_back(Mark { name, cleared: false, ours });
        }
    }

    /// Whether a mark is over and not fetched.
    #[must_use]
    pub fn has_mark(&self) -> bool {
        !self.over.is_empty()
    }

    /// Where playout stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { played: self.played, queued: self.queue.len() as u64 }
    }

    /// What was counted so far.
    #[must_use]
    pub fn statistics(&self) -> PlayoutStatistics {
        self.statistics
    }
}

/// A sample times `part` of `whole`.
fn scaled(sample: i16, part: usize, whole: usize) -> i16 {
    let scaled = i64::from(sample) * part as i64 / (whole as i64).max(1);
    // In range: part is at most whole.
    scaled as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 160;

    fn playout(overrun: Overrun) -> Playout {
        Playout::new(8_000, Limits { queued_ms: 2_000, overrun, marks: 4 })
    }

    fn take(playout: &mut Playout) -> [i16; FRAME] {
        let mut frame = [7; FRAME];
        playout.take(&mut frame);
        frame
    }

    fn marks(playout: &mut Playout) -> Vec<(String, bool)> {
        std::iter::from_fn(|| playout.next_mark()).map(|m| (m.name, m.cleared)).collect()
    }

    #[test]
    fn a_burst_comes_out_frame_by_frame_and_bit_for_bit() {
        let mut playout = playout(Overrun::RefuseNew);
        let said: Vec<i16> = (0..10 * FRAME as i16).collect();
        assert_eq!(playout.push(&said), 0);
        let heard: Vec<i16> = (0..10).flat_map(|_| take(&mut playout)).collect();
        assert_eq!(heard, said);
        assert_eq!(playout.progress(), Progress { played: 1_600, queued: 0 });
    }

    #[test]
    fn a_mark_fires_with_its_last_sample_and_at_once_when_nothing_waits() {
        let mut playout = playout(Overrun::RefuseNew);
        playout.mark("idle".to_owned()).unwrap();
        assert_eq!(marks(&mut playout), [("idle".to_owned(), false)]);
        playout.push(&[9; 2 * FRAME + 1]);
        playout.mark("end".to_owned()).unwrap();
        for _ in 0..2 {
            take(&mut playout);
            assert!(!playout.has_mark());
        }
        let last = take(&mut playout);
        assert_eq!(last[0], 9);
        assert_eq!(marks(&mut playout), [("end".to_owned(), false)]);
        playout.push(&[9; FRAME]);
        playout.mark_ours().unwrap();
        playout.clear();
        assert_eq!(playout.next_mark(), Some(Mark { name: String::new(), cleared: true, ours: true }));
    }

    #[test]
    fn clear_silences_the_next_frame_and_returns_marks_in_order() {
        let mut playout = playout(Overrun::RefuseNew);
        for name in ["a", "b"] {
            playout.push(&[5_000; 4 * FRAME]);
            playout.mark(name.to_owned()).unwrap();
        }
        take(&mut playout);
        playout.clear();
        assert_eq!(take(&mut playout), [0; FRAME]);
        assert_eq!(marks(&mut playout), [("a".to_owned(), true), ("b".to_owned(), true)]);
        assert_eq!(playout.progress(), Progress { played: 160, queued: 0 });
        assert_eq!(playout.statistics().cleared_samples, 7 * 160);
        // What follows is positioned by what was played, not by what was thrown away.
        playout.push(&[1; FRAME]);
        assert_eq!(playout.progress(), Progress { played: 160, queued: 160 });
    }

    #[test]
    fn a_partial_frame_waits_once_and_is_padded() {
        let mut playout = playout(Overrun::RefuseNew);
        playout.push(&[100; 10]);
        assert_eq!(take(&mut playout), [0; FRAME]);
        let frame = take(&mut playout);
        assert_eq!(frame[..10], [100; 10]);
        assert!(frame[10..90].windows(2).all(|w| w[0] >= w[1] && w[1] >= 0), "{frame:?}");
        assert_eq!(frame[90..], [0; 70]);
    }

    #[test]
    fn bounds_hold_and_are_counted() {
        let mut refuses = playout(Overrun::RefuseNew);
        assert_eq!(refuses.push(&[1; 20_000]), 4_000);
        assert_eq!(refuses.push(&[2; 5]), 5);
        assert_eq!((refuses.progress().queued, refuses.statistics().overrun_samples), (16_000, 4_005));
        let mut drops = playout(Overrun::DropOld);
        drops.push(&[1; 16_000]);
        drops.mark("old".to_owned()).unwrap();
        assert_eq!(drops.push(&[2; 20_000]), 20_000);
        assert_eq!(drops.progress(), Progress { played: 16_000, queued: 16_000 });
        assert_eq!(marks(&mut drops), [("old".to_owned(), false)]);
        assert_eq!(take(&mut drops), [2; FRAME]);
        for n in 0..4 {
            drops.mark(n.to_string()).unwrap();
        }
        assert_eq!(drops.mark("five".to_owned()), Err(TooManyMarks));
    }

    #[test]
    fn speech_that_runs_dry_fades_out_and_in_and_is_counted() {
        let mut playout = playout(Overrun::RefuseNew);
        playout.push(&[8_000; 2 * FRAME]);
        let mut heard: Vec<i16> = Vec::new();
        for n in 0..6 {
            if n == 3 {
                playout.push(&[8_000; 2 * FRAME]);
            }
            heard.extend(take(&mut playout));
        }
        assert_eq!(playout.statistics().underruns, 1);
        let steepest = heard.windows(2).map(|w| (i32::from(w[0]) - i32::from(w[1])).abs()).max();
        assert!(steepest < Some(200), "{steepest:?}");
        // A new sentence after a pause is no underrun and keeps its first sample.
        for _ in 0..20 {
            take(&mut playout);
        }
        playout.push(&[8_000; 2 * FRAME]);
        assert_eq!(take(&mut playout)[0], 8_000);
        assert_eq!(playout.statistics().underruns, 1);
    }
}
