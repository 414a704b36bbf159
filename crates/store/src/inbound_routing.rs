//! An organization's inbound routing: one row at most. A webhook's secret stands sealed in a column of its own.

use model::inbound_routing::{InboundRouting, Workflow};
use model::{AgentId, OrganizationId, Secret, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use crate::precondition::later_than;
use crate::sqlite::log;
use crate::{Precondition, Seq, Store, StoreError};

const CORRUPT: StoreError = StoreError::Corrupt("inbound routing");

/// What is to stand.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct NewRouting {
    pub enabled: bool,
    pub workflow: Workflow,
    /// `None` keeps the secret there is.
    pub webhook_secret: Option<Secret>,
    pub fallback_agent_id: Option<AgentId>,
    pub timeout_ms: u32,
}

fn place(organization: &str) -> String {
    format!("{organization}|inbound_routing|webhook_secret|1")
}

fn routing(row: &SqliteRow, secret: Option<Secret>) -> Result<InboundRouting, StoreError> {
    let organization: String = row.try_get("organization_id")?;
    let workflow: String = row.try_get("workflow")?;
    let fallback: Option<String> = row.try_get("fallback_agent_id")?;
    let timeout: i64 = row.try_get("timeout_ms")?;
    Ok(InboundRouting {
        organization_id: organization.parse().map_err(|_| CORRUPT)?,
        enabled: row.try_get("enabled")?,
        workflow: serde_json::from_str(&workflow).map_err(|_| CORRUPT)?,
        webhook_secret: secret,
        fallback_agent_id: fallback.map(|id| id.parse()).transpose().map_err(|_| CORRUPT)?,
        timeout_ms: u32::try_from(timeout).map_err(|_| CORRUPT)?,
        created_at: Timestamp(row.try_get("created_at")?),
        updated_at: Timestamp(row.try_get("updated_at")?),
    })
}

async fn row(connection: &mut SqliteConnection, organization: &str) -> Result<Option<SqliteRow>, StoreError> {
    let query = sqlx::query("SELECT * FROM inbound_routing WHERE organization_id = $1");
    Ok(query.bind(organization).fetch_optional(connection).await?)
}

impl Store {
    /// The organization's routing. The webhook's secret stays sealed.
    pub async fn inbound_routing(&self, organization: OrganizationId) -> Result<InboundRouting, StoreError> {
        let mut connection = self.read.acquire().await?;
        let found = row(&mut connection, &organization.to_string()).await?.ok_or(StoreError::NotFound)?;
        routing(&found, None)
    }

    /// The routing as the data plane needs it, its secret open. One whose secret does not open is not enabled: a
    /// webhook must never be asked unsigned.
    pub(crate) async fn open_routing(
        &self,
        connection: &mut SqliteConnection,
        organization: &str,
    ) -> Result<Option<InboundRouting>, StoreError> {
        let Some(found) = row(connection, organization).await? else { return Ok(None) };
        let sealed: Option<String> = found.try_get("webhook_secret")?;
        let Some(sealed) = sealed else { return routing(&found, None).map(Some) };
        let opened = match self.data_key(connection, organization).await {
            Ok(key) => key.open(&sealed, &place(organization)),
            Err(error) => Err(error),
        };
        match opened {
            Ok(secret) => routing(&found, Some(secret)).map(Some),
            Err(error) => {
                tracing::error!(%organization, %error, "the routing webhook's secret cannot be opened; routing is off");
                routing(&found, None).map(|routing| Some(InboundRouting { enabled: false, ..routing }))
            }
        }
    }

    /// Makes or replaces the routing. `true` when there was none before.
    pub async fn put_inbound_routing(
        &self,
        organization: OrganizationId,
        new: NewRouting,
        precondition: &Precondition,
    ) -> Result<(InboundRouting, bool, Seq), StoreError> {
        let owner = organization.to_string();
        let mut transaction = self.begin().await?;
        let old = row(&mut transaction, &owner).await?;
        let old_at = old.as_ref().map(|old| old.try_get("updated_at").map(Timestamp)).transpose()?;
        match old_at {
            Some(at) => precondition.check(at)?,
            None if *precondition != Precondition::None => return Err(StoreError::Changed),
            None => {}
        }
        if let Some(agent) = new.fallback_agent_id {
            sqlx::query("SELECT id FROM agents WHERE id = $1 AND organization_id = $2")
                .bind(agent.to_string())
                .bind(&owner)
                .fetch_one(&mut *transaction)
                .await?;
        }
        let secret: Option<String> = match (&new.workflow, &new.webhook_secret) {
            (Workflow::Rules { .. }, _) => None,
            (Workflow::Webhook { .. }, Some(secret)) => {
                Some(self.data_key(&mut transaction, &owner).await?.seal(secret, &place(&owner))?)
            }
            (Workflow::Webhook { .. }, None) => {
                old.as_ref().map(|old| old.try_get("webhook_secret")).transpose()?.flatten()
            }
        };
        let workflow = serde_json::to_string(&new.workflow).map_err(|_| CORRUPT)?;
        let now = old_at.map_or_else(|| Timestamp::now().0, later_than);
        let written = sqlx::query("INSERT INTO inbound_routing (organization_id, enabled, workflow, webhook_secret, fallback_agent_id, timeout_ms, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7) ON CONFLICT (organization_id) DO UPDATE SET enabled = excluded.enabled, workflow = excluded.workflow, webhook_secret = excluded.webhook_secret, fallback_agent_id = excluded.fallback_agent_id, timeout_ms = excluded.timeout_ms, updated_at = excluded.updated_at RETURNING *")
            .bind(&owner)
            .bind(new.enabled)
            .bind(workflow)
            .bind(secret)
            .bind(new.fallback_agent_id.map(|id| id.to_string()))
            .bind(i64::from(new.timeout_ms))
            .bind(now)
            .fetch_one(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "organization", &owner).await?;
        transaction.commit().await?;
        Ok((routing(&written, None)?, old_at.is_none(), seq))
    }

    /// Whether a webhook secret is on file, so that a new webhook needs none.
    pub async fn has_webhook_secret(&self, organization: OrganizationId) -> Result<bool, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM inbound_routing WHERE organization_id = $1 AND webhook_secret IS NOT NULL",
        )
        .bind(organization.to_string())
        .fetch_one(&self.read)
        .await?;
        Ok(count > 0)
    }

    /// Deletes the routing: numbers' own slots answer again.
    pub async fn delete_inbound_routing(
        &self,
        organization: OrganizationId,
        precondition: &Precondition,
    ) -> Result<Seq, StoreError> {
        let owner = organization.to_string();
        let mut transaction = self.begin().await?;
        let old = row(&mut transaction, &owner).await?.ok_or(StoreError::NotFound)?;
        precondition.check(Timestamp(old.try_get("updated_at")?))?;
        sqlx::query("DELETE FROM inbound_routing WHERE organization_id = $1")
            .bind(&owner)
            .execute(&mut *transaction)
            .await?;
        let seq = log(&mut transaction, "organization", &owner).await?;
        transaction.commit().await?;
        Ok(seq)
    }
}
