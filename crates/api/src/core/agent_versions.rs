//! Versions of an agent: drafts that may change, published ones that never do.

use axum::extract::State;
use axum::http::Uri;
use axum::response::IntoResponse;
use model::{AgentVersion, Invalid, Scope};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{VersionFilter, VersionRef};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::{IntoParams, ToSchema};

use super::agent_config::{self, AgentConfigSchema};
use super::agents::{AGENT, AgentPath};
use crate::ApiState;
use crate::auth::{AgentsManage, AgentsRead, Caller};
use crate::error::{ApiError, of};
use crate::etag::{IfMatch, Tagged};
use crate::extract::{At, Body, Params};
use crate::pagination::{CursorText, LimitText, Listed, listed, page};
use crate::routes::{Routes, operations};
use crate::wire::{AgentIdText, AgentVersionIdText, Count, CountText, FlagText, Text, TimeText, Wire};

/// What a 404 speaks of.
pub(super) const VERSION: &str = "Agent version";

/// A version to make: exactly one of the two fields.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AgentVersionCreate)]
struct VersionIn {
    /// What the new draft does.
    #[schema(value_type = Option<AgentConfigSchema>)]
    config: Option<Value>,
    /// The version whose config the new draft starts with.
    #[schema(value_type = Option<i64>, minimum = 1)]
    base_version: Option<i64>,
}

/// A draft's new config.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AgentVersionUpdate)]
struct VersionUpdateIn {
    #[schema(value_type = AgentConfigSchema)]
    config: Value,
}

/// A version of an agent.
#[derive(Serialize, ToSchema)]
#[schema(as = AgentVersion)]
pub(super) struct AgentVersionOut {
    id: AgentVersionIdText,
    agent_id: AgentIdText,
    /// Counts from 1.
    #[schema(minimum = 1)]
    version: i64,
    /// A published version never changes.
    published: bool,
    #[schema(value_type = AgentConfigSchema)]
    config: Value,
    created_at: TimeText,
    updated_at: TimeText,
}

impl From<AgentVersion> for AgentVersionOut {
    fn from(version: AgentVersion) -> Self {
        Self {
            id: Text(version.id),
            agent_id: Text(version.agent_id),
            version: version.version,
            published: version.published,
            config: agent_config::show(&version.config),
            created_at: Text(version.created_at),
            updated_at: Text(version.updated_at),
        }
    }
}

/// A version in a path: its number or `latest`.
pub(super) type VersionKeyText = Text<VersionKey>;

/// See [`VersionKeyText`].
#[derive(Debug, Clone, Copy)]
pub(super) enum VersionKey {
    Number(i64),
    Latest,
}

impl Wire for VersionKey {
    const NAME: &'static str = "VersionKey";
    fn parse(text: &str) -> Result<Self, String> {
        match (text, Count::parse(text)) {
            ("latest", _) => Ok(Self::Latest),
            (_, Ok(Count(number))) => Ok(Self::Number(number)),
            _ => Err("must be a version's number or latest".to_owned()),
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Latest => "latest".to_owned(),
        }
    }
    fn describe() -> Object {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^([0-9]{1,9}|latest)$"))
            .description(Some("A version's number, or latest."))
            .build()
    }
}

impl From<VersionKey> for VersionRef {
    fn from(key: VersionKey) -> Self {
        match key {
            VersionKey::Number(number) => Self::Number(number),
            VersionKey::Latest => Self::Latest,
        }
    }
}

/// A version's path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct VersionPath {
    /// The agent.
    pub(super) id: AgentIdText,
    /// The version's number, or `latest`.
    pub(super) version: VersionKeyText,
}

/// Which versions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct VersionParams {
    /// The one with this number.
    version: Option<CountText>,
    /// Published ones, or drafts.
    published: Option<FlagText>,
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

/// Lists an agent's versions, newest first.
#[utoipa::path(get, path = "/core/agents/{id}/versions", operation_id = "list_agent_versions", tag = "Agents",
    params(AgentPath, VersionParams),
    responses((status = 200, description = "A page of versions.", body = [AgentVersionOut],
        headers(("X-Next-Cursor" = String, description = "Cursor of the next page, when there is one."),
                ("Link" = String, description = "The next page as rel=next, when there is one.")))))]
