//! Session timers (RFC 4028), in both roles: the session is refreshed at half its interval by the side that agreed
//! to, and ended with BYE when no refresh comes.

use std::time::{Duration, Instant};

use super::ask::{Ask, Purpose};
use super::{EndCause, Ended, Reason, Session, State};
use crate::message::{Head, HeaderName, Method, Request, RequestBuilder, Response, StatusCode};
use crate::transaction::{due, earliest};

/// Longest session interval taken from a peer, in seconds.
const MAX_INTERVAL: u32 = 86_400;
/// Min-SE where nobody names one (RFC 4028 5).
const DEFAULT_MIN: u32 = 90;
/// How often a 422 is answered with a longer interval.
const MAX_RAISES: u8 = 3;
/// Wait before a refresh that was refused is tried once more.
const RETRY: Duration = Duration::from_secs(10);

/// What this side wants of session timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionTimer {
    /// The interval we ask for, in seconds; 0 asks for none, and still keeps to what the peer asks.
    pub interval: u32,
    /// The shortest one we take, in seconds (Min-SE); RFC 4028 5 wants 90 at least.
    pub min: u32,
}

impl Default for SessionTimer {
    fn default() -> Self {
        Self { interval: 1_800, min: DEFAULT_MIN }
    }
}

/// The timer of one session.
#[derive(Debug, Default)]
pub(super) struct Timer {
    /// The interval in force, in seconds.
    interval: Option<u32>,
    /// Whether refreshing is ours.
    ours: bool,
    /// The peer's Min-SE, in seconds.
    min: u32,
    raises: u8,
    refresh_at: Option<Instant>,
    expires_at: Option<Instant>,
    /// Whether the peer takes UPDATE.
    pub(super) update: bool,
}

impl Timer {
    pub(super) fn timeout(&self) -> Option<Instant> {
        earliest([self.refresh_at, self.expires_at])
    }

    /// No more refreshes: the call is over.
    pub(super) fn stop(&mut self) {
        (self.refresh_at, self.expires_at) = (None, None);
    }

    fn set(&mut self, agreed: Option<Agreed>, now: Instant) {
        self.stop();
        self.interval = agreed.map(|a| a.interval);
        let Some(agreed) = agreed else { return };
        self.ours = agreed.ours;
        let interval = Duration::from_secs(agreed.interval.into());
        self.refresh_at = agreed.ours.then(|| now + interval / 2);
        // RFC 4028 10: before the peer gives up.
        self.expires_at = Some(now + interval - (interval / 3).min(Duration::from_secs(32)));
    }
}

/// What both sides keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreed {
    interval: u32,
    ours: bool,
}

/// A Session-Expires value: the interval in seconds, and the refresher.
fn session_expires(head: &Head) -> Option<(u32, Option<&str>)> {
    let value = head.header(HeaderName::SessionExpires)?;
    let (interval, params) = value.split_once(';').unwrap_or((value, ""));
    let interval = interval.trim().parse::<u32>().ok()?.min(MAX_INTERVAL);
    Some((interval, crate::message::param(params, "refresher")))
}

fn min_se(head: &Head) -> Option<u32> {
    let value = head.header(HeaderName::MinSe)?;
    value.split(';').next()?.trim().parse().ok()
}

fn supports(head: &Head) -> bool {
    head.lists(HeaderName::Supported, "timer") || head.lists(HeaderName::Require, "timer")
}

/// Whether a request asks for a shorter interval than `min` seconds, and its sender understands 422 (RFC 4028 9).
#[must_use]
pub fn is_too_short(request: &Request, min: u32) -> bool {
    supports(request) && session_expires(request).is_some_and(|(interval, _)| interval < min)
}

impl Session {
    /// The timer's headers of a request of ours that refreshes (RFC 4028 7.1, 7.4).
    pub(super) fn timer_wishes(&self) -> Vec<(HeaderName, String)> {
        let mut wishes = vec![(HeaderName::Supported, crate::stateless::SUPPORTED.to_owned())];
        let wanted = self.identity.session_timer;
        let floor = self.timer.min.max(wanted.min);
        let (interval, refresher) = match self.timer.interval {
            Some(interval) => {
                (interval.max(floor), if self.timer.ours { ";refresher=uac" } else { ";refresher=uas" })
            }
            None if wanted.interval > 0 => (wanted.interval.max(floor), ""),
            None => return wishes,
        };
        wishes.push((HeaderName::SessionExpires, format!("{interval}{refresher}")));
        if floor > DEFAULT_MIN {
            wishes.push((HeaderName::MinSe, floor.to_string()));
        }
        wishes
    }

    /// What a request of the peer's makes of the timer (RFC 4028 9).
    pub(super) fn timer_asked(&self, request: &Request) -> Option<Agreed> {
        let wanted = self.identity.session_timer;
        let supported = supports(request);
        let (interval, refresher) = match session_expires(request) {
            Some((interval, refresher)) => (interval.max(wanted.min), refresher),
            // A peer that says nothing of timers in a later request has not ended the one in force.
            None => match self.timer.interval {
                Some(interval) => (interval, None),
                None if supported && wanted.interval > 0 => (wanted.interval, None),
                None => return None,
            },
        };
        let interval = interval.max(min_se(request).unwrap_or_default().min(MAX_INTERVAL));
        let ours = match refresher {
            _ if !supported => true,
            Some(side) => !side.eq_ignore_ascii_case("uac"),
            None => self.timer.interval.is_none() || self.timer.ours,
        };
        Some(Agreed { interval, ours })
    }

