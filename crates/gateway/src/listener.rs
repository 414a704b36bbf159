//! What becomes of a SIP message: a call's own, a new call, or a stateless answer.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use model::{InboundAuth, RuleResult, Step, Trunk};
use signaling::{
    HeaderName, Hop, Malformed, Message, Method, Replaces, Request, StatusCode, Transmit, Transport,
    stateless,
};
use smallvec::SmallVec;
use tokio::sync::mpsc;

use crate::admission::{CallPermit, DENOISED_CALL, TrunkLimit};
use crate::call;
use crate::calls::{CallInput, MAILBOX, Party};
use crate::counters::Counter;
use crate::departed;
use crate::edge::Edge;
use crate::inbound::{self, Asked, Challenge, Refused, Verdict};
use crate::relay;
use crate::traces;

/// One UDP datagram that [`crate::strangers::admit`] let through.
pub(crate) fn handle_datagram(edge: &Arc<Edge>, datagram: Bytes, hop: Hop) {
    let of_a_call = match Message::parse(datagram) {
        Ok(message) => handle_message(edge, message, hop),
        Err(malformed) => {
            handle_malformed(edge, malformed, hop);
            false
        }
    };
    if !of_a_call {
        edge.in_dialog.forget(hop.remote.ip());
    }
}

/// Something that is not a valid message: answered when it can be, dropped otherwise.
pub(crate) fn handle_malformed(edge: &Arc<Edge>, malformed: Malformed, hop: Hop) {
    edge.counters.count(Counter::Received);
    match malformed.request {
        Some(request) if request.method() != Method::Ack => {
            let status = malformed.status;
            refuse(edge, &request, status, Some(malformed.reason), &[], hop, Counter::RejectedMalformed);
        }
        _ => edge.counters.count(Counter::DroppedParse),
    }
}

/// One message. `false` when nothing of it concerns a call.
pub(crate) fn handle_message(edge: &Arc<Edge>, message: Message, hop: Hop) -> bool {
    edge.counters.count(Counter::Received);
    edge.export_received(&message, hop);
    match edge.calls.find(&message) {
        Some(Party::Live(mailbox)) => {
            if mailbox.try_send(CallInput::Sip(Box::new((message, hop)))).is_err() {
                edge.counters.count(Counter::DroppedCallQueue);
            }
            return true;
        }
        Some(Party::Departed(call)) => {
            departed::answer(edge, &call, &message, hop);
            return true;
        }
        None => {}
    }
    let request = match message {
        Message::Request(request) => request,
        Message::Response(_) => {
            edge.counters.count(Counter::DroppedStray);
            return false;
        }
    };
    match request.method() {
        Method::Ack => edge.counters.count(Counter::DroppedStray),
        _ if request.to_tag().is_some() => {
            refuse(edge, &request, StatusCode(481), None, &[], hop, Counter::RejectedNoDialog);
        }
        Method::Invite => return invite(edge, request, hop),
        // What is only of use inside a dialog, and names none.
        Method::Cancel | Method::Bye | Method::Update | Method::Info | Method::Prack | Method::Notify => {
            refuse(edge, &request, StatusCode(481), None, &[], hop, Counter::RejectedNoDialog)
        }
        Method::Options => options(edge, &request, hop),
        _ => refuse(
            edge,
            &request,
            StatusCode(405),
            None,
            &[("Allow", stateless::ALLOW)],
            hop,
            Counter::RejectedMethod,
        ),
    }
    false
}

fn options(edge: &Arc<Edge>, request: &Request, hop: Hop) {
    if let Err((status, headers)) = stateless::check(request) {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        refuse(edge, request, status, None, &headers, hop, Counter::RejectedMalformed);
        return;
    }
    if let Some(relay::Relay { refused, .. }) = relay::refuses(edge, request, hop) {
        let (status, phrase) = (StatusCode(refused.status), relay::phrase(&refused));
        refuse(edge, request, status, phrase, &[], hop, Counter::RejectedRelay);
        return;
    }
    if let Err(dropped) = edge.answers(hop.remote.ip(), Instant::now()) {
        edge.counters.count(dropped);
        return;
    }
    let status = StatusCode(if edge.is_draining() { 503 } else { 200 });
    send(edge, stateless::respond(request, status, None, capabilities(edge, request, hop), hop, &edge.key));
}

