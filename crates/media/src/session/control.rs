//! RTCP of a session, and what it and the received packets tell about quality.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::peer_reports::PeerReports;
use super::{Outbox, Session};
use crate::quality::{OneWay, QualityLog, Sample};
use crate::rtcp::{self, CNAME_LENGTH, Sender};

/// The first report, and the mean time between two (RFC 3550 6.2: at least five seconds, half of it at first).
const FIRST_REPORT: Duration = Duration::from_millis(2_500);
const REPORT: Duration = Duration::from_secs(5);
/// Quality is written down this often.
const SECOND: Duration = Duration::from_secs(1);
/// Silence of one direction that is told apart from a slow beginning.
const ONE_WAY_AFTER: Duration = Duration::from_secs(5);
/// Reports of a peer that hears nothing before it is believed.
const DEAF_REPORTS: u32 = 2;

/// What we send, as reports about it are measured against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    pub(super) ssrc: u32,
    /// The last packet's sequence number, and how many there were.
    pub(super) last: u16,
    pub(super) sent: u64,
    /// Clock rate in hertz.
    pub(super) clock: u32,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Control {
    next_report: Option<Instant>,
    next_second: Option<Instant>,
    epoch: Instant,
    started: Option<Instant>,
    cname: [u8; CNAME_LENGTH],
    /// Where in its interval the next report falls.
    dice: u32,
    octets: u32,
    reported_sent: u64,
    /// The peer's last sender report: middle of its NTP time, and when it came.
    heard_report: Option<(u32, Instant)>,
    /// What the peer says of our stream, and how often in a row it had no word about it.
    peer: PeerReports,
    deaf_reports: u32,
    /// When the last second that was written down ended.
    written: Instant,
    log: Arc<QualityLog>,
}

impl Control {
    pub(super) fn new(seed: [u8; 16], log: Arc<QualityLog>, now: Instant) -> Self {
        let digit = |half: u8| b"0123456789abcdef"[usize::from(half & 15)];
        let mut cname = [b'0'; CNAME_LENGTH];
        for (n, slot) in cname.iter_mut().enumerate() {
            // Of the seed's bytes that are seen on the wire only the SSRC's and first numbers'; these are others.
            let byte = seed[(10 + n / 2) % 16].wrapping_mul(n as u8 | 1);
            *slot = digit(if n % 2 == 0 { byte } else { byte >> 4 });
        }
        Self {
            next_report: None,
            next_second: None,
            epoch: now,
            started: None,
            cname,
            dice: u32::from_be_bytes([seed[10], seed[11], seed[12], seed[13]]) | 1,
            octets: 0,
            reported_sent: 0,
            heard_report: None,
            peer: PeerReports::default(),
            deaf_reports: 0,
            written: now,
            log,
        }
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.started = Some(now);
        self.next_report = Some(now + FIRST_REPORT);
        self.next_second = Some(now + SECOND);
        self.written = now;
    }

    pub(super) fn sent(&mut self, payload: usize) {
        self.octets = self.octets.wrapping_add(u32::try_from(payload).unwrap_or(0));
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.next_report, self.next_second].into_iter().flatten().min()
    }

    /// Seconds and their fraction since the session began: RFC 3550 6.4.1 allows a clock without a date.
    fn ntp(&self, now: Instant) -> u64 {
        let micros = u64::try_from(now.saturating_duration_since(self.epoch).as_micros()).unwrap_or(0);
        (1 << 63) + ((u128::from(micros) << 32) / 1_000_000) as u64
    }

    /// `false` when it is no RTCP.
    fn received(&mut self, bytes: &[u8], ours: &Stream, now: Instant) -> bool {
        let Some(received) = rtcp::read(bytes, ours.ssrc) else { return false };
        if let Some(ntp) = received.sender_ntp {
            self.heard_report = Some((ntp, now));
        }
        match received.about_us {
            Some(block) => {
                self.deaf_reports = 0;
                let middle = (self.ntp(now) >> 16) as u32;
                self.peer.add(received.reporter, &block, ours, middle);
            }
            None if received.bye => {}
            None => self.deaf_reports = self.deaf_reports.saturating_add(1),
        }
        true
    }
}

