//! The resources under `/core`.

mod agent_config;
mod agent_versions;
mod agents;
mod conversation_media;
mod conversation_recording;
mod conversation_start;
mod conversation_transfer;
mod conversations;
mod decisions;
mod deploy_as_sip;
mod events;
mod inbound_routing;
mod listener_token;
pub(crate) mod organization;
mod phone_numbers;
mod publish;
mod trace;
mod trunk_config;
mod trunk_health;
mod trunk_simulate;
mod trunk_test;
mod trunks;
mod webhook_deliveries;
mod webhook_url;
mod webhooks;

use std::future::Future;
use std::time::Duration;

use axum::http::{HeaderName, header};
use cluster::CallError;

use crate::error::ApiError;
use crate::pagination::{CursorText, LimitText};
use crate::routes::Routes;
use crate::wire::{ContainmentText, CountText, FlagText};

/// Every guarded operation.
pub(crate) fn routes() -> Routes {
    Routes::new()
        .parameter::<CursorText>()
        .parameter::<LimitText>()
        .parameter::<ContainmentText>()
        .parameter::<CountText>()
        .parameter::<FlagText>()
        .merge(trunks::routes())
        .merge(trunk_health::routes())
        .merge(decisions::routes())
        .merge(phone_numbers::routes())
        .merge(agents::routes())
        .merge(agent_versions::routes())
        .merge(publish::routes())
        .merge(deploy_as_sip::routes())
        .merge(agent_config::routes())
        .merge(conversation_start::routes())
        .merge(conversation_transfer::routes())
        .merge(conversations::routes())
        .merge(trace::routes())
        .merge(conversation_media::routes())
        .merge(conversation_recording::routes())
        .merge(listener_token::routes())
        .merge(organization::routes())
        .merge(inbound_routing::routes())
        .merge(trunk_simulate::routes())
        .merge(trunk_test::routes())
        .merge(events::routes())
        .merge(webhooks::routes())
        .merge(webhook_deliveries::routes())
}

/// What the call edge answers within `limit`.
async fn edge<T>(limit: Duration, answer: impl Future<Output = Result<T, CallError>>) -> Result<T, ApiError> {
    let why = match tokio::time::timeout(limit, answer).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the call edge did not answer in time".to_owned(),
    };
    Err(ApiError::Unavailable(format!("This could not be done: {why}.")))
}

pub(crate) use events::Streams;
pub use webhook_deliveries::event_json;

/// A trunk as `GET /core/trunks/{id}` shows it.
#[must_use]
pub fn trunk_json(trunk: model::Trunk) -> serde_json::Value {
    // Every field has a JSON form, so this cannot fail; null would say so in every test.
    serde_json::to_value(trunks::TrunkOut::from(trunk)).unwrap_or_default()
}

/// An organization as `GET /core/organization` shows it.
#[must_use]
pub fn organization_json(organization: model::Organization) -> serde_json::Value {
    serde_json::to_value(organization::OrganizationOut::from(organization)).unwrap_or_default()
}

/// An API key as `GET /admin/organization-pats/{id}` shows it.
#[must_use]
pub fn key_json(key: store::KeyInfo) -> serde_json::Value {
    serde_json::to_value(crate::admin::KeyOut::from(key)).unwrap_or_default()
}

/// `Location` of a resource that was made.
pub(crate) fn location(path: String) -> [(HeaderName, String); 1] {
    [(header::LOCATION, path)]
}
