//! An audio line without RTP: samples of one rate in as they come, and 20 ms out whenever they are asked for. What a
//! session is to a SIP call, for a caller who comes by another way.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::dtmf_tones::Generator;
use crate::monitor::Monitor;
use crate::playout::{Limits, Overrun, Playout};
use crate::resample::{Rate, Resampler};
use crate::session::Agent;

/// The caller's audio that an echo, or who listens in, may be late with.
const LATE_MS: u32 = 200;
const LIMITS: Limits = Limits { queued_ms: LATE_MS, overrun: Overrun::DropOld, marks: 0 };
/// A frame.
const FRAME_MS: u32 = 20;

/// See the module's text.
#[derive(Debug)]
pub struct Line {
    rate: Rate,
    agent: Agent,
    echo: Playout,
    to_agent: Option<Resampler>,
    from_agent: Option<Resampler>,
    scratch: Vec<i16>,
    /// The caller's audio that who listens in has not been given.
    heard: VecDeque<i16>,
    monitor: Option<Arc<Monitor>>,
    digits: Generator,
}

impl Line {
    /// A line at `rate` to an agent.
    #[must_use]
    pub fn new(rate: Rate, agent: Agent) -> Self {
        Self {
            rate,
            agent,
            echo: Playout::new(rate.hz(), LIMITS),
            to_agent: None,
            from_agent: None,
            scratch: Vec::new(),
            heard: VecDeque::new(),
            monitor: None,
            digits: Generator::default(),
        }
    }

    /// Its sample rate.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// From now on the caller's audio has another rate, and so has what is said.
    pub fn set_rate(&mut self, rate: Rate) {
        self.rate = rate;
        self.echo = Playout::new(rate.hz(), LIMITS);
        self.to_agent = None;
        self.from_agent = None;
        self.heard.clear();
    }

    /// Somebody else speaks and hears from now on.
    pub fn set_agent(&mut self, agent: Agent) {
        self.agent = agent;
        self.to_agent = None;
        self.from_agent = None;
    }

    /// Sends digits and pauses as tones, in the place of what the agent says. `false`, and nothing is sent, when they are
    /// none or too many wait.
    pub fn send_digits(&mut self, digits: &str) -> bool {
        self.digits.push(digits)
    }

    /// Samples of a frame.
    #[must_use]
    pub fn frame(&self) -> usize {
        self.rate.samples(FRAME_MS)
    }

    /// Gives both sides to `monitor` from now on.
    pub fn listen_in(&mut self, monitor: Arc<Monitor>) {
        self.monitor = Some(monitor);
    }

    /// The caller said this.
    pub fn hear(&mut self, samples: &[i16]) {
        if self.monitor.is_some() {
            self.heard.extend(samples);
            let excess = self.heard.len().saturating_sub(self.rate.samples(LATE_MS));
            self.heard.drain(..excess);
        }
        match &self.agent {
            Agent::Echo => drop(self.echo.push(samples)),
            Agent::Linked(port) => {
                let Some(wanted) = Rate::from_hz(port.rate()) else { return };
                if wanted == self.rate {
                    return port.hear(samples);
                }
                let resampler = self.to_agent.get_or_insert_with(|| Resampler::new(self.rate, wanted));
                self.scratch.clear();
                resampler.process(samples, &mut self.scratch);
                port.hear(&self.scratch);
            }
            Agent::Play(_) | Agent::Silent => {}
        }
    }

    /// The agent's next 20 ms, in `frame`. `false` when it has said everything.
    pub fn say(&mut self, frame: &mut Vec<i16>) -> bool {
        let size = self.frame();
        frame.clear();
        let goes_on = match &self.agent {
            Agent::Echo => {
                frame.resize(size, 0);
                self.echo.take(frame);
                true
            }
            _ => self.spoken(frame),
        };
        // What a resampler holds back at its beginning is silence.
        frame.resize(size, 0);
        self.digits.fill(self.rate, frame);
        if let Some(monitor) = &self.monitor {
            self.scratch.clear();
            let have = self.heard.len().min(size);
            self.scratch.extend(self.heard.drain(..have));
            self.scratch.resize(size, 0);
            monitor.push(self.rate, &self.scratch, frame);
        }
        goes_on
    }

