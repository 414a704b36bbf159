//! Inbound routing: who answers the organization's numbers, by rules or by a webhook.

use axum::extract::State;
use axum::http::StatusCode;
use model::inbound_routing::{DEFAULT_TIMEOUT_MS, InboundRouting, TIMEOUT_MS, Workflow};
use model::{Invalid, OrganizationId, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use store::{NewRouting, StoreError};
use utoipa::ToSchema;

use super::agents::AGENT;
use super::trunks::TRUNK;
use super::webhook_url::{check_secret, check_target, new_secret};
use crate::ApiState;
use crate::auth::{Caller, PhoneNumbersManage, PhoneNumbersRead};
use crate::error::{ApiError, REQUIRED, of};
use crate::etag::{IfMatch, Tagged};
use crate::extract::{Body, tree};
use crate::routes::{Routes, operations};
use crate::wire::{AgentIdText, OrganizationIdText, Text, TimeText, TrunkIdText, present};

/// What a 404 speaks of.
const ROUTING: &str = "Inbound routing config";

/// The routing to be. What is left out stays as it is, or gets its default when there is none yet.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = InboundRoutingUpdate)]
struct RoutingIn {
    /// Whether it decides; otherwise the number's slot does. True when left out at first.
    enabled: Option<bool>,
    /// How it decides. Required when there is none yet.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = WorkflowSchema, required = false)]
    workflow_definition: Option<Option<Value>>,
    /// Who answers when the decision fails or is late; null: the call is refused.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<AgentIdText>, required = false)]
    fallback_agent_id: Option<Option<AgentIdText>>,
    /// How long the decision may take, in milliseconds; 5,000 when left out at first.
    #[schema(minimum = 100, maximum = 30_000)]
    timeout_ms: Option<u32>,
}

/// How a routing decides.
#[derive(ToSchema)]
#[schema(as = WorkflowDefinition)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes model::inbound_routing::Workflow")]
enum WorkflowSchema {
    Rules(RulesSchema),
    Webhook(WebhookSchema),
}

/// The first rule that matches gives the output; when none does, the number's slot answers.
#[derive(ToSchema)]
#[schema(as = RulesWorkflow)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::inbound_routing::Workflow")]
struct RulesSchema {
    #[schema(inline)]
    r#type: RulesKind,
    #[schema(max_items = 500)]
    rules: Vec<RuleSchema>,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes a constant")]
enum RulesKind {
    Rules,
}

/// A signed POST (Standard Webhooks) of `caller_number`, `called_number`, `trunk_id`, `organization_id` and
/// `timestamp`, whose answer is the output.
#[derive(ToSchema)]
#[schema(as = WebhookWorkflow)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::inbound_routing::Workflow")]
struct WebhookSchema {
    #[schema(inline)]
    r#type: WebhookKind,
    /// Where the POST goes.
    #[schema(max_length = 2048, pattern = "^https?://[^/?#@:\\s]+", example = "https://bot.example/route")]
    url: String,
    /// What the POST is signed with: `whsec_` and Base64 of 24 to 64 bytes. When none is given, the one on file stays,
    /// or one is made and shown in this answer alone.
    #[schema(required = false, pattern = "^whsec_[A-Za-z0-9+/]{32,86}={0,2}$")]
    secret: Option<String>,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes a constant")]
enum WebhookKind {
    Webhook,
}

/// One rule.
#[derive(ToSchema)]
#[schema(as = RoutingRule)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::inbound_routing::Rule")]
struct RuleSchema {
    /// For people.
    #[schema(required = false)]
    name: Option<String>,
    /// When it applies: every condition given must hold; none given holds always.
    #[schema(required = false)]
    r#match: ConditionSchema,
    /// What then.
    #[schema(required = false)]
    output: OutputSchema,
}

/// When a rule applies.
#[derive(ToSchema)]
#[schema(as = RoutingCondition)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::inbound_routing::Condition")]
struct ConditionSchema {
    /// Beginning of the caller's number.
    #[schema(required = false, pattern = "^\\+[1-9][0-9]{0,14}$")]
    caller_prefix: Option<String>,
    /// Beginning of the dialled number.
    #[schema(required = false, pattern = "^\\+[1-9][0-9]{0,14}$")]
    called_prefix: Option<String>,
    /// The trunk the call came by.
    #[schema(required = false)]
    trunk_id: Option<TrunkIdText>,
    /// Days of the week in the time zone.
    #[schema(required = false, inline, min_items = 1, max_items = 7)]
    weekdays: Option<Vec<WeekdaySchema>>,
    #[schema(required = false)]
    hours: Option<HoursSchema>,
    /// IANA name; UTC when left out.
    #[schema(required = false, example = "Europe/Berlin")]
    time_zone: Option<String>,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes model::inbound_routing::Weekday")]
enum WeekdaySchema {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A span of the day in the time zone: `from` belongs to it, `to` does not. One that ends before it begins goes over
/// midnight.
#[derive(ToSchema)]
#[schema(as = RoutingHours)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::inbound_routing::Hours")]
struct HoursSchema {
    #[schema(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$", example = "09:00")]
    from: String,
    #[schema(pattern = "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$", example = "17:00")]
    to: String,
}

/// What a decision says; every field may be left out.
#[derive(ToSchema)]
#[schema(as = RoutingOutput)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes model::inbound_routing::Output")]
struct OutputSchema {
    /// Refuse the call with 603.
    #[schema(required = false, default = false)]
    reject: bool,
    /// Who answers; the number's slot when left out.
    #[schema(required = false)]
    agent_id: Option<AgentIdText>,
    /// A version of that agent; its latest published one when left out.
    #[schema(required = false, minimum = 1)]
    version: Option<i64>,
    /// Handed to the agent.
    #[schema(required = false, value_type = Option<Object>)]
    initial_context: Option<Map<String, Value>>,
    /// Kept with the call.
    #[schema(required = false, value_type = Option<Object>)]
    custom_metadata: Option<Map<String, Value>>,
}

/// An organization's inbound routing.
#[derive(Serialize, ToSchema)]
#[schema(as = InboundRouting)]
struct RoutingOut {
    organization_id: OrganizationIdText,
    enabled: bool,
    #[schema(value_type = WorkflowSchema)]
    workflow_definition: Value,
    #[schema(required)]
    fallback_agent_id: Option<AgentIdText>,
    timeout_ms: u32,
    created_at: TimeText,
    updated_at: TimeText,
}

impl RoutingOut {
    /// `made` is a secret that was made just now and is shown this once.
    fn new(routing: InboundRouting, made: Option<&Secret>) -> Self {
        // Every field has a JSON form, so this cannot fail; null would say so in every test.
        let mut workflow = serde_json::to_value(&routing.workflow).unwrap_or_default();
        if let (Some(fields), Some(secret)) = (workflow.as_object_mut(), made) {
            fields.insert("secret".to_owned(), Value::from(secret.expose()));
        }
        Self {
            organization_id: Text(routing.organization_id),
            enabled: routing.enabled,
            workflow_definition: workflow,
            fallback_agent_id: routing.fallback_agent_id.map(Text),
            timeout_ms: routing.timeout_ms,
            created_at: Text(routing.created_at),
            updated_at: Text(routing.updated_at),
        }
    }
}

const FIELD: &str = "workflow_definition";

/// Reads a definition, and the webhook's secret when one is given.
fn workflow(state: &ApiState, mut raw: Value) -> Result<(Workflow, Option<Secret>), ApiError> {
    let is_webhook = raw.get("type").is_some_and(|kind| kind == "webhook");
    let secret =
        match raw.as_object_mut().filter(|_| is_webhook).and_then(|fields| fields.shift_remove("secret")) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(Secret::new(text)),
            Some(_) => {
                return Err(ApiError::body(Invalid::field("secret", "must be a string").within(FIELD)));
            }
        };
    let workflow: Workflow = tree(FIELD, &raw)?;
    workflow.check().map_err(|invalid| ApiError::body(invalid.within(FIELD)))?;
    let within = |invalid: Invalid| ApiError::body(invalid.within(FIELD));
    secret.as_ref().map_or(Ok(()), check_secret).map_err(within)?;
    if let Workflow::Webhook { url } = &workflow {
        check_target(state, url).map_err(within)?;
    }
    Ok((workflow, secret))
}

/// Whoever a definition names must be there when it is written.
async fn check_references(
    state: &ApiState,
    organization: OrganizationId,
    workflow: &Workflow,
) -> Result<(), ApiError> {
    let Workflow::Rules { rules } = workflow else { return Ok(()) };
    let agents: BTreeSet<_> = rules.iter().filter_map(|rule| rule.output.agent_id).collect();
    let trunks: BTreeSet<_> = rules.iter().filter_map(|rule| rule.condition.trunk_id).collect();
    for agent in agents {
        state.store.agent(organization, agent).await.map_err(of(AGENT))?;
    }
    for trunk in trunks {
        state.store.trunk(organization, trunk).await.map_err(of(TRUNK))?;
    }
    Ok(())
}

/// Shows the organization's inbound routing.
#[utoipa::path(get, path = "/core/inbound-routing-config", operation_id = "get_inbound_routing", tag = "Inbound routing",
    responses((status = 200, description = "The routing.", body = RoutingOut),
        (status = 404, description = "There is none: numbers' own slots answer.", body = crate::error::ErrorOut)))]
async fn get(
    caller: Caller<PhoneNumbersRead>,
    State(state): State<ApiState>,
) -> Result<Tagged<RoutingOut>, ApiError> {
    let routing = state.store.inbound_routing(caller.organization).await.map_err(of(ROUTING))?;
    Ok(Tagged(routing.updated_at, RoutingOut::new(routing, None)))
}

/// Makes or changes the organization's inbound routing.
#[utoipa::path(put, path = "/core/inbound-routing-config", operation_id = "put_inbound_routing", tag = "Inbound routing",
    request_body = RoutingIn,
    responses((status = 200, description = "The routing, in force on this node.", body = RoutingOut),
        (status = 404, description = "An agent or trunk it names is not there.", body = crate::error::ErrorOut)))]
