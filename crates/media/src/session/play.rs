//! Paced playout: what the agent says, frame by frame, by the session's clock.

use std::time::{Duration, Instant};

use super::{MAX_FRAME, Outbox, Session};
use crate::rtp::Packet;

/// Frames sent at once after the clock was held up; older ones are skipped.
pub(super) const MAX_CATCH_UP: u32 = 5;

impl Session {
    /// Frames by the session's clock: each deadline follows from the one before, so nothing drifts.
    pub(super) fn play(&mut self, now: Instant, out: &mut Outbox) {
        if !self.agent.speaks() {
            return;
        }
        let ptime = Duration::from_millis(self.negotiated.ptime_ms.into());
        let samples = usize::try_from(self.negotiated.ptime_ms * 8).unwrap_or(MAX_FRAME).min(MAX_FRAME);
        let step = self.negotiated.ptime_ms * 8;
        let mut burst = 0;
        while let Some(at) = self.next_frame.filter(|at| *at <= now) {
            if burst == MAX_CATCH_UP {
                // What should have been said meanwhile is skipped as silence of that length.
                let late = u32::try_from(now.duration_since(at).as_millis()).unwrap_or(u32::MAX)
                    / self.negotiated.ptime_ms.max(1)
                    + 1;
                self.statistics.skipped_frames += u64::from(late);
                self.timestamp = self.timestamp.wrapping_add(step.wrapping_mul(late));
                self.next_frame = Some(at + ptime * late);
                self.marker = true;
                return;
            }
            burst += 1;
            let mut frame = [0; MAX_FRAME];
            let frame = &mut frame[..samples];
            if !self.agent.fill(frame) {
                self.next_frame = None;
                self.finish_at = Some(at);
                return;
            }
            self.payload.clear();
            self.negotiated.codec.encode(frame, &mut self.payload);
            self.sequence = self.sequence.wrapping_add(1);
            self.timestamp = self.timestamp.wrapping_add(step);
            let packet = Packet {
                marker: std::mem::take(&mut self.marker),
                payload_type: self.negotiated.payload_type,
                sequence: self.sequence,
                timestamp: self.timestamp,
                ssrc: self.ssrc,
                payload: &[],
            };
            out.push(self.latch.destination(), &packet.header(), &self.payload);
            self.statistics.sent += 1;
            self.next_frame = Some(at + ptime);
        }
    }
}
