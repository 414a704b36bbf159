//! Secrets in an agent's config (a bot's signing secret, a model's API key): they stand sealed in a column of their
//! own, and only the data plane reads them.

use std::collections::BTreeMap;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use model::{AgentConfig, AgentVersion, AgentVersionId, OrganizationId, Secret};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use crate::agent_versions::version;
use crate::{Store, StoreError};

fn place(organization: &str, version: AgentVersionId) -> String {
    format!("{organization}|agent_versions|{version}|secrets|1")
}

impl Store {
    /// The secrets of a config as they rest in the row of a version; `None` when it has none.
    pub(crate) async fn seal_config(
        &self,
        connection: &mut SqliteConnection,
        organization: &str,
        id: AgentVersionId,
        config: &AgentConfig,
    ) -> Result<Option<String>, StoreError> {
        let secrets: BTreeMap<&str, &str> =
            config.secrets().into_iter().map(|(name, secret)| (name, secret.expose())).collect();
        if secrets.is_empty() {
            return Ok(None);
        }
        let text = serde_json::to_string(&secrets).map_err(|_| StoreError::Corrupt("agent secrets"))?;
        let key = self.data_key(connection, organization).await?;
        key.seal(&Secret::new(text), &place(organization, id)).map(Some)
    }

    /// A version as the data plane needs it, its secrets open.
    pub(crate) async fn open_version(
        &self,
        connection: &mut SqliteConnection,
        organization: &str,
        row: &SqliteRow,
    ) -> Result<AgentVersion, StoreError> {
        let mut version = version(row)?;
        let sealed: Option<String> = row.try_get("secrets")?;
        if let Some(sealed) = sealed {
            let key = self.data_key(connection, organization).await?;
            let text = key.open(&sealed, &place(organization, version.id))?;
            let secrets: BTreeMap<String, Secret> =
                serde_json::from_str(text.expose()).map_err(|_| StoreError::Corrupt("agent secrets"))?;
            for (name, value) in secrets {
                version.config.set_secret(&name, value);
            }
        }
        Ok(version)
    }

    /// Whether `secret` is the one that the runtime of a version signs with.
    pub async fn is_agent_secret(
        &self,
        organization: OrganizationId,
        id: AgentVersionId,
        secret: &Secret,
    ) -> Result<bool, StoreError> {
        let mut connection = self.read.acquire().await?;
        let row = sqlx::query("SELECT v.* FROM agent_versions v JOIN agents a ON a.id = v.agent_id WHERE v.id = $1 AND a.organization_id = $2")
            .bind(id.to_string())
            .bind(organization.to_string())
            .fetch_one(&mut *connection)
            .await?;
        let version = self.open_version(&mut connection, &organization.to_string(), &row).await?;
        let own = version.config.runtime.secrets().into_iter().find(|(name, _)| *name == "secret");
        Ok(own.is_some_and(|(_, own)| {
            verify_slices_are_equal(own.expose().as_bytes(), secret.expose().as_bytes()).is_ok()
        }))
    }
}
