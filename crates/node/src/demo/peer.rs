//! A carrier or phone for the demonstration: real SIP and RTP over loopback sockets, a tone to say and an ear.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::offer_answer::{LocalMedia, Negotiated, OfferAnswer};
use media::session::{Agent, Outbox, Player, SessionConfig};
use signaling::{
    Event, Hop, Identity, Invite, Message, Method, Request, Session, StatusCode, Transport, stateless,
};
use tokio::net::UdpSocket;

/// How long the parties talk at the least, and how many packets they hear: as many as 1.2 s hold. On a machine that has
/// no time these take longer.
const TALK: Duration = Duration::from_millis(1_200);
const HEARD: u64 = 60;
/// How long a whole call may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long what follows the end may take.
const AFTER: Duration = Duration::from_millis(150);
/// Audio at the beginning that is not judged: the first packets of each side cross.
const SETTLING: usize = 1_600;

/// The carrier's protection domain.
const REALM: &str = "demo";

/// What a call was like, seen from this side.
pub(crate) struct Report {
    /// INVITE to 200, in milliseconds.
    pub(crate) setup_ms: f64,
    /// The messages, `>` sent and `<` received.
    pub(crate) ladder: Vec<String>,
    /// What was heard, without the settling.
    pub(crate) heard: Vec<i16>,
    /// Its sample rate, in hertz.
    pub(crate) rate: u32,
}

/// An account the carrier asks for.
pub(crate) struct Account {
    pub(crate) username: &'static str,
    pub(crate) password: String,
}

/// A party with a SIP and an RTP socket.
pub(crate) struct Peer {
    sip: UdpSocket,
    rtp: UdpSocket,
    ladder: Vec<String>,
}

fn seed() -> Result<[u8; 16], String> {
    let mut seed = [0; 16];
    getrandom::fill(&mut seed).map_err(|e| e.to_string())?;
    Ok(seed)
}

impl Peer {
    pub(crate) async fn new() -> Result<Self, String> {
        let bind = || UdpSocket::bind("127.0.0.1:0");
        let (sip, rtp) = (bind().await.map_err(|e| e.to_string())?, bind().await.map_err(|e| e.to_string())?);
        Ok(Self { sip, rtp, ladder: Vec::new() })
    }

    pub(crate) fn address(&self) -> Result<SocketAddr, String> {
        self.sip.local_addr().map_err(|e| e.to_string())
    }

    fn identity(&self) -> Result<Identity, String> {
        let address = self.address()?;
        Ok(Identity {
            session_timer: signaling::SessionTimer::default(),
            contact: format!("sip:peer@{address}"),
            via: address.to_string(),
            user_agent: "Tandem-Demo",
            seed: seed()?,
        })
    }

    fn offer_answer(&self) -> Result<OfferAnswer, String> {
        let address = self.rtp.local_addr().map_err(|e| e.to_string())?;
        Ok(OfferAnswer::new(LocalMedia {
            address: address.ip(),
            port: address.port(),
            session_id: 1,
            ..LocalMedia::default()
        }))
    }

    /// Calls `uri` at `node`, says `hz` and listens.
    pub(crate) async fn call(
        mut self,
        node: SocketAddr,
        uri: &str,
        from: &str,
        hz: f32,
    ) -> Result<Report, String> {
        let mut offer_answer = self.offer_answer()?;
        let invite = Invite {
            request_uri: uri.to_owned(),
            from: format!("<sip:{from}@{}>", self.address()?),
            to: format!("<{uri}>"),
            headers: Vec::new(),
            route: Vec::new(),
            credentials: None,
            offer: Bytes::from(offer_answer.offer()),
        };
        let hop = Hop { transport: Transport::Udp, remote: node, flow: 0 };
        let session = Session::connect(invite, hop, self.identity()?, Instant::now());
        self.talk(session, offer_answer, None, hz, Instant::now()).await
    }

