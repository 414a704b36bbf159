//! The link and what stands at its ends.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use signaling::{
    Event, Hop, Identity, Invite, Message, Method, Request, ResponseBuilder, Session, SessionTimer,
    StatusCode, Transport, digest::Credentials,
};

/// xorshift64*: the same seed, the same network.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike; the state must not be zero.
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Places the call.
    A,
    /// Is called.
    B,
}
pub(crate) use Side::{A, B};

impl Side {
    pub(crate) fn other(self) -> Self {
        if self == A { B } else { A }
    }

    fn address(self) -> &'static str {
        if self == A { "192.0.2.1:5060" } else { "198.51.100.2:5060" }
    }
}

pub(crate) fn hop(side: Side, transport: Transport) -> Hop {
    Hop { transport, remote: side.address().parse().unwrap(), flow: 7 }
}

pub(crate) fn identity(side: Side) -> Identity {
    Identity {
        contact: format!("sip:{side:?}@{}", side.address()),
        via: side.address().to_owned(),
        user_agent: "Test",
        session_timer: QUIET,
        seed: [side as u8 + 1; 16],
    }
}

/// Nothing is asked for: most tests are about other timers.
pub(crate) const QUIET: SessionTimer = SessionTimer { interval: 0, min: 90 };

pub(crate) fn invite() -> Invite {
    Invite {
        request_uri: "sip:bob@198.51.100.2".to_owned(),
        from: "<sip:alice@192.0.2.1>".to_owned(),
        to: "<sip:bob@198.51.100.2>".to_owned(),
        headers: Vec::new(),
        route: Vec::new(),
        credentials: None,
        offer: Bytes::from_static(b"v=0 offer"),
    }
}

pub(crate) fn account() -> Credentials {
    Credentials::new("alice".to_owned(), "secret".to_owned())
}

struct Flight {
    at: Instant,
    number: u64,
    to: Side,
    bytes: Bytes,
}

type Action = Box<dyn FnOnce(&mut Link)>;
type Filter = Box<dyn FnMut(Side, &Message) -> bool>;

/// How bad the network is.
pub(crate) struct Weather {
    /// Chance of loss, in percent.
    pub(crate) loss: u64,
    /// Chance that a datagram comes twice, in percent.
    pub(crate) repeat: u64,
    /// Delay, in milliseconds, and what may be added to it.
    pub(crate) delay: u64,
    pub(crate) jitter: u64,
}

pub(crate) const FAIR: Weather = Weather { loss: 0, repeat: 0, delay: 10, jitter: 0 };

pub(crate) struct Link {
    begin: Instant,
    pub(crate) now: Instant,
    pub(crate) rng: Rng,
    weather: Weather,
    transport: Transport,
    pub(crate) a: Option<Session>,
    pub(crate) b: Option<Session>,
    /// Whether a session is made for the first INVITE that reaches B; else B is played by the test.
    accepts: bool,
    /// What B wants of session timers.
    timer: SessionTimer,
    flights: Vec<Flight>,
    number: u64,
    actions: BTreeMap<(Instant, u64), Action>,
    /// Says of a message that a side sends whether it gets lost.
    lose: Option<Filter>,
    /// What reached a side without session.
    pub(crate) inbox: Vec<Message>,
    pub(crate) events: Vec<(Side, Event)>,
    ladder: String,
}

impl Link {
    pub(crate) fn new(seed: u64, weather: Weather) -> Self {
        let begin = Instant::now();
        Self {
            begin,
            now: begin,
            rng: Rng::new(seed),
            weather,
            transport: Transport::Udp,
            a: None,
            b: None,
            accepts: false,
            timer: QUIET,
            flights: Vec::new(),
            number: 0,
            actions: BTreeMap::new(),
            lose: None,
            inbox: Vec::new(),
            events: Vec::new(),
            ladder: String::new(),
        }
    }

    /// Two sessions over a fair network.
    pub(crate) fn call() -> Self {
        Self::call_in(0, FAIR, Transport::Udp)
    }

