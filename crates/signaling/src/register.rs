//! A registration that we keep at a registrar (RFC 3261 10.2): one Call-ID, sequence numbers that grow, a binding that
//! is refreshed before it ends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::digest::Credentials;
use crate::hop::{Hop, Transmit};
use crate::message::{HeaderName, Method, NameAddr, RequestBuilder, Response, StatusCode};
use crate::session::{Account, Identity, branch, call_id, derived, label, tag};
use crate::stateless::{self, hex};
use crate::transaction::{Client, ClientOutcome, Outbox};

/// How long a binding is asked for.
pub const EXPIRES: Duration = Duration::from_secs(600);
/// The shortest and the longest time after which a binding is refreshed.
const SOONEST: Duration = Duration::from_secs(5);
const LATEST: Duration = Duration::from_secs(43_200);
/// The longest interval that a registrar may ask for (423).
const MAX_EXPIRES: u32 = 86_400;
/// Longest reason phrase kept, in characters.
const MAX_PHRASE: usize = 128;

/// Who registers where.
#[derive(Debug, Clone)]
pub struct Registrar {
    /// Request-URI: the registrar's domain.
    pub uri: String,
    /// Address of record, as To and From have it, without angle brackets.
    pub aor: String,
    /// User part of the Contact.
    pub user: String,
    /// The account to answer challenges with.
    pub credentials: Credentials,
}

/// What came of a REGISTER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// The binding stands for so long; refresh it earlier, after so long.
    Bound {
        /// As the registrar grants it.
        expires: Duration,
        /// When to refresh.
        refresh_in: Duration,
    },
    /// The binding is removed.
    Removed,
    /// The registrar refuses.
    Refused {
        /// 300 to 699.
        status: StatusCode,
        /// Its reason phrase.
        phrase: String,
        /// Retry-After.
        retry_after: Option<Duration>,
    },
    /// A challenge we cannot answer, or our answer is refused.
    Challenged,
    /// Nothing came before timer F, or it could not be sent.
    NoResponse,
}

/// A registration.
#[derive(Debug)]
pub struct Registration {
    registrar: Registrar,
    identity: Identity,
    hop: Hop,
    call_id: Box<str>,
    local_tag: Box<str>,
    cseq: u32,
    made: u32,
    /// Seconds asked for; 0 removes.
    expires: u32,
    account: Account,
    client: Option<Client>,
    out: Outbox,
    events: VecDeque<Registered>,
}

impl Registration {
    /// A registration over `hop`. Nothing is sent before [`Registration::refresh`].
    #[must_use]
    pub fn new(registrar: Registrar, hop: Hop, identity: Identity) -> Self {
        Self {
            call_id: call_id(&identity),
            local_tag: tag(&identity),
            account: Account::new(registrar.credentials.clone(), hop),
            registrar,
            identity,
            hop,
            cseq: 0,
            made: 0,
            expires: u32::try_from(EXPIRES.as_secs()).unwrap_or(u32::MAX),
            client: None,
            out: Outbox::default(),
            events: VecDeque::new(),
        }
    }

    /// The Call-ID.
    #[must_use]
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Our tag.
    #[must_use]
    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// Sends a REGISTER.
    pub fn refresh(&mut self, now: Instant) {
        self.account.begin();
        self.send(now);
    }

    /// Asks the registrar to forget the binding.
    pub fn remove(&mut self, now: Instant) {
        self.expires = 0;
        self.refresh(now);
    }

    fn contact(&self) -> String {
        match self.identity.contact.split_once(':') {
            Some((scheme, rest)) => format!("{scheme}:{}@{rest}", escaped(&self.registrar.user)),
            None => self.identity.contact.clone(),
        }
    }

    fn send(&mut self, now: Instant) {
        self.cseq += 1;
        self.made += 1;
        let branch = branch(&self.identity, self.made);
        let (hop, uri) = (self.hop, self.registrar.uri.clone());
        let (identity, made) = (&self.identity, &mut self.made);
        let authorization = self.account.headers("REGISTER", &uri, hop, || {
            *made += 1;
            hex(&derived(identity, label::CNONCE, *made))
        });
        let via = format!("SIP/2.0/{} {};branch={branch};rport", hop.transport.as_via(), self.identity.via);
        let aor = &self.registrar.aor;
        let mut builder = RequestBuilder::new("REGISTER", &uri)
            .header(HeaderName::Via, via)
            .header(HeaderName::MaxForwards, 70)
            .header(HeaderName::From, format_args!("<{aor}>;tag={}", self.local_tag))
            .header(HeaderName::To, format_args!("<{aor}>"))
            .header(HeaderName::CallId, &self.call_id)
            .header(HeaderName::CSeq, format_args!("{} REGISTER", self.cseq))
            .header(HeaderName::Contact, format_args!("<{}>", self.contact()))
            .header_named("Expires", self.expires)
            .header(HeaderName::Allow, stateless::ALLOW)
            .header(HeaderName::UserAgent, self.identity.user_agent);
        for (name, value) in authorization {
            builder = builder.header(name, value);
        }
        let client = Client::send(branch, Method::Register, hop, builder.build(), now, &mut self.out);
        self.client = Some(client);
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop()
    }

