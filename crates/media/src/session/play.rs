//! Paced playout: what the agent says, frame by frame, by the session's clock.

use std::time::{Duration, Instant};

use super::{Agent, MAX_SAID_MS, Outbox, Session};
use crate::resample::Resampler;
use crate::rtp::Packet;

/// Frames sent at once after the clock was held up; older ones are skipped.
pub(super) const MAX_CATCH_UP: u32 = 5;

impl Session {
    /// Frames by the session's clock: each deadline follows from the one before, so nothing drifts.
    pub(super) fn play(&mut self, now: Instant, out: &mut Outbox) {
        let ms = self.packet_ms();
        let packet = Duration::from_millis(ms.into());
        let mut burst = 0;
        while let Some(at) = self.next_frame.filter(|at| *at <= now) {
            if burst == MAX_CATCH_UP {
                // What should have been said meanwhile is skipped as silence of that length.
                let late = u32::try_from(now.duration_since(at).as_millis()).unwrap_or(u32::MAX) / ms + 1;
                self.statistics.skipped_frames += u64::from(late);
                self.timestamp = self.timestamp.wrapping_add(self.packet_units().wrapping_mul(late));
                self.next_frame = Some(at + packet * late);
                self.marker = true;
                return;
            }
            burst += 1;
            if !self.speak(ms) {
                self.next_frame = None;
                self.finish_at = Some(at);
                return;
            }
            let mut speech = std::mem::take(&mut self.speech);
            self.inband.fill(self.negotiated.codec.rate(), &mut speech, now);
            self.say(&speech, out);
            self.speech = speech;
            self.next_frame = Some(at + packet);
        }
    }

    pub(super) fn packet_ms(&self) -> u32 {
        self.negotiated.codec.packet_ms(self.negotiated.ptime_ms)
    }

    /// A packet's length in clock units.
    fn packet_units(&self) -> u32 {
        self.negotiated.codec.clock_rate() / 1_000 * self.packet_ms()
    }

    /// The agent's next `ms` milliseconds at the codec's rate, in `self.speech`. `false` when it has said everything.
    fn speak(&mut self, ms: u32) -> bool {
        let wanted = self.negotiated.codec.rate();
        let rate = self.agent.rate().unwrap_or(wanted);
        self.speech.clear();
        if rate == wanted {
            self.speech.resize(rate.samples(ms), 0);
            return self.agent.fill(&mut self.speech);
        }
        self.frame.clear();
        self.frame.resize(rate.samples(ms), 0);
        if !self.agent.fill(&mut self.frame) {
            return false;
        }
        if self.from_agent.as_ref().is_none_or(|r| (r.from(), r.to()) != (rate, wanted)) {
            self.from_agent = Some(Resampler::new(rate, wanted));
        }
        if let Some(resampler) = &mut self.from_agent {
            resampler.process(&self.frame, &mut self.speech);
        }
        true
    }

    /// Sends audio at the codec's rate, in packets of the agreed length.
    pub(super) fn say(&mut self, audio: &[i16], out: &mut Outbox) {
        let returned = matches!(self.agent, Agent::Echo) && self.echo.is_transparent();
        if !self.monitors.is_empty() && !returned {
            self.said.extend(audio);
            let limit = self.negotiated.codec.rate().samples(MAX_SAID_MS);
            let excess = self.said.len().saturating_sub(limit);
            self.said.drain(..excess);
        }
        let packet = self.negotiated.codec.rate().samples(self.packet_ms());
        if self.unsent.is_empty() && audio.len() == packet {
            self.send(audio, out);
            return;
        }
        self.unsent.extend_from_slice(audio);
        while self.unsent.len() >= packet {
            let unsent = std::mem::take(&mut self.unsent);
            // In range: it was just compared.
            self.send(&unsent[..packet], out);
            self.unsent = unsent;
            self.unsent.drain(..packet);
        }
    }

    /// The telephone-event packet that is due.
    pub(super) fn send_event(&mut self, now: Instant, out: &mut Outbox) {
        let Some(agreed) = self.negotiated.telephone_event else { return };
        let Some(event) = self.dtmf_sender.step(now, agreed.clock_rate) else { return };
        if !self.negotiated.direction.sends() || !self.may_send() {
            return;
        }
        if event.first {
            self.event_timestamp = self.timestamp.wrapping_add(self.packet_units());
            // Without audio of ours nothing else counts the time.
            if self.next_frame.is_none() {
                self.timestamp = self.timestamp.wrapping_add(self.negotiated.codec.clock_rate() / 2);
            }
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.echo.shift();
        let packet = Packet {
            marker: event.first,
            payload_type: agreed.send,
            sequence: self.sequence,
            timestamp: self.event_timestamp,
            ssrc: self.ssrc,
            payload: &[],
        };
        let to = self.latch.destination();
        let sent = out.push(to, &packet.header(), &event.payload, self.srtp.as_deref_mut());
        self.statistics.sent += u64::from(sent);
        self.control.sent(event.payload.len());
    }

    fn send(&mut self, audio: &[i16], out: &mut Outbox) {
        if self.dtmf_sender.is_sending() {
            // The event is in the place of the audio, which goes on behind it as if it had been sent.
            self.timestamp = self.timestamp.wrapping_add(self.packet_units());
            return;
        }
        if !self.may_send() {
            self.timestamp = self.timestamp.wrapping_add(self.packet_units());
            self.marker = true;
            return;
        }
        self.payload.clear();
        self.encoder.encode(audio, &mut self.payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(self.packet_units());
        let packet = Packet {
            marker: std::mem::take(&mut self.marker),
            payload_type: self.negotiated.payload_type,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            payload: &[],
        };
        let to = self.latch.destination();
        let sent = out.push(to, &packet.header(), &self.payload, self.srtp.as_deref_mut());
        self.statistics.sent += u64::from(sent);
        self.control.sent(self.payload.len());
    }
}
