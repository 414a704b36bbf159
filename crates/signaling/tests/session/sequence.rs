//! A session driven by any messages, in any order, at any time: no panic, no unbounded output, and an end within
//! bounded time. Steps come from a generator of the tests, or from the bytes of a fuzzer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use signaling::{Event, Invite, Message, Reason, Refusal, Session, StatusCode, Transport};

use crate::link::{A, B, account, hop, identity, invite, sdp};

#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// method, CSeq, branch, To tag is ours, From tag, headers and body
    Request(u8, u32, u8, bool, u8, u8),
    /// To the nth request that was sent: status, To tag, headers and body.
    Response(u8, u16, u8, u8),
    Command(u8),
    Wait(u32),
    TransportError,
}

impl Step {
    /// The next step of a fuzzer's bytes; `None` when they are used up.
    #[allow(dead_code, reason = "for the fuzz target")]
    pub(crate) fn read(bytes: &mut impl Iterator<Item = u8>) -> Option<Self> {
        let mut next = || bytes.next();
        Some(match next()? % 13 {
            0..4 => Self::Request(
                next()? % 14,
                u32::from(next()? % 6),
                next()? % 5,
                next()? % 2 == 0,
                next()? % 3,
                next()? % 9,
            ),
            4..8 => {
                let status = 100 + u16::from_be_bytes([next()?, next()?]) % 600;
                Self::Response(next()?, status, next()? % 4, next()? % 9)
            }
            8 | 9 => Self::Command(next()? % 14),
            10 => Self::Wait(u32::from(next()?)),
            11 => Self::Wait(u32::from(u16::from_be_bytes([next()?, next()?])) % 40_000),
            _ => Self::TransportError,
        })
    }
}

const METHODS: [&str; 14] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "OPTIONS",
    "REGISTER",
    "PRACK",
    "UPDATE",
    "INFO",
    "REFER",
    "NOTIFY",
    "SUBSCRIBE",
    "MESSAGE",
    "CHAT",
];
const RESTS: [&str; 9] = [
    "\r\n",
    "Content-Type: application/sdp\r\n\r\nv=0",
    "Require: 100rel\r\nContact: <sip:x@203.0.113.5;transport=tcp>\r\n\r\n",
    "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\nContact: junk\r\n\r\n",
    "Proxy-Authenticate: Digest realm=\"r\", nonce=\"m\", qop=\"auth\", stale=true\r\nReason: Q.850;cause=99999\r\n\r\n",
    "Require: 100rel\r\nSupported: timer\r\nRSeq: 1\r\nRAck: 1 1 INVITE\r\nAllow: UPDATE\r\nSession-Expires: 90;refresher=uac\r\nMin-SE: 95\r\n\r\nv=0",
    "Session-Expires: 4294967295;refresher=uas\r\nSupported: timer, 100rel\r\nAllow: UPDATE\r\nRefer-To: <sip:+1@h?Route=x>\r\nRefer-Sub: false\r\n\r\n",
    "Event: refer\r\nSubscription-State: terminated;reason=noresource\r\nContent-Type: message/sipfrag\r\n\r\nSIP/2.0 603 Decline\r\n",
    "Record-Route: <sip:198.51.100.2>, <sip:[2001:db8::1];lr>\r\nRetry-After: x\r\nWarning: 399\r\n\r\n",
];

struct Run {
    session: Session,
    sent: Vec<Bytes>,
    now: Instant,
    ended: u32,
    transport: Transport,
}

impl Run {
    fn drain(&mut self) {
        let mut count = 0;
        while let Some(transmit) = self.session.poll_transmit() {
            count += 1;
            assert!(Message::parse(transmit.bytes.clone()).is_ok(), "{:?}", transmit.bytes);
            if transmit.bytes.len() < 4_096 && !transmit.bytes.starts_with(b"SIP/2.0") {
                self.sent.push(transmit.bytes);
            }
        }
        assert!(count <= 64, "{count} messages at once");
        while let Some(event) = self.session.poll_event() {
            self.ended += u32::from(matches!(event, Event::Ended(_)));
        }
        assert_eq!(self.ended > 0, self.session.is_over());
        assert!(self.ended <= 1, "ended twice");
    }

    fn hear(&mut self, text: String) {
        if let Ok(message) = Message::parse(Bytes::from(text)) {
            self.session.handle_message(message, hop(B, self.transport), self.now);
        }
    }

