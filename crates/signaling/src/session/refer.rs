//! REFER (RFC 3515) in both directions, with its implicit subscription or without (RFC 4488).

use std::time::Instant;

use bytes::Bytes;

use super::ask::{Ask, Purpose};
use super::{Event, Refusal, Session, State};
use crate::hop::Hop;
use crate::message::{HeaderName, Method, NameAddr, Request, Response, ResponseBuilder, StatusCode};
use crate::stateless;
use crate::transaction::Server;

/// How long our subscription states say they last, in seconds; a transfer is over before.
const SUBSCRIPTION: u32 = 180;
/// Longest sipfrag that is read, in bytes.
const MAX_SIPFRAG: usize = 2_048;
/// Longest Refer-To that is handed on, in bytes.
const MAX_TARGET: usize = 1_024;

/// How a REFER of ours fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Referral {
    /// The peer takes it. Where it is not followed, no more is heard (RFC 4488).
    Accepted {
        /// NOTIFYs tell of the outcome.
        followed: bool,
    },
    /// The peer refused it: 300 to 699; 408 and 503 also when there was no answer.
    Refused(StatusCode),
    /// A provisional response of the target.
    Progress(StatusCode),
    /// The target's final response; `None` when the peer ended the subscription without one.
    Done(Option<StatusCode>),
}

/// A REFER of ours.
#[derive(Debug, Default)]
pub(super) struct Referring {
    accepted: bool,
    over: bool,
}

/// A REFER of the peer that we took.
#[derive(Debug)]
pub(super) struct Referred {
    /// The Event header of its NOTIFYs; `None` without subscription.
    event: Option<String>,
}

impl Session {
    /// Asks the peer to call `target`, a URI that holds no `<`, `>` or line end (RFC 3515 2.1). The outcome comes as
    /// [`Event::Referral`]. `false` when the call is not established or another REFER is under way.
    pub fn refer(&mut self, target: &str, now: Instant) -> bool {
        let busy = self.referring.as_ref().is_some_and(|r| !r.over);
        if self.state != State::Confirmed || busy {
            return false;
        }
        let Some(remote_tag) = self.peer_tag() else { return false };
        let local = self.dialog.as_ref().and_then(|d| Some(NameAddr::parse(&d.local)?.uri.text.to_owned()));
        let mut headers = vec![
            (HeaderName::ReferTo, format!("<{target}>")),
            (HeaderName::Supported, stateless::SUPPORTED.to_owned()),
            (HeaderName::Allow, stateless::ALLOW.to_owned()),
        ];
        if let Some(local) = local {
            headers.push((HeaderName::ReferredBy, format!("<{local}>")));
        }
        self.referring = Some(Box::default());
        let ask = Ask { purpose: Purpose::Refer, method: Method::Refer, remote_tag, headers, body: None };
        self.ask(Box::new(ask), now);
        true
    }

    pub(super) fn refer_response(&mut self, response: &Response) {
        if !response.status().is_success() {
            return self.referred(Referral::Refused(response.status()));
        }
        let followed = !response
            .header(HeaderName::ReferSub)
            .is_some_and(|v| v.split(';').next().unwrap_or(v).trim().eq_ignore_ascii_case("false"));
        self.referred(Referral::Accepted { followed });
    }

    /// Tells how the REFER fares, until it is over.
    pub(super) fn referred(&mut self, referral: Referral) {
        let Some(referring) = self.referring.as_deref_mut().filter(|r| !r.over) else { return };
        match &referral {
            Referral::Accepted { .. } if referring.accepted => return,
            // A NOTIFY may overtake the 202.
            Referral::Accepted { .. } | Referral::Progress(_) => referring.accepted = true,
            Referral::Refused(_) | Referral::Done(_) => referring.over = true,
        }
        if self.state != State::Over {
            self.push(Event::Referral(referral));
        }
    }

    /// A NOTIFY of the peer: of our REFER, or of nothing we asked for (RFC 6665 4.1.3).
    pub(super) fn notify(&mut self, request: &Request, from: Hop, now: Instant) {
        let event = request.header(HeaderName::Event).unwrap_or_default();
        let package = event.split(';').next().unwrap_or(event).trim();
        if self.referring.is_none() {
            return self.reply(request, StatusCode(481), &[], from, now);
        }
        if !package.eq_ignore_ascii_case("refer") {
            return self.reply(request, StatusCode(489), &[("Allow-Events", "refer")], from, now);
        }
        self.reply(request, StatusCode(200), &[], from, now);
        let state = request.header(HeaderName::SubscriptionState).unwrap_or_default();
        let state = state.split(';').next().unwrap_or(state).trim();
        match sipfrag(request) {
            Some(status) if status.0 >= 200 => self.referred(Referral::Done(Some(status))),
            Some(status) if !state.eq_ignore_ascii_case("terminated") => {
                self.referred(Referral::Progress(status));
            }
            _ if state.eq_ignore_ascii_case("terminated") => self.referred(Referral::Done(None)),
            _ => {}
        }
    }

