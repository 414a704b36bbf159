//! The RTP session of one leg (RFC 3550): whose packets are taken, what the agent hears and says, and when silence
//! means the call is gone. Driven by a media shard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod agent;
mod arrivals;
mod control;
mod delivery;
mod echo;
mod hearing;
mod inband;
mod latch;
mod outbox;
mod peer_reports;
mod play;
mod reception;
mod ssrc;

pub use crate::player::Player;
pub use agent::Agent;
pub use latch::Believed;
pub use outbox::Outbox;

use crate::beep::Beep;
use crate::codec::Encoder;
use crate::denoise::{Denoiser, Mode};
use crate::dtmf;
use crate::dtmf_sender;
use crate::jitter_buffer::Kind;
use crate::monitor::Monitor;
use crate::offer_answer::Negotiated;
use crate::quality::QualityLog;
use crate::resample::{Rate, Resampler};
use crate::rtp::{self, Packet};
use crate::srtp::{self, Contexts};

use control::Control;
use echo::Echo;
use hearing::Hearing;
use inband::Inband;
use latch::Latch;
use reception::{Reception, Step};
use ssrc::SsrcGate;

/// Samples kept for a tap: 10 minutes at 8 kHz.
const MAX_CAPTURED: usize = 8_000 * 600;
/// Longest packet taken, in bytes: what an Ethernet frame carries.
const MAX_PACKET: usize = 1_500;
/// Payload type of comfort noise (RFC 3389), of the codecs with an 8 kHz clock.
const COMFORT_NOISE: u8 = 13;
/// Packets sent to an address that nobody has been heard from and that is not the signalling's: five seconds of them. A
/// description that names a victim makes no more of a flood.
const MAX_UNPROVEN: u32 = 250;
/// What the agent has said is kept so long for who listens in, in milliseconds.
const MAX_SAID_MS: u32 = 60;

/// What a session is told at its beginning.
#[derive(Debug)]
pub struct SessionConfig {
    /// The stream agreed on.
    pub negotiated: Negotiated,
    /// The agent.
    pub agent: Agent,
    /// Unpredictable bytes for SSRC, first sequence number and first timestamp.
    pub seed: [u8; 16],
    /// Who besides the signalled address may send.
    pub believed: Believed,
    /// Silence allowed before the first packet.
    pub initial_timeout: Duration,
    /// Silence allowed after it.
    pub timeout: Duration,
    /// Keep the received audio for [`Session::take_captured`].
    pub tap: bool,
    /// Noise cancellation of what is received, before anybody hears it. `None` leaves every sample as it came.
    pub noise_cancellation: Option<Mode>,
    /// Digits come as tones in the audio as well, and leave so where no telephone-events were agreed on.
    pub dtmf_tones: bool,
    /// How long from the answer on the beep of a voicemail box is listened for.
    pub beep: Option<Duration>,
}

impl SessionConfig {
    /// A session in which nobody is believed but the signalled address, silence is borne for 30 s before the first
    /// packet and for 15 s after it, and everything else is off.
    #[must_use]
    pub fn new(negotiated: Negotiated, agent: Agent, seed: [u8; 16]) -> Self {
        Self {
            negotiated,
            agent,
            seed,
            believed: Believed::default(),
            initial_timeout: Duration::from_secs(30),
            timeout: Duration::from_secs(15),
            tap: false,
            noise_cancellation: None,
            dtmf_tones: false,
            beep: None,
        }
    }
}

/// Something the call must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaEvent {
    /// RTP is coming.
    FirstPacket,
    /// A digit was pressed.
    Digit {
        /// Which.
        digit: char,
        /// How long, in milliseconds.
        duration_ms: u32,
        /// How it came.
        source: dtmf::Source,
    },
    /// A voicemail box beeped.
    Beep(Beep),
    /// The agent has said everything.
    PlayFinished,
    /// No RTP for too long.
    Timeout {
        /// Whether any came before.
        ever_received: bool,
    },
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Packets taken.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets that should have come by the sequence numbers, and did not.
    pub lost: i64,
    /// Interarrival jitter (RFC 3550 6.4.1), in units of the codec's RTP clock.
    pub jitter: u32,
    /// Packets from a source that is not believed.
    pub dropped_source: u64,
    /// Packets of our own stream come back, and of streams that changed too often.
    pub dropped_ssrc: u64,
    /// Datagrams that are not RTP, or longer than any frame.
    pub dropped_malformed: u64,
    /// Packets of a payload type nobody agreed on.
    pub dropped_payload_type: u64,
    /// Packets of an SRTP stream that are not authentic: wrong key, changed, plain, or past the key's lifetime.
    pub dropped_unauthenticated: u64,
    /// Packets of an SRTP stream that came before.
    pub dropped_replayed: u64,
    /// Packets of ours not sent to an address that nobody was heard from.
    pub suppressed: u64,
    /// Frames skipped because the clock was held up.
    pub skipped_frames: u64,
}

