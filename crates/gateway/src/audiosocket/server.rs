//! The listener for calls of an Asterisk (`audiosocket.listen`): from sources that are on the list, to the agent whose
//! id the first frame names. The protocol has neither password nor encryption, so the list is everything.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::AgentId;
use signaling::{Hop, Transport};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::frames::{Frames, frame, keep_alive};
use super::{CALL_ID, HANG_UP, call};
use crate::counters::Counter;
use crate::edge::Edge;
use crate::inbound::{self, Asked};
use crate::listener;

/// Connections that have not said whom they want.
const MAX_UNKNOWN: usize = 64;
/// How long they may take to say it.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// Pause after the system refused to hand a connection over: it is out of descriptors.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// How a refused peer is let go.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves until the gateway stops.
pub(crate) async fn serve(edge: Arc<Edge>, listener: TcpListener) {
    let unknown = Arc::new(Semaphore::new(MAX_UNKNOWN));
    loop {
        let accepted = tokio::select! {
            () = edge.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(REFUSED_PAUSE).await;
            continue;
        };
        let source = peer.ip().to_canonical();
        if !edge.settings.audiosocket.allowed.iter().any(|range| range.contains(source)) {
            edge.counters.count(Counter::AudioSocketSource);
            continue;
        }
        let Ok(place) = Arc::clone(&unknown).try_acquire_owned() else {
            edge.counters.count(Counter::AudioSocketLimit);
            continue;
        };
        let edge = Arc::clone(&edge);
        tokio::spawn(async move {
            let stop = edge.stop.clone();
            let first = tokio::time::timeout(FIRST_FRAME, first_frame(stream));
            let first = tokio::select! {
                () = stop.cancelled() => return,
                first = first => first,
            };
            drop(place);
            match first {
                Ok(Some((frames, agent))) => Box::pin(asked(edge, frames, agent, peer)).await,
                Ok(None) | Err(_) => edge.counters.count(Counter::AudioSocketMalformed),
            }
        });
    }
}

/// The connection, and whom it asks for.
async fn first_frame(stream: TcpStream) -> Option<(Frames, AgentId)> {
    stream.set_nodelay(true).and_then(|()| keep_alive(&stream)).ok()?;
    let mut frames = Frames::new(stream);
    let first = poll_fn(|context| frames.poll_next(context)).await.ok()??;
    let [CALL_ID, _, _, id @ ..] = &*first else { return None };
    Some((frames, AgentId(uuid::Uuid::from_slice(id).ok()?)))
}

/// The same rules as for a call to the agent's SIP URI.
async fn asked(edge: Arc<Edge>, mut frames: Frames, agent: AgentId, peer: SocketAddr) {
    let hop = Hop { transport: Transport::Tcp, remote: peer, flow: 0 };
    let asked = Asked::over_audiosocket(agent, peer);
    let mut verdict = inbound::decide_agent(&edge.directory.load(), &edge.settings, asked, agent);
    let placed = match &verdict.outcome {
        Err(refused) => Err(*refused),
        Ok(route) => match listener::place(&edge, None, None) {
            Ok(permit) => Ok((route.clone(), permit)),
            Err((refused, step, _)) => {
                verdict.steps.push(step);
                Err(refused)
            }
        },
    };
    match placed {
        Ok((route, permit)) => call::run(edge, frames, route, verdict, permit, hop).await,
        Err(refused) => {
            edge.counters.count(Counter::AudioSocketRefused);
            if verdict.organization_id.is_some() && edge.listed_records.take(Instant::now()) {
                let mut record = verdict.record(&refused, &edge.settings.node_name, hop, "");
                record.source = call::source(hop);
                record.sip_call_id = None;
                edge.refusal_log.refused(&record, Instant::now());
                edge.records.decision(record);
            }
            let _ = frames.push(&frame(HANG_UP, &[]));
            let _ = tokio::time::timeout(GOODBYE, poll_fn(|context| frames.poll_flush(context))).await;
        }
    }
}
