//! What a call's media tells of itself: its quality while it lasts and at its end, and its recording.

use cluster::CallError;
use media::quality::{Figures, OneWay, Report};
use model::{CallQuality, OneWayAudio, RecordStep, RecordingFormat, SecondQuality, StreamQuality};

use super::record::Wanted;
use super::{Call, record};

impl Call {
    /// How the call sounds so far; `None` before there is audio.
    pub(super) fn quality(&self) -> Option<CallQuality> {
        let report = self.leg.as_ref()?.quality();
        let cause = report.one_way.map(|one_way| self.one_way_audio(one_way));
        Some(quality(&report, cause))
    }

    fn one_way_audio(&self, one_way: OneWay) -> OneWayAudio {
        let remote = self.offer_answer.negotiated().map(|n| n.remote.ip());
        let private = remote.is_some_and(|ip| match ip {
            std::net::IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
            std::net::IpAddr::V6(v6) => v6.is_loopback() || (v6.segments()[0] & 0xfe00) == 0xfc00,
        });
        let signalling = self.hop.remote.ip();
        let (verdict, cause) = match one_way {
            OneWay::NothingReceived if private && remote != Some(signalling) => (
                "nothing_received",
                format!(
                    "The peer's SDP names the private address {} while its signalling comes from {signalling}: it sits behind a NAT that does not rewrite SDP; let it send RTP first, or set its public address there.",
                    remote.map(|ip| ip.to_string()).unwrap_or_default()
                ),
            ),
            OneWay::NothingReceived => (
                "nothing_received",
                "No RTP packet came: check that the UDP ports of media.ports are open here, and that media.advertise is an address the peer reaches.".to_owned(),
            ),
            OneWay::NotBelieved => (
                "source_not_believed",
                "RTP came only from an address that is neither in the peer's SDP nor its signalling's: add it to the trunk's media_addresses.".to_owned(),
            ),
            OneWay::NothingHeardByPeer => (
                "nothing_heard_by_peer",
                "The peer's RTCP reports that it receives nothing from us: check media.advertise, and that UDP to the address in its SDP is open.".to_owned(),
            ),
        };
        OneWayAudio { verdict: verdict.to_owned(), cause }
    }

    /// Begins the recording that the agent's config asks for, once the call is answered.
    pub(super) fn record_audio(&mut self) {
        if self.config.recording.enabled && self.recording.is_none() {
            // What keeps it from being begun stands in the notes.
            let _ = self.begin_recording(self.config.recording.format);
        }
    }

    fn begin_recording(&mut self, format: RecordingFormat) -> Result<(), CallError> {
        let (Some(leg), Some(negotiated)) = (&self.leg, self.offer_answer.negotiated()) else {
            return Err(CallError::NotAnswered);
        };
        if self.conversation.answered_at.is_none() {
            return Err(CallError::NotAnswered);
        }
        let wideband = negotiated.codec.rate() != media::resample::Rate::Hz8000;
        let monitor = record::begin(&self.edge, &mut self.conversation, format, wideband)?;
        leg.listen_in(std::sync::Arc::clone(&monitor));
        self.recording = Some(monitor);
        Ok(())
    }

    /// What the agent or the API wants of the recording. Asking twice changes nothing.
    pub(super) fn record_step(&mut self, step: RecordStep) -> Result<(), CallError> {
        if self.conversation.answered_at.is_none() {
            return Err(CallError::NotAnswered);
        }
        let changed = match record::wanted(&self.conversation, self.config.recording.format, step)? {
            Wanted::Begin(format) => self.begin_recording(format).map(|()| true)?,
            Wanted::Pause(paused) => record::pause(self.recording.as_ref(), &mut self.conversation, paused)?,
        };
        if changed {
            self.record();
        }
        Ok(())
    }

    /// The call is over: what was measured and recorded goes on record.
    pub(super) async fn settle_media(&mut self) {
        record::settle(self.recording.take(), &mut self.conversation);
        if self.conversation.answered_at.is_none() {
            return;
        }
        if let Some(leg) = &self.leg {
            leg.settle().await;
        }
        let Some(quality) = self.quality() else { return };
        self.conversation.mos = quality.mos;
        if let Some(one_way) = &quality.one_way_audio {
            self.conversation.notes.push(format!("one_way_audio: {}. {}", one_way.verdict, one_way.cause));
            self.advice.get_or_insert_with(|| one_way.cause.clone());
        }
        self.edge.records.quality(self.conversation.id, quality);
    }
}

fn quality(report: &Report, one_way_audio: Option<OneWayAudio>) -> CallQuality {
    CallQuality {
        mos: report.mos().map(rounded),
        rtt_ms: report.rtt_ms.map(rounded),
        received: stream(&report.received),
        sent: report.sent.as_ref().map(stream),
        packets_sent: report.packets_sent,
        one_way_audio,
        seconds: report
            .seconds
            .iter()
            .zip(report.first_second..)
            .map(|(second, at)| SecondQuality {
                second: at,
                duration_ms: u32::try_from(second.length.as_millis()).unwrap_or(u32::MAX),
                received: stream(&second.received),
                sent: second.sent.as_ref().map(stream),
                rtt_ms: second.rtt_ms.map(rounded),
            })
            .collect(),
    }
}

fn stream(figures: &Figures) -> StreamQuality {
    StreamQuality {
        packets: figures.packets,
        expected: figures.expected,
        loss_percent: rounded(figures.loss_percent),
        jitter_ms: rounded(figures.jitter_ms),
        mos: rounded(figures.mos),
    }
}

/// To two digits, as a person reads it.
fn rounded(value: f32) -> f64 {
    (f64::from(value) * 100.0).round() / 100.0
}
