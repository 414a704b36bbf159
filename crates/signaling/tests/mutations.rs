//! Messages that somebody has damaged, by the ten thousand (`MUTATIONS` says how many): no panic, memory stays flat, what
//! is looked at before parsing agrees with the parser, what must be masked is.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails, in its helpers too")]

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use signaling::digest::{Authenticator, Credentials, NonceCounts, Scope};
use signaling::{
    Hop, Identity, Message, Peek, Request, Session, SessionTimer, StatusCode, StreamParser, Transport,
    masked, stateless,
};

/// xorshift64*: any seed but 0 will do.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 0 101\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20\r\n";

/// Things that break parsers, put in anywhere.
const TOKENS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\r\n ",
    "\0",
    "\u{1}",
    "\"",
    "\\",
    "<",
    ">",
    ";",
    ",",
    "=",
    ":",
    "@",
    "?",
    "%",
    "%00",
    "%zz",
    "4294967328",
    "99999999999999999999",
    "-1",
    "+5",
    "0x10",
    "SIP/2.0",
    "SIP/3.0",
    "sip:",
    "sips:",
    "tel:",
    "[::ffff:1.2.3.4]",
    "[:::1]",
    "Content-Length: 4294967328\r\n",
    "l: 0\r\n",
    "Contact\u{1}: <sip:x@y>\r\n",
    "X-Secret : 1\r\n",
    "\tVia: SIP/2.0/UDP h\r\n",
    "Require: 100rel\r\n",
    "Authorization: Digest username=\"",
    "Proxy-Authorization: Basic x\r\n",
    "inline:",
    ";tag=",
    ";branch=z9hG4bK",
    ";rport",
    ";received=",
    "Record-Route: <sip:p;lr>\r\n",
    "Via: SIP/2.0/UDP ",
    "CSeq: 2147483648 INVITE\r\n",
    "Max-Forwards: 256\r\n",
    "\u{fffd}",
    "é",
];

fn corpus() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = std::fs::read_dir(format!("{}/tests/rfc4475", env!("CARGO_MANIFEST_DIR")))
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    let head = |line: &str, cseq: &str, to_tag: &str| {
        format!(
            "{line}\r\nVia: SIP/2.0/UDP 198.51.100.10:5060;branch=z9hG4bKbase;rport\r\nVia: SIP/2.0/TCP [2001:db8::1];branch=z9hG4bKx\r\nRecord-Route: <sip:proxy.example;lr>,\r\n <sip:198.51.100.1;lr>\r\nMax-Forwards: 70\r\nFrom: \"A \\\"B\\\"\" <sip:+14155550111@198.51.100.10>;tag=caller\r\nTo: <sip:+14155550100@192.0.2.1>{to_tag}\r\nCall-ID: call@198.51.100.10\r\nCSeq: {cseq}\r\nContact: <sip:x@198.51.100.10:5060;transport=udp>\r\nSupported: timer, 100rel\r\nSession-Expires: 1800;refresher=uac\r\nAuthorization: Digest username=\"u\", realm=\"tandem\", nonce=\"00\", uri=\"sip:+14155550100@192.0.2.1\", response=\"0123456789abcdef0123456789abcdef\", qop=auth, nc=00000001, cnonce=\"c\"\r\n"
        )
    };
    let body = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{OFFER}", OFFER.len());
    let uri = "sip:+14155550100@192.0.2.1";
    all.push(format!("{}{body}", head(&format!("INVITE {uri} SIP/2.0"), "1 INVITE", "")).into_bytes());
    for method in
        ["ACK", "BYE", "CANCEL", "OPTIONS", "INFO", "UPDATE", "PRACK", "REFER", "NOTIFY", "REGISTER"]
    {
        let tag = if method == "CANCEL" { "" } else { ";tag=local" };
        let line = format!("{method} {uri} SIP/2.0");
        all.push(
            format!("{}Content-Length: 0\r\n\r\n", head(&line, &format!("2 {method}"), tag)).into_bytes(),
        );
    }
    for status in ["100 Trying", "180 Ringing", "200 OK", "401 Unauthorized", "486 Busy Here"] {
        let extra = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\", algorithm=MD5\r\n";
        all.push(
            format!("{}{extra}{body}", head(&format!("SIP/2.0 {status}"), "1 INVITE", ";tag=remote"))
                .into_bytes(),
        );
    }
    all
}

fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut message = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(message.len());
        match random.below(8) {
            0 if !message.is_empty() => message[at] = u8::try_from(random.below(256)).unwrap(),
            1 if !message.is_empty() => message[at] ^= 1 << random.below(8),
            2 => {
                let end = (at + 1 + random.below(40)).min(message.len());
                message.drain(at..end);
            }
            3 => message.truncate(at),
            4 => {
                let token = TOKENS[random.below(TOKENS.len())].as_bytes();
                message.splice(at..at, token.iter().copied());
            }
            5 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len());
                let to = (from + random.below(200)).min(other.len());
                message.splice(at..at, other[from..to].iter().copied());
            }
            6 => {
                // A line twice.
                let line = message[at..].split_inclusive(|b| *b == b'\n').next().unwrap_or_default().to_vec();
                message.splice(at..at, line);
            }
            _ => {
                let most = if random.below(50) == 0 { 20_000 } else { 60 };
                let many = 1 + random.below(most);
                let byte = b"a,;=<\"(0 :"[random.below(10)];
                message.splice(at..at, std::iter::repeat_n(byte, many));
            }
        }
    }
    message
}

struct Target {
    session: Session,
    server: Authenticator,
    account: Credentials,
    counts: NonceCounts,
    hop: Hop,
    now: Instant,
}

impl Target {
    fn new(now: Instant, first: &[u8]) -> Self {
        let remote: SocketAddr = "198.51.100.10:5060".parse().unwrap();
        let hop = Hop { transport: Transport::Udp, remote, flow: 0 };
        let Ok(Message::Request(invite)) = Message::parse(Bytes::copy_from_slice(first)) else { panic!() };
        Self {
            session: Session::accept(invite, hop, identity(), now),
            server: Authenticator::new([1; 32], "tandem", now),
            account: Credentials::new("u".to_owned(), "p".to_owned()),
            counts: NonceCounts::default(),
            hop,
            now,
        }
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.session.poll_transmit() {
            // What we send can be read again.
            let sent = Message::parse(transmit.bytes.clone());
            assert!(sent.is_ok(), "{sent:?}: {}", String::from_utf8_lossy(&transmit.bytes));
        }
        while self.session.poll_event().is_some() {}
    }

    fn request(&mut self, request: &Request) {
        let _ = stateless::check(request);
        let scope = Scope { source: self.hop.remote.ip(), account: b"t" };
        let _ = self.server.check(request, scope, &self.account, &mut self.counts, self.now);
        let answer = stateless::respond(request, StatusCode(404), None, &[], self.hop, &[1; 16]);
        assert!(answer.bytes.starts_with(b"SIP/2.0 404 "));
        assert_eq!(memchr::memmem::find_iter(&answer.bytes, b"\r\n\r\n").count(), 1);
    }

    fn take(&mut self, bytes: &[u8]) {
        let peek = Peek::of(bytes);
        match Message::parse(Bytes::copy_from_slice(bytes)) {
            Ok(message) => {
                let peek = peek.unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(bytes)));
                if !peek.folded {
                    assert_eq!(peek.call_id(), Some(message.call_id()));
                    assert_eq!(peek.from().and_then(|from| from.tag()), message.from_tag());
                    assert_eq!(peek.to().and_then(|to| to.tag()), message.to_tag());
                }
                let _ = (message.contact(), message.top_via(), message.sdp(), message.cseq());
                if let Message::Request(request) = &message {
                    assert_eq!(peek.request, Some((request.method(), request.uri())));
                    self.request(request);
                }
                self.session.handle_message(message, self.hop, self.now);
                self.drain();
            }
            Err(malformed) => {
                if let Some(request) = malformed.request {
                    self.request(&request);
                }
            }
        }
        let shown = masked(bytes);
        assert_eq!(shown.len(), bytes.len());
        let mut stream = StreamParser::new();
        for chunk in bytes.chunks(1 + bytes.len() / 3) {
            stream.push(chunk);
            while stream.next().is_some() {}
        }
        assert!(stream.buffered() <= bytes.len());
    }
}