/// What an answer to OPTIONS tells of us. By UDP a stranger's source may be forged, and more must not go there than what
/// came: there what does not fit beside what every answer has is left out, the last first.
fn capabilities(edge: &Edge, request: &Request, hop: Hop) -> &'static [(&'static str, &'static str)] {
    let all: &[(&str, &str)] = &stateless::CAPABILITIES;
    if hop.transport.is_reliable() || edge.directory.load().lists(hop.remote.ip()) {
        return all;
    }
    let bare = stateless::respond(request, StatusCode(200), None, &[], hop, &edge.key).bytes.len();
    let asked: usize = request.raw().iter().map(|part| part.len()).sum();
    let mut room = asked.saturating_sub(bare);
    let fits = all.iter().take_while(|(name, value)| {
        let line = name.len() + value.len() + ": \r\n".len();
        let fits = line <= room;
        room = room.saturating_sub(line);
        fits
    });
    all.get(..fits.count()).unwrap_or_default()
}

/// Answers without keeping anything, when its source may be answered.
fn refuse(
    edge: &Arc<Edge>,
    request: &Request,
    status: StatusCode,
    reason: Option<&str>,
    headers: &[(&str, &str)],
    hop: Hop,
    counter: Counter,
) {
    edge.counters.count(counter);
    if let Err(dropped) = edge.answers(hop.remote.ip(), Instant::now()) {
        edge.counters.count(dropped);
        return;
    }
    send(edge, stateless::respond(request, status, reason, headers, hop, &edge.key));
}

fn send(edge: &Edge, answer: Transmit) {
    let _ = edge.send(answer.hop, answer.bytes);
}

/// An INVITE that belongs to no call yet.
fn invite(edge: &Arc<Edge>, request: Request, hop: Hop) -> bool {
    if let Err((status, headers)) = stateless::check(&request) {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        refuse(edge, &request, status, None, &headers, hop, Counter::RejectedMalformed);
        return false;
    }
    let min = edge.settings.session_timer.min;
    if signaling::is_too_short(&request, min) {
        let min = min.to_string();
        refuse(edge, &request, StatusCode(422), None, &[("Min-SE", &min)], hop, Counter::RejectedMalformed);
        return false;
    }
    let directory = edge.directory.load();
    if let Some(relay) = relay::refuses(edge, &request, hop) {
        let asked = Asked::by(&request, hop.remote);
        let verdict = inbound::decide_against(&directory, &edge.settings, asked, relay.refused, relay.detail);
        refuse_for(edge, &request, &verdict, &relay.refused, hop, Counter::RejectedRelay);
        return false;
    }
    if request.header(HeaderName::Replaces).is_some() {
        return replace(edge, request, hop);
    }
    let authenticate = |trunk: &Trunk, auth: &InboundAuth| {
        edge.inbound_digest.judge(&request, hop, trunk, auth, &edge.counters, Instant::now())
    };
    let asked = Asked::by(&request, hop.remote);
    let mut verdict = inbound::decide(&directory, &edge.settings, asked, &authenticate);
    let route = match &verdict.outcome {
        Ok(route) => route.clone(),
        Err(refused) => {
            let refused = *refused;
            refuse_for(edge, &request, &verdict, &refused, hop, counter_of(refused));
            return false;
        }
    };
    let permit = match place(edge, route.trunk.as_deref(), Some(hop.transport)) {
        Ok(permit) => permit,
        Err((refused, step, counter)) => {
            verdict.steps.push(step);
            refuse_for(edge, &request, &verdict, &refused, hop, counter);
            return false;
        }
    };
    let Some(key) = edge.calls.initial_key(&request) else {
        refuse(
            edge,
            &request,
            StatusCode(400),
            Some("Missing From Tag"),
            &[],
            hop,
            Counter::RejectedMalformed,
        );
        return false;
    };
    edge.counters.count(Counter::CallsInbound);
    let (mailbox, inputs) = mpsc::channel(MAILBOX);
    edge.calls.add_dialog(key, mailbox.clone());
    tokio::spawn(call::inbound::run(
        Arc::clone(edge),
        call::inbound::Arrival { invite: request, hop, route, verdict, permit, key },
        mailbox,
        inputs,
    ));
    true
}

