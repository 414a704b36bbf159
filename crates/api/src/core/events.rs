//! Server-sent events: call state changes as they happen.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use model::{Conversation, OrganizationId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::conversations::ConversationOut;
use crate::ApiState;
use crate::auth::{Caller, ConversationsRead};
use crate::error::ApiError;
use crate::routes::{Routes, operations};

/// A comment is sent after so long without an event, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A client that did not ask for an event stream is let go after so long without an event: it may be waiting for an
/// end that never comes.
const UNASKED: Duration = Duration::from_secs(8);

/// Event streams an organization may hold open: each holds one of the node's connections.
const MAX_STREAMS: usize = 64;
/// When a client that holds too many may try again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// The event streams that are open, by organization.
#[derive(Clone, Default)]
pub(crate) struct Streams(Arc<Mutex<HashMap<OrganizationId, usize>>>);

impl Streams {
    fn open(&self, organization: OrganizationId) -> Option<OpenStream> {
        let mut open = self.0.lock();
        let count = open.entry(organization).or_default();
        if *count >= MAX_STREAMS {
            return None;
        }
        *count += 1;
        Some(OpenStream { streams: self.clone(), organization })
    }
}

/// One open stream; closed when it is dropped.
struct OpenStream {
    streams: Streams,
    organization: OrganizationId,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock();
        if let Some(count) = open.get_mut(&self.organization) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.organization);
            }
        }
    }
}

/// What one subscriber reads from.
struct Subscription {
    changes: Receiver<Arc<Conversation>>,
    state: ApiState,
    caller: Caller<ConversationsRead>,
    /// Longest wait for an event; `None`: any.
    patience: Option<Duration>,
    _open: OpenStream,
}

impl Subscription {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            let change = match self.patience {
                None => self.changes.recv().await,
                Some(patience) => tokio::time::timeout(patience, self.changes.recv()).await.ok()?,
            };
            match change {
                Ok(call) if call.organization_id == self.caller.organization => {
                    // A credential that was revoked while the stream was open reads no further.
                    let (credential, owner) = (self.caller.credential, self.caller.organization);
                    let good = self.state.store.is_good(credential, owner, Timestamp::now()).await;
                    if !good.unwrap_or(false) {
                        return None;
                    }
                    let id = format!("{}/{:x}", call.id, call.updated_at.0);
                    let shown =
                        ConversationOut::of(&self.state, &self.caller, Conversation::clone(&call)).await;
                    let Ok(shown) = shown else { continue };
                    let Ok(event) = Event::default().event("conversation.updated").id(id).json_data(shown)
                    else {
                        continue;
                    };
                    return Some((Ok(event), self));
                }
                Ok(_) => {}
                // The client reads slower than calls change: it is told to read the list again.
                Err(RecvError::Lagged(missed)) => {
                    let event = Event::default().event("lagged").data(format!("{{\"missed\":{missed}}}"));
                    return Some((Ok(event), self));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Streams the organization's call state changes as server-sent events, from now on: `conversation.updated` with the
/// conversation as data, and `lagged` when events were lost because the client read too slowly. A stream opened
/// without `Accept: text/event-stream` ends after 8 s without an event.
#[utoipa::path(get, path = "/core/events", operation_id = "stream_events", tag = "Conversations",
    responses((status = 200, description = "The stream.", body = String, content_type = "text/event-stream")))]
async fn events(
    caller: Caller<ConversationsRead>,
    State(state): State<ApiState>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Some(open) = state.streams.open(caller.organization) else {
        let sentence = format!(
            "The organization has {MAX_STREAMS} event streams open, which is the limit; close one first."
        );
        return Err(ApiError::UsedUp(sentence, TRY_AGAIN));
    };
    let asked = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let asked = asked.into_iter().any(|accept| accept.contains("text/event-stream"));
    let subscription = Subscription {
        changes: state.cluster.call_changes(),
        state,
        caller,
        patience: (!asked).then_some(UNASKED),
        _open: open,
    };
    let events = stream::unfold(subscription, Subscription::next);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

pub(super) fn routes() -> Routes {
    operations!(events)
}
