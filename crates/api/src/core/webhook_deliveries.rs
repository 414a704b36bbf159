//! What became of each telling of an event: the dead-letter list, tests and retries.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use model::{Conversation, Delivery};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Due, Fact};
use utoipa::{IntoParams, ToSchema};

use super::conversations::ConversationOut;
use super::decisions::DecisionOut;
use super::webhooks::{WEBHOOK, WebhookPath};
use crate::ApiState;
use crate::auth::{Caller, OrganizationsManage};
use crate::error::{ApiError, ErrorOut, of};
use crate::extract::{At, Params};
use crate::pagination::{CursorText, LimitText, Listed, listed, page};
use crate::routes::{Routes, operations};
use crate::wire::{DeliveryIdText, DeliveryStateText, Text, TimeText, WebhookEventText, WebhookIdText};

/// What a 404 speaks of.
const DELIVERY: &str = "Delivery";

/// One telling of one event.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
struct DeliveryOut {
    /// The same for every attempt; `webhook-id` is `msg_` and this without hyphens.
    id: DeliveryIdText,
    webhook_id: WebhookIdText,
    event: WebhookEventText,
    /// `dead` is given up: `…/retry` tries it anew.
    state: DeliveryStateText,
    attempts: u32,
    /// When it is next tried; null unless it is pending.
    #[schema(required)]
    due_at: Option<TimeText>,
    /// HTTP status of the last attempt.
    #[schema(required)]
    http_status: Option<u16>,
    /// What went wrong at the last attempt.
    #[schema(required)]
    error: Option<String>,
    created_at: TimeText,
    updated_at: TimeText,
}

impl From<Delivery> for DeliveryOut {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: Text(delivery.id),
            webhook_id: Text(delivery.webhook_id),
            event: Text(delivery.event),
            state: Text(delivery.state),
            attempts: delivery.attempts,
            due_at: delivery.due_at.map(Text),
            http_status: delivery.http_status,
            error: delivery.error,
            created_at: Text(delivery.created_at),
            updated_at: Text(delivery.updated_at),
        }
    }
}

/// What is POSTed: `{"type", "timestamp", "data"}`, the data as the API shows it, without sensitive fields.
#[must_use]
pub fn event_json(due: &Due, agent_name: Option<String>) -> Value {
    let data = match &due.fact {
        Fact::Conversation(call) => {
            serde_json::to_value(ConversationOut::new(Conversation::clone(call), agent_name, false))
        }
        Fact::Decision(decision) => serde_json::to_value(DecisionOut::from((**decision).clone())),
        Fact::Test => Ok(json!({"webhook_id": due.webhook.id})),
    };
    // Every field has a JSON form, so this cannot fail; null would say so in every test.
    let data = data.unwrap_or_default();
    json!({
        "type": due.delivery.event.as_str(),
        "timestamp": due.delivery.created_at.to_string(),
        "organization_id": due.webhook.organization_id,
        "data": data,
    })
}

/// Which deliveries.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeliveryParams {
    state: Option<DeliveryStateText>,
    limit: Option<LimitText>,
    cursor: Option<CursorText>,
}

/// A delivery's path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct DeliveryPath {
    /// The webhook.
    id: WebhookIdText,
    /// The delivery.
    delivery_id: DeliveryIdText,
}

/// Lists what was told to a webhook, newest first; `state=dead` is what was given up. Kept for 7 days once it is over.
#[utoipa::path(get, path = "/core/webhooks/{id}/deliveries", operation_id = "list_webhook_deliveries", tag = "Webhooks",
    params(WebhookPath, DeliveryParams),
    responses((status = 200, description = "A page of deliveries.", body = [DeliveryOut],
        headers(("X-Next-Cursor" = String, description = "Cursor of the next page, when there is one."),
                ("Link" = String, description = "The next page as rel=next, when there is one.")))))]
async fn list(
    caller: Caller<OrganizationsManage>,
    At(path): At<WebhookPath>,
    Params(params): Params<DeliveryParams>,
    State(state): State<ApiState>,
    uri: Uri,
) -> Result<Listed, ApiError> {
    let page = page(params.limit, params.cursor);
    let only = params.state.map(|state| state.0);
    let rows = state.store.deliveries(caller.organization, path.id.0, only, page).await;
    let rows = rows.map_err(of(WEBHOOK))?;
    Ok(listed(uri, &page, rows, |delivery| (delivery.created_at, delivery.id.0), DeliveryOut::from))
}

/// Has the webhook told of `webhook.test`, at once.
#[utoipa::path(post, path = "/core/webhooks/{id}/test", operation_id = "test_webhook", tag = "Webhooks",
    params(WebhookPath),
    responses((status = 200, description = "What is being told; its path shows the outcome.", body = DeliveryOut),
        (status = 409, description = "The webhook is not enabled.", body = ErrorOut)))]
async fn test(
    caller: Caller<OrganizationsManage>,
    At(path): At<WebhookPath>,
    State(state): State<ApiState>,
) -> Result<Json<DeliveryOut>, ApiError> {
    let delivery = state.store.test_webhook(caller.organization, path.id.0).await.map_err(of(WEBHOOK))?;
    Ok(Json(delivery.into()))
}

/// Tries a delivery anew, whatever became of it.
#[utoipa::path(post, path = "/core/webhooks/{id}/deliveries/{delivery_id}/retry",
    operation_id = "retry_webhook_delivery", tag = "Webhooks", params(DeliveryPath),
    responses((status = 200, description = "The delivery, pending.", body = DeliveryOut)))]
async fn retry(
    caller: Caller<OrganizationsManage>,
    At(path): At<DeliveryPath>,
    State(state): State<ApiState>,
) -> Result<Json<DeliveryOut>, ApiError> {
    let tried = state.store.retry_delivery(caller.organization, path.id.0, path.delivery_id.0).await;
    Ok(Json(tried.map_err(of(DELIVERY))?.into()))
}

pub(super) fn routes() -> Routes {
    operations!(list, test, retry)
}