    /// The headers of a 2xx that agrees.
    pub(super) fn timer_headers(
        &self,
        request: &Request,
        agreed: Option<Agreed>,
    ) -> Vec<(HeaderName, String)> {
        let mut headers = vec![(HeaderName::Supported, crate::stateless::SUPPORTED.to_owned())];
        if let Some(agreed) = agreed {
            let side = if agreed.ours { "uas" } else { "uac" };
            headers.push((HeaderName::SessionExpires, format!("{};refresher={side}", agreed.interval)));
            if supports(request) {
                headers.push((HeaderName::Require, "timer".to_owned()));
            }
        }
        headers
    }

    /// A 2xx of ours went out.
    pub(super) fn timer_agreed(&mut self, agreed: Option<Agreed>, now: Instant) {
        self.timer.set(agreed, now);
    }

    /// A 2xx to a request of ours that refreshes (RFC 4028 7.2).
    pub(super) fn timer_answered(&mut self, response: &Response, now: Instant) {
        self.note_allow(response);
        self.timer.raises = 0;
        let agreed = session_expires(response).map(|(interval, refresher)| Agreed {
            interval: interval.max(self.identity.session_timer.min),
            ours: !refresher.is_some_and(|side| side.eq_ignore_ascii_case("uas")),
        });
        self.timer.set(agreed, now);
    }

    /// Remembers whether the peer takes UPDATE.
    pub(super) fn note_allow(&mut self, head: &Head) {
        if head.header(HeaderName::Allow).is_some() {
            self.timer.update = head.lists(HeaderName::Allow, "UPDATE");
        }
    }

    /// Takes the Min-SE of a 422; `false` when a longer interval would not help (RFC 4028 7.3).
    pub(super) fn raise_interval(&mut self, response: &Response) -> bool {
        let Some(min) = min_se(response).filter(|min| *min <= MAX_INTERVAL) else { return false };
        self.timer.raises += 1;
        if self.timer.raises > MAX_RAISES || min <= self.timer.min {
            return false;
        }
        self.timer.min = min;
        true
    }

    /// Refreshes the session when it is due, and ends it when its time is over.
    pub(super) fn time_session(&mut self, now: Instant) {
        if self.state != State::Confirmed {
            return;
        }
        if due(self.timer.expires_at, now) {
            return self.expire(now);
        }
        if due(self.timer.refresh_at, now) {
            self.refresh_session(now);
        }
    }

    fn expire(&mut self, now: Instant) {
        let text = Some("session expired".to_owned());
        self.send_bye(Some(Reason { protocol: "SIP".to_owned(), cause: 408, text }), now);
        self.end_with(Ended::with_status(EndCause::SessionExpired, StatusCode(200)), now);
    }

    /// UPDATE when the peer takes it, else a re-INVITE with the description that stands (RFC 4028 7.4).
    fn refresh_session(&mut self, now: Instant) {
        if self.is_offered() || self.offers() || self.modify.is_some() {
            // Another exchange is under way, which may refresh as well.
            self.timer.refresh_at = Some(now + RETRY);
            return;
        }
        self.timer.refresh_at = None;
        if !self.timer.update {
            if let Some(sdp) = self.local_sdp.clone() {
                self.reoffer(sdp, true, now);
            }
            return;
        }
        let Some(remote_tag) = self.peer_tag() else { return };
        let headers = self.timer_wishes();
        let ask = Ask { purpose: Purpose::Update, method: Method::Update, remote_tag, headers, body: None };
        self.ask(Box::new(ask), now);
    }

    /// A refresh got no 2xx. Another one follows before the session expires; a peer that knows of no call, or says
    /// nothing, has lost it (RFC 4028 10).
    pub(super) fn refresh_failed(&mut self, status: StatusCode, response: Option<&Response>, now: Instant) {
        match status.0 {
            408 | 481 => {
                let reason = Reason { protocol: "SIP".to_owned(), cause: status.0, text: None };
                self.send_bye(Some(reason), now);
                self.end_with(Ended::with_status(EndCause::SessionExpired, status), now);
            }
            422 if response.is_some_and(|r| self.raise_interval(r)) => {
                self.timer.refresh_at = Some(now);
            }
            405 | 420 | 501 if self.timer.update => {
                self.timer.update = false;
                self.timer.refresh_at = Some(now);
            }
            _ => self.timer.refresh_at = Some(now + RETRY),
        }
    }

    /// Adds headers of the timer to a request.
    pub(super) fn add_timer(&self, mut builder: RequestBuilder) -> RequestBuilder {
        for (name, value) in self.timer_wishes() {
            builder = builder.header(name, value);
        }
        builder
    }
}