/// An INVITE that is to take the place of a dialog (RFC 3891 3): the call of that dialog decides.
fn replace(edge: &Arc<Edge>, request: Request, hop: Hop) -> bool {
    let only = request.headers(HeaderName::Replaces).count() == 1;
    let named = request.header(HeaderName::Replaces).filter(|_| only).and_then(Replaces::parse);
    let Some(named) = named else {
        refuse(edge, &request, StatusCode(400), None, &[], hop, Counter::RejectedMalformed);
        return false;
    };
    let key = edge.calls.local_key(&named.call_id, &named.to_tag);
    let (Some(mailbox), Some(own)) = (edge.calls.dialog(key), edge.calls.initial_key(&request)) else {
        refuse(edge, &request, StatusCode(481), None, &[], hop, Counter::RejectedNoDialog);
        return false;
    };
    // Repetitions find the call by this; it is taken off with the dialog that the INVITE makes.
    edge.calls.add_dialog(own, mailbox.clone());
    let taken = mailbox.try_send(CallInput::Replace(Box::new((request, hop)))).is_ok();
    if !taken {
        edge.calls.remove_dialog(own);
        edge.counters.count(Counter::DroppedCallQueue);
    }
    taken
}

/// Refuses for a reason that is written down, once for an INVITE and its retransmissions.
fn refuse_for(
    edge: &Arc<Edge>,
    request: &Request,
    verdict: &Verdict,
    refused: &Refused,
    hop: Hop,
    counter: Counter,
) {
    edge.counters.count(counter);
    let (now, source) = (Instant::now(), hop.remote.ip());
    // A trunk without a list serves whoever calls its numbers, so its refusals are no stranger's.
    let served = verdict.trunk.as_ref().is_some_and(|trunk| trunk.admits(source));
    let listed = edge.directory.load().lists(source);
    let answered = if served && !listed {
        if edge.stranger_refusals.take(now) { Ok(()) } else { Err(Counter::DroppedBusy) }
    } else {
        edge.answers(source, now)
    };
    let silent = refused.silent || answered.is_err();
    let answer = (!silent).then(|| refusal(edge, request, verdict, refused, hop, now));
    if verdict.organization_id.is_some()
        && answered != Err(Counter::DroppedMuted)
        && edge.may_write_down(request, hop, now)
    {
        let mut record = verdict.record(refused, &edge.settings.node_name, hop, request.call_id());
        let local = edge.local(hop);
        record.messages.push(traces::refused(false, hop, local, &request.raw().concat()));
        if let Some(answer) = &answer {
            record.messages.push(traces::refused(true, answer.hop, local, &answer.bytes));
        }
        edge.refusal_log.refused(&record, now);
        edge.records.decision(record);
    }
    match answer {
        Some(answer) => send(edge, answer),
        None => edge.counters.count(answered.err().unwrap_or(Counter::DroppedUnknownSource)),
    }
}

/// The answer that a refusal is.
fn refusal(
    edge: &Edge,
    request: &Request,
    verdict: &Verdict,
    refused: &Refused,
    hop: Hop,
    now: Instant,
) -> Transmit {
    let challenges = refused.challenge.zip(verdict.trunk.as_ref()).map(|(challenge, trunk)| {
        edge.inbound_digest.challenge(hop, trunk, challenge == Challenge::Stale, now)
    });
    // With Retry-After the carrier avoids the whole node (RFC 3261 21.5.4): only for what is the node's.
    let mut headers: SmallVec<[(&str, &str); 2]> = SmallVec::new();
    if is_the_nodes(refused) {
        headers.push(("Retry-After", "5"));
    }
    for challenge in challenges.iter().flatten() {
        headers.push(("WWW-Authenticate", challenge));
    }
    stateless::respond(request, StatusCode(refused.status), relay::phrase(refused), &headers, hop, &edge.key)
}

const DRAINING: Refused =
    inbound::refused(503, "draining", "The node takes no new calls: it is being stopped.");
