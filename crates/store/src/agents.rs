//! Agents and their SIP deployment.

use model::{Agent, AgentId, OrganizationId, PhoneNumber, Timestamp};
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use crate::page::{MAX_SCANS, Page, SCAN_ROWS, Times, contains, folded, push_name, push_page};
use crate::phone_numbers::number;
use crate::precondition::later_than;
use crate::sqlite::log;
use crate::{Precondition, Seq, Store, StoreError};

/// An agent to make.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewAgent {
    pub name: String,
    pub description: Option<String>,
    pub active: bool,
    pub is_demo: bool,
    pub metadata: Value,
}

/// What to change; `None` keeps.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct AgentUpdate {
    pub name: Option<String>,
    pub description: Option<Option<String>>,
    pub active: Option<bool>,
    pub is_demo: Option<bool>,
    pub metadata: Option<Value>,
}

/// Which agents to list.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct AgentFilter {
    pub name: Option<String>,
    pub active: Option<bool>,
    pub is_demo: Option<bool>,
    pub metadata: Option<Value>,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    pub updated_after: Option<Timestamp>,
    pub updated_before: Option<Timestamp>,
}

/// What became of an agent's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct AgentStatistics {
    pub total: i64,
    pub active: i64,
    pub completed: i64,
    /// Seconds.
    pub total_duration: i64,
    /// Creation of the newest.
    pub last_conversation_at: Option<Timestamp>,
}