async fn list(
    caller: Caller<AgentsRead>,
    At(path): At<AgentPath>,
    Params(params): Params<VersionParams>,
    State(state): State<ApiState>,
    uri: Uri,
) -> Result<Listed, ApiError> {
    let page = page(params.limit, params.cursor);
    let filter = VersionFilter {
        version: params.version.map(|t| t.0.0),
        published: params.published.map(|t| t.0.0),
        created_after: params.created_after.map(|t| t.0),
        created_before: params.created_before.map(|t| t.0),
        updated_after: params.updated_after.map(|t| t.0),
        updated_before: params.updated_before.map(|t| t.0),
    };
    state.store.agent(caller.organization, path.id.0).await.map_err(of(AGENT))?;
    let rows =
        state.store.agent_versions(caller.organization, path.id.0, filter, page).await.map_err(of(AGENT))?;
    Ok(listed(uri, &page, rows, |version| (version.created_at, version.id.0), AgentVersionOut::from))
}

/// Shows one version. `latest` makes sure that a draft exists when the caller may manage agents, and otherwise shows
/// the newest version.
#[utoipa::path(get, path = "/core/agents/{id}/versions/{version}", operation_id = "get_agent_version", tag = "Agents",
    params(VersionPath),
    responses((status = 200, description = "The version.", body = AgentVersionOut)))]
async fn get(
    caller: Caller<AgentsRead>,
    At(path): At<VersionPath>,
    State(state): State<ApiState>,
) -> Result<Tagged<AgentVersionOut>, ApiError> {
    let (organization, id, key) = (caller.organization, path.id.0, path.version.0);
    state.store.agent(organization, id).await.map_err(of(AGENT))?;
    let version = if matches!(key, VersionKey::Latest) && caller.may(Scope::AgentsManage) {
        let (version, sequence) = state.store.ensure_draft(organization, id).await.map_err(of(VERSION))?;
        state.in_force(sequence).await?;
        version
    } else {
        state.store.agent_version(organization, id, key.into()).await.map_err(of(VERSION))?
    };
    Ok(Tagged(version.updated_at, version.into()))
}

/// Makes a draft, from a config or from another version's.
#[utoipa::path(post, path = "/core/agents/{id}/versions", operation_id = "create_agent_version", tag = "Agents",
    params(AgentPath), request_body = VersionIn,
    responses((status = 200, description = "The draft.", body = AgentVersionOut,
        headers(("Location" = String, description = "Path of the version."))),
        (status = 400, description = "A limit of the agent stands against it.", body = crate::error::ErrorOut)))]
async fn create(
    caller: Caller<AgentsManage>,
    At(path): At<AgentPath>,
    State(state): State<ApiState>,
    Body(body): Body<VersionIn>,
) -> Result<impl IntoResponse, ApiError> {
    let (organization, id) = (caller.organization, path.id.0);
    let one = |field: &str, rule: &str| ApiError::body(Invalid::field(field, rule));
    let made = match (body.config, body.base_version) {
        (Some(_), Some(_)) => return Err(one("base_version", "cannot be given together with config")),
        (None, None) => return Err(one("config", "or base_version is required")),
        (Some(raw), None) => {
            let config = agent_config::read("config", &raw)?;
            state.store.create_version(organization, id, config).await.map_err(of(AGENT))
        }
        (None, Some(base)) if base < 1 => return Err(one("base_version", "must be 1 or more")),
        (None, Some(base)) => {
            state.store.agent(organization, id).await.map_err(of(AGENT))?;
            state.store.copy_version(organization, id, base).await.map_err(of(VERSION))
        }
    };
    let (version, sequence) = made?;
    state.in_force(sequence).await?;
    let path = format!("/core/agents/{id}/versions/{}", version.version);
    Ok((super::location(path), Tagged(version.updated_at, AgentVersionOut::from(version))))
}

/// Changes a draft's config.
#[utoipa::path(put, path = "/core/agents/{id}/versions/{version}", operation_id = "update_agent_version",
    tag = "Agents", params(VersionPath), request_body = VersionUpdateIn,
    responses((status = 200, description = "The draft.", body = AgentVersionOut),
        (status = 400, description = "The version is published.", body = crate::error::ErrorOut)))]
async fn update(
    caller: Caller<AgentsManage>,
    At(path): At<VersionPath>,
    State(state): State<ApiState>,
    IfMatch(precondition): IfMatch,
    Body(body): Body<VersionUpdateIn>,
) -> Result<Tagged<AgentVersionOut>, ApiError> {
    let config = agent_config::read_change("config", &body.config)?;
    let (organization, id) = (caller.organization, path.id.0);
    state.store.agent(organization, id).await.map_err(of(AGENT))?;
    let key = path.version.0.into();
    let version = state.store.agent_version(organization, id, key).await.map_err(of(VERSION))?;
    let changed = state.store.update_version(organization, id, version.version, config, &precondition).await;
    let (version, sequence) = changed.map_err(of(VERSION))?;
    state.in_force(sequence).await?;
    Ok(Tagged(version.updated_at, version.into()))
}

pub(super) fn routes() -> Routes {
    operations!(list, get, create, update).parameter::<VersionKeyText>()
}
