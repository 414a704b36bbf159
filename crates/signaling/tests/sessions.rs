//! Sessions against each other in virtual time, on a link that loses, repeats and delays by a seeded generator.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails, in its helpers too")]

use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use signaling::digest::Credentials;
use signaling::{
    EndCause, Ended, Event, Hop, Identity, Invite, Message, Method, Refusal, Session, StatusCode, Transport,
    stateless,
};

const CALLER: &str = "192.0.2.1:5060";
const CALLEE: &str = "192.0.2.2:5060";
const DELAY: Duration = Duration::from_millis(10);

struct Random(u64);

impl Random {
    /// xorshift64*: enough to be unfair in a repeatable way.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }
}

/// A message on the way: due time (reversed for the heap), order, whether it goes to the caller, bytes.
type Flying = (std::cmp::Reverse<(Instant, u64)>, bool, Bytes);

/// Says what is lost: whether it goes to the caller, and its first line.
type Censor = Box<dyn FnMut(bool, &str) -> bool>;

struct World {
    start: Instant,
    now: Instant,
    random: Random,
    loss: u64,
    /// Loses messages for which it says so: (to the caller, first line).
    censor: Censor,
    flying: BinaryHeap<Flying>,
    order: u64,
    caller: Session,
    callee: Option<Session>,
    caller_events: Vec<Event>,
    callee_events: Vec<Event>,
    ladder: String,
    challenge: Option<(&'static str, &'static str)>,
}

fn hop(remote: &str) -> Hop {
    Hop { transport: Transport::Udp, remote: remote.parse().unwrap(), flow: 0 }
}

fn identity(at: &str, seed: u8) -> Identity {
    Identity { contact: format!("sip:{at}"), via: at.to_owned(), user_agent: "t", seed: [seed; 16] }
}

impl World {
    fn new(seed: u64, loss: u64) -> Self {
        let now = Instant::now();
        let invite = Invite {
            request_uri: format!("sip:b@{CALLEE}"),
            from: "<sip:a@a.example>".to_owned(),
            to: "<sip:b@b.example>".to_owned(),
            headers: Vec::new(),
            route: Vec::new(),
            credentials: Some(Credentials::new("u".to_owned(), "p".to_owned())),
            offer: Bytes::from_static(b"offer"),
        };
        Self {
            start: now,
            now,
            random: Random(seed.wrapping_mul(2).wrapping_add(1)),
            loss,
            censor: Box::new(|_, _| false),
            flying: BinaryHeap::new(),
            order: 0,
            caller: Session::connect(invite, hop(CALLEE), identity(CALLER, 1), now),
            callee: None,
            caller_events: Vec::new(),
            callee_events: Vec::new(),
            ladder: String::new(),
            challenge: None,
        }
    }

    fn send(&mut self, to_caller: bool, bytes: Bytes) {
        let first = String::from_utf8_lossy(bytes.split(|b| *b == b'\r').next().unwrap()).into_owned();
        let line = first
            .trim_start_matches("SIP/2.0 ")
            .trim_end_matches(" SIP/2.0")
            .split(" sip:")
            .next()
            .unwrap()
            .to_owned();
        let lost = (self.censor)(to_caller, &line) || self.random.percent(self.loss);
        let way = if to_caller { "<" } else { ">" };
        let at = self.now.duration_since(self.start).as_millis();
        self.ladder.push_str(&format!("{at:>6} {way} {line}{}\n", if lost { "   lost" } else { "" }));
        let copies = if lost { 0 } else { 1 + u64::from(self.loss > 0 && self.random.percent(5)) };
        for _ in 0..copies {
            let jitter =
                if self.loss > 0 { Duration::from_millis(self.random.next() % 40) } else { Duration::ZERO };
            self.order += 1;
            self.flying.push((
                std::cmp::Reverse((self.now + DELAY + jitter, self.order)),
                to_caller,
                bytes.clone(),
            ));
        }
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.caller.poll_transmit() {
            self.send(false, transmit.bytes);
        }
        while let Some(event) = self.caller.poll_event() {
            self.caller_events.push(event);
        }
        if let Some(mut callee) = self.callee.take() {
            while let Some(transmit) = callee.poll_transmit() {
                self.send(true, transmit.bytes);
            }
            while let Some(event) = callee.poll_event() {
                self.callee_events.push(event);
            }
            self.callee = Some(callee);
        }
    }