    pub(crate) fn call_in(seed: u64, weather: Weather, transport: Transport) -> Self {
        let mut link = Self::new(seed, weather);
        link.transport = transport;
        link.accepts = true;
        link.a = Some(Session::connect(invite(), hop(B, transport), identity(A), link.now));
        link
    }

    /// Two sessions that want these timers.
    pub(crate) fn timed(a: SessionTimer, b: SessionTimer) -> Self {
        let mut link = Self::new(0, FAIR);
        (link.accepts, link.timer) = (true, b);
        link.a = Some(Self::timed_caller(a, link.now));
        link
    }

    fn timed_caller(timer: SessionTimer, now: Instant) -> Session {
        let identity = Identity { session_timer: timer, ..identity(A) };
        Session::connect(invite(), hop(B, Transport::Udp), identity, now)
    }

    /// A places a call and wants a timer; the test plays B.
    pub(crate) fn timed_alone(timer: SessionTimer) -> Self {
        let mut link = Self::new(0, FAIR);
        link.a = Some(Self::timed_caller(timer, link.now));
        link
    }

    /// A places a call; the test plays B.
    pub(crate) fn caller(invite: Invite) -> Self {
        Self::caller_over(invite, Transport::Udp)
    }

    pub(crate) fn caller_over(invite: Invite, transport: Transport) -> Self {
        let mut link = Self::new(0, FAIR);
        link.transport = transport;
        link.a = Some(Session::connect(invite, hop(B, transport), identity(A), link.now));
        link
    }

    /// B is called; the test plays A, whose INVITE is `text`.
    pub(crate) fn called(text: &str) -> Self {
        Self::called_over(text, Transport::Udp)
    }

    pub(crate) fn called_over(text: &str, transport: Transport) -> Self {
        let mut link = Self::new(0, FAIR);
        link.transport = transport;
        link.accepts = true;
        link.say(A, text);
        link.run(0.011);
        link
    }

    pub(crate) fn lose(&mut self, filter: impl FnMut(Side, &Message) -> bool + 'static) {
        self.lose = Some(Box::new(filter));
    }

    /// Does something `seconds` after the beginning.
    pub(crate) fn at(&mut self, seconds: f64, action: impl FnOnce(&mut Self) + 'static) {
        self.number += 1;
        let at = self.begin + Duration::from_secs_f64(seconds);
        self.actions.insert((at, self.number), Box::new(action));
    }

    /// Tells a session something at a time.
    pub(crate) fn tell(
        &mut self,
        seconds: f64,
        side: Side,
        action: impl FnOnce(&mut Session, Instant) + 'static,
    ) {
        self.at(seconds, move |link| {
            let now = link.now;
            if let Some(session) = link.session(side) {
                action(session, now);
            }
        });
    }

    pub(crate) fn session(&mut self, side: Side) -> Option<&mut Session> {
        if side == A { self.a.as_mut() } else { self.b.as_mut() }
    }