    /// What came of the last REGISTER.
    pub fn poll_event(&mut self) -> Option<Registered> {
        self.events.pop_front()
    }

    /// When [`Registration::handle_timeout`] is wanted; `None` when no REGISTER is under way.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.client.as_ref().and_then(Client::timeout)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(client) = &mut self.client else { return };
        let pending = client.is_pending();
        client.handle_timeout(now, &mut self.out);
        if client.is_terminated() {
            self.client = None;
            if pending {
                self.events.push_back(Registered::NoResponse);
            }
        }
    }

    /// The REGISTER could not be sent, or its connection is closed.
    pub fn handle_transport_error(&mut self) {
        if self.client.take().is_some_and(|client| client.is_pending()) {
            self.events.push_back(Registered::NoResponse);
        }
    }

    /// Takes a response.
    pub fn handle_response(&mut self, response: &Response, from: Hop, now: Instant) {
        let Some(client) = &mut self.client else { return };
        let ours = response.cseq().number == self.cseq
            && response.top_via().and_then(|via| via.branch()).is_some_and(|b| *b == *client.branch);
        if !ours || client.response(response.status(), now) != ClientOutcome::Final {
            return;
        }
        let asked = client.hop;
        let event = match response.status().0 {
            200..=299 if self.expires == 0 => Registered::Removed,
            200..=299 => self.bound(response),
            401 | 407 => {
                if self.account.take(response, asked, from, false) {
                    return self.send(now);
                }
                Registered::Challenged
            }
            423 => {
                let least = response.header_named("Min-Expires").and_then(|v| v.trim().parse::<u32>().ok());
                match least.filter(|least| (self.expires + 1..=MAX_EXPIRES).contains(least)) {
                    Some(least) => {
                        self.expires = least;
                        return self.send(now);
                    }
                    None => refused(response),
                }
            }
            _ => refused(response),
        };
        self.events.push_back(event);
    }

    /// What a 2xx grants: the expiry of our Contact, or of all, or what was asked for (RFC 3261 10.2.4).
    fn bound(&self, response: &Response) -> Registered {
        let contact = self.contact();
        let ours = |value: &str| {
            let listed = NameAddr::parse(value)?;
            let seconds = listed.param("expires").and_then(|e| e.trim().parse::<u32>().ok());
            Some((same(listed.uri.text, &contact), seconds))
        };
        let listed: Vec<_> = response.list(HeaderName::Contact).filter_map(ours).collect();
        let of_ours = listed.iter().find(|(is_ours, _)| *is_ours).or(match listed.as_slice() {
            // A registrar that rewrites what it lists.
            [only] => Some(only),
            _ => None,
        });
        let seconds = of_ours
            .and_then(|(_, seconds)| *seconds)
            .or_else(|| response.header_named("Expires")?.trim().parse().ok())
            .unwrap_or(self.expires);
        let expires = Duration::from_secs(seconds.into());
        Registered::Bound { expires, refresh_in: (expires * 4 / 5).clamp(SOONEST, LATEST) }
    }
}

fn refused(response: &Response) -> Registered {
    let seconds = response
        .header(HeaderName::RetryAfter)
        .and_then(|v| v.split([';', '(', ' ', '\t']).next()?.parse::<u32>().ok());
    Registered::Refused {
        status: response.status(),
        phrase: response.reason().chars().filter(|c| !c.is_control()).take(MAX_PHRASE).collect(),
        retry_after: seconds.map(|seconds| Duration::from_secs(seconds.into())),
    }
}

/// Whether two URIs have the same user, host and port.
fn same(a: &str, b: &str) -> bool {
    let parts = |text| crate::message::Uri::parse(text).map(|uri| (uri.user, uri.host.to_owned(), uri.port));
    parts(a) == parts(b)
}