    fn spoken(&mut self, frame: &mut Vec<i16>) -> bool {
        let Some(rate) = self.agent.rate() else { return true };
        self.scratch.clear();
        self.scratch.resize(rate.samples(FRAME_MS), 0);
        let goes_on = self.agent.fill(&mut self.scratch);
        if rate == self.rate {
            frame.extend_from_slice(&self.scratch);
        } else {
            let resampler = self.from_agent.get_or_insert_with(|| Resampler::new(rate, self.rate));
            resampler.process(&self.scratch, frame);
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::level_db;
    use crate::dtmf_tones::Detector;
    use crate::link::Link;
    use crate::player::Player;

    #[test]
    fn an_echo_returns_what_comes_and_is_recorded() {
        let mut line = Line::new(Rate::Hz8000, Agent::Echo);
        let monitor = Arc::new(Monitor::new(Rate::Hz8000));
        line.listen_in(Arc::clone(&monitor));
        let mut frame = Vec::new();
        for n in 0..10 {
            line.hear(&[n; 320]);
            assert!(line.say(&mut frame) && frame.len() == 160);
        }
        assert!(frame[0] > 0);
        let mut recorded = Vec::new();
        assert_eq!(monitor.take(&mut recorded), 1_600);
    }

    #[test]
    fn an_agent_of_another_rate_hears_and_is_heard() {
        let limits = Limits { queued_ms: 5_000, overrun: Overrun::RefuseNew, marks: 0 };
        let link = Arc::new(Link::new(16_000, limits, || ()));
        let mut line = Line::new(Rate::Hz8000, Agent::Linked(Arc::clone(&link) as _));
        link.say(&Player::tones(&[(600.0, 1_000)], false).render(16_000, 20_000).unwrap());
        let (mut said, mut heard, mut frame) = (Vec::new(), Vec::new(), Vec::new());
        let mut caller = Player::tones(&[(440.0, 1_000)], false);
        let mut samples = [0; 160];
        while caller.fill(&mut samples) {
            line.hear(&samples);
            while link.listen(&mut heard) {}
            assert!(line.say(&mut frame));
            said.extend_from_slice(&frame);
        }
        assert!((level_db(&said[800..7_200], 8_000, 600.0) + 10.0).abs() < 0.5);
        assert!((level_db(&heard[1_600..14_400], 16_000, 440.0) + 10.0).abs() < 0.5);
    }

    #[test]
    fn digits_are_tones_in_the_place_of_speech_and_the_agent_may_change() {
        let mut line = Line::new(Rate::Hz16000, Agent::Play(Player::tones(&[(440.0, 5_000)], false)));
        assert!(line.send_digits("5"));
        let (mut frame, mut detector, mut digits) = (Vec::new(), Detector::new(Rate::Hz16000), Vec::new());
        for _ in 0..50 {
            assert!(line.say(&mut frame));
            digits.extend(detector.process(&frame).map(|digit| digit.digit));
        }
        assert_eq!(digits, ['5']);
        line.set_agent(Agent::Play(Player::tones(&[(700.0, 1_000)], false)));
        let mut said = Vec::new();
        for _ in 0..40 {
            assert!(line.say(&mut frame));
            said.extend_from_slice(&frame);
        }
        assert!((level_db(&said[3_200..], 16_000, 700.0) + 10.0).abs() < 0.5);
    }

    #[test]
    fn what_is_played_ends() {
        let mut line = Line::new(Rate::Hz16000, Agent::Play(Player::tones(&[(440.0, 100)], false)));
        let mut frame = Vec::new();
        assert_eq!((0..10).filter(|_| line.say(&mut frame)).count(), 5);
    }
}