    /// A REFER of the peer: [`Session::accept_refer`] or [`Session::refuse_refer`].
    pub(super) fn refer_request(&mut self, request: Request, from: Hop, now: Instant) {
        let busy =
            self.referred.is_some() || self.servers.iter().any(|s| s.waits(&[Method::Refer]).is_some());
        if busy {
            return self.busy(&request, from, now);
        }
        // Exactly one (RFC 3515 2.4.1).
        let only = request.headers(HeaderName::ReferTo).count() == 1;
        let target = request.header(HeaderName::ReferTo).filter(|_| only).and_then(NameAddr::parse);
        let target = target.map(|t| t.uri.text.to_owned()).filter(|text| text.len() <= MAX_TARGET);
        let Some(target) = target else {
            return self.reply(&request, StatusCode(400), &[], from, now);
        };
        let hop = stateless::response_hop(&request, from);
        self.servers.push(Server::begin(request, hop));
        self.push(Event::Refer { target });
    }

    /// Takes the REFER of [`Event::Refer`]: 202, and NOTIFYs unless the peer wants none. `false` when none waits.
    pub fn accept_refer(&mut self, now: Instant) -> bool {
        let later = self.refers > 0;
        let Some(request) = self.servers.iter().find_map(|s| s.waits(&[Method::Refer])) else { return false };
        let quiet = request
            .header(HeaderName::ReferSub)
            .is_some_and(|v| v.split(';').next().unwrap_or(v).trim().eq_ignore_ascii_case("false"));
        // The second subscription of a dialog and each further one carry the REFER's number (RFC 3515 2.4.6).
        let id = if later { format!(";id={}", request.cseq().number) } else { String::new() };
        let finished = self.finish_request(&[Method::Refer], now, |session, request, hop| {
            let builder = session
                .reply_builder(request, StatusCode(202), None, hop)
                .header(HeaderName::Contact, format_args!("<{}>", session.identity.contact));
            if quiet { builder.header(HeaderName::ReferSub, "false").build() } else { builder.build() }
        });
        if !finished {
            return false;
        }
        self.refers = self.refers.saturating_add(1);
        self.referred = Some(Box::new(Referred { event: (!quiet).then(|| format!("refer{id}")) }));
        self.notify_refer(StatusCode(100), now);
        true
    }

    /// Refuses the REFER of [`Event::Refer`]; `false` when none waits.
    pub fn refuse_refer(&mut self, refusal: &Refusal, now: Instant) -> bool {
        self.refuse_request(&[Method::Refer], refusal, now)
    }

    /// Tells the peer how its REFER fares; a final status ends it. `false` when there is none under way.
    pub fn notify_refer(&mut self, status: StatusCode, now: Instant) -> bool {
        let Some(referred) = &self.referred else { return false };
        let event = referred.event.clone();
        if status.0 >= 200 {
            self.referred = None;
        }
        let (Some(event), false) = (event, self.is_over()) else { return true };
        let Some(remote_tag) = self.peer_tag() else { return true };
        let state = if status.0 < 200 {
            format!("active;expires={SUBSCRIPTION}")
        } else {
            "terminated;reason=noresource".to_owned()
        };
        let body = format!("SIP/2.0 {status} {}\r\n", status.phrase());
        let ask = Ask {
            purpose: Purpose::Notify,
            method: Method::Notify,
            remote_tag,
            headers: vec![(HeaderName::Event, event), (HeaderName::SubscriptionState, state)],
            body: Some(("message/sipfrag;version=2.0", Bytes::from(body))),
        };
        self.ask(Box::new(ask), now);
        true
    }

    fn reply_builder(
        &self,
        request: &Request,
        status: StatusCode,
        reason: Option<&str>,
        hop: Hop,
    ) -> ResponseBuilder {
        ResponseBuilder::new(request, status, reason, Some(&self.local_tag), hop.remote)
    }

    /// Refuses the request of these methods that waits; `false` when none does.
    pub(super) fn refuse_request(&mut self, methods: &[Method], refusal: &Refusal, now: Instant) -> bool {
        self.finish_request(methods, now, |session, request, hop| {
            let reason = refusal.reason.as_deref();
            let mut builder = session.reply_builder(request, refusal.status, reason, hop);
            for (name, value) in &refusal.headers {
                builder = builder.header_named(name, value);
            }
            builder.build()
        })
    }

    /// Answers the request of these methods that waits; `false` when none does.
    pub(super) fn finish_request(
        &mut self,
        methods: &[Method],
        now: Instant,
        respond: impl FnOnce(&Self, &Request, Hop) -> Bytes,
    ) -> bool {
        let Some(at) = self.servers.iter().position(|s| s.waits(methods).is_some()) else { return false };
        let Some(server) = self.servers.get(at) else { return false };
        let Some(request) = server.pending() else { return false };
        let response = respond(self, request, server.hop);
        if let Some(server) = self.servers.get_mut(at) {
            server.finish(response, now, &mut self.out);
        }
        true
    }
}

/// The status of a NOTIFY's `message/sipfrag` body (RFC 3420).
fn sipfrag(request: &Request) -> Option<StatusCode> {
    let kind = request.header(HeaderName::ContentType)?;
    if !kind.split(';').next().unwrap_or(kind).trim().eq_ignore_ascii_case("message/sipfrag") {
        return None;
    }
    let body = request.body();
    let text = std::str::from_utf8(body.get(..body.len().min(MAX_SIPFRAG))?).ok()?;
    let mut line = text.lines().next()?.split_ascii_whitespace();
    if !line.next()?.eq_ignore_ascii_case("SIP/2.0") {
        return None;
    }
    let status: u16 = line.next()?.parse().ok()?;
    (100..700).contains(&status).then_some(StatusCode(status))
}
