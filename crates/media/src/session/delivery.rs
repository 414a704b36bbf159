//! What is heard goes to everybody who hears: the agent, the echo, recordings and listeners.

use std::time::Instant;

use super::hearing::Hearing;
use super::{Agent, MAX_CAPTURED, Outbox, Session};
use crate::denoise::Denoiser;
use crate::resample::{Rate, Resampler};

impl Session {
    /// Begins or ends hearing, as somebody needs the received audio or nobody does.
    pub(super) fn hear_or_not(&mut self, now: Instant) {
        let echoes = matches!(self.agent, Agent::Echo) && !self.echo.is_transparent();
        let wanted = (self.started || self.listens_early)
            && (matches!(self.agent, Agent::Linked(_))
                || echoes
                || self.inband.listens()
                || self.captured.is_some()
                || !self.monitors.is_empty());
        if !wanted {
            self.hearing = None;
        } else if self.hearing.is_none() {
            let mut hearing = Hearing::new(self.negotiated.codec);
            // Said and heard on one beat, so that both cost one wake-up.
            hearing.next = Some(self.next_frame.unwrap_or(now));
            self.hearing = Some(hearing);
        }
    }

    /// The frames that are due go to everybody who hears.
    pub(super) fn hear(&mut self, now: Instant, out: &mut Outbox) {
        loop {
            self.heard.clear();
            let Some(hearing) = &mut self.hearing else { return };
            if !hearing.frame(now, &mut self.heard) {
                return;
            }
            let rate = hearing.rate();
            let listened = self.inband.listens();
            if listened {
                self.inband.hear(rate, &self.heard, now, &mut self.events);
            }
            self.denoise(rate);
            self.deliver(rate, out);
            let gone = self.monitors.iter().any(|monitor| monitor.is_closed());
            if gone || listened != self.inband.listens() {
                self.monitors.retain(|monitor| !monitor.is_closed());
                self.hear_or_not(now);
            }
        }
    }

    /// Takes the noise out of the frame in `self.heard`, where that is wanted. Digits are not in it: they come as
    /// events beside the audio.
    fn denoise(&mut self, rate: Rate) {
        let Some(mode) = self.noise_cancellation else { return };
        if self.denoiser.as_ref().is_none_or(|(of, _)| *of != rate) {
            self.denoiser = Denoiser::new(mode, rate).map(|denoiser| (rate, denoiser));
        }
        if let Some((_, denoiser)) = &mut self.denoiser {
            denoiser.process(&mut self.heard);
        }
    }

    /// The one place where a received frame of 20 ms, in `self.heard`, is given on.
    fn deliver(&mut self, rate: Rate, out: &mut Outbox) {
        let heard = std::mem::take(&mut self.heard);
        if let Agent::Linked(link) = &self.agent
            && let Some(wanted) = Rate::from_hz(link.rate())
        {
            if wanted == rate {
                link.hear(&heard);
            } else {
                if self.to_agent.as_ref().is_none_or(|r| (r.from(), r.to()) != (rate, wanted)) {
                    self.to_agent = Some(Resampler::new(rate, wanted));
                }
                self.frame.clear();
                if let Some(resampler) = &mut self.to_agent {
                    resampler.process(&heard, &mut self.frame);
                }
                link.hear(&self.frame);
            }
        }
        if let Some(captured) = self.captured.as_mut().filter(|c| c.len() < MAX_CAPTURED) {
            captured.extend_from_slice(&heard);
        }
        let echoes = self.started && matches!(self.agent, Agent::Echo);
        if echoes && !self.echo.is_transparent() && self.negotiated.direction.sends() {
            self.say(&heard, out);
        }
        if !self.monitors.is_empty() {
            self.speech.clear();
            if echoes && self.echo.is_transparent() {
                self.speech.extend_from_slice(&heard);
            } else {
                let have = self.said.len().min(heard.len());
                self.speech.extend(self.said.drain(..have));
                self.speech.resize(heard.len(), 0);
            }
            for monitor in &self.monitors {
                monitor.push(rate, &heard, &self.speech);
            }
        }
        self.heard = heard;
    }
}