/// One leg's RTP.
#[derive(Debug)]
pub struct Session {
    negotiated: Negotiated,
    agent: Agent,
    initial_timeout: Duration,
    timeout: Duration,
    latch: Latch,
    ssrc_gate: SsrcGate,
    /// The address whose packets `reception` counts.
    heard_from: Option<SocketAddr>,
    reception: Reception,
    control: Control,
    quality: Arc<QualityLog>,
    echo: Echo,
    noise_cancellation: Option<Mode>,
    /// Made when the first frame is heard, and anew for another rate.
    denoiser: Option<(Rate, Denoiser)>,
    /// While somebody needs the received audio.
    hearing: Option<Hearing>,
    inband: Inband,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    started: bool,
    /// The agent hears what comes before the call is answered.
    listens_early: bool,
    /// The marker goes with the first packet of a talkspurt.
    marker: bool,
    next_frame: Option<Instant>,
    finish_at: Option<Instant>,
    silent_since: Option<Instant>,
    ever_received: bool,
    /// Packets sent to where nobody was heard from.
    unproven: u32,
    dtmf: dtmf::Receiver,
    dtmf_sender: dtmf_sender::Sender,
    /// Timestamp of the telephone-event under way.
    event_timestamp: u32,
    events: std::collections::VecDeque<MediaEvent>,
    statistics: Statistics,
    captured: Option<Vec<i16>>,
    monitors: Vec<Arc<Monitor>>,
    encoder: Encoder,
    /// Between the codec's rate and the agent's.
    to_agent: Option<Resampler>,
    from_agent: Option<Resampler>,
    /// Memory that is used again: the frame that is heard, the one that is said, at both rates, and its payload.
    heard: Vec<i16>,
    speech: Vec<i16>,
    frame: Vec<i16>,
    payload: Vec<u8>,
    /// What waits to fill a packet, and what who listens in has not been given.
    unsent: Vec<i16>,
    said: std::collections::VecDeque<i16>,
    srtp: Option<Box<Contexts>>,
    /// The packet that an SRTP packet protected.
    plain: Vec<u8>,
}