    /// Waits for a call, challenges it, checks the digest, answers, says `hz` and listens.
    pub(crate) async fn answer(mut self, account: &Account, hz: f32) -> Result<Report, String> {
        let nonce = stateless_nonce()?;
        let challenge = challenge(&nonce);
        let key = seed()?;
        let give_up = Instant::now() + PATIENCE;
        let mut started = None;
        loop {
            let (invite, from) = self.next_invite(give_up).await?;
            let started = *started.get_or_insert_with(Instant::now);
            let hop = Hop { transport: Transport::Udp, remote: from, flow: 0 };
            match invite.header(signaling::HeaderName::ProxyAuthorization) {
                None => {
                    let headers = [("Proxy-Authenticate", challenge.as_str())];
                    let refusal = stateless::respond(&invite, StatusCode(407), None, &headers, hop, &key);
                    self.send(&refusal.bytes, refusal.hop.remote).await;
                }
                Some(value) => {
                    verify(value, account, &nonce, invite.uri())?;
                    let mut offer_answer = self.offer_answer()?;
                    let offer = invite.sdp().ok_or("the INVITE carries no offer")?;
                    let (answer, negotiated) = offer_answer.answer(&offer).map_err(|e| e.to_string())?;
                    let now = Instant::now();
                    let mut session = Session::accept(invite, hop, self.identity()?, now);
                    session.ring(now);
                    session.answer(Bytes::from(answer), now);
                    return self.talk(session, offer_answer, Some(negotiated), hz, started).await;
                }
            }
        }
    }

    async fn next_invite(&mut self, give_up: Instant) -> Result<(Request, SocketAddr), String> {
        let mut buffer = vec![0; 65_535];
        loop {
            let received = tokio::time::timeout_at(give_up.into(), self.sip.recv_from(&mut buffer)).await;
            let (length, from) = received.map_err(|_| "no INVITE came")?.map_err(|e| e.to_string())?;
            let Ok(message) = Message::parse(Bytes::copy_from_slice(&buffer[..length])) else { continue };
            self.note('<', &message);
            if let Message::Request(request) = message
                && request.method() == Method::Invite
            {
                return Ok((request, from));
            }
        }
    }

    async fn send(&mut self, bytes: &Bytes, to: SocketAddr) {
        if let Ok(message) = Message::parse(bytes.clone()) {
            self.note('>', &message);
        }
        // Lost on loopback means that the node is gone, which the call's end will tell.
        let _ = self.sip.send_to(bytes, to).await;
    }

    fn note(&mut self, way: char, message: &Message) {
        let line = match message {
            Message::Request(request) => request.method_token().to_owned(),
            Message::Response(response) => format!("{} {}", response.status(), response.reason()),
        };
        self.ladder.push(format!("{way} {line}"));
    }

    async fn talk(
        &mut self,
        mut session: Session,
        mut offer_answer: OfferAnswer,
        mut negotiated: Option<Negotiated>,
        hz: f32,
        started: Instant,
    ) -> Result<Report, String> {
        let give_up = Instant::now() + PATIENCE;
        let (mut answered, mut hang_up, mut over) = (None, None, None);
        let mut audio: Option<media::session::Session> = None;
        let (mut outbox, mut sip, mut rtp) = (Outbox::default(), vec![0; 65_535], vec![0; 2_048]);
        loop {
            while let Some(transmit) = session.poll_transmit() {
                self.send(&transmit.bytes, transmit.hop.remote).await;
            }
            while let Some(event) = session.poll_event() {
                let now = Instant::now();
                match event {
                    Event::Answered { sdp, .. } => {
                        let sdp = sdp.ok_or("the 200 carries no answer")?;
                        negotiated = Some(offer_answer.accept(&sdp).map_err(|e| e.to_string())?);
                        answered = Some(now);
                    }
                    Event::Confirmed { .. } => answered = Some(now),
                    Event::Ended(ended) if audio.is_none() => {
                        return Err(format!(
                            "the call ended before it was answered: {:?} {:?}",
                            ended.cause,
                            ended.status.map(|s| s.0)
                        ));
                    }
                    Event::Ended(_) => over = Some(now + AFTER),
                    _ => {}
                }
                if let (Some(at), true, Some(agreed)) = (answered, audio.is_none(), negotiated.clone()) {
                    let mut leg = media::session::Session::new(
                        SessionConfig {
                            believed: media::session::Believed::default(),
                            negotiated: agreed,
                            agent: Agent::Play(Player::tones(&[(hz, 1_000)], true)),
                            seed: seed()?,
                            initial_timeout: PATIENCE,
                            timeout: PATIENCE,
                            tap: true,
                            noise_cancellation: None,
                            dtmf_tones: false,
                            beep: None,
                        },
                        at,
                    );
                    leg.start(at);
                    audio = Some(leg);
                    hang_up = Some(at + TALK);
                }
            }
            while let Some(transmit) = session.poll_transmit() {
                self.send(&transmit.bytes, transmit.hop.remote).await;
            }
            let now = Instant::now();
            if over.is_some_and(|at| at <= now) || (session.is_terminated() && over.is_some()) {
                break;
            }
            if give_up <= now {
                return Err("the call took too long".to_owned());
            }
            let due = [
                session.poll_timeout(),
                audio.as_ref().and_then(media::session::Session::poll_timeout),
                hang_up.filter(|at| *at > now),
                over,
                Some(give_up),
            ];
            let due = due.into_iter().flatten().min().unwrap_or(give_up);
            tokio::select! {
                received = self.sip.recv_from(&mut sip) => {
                    let (length, from) = received.map_err(|e| e.to_string())?;
                    if let Ok(message) = Message::parse(Bytes::copy_from_slice(&sip[..length])) {
                        self.note('<', &message);
                        session.handle_message(message, Hop { transport: Transport::Udp, remote: from, flow: 0 }, Instant::now());
                    }
                }
                received = self.rtp.recv_from(&mut rtp) => {
                    let (length, from) = received.map_err(|e| e.to_string())?;
                    if let Some(leg) = &mut audio {
                        leg.handle_rtp(&rtp[..length], from, Instant::now(), &mut outbox);
                    }
                }
                () = tokio::time::sleep_until(due.into()) => {}
            }
            let now = Instant::now();
            if session.poll_timeout().is_some_and(|at| at <= now) {
                session.handle_timeout(now);
            }
            let heard = audio.as_ref().is_some_and(|leg| leg.statistics().received >= HEARD);
            if heard && hang_up.is_some_and(|at| at <= now) {
                hang_up = None;
                session.hang_up(None, now);
            }
            if let Some(leg) = &mut audio {
                leg.handle_timeout(now, &mut outbox);
                for (to, bytes) in outbox.iter() {
                    let _ = self.rtp.try_send_to(bytes, to);
                }
                outbox.clear();
            }
        }
        let captured = audio.map(|mut leg| leg.take_captured());
        let (rate, heard) = captured.map_or((0, Vec::new()), |(rate, heard)| (rate.hz(), heard));
        let setup = answered.map_or(Duration::ZERO, |at| at.duration_since(started));
        Ok(Report {
            setup_ms: setup.as_secs_f64() * 1_000.0,
            ladder: std::mem::take(&mut self.ladder),
            heard: heard.get(SETTLING..).unwrap_or_default().to_vec(),
            rate,
        })
    }
}

