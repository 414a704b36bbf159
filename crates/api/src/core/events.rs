//! Server-sent events: call state changes as they happen.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use model::Conversation;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::conversations::ConversationOut;
use crate::ApiState;
use crate::auth::{Caller, ConversationsRead};
use crate::routes::{Routes, operations};

/// A comment is sent after so long without an event, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A client that did not ask for an event stream is let go after so long without an event: it may be waiting for an
/// end that never comes.
const UNASKED: Duration = Duration::from_secs(8);

/// What one subscriber reads from.
struct Subscription {
    changes: Receiver<std::sync::Arc<Conversation>>,
    state: ApiState,
    caller: Caller<ConversationsRead>,
    /// Longest wait for an event; `None`: any.
    patience: Option<Duration>,
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
) -> Response {
    let asked = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let asked = asked.into_iter().any(|accept| accept.contains("text/event-stream"));
    let subscription = Subscription {
        changes: state.cluster.call_changes(),
        state,
        caller,
        patience: (!asked).then_some(UNASKED),
    };
    let events = stream::unfold(subscription, Subscription::next);
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

pub(super) fn routes() -> Routes {
    operations!(events)
}
