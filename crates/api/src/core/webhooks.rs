//! Webhooks: where the organization hears of its calls.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use model::webhook::{check_events, check_url};
use model::{Invalid, Secret, Webhook, WebhookEvent};
use serde::{Deserialize, Serialize};
use store::{NewWebhook, WebhookUpdate};
use utoipa::{IntoParams, ToSchema};

use super::webhook_url::{check_secret, check_target, new_secret};
use crate::ApiState;
use crate::auth::{Caller, OrganizationsManage};
use crate::error::{ApiError, ErrorOut, of};
use crate::etag::{IfMatch, Tagged};
use crate::extract::{At, Body, Params};
use crate::pagination::{CursorText, LimitText, Listed, listed, page};
use crate::routes::{Routes, operations};
use crate::wire::{OrganizationIdText, Text, TimeText, WebhookEventText, WebhookIdText, present};

/// What a 404 speaks of.
pub(super) const WEBHOOK: &str = "Webhook";

/// A webhook to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookCreate)]
struct WebhookIn {
    /// Where the POST goes.
    #[schema(max_length = 2048, pattern = "^https?://[^/?#@:\\s]+", example = "https://crm.example/calls")]
    url: String,
    /// Which events; all when left out or null.
    #[schema(min_items = 1, max_items = 32)]
    events: Option<Vec<WebhookEventText>>,
    /// Whether it is told at all; true when left out.
    enabled: Option<bool>,
    /// What each POST is signed with (Standard Webhooks): `whsec_` and Base64 of 24 to 64 bytes. When left out, one is
    /// made and shown in this answer alone.
    #[schema(write_only, pattern = "^whsec_[A-Za-z0-9+/]{32,86}={0,2}$")]
    secret: Option<String>,
}

/// Changes to a webhook: what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookUpdate)]
struct WebhookUpdateIn {
    /// Where the POST goes.
    #[schema(max_length = 2048, pattern = "^https?://[^/?#@:\\s]+")]
    url: Option<String>,
    /// Which events; null for all.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<WebhookEventText>>, required = false, min_items = 1, max_items = 32)]
    events: Option<Option<Vec<WebhookEventText>>>,
    /// Whether it is told at all.
    enabled: Option<bool>,
    /// What each POST is signed with from now on; for a day it carries the signature of the secret before, too.
    #[schema(write_only, pattern = "^whsec_[A-Za-z0-9+/]{32,86}={0,2}$")]
    secret: Option<String>,
}

fn url(state: &ApiState, url: String) -> Result<String, ApiError> {
    check_url(&url).map_err(|rule| ApiError::body(Invalid::field("url", rule)))?;
    check_target(state, &url).map_err(ApiError::body)?;
    Ok(url)
}

fn events(list: Option<Vec<WebhookEventText>>) -> Result<Option<Vec<WebhookEvent>>, ApiError> {
    let Some(list) = list else { return Ok(None) };
    let mut events: Vec<WebhookEvent> = list.into_iter().map(|event| event.0).collect();
    check_events(&events).map_err(ApiError::body)?;
    events.sort_unstable();
    events.dedup();
    Ok(Some(events))
}

fn secret(given: Option<String>) -> Result<Option<Secret>, ApiError> {
    let secret = given.map(Secret::new);
    secret.as_ref().map_or(Ok(()), check_secret).map_err(ApiError::body)?;
    Ok(secret)
}

/// A webhook.
#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
struct WebhookOut {
    id: WebhookIdText,
    organization_id: OrganizationIdText,
    url: String,
    /// Which events; null means all.
    #[schema(required)]
    events: Option<Vec<WebhookEventText>>,
    /// Whether it is told at all. An endpoint that answers 410 is told nothing more.
    enabled: bool,
    created_at: TimeText,
    updated_at: TimeText,
}

impl From<Webhook> for WebhookOut {
    fn from(webhook: Webhook) -> Self {
        Self {
            id: Text(webhook.id),
            organization_id: Text(webhook.organization_id),
            url: webhook.url,
            events: webhook.events.map(|events| events.into_iter().map(Text).collect()),
            enabled: webhook.enabled,
            created_at: Text(webhook.created_at),
            updated_at: Text(webhook.updated_at),
        }
    }
}

/// A webhook that was made.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookCreated)]
struct NewWebhookOut {
    #[serde(flatten)]
    #[schema(inline)]
    webhook: WebhookOut,
    /// The secret that was made: shown this once. Left out when the request gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    secret: Option<String>,
}

/// A webhook's path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct WebhookPath {
    /// The webhook.
    pub(super) id: WebhookIdText,
}

/// Which webhooks.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WebhookParams {
    limit: Option<LimitText>,
    cursor: Option<CursorText>,
}

