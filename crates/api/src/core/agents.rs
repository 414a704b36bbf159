//! Agents.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use model::trunk::parse_name;
use model::{Agent, Invalid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::{AgentFilter, AgentUpdate, NewAgent, Page, VersionFilter};
use utoipa::{IntoParams, ToSchema};

use super::agent_versions::AgentVersionOut;
use super::deploy_as_sip::SipEndpointOut;
use super::phone_numbers::PhoneNumberOut;
use crate::ApiState;
use crate::auth::{AgentsManage, AgentsRead, Caller};
use crate::error::{ApiError, of};
use crate::etag::{IfMatch, Tagged};
use crate::extract::{At, Body, Params};
use crate::pagination::{CursorText, LimitText, Listed, MAX_LIMIT, listed, page};
use crate::routes::{Routes, operations};
use crate::wire::{AgentIdText, ContainmentText, FlagText, OrganizationIdText, Text, TimeText, present};

/// What a 404 speaks of.
pub(super) const AGENT: &str = "Agent";

/// Longest description, in characters.
const MAX_DESCRIPTION: usize = 10_000;

/// An agent to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AgentCreate)]
struct AgentIn {
    /// Trimmed.
    #[schema(min_length = 1, max_length = 255, pattern = "\\S")]
    name: String,
    /// Free text.
    #[schema(max_length = 10_000)]
    description: Option<String>,
    /// An inactive agent answers no call.
    #[serde(default = "yes")]
    #[schema(required = false, default = true)]
    active: bool,
    /// Marks demonstrations.
    #[serde(default)]
    #[schema(default = false)]
    is_demo: bool,
    /// An object of the customer's own.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

fn yes() -> bool {
    true
}

/// Changes to an agent: what is left out stays; null clears `description` and `metadata`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AgentUpdate)]
struct AgentUpdateIn {
    /// Trimmed; cannot be cleared.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255, pattern = "\\S")]
    name: Option<Option<String>>,
    /// Free text.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, required = false, max_length = 10_000)]
    description: Option<Option<String>>,
    /// An inactive agent answers no call.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool, required = false)]
    active: Option<Option<bool>>,
    /// Marks demonstrations.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool, required = false)]
    is_demo: Option<Option<bool>>,
    /// An object of the customer's own; replaces the one there is.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>, required = false)]
    metadata: Option<Option<Map<String, Value>>>,
}

fn description(text: Option<String>) -> Result<Option<String>, ApiError> {
    match &text {
        Some(text) if text.chars().count() > MAX_DESCRIPTION => Err(ApiError::body(Invalid::field(
            "description",
            format!("is longer than {MAX_DESCRIPTION} characters"),
        ))),
        _ => Ok(text),
    }
}

/// A field that may be left out and may not be null.
fn set<T>(field: &str, value: Option<Option<T>>) -> Result<Option<T>, ApiError> {
    match value {
        Some(None) => Err(ApiError::body(Invalid::field(field, "must not be null"))),
        Some(value) => Ok(value),
        None => Ok(None),
    }
}

impl AgentIn {
    fn check(self) -> Result<NewAgent, ApiError> {
        Ok(NewAgent {
            name: parse_name(&self.name).map_err(ApiError::body)?,
            description: description(self.description)?,
            active: self.active,
            is_demo: self.is_demo,
            metadata: Value::Object(self.metadata.unwrap_or_default()),
        })
    }
}

impl AgentUpdateIn {
    fn check(self) -> Result<AgentUpdate, ApiError> {
        let name = set("name", self.name)?;
        Ok(AgentUpdate {
            name: name.map(|name| parse_name(&name)).transpose().map_err(ApiError::body)?,
            description: self.description.map(description).transpose()?,
            active: set("active", self.active)?,
            is_demo: set("is_demo", self.is_demo)?,
            metadata: self.metadata.map(|object| Value::Object(object.unwrap_or_default())),
        })
    }
}

/// An agent.
#[derive(Serialize, ToSchema)]
#[schema(as = Agent)]
struct AgentOut {
    id: AgentIdText,
    organization_id: OrganizationIdText,
    name: String,
    #[schema(required)]
    description: Option<String>,
    /// An inactive agent answers no call.
    active: bool,
    is_demo: bool,
    /// An object of the customer's own.
    #[schema(value_type = Object)]
    metadata: Value,
    created_at: TimeText,
    updated_at: TimeText,
}

impl From<Agent> for AgentOut {
    fn from(agent: Agent) -> Self {
        Self {
            id: Text(agent.id),
            organization_id: Text(agent.organization_id),
            name: agent.name,
            description: agent.description,
            active: agent.active,
            is_demo: agent.is_demo,
            metadata: agent.metadata,
            created_at: Text(agent.created_at),
            updated_at: Text(agent.updated_at),
        }
    }
}

/// An agent with what belongs to it.
#[derive(Serialize, ToSchema)]
#[schema(as = AgentDetail)]
struct AgentDetailOut {
    #[serde(flatten)]
    agent: AgentOut,
    /// The newest hundred.
    versions: Vec<AgentVersionOut>,
    /// Numbers one of whose slots holds a version of this agent.
    phone_numbers: Vec<PhoneNumberOut>,
    /// Null when its state cannot be resolved: no SIP listener is up.
    #[schema(required)]
    sip_endpoint: Option<SipEndpointOut>,
    conversation_statistics: StatisticsOut,
}

/// An agent's calls so far.
#[derive(Serialize, ToSchema)]
#[schema(as = ConversationStatistics)]
struct StatisticsOut {
    /// All calls.
    total: i64,
    /// Calls that are not over.
    active: i64,
    /// Calls that were answered and ended well.
    completed: i64,
    /// Seconds from answer to end, of all calls together.
    total_duration: i64,
}

/// An agent's path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct AgentPath {
    /// The agent.
    pub(super) id: AgentIdText,
}

/// Which agents.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AgentParams {
    /// Part of the name, in any case.
    name: Option<String>,
    /// Active ones, or the others.
    active: Option<FlagText>,
    /// Demonstrations, or the others.
    is_demo: Option<FlagText>,
    /// Those whose metadata contains this JSON object.
    metadata: Option<ContainmentText>,
    /// Made at or after.
    created_after: Option<TimeText>,
    /// Made at or before.
    created_before: Option<TimeText>,
    /// Changed at or after.
    updated_after: Option<TimeText>,
    /// Changed at or before.
    updated_before: Option<TimeText>,
    limit: Option<LimitText>,
    cursor: Option<CursorText>,
}