async fn put(
    caller: Caller<PhoneNumbersManage>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
    Body(body): Body<RoutingIn>,
) -> Result<Tagged<RoutingOut>, ApiError> {
    let organization = caller.organization;
    if let Some(limit) = body.timeout_ms.filter(|limit| !TIMEOUT_MS.contains(limit)) {
        let rule = format!("is {limit}; {} to {} is allowed", TIMEOUT_MS.start(), TIMEOUT_MS.end());
        return Err(ApiError::body(Invalid::field("timeout_ms", rule)));
    }
    let given = match body.workflow_definition {
        Some(Some(raw)) => Some(workflow(&state, raw)?),
        Some(None) => return Err(ApiError::body(Invalid::field(FIELD, "must not be null"))),
        None => None,
    };
    let old = match state.store.inbound_routing(organization).await {
        Ok(old) => Some(old),
        Err(StoreError::NotFound) => None,
        Err(error) => return Err(error.into()),
    };
    let (workflow, mut secret) = match (given, &old) {
        (Some(given), _) => given,
        (None, Some(old)) => (old.workflow.clone(), None),
        (None, None) => return Err(ApiError::body(Invalid::field(FIELD, REQUIRED))),
    };
    check_references(&state, organization, &workflow).await?;
    let mut made = None;
    let is_webhook = matches!(workflow, Workflow::Webhook { .. });
    if is_webhook && secret.is_none() && !state.store.has_webhook_secret(organization).await? {
        secret = Some(new_secret()?);
        made.clone_from(&secret);
    }
    let new = NewRouting {
        enabled: body.enabled.or(old.as_ref().map(|old| old.enabled)).unwrap_or(true),
        workflow,
        webhook_secret: secret,
        fallback_agent_id: match body.fallback_agent_id {
            Some(agent) => agent.map(|agent| agent.0),
            None => old.as_ref().and_then(|old| old.fallback_agent_id),
        },
        timeout_ms: body.timeout_ms.or(old.map(|old| old.timeout_ms)).unwrap_or(DEFAULT_TIMEOUT_MS),
    };
    let put = state.store.put_inbound_routing(organization, new, &precondition).await;
    let (routing, _, sequence) = put.map_err(of(AGENT))?;
    state.in_force(sequence).await?;
    Ok(Tagged(routing.updated_at, RoutingOut::new(routing, made.as_ref())))
}

/// Deletes the organization's inbound routing: numbers' own slots answer again.
#[utoipa::path(delete, path = "/core/inbound-routing-config", operation_id = "delete_inbound_routing",
    tag = "Inbound routing",
    responses((status = 204, description = "It is gone."),
        (status = 404, description = "There is none.", body = crate::error::ErrorOut)))]
async fn delete(
    caller: Caller<PhoneNumbersManage>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, ApiError> {
    let gone = state.store.delete_inbound_routing(caller.organization, &precondition).await;
    let sequence = gone.map_err(of(ROUTING))?;
    state.in_force(sequence).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn routes() -> Routes {
    operations!(get, put, delete)
}