    fn deliver(&mut self, to_caller: bool, bytes: Bytes) {
        let message = Message::parse(bytes).unwrap();
        if to_caller {
            return self.caller.handle_message(message, hop(CALLEE), self.now);
        }
        if let Some(callee) = &mut self.callee {
            return callee.handle_message(message, hop(CALLER), self.now);
        }
        let Message::Request(request) = message else { return };
        if request.method() != Method::Invite {
            return;
        }
        match self.challenge {
            Some((name, answer)) if request.header_named(answer).is_none() => {
                let headers = [(name, "Digest realm=\"r\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256")];
                let status = if name.starts_with("Proxy") { 407 } else { 401 };
                let refusal =
                    stateless::respond(&request, StatusCode(status), None, &headers, hop(CALLER), &[9; 16]);
                self.send(true, refusal.bytes);
            }
            _ => self.callee = Some(Session::accept(request, hop(CALLER), identity(CALLEE, 2), self.now)),
        }
    }

    /// Moves to the next thing that happens; `false` when nothing will.
    fn step(&mut self) -> bool {
        self.flush();
        let flight = self.flying.peek().map(|(std::cmp::Reverse((at, _)), ..)| *at);
        let timers =
            [self.caller.poll_timeout(), self.callee.as_ref().and_then(Session::poll_timeout), flight];
        let Some(next) = timers.into_iter().flatten().min() else { return false };
        self.now = self.now.max(next);
        while self.flying.peek().is_some_and(|(std::cmp::Reverse((at, _)), ..)| *at <= self.now) {
            let (_, to_caller, bytes) = self.flying.pop().unwrap();
            self.deliver(to_caller, bytes);
        }
        self.caller.handle_timeout(self.now);
        if let Some(callee) = &mut self.callee {
            callee.handle_timeout(self.now);
        }
        self.flush();
        true
    }

    fn until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..10_000 {
            if done(self) {
                return;
            }
            assert!(self.step(), "nothing more happens:\n{}", self.ladder);
        }
        panic!("it never comes to an end:\n{}", self.ladder);
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                break;
            }
        }
        assert!(self.caller.is_terminated(), "caller lingers:\n{}", self.ladder);
        assert!(self.callee.as_ref().is_none_or(Session::is_terminated), "callee lingers:\n{}", self.ladder);
    }

    fn callee(&mut self) -> &mut Session {
        self.until(|w| w.callee.is_some());
        self.callee.as_mut().unwrap()
    }

    fn answer(&mut self) {
        let now = self.now;
        self.callee();
        let at = self.now.max(now);
        assert!(self.callee.as_mut().unwrap().answer(Bytes::from_static(b"answer"), at));
    }
}

fn ended(events: &[Event]) -> Option<&Ended> {
    let mut all = events.iter().filter_map(|e| if let Event::Ended(ended) = e { Some(ended) } else { None });
    let first = all.next();
    assert!(all.next().is_none(), "a call ends once");
    first
}

fn causes(world: &World) -> (Option<EndCause>, Option<EndCause>) {
    (ended(&world.caller_events).map(|e| e.cause), ended(&world.callee_events).map(|e| e.cause))
}

fn answered(world: &World) -> bool {
    world.caller_events.iter().any(|e| matches!(e, Event::Answered { .. }))
        && world.callee_events.iter().any(|e| matches!(e, Event::Confirmed { .. }))
}

