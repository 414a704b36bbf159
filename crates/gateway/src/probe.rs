//! Whether a trunk's carrier answers: OPTIONS (RFC 3261 11), sent like an INVITE would be, and never a call.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::Probed;
use model::TrunkId;
use signaling::{Message, Options};
use tokio::sync::mpsc;

use crate::calls::{CallInput, MAILBOX};
use crate::edge::Edge;
use crate::outbound;
use crate::targets::Targets;

/// How long a carrier may take; a person waits for the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends OPTIONS and waits for the answer.
pub(crate) async fn ask(edge: &Arc<Edge>, trunk: TrunkId) -> Probed {
    let carrier = edge.directory.load().trunk(trunk).and_then(|trunk| trunk.outbound_config.clone());
    let Some(carrier) = carrier else {
        return Probed { detail: "The trunk has no usable outbound_config.".to_owned(), ..Probed::default() };
    };
    let mut targets = Targets::of(&carrier);
    let mut steps = Vec::new();
    let hop = match targets.next(edge, &mut steps).await {
        Ok(hop) => hop,
        Err(failure) => {
            let details: Vec<&str> =
                steps.iter().map(|step| step.detail.as_str()).chain([failure.detail.as_str()]).collect();
            let detail = format!("{}. {}", capital(&details.join("; ")), failure.advice);
            return Probed { resolved: texts(&targets.tried), detail, ..Probed::default() };
        }
    };
    let mut probed = Probed { resolved: texts(&targets.tried), ..Probed::default() };
    probed.tls = edge.transports.streams.tls(hop.flow);
    let uri = outbound::carrier_uri(&carrier, hop);
    let begun = Instant::now();
    let mut options = Options::send(edge.identity(hop), &uri, hop, begun);
    let key = edge.calls.local_key(options.call_id(), options.local_tag());
    let (mailbox, mut inputs) = mpsc::channel(MAILBOX);
    edge.calls.add_dialog(key, mailbox);
    let end = begun + PATIENCE;
    let answered = loop {
        let mut lost = false;
        while let Some(transmit) = options.poll_transmit() {
            lost |= edge.send(transmit.hop, transmit.bytes).is_err() && hop.transport.is_reliable();
        }
        if lost || Instant::now() >= end {
            break None;
        }
        let due = options.poll_timeout().map_or(end, |at| at.min(end));
        tokio::select! {
            input = inputs.recv() => match input {
                Some(CallInput::Sip(message)) => {
                    if let Message::Response(response) = &message.0
                        && let Some(status) = options.response(response, Instant::now())
                    {
                        break Some(status);
                    }
                }
                Some(_) => {}
                None => break None,
            },
            () = tokio::time::sleep_until(due.into()) => options.handle_timeout(Instant::now()),
        }
    };
    edge.calls.remove_dialog(key);
    let via = hop.transport.as_via();
    probed.detail = match answered {
        Some(status) => {
            probed.latency = Some(begun.elapsed());
            probed.status = Some(status.0);
            match status.0 {
                200..=299 => format!("The carrier answered OPTIONS with {} over {via}.", status.0),
                _ => format!(
                    "The carrier is there: it answered OPTIONS with {} over {via}, which many do without an account.",
                    status.0
                ),
            }
        }
        None => format!(
            "{} did not answer OPTIONS over {via} within {} s: check the address, the port, the transport and the firewalls between.",
            hop.remote,
            PATIENCE.as_secs()
        ),
    };
    probed
}

fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
