//! The RTP session of one leg (RFC 3550): whose packets are taken, what the agent hears and says, and when silence
//! means the call is gone. Driven by a media shard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod latch;
mod play;
mod ssrc;

pub use crate::player::Player;
pub use latch::Believed;

use crate::dtmf;
use crate::link::Link;
use crate::offer_answer::Negotiated;
use crate::rtp::{self, Packet};

use latch::Latch;
use ssrc::SsrcGate;

/// Samples kept for a tap: 10 minutes.
const MAX_CAPTURED: usize = 8_000 * 600;
/// Longest packet taken, in bytes: what an Ethernet frame carries.
const MAX_PACKET: usize = 1_500;
/// Most samples in a frame: 60 ms.
const MAX_FRAME: usize = 480;

/// Who is at the other end of the audio.
#[derive(Debug)]
pub enum Agent {
    /// Returns every payload bit for bit.
    Echo,
    /// Says something.
    Play(Player),
    /// Speaks and hears by a link; silence is sent while it says nothing.
    Linked(Arc<Link>),
    /// Only listens.
    Silent,
}

impl Agent {
    /// Whether frames are sent by our own clock.
    fn speaks(&self) -> bool {
        matches!(self, Self::Play(_) | Self::Linked(_))
    }

    /// The next frame. `false` when the agent has said everything.
    fn fill(&mut self, frame: &mut [i16]) -> bool {
        match self {
            Self::Play(player) => player.fill(frame),
            Self::Linked(link) => {
                link.take(frame);
                true
            }
            Self::Echo | Self::Silent => false,
        }
    }
}

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
    },
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
    /// Packets from a source that is not believed.
    pub dropped_source: u64,
    /// Packets of our own stream come back, and of streams that changed too often.
    pub dropped_ssrc: u64,
    /// Datagrams that are not RTP, or longer than any frame.
    pub dropped_malformed: u64,
    /// Packets of a payload type nobody agreed on.
    pub dropped_payload_type: u64,
    /// Frames skipped because the clock was held up.
    pub skipped_frames: u64,
}

/// Packets to send, in memory that is used again.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    packets: Vec<(SocketAddr, usize)>,
}

impl Outbox {
    fn push(&mut self, to: SocketAddr, header: &[u8], payload: &[u8]) {
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(payload);
        self.packets.push((to, self.bytes.len()));
    }

    /// The packets, in order.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        let mut start = 0;
        self.packets.iter().filter_map(move |&(to, end)| {
            let packet = self.bytes.get(start..end)?;
            start = end;
            Some((to, packet))
        })
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.packets.clear();
    }
}

/// What is known of the stream that is taken.
#[derive(Debug, Clone, Copy)]
struct Stream {
    ssrc: u32,
    /// What is added to its sequence numbers and timestamps on the way back.
    sequence_offset: u16,
    timestamp_offset: u32,
    first: u16,
    highest: u16,
    cycles: u32,
    received: u64,
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
    stream: Option<Stream>,
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
    dtmf: dtmf::Receiver,
    events: std::collections::VecDeque<MediaEvent>,
    statistics: Statistics,
    captured: Option<Vec<i16>>,
    payload: Vec<u8>,
    heard: Vec<i16>,
}