impl Session {
    /// A datagram of the RTCP port.
    pub fn handle_rtcp(&mut self, bytes: &[u8], from: SocketAddr, now: Instant) {
        let ip = from.ip().to_canonical();
        if ip != self.latch.destination().ip() && ip != self.negotiated.remote.ip() {
            self.statistics.dropped_source += 1;
            return;
        }
        let Some(srtp) = &mut self.srtp else { return self.take_rtcp(bytes, now) };
        let mut plain = std::mem::take(&mut self.plain);
        match srtp.receiver.unprotect_rtcp(bytes, &mut plain) {
            Ok(()) => self.take_rtcp(&plain, now),
            Err(_) => self.statistics.dropped_unauthenticated += 1,
        }
        self.plain = plain;
    }

    fn take_rtcp(&mut self, bytes: &[u8], now: Instant) {
        let ours = Stream {
            ssrc: self.ssrc,
            last: self.sequence,
            sent: self.statistics.sent,
            clock: self.negotiated.codec.clock_rate(),
        };
        if self.control.received(bytes, &ours, now) {
            // Who only listens says by its reports that it does.
            self.unproven = 0;
        }
    }

    /// Sends the report that is due, and writes a second down.
    pub(super) fn report(&mut self, now: Instant, out: &mut Outbox) {
        if self.control.next_second.is_some_and(|at| at <= now) {
            self.write_second(now);
        }
        let Some(at) = self.control.next_report.filter(|at| *at <= now) else { return };
        let may_send = self.may_send();
        let control = &mut self.control;
        control.dice = control.dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Half to one and a half intervals, so that reports of many calls do not come together.
        let part = u64::from(control.dice >> 16);
        let wait = REPORT / 2 + REPORT * u32::try_from(part).unwrap_or(0) / 65_536;
        control.next_report = Some(at.max(now) + wait);
        if !may_send {
            return;
        }
        let sends = self.statistics.sent > control.reported_sent;
        control.reported_sent = self.statistics.sent;
        let sender = sends.then(|| Sender {
            ntp: control.ntp(now),
            timestamp: self.timestamp,
            packets: u32::try_from(self.statistics.sent & 0xffff_ffff).unwrap_or(0),
            octets: control.octets,
        });
        let mut block = self.reception.block();
        if let (Some(block), Some((ntp, at))) = (&mut block, control.heard_report) {
            block.last_report = ntp;
            let micros = now.saturating_duration_since(at).as_micros();
            block.delay = u32::try_from((micros << 16) / 1_000_000).unwrap_or(0);
        }
        self.payload.clear();
        rtcp::write(self.ssrc, sender, block, &control.cname, &mut self.payload);
        let destination = self.latch.destination();
        if self.negotiated.rtcp_mux {
            out.push_control(true, destination, &self.payload, self.srtp.as_deref_mut());
        } else {
            // Behind a NAT the next port is the best guess, else the description says where.
            let next = SocketAddr::new(destination.ip(), destination.port().wrapping_add(1));
            let to = if destination == self.negotiated.remote { self.negotiated.remote_rtcp } else { next };
            out.push_control(false, to, &self.payload, self.srtp.as_deref_mut());
        }
    }

    /// Writes the part of a second down that the call ends in. Nothing is written after it.
    pub fn settle(&mut self, now: Instant) {
        if self.control.next_second.is_some() {
            self.write_second(now);
            self.control.next_second = None;
        }
    }

    fn write_second(&mut self, now: Instant) {
        let length = now.saturating_duration_since(self.control.written);
        let sample = Sample {
            length,
            codec: self.negotiated.codec,
            packet_ms: self.packet_ms(),
            received: self.reception.totals(),
            told: self.control.peer.told(),
            rtt_ms: self.control.peer.rtt_ms(),
            buffer_ms: self.hearing.as_ref().map_or(0.0, |h| h.target().as_secs_f32() * 1_000.0),
            sent: self.statistics.sent,
            one_way: self.one_way(now),
        };
        let control = &mut self.control;
        control.log.add(&sample);
        control.written = now;
        control.next_second =
            control.next_second.map(|at| at + SECOND).filter(|at| *at > now).or(Some(now + SECOND));
    }

    /// Whether one side hears nothing.
    fn one_way(&self, now: Instant) -> Option<OneWay> {
        let control = &self.control;
        let since_start = control.started.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if since_start < ONE_WAY_AFTER {
            None
        } else if self.reception.received() == 0 && self.negotiated.direction.receives() {
            Some(if self.statistics.dropped_source > 0 {
                OneWay::NotBelieved
            } else {
                OneWay::NothingReceived
            })
        } else if self.statistics.sent > 0
            && control.peer.told().is_none()
            && control.deaf_reports >= DEAF_REPORTS
        {
            Some(OneWay::NothingHeardByPeer)
        } else {
            None
        }
    }
}
