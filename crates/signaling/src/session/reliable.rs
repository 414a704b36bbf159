//! Reliable provisional responses and PRACK (RFC 3262), as UAS and as UAC.

use std::time::Instant;

use bytes::Bytes;

use super::ask::{Ask, Purpose};
use super::{EndCause, Ended, Event, Refusal, Session, derived, label};
use crate::hop::{Hop, Transmit};
use crate::message::{HeaderName, Method, Request, Response, StatusCode};
use crate::stateless;
use crate::transaction::{Retransmission, Server, T1, T1_64};

/// What the peer's INVITE says of reliable responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Cannot,
    May,
    Must,
}

fn wish(invite: &Request) -> Wish {
    if invite.lists(HeaderName::Require, "100rel") {
        Wish::Must
    } else if invite.lists(HeaderName::Supported, "100rel") {
        Wish::May
    } else {
        Wish::Cannot
    }
}

/// A reliable response that awaits its PRACK.
#[derive(Debug)]
struct Outstanding {
    rseq: u32,
    bytes: Bytes,
    hop: Hop,
    retransmission: Retransmission,
    until: Instant,
    /// Whether it carries a session description.
    describes: bool,
}

/// UAS: the reliable responses of one INVITE.
#[derive(Debug, Default)]
pub(super) struct Reliable {
    /// Of the last one; 0 before the first.
    rseq: u32,
    cseq: u32,
    outstanding: Option<Outstanding>,
    /// What is to be sent next, once the outstanding one is acknowledged.
    next: Option<(StatusCode, Option<Bytes>)>,
    /// The 2xx that waits for it.
    answer: Option<Bytes>,
    /// Our description has been acknowledged.
    described: bool,
}

impl Reliable {
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.outstanding.as_ref().map(|o| o.retransmission.at().min(o.until))
    }

    /// Whether a description of ours waits for its PRACK.
    pub(super) fn is_describing(&self) -> bool {
        self.outstanding.as_ref().is_some_and(|o| o.describes)
    }

    pub(super) fn has_described(&self) -> bool {
        self.described
    }
}

impl Session {
    /// Sends a provisional response reliably where the INVITE asks for it, or takes it and there is a description
    /// to carry. `None` where it goes out as any other.
    pub(super) fn provisional_reliably(
        &mut self,
        status: StatusCode,
        sdp: Option<&Bytes>,
        now: Instant,
    ) -> Option<bool> {
        let (invite, hop) =
            self.invite_servers.iter().find_map(|server| Some((server.pending()?, server.hop)))?;
        match wish(invite) {
            Wish::Cannot => return None,
            Wish::May if sdp.is_none() => return None,
            Wish::May | Wish::Must => {}
        }
        let (offerless, cseq) = (invite.sdp().is_none(), invite.cseq().number);
        let mut reliable = self.reliable.take().unwrap_or_default();
        if reliable.outstanding.is_some() {
            // One at a time (RFC 3262 3).
            reliable.next = Some((status, sdp.cloned()));
            self.reliable = Some(reliable);
            return Some(true);
        }
        let sdp = sdp.filter(|_| !reliable.described);
        if offerless && sdp.is_none() && !reliable.described {
            // The first one must carry the offer that the INVITE lacks (RFC 3262 5).
            self.reliable = Some(reliable);
            return Some(false);
        }
        reliable.rseq = match reliable.rseq {
            0 => self.first_rseq(),
            last => last + 1,
        };
        reliable.cseq = cseq;
        let rseq = reliable.rseq;
        let builder = self.invite_reply(status, None)?;
        let builder = builder.header(HeaderName::Require, "100rel").header(HeaderName::RSeq, rseq);
        let bytes = match sdp {
            Some(sdp) => builder.body("application/sdp", sdp),
            None => builder.build(),
        };
        if let Some(server) = self.invite_servers.iter_mut().find(|s| s.pending().is_some()) {
            server.provisional(bytes.clone(), &mut self.out);
        }
        reliable.outstanding = Some(Outstanding {
            rseq,
            bytes,
            hop,
            retransmission: Retransmission::start(T1, T1_64, now),
            until: now + T1_64,
            describes: sdp.is_some(),
        });
        self.reliable = Some(reliable);
        Some(true)
    }

    /// Between 1 and 2^31 - 1, with room to grow (RFC 3262 3).
    fn first_rseq(&mut self) -> u32 {
        self.made += 1;
        let [a, b, c, ..] = derived(&self.identity, label::RSEQ, self.made);
        1 + u32::from_be_bytes([0, a, b, c])
    }

