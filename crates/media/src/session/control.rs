//! RTCP of a session, and what it and the received packets tell about quality.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Outbox, Session};
use crate::quality::{OneWay, QualityLog, Sample};
use crate::rtcp::{self, Block, CNAME_LENGTH, Sender};

/// The first report, and the mean time between two (RFC 3550 6.2: at least five seconds, half of it at first).
const FIRST_REPORT: Duration = Duration::from_millis(2_500);
const REPORT: Duration = Duration::from_secs(5);
/// Quality is written down this often.
const SECOND: Duration = Duration::from_secs(1);
/// Silence of one direction that is told apart from a slow beginning.
const ONE_WAY_AFTER: Duration = Duration::from_secs(5);
/// Reports of a peer that hears nothing before it is believed.
const DEAF_REPORTS: u32 = 2;

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
    /// The peer's last word about our stream, and how often in a row it had none.
    peer: Option<Block>,
    deaf_reports: u32,
    rtt: Option<f32>,
    received_before: u64,
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
            peer: None,
            deaf_reports: 0,
            rtt: None,
            received_before: 0,
            log,
        }
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.started = Some(now);
        self.next_report = Some(now + FIRST_REPORT);
        self.next_second = Some(now + SECOND);
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
    fn received(&mut self, bytes: &[u8], our_ssrc: u32, now: Instant) -> bool {
        let Some(received) = rtcp::read(bytes, our_ssrc) else { return false };
        if let Some(ntp) = received.sender_ntp {
            self.heard_report = Some((ntp, now));
        }
        match received.about_us {
            Some(block) => {
                self.deaf_reports = 0;
                if block.last_report != 0 {
                    let middle = (self.ntp(now) >> 16) as u32;
                    let trip = middle.wrapping_sub(block.last_report).wrapping_sub(block.delay);
                    // More than a minute is a report about something else.
                    if trip < 60 << 16 {
                        self.rtt = Some(trip as f32 * 1_000.0 / 65_536.0);
                    }
                }
                self.peer = Some(block);
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
        if self.control.received(bytes, self.ssrc, now) {
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

    fn write_second(&mut self, now: Instant) {
        let control = &mut self.control;
        control.next_second =
            control.next_second.map(|at| at + SECOND).filter(|at| *at > now).or(Some(now + SECOND));
        let clock = self.negotiated.codec.clock_rate() as f32;
        let ms = |units: u32| units as f32 * 1_000.0 / clock;
        let received = self.reception.received();
        let heard = received > control.received_before;
        control.received_before = received;
        let peer = control.peer.map(|block| {
            let lost = u64::try_from(block.lost).unwrap_or(0);
            (lost, self.statistics.sent.saturating_sub(lost), ms(block.jitter))
        });
        let since_start = control.started.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let sends = self.statistics.sent > 0;
        let one_way = if since_start < ONE_WAY_AFTER {
            None
        } else if received == 0 && self.negotiated.direction.receives() {
            Some(if self.statistics.dropped_source > 0 {
                OneWay::NotBelieved
            } else {
                OneWay::NothingReceived
            })
        } else if sends && control.peer.is_none() && control.deaf_reports >= DEAF_REPORTS {
            Some(OneWay::NothingHeardByPeer)
        } else {
            None
        };
        let sample = Sample {
            codec: self.negotiated.codec,
            received,
            expected: u64::try_from(self.reception.expected()).unwrap_or(0).max(received.min(1)),
            jitter_ms: heard.then(|| ms(self.reception.jitter())),
            peer,
            peer_loss_percent: control.peer.map_or(0.0, |block| f32::from(block.fraction_lost) / 2.56),
            rtt_ms: control.rtt.take(),
            buffer_ms: self.hearing.as_ref().map_or(0.0, |h| h.target().as_secs_f32() * 1_000.0),
            sent: self.statistics.sent,
            one_way,
        };
        control.log.add(&sample);
    }
}