    pub(crate) fn elapsed(&self) -> f64 {
        (self.now - self.begin).as_secs_f64()
    }

    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(self.ladder, "{:>7.3}  {text}", (self.now - self.begin).as_secs_f64());
    }

    /// A message that the test sends for a side.
    pub(crate) fn say(&mut self, from: Side, text: &str) {
        self.send(from, Bytes::from(text.replace("\r\n", "\n").replace('\n', "\r\n")));
    }

    /// A response of the side that the test plays to the last request of `method` it got.
    pub(crate) fn respond(
        &mut self,
        from: Side,
        method: Method,
        status: u16,
        tag: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) {
        let request = self.last(method);
        let source = hop(from.other(), self.transport).remote;
        let mut builder = ResponseBuilder::new(&request, StatusCode(status), None, Some(tag), source);
        for (name, value) in headers {
            builder = builder.header_named(name, *value);
        }
        let bytes =
            if body.is_empty() { builder.build() } else { builder.body("application/sdp", body.as_bytes()) };
        self.send(from, bytes);
    }

    /// The last request of `method` that the test got.
    pub(crate) fn last(&self, method: Method) -> Request {
        let found = self.inbox.iter().rev().find_map(|message| match message {
            Message::Request(request) if request.method() == method => Some(request.clone()),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no {method:?} came:\n{}", self.ladder))
    }

    /// What a side got as `METHOD` or `status METHOD`, in order.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.inbox.iter().map(title).collect()
    }

    pub(crate) fn send(&mut self, from: Side, bytes: Bytes) {
        let message = Message::parse(bytes.clone()).unwrap_or_else(|m| panic!("{m:?}: {bytes:?}"));
        let lost = self.lose.as_mut().is_some_and(|lose| lose(from, &message))
            || self.rng.percent(self.weather.loss);
        let title = title(&message);
        let (left, right) = match (from, lost) {
            (A, false) => ("A --> B", ""),
            (B, false) => ("A <-- B", ""),
            (A, true) => ("A --x  ", "  (lost)"),
            (B, true) => ("  x-- B", "  (lost)"),
        };
        self.note(&format!("{left}  {title}{right}"));
        if lost {
            return;
        }
        let times = 1 + u64::from(self.rng.percent(self.weather.repeat));
        for _ in 0..times {
            let jitter = if self.weather.jitter > 0 { self.rng.below(self.weather.jitter) } else { 0 };
            self.number += 1;
            self.flights.push(Flight {
                at: self.now + Duration::from_millis(self.weather.delay + jitter),
                number: self.number,
                to: from.other(),
                bytes: bytes.clone(),
            });
        }
    }

    /// Drains both sessions.
    fn settle(&mut self) {
        for side in [A, B] {
            while let Some(session) = self.session(side) {
                let (transmit, event) = (session.poll_transmit(), session.poll_event());
                if transmit.is_none() && event.is_none() {
                    break;
                }
                if let Some(transmit) = transmit {
                    assert_eq!(transmit.hop.transport, self.transport);
                    self.send(side, transmit.bytes);
                }
                if let Some(event) = event {
                    self.note(&format!("{side:?}: {}", describe(&event)));
                    self.events.push((side, event));
                }
            }
            if self.session(side).is_some_and(|s| s.is_terminated()) {
                assert_eq!(self.session(side).unwrap().poll_timeout(), None, "a timer outlived its session");
                self.note(&format!("{side:?}: terminated"));
                if side == A {
                    self.a = None
                } else {
                    self.b = None
                }
                // A late datagram finds nobody.
                self.accepts &= side == A;
            }
        }
    }

    fn deliver(&mut self, flight: Flight) {
        let now = self.now;
        let from = hop(flight.to.other(), self.transport);
        let message = Message::parse(flight.bytes).unwrap();
        if let Some(session) = self.session(flight.to) {
            session.handle_message(message, from, now);
        } else if flight.to == B && self.accepts {
            if let Message::Request(request) = message
                && request.method() == Method::Invite
                && request.to_tag().is_none()
            {
                let identity = Identity { session_timer: self.timer, ..identity(B) };
                self.b = Some(Session::accept(request, from, identity, now));
            }
        } else {
            self.inbox.push(message);
        }
    }

    fn next_due(&mut self) -> Option<Instant> {
        let flights = self.flights.iter().map(|f| f.at).min();
        let actions = self.actions.keys().next().map(|(at, _)| *at);
        let timers = [A, B].map(|side| self.session(side).and_then(|s| s.poll_timeout()));
        [flights, actions].into_iter().chain(timers).flatten().min()
    }

    /// Goes on until `seconds` after the beginning.
    pub(crate) fn run(&mut self, seconds: f64) -> &mut Self {
        let until = self.begin + Duration::from_secs_f64(seconds);
        // Several steps may share an instant; a million of them is a loop.
        for _ in 0..1_000_000 {
            self.settle();
            let Some(due) = self.next_due().filter(|due| *due <= until) else {
                self.now = until.max(self.now);
                return self;
            };
            self.now = due.max(self.now);
            if let Some(entry) = self.actions.first_entry().filter(|e| e.key().0 <= self.now) {
                let action = entry.remove();
                action(self);
                continue;
            }
            if let Some(at) =
                first(&self.flights, |f| (f.at, f.number)).filter(|&i| self.flights[i].at <= self.now)
            {
                let flight = self.flights.remove(at);
                self.deliver(flight);
                continue;
            }
            let now = self.now;
            for side in [A, B] {
                if let Some(session) = self.session(side)
                    && session.poll_timeout().is_some_and(|at| at <= now)
                {
                    session.handle_timeout(now);
                }
            }
        }
        panic!("time stands still:\n{}", self.ladder);
    }

    /// Goes on until both sessions are gone.
    pub(crate) fn finish(&mut self) -> String {
        self.run(600.0);
        assert!(self.a.is_none() && self.b.is_none(), "a session did not terminate:\n{}", self.ladder);
        self.ladder.clone()
    }

    /// Goes on until A is gone, where the test plays B.
    pub(crate) fn finish_a(&mut self) -> String {
        self.run(600.0);
        assert!(self.a.is_none(), "A did not terminate:\n{}", self.ladder);
        self.ladder.clone()
    }

    pub(crate) fn ladder(&self) -> &str {
        &self.ladder
    }

    pub(crate) fn of(&self, side: Side) -> Vec<&Event> {
        self.events.iter().filter(|(s, _)| *s == side).map(|(_, event)| event).collect()
    }

    /// How a side's call ended.
    pub(crate) fn ended(&self, side: Side) -> &signaling::Ended {
        let ended = self.of(side).into_iter().find_map(|event| match event {
            Event::Ended(ended) => Some(ended),
            _ => None,
        });
        ended.unwrap_or_else(|| panic!("{side:?} has not ended:\n{}", self.ladder))
    }
}