/// Lists agents, newest first.
#[utoipa::path(get, path = "/core/agents", operation_id = "list_agents", tag = "Agents", params(AgentParams),
    responses((status = 200, description = "A page of agents.", body = [AgentOut],
        headers(("X-Next-Cursor" = String, description = "Cursor of the next page, when there is one."),
                ("Link" = String, description = "The next page as rel=next, when there is one.")))))]
async fn list(
    caller: Caller<AgentsRead>,
    Params(params): Params<AgentParams>,
    State(state): State<ApiState>,
    uri: Uri,
) -> Result<Listed, ApiError> {
    let page = page(params.limit, params.cursor);
    let filter = AgentFilter {
        name: params.name,
        active: params.active.map(|t| t.0.0),
        is_demo: params.is_demo.map(|t| t.0.0),
        metadata: params.metadata.map(|t| t.0.0),
        created_after: params.created_after.map(|t| t.0),
        created_before: params.created_before.map(|t| t.0),
        updated_after: params.updated_after.map(|t| t.0),
        updated_before: params.updated_before.map(|t| t.0),
    };
    let rows = state.store.agents(caller.organization, filter, page).await?;
    Ok(listed(uri, &page, rows, |agent| (agent.created_at, agent.id.0), AgentOut::from))
}

/// Makes an agent, without any version.
#[utoipa::path(post, path = "/core/agents", operation_id = "create_agent", tag = "Agents", request_body = AgentIn,
    responses((status = 200, description = "The agent.", body = AgentOut,
        headers(("Location" = String, description = "Path of the agent."))),
        (status = 400, description = "A limit of the organization stands against it.", body = crate::error::ErrorOut)))]