/// A user part with what does not stand in one escaped (RFC 3261 25.1).
#[must_use]
pub fn escaped(user: &str) -> String {
    use std::fmt::Write as _;
    user.bytes().fold(String::with_capacity(user.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte) {
            text.push(byte.into());
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::Transport;
    use crate::message::{Message, Request, ResponseBuilder};

    fn hop() -> Hop {
        Hop { transport: Transport::Udp, remote: "203.0.113.9:5060".parse().unwrap(), flow: 0 }
    }

    fn registration() -> Registration {
        let registrar = Registrar {
            uri: "sip:carrier.example".to_owned(),
            aor: "sip:acc@carrier.example".to_owned(),
            user: "a c@c".to_owned(),
            credentials: Credentials::new("acc".to_owned(), "secret".to_owned()),
        };
        let identity = Identity {
            contact: "sip:192.0.2.1:5060".to_owned(),
            via: "192.0.2.1:5060".to_owned(),
            user_agent: "Test",
            seed: [7; 16],
            session_timer: crate::session::SessionTimer::default(),
        };
        Registration::new(registrar, hop(), identity)
    }

    fn sent(registration: &mut Registration) -> Request {
        let bytes = registration.poll_transmit().unwrap().bytes;
        assert!(registration.poll_transmit().is_none());
        match Message::parse(bytes).unwrap() {
            Message::Request(request) => request,
            Message::Response(_) => panic!(),
        }
    }

    fn answer(
        registration: &mut Registration,
        to: &Request,
        status: u16,
        headers: &[(&str, &str)],
        now: Instant,
    ) {
        let mut builder = ResponseBuilder::new(to, StatusCode(status), None, Some("t"), hop().remote);
        for (name, value) in headers {
            builder = builder.header_named(name, *value);
        }
        let Message::Response(response) = Message::parse(builder.build()).unwrap() else { panic!() };
        registration.handle_response(&response, hop(), now);
    }

    #[test]
    fn a_challenged_registration_is_bound_refreshed_and_removed() {
        let now = Instant::now();
        let mut it = registration();
        it.refresh(now);
        let first = sent(&mut it);
        assert_eq!(first.header_named("Expires"), Some("600"));
        assert_eq!(first.contact().unwrap().uri.text, "sip:a%20c%40c@192.0.2.1:5060");
        let challenge = [("WWW-Authenticate", "Digest realm=\"r\", nonce=\"n\", qop=\"auth\"")];
        answer(&mut it, &first, 401, &challenge, now);
        let second = sent(&mut it);
        assert!(second.header(HeaderName::Authorization).unwrap().contains("uri=\"sip:carrier.example\""));
        assert_eq!((first.call_id(), second.cseq().number), (second.call_id(), 2));
        let listed = [
            ("Contact", "<sip:other@192.0.2.9>;expires=9, <sip:a%20c%40c@192.0.2.1:5060>;expires=100"),
            ("Expires", "7"),
        ];
        answer(&mut it, &second, 200, &listed, now);
        let bound =
            Registered::Bound { expires: Duration::from_secs(100), refresh_in: Duration::from_secs(80) };
        assert_eq!(it.poll_event(), Some(bound));
        it.handle_timeout(now + Duration::from_secs(40));
        assert_eq!(it.poll_timeout(), None);
        let later = now + Duration::from_secs(80);
        it.refresh(later);
        // The nonce is used on.
        assert!(sent(&mut it).header(HeaderName::Authorization).unwrap().contains("nc=00000002"));
        it.remove(later);
        let last = sent(&mut it);
        assert_eq!(last.header_named("Expires"), Some("0"));
        answer(&mut it, &last, 200, &[], later);
        assert_eq!(it.poll_event(), Some(Registered::Removed));
    }

    #[test]
    fn what_a_registrar_wants_longer_is_asked_for_longer() {
        let now = Instant::now();
        let mut it = registration();
        it.refresh(now);
        let first = sent(&mut it);
        answer(&mut it, &first, 423, &[("Min-Expires", "1800")], now);
        let second = sent(&mut it);
        assert_eq!(second.header_named("Expires"), Some("1800"));
        answer(&mut it, &second, 200, &[], now);
        let bound =
            Registered::Bound { expires: Duration::from_secs(1_800), refresh_in: Duration::from_secs(1_440) };
        assert_eq!(it.poll_event(), Some(bound));
        // Shorter than what was asked for, or longer than a day: no loop.
        for least in ["1800", "86401", "x"] {
            it.refresh(now);
            let request = sent(&mut it);
            answer(&mut it, &request, 423, &[("Min-Expires", least)], now);
            assert!(matches!(it.poll_event(), Some(Registered::Refused { status: StatusCode(423), .. })));
        }
    }

    #[test]
    fn refusals_silence_and_wrong_passwords_are_told_apart() {
        let now = Instant::now();
        let mut it = registration();
        it.refresh(now);
        let request = sent(&mut it);
        answer(&mut it, &request, 503, &[("Retry-After", "20")], now);
        let told = it.poll_event().unwrap();
        assert!(
            matches!(told, Registered::Refused { status: StatusCode(503), retry_after: Some(wait), .. } if wait.as_secs() == 20)
        );
        it.refresh(now);
        let request = sent(&mut it);
        let challenge = |nonce| format!("Digest realm=\"r\", nonce=\"{nonce}\"");
        answer(&mut it, &request, 401, &[("WWW-Authenticate", &challenge("1"))], now);
        let request = sent(&mut it);
        answer(&mut it, &request, 401, &[("WWW-Authenticate", &challenge("2"))], now);
        assert_eq!(it.poll_event(), Some(Registered::Challenged));
        it.refresh(now);
        let mut at = now;
        while let Some(due) = it.poll_timeout() {
            at = due;
            it.handle_timeout(at);
        }
        assert_eq!((it.poll_event(), at - now), (Some(Registered::NoResponse), Duration::from_secs(32)));
    }
}