    fn take(&mut self, step: &Step) {
        let now = self.now;
        match *step {
            Step::Request(method, cseq, branch, ours, from, rest) => {
                let (method, rest) = (METHODS[usize::from(method)], RESTS[usize::from(rest)]);
                let tag = if ours { self.session.local_tag() } else { "x" };
                let to = if method == "CANCEL" || (cseq == 1 && !ours) {
                    String::new()
                } else {
                    format!(";tag={tag}")
                };
                let call_id = self.session.call_id();
                self.hear(format!(
                    "{method} sip:a@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{branch}\r\nFrom: <sip:b@h>;tag=f{from}\r\nTo: <sip:a@h>{to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n{rest}"
                ));
            }
            Step::Response(nth, status, tag, rest) => {
                if self.sent.is_empty() {
                    return;
                }
                let request = self.sent[usize::from(nth) % self.sent.len()].clone();
                let Ok(Message::Request(request)) = Message::parse(request) else { return };
                let value = |name| request.header(name).unwrap_or_default();
                use signaling::HeaderName::{CSeq, CallId, From, To, Via};
                let (to, rest) = (value(To), RESTS[usize::from(rest)]);
                let tag = if to.contains("tag=") { String::new() } else { format!(";tag=f{tag}") };
                self.hear(format!(
                    "SIP/2.0 {status} x\r\nVia: {}\r\nFrom: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n{rest}",
                    value(Via), value(From), value(CallId), value(CSeq)
                ));
            }
            Step::Command(which) => {
                let reason = Reason { protocol: "SIP".to_owned(), cause: 486, text: None };
                let refusal = Refusal::new(StatusCode(488));
                let session = &mut self.session;
                let _ = match which {
                    0 => session.ring(now),
                    1 => session.progress(sdp("v=0"), now),
                    2 => session.answer(sdp("v=0"), now),
                    3 => session.refuse(refusal, now),
                    4 => session.answer_offer(sdp("v=0"), now),
                    5 => session.refuse_offer(refusal, now),
                    6 => session.offer(sdp("v=0"), now),
                    7 => session.hang_up(Some(reason), now),
                    8 => session.refer("sip:x@h", now),
                    9 => session.accept_refer(now),
                    10 => session.refuse_refer(&refusal, now),
                    11 => session.notify_refer(StatusCode(180), now),
                    12 => session.notify_refer(StatusCode(200), now),
                    _ => session.hang_up(None, now),
                };
            }
            Step::Wait(millis) => self.wait(Duration::from_millis(u64::from(millis))),
            Step::TransportError => self.session.handle_transport_error(hop(B, self.transport), now),
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..10_000 {
            self.drain();
            let Some(due) = self.session.poll_timeout().filter(|due| *due <= until) else {
                self.now = until;
                return;
            };
            self.now = due.max(self.now);
            self.session.handle_timeout(self.now);
        }
        panic!("a timer that is due stays due");
    }

    /// Hangs up and waits: nothing may be left.
    fn end(mut self) {
        for _ in 0..3 {
            self.session.hang_up(None, self.now);
            self.wait(Duration::from_secs(70));
        }
        self.drain();
        assert_eq!(self.ended, 1);
        assert!(self.session.is_terminated(), "{:?}", self.session);
        assert_eq!(self.session.poll_timeout(), None);
    }
}

fn caller(transport: Transport, now: Instant) -> Session {
    let invite = Invite { credentials: Some(account()), ..invite() };
    Session::connect(invite, hop(B, transport), identity(A), now)
}

fn called(transport: Transport, now: Instant) -> Session {
    let text = crate::link::request("INVITE", 1, "0", "", crate::link::OFFER)
        .replace("tag=alice", "tag=f0")
        .replace('\n', "\r\n");
    let Ok(Message::Request(invite)) = Message::parse(Bytes::from(text)) else { panic!() };
    Session::accept(invite, hop(B, transport), identity(A), now)
}

/// Drives a session through `steps` to its end.
pub(crate) fn run(calls: bool, stream: bool, steps: &[Step]) {
    let now = Instant::now();
    let transport = if stream { Transport::Tcp } else { Transport::Udp };
    let session = if calls { caller(transport, now) } else { called(transport, now) };
    let mut run = Run { session, sent: Vec::new(), now, ended: 0, transport };
    run.drain();
    for step in steps {
        run.take(step);
        run.drain();
    }
    run.end();
}