fn identity() -> Identity {
    Identity {
        contact: "sip:192.0.2.1:5060".to_owned(),
        via: "192.0.2.1:5060".to_owned(),
        user_agent: "t",
        session_timer: SessionTimer::default(),
        seed: [5; 16],
    }
}

/// What a message may take: 5 ms, and what the lack of optimisation adds.
const MOST: Duration = Duration::from_millis(50);

/// Memory is measured of the process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The least time that something takes, of some tries: a machine busy with others slows some of them, and a slow message
/// all of them.
fn least(within: Duration, mut something: impl FnMut()) -> Duration {
    const TRIES: usize = 20;
    let mut least = Duration::MAX;
    for _ in 0..TRIES {
        let begun = Instant::now();
        something();
        least = least.min(begun.elapsed());
        if least < within {
            break;
        }
    }
    least
}

/// Resident memory in KiB, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok())
}

#[test]
fn damaged_messages_break_nothing() {
    let _alone = ALONE.lock();
    let count: u64 = std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let (corpus, start) = (corpus(), Instant::now());
    let invite = corpus[corpus.len() - 16].clone();
    let mut random = Random(4_711);
    let mut target = Target::new(start, &invite);
    let mut before = None;
    for number in 0..count {
        let message = mutate(&mut random, &corpus);
        let begun = Instant::now();
        target.take(&message);
        if begun.elapsed() > MOST {
            let took = least(MOST, || Target::new(target.now, &invite).take(&message));
            assert!(took < MOST, "{took:?}: {}", String::from_utf8_lossy(&message));
        }
        target.now += Duration::from_millis(10);
        if target.session.poll_timeout().is_some_and(|at| at <= target.now) {
            target.session.handle_timeout(target.now);
            target.drain();
        }
        if number % 500 == 499 {
            target = Target::new(target.now, &invite);
        }
        if number == count / 10 {
            before = resident();
        }
    }
    let grown = before.zip(resident()).map_or(0, |(before, after)| after.saturating_sub(before));
    assert!(grown < 32 << 10, "{grown} KiB more");
    println!("{count} messages, {grown} KiB more");
}

/// A message whose parts are as many or as deep as they get costs no more than its length.
#[test]
fn long_and_deep_messages_cost_no_more_than_their_length() {
    let _alone = ALONE.lock();
    let head = |extra: &str| {
        format!(
            "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n{extra}Content-Length: 0\r\n\r\n"
        )
    };
    for extra in [
        format!("Via: {}\r\n", vec!["SIP/2.0/UDP h;branch=x"; 650].join(",")),
        format!("Record-Route: {}\r\n", vec!["<sip:p;lr>"; 1_300].join(",")),
        format!("Contact: <sip:a@b{}>\r\n", ";p=1".repeat(3_800)),
        format!("Contact: {}\r\n", "(".repeat(15_000)),
        format!("Subject: {}\r\n", "\"\\".repeat(7_500)),
        format!("X:{}1\r\n", "\r\n ".repeat(5_000)),
        "A: b\r\n".repeat(90),
        format!("Require: {}\r\n", vec!["a"; 7_000].join(",")),
        format!("Authorization: Digest {}\r\n", vec!["a=\"b\""; 2_500].join(",")),
    ] {
        let text = head(&extra);
        let took = least(MOST, || {
            if let Ok(Message::Request(request)) = Message::parse(Bytes::from(text.clone())) {
                let _ = stateless::check(&request);
                let _ =
                    (request.contact(), request.top_via(), request.list(signaling::HeaderName::Via).count());
            }
        });
        assert!(took < MOST, "{took:?}: {}", &extra[..40]);
    }
}