impl Session {
    /// A session that sends nothing until [`Session::start`].
    #[must_use]
    pub fn new(config: SessionConfig, now: Instant) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, ..] = config.seed;
        Self {
            latch: Latch::new(config.negotiated.remote, config.believed, now),
            ssrc_gate: SsrcGate::default(),
            negotiated: config.negotiated,
            agent: config.agent,
            initial_timeout: config.initial_timeout,
            timeout: config.timeout,
            stream: None,
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
            dtmf: dtmf::Receiver::default(),
            events: std::collections::VecDeque::new(),
            statistics: Statistics::default(),
            captured: config.tap.then(Vec::new),
            payload: Vec::with_capacity(MAX_FRAME),
            heard: Vec::with_capacity(MAX_FRAME),
        }
    }

    /// The call is answered: the agent may speak, and silence counts.
    pub fn start(&mut self, now: Instant) {
        if !self.started {
            self.started = true;
            self.resume(now);
        }
    }

    /// The agent hears early media: what comes before [`Session::start`].
    pub fn listen_early(&mut self) {
        self.listens_early = true;
    }

    /// A new agreement: the source is learned afresh, and hold pauses agent and timeouts.
    pub fn update(&mut self, negotiated: Negotiated, now: Instant) {
        self.latch.signalled(negotiated.remote, now);
        self.negotiated = negotiated;
        self.resume(now);
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
        self.silent_since = (self.started && self.negotiated.direction.receives() && sends).then_some(now);
    }

    /// A datagram of the RTP port.
    pub fn handle_rtp(&mut self, bytes: &[u8], from: SocketAddr, now: Instant, out: &mut Outbox) {
        if rtp::is_rtcp(bytes) {
            return;
        }
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
        let event = self.negotiated.telephone_event.is_some_and(|e| e.receive == packet.payload_type);
        if !event && packet.payload_type != self.negotiated.receive_payload_type {
            self.statistics.dropped_payload_type += 1;
            return;
        }
        self.silent_since = self.silent_since.map(|_| now);
        if !self.ever_received {
            self.ever_received = true;
            self.events.push_back(MediaEvent::FirstPacket);
        }
        let stream = self.track(&packet);
        if event {
            if let Some(digit) = self.dtmf.packet(packet.payload, packet.timestamp, now) {
                self.events
                    .push_back(MediaEvent::Digit { digit: digit.digit, duration_ms: digit.duration_ms });
            }
        } else if let Some(captured) = self.captured.as_mut().filter(|c| c.len() < MAX_CAPTURED) {
            self.negotiated.codec.decode(packet.payload, captured);
        }
        if let (Agent::Linked(link), true, false) =
            (&self.agent, (self.started || self.listens_early) && self.negotiated.direction.receives(), event)
        {
            self.heard.clear();
            self.negotiated.codec.decode(packet.payload, &mut self.heard);
            link.hear(&self.heard);
        }
        let echoes = self.started && matches!(self.agent, Agent::Echo) && self.negotiated.direction.sends();
        if let (true, Some(to)) = (echoes, self.latch.locked()) {
            let back = Packet {
                sequence: packet.sequence.wrapping_add(stream.sequence_offset),
                timestamp: packet.timestamp.wrapping_add(stream.timestamp_offset),
                ssrc: self.ssrc,
                ..packet
            };
            (self.sequence, self.timestamp) = (back.sequence, back.timestamp);
            out.push(to, &back.header(), packet.payload);
            self.statistics.sent += 1;
        }
    }

    /// Counts by sequence number (RFC 3550 A.1, A.3). A new SSRC is a new stream, joined to what was sent before.
    fn track(&mut self, packet: &Packet<'_>) -> Stream {
        self.statistics.received += 1;
        let stream = match &mut self.stream {
            Some(stream) if stream.ssrc == packet.ssrc => {
                stream.received += 1;
                let ahead = packet.sequence.wrapping_sub(stream.highest);
                if ahead != 0 && ahead < 0x8000 {
                    if packet.sequence < stream.highest {
                        stream.cycles += 1;
                    }
                    stream.highest = packet.sequence;
                }
                stream
            }
            slot => slot.insert(Stream {
                ssrc: packet.ssrc,
                sequence_offset: self.sequence.wrapping_add(1).wrapping_sub(packet.sequence),
                timestamp_offset: self.timestamp.wrapping_add(160).wrapping_sub(packet.timestamp),
                first: packet.sequence,
                highest: packet.sequence,
                cycles: 0,
                received: 1,
            }),
        };
        let extended = i64::from(stream.cycles) << 16 | i64::from(stream.highest);
        let expected = extended - i64::from(stream.first) + 1;
        self.statistics.lost = expected - i64::try_from(stream.received).unwrap_or(i64::MAX);
        *stream
    }

    /// Does what is due: the next frame, the end of a digit, the end of patience.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        if let Some(digit) = self.dtmf.handle_timeout(now) {
            self.events.push_back(MediaEvent::Digit { digit: digit.digit, duration_ms: digit.duration_ms });
        }
        self.play(now, out);
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
        [self.next_frame, self.finish_at, self.dtmf.poll_timeout(), self.silence_ends()]
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

    /// What was counted so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// The received audio, decoded to 8 kHz, when a tap was asked for.
    pub fn take_captured(&mut self) -> Vec<i16> {
        self.captured.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
