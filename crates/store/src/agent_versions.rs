//! Versions of agents, and publishing them.

use model::{
    AgentConfig, AgentId, AgentVersion, AgentVersionId, E164, OrganizationId, PhoneNumber, Timestamp,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use crate::agents::own_agent;
use crate::page::{Page, Times, push_page};
use crate::phone_numbers::number;
use crate::precondition::later_than;
use crate::sqlite::log;
use crate::{Precondition, Seq, Store, StoreError};

/// Which versions to list.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct VersionFilter {
    pub version: Option<i64>,
    pub published: Option<bool>,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    pub updated_after: Option<Timestamp>,
    pub updated_before: Option<Timestamp>,
}

/// A version by number, or the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum VersionRef {
    Number(i64),
    Latest,
}

/// Which slots publish writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum PublishDirection {
    #[default]
    Inbound,
    Outbound,
    Both,
}

/// What publish writes besides the version itself.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Publish {
    pub phone_numbers: Vec<E164>,
    pub unassign: Vec<E164>,
    pub direction: PublishDirection,
}

pub(crate) fn version(row: &SqliteRow) -> Result<AgentVersion, StoreError> {
    let corrupt = || StoreError::Corrupt("agent version");
    let (id, agent, config): (String, String, String) =
        (row.try_get("id")?, row.try_get("agent_id")?, row.try_get("config")?);
    let published_at: Option<i64> = row.try_get("published_at")?;
    Ok(AgentVersion {
        id: id.parse().map_err(|_| corrupt())?,
        agent_id: agent.parse().map_err(|_| corrupt())?,
        version: row.try_get("version")?,
        published: row.try_get("published")?,
        published_at: published_at.map(Timestamp),
        config: serde_json::from_str(&config).map_err(|_| corrupt())?,
        created_at: Timestamp(row.try_get("created_at")?),
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
}

fn config_text(config: &AgentConfig) -> Result<String, StoreError> {
    serde_json::to_string(config).map_err(|_| StoreError::Corrupt("agent config"))
}

const VERSIONS: &str =
    "SELECT v.* FROM agent_versions v JOIN agents a ON a.id = v.agent_id WHERE a.organization_id = ";

impl Store {
    /// An agent's versions, newest first.
    pub async fn agent_versions(
        &self,
        organization: OrganizationId,
        id: AgentId,
        filter: VersionFilter,
        page: Page,
    ) -> Result<Vec<AgentVersion>, StoreError> {
        self.agent(organization, id).await?;
        let mut query = QueryBuilder::new("SELECT * FROM agent_versions WHERE agent_id = ");
        query.push_bind(id.to_string());
        if let Some(version) = filter.version {
            query.push(" AND version = ").push_bind(version);
        }
        if let Some(published) = filter.published {
            query.push(" AND published = ").push_bind(published);
        }
        let VersionFilter { created_after, created_before, updated_after, updated_before, .. } = filter;
        Times { created_after, created_before, updated_after, updated_before }.push(&mut query);
        push_page(&mut query, &page, "id");
        let rows = query.build().fetch_all(&self.read).await?;
        rows.iter().map(version).collect()
    }

    /// One version of an agent.
    pub async fn agent_version(
        &self,
        organization: OrganizationId,
        id: AgentId,
        which: VersionRef,
    ) -> Result<AgentVersion, StoreError> {
        let mut query = QueryBuilder::new(VERSIONS);
        query.push_bind(organization.to_string()).push(" AND v.agent_id = ").push_bind(id.to_string());
        if let VersionRef::Number(number) = which {
            query.push(" AND v.version = ").push_bind(number);
        }
        query.push(" ORDER BY v.version DESC LIMIT 1");
        version(&query.build().fetch_one(&self.read).await?)
    }

    /// A version by its own id.
    pub async fn version_by_id(
        &self,
        organization: OrganizationId,
        id: AgentVersionId,
    ) -> Result<AgentVersion, StoreError> {
        let mut query = QueryBuilder::new(VERSIONS);
        query.push_bind(organization.to_string()).push(" AND v.id = ").push_bind(id.to_string());
        version(&query.build().fetch_one(&self.read).await?)
    }

    /// The version of an agent that was published last.
    pub async fn latest_published(
        &self,
        organization: OrganizationId,
        id: AgentId,
    ) -> Result<Option<AgentVersion>, StoreError> {
        let mut query = QueryBuilder::new(VERSIONS);
        query.push_bind(organization.to_string()).push(" AND v.agent_id = ").push_bind(id.to_string());
        query.push(" AND v.published ORDER BY v.published_at DESC, v.version DESC LIMIT 1");
        query.build().fetch_optional(&self.read).await?.as_ref().map(version).transpose()
    }

    /// Adds a draft.
    pub async fn create_version(
        &self,
        organization: OrganizationId,
        id: AgentId,
        config: AgentConfig,
    ) -> Result<(AgentVersion, Seq), StoreError> {
        let mut transaction = self.begin().await?;
        own_agent(&mut transaction, organization, id).await?;
        let made = self.insert_version(&mut transaction, organization, id, &config).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Adds a draft that copies a version, its secrets too.
    pub async fn copy_version(
        &self,
        organization: OrganizationId,
        id: AgentId,
        base: i64,
    ) -> Result<(AgentVersion, Seq), StoreError> {
        let mut transaction = self.begin().await?;
        own_agent(&mut transaction, organization, id).await?;
        let row = numbered(&mut transaction, id, base).await?;
        let base = self.open_version(&mut transaction, &organization.to_string(), &row).await?;
        let made = self.insert_version(&mut transaction, organization, id, &base.config).await?;
        transaction.commit().await?;
        Ok(made)
    }

    async fn insert_version(
        &self,
        connection: &mut SqliteConnection,
        organization: OrganizationId,
        id: AgentId,
        config: &AgentConfig,
    ) -> Result<(AgentVersion, Seq), StoreError> {
        let made = AgentVersionId::new();
        let secrets = self.seal_config(connection, &organization.to_string(), made, config).await?;
        let row = sqlx::query("INSERT INTO agent_versions (id, agent_id, version, published, config, secrets, created_at, updated_at) SELECT $1, $2, COALESCE(MAX(version), 0) + 1, $3, $4, $5, $6, $6 FROM agent_versions WHERE agent_id = $2 RETURNING *")
            .bind(made.to_string())
            .bind(id.to_string())
            .bind(false)
            .bind(config_text(config)?)
            .bind(secrets)
            .bind(Timestamp::now().0)
            .fetch_one(&mut *connection)
            .await?;
        let seq = log(connection, "version", &made.to_string()).await?;
        Ok((version(&row)?, seq))
    }

    /// The newest version when it is a draft; else a new draft that copies it.
    pub async fn ensure_draft(
        &self,
        organization: OrganizationId,
        id: AgentId,
    ) -> Result<(AgentVersion, Seq), StoreError> {
        let mut transaction = self.begin().await?;
        own_agent(&mut transaction, organization, id).await?;
        let row =
            sqlx::query("SELECT * FROM agent_versions WHERE agent_id = $1 ORDER BY version DESC LIMIT 1")
                .bind(id.to_string())
                .fetch_one(&mut *transaction)
                .await?;
        let newest = version(&row)?;
        if !newest.published {
            // Nothing changed: position 0 is in force everywhere.
            return Ok((newest, 0));
        }
        let newest = self.open_version(&mut transaction, &organization.to_string(), &row).await?;
        let made = self.insert_version(&mut transaction, organization, id, &newest.config).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// Changes a draft. Secrets that the config does not name are kept while the runtime's kind is.
    pub async fn update_version(
        &self,
        organization: OrganizationId,
        id: AgentId,
        key: i64,
        mut config: AgentConfig,
        precondition: &Precondition,
    ) -> Result<(AgentVersion, Seq), StoreError> {
        let mut transaction = self.begin().await?;
        own_agent(&mut transaction, organization, id).await?;
        let owner = organization.to_string();
        let old = numbered(&mut transaction, id, key).await?;
        let old = self.open_version(&mut transaction, &owner, &old).await?;
        precondition.check(old.updated_at)?;
        if old.published {
            return Err(StoreError::Refused(format!(
                "Version {} is published and cannot be changed; make a new version.",
                old.version
            )));
        }
        config.keep_secrets(&old.config);
        config
            .check_secrets()
            .map_err(|e| StoreError::Refused(format!("config.{}.", e.to_string().replace(": ", " "))))?;
        let secrets = self.seal_config(&mut transaction, &owner, old.id, &config).await?;
        let row = sqlx::query(
            "UPDATE agent_versions SET config = $2, updated_at = $3, secrets = $4 WHERE id = $1 RETURNING *",
        )
        .bind(old.id.to_string())
        .bind(config_text(&config)?)
        .bind(later_than(old.updated_at))
        .bind(secrets)
        .fetch_one(&mut *transaction)
        .await?;
        let seq = log(&mut transaction, "version", &old.id.to_string()).await?;
        transaction.commit().await?;
        Ok((version(&row)?, seq))
    }

    /// Publishes a version and writes the slots, all or nothing.
    pub async fn publish(
        &self,
        organization: OrganizationId,
        id: AgentId,
        key: i64,
        request: Publish,
    ) -> Result<(Vec<PhoneNumber>, Seq), StoreError> {
        let now = Timestamp::now().0;
        let mut transaction = self.begin().await?;
        own_agent(&mut transaction, organization, id).await?;
        let row = numbered(&mut transaction, id, key).await?;
        let published: String = row.try_get("id")?;
        sqlx::query(
            "UPDATE agent_versions SET published = $2, published_at = $3, updated_at = $3 WHERE id = $1",
        )
        .bind(&published)
        .bind(true)
        .bind(now)
        .execute(&mut *transaction)
        .await?;
        log(&mut transaction, "version", &published).await?;
        let (inbound, outbound) = match request.direction {
            PublishDirection::Inbound => (true, false),
            PublishDirection::Outbound => (false, true),
            PublishDirection::Both => (true, true),
        };
        let mut touched: Vec<&E164> = Vec::new();
        for (numbers, assign) in [(&request.unassign, false), (&request.phone_numbers, true)] {
            for key in numbers {
                for (column, wanted) in
                    [("inbound_agent_version_id", inbound), ("outbound_agent_version_id", outbound)]
                {
                    if wanted {
                        slot(
                            &mut transaction,
                            organization,
                            id,
                            key,
                            column,
                            assign.then_some(&published),
                            now,
                        )
                        .await?;
                    }
                }
                if !touched.contains(&key) {
                    touched.push(key);
                }
            }
        }
        let mut updated = Vec::new();
        for key in touched {
            log(&mut transaction, "number", key.as_str()).await?;
            let row = sqlx::query("SELECT * FROM phone_numbers WHERE phone_number = $1")
                .bind(key.as_str())
                .fetch_one(&mut *transaction)
                .await?;
            updated.push(number(&row)?);
        }
        let seq = log(&mut transaction, "agent", &id.to_string()).await?;
        transaction.commit().await?;
        Ok((updated, seq))
    }
}

async fn numbered(connection: &mut SqliteConnection, id: AgentId, key: i64) -> Result<SqliteRow, StoreError> {
    let query = sqlx::query("SELECT * FROM agent_versions WHERE agent_id = $1 AND version = $2");
    Ok(query.bind(id.to_string()).bind(key).fetch_one(connection).await?)
}

/// Writes or clears one slot; clearing touches only a slot held by a version of this agent.
async fn slot(
    connection: &mut SqliteConnection,
    organization: OrganizationId,
    agent: AgentId,
    key: &E164,
    column: &'static str,
    version: Option<&String>,
    now: i64,
) -> Result<(), StoreError> {
    let known: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM phone_numbers WHERE phone_number = $1 AND organization_id = $2",
    )
    .bind(key.as_str())
    .bind(organization.to_string())
    .fetch_one(&mut *connection)
    .await?;
    if known == 0 {
        return Err(StoreError::NotFound);
    }
    let mut query = QueryBuilder::new(format!("UPDATE phone_numbers SET {column} = "));
    query
        .push_bind(version.cloned())
        .push(", updated_at = CASE WHEN updated_at < ")
        .push_bind(now)
        .push(" THEN ")
        .push_bind(now)
        .push(" ELSE updated_at + 1 END")
        .push(" WHERE phone_number = ")
        .push_bind(key.as_str());
    if version.is_none() {
        query
            .push(format!(" AND {column} IN (SELECT id FROM agent_versions WHERE agent_id = "))
            .push_bind(agent.to_string())
            .push(")");
    }
    query.build().execute(connection).await?;
    Ok(())
}