fn first<T, K: Ord>(items: &[T], key: impl Fn(&T) -> K) -> Option<usize> {
    (0..items.len()).min_by_key(|&i| key(&items[i]))
}

pub(crate) fn title(message: &Message) -> String {
    let body = if message.body().is_empty() { "" } else { " +sdp" };
    match message {
        Message::Request(request) => {
            format!("{} ({}){body}", request.method_token(), request.cseq().number)
        }
        Message::Response(response) => {
            let cseq = response.cseq();
            format!("{} {} ({}){body}", response.status(), cseq.method.as_str(), cseq.number)
        }
    }
}

fn describe(event: &Event) -> String {
    let body = |sdp: &Option<Bytes>| if sdp.is_some() { " +sdp" } else { "" };
    match event {
        Event::Progress { status, sdp } => format!("Progress {status}{}", body(sdp)),
        Event::Answered { status, sdp } => format!("Answered {status}{}", body(sdp)),
        Event::Confirmed { sdp } => format!("Confirmed{}", body(sdp)),
        Event::Modified { status, sdp } => format!("Modified {status}{}", body(sdp)),
        Event::Refer { target } => format!("Refer {target}"),
        Event::Referral(referral) => format!("Referral {referral:?}"),
        Event::Offer { sdp } => format!("Offer{}", body(sdp)),
        Event::Info { content_type, .. } => format!("Info {content_type}"),
        Event::Ended(ended) => {
            let status = ended.status.map_or(String::new(), |s| format!(" {s}"));
            let reason = ended.reason.as_ref().map_or(String::new(), |r| format!(" [{r}]"));
            format!("Ended {:?}{status}{reason}{}", ended.cause, if ended.rang { " rang" } else { "" })
        }
    }
}

pub(crate) fn sdp(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// A request of a scripted A to B: `to_tag` empty outside the dialog.
pub(crate) fn request(method: &str, cseq: u32, branch: &str, to_tag: &str, rest: &str) -> String {
    let tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
    let rest = if rest.is_empty() { "\n".to_owned() } else { rest.to_owned() };
    format!(
        "{method} sip:B@198.51.100.2 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{branch};rport\nMax-Forwards: 70\nFrom: <sip:alice@192.0.2.1>;tag=alice\nTo: <sip:bob@198.51.100.2>{tag}\nCall-ID: scripted\nCSeq: {cseq} {method}\nContact: <sip:A@192.0.2.1:5060>\n{rest}"
    )
}

/// Headers and body of a request with an offer.
pub(crate) const OFFER: &str = "Content-Type: application/sdp\n\nv=0 offer";