/// Lists webhooks, newest first.
#[utoipa::path(get, path = "/core/webhooks", operation_id = "list_webhooks", tag = "Webhooks", params(WebhookParams),
    responses((status = 200, description = "A page of webhooks.", body = [WebhookOut],
        headers(("X-Next-Cursor" = String, description = "Cursor of the next page, when there is one."),
                ("Link" = String, description = "The next page as rel=next, when there is one.")))))]
async fn list(
    caller: Caller<OrganizationsManage>,
    Params(params): Params<WebhookParams>,
    State(state): State<ApiState>,
    uri: Uri,
) -> Result<Listed, ApiError> {
    let page = page(params.limit, params.cursor);
    let rows = state.store.webhooks(caller.organization, page).await?;
    Ok(listed(uri, &page, rows, |webhook| (webhook.created_at, webhook.id.0), WebhookOut::from))
}

/// Shows one webhook, without its secret.
#[utoipa::path(get, path = "/core/webhooks/{id}", operation_id = "get_webhook", tag = "Webhooks", params(WebhookPath),
    responses((status = 200, description = "The webhook.", body = WebhookOut)))]
async fn get(
    caller: Caller<OrganizationsManage>,
    At(path): At<WebhookPath>,
    State(state): State<ApiState>,
) -> Result<Tagged<WebhookOut>, ApiError> {
    let webhook = state.store.webhook(caller.organization, path.id.0).await.map_err(of(WEBHOOK))?;
    Ok(Tagged(webhook.updated_at, webhook.into()))
}

/// Makes a webhook: from now on each event is POSTed to the URL as `{"type", "timestamp", "data"}`, signed as Standard
/// Webhooks say (`webhook-id`, `webhook-timestamp`, `webhook-signature`), at least once. What is not answered with 2xx
/// within 15 s is tried again over about a day, then given up; the deliveries show which.
#[utoipa::path(post, path = "/core/webhooks", operation_id = "create_webhook", tag = "Webhooks", request_body = WebhookIn,
    responses((status = 200, description = "The webhook.", body = NewWebhookOut,
        headers(("Location" = String, description = "Path of the webhook."))),
        (status = 400, description = "The organization has all the webhooks it may have.", body = ErrorOut)))]
async fn create(
    caller: Caller<OrganizationsManage>,
    State(state): State<ApiState>,
    Body(body): Body<WebhookIn>,
) -> Result<impl IntoResponse, ApiError> {
    let url = url(&state, body.url)?;
    let events = events(body.events)?;
    let (secret, made) = match secret(body.secret)? {
        Some(secret) => (secret, None),
        None => {
            let secret = new_secret()?;
            let shown = secret.expose().to_owned();
            (secret, Some(shown))
        }
    };
    let new = NewWebhook { url, secret, events, enabled: body.enabled.unwrap_or(true) };
    let webhook = state.store.create_webhook(caller.organization, new).await?;
    let location = super::location(format!("/core/webhooks/{}", webhook.id));
    Ok((location, Tagged(webhook.updated_at, NewWebhookOut { webhook: webhook.into(), secret: made })))
}

/// Changes a webhook. What is left out stays.
#[utoipa::path(patch, path = "/core/webhooks/{id}", operation_id = "update_webhook", tag = "Webhooks",
    params(WebhookPath), request_body = WebhookUpdateIn,
    responses((status = 200, description = "The webhook.", body = WebhookOut)))]
async fn update(
    caller: Caller<OrganizationsManage>,
    At(path): At<WebhookPath>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
    Body(body): Body<WebhookUpdateIn>,
) -> Result<Tagged<WebhookOut>, ApiError> {
    let change = WebhookUpdate {
        url: body.url.map(|given| url(&state, given)).transpose()?,
        secret: secret(body.secret)?,
        events: body.events.map(events).transpose()?,
        enabled: body.enabled,
    };
    let changed = state.store.update_webhook(caller.organization, path.id.0, change, &precondition).await;
    let webhook = changed.map_err(of(WEBHOOK))?;
    Ok(Tagged(webhook.updated_at, webhook.into()))
}

/// Deletes a webhook, and what was still to be told to it.
#[utoipa::path(delete, path = "/core/webhooks/{id}", operation_id = "delete_webhook", tag = "Webhooks",
    params(WebhookPath),
    responses((status = 204, description = "It is gone.")))]
async fn delete(
    caller: Caller<OrganizationsManage>,
    At(path): At<WebhookPath>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, ApiError> {
    let gone = state.store.delete_webhook(caller.organization, path.id.0, &precondition).await;
    gone.map_err(of(WEBHOOK))?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn routes() -> Routes {
    operations!(list, get, create, update, delete)
}