    /// Keeps the 2xx back while a description of ours is not acknowledged (RFC 3262 3); `true` when it waits.
    pub(super) fn answer_waits(&mut self, sdp: &Bytes) -> bool {
        let Some(reliable) = self.reliable.as_deref_mut().filter(|r| r.is_describing()) else { return false };
        reliable.answer = Some(sdp.clone());
        true
    }

    /// Whether a 2xx is being kept back.
    pub(super) fn is_answering(&self) -> bool {
        self.reliable.as_ref().is_some_and(|r| r.answer.is_some())
    }

    pub(super) fn repeat_reliable(&mut self, now: Instant) {
        let Some(outstanding) = self.reliable.as_deref_mut().and_then(|r| r.outstanding.as_mut()) else {
            return;
        };
        if outstanding.until <= now {
            self.reliable = None;
            self.refuse_pending(&Refusal::new(StatusCode(504)), now);
            let ended = Ended { status: Some(StatusCode(504)), ..Ended::new(EndCause::NoPrack) };
            self.end_with(ended, now);
        } else if outstanding.retransmission.fire(now) {
            let (hop, bytes) = (outstanding.hop, outstanding.bytes.clone());
            self.out.push(Transmit { hop, bytes });
        }
    }

    /// A PRACK of the peer.
    pub(super) fn prack(&mut self, request: Request, from: Hop, now: Instant) {
        let meant = self.reliable.as_deref_mut().filter(|reliable| {
            let rseq = reliable.outstanding.as_ref().map(|o| o.rseq);
            rseq.is_some() && rack(&request) == rseq.map(|rseq| (rseq, reliable.cseq))
        });
        let Some(reliable) = meant else {
            // Nothing that it could acknowledge (RFC 3262 3).
            return self.reply(&request, StatusCode(481), &[], from, now);
        };
        let described = reliable.outstanding.take().is_some_and(|o| o.describes);
        reliable.described |= described;
        let (next, answer) = (reliable.next.take(), reliable.answer.take());
        let offered = described && self.offered_in_response();
        if described {
            self.settled = true;
            if let Some(ringing) = &mut self.ringing {
                ringing.sdp = None;
            }
        }
        match request.sdp() {
            Some(sdp) if offered => {
                self.reply(&request, StatusCode(200), &[], from, now);
                self.push(Event::Confirmed { sdp: Some(sdp) });
            }
            // An offer before the first one has its answer.
            Some(_) if !self.settled => self.reply(&request, StatusCode(400), &[], from, now),
            Some(sdp) => {
                let hop = stateless::response_hop(&request, from);
                self.servers.push(Server::begin(request, hop));
                self.push(Event::Offer { sdp: Some(sdp) });
            }
            None => self.reply(&request, StatusCode(200), &[], from, now),
        }
        if let Some(sdp) = answer {
            self.answer(sdp, now);
        } else if let Some((status, sdp)) = next {
            self.provisional(status, sdp, now);
        }
    }

    /// Whether the description in a response of ours was the offer: the INVITE had none.
    fn offered_in_response(&self) -> bool {
        self.invite_servers.iter().find_map(|s| s.pending()).is_some_and(|invite| invite.sdp().is_none())
    }

    /// UAC: acknowledges a reliable provisional response; `false` when it is a repetition or out of order, and says
    /// nothing new (RFC 3262 4).
    pub(super) fn acknowledge_provisional(&mut self, response: &Response, now: Instant) -> bool {
        if !response.lists(HeaderName::Require, "100rel") {
            return true;
        }
        let rseq = response.header(HeaderName::RSeq).and_then(|v| v.trim().parse::<u32>().ok());
        let (Some(rseq), Some(tag)) = (rseq, response.to_tag()) else { return false };
        let Some(calling) = self.calling.as_deref_mut() else { return false };
        let Some(dialog) = calling.early.iter_mut().find(|d| d.is_with(Some(tag))) else { return false };
        if dialog.last_rseq.is_some_and(|last| last.checked_add(1) != Some(rseq)) {
            return false;
        }
        dialog.last_rseq = Some(rseq);
        if response.sdp().is_some() {
            self.settled = true;
        }
        self.note_allow(response);
        let ask = Ask {
            purpose: Purpose::Prack,
            method: Method::Prack,
            remote_tag: tag.into(),
            headers: vec![(HeaderName::RAck, format!("{rseq} {} INVITE", response.cseq().number))],
            body: None,
        };
        self.ask(Box::new(ask), now);
        true
    }
}

/// The response number and the INVITE's sequence number of a RAck header (RFC 3262 7.2).
fn rack(request: &Request) -> Option<(u32, u32)> {
    let mut parts = request.header(HeaderName::RAck)?.split_ascii_whitespace();
    let (rseq, cseq, method) = (parts.next()?, parts.next()?, parts.next()?);
    (method == "INVITE").then_some((rseq.parse().ok()?, cseq.parse().ok()?))
}