async fn create(
    caller: Caller<AgentsManage>,
    State(state): State<ApiState>,
    Body(body): Body<AgentIn>,
) -> Result<impl IntoResponse, ApiError> {
    let (agent, sequence) = state.store.create_agent(caller.organization, body.check()?).await?;
    state.in_force(sequence).await?;
    Ok((
        super::location(format!("/core/agents/{}", agent.id)),
        Tagged(agent.updated_at, AgentOut::from(agent)),
    ))
}

/// Shows one agent with its versions, numbers, SIP endpoint and statistics.
#[utoipa::path(get, path = "/core/agents/{id}", operation_id = "get_agent", tag = "Agents", params(AgentPath),
    responses((status = 200, description = "The agent.", body = AgentDetailOut)))]
async fn get(
    caller: Caller<AgentsRead>,
    At(path): At<AgentPath>,
    State(state): State<ApiState>,
) -> Result<Tagged<AgentDetailOut>, ApiError> {
    let (organization, id) = (caller.organization, path.id.0);
    let agent = state.store.agent(organization, id).await.map_err(of(AGENT))?;
    let newest = Page { limit: MAX_LIMIT, before: None };
    let versions = state.store.agent_versions(organization, id, VersionFilter::default(), newest).await;
    let numbers = state.store.agent_numbers(organization, id).await.map_err(of(AGENT))?;
    let statistics = state.store.conversation_statistics(organization, id).await.map_err(of(AGENT))?;
    Ok(Tagged(
        agent.updated_at,
        AgentDetailOut {
            sip_endpoint: SipEndpointOut::of(&state.cluster, agent.id, agent.sip_deployed),
            agent: agent.into(),
            versions: versions.map_err(of(AGENT))?.into_iter().map(AgentVersionOut::from).collect(),
            phone_numbers: numbers.into_iter().map(PhoneNumberOut::from).collect(),
            conversation_statistics: StatisticsOut {
                total: statistics.total,
                active: statistics.active,
                completed: statistics.completed,
                total_duration: statistics.total_duration,
            },
        },
    ))
}

/// Changes an agent. What is left out stays.
#[utoipa::path(put, path = "/core/agents/{id}", operation_id = "update_agent", tag = "Agents", params(AgentPath),
    request_body = AgentUpdateIn,
    responses((status = 200, description = "The agent, in force on this node.", body = AgentOut)))]
async fn update(
    caller: Caller<AgentsManage>,
    At(path): At<AgentPath>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
    Body(body): Body<AgentUpdateIn>,
) -> Result<Tagged<AgentOut>, ApiError> {
    let change = body.check()?;
    let changed = state.store.update_agent(caller.organization, path.id.0, change, &precondition).await;
    let (agent, sequence) = changed.map_err(of(AGENT))?;
    state.in_force(sequence).await?;
    Ok(Tagged(agent.updated_at, agent.into()))
}

/// Deletes an agent with its versions. Calls in progress go on.
#[utoipa::path(delete, path = "/core/agents/{id}", operation_id = "delete_agent", tag = "Agents", params(AgentPath),
    responses((status = 204, description = "It is gone."),
        (status = 409, description = "A number's slot holds one of its versions.", body = crate::error::ErrorOut)))]
async fn delete(
    caller: Caller<AgentsManage>,
    At(path): At<AgentPath>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
) -> Result<StatusCode, ApiError> {
    let gone = state.store.delete_agent(caller.organization, path.id.0, &precondition).await;
    let sequence = gone.map_err(of(AGENT))?;
    state.in_force(sequence).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn routes() -> Routes {
    operations!(list, create, get, update, delete)
}