fn stateless_nonce() -> Result<String, String> {
    Ok(seed()?.iter().map(|b| format!("{b:02x}")).collect())
}

fn challenge(nonce: &str) -> String {
    format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\", algorithm=SHA-256, qop=\"auth\"")
}

/// Checks the answer to the challenge as a carrier would (RFC 7616 3.4.1), on its own arithmetic.
fn verify(value: &str, account: &Account, nonce: &str, uri: &str) -> Result<(), String> {
    use sha2::{Digest, Sha256};
    let get = |name: &str| -> Result<&str, String> {
        let items = value.trim_start_matches("Digest ").split(',');
        let item = items.map(str::trim).find_map(|item| item.strip_prefix(name)?.strip_prefix('='));
        item.map(|v| v.trim_matches('"')).ok_or(format!("the credentials lack {name}"))
    };
    let hash = |text: String| -> String {
        Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
    };
    let ha1 = hash(format!("{}:{REALM}:{}", account.username, account.password));
    let ha2 = hash(format!("INVITE:{uri}"));
    let expected = hash(format!("{ha1}:{nonce}:{}:{}:{}:{ha2}", get("nc")?, get("cnonce")?, get("qop")?));
    let wanted = [
        ("username", account.username),
        ("realm", REALM),
        ("nonce", nonce),
        ("uri", uri),
        ("qop", "auth"),
        ("nc", "00000001"),
        ("response", &expected),
    ];
    for (name, right) in wanted {
        if get(name)? != right {
            return Err(format!("the digest is wrong: {name} is not what was asked for"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use signaling::digest::{Challenge, Credentials, answer};

    #[test]
    fn the_carrier_takes_the_right_password_and_no_other() {
        let challenge = Challenge::parse(&challenge("n0nce")).unwrap();
        let with = |password: &str, uri: &str| {
            let credentials = Credentials::new("demo".to_owned(), password.to_owned());
            answer(&challenge, &credentials, "INVITE", uri, 1, "cn0nce")
        };
        let account = Account { username: "demo", password: "right".to_owned() };
        let uri = "sip:+14155550199@127.0.0.1:5070";
        assert_eq!(verify(&with("right", uri), &account, "n0nce", uri), Ok(()));
        assert!(verify(&with("wrong", uri), &account, "n0nce", uri).is_err());
        assert!(verify(&with("right", "sip:other@x"), &account, "n0nce", uri).is_err());
        assert!(verify(&with("right", uri), &account, "other", uri).is_err());
        assert!(verify("Digest x", &account, "n0nce", uri).is_err());
    }
}
