//! What becomes of a SIP message: a call's own, a new call, or a stateless answer.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use signaling::{Hop, Malformed, Message, Method, Request, StatusCode, stateless};
use tokio::sync::mpsc;

use crate::call;
use crate::calls::{CallInput, MAILBOX};
use crate::counters::Counter;
use crate::edge::Edge;
use crate::inbound::{self, Refused};
use crate::settings::UnknownSources;

/// One UDP datagram.
pub(crate) fn handle_datagram(edge: &Arc<Edge>, datagram: Bytes, hop: Hop) {
    match Message::parse(datagram) {
        Ok(message) => handle_message(edge, message, hop),
        Err(malformed) => handle_malformed(edge, malformed, hop),
    }
}

/// Something that is not a valid message: answered when it can be, dropped otherwise.
pub(crate) fn handle_malformed(edge: &Arc<Edge>, malformed: Malformed, hop: Hop) {
    edge.counters.count(Counter::Received);
    match malformed.request {
        Some(request) if request.method() != Method::Ack => {
            refuse(
                edge,
                &request,
                malformed.status,
                Some(malformed.reason),
                &[],
                hop,
                Counter::RejectedMalformed,
            );
        }
        _ => edge.counters.count(Counter::DroppedParse),
    }
}

/// One message.
pub(crate) fn handle_message(edge: &Arc<Edge>, message: Message, hop: Hop) {
    edge.counters.count(Counter::Received);
    if let Some(mailbox) = edge.calls.find(&message) {
        if mailbox.try_send(CallInput::Sip(Box::new((message, hop)))).is_err() {
            edge.counters.count(Counter::DroppedCallQueue);
        }
        return;
    }
    let request = match message {
        Message::Request(request) => request,
        Message::Response(_) => {
            edge.counters.count(Counter::DroppedStray);
            return;
        }
    };
    match request.method() {
        Method::Ack => edge.counters.count(Counter::DroppedStray),
        _ if request.to_tag().is_some() => {
            refuse(edge, &request, StatusCode(481), None, &[], hop, Counter::RejectedNoDialog);
        }
        Method::Invite => invite(edge, request, hop),
        Method::Cancel => refuse(edge, &request, StatusCode(481), None, &[], hop, Counter::RejectedNoDialog),
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
}

fn options(edge: &Arc<Edge>, request: &Request, hop: Hop) {
    let stranger = !edge.directory.load().lists(hop.remote.ip());
    if stranger && edge.settings.unknown_sources == UnknownSources::Drop {
        edge.counters.count(Counter::DroppedUnknownSource);
        return;
    }
    if let Err((status, headers)) = stateless::check(request) {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        refuse(edge, request, status, None, &headers, hop, Counter::RejectedMalformed);
        return;
    }
    if stranger && !edge.refusals.may_refuse(hop.remote.ip(), Instant::now()) {
        edge.counters.count(Counter::DroppedMuted);
        return;
    }
    let answer = stateless::options(request, hop, &edge.key, !edge.is_draining());
    let _ = edge.transports.send(answer.hop, answer.bytes);
}

/// Answers without keeping anything. A stranger gets nothing with `sip.unknown_sources = "drop"`, and nothing more
/// once it has been refused too often.
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
    if !edge.directory.load().lists(hop.remote.ip()) {
        if edge.settings.unknown_sources == UnknownSources::Drop {
            edge.counters.count(Counter::DroppedUnknownSource);
            return;
        }
        if !edge.refusals.may_refuse(hop.remote.ip(), Instant::now()) {
            edge.counters.count(Counter::DroppedMuted);
            return;
        }
    }
    let answer = stateless::respond(request, status, reason, headers, hop, &edge.key);
    let _ = edge.transports.send(answer.hop, answer.bytes);
}

/// An INVITE that belongs to no call yet.
fn invite(edge: &Arc<Edge>, request: Request, hop: Hop) {
    if let Err((status, headers)) = stateless::check(&request) {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        refuse(edge, &request, status, None, &headers, hop, Counter::RejectedMalformed);
        return;
    }
    let directory = edge.directory.load();
    let verdict = inbound::decide(&directory, &edge.settings, &request, hop.remote);
    let route = match &verdict.outcome {
        Ok(route) => route.clone(),
        Err(refused) => {
            let refused = *refused;
            let counter = counter_of(refused);
            // A retransmission is refused again, and recorded once: the response is lost more often than the record.
            if verdict.organization_id.is_some() {
                let record = verdict.record(
                    refused,
                    &edge.settings.node_name,
                    hop.remote,
                    hop.transport.as_via(),
                    request.call_id(),
                );
                edge.records.decision(record);
            }
            if refused.silent {
                edge.counters.count(counter);
                edge.counters.count(Counter::DroppedUnknownSource);
                return;
            }
            refuse(edge, &request, StatusCode(refused.status), None, &[], hop, counter);
            return;
        }
    };
    if edge.is_draining() {
        refuse(
            edge,
            &request,
            StatusCode(503),
            None,
            &[("Retry-After", "5")],
            hop,
            Counter::RejectedDraining,
        );
        return;
    }
    let Some(permit) = edge.call_limit.take() else {
        refuse(edge, &request, StatusCode(503), None, &[("Retry-After", "5")], hop, Counter::RejectedLimit);
        return;
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
        return;
    };
    edge.counters.count(Counter::CallsInbound);
    let (mailbox, inputs) = mpsc::channel(MAILBOX);
    edge.calls.add_dialog(key, mailbox.clone());
    tokio::spawn(call::inbound(
        Arc::clone(edge),
        call::Arrival { invite: request, hop, route, verdict, permit, key },
        mailbox,
        inputs,
    ));
}

fn counter_of(refused: Refused) -> Counter {
    match (refused.status, refused.reason) {
        (403, _) => Counter::RejectedSource,
        (488, _) => Counter::RejectedMedia,
        (480, _) => Counter::RejectedUnavailable,
        _ => Counter::RejectedNotFound,
    }
}