const OVERLOADED: Refused = inbound::refused(
    503,
    "node_overloaded",
    "The node is behind with its work: give it more processor, or spread the calls over more nodes.",
);
const NODE_FULL: Refused = inbound::refused(
    503,
    "node_full",
    "The node carries limits.max_calls calls: raise the limit, or spread the calls over more nodes.",
);
const TRUNK_FULL: Refused = inbound::refused(
    503,
    "trunk_max_concurrent_calls",
    "The trunk carries max_concurrent_calls calls: raise it, or wait until one ends.",
);
const TRUNK_RATE: Refused = inbound::refused(
    503,
    "trunk_max_calls_per_second",
    "The trunk begins max_calls_per_second calls a second: raise it, or ask the carrier to pace its calls.",
);

fn is_the_nodes(refused: &Refused) -> bool {
    [DRAINING.reason, OVERLOADED.reason, NODE_FULL.reason].contains(&refused.reason)
}

/// What stands against one more call.
pub(crate) type NoPlace = (Refused, Step, Counter);

fn no_place(refused: Refused, rule: &'static str, detail: String, counter: Counter) -> NoPlace {
    (refused, Step { rule: rule.into(), result: RuleResult::Fail, detail }, counter)
}

fn trunk_full(limit: TrunkLimit) -> NoPlace {
    match limit {
        TrunkLimit::Concurrent(most) => no_place(
            TRUNK_FULL,
            "max_concurrent_calls",
            format!("{most} calls are in progress"),
            Counter::RejectedLimit,
        ),
        TrunkLimit::PerSecond(most) => no_place(
            TRUNK_RATE,
            "max_calls_per_second",
            format!("{most} calls began within the last second"),
            Counter::RejectedLimit,
        ),
    }
}

fn node_full(edge: &Edge) -> NoPlace {
    let detail = format!(
        "{} calls are in progress, a denoised one counting as {DENOISED_CALL}, and {} is the most",
        edge.call_limit.live(),
        edge.settings.max_calls
    );
    no_place(NODE_FULL, "limits.max_calls", detail, Counter::RejectedLimit)
}

fn draining() -> NoPlace {
    no_place(DRAINING, "draining", "the node is being stopped".to_owned(), Counter::RejectedDraining)
}

/// What stands against any call whatever its trunk.
fn closed(edge: &Edge, by: Option<Transport>) -> Result<(), NoPlace> {
    if edge.is_draining() {
        return Err(draining());
    }
    if edge.load.is_over(by, Instant::now()) {
        let detail = "messages have waited to be read for a quarter of a second and longer".to_owned();
        return Err(no_place(OVERLOADED, "overload", detail, Counter::RejectedOverload));
    }
    Ok(())
}

/// What a call takes of the node.
fn weight(edge: &Edge, trunk: Option<&Trunk>) -> u32 {
    let denoised = trunk.and_then(|trunk| inbound::noise_cancellation(&edge.settings, trunk));
    denoised.map_or(1, |_| DENOISED_CALL)
}

/// A place for a call, on the node and on its trunk. It comes by a transport, or is ours.
pub(crate) fn place(
    edge: &Edge,
    trunk: Option<&Trunk>,
    by: Option<Transport>,
) -> Result<CallPermit, NoPlace> {
    closed(edge, by)?;
    let permit = edge.call_limit.take(weight(edge, trunk)).ok_or_else(|| node_full(edge))?;
    let on_trunk = trunk.map(|trunk| edge.trunk_limits.take(trunk, Instant::now())).transpose();
    Ok(permit.on_trunk(on_trunk.map_err(trunk_full)?))
}

/// Whether a call would get a place.
pub(crate) fn would_place(edge: &Edge, trunk: Option<&Trunk>) -> Result<(), NoPlace> {
    closed(edge, None)?;
    if !edge.call_limit.would_take(weight(edge, trunk)) {
        return Err(node_full(edge));
    }
    trunk.map_or(Ok(()), |trunk| edge.trunk_limits.would_take(trunk, Instant::now())).map_err(trunk_full)
}

fn counter_of(refused: Refused) -> Counter {
    match (refused.status, refused.reason) {
        (401, _) => Counter::RejectedCredentials,
        (403, _) => Counter::RejectedSource,
        (488, _) => Counter::RejectedMedia,
        (480, _) => Counter::RejectedUnavailable,
        _ => Counter::RejectedNotFound,
    }
}