impl Session {
    /// A session that sends nothing until [`Session::start`].
    #[must_use]
    pub fn new(config: SessionConfig, now: Instant) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, ..] = config.seed;
        let quality = Arc::new(QualityLog::default());
        Self {
            latch: Latch::new(config.negotiated.remote, config.believed, now),
            ssrc_gate: SsrcGate::default(),
            encoder: config.negotiated.codec.encoder(),
            srtp: config.negotiated.encryption.clone().map(|keys| Box::new(Contexts::new(keys))),
            plain: Vec::new(),
            negotiated: config.negotiated,
            agent: config.agent,
            initial_timeout: config.initial_timeout,
            timeout: config.timeout,
            heard_from: None,
            reception: Reception::default(),
            control: Control::new(config.seed, Arc::clone(&quality), now),
            quality,
            echo: Echo::new(config.noise_cancellation.is_some()),
            noise_cancellation: config.noise_cancellation,
            denoiser: None,
            hearing: None,
            inband: Inband::new(config.dtmf_tones, config.beep),
            ssrc: u32::from_be_bytes([a, b, c, d]),
            sequence: u16::from_be_bytes([e, f]),
            timestamp: u32::from_be_bytes([g, h, i, j]),
            started: false,
            listens_early: false,
            marker: true,
            next_frame: None,
            finish_at: None,
            silent_since: None,
            ever_received: false,
            unproven: 0,
            dtmf: dtmf::Receiver::default(),
            dtmf_sender: dtmf_sender::Sender::default(),
            event_timestamp: 0,
            events: std::collections::VecDeque::new(),
            statistics: Statistics::default(),
            captured: config.tap.then(Vec::new),
            monitors: Vec::new(),
            to_agent: None,
            from_agent: None,
            heard: Vec::new(),
            speech: Vec::new(),
            frame: Vec::new(),
            payload: Vec::new(),
            unsent: Vec::new(),
            said: std::collections::VecDeque::new(),
        }
    }

    /// The call is answered: the agent may speak, and silence counts.
    pub fn start(&mut self, now: Instant) {
        if !self.started {
            self.started = true;
            self.control.start(now);
            self.inband.start(now);
            self.resume(now);
        }
    }

    /// The agent hears early media: what comes before [`Session::start`].
    pub fn listen_early(&mut self, now: Instant) {
        self.listens_early = true;
        self.hear_or_not(now);
    }

    /// A new agreement: the source is learned afresh, and hold pauses agent and timeouts.
    pub fn update(&mut self, negotiated: Negotiated, now: Instant) {
        self.latch.signalled(negotiated.remote, now);
        if negotiated.codec != self.negotiated.codec {
            self.encoder = negotiated.codec.encoder();
            self.unsent.clear();
            self.echo.forget();
            if let Some(hearing) = &mut self.hearing {
                hearing.restart(negotiated.codec);
            }
        }
        match (&mut self.srtp, negotiated.encryption.clone()) {
            (Some(srtp), Some(keys)) => srtp.update(keys),
            (srtp, keys) => *srtp = keys.map(|keys| Box::new(Contexts::new(keys))),
        }
        self.negotiated = negotiated;
        self.resume(now);
    }

    /// Another dialog carries the call from now on: who besides the signalled address may send.
    pub fn believe(&mut self, believed: Believed) {
        self.latch.believe(believed);
    }

    /// Whether a packet may leave for where we send.
    fn may_send(&mut self) -> bool {
        if !self.latch.is_unproven() {
            return true;
        }
        self.unproven = self.unproven.saturating_add(1);
        let may = self.unproven <= MAX_UNPROVEN;
        self.statistics.suppressed += u64::from(!may);
        may
    }

    /// Gives both sides of the call to `monitor` until that is closed.
    pub fn listen_in(&mut self, monitor: Arc<Monitor>, now: Instant) {
        self.monitors.retain(|m| !m.is_closed());
        self.monitors.push(monitor);
        self.resume(now);
    }

    /// Sends digits and pauses as telephone-events, or as tones. What does not fit is dropped whole.
    pub fn send_digits(&mut self, digits: &str, now: Instant) {
        if !dtmf_sender::is_valid(digits) {
            return;
        }
        if self.negotiated.telephone_event.is_some() {
            self.dtmf_sender.push(digits, now);
        } else if self.inband.has_tones() {
            self.inband.digits.push(digits);
        }
    }

    /// Somebody else speaks from now on.
    pub fn set_agent(&mut self, agent: Agent, now: Instant) {
        self.agent = agent;
        self.finish_at = None;
        self.resume(now);
    }

    fn resume(&mut self, now: Instant) {
        let sends = self.negotiated.direction.sends();
        let playing = self.started && sends && self.agent.speaks() && self.finish_at.is_none();
        if !playing {
            self.next_frame = None;
            self.marker = true;
        } else if self.next_frame.is_none() {
            self.next_frame = Some(now);
        }
        self.hear_or_not(now);
        self.silent_since = (self.started && self.negotiated.direction.receives() && sends).then_some(now);
    }

    /// A datagram of the RTP port. Of an SRTP stream it is authenticated before anything is learned from it.
    pub fn handle_rtp(&mut self, bytes: &[u8], from: SocketAddr, now: Instant, out: &mut Outbox) {
        if rtp::is_rtcp(bytes) {
            if self.negotiated.rtcp_mux {
                self.handle_rtcp(bytes, from, now);
            }
            return;
        }
        let Some(srtp) = &mut self.srtp else { return self.take_rtp(bytes, from, now, out) };
        let mut plain = std::mem::take(&mut self.plain);
        match srtp.receiver.unprotect(bytes, &mut plain) {
            Ok(()) => self.take_rtp(&plain, from, now, out),
            Err(srtp::Refused::Malformed) => self.statistics.dropped_malformed += 1,
            Err(srtp::Refused::Replayed) => self.statistics.dropped_replayed += 1,
            Err(srtp::Refused::Unauthenticated | srtp::Refused::Expired) => {
                self.statistics.dropped_unauthenticated += 1;
            }
        }
        self.plain = plain;
    }

    fn take_rtp(&mut self, bytes: &[u8], from: SocketAddr, now: Instant, out: &mut Outbox) {
        let whole = Some(bytes).filter(|bytes| bytes.len() <= MAX_PACKET).and_then(Packet::parse);
        let Some(packet) = whole.filter(|packet| !packet.payload.is_empty()) else {
            self.statistics.dropped_malformed += 1;
            return;
        };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if !self.latch.believes(from, &packet, now) {
            self.statistics.dropped_source += 1;
            return;
        }
        if !self.ssrc_gate.admits(packet.ssrc, self.ssrc, now) {
            self.statistics.dropped_ssrc += 1;
            return;
        }
        if self.latch.locked() != self.heard_from {
            self.heard_from = self.latch.locked();
            self.reception.forget_source();
        }
        let payload_type = packet.payload_type;
        let event = self.negotiated.telephone_event.is_some_and(|e| e.receive == payload_type);
        let kind = if payload_type == self.negotiated.receive_payload_type {
            Some(Kind::Audio)
        } else if payload_type == COMFORT_NOISE && self.negotiated.codec.clock_rate() == 8_000 {
            Some(Kind::Noise)
        } else {
            None
        };
        let clock = self.negotiated.codec.clock_rate();
        let step = self.reception.count(&packet, kind == Some(Kind::Audio) && !event, clock, now);
        self.statistics.received = self.reception.received();
        self.statistics.jitter = self.reception.jitter();
        self.statistics.lost =
            self.reception.expected() - i64::try_from(self.reception.received()).unwrap_or(i64::MAX);
        if step == Step::NewSource {
            self.new_source(&packet);
        }
        if !event && kind.is_none() {
            self.statistics.dropped_payload_type += 1;
            return;
        }
        self.silent_since = self.silent_since.map(|_| now);
        if !self.ever_received {
            self.ever_received = true;
            self.events.push_back(MediaEvent::FirstPacket);
        }
        if let Some(agreed) = self.negotiated.telephone_event {
            self.dtmf.set_clock(agreed.clock_rate);
        }
        if event && let Some(digit) = self.dtmf.packet(packet.payload, packet.timestamp, now) {
            self.pressed(digit);
        }
        let kind = kind.filter(|_| !event);
        self.echo(&packet, kind, step, now, out);
        let receives = self.negotiated.direction.receives();
        if let Some(hearing) = self.hearing.as_mut().filter(|_| receives) {
            match kind {
                Some(kind) => hearing.insert(&packet, kind, now),
                None => hearing.pass(packet.sequence),
            }
        }
    }

    fn pressed(&mut self, digit: dtmf::Digit) {
        let (digit, duration_ms) = (digit.digit, digit.duration_ms);
        self.events.push_back(MediaEvent::Digit { digit, duration_ms, source: dtmf::Source::Event });
    }

    /// Another source speaks: what is sent goes on where it was.
    fn new_source(&mut self, packet: &Packet<'_>) {
        self.echo.join(packet, self.sequence, self.timestamp);
        if let Some(hearing) = &mut self.hearing {
            hearing.restart(self.negotiated.codec);
        }
    }

    /// Does what is due: the next frame, the end of a digit, the end of patience.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        if let Some(digit) = self.dtmf.handle_timeout(now) {
            self.pressed(digit);
        }
        self.send_event(now, out);
        self.play(now, out);
        self.hear(now, out);
        self.report(now, out);
        if self.finish_at.is_some_and(|at| at <= now) {
            self.finish_at = None;
            self.agent = Agent::Silent;
            self.events.push_back(MediaEvent::PlayFinished);
        }
        if self.silence_ends().is_some_and(|at| at <= now) {
            self.silent_since = None;
            self.events.push_back(MediaEvent::Timeout { ever_received: self.ever_received });
        }
    }

    fn silence_ends(&self) -> Option<Instant> {
        let patience = if self.ever_received { self.timeout } else { self.initial_timeout };
        self.silent_since.map(|since| since + patience)
    }

    /// When [`Session::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let heard = self.hearing.as_ref().and_then(|h| h.next);
        [
            self.next_frame,
            heard,
            self.finish_at,
            self.control.poll_timeout(),
            self.dtmf.poll_timeout(),
            self.dtmf_sender.poll_timeout(),
            self.silence_ends(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<MediaEvent> {
        self.events.pop_front()
    }

    /// The source that is taken, once there is one.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.latch.locked()
    }

    /// How it sounds, written once a second.
    #[must_use]
    pub fn quality(&self) -> Arc<QualityLog> {
        Arc::clone(&self.quality)
    }

    /// What was counted so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// The received audio and its rate, when a tap was asked for.
    pub fn take_captured(&mut self) -> (Rate, Vec<i16>) {
        let captured = self.captured.as_mut().map(std::mem::take).unwrap_or_default();
        (self.negotiated.codec.rate(), captured)
    }
}

#[cfg(test)]
mod noise_tests;
#[cfg(test)]
mod tests;