fn agent(row: &SqliteRow) -> Result<Agent, StoreError> {
    let corrupt = || StoreError::Corrupt("agent");
    let (id, organization, metadata): (String, String, String) =
        (row.try_get("id")?, row.try_get("organization_id")?, row.try_get("metadata")?);
    Ok(Agent {
        id: id.parse().map_err(|_| corrupt())?,
        organization_id: organization.parse().map_err(|_| corrupt())?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        active: row.try_get("active")?,
        is_demo: row.try_get("is_demo")?,
        metadata: serde_json::from_str(&metadata).map_err(|_| corrupt())?,
        sip_deployed: row.try_get("sip_deployed")?,
        created_at: Timestamp(row.try_get("created_at")?),
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
}

impl Store {
    /// An organization's agents, newest first.
    pub async fn agents(
        &self,
        organization: OrganizationId,
        filter: AgentFilter,
        page: Page,
    ) -> Result<Vec<Agent>, StoreError> {
        let mut found = Vec::new();
        let mut page = page;
        let wanted = page.limit as usize;
        if filter.metadata.is_some() {
            page.limit = page.limit.max(SCAN_ROWS);
        }
        for _ in 0..MAX_SCANS {
            let mut query = QueryBuilder::new("SELECT * FROM agents WHERE organization_id = ");
            query.push_bind(organization.to_string());
            push_name(&mut query, filter.name.as_deref());
            if let Some(active) = filter.active {
                query.push(" AND active = ").push_bind(active);
            }
            if let Some(is_demo) = filter.is_demo {
                query.push(" AND is_demo = ").push_bind(is_demo);
            }
            let AgentFilter { created_after, created_before, updated_after, updated_before, .. } = filter;
            Times { created_after, created_before, updated_after, updated_before }.push(&mut query);
            push_page(&mut query, &page, "id");
            let rows = query.build().fetch_all(&self.read).await?;
            for row in &rows {
                let agent = agent(row)?;
                page.before = Some((agent.created_at, Some(agent.id.0)));
                if filter.metadata.as_ref().is_none_or(|part| contains(&agent.metadata, part))
                    && found.len() < wanted
                {
                    found.push(agent);
                }
            }
            if rows.len() < page.limit as usize || found.len() >= wanted {
                break;
            }
        }
        Ok(found)
    }

    /// One agent.
    pub async fn agent(&self, organization: OrganizationId, id: AgentId) -> Result<Agent, StoreError> {
        agent(&own_agent(&mut *self.read.acquire().await?, organization, id).await?)
    }

    /// Makes an agent.
    pub async fn create_agent(
        &self,
        organization: OrganizationId,
        new: NewAgent,
    ) -> Result<(Agent, Seq), StoreError> {
        let (id, now) = (AgentId::new(), Timestamp::now());
        let mut transaction = self.begin().await?;
        let row = sqlx::query("INSERT INTO agents (id, organization_id, name, description, active, is_demo, metadata, sip_deployed, created_at, updated_at, name_folded) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10) RETURNING *")
            .bind(id.to_string())
            .bind(organization.to_string())
            .bind(&new.name)
            .bind(&new.description)
            .bind(new.active)
            .bind(new.is_demo)
            .bind(new.metadata.to_string())
            .bind(false)
            .bind(now.0)
            .bind(folded(&new.name))
            .fetch_one(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "agent", &id.to_string()).await?;
        transaction.commit().await?;
        Ok((agent(&row)?, seq))
    }

    /// Changes an agent.
    pub async fn update_agent(
        &self,
        organization: OrganizationId,
        id: AgentId,
        change: AgentUpdate,
        precondition: &Precondition,
    ) -> Result<(Agent, Seq), StoreError> {
        let mut transaction = self.begin().await?;
        let old = agent(&own_agent(&mut transaction, organization, id).await?)?;
        precondition.check(old.updated_at)?;
        let name = change.name.unwrap_or(old.name);
        let row = sqlx::query("UPDATE agents SET name = $2, description = $3, active = $4, is_demo = $5, metadata = $6, updated_at = $7, name_folded = $8 WHERE id = $1 RETURNING *")
            .bind(id.to_string())
            .bind(&name)
            .bind(change.description.unwrap_or(old.description))
            .bind(change.active.unwrap_or(old.active))
            .bind(change.is_demo.unwrap_or(old.is_demo))
            .bind(change.metadata.unwrap_or(old.metadata).to_string())
            .bind(later_than(old.updated_at))
            .bind(folded(&name))
            .fetch_one(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "agent", &id.to_string()).await?;
        transaction.commit().await?;
        Ok((agent(&row)?, seq))
    }

    /// Deletes an agent and its versions; not while a number points at one of them.
    pub async fn delete_agent(
        &self,
        organization: OrganizationId,
        id: AgentId,
        precondition: &Precondition,
    ) -> Result<Seq, StoreError> {
        let mut transaction = self.begin().await?;
        let old = agent(&own_agent(&mut transaction, organization, id).await?)?;
        precondition.check(old.updated_at)?;
        let routed: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM inbound_routing WHERE fallback_agent_id = $1")
                .bind(id.to_string())
                .fetch_one(&mut *transaction)
                .await?;
        if routed > 0 {
            return Err(StoreError::Conflict(
                "The inbound routing falls back to the agent; change its fallback_agent_id first.".to_owned(),
            ));
        }
        let used: Option<String> = sqlx::query_scalar("SELECT phone_number FROM phone_numbers WHERE inbound_agent_version_id IN (SELECT id FROM agent_versions WHERE agent_id = $1) OR outbound_agent_version_id IN (SELECT id FROM agent_versions WHERE agent_id = $1) LIMIT 1")
            .bind(id.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        if let Some(used) = used {
            return Err(StoreError::Conflict(format!(
                "The phone number {used} still points at a version of the agent; unassign it first."
            )));
        }
        let versions: Vec<String> =
            sqlx::query_scalar("DELETE FROM agent_versions WHERE agent_id = $1 RETURNING id")
                .bind(id.to_string())
                .fetch_all(&mut *transaction)
                .await?;
        sqlx::query("DELETE FROM agents WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        for gone in versions {
            log(&mut transaction, "version", &gone).await?;
        }
        let seq = log(&mut transaction, "agent", &id.to_string()).await?;
        transaction.commit().await?;
        Ok(seq)
    }

    /// The numbers whose slots point at a version of the agent.
    pub async fn agent_numbers(
        &self,
        organization: OrganizationId,
        id: AgentId,
    ) -> Result<Vec<PhoneNumber>, StoreError> {
        let rows = sqlx::query("SELECT * FROM phone_numbers WHERE organization_id = $2 AND (inbound_agent_version_id IN (SELECT id FROM agent_versions WHERE agent_id = $1) OR outbound_agent_version_id IN (SELECT id FROM agent_versions WHERE agent_id = $1)) ORDER BY phone_number")
            .bind(id.to_string())
            .bind(organization.to_string())
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(number).collect()
    }

    /// Answers the agent's SIP URI from now on.
    pub async fn deploy_sip(&self, organization: OrganizationId, id: AgentId) -> Result<Seq, StoreError> {
        self.set_deployed(organization, id, true, &Precondition::None).await
    }

    /// Answers the agent's SIP URI no more.
    pub async fn undeploy_sip(
        &self,
        organization: OrganizationId,
        id: AgentId,
        precondition: &Precondition,
    ) -> Result<Seq, StoreError> {
        self.set_deployed(organization, id, false, precondition).await
    }

    async fn set_deployed(
        &self,
        organization: OrganizationId,
        id: AgentId,
        deployed: bool,
        precondition: &Precondition,
    ) -> Result<Seq, StoreError> {
        let mut transaction = self.begin().await?;
        let old = agent(&own_agent(&mut transaction, organization, id).await?)?;
        precondition.check(old.updated_at)?;
        let published: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM agent_versions WHERE agent_id = $1 AND published")
                .bind(id.to_string())
                .fetch_one(&mut *transaction)
                .await?;
        if deployed && published == 0 {
            return Err(StoreError::Conflict(
                "The agent has no published version; publish one before deploying it as a SIP endpoint."
                    .to_owned(),
            ));
        }
        let changed =
            if old.sip_deployed == deployed { old.updated_at.0 } else { later_than(old.updated_at) };
        sqlx::query("UPDATE agents SET sip_deployed = $2, updated_at = $3 WHERE id = $1")
            .bind(id.to_string())
            .bind(deployed)
            .bind(changed)
            .execute(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "agent", &id.to_string()).await?;
        transaction.commit().await?;
        Ok(seq)
    }

    /// What became of an agent's calls.
    pub async fn conversation_statistics(
        &self,
        organization: OrganizationId,
        id: AgentId,
    ) -> Result<AgentStatistics, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS total, COALESCE(SUM(CASE WHEN final THEN 0 ELSE 1 END), 0) AS active, COALESCE(SUM(CASE WHEN status = 'completed' THEN 1 ELSE 0 END), 0) AS completed, COALESCE(SUM(duration), 0) AS total_duration, MAX(created_at) AS newest FROM conversations WHERE organization_id = $1 AND agent_id = $2")
            .bind(organization.to_string())
            .bind(id.to_string())
            .fetch_one(&self.read)
            .await?;
        Ok(AgentStatistics {
            total: row.try_get("total")?,
            active: row.try_get("active")?,
            completed: row.try_get("completed")?,
            total_duration: row.try_get("total_duration")?,
            last_conversation_at: row.try_get::<Option<i64>, _>("newest")?.map(Timestamp),
        })
    }
}

pub(crate) async fn own_agent(
    connection: &mut SqliteConnection,
    organization: OrganizationId,
    id: AgentId,
) -> Result<SqliteRow, StoreError> {
    let query = sqlx::query("SELECT * FROM agents WHERE id = $1 AND organization_id = $2");
    Ok(query.bind(id.to_string()).bind(organization.to_string()).fetch_one(connection).await?)
}