#[test]
fn a_plain_call() {
    let mut world = World::new(1, 0);
    world.callee();
    let now = world.now;
    world.callee().ring(now);
    world.answer();
    world.until(answered);
    let now = world.now;
    assert!(world.caller.hang_up(None, now));
    world.settle();
    assert_eq!(causes(&world), (Some(EndCause::ByeFromUs), Some(EndCause::ByeFromPeer)));
    insta::assert_snapshot!(world.ladder, @r"
         0 > INVITE
        10 < 180 Ringing
        10 < 200 OK
        20 > ACK
        30 > BYE
        40 < 200 OK
    ");
}

#[test]
fn a_lost_invite_and_a_lost_200_are_repeated() {
    let mut world = World::new(1, 0);
    let mut lose = 2;
    world.censor = Box::new(move |to_caller, line| {
        let hit = lose > 0 && (line == "INVITE" && lose == 2 || to_caller && line == "200 OK" && lose == 1);
        lose -= i32::from(hit);
        hit
    });
    world.answer();
    world.until(answered);
    insta::assert_snapshot!(world.ladder, @r"
         0 > INVITE   lost
       500 > INVITE
       510 < 200 OK   lost
      1010 < 200 OK
      1020 > ACK
    ");
}

#[test]
fn without_an_ack_the_200_is_repeated_for_32_seconds_and_then_comes_bye() {
    let mut world = World::new(1, 0);
    world.censor = Box::new(|to_caller, line| !to_caller && line == "ACK");
    world.answer();
    world.settle();
    assert_eq!(causes(&world), (Some(EndCause::ByeFromPeer), Some(EndCause::NoAck)));
    let times: Vec<&str> = world
        .ladder
        .lines()
        .filter(|l| l.contains("< 200"))
        .map(|l| l.trim().split(' ').next().unwrap())
        .collect();
    // T1 doubling to T2, until 64·T1 after the first.
    assert_eq!(
        times,
        ["10", "510", "1510", "3510", "7510", "11510", "15510", "19510", "23510", "27510", "31510"]
    );
    assert!(world.ladder.contains(" 32010 < BYE"), "{}", world.ladder);
}

#[test]
fn nobody_answers_the_invite() {
    let mut world = World::new(1, 0);
    world.censor = Box::new(|_, _| true);
    world.settle();
    assert_eq!(ended(&world.caller_events).unwrap().cause, EndCause::NoResponse);
    // Timer A doubles without a cap, timer B ends it (RFC 3261 17.1.1.2).
    insta::assert_snapshot!(world.ladder, @r"
         0 > INVITE   lost
       500 > INVITE   lost
      1500 > INVITE   lost
      3500 > INVITE   lost
      7500 > INVITE   lost
     15500 > INVITE   lost
     31500 > INVITE   lost
    ");
}

#[test]
fn a_slow_callee_says_100_and_a_refusal_is_acknowledged() {
    let mut world = World::new(1, 0);
    world.callee();
    world.until(|w| w.ladder.contains("100 Trying"));
    let now = world.now;
    assert!(world.callee().refuse(Refusal::new(StatusCode(486)), now));
    world.settle();
    assert_eq!(causes(&world), (Some(EndCause::RefusedByPeer), Some(EndCause::RefusedByUs)));
    assert_eq!(ended(&world.caller_events).unwrap().status, Some(StatusCode(486)));
    insta::assert_snapshot!(world.ladder, @r"
         0 > INVITE
       210 < 100 Trying
       210 < 486 Busy Here
       220 > ACK
    ");
}

#[test]
fn a_lost_ack_of_a_refusal_brings_it_again() {
    let mut world = World::new(1, 0);
    let mut lose = true;
    world.censor = Box::new(move |_, line| line == "ACK" && std::mem::take(&mut lose));
    world.callee();
    let now = world.now;
    world.callee().refuse(Refusal::new(StatusCode(404)), now);
    world.settle();
    insta::assert_snapshot!(world.ladder, @r"
         0 > INVITE
        10 < 404 Not Found
        20 > ACK   lost
       510 < 404 Not Found
       520 > ACK
    ");
}

#[test]
fn cancel_waits_for_a_provisional_response() {
    let mut world = World::new(1, 0);
    let now = world.now;
    assert!(world.caller.hang_up(None, now));
    world.settle();
    assert_eq!(causes(&world), (Some(EndCause::CancelledByUs), Some(EndCause::CancelledByPeer)));
    insta::assert_snapshot!(world.ladder, @r"
         0 > INVITE
       210 < 100 Trying
       220 > CANCEL
       230 < 200 OK
       230 < 487 Request Terminated
       240 > ACK
    ");
}

#[test]
fn a_200_that_crosses_cancel_is_acknowledged_and_ended() {
    let mut world = World::new(1, 0);
    world.callee();
    let now = world.now;
    world.callee().ring(now);
    world.until(|w| !w.caller_events.is_empty());
    let now = world.now;
    world.caller.hang_up(None, now);
    world.answer();
    world.settle();
    assert_eq!(causes(&world), (Some(EndCause::CancelledByUs), Some(EndCause::ByeFromPeer)));
    insta::assert_snapshot!(world.ladder, @r"
         0 > INVITE
        10 < 180 Ringing
        20 > CANCEL
        20 < 200 OK
        30 > ACK
        30 > BYE
        30 < 200 OK
        40 < 200 OK
    ");
}

#[test]
fn both_hang_up_at_once() {
    let mut world = World::new(1, 0);
    world.answer();
    world.until(answered);
    let now = world.now;
    world.caller.hang_up(None, now);
    world.callee().hang_up(None, now);
    world.settle();
    assert_eq!(causes(&world), (Some(EndCause::ByeFromUs), Some(EndCause::ByeFromUs)));
}

#[test]
fn a_callee_that_hangs_up_before_the_ack_waits_for_it() {
    let mut world = World::new(1, 0);
    world.answer();
    let now = world.now;
    world.callee().hang_up(None, now);
    world.settle();
    insta::assert_snapshot!(world.ladder, @r"
         0 > INVITE
        10 < 200 OK
        20 > ACK
        30 < BYE
        40 > 200 OK
    ");
}

#[test]
fn both_kinds_of_challenge_are_answered_and_a_second_refusal_ends_it() {
    for (asks, brings) in
        [("WWW-Authenticate", "Authorization"), ("Proxy-Authenticate", "Proxy-Authorization")]
    {
        let mut world = World::new(1, 0);
        world.challenge = Some((asks, brings));
        world.answer();
        world.until(answered);
        let now = world.now;
        world.caller.hang_up(None, now);
        world.settle();
        assert_eq!(causes(&world), (Some(EndCause::ByeFromUs), Some(EndCause::ByeFromPeer)));
    }
    let mut world = World::new(1, 0);
    world.challenge = Some(("WWW-Authenticate", "X-Never-Sent"));
    world.settle();
    assert_eq!(ended(&world.caller_events).unwrap().cause, EndCause::Challenged);
    assert_eq!(world.ladder.matches("> INVITE").count(), 2);
}

#[test]
fn whatever_a_link_loses_every_call_ends_once_on_both_sides() {
    for seed in 0..2_000 {
        let mut world = World::new(seed, 5 + seed % 26);
        let plan = world.random.next() % 5;
        let mut acted = false;
        for _ in 0..10_000 {
            if !world.step() {
                break;
            }
            let now = world.now;
            if let (false, Some(callee)) = (acted, &mut world.callee) {
                acted = true;
                match plan {
                    0 => {
                        callee.refuse(Refusal::new(StatusCode(486)), now);
                    }
                    1 => {
                        world.caller.hang_up(None, now);
                    }
                    _ => {
                        callee.answer(Bytes::from_static(b"answer"), now);
                    }
                }
            }
            if answered(&world) && ended(&world.caller_events).is_none() {
                if plan.is_multiple_of(2) {
                    world.caller.hang_up(None, now);
                } else if let Some(callee) = &mut world.callee {
                    callee.hang_up(None, now);
                }
            }
        }
        assert!(world.caller.is_terminated(), "seed {seed}:\n{}", world.ladder);
        assert!(ended(&world.caller_events).is_some(), "seed {seed}:\n{}", world.ladder);
        if let Some(callee) = &world.callee {
            assert!(callee.is_terminated(), "seed {seed}:\n{}", world.ladder);
            assert!(ended(&world.callee_events).is_some(), "seed {seed}:\n{}", world.ladder);
        }
    }
}
